"""Filter and smoother in probability space, two to four times as fast as in log space, with a proof that they may be.

All numbers here are sums and products of non-negative numbers, each of which rounding changes by a small *relative*
amount, as it does in log space. Only underflow can do more: a result below `tiny`, the smallest normal number, may come
out as anything from zero to `tiny`. So a result is right if underflow changed nothing that can be seen in it, and that
is checked after the fact.

With the likelihoods `b[t]` shifted to a maximum of one and the transition A to a maximum of at most one, a step is
`m[t] = b[t] q[t]`, `c[t] = sum m[t]`, `q[t+1] = m[t] A / c[t]`; predictions q are averages of entries of A, so at most
one, and `c[t] <= K`. The log-likelihood is the sum of `log c[t]`. Against time it is `w[t] = b[t] r[t]`,
`s[t] = sum w[t]`, `r[t-1] = A w[t] / s[t]`; states have the probabilities `m[t] r[t] / d[t]`, with `d[t] = sum m[t]
r[t]`, and pairs of states `(m[t] / c[t]) A (w[t+1] / d[t+1])`. Of a product `m A` or `A w` underflow takes less than
`5 K tiny` an entry: of each of its K terms, of each m or w, of each b and each A in them, and of the quotient by c or
s. Let `loss = 8 K tiny`.

**The smoother.** Against time `loss` is *added* to every `A w`, which is more than was lost: r is no less than it
should be, and too large by `2 loss / s` at most. Let `Z(t)` be what the past up to t, as computed, and the future from
t on, as computed, make together: `Z(t) = c[0] .. c[t-1] d[t] s[t+1] .. s[T-1]`. One step further in the past the loss
of a step along the chain, and the gain of one against it, are in it or not, and all else is the same:

    Z(t) - Z(t+1)  =  lost * s[t+1] / (c[t] d[t+1]) Z(t+1)  +  gained * c[t] / d[t] Z(t)
                  <=  (loss / d[t] + 2 loss / d[t+1]) Z,       as  d[t] s[t+1] = c[t] d[t+1]  but for such terms.

The last of these is the product of all c, without any gain, and what it should be lies between it and the first, which
has all gains and no loss. So if `3 loss sum_t 1 / d[t]` is below rounding noise, the likelihood is right, and so are
all posterior probabilities, which are shares of `Z(t)`: absolutely, to that sum. What a step lost counts by the largest
weight that the future gives it, not by how small it was: a transition that never happens loses everything, and nothing
is missed. A future that insists on what the past has lost makes d small, as in left-right models; NaN and impossible
data fail too.

**The log-likelihood alone** needs no future: it lies between the sum of `log c` as computed and that of a second run
with `loss` added, and is right if the two agree.

**The filter** gives logarithms, so every entry must be right by itself, however small. With `kappa = 4 K^2 tiny / eps`
it is enough that, at each step, either

1. all `c[t] q[t+1, j]` are at least kappa: what was lost of them is then less than eps relative to each, rounding
   noise, and of c, which is no less, too; or
2. nothing was lost: every `m[i]` is an exact zero (a hard zero in q or b) or at least `2 K tiny / min A`, with `min A`
   the smallest positive entry, and none of these underflowed. Then no quotient by c underflows either, and zeros in
   `q[t+1]` are hard ones too.

By induction all `q[t]` are right to rounding and all their zeros are hard ones.

Sequences that fail are computed in log space.

Source: scaling: Rabiner (1989), A tutorial on hidden Markov models, section V.A; errors of sums of products: Higham
(2002), Accuracy and stability of numerical algorithms, sections 2.2 and 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxgen.core.rare import rarely
from jaxgen.ops.chains.backends import Backend, Layout, Recursion, layout, ratio_gap, run
from jaxgen.ops.chains.inputs import (
    Chain,
    Filtered,
    Posterior,
    chunk_steps,
    in_order,
    matrices,
    shift_rows,
    sum_over_time,
)
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


def _loss(chain: Chain) -> float:
    """More than underflow takes from one entry of a product of a message and the transition."""
    return 8 * chain.log_initial.shape[-1] * float(jnp.finfo(chain.log_initial.dtype).tiny)


def _step(a: Array | None, gain: float) -> Callable[[Any, Any], tuple[Any, Any]]:
    """`q -> (m A + gain) / sum m` with `m = b q`, for one A `[K, K]`, or None where each step has its own.

    The quotient comes last: on one chain it waits for the sum and the product at the same time, on many both are one
    product, with a row of ones. A sum of products in place of a product is what makes the loop over one chain short.
    """
    summing = None if a is None else jnp.concatenate([a.T, jnp.ones_like(a[:1])])

    def step(q: Array, x: Any) -> tuple[Array, Array]:
        weight, own = x
        matrix: Any = a if own is None else own
        m = q * weight
        if m.ndim == 1 or matrix.ndim == 3:
            return (jnp.sum(matrix * m[:, None], axis=0) + gain) / jnp.sum(m, axis=0), q
        both = jnp.concatenate([matrix.T, jnp.ones_like(matrix[:1])]) if summing is None else summing
        product = jnp.matmul(both, m, precision=lax.Precision.HIGHEST)
        return (product[:-1] + gain) / product[-1], q

    return step


def _tolerance(chain: Chain) -> float:
    return float(jnp.finfo(chain.log_initial.dtype).eps) ** 0.75


def _run(chain: Chain, scaled: _Scaled, backend: Backend, shape: Layout, reverse: bool, gain: float) -> Array:
    """Return the messages that enter each step, in the layout: q forward in time, or r backward."""
    fixed, own = matrices(scaled.transition, reverse)
    ones = jnp.ones_like(scaled.initial)
    start = ones if reverse else scaled.initial
    recursion = Recursion(_step(fixed, gain), start, ones, ratio_gap, _tolerance(chain))
    there = None if chain.length is None else chain.present
    return run(backend, recursion, shape, scaled.likelihood, own, there, reverse, chain.starts)


def _sum_states(x: Array) -> Array:
    """`[S, K, ..] -> [S, ..]`, kept in memory: what needs one number a step would else sum again for each."""
    return lax.optimization_barrier(jnp.sum(x, axis=1))


def _log_z(chain: Chain, scaled: _Scaled, shape: Layout, mass: Array) -> Array:
    there = chain.present
    logs = sum_over_time(jnp.where(there, jnp.log(mass), 0)) + sum_over_time(jnp.where(there, scaled.row_shift, 0))
    moves = jnp.where(chain.moves, scaled.transition_shift, 0)
    log_z = logs + jnp.sum(jnp.broadcast_to(moves, (moves.shape[0], shape.steps - 1)), axis=1)
    sequences = 1 if chain.starts is None else jnp.sum(chain.starts & there, axis=1)
    log_z = log_z + sequences * scaled.initial_shift
    return log_z if chain.length is None else jnp.where(chain.length > 0, log_z, 0)


def _either(enough: Array, otherwise: Callable[[], Array]) -> Array:
    """`enough | otherwise()`, without the second where the first holds for all."""
    return rarely(~enough, lambda: enough | otherwise(), lambda: enough)


class _Forward(NamedTuple):
    q: Array  # in the layout
    mass: Array  # c, [B, T]
    log_z: Array  # [B]
    sound: Array  # [B], whether every entry of q is right


def _forward(chain: Chain, scaled: _Scaled, backend: Backend, shape: Layout) -> _Forward:
    """Predictions, and what follows from them."""
    q = _run(chain, scaled, backend, shape, False, 0.0)
    m = scaled.likelihood * q
    mass, kappa = shape.join(_sum_states(m)), _kappa(chain)
    broad = (mass[:, :-1] * shape.join(jnp.min(q, axis=1))[:, 1:] >= kappa) | ~chain.moves

    def nothing_lost() -> Array:
        lost = _lost(chain, scaled, shape, q, m)
        lost = lost.at[:, 0].set(lost[:, 0] | scaled.initial_lost)
        return jnp.all(broad | ~lost[:, :-1], axis=1)

    sound = _either(jnp.all(broad, axis=1), nothing_lost)
    sound &= jnp.all((mass >= kappa) | ~chain.present, axis=1)
    return _Forward(q, mass, _log_z(chain, scaled, shape, mass), sound)


def _lost(chain: Chain, scaled: _Scaled, shape: Layout, q: Array, m: Array) -> Array:
    """`[B, T]`: whether underflow took part of what a step leads on, by condition 2."""
    seen = shape.cut(chain.log_likelihood) > -jnp.inf
    least = m.shape[1] * _tiny(m)
    return shape.join(jnp.any((q > 0) & seen & ~(m * scaled.smallest >= least), axis=1))


def normalize_scaled(chain: Chain, backend: Backend) -> tuple[Array, Array]:
    """The log-normalisers `[B]`, and which of them are right."""
    shape = layout(backend, *chain.log_likelihood.shape[:2])
    scaled = _scale(chain, shape)
    forward = _forward(chain, scaled, backend, shape)

    def nothing_missed() -> Array:
        q = _run(chain, scaled, backend, shape, False, _loss(chain))
        mass = shape.join(_sum_states(scaled.likelihood * q))
        above = _log_z(chain, scaled, shape, mass) - forward.log_z
        noise = 4 * float(jnp.finfo(mass.dtype).eps) * (shape.steps + jnp.abs(forward.log_z))
        return (above <= noise) & jnp.all((forward.mass >= _kappa(chain)) | ~chain.present, axis=1)

    return forward.log_z, _either(forward.sound, nothing_missed)


def filter_scaled(chain: Chain, backend: Backend) -> tuple[Filtered, Array]:
    """The filter, and for which sequences `[B]` it is right."""
    shape = layout(backend, *chain.log_likelihood.shape[:2])
    scaled = _scale(chain, shape)
    forward = _forward(chain, scaled, backend, shape)
    log_c = jnp.log(forward.mass)
    # from logarithms: exact also where the likelihood itself underflowed; from shifted rows, whose digits are finer
    rows, _ = shift_rows(chain.log_likelihood)
    log_filtered = shape.join(jnp.log(forward.q)) + (rows - log_c[..., None])
    evidence = log_c + scaled.row_shift
    evidence = evidence.at[:, 1:].add(scaled.transition_shift).at[:, 0].add(scaled.initial_shift)
    present = chain.present
    log_filtered = jnp.where(present[..., None], log_filtered, -jnp.inf)
    return Filtered(forward.log_z, log_filtered, jnp.where(present, evidence, 0)), forward.sound


def smooth_scaled(chain: Chain, backend: Backend) -> tuple[Posterior, Array]:
    """The smoother, and for which sequences `[B]` it is right."""
    shape = layout(backend, *chain.log_likelihood.shape[:2])
    scaled = _scale(chain, shape)
    m = scaled.likelihood * _run(chain, scaled, backend, shape, False, 0.0)
    r = _run(chain, scaled, backend, shape, True, _loss(chain))
    c, d = _sum_states(m), _sum_states(m * r)
    log_z = _log_z(chain, scaled, shape, shape.join(c))
    missed = 3 * _loss(chain) * jnp.sum(jnp.where(chain.present, 1 / shape.join(d), 0), axis=1)
    sound = missed <= 4 * float(jnp.finfo(d.dtype).eps)

    there = scaled.present[:, None]
    marginals = jnp.where(chain.present[..., None], shape.join(m * r / d[:, None]), 0)
    leads = shape.cut(jnp.broadcast_to(chain.leads, scaled.row_shift.shape))[:, None]
    left = shape.join_whole(jnp.where(leads, m / c[:, None], 0))
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
