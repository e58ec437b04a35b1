"""Filter and smoother in log space: exact at any range of probabilities, and the reference for derivatives.

One recursion serves both directions. With the message `m[t] = predicted[t] + log_likelihood[t]`, shifted to have the
maximum 0, `predicted[t + 1, j] = log sum_i exp(m[t, i] + log_transition[i, j])`; backwards it is the same with the
transition transposed; with a maximum in place of the sum it is Viterbi's. Normalisers, marginals and counts are
computed afterwards for all times together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgen.ops.chains.backends import Associative, Backend, Recursion, layout, log_gap, run
from jaxgen.ops.chains.inputs import Chain, Filtered, Posterior, chunk_steps, matrices, shift_rows, sum_over_time
from jaxgen.ops.stable import finite_max, log_normalize, logsumexp, softmax

#: running sums of pairs, each over every so many-th step: rounding grows with the terms in a row
PAIR_LANES = 64


def shifted(a: Array, axis: Any = -1) -> Array:
    """Shifted to the maximum 0 along the axis; -inf throughout stays."""
    return a - finite_max(a, axis=axis, keepdims=True)


def _step(matrix: Any, reduce: Callable[..., Array]) -> Callable[[Any, Any], tuple[Any, Any]]:
    def step(predicted: Array, x: Any) -> tuple[Array, Array]:
        weight, own = x
        own = matrix if own is None else own
        message = shifted(predicted + weight, axis=0)
        if message.ndim == 1:
            return reduce(message[:, None] + own, axis=0), predicted
        # the state entered first: XLA's CPU compiler makes the faster loop of it
        own = jnp.swapaxes(own, 0, 1)
        own = own[..., None] if own.ndim == 2 else own
        return reduce(own + message, axis=1), predicted

    return step


def propagate(
    chain: Chain, rows: Array, backend: Backend, reduce: Callable[..., Array], reverse: bool, tolerance: float
) -> Array:
    """Predicted messages `[B, T, K]`, along the chain or against it.

    Args:
        chain: start, transitions and lengths.
        rows: log-likelihoods `[B, T, K]` with the maximum 0.
        backend: how to run.
        reduce: `logsumexp`, or `jnp.max`.
        reverse: against time.
        tolerance: of `Blocked`.
    """
    fixed, own = matrices(chain.log_transition, reverse)
    zeros = jnp.zeros_like(chain.log_initial)
    start = zeros if reverse else chain.log_initial
    step = _step(fixed, reduce)
    if isinstance(backend, Associative) and chain.starts is None:
        return _tree(step, start, rows, fixed, own, chain.length, reduce, reverse)
    shape = layout(backend, *rows.shape[:2])
    there = None if chain.length is None else chain.present
    recursion = Recursion(step, start, zeros, log_gap, tolerance)
    return shape.join(run(backend, recursion, shape, shape.cut(rows), own, there, reverse, chain.starts))


def _tree(
    step: Callable[[Any, Any], tuple[Any, Any]], start: Array, rows: Array, fixed: Any, own: Array | None,
    length: Array | None, reduce: Callable[..., Array], reverse: bool,
) -> Array:  # fmt: skip
    """All prefixes of the product of the matrices; then each message from the one before, which gives its scale."""
    batch, steps, states = rows.shape
    at = jnp.arange(steps)[None]
    if reverse:
        # each sequence from its own end, so that the shape of its tree does not depend on the padding
        end = jnp.full((batch, 1), steps) if length is None else length[:, None]
        at = jnp.where(at < end, end - 1 - at, at)
        rows = jnp.take_along_axis(rows, at[..., None], axis=1)
        if own is not None:
            own = jnp.broadcast_to(own, (batch, *own.shape[-3:]))
            own = jnp.take_along_axis(own, at[..., None, None], axis=1)
    products = shifted_matrices(rows[..., None] + (fixed if own is None else own))

    def combine(x: Array, y: Array) -> Array:
        return shifted_matrices(reduce(x[..., :, :, None] + y[..., None, :, :], axis=-2))

    products = lax.associative_scan(combine, products, axis=1)
    first = jnp.broadcast_to(start, (batch, 1, states))
    entering = jnp.concatenate([first, shifted(reduce(start[:, None] + products[:, :-1], axis=-2))], axis=1)
    columns = (jnp.moveaxis(x, (0, 1), (-2, -1)) for x in (entering, rows))
    own = own if own is None else jnp.moveaxis(jnp.broadcast_to(own, (batch, *own.shape[-3:])), (0, 1), (-2, -1))
    entering, rows = columns
    if own is None:
        flat = step(entering.reshape(states, -1), (rows.reshape(states, -1), None))[0]
    else:
        flat = step(entering.reshape(states, -1), (rows.reshape(states, -1), own.reshape(states, states, -1)))[0]
    onward = jnp.moveaxis(flat.reshape(states, batch, steps), 0, -1)
    out = jnp.concatenate([first, onward[:, :-1]], axis=1)
    return jnp.take_along_axis(out, at[..., None], axis=1) if reverse else out


def shifted_matrices(a: Array) -> Array:
    """Matrices in the last two axes, shifted to the maximum 0."""
    return a - finite_max(finite_max(a), axis=-1)[..., None, None]


def _tolerance(x: Array) -> float:
    return float(jnp.finfo(x.dtype).eps) ** 0.75


def filter_logs(chain: Chain, backend: Backend) -> tuple[Filtered, Array]:
    """The filter, and the predicted messages it is made of."""
    rows, row_shift = shift_rows(chain.log_likelihood)
    predicted = propagate(chain, rows, backend, logsumexp, False, _tolerance(rows))
    joint = predicted + rows
    shift = finite_max(joint, axis=-1)
    log_filtered, mass = log_normalize(joint - shift[..., None])
    # predicted[t] came from a message of mass[t - 1] instead of 1. Once the data is impossible the mass is zero (-inf)
    # for good, and the evidence is left at -inf instead of -inf - (-inf).
    before = jnp.where(jnp.isneginf(mass) | ~chain.leads, 0, mass)[:, :-1]
    evidence = (mass + shift).at[:, 1:].add(-before) + row_shift
    present = chain.present
    total = sum_over_time(jnp.where(present, shift, 0)) + sum_over_time(jnp.where(present, row_shift, 0))
    total = total + sum_over_time(jnp.where(present & ~chain.leads, mass, 0))
    if chain.length is not None:
        total = jnp.where(chain.length > 0, total, 0)
    log_filtered = jnp.where(present[..., None], log_filtered, -jnp.inf)
    return Filtered(total, log_filtered, jnp.where(present, evidence, 0)), predicted


def smooth_logs(chain: Chain, backend: Backend) -> Posterior:
    """The smoother."""
    filtered, predicted = filter_logs(chain, backend)
    rows, _ = shift_rows(chain.log_likelihood)
    beta = propagate(chain, rows, backend, logsumexp, True, _tolerance(rows))
    marginals = softmax(filtered.log_filtered + beta)
    onward = shifted(rows + beta)[:, 1:]
    # predicted[t + 1] sums exp(message + log_transition) over the state left, so adding `onward` sums the pair. The two
    # shifts can be hundreds of nats apart where the past and the future disagree; their pair is still exact in logs.
    message = shifted(predicted + rows)[:, :-1]
    log_pair = logsumexp(predicted[:, 1:] + onward, axis=-1)
    largest = float(jnp.finfo(log_pair.dtype).max)
    before = message - jnp.clip(log_pair, -largest, largest)[..., None]
    before = jnp.where(chain.moves[..., None], before, -jnp.inf)
    if chain.log_transition.ndim > 2:
        counts = jnp.exp(before[..., :, None] + chain.log_transition + onward[..., None, :])
    else:
        counts = _sum_pairs(before, chain.log_transition, onward)
    return Posterior(filtered.log_normalizer, marginals, counts)


def _sum_pairs(before: Array, log_transition: Array, onward: Array) -> Array:
    """`sum_t exp(before[t, i] + log_transition[i, j] + onward[t, j])`, never stored per time."""
    batch, steps, states = before.shape
    fill = -steps % PAIR_LANES
    before = jnp.pad(before, ((0, 0), (0, fill), (0, 0)), constant_values=-jnp.inf)

    def add(sums: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        left, right = pair
        return sums + jnp.exp(left[..., :, None] + log_transition + right[..., None, :]), None

    zeros = jnp.zeros_like(log_transition, shape=(batch, PAIR_LANES, states, states))
    pairs = chunk_steps(before, PAIR_LANES), chunk_steps(onward, PAIR_LANES)
    return jnp.sum(lax.scan(add, zeros, pairs)[0], axis=1)


@functools.partial(jax.jit, static_argnames="lag")  # one program where the caller has none
def fixed_lag_chain(chain: Chain, log_filtered: Array, lag: int) -> Array:
    """`p(z[t] | y[..t + lag])` `[B, T, K]`: for all times together, `lag` steps back from `t + lag` to t."""
    rows, _ = shift_rows(chain.log_likelihood)
    steps = rows.shape[1]
    rows = jnp.pad(rows, ((0, 0), (0, lag), (0, 0)))
    into = jnp.pad(chain.present, ((0, 0), (0, lag)))
    a = chain.log_transition
    if a.ndim > 2:
        ends = [(0, 0)] * a.ndim
        ends[-3] = (0, lag + 1)
        a = jnp.pad(a, ends)

    def step(message: Array, ahead: Array) -> tuple[Array, None]:
        seen = lax.dynamic_slice_in_dim(rows, ahead, steps, axis=1) + message
        there = lax.dynamic_slice_in_dim(into, ahead, steps, axis=1)[..., None]
        own = a if a.ndim == 2 else lax.dynamic_slice_in_dim(a, ahead - 1, steps, axis=a.ndim - 3)
        return jnp.where(there, shifted(logsumexp(own + seen[..., None, :], axis=-1)), message), None

    message = lax.scan(step, jnp.zeros_like(log_filtered), jnp.arange(lag, 0, -1))[0]
    return softmax(log_filtered + message)
