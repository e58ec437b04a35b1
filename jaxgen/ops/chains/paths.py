"""Paths of hidden Markov chains: the most probable ones, the one of most probable states, and draws.

Forwards as in `chain_logs` and `chain_scaled`; backwards a walk that takes, at each step, a state that depends on the
one after it. Neither stores pointers: the winner is found again for the one state visited, K comparisons a step in
place of K^2. Scores are shifted to a best of 0 at every step, so that rounding is relative to the lead of the winner
over the others and does not grow with time. Walks of two different starts meet, and so do Viterbi scores, whence
`Blocked` runs them in blocks too, and accepts nothing but equality.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgen.core.errors import ShapeError
from jaxgen.core.inputs import widened
from jaxgen.ops.chains.backends import Associative, Backend, Recursion, exact_gap, layout, log_gap, run
from jaxgen.ops.chains.inputs import Chain, check_transition, make_chain, matrices, shift_rows, sum_over_time, unbatch
from jaxgen.ops.chains.logs import propagate, shifted
from jaxgen.ops.chains.posterior import choose_for, filter_chain, smooth_chain
from jaxgen.ops.stable import finite_max

__all__ = ["Decoded", "decode_posterior", "sample_path", "sample_posterior", "viterbi", "viterbi_best"]

#: so many states are drawn among at once: their K^2 additions are fewer operations than two stages
DIRECT = 12


class Decoded(NamedTuple):
    """The best explanation: results of `viterbi`, and of `viterbi_best` with an axis of n paths before time."""

    path: Array
    """`[*batch, T]` int32, the most probable state sequence; -1 beyond the length, and throughout if no sequence has
    positive probability."""
    log_prob: Array
    """`[*batch]`, `log p(path, y)`."""


def _walk_back(chain: Chain, backend: Backend, choose: Callable[[Array, Any], Array], inputs: Any) -> Array:
    """States `[B, T]` from the last step to the first, any beyond the length.

    `choose(log_into, x)` picks states from log-transitions into the next one, `[K, R]`, and the step's inputs, which
    are in the layout; log-transitions are zeros at the last step, after which nothing comes.
    """
    a = chain.log_transition
    states, outside = a.shape[-1], a.shape[-1]
    turned = jnp.swapaxes(a, -1, -2)  # the state entered first, so that its column is a contiguous row
    table = own = None
    if a.ndim == 2:
        table = jnp.concatenate([turned, jnp.zeros_like(turned[:1])])
    else:
        ends = [(0, 0)] * a.ndim
        ends[-3] = (0, 1)
        own = jnp.pad(turned, ends)

    def step(state: Array, x: Any) -> tuple[Array, Array]:
        item, matrix = x
        if table is not None:
            into = table[state]  # [K] or [R, K]
        elif matrix.ndim == 3:
            into = jnp.take_along_axis(matrix, jnp.minimum(state, states - 1)[None, None], axis=0)[0].T
        else:
            into = matrix[jnp.minimum(state, states - 1)]
        if table is None:
            into = jnp.where((state == outside)[..., None], 0, into)
        state = choose(into.T, item)
        return state, state

    first = jnp.int32(outside)
    shape = layout(backend, *chain.log_likelihood.shape[:2])
    there = None if chain.length is None else chain.present
    return shape.join(run(backend, Recursion(step, first, first, exact_gap, 0.0), shape, inputs, own, there, True))


def _scores(chain: Chain, backend: Backend) -> Array:
    """`max_z log p(z[..t-1], z[t], y[..t])` up to a constant of each step, in the layout."""
    shape = layout(backend, *chain.log_likelihood.shape[:2])
    rows, _ = shift_rows(chain.log_likelihood)
    if isinstance(backend, Associative):
        return shape.cut(shifted(propagate(chain, rows, backend, jnp.max, False, 0.0) + rows))
    fixed: Any
    fixed, own = matrices(chain.log_transition, False)
    there = None if chain.length is None else chain.present

    def step(best: Array, x: Any) -> tuple[Array, Array]:
        row, matrix = x
        score = best + row
        # taken out at the end: the loop does not wait for it
        shift = finite_max(score, axis=0)
        matrix = fixed if matrix is None else matrix
        if score.ndim == 1:
            return jnp.max(score[:, None] + matrix, axis=0) - shift, score
        matrix = jnp.swapaxes(matrix, 0, 1)
        return jnp.max((matrix[..., None] if matrix.ndim == 2 else matrix) + score, axis=1) - shift, score

    recursion = Recursion(step, chain.log_initial, jnp.zeros_like(chain.log_initial), log_gap, 0.0)
    return run(backend, recursion, shape, shape.cut(rows), own, there, False)


def _first_best(score: Array) -> Array:
    """`argmax` over the leading axis as two reductions, which XLA's CPU compiler makes faster loops of."""
    states = jnp.arange(score.shape[0], dtype=jnp.int32).reshape(-1, *(1,) * (score.ndim - 1))
    at = jnp.where(score == jnp.max(score, axis=0), states, score.shape[0] - 1)
    return jnp.min(at, axis=0)


def _within(chain: Chain, path: Array, possible: Array) -> Array:
    return jnp.where(chain.present & possible[:, None], path, -1)


def viterbi(
    log_initial: Any, log_transition: Any, log_likelihood: Any, *, length: Any = None, observed: Any = None,
    backend: Backend | None = None,
) -> Decoded:  # fmt: skip
    """The most probable state sequence.

    `argmax_z log pi[z0] + sum_t log A[z[t-1], z[t]] + sum_t log p(y[t] | z[t])`; ties go to the lower state.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K], [T - 1, K, K] or [*batch, T - 1, K, K], nats.
        log_likelihood: [*batch, T, K], nats; finite or -inf.
        length: [*batch] int, the steps that are there, or None for all.
        observed: [*batch, T] bool, the steps that were seen, or None for all.
        backend: how to run; None chooses. All give the same path, but for ties within rounding.

    Returns:
        `Decoded`. If every sequence is impossible, `log_prob` is -inf and the path is -1 throughout.

    Raises:
        ShapeError: if the shapes do not belong together. DataError: lengths beyond T.

    Example:
        >>> import jax.numpy as jnp
        >>> pi, a = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
        >>> y = jnp.log(jnp.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8], [0.9, 0.2], [0.9, 0.2]]))
        >>> viterbi(pi, a, y).path.tolist()
        [0, 0, 1, 0, 0]

    Source: Viterbi (1967), Error bounds for convolutional codes; Rabiner (1989), section III.B.
    """
    chain, batch = make_chain("viterbi", log_initial, log_transition, log_likelihood, length, observed)
    return unbatch(_viterbi(choose_for(chain, backend), chain), batch)


@functools.partial(jax.jit, static_argnames="backend")  # one program where the caller has none
def _viterbi(backend: Backend, chain: Chain) -> Decoded:
    path = _walk_back(chain, backend, lambda into, s: _first_best(s + into), _scores(chain, backend))
    log_prob = _log_joint(chain, path)
    return Decoded(_within(chain, path, log_prob > -jnp.inf), log_prob)


def _log_joint(chain: Chain, path: Array) -> Array:
    """`log p(path, y)` `[B]`, summed along the path rather than taken from scores that were shifted T times."""
    a = chain.log_transition
    before, after = path[:, :-1], path[:, 1:]
    if a.ndim == 2:
        used = a[before, after]
    else:
        time = jnp.arange(path.shape[1] - 1)
        used = a[time, before, after] if a.ndim == 3 else a[jnp.arange(path.shape[0])[:, None], time, before, after]
    seen = jnp.take_along_axis(chain.log_likelihood, path[..., None], axis=-1)[..., 0]
    total = sum_over_time(jnp.where(chain.present, seen, 0)) + sum_over_time(jnp.where(chain.moves, used, 0))
    total = total + chain.log_initial[path[:, 0]]
    return total if chain.length is None else jnp.where(chain.length > 0, total, 0)


def viterbi_best(
    log_initial: Any, log_transition: Any, log_likelihood: Any, best: int, *, length: Any = None, observed: Any = None
) -> Decoded:
    """The n most probable state sequences, all different, the best first.

    At each step each state keeps the n best ways to reach it: the best n of the n K continuations.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K], [T - 1, K, K] or [*batch, T - 1, K, K], nats.
        log_likelihood: [*batch, T, K], nats; finite or -inf.
        best: n, at least one; a Python int.
        length: [*batch] int, the steps that are there, or None for all.
        observed: [*batch, T] bool, the steps that were seen, or None for all.

    Returns:
        `Decoded` with `path [*batch, n, T]` and `log_prob [*batch, n]`: -1 and -inf from where no more sequences have
        positive probability. Memory is n T K.

    Raises:
        ShapeError: n below one, or shapes that do not belong together. DataError: lengths beyond T.

    Example:
        >>> import jax.numpy as jnp
        >>> pi, a = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
        >>> y = jnp.log(jnp.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8]]))
        >>> viterbi_best(pi, a, y, 2).path.tolist()
        [[0, 0, 1], [0, 0, 0]]

    Source: Seshadri & Sundberg (1994), List Viterbi decoding algorithms with applications (the parallel algorithm).
    """
    if best < 1:
        raise ShapeError("no paths", called=f"viterbi_best(..., best={best})", expected="best >= 1")
    chain, batch = make_chain("viterbi_best", log_initial, log_transition, log_likelihood, length, observed)
    return unbatch(_viterbi_best(chain, best), batch)


@functools.partial(jax.jit, static_argnames="best")
def _viterbi_best(chain: Chain, best: int) -> Decoded:
    rows, _ = shift_rows(chain.log_likelihood)
    a = chain.log_transition
    one = lambda a, rows, length: _best_paths(chain.log_initial, a, rows, length, best)  # noqa: E731
    axes = (0 if a.ndim == 4 else None, 0, None if chain.length is None else 0)
    paths, exists = jax.vmap(one, axes)(a, rows, chain.length)
    log_prob = jax.vmap(lambda path: _log_joint(chain, path), 1, 1)(paths)
    log_prob = jnp.where(exists, log_prob, -jnp.inf)
    path = jnp.where(chain.present[:, None] & (log_prob > -jnp.inf)[..., None], paths, -1)
    return Decoded(path, log_prob)


def _best_paths(pi: Array, a: Array, rows: Array, length: Array | None, best: int) -> tuple[Array, Array]:
    """Paths `[n, T]` of one sequence, and which of them exist `[n]`."""
    steps, states = rows.shape
    first = jnp.full((states, best), -jnp.inf, rows.dtype).at[:, 0].set(pi + rows[0])
    keep = None if length is None else jnp.arange(1, steps) < length

    def forward(score: Array, x: Any) -> tuple[Array, Array]:
        row, own, there = x
        own = a if own is None else own
        # a way is its state and its rank there: the order that settles ties
        ways = (shifted(score, axis=(0, 1))[:, :, None] + own[:, None]).reshape(-1, states)
        new, came = lax.top_k(ways.T, min(best, ways.shape[0]))
        short = best - new.shape[1]
        new = jnp.pad(new, ((0, 0), (0, short)), constant_values=-jnp.inf) + row[:, None]
        came = jnp.pad(came, ((0, 0), (0, short))).astype(jnp.int32)
        if there is not None:
            new = jnp.where(there, new, score)
            came = jnp.where(there, came, jnp.arange(states * best, dtype=jnp.int32).reshape(states, best))
        return new, came

    score, pointers = lax.scan(forward, first, (rows[1:], a if a.ndim == 3 else None, keep))
    top, way = lax.top_k(score.reshape(-1), min(best, states * best))
    way = way.astype(jnp.int32)
    earlier = lax.scan(lambda w, came: (came.reshape(-1)[w],) * 2, way, pointers, reverse=True)[1]
    return jnp.concatenate([earlier, way[None]]).T // best, top > -jnp.inf


def decode_posterior(
    log_initial: Any, log_transition: Any, log_likelihood: Any, *, length: Any = None, observed: Any = None,
    backend: Backend | None = None,
) -> Array:  # fmt: skip
    """The most probable state of every step on its own: the path with the fewest wrong states to expect.

    `z[t] = argmax_i p(z[t] = i | y)`; ties go to the lower state. The path as a whole may be impossible.

    Args:
        log_initial: [K], nats.
        log_transition: [K, K], [T - 1, K, K] or [*batch, T - 1, K, K], nats.
        log_likelihood: [*batch, T, K], nats; finite or -inf.
        length: [*batch] int, the steps that are there, or None for all.
        observed: [*batch, T] bool, the steps that were seen, or None for all.
        backend: how to run; None chooses.

    Returns:
        [*batch, T] int32; -1 beyond the length, and throughout for impossible data.

    Raises:
        ShapeError: if the shapes do not belong together. DataError: lengths beyond T.

    Example:
        >>> import jax.numpy as jnp
        >>> pi, a = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
        >>> decode_posterior(pi, a, jnp.log(jnp.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8]]))).tolist()
        [0, 0, 1]

    Source: Rabiner (1989), equation 29.
    """
    chain, batch = make_chain("decode_posterior", log_initial, log_transition, log_likelihood, length, observed)
    posterior = smooth_chain(choose_for(chain, backend), chain[:3], chain.length)
    path = jnp.argmax(posterior.marginals, axis=-1).astype(jnp.int32)
    return unbatch(_within(chain, path, posterior.log_normalizer > -jnp.inf), batch)


def _cumulative(weights: Array) -> Array:
    # Every partial sum is the same reduction with zeros in place of the rest, so it never decreases, and does not
    # increase at a zero weight: a parallel prefix sum promises neither, and could pick an impossible state.
    included = jnp.tril(jnp.ones((weights.shape[0],) * 2, bool))
    return jnp.sum(jnp.where(included.reshape(included.shape + (1,) * (weights.ndim - 1)), weights, 0), axis=1)


def _pick(cumulative: Array, uniform: Array) -> Array:
    """The state whose interval of the cumulative weights holds `uniform`, in [0, 1)."""
    state = jnp.sum(cumulative <= uniform * cumulative[-1], axis=0, dtype=jnp.int32)
    return jnp.minimum(state, cumulative.shape[0] - 1)


def _draw(weights: Array, uniform: Array) -> Array:
    """The state of weights `[K, ...]` that `uniform` picks: among many states first a block of them, then one in it.

    K sqrt(K) additions in place of K^2. A state of weight zero is picked in neither stage.
    """
    states, rest = weights.shape[0], weights.shape[1:]
    if states <= DIRECT:
        return _pick(_cumulative(weights), uniform)
    size = math.isqrt(states - 1) + 1
    fill = -states % size
    parts = jnp.concatenate([weights, jnp.zeros((fill, *rest), weights.dtype)]).reshape(-1, size, *rest)
    until = _cumulative(jnp.sum(parts, axis=1))
    block = _pick(until, uniform)
    number = jnp.arange(len(parts)).reshape(-1, *(1,) * len(rest))
    inside = jnp.sum(jnp.where((number == block)[:, None], parts, 0), axis=0)
    before = jnp.sum(jnp.where(number == block - 1, until, 0), axis=0)
    share = (uniform * until[-1] - before) / jnp.sum(inside, axis=0)
    below_one = 1 - float(jnp.finfo(weights.dtype).eps)
    return block * size + _pick(_cumulative(inside), jnp.clip(share, 0, below_one))


def sample_posterior(
    key: Array, log_initial: Any, log_transition: Any, log_likelihood: Any, *, length: Any = None,
    observed: Any = None, backend: Backend | None = None,
) -> Array:  # fmt: skip
    """A state sequence drawn from the posterior, by filtering forwards and sampling backwards.

    `z[T-1] ~ p(z[T-1] | y)`, then `z[t] ~ p(z[t] | z[t+1], y[..t])`; one uniform number per time. Under `jax.vmap` over
    keys the filter runs once.

    Args:
        key: typed PRNG key.
        log_initial: [K], nats.
        log_transition: [K, K], [T - 1, K, K] or [*batch, T - 1, K, K], nats.
        log_likelihood: [*batch, T, K], nats; finite or -inf.
        length: [*batch] int, the steps that are there, or None for all.
        observed: [*batch, T] bool, the steps that were seen, or None for all.
        backend: how to run; None chooses.

    Returns:
        [*batch, T] int32; -1 beyond the length, and throughout for impossible data. A state of posterior probability
        zero is never drawn. Sequences of a batch are drawn independently.

    Raises:
        ShapeError: if the shapes do not belong together. DataError: lengths beyond T.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> pi, a = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[1.0, 0.0], [0.5, 0.5]]))
        >>> y = jnp.log(jnp.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]]))
        >>> sample_posterior(jax.random.key(0), pi, a, y).tolist()
        [1, 1, 1]

    Source: Chib (1996), Calculating posterior distributions and modal estimates in Markov mixture models, section 2.
    """
    chain, batch = make_chain("sample_posterior", log_initial, log_transition, log_likelihood, length, observed)
    return unbatch(_sample_posterior(choose_for(chain, backend), key, chain), batch)


@functools.partial(jax.jit, static_argnames="backend")
def _sample_posterior(backend: Backend, key: Array, chain: Chain) -> Array:
    filtered = filter_chain(backend, chain[:3], chain.length)
    log_filtered = filtered.log_filtered
    # time leads, so that a longer padding leaves the numbers of the steps before it as they are
    uniform = jax.random.uniform(key, log_filtered.shape[1::-1], log_filtered.dtype).T

    def draw(into: Array, x: tuple[Array, Array]) -> Array:
        log_weight, u = x
        return _draw(jnp.exp(shifted(log_weight + into, axis=0)), u)

    shape = layout(backend, *chain.log_likelihood.shape[:2])
    path = _walk_back(chain, backend, draw, (shape.cut(log_filtered), shape.cut(uniform)))
    return _within(chain, path, filtered.log_normalizer > -jnp.inf)


def sample_path(key: Array, log_initial: Any, log_transition: Any, length: int) -> Array:
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
    pi, a = widened((jnp.asarray(log_initial), jnp.asarray(log_transition)))
    called = f"sample_path(key, log_initial, log_transition, {length})"
    if length < 1:
        raise ShapeError("an empty path", called=called, expected="length >= 1", got=f"length = {length}")
    check_transition(called, pi, a, length)
    dtype = jnp.result_type(pi, a, float)
    return _sample_path(key, pi.astype(dtype), a.astype(dtype), length)


@functools.partial(jax.jit, static_argnames="length")
def _sample_path(key: Array, pi: Array, a: Array, length: int) -> Array:
    uniform = jax.random.uniform(key, (length,), pi.dtype)
    first = _pick(_cumulative(jnp.exp(shifted(pi))), uniform[0])
    rows = jnp.exp(shifted(a))
    # A table of cumulative rows, built row by row: at once it would pass through [K, K, K].
    table = lax.map(_cumulative, rows.reshape(-1, pi.shape[0])).reshape(rows.shape)

    def step(state: Array, xs: Any) -> tuple[Array, Array]:
        rows, u = xs
        state = _pick((table if rows is None else rows)[state], u)
        return state, state

    _, path = lax.scan(step, first, (table if a.ndim == 3 else None, uniform[1:]))
    return jnp.concatenate([first[None], path])
