"""Boltzmann machines of every kind of unit against sums and integrals over all joint states by numpy and scipy."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machines import fits, states
from scipy import integrate, special, stats

import jaxgen as jg
from jaxgen import units
from jaxgen.core.algebra import stack
from jaxgen.core.errors import DataError, FitError, ModelError, ShapeError
from jaxgen.core.pytree import combine, partition
from jaxgen.metrics.partition import ais
from jaxgen.models.energy.rbm import RBM

LABELS = np.array(list(itertools.product(range(3), (0, 1), (-1, 1))))
SPINS = np.array(list(itertools.product((-1, 1), repeat=2)))


def machine(dtype=np.float32):
    """A label, a bit and a spin; two hidden spins and a rectified unit; centres away from zero."""
    i = np.arange(1, 6.0)
    weights = 0.9 * np.sin(1.7 * i[:, None] + 2.3 * np.arange(1, 4.0))
    f = lambda *a: jnp.asarray(np.array(a), dtype)  # noqa: E731
    visible = units.Group.of(units.Categorical(f([0.2, -0.3, 0.5])), units.Bernoulli(f(0.4)), units.Spin(f(-0.3)))
    hidden = units.Group.of(units.Spin(f(0.1, -0.2)), units.Rectified(f(-0.4)))
    centers = {"visible_center": f(0.2, 0.3, 0.5, 0.6, -0.1), "hidden_center": f(0.1, -0.3, 0.7)}
    return RBM.from_units(visible, hidden, weights.astype(dtype), **centers)


@functools.cache
def joint():
    """`log int exp(-E(v, h)) dr` for each visible state and pair of hidden spins `[12, 4]`, and the mean of r."""
    w = 0.9 * np.sin(1.7 * np.arange(1, 6.0)[:, None] + 2.3 * np.arange(1, 4.0))
    mu, lam = np.array([0.2, 0.3, 0.5, 0.6, -0.1]), np.array([0.1, -0.3, 0.7])
    out, mean = np.zeros((12, 4)), np.zeros((12, 4))
    for a, (label, bit, spin) in enumerate(LABELS):
        t = np.array([label == 0, label == 1, label == 2, bit, spin], float)
        own = [0.2, -0.3, 0.5][label] + 0.4 * bit - 0.3 * spin
        for b, s in enumerate(SPINS):
            energy = lambda r, own=own, s=s, t=t: -(  # noqa: E731
                own + s @ [0.1, -0.2] - 0.4 * r - r * r / 2 + (t - mu) @ w @ (np.array([*s, r]) - lam)
            )
            z = integrate.quad(lambda r, e=energy: np.exp(-e(r)), 0, np.inf, epsabs=1e-13)[0]
            mean[a, b] = integrate.quad(lambda r, e=energy: r * np.exp(-e(r)), 0, np.inf, epsabs=1e-13)[0] / z
            out[a, b] = np.log(z)
    return out, mean


def index(v):
    v = np.asarray(v).reshape(-1, 3).astype(int)
    return v[:, 0] * 4 + v[:, 1] * 2 + (v[:, 2] + 1) // 2


@jax.jit
def figures(rbm):
    v = jnp.asarray(LABELS, rbm.weights.dtype)
    return rbm.energy(v), rbm.log_partition(), rbm.pseudo_log_likelihood(v), rbm.log_conditional(v), rbm.marginals()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-10)])
def test_equals_the_sum_over_everything(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        energy, log_z, pseudo, conditional, marginals = figures(machine(dtype))
    assert energy.dtype == log_z.dtype == pseudo.dtype == conditional.dtype == dtype
    near = functools.partial(np.testing.assert_allclose, atol=tolerance, rtol=0)
    log_joint, mean = joint()
    log_v, exact = special.logsumexp(log_joint, axis=1), special.logsumexp(log_joint)
    near(-energy, log_v)
    near(log_z, exact)
    near(conditional, np.tile(special.log_softmax(log_v.reshape(3, 4), axis=0).T, (3, 1)))
    cube = log_v.reshape(3, 2, 2)
    near(pseudo, sum(special.log_softmax(cube, axis=axis) for axis in range(3)).ravel())
    p = np.exp(log_joint - exact)
    one_hot = np.concatenate([np.eye(3)[LABELS[:, 0]], LABELS[:, 1:]], axis=1)
    near(marginals.visible, p.sum(1) @ one_hot)
    near(marginals.hidden, [*(p.sum(0) @ SPINS), (p * mean).sum()])


def test_samples_exact_and_by_kernel():
    rbm = machine()
    p = np.exp(special.logsumexp(joint()[0], axis=1) - special.logsumexp(joint()[0]))
    x = rbm.sample_exact(jax.random.key(0), (50, 100))
    assert x.shape == (50, 100, 3)
    assert fits(np.bincount(index(x), minlength=12), p)
    # a sweep leaves exact samples what they are, also as whole numbers
    moved = rbm.kernel(jax.random.key(1), x.astype(jnp.int8))
    assert moved.dtype == jnp.int8
    assert fits(np.bincount(index(moved), minlength=12), p)
    assert rbm.kernel(jax.random.key(1), jnp.ones(3, bool)).dtype == jnp.float32  # no bool is a spin
    # the hidden side, with its real unit: the machine turned around
    h = rbm.transposed.sample_exact(jax.random.key(2), (4000,))
    np.testing.assert_allclose(h.mean(0), rbm.marginals().hidden, atol=4 / np.sqrt(4000))
    assert (h[:, 2] >= 0).all()


def test_clamped_chains_tend_to_the_conditional():
    rbm, n = machine(), 4000
    start = np.tile([0.0, 1.0, -1.0], (n, 1)).astype(np.float32)
    x = jg.impute(jax.random.key(0), rbm, start, np.array([False, True, False]), sweeps=30)
    assert (x[:, 1] == 1).all()
    p = np.exp(special.logsumexp(joint()[0], axis=1)).reshape(3, 2, 2)[:, 1]
    counts = np.bincount(index(x), minlength=12).reshape(3, 2, 2)[:, 1]
    assert fits(counts.ravel(), (p / p.sum()).ravel())
    # the same from holes, with a mask of its own for each event
    n, start = 800, start[:800]
    start[: n // 2, 0], start[n // 2 :, 2] = np.nan, np.nan
    y = np.asarray(jg.impute(jax.random.key(1), rbm, start, sweeps=10))
    assert not np.isnan(y).any()
    assert (y[: n // 2, 1:] == start[: n // 2, 1:]).all()
    assert (y[n // 2 :, :2] == start[n // 2 :, :2]).all()
    label = np.exp(np.asarray(rbm.log_conditional(jnp.array([0.0, 1.0, -1.0]))))
    assert fits(np.bincount(y[: n // 2, 0].astype(int), minlength=3), label)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_reals_and_bits_are_a_mixture_of_gaussians(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        f = lambda *a: jnp.asarray(np.array(a), dtype)  # noqa: E731
        reals = units.Gaussian(f(0.3, -0.2), f(0.2, -0.5), f(100.0, -1.0), f(2.0, 0.5))
        weights, center = f([0.7, -1.1, 0.4], [0.2, 0.9, -0.6]), f(0.5, 0.2, 0.9)
        rbm = RBM.from_units(reals, units.Bernoulli(f(0.3, -0.4, 0.1)), weights, hidden_center=center)
        h = states(3)
        field = (h - np.asarray(center)) @ np.asarray(weights).T
        log_p = h @ np.array([0.3, -0.4, 0.1]) + 0.5 * (field**2).sum(1)
        means = np.asarray(reals.location) + np.asarray(reals.scale) * field
        parts = [jg.DiagonalGaussian.from_values(f(*m), reals.scale) for m in means]
        mixture = jg.Mixture.from_components(stack(parts), f(*special.softmax(log_p)))
        x = np.asarray(mixture.sample(jax.random.key(0), (4000,)))
        found = -rbm.energy(x[:50]) - rbm.log_partition()
        np.testing.assert_allclose(found, mixture.log_prob(x[:50]), atol=5 * tolerance)
        p = special.softmax(log_p)
        np.testing.assert_allclose(rbm.marginals().visible, p @ means, rtol=tolerance)
        np.testing.assert_allclose(rbm.marginals().hidden, p @ h, atol=tolerance)
        draws = np.asarray(rbm.sample_exact(jax.random.key(1), (4000,)))
        assert draws.dtype == dtype
        moved = np.asarray(rbm.kernel(jax.random.key(2), draws))
        for sample in (draws, moved):
            for column in range(2):
                assert stats.ks_2samp(sample[:, column], x[:, column]).pvalue > 1e-4


def test_centres_change_the_gradient_and_not_the_machine():
    rng = np.random.default_rng(0)
    b, c, w = rng.normal(size=4), rng.normal(size=3), rng.normal(size=(4, 3))
    mu, lam = rng.uniform(size=4), rng.uniform(size=3)
    with jax.enable_x64(True):
        visible, hidden = units.Bernoulli(jnp.asarray(b)), units.Bernoulli(jnp.asarray(c))
        rbm = RBM.from_units(visible, hidden, w, visible_center=mu, hidden_center=lam)
        plain = RBM.from_values(b - w @ lam, c - mu @ w, w)
        v = states(4)
        log_p = -rbm.energy(v) - rbm.log_partition()
        np.testing.assert_allclose(log_p, -plain.energy(v) - plain.log_partition(), atol=1e-12)
        np.testing.assert_allclose(rbm.pseudo_log_likelihood(v), plain.pseudo_log_likelihood(v), atol=1e-12)
        np.testing.assert_allclose(rbm.marginals().visible, plain.marginals().visible, atol=1e-12)
        np.testing.assert_allclose(rbm.encode(v), plain.encode(v), atol=1e-12)
        x = v[[3, 5, 6]]
        trained, rest = partition(rbm)

        def mean(trained):
            rbm = combine(trained, rest)
            return jnp.mean(-rbm.energy(x)) - rbm.log_partition()

        gradient = jax.grad(mean)(trained)
        assert gradient.visible_center is None
        h, p = np.asarray(plain.encode(v)), np.exp(np.asarray(log_p))
        data = np.isin(np.arange(16), [3, 5, 6]) / 3
        # Montavon and Müller's gradient, expectations under the data less those under the model
        np.testing.assert_allclose(gradient.weights, (v - mu).T @ ((data - p)[:, None] * (h - lam)), atol=1e-12)
        np.testing.assert_allclose(gradient.visible_bias, (data - p) @ v, atol=1e-12)
        np.testing.assert_allclose(gradient.hidden_bias, (data - p) @ h, atol=1e-12)


def test_init_from_data_of_every_kind():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.integers(0, 3, (60, 1)), rng.integers(0, 2, (60, 2)), rng.normal(5, 2, (60, 1))], axis=1)
    visible = units.group((1, units.Categorical.init), (2, units.Bernoulli.init), (1, units.Gaussian.init))
    rbm = RBM.init(jax.random.key(0), x, units.Spin.zeros(4), visible=visible, centred=True)
    assert rbm.event_shape == (4,)
    assert rbm.weights.shape == (6, 4)
    expected = [*np.bincount(x[:, 0].astype(int)) / 60, *x[:, 1:3].mean(0), 0]
    np.testing.assert_allclose(rbm.visible_center, expected, atol=1e-5)
    np.testing.assert_array_equal(rbm.hidden_center, 0)
    assert np.isfinite(rbm.energy(x)).all()
    rbm.check_data(x)
    half = RBM.init(jax.random.key(0), x[:, 1:3], 4, centred=True)
    np.testing.assert_array_equal(half.hidden_center, 0.5)
    # one row, and constant columns
    one = RBM.init(jax.random.key(0), x[:1], 2, visible=visible)
    assert np.isfinite(one.energy(x[:1])).all()
    # a machine of reals leaves the training with the numbers of the data
    trained = jg.fit(jax.random.key(1), dataclasses.replace(half, hidden=half.hidden), x[:, 1:3], steps=20).model
    assert (trained.visible_center == half.visible_center).all()


def test_reals_in_any_unit_are_learned():
    """Three clusters, measured in numbers far from one and from zero, by the default trainer."""
    rng = np.random.default_rng(0)
    means, scale = np.array([[10.0, -300.0], [14.0, -100.0], [20.0, -200.0]]), np.array([1.0, 20.0])
    x = (means[rng.integers(0, 3, 2000)] + rng.normal(size=(2000, 2)) * scale).astype(np.float32)
    start = RBM.init(jax.random.key(0), x, 6, visible=units.Gaussian.init, scale=0.1)
    fitted = jg.fit(jax.random.key(1), start, x, jg.ContrastiveDivergence(), steps=5000).model
    before, after = (float(np.mean(-m.energy(x)) - m.log_partition()) for m in (start, fitted))
    densities = -0.5 * (((x[:, None] - means) / scale) ** 2).sum(-1) - np.log(3 * 2 * np.pi * 20)
    true = special.logsumexp(densities, axis=1).mean()
    assert before < true - 1.5  # one Gaussian
    assert after > true - 0.5  # still on its way: the widths of the clusters come last


def test_annealing_reaches_every_kind():
    rbm = machine()
    estimate = ais(jax.random.key(0), rbm, chains=400, steps=200)
    assert abs(estimate.log_z - special.logsumexp(joint()[0])) < 5 * estimate.standard_error < 0.2
    base = dataclasses.replace(rbm.visible, members=(units.Categorical.zeros(1, 3), *rbm.visible.members[1:]))
    assert rbm.annealing_path(base).at(0.0).visible.members[0].bias.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda: machine().check_data([[3, 0, 1]]), DataError, "columns 0 to 0"),
    (lambda: machine().check_data([[0, 0, 0]]), DataError, "not spins"),
    (lambda: machine().kernel(jax.random.key(0), np.ones(3), observed=np.ones(2, bool)), ShapeError, "mask"),
    (lambda: machine().kernel(jax.random.key(0), np.ones(3), observed=np.ones(3)), ShapeError, "bools"),
    (lambda: machine().log_conditional(np.ones(3), site=3), ModelError, "0 to 2"),
    (lambda: machine().annealing_path(np.zeros(3)), ModelError, "base"),
    (lambda: RBM.from_units(units.Spin.zeros(2), units.Spin.zeros(3), np.zeros((3, 2))), ModelError, "transpose"),
    (lambda: RBM.from_units(units.Spin.zeros(1), units.Spin.zeros(1), [[0.0]], hidden_center=[0, 1]), ModelError,
     "centre"),
    (lambda: RBM.from_units(units.Gaussian.zeros(1), units.Rectified.zeros(1), [[0.1]]).log_partition(), ModelError,
     "a continuum and a continuum"),
    (lambda: RBM.from_units(units.Gaussian.zeros(1), units.Spin.zeros(1), [[0.1]]).pseudo_log_likelihood([1.0]),
     ModelError, "Gaussian"),
    (lambda: RBM.init(jax.random.key(0), [[1.0]], units.Spin.zeros(0)), ModelError, "hidden units"),
    (lambda: RBM.init(jax.random.key(0), [[np.nan]], 2, visible=units.Gaussian.init), DataError, "NaN"),
    (lambda: jg.impute(jax.random.key(0), machine(), np.ones((2, 4))), ShapeError, "one event"),
    (lambda: jg.impute(jax.random.key(0), machine(), np.ones(3), sweeps=0), FitError, "sweeps=1"),
    (lambda: jg.impute(jax.random.key(0), jg.StandardNormal((2,)), np.ones(2)), ModelError, "observed=mask"),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call()
