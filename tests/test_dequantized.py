"""Whole numbers through real densities: bounds against masses known in closed form, and sums over all events."""

import functools

import jax
import numpy as np
import optax
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.bijections import Coupling, Interval

KEY = jax.random.key(0)
UNIT = Interval(0.0, 1.0)


def flow(key, y, context=None, support=UNIT):
    layer = functools.partial(Coupling.init, features=(16,), context_shape=context)
    return jg.Flow.init(key, y, jg.StandardNormal((2,)), layer, layers=2, support=support)


@pytest.fixture(scope="module")
def pairs():
    """Two dependent numbers of 0 to 4."""
    rng = np.random.default_rng(0)
    first = rng.binomial(4, 0.4, 500)
    return np.stack([first, np.clip(first + rng.integers(-1, 2, 500), 0, 4)], 1)


def test_bounds_against_the_exact_mass():
    """A Gaussian has its cells' masses in closed form: one draw is below in the mean, many draws come close."""
    scale = 0.8
    model = jg.Dequantized(jg.DiagonalGaussian.from_values([2.3], [scale]), low=-3, high=8)
    x = np.arange(-1, 6)[:, None]
    exact = np.log(np.diff(scipy.stats.norm.cdf(np.arange(-1, 7), 2.3, scale)))
    draws = np.asarray(model.elbo(KEY, np.tile(x[None], (4000, 1, 1))), np.float64)
    # E log p(x + u) under uniform u, in closed form
    upper = lambda a: a**3 / 3  # noqa: E731
    second = (upper(x[:, 0] + 1 - 2.3) - upper(x[:, 0] - 2.3)) / scale**2
    bound = -0.5 * second - np.log(scale) - 0.5 * np.log(2 * np.pi)
    error = draws.std(axis=0) / 4000**0.5
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - bound), 5 * error + 1e-6)
    assert (bound < exact).all()
    many = np.asarray(model.iwae(KEY, x, samples=4000), np.float64)
    weight = np.exp(draws - exact)
    np.testing.assert_array_less(np.abs(many - exact), 5 * weight.std(axis=0) / 4000**0.5 + 1e-6)


def test_masses_sum_to_one(pairs):
    """Over all 25 events, for a flow on the cells: nothing is lost, and draws have the masses."""
    make = functools.partial(flow, support=Interval(0.0, 5.0))
    model = jg.Dequantized.init(KEY, pairs, make)
    assert (model.low, model.high, model.event_shape) == (0, 4, (2,))
    every = np.stack(np.meshgrid(range(5), range(5)), -1).reshape(-1, 2)
    mass = np.exp(np.asarray(model.iwae(KEY, every, samples=3000), np.float64))
    assert mass.sum() == pytest.approx(1, abs=0.01)  # of 3000 draws a cell
    draws = np.asarray(model.sample(KEY, (4000,)))
    assert draws.dtype == np.int32
    counts = np.bincount(draws[:, 1] * 5 + draws[:, 0], minlength=25)  # meshgrid: the first coordinate runs fastest
    big = mass * 4000 > 5
    z = (counts - 4000 * mass)[big] / np.sqrt(4000 * mass[big])
    assert np.abs(z).max() < 5


def test_learned_noise_tightens_the_bound(pairs):
    """Both train; the learned noise comes closer to its own model's mass, and says so in bits per dimension."""
    make = functools.partial(flow, support=Interval(0.0, 5.0))
    gaps = {}
    for name, noise in (("uniform", None), ("learned", functools.partial(flow, context=(2,)))):
        model = jg.Dequantized.init(KEY, pairs, make, noise=noise)
        algorithm = jg.Gradient(jg.losses.negative_elbo, optax.adam(5e-3))
        fitted = jg.fit(KEY, model, pairs, algorithm, steps=200)
        assert fitted.status == jg.Status.FINISHED
        one, many = (jg.score(KEY, fitted.model, pairs, samples=s) for s in (1, 200))
        assert str(many.kind) == "lower bound"
        bits = jg.metrics.bits_per_dim(many, 2)
        assert 1.0 < bits < np.log2(5)  # better than uniform levels
        gaps[name] = many.mean - one.mean
    assert 0 < gaps["learned"] < 0.7 * gaps["uniform"], gaps


def test_other_values_have_no_mass():
    model = jg.Dequantized(jg.DiagonalGaussian.from_values([2.0], [1.0]), low=0, high=4)
    x = np.array([[-1.0], [5.0], [1.5], [np.nan], [4.0]], np.float32)
    value = np.asarray(jax.jit(model.elbo)(KEY, x))  # outside of `jit` a NaN is refused
    assert (value[:3] == -np.inf).all()
    assert np.isnan(value[3])
    assert np.isfinite(value[4])
    # the last level of many: x + u rounds to the edge, where a flow has no density
    edge = jg.Dequantized.init(KEY, [[255], [3]], lambda key, y: jg.Flow(
        jg.StandardNormal((1,)), Interval(0.0, 256.0).layer((1,))), high=255)  # fmt: skip
    assert np.isfinite(np.asarray(edge.elbo(KEY, np.full((100_000, 1), 255)))).all()


def test_errors_name_the_fix(pairs):
    make = functools.partial(flow, support=Interval(0.0, 5.0))
    model = jg.Dequantized(jg.DiagonalGaussian.from_values([2.0, 2.0], [1.0, 1.0]), low=0, high=4)
    for call, error, message in (
        (lambda: jg.Dequantized.init(KEY, pairs + 0.5, make), jg.DataError, "no levels"),
        (lambda: jg.Dequantized.init(KEY, pairs, make, high=3), jg.DataError, "from 0 to 3"),
        (lambda: jg.Dequantized.init(KEY, pairs, make, low=9), jg.ModelError, "low <= high"),
        (lambda: jg.Dequantized.init(KEY, pairs, make, noise=flow), jg.ModelError, "does not see the event"),
        (lambda: jg.score(KEY, model, pairs + 1), jg.DataError, "no levels"),
        (lambda: jg.fit(KEY, model, pairs + 0.5), jg.DataError, "no levels"),
        (lambda: model.iwae(KEY, pairs, samples=0), jg.FitError, "draws"),
    ):
        with pytest.raises(error, match=message):
            call()
