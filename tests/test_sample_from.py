"""Chains of a machine from a start of one's own, and recipes with contexts, weights and labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import every

import jaxgen as jg

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def machine():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 2)).astype(np.float32)
    return jg.RBM.from_values(np.float32([0.3, -0.5, 0.1]), np.float32([0.2, -0.1]), weights)


def shares(draws):
    return np.bincount(np.asarray(draws, int).reshape(-1, 3) @ [4, 2, 1], minlength=8) / np.prod(draws.shape[:-1])


def test_chains_from_a_start_tend_to_the_enumerated_distribution(machine):
    states = every((0, 1), (3,))[0].astype(np.float32)
    exact = np.exp(-np.asarray(machine.energy(states)) - float(machine.log_partition()))
    start = np.ones((50, 3), np.float32)
    draws = jg.sample_from(KEY, machine, start, draws=200, burn_in=20, thin=2)
    assert draws.shape == (200, 50, 3)
    # 10,000 draws, of which neighbours are alike: five standard errors of 2000 independent ones
    np.testing.assert_allclose(shares(draws), exact, atol=0.05)
    # the first draw of a chain is one sweep from its start, and a longer chain goes through the same states
    one = jg.sample_from(KEY, machine, start, draws=1)
    np.testing.assert_array_equal(one[0], machine.kernel(jax.random.fold_in(KEY, 0), start))
    np.testing.assert_array_equal(jg.sample_from(KEY, machine, start, draws=4)[3],
                                  jg.sample_from(KEY, machine, start, draws=2, thin=2)[1])  # fmt: skip
    np.testing.assert_array_equal(jg.sample_from(KEY, machine, start, draws=1, burn_in=3)[0],
                                  jg.sample_from(KEY, machine, start, draws=4)[3])  # fmt: skip


def test_coordinates_stay_where_they_are_observed(machine):
    states = every((0, 1), (3,))[0].astype(np.float32)
    held = states[states[:, 0] == 1]
    exact = np.exp(-np.asarray(machine.energy(held)))
    draws = jg.sample_from(KEY, machine, np.ones((50, 3), np.float32), draws=200, burn_in=20,
                           observed=[True, False, False])  # fmt: skip
    assert (np.asarray(draws)[..., 0] == 1).all()
    np.testing.assert_allclose(shares(draws)[4:], exact / exact.sum(), atol=0.05)


def test_what_has_no_chain_is_refused(machine):
    with pytest.raises(jg.ModelError, match="no chain of its own"):
        jg.sample_from(KEY, jg.StandardNormal((2,)), np.zeros(2))
    for options in ({"draws": 0}, {"burn_in": -1}, {"thin": 0}):
        with pytest.raises(jg.FitError, match="needs steps"):
            jg.sample_from(KEY, machine, np.ones(3), **options)
    with pytest.raises(jg.ShapeError, match="one event"):
        jg.sample_from(KEY, machine, np.ones(4))
    with pytest.raises(jg.DataError, match="0.5|zeros and ones|bits"):
        jg.sample_from(KEY, machine, np.full(3, 0.5))


def test_recipes_take_weights_labels_and_contexts():
    x = np.concatenate([np.full((10, 1), 0.0), np.full((10, 1), 9.0)]) + np.linspace(-1, 1, 20)[:, None]
    label = np.where(np.arange(20) < 10, 1, 0)
    model, _ = jg.recipes.gaussian_mixture(KEY, x, 2, label=label, weight=np.ones(20))
    assert model.components.mean[0, 0] > 5 > model.components.mean[1, 0]
    context = np.linspace(-1, 1, 20)[:, None]
    model, _ = jg.recipes.gaussian_mixture(KEY, x, 2, leaf=jg.LinearRegression.init, context=context)
    assert model.context_shape == (1,)
    model, _ = jg.recipes.hidden_markov(KEY, x[None], 2, leaf=jg.LinearRegression.init, context=context[None])
    assert model.context_shape == (None, 1)
    bits = np.asarray(jax.random.bernoulli(KEY, 0.5, (8, 3)), np.float32)
    model, algorithm = jg.recipes.vae(KEY, bits, 2, hidden=(4,), context_shape=(2,))
    fitted = jg.fit(KEY, model, (bits, np.ones((8, 2), np.float32)), algorithm, steps=2)
    assert fitted.model.sample(KEY, (5,), context=jnp.ones(2)).shape == (5, 3)
    model, algorithm = jg.recipes.gan(KEY, x, 2, hidden=(4,), context_shape=(1,))
    fitted = jg.fit(KEY, model, (x, context), algorithm, steps=2)
    assert fitted.model.sample(KEY, (5,), context=jnp.ones(1)).shape == (5, 1)
