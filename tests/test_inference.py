"""Simulation-based inference, against posteriors in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxgen as jg
from jaxgen.core.errors import DataError, FitError, ModelError, ShapeError
from jaxgen.tasks import calibrate, nle, npe, nre, predictive
from jaxgen.tasks.inference.chains import Chains
from jaxgen.tasks.inference.conditional import stacked

KEY = jax.random.key(0)
#: variance of the prior and of the noise: the posterior is N(x / 2, VARIANCE / 2)
VARIANCE = 0.1
PRIOR = jg.DiagonalGaussian.from_values([0.0, 0.0], [VARIANCE**0.5] * 2)
SEEN = jnp.array([0.4, -0.2])
#: one number of pairs, of steps and of draws in this file: few programs
N, STEPS, DRAWS = 2000, 300, 4000


def simulator(key, theta):
    return theta + VARIANCE**0.5 * jax.random.normal(key, theta.shape)


def pairs(seed, n=N):
    first, second = jax.random.split(jax.random.key(seed))
    theta = PRIOR.sample(first, (n,))
    return theta, simulator(second, theta)


@pytest.fixture(scope="module")
def posterior():
    return npe(KEY, PRIOR, pairs(1), steps=STEPS)


def test_of_normal_data_it_is_the_closed_posterior(posterior):
    theta, x = pairs(2, DRAWS)
    exact = stats.norm(np.asarray(x) / 2, (VARIANCE / 2) ** 0.5).logpdf(np.asarray(theta)).sum(axis=1)
    found = np.asarray(posterior.log_prob(theta, x), np.float64)
    # the regression alone has six numbers: (6 / 2) / 1800 nats short in the mean; the flow adds what it overfits
    assert -0.005 < np.mean(exact - found) < 0.03
    draws = np.asarray(posterior.sample(KEY, DRAWS, SEEN))
    np.testing.assert_allclose(draws.mean(axis=0), np.asarray(SEEN) / 2, atol=0.03)  # a seventh of a deviation
    np.testing.assert_allclose(draws.std(axis=0), (VARIANCE / 2) ** 0.5, rtol=0.06)
    assert posterior.sample(KEY, 5, jnp.stack([SEEN, -SEEN])).shape == (2, 5, 2)
    assert posterior.failed == 0
    assert "2000 simulations; held-out loss" in str(posterior)
    assert posterior.history["loss"].shape == (2, posterior.fitted.steps)


def test_units_do_not_matter(posterior):
    theta, x = pairs(1)
    scaled = jg.DiagonalGaussian.from_values([0.0, 0.0], [VARIANCE**0.5 * 2.0**20] * 2)
    other = npe(KEY, scaled, (theta * 2.0**20, x * 2.0**-20), steps=STEPS)
    # powers of two are exact: what differs are roundings, over all steps of a training
    np.testing.assert_allclose(
        other.log_prob(theta[:100] * 2.0**20, x[:100] * 2.0**-20) + 40 * np.log(2.0),
        posterior.log_prob(theta[:100], x[:100]), atol=0.02,
    )  # fmt: skip


def test_failed_simulations_are_left_out_and_counted(posterior):
    theta, x = pairs(1)
    holes = jnp.full((50, 2), 0.1), jnp.full((50, 2), jnp.nan).at[:20, 0].set(jnp.inf)
    found = npe(KEY, PRIOR, (jnp.concatenate([holes[0], theta]), jnp.concatenate([holes[1], x])), steps=STEPS)
    assert found.failed == 50
    assert "50 failed (2.4%)" in str(found)
    np.testing.assert_array_equal(found.log_prob(theta[:9], x[:9]), posterior.log_prob(theta[:9], x[:9]))


def test_a_bounded_prior_has_no_mass_outside():
    prior = jg.Uniform.from_values([0.0, 0.0], [1.0, 1.0])
    found = npe(KEY, prior, simulator, simulations=N, steps=STEPS)
    at = jnp.array([0.0, 0.5])
    draws = np.asarray(found.sample(KEY, DRAWS, at))
    assert draws.min() >= 0
    assert draws.max() <= 1
    assert found.log_prob(jnp.array([[-0.01, 0.5], [0.5, 1.01]]), at).tolist() == [-np.inf, -np.inf]
    # a normal density that the box cuts at its highest, in one coordinate
    scale = VARIANCE**0.5
    exact = [stats.truncnorm((0 - m) / scale, (1 - m) / scale, m, scale) for m in np.asarray(at, float)]
    np.testing.assert_allclose(draws.mean(axis=0), [one.mean() for one in exact], atol=0.03)
    np.testing.assert_allclose(draws.std(axis=0), [one.std() for one in exact], rtol=0.15)
    line = (np.arange(60) + 0.5) / 60
    cells = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    # the edge is a fiftieth of the width: cells of a sixtieth see it
    assert np.exp(np.asarray(found.log_prob(cells, at))).mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("estimate", [nle, nre])
def test_chains_draw_the_closed_posterior(estimate):
    found = estimate(KEY, PRIOR, pairs(1), steps=STEPS)
    chains = found.chains(KEY, 1000, SEEN)
    assert chains.draws.shape == (100, 10, 2)
    assert chains.r_hat.max() < 1.1
    assert not chains.problems
    draws = chains.draws.reshape(-1, 2)
    np.testing.assert_allclose(draws.mean(axis=0), np.asarray(SEEN) / 2, atol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), (VARIANCE / 2) ** 0.5, rtol=0.15)
    # up to a constant of x: differences are those of the closed density
    theta = jnp.asarray(draws[:200])
    exact = stats.norm(np.asarray(SEEN) / 2, (VARIANCE / 2) ** 0.5).logpdf(np.asarray(theta)).sum(axis=1)
    left = np.asarray(found.log_prob(theta, SEEN)) - exact
    assert left.std() < 0.25
    assert "R-hat" in str(chains)


def test_what_chains_say_of_themselves():
    draws = np.random.default_rng(0).normal(size=(4, 20, 1))
    apart = Chains(draws + np.arange(4)[:, None, None], np.array([1.6]), np.array([5.0]), 0.8)
    assert apart.problems == ("chains disagree, R-hat 1.60", "draws are worth 5 independent ones")


def test_rounds_serve_one_observation():
    found = npe(KEY, PRIOR, simulator, simulations=2 * N, rounds=2, observed=SEEN, steps=STEPS)
    assert len(found.simulations.x) == 2 * N
    # a thousandth of the posterior lies further out than sqrt(2 log 1000) deviations, .83; the prior goes on
    away = np.linalg.norm(np.asarray(found.simulations.theta) - np.asarray(SEEN) / 2, axis=1)
    assert away[N:].max() < 0.95 < away[:N].max()
    draws = np.asarray(found.sample(KEY, DRAWS, SEEN))
    np.testing.assert_allclose(draws.mean(axis=0), np.asarray(SEEN) / 2, atol=0.03)
    np.testing.assert_allclose(draws.std(axis=0), (VARIANCE / 2) ** 0.5, rtol=0.1)
    assert "for the observation of its rounds" in str(found)
    with pytest.raises(FitError, match="calibration is over many observations"):
        calibrate(KEY, found, simulator)


@pytest.mark.parametrize("estimate", [nle, nre])
def test_rounds_of_chains_simulate_where_the_posterior_is(estimate):
    """Pairs of as many rows as in the tests of one round: the programs of the training are theirs."""
    found = estimate(KEY, PRIOR, simulator, simulations=N, rounds=2, observed=SEEN, steps=STEPS)
    theta, half = np.asarray(found.simulations.theta), N // 2
    assert len(theta) == len(found.simulations.x) == N
    # first draws of the prior, then of what was learned: means of 1000 draws of deviations .32 and .22
    np.testing.assert_allclose(theta[:half].mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(theta[:half].std(axis=0), VARIANCE**0.5, rtol=0.1)
    np.testing.assert_allclose(theta[half:].mean(axis=0), np.asarray(SEEN) / 2, atol=0.08)
    np.testing.assert_allclose(theta[half:].std(axis=0), (VARIANCE / 2) ** 0.5, rtol=0.25)
    draws = np.asarray(found.sample(KEY, 1000, SEEN))
    np.testing.assert_allclose(draws.mean(axis=0), np.asarray(SEEN) / 2, atol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), (VARIANCE / 2) ** 0.5, rtol=0.15)


def test_calibration_tells_right_from_wrong(posterior):
    fresh = pairs(3, 300)
    right = calibrate(KEY, posterior, fresh, draws=31)
    # three false alarms in a thousand
    assert right.ranks.p_value > 0.001
    assert right.coverage.error < 4
    assert right.balls.error < 4
    narrow = calibrate(KEY, posterior, (fresh[0] + 1, fresh[1]), draws=31)  # not where it says
    assert narrow.coverage.error > 8
    assert narrow.balls.error > 8
    assert "regions of highest density" in str(narrow)


def test_calibration_of_chains():
    found = nre(KEY, PRIOR, pairs(1), steps=STEPS)
    fresh = pairs(3, 24)
    right = calibrate(KEY, found, fresh, draws=31)
    assert right.ranks.p_value > 0.001
    assert right.coverage.error < 4
    # parameters that are not where its posteriors are
    assert calibrate(KEY, found, (fresh[0] + 1, fresh[1]), draws=31).coverage.error > 8


def test_what_a_posterior_predicts(posterior):
    fine = predictive(KEY, posterior, simulator, SEEN)
    assert not fine.surprising.size
    assert "in every column" in str(fine)
    wrong = predictive(KEY, posterior, lambda key, theta: simulator(key, theta) + jnp.array([0.0, 5.0]), SEEN)
    assert wrong.surprising.tolist() == [1]
    assert wrong.p_values[1] == pytest.approx(2 / 1001)


THETA, X = (np.asarray(a) for a in pairs(1, 40))
BOX = jg.Uniform.from_values([0.0, 0.0], [1.0, 1.0])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: npe(KEY, PRIOR, (THETA[:0], X[:0])), DataError, "no events|too few|empty"),
        (lambda: npe(KEY, PRIOR, (THETA[:1], X[:1])), DataError, "too few simulations"),
        (lambda: npe(KEY, PRIOR, (THETA, X[:30])), ShapeError, "no pairs of vectors"),
        (lambda: npe(KEY, PRIOR, (THETA, X[:, 0])), ShapeError, "no pairs of vectors"),
        (lambda: npe(KEY, PRIOR, (THETA[:, :1], X)), ShapeError, "no pairs of vectors"),
        (lambda: npe(KEY, PRIOR, THETA), DataError, "there are no simulations"),
        (lambda: npe(KEY, PRIOR, (THETA, X * np.nan)), DataError, "40 failed"),
        (lambda: npe(KEY, PRIOR, (THETA, X * 0 + 1)), DataError, "x is the same in all simulations"),
        (lambda: nle(KEY, PRIOR, (THETA, X * [1, 0])), DataError, r"columns \[1\] of 2 are constant"),
        (lambda: npe(KEY, BOX, (THETA - 1, X)), DataError, "where the prior has no density"),
        (lambda: npe(KEY, PRIOR, (np.where(THETA > 0, np.nan, THETA), X)), DataError, "theta has values"),
        (lambda: npe(KEY, 3, (THETA, X)), ModelError, "no density of parameters"),
        (lambda: npe(KEY, jg.StandardNormal(()), (THETA, X)), ModelError, "no density of parameters"),
        (lambda: npe(KEY, PRIOR, simulator, simulations=3), FitError, "too few simulations"),
        (lambda: npe(KEY, PRIOR, simulator, rounds=2), FitError, "rounds simulate for one observation"),
        (lambda: npe(KEY, PRIOR, (THETA, X), rounds=2, observed=SEEN), FitError, "rounds simulate for one"),
    ],
)
def test_what_is_no_data_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_what_is_no_observation_is_refused(posterior):
    with pytest.raises(ShapeError, match="the observation is not as the simulations are"):
        posterior.sample(KEY, 5, jnp.zeros(3))
    with pytest.raises(DataError):
        posterior.sample(KEY, 5, jnp.array([0.0, jnp.nan]))
    with pytest.raises(FitError, match="no draws"):
        posterior.sample(KEY, 0, SEEN)


@jg.model
class Placed:
    """A normal density that does not look at its context."""

    mean: jax.Array

    def log_prob(self, x, *, context=None):
        return -((x[:, 0] - self.mean) ** 2) / 2


def test_weights_of_members_are_those_of_the_data():
    """Of events of which three in ten are one member's, far from the other's: the share that they have, to rounding."""
    x = jnp.concatenate([jnp.zeros((30, 1)), jnp.full((70, 1), 50.0)])

    members = Placed(jnp.array([0.0, 50.0, 1e4]))
    np.testing.assert_allclose(stacked(members, x, jnp.zeros((100, 1))), [0.3, 0.7, 0], atol=1e-6)
