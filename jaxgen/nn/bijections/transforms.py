"""Transforms: invertible maps of one number whose parameters a network gives.

A coupling or an autoregressive layer is a network and a transform. A transform is a small value, hashed by its options,
with `size`, the number of its parameters, and for arrays of numbers `forward(params, x)` from the base to the data and
`inverse(params, y)` back. `params` is `[size, *shape]` for numbers `[*shape]`; both return arrays `[*shape]`, the image
and the log-derivative of their own direction. At zero parameters a transform is the identity. `seen(x)` is what a
network sees of coordinates on its last axis, `features` numbers for each. Anything with these is a transform.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.files import loadable

#: from this many units on, networks see coordinates on a logarithmic scale; well outside of standardised data
REACH = 3.0


@runtime_checkable
class Transform(Protocol):
    """An invertible map of one number with parameters."""

    @property
    def size(self) -> int: ...

    @property
    def features(self) -> int: ...

    def seen(self, x: Any) -> jax.Array:
        """What a network sees, `[..., D] -> [..., features D]`: the first features of all, then the second."""
        ...

    def forward(self, params: Any, x: Any) -> tuple[jax.Array, jax.Array]:
        """From the base to the data: `y` and `log dy/dx`."""
        ...

    def inverse(self, params: Any, y: Any) -> tuple[jax.Array, jax.Array]:
        """From the data to the base: `x` and `log dx/dy`."""
        ...


def from_afar(x: Any) -> jax.Array:
    """Numbers of about unit scale as they are, far ones on a logarithmic scale: `3 asinh(x / 3)`.

    What a network makes of them then does not grow from layer to layer, and float32 finds the way back. Made for
    coordinates of about unit scale, as standardised data.

    Example:
        >>> from_afar(jnp.array([0.0, 1.0, 1000.0])).round(2).tolist()
        [0.0, 0.9800000190734863, 19.510000228881836]
    """
    return REACH * jnp.arcsinh(x / REACH)


def positive(name: str, **options: float) -> None:
    """Refuses an option that is no positive finite number."""
    for option, value in options.items():
        if not 0 < value < float("inf"):
            raise ModelError(
                "a transform's size is a positive number", called=f"{name}({option}={value})", expected=f"{option} > 0",
                got=str(value),
            )  # fmt: skip


@loadable
@dataclasses.dataclass(frozen=True)
class AffineTransform:
    """A shift and a bounded scale.

    `y = x exp(s) + t`, `s = bound tanh(r / bound)`, parameters `(t, r)`

    Args:
        bound: largest `|s|`, positive. The default is a factor e^2 either way, so that one layer costs the inverse at
            most one of float32's seven digits. A free log-scale lets it lose all of them (Behrmann et al. 2021,
            Understanding and mitigating exploding inverses in invertible neural networks).

    Raises:
        ModelError: a bound that is not positive.

    Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, equation 8, with the tanh of
    their section 4.1.

    Example:
        >>> y, log_slope = AffineTransform().forward(jnp.array([1.0, 0.0]), jnp.float32(2.0))
        >>> float(y), float(log_slope)
        (3.0, 0.0)
    """

    bound: float = 2.0

    def __post_init__(self):
        positive("AffineTransform", bound=self.bound)

    @property
    def size(self) -> int:
        return 2

    @property
    def features(self) -> int:
        return 1

    def seen(self, x):
        """What a network sees of coordinates."""
        return from_afar(x)

    def _shift_and_log_scale(self, params):
        shift, raw = params
        return shift, self.bound * jnp.tanh(raw / self.bound)

    def forward(self, params, x):
        """`y` and `log dy/dx`."""
        shift, log_scale = self._shift_and_log_scale(params)
        return x * jnp.exp(log_scale) + shift, log_scale

    def inverse(self, params, y):
        """`x` and `log dx/dy`."""
        shift, log_scale = self._shift_and_log_scale(params)
        return (y - shift) * jnp.exp(-log_scale), -log_scale


#: what layers use where no transform is named
AFFINE = AffineTransform()
