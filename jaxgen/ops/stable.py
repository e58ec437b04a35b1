"""Log-space arithmetic that is exact at zero probability, and sums that do not lose small terms.

A probability of zero is the log-probability -inf, here as everywhere in the library: no floor, no epsilon. These
functions keep it exact in the value and keep every derivative finite.
"""

from __future__ import annotations

import functools
import math
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgen.core.compiled import compiled
from jaxgen.core.latent import has_mass

__all__ = [
    "compensated_add", "compensated_sum", "finite_max", "has_mass", "log_normalize", "logsumexp", "shares", "softmax",
]  # fmt: skip

Tree = TypeVar("Tree")


def finite_max(a: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """Maximum, clipped to the finite range and constant under differentiation: the shift to subtract before `exp`.

    `max(a)` is a safe shift except where it is infinite, since `-inf - (-inf)` is NaN. The clip costs one operation and
    leaves `a - shift` exact: a row of -inf stays a row of -inf, a finite row gets the maximum 0. NaN stays NaN.

    Args:
        a: floating array.
        axis: axis to reduce.
        keepdims: keep the reduced axis with size 1.

    Returns:
        The clipped maximum, of the dtype of `a`, with zero gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> a = jnp.array([[0.0, 3.0], [-jnp.inf, -jnp.inf]])
        >>> (a - finite_max(a, keepdims=True)).tolist()
        [[-3.0, 0.0], [-inf, -inf]]
    """
    largest = float(jnp.finfo(a.dtype).max)
    return lax.stop_gradient(jnp.clip(jnp.max(a, axis=axis, keepdims=keepdims), -largest, largest))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _logsumexp(a: Array, axis: int, keepdims: bool) -> Array:
    shift = finite_max(a, axis, keepdims=True)
    total = jnp.log(jnp.sum(jnp.exp(a - shift), axis=axis, keepdims=True)) + shift
    return total if keepdims else jnp.squeeze(total, axis)


@_logsumexp.defjvp
def _logsumexp_jvp(axis, keepdims, primals, tangents):
    # The rule keeps the value's own program free of guards (it is the body of every chain) and stays differentiable:
    # it calls the function it belongs to, so second and higher derivatives meet the same rule.
    (a,), (tangent,) = primals, tangents
    total = _logsumexp(a, axis, True)
    largest = float(jnp.finfo(a.dtype).max)
    # The difference is at most zero; the minimum only acts where both are +inf, and gives those entries weight one.
    weights = jnp.exp(jnp.minimum(a - jnp.clip(total, -largest, largest), 0))
    out = jnp.sum(weights * tangent, axis=axis, keepdims=True)
    return (total, out) if keepdims else (jnp.squeeze(total, axis), jnp.squeeze(out, axis))


def logsumexp(a: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """Logarithm of a sum of exponentials, with finite derivatives of every order at zero probability.

    `log sum_i exp(a_i)`, differentiated as the softmax of `a`.

    Args:
        a: floating array of log-weights in nats.
        axis: axis to reduce.
        keepdims: keep the reduced axis with size 1.

    Returns:
        The log of the sum, of the dtype of `a`: -inf where all entries are -inf (gradient zero there), +inf where one
        is +inf, NaN where one is NaN.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jax.value_and_grad(logsumexp)(jnp.array([-jnp.inf, 0.0, 0.0]))[1].round(4).tolist()
        [0.0, 0.5, 0.5]
        >>> jax.grad(logsumexp)(jnp.array([-jnp.inf, -jnp.inf])).tolist()
        [0.0, 0.0]

    Source: Blanchard, Higham & Higham (2021), Accurately computing the log-sum-exp and softmax functions.
    """
    return _logsumexp(a, axis, keepdims)


def shares(joint: Array, axis: int = 0) -> tuple[Array, Array]:
    """Return `exp(a - z)` and `z = log sum exp(a)` along an axis, from one exponential: Bayes' rule for classes.

    Args:
        joint: floating array of log-weights in nats.
        axis: axis of the classes.

    Returns:
        The shares, zeros where all are -inf (an impossible event belongs to no class), and z without that axis.

    Example:
        >>> import jax.numpy as jnp
        >>> share, z = shares(jnp.log(jnp.array([[1.0, 0.0], [3.0, 0.0]])))
        >>> share.round(4).tolist(), jnp.exp(z).round(4).tolist()
        ([[0.25, 0.0], [0.75, 0.0]], [4.0, 0.0])
    """
    shift = finite_max(joint, axis=axis, keepdims=True)
    share = jnp.exp(joint - shift)
    total = jnp.sum(share, axis=axis, keepdims=True)
    # a reciprocal for each event, where a division would be one for each event and class
    return share * (1 / jnp.where(total == 0, 1, total)), jnp.squeeze(jnp.log(total) + shift, axis)


def log_normalize(a: Array, axis: int = -1) -> tuple[Array, Array]:
    """Normalised log-probabilities, and what was taken out.

    `a_i - z` with `z = log sum_j exp(a_j)`.

    Args:
        a: floating array of log-weights in nats.
        axis: axis along which the probabilities sum to one.

    Returns:
        The log-probabilities, of the shape of `a`, and the log-normaliser `z` without that axis. A row of -inf has no
        distribution: it stays -inf, with the normaliser -inf, and is never turned into a uniform one.

    Example:
        >>> import jax.numpy as jnp
        >>> log_p, z = log_normalize(jnp.log(jnp.array([[1.0, 3.0], [0.0, 0.0]])))
        >>> jnp.exp(log_p).round(4).tolist(), jnp.exp(z).round(4).tolist()
        ([[0.25, 0.75], [0.0, 0.0]], [4.0, 0.0])

    Source: as `logsumexp`.
    """
    z = _logsumexp(a, axis, True)
    largest = float(jnp.finfo(a.dtype).max)
    return a - jnp.clip(z, -largest, largest), jnp.squeeze(z, axis)


def softmax(a: Array, axis: int = -1) -> Array:
    """Probabilities proportional to `exp(a)`; all zero, and not NaN, where every entry is -inf.

    `exp(a_i) / sum_j exp(a_j)`.

    Args:
        a: floating array of log-weights in nats.
        axis: axis along which the probabilities sum to one.

    Returns:
        Probabilities of the shape and dtype of `a`.

    Example:
        >>> import jax.numpy as jnp
        >>> softmax(jnp.array([[0.0, 0.0], [-jnp.inf, -jnp.inf]])).round(4).tolist()
        [[0.5, 0.5], [0.0, 0.0]]

    Source: as `logsumexp`.
    """
    return jnp.exp(log_normalize(a, axis)[0])


def compensated_add(total: Tree, carry: Tree, x: Tree) -> tuple[Tree, Tree]:
    """Add to a running sum held in two numbers: the sum as rounded, and what the rounding left out.

    `total' + carry' = total + carry + x` up to a relative error of 2 u^2, where u is the rounding error of the dtype.

    Args:
        total: pytree of floating arrays, the running sum (start at zero).
        carry: pytree like `total`, what it lacks (start at zero).
        x: pytree like `total`, the term to add.

    Returns:
        The new `(total, carry)`. The total alone is the sum rounded once: the carry is there to go on adding, or to add
        the two in a wider type. A total that is no longer finite propagates as in a plain sum, with the carry zero.

    Example:
        >>> import jax.numpy as jnp
        >>> total, carry = compensated_add(jnp.float32(2**24), jnp.float32(0), jnp.float32(1))
        >>> float(total), float(carry)
        (16777216.0, 1.0)

    Source: Dekker (1971), A floating-point technique for extending the available precision; Knuth (1969), The Art of
    Computer Programming, volume 2, section 4.2.2, for the error of a sum.
    """

    def add(old, c, term):
        # Knuth's error needs no comparison of sizes, so this stays one fused elementwise kernel. XLA does not
        # reassociate floating-point sums, so nothing here cancels at compile time.
        rounded = old + term
        kept = rounded - old
        error = (old - (rounded - kept)) + (term - kept) + c
        # The error goes back into the total at once: a carry left to grow is itself a plain sum, and drifts like one.
        new = jnp.where(jnp.isfinite(rounded), rounded + error, rounded)
        return new, jnp.where(jnp.isfinite(new), error - (new - rounded), 0)

    structure = jax.tree.structure(total)
    sums = [add(*terms) for terms in zip(*map(jax.tree.leaves, (total, carry, x)), strict=True)]
    return jax.tree.unflatten(structure, [s[0] for s in sums]), jax.tree.unflatten(structure, [s[1] for s in sums])


@compiled
def compensated_sum(x: Array) -> Array:
    """Sum over the leading axis, rounded once however long it is.

    Args:
        x: floating array `[N, ...]`.

    Returns:
        The sums `[...]`, of the dtype of `x`; zero for N = 0. Infinities and NaN propagate as in a plain sum.

    Example:
        >>> import jax.numpy as jnp
        >>> float(compensated_sum(jnp.full(1_000_000, 0.125, jnp.float32)))
        125000.0

    Source: as `compensated_add`.
    """
    lanes = max(1, math.isqrt(x.shape[0]))
    steps = -(-x.shape[0] // lanes)
    padded = jnp.concatenate([x, jnp.zeros((steps * lanes - x.shape[0], *x.shape[1:]), x.dtype)])
    rows = padded.reshape(steps, lanes, *x.shape[1:])
    zeros = jnp.zeros_like(rows, shape=rows.shape[1:])
    zero = jnp.zeros_like(x, shape=x.shape[1:])

    def add(state, term):
        total, carry = state
        return compensated_add(total, carry, term), None

    # Two loops of sqrt(N) steps: side by side first, then across.
    (totals, carries), _ = lax.scan(add, (zeros, zeros), rows)
    (total, carry), _ = lax.scan(add, (zero, zero), totals)
    return total + (carry + jnp.sum(carries, axis=0))
