"""Autoregressive layers: each coordinate moves given those before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.basics import check, context_size, vectors, with_context
from jaxgen.bijections.transforms import AFFINE, Transform
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.pytree import model, static
from jaxgen.nn.made import MADE
from jaxgen.nn.net import Net
from jaxgen.ops.roots import fixed_point


@model
class Autoregressive:
    """Each coordinate is transformed as those before it choose.

    `y_d = T(x_d; net(y_<d, context))`, `log |det| = sum log T'`

    From the data to the base, the inverse, it is one pass of the network, so that densities are fast: a masked
    autoregressive flow. `Inverse(layer)` is the inverse autoregressive flow, whose samples are fast.

    The other direction, forward, is a fixed point of all coordinates at once: k passes give the first k coordinates
    exactly, so D are enough, and where nothing changes any more it ends, mostly far earlier. Its derivatives come from
    the implicit function theorem.

    Args:
        net: `[transform.features * D + C] -> [transform.size * D]`, masked: the outputs for coordinate d depend on the
            coordinates before d and on the context, of size C.
        transform: what moves a coordinate; it also says what the network sees of one.
        event_shape: `(D,)`.
        context_shape: shape of one context, None without.

    Source: Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow for density estimation; Kingma et al.
    (2016), Improving variational inference with inverse autoregressive flow; Song, Meng, Liao and Ermon (2021),
    Accelerating feedforward computation via parallel nonlinear equation solving, for the fixed point.

    Example:
        >>> layer = Autoregressive.init(jax.random.key(0), jnp.zeros((1, 3)), features=(8,))
        >>> layer.forward_and_log_det(jnp.array([1.0, 2.0, 3.0]))[0].tolist()
        [1.0, 2.0, 3.0]
    """

    net: Any
    transform: Transform = static()
    event_shape: tuple[int, ...] = static()
    context_shape: tuple[int, ...] | None = static(default=None)

    @classmethod
    def init(
        cls, key, x, transform: Transform = AFFINE, *, features: tuple[int, ...] = (128, 128),
        activation: Callable[[Any], Any] = jax.nn.silu, context_shape: tuple[int, ...] | None = None,
    ) -> Autoregressive:  # fmt: skip
        """The identity: a masked network of widths `features` whose last layer starts at zero.

        Args:
            key: typed key.
            x: events `[N, D]`, for their shape and dtype, or the shape `(D,)` of one; D may be 1.
            transform: `AffineTransform()`, `SplineTransform()`, ...
            features: hidden widths of the network.
            activation: of the network, a module-level function.
            context_shape: shape of one context for a conditional layer.

        Raises:
            ShapeError: events that are no vectors. ModelError: a hidden layer without units.
        """
        size, dtype = vectors(x, "Autoregressive.init(key, x)")
        if min(features, default=1) < 1:
            raise ModelError(
                "a hidden layer needs units", called=f"Autoregressive.init(key, x, features={features})",
                expected="widths >= 1", got=str(features),
            )  # fmt: skip
        context = context_size(context_shape)
        module = MADE(size, tuple(features), transform.size, transform.features, context, activation)
        net = Net.init(key, module, jnp.zeros(transform.features * size + context, dtype))
        return cls(net, transform, (size,), None if context_shape is None else tuple(context_shape))

    def _params(self, y, context):
        params = self.net(with_context(self.transform.seen(y), context))
        return params.reshape((self.transform.size, *y.shape))

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        # D passes are exact, and one sees that nothing changes
        steps = self.event_shape[0] + 1
        y = fixed_point(lambda y: self.transform.forward(self._params(y, context), x)[0], x, steps=steps, settle=False)
        # one more pass, which makes it exact, and on which the derivative of the log-determinant takes its way
        y, log_slope = self.transform.forward(self._params(y, context), x)
        return y, jnp.sum(log_slope)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        x, log_slope = self.transform.inverse(self._params(y, context), y)
        return x, jnp.sum(log_slope)

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)
