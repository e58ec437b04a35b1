"""Games of variational autoencoders, trained: codes that can be read, networks that are inverses, a bound beside."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.games import R1, R2, Pairs
from jaxgen.nn.mlp import MLP

ADAM = optax.adam(2e-3, b1=0.5)


@pytest.fixture(scope="module")
def line():
    """Events along a bent line, three units long and a tenth wide."""
    rng = np.random.default_rng(0)
    along = rng.uniform(-1.5, 1.5, 1000)
    return np.stack([along, along**2 - 0.75], axis=1).astype(np.float32) + 0.05 * rng.normal(size=(1000, 2)).astype(
        np.float32)  # fmt: skip


def start(x, size):
    prior, likelihood = jg.StandardNormal((size,)), jg.likelihoods.gaussian
    return jg.VAE.init(jax.random.key(0), x, prior, hidden=(32,), likelihood=likelihood)


def game(**options):
    critic = MLP((32, 32, 1), jax.nn.silu)
    return jg.Adversarial(critic, ADAM, ADAM, penalties=(R1(0.1), R2(0.1)), average=None, **options)


def spread(model, x):
    """Of decoded draws over that of data, in each direction: what collapses is far below 1."""
    z = model.prior.sample(jax.random.key(5), (1000,))
    return np.asarray(model.decode(z)).std(axis=0) / x.std(axis=0)


def test_codes_of_a_game_can_be_read(line):
    """InfoGAN: of two coordinates of noise the one that is a code is read off samples, far better than by guessing."""
    fitted = jg.fit(jax.random.key(1), start(line, 2), line, game(also=jg.losses.recognition(1)), steps=1000,
                    batch_size=100)  # fmt: skip
    model = fitted.model
    z = model.prior.sample(jax.random.key(2), (1000,))
    read = model.encode(model.decode(z))
    assert abs(np.corrcoef(z[:, 0], read[:, 0])[0, 1]) > 0.95
    np.testing.assert_allclose(spread(model, line), 1, atol=0.4)


def test_both_networks_of_a_game_of_pairs_are_inverses(line):
    """BiGAN: no distance of pixels is asked for, yet events come back, and latents."""
    fitted = jg.fit(jax.random.key(1), start(line, 2), line, game(sides=Pairs()), steps=3000, batch_size=100)
    model = fitted.model
    back = model.decode(model.sample_posterior(jax.random.key(2), jnp.asarray(line)))
    before = np.asarray(line).var()
    assert float(jnp.mean((back - line) ** 2)) < 0.15 * before
    np.testing.assert_allclose(spread(model, line), 1, atol=0.4)


def test_a_bound_beside_a_game(line):
    """VAE-GAN: the bound rises, and the critic hardly tells decoded draws."""
    fitted = jg.fit(jax.random.key(1), start(line, 2), line, game(also=jg.losses.elbo(), also_weight=0.3), steps=1000,
                    batch_size=100)  # fmt: skip
    assert fitted.history["distortion"][-100:].mean() < fitted.history["distortion"][:5].mean() - 0.5
    assert fitted.history["critic_accuracy"][-100:].mean() < 0.7
    np.testing.assert_allclose(spread(fitted.model, line), 1, atol=0.4)
