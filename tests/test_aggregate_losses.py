"""Losses of the aggregate posterior, against closed forms of Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.core.inputs import Batch
from jaxgen.losses import elbo, mmd, total_correlation
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops import likelihoods

KEY = jax.random.key(0)
WEIGHTED = {"x": np.zeros((4, 2)), "weight": np.ones(4)}


def model(noise):
    """The latent is the event, with noise: an encoder that is the identity."""
    raw = 6 * np.arctanh(np.log(noise) / 6)
    kernel = np.concatenate([np.eye(2), np.zeros((2, 2))], axis=1)
    dense = lambda k, b: {"Dense_0": {"kernel": jnp.asarray(k, jnp.float32), "bias": jnp.asarray(b, jnp.float32)}}  # noqa: E731
    encoder = Net(dense(kernel, [0, 0, raw, raw]), MLP((4,), in_shape=(2,), out_shape=(2, 2)))
    decoder = Net(dense(np.eye(2), [0, 0]), MLP((2,), out_shape=(1, 2)))
    return jg.VAE(jg.StandardNormal((2,)), encoder, decoder, likelihoods.GaussianOfScale(0.5), (2,))


def test_total_correlation_of_correlated_normals():
    """The aggregate is N(0, C) with correlation .5: -log(1 - .25) / 2 nats of total correlation."""
    covariance = np.array([[1.0, 0.5], [0.5, 1.0]]) - 0.3**2 * np.eye(2)
    x = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 3000).astype(np.float32)
    found = total_correlation(len(x))(KEY, model(0.3), Batch(jnp.asarray(x)), 0)
    assert float(found.metrics["total_correlation"]) == pytest.approx(0.143841036, abs=0.03)  # of 3000 draws
    # I(x; z) = log det(C) / 2 - 2 log .3, and each coordinate is standard normal
    information = 0.5 * np.log(0.75) - 2 * np.log(0.3)
    assert float(found.metrics["mutual_information"]) == pytest.approx(information, abs=0.06)
    assert float(found.metrics["dimension_rate"]) == pytest.approx(0.0, abs=0.06)


def test_weights_of_one_are_the_bound():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(50, 2)), jnp.float32)
    one = total_correlation(1000, beta=1.0)(KEY, model(0.5), Batch(x), 0)
    parts = sum(float(one.metrics[n]) for n in ("mutual_information", "total_correlation", "dimension_rate"))
    assert parts == pytest.approx(float(one.metrics["rate"]), abs=1e-4)
    assert float(one.value) == pytest.approx(-float(one.metrics["elbo"]), abs=1e-4)
    twice = total_correlation(1000, beta=2.0, alpha=3.0, gamma=0.0)(KEY, model(0.5), Batch(x), 0)
    expected = one.metrics["distortion"] + 3 * one.metrics["mutual_information"] + 2 * one.metrics["total_correlation"]
    assert float(twice.value) == pytest.approx(float(expected), rel=1e-5)


def test_aggregate_of_a_batch_that_is_all():
    """With all events in the batch the aggregate is their mixture, by hand."""
    x = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
    found = total_correlation(5)(KEY, model(0.5), Batch(jnp.asarray(x)), 0).metrics
    keys = jax.random.split(KEY, 5)
    noise = np.stack([np.asarray(jax.random.normal(key, (2,))) for key in keys]).astype(np.float64)
    z = x + 0.5 * noise
    each = -0.5 * ((z[:, None] - x[None]) / 0.5) ** 2 - np.log(0.5 * np.sqrt(2 * np.pi))
    joint = np.log(np.exp(each.sum(2)).mean(1))
    expected = (joint - np.log(np.exp(each).mean(1)).sum(1)).mean()
    assert float(found["total_correlation"]) == pytest.approx(expected, abs=1e-4)


def test_discrepancy_holds_the_aggregate_to_the_prior():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(400, 1)) * [3.0, -3.0] + 0.3 * rng.normal(size=(400, 2)) + 5).astype(np.float32)
    start = jg.VAE.init(KEY, x, jg.StandardNormal((2,)), hidden=(16,), likelihood=likelihoods.GaussianOfScale(0.1))
    held, free = (
        jg.fit(KEY, start, x, jg.Gradient(mmd(weight), optax.adam(5e-3)), steps=300, batch_size=200).history["mmd"]
        for weight in (30.0, 0.0)
    )
    assert held[-50:].mean() < 0.5 * free[-50:].mean()


def test_a_critic_finds_the_total_correlation_and_lowers_it():
    """The latent of two correlated coordinates: the critic's ratio is its correlation at first, and less at the end."""
    covariance = np.array([[1.0, 0.8], [0.8, 1.0]]) - 0.3**2 * np.eye(2)
    x = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 4000).astype(np.float32)
    critic, still = MLP((32, 32, 1)), optax.sgd(0.0)
    algorithm = jg.FactorVAE(critic, gamma=0.0, optimizer=still, critic_optimizer=optax.adam(3e-3), average=None)
    watched = jg.fit(KEY, model(0.3), x, algorithm, steps=800, batch_size=500).history["total_correlation"]
    assert watched[-100:].mean() == pytest.approx(-0.5 * np.log(1 - 0.64), abs=0.1)
    algorithm = jg.FactorVAE(critic, gamma=20.0, optimizer=optax.adam(3e-3), critic_optimizer=optax.adam(3e-3))
    apart = jg.fit(KEY, model(0.3), x, algorithm, steps=800, batch_size=500).model
    z = np.asarray(apart.sample_posterior(KEY, x))
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.4


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: total_correlation(1), "aggregate"),
        (lambda: total_correlation(10, beta=-1.0), "weight"),
        (lambda: mmd(-1.0), "weight"),
        (lambda: total_correlation(9)(KEY, model(0.5), Batch(jnp.zeros((1, 2))), 0), "not known"),
        (lambda: mmd()(KEY, model(0.5), Batch(jnp.zeros((1, 2))), 0), "unweighted"),
        (lambda: jg.FactorVAE(MLP((2,))).init(KEY, model(0.5)), "one number"),
        (lambda: jg.fit(KEY, model(0.5), WEIGHTED, jg.FactorVAE(MLP((1,))), steps=1), "weights would not"),
        (lambda: jg.FactorVAE(MLP((1,))).init(KEY, jg.StandardNormal((2,))), "latent vector"),
        (lambda: elbo()(KEY, jg.StandardNormal((2,)), Batch(jnp.zeros((1, 2))), 0), "inference"),
    ],
)
def test_errors(call, match):
    with pytest.raises(jg.FitError, match=match):
        call()
