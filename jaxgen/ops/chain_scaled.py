"""Filter and smoother in probability space, two to four times as fast as in log space, with a proof that they may be.

All numbers here are sums and products of non-negative numbers, each of which rounding changes by a small *relative*
amount, as it does in log space. Only underflow can do more: a result below `tiny`, the smallest normal number, may come
out as anything from zero to `tiny`. So the recursion is right if underflow changed nothing that can be seen, and that
is checked after the fact.

With the likelihoods `b[t]` shifted to a maximum of one, the transition to a maximum of at most one, and predictions
`q[t]` with sum `s[t]`, a step is `m[t] = b[t] q[t] / s[t]`, then `q[t+1] = m[t] A`. Underflow changes an entry of m,
and each of the K products `m[i] A[i, j]`, by less than `tiny` (a b[t] or an A that itself underflowed is such a change
too), so `q[t+1, j]` by less than `2 K tiny`. With `kappa = 4 K^2 tiny / eps` it is enough that, at each step, either

1. all entries of `q[t+1]` are at least kappa: what was lost is then less than eps relative to each, rounding noise; or
2. nothing was lost: every `m[i]` is an exact zero (a hard zero in q or b) or at least `2 tiny / min A`, with `min A`
   the smallest positive entry, and none of these underflowed. Zeros in `q[t+1]` are then hard ones too.

By induction all `q[t]` are right to rounding and all their zeros are hard ones. The same holds against time, with
`r[t-1] = A w[t]`, `w[t] = b[t] r[t] / sum r[t]`. Normalisers are sums, `c[t] = sum m[t]`, and posteriors divide by
`d[t] = sum q[t] w[t]` (for the pairs that enter t, and times `1 / s[t]` for the states at t). A sum lost less than
`2 K tiny`, so these must be at least kappa as well. Posterior probabilities below about `tiny / kappa` may come out as
zero: an *absolute* error of that size.

Condition 1 holds for all data if `min A` is at least kappa and no state is impossible at the start (kappa is 1e-28 in
float32 with 8 states): q and r are averages of entries of A. It fails where a state can be reached only through
improbable ones, as in left-right models; NaN and impossible data fail too. Sequences that fail are computed in log
space.

Source: scaling: Rabiner (1989), A tutorial on hidden Markov models, section V.A; errors of sums of products: Higham
(2002), Accuracy and stability of numerical algorithms, sections 2.2 and 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxgen.ops.chain_backends import Backend, Layout, Recursion, layout, ratio_gap, run
from jaxgen.ops.chain_inputs import (
    Chain,
    Filtered,
    Posterior,
    chunk_steps,
    in_order,
    matrices,
    shift_rows,
    sum_over_time,
)
from jaxgen.ops.gaussians import any_lane
from jaxgen.ops.stable import finite_max

#: steps whose transitions are counted by one matrix product
COUNTED = 256


class _Scaled(NamedTuple):
    initial: Array
    initial_shift: Array
    transition: Array
    transition_shift: Array  # of each move, or of all
    likelihood: Array  # in the layout
    row_shift: Array  # [B, T]
    present: Array  # in the layout
    smallest: Array  # positive entry of the transition, zero if one underflowed
    initial_lost: Array  # whether a positive start underflowed


def _scale(chain: Chain, shape: Layout) -> _Scaled:
    pi_shift = finite_max(chain.log_initial)
    a = chain.log_transition
    a_shift = finite_max(finite_max(a), axis=-1)
    # a stochastic matrix stays as it is: a shift would cost a rounding
    a_shift = jnp.where((a_shift <= 0) & (a_shift > -10), 0, a_shift)
    transition = jnp.exp(a - a_shift[..., None, None])
    smallest = jnp.min(jnp.where(a > -jnp.inf, transition, 1), initial=1.0)
    initial = jnp.exp(chain.log_initial - pi_shift)
    lost = jnp.any((chain.log_initial > -jnp.inf) & (initial < _tiny(initial)))
    rows, shift = shift_rows(chain.log_likelihood)
    there = shape.cut(jnp.broadcast_to(chain.present, shift.shape))
    return _Scaled(initial, pi_shift, transition, a_shift, shape.cut(jnp.exp(rows)), shift, there, smallest, lost)


def _tiny(x: Array) -> float:
    return 2 * float(jnp.finfo(x.dtype).tiny)


def _kappa(chain: Chain) -> float:
    info = jnp.finfo(chain.log_initial.dtype)
    return 4 * chain.log_initial.shape[-1] ** 2 * float(info.tiny) / float(info.eps)


def _product(across: Array | None, own: Any, m: Array) -> Array:
    """`m A`, with A fixed (and transposed) or the step's own."""
    if across is not None:
        return jnp.matmul(across, m, precision=lax.Precision.HIGHEST)
    if own.ndim == 2:
        return jnp.matmul(own.T, m, precision=lax.Precision.HIGHEST)
    return jnp.sum(own * m[:, None], axis=0)


def _tolerance(chain: Chain) -> float:
    return float(jnp.finfo(chain.log_initial.dtype).eps) ** 0.75


class _Forward(NamedTuple):
    q: Array
    s: Array
    log_z: Array  # [B]
    sound: Array  # [B]


def _forward(chain: Chain, scaled: _Scaled, backend: Backend, shape: Layout) -> _Forward:
    """Predictions in the layout, with what follows from them."""
    fixed, own = matrices(scaled.transition, False)
    across = None if fixed is None else fixed.T

    def step(q: Array, x: Any) -> tuple[Array, Array]:
        weight, matrix = x
        return _product(across, matrix, q * (weight / jnp.sum(q, axis=0))), q

    recursion = Recursion(step, scaled.initial, jnp.ones_like(scaled.initial), ratio_gap, _tolerance(chain))
    there = None if chain.length is None else chain.present
    q = run(backend, recursion, shape, scaled.likelihood, own, there, False)
    s = lax.optimization_barrier(jnp.sum(q, axis=1))
    end = chain.log_likelihood.shape[1] if chain.length is None else chain.length
    end = jnp.maximum(jnp.broadcast_to(end, shape.batch) - 1, 0)
    last = jnp.sum(shape.at(scaled.likelihood, end) * shape.at(q, end), axis=1) / shape.at(s, end)
    kappa = _kappa(chain)
    broad = (jnp.min(q, axis=1) >= kappa) | ~scaled.present

    def nothing_lost() -> Array:
        lost = shape.join(_lost(chain, scaled, shape, q, s))
        lost = lost.at[:, 0].set(lost[:, 0] | scaled.initial_lost)
        return jnp.all(shape.join(broad)[:, 1:] | ~lost[:, :-1], axis=1)

    # c[t] is at least any q[t+1], so that c needs no look except at the end, or where zeros are allowed
    sound = _either(shape.each(broad), nothing_lost)
    sound &= shape.each((s >= kappa * q.shape[1]) | ~scaled.present) & (last >= kappa)
    return _Forward(q, s, _log_z(chain, scaled, shape, s, last), sound)


def _log_z(chain: Chain, scaled: _Scaled, shape: Layout, s: Array, last: Array) -> Array:
    logs = sum_over_time(shape.join_whole(jnp.where(scaled.present, jnp.log(s), 0)))
    shifts = sum_over_time(jnp.where(chain.present, scaled.row_shift, 0))
    moves = jnp.where(chain.moves, scaled.transition_shift, 0)
    moved = jnp.sum(jnp.broadcast_to(moves, (moves.shape[0], shape.steps - 1)), axis=1)
    log_z = logs + shifts + moved + (jnp.log(last) + scaled.initial_shift)
    return log_z if chain.length is None else jnp.where(chain.length > 0, log_z, 0)


def _either(enough: Array, otherwise: Callable[[], Array]) -> Array:
    """`enough | otherwise()`, without the second where the first holds for all."""
    return lax.cond(any_lane(~jnp.all(enough)), lambda: enough | otherwise(), lambda: enough)


def _lost(chain: Chain, scaled: _Scaled, shape: Layout, q: Array, s: Array) -> Array:
    """In the layout: whether underflow took part of what a step leads on, by condition 2."""
    m = scaled.likelihood * (q / s[:, None])
    seen = shape.cut(chain.log_likelihood) > -jnp.inf
    return jnp.any((q > 0) & seen & ~(m * scaled.smallest >= _tiny(m)), axis=1)


def filter_scaled(chain: Chain, backend: Backend) -> tuple[Filtered, Array]:
    """The filter, and for which sequences `[B]` it is right."""
    shape = layout(backend, *chain.log_likelihood.shape[:2])
    scaled = _scale(chain, shape)
    q, s, log_z, sound = _forward(chain, scaled, backend, shape)
    log_s, log_c = jnp.log(shape.join(s)), jnp.log(shape.join(jnp.sum(scaled.likelihood * q, axis=1) / s))
    # from logarithms: exact also where the likelihood itself underflowed; from shifted rows, whose digits are finer
    rows, _ = shift_rows(chain.log_likelihood)
    log_filtered = shape.join(jnp.log(q)) + (rows - (log_s + log_c)[..., None])
    evidence = log_s + log_c + scaled.row_shift
    evidence = evidence.at[:, 1:].add(scaled.transition_shift - log_c[:, :-1]).at[:, 0].add(scaled.initial_shift)
    present = chain.present
    return Filtered(
        log_z, jnp.where(present[..., None], log_filtered, -jnp.inf), jnp.where(present, evidence, 0)
    ), sound


def smooth_scaled(chain: Chain, backend: Backend) -> tuple[Posterior, Array]:
    """The smoother, and for which sequences `[B]` it is right."""
    shape = layout(backend, *chain.log_likelihood.shape[:2])
    scaled = _scale(chain, shape)
    q, s, log_z, sound = _forward(chain, scaled, backend, shape)
    fixed, own = matrices(scaled.transition, True)
    across = None if fixed is None else fixed.T

    def step(r: Array, x: Any) -> tuple[Array, Array]:
        weight, matrix = x
        return _product(across, matrix, r * (weight / jnp.sum(r, axis=0))), r

    ones = jnp.ones_like(scaled.initial)
    there = None if chain.length is None else chain.present
    recursion = Recursion(step, ones, ones, ratio_gap, _tolerance(chain))
    r = run(backend, recursion, shape, scaled.likelihood, own, there, True)
    total = lax.optimization_barrier(jnp.sum(r, axis=1))
    w = scaled.likelihood * (r / total[:, None])
    d = lax.optimization_barrier(jnp.sum(q * w, axis=1))

    kappa = _kappa(chain)
    broad = (jnp.min(r, axis=1) >= kappa) | ~scaled.present

    def nothing_lost() -> Array:
        lost = shape.join(_lost(chain, scaled, shape, r, total))
        return jnp.all(shape.join(broad)[:, :-1] | ~(lost & chain.present)[:, 1:], axis=1)

    sound &= _either(shape.each(broad), nothing_lost)
    sound &= shape.each((jnp.minimum(d, d / s) >= kappa) | ~scaled.present)

    marginals = jnp.where(chain.present[..., None], shape.join(q * w / d[:, None]), 0)
    left = shape.join_whole(jnp.where(scaled.present[:, None], scaled.likelihood * (q / s[:, None]), 0))
    right = shape.join_whole(jnp.where(scaled.present[:, None], w / d[:, None], 0))
    return Posterior(log_z, marginals, _counts(left, scaled.transition, right, shape.steps)), sound


def _counts(left: Array, transition: Array, right: Array, steps: int) -> Array:
    """`left[t, i] A[i, j] right[t + 1, j]`, summed over time where A does not change; what is not there is zero."""
    if transition.ndim > 2:
        return left[:, : steps - 1, :, None] * transition * right[:, 1:steps, None, :]
    left = lax.pad(left, jnp.zeros((), left.dtype), [(0, 0, 0), (1, -1, 0), (0, 0, 0)])
    left, right = chunk_steps(left, COUNTED), chunk_steps(right, COUNTED)
    pairs = jnp.einsum("nbti,nbtj->nbij", left, right, precision=lax.Precision.HIGHEST)
    return transition * in_order(pairs)
