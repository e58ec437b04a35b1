"""Forecasts against powers of matrices, enumeration, scipy and recursions; joint paths against their marginals."""

import jax
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import jaxgen as jg

MOVE = np.array([[0.9, 0.1], [0.2, 0.8]])
MEAN, SCALE = np.array([0.0, 5.0]), np.array([1.0, 2.0])
HMM = jg.HMM.from_values(None, MOVE, jg.DiagonalGaussian.from_values(MEAN[:, None], SCALE[:, None]))
X = np.array([[0.1], [-0.5], [4.0], [6.0]], np.float32)
DRAWS = 4000


def weights(horizon, now=None):
    now = np.exp(np.asarray(HMM.filter(X).log_filtered[-1], np.float64)) if now is None else now
    return np.stack([now @ np.linalg.matrix_power(MOVE, h) for h in range(1, horizon + 1)])


def uniform(ahead, draws, h):
    """The distribution function of step h at draws of it."""
    return np.asarray(jax.vmap(ahead.cdf)(draws))[:, h, 0]


def test_densities_are_the_mixtures_of_the_states_ahead():
    ahead, share = HMM.forecast(HMM.filter(X), 5), weights(5)
    assert len(ahead) == ahead.horizon == 5
    np.testing.assert_allclose(np.exp(ahead.log_states), share, atol=2e-6)
    np.testing.assert_allclose(ahead.mean[:, 0], share @ MEAN, rtol=1e-5)
    parts, y = scipy.stats.norm(MEAN, SCALE), np.linspace(-2, 6, 5)
    np.testing.assert_allclose(ahead.log_prob(y[:, None]), np.log(np.sum(share * parts.pdf(y[:, None]), 1)), rtol=1e-5)
    np.testing.assert_allclose(ahead.cdf(y[:, None])[:, 0], np.sum(share * parts.cdf(y[:, None]), 1), atol=1e-6)
    third = jg.Mixture(ahead.log_weights[2], ahead.emissions, None)
    np.testing.assert_allclose(third.log_prob(y[2:3]), ahead.log_prob(y[:, None])[2], rtol=1e-6)
    levels = np.array([0.05, 0.5, 0.95])
    excess = lambda x, row, u: row @ parts.cdf(x) - u  # noqa: E731
    exact = [[scipy.optimize.brentq(excess, -30, 30, args=(row, u)) for row in share] for u in levels]
    np.testing.assert_allclose(ahead.quantile(levels)[..., 0], exact, atol=2e-5)  # float32 levels over small slopes
    low, high = ahead.interval(0.9)
    np.testing.assert_allclose(np.stack([low, high])[..., 0], np.array(exact)[[0, 2]], atol=2e-5)
    # what a filter says of the next step's density is the forecast of one step
    state = HMM.filter_step(None, X[0])
    after = HMM.filter_step(state, X[1])
    np.testing.assert_allclose(HMM.forecast(state, 1).log_prob(X[1:2])[0], after.log_normalizer - state.log_normalizer,
                               rtol=1e-5)  # fmt: skip
    drawn = np.asarray(ahead.sample(jax.random.key(0), (DRAWS,)))
    assert drawn.shape == (DRAWS, 5, 1)
    assert scipy.stats.kstest(uniform(ahead, drawn, 4), "uniform").pvalue > 1e-4


def test_paths_are_joint_and_their_marginals_the_forecast():
    ahead = HMM.forecast(HMM.filter(X), 3)
    paths = HMM.sample_paths(jax.random.key(1), HMM.filter(X), 3, (DRAWS,))
    assert paths.x.shape == (DRAWS, 3, 1) and paths.states.shape == (DRAWS, 3)
    for h in range(3):
        assert scipy.stats.kstest(uniform(ahead, paths.x, h), "uniform").pvalue > 1e-4
    # all 8 paths of states, by enumeration
    share, joint = weights(1)[0], np.zeros((2, 2, 2))
    for i, j, k in np.ndindex(2, 2, 2):
        joint[i, j, k] = share[i] * MOVE[i, j] * MOVE[j, k]
    counts = np.zeros((2, 2, 2))
    np.add.at(counts, tuple(np.asarray(paths.states).T), 1)
    assert scipy.stats.chisquare(counts.ravel(), DRAWS * joint.ravel()).pvalue > 1e-4


def test_inputs_of_the_steps_ahead_drive_chain_and_emissions():
    weight = np.array([[[0.0], [1.5]], [[0.5], [0.0]]])
    chain = jg.InputChain.from_values([0.5, 0.5], MOVE, weight)
    lines = jg.LinearRegression.from_values([[[1.0]], [[-2.0]]], [[0.0], [3.0]], [[[1.0]], [[0.25]]])
    hmm, u, now = jg.HMM.from_chain(chain, lines), np.array([[1.0], [-2.0], [0.5]]), np.log([0.3, 0.7])
    ahead = hmm.forecast(now, 3, context=u)
    share, rows = np.exp(now), []
    for own in np.asarray(chain.transition_given(u), np.float64):  # each input drives the move into its own step
        share = share @ own
        rows.append(share)
    rows = np.array(rows)
    np.testing.assert_allclose(np.exp(ahead.log_states), rows, atol=1e-6)
    parts = scipy.stats.norm(np.concatenate([u, 3 - 2 * u], axis=1), [1.0, 0.5])
    np.testing.assert_allclose(ahead.cdf(np.ones((3, 1)))[:, 0], np.sum(rows * parts.cdf(1.0), axis=1), atol=1e-6)
    mean = np.sum(rows * np.concatenate([u, 3 - 2 * u], axis=1), axis=1)
    np.testing.assert_allclose(ahead.mean[:, 0], mean, atol=1e-6)
    first = jg.Mixture.from_components(lines, rows[0]).conditional_mean(u[:1])
    np.testing.assert_allclose(first[:, 0], mean[:1], atol=1e-6)
    paths = hmm.sample_paths(jax.random.key(0), now, 3, DRAWS, context=u)
    assert scipy.stats.kstest(uniform(ahead, paths.x, 2), "uniform").pvalue > 1e-4
    for wrong in (None, u[:2], u[:, 0]):
        with pytest.raises(jg.ShapeError, match="steps to come"):
            hmm.forecast(now, 3, context=wrong)


def test_durations_share_their_emissions():
    chain = jg.SemiMarkovChain.from_values([1.0, 0.0], [[0, 1], [1, 0]], [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
    hmm = jg.HMM.from_chain(chain, jg.Poisson.from_values([1.0, 20.0]), tie=chain.tie)
    # a segment of three began a step ago: two more steps of it, then the other state for sure
    now = np.where(np.arange(6) == 2, 0.0, -np.inf)
    ahead = hmm.forecast(now, 4)
    assert ahead.log_states.shape == (4, 6) and ahead.log_weights.shape == (4, 2)
    np.testing.assert_allclose(np.exp(ahead.log_weights[:, 1]), [0, 0, 1, 0.5], atol=1e-6)
    np.testing.assert_array_equal(ahead.quantile(0.5)[:3], scipy.stats.poisson.ppf(0.5, [1, 1, 20]))
    paths = hmm.sample_paths(jax.random.key(0), now, 4, 50)
    np.testing.assert_array_equal(chain.segment(paths.states)[:, :3], np.tile([0, 0, 1], (50, 1)))


def test_autoregressive_paths_go_on_from_what_was_seen():
    a, b, sd = 1.2, -0.6, 0.3
    wave = jg.LinearRegression.from_values([[[a, b]]], [[0.5]], [[[sd**2]]])
    hmm, past = jg.HMM.from_values([1.0], [[1.0]], wave), np.array([[9.0], [1.0], [2.0]])
    x = np.asarray(hmm.sample_paths(jax.random.key(0), np.zeros(1), 4, DRAWS, past=past).x, np.float64)[..., 0]
    mean, variance, response = [1.0, 2.0], [], [0.0, 1.0]
    for _ in range(4):
        mean.append(a * mean[-1] + b * mean[-2] + 0.5)
        variance.append(sd**2 * np.sum(np.square(response[1:])))
        response.append(a * response[-1] + b * response[-2])
    error = np.sqrt(np.array(variance) / DRAWS)
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - mean[2:]), 4.5 * error)
    np.testing.assert_allclose(x.var(axis=0), variance, rtol=4.5 * np.sqrt(2 / DRAWS))
    # one step ahead the past is known, and there is a density
    one = hmm.forecast(np.zeros(1), 1, context=[[2.0, 1.0]])
    np.testing.assert_allclose(one.quantile(0.975), [[scipy.stats.norm.ppf(0.975, mean[2], sd)]], rtol=1e-5)
    for wrong in (past[:1], past[:, 0], np.ones((3, 2))):
        with pytest.raises(jg.ShapeError, match="last steps"):
            hmm.sample_paths(jax.random.key(0), np.zeros(1), 4, past=wrong)
    with pytest.raises(jg.ModelError, match="seen before"):
        HMM.sample_paths(jax.random.key(0), np.log([0.5, 0.5]), 4, past=past)


def test_a_state_is_a_distribution():
    for wrong in (np.array([0.5, 0.5]), np.array([-np.inf, -np.inf]), np.array([np.nan, 0.0]), np.array([0.0, 0.0])):
        with pytest.raises(jg.ModelError, match="log-distribution"):
            HMM.forecast(wrong, 3)
    for wrong in (np.zeros((2, 2)), HMM.filter(np.stack([X, X]))):
        with pytest.raises(jg.ShapeError, match="state|sequence"):
            HMM.sample_paths(jax.random.key(0), wrong, 3)
    packed = jg.Sequences(np.concatenate([X, np.zeros_like(X)]), np.int32(4))
    ahead = HMM.forecast(HMM.filter(X), 2)
    np.testing.assert_allclose(HMM.forecast(HMM.filter(packed), 2).log_states, ahead.log_states, atol=1e-5)
    traced = jax.jit(lambda hmm, x: hmm.forecast(hmm.filter(x), 2).mean)(HMM, X)
    np.testing.assert_allclose(traced, ahead.mean, rtol=1e-5)


def test_what_no_path_explains_has_no_forecast():
    sure = jg.HMM.from_values(None, MOVE, jg.Categorical.from_values([[1.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(jg.ModelError, match="no log-distribution"):
        sure.forecast(sure.filter([0, 0, 1, 0]), 2)


@pytest.mark.parametrize("horizon", [0, -1, 2.5])
def test_horizons_are_numbers_of_steps(horizon):
    with pytest.raises(jg.ShapeError, match="horizon"):
        HMM.forecast(HMM.filter(X), horizon)
    with pytest.raises(jg.ShapeError, match="shape"):
        HMM.sample_paths(jax.random.key(0), HMM.filter(X), 2, (-1,))
