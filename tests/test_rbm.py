"""Restricted Boltzmann machines, contrastive divergence and partition functions against enumeration by numpy."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

from jaxgen.core.errors import DataError, FitError, ModelError, ShapeError
from jaxgen.core.gate import Batch
from jaxgen.core.protocols import Energy, Kind
from jaxgen.core.pytree import fixed, model
from jaxgen.fit.contrastive import ContrastiveDivergence
from jaxgen.metrics.partition import ais, log_likelihood
from jaxgen.models.rbm import RBM

DATA = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]], np.int32)


def family(nv, nh, s=1.0, dtype=np.float32):
    """The machines R(nv, nh, s) of the reference figures."""
    i, j = np.arange(1, nv + 1.0), np.arange(1, nh + 1.0)
    w = s * np.sin(1.7 * i[:, None] + 2.3 * j)
    return RBM.from_parameters(*(a.astype(dtype) for a in (0.3 * np.cos(1.1 * i), -0.2 + 0.4 * np.sin(0.9 * j), w)))


def states(n):
    return np.array(list(itertools.product([0, 1], repeat=n)))


def enumerated(rbm):
    """`(log Z, log p(v) of every v in the order of states)`: the sum over all joint states, nothing simplified."""
    b, c, w = (np.asarray(a, np.float64) for a in (rbm.visible_bias, rbm.hidden_bias, rbm.weights))
    v, h = states(len(b)), states(len(c))
    minus_energy = (v @ b)[:, None] + h @ c + v @ w @ h.T
    log_z = special.logsumexp(minus_energy)
    return log_z, special.logsumexp(minus_energy, axis=1) - log_z


def index(v):
    """The position of bits in the order of `states`."""
    v = np.asarray(v).astype(int)
    return v @ (2 ** np.arange(v.shape[-1])[::-1])


def fits(counts, p):
    """Whether counts fit probabilities, at one false alarm in a million."""
    expected = counts.sum() * p
    return ((counts - expected) ** 2 / expected).sum() < stats.chi2.isf(1e-6, len(p) - 1)


@functools.partial(jax.jit, static_argnames=("algorithm", "steps"))
def train(key, state, x, algorithm, steps):
    step = lambda state, key: algorithm.step(key, state, Batch(x))  # noqa: E731
    return jax.lax.scan(step, state, jax.random.split(key, steps))


def bars_and_stripes(n):
    rows = states(n)
    both = np.concatenate([np.repeat(rows, n, axis=1), np.tile(rows, n)])
    return np.unique(both, axis=0)


@jax.jit
def figures(rbm):
    def mean(rbm):
        return jnp.mean(-rbm.energy(DATA)) - rbm.log_partition()

    log_z, moments = jax.value_and_grad(RBM.log_partition)(rbm)
    zeros = np.zeros(4)
    value, gradient = jax.value_and_grad(mean)(rbm)
    return (
        log_z, moments.visible_bias, -rbm.energy(zeros) - log_z, rbm.pseudo_log_likelihood(zeros), value,
        gradient.visible_bias, rbm.encode(DATA), rbm.kernel(jax.random.key(0), rbm.visible_bias),
        rbm.sample(jax.random.key(0), sweeps=2),
    )  # fmt: skip


# the figures are given to 7 decimals; in float32 the energies are sums of a dozen numbers of order one
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 6e-8), (np.float32, 2e-6)])
def test_reference_figures(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        found = figures(family(4, 3, dtype=dtype))
    expected = (
        5.0064656, [0.5411880, 0.4122587, 0.4352687, 0.5280139], -2.7839192, -2.9411704, -3.0436721,
        [0.1254787, 0.2544080, 0.2313980, 0.1386528],
    )  # fmt: skip
    for one, other in zip(found[:6], expected, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=0)
    assert {a.dtype for a in found} == {np.dtype(dtype)}


@pytest.mark.parametrize("sizes", [(5, 3), (3, 5)])
def test_equals_enumeration(sizes):
    rbm = family(*sizes, s=2.0)
    v, (log_z, log_p) = states(sizes[0]), enumerated(rbm)
    # float32 sums of a dozen terms of size up to 10
    near = functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=0)
    near(rbm.log_partition(), log_z)
    near(-rbm.energy(v) - rbm.log_partition(), log_p)
    flips = log_p[index(v[:, None] ^ np.eye(sizes[0], dtype=int))]
    near(rbm.pseudo_log_likelihood(v), (log_p[:, None] - np.logaddexp(log_p[:, None], flips)).sum(1))
    h = states(sizes[1])
    w = np.asarray(rbm.weights)
    near(rbm.encode(v), special.expit(v @ w + np.asarray(rbm.hidden_bias)))
    near(rbm.decode(h[None]), special.expit(h @ w.T + np.asarray(rbm.visible_bias))[None])


def test_enumeration_in_blocks_of_either_side():
    rbm = family(12, 13, 0.5)  # 4 blocks of 1024 states
    other = RBM(rbm.hidden_bias, rbm.visible_bias, rbm.weights.T)
    b, c, w = (np.asarray(a, np.float64) for a in (rbm.visible_bias, rbm.hidden_bias, rbm.weights))
    v = states(12)
    expected = special.logsumexp(v @ b + np.logaddexp(0, v @ w + c).sum(1))
    np.testing.assert_allclose([rbm.log_partition(), other.log_partition()], expected, atol=1e-5)
    p = np.exp(v @ b + np.logaddexp(0, v @ w + c).sum(1) - expected)
    gradient = jax.grad(RBM.log_partition)(rbm)
    np.testing.assert_allclose(gradient.visible_bias, p @ v, atol=1e-5)
    np.testing.assert_allclose(gradient.weights, v.T @ (p[:, None] * special.expit(v @ w + c)), atol=1e-5)


def test_second_derivatives_at_zero_and_batches_of_models():
    zero = RBM.from_parameters(np.zeros(3), np.zeros(2), np.zeros((3, 2)))
    hessian = jax.hessian(lambda c: RBM(zero.visible_bias, c, zero.weights).log_partition())(zero.hidden_bias)
    np.testing.assert_allclose(hessian, np.eye(2) / 4, atol=1e-6)  # the covariance of two independent fair bits
    rbms = [family(4, 3, s) for s in (0.5, 1.0)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *rbms)
    both = jax.vmap(lambda m: m.log_partition() + m.energy(DATA))(stacked)
    np.testing.assert_allclose(both, [m.log_partition() + m.energy(DATA) for m in rbms], atol=1e-6)


def test_kernel_is_the_exact_gibbs_transition_and_keeps_p():
    rbm, n = family(4, 3, 2.0), 2000
    v, h, (_, log_p) = states(4), states(3), enumerated(rbm)
    w = np.asarray(rbm.weights, np.float64)

    def bernoulli(bits, inputs):
        return np.where(bits, special.expit(inputs)[:, None], special.expit(-inputs)[:, None]).prod(-1)

    to_h = bernoulli(h[None], v @ w + np.asarray(rbm.hidden_bias))
    to_v = bernoulli(v[None], h @ w.T + np.asarray(rbm.visible_bias))
    transition = to_h @ to_v
    np.testing.assert_allclose(np.exp(log_p) @ transition, np.exp(log_p), atol=1e-7)  # the reference itself is right
    moved = rbm.kernel(jax.random.key(0), np.repeat(v[:, None].astype(bool), n, axis=1))
    assert moved.shape == (16, n, 4)
    assert moved.dtype == bool
    for row, p in zip(index(moved), transition, strict=True):
        assert fits(np.bincount(row, minlength=16), p)


def test_sample_tends_to_p():
    rbm = family(4, 3)
    x = rbm.sample(jax.random.key(1), (20, 200), sweeps=30)
    assert x.shape == (20, 200, 4)
    assert fits(np.bincount(index(x).ravel(), minlength=16), np.exp(enumerated(rbm)[1]))


def test_init_starts_at_the_data():
    x = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0]])
    rbm = RBM.init(jax.random.key(0), x.astype(bool), 5, scale=1e-4)
    np.testing.assert_allclose(rbm.visible_bias, [np.log(9), -np.log(9), 0], atol=1e-6)
    assert rbm.weights.shape == (3, 5)
    assert 0 < np.abs(rbm.weights).max() < 1e-3
    assert not rbm.hidden_bias.any()
    assert isinstance(rbm, Energy)
    many = jax.vmap(lambda key: RBM.init(key, x, 5))(jax.random.split(jax.random.key(0), 2))
    assert many.weights.shape == (2, 3, 5)


def test_ais_standard_error_is_honest():
    rbm = family(8, 6, 2.0)
    base = np.linspace(-1, 1, 8)  # not the machine's own biases
    run = jax.vmap(lambda key: ais(key, rbm.annealing_path(base), chains=40, betas=jnp.linspace(0, 1, 60) ** 2)[:2])
    log_z, error = run(jax.random.split(jax.random.key(2), 100))
    z = (log_z - enumerated(rbm)[0]) / error
    # z is near standard normal; the mean of 100 is 4 of its deviations from 0 once in 16000, the spread of z and the
    # bias of a log of a mean (half the squared error, here .01 / error .13) stay well inside
    assert abs(z.mean()) < 0.5
    assert 0.75 < z.std() < 1.4
    assert 0.05 < error.mean() < 0.3


class Scaled(NamedTuple):
    """A normal density up to its constant, with a kernel that draws afresh."""

    scale: jax.Array
    event_shape = ()

    def energy(self, x):
        return 0.5 * (x / self.scale) ** 2

    def kernel(self, key, x):
        return self.scale * jax.random.normal(key, x.shape, x.dtype)


class Widening(NamedTuple):
    to: jax.Array

    def at(self, beta):
        return Scaled(1 + beta * (self.to - 1))

    def sample(self, key, shape=()):
        return jax.random.normal(key, shape)

    def log_partition(self):
        return jnp.asarray(0.5 * np.log(2 * np.pi))


def test_ais_serves_any_path():
    estimate = ais(jax.random.key(0), Widening(jnp.float32(3.0)), chains=300, steps=200)
    exact = 0.5 * np.log(2 * np.pi) + np.log(3)
    assert abs(estimate.log_z - exact) < 5 * estimate.standard_error < 0.1


def test_ais_and_the_likelihood_say_what_they_are():
    rbm = family(4, 3)
    exact = log_likelihood(rbm, DATA)
    log_p = enumerated(rbm)[1][index(DATA)]
    assert exact.kind is Kind.EXACT
    assert exact.events == 3
    np.testing.assert_allclose(exact[:2], [log_p.mean(), stats.sem(log_p)], atol=1e-6)
    estimate = ais(jax.random.key(0), rbm)
    assert abs(estimate.log_z - 5.0064656) < 0.05
    assert estimate.kind is Kind.ESTIMATE
    assert 400 < estimate.ess <= 500
    assert estimate.log_weights.shape == (500,)
    score = log_likelihood(rbm, DATA, estimate)
    assert score.kind is Kind.ESTIMATE
    assert score.standard_error > exact.standard_error
    np.testing.assert_allclose(score.mean - exact.mean, 5.0064656 - estimate.log_z, atol=1e-5)


@pytest.mark.parametrize("chains", [7, None])
def test_update_is_the_difference_of_two_expectations(chains):
    rbm = family(4, 3)
    algorithm = ContrastiveDivergence(optax.sgd(0.5), k=2, chains=chains, average=None)
    state = jax.jit(algorithm.init)(jax.random.key(0), rbm)
    weight = np.array([0.5, 2.0, 0.0], np.float32)
    batch = Batch(jnp.asarray(DATA), None, jnp.asarray(weight))
    new, metrics = jax.jit(algorithm.step)(jax.random.key(1), state, batch)
    start = DATA if chains is None else state.chains
    samples = jnp.asarray(start)
    for t in range(2):  # the schedule of keys is part of the algorithm's reproducibility
        samples = rbm.kernel(jax.random.fold_in(jax.random.key(1), t), samples)
    if chains is None:
        assert new.chains is None
        reconstruction = ((np.asarray(samples) - DATA) ** 2).mean(1) @ weight / 2.5
        np.testing.assert_allclose(metrics["reconstruction_error"], reconstruction, atol=1e-6)
    else:
        assert (new.chains == samples).all()
        assert set(metrics) == {"loss", "gradient_norm"}
    positive = weight / 2.5
    negative = positive if chains is None else np.full(7, 1 / 7)
    samples, w = np.asarray(samples), np.asarray(rbm.weights)
    h, h2 = (special.expit(v @ w + np.asarray(rbm.hidden_bias)) for v in (DATA, samples))
    expected = (
        positive @ DATA - negative @ samples, positive @ h - negative @ h2,
        (positive[:, None] * DATA).T @ h - (negative[:, None] * samples).T @ h2,
    )  # fmt: skip
    for before, after, gradient in zip(jax.tree.leaves(rbm), jax.tree.leaves(new.model), expected, strict=True):
        np.testing.assert_allclose(after - before, 0.5 * gradient, atol=1e-6)
    norm = np.sqrt(sum((g**2).sum() for g in expected))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], positive @ rbm.energy(DATA) - negative @ rbm.energy(samples), atol=1e-5)


@pytest.mark.parametrize(("algorithm", "least"), [
    (ContrastiveDivergence(), -3.2),
    (ContrastiveDivergence(k=10, chains=None), -3.6),
])  # fmt: skip
def test_training_raises_the_exact_likelihood(algorithm, least):
    x = bars_and_stripes(3)  # 14 patterns: the optimum is -log 14 = -2.64, independent bits have -6.24
    start = RBM.init(jax.random.key(0), x, 12)
    begin = jax.jit(algorithm.init)(jax.random.key(1), start)
    state, metrics = train(jax.random.key(2), begin, jnp.asarray(x), algorithm, 3000)
    assert log_likelihood(start, x).mean < -6
    assert log_likelihood(state.model, x).mean > least
    assert np.isfinite(metrics["loss"]).all()
    before, after = (algorithm.evaluate(jax.random.key(0), m, Batch(jnp.asarray(x))) for m in (start, state.model))
    assert after > before + 2


def test_chains_persist_and_the_key_decides():
    rbm, x = family(4, 3), jnp.asarray(DATA)
    algorithm = ContrastiveDivergence(optax.sgd(0.0), chains=1000)
    assert algorithm == ContrastiveDivergence(optax.sgd(0.0), chains=1000)  # a rebuilt one compiles nothing
    begin = jax.jit(algorithm.init)(jax.random.key(0), rbm)
    state, again, other = (train(jax.random.key(k), begin, x, algorithm, 20)[0] for k in (1, 1, 2))
    assert (state.chains == again.chains).all()
    assert (state.chains != other.chains).any()
    # a step size of zero leaves the model, so that the chains sample it from the start to the end
    assert (state.model.weights == rbm.weights).all()
    for chains in (begin.chains, state.chains):
        assert fits(np.bincount(index(chains), minlength=16), np.exp(enumerated(rbm)[1]))


@model
class Well:
    """A normal energy around a trained center, of fixed width."""

    center: jax.Array
    width: jax.Array = fixed()

    @property
    def event_shape(self):
        return self.center.shape

    def energy(self, x):
        return 0.5 * jnp.sum(((x - self.center) / self.width) ** 2, axis=-1)

    def kernel(self, key, x):
        return self.center + self.width * jax.random.normal(key, x.shape, x.dtype)


def test_any_energy_trains_and_fixed_fields_stay():
    x = jnp.asarray(np.random.default_rng(0).normal([3.0, -1.0], 0.5, (200, 2)), jnp.float32)
    algorithm = ContrastiveDivergence(optax.sgd(0.01))
    start = Well(jnp.zeros(2), jnp.full(2, 0.7))
    begin = jax.jit(algorithm.init)(jax.random.key(0), start)
    state, _ = train(jax.random.key(1), begin, x, algorithm, 2000)
    # 0.05 is four times the spread that the chains' noise leaves in the average
    np.testing.assert_allclose(state.model.center, x.mean(0), atol=0.05)
    assert (state.model.width == start.width).all()
    with pytest.raises(FitError, match="pseudo_log_likelihood"):
        algorithm.evaluate(jax.random.key(0), start, Batch(x))


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda key: RBM.init(key, [[0.0, 3.0], [1.0, 16.0]], 2), DataError, "x > 8"),
    (lambda key: RBM.init(key, [0, 1, 1], 2), ShapeError, "reshape"),
    (lambda key: RBM.init(key, DATA, 0), ModelError, "hidden"),
    (lambda key: RBM.init(key, DATA, 2.5), ModelError, "2.5"),
    (lambda key: RBM.init(key, [["a", "b"]], 2), DataError, "not numeric"),
    (lambda key: RBM.from_parameters(np.zeros(3), np.zeros(2), np.zeros((2, 3))), ModelError, "weights.T"),
    (lambda key: family(4, 3).energy(np.zeros(5)), ShapeError, r"\[\*batch, 4\]"),
    (lambda key: family(4, 3).decode(np.zeros(4)), ShapeError, r"\[\*batch, 3\]"),
    (lambda key: family(23, 24).log_partition(), ModelError, "annealed importance sampling"),
    (lambda key: family(4, 3).annealing_path(np.zeros(3)), ModelError, "base"),
    (lambda key: family(4, 3).check_data([[0, 2, 1, 0]]), DataError, "threshold"),
    (lambda key: log_likelihood(family(4, 3), [[0, 2, 1, 0]]), DataError, "threshold"),
    (lambda key: log_likelihood(family(4, 3), DATA, 5.0), ModelError, "exact"),
    (lambda key: log_likelihood(Scaled(1.0), [1.0]), ModelError, "ais"),
    (lambda key: ais(key, Scaled(1.0)), ModelError, "annealing_path"),
    (lambda key: ais(0, family(4, 3)), DataError, "jax.random.key"),
    (lambda key: ais(key, family(4, 3), chains=1), FitError, "chains=1"),
    (lambda key: ais(key, family(4, 3), betas=[0.0, 0.5]), FitError, "exactly 1"),
    (lambda key: ContrastiveDivergence().init(key, Widening(1.0)), FitError, "energy and kernel"),
    (lambda key: ContrastiveDivergence(k=0).init(key, family(4, 3)), FitError, "k=0"),
    (lambda key: ContrastiveDivergence(chains=0).init(key, family(4, 3)), FitError, "chains=0"),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call(jax.random.key(0))
