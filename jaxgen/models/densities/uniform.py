"""The uniform density of a box: a prior that says no more than where numbers can be."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.bijections.elementwise import interior, outside
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import distrax
from jaxgen.core.inputs import concrete, floating
from jaxgen.core.methods import per_event, per_level, per_sample
from jaxgen.core.pytree import fixed, model


@model
class Uniform:
    """Independent coordinates, each uniform between two ends; never trained.

    `log p(x) = -sum_d log (high_d - low_d)` for `low < x < high`, minus infinity outside

    Args:
        low: `[*event]`, the lower ends.
        high: `[*event]`, the upper ends, above `low`.

    Example:
        >>> box = Uniform.from_values([-1.0, 0.0], [1.0, 10.0])
        >>> [round(float(value), 4) for value in box.log_prob(jnp.array([[0.0, 5.0], [0.0, 11.0]]))]  # -log 20, outside
        [-2.9957, -inf]
        >>> box.sample(jax.random.key(0), (5,)).shape
        (5, 2)
    """

    low: jax.Array = fixed()
    high: jax.Array = fixed()

    @classmethod
    def from_values(cls, low, high) -> Uniform:
        """From the two ends, numbers or arrays that broadcast to one shape, which is the event's.

        Raises:
            ModelError: ends that are not finite, or no numbers between them.
        """
        low, high = jnp.broadcast_arrays(*(floating(jnp.asarray(end)) for end in (low, high)))
        if concrete(low) and not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise ModelError(
                "a box has two finite ends", called="Uniform.from_values(low, high)", expected="low < high, finite",
                got=f"low {np.asarray(low).tolist()}, high {np.asarray(high).tolist()}"[:200],
            )  # fmt: skip
        return cls(low, high)

    @property
    def event_shape(self):
        return self.low.shape

    mean = property(lambda self: self.low + (self.high - self.low) / 2, doc="The middle, `[*event]`.")
    variance = property(lambda self: (self.high - self.low) ** 2 / 12, doc="Width squared / 12, `[*event]`.")
    bounds = property(lambda self: (self.low, self.high), doc="The ends, `[*event]` both.")

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        # written with x, so that what is NaN stays NaN
        inside = jnp.where(outside(x, self.low, self.high), -jnp.inf, 0 * x)
        return jnp.sum(inside - jnp.log(self.high - self.low))

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        return jnp.clip((x - self.low) / (self.high - self.low), 0, 1)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        return self.low + level * (self.high - self.low)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        share = jax.random.uniform(key, self.low.shape, self.low.dtype)
        return interior(self.low + share * (self.high - self.low), self.low, self.high)

    def distribution(self):
        """The distrax distribution."""
        return distrax().Independent(distrax().Uniform(self.low, self.high), self.low.ndim)
