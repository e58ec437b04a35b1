"""Transforms: invertible maps of one number whose parameters a network gives.

A coupling or an autoregressive layer is a network and a transform. A transform is a small value, hashed by its options,
with `size`, the number of its parameters, and for arrays of numbers `forward(params, x)` from the base to the data and
`inverse(params, y)` back. `params` is `[size, *shape]` for numbers `[*shape]`; both return arrays `[*shape]`, the image
and the log-derivative of their own direction. At zero parameters a transform is the identity. `seen(x)` is what a
network sees of coordinates on its last axis, `features` numbers for each. Anything with these is a transform.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError
from jaxgen.core.files import loadable
from jaxgen.ops.logistics import logistic_mixture_logit
from jaxgen.ops.pieces import pieces
from jaxgen.ops.roots import bisect
from jaxgen.ops.splines import free_spline_forward, free_spline_inverse

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
        """Return a network's input, `[..., D] -> [..., features D]`: the first feature of each, then the second."""
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
        >>> [round(float(from_afar(x)), 2) for x in (0.0, 1.0, 1000.0)]
        [0.0, 0.98, 19.51]
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


def at_least(name: str, least: int, **options: int) -> None:
    """Refuses a count below the least."""
    for option, value in options.items():
        if not isinstance(value, int) or value < least:
            raise ModelError(
                "a transform has too few parts", called=f"{name}({option}={value})", got=repr(value),
                expected=f"{option} >= {least}, an int",
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
        """Return a network's input for these coordinates, far ones on a logarithmic scale."""
        return from_afar(x)

    def _shift_and_log_scale(self, params):
        (shift,), (raw,) = pieces(params, (1, 1))
        return shift, self.bound * jnp.tanh(raw / self.bound)

    def forward(self, params, x):
        """`y` and `log dy/dx`."""
        shift, log_scale = self._shift_and_log_scale(params)
        return x * jnp.exp(log_scale) + shift, log_scale

    def inverse(self, params, y):
        """`x` and `log dx/dy`."""
        shift, log_scale = self._shift_and_log_scale(params)
        return (y - shift) * jnp.exp(-log_scale), -log_scale


#: what layers use where no transform is named, and the frame of splines
AFFINE = AffineTransform()


@loadable
@dataclasses.dataclass(frozen=True)
class SplineTransform:
    """A monotone rational-quadratic spline of an interval onto itself, in a frame that moves: straight outside of it.

    `y = exp(s) spline(x) + t`, the frame `(t, s)` that of an `AffineTransform`

    The network moves the interval to where the coordinate is, given the others, so that a tail which leaves any fixed
    interval (that of `a^2 + noise` given a) is inside of it. Outside of the interval the map continues along the
    straight line `exp(s) x + t`, with the slope of the interval's ends.

    Args:
        bins: K, the number of pieces, 2 or more; there are 3 K + 1 parameters, the frame's last.
        bound: the interval is `[-bound, bound]`, in units of the layer's input. Data that a flow standardises lie
            within 5, see `Standardize`.

    Raises:
        ModelError: fewer than two bins, or a bound that is not positive.

    Source: Durkan et al. (2019), Neural spline flows; the bounds that make it exact in float32 are in `ops.splines`.

    Example:
        >>> y, log_slope = SplineTransform(4).forward(jnp.zeros(13), jnp.float32(2.0))
        >>> round(float(y), 5), round(float(log_slope), 5)
        (2.0, 0.0)
    """

    bins: int = 8
    bound: float = 5.0

    def __post_init__(self):
        positive("SplineTransform", bound=self.bound)
        at_least("SplineTransform", 2, bins=self.bins)

    @property
    def size(self) -> int:
        return 3 * self.bins + 1

    @property
    def features(self) -> int:
        return 1

    def seen(self, x):
        """Return a network's input for these coordinates, far ones on a logarithmic scale."""
        return from_afar(x)

    def forward(self, params, x):
        """`y` and `log dy/dx`."""
        spline, frame = pieces(params, (self.size - 2, 2))
        y, log_slope = free_spline_forward(spline, x, self.bound)
        y, log_scale = AFFINE.forward(frame, y)
        return y, log_slope + log_scale

    def inverse(self, params, y):
        """`x` and `log dx/dy`."""
        spline, frame = pieces(params, (self.size - 2, 2))
        y, log_scale = AFFINE.inverse(frame, y)
        x, log_slope = free_spline_inverse(spline, y, self.bound)
        return x, log_slope + log_scale


@loadable
@dataclasses.dataclass(frozen=True)
class CircularSplineTransform:
    """A spline of a circle onto itself, and a rotation: for angles in radians, from -pi to pi.

    `y = spline(x) + shift`, modulo 2 pi. The spline keeps the point pi and has one slope there. The network sees the
    cosine and the sine of an angle.

    Args:
        bins: K, the number of pieces, 2 or more; there are 3 K + 1 parameters.

    Raises:
        ModelError: fewer than two bins.

    Source: Rezende et al. (2020), Normalizing flows on tori and spheres, section 2.1.2.

    Example:
        >>> y, log_slope = CircularSplineTransform(4).forward(jnp.zeros(13).at[-1].set(1.0), jnp.float32(3.0))
        >>> round(float(y), 4), round(float(log_slope), 4)  # 4 - 2 pi
        (-2.2832, 0.0)
    """

    bins: int = 8
    #: what `support=circle` asks of a transform
    periodic = True

    def __post_init__(self):
        at_least("CircularSplineTransform", 2, bins=self.bins)

    @property
    def size(self) -> int:
        return 3 * self.bins + 1

    @property
    def features(self) -> int:
        return 2

    def seen(self, x):
        """Return a network's input for these angles: all cosines, then all sines."""
        return jnp.concatenate([jnp.cos(x), jnp.sin(x)], axis=-1)

    def forward(self, params, x):
        """`y` and `log dy/dx`."""
        spline, (shift,) = pieces(params, (self.size - 1, 1))
        y, log_slope = free_spline_forward(spline, _angle(x), math.pi, True)
        return _angle(y + shift), log_slope

    def inverse(self, params, y):
        """`x` and `log dx/dy`."""
        spline, (shift,) = pieces(params, (self.size - 1, 1))
        return free_spline_inverse(spline, _angle(y - shift), math.pi, True)


def _angle(x):
    return x - 2 * math.pi * jnp.round(x / (2 * math.pi))


@loadable
@dataclasses.dataclass(frozen=True)
class LogisticMixtureTransform:
    """The distribution function of a mixture of logistics, its logit, and an affine map: that of Flow++.

    `x exp(s) + t = logit sum_k w_k sigmoid((y - m_k) / d_k)`: from the data to the base in closed form, so that
    densities are fast; back by bisection.

    Args:
        components: K, 1 or more; there are 3 K + 2 parameters: log-weights, means, log-scales, t and s.

    Raises:
        ModelError: no components.

    Weights, means, scales and s are bounded (`|m| < 2`, `|log d| < 1`, `|s| < 2`): between narrow components far apart
    the map would be flat, and float32 would not find the way back.

    Source: Ho et al. (2019), Flow++, section 3.2.

    Example:
        >>> y, log_slope = LogisticMixtureTransform(3).forward(jnp.zeros(11), jnp.float32(2.0))
        >>> round(float(y), 4), round(abs(float(log_slope)), 4)
        (2.0, 0.0)
    """

    components: int = 8

    def __post_init__(self):
        at_least("LogisticMixtureTransform", 1, components=self.components)

    @property
    def size(self) -> int:
        return 3 * self.components + 2

    @property
    def features(self) -> int:
        return 1

    def seen(self, x):
        """Return a network's input for these coordinates, far ones on a logarithmic scale."""
        return from_afar(x)

    def _parts(self, params):
        k = self.components
        weights, means, scales, (shift,), (log_scale,) = pieces(params, (k, k, k, 1, 1))
        # at zero parameters all components are one; they part since each moves at a speed of its own
        speed = (2 * (1 + np.arange(k, dtype=params.dtype)) / (k + 1)).reshape((k,) + (1,) * shift.ndim)
        mixture = (
            jax.nn.log_softmax(2 * jnp.tanh(weights / 2), axis=0), 2 * jnp.tanh(speed * means / 2), jnp.tanh(scales),
        )  # fmt: skip
        return mixture, shift, 2 * jnp.tanh(log_scale / 2)

    def forward(self, params, x):
        """`y` and `log dy/dx`."""
        mixture, shift, log_scale = self._parts(params)
        y = bisect(lambda y: logistic_mixture_logit(y, *mixture)[0], x * jnp.exp(log_scale) + shift)
        return y, log_scale - logistic_mixture_logit(y, *mixture)[1]

    def inverse(self, params, y):
        """`x` and `log dx/dy`."""
        mixture, shift, log_scale = self._parts(params)
        x, log_slope = logistic_mixture_logit(y, *mixture)
        return (x - shift) * jnp.exp(-log_scale), log_slope - log_scale
