"""Autoencoders of every kind of hidden variable: bits, labels, directions, pseudo-inputs, ladders, flows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

import jaxgen as jg
from jaxgen import posteriors

#: two groups of rows of six bits
BITS = (np.random.default_rng(0).random((64, 6)) < np.where(np.arange(64)[:, None] < 32, 0.85, 0.15)).astype(np.float32)
ADAM = jg.Gradient(jg.losses.negative_elbo, optax.adam(1e-2))


def vae_of(prior, posterior=None, seed=1):
    return jg.VAE.init(jax.random.key(seed), BITS, prior, posterior=posterior, hidden=(16,))


def exact(vae, z):
    """`log p(x, z)` of all data and all outcomes `[N, S]`, by scipy from what the decoder says."""
    logits = np.asarray(vae.decoder(z), np.float64).reshape(len(z), 6)
    likelihood = -np.logaddexp(0, np.where(BITS[:, None] > 0, -logits, logits)).sum(axis=-1)
    return likelihood + np.asarray(vae.prior.log_prob(z))


@pytest.mark.parametrize(
    ("prior", "posterior"),
    [(jg.Bernoulli.from_values([0.3, 0.6, 0.5]), posteriors.EnumeratedBernoulli((3,))),
     (jg.Multinomial.from_values([0.2, 0.5, 0.3], 1), posteriors.EnumeratedCategorical((3,)))],
    ids=["bits", "label"],
)  # fmt: skip
def test_few_outcomes_are_summed_over(prior, posterior):
    """The bound is `log p(x) - KL(q || p(z | x))`, to rounding, and has no noise."""
    vae = vae_of(prior, posterior)
    z = posterior.outcomes()
    joint = exact(vae, z)
    log_q = np.stack([np.asarray(posterior.log_prob(z, context=c), np.float64) for c in vae.infer(BITS)])
    truth = scipy.special.logsumexp(joint, axis=1)
    gap = (np.exp(log_q) * (log_q - joint + truth[:, None])).sum(axis=1)
    assert gap.min() > 0
    one, other = (vae.elbo(jax.random.key(seed), BITS) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    # float32: sums of terms of size 5
    np.testing.assert_allclose(one, truth - gap, atol=2e-5)
    # the gradient is that of the sum, and a fit of it closes the gap
    fitted = jg.fit(jax.random.key(2), vae, BITS, ADAM, steps=300).model
    left = scipy.special.logsumexp(exact(fitted, z), axis=1) - np.asarray(fitted.elbo(jax.random.key(0), BITS))
    assert -1e-4 < left.mean() < 0.2 * gap.mean()


def trained(prior, posterior, steps=150):
    vae = vae_of(prior, posterior)
    fitted = jg.fit(jax.random.key(2), vae, BITS, ADAM, steps=steps)
    assert fitted.status == jg.Status.FINISHED
    return vae, fitted.model


@pytest.mark.parametrize(
    ("prior", "posterior"),
    [
        (posteriors.RelaxedBernoulli((3,), logits=jnp.zeros(3)), posteriors.RelaxedBernoulli((3,))),
        (posteriors.RelaxedCategorical((3,), logits=jnp.zeros(3)), posteriors.RelaxedCategorical((3,))),
        (posteriors.UniformSphere((3,)), posteriors.VonMisesFisher((3,))),
        (jg.Gaussian.from_values([0.0, 0.0], [[1.0, 0.3], [0.3, 1.0]]), posteriors.FullNormal((2,))),
        (jg.StandardNormal((2,)), posteriors.iaf(jax.random.key(0), 2, 5, layers=1, hidden=(8,))),
        (jg.Ladder.init(jax.random.key(0), (1, 2), hidden=(8,)),
         jg.Ladder.init(jax.random.key(1), (1, 2), context_shape=(5,), hidden=(8,))),
    ],
    ids=["soft bits", "soft label", "directions", "correlated", "flow", "ladder"],
)  # fmt: skip
def test_any_posterior_trains(prior, posterior):
    """Bounds are ordered, and end above that of independent bits, which know of no groups."""
    before, after = trained(prior, posterior)
    key, many = jax.random.key(3), np.repeat(BITS, 5, axis=0)
    elbo, iwae = after.elbo(key, many).mean(), after.iwae(key, many, samples=40).mean()
    assert before.elbo(key, many).mean() < elbo < iwae
    share = BITS.mean(axis=0)
    assert iwae > scipy.stats.bernoulli(share).logpmf(BITS).sum(axis=1).mean() + 0.05
    assert after.encode(BITS).shape == (64, *prior.event_shape) if not isinstance(posterior, jg.Flow) else True


def test_a_prior_of_pseudo_inputs_is_a_mixture_of_posteriors():
    prior = jg.VampPrior.init(jax.random.key(0), BITS, 4, (2,), weights=True)
    assert (prior.inputs[:, None] == BITS[None]).all(-1).any(1).all()  # rows of the data
    prior = jg.VampPrior(prior.inputs, prior.unit, (2,), jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4])))
    vae = vae_of(prior)
    mean, raw = np.moveaxis(np.asarray(vae.infer(prior.inputs), np.float64), 1, 0)
    scale = np.exp(6 * np.tanh(raw / 6))
    z = np.random.default_rng(1).normal(size=(30, 2)).astype(np.float32)
    scores = scipy.stats.norm(mean, scale).logpdf(z[:, None]).sum(-1) + np.log([0.1, 0.2, 0.3, 0.4])
    log_prior = jax.vmap(lambda z: vae.inference(jnp.asarray(BITS[0])).log_prior(z))(z)
    np.testing.assert_allclose(log_prior, scipy.special.logsumexp(scores, axis=1), rtol=1e-5, atol=1e-5)
    slope = jax.grad(lambda v: v.elbo(jax.random.key(3), BITS).sum())(vae).prior
    assert jnp.abs(slope.inputs).max() > 0
    assert jnp.abs(slope.logits).max() > 0
    before, after = trained(prior, None)
    assert after.iwae(jax.random.key(4), BITS).mean() > before.iwae(jax.random.key(4), BITS).mean() + 0.3


def test_pseudo_inputs_are_encoded_once_for_a_batch():
    """In the program of a batch of 50 no product of the encoder's has 50 times the rows of the pseudo-inputs."""
    prior = jg.VampPrior.init(jax.random.key(0), BITS, 7, (2,))
    vae = vae_of(prior)
    jaxpr = str(jax.make_jaxpr(functools.partial(type(vae).elbo, vae))(jax.random.key(0), BITS[:50]))
    assert "50,7,16" not in jaxpr.replace(" ", "")
    assert "7,16" in jaxpr.replace(" ", "")


def test_too_many_pseudo_inputs_are_refused():
    with pytest.raises(jg.ModelError, match="different rows"):
        jg.VampPrior.init(jax.random.key(0), BITS, 65, (2,))
