"""Transition matrices: their shapes, their priors, their stationary distributions, and their maximum likelihood."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError
from jaxgen.ops.stable import has_mass

HIGHEST = jax.lax.Precision.HIGHEST
#: squarings of a transition matrix: 2^30 steps, enough for a chain that moves once in 10^8
SQUARINGS = 30


def left_right(k: int, *, stay: float = 0.5, skip: int = 1) -> np.ndarray:
    """A matrix `[K, K]` that stays or moves up by at most `skip` states; the last state is for good.

    Example:
        >>> left_right(3).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]
    """
    return _banded("left_right", k, 0, skip, stay)


def banded(k: int, *, stay: float = 0.5, width: int = 1) -> np.ndarray:
    """A matrix `[K, K]` that moves by at most `width` states either way.

    Example:
        >>> banded(3).tolist()
        [[0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [0.0, 0.5, 0.5]]
    """
    return _banded("banded", k, width, width, stay)


def _banded(name: str, k: int, down: int, up: int, stay: float) -> np.ndarray:
    if k < 1 or up < 1 or not 0 <= stay <= 1:
        raise ModelError(
            "no such transitions", called=f"{name}({k}, ...)", expected="k and width of 1 or more, stay from 0 to 1",
            got=f"k={k}, width={up}, stay={stay}",
        )  # fmt: skip
    step = np.arange(k) - np.arange(k)[:, None]
    moves = ((step >= -down) & (step <= up) & (step != 0)).astype(float)
    total = moves.sum(1, keepdims=True)
    matrix = np.where(total > 0, (1 - stay) * moves / np.maximum(total, 1), 0)
    return matrix + np.diag(np.where(total[:, 0] > 0, stay, 1.0))


def sticky(k: int, *, concentration: float = 1.0, extra: float = 0.0) -> np.ndarray:
    """A Dirichlet prior `[K, K]` of transitions, with `extra` counts for staying.

    Source: Fox, Sudderth, Jordan and Willsky (2011), A sticky HDP-HMM, section 3 (its finite form).

    Example:
        >>> sticky(2, extra=10.0).tolist()
        [[11.0, 1.0], [1.0, 11.0]]
    """
    return np.full((k, k), float(concentration)) + extra * np.eye(k)


@jax.jit  # a loop called outside of a program would be compiled anew at every call
def stationary(transition: jax.Array) -> jax.Array:
    """`pi` with `pi A = pi`, of `A [K, K]`; of a reducible chain the one that a uniform start ends in.

    By repeated squaring of `(I + A) / 2`, which has the same solution and no period: products only, no LAPACK.

    Example:
        >>> stationary(jnp.array([[0.9, 0.1], [0.3, 0.7]])).round(4).tolist()
        [0.75, 0.25]
    """
    lazy = 0.5 * (transition + jnp.eye(transition.shape[-1], dtype=transition.dtype))

    def square(matrix: jax.Array, _: None) -> tuple[jax.Array, None]:
        matrix = jnp.matmul(matrix, matrix, precision=HIGHEST)
        return matrix / jnp.sum(matrix, axis=-1, keepdims=True), None

    return jnp.mean(jax.lax.scan(square, lazy, None, length=SQUARINGS)[0], axis=0)


def log_shares(counts: jax.Array, logits: jax.Array, prior: jax.Array | None = None) -> jax.Array:
    """Logarithms of the likeliest shares given counts `[..., K]` and a Dirichlet prior of the same shape.

    -inf in `logits` stays -inf, and a row of no mass stays as it is; an entry driven to zero stops at the smallest
    normal number, so that it is no hard zero by accident.

    Example:
        >>> jnp.exp(log_shares(jnp.array([1.0, 3.0]), jnp.zeros(2))).round(4).tolist()
        [0.25, 0.75]
    """
    possible = logits > -jnp.inf
    counts = counts if prior is None else jnp.maximum(counts + prior.astype(counts.dtype) - 1, 0)
    counts = jnp.where(possible, counts, 0)
    total = jnp.sum(counts, axis=-1, keepdims=True)
    shares = counts / jnp.where(has_mass(total), total, 1)
    new = jnp.log(jnp.maximum(shares, jnp.finfo(counts.dtype).tiny)).astype(logits.dtype)
    return jnp.where(has_mass(total) & possible, new, logits)


def freeze_shares(counts: jax.Array, logits: jax.Array, held: jax.Array) -> jax.Array:
    """Counts whose shares leave those held at `softmax(logits)`: the free ones divide what is left.

    Example:
        >>> held = jnp.array([True, False, False])
        >>> freeze_shares(jnp.array([5.0, 1.0, 3.0]), jnp.log(jnp.array([0.5, 0.3, 0.2])), held)
        Array([4., 1., 3.], dtype=float32)
    """
    share = jax.nn.softmax(logits, axis=-1)
    kept = jnp.sum(jnp.where(held, share, 0), axis=-1, keepdims=True)
    free = jnp.sum(jnp.where(held, 0, counts), axis=-1, keepdims=True)
    rest = jnp.maximum(1 - kept, jnp.finfo(share.dtype).tiny)
    return jnp.where(held, share * free / rest, counts)
