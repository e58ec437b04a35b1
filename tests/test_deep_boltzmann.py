"""Deep Boltzmann machines and belief networks against sums over all joint states by numpy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from machines import fits, states
from scipy import special

import jaxgen as jg
from jaxgen import units
from jaxgen.core.errors import DataError, FitError, ModelError
from jaxgen.metrics.partition import ais
from jaxgen.models.energy.deep_belief import DeepBelief
from jaxgen.models.energy.deep_boltzmann import DeepBoltzmann

SIZES = (3, 2, 2, 2)


def numbers():
    """Biases, weights and centres of four layers of bits."""
    rng = np.random.default_rng(3)
    biases = [0.5 * rng.normal(size=n) for n in SIZES]
    weights = [rng.normal(size=(a, b)) for a, b in itertools.pairwise(SIZES)]
    return biases, weights, [rng.uniform(size=n) for n in SIZES]


def machine(dtype=np.float32):
    biases, weights, centers = ([a.astype(dtype) for a in part] for part in numbers())
    return DeepBoltzmann.from_layers([units.Bernoulli(jnp.asarray(b)) for b in biases], weights, centers=centers)


@functools.cache
def joint():
    """`-E` of all states of all layers: `[8, 4, 4, 4]`."""
    biases, weights, centers = numbers()
    total = np.zeros([2**n for n in SIZES])
    rows = [states(n) for n in SIZES]
    for layer, (b, u) in enumerate(zip(biases, rows, strict=True)):
        total += (u @ b).reshape([-1 if k == layer else 1 for k in range(4)])
    for layer, w in enumerate(weights):
        pair = (rows[layer] - centers[layer]) @ w @ (rows[layer + 1] - centers[layer + 1]).T
        total += pair.reshape([len(rows[k]) if k in (layer, layer + 1) else 1 for k in range(4)])
    return total


def even_states():
    return np.array([[*a, *b] for a in states(3) for b in states(2)])


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-12)])
def test_energy_bound_and_partition_function(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        dbm = machine(dtype)
        found = special.logsumexp(joint(), axis=(1, 3)).ravel()
        np.testing.assert_allclose(-dbm.energy(even_states()), found, atol=tolerance)
        np.testing.assert_allclose(dbm.log_partition(), special.logsumexp(joint()), atol=tolerance)
        bound = np.asarray(dbm.log_bound(dbm.pad(states(3).astype(dtype))))
        assert bound.dtype == dtype
    exact = special.logsumexp(joint(), axis=(1, 2, 3))
    assert (bound <= exact + tolerance).all()
    # independent units lose little of an evidence over six bits with weights of one
    assert (exact - bound).max() < 0.5


def test_mean_field_is_exact_where_hidden_layers_are_independent():
    biases, weights, centers = numbers()
    weights[1], weights[2] = np.zeros((2, 2)), np.zeros((2, 2))
    with jax.enable_x64():
        layers = [units.Bernoulli(jnp.asarray(b)) for b in biases]
        dbm = DeepBoltzmann.from_layers(layers, weights, centers=centers)
        rbm = jg.RBM.from_units(*layers[:2], weights[0], visible_center=centers[0], hidden_center=centers[1])
        v = dbm.pad(states(3).astype(float))
        rest = np.logaddexp(0, np.concatenate(biases[2:])).sum()
        np.testing.assert_allclose(dbm.log_bound(v), rest - rbm.energy(states(3)), atol=1e-12)
        features = dbm.encode(v)
        np.testing.assert_allclose(features[:, :2], rbm.encode(states(3)), atol=1e-12)
        others = np.tile(special.expit(np.concatenate(biases[2:])), (8, 1))
        np.testing.assert_allclose(features[:, 2:], others, atol=1e-12)


def test_chains_whole_and_clamped():
    dbm, p = machine(), np.exp(special.logsumexp(joint(), axis=(1, 3)) - special.logsumexp(joint()))
    place = lambda x: np.asarray(x).astype(int) @ [16, 8, 4, 2, 1]  # noqa: E731
    x = dbm.sample(jax.random.key(0), (4000,), sweeps=30)
    assert fits(np.bincount(place(x), minlength=32), p.ravel())
    # what training fills in is drawn from p(hidden | visible), and a hole among the visible units as well
    data = dbm.pad(np.tile([1.0, 0.0, np.nan], (4000, 1)).astype(np.float32))
    y = np.asarray(dbm.complete(jax.random.key(1), data))
    assert (y[:, :2] == [1, 0]).all()
    given = p[4:6].ravel()
    assert fits(np.bincount(place(y) - 16, minlength=8), given / given.sum())
    estimate = ais(jax.random.key(2), dbm, chains=300, steps=200)
    assert abs(estimate.log_z - special.logsumexp(joint())) < 5 * estimate.standard_error < 0.2


def exact_log_likelihood(dbm, x):
    """Mean `log p(v)`: the second layer summed out of the exact energy."""
    hidden = states(dbm.layers[2].sites)
    rows = np.concatenate([np.repeat(x, len(hidden), 0), np.tile(hidden, (len(x), 1))], axis=1)
    energy = np.asarray(dbm.energy(rows.astype(np.float32))).reshape(len(x), -1)
    return special.logsumexp(-energy, axis=1).mean() - float(dbm.log_partition())


def test_training_raises_the_likelihood_of_data():
    x = np.array([[1, 1, 0, 0], [0, 0, 1, 1]] * 8, np.float32)
    start = DeepBoltzmann.init(jax.random.key(0), x, (4, 2), scale=0.1)
    algorithm = jg.ContrastiveDivergence(optax.sgd(0.1))
    fitted = jg.fit(jax.random.key(1), start, start.pad(x), algorithm, steps=1500)
    before, after = (exact_log_likelihood(m, x) for m in (start, fitted.model))
    # independent bits have -4 log 2, the best machine -log 2
    assert before < -2.7
    assert after > -1.5
    model = fitted.model
    assert model.log_bound(model.pad(x)).mean() - model.log_partition() <= after + 1e-4
    for a, b in zip(model.centers, start.centers, strict=True):
        np.testing.assert_array_equal(a, b)


def test_belief_network_bounds_its_likelihood():
    rng = np.random.default_rng(5)
    f = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    below = jg.RBM.from_values(f(3), f(2), f(3, 2))
    top = jg.RBM.from_values(f(2), f(3), f(2, 3))
    dbn = DeepBelief.from_machines([below, top])
    v, h = states(3), states(2)
    log_h = np.asarray(-top.energy(h)) - float(top.log_partition())
    given = np.asarray(below.transposed.encode(h))  # p(v = 1 | h)
    log_v = np.log(np.where(v[:, None], given, 1 - given)).sum(-1)
    exact = special.logsumexp(log_v + log_h, axis=1)
    # the bound by its definition, with the entropy of q
    on = np.asarray(below.encode(v))[:, None]
    q = np.where(h, on, 1 - on).prod(-1)
    bound = (q * (log_v + log_h - np.log(q))).sum(1)
    assert (bound < exact).all()
    draws = np.asarray(dbn.elbo(jax.random.key(0), np.repeat(v[:, None], 4000, 1)))
    error = draws.std(1) / np.sqrt(4000)
    np.testing.assert_array_less(np.abs(draws.mean(1) - bound), 5 * error + 1e-5)
    x = np.asarray(dbn.sample(jax.random.key(1), (4000,), sweeps=40)).astype(int)
    assert fits(np.bincount(x @ [4, 2, 1], minlength=8), np.exp(exact))
    # a machine below whose hidden side is the top's model: the bound is the likelihood
    same = DeepBelief.from_machines([below, below.transposed])
    log_p = -below.energy(v) - below.log_partition()
    np.testing.assert_allclose(same.elbo(jax.random.key(2), v), log_p, atol=2e-6)


def test_greedy_training():
    x = np.array([[1, 1, 0, 0], [0, 0, 1, 1]] * 16)
    one = jg.fit_greedy(jax.random.key(0), x, (4,), steps=1500)
    two = jg.fit_greedy(jax.random.key(0), x, (4, 3), steps=1500)
    bound = [np.asarray(m.elbo(jax.random.key(1), np.tile(x, (20, 1)))).mean() for m in (one, two)]
    # independent bits have -4 log 2
    assert min(bound) > -2
    assert two.encode(x).shape == (32, 3)
    assert jg.score(jax.random.key(2), two, x).kind is jg.Kind.LOWER_BOUND


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda: DeepBoltzmann.from_layers([units.Spin.zeros(2)] * 2, [np.zeros((2, 2))]), ModelError, "an RBM"),
    (lambda: DeepBoltzmann.from_layers([units.Spin.zeros(2)] * 3, [np.zeros((2, 3))] * 2), ModelError, "do not fit"),
    (lambda: DeepBoltzmann.init(jax.random.key(0), [[0, 2]], (2, 2)), DataError, "not bits"),
    (lambda: DeepBoltzmann.init(jax.random.key(0), [[0, 1]], (2,)), ModelError, "two hidden layers"),
    (lambda: machine().check_data([[0, 2, 1, 0, 0]]), DataError, "not bits"),
    (lambda: jg.fit(jax.random.key(0), machine(), np.full((4, 5), np.nan)), DataError, "NaN"),
    (lambda: DeepBelief.from_machines([]), ModelError, "one RBM"),
    (lambda: DeepBelief.from_machines([jg.RBM.from_values(np.zeros(2), np.zeros(3), np.zeros((2, 3)))] * 2),
     ModelError, "events of the next"),
    (lambda: jg.fit_greedy(jax.random.key(0), [[0, 1]], ()), FitError, "hidden="),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call()
