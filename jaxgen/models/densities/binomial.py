"""The binomial density: independent numbers of successes among known numbers of trials."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import concrete, floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model
from jaxgen.ops import entries
from jaxgen.ops.roots import reach
from jaxgen.ops.special import poisson_log_mass
from jaxgen.ops.stable import has_mass
from jaxgen.ops.tails import beta_cdf


class BinomialStatistics(NamedTuple):
    """Weighted sums of failures and of successes, `[*event]` each."""

    failures: jax.Array
    successes: jax.Array


@model
class Binomial:
    """Independent numbers of successes among n trials each, where n is fixed or comes with every event.

    `log p(x) = sum_d log C(n_d, x_d) + x_d log p_d + (n_d - x_d) log (1 - p_d)`, `p = sigmoid(logits)`, evaluated as
    deviances so that large counts keep their digits

    Args:
        logits: `[*event]`, log odds of a success.
        trials: `[*event]`, the numbers n, never trained; None takes them from the context, `[N, *event]`.
        prior: `[*event, 2]`, the parameters (of successes, of failures) of a Beta prior; never trained. None is flat.

    Events are whole numbers from 0 to n, of any dtype; others have log-probability -inf, as have all where n is no
    whole number. The M-step repairs: without trials, logits stay. A probability that training drives to 0 or 1 stops
    at the smallest normal number's distance from it.

    Source: Loader (2000), Fast and accurate computation of binomial probabilities.

    Example:
        >>> coins = Binomial.from_values([0.5], 2)
        >>> jnp.exp(coins.log_prob(jnp.array([[0], [1], [3]]))).round(4).tolist()
        [0.25, 0.5, 0.0]
        >>> by_event = Binomial.from_values([0.5])
        >>> round(float(jnp.exp(by_event.log_prob(jnp.array([1]), context=jnp.array([3])))), 4)
        0.375
    """

    logits: jax.Array
    trials: jax.Array | None = fixed(default=None)
    prior: jax.Array | None = fixed(default=None)

    @classmethod
    def init(cls, key, x, context=None, *, trials=None, prior=None) -> Binomial:
        """Return the frequencies of successes in counts `[N, *event]`; the key is not used.

        Args:
            key: not used.
            x: whole numbers from 0 to n.
            context: the numbers of trials, `[N, *event]`.
            trials: the numbers of trials of all events, broadcast to `[*event]`, in place of a context.
            prior: broadcast to `[*event, 2]`.

        Raises:
            ModelError: both context and trials, or none of them. DataError: values that are no counts up to n.
        """
        called = "Binomial.init(key, x, context)"
        if (context is None) == (trials is None):
            raise ModelError(
                "how many trials there were is not told", called=called, expected="a context [N, *event], or trials=n",
                got="none of them" if context is None else "both", fix="leave one of them out, or give one",
            )  # fmt: skip
        x = _counts(x, called, np.inf if trials is None else trials)
        dtype, event = entries.float_dtype(x), x.shape[1:]
        trials = entries.broadcast(trials, event, dtype)
        start = cls(jnp.zeros(event, dtype), trials, entries.broadcast(prior, (*event, 2), dtype))
        given = {} if context is None else {"context": context}
        return start.m_step(start.e_step(x, jnp.ones(len(x), dtype), **given)[0])

    @classmethod
    def from_values(cls, probs, trials=None, *, prior=None) -> Binomial:
        """Return the density of probabilities of a success, `[*K, *event]`, and numbers of trials, or one for all.

        Raises:
            ModelError: values outside 0 to 1; numbers of trials that are no whole numbers.
        """
        probs, called = floating(probs, name="probs"), "Binomial.from_values(probs, trials)"
        trials = entries.broadcast(trials, probs.shape, probs.dtype)
        if concrete((probs, trials)) and not (((probs >= 0) & (probs <= 1)).all() and _whole(trials)):
            raise ModelError(
                "probabilities lie between 0 and 1, trials are whole numbers", called=called,
                expected="0 <= probs <= 1, and trials from 0", got=f"probs {probs.min()} to {probs.max()}, {trials=!s}",
                fix="the constructor takes log odds",
            )  # fmt: skip
        return cls(_log_odds(1 - probs, probs), trials, entries.broadcast(prior, (*probs.shape, 2), probs.dtype))

    event_shape = property(lambda self: self.logits.shape)
    context_shape = property(lambda self: self.logits.shape if self.trials is None else None)
    probs = property(lambda self: jax.nn.sigmoid(self.logits), doc="Of a success, `[*K, *event]`.")
    mean = property(lambda self: self._fixed("mean") * self.probs, doc="Where trials are fixed, `[*K, *event]`.")
    variance = property(lambda self: self.mean * jax.nn.sigmoid(-self.logits), doc="As `mean`, `[*K, *event]`.")
    free_parameters = property(lambda self: math.prod(self.logits.shape), doc="One for each coordinate.")

    def check_data(self, x) -> None:
        """Refuse what is no count, or more than there are trials where they are fixed, with a DataError."""
        known = self.trials is not None and not isinstance(self.trials, jax.ShapeDtypeStruct) and concrete(self.trials)
        _counts(x, "Binomial.check_data(x)", np.asarray(self.trials) if known else np.inf)

    def _fixed(self, name):
        """Return the numbers of trials, of a density that has them."""
        if self.trials is None:
            raise ModelError(
                "the number of trials is each event's own", called=f"Binomial.{name}", expected="fixed trials",
                got="trials None", fix="multiply probs by the trials of an event",
            )  # fmt: skip
        return self.trials

    def _trials(self, context):
        return jnp.asarray(self.trials if context is None else context).astype(self.logits.dtype)

    def _clean(self, x, context):
        """Return successes and failures in the model's dtype, 0 where x is outside of the support, and where not."""
        n = self._trials(context)
        inside = entries.whole(x) & entries.whole(n) & (x <= n)
        x = jnp.where(inside, x, 0).astype(n.dtype)
        return x, jnp.where(inside, n - x, 0), inside

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Return nats, `[*batch, *event] -> [*batch]`."""
        yes, no, inside = self._clean(x, context)
        n = jnp.maximum(yes + no, 1)  # of no trials nothing is said
        log_p, log_q = -jax.nn.softplus(-self.logits), -jax.nn.softplus(self.logits)
        parts = [poisson_log_mass(k, n * jnp.exp(log), jnp.log(n) + log) for k, log in ((yes, log_p), (no, log_q))]
        value = jnp.where(yes + no > 0, parts[0] + parts[1] - poisson_log_mass(n, n), 0)
        return jnp.sum(entries.scored(value, inside, x, False))

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        n, odds = self._trials(context), (jax.nn.sigmoid(-self.logits), self.probs)

        def share(k):
            less = k < n
            return jnp.where(less, beta_cdf(jnp.where(less, n - k, 1), jnp.where(less, k, 0) + 1, *odds), 1)

        return jnp.where(entries.whole(n), entries.of_counts(x, n.dtype, share), jnp.nan)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        level = jnp.broadcast_to(level, self.event_shape)
        given = {} if context is None else {"context": context}
        return reach(lambda x: self.cdf(x, **given), level, -1.0, self._trials(context))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Return draws `[*shape, *event]` int32."""
        n = self._trials(context)
        # of the rarer of the two outcomes, whose probability has all its digits
        rare = jax.random.binomial(key, n, jax.nn.sigmoid(-jnp.abs(self.logits)), dtype=n.dtype)
        return jnp.where(self.logits > 0, n - rare, rare).astype(jnp.int32)

    @weighted_events
    def e_step(self, x, weight=None, *, context=None):
        """Return `BinomialStatistics`, and `log_prob [N]`; entries outside the support count nowhere."""
        yes, no, _ = self._clean(x, context)
        return BinomialStatistics(*entries.sums(weight, no, yes)), self.log_prob(x, context=context)

    def m_step(self, statistics) -> Binomial:
        """Return the weighted maximum likelihood; with a prior, the posterior mode."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """Return `m_step`, and 1 where a coordinate has no mass, else 0."""
        no, yes = statistics
        alive = has_mass(no + yes)
        if self.prior is not None:
            yes, no = (jnp.maximum(k + self.prior[..., i] - 1, 0) for i, k in enumerate((yes, no)))
        total = jnp.where(yes + no > 0, yes + no, 1)
        logits = jnp.where(alive, _log_odds(no / total, yes / total), self.logits)
        return dataclasses.replace(self, logits=logits), jnp.any(~alive).astype(jnp.int32)

    def log_prior(self):
        """Return the log density of the Beta prior, nats up to a constant."""
        if self.prior is None:
            return jnp.zeros((), self.logits.dtype)
        logs = -jax.nn.softplus(jnp.stack([-self.logits, self.logits], axis=-1))
        return jnp.sum((self.prior - 1) * logs)

    def features(self, x):
        """Return counts made about equally spread, `2 sqrt(x + 3/8)`, `[N, D]`, for clustering."""
        return 2 * jnp.sqrt(jnp.where(x >= 0, x, jnp.nan).reshape((x.shape[0], -1)) + 0.375)

    distribution = as_distribution


def _log_odds(no, yes):
    tiny = float(jnp.finfo(yes.dtype).tiny)
    return jnp.log(jnp.maximum(yes, tiny)) - jnp.log(jnp.maximum(no, tiny))


def _whole(trials):
    return trials is None or bool(entries.whole(trials).all())


def _counts(x, called, trials):
    inside = lambda x: entries.whole(x) & (x <= trials)  # noqa: E731
    expected = "whole numbers from 0 to the number of trials"
    fix = "drop events that are no such counts"
    return entries.supported(x, inside, called=called, expected=expected, fix=fix, missing=None)
