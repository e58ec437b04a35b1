"""Codebooks: vectors that stand for the nearest others, and that move to their means by exponential averages."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Codebook", "Moved", "move", "nearest", "perplexity", "start"]


class Codebook(NamedTuple):
    """K vectors, and how often each was the nearest.

    Args:
        vectors: `[K, C]`.
        counts: `[K]`, exponential averages of the numbers of vectors of a batch that each stood for.
    """

    vectors: jax.Array
    counts: jax.Array


class Moved(NamedTuple):
    """The result of `move`: the new codebook, the counts `[K]` of the batch, and how many codes were revived."""

    book: Codebook
    counts: jax.Array
    revived: jax.Array


def nearest(x: jax.Array, vectors: jax.Array) -> jax.Array:
    """Return the index of the nearest of K vectors, `[*batch, C], [K, C] -> [*batch]` int32; the first of equal ones.

    Example:
        >>> nearest(jnp.array([[0.2], [0.9]]), jnp.array([[0.0], [1.0]])).tolist()
        [0, 1]
    """
    # around the middle of the codes: a square much larger than the distances would take their digits
    middle = jnp.mean(vectors, axis=0)
    vectors = vectors - middle
    products = jnp.matmul(x - middle, vectors.T, precision="highest")
    return jnp.argmin(0.5 * jnp.sum(vectors * vectors, axis=1) - products, axis=-1).astype(jnp.int32)


def perplexity(counts: jax.Array) -> jax.Array:
    """Return how many equally frequent codes would be as hard to guess: `exp(-sum_k p_k log p_k)` of shares p.

    Example:
        >>> round(float(perplexity(jnp.array([2.0, 1.0, 1.0, 0.0]))), 4)
        2.8284
    """
    share = counts / jnp.sum(counts)
    return jnp.exp(-jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0)))


def start(key: jax.Array, x: jax.Array, count: int) -> Codebook:
    """Return a codebook of so many of the vectors `[M, C]`, drawn without replacement as far as there are enough.

    Example:
        >>> start(jax.random.key(0), jnp.arange(4.0)[:, None], 4).vectors.sum().tolist()
        6.0
    """
    index = jax.random.choice(key, len(x), (count,), replace=count > len(x))
    return Codebook(x[index], jnp.full(count, len(x) / count, x.dtype))


def move(
    key: jax.Array, book: Codebook, x: jax.Array, index: jax.Array, weight: jax.Array, *, decay: float, dead: float
) -> Moved:
    """Return the codebook one batch later: each code is the mean of what it stood for, the more the later that was.

    `n_k' = decay n_k + (1 - decay) sum_{i: k_i = k} w_i`, and the same of `n_k c_k` with `w_i x_i`. A code is dead
    where its average count falls below a share `dead` of `sum_k n_k / K`, that of all codes used alike: it is
    revived as a vector of the batch, drawn by weight, with the count of an even share.

    Args:
        key: typed key, of the draws.
        book: the codebook.
        x: `[M, C]`, vectors of the batch.
        index: `[M]`, the code of each.
        weight: `[M]`; a vector of weight 0 does not count.
        decay: of the averages in a batch, below 1.
        dead: the share, from 0, which revives none, to below 1.

    Source: van den Oord, Vinyals and Kavukcuoglu (2017), Neural discrete representation learning, appendix A.1; dead
    codes as in Dhariwal et al. (2020), Jukebox.

    Example:
        >>> book = Codebook(jnp.array([[0.0], [9.0]]), jnp.array([2.0, 2.0]))
        >>> x = jnp.array([[1.0], [1.0]])
        >>> moved = move(jax.random.key(0), book, x, nearest(x, book.vectors), jnp.ones(2), decay=0.5, dead=0.1)
        >>> moved.book.vectors.tolist(), moved.counts.tolist(), int(moved.revived)
        ([[0.5], [9.0]], [2.0, 0.0], 0)
    """
    count = len(book.counts)
    weight = weight.astype(x.dtype)
    chosen = jnp.where(index[:, None] == jnp.arange(count), weight[:, None], 0)
    counts = jnp.sum(chosen, axis=0)
    sums = jnp.matmul(chosen.T, jnp.where(weight[:, None] > 0, x, 0), precision="highest")
    new = decay * book.counts + (1 - decay) * counts
    # as a step towards the mean of the batch: a code that stood for nothing stays, whatever is left of its count
    share = (1 - decay) * counts / jnp.where(new > 0, new, 1)
    means = sums / jnp.where(counts > 0, counts, 1)[:, None]
    vectors = book.vectors + share[:, None] * jnp.where(counts[:, None] > 0, means - book.vectors, 0)
    even = jnp.sum(new) / count
    gone = new < dead * even
    levels = jax.random.uniform(key, (count,), x.dtype) * jnp.sum(weight)
    # the first whose sum of weights is above the level: none of weight 0, unless rounding ends beyond the last
    drawn = jnp.minimum(jnp.searchsorted(jnp.cumsum(weight), levels, side="right"), len(x) - 1)
    vectors = jnp.where(gone[:, None], x[drawn], vectors)
    return Moved(Codebook(vectors, jnp.where(gone, even, new)), counts, jnp.sum(gone))
