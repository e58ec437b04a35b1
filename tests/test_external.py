"""Distrax distributions as leaves: against closed-form maxima, scipy's fits, and the promise of generalised EM."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.core import latent
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.exchange import distrax
from jaxgen.core.frozen import frozen_leaves, keep_frozen
from jaxgen.core.pytree import parameter_count
from jaxgen.models.densities.external import DistraxLeaf
from jaxgen.models.latent.mixture import Mixture

RNG = np.random.default_rng(0)


def normal(params):
    return distrax().Normal(params["loc"], jnp.exp(params["log_scale"]))


def laplace(params):
    return distrax().Laplace(params["loc"], jnp.exp(params["log_scale"]))


def gumbel(params):
    return distrax().Gumbel(params["loc"], jnp.exp(params["log_scale"]))


def coin(params):
    return distrax().Bernoulli(logits=params)


START = {"loc": jnp.zeros(2), "log_scale": jnp.zeros(2)}
FITS = {normal: scipy.stats.norm, laplace: scipy.stats.laplace, gumbel: scipy.stats.gumbel_r}
step = jax.jit(lambda leaf, x, weight: leaf.maximize(leaf.e_step(x, weight)[0]))


@pytest.mark.parametrize("make", FITS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_em_never_decreases_and_ends_at_the_maximum(make, scale):
    x = (scale * RNG.laplace(3.0, 0.5, (399, 2))).astype(np.float32)
    leaf = DistraxLeaf.from_values(START, make, (2,))
    fitted = jg.fit(jax.random.key(0), leaf, x, jg.EM(), steps=80, tolerance=0.0)
    values = np.asarray(fitted.history["log_likelihood"], np.float64)
    assert fitted.status == jg.Status.FINISHED
    # float32 rounding; values start as low as -1e5
    assert (np.diff(values) >= -1e-6 * np.abs(values[1:]) - 1e-6).all()
    columns = x.astype(np.float64).T
    best = sum(FITS[make](*FITS[make].fit(column)).logpdf(column).mean() for column in columns)
    np.testing.assert_allclose(values[-1], best, atol=2e-5)
    # scipy in float64, at the parameters that were found
    loc, log_scale = (np.asarray(fitted.model.params[name], np.float64) for name in ("loc", "log_scale"))
    np.testing.assert_allclose(
        fitted.model.log_prob(x), FITS[make](loc, np.exp(log_scale)).logpdf(x.astype(np.float64)).sum(1), atol=2e-5
    )


def test_weights_and_scalar_events_of_integers():
    x, weight = RNG.binomial(1, 0.8, 200), RNG.uniform(size=200).astype(np.float32)
    leaf = DistraxLeaf.from_values(jnp.zeros(()), coin, ())
    for _ in range(20):
        leaf, repairs = step(leaf, x, weight)
    np.testing.assert_allclose(jax.nn.sigmoid(leaf.params), np.average(x, weights=weight), rtol=1e-4)
    assert int(repairs) == 0
    assert jnp.issubdtype(leaf.sample(jax.random.key(0), (3,)).dtype, jnp.integer)
    np.testing.assert_allclose(leaf.distribution().log_prob(x), leaf.log_prob(x), rtol=1e-6)
    assert latent.free_parameters(leaf) == parameter_count(leaf) == 1


def test_a_mixture_of_laplaces_parts_from_one_start():
    x = np.concatenate([RNG.laplace(-2, 0.5, (200, 2)), RNG.laplace(2, 1, (300, 2))]).astype(np.float32)
    leaf = functools.partial(DistraxLeaf.init, make=laplace, params=START)
    start = Mixture.init(jax.random.key(1), x, 2, leaf)
    fitted = jg.fit(jax.random.key(0), start, x, jg.EM(), steps=50, tolerance=0.0)
    values = np.asarray(fitted.history["log_likelihood"], np.float64)
    assert np.diff(values).min() > -2e-6
    order = np.argsort(np.asarray(fitted.model.components.params["loc"])[:, 0])
    np.testing.assert_allclose(fitted.model.components.params["loc"][order], [[-2, -2], [2, 2]], atol=0.25)
    np.testing.assert_allclose(fitted.model.weights[order], [0.4, 0.6], atol=0.05)


def test_a_plan_is_tried_before_it_is_taken():
    x = RNG.normal(size=(100, 2)).astype(np.float32)
    leaf = DistraxLeaf.from_values(START, normal, (2,))
    far = {"loc": jnp.full(2, 50.0), "log_scale": jnp.full(2, -9.0)}  # worse on every rung, either way
    bad = DistraxLeaf(leaf.params, far, normal, (2,))
    new, repairs = step(bad, x, np.ones(100, np.float32))
    assert int(repairs) == 0
    assert jax.tree.all(jax.tree.map(np.array_equal, new.params, leaf.params))  # nowhere
    later, _ = step(new, x, np.ones(100, np.float32))
    assert float(later.log_prob(x).mean()) > float(leaf.log_prob(x).mean())  # by another plan
    statistics = bad.e_step(x)[0]
    assert all(np.isfinite(part).all() for part in statistics)
    # the ladder's entries are what they are called
    one = normal(jax.tree.map(lambda p, d: p - 0.25 * d, leaf.params, far)).log_prob(x).sum()
    np.testing.assert_allclose(statistics.gains[1], one - leaf.log_prob(x).sum(), rtol=1e-4)
    gradient = jax.grad(lambda params: normal(params).log_prob(x).sum())(leaf.params)
    np.testing.assert_allclose(statistics.score, jax.flatten_util.ravel_pytree(gradient)[0], rtol=1e-4, atol=1e-4)


def test_no_mass_and_impossible_events_stay_finite():
    x = RNG.uniform(size=(50, 2)).astype(np.float32)
    leaf = DistraxLeaf.from_values(START, normal, (2,))
    kept, repairs = step(leaf, x, np.zeros(50, np.float32))
    assert int(repairs) == 1 and jax.tree.all(jax.tree.map(np.array_equal, kept, leaf))
    gamma = lambda params: distrax().Gamma(jnp.exp(params["loc"]), jnp.exp(params["log_scale"]))  # noqa: E731
    leaf = DistraxLeaf.from_values(START, gamma, (2,))
    for events in (x - 0.5, x * 1e30, x):  # some below zero, some beyond squares
        for _ in range(5):
            leaf, _ = step(leaf, events, np.ones(50, np.float32))
            assert all(np.isfinite(part).all() for part in jax.tree.leaves(leaf))


def test_held_parameters_stay_and_the_others_reach_their_maximum():
    x = RNG.normal(3.0, 1.0, (200, 2)).astype(np.float32)
    leaf = DistraxLeaf.from_values(START, normal, (2,))
    held = frozen_leaves(leaf, {"params['loc']": (True, False)})

    @jax.jit
    def constrained(leaf):
        statistics, log_prob = leaf.e_step(x)
        new = latent.maximize(leaf, latent.freeze(leaf, statistics, held))[0]
        return keep_frozen(new, leaf, held), jnp.mean(log_prob)

    leaf, _ = step(leaf, x, np.ones(200, np.float32))  # a plan that moves everything
    kept, values = float(leaf.params["loc"][0]), []
    for _ in range(40):
        leaf, value = constrained(leaf)
        values.append(float(value))
    assert np.diff(values).min() > -2e-6
    assert float(leaf.params["loc"][0]) == kept
    np.testing.assert_allclose(leaf.params["loc"][1], x[:, 1].mean(), atol=1e-3)
    expected = 0.5 * np.log([np.mean((x[:, 0] - kept) ** 2), x[:, 1].var()])
    np.testing.assert_allclose(leaf.params["log_scale"], expected, atol=1e-3)


def test_float64_is_kept_and_converges_further():
    with jax.enable_x64(True):
        x = RNG.normal(3.0, 1.0, (200, 2))
        leaf = DistraxLeaf.init(jax.random.key(0), x, normal, START, steps=60)
        assert leaf.params["loc"].dtype == jnp.float64
        np.testing.assert_allclose(leaf.params["loc"], x.mean(axis=0), atol=1e-7)
        np.testing.assert_allclose(jnp.exp(leaf.params["log_scale"]), x.std(axis=0), atol=1e-7)


def test_other_events_and_no_parameters_are_refused():
    wide = DistraxLeaf.from_values({"loc": jnp.zeros(3), "log_scale": jnp.zeros(3)}, normal, (2,))
    with pytest.raises(ShapeError, match=r"\[2\] together"):
        wide.log_prob(jnp.zeros(2))
    with pytest.raises(ShapeError, match=r"\[2\] together"):
        wide.sample(jax.random.key(0))
    with pytest.raises(ModelError, match="nothing to train"):
        DistraxLeaf.from_values({}, normal, (2,))
