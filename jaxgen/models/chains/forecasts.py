"""Forecasts of hidden Markov models: a density of each step to come by itself, and paths of all of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import DataError, ModelError, ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import as_levels, check_key, context_shape, is_count, sample_axes
from jaxgen.core.protocols import Located, LocatedGiven
from jaxgen.core.pytree import registered
from jaxgen.models.chains.emissions import log_distribution
from jaxgen.ops import chains
from jaxgen.ops.mixing import mixed_cdf, mixed_quantile
from jaxgen.ops.stable import logsumexp


class Paths(NamedTuple):
    """Joint draws of the steps to come.

    Args:
        states: `[*shape, horizon]` int32, the hidden states.
        x: `[*shape, horizon, *event]`, what is seen of them.
    """

    states: jax.Array
    x: jax.Array


@registered
@dataclasses.dataclass(frozen=True)
class Forecast:
    """The density of each step to come by itself, a mixture of the emissions.

    `p(x_(t+h) | x_1..t) = sum_k p(z_(t+h) = k | x_1..t) p_k(x_(t+h))`, h from 1 to the horizon

    Args:
        log_states: `[horizon, K]`, `log p(z_(t+h) | x_1..t)` in nats.
        log_weights: `[horizon, E]`, the same of the emissions, which several states may share.
        emissions: E models.
        context: `[horizon, *context]`, of emissions that take one, else None.

    The density of one step is a model too, `Mixture(forecast.log_weights[h], forecast.emissions, None)`. What the steps
    have in common is in `HMM.sample_paths`.

    Example:
        >>> import jaxgen as jg
        >>> hmm = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], jg.Poisson.from_values([1.0, 9.0]))
        >>> ahead = hmm.forecast(hmm.filter([0, 1, 2, 9, 8]), 3)
        >>> ahead.quantile(0.5).tolist()
        [8.0, 7.0, 5.0]
        >>> low, high = ahead.interval(0.9)
        >>> low.tolist(), high.tolist()
        ([0.0, 0.0, 0.0], [14.0, 13.0, 13.0])
        >>> ahead.log_prob(jnp.array([8, 8, 8])).shape, ahead.quantile([0.1, 0.5, 0.9]).shape
        ((3,), (3, 3))
    """

    log_states: jax.Array
    log_weights: jax.Array
    emissions: Any
    context: Any = None

    @property
    def horizon(self) -> int:
        """The number of steps."""
        return self.log_states.shape[0]

    def __len__(self) -> int:
        return self.horizon

    def _each(self, ask: Any, *rows: Any) -> Any:
        """Return `ask(log weights, context, *row)` of each step, with its rows of arrays `[horizon, ...]`."""
        return jax.vmap(lambda log, context, row: ask(log, context, *row))(self.log_weights, self.context, rows)

    def log_prob(self, x: Any) -> jax.Array:
        """Return nats of each step by itself, `[horizon, *event] -> [horizon]`."""

        def one(log, context, x):
            given = None if context is None else context[None]
            return logsumexp(log + algebra.component_log_prob(self.emissions, x[None], given)[:, 0])

        return self._each(one, self._steps(x, "log_prob"))

    def cdf(self, x: Any) -> jax.Array:
        """Return `P(X <= x)` of each step and coordinate by itself, `[horizon, *event]` both."""
        called = "Forecast.cdf(x)"
        one = lambda log, context, x: mixed_cdf(jnp.exp(log), self.emissions, x, context, called)  # noqa: E731
        return self._each(one, self._steps(x, "cdf"))

    def quantile(self, level: Any) -> jax.Array:
        """Return quantiles of each step and coordinate by itself, levels `[*batch] -> [*batch, horizon, *event]`."""
        level = as_levels(level, self.log_weights.dtype, "Forecast.quantile(level)")
        at = _quantiles(self, level.reshape(-1))
        return at.reshape((*level.shape, *at.shape[1:]))

    def interval(self, level: float = 0.9) -> tuple[jax.Array, jax.Array]:
        """Return the ends, `[horizon, *event]` each, between which a step lies with a probability: equal tails."""
        if not 0 < level < 1:
            raise DataError("the level is the probability of an interval", called=f"Forecast.interval({level!r})",
                            expected="above 0 and below 1", got=repr(level), fix="level = 0.9")  # fmt: skip
        low, high = self.quantile([0.5 - level / 2, 0.5 + level / 2])
        return low, high

    @property
    def mean(self) -> jax.Array:
        """`E[x_(t+h) | x_1..t]`, `[horizon, *event]`, of emissions that have a mean; of inputs, given theirs."""
        if self.context is not None:
            algebra.needed(self.emissions, LocatedGiven, "Forecast.mean")
            of = lambda u: algebra.each(lambda model: model.conditional_mean(u), self.emissions)  # noqa: E731
            return jnp.einsum("hk,hk...->h...", jnp.exp(self.log_weights), jax.vmap(of)(self.context),
                              precision="highest")  # fmt: skip
        algebra.needed(self.emissions, Located, "Forecast.mean")
        means = algebra.joined(self.emissions, algebra.per_kind(lambda batch: batch.mean, self.emissions))
        return jnp.tensordot(jnp.exp(self.log_weights), means, 1, precision="highest")

    def sample(self, key: Any, shape: Any = ()) -> jax.Array:
        """Draw `[*shape, horizon, *event]`, each step by itself; `HMM.sample_paths` draws them jointly."""
        check_key(key, "Forecast.sample(key, shape)")

        def one(log, context, key):
            which, within = jax.random.split(key)
            return algebra.sample_component(within, self.emissions, jax.random.categorical(which, log), context=context)

        draw = lambda keys: self._each(one, keys)  # noqa: E731
        axes = sample_axes(shape, "Forecast.sample(key, shape)")
        for _ in axes:
            draw = jax.vmap(draw)
        return draw(jax.random.split(key, (*axes, self.horizon)))

    @property
    def _event(self) -> tuple[int, ...]:
        return tuple(algebra.element(self.emissions).event_shape)

    def _steps(self, x: Any, name: str) -> jax.Array:
        called = f"Forecast.{name}(x)"
        x = jnp.asarray(as_array(x, name="x", called=called, allow_nan=True))
        if x.shape != (self.horizon, *self._event):
            raise ShapeError("x is not the steps of this forecast", called=called, got=f"shape {list(x.shape)}",
                             expected=f"shape {[self.horizon, *self._event]}")  # fmt: skip
        return x


@jax.jit
def _quantiles(forecast: Forecast, levels: jax.Array) -> jax.Array:
    def one(log: jax.Array, context: Any) -> jax.Array:
        of = lambda u: mixed_quantile(jnp.exp(log), forecast.emissions, u, context, "Forecast.quantile(level)")  # noqa: E731
        return jax.vmap(of)(levels)

    return jnp.moveaxis(forecast._each(one), 0, 1)


def forecast_steps(hmm: Any, state: Any, horizon: int, context: Any) -> Forecast:
    """Return the `Forecast` of a hidden Markov model, `HMM.forecast`."""
    called = f"HMM.forecast(state, {horizon})"
    _check_horizon(horizon, called)
    log_now = _checked_state(state, hmm.chain.states, called)
    context = _checked_context(hmm, context, horizon, called)
    move = _moves(hmm, context)
    log_states = chains.forecast(log_now, move, horizon)
    log_weights = log_states
    if hmm.tie is not None:
        member = np.array(hmm.tie)[:, None] == np.arange(algebra.count(hmm.emissions))
        log_weights = logsumexp(jnp.where(member, log_states[:, :, None], -jnp.inf), axis=1)
    takes = context_shape(algebra.element(hmm.emissions)) is not None
    return Forecast(log_states, log_weights, hmm.emissions, context if takes else None)


def draw_paths(hmm: Any, key: Any, state: Any, horizon: int, shape: Any, context: Any, past: Any) -> Paths:
    """Return joint draws of the steps to come, `HMM.sample_paths`."""
    called = f"HMM.sample_paths(key, state, {horizon})"
    _check_horizon(horizon, called)
    check_key(key, called)
    log_now = _checked_state(state, hmm.chain.states, called)
    given = context_shape(algebra.element(hmm.emissions))
    if past is None:
        context = _checked_context(hmm, context, horizon, called)
    else:
        past = _checked_past(hmm, past, context, called)
    move = _moves(hmm, context)
    first = chains.forecast(log_now, move if move.ndim == 2 else move[:1], 1)[0]
    later = move if move.ndim == 2 else move[1:]
    context = None if given is None else context
    keys = jax.random.split(key, sample_axes(shape, called))
    return _paths(hmm.emissions, hmm.tie, keys, first, later, context, past, horizon)


@functools.partial(jax.jit, static_argnames=("tie", "horizon"))
def _paths(emissions, tie, keys, first, move, context, past, horizon):
    def one(key):
        walk, within = jax.random.split(key)
        states = chains.sample_path(walk, first, move, horizon)
        which = states if tie is None else jnp.asarray(tie)[states]
        keys = jax.random.split(within, horizon)
        draw = functools.partial(algebra.sample_component, components=emissions)
        if past is None:
            axes = (0, 0, None if context is None else 0)
            return Paths(states, jax.vmap(lambda k, i, u: draw(k, index=i, context=u), axes)(keys, which, context))

        def step(past, row):
            x = draw(row[0], index=row[1], context=past.reshape(-1))
            return jnp.concatenate([x[None], past[:-1]]), x

        return Paths(states, jax.lax.scan(step, past, (keys, which))[1])

    for _ in keys.shape:
        one = jax.vmap(one)
    return one(keys)


def _moves(hmm, context):
    """Return `log A` into each step to come, `[K, K]` or `[horizon, K, K]`."""
    if context_shape(hmm.chain) is None:
        return hmm.chain.log_chain(None)[1]
    # the first row of a chain with inputs drives no move
    return hmm.chain.log_chain(jnp.concatenate([context[:1], context]))[1]


def _check_horizon(horizon, called):
    if not is_count(horizon, 1):
        raise ShapeError("the horizon is a number of steps", called=called, expected="an int of 1 or more",
                         got=repr(horizon)[:80])  # fmt: skip


def _checked_state(state, states, called):
    """Return log-probabilities `[K]` of the state now, from what a filter returned."""
    if isinstance(state, chains.Filtered):
        rows = jnp.asarray(state.log_filtered)
        if rows.ndim != 2:
            raise ShapeError("one sequence is forecast", called=called, expected="hmm.filter(x) of one sequence",
                             got=f"a batch of {list(rows.shape[:-2])}")  # fmt: skip
        there = jnp.any(rows > -jnp.inf, axis=-1)  # beyond its length a sequence has no state
        last = rows[jnp.max(jnp.where(there, jnp.arange(len(rows)), 0))]
        # one that no path of states explains has none at all
        state = jnp.where(state.log_normalizer > -jnp.inf, last, -jnp.inf)
    log_now = jnp.asarray(state.log_filtered if isinstance(state, chains.FilterState) else state)
    if log_now.ndim > 1:
        raise ShapeError("one state is forecast", called=called, got=f"shape {list(log_now.shape)}",
                         expected=f"hmm.filter(x) of one sequence, a FilterState, or log-probabilities [{states}]",
                         fix="jax.vmap(lambda state: hmm.forecast(state, horizon).log_states)(state)")  # fmt: skip
    log_now = log_distribution(log_now, states, called.partition("(")[0])
    return log_now.astype(jnp.promote_types(log_now.dtype, jnp.float32))


def _checked_context(hmm, context, horizon, called):
    """Return the inputs of the steps to come, `[horizon, *context]`; None of a model that takes none."""
    shape = hmm.context_shape
    wanted = None if shape is None else (horizon, *shape[1:])
    if context is None and wanted is not None and algebra.context_optional(hmm):
        return jnp.full(wanted, jnp.nan)
    context = None if context is None else jnp.asarray(as_array(context, name="context", called=called, allow_nan=True))
    if (None if context is None else context.shape) != wanted:
        raise ShapeError(
            "the context is not that of the steps to come", called=called,
            expected="no context" if wanted is None else f"context= of shape {list(wanted)}",
            got="none" if context is None else f"shape {list(context.shape)}",
            fix="" if wanted is None or context is not None else
            "hmm.sample_paths(key, state, horizon, past=x[-lags:]), where the context is what was seen before",
        )  # fmt: skip
    return context


def _checked_past(hmm, past, context, called):
    """Return the last steps seen, the most recent first, as emissions of a lagged series take them."""
    one = algebra.element(hmm.emissions)
    given, event = context_shape(one), tuple(one.event_shape)
    if context is not None or given is None or len(event) != 1 or len(given) != 1 or given[0] % event[0]:
        raise ModelError(
            "the emissions do not take what was seen before", called=called, expected="emissions of a series [T, D] "
            "with the context [lags * D] that jaxgen.lagged makes, and no other context",
            got=f"events {list(event)}, context {given}{'' if context is None else ', and a context of its own'}",
        )  # fmt: skip
    if context_shape(hmm.chain) is not None:
        raise ModelError("the chain takes inputs that are not known ahead", called=called, expected="a MarkovChain",
                         got=type(hmm.chain).__name__)  # fmt: skip
    lags = given[0] // event[0]
    past = jnp.asarray(as_array(past, name="past", called=called))
    if past.ndim != 2 or past.shape[1:] != event or len(past) < lags:
        raise ShapeError("these are not the last steps", called=called, got=f"shape {list(past.shape)}",
                         expected=f"past [{lags} or more, {event[0]}], the last row the latest")  # fmt: skip
    past = past[::-1][:lags]
    return past.astype(jnp.promote_types(past.dtype, jnp.float32))
