"""Couplings: some coordinates of a vector move the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.pytree import model, static
from jaxgen.nn.bijections.basics import check
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net

#: largest |log scale| of one coupling layer: a factor e^2 either way, so that one layer costs the inverse at most one
#: of float32's seven digits
BOUND = 2.0
#: from this many units on, networks see coordinates on a logarithmic scale; well outside of standardised data
REACH = 3.0


@model
class AffineCoupling:
    """The first coordinates of a vector shift and scale the others.

    `y_a = x_a`, `y_b = x_b exp(s) + t`, `log |det| = sum s`, with `(t, r) = net(u, context)`, `u = 3 asinh(x_a / 3)`,
    `s = bound tanh(r / bound)`. The network sees far coordinates on a logarithmic scale, so that shifts do not grow
    from layer to layer and float32 finds the way back: made for coordinates of about unit scale, as standardised data.

    Args:
        net: `[split + C] -> [2 (D - split)]`, the shifts `t` and the raw log-scales `r`; C is the context's size.
        size: D, the number of coordinates.
        split: how many coordinates stay as they are, 1 to D-1.
        bound: largest `|s|`, positive. A free log-scale lets the inverse lose all of float32's digits (Behrmann et
            al. 2021, Understanding and mitigating exploding inverses in invertible neural networks).
        context_shape: shape of one context, None without.

    Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, equations 7 and 8, with the tanh
    of their section 4.1.

    Example:
        >>> layer = AffineCoupling.init(jax.random.key(0), 3, features=(8,))
        >>> layer.forward(jnp.array([1.0, 2.0, 3.0]))[0].tolist()
        [1.0, 2.0, 3.0]
    """

    net: Any
    size: int = static()
    split: int = static()
    bound: float = static(BOUND)
    context_shape: tuple[int, ...] | None = static(None)

    @classmethod
    def init(
        cls, key, size: int, *, features: tuple[int, ...] = (128, 128), activation: Callable[[Any], Any] = jax.nn.silu,
        split: int | None = None, bound: float = BOUND, context_shape: tuple[int, ...] | None = None,
        dtype: Any = jnp.float32,
    ) -> AffineCoupling:  # fmt: skip
        """The identity: a network of widths `features` whose last layer starts at zero; `split` defaults to half.

        Raises:
            ModelError: fewer than two coordinates, or a split that leaves one side empty.
        """
        split = size // 2 if split is None else split
        if not 0 < split < size:
            raise ModelError(
                "a coupling layer splits its coordinates in two parts, one to move given the other",
                called=f"AffineCoupling.init(key, {size}, split={split})", expected="0 < split < size, so size >= 2",
                got=f"size {size}, split {split}",
                fix="for one coordinate use a mixture of Gaussians, or another layer than a coupling",
            )  # fmt: skip
        shape = None if context_shape is None else tuple(context_shape)
        inputs = split + (0 if shape is None else int(np.prod(shape)))
        module = MLP((*features, 2 * (size - split)), activation=activation, zero_last=True)
        return cls(Net.init(key, module, jnp.zeros(inputs, dtype)), size, split, bound, shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.size,)

    def _shift_and_log_scale(self, kept, context):
        seen = REACH * jnp.arcsinh(kept / REACH)
        if self.context_shape is not None:
            # in the event's dtype: a context of higher precision must not change the density's
            seen = jnp.concatenate([seen, jnp.ravel(context).astype(seen.dtype)])
        shift, raw = jnp.split(self.net(seen), 2)
        return shift, self.bound * jnp.tanh(raw / self.bound)

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward", x, context)
        kept, moved = jnp.split(x, [self.split])
        shift, log_scale = self._shift_and_log_scale(kept, context)
        return jnp.concatenate([kept, moved * jnp.exp(log_scale) + shift]), jnp.sum(log_scale)

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse", y, context)
        kept, moved = jnp.split(y, [self.split])
        shift, log_scale = self._shift_and_log_scale(kept, context)
        return jnp.concatenate([kept, (moved - shift) * jnp.exp(-log_scale)]), -jnp.sum(log_scale)

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)
