"""Codebooks against numpy: nearest codes, averages, dead codes and perplexity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.ops import codebooks

KEY = jax.random.key(0)


def test_nearest_is_nearest_far_from_the_origin():
    rng = np.random.default_rng(0)
    x, vectors = rng.normal(size=(50, 3)) + 1e3, rng.normal(size=(7, 3)) + 1e3
    wanted = np.argmin(((x[:, None] - vectors) ** 2).sum(-1), axis=1)
    np.testing.assert_array_equal(codebooks.nearest(jnp.float32(x), jnp.float32(vectors)), wanted)


def test_perplexity_of_counts():
    # entropy 1.5 bits
    assert float(codebooks.perplexity(jnp.array([2.0, 1.0, 1.0, 0.0]))) == pytest.approx(2**1.5, rel=1e-6)
    assert float(codebooks.perplexity(jnp.ones(5))) == pytest.approx(5.0, rel=1e-6)


def test_averages_equal_sums_over_all_batches():
    """The averages of van den Oord et al.: counts and sums apart, over three batches with weights."""
    rng = np.random.default_rng(1)
    vectors, counts = rng.normal(size=(3, 2)), np.array([2.0, 1.0, 3.0])
    sums, book = counts[:, None] * vectors, codebooks.Codebook(jnp.float32(vectors), jnp.float32(counts))
    for _ in range(3):
        x, index, weight = rng.normal(size=(9, 2)), rng.integers(0, 3, 9), rng.uniform(0, 2, 9)
        chosen = (index[:, None] == np.arange(3)) * weight[:, None]
        counts, sums = 0.8 * counts + 0.2 * chosen.sum(0), 0.8 * sums + 0.2 * chosen.T @ x
        moved = codebooks.move(KEY, book, jnp.float32(x), jnp.array(index), jnp.float32(weight), decay=0.8, dead=0.0)
        book = moved.book
        assert int(moved.revived) == 0
        np.testing.assert_allclose(moved.counts, chosen.sum(0), rtol=1e-5)
    np.testing.assert_allclose(book.counts, counts, rtol=1e-5)
    np.testing.assert_allclose(book.vectors, sums / counts[:, None], rtol=1e-4, atol=1e-5)


def test_dead_codes_become_vectors_of_the_batch_that_have_weight():
    x = jnp.arange(8.0)[:, None]
    weight = jnp.where(jnp.arange(8) < 5, 0.0, 1.0)
    x = x.at[0].set(jnp.inf)  # of no weight
    book = codebooks.Codebook(jnp.array([[6.0], [-50.0], [-60.0]]), jnp.array([3.0, 1e-3, 2.0]))
    index = jnp.zeros(8, jnp.int32)
    moved = codebooks.move(KEY, book, x, index, weight, decay=0.5, dead=0.1)
    # averages [3, 5e-4, 1] of which a tenth of an even share is .13
    assert int(moved.revived) == 1 and float(moved.counts[0]) == 3.0
    np.testing.assert_allclose(moved.book.vectors[:, 0][jnp.array([0, 2])], [6.0, -60.0])
    assert float(moved.book.vectors[1, 0]) in (5.0, 6.0, 7.0)
    np.testing.assert_allclose(moved.book.counts, [3.0, 4.0005 / 3, 1.0], rtol=1e-6)
    seen = {float(codebooks.move(key, book, x, index, weight, decay=0.5, dead=0.1).book.vectors[1, 0])
            for key in jax.random.split(KEY, 30)}  # fmt: skip
    assert seen == {5.0, 6.0, 7.0}


def test_a_start_has_the_vectors_that_are_there():
    x = jnp.arange(4.0)[:, None]
    assert sorted(codebooks.start(KEY, x, 4).vectors[:, 0].tolist()) == [0.0, 1.0, 2.0, 3.0]
    more = codebooks.start(KEY, x, 6)
    assert more.vectors.shape == (6, 1) and float(more.counts.sum()) == pytest.approx(4.0)
