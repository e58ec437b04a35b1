"""Contrastive divergence and its kin against gradients written out by hand, and exact likelihoods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from machines import enumerated, family, fits, index, states
from scipy import special

import jaxgen as jg
from jaxgen.core.errors import FitError, JaxgenWarning, ModelError
from jaxgen.core.inputs import Batch
from jaxgen.core.pytree import fixed, model
from jaxgen.fit.contrastive import ContrastiveDivergence, default_optimizer
from jaxgen.fit.negative import Persistent, Tempered
from jaxgen.fit.penalties import Decay, Sparsity
from jaxgen.metrics import monitors
from jaxgen.metrics.partition import log_likelihood
from jaxgen.models.energy.rbm import RBM

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
        assert set(metrics) == {"loss", "data_energy", "chain_energy", "gradient_norm"}
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
    energies = positive @ rbm.energy(DATA), negative @ rbm.energy(samples)
    np.testing.assert_allclose([metrics["data_energy"], metrics["chain_energy"]], energies, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], energies[0] - energies[1], atol=1e-5)


@pytest.mark.parametrize(("algorithm", "least"), [
    (ContrastiveDivergence(), -3.2),
    (ContrastiveDivergence(k=10, chains=None), -3.6),
])  # fmt: skip
def test_training_raises_the_exact_likelihood(algorithm, least):
    x = bars_and_stripes(3)  # 14 patterns: the optimum is -log 14 = -2.64, independent bits have -6.24
    start = RBM.init(jax.random.key(0), x, 12)
    begin = jax.jit(algorithm.init)(jax.random.key(1), start)
    state, metrics = train(jax.random.key(2), begin, jnp.asarray(x), algorithm, 8000)
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


def test_reused_chains_are_the_fields_of_the_last_gradient():
    rbm, x = family(4, 3), jnp.asarray(DATA, jnp.float32)
    energy, field = rbm.energy_and_field(x)
    np.testing.assert_allclose(energy, rbm.energy(x), atol=1e-6)
    np.testing.assert_allclose(field, DATA @ np.asarray(rbm.weights), atol=1e-6)
    key = jax.random.key(3)
    np.testing.assert_array_equal(rbm.kernel_from(key, field), rbm.kernel(key, x))
    algorithm = ContrastiveDivergence(optax.sgd(0.5), negative=Persistent(9, reuse=True), average=None)
    begin = jax.jit(algorithm.init)(jax.random.key(0), rbm)
    samples = rbm.kernel_from(key, begin.chains)
    new, metrics = jax.jit(algorithm.step)(key, begin, Batch(x))
    # of the parameters before the update, by which the next hidden units are drawn
    np.testing.assert_allclose(new.chains, samples @ rbm.weights, atol=1e-5)
    np.testing.assert_allclose(metrics["chain_energy"], rbm.energy(samples).mean(), atol=1e-5)
    change = 0.5 * (DATA.mean(0) - np.asarray(samples).mean(0))
    np.testing.assert_allclose(new.model.visible_bias - rbm.visible_bias, change, atol=1e-6)
    still = ContrastiveDivergence(optax.sgd(0.0), negative=Persistent(2000, reuse=True), average=None)
    state, _ = train(jax.random.key(1), jax.jit(still.init)(jax.random.key(0), rbm), x, still, 20)
    sampled = rbm.kernel_from(jax.random.key(5), state.chains)
    assert fits(np.bincount(index(sampled), minlength=16), np.exp(enumerated(4, 3)[1]))


def test_penalties_have_the_gradients_of_their_formulas():
    rbm, x = family(4, 3), jnp.asarray(DATA)
    weight = jnp.array([1.0, 2.0, 1.0])
    plain, with_penalties = (
        ContrastiveDivergence(optax.sgd(0.5), chains=7, average=None, penalty=penalty)
        for penalty in (None, (Decay(0.3), Sparsity(0.2, 0.7)))
    )
    moved = []
    for algorithm in (plain, with_penalties):
        state = jax.jit(algorithm.init)(jax.random.key(0), rbm)
        new, metrics = jax.jit(algorithm.step)(jax.random.key(1), state, Batch(x, None, weight))
        moved.append(new.model)
    w, c = np.asarray(rbm.weights, np.float64), np.asarray(rbm.hidden_bias, np.float64)
    p, share = special.expit(DATA @ w + c), np.array([0.25, 0.5, 0.25])
    excess = 0.7 * (share @ p - 0.2)
    slope = excess * share[:, None] * p * (1 - p)  # of the penalty in the fields [N, H]
    near = functools.partial(np.testing.assert_allclose, atol=1e-6)
    near(moved[1].visible_bias, moved[0].visible_bias)
    near(moved[1].hidden_bias - moved[0].hidden_bias, -0.5 * slope.sum(0))
    near(moved[1].weights - moved[0].weights, -0.5 * (0.3 * w + DATA.T @ slope))
    near(metrics["penalty"], 0.15 * (w**2).sum() + 0.35 * ((share @ p - 0.2) ** 2).sum())


def two_modes():
    """All bits on or all off, each as likely, and next to nothing between: seen from zeros, a barrier of 9 nats."""
    return RBM.from_values(np.full(6, -6.0), np.full(4, -9.0), np.full((6, 4), 3.0))


def test_tempered_chains_cross_where_others_stay():
    rbm, x = two_modes(), jnp.zeros((1, 6))
    share = {}
    # a flat end that is open to both modes, which the machine's own biases are not
    tempered = Tempered(500, 8, path=lambda model: model.annealing_path(jnp.zeros(6)))
    for name, negative in {"tempered": tempered, "persistent": Persistent(500)}.items():
        algorithm = ContrastiveDivergence(optax.sgd(0.0), negative=negative, average=None)
        state, metrics = train(jax.random.key(1), jax.jit(algorithm.init)(jax.random.key(0), rbm), x, algorithm, 300)
        samples = np.asarray(state.chains if name == "persistent" else state.chains[-1])
        share[name] = (samples.mean(1) > 0.5).mean()
        if name == "tempered":
            assert state.chains.shape == (8, 500, 6)
            assert ((metrics["swap_acceptance_min"] > 0) & (metrics["swap_acceptance"] <= 1)).all()
            assert (metrics["swap_acceptance_min"] <= metrics["swap_acceptance"]).all()
    p = np.exp(-np.asarray(rbm.energy(states(6)), np.float64))
    on = p[states(6).mean(1) > 0.5].sum() / p.sum()
    # 500 chains, of which those of one ladder are not independent in time, but with each other: 4 deviations
    assert abs(share["tempered"] - on) < 4 * np.sqrt(on * (1 - on) / 500)
    assert share["persistent"] < 0.1 < on


def test_tempered_chains_keep_each_replica_at_its_own_distribution():
    rbm, x = family(4, 3, 2.0), jnp.asarray(DATA)
    algorithm = ContrastiveDivergence(optax.sgd(0.0), average=None, negative=Tempered(2000, betas=(0.0, 0.5, 1.0), k=3))
    state, metrics = train(jax.random.key(1), jax.jit(algorithm.init)(jax.random.key(0), rbm), x, algorithm, 20)
    # the samples are those of the model itself
    np.testing.assert_allclose(metrics["chain_energy"][-1], rbm.energy(state.chains[-1]).mean(), rtol=1e-5)
    for beta, chains in zip((0.0, 0.5, 1.0), state.chains, strict=True):
        energy = np.asarray(rbm.interpolate(beta).energy(states(4)), np.float64)
        assert fits(np.bincount(index(chains), minlength=16), special.softmax(-energy))


def test_tempered_chains_resume_bit_for_bit(tmp_path):
    x = jnp.asarray(bars_and_stripes(2), jnp.float32)
    algorithm = ContrastiveDivergence(negative=Tempered(6, 3), penalty=Decay(1e-3))
    fit = functools.partial(jg.fit, jax.random.key(0), RBM.init(jax.random.key(1), x, 3), x, algorithm)
    straight = fit(steps=20)
    fit(steps=10, checkpoint=tmp_path)
    resumed = fit(steps=20, checkpoint=tmp_path)
    for a, b in zip(jax.tree.leaves(straight.state), jax.tree.leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(straight.history["swap_acceptance"], resumed.history["swap_acceptance"])


def test_monitors_are_what_they_say():
    rbm, batch = family(4, 3), Batch(jnp.asarray(DATA), None, jnp.array([1.0, 2.0, 0.0]))
    log_p = enumerated(4, 3)[1][index(DATA)]
    exactly, annealed, gap = (
        ContrastiveDivergence(score=score).evaluate(jax.random.key(0), rbm, batch)
        for score in (monitors.exact, monitors.Annealed(200, 200), monitors.Gap(DATA[2:]))
    )
    np.testing.assert_allclose(exactly, (log_p[0] + 2 * log_p[1]) / 3, atol=1e-5)
    np.testing.assert_allclose(annealed, exactly, atol=0.05)  # ten standard errors of log Z
    np.testing.assert_allclose(gap, exactly - log_p[2], atol=1e-5)


def test_a_diverging_model_ends_with_a_status():
    x = jnp.asarray(np.random.default_rng(0).normal([3.0, -1.0], 0.5, (50, 2)), jnp.float32)
    start = Well(jnp.zeros(2), jnp.full(2, 0.7))
    with pytest.warns(JaxgenWarning, match="not finite"):
        fitted = jg.fit(jax.random.key(0), start, x, ContrastiveDivergence(optax.sgd(3.0), average=None), steps=500)
    assert fitted.status == jg.Status.NON_FINITE
    assert 10 < fitted.steps < 500
    loss = fitted.history["loss"]
    assert np.isfinite(np.asarray(fitted.model.center)).all() and np.isfinite(loss[:-1]).all()
    assert np.unique(loss[:-1]).size == len(loss) - 1 and np.isnan(loss[-1])  # no constant in its place
    assert np.abs(loss[-2]) > 1e6 * np.abs(loss[0])


def test_the_default_step_size_falls_to_zero():
    optimizer = default_optimizer()
    state, steps = optimizer.init(jnp.zeros(())), []
    for _ in range(2000):
        update, state = optimizer.update(jnp.ones(()), state)
        steps.append(-float(update))
    assert (np.diff(steps) < 0).all()
    far = jax.tree.map(lambda a: jnp.asarray(10**9, a.dtype) if jnp.issubdtype(a.dtype, jnp.integer) else a, state)
    assert 0 <= -float(optimizer.update(jnp.ones(()), far)[0]) < 1e-5


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda key: ContrastiveDivergence().init(key, "no model"), FitError, "energy and kernel"),
    (lambda key: ContrastiveDivergence(k=0).init(key, family(4, 3)), FitError, "k=0"),
    (lambda key: ContrastiveDivergence(chains=0).init(key, family(4, 3)), FitError, "chains=0"),
    (lambda key: ContrastiveDivergence(average=jg.Average(1.0)).init(key, family(4, 3)), FitError, "moving average"),
    (lambda key: ContrastiveDivergence(negative=100).init(key, family(4, 3)), FitError, "Tempered"),
    (lambda key: ContrastiveDivergence(penalty=0.1).init(key, family(4, 3)), FitError, "penalties"),
    (lambda key: ContrastiveDivergence(score="exact").init(key, family(4, 3)), FitError, "scores are functions"),
    (lambda key: ContrastiveDivergence(negative=Tempered(replicas=1)).init(key, family(4, 3)), FitError, "replicas=1"),
    (lambda key: ContrastiveDivergence(negative=Tempered(betas=(0.5, 1.0))).init(key, family(4, 3)), FitError,
     "from 0.5 to 1"),
    (lambda key: ContrastiveDivergence(negative=Tempered()).init(key, Well(jnp.zeros(2), jnp.ones(2))), ModelError,
     "annealing_path"),
    (lambda key: ContrastiveDivergence(negative=Persistent(reuse=True)).init(key, Well(jnp.zeros(2), jnp.ones(2))),
     FitError, "no field to reuse"),
    (lambda key: ContrastiveDivergence(negative=Persistent(9, 2, reuse=True)).init(key, family(4, 3)), FitError, "k=2"),
    (lambda key: ContrastiveDivergence(negative=Tempered).init(key, family(4, 3)), FitError, "no source"),
    (lambda key: Sparsity(0.1, 1.0)(Well(jnp.zeros(2), jnp.ones(2)), Batch(jnp.zeros((1, 2)))), FitError, "encode"),
    (lambda key: monitors.exact(key, Well(jnp.zeros(2), jnp.ones(2)), Batch(jnp.zeros((1, 2)))), FitError, "Annealed"),
    (lambda key: jg.fit(key, family(4, 3), (DATA, DATA), steps=1), FitError, "context of data"),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call(jax.random.key(0))
