"""Diagnostics of hidden variables against closed forms of a linear model, and of codes against sklearn and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.linear_model
import sklearn.metrics
from test_bounds import B, W, vae_of

import jaxgen as jg
from jaxgen import metrics
from jaxgen.metrics.disentanglement import lasso


def test_terms_of_the_exact_posterior_are_closed_forms():
    """`q(z | x) = p(z | x) = N(4 w . (x - b) / 21, 1 / 21)`, and data of the model: prior and aggregate are one."""
    vae = vae_of(0.0, 1 / 21, slope=4 / 21)
    x = metrics.simulated(jax.random.key(1), vae, 2000).x
    found = metrics.latents(jax.random.key(2), vae, x)
    mean = 4 * (np.asarray(x) - B) @ W / 21
    rate = (mean**2 + 1 / 21 - 1) / 2 + np.log(21) / 2
    assert found.rate == pytest.approx(rate.mean(), abs=1e-4)  # by the closed divergence, in float32
    truth = scipy.stats.multivariate_normal(B, np.outer(W, W) + np.eye(2) / 4).logpdf(x).mean()
    assert found.distortion + found.rate == pytest.approx(-truth, abs=4 * found.distortion_error)
    # of 2000 events the aggregate is near the prior: N terms that are 1/21 wide leave less than .02 nats
    assert found.mismatch == pytest.approx(0.0, abs=0.02 + 4 * found.mismatch_error)
    assert found.information == pytest.approx(np.log(21) / 2, abs=0.1)
    assert found.activity == pytest.approx(20 / 21, abs=0.15)
    assert found.active == 1
    assert "1 of 1 units" in str(found)


def test_a_posterior_that_says_nothing_is_told():
    """`q(z | x) = N(2, 1)` whatever x is: the whole rate, 2 nats, is a mismatch."""
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    with pytest.warns(jg.JaxgenWarning, match="collapsed"):
        found = metrics.latents(jax.random.key(0), vae_of(2.0, 1.0), x, draws=200)
    assert found.rate == pytest.approx(2.0, abs=1e-5)
    assert found.mismatch == pytest.approx(2.0, abs=5 * found.mismatch_error)
    assert found.active == 0


def test_total_correlation_of_a_correlation_of_one_half():
    noise = np.random.default_rng(0).normal(size=(100, 2))
    noise -= noise.mean(axis=0)
    white = noise @ np.linalg.inv(np.linalg.cholesky(noise.T @ noise / 100)).T
    z = white @ np.linalg.cholesky([[1.0, 0.5], [0.5, 1.0]]).T * [3.0, 0.1] + 5.0
    assert metrics.total_correlation(z) == pytest.approx(0.143841036, abs=1e-9)
    with pytest.raises(jg.DataError, match="constant"):
        metrics.total_correlation(np.ones((5, 2)))


def test_information_is_sklearns():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 5, (200, 2)), rng.integers(0, 3, (200, 3))
    b[:, 0] = a[:, 1] % 3
    expected = [[sklearn.metrics.mutual_info_score(x, y) for y in b.T] for x in a.T]
    np.testing.assert_allclose(metrics.mutual_information(a, b), expected, atol=1e-12)
    # many values are cut into bins of equal width
    wide = rng.normal(size=(500, 1))
    edges = np.linspace(wide.min(), wide.max(), 8)
    labels = np.clip(np.digitize(wide[:, 0], edges[1:-1]), 0, 6)
    one = metrics.mutual_information(wide, labels[:, None], bins=7)[0, 0]
    assert one == pytest.approx(scipy.stats.entropy(np.bincount(labels)))


def test_lasso_is_sklearns():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(100, 4)) @ rng.normal(size=(4, 4))
    z = (z - z.mean(0)) / z.std(0)
    v = z @ [[1.0], [0.0], [-0.5], [0.01]] + 0.1 * rng.normal(size=(100, 1))
    v -= v.mean(0)
    peer = sklearn.linear_model.Lasso(alpha=0.05, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(z, v[:, 0])
    np.testing.assert_allclose(lasso(z, v, 0.05)[:, 0], peer.coef_, atol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_codes_of_their_own_are_told_from_shared_ones(turned):
    """Factors in another order, in other units, beside a code of noise; and turned by 45 degrees in pairs."""
    images, factors, _ = jg.data.blobs(jax.random.key(0), 2000, size=8)
    assert images.shape == (2000, 8, 8)
    factors = np.asarray(factors, np.float64)
    unit = (factors - factors.mean(0)) / factors.std(0)
    codes = unit[:, [2, 0, 3, 1]] * [3.0, 0.1, -1.0, 2.0]
    if turned:
        codes = np.concatenate([unit @ np.kron(np.eye(2), [[1.0, 1.0], [1.0, -1.0]])], axis=1)
    codes = np.concatenate([codes, np.random.default_rng(0).normal(size=(2000, 1))], axis=1)
    mig, sap, found = metrics.mig(codes, factors), metrics.sap(codes, factors), metrics.dci(codes, factors)
    if turned:
        assert max(mig, sap) < 0.1
        assert max(found[:2]) < 0.6
    else:
        # 20 bins of 2000 events know about .03 of each other by chance
        assert mig > 0.9
        assert sap > 0.95
        assert min(found[:2]) > 0.98
    # either way the factors are linear functions of the codes, shrunk by the penalty
    assert found.informativeness > 0.99


def test_blobs_are_what_their_factors_say():
    images, factors, names = jg.data.blobs(jax.random.key(1), 3, size=16)
    row, column, radius, brightness = np.asarray(factors, np.float64).T[:, :, None, None]
    middles = (np.arange(16) + 0.5) / 16
    square = (middles[:, None] - row) ** 2 + (middles - column) ** 2
    np.testing.assert_allclose(images, brightness * np.exp(-square / (2 * radius**2)), atol=1e-6)
    assert names == ("row", "column", "radius", "brightness")
    assert 0 <= float(jnp.min(images)) <= float(jnp.max(images)) <= 1


@pytest.mark.parametrize(
    "call",
    [lambda: metrics.mig(np.ones((4, 1)), np.arange(4)[:, None]), lambda: metrics.mig(np.ones(4), np.ones((4, 1))),
     lambda: metrics.sap(np.eye(4), np.ones((4, 1))), lambda: metrics.dci(np.eye(4), np.arange(4.0)[:, None]),
     lambda: jg.data.blobs(jax.random.key(0), 0),
     lambda: metrics.latents(jax.random.key(0), vae_of(0.0, 1.0), np.zeros((1, 2)))],
)  # fmt: skip
def test_bad_calls_are_refused(call):
    with pytest.raises(jg.DataError):
        call()
