"""k-means on the device: the start of mixtures and hidden Markov models."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


def squared_distances(x: jax.Array, centers: jax.Array) -> jax.Array:
    """`|x_n - c_k|^2`, `[K, N]`: differences first, so that no digit is lost to a center far away.

    Example:
        >>> squared_distances(jnp.array([[1.0], [1e6]]), jnp.array([[0.0], [1e6]])).tolist()
        [[1.0, 999999995904.0], [999998029824.0, 0.0]]
    """
    return jax.lax.map(lambda center: jnp.sum((x - center) ** 2, axis=1), centers)


@functools.partial(jax.jit, static_argnames="k", inline=True)
def kmeans_plus_plus(key: jax.Array, x: jax.Array, k: int) -> jax.Array:
    """Chooses K rows as centers, each new one with probability proportional to its squared distance to the nearest.

    Args:
        key: typed key.
        x: `[N, D]`.
        k: number of centers, 1 to N.

    Returns:
        centers `[K, D]`, rows of x; where fewer than K rows are distinct, the further ones are uniform draws.

    Source: Arthur and Vassilvitskii (2007), k-means++, section 2.

    Example:
        >>> x = jnp.array([[0.0], [0.1], [9.0], [9.1]])
        >>> centers = kmeans_plus_plus(jax.random.key(0), x, 2)
        >>> bool(jnp.ptp(centers) > 8)
        True
    """
    n = x.shape[0]
    draws = jax.random.uniform(key, (k,), x.dtype)  # one number a center: randomness is a cost
    start = x[jnp.minimum((draws[0] * n).astype(jnp.int32), n - 1)]

    def add(nearest, draw):
        # where all distances are zero every row is as good
        share = jnp.cumsum(jnp.where(jnp.max(nearest) > 0, nearest, 1))
        # the first row whose cumulative share exceeds the draw: never one at distance zero
        center = x[jnp.argmax(share > draw * share[-1])]
        return jnp.minimum(nearest, jnp.sum((x - center) ** 2, axis=1)), center

    nearest = jnp.sum((x - start) ** 2, axis=1)
    _, others = jax.lax.scan(add, nearest, draws[1:])
    return jnp.concatenate([start[None], others])


def nearest(x: jax.Array, centers: jax.Array) -> jax.Array:
    """The index of the nearest center, `[N, D], [K, D] -> [N]` int32."""
    return jnp.argmin(squared_distances(x, centers), axis=0).astype(jnp.int32)


def cluster_means(x: jax.Array, chosen: jax.Array, centers: jax.Array) -> jax.Array:
    """The means of clusters `[K, D]`, from the cluster `[N]` of each row, -1 for none; one of no rows stays at its
    center.
    """
    member = jax.nn.one_hot(chosen, len(centers), axis=0, dtype=x.dtype)
    size = jnp.sum(member, axis=1)[:, None]
    # what each row adds to its own center: no digit of one cluster is lost to another far away
    apart = jnp.matmul(member, x - centers[chosen], precision=HIGHEST)
    return centers + apart / jnp.maximum(size, 1)


@functools.partial(jax.jit, static_argnames=("k", "steps"))
def kmeans(
    key: jax.Array, x: jax.Array, k: int, *, steps: int = 10, label: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """k-means++ followed by Lloyd's iterations.

    Args:
        key: typed key.
        x: `[N, D]`, floating.
        k: number of centers.
        steps: Lloyd iterations; an empty cluster keeps its center.
        label: `[N]` int32, the cluster of rows where it is known, -1 elsewhere: a cluster with known rows starts at
            their mean, and they stay in it (Basu, Banerjee and Mooney 2002, Semi-supervised clustering by seeding).

    Returns:
        centers `[K, D]` and assignment `[N]` int32.

    Source: Lloyd (1982), Least squares quantization in PCM.

    Example:
        >>> x = jnp.array([[0.0], [0.2], [9.0], [9.2]])
        >>> kmeans(jax.random.key(0), x, 2)[1].reshape(2, 2)[:, 0].sort().tolist()
        [0, 1]
    """

    def assign(centers):
        chosen = nearest(x, centers)
        return chosen if label is None else jnp.where(label >= 0, label, chosen)

    def lloyd(centers, _):
        return cluster_means(x, assign(centers), centers), None

    centers = kmeans_plus_plus(key, x, k)
    if label is not None:
        centers = cluster_means(x, label, centers)
    centers, _ = jax.lax.scan(lloyd, centers, None, length=steps)
    return centers, assign(centers)
