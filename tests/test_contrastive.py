"""Contrastive divergence and its kin against gradients written out by hand, and exact likelihoods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from machines import enumerated, family, fits, index, states
from scipy import special

from jaxgen.core.errors import FitError
from jaxgen.core.gate import Batch
from jaxgen.core.pytree import fixed, model
from jaxgen.fit.contrastive import ContrastiveDivergence
from jaxgen.metrics.partition import log_likelihood
from jaxgen.models.rbm import RBM

DATA = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]], np.int32)


@functools.partial(jax.jit, static_argnames=("algorithm", "steps"))
def train(key, state, x, algorithm, steps):
    step = lambda state, key: algorithm.step(key, state, Batch(x))  # noqa: E731
    return jax.lax.scan(step, state, jax.random.split(key, steps))


def bars_and_stripes(n):
    rows = states(n)
    both = np.concatenate([np.repeat(rows, n, axis=1), np.tile(rows, n)])
    return np.unique(both, axis=0)


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
    for name, gradient in zip(("visible_bias", "hidden_bias", "weights"), expected, strict=True):
        np.testing.assert_allclose(getattr(new.model, name) - getattr(rbm, name), 0.5 * gradient, atol=1e-6)
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
        assert fits(np.bincount(index(chains), minlength=16), np.exp(enumerated(4, 3)[1]))


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
    (lambda key: ContrastiveDivergence().init(key, "no model"), FitError, "energy and kernel"),
    (lambda key: ContrastiveDivergence(k=0).init(key, family(4, 3)), FitError, "k=0"),
    (lambda key: ContrastiveDivergence(chains=0).init(key, family(4, 3)), FitError, "chains=0"),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call(jax.random.key(0))
