"""The Gamma density: independent positive coordinates, such as durations, amounts and intensities."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.exchange import distrax
from jaxgen.core.inputs import as_array, concrete, floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.core.remedies import unseen
from jaxgen.ops import entries
from jaxgen.ops.roots import reach
from jaxgen.ops.special import digamma_gaps, excess, stirling_error
from jaxgen.ops.stable import has_mass
from jaxgen.ops.tails import gamma_tails

HIGHEST = jax.lax.Precision.HIGHEST
#: default floor of 1 / shape, the squared relative spread, as a share of the data's: that of a Gaussian's variance
RELATIVE_FLOOR = 1e-6
#: Minka's iteration has all digits of float64 after four steps; two to spare
STEPS = 6


class GammaStatistics(NamedTuple):
    """Around the old mean, with ratios `t = x / mean`: weight, sum of `t - 1`, and of `t - 1 - log t`, `[*event]` each.

    They hold what the sums of x and of log x do, and lose no digits where the spread is small.
    """

    weight: jax.Array
    first: jax.Array
    excess: jax.Array


@model
class Gamma:
    """Independent positive coordinates, with a mean and a shape: the spread is `mean / sqrt(shape)`.

    `log p(x) = sum_d a_d log (a_d / m_d) - log Gamma(a_d) + (a_d - 1) log x_d - a_d x_d / m_d`, with m the means and a
    the shapes, evaluated around `x = m` so that a large shape keeps its digits.

    Args:
        log_mean: `[*event]`, logarithm of the means, units of x.
        log_shape: `[*event]`, logarithm of the shapes.
        floor: `[*event]`, the least `1 / shape` that the M-step gives, a pure number, which keeps a component off a
            single event; never trained. None leaves only what the dtype can tell.
        prior: `[*event, 3]`, (count, mean, shape): as if so many events had been seen that are distributed so. It is
            the conjugate one, `-count KL(Gamma(mean, shape) || self)` nats; never trained. None is flat.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    The support is `x > 0`; a draw that underflows becomes the smallest normal number. The M-step finds the mean in
    closed form and the shape by Minka's iteration, to rounding. It repairs: a coordinate of no mass keeps its
    parameters, a shape above `1 / floor` stops there.

    Source: Minka (2002), Estimating a Gamma distribution.

    Example:
        >>> waiting = Gamma.from_values([2.0], [1.0])
        >>> [round(float(v), 4) for v in waiting.log_prob(jnp.array([[2.0], [4.0], [-1.0]]))]
        [-1.6931, -2.6931, -inf]
    """

    log_mean: jax.Array
    log_shape: jax.Array
    floor: jax.Array | None = fixed(default=None)
    prior: jax.Array | None = fixed(default=None)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, floor=None, prior=None, missing=False) -> Gamma:
        """The maximum-likelihood density of data `[N, *event]`; the key is not used.

        Args:
            key: not used.
            x: positive numbers.
            floor: broadcast to `[*event]`; None is 1e-6 of the data's `1 / shape`.
            prior: broadcast to `[*event, 3]`.
            missing: whether NaN means an entry that was not seen.

        Raises:
            DataError: values that are not positive.
        """
        x = _positive(x, missing, "Gamma.init(key, x)")
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        event = x.shape[1:]
        x = x.astype(dtype)
        seen = x > 0
        mean = jnp.sum(jnp.where(seen, x, 0), axis=0) / jnp.maximum(jnp.sum(seen, axis=0), 1)
        log_mean = jnp.log(jnp.where(mean > 0, mean, 1))
        start = cls(log_mean, jnp.zeros_like(log_mean), None, _prior(prior, event, dtype), missing)
        fitted = start.m_step(start.e_step(x, jnp.ones(len(x), dtype))[0])
        floor = RELATIVE_FLOOR * jnp.exp(-fitted.log_shape) if floor is None else floor
        return dataclasses.replace(fitted, floor=jnp.broadcast_to(jnp.asarray(floor, dtype), event))

    @classmethod
    def from_values(cls, mean, shape, *, floor=None, prior=None, missing=False) -> Gamma:
        """From means and shapes, `[*K, *event]` each, or one for all.

        Raises:
            ModelError: values that are not positive.
        """
        mean, shape = floating(mean, name="mean"), floating(shape, name="shape")
        if concrete((mean, shape)) and not ((mean > 0).all() and (shape > 0).all()):
            raise ModelError(
                "means and shapes must be positive", called="Gamma.from_values(mean, shape)", expected="above 0",
                got=f"smallest {mean.min()} and {shape.min()}",
                fix="leave others out; the constructor takes logarithms",
            )  # fmt: skip
        log_mean, log_shape = jnp.broadcast_arrays(jnp.log(mean), jnp.log(shape))
        dtype = log_mean.dtype
        floor = None if floor is None else jnp.broadcast_to(jnp.asarray(floor, dtype), log_mean.shape)
        return cls(log_mean, log_shape, floor, _prior(prior, log_mean.shape, dtype), missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.log_mean.shape

    bounds = property(lambda self: entries.above_zero(self.log_mean), doc="0 and infinity, `[*K, *event]` both.")

    @property
    def mean(self) -> jax.Array:
        """`[*K, *event]`, units of x."""
        return jnp.exp(self.log_mean)

    @property
    def shape(self) -> jax.Array:
        """`[*K, *event]`, one over the squared relative spread."""
        return jnp.exp(self.log_shape)

    @property
    def variance(self) -> jax.Array:
        """`[*K, *event]`, units of x squared."""
        return jnp.exp(2 * self.log_mean - self.log_shape)

    @property
    def free_parameters(self) -> int:
        """A mean and a shape for each coordinate."""
        return 2 * math.prod(self.log_mean.shape)

    @property
    def _unit(self):
        """One over the rate, `[*K, *event]`, units of x."""
        return jnp.exp(self.log_mean - self.log_shape)

    def check_data(self, x) -> None:
        """Refuses data outside the support with a DataError."""
        _positive(x, self.missing, "Gamma.check_data(x)")

    def _clean(self, x):
        """x in the model's dtype with 1 for what is outside the support, what is inside, and each one's penalty."""
        dtype = self.log_mean.dtype
        inside = (x > 0) & (x < jnp.inf)
        penalty = jnp.where(x != x, 0.0 if self.missing else jnp.nan, jnp.where(inside, 0.0, -jnp.inf)).astype(dtype)
        return jnp.where(inside, x, 1).astype(dtype), inside, penalty

    def _ratio(self, x):
        """`t - 1` and `t - 1 - log t` of the ratios `t = x / mean`."""
        mean = self.mean
        u = (x - mean) / mean
        # log x - log mean loses digits where both are large; log(1 + u) near u = -1 and where u overflows
        middle = (u > -0.5) & (u < 1e30)
        return u, excess(u, jnp.where(middle, jnp.log1p(jnp.where(middle, u, 0)), jnp.log(x) - self.log_mean))

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        x, inside, penalty = self._clean(x)
        # a log a - log Gamma(a) - a is what Stirling's formula leaves
        constant = 0.5 * (self.log_shape - math.log(2 * math.pi)) - stirling_error(self.shape)
        value = constant - self.shape * self._ratio(x)[1] - jnp.log(x)
        return jnp.sum(jnp.where(inside, value, 0) + penalty)

    @per_event
    def impute(self, x) -> jax.Array:
        """Return events with what is missing (NaN) at its mean, `[*batch, *event]`."""
        return jnp.where(jnp.isnan(x), self.mean, x)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        clean, inside, _ = self._clean(x)
        return entries.cumulated(x, inside, gamma_tails(self.shape, clean / self._unit)[0])

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        level = jnp.broadcast_to(level, self.event_shape)
        return self._unit * reach(lambda y: gamma_tails(self.shape, jnp.maximum(y, 0))[0], level, 0.0, self.shape + 1)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        draw = jax.random.gamma(key, self.shape, dtype=self.log_mean.dtype)
        return jnp.maximum(draw * jnp.exp(self.log_mean - self.log_shape), float(jnp.finfo(draw.dtype).tiny))

    @weighted_events
    def e_step(self, x, weight=None):
        """`GammaStatistics`, and `log_prob [N]`; entries outside the support count nowhere."""
        clean, inside, _ = self._clean(x)
        seen = inside.astype(clean.dtype)
        parts = (seen, *(seen * part for part in self._ratio(clean)))
        weight = weight.astype(clean.dtype)
        return GammaStatistics(*(jnp.tensordot(weight, p, axes=1, precision=HIGHEST) for p in parts)), self.log_prob(x)

    def m_step(self, statistics) -> Gamma:
        """Weighted maximum likelihood; with a prior, the posterior mode."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where a coordinate has no mass or stops at the largest shape, else 0."""
        eps = float(jnp.finfo(self.log_mean.dtype).eps)
        alive = has_mass(statistics.weight)
        weight, first, total = jax.tree.map(jnp.add, statistics, self._pseudo())
        weight = jnp.where(alive, weight, 1)
        shift = jnp.where(alive, first / weight, 0)
        log_shift = jnp.log1p(jnp.maximum(shift, eps - 1))
        # log of the mean less the mean of the log: a Jensen gap, whose two terms both vanish with the spread
        gap = jnp.where(alive, total / weight - excess(shift, log_shift), 1)
        # ten roundings of x are the least spread there is
        least = jnp.maximum(0 if self.floor is None else self.floor, (10 * eps) ** 2)
        regular = gap > digamma_gaps(1 / least).log
        log_shape = jnp.where(regular, jnp.log(_shape(jnp.where(regular, gap, 1))), -jnp.log(least))
        new = dataclasses.replace(
            self,
            log_mean=jnp.where(alive, self.log_mean + log_shift, self.log_mean),
            log_shape=jnp.where(alive, log_shape, self.log_shape),
        )
        return new, jnp.any(~(alive & regular)).astype(jnp.int32)

    def _pseudo(self):
        """Return the statistics of the prior's pseudo-events, which add to those of the data."""
        if self.prior is None:
            return GammaStatistics(*[jnp.zeros_like(self.log_mean)] * 3)
        count, mean, shape = jnp.moveaxis(self.prior, -1, 0)
        u, own = self._ratio(mean)
        return GammaStatistics(count, count * u, count * (own + digamma_gaps(shape).log))

    def log_prior(self):
        """`-count KL(prior || self)`, nats up to a constant."""
        if self.prior is None:
            return jnp.zeros((), self.log_mean.dtype)
        pseudo = self._pseudo()
        per_event = 0.5 * self.log_shape - stirling_error(self.shape)
        return jnp.sum(pseudo.weight * per_event - self.shape * pseudo.excess)

    def freeze(self, statistics, frozen):
        """With a mean that is frozen the shape is fitted around it, not around the mean of the data."""
        first = jnp.where(frozen.log_mean, -self._pseudo().first, statistics.first)
        return statistics._replace(first=first)

    def recentre(self, old, statistics):
        """Statistics around the old mean, around this one."""
        weight, first, total = statistics
        log_ratio = old.log_mean - self.log_mean
        change = jnp.expm1(log_ratio)
        moved = total + change * first + weight * excess(change, log_ratio)
        return GammaStatistics(weight, first + change * (weight + first), moved)

    def features(self, x):
        """Logarithms of equal spread, `[N, D]`, for clustering; NaN where an entry was not seen."""
        clean, inside, _ = self._clean(x)
        spread = jnp.sqrt(digamma_gaps(self.shape).first + 1 / self.shape)
        return jnp.where(inside, jnp.log(clean) / spread, jnp.nan).reshape((x.shape[0], -1))

    def distribution(self):
        """The distrax distribution."""
        dx = distrax()
        return dx.Independent(dx.Gamma(self.shape, jnp.exp(self.log_shape - self.log_mean)), len(self.event_shape))


def _shape(gap):
    """The shape a with `log a - psi(a) = gap`: Minka (2002), equations 17 and 18, and his start."""
    root = jnp.sqrt((gap - 3) ** 2 + 24 * gap)
    # two forms of (3 - gap + root) / (12 gap), of which the second does not cancel for large gaps
    start = jnp.where(gap < 3, (3 - gap + root) / (12 * gap), 2 / jnp.where(gap < 3, 1, gap - 3 + root))

    def step(_, a):
        gaps = digamma_gaps(a)
        return 1 / (1 / a - (gaps.log - gap) / (a * a * gaps.first))

    return jax.lax.fori_loop(0, STEPS, step, start)


def _positive(x, missing, called):
    """Data as an array; where its values can be seen (not inside `jit`), refused unless all are in the support."""
    x = as_array(x, name="x", called=called, allow_nan=missing, missing=unseen(called))
    if concrete(x):
        host = np.asarray(x)
        bad = ~((host > 0) | (missing & (host != host)))
        if bad.any():
            raise DataError(
                "x has values outside the support", called=called, expected="positive numbers",
                got=f"{bad.sum()} of {bad.size} outside, such as {host[bad][0]}",
                fix="drop zeros, or add half of the smallest unit of measurement",
            )  # fmt: skip
    return jnp.asarray(x)


def _prior(prior, shape, dtype):
    return None if prior is None else jnp.broadcast_to(jnp.asarray(prior, dtype), (*shape, 3))
