"""Means and variances that densities know of themselves, beside their own draws, and what small options refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg

KEY = jax.random.key(0)
COVARIANCE = np.array([[2.0, 0.6], [0.6, 0.5]])

MODELS = {
    "poisson": jg.Poisson.from_values([0.5, 4.0]),
    "bernoulli": jg.Bernoulli.from_values([0.1, 0.7]),
    "binomial": jg.Binomial.from_values([0.1, 0.7], 9),
    "multinomial": jg.Multinomial.from_values([0.2, 0.5, 0.3], 6),
    "gaussian": jg.Gaussian.from_values([1.0, -2.0], COVARIANCE),
    "standard normal": jg.StandardNormal((2,)),
    "punctured": jg.Punctured.from_density(jg.Gaussian.from_values([1.0, -2.0], COVARIANCE), [0.0, 0.0]),
    "product": jg.Product.from_blocks({
        (2, 0): jg.DiagonalGaussian.from_values([5.0, -5.0], [0.5, 2.0]), 1: jg.Poisson.from_values(3.0),
    }),
    "mixture of products": jg.Mixture.from_components([
        jg.Product.from_blocks({0: jg.Poisson.from_values(r), (1,): jg.Gamma.from_values([r], [2.0])})
        for r in (1.0, 6.0)
    ], [0.3, 0.7]),
    "spike and slab": jg.Mixture.from_components([
        jg.Delta.from_values([0.0]), jg.Punctured.from_density(jg.Gaussian.from_values([4.0], [[1.0]]), [0.0]),
    ]),
    "variational": jg.VariationalMixture.from_components(jg.Poisson.from_values([1.0, 6.0]), concentration=2.0),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_moments_are_those_of_draws(name):
    """5 standard errors of 4000 draws: seeds reach 4, another formula reaches far beyond."""
    model = MODELS[name]
    drawn = np.asarray(model.sample(KEY, (4000,)), np.float64)
    error = drawn.std(axis=0) / np.sqrt(4000)
    assert (np.abs(drawn.mean(axis=0) - model.mean) < 5 * error + 1e-6).all()
    if hasattr(model, "variance"):
        squares = (drawn - drawn.mean(axis=0)) ** 2
        assert (np.abs(squares.mean(axis=0) - model.variance) < 5 * squares.std(axis=0) / np.sqrt(4000)).all()


def test_a_mean_that_is_none_is_said():
    with pytest.raises(jg.ModelError, match="each event's own"):
        _ = jg.Binomial.from_values([0.5]).mean
    with pytest.raises(jg.ModelError, match="VonMises without"):
        _ = jg.Product.from_blocks({0: jg.Poisson.from_values(1.0), (1,): jg.VonMises.from_values([0.0], [1.0])}).mean


def test_negative_sizes_of_errors_are_refused():
    x, bad = np.zeros((6, 2), np.float32), np.array([[1.0, -1.0]] * 6, np.float32)
    star = jg.NoisyGaussian.from_values([0.0, 0.0], np.eye(2))
    both = jg.Mixture.from_components([star, star])
    for call in (
        lambda: star.log_prob(x, context=bad), lambda: star.sample(KEY, (6,), context=bad),
        lambda: both.log_prob(x, context=bad), lambda: jg.NoisyGaussian.init(KEY, x, bad),
        lambda: jg.fit(KEY, both, (x, bad), steps=1), lambda: jg.scan_fit(KEY, both, (x, bad), steps=1),
        lambda: jg.Flow(star, jg.bijections.Affine(jnp.zeros(2), jnp.zeros(2))).log_prob(x, context=bad),
    ):  # fmt: skip
        with pytest.raises(jg.DataError, match="negative"):
            call()
    wide = jg.NoisyGaussian.from_values([0.0, 0.0], np.eye(2), correlated=True)
    with pytest.raises(jg.DataError, match="variances"):
        wide.log_prob(x[0], context=-np.eye(2))
    with pytest.raises(jg.ModelError, match="NoisyGaussian without"):
        both.impute(x, context=np.abs(bad))


def test_a_bare_point_mass_starts_where_the_data_repeat():
    """Of real numbers that is the spike, wherever it is; among counts the rest may be more frequent: value= says."""
    rng = np.random.default_rng(0)
    x = np.where(rng.uniform(size=400) < 0.1, 0.0, rng.gamma(2.0, 1.5, 400)).astype(np.float32)[:, None]
    assert jg.Mixture.init(KEY, x, 2, [jg.Delta.init, jg.Gamma.init]).components[0].value.tolist() == [0.0]
    assert jg.Delta.init(KEY, x - 3).value.tolist() == [-3.0]
    counts = np.where(rng.uniform(size=400) < 0.1, 0, rng.poisson(4.0, 400))
    assert float(jg.Delta.init(KEY, counts).value) in (3.0, 4.0)
    told = jg.Mixture.init(KEY, counts, 2, [functools.partial(jg.Delta.init, value=0), jg.Poisson.init])
    fitted = jg.fit(KEY, told, counts).model
    np.testing.assert_allclose(fitted.weights[0], 0.1, atol=0.05)  # a share of 400 is known to .015


def test_forecasts_start_from_a_distribution():
    hmm = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], jg.Poisson.from_values([1.0, 5.0]))
    good = hmm.forecast(np.log([0.25, 0.75]), 1).log_states
    np.testing.assert_allclose(np.exp(good[0]), [0.25 * 0.9 + 0.75 * 0.2, 0.25 * 0.1 + 0.75 * 0.8], rtol=1e-5)
    for wrong in ([0.25, 0.75], np.log([0.2, 0.2]), np.log([0.2, 0.3, 0.5]), [-np.inf, -np.inf], 0.0):
        with pytest.raises(jg.ModelError, match="no log-distribution"):
            hmm.forecast(wrong, 1)
