"""A point mass: the spike of zero-inflated and spike-and-slab mixtures."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import as_array, floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.core.remedies import unseen
from jaxgen.ops.entries import filled, float_dtype, scored
from jaxgen.ops.stable import has_mass


@model
class Delta:
    """A point mass: every event equals one value.

    `log p(x) = 0` where `x = value`, else -inf

    Args:
        value: `[*event]`, the point; never trained.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    This is a probability, not a density per unit of x. Beside counts (`Poisson`) it mixes as it is: a zero may come
    from either. Beside a continuous density, an event that equals the value comes from the point alone, since the
    continuous part makes such an event with probability zero. Its density there has to be zero too, or the two numbers,
    of different units, would be compared: that of `Gamma`, `Beta` and `LogNormal` at 0 is; others become so as
    `Punctured(density, value)`. Then the likelihood of a mixture is the exact one of the mixed data, and its weights
    are the shares of the events at the point and of the rest.

    Events are compared as numbers of the coarser of the two dtypes. Other events than the value are no error, because
    they are for other components of a mixture. EM has nothing to learn: `e_step` counts, `m_step` changes nothing.

    Source: Tu (2006), Zero-inflated data, Encyclopedia of environmetrics; Mitchell and Beauchamp (1988), Bayesian
    variable selection in linear regression (the spike and the slab).

    Example:
        >>> Delta.from_values([0.0, 2.0]).log_prob(jnp.array([[0.0, 2.0], [0.0, 2.5]])).tolist()
        [0.0, -inf]
    """

    value: jax.Array = fixed()
    missing: bool = static(default=False)

    @classmethod
    def init(cls, key, x, *, value=None, missing=False) -> Delta:
        """Return the point that repeats most in data `[N, *event]`, coordinate by coordinate.

        Beside real numbers, which hardly repeat, it is the spike, wherever that is. Counts repeat: among them the mode
        of the rest may be more frequent than the spike, as the 2 of `0.1 [x = 0] + 0.9 Poisson(x; 2.5)` is. Then say
        where the spike is: `functools.partial(Delta.init, value=0)`.

        Args:
            key: not used.
            x: numbers; NaN where `missing`.
            value: the point, broadcast to `[*event]`, where it is known; None counts. Of values that are as frequent
                the smallest.
        """
        x = jnp.asarray(as_array(x, name="x", allow_nan=missing, missing=unseen("Delta.init(key, x)")))
        x = x.astype(float_dtype(x))
        if value is None:
            rows = jnp.sort(x.reshape((len(x), -1)), axis=0)
            place = lambda side: jax.vmap(partial(jnp.searchsorted, side=side), (1, 1), 1)(rows, rows)  # noqa: E731
            count = jnp.where(jnp.isnan(rows), 0, place("right") - place("left"))
            value = jnp.take_along_axis(rows, jnp.argmax(count, axis=0)[None], axis=0).reshape(x.shape[1:])
        return cls(jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape[1:]), missing)

    @classmethod
    def from_values(cls, value, *, missing=False) -> Delta:
        """Return the point mass at a value, `[*K, *event]`, in units of x."""
        return cls(floating(value, name="value"), missing)

    event_shape = property(lambda self: self.value.shape)
    mean = property(lambda self: self.value, doc="`[*K, *event]`, units of x.")
    mode = property(lambda self: self.value, doc="`[*K, *event]`, units of x.")
    variance = property(lambda self: jnp.zeros_like(self.value), doc="Zero, `[*K, *event]`.")
    free_parameters = property(lambda self: 0, doc="None: the value never trains.")

    def _at(self, x):
        """Return which entries equal the value."""
        ours, theirs = self.value.dtype, x.dtype
        coarse = theirs if jnp.issubdtype(theirs, jnp.floating) and theirs.itemsize < ours.itemsize else ours
        return x.astype(coarse) == self.value.astype(coarse)

    @per_event
    def atoms(self, x) -> jax.Array:
        """Return True where all entries that were seen equal the value, `[*batch, *event] -> [*batch]`."""
        return jnp.all(self._at(x) | jnp.isnan(x)) & ~jnp.all(jnp.isnan(x))

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Return nats with respect to counting measure, `[*batch, *event] -> [*batch]`: 0 or -inf."""
        return jnp.sum(scored(jnp.zeros_like(self.value), self._at(x), x, self.missing))

    @per_event
    def impute(self, x) -> jax.Array:
        """Return events with what is missing (NaN) at its value, `[*batch, *event]`."""
        return filled(x, self.value)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        reached = (x > self.value) | self._at(x)
        return jnp.where(jnp.isnan(x), x, reached).astype(self.value.dtype)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        return jnp.where(jnp.isnan(level), level, self.value)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Return draws `[*shape, *event]`, all of them the value."""
        return self.value

    @weighted_events
    def e_step(self, x, weight=None):
        """Return the weight of the events at the value, and `log_prob [N]`."""
        log_prob = self.log_prob(x)
        return jnp.sum(jnp.where(log_prob == 0, weight, 0).astype(self.value.dtype)), log_prob

    def m_step(self, statistics) -> Delta:
        """Return the same point mass."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """Return `m_step`, and 1 where there is no mass, else 0."""
        return self, (~has_mass(statistics)).astype(jnp.int32)

    distribution = as_distribution
