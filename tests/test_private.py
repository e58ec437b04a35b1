"""Private EM: the accountant against closed forms, what an event can change, and how much the noise costs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import jaxgen as jg
from jaxgen import tasks
from jaxgen.tasks.private import SENSITIVITY, clipped_sums, delta_of, kept_variance, mu_of

KEY = jax.random.key(0)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-6), (1.0, 1e-5), (8.0, 1e-9)])
def test_the_noise_is_that_of_the_analytic_gaussian_mechanism(epsilon, delta):
    """Balle and Wang's condition holds with equality, and delta is the integral that defines it."""
    mu = mu_of(epsilon, delta)
    closed = stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu)
    assert closed == pytest.approx(delta, rel=1e-6)
    assert delta_of(epsilon, mu) <= delta
    over = lambda x: max(0.0, stats.norm.pdf(x, mu) - math.exp(epsilon) * stats.norm.pdf(x))  # noqa: E731
    where = epsilon / mu + mu / 2  # beyond it the densities' ratio is above exp(epsilon)
    assert integrate.quad(over, where, where + 12, epsabs=0)[0] == pytest.approx(delta, rel=1e-5)


def test_the_published_deviation():
    """The analytic mechanism at epsilon 1, delta 1e-5 and sensitivity 1, beside the classical 4.84."""
    assert 1 / mu_of(1.0, 1e-5) == pytest.approx(3.7306, abs=1e-4)
    assert 1 / mu_of(1.0, 1e-5) < math.sqrt(2 * math.log(1.25e5))


def test_one_event_changes_the_sums_by_two_at_most():
    rng = np.random.default_rng(0)
    covariance = np.stack([np.diag(rng.uniform(0.01, 1, 3)) for _ in range(4)])
    model = jg.Mixture.from_components(jg.Gaussian.from_values(rng.normal(size=(4, 3)), covariance))
    x = jnp.asarray(np.concatenate([rng.normal(size=(60, 3)), 1e4 * rng.normal(size=(20, 3)), model.components.mean]))
    for norm in (0.3, 3.0):
        one = jax.vmap(lambda row, norm=norm: jnp.linalg.norm(clipped_sums(model, row[None], norm)))(x)
        assert float(one.max()) <= SENSITIVITY
        assert float(one.max()) > 1.9  # an event that one component alone clips
        whole = sum(clipped_sums(model, row[None], norm) for row in x)
        np.testing.assert_allclose(clipped_sums(model, x, norm), whole, rtol=2e-4, atol=1e-3)  # float32


def test_variance_that_clipping_leaves():
    rng = np.random.default_rng(1)
    u = rng.normal(size=(200_000, 3))
    clipped = u * np.minimum(1, 2.5 / np.linalg.norm(u, axis=1))[:, None]
    assert kept_variance(2.5, 3) == pytest.approx(clipped.var(), rel=0.01)


def test_noise_adds_up_to_the_promise_and_costs_little():
    """Two clusters that are far apart: the private fit is near the truth, in any units."""
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal([2, 30], [0.3, 5], (6000, 2)), rng.normal([4, 70], [0.4, 4], (4000, 2))])
    found = tasks.private_mixture(KEY, x, 2, low=[0, 0], high=[6, 100], epsilon=1.0, delta=1e-5)
    order = np.argsort(found.model.components.mean[:, 0])
    np.testing.assert_allclose(found.model.components.mean[order], [[2, 30], [4, 70]], atol=0.5)
    np.testing.assert_allclose(found.model.weights[order], [0.6, 0.4], atol=0.03)
    scale = np.sqrt(np.diagonal(found.model.components.covariance, axis1=1, axis2=2))[order]
    np.testing.assert_allclose(scale, [[0.3, 5], [0.4, 4]], rtol=0.15)
    squares = (found.steps - 1) * (SENSITIVITY / found.noise[0]) ** 2 + (SENSITIVITY / found.noise[1]) ** 2
    assert squares == pytest.approx(found.mu**2)
    assert delta_of(1.0, math.sqrt(squares)) == pytest.approx(1e-5, rel=1e-6)
    for word in ("(1, 1e-05)-differentially private", "24 sums"):
        assert word in str(found)
    other = tasks.private_mixture(KEY, x * [1e6, 1], 2, low=[0, 0], high=[6e6, 100], epsilon=1.0, delta=1e-5)
    again = other.model.components.mean / jnp.array([1e6, 1])
    np.testing.assert_allclose(again, found.model.components.mean, rtol=1e-3)  # of the clipped float32 columns


def test_less_is_promised_with_more_noise():
    x = np.random.default_rng(3).normal(size=(500, 1))
    few = [tasks.private_mixture(KEY, x, 1, low=-5, high=5, epsilon=e, delta=1e-5).noise[0] for e in (0.5, 2.0)]
    assert few[0] > 3 * few[1]


@pytest.mark.parametrize(("change", "words"), [
    ({"epsilon": 0.0}, "no promise"), ({"delta": 1.0}, "no promise"), ({"low": 1.0, "high": 0.0}, "no bounds"),
    ({"high": math.inf}, "no bounds"), ({"low": [0.0]}, "of the columns"), ({"k": 0}, "no such fit"),
    ({"steps": 2}, "no such fit"),
])  # fmt: skip
def test_refusals(change, words):
    given = {"k": 1, "low": 0.0, "high": 1.0, "epsilon": 1.0, "delta": 1e-5} | change
    with pytest.raises(jg.ModelError, match=words):
        tasks.private_mixture(KEY, np.zeros((10, 2)), given.pop("k"), **given)
