"""The log-normal density: independent positive coordinates whose logarithms are normal."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.exchange import as_distribution
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import entries, scales
from jaxgen.ops.gaussians import LOG_2PI, Moments, shift_moments
from jaxgen.ops.stable import has_mass


@model
class LogNormal:
    """Independent positive coordinates whose logarithms are normal: sizes, incomes, what grows by percentages.

    `log p(x) = sum_d -((log x_d - log m_d) / s_d)^2 / 2 - log s_d - log x_d - log(2 pi) / 2`

    Args:
        log_median: `[*event]`, logarithm of the medians m, units of x.
        log_scale: `[*event]`, logarithm of s, the standard deviations of `log x`.
        floor: `[*event]`, the smallest variances of `log x`, pure numbers; never trained. None is no floor.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    The support is `x > 0`. The M-step repairs: a coordinate of no mass keeps its parameters, a variance below the floor
    becomes it.

    Source: Johnson, Kotz and Balakrishnan (1994), Continuous univariate distributions, volume 1, chapter 14.

    Example:
        >>> size = LogNormal.from_values([1.0], [2.0])
        >>> [round(float(v), 4) for v in size.log_prob(jnp.array([[1.0], [0.0]]))]
        [-1.6121, -inf]
    """

    log_median: jax.Array
    log_scale: jax.Array
    floor: jax.Array | None = fixed(default=None)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, floor=None, missing=False) -> LogNormal:
        """Return the maximum-likelihood density of positive data `[N, *event]`; the key is not used.

        The floor is broadcast to `[*event]`; None is 1e-6 of the squared scale of each column of `log x`.
        """
        x = _sizes(x, missing, "LogNormal.init(key, x)")
        dtype, event = entries.float_dtype(x), x.shape[1:]
        x = jnp.where(_inside(x), x, jnp.nan).astype(dtype)
        center, scale = (part.reshape(event) for part in scales.columns(jnp.log(x).reshape((len(x), -1))))
        floor = scales.variance_floor(scale, None) if floor is None else floor
        start = cls(center, jnp.log(scale), entries.broadcast(floor, event, dtype), missing)
        # a second step around the first one's median rids it of its rounding
        return entries.one_step(entries.one_step(start, x), x)

    @classmethod
    def from_values(cls, median, scale, *, floor=None, missing=False) -> LogNormal:
        """Return the density of medians and standard deviations of the logarithm, `[*K, *event]` or one for all.

        Raises:
            ModelError: values that are not positive.
        """
        called = "LogNormal.from_values(median, scale)"
        median, scale = (entries.positive(v, name=n, called=called) for v, n in ((median, "median"), (scale, "scale")))
        log_median, log_scale = jnp.broadcast_arrays(jnp.log(median), jnp.log(scale))
        return cls(log_median, log_scale, entries.broadcast(floor, log_scale.shape, log_scale.dtype), missing)

    event_shape = property(lambda self: self.log_median.shape)
    median = property(lambda self: jnp.exp(self.log_median), doc="`[*K, *event]`, units of x.")
    scale = property(lambda self: jnp.exp(self.log_scale), doc="Standard deviations of `log x`, `[*K, *event]`.")
    mean = property(lambda self: jnp.exp(self.log_median + self.scale**2 / 2), doc="`[*K, *event]`, units of x.")
    variance = property(lambda self: self.mean**2 * jnp.expm1(self.scale**2), doc="`[*K, *event]`, squared units.")
    bounds = property(lambda self: entries.above_zero(self.log_median), doc="0 and infinity, `[*K, *event]` both.")
    free_parameters = property(lambda self: 2 * math.prod(self.log_scale.shape), doc="Two for each coordinate.")

    def check_data(self, x) -> None:
        """Refuse data that are not positive with a DataError."""
        _sizes(x, self.missing, "LogNormal.check_data(x)")

    def _residual(self, x):
        """Return `log x - log median`, `log x`, and which entries are inside the support."""
        x, inside = entries.clean(x, _inside, 1, self.log_median.dtype)
        log, u = jnp.log(x), (x - self.median) / self.median
        near = jnp.abs(u) < 0.5  # where the difference of two logarithms would lose digits
        return jnp.where(near, jnp.log1p(jnp.where(near, u, 0)), log - self.log_median), log, inside

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Return nats, `[*batch, *event] -> [*batch]`."""
        d, log, inside = self._residual(x)
        value = -0.5 * ((d / self.scale) ** 2 + LOG_2PI) - self.log_scale - log
        return jnp.sum(entries.scored(value, inside, x, self.missing))

    @per_event
    def impute(self, x) -> jax.Array:
        """Return events with what is missing (NaN) at its mean, `[*batch, *event]`."""
        return entries.filled(x, self.mean)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        d, _, inside = self._residual(x)
        return entries.cumulated(x, inside, ndtr(d / self.scale))

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        return self.median * jnp.exp(self.scale * ndtri(level))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Return draws `[*shape, *event]`."""
        draw = self.median * jnp.exp(self.scale * jax.random.normal(key, self.log_scale.shape, self.log_scale.dtype))
        return jnp.maximum(draw, float(jnp.finfo(draw.dtype).tiny))

    @weighted_events
    def e_step(self, x, weight=None):
        """Return `Moments` of `log x` around the median's, each entry's own, and `log_prob [N]`."""
        d, _, inside = self._residual(x)
        d = jnp.where(inside, d, 0)
        return Moments(*entries.sums(weight, inside.astype(d.dtype), d, d * d)), self.log_prob(x)

    def m_step(self, statistics) -> LogNormal:
        """Return the weighted maximum likelihood, under `scale^2 >= floor`."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """Return `m_step`, and 1 where a coordinate has no mass or a variance below the floor, else 0."""
        weight, first, second = statistics
        alive = has_mass(weight)
        weight = jnp.where(alive, weight, 1)
        shift = jnp.where(alive, first / weight, 0)
        variance = second / weight - shift * shift
        lowest = jnp.maximum(0 if self.floor is None else self.floor, jnp.finfo(shift.dtype).tiny)
        log_scale = jnp.where(alive, 0.5 * jnp.log(jnp.maximum(variance, lowest)), self.log_scale)
        new = dataclasses.replace(self, log_median=self.log_median + shift, log_scale=log_scale)
        return new, jnp.any(~(alive & (variance >= lowest))).astype(jnp.int32)

    def freeze(self, statistics, frozen):
        """Return moments whose variance is taken around a median that is frozen."""
        return statistics._replace(first=jnp.where(frozen.log_median, 0, statistics.first))

    def recentre(self, old, statistics):
        """Return moments around the old median as moments around this one."""
        return shift_moments(statistics, self.log_median - old.log_median)

    def features(self, x):
        """Return standardized logarithms, `[N, D]`, for clustering; NaN where an entry was not seen."""
        d, _, inside = self._residual(x)
        return jnp.where(inside, d / self.scale, jnp.nan).reshape((x.shape[0], -1))

    distribution = as_distribution


def _inside(x):
    return (x > 0) & (x < np.inf)


def _sizes(x, missing, called):
    fix = "drop zeros, or add half of the smallest unit of measurement"
    return entries.supported(x, _inside, called=called, expected="positive numbers", fix=fix, missing=missing)
