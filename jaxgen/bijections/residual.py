"""Invertible residual blocks: the identity plus a contraction."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.basics import check, context_size, vectors
from jaxgen.bijections.linear import matmul
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.methods import check_key
from jaxgen.core.pytree import model, static
from jaxgen.ops.linalg import log_det, spectral_bound
from jaxgen.ops.roots import fixed_point

#: `x sigmoid(beta x)` has no slope above this, for any beta (Chen et al. 2019, section 3.3)
STEEPEST = 1.1


@model
class Contraction:
    """A network whose Lipschitz constant is below one by construction.

    `g(x) = W_n act(... act(W_1 x + V context + b_1) ...) + b_n`, `act(x) = x sigmoid(beta x) / 1.1`,
    `|W_n|_2 ... |W_1|_2 <= bound`

    Args:
        weights: raw matrices `[D, H_1]`, ..., `[H_n-1, D]`. One whose norm is above `bound^(1/n)` is scaled down to it;
            the norm is `spectral_bound`, at most two percent too large, so that the bound holds without a state such as
            that of a power iteration.
        biases: `[H_1]`, ..., `[D]`.
        log_sharpness: `[n - 1]`, of the activations; beta is its exponential.
        seen: V, `[C, H_1]`, free; None without a context.
        bound: of the Lipschitz constant in x, between 0 and 1.

    Source: Behrmann et al. (2019), Invertible residual networks, equation 2; Chen et al. (2019), Residual flows for
    invertible generative modeling, section 3.3 (LipSwish).

    Example:
        >>> net = Contraction.init(jax.random.key(0), jnp.zeros((1, 2)), features=(8,))
        >>> net.given(None)(jnp.ones(2)).tolist()
        [0.0, 0.0]
    """

    weights: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]
    log_sharpness: jax.Array
    seen: jax.Array | None
    bound: float = static()

    @classmethod
    def init(
        cls, key, x, *, features: tuple[int, ...] = (64, 64), bound: float = 0.9, context: int = 0
    ) -> Contraction:  # fmt: skip
        """The constant zero, for events like x, `[N, D]` or the shape `(D,)` of one, and contexts of so many numbers.

        Raises:
            ModelError: no hidden layer, or a bound outside of 0 and 1. ShapeError: events that are no vectors.
        """
        check_key(key, "Contraction.init")
        size, dtype = vectors(x, "Contraction.init(key, x)")
        if not 0 < bound < 1 or not features or min(features) < 1:
            raise ModelError(
                "that is no contraction", called=f"Contraction.init(key, x, features={features}, bound={bound})",
                expected="one or more hidden layers, 0 < bound < 1", got=f"features {features}, bound {bound}",
            )  # fmt: skip
        sizes, start = (size, *features, size), jax.nn.initializers.lecun_normal()
        first, *keys = jax.random.split(key, len(sizes))
        # the last layer is zero
        shapes = zip(sizes, features, strict=False)
        weights = tuple(start(k, shape, dtype) for k, shape in zip(keys, shapes, strict=False))
        weights += (jnp.zeros((features[-1], size), dtype),)
        seen = start(first, (context, features[0]), dtype) if context else None
        return cls(weights, tuple(jnp.zeros(n, dtype) for n in sizes[1:]), jnp.zeros(len(features), dtype), seen, bound)

    def given(self, context: Any) -> Any:
        """The function `x -> g(x)` for one context: what does not depend on x is computed once."""
        largest = self.bound ** (1 / len(self.weights))
        weights = [w * (largest / jnp.maximum(largest, spectral_bound(w))) for w in self.weights]
        biases, sharpness = list(self.biases), jnp.exp(self.log_sharpness)
        if self.seen is not None:
            biases[0] = biases[0] + matmul(jnp.ravel(context).astype(self.seen.dtype), self.seen)

        def net(x):
            for i, (weight, bias) in enumerate(zip(weights[:-1], biases, strict=False)):
                x = matmul(x, weight) + bias
                x = x * jax.nn.sigmoid(sharpness[i] * x) / STEEPEST
            return matmul(x, weights[-1]) + biases[-1]

        return net


@model
class Residual:
    """The identity and a contraction.

    `y = x + g(x, context)`, `log |det| = log |det(I + dg/dx)|`

    Args:
        net: the contraction: `net.given(context)` is the function g, with a Lipschitz constant in x of no more than
            `L = net.bound`, below one.
        size: D, the number of coordinates.
        context_shape: shape of one context, None without.

    The log-determinant is exact: that of the D by D Jacobian, from D forward derivatives and `2 D^3` multiplications.
    There is no power series with a remainder and no random estimate, and `log_prob` needs no key; made for up to a
    hundred coordinates. The inverse is a fixed point, `x = y - g(x)`, at most `log(1e-7) / log L` evaluations (153 for
    0.9, usually a few tens), and loses a factor `1 / (1 - L)` of precision; where it does not converge it is NaN. For a
    fit to data wrap the layer in `Inverse`, so that a density takes the direct way and only samples the iteration.

    Source: Behrmann et al. (2019), Invertible residual networks; Chen et al. (2019), Residual flows for invertible
    generative modeling.

    Example:
        >>> layer = Residual.init(jax.random.key(0), jnp.zeros((1, 2)), features=(8,))
        >>> layer.forward_and_log_det(jnp.ones(2))[0].tolist()
        [1.0, 1.0]
    """

    net: Any
    size: int = static()
    context_shape: tuple[int, ...] | None = static(default=None)

    @classmethod
    def init(
        cls, key, x, *, features: tuple[int, ...] = (64, 64), bound: float = 0.9,
        context_shape: tuple[int, ...] | None = None,
    ) -> Residual:  # fmt: skip
        """The identity, for events like x, `[N, D]` or the shape `(D,)` of one.

        Args:
            key: typed key.
            x: events, for their shape and dtype, or the shape `(D,)` of one.
            features: hidden widths of the contraction.
            bound: of its Lipschitz constant, between 0 and 1: larger bends more and inverts slower.
            context_shape: shape of one context for a conditional layer.

        Raises:
            ModelError: no hidden layer, or a bound outside of 0 and 1. ShapeError: events that are no vectors.
        """
        shape = None if context_shape is None else tuple(context_shape)
        net = Contraction.init(key, x, features=tuple(features), bound=bound, context=context_size(shape))
        return cls(net, vectors(x, "Residual.init(key, x)")[0], shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.size,)

    def _forward(self, g, x):
        moved, change = jax.linearize(g, x)
        one = jnp.eye(self.size, dtype=x.dtype)
        return x + moved, log_det(one + jax.vmap(change, out_axes=1)(one))

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        return self._forward(self.net.given(context), x)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        g = self.net.given(context)
        # L^n <= exp(-n (1 - L)): e^-40 is below the rounding of float64 too
        x = fixed_point(lambda x: y - g(x), y, steps=math.ceil(40 / (1 - self.net.bound)))
        return x, -self._forward(g, x)[1]

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)
