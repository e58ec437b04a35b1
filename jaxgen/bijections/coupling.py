"""Couplings: some coordinates of an event move the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.basics import check, context_size, example, with_context
from jaxgen.bijections.transforms import AFFINE, Transform
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.pytree import model, static
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net


@model
class Coupling:
    """The first coordinates of the last axis choose how each of the others is transformed.

    `y_a = x_a`, `y_b = T(x_b; net(x_a, context))`, `log |det| = sum log T'`

    An event is a vector, or an image whose channels are split alike in every pixel.

    Args:
        net: `[*lead, transform.features * split + C] -> [*lead, transform.size * (D - split)]`, the first parameter of
            all moved coordinates, then the second; C is the context's size.
        transform: what moves a coordinate; it also says what the network sees of one.
        event_shape: `[*lead, D]`.
        split: how many coordinates stay as they are, 1 to D-1.
        context_shape: shape of one context, None without.

    Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, equation 7; Durkan et al. (2019),
    Neural spline flows, section 3, for other transforms.

    Example:
        >>> layer = Coupling.init(jax.random.key(0), jnp.zeros((1, 3)), features=(8,))
        >>> layer.forward_and_log_det(jnp.array([1.0, 2.0, 3.0]))[0].tolist()
        [1.0, 2.0, 3.0]
    """

    net: Any
    transform: Transform = static()
    event_shape: tuple[int, ...] = static()
    split: int = static()
    context_shape: tuple[int, ...] | None = static(default=None)

    @classmethod
    def init(
        cls, key, x, transform: Transform = AFFINE, *, features: tuple[int, ...] = (128, 128),
        activation: Callable[[Any], Any] = jax.nn.silu, split: int | None = None,
        context_shape: tuple[int, ...] | None = None, network: Callable[[int], Any] | None = None,
    ) -> Coupling:  # fmt: skip
        """The identity: a network of widths `features` whose last layer starts at zero.

        Args:
            key: typed key.
            x: events `[N, *lead, D]`, for their shape and dtype, or the shape of one, `(*lead, D)`.
            transform: `AffineTransform()`, `SplineTransform()`, ...
            features: hidden widths of the network, which sees one pixel of an image.
            activation: of the network, a module-level function.
            split: how many coordinates stay as they are; None is half of them.
            context_shape: shape of one context for a conditional layer.
            network: for another network than an MLP, such as one of convolutions, `outputs -> linen module` from
                `[*lead, inputs]` to `[*lead, outputs]`. The layer starts as the identity if the module starts at zero.

        Raises:
            ModelError: fewer than two coordinates, or a split that leaves one side empty.
        """
        x = example(x)
        size = x.shape[-1] if x.ndim > 1 else 1
        split = size // 2 if split is None else split
        if not 0 < split < size:
            raise ModelError(
                "a coupling layer splits its coordinates in two parts, one to move given the other",
                called=f"Coupling.init(key, x [N, {size}], split={split})", got=f"size {size}, split {split}",
                expected="0 < split < size, so size >= 2",
                fix="for one coordinate use Autoregressive, or a mixture of Gaussians",
            )  # fmt: skip
        outputs = transform.size * (size - split)
        module = (
            MLP((*features, outputs), activation=activation, zero_last=True) if network is None else network(outputs)
        )
        inputs = transform.features * split + context_size(context_shape)
        net = Net.init(key, module, jnp.zeros((*x.shape[1:-1], inputs), x.dtype))
        shape = None if context_shape is None else tuple(context_shape)
        return cls(net, transform, tuple(map(int, x.shape[1:])), split, shape)

    def _split(self, x, context):
        kept, moved = jnp.split(x, [self.split], axis=-1)
        params = self.net(with_context(self.transform.seen(kept), context))
        params = params.reshape((*moved.shape[:-1], self.transform.size, moved.shape[-1]))
        return kept, moved, jnp.moveaxis(params, -2, 0)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        kept, moved, params = self._split(x, context)
        moved, log_slope = self.transform.forward(params, moved)
        return jnp.concatenate([kept, moved], axis=-1), jnp.sum(log_slope)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        kept, moved, params = self._split(y, context)
        moved, log_slope = self.transform.inverse(params, moved)
        return jnp.concatenate([kept, moved], axis=-1), jnp.sum(log_slope)

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)
