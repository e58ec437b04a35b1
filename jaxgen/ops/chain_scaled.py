"""Filter and smoother in probability space, two to four times as fast as in log space, with a proof that they may be.

All numbers here are sums and products of non-negative numbers, each of which rounding changes by a small *relative*
amount, as it does in log space. Only underflow can do more: a result below `tiny`, the smallest normal number, may come
out as anything from zero to `tiny`. So the recursion is right if underflow changed nothing that can be seen, and that
is checked after the fact.

With the likelihoods `b[t]` shifted to a maximum of one and the transition to a maximum of at most one, a step is
`m[t] = b[t] q[t]`, `c[t] = sum m[t]`, `q[t+1] = m[t] A / c[t]`, so that predictions q are averages of entries of A, at
most one, and `c[t] <= K`. Underflow changes an entry of m, and each of the K products `m[i] A[i, j]`, by less than
`tiny` (a b[t] or an A that itself underflowed is such a change too), so `m A` by less than `2 K tiny`, and c by less
than `K tiny`. With `kappa = 4 K^2 tiny / eps` it is enough that, at each step, either

1. all `c[t] q[t+1, j]` are at least kappa: what was lost of them is then less than eps relative to each, rounding
   noise, and of c, which is no less, too; or
2. nothing was lost: every `m[i]` is an exact zero (a hard zero in q or b) or at least `2 K tiny / min A`, with `min A`
   the smallest positive entry, and none of these underflowed. Then no quotient by c underflows either, and zeros in
   `q[t+1]` are hard ones too.

By induction all `q[t]` are right to rounding and all their zeros are hard ones. The same holds against time, with
`w[t] = b[t] r[t]`, `r[t-1] = A w[t] / sum w[t]`. The log-likelihood is the sum of `log c[t]`; pairs of states are
`(m[t] / c[t]) A (w[t+1] / d[t+1])` and states `m[t] r[t] / d[t]`, with `d[t] = sum m[t] r[t]`. A sum lost less than
`2 K tiny`, so c and d must be at least kappa as well. Posterior probabilities below about `tiny / kappa` may come out
as zero: an *absolute* error of that size.

Condition 1 holds for all data if `min A` is at least kappa and no state is impossible at the start (kappa is 1e-28 in
float32 with 8 states), as long as likelihoods in the states are not that far apart. It fails where a state can be
reached only through improbable ones, as in left-right models; NaN and impossible data fail too. Sequences that fail
are computed in log space.

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


def _step(a: Array | None) -> Callable[[Any, Any], tuple[Any, Any]]:
    """`q -> m A / sum m` with `m = b q`, for one A `[K, K]`, or None where each step has its own.

    The quotient comes last: on one chain it waits for the sum and the product at the same time, on many both are one
    product, with a row of ones. A sum of products in place of a product is what makes the loop over one chain short.
    """
    summing = None if a is None else jnp.concatenate([a.T, jnp.ones_like(a[:1])])

    def step(q: Array, x: Any) -> tuple[Array, Array]:
        weight, own = x
        matrix: Any = a if own is None else own
        m = q * weight
        if m.ndim == 1 or matrix.ndim == 3:
            return jnp.sum(matrix * m[:, None], axis=0) / jnp.sum(m, axis=0), q
        both = jnp.concatenate([matrix.T, jnp.ones_like(matrix[:1])]) if summing is None else summing
        product = jnp.matmul(both, m, precision=lax.Precision.HIGHEST)
        return product[:-1] / product[-1], q

    return step


def _tolerance(chain: Chain) -> float:
    return float(jnp.finfo(chain.log_initial.dtype).eps) ** 0.75


def _run(chain: Chain, scaled: _Scaled, backend: Backend, shape: Layout, reverse: bool) -> Array:
    """What enters each step, in the layout: q, or against time r."""
    fixed, own = matrices(scaled.transition, reverse)
    ones = jnp.ones_like(scaled.initial)
    start = ones if reverse else scaled.initial
    recursion = Recursion(_step(fixed), start, ones, ratio_gap, _tolerance(chain))
    there = None if chain.length is None else chain.present
    return run(backend, recursion, shape, scaled.likelihood, own, there, reverse)


class _Forward(NamedTuple):
    q: Array  # in the layout, as are m and c
    m: Array
    c: Array
    log_z: Array  # [B]
    sound: Array  # [B]


def _forward(chain: Chain, scaled: _Scaled, backend: Backend, shape: Layout) -> _Forward:
    """Predictions, and what follows from them."""
    q = _run(chain, scaled, backend, shape, False)
    m = scaled.likelihood * q
    c = _sum_states(m)
    mass, kappa = shape.join(c), _kappa(chain)
    broad = (mass[:, :-1] * shape.join(jnp.min(q, axis=1))[:, 1:] >= kappa) | ~chain.moves

    def nothing_lost() -> Array:
        lost = _lost(chain, scaled, shape, q, m)
        lost = lost.at[:, 0].set(lost[:, 0] | scaled.initial_lost)
        return jnp.all(broad | ~lost[:, :-1], axis=1)

    sound = _either(jnp.all(broad, axis=1), nothing_lost)
    sound &= jnp.all((mass >= kappa) | ~chain.present, axis=1)
    return _Forward(q, m, c, _log_z(chain, scaled, shape, mass), sound)


def _sum_states(x: Array) -> Array:
    """`[S, K, ..] -> [S, ..]`, kept in memory: what needs one number a step would else sum again for each."""
    return lax.optimization_barrier(jnp.sum(x, axis=1))


def _log_z(chain: Chain, scaled: _Scaled, shape: Layout, mass: Array) -> Array:
    there = chain.present
    logs = sum_over_time(jnp.where(there, jnp.log(mass), 0)) + sum_over_time(jnp.where(there, scaled.row_shift, 0))
    moves = jnp.where(chain.moves, scaled.transition_shift, 0)
    log_z = logs + jnp.sum(jnp.broadcast_to(moves, (moves.shape[0], shape.steps - 1)), axis=1) + scaled.initial_shift
    return log_z if chain.length is None else jnp.where(chain.length > 0, log_z, 0)


def _either(enough: Array, otherwise: Callable[[], Array]) -> Array:
    """`enough | otherwise()`, without the second where the first holds for all."""
    return lax.cond(any_lane(~jnp.all(enough)), lambda: enough | otherwise(), lambda: enough)


def _lost(chain: Chain, scaled: _Scaled, shape: Layout, q: Array, m: Array) -> Array:
    """`[B, T]`: whether underflow took part of what a step leads on, by condition 2."""
    seen = shape.cut(chain.log_likelihood) > -jnp.inf
    least = m.shape[1] * _tiny(m)
    return shape.join(jnp.any((q > 0) & seen & ~(m * scaled.smallest >= least), axis=1))


def filter_scaled(chain: Chain, backend: Backend) -> tuple[Filtered, Array]:
    """The filter, and for which sequences `[B]` it is right."""
    shape = layout(backend, *chain.log_likelihood.shape[:2])
    scaled = _scale(chain, shape)
    q, _, c, log_z, sound = _forward(chain, scaled, backend, shape)
    log_c = jnp.log(shape.join(c))
    # from logarithms: exact also where the likelihood itself underflowed; from shifted rows, whose digits are finer
    rows, _ = shift_rows(chain.log_likelihood)
    log_filtered = shape.join(jnp.log(q)) + (rows - log_c[..., None])
    evidence = log_c + scaled.row_shift
    evidence = evidence.at[:, 1:].add(scaled.transition_shift).at[:, 0].add(scaled.initial_shift)
    present = chain.present
    return Filtered(
        log_z, jnp.where(present[..., None], log_filtered, -jnp.inf), jnp.where(present, evidence, 0)
    ), sound


def smooth_scaled(chain: Chain, backend: Backend) -> tuple[Posterior, Array]:
    """The smoother, and for which sequences `[B]` it is right."""
    shape = layout(backend, *chain.log_likelihood.shape[:2])
    scaled = _scale(chain, shape)
    _, m, c, log_z, sound = _forward(chain, scaled, backend, shape)
    r = _run(chain, scaled, backend, shape, True)
    d = _sum_states(m * r)
    mass, least, kappa = shape.join(d), shape.join(jnp.min(r, axis=1)), _kappa(chain)
    # d is no more than the sum of w, since q is at most one
    broad = (mass[:, 1:] * least[:, :-1] >= kappa) | ~chain.moves

    def nothing_lost() -> Array:
        w = scaled.likelihood * r
        wide = shape.join(_sum_states(w))[:, 1:] * least[:, :-1] >= kappa
        return jnp.all(wide | ~_lost(chain, scaled, shape, r, w)[:, 1:] | ~chain.moves, axis=1)

    sound &= _either(jnp.all(broad, axis=1), nothing_lost)
    sound &= jnp.all((mass >= kappa) | ~chain.present, axis=1)

    there = scaled.present[:, None]
    marginals = jnp.where(chain.present[..., None], shape.join(m * r / d[:, None]), 0)
    left = shape.join_whole(jnp.where(there, m / c[:, None], 0))
    right = shape.join_whole(jnp.where(there, scaled.likelihood * r / d[:, None], 0))
    return Posterior(log_z, marginals, _counts(left, scaled.transition, right, shape.steps)), sound


def _counts(left: Array, transition: Array, right: Array, steps: int) -> Array:
    """`left[t, i] A[i, j] right[t + 1, j]`, summed over time where A does not change; what is not there is zero."""
    if transition.ndim > 2:
        return left[:, : steps - 1, :, None] * transition * right[:, 1:steps, None, :]
    left = lax.pad(left, jnp.zeros((), left.dtype), [(0, 0, 0), (1, -1, 0), (0, 0, 0)])
    left, right = chunk_steps(left, COUNTED), chunk_steps(right, COUNTED)
    pairs = jnp.einsum("nbti,nbtj->nbij", left, right, precision=lax.Precision.HIGHEST)
    return transition * in_order(pairs)
