"""Layers of units against quadrature, sums over states, autodiff, and the distribution functions of scipy."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from jaxgen import units
from jaxgen.core.errors import DataError, ModelError, ShapeError
from jaxgen.ops.truncated import truncated_log_partition, truncated_mean, truncated_quantile, truncated_variance
from jaxgen.units.base import joint_states, state

BIAS = np.array([-0.7, 0.4])
LAYERS = {
    "bernoulli": units.Bernoulli(jnp.asarray(BIAS, jnp.float32)),
    "spin": units.Spin(jnp.asarray(BIAS, jnp.float32)),
    "categorical": units.Categorical(jnp.asarray([[0.3, -0.5, 1.0], [0.0, 0.2, -2.0]], jnp.float32)),
    "gaussian": units.Gaussian(*(jnp.asarray(a, jnp.float32) for a in ([0.3, -0.2], BIAS, [1.0, -2.0], [2.0, 0.5]))),
    "rectified": units.Rectified(jnp.asarray(BIAS, jnp.float32)),
}
LAYERS["group"] = units.Group.of(*LAYERS.values())
FIELD = {name: 0.8 * np.cos(1.3 * np.arange(layer.size) + 0.5).astype(np.float32) for name, layer in LAYERS.items()}
KINDS = [name for name in LAYERS if name != "group"]
SUPPORT = {"gaussian": (-np.inf, np.inf), "rectified": (0, np.inf)}
VALUES = {"bernoulli": [0, 1], "spin": [-1, 1], "categorical": [0, 1, 2]}


def density(name):
    """`exp(field . t(u) - B(u))` of the two sites of a kind, as functions of one number, from the definition."""
    layer, field = LAYERS[name], FIELD[name].astype(float)
    if name == "categorical":
        bias = np.asarray(layer.bias, float) + field.reshape(2, 3)
        return [lambda u, b=b: np.exp(b[int(u)]) for b in bias]
    if name == "gaussian":
        m, s = np.asarray(layer.location, float), np.asarray(layer.scale, float)
        return [lambda u, m=m, s=s, f=f: np.exp(f * (u - m) / s - ((u - m) / s) ** 2 / 2)
                for m, s, f in zip(m, s, field, strict=True)]  # fmt: skip
    square = 0.5 if name == "rectified" else 0
    return [lambda u, b=b: np.exp(b * u - square * u**2) for b in np.asarray(layer.bias, float) + field]


def total(name, function):
    """The sum or integral of a function over the values of a site."""
    if name in VALUES:
        return sum(function(u) for u in VALUES[name])
    return integrate.quad(function, *SUPPORT[name], epsabs=1e-12)[0]


@functools.partial(jax.jit, static_argnames="n")
def described(layer, field, noise, n):
    z = layer.log_partition(field)
    gradient = jax.grad(lambda f: jnp.sum(layer.log_partition(f)))(field)
    return z, layer.mean(field), gradient, layer.sample(noise, jnp.broadcast_to(field, (n, layer.size)))


@functools.cache
def figures(name):
    layer, n = LAYERS[name], 20_000
    noise = jax.random.uniform(jax.random.key(3), (n, layer.sites))
    return [np.asarray(a, float) for a in described(layer, FIELD[name], noise, n)]


@pytest.mark.parametrize("name", KINDS)
def test_log_partition_is_the_integral_and_its_derivative_the_mean(name):
    z, mean, gradient, _ = figures(name)
    p = density(name)
    np.testing.assert_allclose(z, [np.log(total(name, f)) for f in p], atol=2e-6)  # float32 of numbers of order one
    np.testing.assert_allclose(mean, gradient, atol=1e-6)
    layer, norm = LAYERS[name], np.exp(z)
    if name == "categorical":
        expected = np.concatenate([[f(u) for u in range(3)] for f in p]) / np.repeat(norm, 3)
    else:
        value = [total(name, lambda u, f=f: u * f(u)) / n for f, n in zip(p, norm, strict=True)]
        np.testing.assert_allclose(layer.to_values(jnp.asarray(mean, jnp.float32)), value, atol=5e-6)
        expected = layer.statistic(jnp.asarray(value, jnp.float32))
    np.testing.assert_allclose(mean, expected, atol=5e-6)


@pytest.mark.parametrize("name", KINDS)
def test_energy_and_statistic_are_the_density(name):
    layer, p = LAYERS[name], density(name)
    u = np.array([[VALUES[name][0], VALUES[name][-1]]] if name in VALUES else [[0.3, 1.7]], np.float32)
    found = layer.statistic(jnp.asarray(u)) @ FIELD[name] - layer.energy(jnp.asarray(u))
    np.testing.assert_allclose(found, [np.log(p[0](u[0, 0]) * p[1](u[0, 1]))], atol=2e-6)


@pytest.mark.parametrize("name", KINDS)
def test_samples_have_the_distribution(name):
    x, p = figures(name)[3], density(name)
    for site in range(2):
        norm = total(name, p[site])
        if name in VALUES:
            counts = [(x[:, site] == u).sum() for u in VALUES[name]]
            expected = np.array([p[site](u) for u in VALUES[name]]) / norm * len(x)
            assert sum(counts) == len(x)
            assert stats.chisquare(counts, expected).pvalue > 1e-4
        else:
            low = SUPPORT[name][0]
            cdf = np.vectorize(lambda u, f=p[site], n=norm, low=low: integrate.quad(f, low, u)[0] / n)
            assert stats.kstest(x[:400, site], cdf).pvalue > 1e-4
            mean = total(name, lambda u, f=p[site]: u * f(u)) / norm
            variance = total(name, lambda u, f=p[site], m=mean: (u - m) ** 2 * f(u)) / norm
            # four standard errors of a mean, and of a variance of a density with fourth moments up to 9 variances^2
            assert abs(x[:, site].mean() - mean) < 4 * np.sqrt(variance / len(x))
            assert abs(x[:, site].var() / variance - 1) < 4 * np.sqrt(8 / len(x))


def test_a_group_is_its_members_side_by_side():
    group, rows = LAYERS["group"], [figures(name) for name in KINDS]
    field = jnp.concatenate([FIELD[name] for name in KINDS])
    np.testing.assert_array_equal(group.log_partition(field), np.concatenate([r[0] for r in rows]).astype(np.float32))
    np.testing.assert_array_equal(group.mean(field), np.concatenate([r[1] for r in rows]).astype(np.float32))
    u = np.concatenate([r[3][:5] for r in rows], axis=1).astype(np.float32)
    parts = [(LAYERS[name], jnp.asarray(r[3][:5], jnp.float32)) for name, r in zip(KINDS, rows, strict=True)]
    np.testing.assert_array_equal(group.statistic(u), np.concatenate([m.statistic(v) for m, v in parts], axis=1))
    np.testing.assert_allclose(group.energy(u), sum(np.asarray(m.energy(v)) for m, v in parts), rtol=1e-6)
    group.check(u, "test")
    assert group.kinds == "f"


def test_states_are_all_states_once():
    group = units.Group.of(LAYERS["categorical"], LAYERS["spin"], units.Categorical.zeros(1, 4))
    assert joint_states(group) == 3**2 * 2**2 * 4
    rows = np.asarray(state(group, jnp.arange(144)))
    assert len(np.unique(rows, axis=0)) == 144
    group.check(rows, "test")


@pytest.mark.parametrize("name", VALUES)
def test_others_are_the_differences(name):
    layer = LAYERS[name]
    u = np.array([VALUES[name][-1], VALUES[name][0]], np.float32)
    change, cost = layer.others(jnp.asarray(u))
    values = VALUES[name]
    for site in range(2):
        for r in range(len(values) - 1):
            other = u.copy()
            other[site] = values[(values.index(u[site]) + r + 1) % len(values)]
            moved = np.zeros((2, layer.size // 2), np.float32)
            moved[site] = change[site, r]
            difference = layer.statistic(jnp.asarray(other)) - layer.statistic(jnp.asarray(u))
            np.testing.assert_array_equal(moved.ravel(), difference)
            difference = layer.energy(jnp.asarray(other)) - layer.energy(jnp.asarray(u))
            np.testing.assert_allclose(cost[site, r], difference, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-6), (np.float64, 1e-13)])
def test_truncated_normal_far_out(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        x = np.concatenate([np.linspace(-50, 50, 101), [-5.001, -3.001, -2.999, -2.001, -1.999]]).astype(dtype)
        near = np.minimum(x.astype(float), 0)
        # the scaled error function below zero, the normal's own above
        expected = np.where(
            x < 0, np.log(np.sqrt(np.pi / 2) * special.erfcx(-near / np.sqrt(2))),
            x.astype(float) ** 2 / 2 + special.log_ndtr(x.astype(float)) + 0.5 * np.log(2 * np.pi),
        )  # fmt: skip
        z, mean, variance = truncated_log_partition(x), truncated_mean(x), truncated_variance(x)
        assert z.dtype == mean.dtype == dtype
        np.testing.assert_allclose(z, expected, rtol=tolerance, atol=tolerance)
        for i in (0, 20, 45, 48, 50, 60, 100):
            a = float(x[i])
            weight = lambda h, a=a: np.exp(a * h - h * h / 2 - max(a, 0) ** 2 / 2)  # noqa: E731
            top = max(a, 0) + 12 / max(1, -a / 3)
            power = lambda h, k, weight=weight: h**k * weight(h)  # noqa: E731
            moments = [integrate.quad(power, 0, top, (k,), epsabs=0, points=[max(a, 0)])[0] for k in range(3)]
            first = moments[1] / moments[0]
            np.testing.assert_allclose(mean[i], first, rtol=10 * tolerance)
            # a difference of numbers near one
            np.testing.assert_allclose(variance[i], moments[2] / moments[0] - first**2, atol=10 * tolerance, rtol=1e-5)
        for u in (1e-5, 0.3, 0.99):
            h = np.asarray(truncated_quantile(dtype(u), x), float)
            mass = special.log_ndtr(x.astype(float) - h) - special.log_ndtr(x.astype(float))
            # in float32 the quantile has an error of an ulp of numbers up to 50
            np.testing.assert_allclose(mass, np.log(u), atol=20 * tolerance if dtype == np.float32 else 2e-8)


def test_layers_start_at_their_data():
    rng = np.random.default_rng(0)
    bits = np.array([[1, 0], [1, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(units.Bernoulli.init(bits).bias, np.log([3.5 / 1.5, 0.5 / 4.5]), atol=1e-6)
    np.testing.assert_allclose(units.Spin.init(2 * bits - 1).bias, np.log([3.5 / 1.5, 0.5 / 4.5]) / 2, atol=1e-6)
    label = units.Categorical.init(np.array([[0], [2], [2]]))
    np.testing.assert_allclose(label.bias, np.log([[1.5, 0.5, 2.5]]) - np.log(4.5), atol=1e-6)
    reals = units.Gaussian.init(np.stack([1e4 + rng.normal(size=500), np.full(500, 3.0)], 1))
    assert abs(reals.location[0] - 1e4) < 0.2
    assert abs(reals.scale[0] - 1) < 0.1
    np.testing.assert_array_equal([reals.location[1], reals.scale[1]], [3, 1])
    rates = rng.uniform(0, 3, (50, 3)) * [1, 0.01, 0]
    layer = units.Rectified.init(rates)
    np.testing.assert_allclose(layer.mean(jnp.zeros(3)), np.maximum(rates.mean(0), 1 / 50), rtol=1e-3)
    start = units.group((1, functools.partial(units.Categorical.init, states=3)), (2, units.Bernoulli.init))
    group = start(np.array([[0, 1, 1], [1, 0, 1]]))
    assert [m.size for m in group.members] == [3, 2]
    assert units.Bernoulli.init(np.ones((1, 2))).bias.shape == (2,)  # one row is enough


def test_values_that_are_none_are_never_silent():
    label = LAYERS["categorical"]
    for bad in (np.nan, 3.0, -1.0, 0.5):
        assert jnp.isnan(label.energy(jnp.array([bad, 0.0])))
    assert jnp.isnan(LAYERS["gaussian"].energy(jnp.array([jnp.nan, 0.0])))
    extreme = [units.Bernoulli, units.Gaussian, units.Rectified, units.Spin]
    for kind in extreme:  # the ends of the uniform numbers that a float32 generator can give
        values = kind.zeros(2).sample(jnp.array([0.0, 1 - 2**-24], jnp.float32), jnp.array([2.0, -2.0]))
        assert jnp.isfinite(values).all()
    values = label.sample(jnp.array([0.0, 1 - 2**-24], jnp.float32), jnp.zeros(6))
    label.check(values, "test")


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda: units.Bernoulli.init([[0, 2]]), DataError, "not bits"),
    (lambda: units.Spin.init([[0, 1]]), DataError, "np.where"),
    (lambda: units.Categorical.init([[0.5]]), DataError, "not labels"),
    (lambda: units.Categorical.init([[3]], 3), DataError, "from 0 to 2"),
    (lambda: units.Rectified.init([[-1.0]]), DataError, "np.maximum"),
    (lambda: units.Gaussian.init([[np.nan]]), DataError, "not finite"),
    (lambda: units.Gaussian.init([1.0]), ShapeError, "reshape"),
    (lambda: units.Bernoulli.init(np.zeros((0, 3))), DataError, "empty"),
    (lambda: units.Group.of(), ModelError, "one layer or more"),
    (lambda: units.Group.of(3), ModelError, "int"),
    (lambda: units.group((1, units.Spin.init))(np.ones((2, 2))), ShapeError, r"\[N, 1\]"),
    (lambda: LAYERS["group"].check(np.full((1, 10), 0.5), "test"), DataError, "columns 0 to 1"),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_front_door_opens_alone():
    """In a process that has not met a machine, which would have imported them."""
    subprocess.run([sys.executable, "-c", "import jaxgen; jaxgen.units.Spin"], check=True, timeout=60)
