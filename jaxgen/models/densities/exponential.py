"""The exponential density: independent waiting times without memory."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.exchange import as_distribution
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import entries, scales
from jaxgen.ops.stable import has_mass

#: default floor of a mean, as a share of the scale of its column: the root of that of a Gaussian's variance
RELATIVE_FLOOR = 1e-3


class ExponentialStatistics(NamedTuple):
    """Weight of the entries that were seen, and their weighted sum in units of x, `[*event]` each."""

    weight: jax.Array
    total: jax.Array


@model
class Exponential:
    """Independent numbers from 0 whose density falls exponentially: waiting times without memory.

    `log p(x) = sum_d -log m_d - x_d / m_d`, with m the means, one over the rates

    Args:
        log_mean: `[*event]`, logarithm of the means, units of x.
        floor: `[*event]`, the least mean that the M-step gives, units of x: it keeps a component off events at zero;
            never trained.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    The support is `x >= 0`. The M-step repairs: a coordinate of no mass keeps its mean, one below the floor gets it.

    Source: Johnson, Kotz and Balakrishnan (1994), Continuous univariate distributions, volume 1, chapter 19.

    Example:
        >>> waiting = Exponential.from_values([2.0])
        >>> [round(float(v), 4) for v in waiting.log_prob(jnp.array([[0.0], [2.0], [-1.0]]))]
        [-0.6931, -1.6931, -inf]
    """

    log_mean: jax.Array
    floor: jax.Array | None = fixed(default=None)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, floor=None, missing=False) -> Exponential:
        """Return the maximum-likelihood density of data `[N, *event]` from 0; the key is not used.

        The floor is broadcast to `[*event]`; None is a thousandth of each column's own scale (`ops.scales`).
        """
        x = _waits(x, missing, "Exponential.init(key, x)")
        dtype, event = entries.float_dtype(x), x.shape[1:]
        seen = jnp.where(x >= 0, x, jnp.nan).astype(dtype)
        if floor is None:
            floor = RELATIVE_FLOOR * scales.columns(seen.reshape((len(x), -1))).scale.reshape(event)
        return entries.one_step(cls(jnp.zeros(event, dtype), entries.broadcast(floor, event, dtype), missing), seen)

    @classmethod
    def from_values(cls, mean, *, floor=None, missing=False) -> Exponential:
        """Return the density of given means, `[*K, *event]`, in units of x; others than positive are a ModelError."""
        mean = entries.positive(mean, name="mean", called="Exponential.from_values(mean)")
        return cls(jnp.log(mean), entries.broadcast(floor, mean.shape, mean.dtype), missing)

    event_shape = property(lambda self: self.log_mean.shape)
    mean = property(lambda self: jnp.exp(self.log_mean), doc="`[*K, *event]`, units of x.")
    rate = property(lambda self: jnp.exp(-self.log_mean), doc="Events per unit of x, `[*K, *event]`.")
    variance = property(lambda self: jnp.exp(2 * self.log_mean), doc="`[*K, *event]`, units of x squared.")
    bounds = property(lambda self: entries.above_zero(self.log_mean), doc="0 and infinity, `[*K, *event]` both.")
    free_parameters = property(lambda self: math.prod(self.log_mean.shape), doc="A mean for each coordinate.")

    def check_data(self, x) -> None:
        """Refuse negative data with a DataError."""
        _waits(x, self.missing, "Exponential.check_data(x)")

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Return nats, `[*batch, *event] -> [*batch]`."""
        clean, inside = entries.clean(x, _inside, 0, self.log_mean.dtype)
        return jnp.sum(entries.scored(-self.log_mean - clean * self.rate, inside, x, self.missing))

    @per_event
    def impute(self, x) -> jax.Array:
        """Return events with what is missing (NaN) at its mean, `[*batch, *event]`."""
        return entries.filled(x, self.mean)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        clean, inside = entries.clean(x, _inside, 0, self.log_mean.dtype)
        return entries.cumulated(x, inside, -jnp.expm1(-clean * self.rate))

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        return -self.mean * jnp.log1p(-level)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Return draws `[*shape, *event]`."""
        return self.mean * jax.random.exponential(key, self.log_mean.shape, self.log_mean.dtype)

    @weighted_events
    def e_step(self, x, weight=None):
        """Return `ExponentialStatistics`, and `log_prob [N]`; entries outside the support count nowhere."""
        clean, inside = entries.clean(x, _inside, 0, self.log_mean.dtype)
        return ExponentialStatistics(*entries.sums(weight, inside.astype(clean.dtype), clean)), self.log_prob(x)

    def m_step(self, statistics) -> Exponential:
        """Return the weighted maximum likelihood, under `mean >= floor`."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """Return `m_step`, and 1 where a coordinate has no mass or a mean below the floor, else 0."""
        weight, total = statistics
        alive = has_mass(weight)
        mean = total / jnp.where(alive, weight, 1)
        lowest = jnp.maximum(0 if self.floor is None else self.floor, jnp.finfo(mean.dtype).tiny)
        log_mean = jnp.where(alive, jnp.log(jnp.maximum(mean, lowest)), self.log_mean)
        return dataclasses.replace(self, log_mean=log_mean), jnp.any(~(alive & (mean >= lowest))).astype(jnp.int32)

    def features(self, x):
        """Return `log (1 + x / mean)`, `[N, D]`, for clustering; NaN where an entry was not seen."""
        return jnp.log1p(jnp.where(x >= 0, x, jnp.nan) * self.rate).reshape((x.shape[0], -1))

    distribution = as_distribution


def _inside(x):
    return (x >= 0) & (x < np.inf)


def _waits(x, missing, called):
    fix = "subtract the smallest value that there can be"
    return entries.supported(x, _inside, called=called, expected="numbers from 0", fix=fix, missing=missing)
