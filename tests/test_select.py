"""Information criteria and the selection of components, against figures of mclust on Fisher's iris and closed forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_iris

import jaxgen as jg

FULL, DIAGONAL = jg.Gaussian.init, jg.DiagonalGaussian.init
TIED = functools.partial(jg.Gaussian.init, tied=True)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("leaf", "k", "expected"),
    [(FULL, 2, -574.0178), (FULL, 3, -580.8389), (TIED, 3, -632.9633), (DIAGONAL, 2, -857.5515)],
    ids=["full 2", "full 3", "tied 3", "diagonal 2"],
)
def test_iris(leaf, k, expected, dtype):
    """BIC of the best of restarts, as mclust reports it."""
    x = load_iris().data.astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        start = lambda key: jg.Mixture.init(key, x, k, leaf)  # noqa: E731
        fitted = jg.fit(jax.random.key(0), start, x, restarts=20, steps=1000, tolerance=1e-9)
        # the figures have four decimals; float32 rounds a sum of 150 log-densities
        assert jg.bic(fitted.model, x) == pytest.approx(expected, abs=1e-3 if dtype == np.float64 else 2e-2)


def test_criteria_are_what_they_say():
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    model = jg.Gaussian.init(jax.random.key(0), x)
    total = float(np.asarray(model.log_prob(x), np.float64).sum())
    assert model.free_parameters == 5
    assert jg.bic(model, x) == pytest.approx(2 * total - 5 * math.log(50), abs=1e-3)
    assert jg.aic(model, x) == pytest.approx(2 * total - 10, abs=1e-3)
    mixture = jg.Mixture.init(jax.random.key(0), x, 2, FULL)
    share = np.asarray(mixture.responsibilities(x), np.float64)
    entropy = -np.sum(share * np.log(np.maximum(share, 1e-300)))
    assert jg.icl(mixture, x) == pytest.approx(jg.bic(mixture, x) - 2 * entropy, abs=1e-2)


def test_entropy_of_a_gaussian():
    model = jg.Gaussian.from_covariance([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]])
    exact = 0.5 * math.log((2 * math.pi * math.e) ** 2 * (2 - 0.25))
    estimate = jg.entropy(jax.random.key(0), model)
    assert abs(estimate.mean - exact) < 5 * estimate.standard_error < 0.1
    assert estimate.kind == jg.Kind.ESTIMATE


def test_select_finds_the_number_of_clusters():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 2)) + c for c in ((0, 0), (8, 0), (0, 8))]).astype(np.float32)
    table = jg.select(jax.random.key(0), x, range(1, 5), {"full": FULL, "diagonal": DIAGONAL}, restarts=4)
    assert len(table.rows) == 8
    assert table.best("bic").k == 3
    for row in table.rows:
        assert row.bic == pytest.approx(jg.bic(row.model, x), abs=1e-2)
    assert "diagonal" in str(table)
    assert bool(jnp.isfinite(table.best("bic").model.log_prob(x)).all())
