"""Means over fits side by side, against scipy's confidence intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxgen as jg

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)


def test_the_interval_is_that_of_students_t():
    models = jax.vmap(lambda mean: jg.DiagonalGaussian.from_values(mean, jnp.ones(2)))(
        jnp.linspace(-1, 1, 5)[:, None] * jnp.ones(2)
    )
    found = jg.metrics.across(KEY, models, X, level=0.9)
    values = [stats.norm.logpdf(X, mean).sum(axis=1).mean() for mean in np.linspace(-1, 1, 5)]
    np.testing.assert_allclose([one.mean for one in found.scores], values, rtol=1e-5)
    wanted = stats.t.interval(0.9, 4, np.mean(values), stats.sem(values))
    np.testing.assert_allclose((found.low, found.high), wanted, rtol=1e-5)
    assert "exact, mean of 5 fits, 90% interval" in str(found)


def test_bounds_see_the_same_draws():
    """A model beside itself differs from itself in nothing."""
    vae = jg.VAE.init(KEY, X, jg.StandardNormal((1,)), hidden=(4,), likelihood=jg.likelihoods.gaussian)
    twice = jax.tree.map(lambda a: jnp.stack([a, a]), vae)
    found = jg.metrics.across(KEY, twice, X, samples=3)
    assert found.low == found.high == found.mean
    assert found.kind is jg.Kind.LOWER_BOUND


def test_what_is_no_row_of_models():
    model = jg.DiagonalGaussian.from_values(jnp.zeros(2), jnp.ones(2))
    with pytest.raises(jg.FitError, match="no such level"):
        jg.metrics.across(KEY, jax.tree.map(lambda a: jnp.stack([a, a]), model), X, level=1.0)
    with pytest.raises(jg.ShapeError, match="side by side"):
        jg.metrics.across(KEY, jax.tree.map(lambda a: a[None], model), X)
