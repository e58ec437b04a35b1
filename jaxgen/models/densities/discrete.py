"""Densities of counts and labels: categorical, Bernoulli and Poisson leaves with closed-form maximum likelihood.

Rules all three share. An event outside the support has log-probability -inf, one with NaN has NaN; with `missing` a NaN
is an entry that was not seen, and is marginalised: it adds nothing to a log-probability or a count. The M-step leaves a
part that no event belongs to as it was. A probability that training drives to zero stops at the smallest normal number
of its dtype (a rate at the root of it), so that parameters stay finite and the likelihood is that of the exact maximum
to the last digit; a prior is the way to say more about what was never seen.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.compiled import compiled
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.exchange import as_distribution, distrax
from jaxgen.core.inputs import as_array, concrete, floating, probabilities
from jaxgen.core.methods import per_event, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.core.remedies import unseen
from jaxgen.ops.chunks import sum_over_chunks
from jaxgen.ops.special import poisson_log_mass
from jaxgen.ops.stable import has_mass, log_normalize, softmax

HIGHEST = jax.lax.Precision.HIGHEST

#: fixes for data outside the support
_NUMBERED = "np.unique(x, return_inverse=True)[1] numbers them from 0"
_CUT = "np.asarray(x) > 0.5, or some such threshold"
_MEASURED = "a Gaussian or a Gamma, for numbers that are no counts"
#: up to so many coordinates the mapped Poisson log-mass costs what the matrix product does (measured, CPU)
NARROW = 8
#: events counted one after the other: a float32 counter stops at 2^24, and rounds fractions long before
COUNTED = 2**16
#: how far beyond 0 and 1 a probability may be: a sum of shares in float32 ends at 1.0000001
SLACK = 1e-5


def _float_type(x):
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)


def _tiny(dtype):
    return float(jnp.finfo(dtype).tiny)


def _whole(x, below, xp=jnp):
    """Where x is a whole number from 0 to less than `below`: the support of all three."""
    # a bare number would take the type of x, and 200 is -56 in int8
    limit = np.float32(below) if below == math.inf else np.uint32(below)
    return (x >= 0) & (x < limit) & (x == xp.floor(x))


def _events(x, below, called, expected, fix, missing=False):
    """Data as an array; where its values can be seen (not inside `jit`), refused unless all are in the support."""
    x = as_array(x, name="x", allow_nan=missing, missing=unseen(called))
    if concrete(x):
        host = np.asarray(x)
        bad = ~(_whole(host, below, np) | (missing & (host != host)))
        if bad.any():
            raise DataError(
                "x has values outside the support", called=called, expected=expected, fix=fix,
                got=f"{bad.sum()} of {bad.size} outside, such as {host[bad][0]}",
            )  # fmt: skip
    return jnp.asarray(x)


def _scored(value, x, supported, missing):
    """`value` for what the support holds, -inf for the rest; NaN (`x != x`, which integers allow too) for NaN, or 0."""
    rest = jnp.where(x != x, 0.0 if missing else jnp.nan, -jnp.inf).astype(value.dtype)
    return jnp.where(supported, value, rest)


def _log_density(power, log):
    """`power log`, 0 where the power is, and where the logarithm is of what cannot be."""
    live = (power != 0) & (log > -jnp.inf)
    return jnp.where(live, power * jnp.where(live, log, 0), 0)


def _prior(prior, shape, dtype):
    return None if prior is None else jnp.broadcast_to(jnp.asarray(prior, dtype), shape)


def _ones(x, dtype):
    return jnp.ones(x.shape[0], dtype)


@model
class Categorical:
    """Labels 0 to V - 1, or a row of independent ones.

    `log p(x) = sum_c log softmax(logits_c)[x_c]`

    Args:
        logits: `[*columns, V]`, each row up to a constant; -inf is a label that cannot be, and stays so in the M-step.
        prior: `[*columns, V]`, concentrations of a Dirichlet prior; never trained. None is flat: maximum likelihood.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    An event is an array of whole numbers `[*columns]`, a scalar for logits `[V]`. The M-step repairs: a column of no
    mass keeps its logits.

    Example:
        >>> die = Categorical.from_probs([0.5, 0.25, 0.25, 0.0])
        >>> jnp.exp(die.log_prob(jnp.array([0, 2, 3, 7, -1]))).round(3).tolist()
        [0.5, 0.25, 0.0, 0.0, 0.0]
        >>> die.sample(jax.random.key(0), (5,)).shape
        (5,)
    """

    logits: jax.Array
    prior: jax.Array | None = fixed(None)
    missing: bool = static(False)

    @classmethod
    def init(cls, key, x, *, size=None, prior=None, missing=False) -> Categorical:
        """The frequencies of labels `[N, *columns]`.

        Args:
            key: not used.
            x: whole numbers from 0.
            size: V, the number of labels; None counts them, which needs data that can be seen: inside `jit`, and so
                as the leaf of a mixture, it has to be given.
            prior: concentrations, broadcast to `[*columns, V]`.
            missing: whether NaN means an entry that was not seen.

        Raises:
            ModelError: no size where it cannot be counted. DataError: values that are no label.

        Example:
            >>> Categorical.init(jax.random.key(0), [0, 1, 1, 1]).probs.tolist()
            [0.25, 0.75]
        """
        called = f"Categorical.init(key, x, size={size})"
        labels = "whole numbers from 0" + ("" if size is None else f" to {size - 1}")
        x = _events(x, math.inf if size is None else size, called, labels, _NUMBERED if size is None else "", missing)
        if size is None and not concrete(x):
            raise ModelError(
                "the number of labels cannot be counted inside jit", called=called, expected="size=, an int",
                got="x without values (traced)",
                fix="functools.partial(jaxgen.Categorical.init, size=n) as the leaf, n the number of labels",
            )  # fmt: skip
        size = int(jnp.nanmax(x)) + 1 if size is None else size
        dtype = _float_type(x)
        shape = (*x.shape[1:], size)
        start = cls(jnp.full(shape, -math.log(size), dtype), _prior(prior, shape, dtype), missing)
        return start.m_step(start.e_step(x, _ones(x, dtype))[0])

    @classmethod
    def from_probs(cls, probs, *, prior=None, missing=False) -> Categorical:
        """From probabilities `[*columns, V]` (with leading axes: a batch of models), exact zeros included.

        Raises:
            ModelError: negative values, or rows that do not sum to one.
        """
        probs = probabilities(probs, name="probs", called="Categorical.from_probs(probs)")
        return cls(jnp.log(probs), _prior(prior, probs.shape, probs.dtype), missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.logits.shape[:-1]

    @property
    def log_probs(self) -> jax.Array:
        """Normalised, `[*K, *columns, V]` nats."""
        return log_normalize(self.logits)[0]

    @property
    def probs(self) -> jax.Array:
        """`[*K, *columns, V]`, rows sum to one."""
        return softmax(self.logits)

    @property
    def mode(self) -> jax.Array:
        """The likeliest label, `[*K, *columns]` int32."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    @property
    def free_parameters(self) -> int:
        """One less than labels, for each column."""
        return math.prod(self.logits.shape[:-1]) * (self.logits.shape[-1] - 1)

    def _supported(self, x):
        return _whole(x, self.logits.shape[-1])

    def check_data(self, x) -> None:
        """Refuses data outside the support with a DataError."""
        size = self.logits.shape[-1]
        _events(x, size, "Categorical.check_data(x)", f"labels from 0 to {size - 1}", "", self.missing)

    def _index(self, x):
        """Labels as rows of a table `[columns * V, ...]`; what is no label points past its end."""
        size = self.logits.shape[-1]
        supported = self._supported(x)
        columns = x.reshape((x.shape[0], -1)).shape[1]
        label = jnp.where(supported, x, 0).astype(jnp.int32).reshape((x.shape[0], columns))
        return jnp.where(supported.reshape(label.shape), label + size * jnp.arange(columns), columns * size)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *columns] -> [*batch]`."""
        supported = self._supported(x)
        label = jnp.where(supported, x, 0).astype(jnp.int32)
        value = jnp.take_along_axis(self.log_probs, label[..., None], axis=-1)
        return jnp.sum(_scored(value[..., 0], x, supported, self.missing))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *columns]` int32."""
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    @weighted_events
    def e_step(self, x, weight=None):
        """Weighted counts `[*columns, V]`, and `log_prob [N]`."""
        return self._counts(x, weight[None], self.logits.shape)[0], self.log_prob(x)

    def _counts(self, x, weight, shape):
        """`[K, *shape]` from weights `[K, N]`; events outside the support count nowhere."""
        index = self._index(x)
        weight = weight.astype(self.logits.dtype)
        table = jnp.zeros((math.prod(shape), len(weight)), weight.dtype)

        def part(rows, fresh):
            counted = jnp.repeat(jnp.where(fresh, rows(weight, 1), 0).T, index.shape[1], axis=0)
            return table.at[rows(index).reshape(-1)].add(counted, mode="drop")

        return sum_over_chunks(part, len(index), COUNTED).T.reshape((len(weight), *shape))

    def m_step(self, statistics) -> Categorical:
        """Weighted maximum likelihood; with a prior, the posterior mode."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where a column has no mass, else 0."""
        total = jnp.sum(statistics, axis=-1, keepdims=True)
        counts = statistics if self.prior is None else jnp.maximum(statistics + self.prior - 1, 0)
        share = counts / jnp.where(has_mass(total), jnp.sum(counts, axis=-1, keepdims=True), 1)
        logits = jnp.log(jnp.maximum(share, _tiny(share.dtype)))
        logits = jnp.where(has_mass(total) & (self.logits > -jnp.inf), logits, self.logits)
        return dataclasses.replace(self, logits=logits), jnp.any(~has_mass(total)).astype(jnp.int32)

    def log_prior(self):
        """Of the Dirichlet prior, nats up to a constant; labels that cannot be are left out."""
        if self.prior is None:
            return jnp.zeros((), self.logits.dtype)
        return jnp.sum(_log_density(self.prior - 1, self.log_probs))

    def log_prob_components(self, x):
        """`[K, N]`: one gather of rows from a table `[columns * V, K]`."""
        log_probs = self.log_probs
        columns = math.prod(log_probs.shape[1:-1])
        table = jnp.moveaxis(log_probs, 0, -1).reshape((-1, len(log_probs)))
        value = table.at[self._index(x)].get(mode="clip")
        x = x.reshape((x.shape[0], columns, 1))
        return jnp.sum(_scored(value, x, self._supported(x), self.missing), axis=1).T

    def e_step_components(self, x, weight):
        """Counts of K components, `[K, *columns, V]`, from weights `[K, N]`."""
        return self._counts(x, weight, self.logits.shape[1:])

    def features(self, x):
        """One-hot labels, `[N, columns * V]`, for clustering; NaN for a label that was not seen."""
        x = x.reshape((x.shape[0], -1))
        labels = (x[..., None] == jnp.arange(self.logits.shape[-1])).astype(self.logits.dtype)
        labels = jnp.where((x != x)[..., None], jnp.nan, labels)
        return labels.reshape((x.shape[0], -1))

    def distribution(self):
        """The distrax distribution."""
        dx = distrax()
        return dx.Independent(dx.Categorical(self.logits), len(self.event_shape))


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
        >>> coins = Bernoulli.from_probs([0.5, 0.9])
        >>> [round(float(p), 3) for p in jnp.exp(coins.log_prob(jnp.array([[1, 1], [0, 0], [0.5, 1]])))]
        [0.45, 0.05, 0.0]
    """

    logits: jax.Array
    prior: jax.Array | None = fixed(None)
    missing: bool = static(False)

    @classmethod
    def init(cls, key, x, *, prior=None, missing=False) -> Bernoulli:
        """The frequencies of ones in data `[N, *event]`; `prior` is broadcast to `[*event, 2]`, the key not used.

        Raises:
            DataError: values other than 0 and 1.
        """
        x = _events(x, 2, "Bernoulli.init(key, x)", "zeros and ones", _CUT, missing)
        dtype = _float_type(x)
        start = cls(jnp.zeros(x.shape[1:], dtype), _prior(prior, (*x.shape[1:], 2), dtype), missing)
        return start.m_step(start.e_step(x, _ones(x, dtype))[0])

    @classmethod
    def from_probs(cls, probs, *, prior=None, missing=False) -> Bernoulli:
        """From probabilities of a one `[*K, *event]`; 0 and 1 become the smallest normal number's distance from them.

        Raises:
            ModelError: values outside 0 to 1, but for what rounding elsewhere leaves.
        """
        probs = floating(probs, name="probs")
        if concrete(probs) and not ((probs >= -SLACK) & (probs <= 1 + SLACK)).all():
            raise ModelError(
                "probabilities lie between 0 and 1", called="Bernoulli.from_probs(probs)", expected="0 <= probs <= 1",
                got=f"values from {probs.min()} to {probs.max()}",
                fix="np.clip(probs, 0, 1); the constructor takes log odds",
            )  # fmt: skip
        probs = jnp.clip(probs, 0, 1)
        return cls(_log_odds(1 - probs, probs), _prior(prior, (*probs.shape, 2), probs.dtype), missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.logits.shape

    @property
    def probs(self) -> jax.Array:
        """Of a one, `[*K, *event]`."""
        return jax.nn.sigmoid(self.logits)

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
        _events(x, 2, "Bernoulli.check_data(x)", "zeros and ones", _CUT, self.missing)

    def _split(self, x):
        """Indicators of a one and of a zero in the model's dtype, and the penalty per event, from events in rows."""
        x = x.reshape((x.shape[0], -1))
        penalty = _scored(jnp.zeros((), self.logits.dtype), x, _whole(x, 2), self.missing)
        return (x == 1).astype(penalty.dtype), (x == 0).astype(penalty.dtype), jnp.sum(penalty, axis=1)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        value = -jax.nn.softplus(jnp.where(x == 1, -self.logits, self.logits))
        return jnp.sum(_scored(value, x, _whole(x, 2), self.missing))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]` int32."""
        return jax.random.bernoulli(key, self.probs).astype(jnp.int32)

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
        """Of the Beta prior, nats up to a constant."""
        if self.prior is None:
            return jnp.zeros((), self.logits.dtype)
        logs = -jax.nn.softplus(jnp.stack([-self.logits, self.logits], axis=-1))
        return jnp.sum(_log_density(self.prior - 1, logs))

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


def _log_odds(zeros, ones):
    tiny = _tiny(ones.dtype)
    return jnp.log(jnp.maximum(ones, tiny)) - jnp.log(jnp.maximum(zeros, tiny))


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
        >>> shop = Poisson.from_rate([2.0])
        >>> [round(float(p), 4) for p in jnp.exp(shop.log_prob(jnp.array([[0], [2], [-1]])))]
        [0.1353, 0.2707, 0.0]
    """

    log_rate: jax.Array
    prior: jax.Array | None = fixed(None)
    missing: bool = static(False)

    @classmethod
    def init(cls, key, x, *, prior=None, missing=False) -> Poisson:
        """The mean of counts `[N, *event]`; `prior` is broadcast to `[*event, 2]`, the key not used.

        Raises:
            DataError: values that are no counts.
        """
        x = _events(x, math.inf, "Poisson.init(key, x)", "whole numbers from 0", _MEASURED, missing)
        dtype = _float_type(x)
        start = cls(jnp.zeros(x.shape[1:], dtype), _prior(prior, (*x.shape[1:], 2), dtype), missing)
        return start.m_step(start.e_step(x, _ones(x, dtype))[0])

    @classmethod
    def from_rate(cls, rate, *, prior=None, missing=False) -> Poisson:
        """From expected counts `[*K, *event]`; zero becomes the root of the smallest normal number.

        Raises:
            ModelError: a negative rate.
        """
        rate = jnp.asarray(as_array(rate, name="rate"))
        rate = rate.astype(_float_type(rate))
        if concrete(rate) and not (rate >= 0).all():
            raise ModelError(
                "rates must not be negative", called="Poisson.from_rate(rate)", expected="rate >= 0",
                got=f"smallest {rate.min()}", fix="np.maximum(rate, 0); the constructor takes logarithms",
            )  # fmt: skip
        return cls(_log_rate(rate), _prior(prior, (*rate.shape, 2), rate.dtype), missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.log_rate.shape

    @property
    def rate(self) -> jax.Array:
        """Expected counts, `[*K, *event]`."""
        return jnp.exp(self.log_rate)

    def check_data(self, x) -> None:
        """Refuses data outside the support with a DataError."""
        _events(x, math.inf, "Poisson.check_data(x)", "whole numbers from 0", _MEASURED, self.missing)

    @property
    def free_parameters(self) -> int:
        """One for each coordinate."""
        return math.prod(self.log_rate.shape)

    def _clean(self, x):
        """Counts in the model's dtype, 0 for what is none, and where they are counts."""
        supported = _whole(x, jnp.inf)
        return jnp.where(supported, x, 0).astype(self.log_rate.dtype), supported

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        counts, supported = self._clean(x)
        return jnp.sum(_scored(poisson_log_mass(counts, self.rate), x, supported, self.missing))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]` int32."""
        return jax.random.poisson(key, self.rate, dtype=jnp.int32)

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
        """Of the Gamma prior, nats up to a constant."""
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
        base = jnp.sum(_scored(poisson_log_mass(counts, mean), x, supported, self.missing), axis=1)
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


def _log_rate(rate):
    return jnp.log(jnp.maximum(rate, _tiny(rate.dtype) ** 0.5))
