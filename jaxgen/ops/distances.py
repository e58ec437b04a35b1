"""Squared distances between many vectors, and what is near, a chunk of rows at a time: all pairs are never held."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

#: rows whose distances to all others are held at once
CHUNK = 256
#: dimensions up to which differences are squared one by one, exact also for neighbours that are far from the origin
FEW = 16


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return `|x_i - y_j|^2`, `[N, F], [M, F] -> [N, M]`, 0 or more.

    Of up to 16 dimensions from differences; of more from products around the mean of y, with an error of about 1e-6 of
    the squared norms there.

    Example:
        >>> squared_distances(jnp.array([[1e4], [1e4 + 1]]), jnp.array([[1e4]])).tolist()
        [[0.0], [1.0]]
    """
    if x.shape[1] <= FEW:
        return jnp.sum((x[:, None] - y) ** 2, axis=-1)
    center = jnp.mean(y, axis=0)
    x, y = x - center, y - center
    product = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum(jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1) - 2 * product, 0)


def over_rows(function: Callable[[Any, Any], Any], rows: Any, n: int) -> Any:
    """Return `function(rows of a chunk, their index)` of all chunks of n rows, stacked: `[N, ...]`.

    Example:
        >>> over_rows(lambda x, index: x + index, jnp.arange(3.0), 3).tolist()
        [0.0, 2.0, 4.0]
    """
    size = min(CHUNK, n)

    def chunk(start: Any) -> Any:
        index = start + jnp.arange(size)
        return function(jax.tree.map(lambda a: jnp.take(a, index, axis=0, mode="clip"), rows), index)

    found = jax.lax.map(chunk, jnp.arange(0, n, size))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], found)


@functools.partial(jax.jit, static_argnames=("k",))
def neighbour_distances(x: jax.Array, k: int) -> jax.Array:
    """Return the squared distance of each row to its k-th nearest other row, `[N]`.

    Example:
        >>> neighbour_distances(jnp.array([[0.0], [1.0], [4.0]]), 1).tolist()
        [1.0, 1.0, 9.0]
    """

    def kth(rows: Any, index: Any) -> jax.Array:
        squares = squared_distances(rows, x)
        squares = jnp.where(index[:, None] == jnp.arange(len(x)), jnp.inf, squares)
        # the nearest is taken away k - 1 times: k is small, and a sort of each row is what a CPU takes for its top k
        away = lambda _, s: s.at[jnp.arange(len(s)), jnp.argmin(s, axis=1)].set(jnp.inf)  # noqa: E731
        return jnp.min(jax.lax.fori_loop(0, k - 1, away, squares), axis=1)

    return over_rows(kth, x, len(x))


@jax.jit
def nearest(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return which row of y is nearest to each of x, and its squared distance, `[N]` int32 and `[N]`.

    Example:
        >>> [a.tolist() for a in nearest(jnp.array([[0.9]]), jnp.array([[0.0], [1.0]]))][0]
        [1]
    """

    def row(rows: Any, index: Any) -> tuple[jax.Array, jax.Array]:
        squares = squared_distances(rows, y)
        return jnp.argmin(squares, axis=1), jnp.min(squares, axis=1)

    return over_rows(row, x, len(x))
