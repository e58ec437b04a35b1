"""Chains with relaxed states: their samples against those of the chain, and a game that finds transitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg
from jaxgen.nn.mlp import MLP


def chain(stay=(0.9, 0.8)):
    move = [[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]]
    return jg.HMM.from_values([0.3, 0.7], move, jg.Gaussian.from_values([[-2.0], [2.0]], 0.25 * jnp.ones((2, 1, 1))))


def test_cold_states_are_choices():
    """Pairs of steps as often as pi and A say: 20,000 draws, five standard errors."""
    x = jg.Relaxed.from_hmm(chain(), 2, temperature=1e-4).sample(jax.random.key(0), (20_000,))
    seen = np.asarray(x[..., 0] > 0, int)
    found = np.bincount(2 * seen[:, 0] + seen[:, 1], minlength=4) / len(seen)
    expected = (np.array([0.3, 0.7])[:, None] * [[0.9, 0.1], [0.2, 0.8]]).ravel()
    np.testing.assert_allclose(found, expected, atol=5 * 0.5 / 20_000**0.5)
    # emissions are not blended: each state keeps its own deviation
    assert float(x[..., 0][seen == 1].std()) == pytest.approx(0.5, abs=0.02)


def test_states_that_share_an_emission():
    cycle = jg.MarkovChain.from_values([1.0, 0.0, 0.0], np.roll(np.eye(3), 1, axis=1))
    tied = jg.HMM.from_chain(cycle, chain().emissions, tie=(0, 0, 1))
    x = jg.Relaxed.from_hmm(tied, 6, temperature=1e-3).sample(jax.random.key(0), (50,))
    assert ((x[..., 0] > 0) == np.array([0, 0, 1, 0, 0, 1], bool)).all()


def test_a_game_finds_transitions():
    """A start that forgets everything learns to stay; the chain that made the data stays for .9 and .8 of steps."""
    x = chain().sample(jax.random.key(0), (4000,), length=6)
    start = jg.Relaxed.from_hmm(chain((0.5, 0.5)), 6)
    critic = MLP((32, 32, 1), jax.nn.silu, in_shape=(6, 1))
    game = jg.Adversarial(critic, game=jg.games.Relativistic(), penalties=(jg.games.R1(0.1), jg.games.R2(0.1)))
    found = jg.fit(jax.random.key(1), start, x, game, steps=1500, batch_size=128).model
    np.testing.assert_allclose(np.diag(found.hmm.transition), [0.9, 0.8], atol=0.06)


@pytest.mark.parametrize(
    ("options", "match"),
    [((chain().emissions, 3), "are relaxed"), ((chain(), 0), "has steps"), ((chain(), 3, 0.0), "needs a temperature")],
)
def test_what_is_no_relaxed_chain_is_refused(options, match):
    hmm, length, *temperature = options
    with pytest.raises(jg.ModelError, match=match):
        jg.Relaxed.from_hmm(hmm, length, **({"temperature": temperature[0]} if temperature else {}))
