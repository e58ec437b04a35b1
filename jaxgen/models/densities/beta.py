"""The Beta density: independent shares and probabilities, between 0 and 1."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.exchange import distrax
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import entries
from jaxgen.ops.roots import reach
from jaxgen.ops.special import beta_errors, beta_log_density, beta_ratios, digamma_gaps, wide_excess
from jaxgen.ops.stable import has_mass
from jaxgen.ops.tails import beta_cdf

#: default floor of 1 / concentration, the squared relative spread, as a share of the data's: that of a variance
RELATIVE_FLOOR = 1e-6
#: Newton steps of an M-step, and by what factor each may change the concentration, or the distance of the mean from
#: either end; in EM the next M-step goes on from there
STEPS, TRUST = 10, 10.0


class BetaStatistics(NamedTuple):
    """Around the old mean m: weight, sums of `x - m`, and of `t - 1 - log t` for `t = x / m` and `(1 - x) / (1 - m)`.

    `[*event]` each. They hold what the sums of `log x` and `log (1 - x)` do, and lose no digits where the spread is
    small.
    """

    weight: jax.Array
    first: jax.Array
    left: jax.Array
    right: jax.Array


@model
class Beta:
    """Independent coordinates between 0 and 1, with a mean and a concentration: shares, rates, probabilities.

    `log p(x) = sum_d (a_d - 1) log x_d + (b_d - 1) log (1 - x_d) - log B(a_d, b_d)`, with `a = s m` and `b = s (1 - m)`
    for means m and concentrations s, evaluated around `x = m` so that a large s keeps its digits; the variance is
    `m (1 - m) / (s + 1)`

    Args:
        logit_mean: `[*event]`, log odds of the means.
        log_concentration: `[*event]`, logarithm of `s = a + b`.
        floor: `[*event]`, the least `1 / s` that the M-step gives, a pure number: it keeps a component off a single
            event; never trained. None leaves only what the dtype can tell.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    The support is `0 < x < 1`; a draw that rounds to an end becomes the number next to it. The M-step is Newton's
    method, whose result is taken where its likelihood is higher than before. It repairs: a coordinate of no mass keeps
    its parameters, a concentration above `1 / floor` stops there.

    Source: Minka (2000), Estimating a Dirichlet distribution, section 1; Loader (2000), Fast and accurate computation
    of binomial probabilities.

    Example:
        >>> share = Beta.from_values([2.0], [1.0])
        >>> jnp.exp(share.log_prob(jnp.array([[0.5], [0.75], [1.0]]))).round(4).tolist()
        [1.0, 1.5, 0.0]
    """

    logit_mean: jax.Array
    log_concentration: jax.Array
    floor: jax.Array | None = fixed(default=None)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, floor=None, missing=False) -> Beta:
        """Return the maximum-likelihood density of data `[N, *event]`: moments, then EM; the key is not used.

        The floor is broadcast to `[*event]`; None is 1e-6 of the data's `1 / s`.

        Raises:
            DataError: values that are not between 0 and 1.
        """
        x = _shares(x, missing, "Beta.init(key, x)")
        x = x.astype(entries.float_dtype(x))
        seen = jnp.where(_inside(x), x, jnp.nan)
        # from either end: next to 1 the distance is fine-grained, the mean is not
        mean, rest = (jnp.nan_to_num(jnp.nanmean(part, axis=0), nan=0.5) for part in (seen, 1 - seen))
        room, variance = mean * rest, jnp.nan_to_num(jnp.nanvar(seen, axis=0))
        concentration = jnp.maximum(room / jnp.maximum(variance, RELATIVE_FLOOR * room) - 1, 0.1)
        start = cls.from_values(concentration * mean, concentration * rest, missing=missing)
        fitted = jax.lax.fori_loop(0, 3, lambda _, one: entries.one_step(one, x), start)
        floor = RELATIVE_FLOOR * jnp.exp(-fitted.log_concentration) if floor is None else floor
        return dataclasses.replace(fitted, floor=entries.broadcast(floor, x.shape[1:], x.dtype))

    @classmethod
    def from_values(cls, a, b, *, floor=None, missing=False) -> Beta:
        """Return the density of the powers' a and b, `[*K, *event]` or one for all, as `scipy.stats.beta(a, b)`.

        Raises:
            ModelError: values that are not positive.
        """
        called = "Beta.from_values(a, b)"
        a, b = (entries.positive(value, name=name, called=called) for value, name in ((a, "a"), (b, "b")))
        logit, log_concentration = jnp.broadcast_arrays(jnp.log(a) - jnp.log(b), jnp.log(a + b))
        return cls(logit, log_concentration, entries.broadcast(floor, logit.shape, logit.dtype), missing)

    event_shape = property(lambda self: self.logit_mean.shape)
    mean = property(lambda self: jax.nn.sigmoid(self.logit_mean), doc="`[*K, *event]`.")
    concentration = property(lambda self: jnp.exp(self.log_concentration), doc="`s = a + b`, `[*K, *event]`.")
    a = property(lambda self: self.concentration * self.mean, doc="`s m`, `[*K, *event]`.")
    b = property(lambda self: self.concentration * self._rest, doc="`s (1 - m)`, `[*K, *event]`.")
    variance = property(lambda self: self.mean * self._rest / (self.concentration + 1), doc="`[*K, *event]`.")
    bounds = property(lambda self: (jnp.zeros_like(self.mean), jnp.ones_like(self.mean)), doc="0 and 1.")
    free_parameters = property(lambda self: 2 * math.prod(self.logit_mean.shape), doc="Two for each coordinate.")
    _rest = property(lambda self: jax.nn.sigmoid(-self.logit_mean))

    def check_data(self, x) -> None:
        """Refuse data that are not between 0 and 1 with a DataError."""
        _shares(x, self.missing, "Beta.check_data(x)")

    def _share(self, x):
        return beta_cdf(self.a, self.b, x, 1 - x)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Return nats, `[*batch, *event] -> [*batch]`."""
        clean, inside = entries.clean(x, _inside, 0.5, self.logit_mean.dtype)
        value = beta_log_density(clean, self.logit_mean, self.log_concentration)
        return jnp.sum(entries.scored(value, inside, x, self.missing))

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        clean, inside = entries.clean(x, _inside, 0.5, self.logit_mean.dtype)
        return entries.cumulated(x, inside, self._share(clean))

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        level = jnp.broadcast_to(level, self.event_shape)
        return jnp.minimum(reach(lambda x: self._share(jnp.clip(x, 0, 1)), level, 0.0, 1.0), 1)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Return draws `[*shape, *event]`."""
        kind = jnp.finfo(self.logit_mean.dtype)
        draw = jax.random.beta(key, self.a, self.b, dtype=kind.dtype)
        return jnp.clip(draw, float(kind.tiny), 1 - float(kind.epsneg))

    @weighted_events
    def e_step(self, x, weight=None):
        """Return `BetaStatistics`, and `log_prob [N]`; entries outside the support count nowhere."""
        clean, inside = entries.clean(x, _inside, 0.5, self.logit_mean.dtype)
        seen = inside.astype(clean.dtype)
        parts = (seen * part for part in beta_ratios(clean, self.logit_mean))
        return BetaStatistics(*entries.sums(weight, seen, *parts)), self.log_prob(x)

    def m_step(self, statistics) -> Beta:
        """Return a density of higher likelihood: the weighted maximum, to rounding, unless it is very far."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """Return `m_step`, and 1 where a coordinate has no mass or stops at the largest concentration, else 0."""
        alive = has_mass(statistics.weight)
        logs = self._logs(statistics, alive)
        h, s = self._climb(logs, True, True)
        # ten roundings of x are the least spread there is
        least = (10 * float(jnp.finfo(s.dtype).eps)) ** 2
        most = 1 / jnp.maximum(0 if self.floor is None else self.floor, least)
        regular = s < most
        s = jnp.minimum(s, most)
        better = alive & (self._objective(logs, h, s) >= self._objective(logs, 0, self.concentration))
        logit = self.logit_mean + jnp.log1p(h / self.mean) - jnp.log1p(-h / self._rest)
        new = dataclasses.replace(
            self, logit_mean=jnp.where(better, logit, self.logit_mean),
            log_concentration=jnp.where(better, jnp.log(s), self.log_concentration),
        )  # fmt: skip
        return new, jnp.any(~(alive & regular)).astype(jnp.int32)

    def _logs(self, statistics, alive):
        """Return the means of `log (x / m)` and `log ((1 - x) / (1 - m))`, m the old mean."""
        weight, first, left, right = statistics
        weight = jnp.where(alive, weight, 1)
        return (first / self.mean - left) / weight, (-first / self._rest - right) / weight

    def _objective(self, logs, h, s):
        """Return the log-likelihood of an event at mean `m + h` and concentration s, up to what depends on x alone."""
        m, rest = self.mean + h, self._rest - h
        gaps = m * (logs[0] - jnp.log1p(h / self.mean)) + rest * (logs[1] - jnp.log1p(-h / self._rest))
        return s * gaps + beta_errors(s * m, s * rest) + 0.5 * jnp.log(s * m * rest)

    def _climb(self, logs, free_mean, free_concentration):
        """Return how far the mean moves, and the concentration, after Newton steps in a and b, or in what is free."""

        def step(_, point):
            h, s = point
            m, rest = self.mean + h, self._rest - h
            at, of, all_ = digamma_gaps(s * m), digamma_gaps(s * rest), digamma_gaps(s)
            # the gradient and second derivatives, times s and its square: all of order one where s is large
            ga = s * (at.log - all_.log + logs[0] - jnp.log1p(h / self.mean))
            gb = s * (of.log - all_.log + logs[1] - jnp.log1p(-h / self._rest))
            fa, fb, fs = (s * s * gaps.first for gaps in (at, of, all_))
            det = fa * m / rest + fb * rest / m + fa * fb / s - fs * (1 / (m * rest) + (fa + fb) / s)
            da = ((m / rest + (fb - fs) / s) * ga + (1 + fs / s) * gb) / det
            db = ((1 + fs / s) * ga + (rest / m + (fa - fs) / s) * gb) / det
            by = jnp.where(free_mean, da + db, (m * ga + rest * gb) / (m * m * fa + rest * rest * fb - fs))
            move = jnp.where(free_concentration, da - m * by, (ga - gb) / (s / m + s / rest + fa + fb))
            # a step of 1 / s, in which the gradient is straight where s is large, and where a or b are small
            by, far = jnp.where(free_concentration, by, 0), 1 - 1 / TRUST
            move = jnp.where(free_mean, jnp.clip(move, -far * m, far * rest), 0)
            return h + move, s / (1 - jnp.clip(by, 1 - TRUST, far))

        return jax.lax.fori_loop(0, STEPS, step, (jnp.zeros_like(self.logit_mean), self.concentration))

    @compiled
    def freeze(self, statistics, frozen):
        """Return statistics whose maximum is that of these where the mean, or the concentration, is frozen."""
        alive = has_mass(statistics.weight)
        h, s = self._climb(self._logs(statistics, alive), ~frozen.logit_mean, ~frozen.log_concentration)
        ratios, whole = (h / self.mean, -h / self._rest), digamma_gaps(s).log
        gaps = (digamma_gaps(s * (self.mean + h)).log - whole, digamma_gaps(s * (self._rest - h)).log - whole)
        excesses = (wide_excess(u, jnp.log1p(u)) for u in ratios)
        left, right = (statistics.weight * (e + g) for e, g in zip(excesses, gaps, strict=True))
        new = BetaStatistics(statistics.weight, statistics.weight * h, left, right)
        some = frozen.logit_mean | frozen.log_concentration
        return jax.tree.map(lambda new, old: jnp.where(some, new, old), new, statistics)

    def recentre(self, old, statistics):
        """Return statistics around the old mean as statistics around this one."""
        weight, first, left, right = statistics
        by = jnp.where(self.logit_mean < 0, old.mean - self.mean, self._rest - old._rest)
        moved = (
            part + weight * wide_excess(c, jnp.log1p(c)) + c * u
            for part, c, u in ((left, by / self.mean, first / old.mean), (right, -by / self._rest, -first / old._rest))
        )
        return BetaStatistics(weight, first + weight * by, *moved)

    def distribution(self):
        """Return the distrax distribution."""
        dx = distrax()
        return dx.Independent(dx.Beta(self.a, self.b), len(self.event_shape))


def _inside(x):
    return (x > 0) & (x < 1)


def _shares(x, missing, called):
    fix = "move what is at an end inwards by half of the smallest unit of measurement"
    return entries.supported(x, _inside, called=called, expected="numbers between 0 and 1", fix=fix, missing=missing)
