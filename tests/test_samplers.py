"""Chains on log-densities against closed forms, quadrature in float64, and time reversal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.ops.samplers import HMC, MALA, SGLD, ULA, Spread, minibatch, sample_chain

MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[1.0, 0.6], [0.6, 2.0]])
PRECISION = np.linalg.inv(COVARIANCE).astype(np.float32)


def plane(x):
    away = x - MEAN.astype(np.float32)
    return -0.5 * away @ PRECISION @ away


def normal(x):
    return -0.5 * jnp.sum(x**2)


def chains(sampler, log_density, x, draws, burn_in=50, thin=1, observed=None, seed=0):
    """`[chains, draws, ...]` from starts `[chains, ...]`, in one program."""
    run = functools.partial(sample_chain, draws=draws, burn_in=burn_in, thin=thin, observed=observed)
    keys = jax.random.split(jax.random.key(seed), len(x))
    return jax.jit(jax.vmap(lambda key, x: run(key, sampler, log_density, x)))(keys, x)


@pytest.mark.parametrize(("scale", "eta", "temperature"), [(1.0, 0.5, 1.0), (2.0, 1.0, 1.0), (1.0, 0.3, 2.0)])
def test_ula_has_the_variance_of_its_discretisation(scale, eta, temperature):
    sampler = ULA(eta, temperature)
    x, info = chains(sampler, lambda x: -0.5 * x**2 / scale**2, jnp.zeros(2000), 20, thin=10)
    expected = temperature * scale**2 / (1 - eta / (2 * scale**2))
    # 40,000 nearly independent draws: six standard errors, sqrt(2 / n) of the variance
    assert float(x.var()) == pytest.approx(expected, rel=6 * (2 / 40_000) ** 0.5)
    assert (info.acceptance == 1).all() and info.finite.all()


def acceptance(eta):
    """Of MALA on N(0, 1) in its equilibrium, by the trapezoidal rule in float64."""
    grid = np.linspace(-9, 9, 1601)
    x, noise = np.meshgrid(grid, grid, indexing="ij")
    weight = np.exp(-(x**2 + noise**2) / 2)
    new = x - eta * x + np.sqrt(2 * eta) * noise
    q = lambda to, start: -((to - (1 - eta) * start) ** 2) / (4 * eta)  # noqa: E731
    log_ratio = (x**2 - new**2) / 2 + q(x, new) - q(new, x)
    return (weight * np.exp(np.minimum(log_ratio, 0))).sum() / weight.sum()


def test_mala_accepts_what_the_quadrature_says():
    assert acceptance(0.5) == pytest.approx(0.9208, abs=1e-4)
    start = jax.random.normal(jax.random.key(1), (2000,))
    for eta in (0.5, 1.0):
        _, info = chains(MALA(eta), lambda x: -0.5 * x**2, start, 50, burn_in=0)
        # 100,000 acceptances of deviation .15 at most, some of them alike from step to step
        assert float(info.acceptance.mean()) == pytest.approx(acceptance(eta), abs=4e-3)
        assert float(info.accepted.mean()) == pytest.approx(float(info.acceptance.mean()), abs=8e-3)


@pytest.mark.parametrize("sampler", [
    MALA(0.6), HMC(0.4, 4), MALA(0.6, temperature=2.0), HMC(0.5, 3, temperature=2.0), Spread(MALA(1.2), 4.0),
])  # fmt: skip
def test_adjusted_chains_keep_the_density_whatever_their_step(sampler):
    x, info = chains(sampler, plane, jnp.zeros((1000, 2)), 20, burn_in=60, thin=5)
    assert 0.5 < info.acceptance.mean() < 1
    flat = np.asarray(x).reshape(-1, 2)
    heat = getattr(sampler, "temperature", 1.0)
    # 20,000 draws, correlated: as few as 5,000 independent ones, five standard errors
    np.testing.assert_allclose(flat.mean(axis=0), MEAN, atol=5 * (2 * heat / 5_000) ** 0.5)
    np.testing.assert_allclose(np.cov(flat.T), heat * COVARIANCE, atol=5 * 2 * heat * (2 / 5_000) ** 0.5)
    last = np.asarray(x)[:, -1, 0]  # independent chains
    assert scipy.stats.kstest(last, "norm", (MEAN[0], heat**0.5)).pvalue > 1e-4


def test_leapfrog_is_reversible_keeps_volume_and_the_energy_in_the_limit():
    """One trajectory through the step itself, with the momentum that its key draws."""
    log_density = lambda x: -0.25 * jnp.sum(x**4) + x[0] * x[1]  # noqa: E731
    kick = lambda x, r, e: r + 0.5 * e * jax.grad(log_density)(x)  # noqa: E731

    def trajectory(x, r, e=0.1, steps=7):
        for _ in range(steps):
            r = kick(x, r, e)
            x = x + e * r
            r = kick(x, r, e)
        return x, r

    with jax.enable_x64(True):
        x, key = jnp.array([0.3, -0.8]), jax.random.key(3)
        r = jax.random.normal(jax.random.split(key)[0], (2,), x.dtype)
        new, end = trajectory(x, r)
        state, info = HMC(0.1, 7).step(key, log_density, HMC(0.1, 7).init(log_density, x))
        assert bool(info.accepted)
        np.testing.assert_allclose(state.x, new, atol=1e-12)
        back, turned = trajectory(new, -end)
        np.testing.assert_allclose(back, x, atol=1e-12)
        np.testing.assert_allclose(turned, -r, atol=1e-12)
        jacobian = np.array(jax.jacobian(lambda p: jnp.concatenate(trajectory(p[:2], p[2:])))(jnp.concatenate([x, r])))
        assert np.linalg.det(jacobian) == pytest.approx(1, abs=1e-12)
        energy = lambda x, r: -log_density(x) + 0.5 * jnp.sum(r**2)  # noqa: E731
        errors = [abs(float(energy(*trajectory(x, r, e, round(0.8 / e))) - energy(x, r))) for e in (0.04, 0.02, 0.01)]
        # of second order: a quarter at half the step
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.1) and errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_one_leapfrog_step_is_langevin():
    key, x = jax.random.key(5), jnp.array([0.4, -1.0])
    a, _ = MALA(0.08).step(key, plane, MALA(0.08).init(plane, x))
    b, _ = HMC(0.4, 1).step(key, plane, HMC(0.4, 1).init(plane, x))
    np.testing.assert_allclose(a.x, b.x, rtol=1e-5)


def test_sgld_samples_a_posterior():
    """A normal mean from 200 data, by 20 at a time: posterior N(sum x / 201, 1 / 201)."""
    data = 1.5 + jax.random.normal(jax.random.key(0), (200,))
    estimate = minibatch(lambda m: -0.5 * m**2, lambda m, x: -0.5 * (x - m) ** 2, data, 20)
    at = jnp.float32(0.3)
    keys = jax.random.split(jax.random.key(1), 20_000)
    exact = -0.5 * at**2 - 0.5 * jnp.sum((data - at) ** 2)
    found = jax.vmap(lambda k: estimate(k, at))(keys)
    assert abs(float(found.mean() - exact)) < 5 * float(found.std()) / 20_000**0.5, "it is unbiased"
    x, _ = chains(SGLD(2e-4, decay=0.55, delay=200.0), estimate, jnp.zeros(300), 50, burn_in=1500, thin=10)
    mean = float(data.sum()) / 201
    assert float(x.mean()) == pytest.approx(mean, abs=0.01)
    # the noise of minibatches adds eta N^2 / (2 n) s^2 to the variance, here a tenth of it
    assert float(x.std()) == pytest.approx(201**-0.5, rel=0.1)


@pytest.mark.parametrize("sampler", [ULA(0.05), MALA(0.6), HMC(0.4, 4)])
def test_observed_coordinates_stay_and_the_rest_is_conditional(sampler):
    observed = jnp.array([True, False])
    x, _ = chains(sampler, plane, jnp.full((1000, 2), 2.0), 20, burn_in=100, thin=5, observed=observed)
    assert (x[..., 0] == 2).all()
    # x_1 given x_0 = 2: mean -2 + 0.6, variance 2 - 0.36; ULA's is off by its step
    assert float(x[..., 1].mean()) == pytest.approx(-1.4, abs=0.06)
    assert float(x[..., 1].var()) == pytest.approx(1.64, rel=0.08)


@pytest.mark.parametrize("sampler", [ULA(0.05), MALA(0.6), HMC(0.4, 4)])
def test_what_is_observed_may_have_any_slope(sampler):
    """The square root of a number held at zero has an infinite slope, which says nothing of the others."""
    log_density = lambda x: jnp.sqrt(x[0]) - 0.5 * x[1] ** 2  # noqa: E731
    x, info = chains(sampler, log_density, jnp.zeros((200, 2)), 20, observed=jnp.array([True, False]))
    assert (x[..., 0] == 0).all() and info.finite.all()
    assert float(x[..., 1].std()) == pytest.approx(1, abs=0.15)


def test_any_tree_and_any_model():
    tree = {"a": jnp.zeros(2), "b": jnp.float32(1)}
    log_density = lambda x: normal(x["a"]) - 0.5 * (x["b"] - 3) ** 2  # noqa: E731
    draws, info = sample_chain(jax.random.key(0), HMC(0.5, 3), log_density, tree, draws=400, thin=3)
    assert draws["a"].shape == (400, 2) and draws["b"].shape == (400,)
    assert float(draws["b"].mean()) == pytest.approx(3, abs=0.3)
    model = jg.Gaussian.from_values(MEAN.astype(np.float32), COVARIANCE.astype(np.float32))
    draws, _ = sample_chain(jax.random.key(0), MALA(0.5), model.log_prob, jnp.zeros(2), draws=5)
    assert draws.shape == (5, 2)
    assert jg.samplers.MALA is MALA


def test_places_without_a_density_are_not_taken_and_counted():
    half = lambda x: jnp.where(x > 0, -x, -jnp.inf)  # noqa: E731  exponential: outside is impossible, not a fault
    x, info = chains(MALA(0.3), half, jnp.ones(500), 30, burn_in=100)
    assert (x > 0).all() and info.finite.all() and 0 < info.acceptance.mean() < 1
    assert float(x.mean()) == pytest.approx(1, abs=0.1)
    broken = lambda x: jnp.where(jnp.abs(x) < 1, -0.5 * x**2, jnp.nan)  # noqa: E731
    for sampler in (MALA(0.5), HMC(0.7, 3)):
        x, info = chains(sampler, broken, jnp.zeros(200), 20)
        assert (jnp.abs(x) < 1).all() and not info.finite.all()
    x, info = chains(ULA(0.5), broken, jnp.zeros(200), 20)
    lost = jnp.isnan(x)
    assert lost.any() and not info.finite[jnp.isnan(x)].any(), "an unadjusted chain shows it"
    assert (lost[:, 1:] >= lost[:, :-1]).all(), "for good"


root = lambda x: jnp.where(x > 0, -jnp.sqrt(x), -jnp.inf)  # noqa: E731  its slope at 0, where x > 0 is false, is NaN
edge = lambda x: -jnp.sqrt(jnp.abs(x))  # noqa: E731  finite everywhere, its slope at 0 is not
hollow = lambda x: jnp.where(jnp.abs(x) < 1, jnp.nan, -0.5 * x**2)  # noqa: E731


@pytest.mark.parametrize("log_density", [root, edge, hollow])
@pytest.mark.parametrize("sampler", [ULA(0.1), MALA(0.1), HMC(0.1, 2), Spread(MALA(0.1))])
def test_a_start_from_which_no_chain_moves_is_refused(sampler, log_density):
    with pytest.raises(jg.DataError, match=r"(?s)no chain can move.*log_density\(x\) = "):
        sample_chain(jax.random.key(0), sampler, log_density, jnp.float32(0), draws=3)
    _, info = chains(sampler, log_density, jnp.zeros(2), 3)
    if log_density is not root:  # from there a chain may get into the support
        assert not info.finite.any(), "where nothing can be refused the info says so"


def test_a_chain_that_never_moved_or_was_lost_says_so():
    run = functools.partial(sample_chain, jax.random.key(0), log_density=lambda x: -1e6 * x**2, x=jnp.float32(1))
    with pytest.warns(jg.JaxgenWarning, match="never moved.*none of 8 proposals"):
        x, info = run(MALA(1.0), draws=4, thin=2)
    assert (x == 1).all() and not info.accepted.any()
    with pytest.warns(jg.JaxgenWarning, match="lost: from draw [0-9]+ of 40"):
        x, info = run(ULA(1.0), draws=40)
    assert jnp.isnan(x[-1]) and not info.finite[-1]


def test_steep_densities_are_refused_or_survived():
    x, info = chains(MALA(1.0), lambda x: -1e6 * x**2, jnp.ones(20), 10)
    assert jnp.isfinite(x).all() and (info.acceptance == 0).all()
    x, info = chains(ULA(1.0), lambda x: -1e6 * x**2, jnp.ones(20), 10)
    assert not jnp.isfinite(x).any() and not info.finite[:, -1].any()


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda: ULA(0.0), jg.FitError, "size"),
    (lambda: MALA(0.1, temperature=0.0), jg.FitError, "temperature"),
    (lambda: HMC(0.1, 0), jg.FitError, "leapfrog"),
    (lambda: HMC(float("nan")), jg.FitError, "size"),
    (lambda: SGLD(0.1, decay=2.0), jg.FitError, "decay"),
    (lambda: minibatch(normal, normal, jnp.ones(3), 0), jg.FitError, "minibatch"),
    (lambda: sample_chain(jax.random.key(0), ULA(0.1), normal, jnp.zeros(2), draws=0), jg.FitError, "draws"),
    (lambda: sample_chain(jax.random.key(0), ULA(0.1), normal, jnp.zeros(2), draws=2.5), jg.FitError, "ints"),
    (lambda: sample_chain(jax.random.key(0), ULA(0.1), normal, jnp.zeros(2, int)), jg.DataError, "float"),
    (lambda: sample_chain(jax.random.key(0), MALA(0.1), normal, jnp.full(2, jnp.nan)), jg.DataError, "starts"),
    (lambda: sample_chain(jax.random.key(0), ULA(0.1), lambda x: -(x**2), jnp.zeros(2)), jg.ShapeError, "scalar"),
    (lambda: sample_chain(jax.random.key(0), ULA(0.1), normal, jnp.zeros(2), observed=jnp.ones(3, bool)),
     jg.ShapeError, "mask"),
    (lambda: sample_chain(0, ULA(0.1), normal, jnp.zeros(2)), jg.JaxgenError, "key"),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("make", [lambda: Spread(MALA(0.1), 0.5), lambda: Spread(lambda x: x)])
def test_spread_needs_sizes(make):
    with pytest.raises(jg.FitError, match="step sizes"):
        make()
