"""Bounds of a linear model whose likelihood and posterior are known, `p(z) = N(0, 1)`, `x = w z + b + N(0, I / 4)`."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen import metrics
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net

W, B, X = np.array([1.0, 2.0]), np.array([0.5, -0.5]), np.array([1.0, 1.5])
#: log p(x)
TRUTH = -2.759558209865


def linear(kernel, bias, module, dtype):
    arrays = {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.asarray(bias, dtype)}
    return Net({"Dense_0": arrays}, module)


def vae_of(mean, variance, slope=0.0, dtype=jnp.float32):
    """The model with `q(z | x) = N(mean + slope w . (x - b), variance)`."""
    raw = 6 * np.arctanh(0.5 * np.log(variance) / 6)
    kernel = np.stack([slope * W, np.zeros(2)], axis=1)
    encoder = linear(kernel, [mean - slope * W @ B, raw], MLP((2,), in_shape=(2,), out_shape=(2, 1)), dtype)
    decoder = linear(W[None], B, MLP((2,), out_shape=(1, 2)), dtype)
    return jg.VAE(jg.StandardNormal((1,)), encoder, decoder, jg.likelihoods.GaussianOfScale(0.5), (2,))


found = functools.partial(metrics.bounds, jax.random.key(0), samples=50, chains=8)


def test_the_right_posterior_is_the_likelihood():
    assert scipy.stats.multivariate_normal(B, np.outer(W, W) + np.eye(2) / 4).logpdf(X) == pytest.approx(TRUTH)
    exact = found(vae_of(6 / 7, 1 / 21), X[None], steps=4, space="raw numbers")
    # weights are all alike: float32 of numbers near 3. The ELBO has a closed divergence and a drawn likelihood
    assert exact.iwae.mean == pytest.approx(TRUTH, abs=2e-5)
    assert exact.ais.mean == pytest.approx(TRUTH, abs=2e-5)
    assert exact.iwae_ess == pytest.approx(50, abs=1e-2)
    assert "raw numbers" in str(exact)
    assert "lower bound, 1 event" in str(exact)


@pytest.mark.parametrize(
    ("mean", "variance", "expected"), [(6 / 7, 1 / 21, TRUTH), (0.8, 0.1, -2.9728752518), (0.0, 1.0, -18.9515827053)]
)
def test_mean_bounds_are_the_closed_forms(mean, variance, expected):
    """Of 4000 events that are one: their means are the expectations."""
    vae = vae_of(mean, variance)
    many = found(vae, np.repeat(X[None], 4000, axis=0), samples=5, steps=0)
    assert many.elbo.mean == pytest.approx(expected, abs=4 * many.elbo.standard_error + 1e-5)
    if variance == 0.1:
        assert many.iwae.mean == pytest.approx(-2.7815, abs=4 * many.iwae.standard_error + 5e-5)
        iwae = found(vae, np.repeat(X[None], 2000, axis=0), samples=50, steps=0).iwae
        assert iwae.mean == pytest.approx(-2.7617, abs=4 * iwae.standard_error + 5e-5)
    assert many.iwae.mean < TRUTH + 3 * many.iwae.standard_error + 1e-5
    assert many.ais is None


@pytest.mark.parametrize("from_prior", [False, True])
def test_annealing_brackets_the_likelihood(from_prior):
    """Of data that the model drew, and a posterior that is off: below by annealing, above by annealing back."""
    vae = vae_of(0.3, 0.5)
    drawn = metrics.simulated(jax.random.key(1), vae, 200)
    assert np.cov(np.asarray(drawn.x - B - drawn.z * W).T) == pytest.approx(np.eye(2) / 4, abs=0.1)
    truth = scipy.stats.multivariate_normal(B, np.outer(W, W) + np.eye(2) / 4).logpdf(drawn.x).mean()
    many = found(vae, drawn.x, z=drawn.z, steps=60, from_prior=from_prior)
    # the events are the same: what is left is the noise of the weights, far below .02 nats in the mean of 200
    assert many.elbo.mean < many.iwae.mean < many.ais.mean < truth + 0.02
    assert truth - 0.02 < many.reverse_ais.mean
    # 60 steps from one density for all events
    assert abs(many.ais.mean - truth) < 0.1
    assert abs(many.reverse_ais.mean - truth) < 0.1
    assert many.ais_ess > 4
    assert 0.4 < many.acceptance < 0.95
    assert "upper bound" in str(many)


def test_the_space_of_the_data_is_printed():
    grey = np.random.default_rng(0).random((40, 6)).astype(np.float32)
    bits, again = (jg.data.binarized(seed, grey) for seed in (7, 7))
    np.testing.assert_array_equal(bits.x, again.x)
    assert set(np.unique(bits.x)) == {0.0, 1.0}
    assert (bits.x != jg.data.binarized(8, grey).x).any()
    vae = jg.VAE.init(jax.random.key(0), bits.x, jg.StandardNormal((2,)), hidden=(4,))
    found = metrics.bounds(jax.random.key(1), vae, bits, samples=5, steps=0)
    assert found.space == found.elbo.space == "bits, Bernoulli(x) of seed 7"
    assert str(found).count("seed 7") == 1
    assert "of bits, Bernoulli(x) of seed 7" in str(jg.score(jax.random.key(1), vae, bits))
    whole = np.arange(256).reshape(4, 64)
    numbers = jg.data.dequantized(0, whole)
    np.testing.assert_array_equal(np.floor(np.asarray(numbers.x, np.float64) * 256), whole)
    for call in (lambda: jg.data.binarized(0, 2 * whole), lambda: jg.data.dequantized(0, grey),
                 lambda: jg.data.binarized(0.5, grey)):  # fmt: skip
        with pytest.raises(jg.DataError):
            call()


def test_in_float64_every_digit_is_there():
    with jax.enable_x64(True):
        given = vae_of(6 / 7, 1 / 21, dtype=jnp.float64).inference(jnp.asarray(X))
        z, log_q = given.propose(jax.random.key(0))
        assert float(given.log_likelihood(z) + given.log_prior(z) - log_q) == pytest.approx(TRUTH, abs=1e-11)
        off = vae_of(0.8, 0.1, dtype=jnp.float64).inference(jnp.asarray(X))
        # the expected likelihood in closed form: what a normal of mean m and variance v leaves
        residual = X - B - 0.8 * W
        expected = -2 * (residual @ residual + 0.1 * W @ W) - np.log(2 * np.pi) + 2 * np.log(2)
        assert expected - float(jnp.sum(off.divergence())) == pytest.approx(-2.9728752518, abs=1e-10)


def test_conditional_models_and_sequences_have_bounds():
    """Of a model with a context, and of sequences whose prior is a hidden Markov model."""
    x, context = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32), np.eye(6, dtype=np.float32)
    vae = jg.VAE.init(jax.random.key(0), x, jg.StandardNormal((2,)), hidden=(4,), context_shape=(6,),
                      likelihood=jg.likelihoods.gaussian)  # fmt: skip
    one = metrics.bounds(jax.random.key(1), vae, (x, context), samples=20, chains=4, steps=10)
    assert one.elbo.mean < one.ais.mean
    scales = [[1.0], [1.0]]
    emissions = jg.DiagonalGaussian.from_values([[0.0], [2.0]], scales)
    hmm = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], emissions)
    steps = x.reshape(6, 2, 2)
    sequences = jg.VAE.init(jax.random.key(0), steps, hmm, hidden=(4,), likelihood=jg.likelihoods.gaussian)
    drawn = metrics.simulated(jax.random.key(2), sequences, 30, length=2)
    assert drawn.z.shape == (30, 2, 1)
    two = metrics.bounds(jax.random.key(3), sequences, drawn.x, samples=20, steps=0)
    assert two.elbo.mean < two.iwae.mean


def test_chains_that_stand_still_are_told():
    q = jg.posteriors.VonMisesFisher((2,))
    vae = jg.VAE.init(jax.random.key(0), np.zeros((4, 3)), jg.posteriors.UniformSphere((2,)), posterior=q, hidden=(4,))
    with pytest.warns(jg.JaxgenWarning, match="hardly moved"):
        metrics.bounds(jax.random.key(1), vae, np.zeros((2, 3)), samples=5, chains=4, steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.bounds(jax.random.key(1), vae, np.zeros((2, 3)), samples=5, steps=0)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"samples": 0}, jg.FitError), ({"chains": 1}, jg.FitError), ({"steps": -1}, jg.FitError),
     ({"z": np.zeros((2, 1))}, jg.DataError)],
)  # fmt: skip
def test_bad_calls_are_refused(options, error):
    with pytest.raises(error):
        metrics.bounds(jax.random.key(0), vae_of(0.0, 1.0), X[None], **options)


def test_a_density_has_no_hidden_variables():
    with pytest.raises(jg.ModelError, match="inference"):
        metrics.bounds(jax.random.key(0), jg.StandardNormal((2,)), X[None])
