"""Densities of independent bits, with closed-form maximum likelihood.

What is outside of the support, and what was not seen, is scored as `ops.entries` says. A probability that training
drives to zero stops at the smallest normal number: see `ops.entries.smallest`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import distrax
from jaxgen.core.inputs import concrete, floating
from jaxgen.core.methods import per_batch, per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import entries
from jaxgen.ops.coordinates import chosen_and_rest
from jaxgen.ops.stable import has_mass

HIGHEST = jax.lax.Precision.HIGHEST
#: how far beyond 0 and 1 a probability may be: a sum of shares in float32 ends at 1.0000001
SLACK = 1e-5


class BernoulliStatistics(NamedTuple):
    """Weighted counts of zeros and of ones, `[*event]` each."""

    zeros: jax.Array
    ones: jax.Array


@model
class Bernoulli:
    """Independent coordinates that are 0 or 1.

    `log p(x) = sum_d x_d log p_d + (1 - x_d) log (1 - p_d)`, `p = sigmoid(logits)`

    Args:
        logits: `[*event]`, log odds of a one.
        prior: `[*event, 2]`, the parameters (of ones, of zeros) of a Beta prior; never trained. None is flat.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    Fractions, such as grey levels, are outside the support. The M-step repairs: without mass, logits stay.

    Example:
        >>> coins = Bernoulli.from_values([0.5, 0.9])
        >>> [round(float(p), 3) for p in jnp.exp(coins.log_prob(jnp.array([[1, 1], [0, 0], [0.5, 1]])))]
        [0.45, 0.05, 0.0]
    """

    logits: jax.Array
    prior: jax.Array | None = fixed(default=None)
    missing: bool = static(default=False)

    @classmethod
    def init(cls, key, x, *, prior=None, missing=False) -> Bernoulli:
        """The frequencies of ones in data `[N, *event]`; `prior` is broadcast to `[*event, 2]`, the key not used.

        Raises:
            DataError: values other than 0 and 1.
        """
        x = _bits(x, "Bernoulli.init(key, x)", missing)
        dtype = entries.float_dtype(x)
        start = cls(jnp.zeros(x.shape[1:], dtype), entries.broadcast(prior, (*x.shape[1:], 2), dtype), missing)
        return entries.one_step(start, x)

    @classmethod
    def from_values(cls, probs, *, prior=None, missing=False) -> Bernoulli:
        """From probabilities of a one `[*K, *event]`; 0 and 1 become the smallest normal number's distance from them.

        Raises:
            ModelError: values outside 0 to 1, but for what rounding elsewhere leaves.
        """
        probs = floating(probs, name="probs")
        if concrete(probs) and not ((probs >= -SLACK) & (probs <= 1 + SLACK)).all():
            raise ModelError(
                "probabilities lie between 0 and 1", called="Bernoulli.from_values(probs)", expected="0 <= probs <= 1",
                got=f"values from {probs.min()} to {probs.max()}",
                fix="np.clip(probs, 0, 1); the constructor takes log odds",
            )  # fmt: skip
        probs = jnp.clip(probs, 0, 1)
        return cls(_log_odds(1 - probs, probs), entries.broadcast(prior, (*probs.shape, 2), probs.dtype), missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.logits.shape

    @property
    def probs(self) -> jax.Array:
        """The probability of a one, `P(x = 1)`, `[*K, *event]`."""
        return jax.nn.sigmoid(self.logits)

    mean = property(lambda self: self.probs, doc="The probability of a one, `[*K, *event]`.")
    variance = property(lambda self: self.probs * jax.nn.sigmoid(-self.logits), doc="`[*K, *event]`.")

    @property
    def free_parameters(self) -> int:
        """One for each coordinate."""
        return math.prod(self.logits.shape)

    @property
    def mode(self) -> jax.Array:
        """The likeliest event, int32."""
        return (self.logits > 0).astype(jnp.int32)

    def check_data(self, x) -> None:
        """Refuses data outside the support with a DataError."""
        _bits(x, "Bernoulli.check_data(x)", self.missing)

    def _split(self, x):
        """Indicators of a one and of a zero in the model's dtype, and the penalty per event, from events in rows."""
        x = x.reshape((x.shape[0], -1))
        penalty = entries.scored(jnp.zeros((), self.logits.dtype), entries.whole(x, 2), x, self.missing)
        return (x == 1).astype(penalty.dtype), (x == 0).astype(penalty.dtype), jnp.sum(penalty, axis=1)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        value = -jax.nn.softplus(jnp.where(x == 1, -self.logits, self.logits))
        return jnp.sum(entries.scored(value, entries.whole(x, 2), x, self.missing))

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        below = jax.nn.sigmoid(-self.logits)
        return entries.of_counts(x, below.dtype, lambda k: jnp.where(k < 1, below, 1))

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        bit = (level > jax.nn.sigmoid(-self.logits)).astype(level.dtype)
        return jnp.where(jnp.isnan(level), level, bit)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]` int32."""
        return jax.random.bernoulli(key, self.probs).astype(jnp.int32)

    @per_batch
    def impute(self, x) -> jax.Array:
        """Bits with those that were not seen (NaN) at the likelier value, `[*batch, *event]`."""
        return self.completed(x, self.expected(x))

    def expected(self, x):
        """The probabilities of a one, `[N, *event]`."""
        return jnp.broadcast_to(self.probs, x.shape)

    def completed(self, x, expected):
        """Bits with those that were not seen at the likelier value of what was expected."""
        return jnp.where(jnp.isnan(x), (expected > 0.5).astype(x.dtype), x)

    def label_log_probs(self):
        """`log p(x_d = v)`, nats, `[*event, 2]`."""
        return -jax.nn.softplus(jnp.stack([self.logits, -self.logits], axis=-1))

    def marginal(self, indices) -> Bernoulli:
        """The density of some columns, those at `indices` (static), in their order."""
        return self._columns(chosen_and_rest(indices, self._count(), "Bernoulli.marginal(indices)")[0])

    def condition(self, indices, values) -> Bernoulli:
        """The density of the other columns; those at `indices` say nothing of them."""
        return self._columns(chosen_and_rest(indices, self._count(), "Bernoulli.condition(indices, values)")[1])

    def _count(self):
        """Columns of an event, 0 where it is one value; also of K models."""
        return sum(self.logits.shape[-1:])

    def _columns(self, chosen):
        prior = None if self.prior is None else self.prior[..., chosen, :]
        return dataclasses.replace(self, logits=self.logits[..., chosen], prior=prior)

    @weighted_events
    def e_step(self, x, weight=None):
        """`BernoulliStatistics`, and `log_prob [N]`."""
        statistics = self._counts(x, weight[None], self.logits.shape)
        return jax.tree.map(lambda leaf: leaf[0], statistics), self.log_prob(x)

    def _counts(self, x, weight, shape):
        # zeros are counted, not subtracted from the total: a coordinate that is nearly always one keeps its digits
        ones, zeros, _ = self._split(x)
        both = jnp.matmul(weight.astype(ones.dtype), jnp.concatenate([zeros, ones], axis=1), precision=HIGHEST)
        return BernoulliStatistics(*(part.reshape((len(weight), *shape)) for part in jnp.split(both, 2, axis=1)))

    def m_step(self, statistics) -> Bernoulli:
        """Weighted maximum likelihood; with a prior, the posterior mode."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where a coordinate has no mass, else 0."""
        zeros, ones = statistics
        if self.prior is not None:
            ones = jnp.maximum(ones + self.prior[..., 0] - 1, 0)
            zeros = jnp.maximum(zeros + self.prior[..., 1] - 1, 0)
        alive = has_mass(statistics.zeros + statistics.ones)
        total = jnp.where(alive, zeros + ones, 1)
        logits = jnp.where(alive, _log_odds(zeros / total, ones / total), self.logits)
        return dataclasses.replace(self, logits=logits), jnp.any(~alive).astype(jnp.int32)

    def log_prior(self):
        """Return the log density of the Beta prior, nats up to a constant."""
        if self.prior is None:
            return jnp.zeros((), self.logits.dtype)
        logs = -jax.nn.softplus(jnp.stack([-self.logits, self.logits], axis=-1))
        return jnp.sum(entries.times_log(self.prior - 1, logs))

    def log_prob_components(self, x):
        """`[K, N]`: one matrix product of terms that share a sign, so that no digits cancel."""
        ones, zeros, penalty = self._split(x)
        logits = self.logits.reshape((len(self.logits), -1))
        weights = -jax.nn.softplus(jnp.concatenate([-logits, logits], axis=1))
        return jnp.matmul(weights, jnp.concatenate([ones, zeros], axis=1).T, precision=HIGHEST) + penalty

    def e_step_components(self, x, weight):
        """`BernoulliStatistics` of K components, leading axis K, from weights `[K, N]`."""
        return self._counts(x, weight, self.logits.shape[1:])

    def distribution(self):
        """The distrax distribution."""
        dx = distrax()
        return dx.Independent(dx.Bernoulli(self.logits), len(self.event_shape))


def _bits(x, called, missing):
    """Return data as an array, all of them zeros and ones."""
    return entries.supported(
        x, lambda x: entries.whole(x, 2), called=called, expected="zeros and ones", missing=missing,
        fix="np.asarray(x) > 0.5, or some such threshold",
    )  # fmt: skip


def _log_odds(zeros, ones):
    tiny = entries.smallest(ones.dtype)
    return jnp.log(jnp.maximum(ones, tiny)) - jnp.log(jnp.maximum(zeros, tiny))
