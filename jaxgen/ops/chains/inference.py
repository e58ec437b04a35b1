"""Likelihoods, filters and smoothers of hidden Markov chains, and forecasts."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxgen.core.errors import ShapeError
from jaxgen.core.inputs import widened
from jaxgen.ops.chains.backends import Backend
from jaxgen.ops.chains.inputs import Filtered, Posterior, make_chain, unbatch
from jaxgen.ops.chains.logs import fixed_lag_chain
from jaxgen.ops.chains.posterior import choose_for, filter_chain, normalize_chain, smooth_chain
from jaxgen.ops.stable import log_normalize, logsumexp


class FilterState(NamedTuple):
    """The state of a filter after some steps: all that it takes to go on."""

    log_filtered: Array
    """`[*batch, K]`, `log p(z[t] | y[..t])`."""
    log_normalizer: Array
    """`[*batch]`, `log p(y[..t])`."""


def forward_filter(
    log_initial: Any, log_transition: Any, log_likelihood: Any, *, length: Any = None, observed: Any = None,
    backend: Backend | None = None,
) -> Filtered:  # fmt: skip
    """State probabilities given the data up to each time.

    `p(z[t] = j | y[..t]) ~ p(y[t] | j) sum_i p(z[t-1] = i | y[..t-1]) A[i, j]`, normalised by the evidence
    `p(y[t] | y[..t-1])`.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K], [T - 1, K, K] or [*batch, T - 1, K, K], nats.
        log_likelihood: [*batch, T, K], nats; finite or -inf.
        length: [*batch] int, the steps that are there, or None for all.
        observed: [*batch, T] bool, the steps that were seen, or None for all.
        backend: how to run; None chooses.

    Returns:
        `Filtered`. From the first time at which the data is impossible, `log_filtered` and `log_evidence` are -inf.

    Raises:
        ShapeError: if the shapes do not belong together. DataError: lengths beyond T.

    Example:
        >>> import jax.numpy as jnp
        >>> pi, a = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
        >>> y = jnp.log(jnp.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8]]))
        >>> print(jnp.array_str(jnp.exp(forward_filter(pi, a, y).log_filtered), precision=3))
        [[0.818 0.182]
         [0.883 0.117]
         [0.191 0.809]]

    Source: Baum, Petrie, Soules & Weiss (1970); Rabiner (1989), A tutorial on hidden Markov models, section III.A.
    """
    chain, batch = make_chain("forward_filter", log_initial, log_transition, log_likelihood, length, observed)
    return unbatch(filter_chain(choose_for(chain, backend), chain[:3], chain.length), batch)


def log_normalizer(
    log_initial: Any, log_transition: Any, log_likelihood: Any, *, length: Any = None, observed: Any = None,
    backend: Backend | None = None,
) -> Array:  # fmt: skip
    """Log-probability of the data, all state sequences summed out; differentiable at zeros and for long chains.

    `log sum_z pi[z0] prod_t A[z[t-1], z[t]] prod_t p(y[t] | z[t])`; its gradients are the posterior marginals and the
    expected transition counts, in time and memory of one `smoother`.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K], [T - 1, K, K] or [*batch, T - 1, K, K], nats.
        log_likelihood: [*batch, T, K], nats; finite or -inf.
        length: [*batch] int, the steps that are there, or None for all.
        observed: [*batch, T] bool, the steps that were seen, or None for all.
        backend: how to run; None chooses.

    Returns:
        [*batch] nats; -inf, with gradients zero, for impossible data; zero for a length of zero.

    Raises:
        ShapeError: if the shapes do not belong together. DataError: lengths beyond T.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> pi, a = jnp.array([0.0, -jnp.inf]), jnp.log(jnp.array([[0.5, 0.5], [0.0, 1.0]]))
        >>> value, counts = jax.value_and_grad(log_normalizer, 1)(pi, a, jnp.zeros((3, 2)))
        >>> round(abs(float(value)), 4), counts.round(4).tolist()
        (0.0, [[0.75, 0.75], [0.0, 0.5]])

    Source: Rabiner (1989), section III.A; Cappe, Moulines & Ryden (2005), Inference in Hidden Markov Models, section
    10.1.3 (Fisher's identity).
    """
    chain, batch = make_chain("log_normalizer", log_initial, log_transition, log_likelihood, length, observed)
    return unbatch(normalize_chain(choose_for(chain, backend), chain[:3], chain.length), batch)


def smoother(
    log_initial: Any, log_transition: Any, log_likelihood: Any, *, length: Any = None, observed: Any = None,
    backend: Backend | None = None, starts: Any = None,
) -> Posterior:  # fmt: skip
    """State and transition probabilities given all the data.

    `p(z[t] = i | y) ~ alpha[t, i] beta[t, i]` and
    `p(z[t] = i, z[t+1] = j | y) ~ alpha[t, i] A[i, j] p(y[t+1] | j) beta[t+1, j]`.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K], [T - 1, K, K] or [*batch, T - 1, K, K], nats.
        log_likelihood: [*batch, T, K], nats; finite or -inf.
        length: [*batch] int, the steps that are there, or None for all.
        observed: [*batch, T] bool, the steps that were seen, or None for all.
        backend: how to run; None chooses.
        starts: [*batch, T] bool, the steps at which a sequence begins, the first of each row among them, where rows
            hold several sequences one after the other; results are then those of all sequences of a row. None for
            rows of one sequence.

    Returns:
        `Posterior`. Impossible data has no posterior: all marginals and counts are then zero, and `log_normalizer` is
        -inf.

    Raises:
        ShapeError: if the shapes do not belong together. DataError: lengths beyond T.

    Example:
        >>> import jax.numpy as jnp
        >>> pi, a = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
        >>> y = jnp.log(jnp.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8]]))
        >>> posterior = smoother(pi, a, y)
        >>> print(jnp.array_str(posterior.marginals, precision=3))
        [[0.862 0.138]
         [0.799 0.201]
         [0.191 0.809]]
        >>> print(jnp.array_str(posterior.transition_counts, precision=3))
        [[0.91  0.751]
         [0.08  0.259]]

    Source: Baum, Petrie, Soules & Weiss (1970); Rabiner (1989), equations 27 and 37.
    """
    chain, batch = make_chain("smoother", log_initial, log_transition, log_likelihood, length, observed, starts)
    return unbatch(smooth_chain(choose_for(chain, backend), chain[:3], *chain[3:]), batch)


def pair_posteriors(
    log_initial: Any, log_transition: Any, log_likelihood: Any, *, length: Any = None, observed: Any = None,
    backend: Backend | None = None,
) -> Array:  # fmt: skip
    """Posterior probabilities of every transition at every step: `p(z[t] = i, z[t+1] = j | y)`.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K], [T - 1, K, K] or [*batch, T - 1, K, K], nats.
        log_likelihood: [*batch, T, K], nats; finite or -inf.
        length: [*batch] int, the steps that are there, or None for all.
        observed: [*batch, T] bool, the steps that were seen, or None for all.
        backend: how to run; None chooses.

    Returns:
        [*batch, T - 1, K, K]; zero beyond the length and for impossible data.

    Raises:
        ShapeError: if the shapes do not belong together. DataError: lengths beyond T.

    Example:
        >>> import jax.numpy as jnp
        >>> pi, a = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
        >>> print(jnp.array_str(pair_posteriors(pi, a, jnp.zeros((2, 2)))[0], precision=3))
        [[0.35 0.15]
         [0.15 0.35]]

    Source: Rabiner (1989), equation 37.
    """
    chain, batch = make_chain("pair_posteriors", log_initial, log_transition, log_likelihood, length, observed)
    a, (_, steps, states) = chain.log_transition, chain.log_likelihood.shape
    if a.ndim == 2:
        a = jnp.broadcast_to(a, (steps - 1, states, states))
    parameters = (chain.log_initial, a, chain.log_likelihood)
    return unbatch(smooth_chain(choose_for(chain, backend), parameters, chain.length).transition_counts, batch)


def start_filter(log_initial: Any, log_likelihood_row: Any) -> FilterState:
    """The state of a filter after the first step.

    Args:
        log_initial: [K], nats.
        log_likelihood_row: [*batch, K], nats: zeros for a first step that was not seen.

    Returns:
        `FilterState`, to go on from with `filter_step`.

    Example:
        >>> import jax.numpy as jnp
        >>> state = start_filter(jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.2])))
        >>> print(jnp.array_str(jnp.exp(state.log_filtered), precision=3))
        [0.818 0.182]
        >>> round(float(jnp.exp(state.log_normalizer)), 3)
        0.55

    Source: as `forward_filter`.
    """
    start, row = widened((jnp.asarray(log_initial), jnp.asarray(log_likelihood_row)))
    return FilterState(*log_normalize(start + row))


def filter_step(state: FilterState, log_likelihood_row: Any, log_transition: Any) -> FilterState:
    """One step of a filter on a stream.

    `p(z' = j | y..) ~ p(y' | j) sum_i p(z = i | y..) A[i, j]`.

    Args:
        state: what is known so far.
        log_likelihood_row: [*batch, K], nats: zeros for a step that was not seen.
        log_transition: [K, K] or [*batch, K, K], nats.

    Returns:
        `FilterState`. Once the data is impossible, -inf throughout.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
        >>> state = FilterState(jnp.log(jnp.array([0.818, 0.182])), jnp.float32(-0.598))
        >>> after = filter_step(state, jnp.log(jnp.array([0.9, 0.2])), a)
        >>> print(jnp.array_str(jnp.exp(after.log_filtered), precision=3))
        [0.883 0.117]

    Source: as `forward_filter`.
    """
    row, move = widened((jnp.asarray(log_likelihood_row), jnp.asarray(log_transition)))
    predicted = logsumexp(state.log_filtered[..., :, None] + move, axis=-2)
    log_filtered, evidence = log_normalize(predicted + row)
    return FilterState(log_filtered, state.log_normalizer + evidence)


def forecast(log_filtered: Any, log_transition: Any, horizon: int) -> Array:
    """State probabilities of the steps to come.

    `p(z[t+h] = j | y[..t]) = sum_i p(z[t+h-1] = i | y[..t]) A[i, j]` for h = 1, ..., horizon.

    Args:
        log_filtered: [*batch, K], what is known now, such as the last row of `Filtered.log_filtered`.
        log_transition: [K, K], or [horizon, K, K] when it changes with time, nats.
        horizon: number of steps, at least one; a Python int.

    Returns:
        [*batch, horizon, K] log-probabilities.

    Raises:
        ShapeError: a horizon below one, or transitions that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.log(jnp.array([[0.5, 0.5], [0.0, 1.0]]))
        >>> print(jnp.array_str(jnp.exp(forecast(jnp.array([0.0, -jnp.inf]), a, 2)), precision=2))
        [[0.5  0.5 ]
         [0.25 0.75]]

    Source: Cappe, Moulines & Ryden (2005), Inference in Hidden Markov Models, section 3.2 (prediction).
    """
    now, a = widened((jnp.asarray(log_filtered), jnp.asarray(log_transition)))
    square = (now.shape[-1],) * 2
    if horizon < 1 or a.shape not in [square, (horizon, *square)]:
        raise ShapeError(
            "a forecast that the transitions do not reach",
            called=f"forecast(log_filtered, log_transition, {horizon})",
            expected=f"a horizon of at least 1, transitions {square} or {(horizon, *square)}",
            got=f"horizon = {horizon}, transitions {a.shape}",
        )
    dtype = jnp.result_type(now, a, float)
    return _forecast(now.astype(dtype), a.astype(dtype), horizon)


@functools.partial(jax.jit, static_argnames="horizon")  # one program where the caller has none
def _forecast(now: Array, a: Array, horizon: int) -> Array:
    def step(log_p: Array, own: Array | None) -> tuple[Array, Array]:
        log_p = logsumexp(log_p[..., :, None] + (a if own is None else own), axis=-2)
        return log_p, log_p

    return jnp.moveaxis(jax.lax.scan(step, now, a if a.ndim == 3 else None, length=horizon)[1], 0, -2)


def fixed_lag(
    log_initial: Any, log_transition: Any, log_likelihood: Any, lag: int, *, length: Any = None, observed: Any = None,
    backend: Backend | None = None,
) -> Array:  # fmt: skip
    """State probabilities given the data up to `lag` steps later: what a smoother with a delay can know.

    `p(z[t] = i | y[..t + lag]) ~ p(z[t] = i | y[..t]) beta[t, i]`, with beta summed over the next `lag` steps only.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K], [T - 1, K, K] or [*batch, T - 1, K, K], nats.
        log_likelihood: [*batch, T, K], nats; finite or -inf.
        lag: steps of delay, at least zero; a Python int. Time grows with it, memory does not.
        length: [*batch] int, the steps that are there, or None for all.
        observed: [*batch, T] bool, the steps that were seen, or None for all.
        backend: how to run the filter; None chooses.

    Returns:
        [*batch, T, K] probabilities: row t is that of `smoother` on the first t + lag + 1 steps; zero beyond the
        length, and where the data up to `t + lag` is impossible.

    Raises:
        ShapeError: a negative lag, or shapes that do not belong together. DataError: lengths beyond T.

    Example:
        >>> import jax.numpy as jnp
        >>> pi, a = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
        >>> y = jnp.log(jnp.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8]]))
        >>> print(jnp.array_str(fixed_lag(pi, a, y, 1)[0], precision=3))
        [0.883 0.117]

    Source: Anderson & Moore (1979), Optimal Filtering, section 7.3, on a finite chain.
    """
    if lag < 0:
        raise ShapeError("a lag that looks back", called=f"fixed_lag(..., lag={lag})", expected="lag >= 0")
    chain, batch = make_chain("fixed_lag", log_initial, log_transition, log_likelihood, length, observed)
    filtered = filter_chain(choose_for(chain, backend), chain[:3], chain.length).log_filtered
    return unbatch(fixed_lag_chain(chain, filtered, lag), batch)
