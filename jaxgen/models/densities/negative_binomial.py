"""The negative binomial density: independent counts that are more spread than a Poisson density's."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import as_array, concrete, floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.core.remedies import unseen
from jaxgen.ops import entries
from jaxgen.ops.roots import reach
from jaxgen.ops.special import digamma_gaps, excess, negative_binomial_log_mass
from jaxgen.ops.stable import has_mass
from jaxgen.ops.tails import beta_cdf

HIGHEST = jax.lax.Precision.HIGHEST
#: the dispersion stays above this, and below `MOST` times the mean or one, whichever is larger: there the variance is
#: 1.0001 of a Poisson density's, which nothing could tell apart (3e-9 nats an event)
LEAST, MOST = 1e-6, 1e4
#: an M-step changes a dispersion by a factor of ten at most, looked through in as many intervals
TRUST, INTERVALS = math.log(10.0), 16
#: EM steps of `init`, which converge cubically once within reach
INIT_STEPS = 10


class NegativeBinomialStatistics(NamedTuple):
    """Weight, of all counts and of those above zero, their sum, and sums of `psi`, `psi'` and `psi''` at `x + r` over
    those above zero, `[*event]` each.

    The last three are taken less their values at an anchor, the old mean of the counts above zero, and less a linear
    term, so that what is left is of second order in the spread: `_curved` is one count's share.
    """

    weight: jax.Array
    positive: jax.Array
    total: jax.Array
    value: jax.Array
    slope: jax.Array
    bend: jax.Array


@model
class NegativeBinomial:
    """Independent counts of mean m and variance `m + m^2 / r`: Poisson counts whose rates are Gamma distributed.

    `log p(x) = sum_d log Gamma(x + r) - log Gamma(r) - log x! + r log (r / (r + m)) + x log (m / (r + m))`, evaluated
    as two deviances so that large counts, and a large r, keep their digits. For r to infinity it is Poisson's density.

    Args:
        log_mean: `[*event]`, logarithm of the expected counts m.
        log_dispersion: `[*event]`, logarithm of r, the shape of the rates: small where counts are widely spread.
        prior: `[*event, 2]`, the parameters (shape, rate) of a Gamma prior on r; never trained. None is flat.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    Events are whole numbers from 0, of any dtype. In other words this is `scipy.stats.nbinom(n=r, p=r / (r + m))`.

    The maximum-likelihood mean is the mean of the counts. For r there is no closed form, nor sums of finite length that
    would hold the likelihood as a function of it, so one M-step is not the maximum but a step of a monotone iteration:
    it maximises a lower bound that agrees with the likelihood in value and three derivatives at the old r. Around the
    maximum the error is cubed at each step; far from it r changes tenfold at most. Statistics are sums over events as
    for any density, but they belong to the r they were made with.

    The M-step repairs: a coordinate of no mass keeps its parameters. r stays between 1e-6 and 1e4 times the mean or 1;
    counts that are less spread than Poisson's, which have no finite maximum, end at that upper end, and where all
    counts are zero r stays.

    Source: Loader (2000), Fast and accurate computation of binomial probabilities (the deviance form); Hunter and Lange
    (2004), A tutorial on MM algorithms. The bound: over the counts above zero, the mean of `log Gamma(x + r)` less
    `log Gamma(mean + r)` has a positive fourth derivative in r, because that of log Gamma is convex (Jensen), and so
    lies above its cubic Taylor polynomial; zeros and all else are in it exactly.

    Example:
        >>> goals = NegativeBinomial.from_values([2.0], [1.0])
        >>> [round(float(p), 4) for p in jnp.exp(goals.log_prob(jnp.array([[0], [1], [-1]])))]
        [0.3333, 0.2222, 0.0]
    """

    log_mean: jax.Array
    log_dispersion: jax.Array
    prior: jax.Array | None = fixed(default=None)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, prior=None, missing=False) -> NegativeBinomial:
        """The maximum-likelihood density of counts `[N, *event]`: moments, then ten steps of EM.

        Args:
            key: not used.
            x: whole numbers from 0.
            prior: broadcast to `[*event, 2]`.
            missing: whether NaN means an entry that was not seen.

        Raises:
            DataError: values that are no counts.
        """
        x = _counts(x, missing, "NegativeBinomial.init(key, x)")
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        seen = x == x
        number = jnp.maximum(jnp.sum(seen, axis=0), 1).astype(dtype)
        mean = jnp.sum(jnp.where(seen, x, 0).astype(dtype), axis=0) / number
        variance = jnp.sum(jnp.where(seen, x - mean, 0) ** 2, axis=0) / number
        mean = jnp.where(mean > 0, mean, 1)
        most = MOST * jnp.maximum(mean, 1)
        dispersion = jnp.clip(mean * mean / jnp.maximum(variance - mean, mean * mean / most), 1e-2, most)
        prior = _prior(prior, x.shape[1:], dtype)
        start = cls(jnp.log(mean), jnp.log(dispersion), prior, missing)
        ones = jnp.ones(len(x), dtype)
        return jax.lax.fori_loop(0, INIT_STEPS, lambda _, m: m.m_step(m.e_step(x, ones)[0]), start)

    @classmethod
    def from_values(cls, mean, dispersion, *, prior=None, missing=False) -> NegativeBinomial:
        """From means and dispersions, `[*K, *event]` each, or one for all.

        Raises:
            ModelError: values that are not positive.
        """
        mean, dispersion = floating(mean, name="mean"), floating(dispersion, name="dispersion")
        if concrete((mean, dispersion)) and not ((mean > 0).all() and (dispersion > 0).all()):
            raise ModelError(
                "means and dispersions must be positive", called="NegativeBinomial.from_values(mean, dispersion)",
                expected="above 0", got=f"smallest {mean.min()} and {dispersion.min()}",
                fix="leave others out; the constructor takes logarithms",
            )  # fmt: skip
        log_mean, log_dispersion = jnp.broadcast_arrays(jnp.log(mean), jnp.log(dispersion))
        return cls(log_mean, log_dispersion, _prior(prior, log_mean.shape, log_mean.dtype), missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.log_mean.shape

    @property
    def mean(self) -> jax.Array:
        """Expected counts, `[*K, *event]`."""
        return jnp.exp(self.log_mean)

    @property
    def dispersion(self) -> jax.Array:
        """r, `[*K, *event]`."""
        return jnp.exp(self.log_dispersion)

    @property
    def variance(self) -> jax.Array:
        """`m + m^2 / r`, `[*K, *event]`."""
        return self.mean + jnp.exp(2 * self.log_mean - self.log_dispersion)

    @property
    def free_parameters(self) -> int:
        """A mean and a dispersion for each coordinate."""
        return 2 * math.prod(self.log_mean.shape)

    def check_data(self, x) -> None:
        """Refuses data outside the support with a DataError."""
        _counts(x, self.missing, "NegativeBinomial.check_data(x)")

    @property
    def _anchor(self):
        """The mean of the counts above zero."""
        r = self.dispersion
        return self.mean / -jnp.expm1(-r * jnp.log1p(self.mean / r))

    def _clean(self, x):
        """Counts in the model's dtype, 0 for what is none, what is one, and each entry's penalty."""
        dtype = self.log_mean.dtype
        inside = (x >= 0) & (x < jnp.inf) & (x == jnp.floor(x))
        penalty = jnp.where(x != x, 0.0 if self.missing else jnp.nan, jnp.where(inside, 0.0, -jnp.inf)).astype(dtype)
        return jnp.where(inside, x, 0).astype(dtype), inside, penalty

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        x, inside, penalty = self._clean(x)
        return jnp.sum(jnp.where(inside, negative_binomial_log_mass(x, self.mean, self.dispersion), 0) + penalty)

    @per_event
    def impute(self, x) -> jax.Array:
        """Return events with what is missing (NaN) at its mean, `[*batch, *event]`."""
        return jnp.where(jnp.isnan(x), self.mean, x)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        share = self.dispersion / (self.dispersion + self.mean), self.mean / (self.dispersion + self.mean)
        return entries.of_counts(x, self.log_mean.dtype, lambda k: beta_cdf(self.dispersion, k + 1, *share))

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        level = jnp.broadcast_to(level, self.event_shape)
        return reach(lambda x: self.cdf(x), level, -1.0, self.mean)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]` int32: a rate each, and a Poisson count of it."""
        first, second = jax.random.split(key)
        rate = jax.random.gamma(first, self.dispersion, dtype=self.log_mean.dtype)
        return jax.random.poisson(second, rate * jnp.exp(self.log_mean - self.log_dispersion), dtype=jnp.int32)

    @weighted_events
    def e_step(self, x, weight=None):
        """`NegativeBinomialStatistics`, and `log_prob [N]`; entries that are no counts count nowhere."""
        clean, inside, _ = self._clean(x)
        seen, positive = inside.astype(clean.dtype), (clean > 0).astype(clean.dtype)
        curved = (positive * part for part in _curved(clean, self._anchor, self.dispersion))
        parts = (seen, positive, clean, *curved)
        weight = weight.astype(clean.dtype)
        sums = (jnp.tensordot(weight, part, axes=1, precision=HIGHEST) for part in parts)
        return NegativeBinomialStatistics(*sums), self.log_prob(x)

    def m_step(self, statistics) -> NegativeBinomial:
        """A mean at its weighted maximum likelihood, and a dispersion of higher likelihood or posterior density."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where a coordinate has no mass, else 0."""
        weight, positive, total, *curved = statistics
        alive = has_mass(weight)
        any_positive = alive & (positive > 0)
        weight, positive = jnp.where(alive, weight, 1), jnp.where(any_positive, positive, 1)
        old, mean = self.dispersion, jnp.where(alive, total / weight, 1)
        share, high = jnp.where(any_positive, positive / weight, 0), jnp.where(any_positive, total / positive, 1)
        value, slope, bend = (
            part / positive - at_mean for part, at_mean in zip(curved, _curved(high, self._anchor, old), strict=True)
        )
        shape, rate = (1, 0) if self.prior is None else jnp.moveaxis(self.prior, -1, 0)

        def derivative(log_dispersion):
            """Return the derivative of the bound in r, per event, with the mean at its maximum."""
            r = jnp.exp(log_dispersion)
            h = r - old
            taylor = value + h * (slope + 0.5 * h * bend)
            own = digamma_gaps(r).log - digamma_gaps(r + high).log
            # share log (1 + high / r) - log (1 + mean / r), whose linear terms cancel: left out where they are large
            u, v = high / r, mean / r
            logs = jnp.log1p(u), jnp.log1p(v)
            rest = jnp.where(u > 1, share * logs[0] - logs[1], excess(v, logs[1]) - share * excess(u, logs[0]))
            return share * (own + taylor) + rest + ((shape - 1) / r - rate) / weight

        log_dispersion = self.log_dispersion + _ascent(derivative, self.log_dispersion)
        most = math.log(MOST) + jnp.log(jnp.maximum(mean, 1))
        log_dispersion = jnp.clip(log_dispersion, math.log(LEAST), most)
        known = any_positive if self.prior is None else alive
        floor = float(jnp.finfo(mean.dtype).tiny) ** 0.5
        new = dataclasses.replace(
            self,
            log_mean=jnp.where(alive, jnp.log(jnp.maximum(mean, floor)), self.log_mean),
            log_dispersion=jnp.where(known, log_dispersion, self.log_dispersion),
        )
        return new, jnp.any(~alive).astype(jnp.int32)

    def log_prior(self):
        """`(shape - 1) log r - rate r`, nats up to a constant."""
        if self.prior is None:
            return jnp.zeros((), self.log_mean.dtype)
        return jnp.sum((self.prior[..., 0] - 1) * self.log_dispersion - self.prior[..., 1] * self.dispersion)

    def freeze(self, statistics, frozen):
        """With a mean that is frozen the dispersion is fitted around it, not around the mean of the counts.

        The sums become those of counts with that mean which have the likelihood's derivatives in r.
        """
        weight, positive, total, *curved = statistics
        lacking = jnp.where(frozen.log_mean, weight * self.mean - total, 0)
        linear = zip(_linear(self.mean + self.dispersion), _linear(self._anchor + self.dispersion), strict=True)
        curved = (part + lacking * (own - taken) for part, (own, taken) in zip(curved, linear, strict=True))
        return NegativeBinomialStatistics(weight, positive, total + lacking, *curved)

    def recentre(self, old, statistics):
        """Statistics around the old anchor, around this one, exactly; at another r by their Taylor polynomial."""
        weight, positive, total, value, slope, bend = statistics
        h = self.dispersion - old.dispersion
        curved = (value + h * (slope + 0.5 * h * bend), slope + h * bend, bend)
        before, after, r = old._anchor, self._anchor, self.dispersion
        first = total - positive * after
        moved = (
            part - positive * at_mean + first * (was - now)
            for part, at_mean, was, now in zip(
                curved, _curved(after, before, r), _linear(before + r), _linear(after + r), strict=True
            )
        )
        return NegativeBinomialStatistics(weight, positive, total, *moved)

    def features(self, x):
        """Counts made equally spread, `2 sqrt(r) asinh(sqrt((x + 3/8) / r))`, `[N, D]`, for clustering; NaN stays.

        Source: Anscombe (1948), The transformation of Poisson, binomial and negative-binomial data.
        """
        clean, inside, _ = self._clean(x)
        r = self.dispersion
        spread = 2 * jnp.sqrt(r) * jnp.arcsinh(jnp.sqrt((clean + 0.375) / r))
        return jnp.where(inside, spread, jnp.nan).reshape((x.shape[0], -1))

    def distribution(self):
        """The distrax distribution."""
        return as_distribution(self)


def _curved(x, m, r):
    """`psi`, `psi'` and `psi''` at `x + r`, each less its value at `m + r` and less `_linear(m + r) (x - m)`.

    The linear terms are those of the logarithm, whose share is then a square: nothing cancels for x near m.
    """
    y, z = x + r, m + r
    u = (x - m) / z
    here, there = digamma_gaps(y), digamma_gaps(z)
    return (
        there.log - here.log - excess(u, jnp.log(y / z)),
        here.first - there.first + u * u / y,
        here.second - there.second - (u / y) ** 2 * (3 + 2 * u),
    )


def _linear(z):
    """The derivatives of `1 / z`, and so of `log z` from the first on: what `_curved` leaves out for each `x - m`."""
    return 1 / z, -1 / (z * z), 2 / (z * z * z)


def _ascent(derivative, start):
    """Return the move from `start` along the derivative: to its first zero, or as far as is trusted.

    Up to the first change of sign the bound only rises, so that this never lowers it whatever its shape.
    """
    way = jnp.sign(derivative(start))
    steps = jnp.linspace(0, TRUST, INTERVALS + 1, dtype=start.dtype)
    ladder = steps.reshape((-1, *[1] * start.ndim))
    risen = way * jax.vmap(lambda t: derivative(start + way * t))(steps) > 0
    fallen = ~risen[1:]
    first = jnp.argmax(fallen, axis=0)
    reached = jnp.any(fallen, axis=0)
    width = ladder[1] - ladder[0]
    low = jnp.where(reached, first * width, TRUST).astype(start.dtype)

    def halve(_, state):
        low, width = state
        width = width / 2
        rises = way * derivative(start + way * (low + width)) > 0
        return jnp.where(rises & reached, low + width, low), width

    digits = jnp.finfo(start.dtype).nmant
    low, _ = jax.lax.fori_loop(0, digits, halve, (low, jnp.broadcast_to(width, low.shape)))
    return way * low


def _counts(x, missing, called):
    """Data as an array; where its values can be seen (not inside `jit`), refused unless all are in the support."""
    x = as_array(x, name="x", called=called, allow_nan=missing, missing=unseen(called))
    if concrete(x):
        host = np.asarray(x)
        bad = ~(((host >= 0) & (host == np.floor(host))) | (missing & (host != host)))
        if bad.any():
            raise DataError(
                "x has values outside the support", called=called, expected="whole numbers from 0",
                got=f"{bad.sum()} of {bad.size} outside, such as {host[bad][0]}",
                fix="a Gamma, for positive measurements",
            )  # fmt: skip
    return jnp.asarray(x)


def _prior(prior, shape, dtype):
    return None if prior is None else jnp.broadcast_to(jnp.asarray(prior, dtype), (*shape, 2))
