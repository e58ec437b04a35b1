"""The multinomial density: how often each of several categories was counted, given the total."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import probabilities
from jaxgen.core.methods import per_event, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model
from jaxgen.ops import entries
from jaxgen.ops.special import poisson_log_mass
from jaxgen.ops.stable import has_mass, log_normalize, softmax


@model
class Multinomial:
    """Counts of V categories, given their total: the words of a document, the species of a sample.

    `log p(x | n) = log n! - sum_v log x_v! + sum_v x_v log p_v`, with `n = sum_v x_v` an event's own total and
    `p = softmax(logits)`, evaluated as deviances so that large counts keep their digits

    Args:
        logits: `[V]`, each up to a common constant; -inf is a category that cannot be, and stays so in the M-step.
        total: scalar, how many a draw counts; it has no part in the density, and never trains.
        prior: `[V]`, concentrations of a Dirichlet prior; never trained. None is flat: maximum likelihood.

    Events are whole numbers from 0, `[V]`, of any dtype. Totals may differ from event to event, and nothing is said of
    them: probabilities sum to one over the events of one total. The M-step repairs: without counts, logits stay.

    Source: Johnson, Kotz and Balakrishnan (1997), Discrete multivariate distributions, chapter 35.

    Example:
        >>> die = Multinomial.from_values([0.5, 0.25, 0.25], 4)
        >>> [round(float(p), 4) for p in jnp.exp(die.log_prob(jnp.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])))]
        [0.5, 0.25, 1.0]
        >>> int(die.sample(jax.random.key(0)).sum())
        4
    """

    logits: jax.Array
    total: jax.Array = fixed(default=1.0)
    prior: jax.Array | None = fixed(default=None)

    @classmethod
    def init(cls, key, x, *, prior=None) -> Multinomial:
        """Return the frequencies in counts `[N, V]`, and their mean total, rounded; the key is not used.

        The prior is broadcast to `[V]`.

        Raises:
            DataError: values that are no counts.
        """
        x = _counts(x, "Multinomial.init(key, x)")
        dtype, size = entries.float_dtype(x), x.shape[-1]
        total = jnp.round(jnp.mean(jnp.sum(x.astype(dtype), axis=-1)))
        return entries.one_step(cls(jnp.zeros(size, dtype), total, entries.broadcast(prior, (size,), dtype)), x)

    @classmethod
    def from_values(cls, probs, total=1, *, prior=None) -> Multinomial:
        """Return the density of probabilities `[*K, V]`, exact zeros included, that draws so many, `[*K]` or one.

        Raises:
            ModelError: negative values, or rows that do not sum to one.
        """
        probs = probabilities(probs, name="probs", called="Multinomial.from_values(probs)")
        total = entries.broadcast(total, probs.shape[:-1], probs.dtype)
        return cls(jnp.log(probs), total, entries.broadcast(prior, probs.shape, probs.dtype))

    event_shape = property(lambda self: self.logits.shape)
    log_probs = property(lambda self: log_normalize(self.logits)[0], doc="Normalised, `[*K, V]` nats.")
    probs = property(lambda self: softmax(self.logits), doc="`[*K, V]`, rows sum to one.")
    mean = property(lambda self: self.total[..., None] * self.probs, doc="Of the counts of a draw, `[*K, V]`.")
    variance = property(lambda self: self.mean * (1 - self.probs), doc="Of the counts of a draw, `[*K, V]`.")
    free_parameters = property(lambda self: self.logits.shape[-1] - 1, doc="One less than categories.")

    def check_data(self, x) -> None:
        """Refuse what is no count with a DataError."""
        _counts(x, "Multinomial.check_data(x)")

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Return nats, `[*batch, V] -> [*batch]`."""
        return _log_mass(x, self.log_probs)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Return draws `[*shape, V]` int32, of `total` each."""
        return jax.random.multinomial(key, self.total, self.probs, dtype=self.logits.dtype).astype(jnp.int32)

    @weighted_events
    def e_step(self, x, weight=None):
        """Return weighted counts `[V]`, and `log_prob [N]`; events that are no counts count nowhere."""
        counts, inside = entries.clean(x, entries.whole, 0, self.logits.dtype)
        counts = jnp.where(inside.all(axis=-1, keepdims=True), counts, 0)
        return entries.sums(weight, counts)[0], self.log_prob(x)

    def m_step(self, statistics) -> Multinomial:
        """Return the weighted maximum likelihood; with a prior, the posterior mode."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """Return `m_step`, and 1 where there is no mass, else 0."""
        alive = has_mass(jnp.sum(statistics))
        counts = statistics if self.prior is None else jnp.maximum(statistics + self.prior - 1, 0)
        tiny = float(jnp.finfo(counts.dtype).tiny)
        logits = jnp.log(jnp.maximum(counts / jnp.maximum(jnp.sum(counts), tiny), tiny))
        logits = jnp.where(alive & (self.logits > -jnp.inf), logits, self.logits)
        return dataclasses.replace(self, logits=logits), (~alive).astype(jnp.int32)

    def log_prior(self):
        """Return the log density of the Dirichlet prior, nats up to a constant; impossible categories are left out."""
        if self.prior is None:
            return jnp.zeros((), self.logits.dtype)
        possible = self.logits > -jnp.inf
        return jnp.sum(jnp.where(possible, (self.prior - 1) * jnp.where(possible, self.log_probs, 0), 0))

    def features(self, x):
        """Return roots of the shares, `2 sqrt(x / n)`, `[N, V]`, for clustering: their distance is Hellinger's."""
        x = x.astype(self.logits.dtype)
        return 2 * jnp.sqrt(x / jnp.maximum(jnp.sum(x, axis=-1, keepdims=True), 1))

    distribution = as_distribution


def _log_mass(x, log_probs):
    """Return `log p(x | n)` of one event: independent Poisson counts with means `n p`, given their total."""
    counts, inside = entries.clean(x, entries.whole, 0, log_probs.dtype)
    total = jnp.sum(counts)
    n = jnp.maximum(total, 1)
    # where the probability is zero, a count of zero is certain
    possible = log_probs > -jnp.inf
    log = jnp.where(possible, log_probs, 0)
    mass = poisson_log_mass(counts, n * jnp.exp(log), jnp.log(n) + log)
    value = jnp.sum(jnp.where(possible, mass, jnp.where(counts > 0, -jnp.inf, 0))) - poisson_log_mass(n, n)
    rest = jnp.where(jnp.any(x != x), jnp.nan, -jnp.inf).astype(value.dtype)
    return jnp.where(inside.all(), jnp.where(total > 0, value, 0), rest)


def _counts(x, called):
    fix = "round shares of known totals to counts first"
    return entries.supported(x, entries.whole, called=called, expected="whole numbers from 0", fix=fix, missing=None)
