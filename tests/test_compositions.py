"""Any model is a part of any other: the compositions that the README lists train, and obey the laws as cases do."""


import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.bijections import Affine, Vmap
from jaxgen.core import algebra
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net

N = 400


@pytest.fixture(scope="module")
def plane():
    """Two bent clusters in the plane."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, N)
    side = rng.integers(0, 2, N)
    moon = np.stack([np.cos(angle), np.sin(angle)], 1) * np.where(side, -1, 1)[:, None] + side[:, None] * [1.0, 0.4]
    return (moon + 0.1 * rng.normal(size=(N, 2))).astype(np.float32)


@pytest.fixture(scope="module")
def series():
    """Sequences that switch between two regimes."""
    rng = np.random.default_rng(1)
    state = np.cumsum(rng.random((20, 30)) < 0.1, axis=1) % 2
    noise = rng.normal(size=(20, 30, 2)) * np.array([0.5, 1.5])
    return (np.where(state, 3.0, -3.0)[..., None] + noise).astype(np.float32)


def improves(model, x, algorithm, steps=150, batch_size=None):
    """Fits, and returns the fit after checking that the monitored metric got clearly better."""
    fitted = jg.fit(jax.random.key(0), model, x, algorithm, steps=steps, batch_size=batch_size)
    assert fitted.status in (jg.Status.FINISHED, jg.Status.CONVERGED), fitted.status.message
    values = fitted.history[algorithm.traits.monitor] * (-1 if algorithm.traits.monitor == "loss" else 1)
    assert values[-10:].mean() > values[0] + 0.05, values
    assert all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(fitted.model) if a.dtype == jnp.float32)
    return fitted


ADAM = jg.Gradient(jg.losses.nll, optax.adam(3e-3))


def small_flow(key, x, base=None):
    return jg.recipes.realnvp(key, x, layers=2, features=(16,), base=base)[0]


def test_mixture_of_flows(plane):
    flows = jax.vmap(lambda key: small_flow(key, plane))(jax.random.split(jax.random.key(0), 2))
    fitted = improves(jg.Mixture.from_components(flows), plane, ADAM)
    assert fitted.model.responsibilities(plane).shape == (N, 2)


def test_flow_on_a_mixture_base(plane):
    units = (plane - plane.mean(0)) / plane.std(0)
    base = jg.Mixture.init(jax.random.key(1), units, 3, jg.DiagonalGaussian.init)
    improves(small_flow(jax.random.key(0), plane, base), plane, ADAM)


def test_hmm_of_mixtures(series):
    leaf = lambda key, x: jg.Mixture.init(key, x, 2, jg.DiagonalGaussian.init)  # noqa: E731
    fitted = improves(jg.HMM.init(jax.random.key(0), series, 2, leaf), series, jg.EM(), steps=20)
    assert fitted.model.viterbi(series)[0].shape == series.shape[:2]


def test_hmm_of_flows(series):
    frames = series.reshape(-1, 2)
    flows = jax.vmap(lambda key: small_flow(key, frames))(jax.random.split(jax.random.key(0), 2))
    model = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], flows)
    improves(model, series, ADAM, steps=60)


def test_flow_on_a_hmm(series):
    """Emissions that are not Gaussian, warped alike: the flow finds the warp, and the HMM below the regimes."""
    bent = np.sinh(series / 2)
    frames = bent.reshape(-1, 2)
    regimes = jg.DiagonalGaussian.from_values([[1.0, 1.0], [-1.0, -1.0]], [[0.6, 0.6], [0.6, 0.6]])
    start = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], regimes)
    flow = jg.Flow(start, Vmap(small_flow(jax.random.key(0), frames).bijection))
    fitted = improves(flow, bent, ADAM, steps=30)
    path = np.asarray(fitted.model.base.viterbi(fitted.model.encode(bent))[0])
    side = bent.sum(axis=-1) > 0
    assert max((path == side).mean(), (path != side).mean()) > 0.95
    assert fitted.model.sample(jax.random.key(1), (3,), length=4).shape == (3, 4, 2)


def test_conditional_flow_as_posterior():
    """Amortised inference: from pairs (theta, y) the flow learns `p(theta | y)`, here a Gaussian in closed form."""
    rng = np.random.default_rng(0)
    design = np.array([[1.0, 0.5], [-0.3, 0.8], [0.2, 0.2]])
    theta = rng.normal(size=(4000, 2))
    y = theta @ design.T + 0.5 * rng.normal(size=(4000, 3))
    cov = np.linalg.inv(np.eye(2) + design.T @ design / 0.25)
    flow = jg.recipes.realnvp(jax.random.key(0), theta, layers=4, features=(16,), context_shape=(3,))[0]
    fitted = jg.fit(jax.random.key(1), flow, (theta, y), ADAM, steps=600, batch_size=200)
    seen = np.array([0.7, -0.4, 0.1])
    draws = np.asarray(fitted.model.sample(jax.random.key(2), (4000,), context=seen), np.float64)
    deviation = np.sqrt(np.diag(cov))
    # a fifth of a posterior's standard deviation: what 600 steps on 4000 pairs leave
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - cov @ design.T @ seen / 0.25), 0.2 * deviation)
    np.testing.assert_allclose(draws.std(axis=0), deviation, rtol=0.15)


def test_early_stopping_and_an_ensemble(plane):
    """Flows that learn forty points by heart stop in time, all in one program; their mixture beats them."""
    x, held_out, test = plane[:40], plane[40:100], plane[100:]
    start = lambda key: jg.recipes.realnvp(key, x, layers=4, features=(32,))[0]  # noqa: E731
    fitted = jg.fit(jax.random.key(0), start, x, ADAM, steps=400, every=20, validation=held_out, restarts=3)
    validation = fitted.history["validation"]  # [restarts, times]
    assert (validation[:, -1] < validation.max(axis=1) - 0.1).all(), "they were learning by heart"
    np.testing.assert_allclose(fitted.scores, validation.max(axis=1), rtol=1e-5)
    ensemble = jg.Mixture.from_components(fitted.models)
    each = [float(algebra.take(fitted.models, k).log_prob(test).mean()) for k in range(3)]
    assert float(ensemble.log_prob(test).mean()) > np.mean(each) + 0.01


def test_mixture_of_hmms(series):
    leaf = lambda key, x: jg.HMM.init(key, x, 2, jg.DiagonalGaussian.init)  # noqa: E731
    other = np.concatenate([series, series[:, ::-1] * 0.3 + 8])
    start = lambda key: jg.Mixture.init(key, other, 2, leaf)  # noqa: E731
    fitted = jg.fit(jax.random.key(0), start, other, steps=20, restarts=6)
    assert fitted.history["log_likelihood"][..., -1].max() > fitted.history["log_likelihood"][..., 0].max() + 0.05
    right = np.asarray(fitted.model.predict(other)) == np.repeat([0, 1], 20)
    assert max(right.mean(), 1 - right.mean()) >= 0.95  # a sequence that never switches may go with either


@pytest.mark.parametrize("prior", ["mixture", "flow"])
def test_vae_with_a_prior_that_learns(prior):
    x = (jg.data.digits().images[:300] >= 8).astype(np.float32)
    latent = jax.random.normal(jax.random.key(0), (64, 4))
    priors = {
        "mixture": lambda: jg.Mixture.init(jax.random.key(1), latent, 3, jg.DiagonalGaussian.init),
        "flow": lambda: small_flow(jax.random.key(1), latent),
    }
    start = jg.VAE.init(jax.random.key(2), x, priors[prior](), hidden=(32,))
    algorithm = jg.Gradient(jg.losses.negative_elbo, optax.adam(3e-3))
    fitted = improves(start, x, algorithm, batch_size=100)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), start.prior, fitted.model.prior)
    assert any(jax.tree.leaves(moved)), "the prior trains with the rest"


def test_ensemble_by_vmap(plane):
    """Five flows in one program: restarts by fit, and by vmap of scan_fit, which is pure."""
    fitted = jg.fit(
        jax.random.key(0), lambda key: small_flow(key, plane), plane, ADAM, steps=40, batch_size=100, restarts=3
    )
    assert fitted.scores.shape == (3,)
    assert algebra.count(fitted.models) == 3
    np.testing.assert_allclose(
        fitted.scores.max(), fitted.model.log_prob(plane).mean(), rtol=1e-4, atol=1e-4
    )  # the same number by another program

    @jax.jit
    def one(key):
        return jg.scan_fit(key, small_flow(key, plane), plane, ADAM, steps=5, batch_size=100)

    runs = jax.vmap(one)(jax.random.split(jax.random.key(1), 3))
    assert runs.history["loss"].shape == (3, 5)
    density = jax.scipy.special.logsumexp(jax.vmap(lambda m: m.log_prob(plane))(runs.model), axis=0) - np.log(3)
    assert density.shape == (N,)


def test_gradient_and_em_agree_on_a_mixture(plane):
    """Two ways to one maximum."""
    start = jg.Mixture.init(jax.random.key(0), plane, 2, jg.DiagonalGaussian.init)
    by_em = jg.fit(jax.random.key(1), start, plane, jg.EM(), steps=300, tolerance=1e-8)
    by_gradient = jg.fit(
        jax.random.key(1), start, plane, jg.Gradient(optimizer=optax.adam(1e-2)), steps=1500, batch_size=N
    )
    scores = [float(fitted.model.log_prob(plane).mean()) for fitted in (by_em, by_gradient)]
    assert scores[1] == pytest.approx(scores[0], abs=2e-3)  # Adam of step 1e-2 still trembles


def test_a_model_of_your_own():
    """A class that the package does not know takes part in everything."""

    @jg.model
    class Laplace:
        loc: jax.Array
        log_scale: jax.Array

        @property
        def event_shape(self):
            return self.loc.shape

        @jg.per_event
        def log_prob(self, x):
            return jnp.sum(-jnp.abs(x - self.loc) * jnp.exp(-self.log_scale) - self.log_scale - jnp.log(2.0))

        @jg.per_sample
        def sample(self, key):
            return self.loc + jnp.exp(self.log_scale) * jax.random.laplace(key, self.loc.shape)

    x = np.random.default_rng(0).laplace(size=(500, 1)).astype(np.float32)
    x[:250] += 10
    components = Laplace(jnp.array([[1.0], [8.0]]), jnp.zeros((2, 1)))
    fitted = improves(jg.Mixture.from_components(components), x, jg.Gradient(optimizer=optax.adam(3e-2)), steps=300)
    assert sorted(np.asarray(fitted.model.components.loc).ravel().round()) == [0, 10]


def test_a_network_of_your_own_saves_with_like(tmp_path):
    module = MLP((8, 1))
    net = Net.init(jax.random.key(0), module, (2,))
    jg.save(net, tmp_path / "net")
    loaded = jg.load(tmp_path / "net", like=Net.init(jax.random.key(1), module, (2,)))
    np.testing.assert_array_equal(net(jnp.ones(2)), loaded(jnp.ones(2)))


def test_flows_on_sequences_of_many_lengths(series):
    """Packed, a sequence has the density and the gradient that it has alone, whatever lies behind its end."""
    hmm = jg.HMM.init(jax.random.key(0), series, 2, leaf=jg.Gaussian.init)
    flow = jg.Flow(hmm, Vmap(Affine(jnp.array([1.0, -1.0]), jnp.array([0.3, 0.1]))))
    parts = [series[0, :7], series[1, :12]]
    packed = jg.Sequences.pack(parts)
    packed = jg.Sequences(np.where(packed.valid[..., None], packed.x, 1e6), packed.length)

    def total(bijection, x):
        return jnp.sum(jg.Flow(hmm, bijection).log_prob(x))

    together, slope = jax.value_and_grad(total)(flow.bijection, packed)
    alone = [jax.value_and_grad(total)(flow.bijection, x) for x in parts]
    np.testing.assert_allclose(together, sum(value for value, _ in alone), rtol=1e-6)
    for got, *each in zip(*(jax.tree.leaves(a) for a in (slope, *(s for _, s in alone))), strict=True):
        np.testing.assert_allclose(got, sum(each), rtol=1e-4)  # sums of some tens of float32 terms, of both signs
    warped = flow.encode(packed)
    np.testing.assert_allclose(warped.x[0, :7], flow.encode(parts[0]), rtol=1e-6)
    np.testing.assert_allclose(hmm.log_prob(warped)[1], hmm.log_prob(flow.encode(parts[1])), rtol=1e-6)
