"""Low-rank Gaussians against full ones, scipy and scikit-learn's factor analysis."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from sklearn.decomposition import FactorAnalysis

import jaxgen as jg
from jaxgen.models.low_rank import LowRankGaussian


def data(n=300, d=5, q=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, q)) @ rng.normal(size=(q, d)) + 0.5 * rng.normal(size=(n, d)) + rng.normal(size=d)


def example(d=4, q=2, seed=1, **options):
    rng = np.random.default_rng(seed)
    return LowRankGaussian.from_values(
        rng.normal(size=d), rng.normal(size=(d, q)), rng.uniform(0.3, 1.0, size=d), **options
    )


def test_density_equals_scipy_also_where_entries_are_missing():
    with jax.enable_x64(True):
        model, x = example(missing=True), np.random.default_rng(2).normal(size=(20, 4))
        mean, covariance = np.asarray(model.mean), np.asarray(model.covariance)
        expected = scipy.stats.multivariate_normal(mean, covariance).logpdf(x)
        np.testing.assert_allclose(model.log_prob(x), expected, rtol=1e-10)
        x[:, [1, 3]] = np.nan
        seen = scipy.stats.multivariate_normal(mean[[0, 2]], covariance[np.ix_([0, 2], [0, 2])])
        np.testing.assert_allclose(model.log_prob(x), seen.logpdf(x[:, [0, 2]]), rtol=1e-10)


def test_em_reaches_scikit_learns_factor_analysis():
    x = data()
    peer = FactorAnalysis(2, tol=1e-10, max_iter=5000).fit(x)
    with jax.enable_x64(True):
        start = LowRankGaussian.init(jax.random.key(0), x, rank=2)
        fitted = jg.fit(jax.random.key(0), start, x, steps=300, tolerance=1e-10)
        np.testing.assert_allclose(float(fitted.model.log_prob(x).mean()), peer.score(x), atol=1e-6)
        assert np.diff(fitted.history["log_likelihood"]).min() > -1e-10  # float64 rounding


def test_mixture_with_holes_is_monotone():
    x = np.concatenate([data(80, 3, 1, 1), data(80, 3, 1, 2) + 6])
    x[np.random.default_rng(0).random(x.shape) < 0.15] = np.nan
    leaf = functools.partial(LowRankGaussian.init, rank=1, missing=True)
    with jax.enable_x64(True):
        start = jg.Mixture.init(jax.random.key(0), x, 2, leaf)
        fitted = jg.fit(jax.random.key(0), start, x, steps=40, tolerance=0.0)
        assert np.diff(fitted.history["log_likelihood"]).min() > -1e-9  # float64 rounding
        assert bool(jnp.isfinite(fitted.model.log_prob(x)).all())


def test_a_held_mean_stays_and_the_rest_is_monotone():
    x = data(120, 4, 1)
    with jax.enable_x64(True):
        start = LowRankGaussian.init(jax.random.key(0), x, rank=1)
        start = LowRankGaussian(**{**vars(start), "offset": start.offset + 0.3})
        fitted = jg.fit(jax.random.key(0), start, x, jg.EM(frozen={"offset": True}), steps=30, tolerance=0.0)
        np.testing.assert_array_equal(fitted.model.offset, start.offset)
        assert np.diff(fitted.history["log_likelihood"]).min() > -1e-9  # float64 rounding


def test_parts_of_a_low_rank_gaussian_are_those_of_the_full_one():
    with jax.enable_x64(True):
        model = example()
        full = jg.Gaussian.from_covariance(model.mean, model.covariance)
        for ours, theirs in (
            (model.marginal((2, 0)), full.marginal((2, 0))),
            (model.condition((1,), [0.4]), full.condition((1,), [0.4])),
        ):
            np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-10)
            np.testing.assert_allclose(ours.covariance, theirs.covariance, atol=1e-10)
