"""Densities of independent counts, with closed-form maximum likelihood.

What is outside of the support, and what was not seen, is scored as `ops.entries` says. A rate that training drives to
zero stops at the root of the smallest normal number: see `ops.entries.smallest`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import entries
from jaxgen.ops.coordinates import chosen_and_rest
from jaxgen.ops.roots import reach
from jaxgen.ops.special import poisson_log_mass
from jaxgen.ops.stable import has_mass
from jaxgen.ops.tails import gamma_tails

HIGHEST = jax.lax.Precision.HIGHEST
#: up to so many coordinates the mapped Poisson log-mass costs what the matrix product does (measured, CPU)
NARROW = 8


class PoissonStatistics(NamedTuple):
    """Total weight, `[]` or, where entries may be missing, `[*event]`; and weighted sum of the counts `[*event]`."""

    weight: jax.Array
    total: jax.Array


@model
class Poisson:
    """Independent counts.

    `log p(x) = sum_d x_d log rate_d - rate_d - log x_d!`, evaluated as a deviance so that large counts keep their
    digits.

    Args:
        log_rate: `[*event]`, logarithm of the expected counts.
        prior: `[*event, 2]`, the parameters (shape, rate) of a Gamma prior; never trained. None is flat.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    Events are whole numbers from 0, of any dtype. The M-step repairs: without mass, rates stay.

    Source: Loader (2000), Fast and accurate computation of binomial probabilities (the deviance form).

    Example:
        >>> shop = Poisson.from_values([2.0])
        >>> [round(float(p), 4) for p in jnp.exp(shop.log_prob(jnp.array([[0], [2], [-1]])))]
        [0.1353, 0.2707, 0.0]
    """

    log_rate: jax.Array
    prior: jax.Array | None = fixed(default=None)
    missing: bool = static(default=False)

    @classmethod
    def init(cls, key, x, *, prior=None, missing=False) -> Poisson:
        """The mean of counts `[N, *event]`; `prior` is broadcast to `[*event, 2]`, the key not used.

        Raises:
            DataError: values that are no counts.
        """
        x = _counts(x, "Poisson.init(key, x)", missing)
        dtype = entries.float_dtype(x)
        start = cls(jnp.zeros(x.shape[1:], dtype), entries.broadcast(prior, (*x.shape[1:], 2), dtype), missing)
        return entries.one_step(start, x)

    @classmethod
    def from_values(cls, rate, *, prior=None, missing=False) -> Poisson:
        """From expected counts `[*K, *event]`; zero becomes the root of the smallest normal number.

        Raises:
            ModelError: a negative rate.
        """
        rate = jnp.asarray(as_array(rate, name="rate"))
        rate = rate.astype(entries.float_dtype(rate))
        if concrete(rate) and not (rate >= 0).all():
            raise ModelError(
                "rates must not be negative", called="Poisson.from_values(rate)", expected="rate >= 0",
                got=f"smallest {rate.min()}", fix="np.maximum(rate, 0); the constructor takes logarithms",
            )  # fmt: skip
        return cls(_log_rate(rate), entries.broadcast(prior, (*rate.shape, 2), rate.dtype), missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.log_rate.shape

    @property
    def rate(self) -> jax.Array:
        """Expected counts, `[*K, *event]`."""
        return jnp.exp(self.log_rate)

    mean = property(lambda self: self.rate, doc="The rate, `[*K, *event]`.")
    variance = property(lambda self: self.rate, doc="The rate, `[*K, *event]`.")

    def check_data(self, x) -> None:
        """Refuses data outside the support with a DataError."""
        _counts(x, "Poisson.check_data(x)", self.missing)

    @property
    def free_parameters(self) -> int:
        """One for each coordinate."""
        return math.prod(self.log_rate.shape)

    def _clean(self, x):
        """Counts in the model's dtype, 0 for what is none, and where they are counts."""
        supported = entries.whole(x)
        return jnp.where(supported, x, 0).astype(self.log_rate.dtype), supported

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        counts, supported = self._clean(x)
        return jnp.sum(entries.scored(poisson_log_mass(counts, self.rate), supported, x, self.missing))

    @per_event
    def impute(self, x) -> jax.Array:
        """Return events with what is missing (NaN) at its mean, `[*batch, *event]`."""
        return entries.filled(x, self.rate)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        return entries.of_counts(x, self.log_rate.dtype, lambda k: gamma_tails(k + 1, self.rate)[1])

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        level = jnp.broadcast_to(level, self.event_shape)
        return reach(lambda x: self.cdf(x), level, -1.0, self.rate)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]` int32."""
        return jax.random.poisson(key, self.rate, dtype=jnp.int32)

    def marginal(self, indices) -> Poisson:
        """The density of some columns, those at `indices` (static), in their order."""
        return self._columns(chosen_and_rest(indices, self._count(), "Poisson.marginal(indices)")[0])

    def condition(self, indices, values) -> Poisson:
        """The density of the other columns; those at `indices` say nothing of them."""
        return self._columns(chosen_and_rest(indices, self._count(), "Poisson.condition(indices, values)")[1])

    def _count(self):
        """Columns of an event, 0 where it is one value; also of K models."""
        return sum(self.log_rate.shape[-1:])

    def _columns(self, chosen):
        prior = None if self.prior is None else self.prior[..., chosen, :]
        return dataclasses.replace(self, log_rate=self.log_rate[..., chosen], prior=prior)

    @weighted_events
    def e_step(self, x, weight=None):
        """`PoissonStatistics`, and `log_prob [N]`."""
        statistics = self._sums(x, weight[None], self.log_rate.shape)
        return jax.tree.map(lambda leaf: leaf[0], statistics), self.log_prob(x)

    def _sums(self, x, weight, shape):
        weight = weight.astype(self.log_rate.dtype)
        counts = self._clean(x)[0].reshape((x.shape[0], -1))
        total = jnp.matmul(weight, counts, precision=HIGHEST).reshape((len(weight), *shape))
        if not self.missing:
            return PoissonStatistics(jnp.sum(weight, axis=1), total)
        seen = (x == x).reshape(counts.shape).astype(counts.dtype)
        return PoissonStatistics(jnp.matmul(weight, seen, precision=HIGHEST).reshape(total.shape), total)

    def m_step(self, statistics) -> Poisson:
        """Weighted maximum likelihood; with a prior, the posterior mode."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where there is no mass (of a coordinate, where entries may be missing), else 0."""
        weight, total = statistics
        if self.prior is not None:
            total = jnp.maximum(total + self.prior[..., 0] - 1, 0)
            weight = weight + self.prior[..., 1]
        alive = has_mass(statistics.weight)
        log_rate = jnp.where(alive, _log_rate(total / jnp.where(alive, weight, 1)), self.log_rate)
        return dataclasses.replace(self, log_rate=log_rate), jnp.any(~alive).astype(jnp.int32)

    def log_prior(self):
        """Return the log density of the Gamma prior, nats up to a constant."""
        if self.prior is None:
            return jnp.zeros((), self.log_rate.dtype)
        return jnp.sum((self.prior[..., 0] - 1) * self.log_rate - self.prior[..., 1] * self.rate)

    def log_prob_components(self, x):
        """`[K, N]`: the log-mass at the mean rate, and one matrix product for each component's difference from it.

        Events of few coordinates are mapped: as fast, and exact however far the rates are apart.
        """
        if math.prod(self.log_rate.shape[1:]) <= NARROW:
            return algebra.default_log_prob(self, x)
        x = x.reshape((x.shape[0], -1))
        counts, supported = self._clean(x)
        rate = self.rate.reshape((len(self.log_rate), -1))
        mean = jnp.mean(rate, axis=0)
        base = jnp.sum(entries.scored(poisson_log_mass(counts, mean), supported, x, self.missing), axis=1)
        difference = rate - mean
        ratio = jnp.log1p(difference / mean)
        spent = jnp.sum(difference, axis=1)[:, None]
        if self.missing:
            spent = jnp.matmul(difference, (x == x).T.astype(difference.dtype), precision=HIGHEST)
        return base + jnp.matmul(ratio, counts.T, precision=HIGHEST) - spent

    def e_step_components(self, x, weight):
        """`PoissonStatistics` of K components, leading axis K, from weights `[K, N]`."""
        return self._sums(x, weight, self.log_rate.shape[1:])

    def features(self, x):
        """Counts made equally spread, `2 sqrt(x + 3/8)`, `[N, D]`, for clustering (Anscombe, 1948); NaN stays."""
        counts = jnp.where(x != x, jnp.nan, self._clean(x)[0])
        return 2 * jnp.sqrt(counts.reshape((x.shape[0], -1)) + 0.375)

    def distribution(self):
        """The distrax distribution."""
        return as_distribution(self)


def _counts(x, called, missing):
    """Return data as an array, all of them counts."""
    return entries.supported(
        x, entries.whole, called=called, expected="whole numbers from 0", missing=missing,
        fix="a Gaussian or a Gamma, for numbers that are no counts",
    )  # fmt: skip


def _log_rate(rate):
    return jnp.log(jnp.maximum(rate, entries.smallest(rate.dtype) ** 0.5))
