"""What the tests of streams and of stepwise EM share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg

KEY = jax.random.key(3)
DRAW = np.random.default_rng(0)
X = np.concatenate([DRAW.normal(-3, 1, (301, 2)), DRAW.normal(3, 0.5, (310, 2))]).astype(np.float32)
DRAW.shuffle(X)
N = len(X)
WEIGHT = DRAW.integers(0, 3, N).astype(np.float32)
LABELS = DRAW.integers(0, 3, (N, 2))


def mixture(dtype=np.float32, shift=0.0):
    means = jnp.asarray([[-1.0, 0.0], [1.0, 0.0]], dtype) + jnp.asarray(shift, dtype)
    return jg.Mixture.from_components(jg.DiagonalGaussian.from_values(means, np.ones((2, 2), dtype)))


def labels_mixture():
    probs = np.random.default_rng(5).dirichlet(np.ones(3), (2, 2)).astype(np.float32)
    return jg.Mixture.from_components(jg.Categorical.from_values(probs))


def random_start(key):
    return mixture(shift=jax.random.normal(key))


def same(a, b):
    assert a.status is b.status
    assert a.steps == b.steps
    for x, y in ((a.model, b.model), (a.state, b.state), (a.history, b.history)):
        assert jax.tree.structure(x) == jax.tree.structure(y)
        for u, v in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
            np.testing.assert_array_equal(u, v)


def close(a, b, **tolerance):
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(u, v, **tolerance)


def pieces(x, size):
    return lambda: (x[i : i + size] for i in range(0, len(x), size))


def refused(make, *says, kind=jg.JaxgenError):
    with pytest.raises(kind) as caught:
        make()
    for part in ("called:", "expected:", "got:", *says):
        assert part in str(caught.value), str(caught.value)
    return caught.value
