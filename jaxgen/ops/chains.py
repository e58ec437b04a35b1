"""Hidden Markov chains on plain arrays: one sequence, log space, exact at probability zero.

Every function takes the chain as `log_initial` [K], `log_transition` [K, K] (row: from, column: to; or [T - 1, K, K]
when it changes with time) and, where there is data, `log_likelihood` [T, K], the log-probability of what was seen at
each time in each state, all in nats. -inf is a zero and stays one. `jax.vmap` gives batches.

One recursion serves both directions. With the message `m[t] = predicted[t] + log_likelihood[t]`, shifted to have the
maximum 0, `predicted[t + 1, j] = log sum_i exp(m[t, i] + log_transition[i, j])`; backwards it is the same with the
transition transposed. Only this runs step by step, and a step is kept small (a K x K `logsumexp` and a shift) because
XLA's CPU compiler turns a small loop body into one native function; normalisers, marginals and counts are computed
afterwards for all times together. Time is never unrolled, and nothing of size T K^2 is stored unless the transition
has that size itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgen.core.errors import ShapeError
from jaxgen.ops.stable import compensated_sum, finite_max, log_normalize, logsumexp, softmax

__all__ = [
    "Decoded",
    "Filtered",
    "Posterior",
    "forward_filter",
    "log_normalizer",
    "sample_path",
    "sample_posterior",
    "smoother",
    "viterbi",
]


class Filtered(NamedTuple):
    """What the past says: results of `forward_filter`."""

    log_normalizer: Array
    """[] log-probability of the data, the sum of `log_evidence`."""
    log_filtered: Array
    """[T, K] `log p(z[t] | y[..t])`."""
    log_evidence: Array
    """[T] `log p(y[t] | y[..t-1])`."""


class Posterior(NamedTuple):
    """What all the data says: results of `smoother`. The last three are the gradients of the first."""

    log_normalizer: Array
    """[] log-probability of the data."""
    marginals: Array
    """[T, K] `p(z[t] | y)`; the first row is the posterior of the initial state."""
    transition_counts: Array
    """Expected number of uses of each entry of `log_transition`, in its shape: [K, K] summed over time, or per step."""


class Decoded(NamedTuple):
    """The best explanation: results of `viterbi`."""

    path: Array
    """[T] int32, the most probable state sequence; all -1 if no sequence has positive probability."""
    log_prob: Array
    """[] `log p(path, y)`."""


class _Chain(NamedTuple):
    log_initial: Array
    log_transition: Array
    log_likelihood: Array  # each row shifted to the maximum 0 ...
    row_shift: Array  # ... by this much: large common terms would cost the messages their digits


def _check(called: str, log_initial: Array, log_transition: Array, steps: int) -> None:
    states = log_initial.shape[-1] if log_initial.ndim == 1 else None
    if states is None or log_transition.shape not in [(states, states), (steps - 1, states, states)]:
        raise ShapeError(
            "arrays that make no chain",
            called=called,
            expected=f"log_initial [K] and log_transition [K, K], or [T - 1, K, K] with T = {steps}",
            got=f"log_initial {log_initial.shape} and log_transition {log_transition.shape}",
            fix="map over a batch of chains with jax.vmap",
        )


def _chain(name: str, log_initial: Array, log_transition: Array, log_likelihood: Array) -> _Chain:
    pi, a, b = jnp.asarray(log_initial), jnp.asarray(log_transition), jnp.asarray(log_likelihood)
    called = f"{name}(log_initial, log_transition, log_likelihood)"
    if b.ndim != 2 or b.shape[0] == 0 or b.shape[1:] != pi.shape:
        raise ShapeError(
            "log-likelihoods that do not fit the chain",
            called=called,
            expected="log_likelihood [T, K] with T >= 1 and the K of log_initial [K]",
            got=f"log_likelihood {b.shape} and log_initial {pi.shape}",
            fix="put time before states, and map over a batch of sequences with jax.vmap",
        )
    _check(called, pi, a, b.shape[0])
    dtype = jnp.result_type(pi, a, b, float)
    shift = finite_max(b.astype(dtype), axis=1)
    return _Chain(pi.astype(dtype), a.astype(dtype), b.astype(dtype) - shift[:, None], shift)


def _shifted(a: Array) -> Array:
    return a - finite_max(a, axis=-1, keepdims=True)


def _propagate(
    log_start: Array, log_transition: Array, log_likelihood: Array, combine: Callable[..., Array], reverse: bool = False
) -> Array:
    """Predicted messages [T, K] along the chain (against it if `reverse`: then `log_transition` is transposed)."""
    per_step = log_transition if log_transition.ndim == 3 else None
    first, rest = (log_likelihood[-1], log_likelihood[:-1]) if reverse else (log_likelihood[0], log_likelihood[1:])

    def step(message, inputs):
        log_matrix, log_weight = inputs
        log_matrix = log_transition if log_matrix is None else log_matrix
        predicted = combine(message[:, None] + log_matrix, axis=0)
        return _shifted(predicted + log_weight), predicted

    _, predicted = lax.scan(step, _shifted(log_start + first), (per_step, rest), reverse=reverse)
    return jnp.concatenate([predicted, log_start[None]] if reverse else [log_start[None], predicted])


def _filter(chain: _Chain) -> tuple[Filtered, Array]:
    """The filter, and the predicted messages it is made of."""
    predicted = _propagate(chain.log_initial, chain.log_transition, chain.log_likelihood, logsumexp)
    joint = predicted + chain.log_likelihood
    shift = finite_max(joint, axis=-1)
    log_filtered, mass = log_normalize(joint - shift[:, None])
    # predicted[t] came from a message of mass[t - 1] instead of 1. Once the data is impossible the mass is zero (-inf)
    # for good, and the evidence is left at -inf instead of -inf - (-inf).
    before = jnp.where(jnp.isneginf(mass), 0, mass)[:-1]
    log_evidence = (mass + shift).at[1:].add(-before) + chain.row_shift
    total = compensated_sum(jnp.concatenate([shift, chain.row_shift])) + mass[-1]
    return Filtered(total, log_filtered, log_evidence), predicted


def forward_filter(log_initial: Array, log_transition: Array, log_likelihood: Array) -> Filtered:
    """State probabilities given the data up to each time.

    `p(z[t] = j | y[..t]) ~ p(y[t] | j) sum_i p(z[t-1] = i | y[..t-1]) A[i, j]`, normalised by the evidence
    `p(y[t] | y[..t-1])`.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K] or [T - 1, K, K], nats.
        log_likelihood: [T, K], nats; finite or -inf.

    Returns:
        `Filtered`. From the first time at which the data is impossible, `log_filtered` and `log_evidence` are -inf.

    Raises:
        ShapeError: if the shapes do not belong together.

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
    return _filter(_chain("forward_filter", log_initial, log_transition, log_likelihood))[0]


@jax.custom_jvp
def _log_normalizer(log_initial: Array, log_transition: Array, log_likelihood: Array) -> Array:
    return _filter(_chain("log_normalizer", log_initial, log_transition, log_likelihood))[0].log_normalizer


@_log_normalizer.defjvp
def _log_normalizer_jvp(primals, tangents):
    # Fisher's identity: the derivative along any direction is its posterior expectation. It is finite at hard zeros,
    # costs no stored [T, K, K], and is linear in the tangents, so reverse mode is its transpose.
    posterior = smoother(*primals)
    weights = (posterior.marginals[0], posterior.transition_counts, posterior.marginals)
    return posterior.log_normalizer, sum(jnp.sum(w * d) for w, d in zip(weights, tangents, strict=True))


def log_normalizer(log_initial: Array, log_transition: Array, log_likelihood: Array) -> Array:
    """Log-probability of the data, all state sequences summed out; differentiable at zeros and for long chains.

    `log sum_z pi[z0] prod_t A[z[t-1], z[t]] prod_t p(y[t] | z[t])`; its gradients are the posterior marginals and the
    expected transition counts, in time and memory of one `smoother`.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K] or [T - 1, K, K], nats.
        log_likelihood: [T, K], nats; finite or -inf.

    Returns:
        [] nats; -inf, with gradients zero, for impossible data.

    Raises:
        ShapeError: if the shapes do not belong together.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> pi, a = jnp.array([0.0, -jnp.inf]), jnp.log(jnp.array([[0.5, 0.5], [0.0, 1.0]]))
        >>> value, counts = jax.value_and_grad(log_normalizer, 1)(pi, a, jnp.zeros((3, 2)))
        >>> round(abs(float(value)), 4), counts.round(4).tolist()
        (0.0, [[0.75, 0.75], [0.0, 0.5]])

    Source: Rabiner (1989), section III.A; Cappe, Moulines & Ryden (2005), Inference in Hidden Markov Models, section
    10.1.3 (Fisher's identity).
    """
    chain = jnp.asarray(log_initial), jnp.asarray(log_transition), jnp.asarray(log_likelihood)
    dtype = jnp.result_type(*chain, float)
    return _log_normalizer(*(x.astype(dtype) for x in chain))


def smoother(log_initial: Array, log_transition: Array, log_likelihood: Array) -> Posterior:
    """State and transition probabilities given all the data.

    `p(z[t] = i | y) ~ alpha[t, i] beta[t, i]` and
    `p(z[t] = i, z[t+1] = j | y) ~ alpha[t, i] A[i, j] p(y[t+1] | j) beta[t+1, j]`.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K] or [T - 1, K, K], nats.
        log_likelihood: [T, K], nats; finite or -inf.

    Returns:
        `Posterior`. Impossible data has no posterior: all marginals and counts are then zero, and `log_normalizer` is
        -inf.

    Raises:
        ShapeError: if the shapes do not belong together.

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
    chain = _chain("smoother", log_initial, log_transition, log_likelihood)
    filtered, predicted = _filter(chain)
    transposed = jnp.swapaxes(chain.log_transition, -1, -2)
    start = jnp.zeros_like(chain.log_initial)
    beta = _propagate(start, transposed, chain.log_likelihood, logsumexp, reverse=True)
    marginals = softmax(filtered.log_filtered + beta)
    onward = _shifted(chain.log_likelihood + beta)[1:]
    # predicted[t + 1] sums exp(message + log_transition) over the state left, so adding `onward` sums the pair. The two
    # shifts can be hundreds of nats apart where the past and the future disagree; their pair is still exact in logs.
    message = _shifted(predicted + chain.log_likelihood)[:-1]
    log_pair = logsumexp(predicted[1:] + onward, axis=-1)
    largest = float(jnp.finfo(log_pair.dtype).max)
    before = message - jnp.clip(log_pair, -largest, largest)[:, None]
    if chain.log_transition.ndim == 3:
        counts = jnp.exp(before[:, :, None] + chain.log_transition + onward[:, None, :])
    else:
        counts = _sum_pairs(before, chain.log_transition, onward)
    return Posterior(filtered.log_normalizer, marginals, counts)


def _sum_pairs(before: Array, log_transition: Array, onward: Array) -> Array:
    """`sum_t exp(before[t, i] + log_transition[i, j] + onward[t, j])`, never stored per time."""
    steps, states = before.shape
    # sqrt(T) partial sums of sqrt(T) terms: the rounding error of a sum grows with the number of terms in a row.
    lanes = max(1, math.isqrt(steps))
    padding = ((0, -steps % lanes), (0, 0))
    before = jnp.pad(before, padding, constant_values=-jnp.inf).reshape(-1, lanes, states)
    onward = jnp.pad(onward, padding).reshape(-1, lanes, states)

    def add(sums, pair):
        left, right = pair
        return sums + jnp.exp(left[:, :, None] + log_transition + right[:, None, :]), None

    zeros = jnp.zeros_like(log_transition, shape=(lanes, states, states))
    return jnp.sum(lax.scan(add, zeros, (before, onward))[0], axis=0)


def _walk_back(choose: Callable[..., Array], last: Array, log_transition: Array, inputs) -> Array:
    """States [T] from the last to the first; `choose(log_into, inputs[t])` knows the transitions into the next one."""
    into = jnp.swapaxes(log_transition, -1, -2)  # the state entered first, so that its column is a contiguous row
    per_step = into if into.ndim == 3 else None

    def step(state, xs):
        log_matrix, x = xs
        state = choose((into if log_matrix is None else log_matrix)[state], x)
        return state, state

    _, path = lax.scan(step, last, (per_step, inputs), reverse=True)
    return jnp.append(path, last)


def viterbi(log_initial: Array, log_transition: Array, log_likelihood: Array) -> Decoded:
    """The most probable state sequence.

    `argmax_z log pi[z0] + sum_t log A[z[t-1], z[t]] + sum_t log p(y[t] | z[t])`; ties go to the lower state.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K] or [T - 1, K, K], nats.
        log_likelihood: [T, K], nats; finite or -inf.

    Returns:
        `Decoded`. If every sequence is impossible, `log_prob` is -inf and the path is -1 throughout.

    Raises:
        ShapeError: if the shapes do not belong together.

    Example:
        >>> import jax.numpy as jnp
        >>> pi, a = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
        >>> y = jnp.log(jnp.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8], [0.9, 0.2], [0.9, 0.2]]))
        >>> viterbi(pi, a, y).path.tolist()
        [0, 0, 1, 0, 0]

    Source: Viterbi (1967), Error bounds for convolutional codes; Rabiner (1989), section III.B.
    """
    chain = _chain("viterbi", log_initial, log_transition, log_likelihood)
    a = chain.log_transition
    score = _shifted(_propagate(chain.log_initial, a, chain.log_likelihood, jnp.max) + chain.log_likelihood)
    # No back pointers: the winner is found again for the one state visited, K comparisons a step in place of K^2.
    last = jnp.argmax(score[-1]).astype(jnp.int32)
    path = _walk_back(lambda into, s: jnp.argmax(s + into).astype(jnp.int32), last, a, score[:-1])
    # Summed along the path rather than taken from the running score, which has been shifted T times.
    moves = (path[:-1], path[1:])
    used = a[moves] if a.ndim == 2 else a[(jnp.arange(path.shape[0] - 1), *moves)]
    seen = jnp.take_along_axis(chain.log_likelihood, path[:, None], axis=1)[:, 0]
    log_prob = compensated_sum(jnp.concatenate([chain.log_initial[path[:1]], used, seen, chain.row_shift]))
    return Decoded(jnp.where(log_prob > -jnp.inf, path, -1), log_prob)


def _cumulative(weights: Array) -> Array:
    # Every partial sum is the same reduction with zeros in place of the rest, so it never decreases, and does not
    # increase at a zero weight: a parallel prefix sum promises neither, and could pick an impossible state.
    included = jnp.tril(jnp.ones((weights.shape[0],) * 2, bool))
    return jnp.sum(jnp.where(included, weights, 0), axis=-1)


def _pick(cumulative: Array, uniform: Array) -> Array:
    """The state whose interval of the cumulative weights holds `uniform`, in [0, 1)."""
    state = jnp.sum(cumulative <= uniform * cumulative[-1], dtype=jnp.int32)
    return jnp.minimum(state, cumulative.shape[0] - 1)


def sample_posterior(key: Array, log_initial: Array, log_transition: Array, log_likelihood: Array) -> Array:
    """A state sequence drawn from the posterior, by filtering forwards and sampling backwards.

    `z[T-1] ~ p(z[T-1] | y)`, then `z[t] ~ p(z[t] | z[t+1], y[..t])`; one uniform number per time. Under `jax.vmap` over
    keys the filter runs once.

    Args:
        key: typed PRNG key.
        log_initial: [K], nats.
        log_transition: [K, K] or [T - 1, K, K], nats.
        log_likelihood: [T, K], nats; finite or -inf.

    Returns:
        [T] int32; all -1 for impossible data. A state of posterior probability zero is never drawn.

    Raises:
        ShapeError: if the shapes do not belong together.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> pi, a = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[1.0, 0.0], [0.5, 0.5]]))
        >>> y = jnp.log(jnp.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]]))
        >>> sample_posterior(jax.random.key(0), pi, a, y).tolist()
        [1, 1, 1]

    Source: Chib (1996), Calculating posterior distributions and modal estimates in Markov mixture models, section 2.
    """
    chain = _chain("sample_posterior", log_initial, log_transition, log_likelihood)
    filtered, _ = _filter(chain)
    uniform = jax.random.uniform(key, chain.row_shift.shape, chain.row_shift.dtype)

    def draw(log_weight, u):
        return _pick(_cumulative(jnp.exp(_shifted(log_weight))), u)

    last = draw(filtered.log_filtered[-1], uniform[-1])
    inputs = (filtered.log_filtered[:-1], uniform[:-1])
    path = _walk_back(lambda into, x: draw(x[0] + into, x[1]), last, chain.log_transition, inputs)
    return jnp.where(filtered.log_normalizer > -jnp.inf, path, -1)


def sample_path(key: Array, log_initial: Array, log_transition: Array, length: int) -> Array:
    """A state sequence drawn from the chain itself.

    `z[0] ~ pi`, `z[t] ~ A[z[t-1], :]`; one uniform number per time.

    Args:
        key: typed PRNG key.
        log_initial: [K], nats; normalised or not.
        log_transition: [K, K], or [length - 1, K, K] when it changes with time; rows normalised or not.
        length: T, at least one; a Python int.

    Returns:
        [T] int32. A transition of probability zero is never drawn.

    Raises:
        ShapeError: if the shapes do not belong together or the length is less than one.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> cycle = jnp.log(jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
        >>> sample_path(jax.random.key(0), jnp.array([0.0, -jnp.inf, -jnp.inf]), cycle, 5).tolist()
        [0, 1, 2, 0, 1]

    Source: Devroye (1986), Non-Uniform Random Variate Generation, section III.2 (inversion).
    """
    pi, a = jnp.asarray(log_initial), jnp.asarray(log_transition)
    called = f"sample_path(key, log_initial, log_transition, {length})"
    if length < 1:
        raise ShapeError("an empty path", called=called, expected="length >= 1", got=f"length = {length}")
    _check(called, pi, a, length)
    dtype = jnp.result_type(pi, a, float)
    uniform = jax.random.uniform(key, (length,), dtype)
    first = _pick(_cumulative(jnp.exp(_shifted(pi.astype(dtype)))), uniform[0])
    rows = jnp.exp(_shifted(a.astype(dtype)))
    # A table of cumulative rows, built row by row: at once it would pass through [K, K, K].
    table = lax.map(_cumulative, rows.reshape(-1, pi.shape[0])).reshape(rows.shape)

    def step(state, xs):
        rows, u = xs
        state = _pick((table if rows is None else rows)[state], u)
        return state, state

    _, path = lax.scan(step, first, (table if a.ndim == 3 else None, uniform[1:]))
    return jnp.concatenate([first[None], path])
