"""Whole numbers through a density of real ones: pixels, ratings and other levels with an order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.methods import context_shape, per_event, per_sample
from jaxgen.core.pytree import float_type, model, part, static
from jaxgen.ops.bounds import importance_bound


@model
class Dequantized:
    """Whole numbers from `low` to `high`: a density of real numbers, integrated over the cell of each.

    `P(x) = integral over u in [0, 1)^D of p(x + u)`, and `log P(x) >= E_q [log p(x + u) - log q(u | x)]`

    A `Bound`, in nats of the whole numbers themselves: no constant is left to add. Bits per dimension are
    `metrics.bits_per_dim(jaxgen.score(key, model, x, samples=100), D)`.

    Args:
        density: of real events; on `support=Interval(low, high + 1)` no mass is lost outside of the cells, and the
            bound is one of a distribution of sum one. Draws from outside count as the nearest level.
        low: the lowest level.
        high: the highest.
        noise: q, a density on `Interval(0, 1)` whose context is the event, scaled to [-1, 1]; None is the uniform
            density. It trains with the rest and only tightens the bound (variational dequantization).

    Source: Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, section 3.1; Ho et al.
    (2019), Flow++, section 3.1, for the noise that is learned.

    Example:
        >>> import jaxgen as jg
        >>> density = jg.DiagonalGaussian.from_values([2.0, 3.0], [1.0, 1.0])
        >>> model = Dequantized(density, low=0, high=4)
        >>> model.sample(jax.random.key(0), (3,)).dtype, model.elbo(jax.random.key(1), jnp.array([[1, 2]])).shape
        (dtype('int32'), (1,))
    """

    density: Any = part()
    low: int = static(default=0)
    high: int = static(default=255)
    noise: Any = None

    @classmethod
    def init(
        cls, key, x, make: Callable[[Any, Any], Any], *, noise: Callable[[Any, Any], Any] | None = None, low: int = 0,
        high: int | None = None,
    ) -> Dequantized:  # fmt: skip
        """From `make(key, y)`, a density made for events with uniform noise added.

        Args:
            key: typed key.
            x: whole numbers `[N, *event]`.
            make: `(key, y [N, *event]) -> density`, such as `lambda key, y: Flow.init(key, y, base,
                support=Interval(0, 256))`.
            noise: `(key, u [N, *event]) -> density` on `Interval(0, 1)` with `context_shape` of one event; None is
                uniform.
            low: the lowest level.
            high: the highest; None takes the highest in x.

        Raises:
            DataError: numbers that are not whole, or out of range. ModelError: no levels, or a noise without the
                event as its context.
        """
        x = as_array(x, name="x")
        high = int(np.max(x)) if high is None else high
        called = "Dequantized.init(key, x, make)"
        _check_levels(x, low, high, called)
        first, second, third = jax.random.split(key, 3)
        u = _uniform(first, np.shape(x), jnp.result_type(float))
        density = make(second, jnp.asarray(x, u.dtype) + u)
        event = tuple(density.event_shape)
        q = None if noise is None else noise(third, u)
        if q is not None and (context_shape(q) != event or tuple(q.event_shape) != event):
            raise ModelError(
                "the noise does not see the event", called=called, expected=f"events and contexts of shape {event}",
                got=f"events {list(q.event_shape)}, contexts {context_shape(q)}",
                fix="make it of layers with the context_shape of the event",
            )  # fmt: skip
        return cls(density, int(low), int(high), q)

    @property
    def event_shape(self):
        return self.density.event_shape

    @property
    def context_shape(self):
        return context_shape(self.density)

    def check_data(self, x) -> None:
        """Refuses what is no level.

        Raises:
            DataError: numbers that are not whole, or out of range.
        """
        _check_levels(as_array(x), self.low, self.high, f"{type(self).__name__}.check_data(x)")

    def _log_weight(self, key, x, context):
        """`log p(x + u) - log q(u | x)` of one event and one draw; -inf where x is no level."""
        dtype = float_type(self.density)
        if jnp.issubdtype(x.dtype, jnp.integer):
            x = x.astype(jnp.int32)  # a level may be beyond the numbers of int8
        out = jnp.any((x < self.low) | (x > self.high) | ((x != jnp.floor(x)) & ~jnp.isnan(x)))
        x = jnp.where(out, self.low, x).astype(dtype)
        if self.noise is None:
            u, log_q = _uniform(key, x.shape, dtype), jnp.zeros((), dtype)
        else:
            seen = (2 * x - self.low - self.high) / max(self.high - self.low, 1)
            u, log_q = algebra.sample_and_log_prob(self.noise, key, seen)
        log_p = self.density.log_prob(self._inside(x + u), context=context)
        return jnp.where(out, -jnp.inf, log_p - log_q)

    def _inside(self, y):
        # in float32 255 + u may round to 256, which is outside
        last = np.nextafter(np.asarray(self.high + 1, y.dtype), np.asarray(-np.inf, y.dtype))
        return jnp.minimum(y, last)

    @per_event
    def elbo(self, key, x, *, context=None) -> jax.Array:
        """An unbiased estimate of the bound from one draw, nats, `[*batch, *event] -> [*batch]`."""
        return self._log_weight(key, x, context)

    @per_event
    def iwae(self, key, x, *, context=None, samples=50) -> jax.Array:
        """The importance weighted bound, nats, `[*batch, *event] -> [*batch]`: tighter with more `samples` (static).

        `log 1/S sum_s p(x + u_s) / q(u_s | x)`, `u_s ~ q(u | x)`; it tends to `log P(x)`.

        Source: Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, equation 8.
        """
        return importance_bound(
            key, lambda key: self._log_weight(key, x, context), samples, "Dequantized.iwae"
        )  # fmt: skip

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`, int32."""
        y = self.density.sample(key, context=context)
        return jnp.clip(jnp.floor(y), self.low, self.high).astype(jnp.int32)


def _uniform(key, shape, dtype):
    """Draws from the middles of the steps that `jax.random.uniform` takes: never exactly 0, which may be an edge."""
    return jax.random.uniform(key, shape, dtype) + jnp.asarray(jnp.finfo(dtype).eps / 2, dtype)


def _check_levels(x, low: int, high: int, called: str) -> None:
    if low > high:
        raise ModelError("there are no levels", called=called, expected="low <= high", got=f"low {low}, high {high}")
    if not concrete(x):
        return
    host = np.asarray(x)
    wrong = (host < low) | (host > high) | (host != np.floor(host))
    if wrong.any():
        raise DataError(
            "x has values that are no levels", called=called, expected=f"whole numbers from {low} to {high}",
            got=f"{int(wrong.sum())} of {wrong.size} others, such as {host[wrong][0]}",
            fix=f"np.clip(np.round(x), {low}, {high}) for others; low= and high= for more levels",
        )  # fmt: skip
