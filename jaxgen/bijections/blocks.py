"""Block neural autoregressive layers: one network that is triangular and increasing by its weights alone."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxgen.bijections.basics import check, context_size, vectors
from jaxgen.bijections.linear import matmul
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.methods import check_key
from jaxgen.core.pytree import model, static
from jaxgen.ops.roots import bisect, fixed_point


@model
class BlockAutoregressive:
    """Every coordinate is an increasing function of itself that those before it choose, all in one network.

    `y = (1 - s) x + s f(x)`, `f(x) = W_n tanh(... tanh(W_1 x + V context + b_1) ...) + b_n`. Matrices are block lower
    triangular, with H by H blocks for D coordinates, and those on the diagonal are positive; so is `dy_i/dx_i`, and
    `log |det| = sum_i log dy_i/dx_i`

    Args:
        weights: raw, `[D, H_out, D, H_in]` for each matrix, H being 1 at both ends. Blocks before the diagonal are used
            as they are, those on it through their exponential; then each row has the norm `exp(log_norms)`.
        log_norms: `[D, H_out]` for each matrix.
        biases: `[D, H_out]` for each matrix.
        gate: `[]`, s is its sigmoid. The direct path makes the range the whole line, without which a bounded f has no
            inverse in most points.
        seen: V, `[C, D, H]`; None without a context.
        context_shape: shape of one context, None without.

    The inverse repeats: given the coordinates before it, each coordinate is the root of an increasing function, all at
    once by bisection. The first coordinate is right after one round, so that all are after D, usually earlier; it is
    exact to the rounding of the map itself. For a fit to data wrap the layer in `Inverse`, so that a density takes the
    direct way and only samples the search.

    Source: De Cao, Titov and Aziz (2019), Block neural autoregressive flow, equations 7 to 11, section 3.2; its gated
    residual connections stand between two layers, here they are a part of one.

    Example:
        >>> layer = BlockAutoregressive.init(jax.random.key(0), jnp.zeros((1, 3)), hidden=2)
        >>> x = jnp.array([1.0, 2.0, 3.0])
        >>> layer.inverse_and_log_det(layer.forward_and_log_det(x)[0])[0].round(4).tolist()
        [1.0, 2.0, 3.0]
    """

    weights: tuple[jax.Array, ...]
    log_norms: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]
    gate: jax.Array
    seen: jax.Array | None
    context_shape: tuple[int, ...] | None = static(default=None)

    @classmethod
    def init(
        cls, key, x, *, hidden: int = 8, layers: int = 2, context_shape: tuple[int, ...] | None = None
    ) -> BlockAutoregressive:  # fmt: skip
        """Random weights, for events like x, `[N, D]` or the shape `(D,)` of one.

        Args:
            key: typed key.
            x: events, for their shape and dtype, or the shape `(D,)` of one.
            hidden: H, units of each coordinate in each hidden layer.
            layers: the number of hidden layers.
            context_shape: shape of one context for a conditional layer.

        Raises:
            ModelError: no hidden layers or units. ShapeError: events that are no vectors.
        """
        check_key(key, "BlockAutoregressive.init")
        size, dtype = vectors(x, "BlockAutoregressive.init(key, x)")
        if min(hidden, layers) < 1:
            raise ModelError(
                "a network without hidden units", expected="hidden >= 1, layers >= 1",
                called=f"BlockAutoregressive.init(key, x, hidden={hidden}, layers={layers})",
                got=f"hidden {hidden}, layers {layers}",
            )  # fmt: skip
        shape = None if context_shape is None else tuple(context_shape)
        sizes = [1, *[hidden] * layers, 1]
        keys = jax.random.split(key, 3 * len(sizes))

        def drawn(key, *shape):
            return jax.random.normal(key, shape, dtype)

        pairs = list(zip(sizes, sizes[1:], strict=False))
        # rows are normalised anyway; biases spread the bends of the units over the data
        weights = tuple(drawn(k, size, b, size, a) for k, (a, b) in zip(keys, pairs, strict=False))
        keys = keys[len(sizes) :]
        norms = tuple(jnp.full((size, b), 0.5 * jnp.log(a), dtype) for a, b in pairs)
        biases = tuple(drawn(k, size, b) for k, (_, b) in zip(keys, pairs[:-1], strict=False))
        biases += (jnp.zeros((size, 1), dtype),)
        of = context_size(shape)
        seen = drawn(keys[-1], of, size, hidden) / of**0.5 if of else None
        return cls(weights, norms, biases, jnp.zeros((), dtype), seen, shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.biases[-1].shape[:1]

    def _layers(self, context):
        """For each layer the blocks below the diagonal, the logarithms of those on it, and the bias."""
        size = self.event_shape[0]
        before = jnp.tril(jnp.ones((size, size), bool), -1)[:, None, :, None]
        own = jnp.eye(size, dtype=bool)[:, None, :, None]
        layers = []
        for i, (raw, log_norm, bias) in enumerate(zip(self.weights, self.log_norms, self.biases, strict=True)):
            positive = jnp.exp(jnp.where(own, raw, 0))
            square = jnp.sum(jnp.where(own, positive, jnp.where(before, raw, 0)) ** 2, axis=(2, 3))
            log_scale = log_norm - jnp.log(square) / 2
            lower = jnp.where(before, raw, 0) * jnp.exp(log_scale)[:, :, None, None]
            log_diagonal = jnp.einsum("ipiq->ipq", raw) + log_scale[:, :, None]
            if i == 0 and self.seen is not None:
                bias = bias + jnp.tensordot(
                    jnp.ravel(context).astype(bias.dtype), self.seen, 1, precision=jax.lax.Precision.HIGHEST
                )
            layers.append((lower, log_diagonal, bias))
        return layers

    def _gated(self, x, f):
        # a sum of numbers of one sign in its slope
        return jax.nn.sigmoid(-self.gate) * x + jax.nn.sigmoid(self.gate) * f

    def _pass(self, layers, x):
        """`y`, `log dy_i/dx_i`, and for each layer what the units of a coordinate get from those before it."""
        h, log_slope, shifts = x[:, None], jnp.zeros_like(x)[:, None], []
        for i, (lower, log_diagonal, bias) in enumerate(layers):
            if i > 0:
                log_slope = log_slope + _log_tanh_slope(h)
                h = jnp.tanh(h)
            flat = matmul(lower.reshape((bias.size, h.size)), h.ravel())
            shifts.append(flat.reshape(bias.shape) + bias)
            h = shifts[-1] + _own(log_diagonal, h)
            log_slope = jax.nn.logsumexp(log_diagonal + log_slope[:, None, :], axis=-1)
        log_slope = jnp.logaddexp(
            jax.nn.log_sigmoid(-self.gate), jax.nn.log_sigmoid(self.gate) + log_slope[:, 0]
        )  # fmt: skip
        return self._gated(x, h[:, 0]), log_slope, shifts

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        y, log_slope, _ = self._pass(self._layers(context), x)
        return y, jnp.sum(log_slope)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        layers = self._layers(context)

        def round_(x):
            # with what comes from the coordinates before it held, a coordinate depends on itself alone
            shifts = self._pass(layers, x)[2]

            def alone(t):
                h = t[:, None]
                for i, ((_, log_diagonal, _), shift) in enumerate(zip(layers, shifts, strict=True)):
                    h = shift + _own(log_diagonal, jnp.tanh(h) if i > 0 else h)
                return self._gated(t, h[:, 0])

            # always from the same guess: what depends on coordinates that have arrived then stays bit for bit
            return bisect(alone, y)

        # D rounds, and one that sees that nothing changes
        x = fixed_point(round_, y, steps=y.shape[0] + 1)
        return x, -jnp.sum(self._pass(layers, x)[1])

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)


def _own(log_diagonal, h):
    """Blocks on the diagonal times the units of their own coordinate, `[D, H_out, H_in]` and `[D, H_in]`."""
    return jnp.einsum("ipq,iq->ip", jnp.exp(log_diagonal), h, precision=jax.lax.Precision.HIGHEST)


def _log_tanh_slope(x):
    """`log(1 - tanh(x)^2)`, also where the difference would be rounded to zero."""
    return 2 * (math.log(2) - x - jax.nn.softplus(-2 * x))
