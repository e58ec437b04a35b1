"""Kernel densities against scipy and against leaving out by hand; powers against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.ops.kernels import kernel_by_leaving_out, kernel_log_density
from jaxgen.ops.powers import best_power, yeo_johnson

X = np.asarray(jax.random.normal(jax.random.key(0), (60, 2)))


def test_kernel_density_is_scipys():
    kde = stats.gaussian_kde(X.T, bw_method=0.4)
    whitener = np.linalg.inv(np.linalg.cholesky(kde.covariance)).astype(np.float32)
    points = jnp.asarray(X[:5] + 0.3)
    np.testing.assert_allclose(kernel_log_density(points, jnp.asarray(X), whitener), kde.logpdf(points.T), atol=1e-4)


def test_kernels_leave_their_own_event_out():
    whitener, log_density = kernel_by_leaving_out(jnp.asarray(X), steps=3)
    for i in (0, 7):
        rest = jnp.asarray(np.delete(X, i, axis=0))
        one = kernel_log_density(jnp.asarray(X[i : i + 1]), rest, whitener)
        np.testing.assert_allclose(one[0], log_density[i], atol=1e-4)


def test_leave_one_out_likelihood_rises_to_its_maximum():
    """Without floor and shrinkage it is EM: in one column to the best of a grid of widths."""
    x = X[:, :1]
    _, found = kernel_by_leaving_out(jnp.asarray(x), shrinkage=0.0, floor=0.0, steps=500)
    away = (x - x.T)[~np.eye(60, dtype=bool)].reshape(60, 59)
    grid = [np.log(stats.norm.pdf(away, scale=h).mean(axis=1)).mean() for h in np.linspace(0.05, 1, 200)]
    # steps end where they gain less than .001
    assert max(grid) - 0.02 < float(found.mean()) < max(grid) + 1e-4


@pytest.mark.parametrize("power", [-0.5, 0.0, 1.0, 1.7, 2.0])
def test_powers_are_scipys(power):
    x = X[:, 0] * 3
    np.testing.assert_allclose(
        yeo_johnson(jnp.asarray(x)[:, None], jnp.full(1, power))[:, 0], stats.yeojohnson(x, power), rtol=1e-4, atol=1e-5
    )


def test_the_best_power_is_scipys():
    x = np.exp(X).astype(np.float32)
    best = [stats.yeojohnson_normmax(column.astype(np.float64)) for column in x.T]
    np.testing.assert_allclose(best_power(jnp.asarray(x)), best, atol=0.01)  # the likelihood is flat there
