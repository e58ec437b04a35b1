"""Calibration: models that are right, and ones that are wrong in a known way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fits import compilations
from scipy.stats import chisquare, kstest, poisson

import jaxgen as jg
from jaxgen import metrics
from jaxgen.metrics.predictive import _beyond

KEY = jax.random.key(0)
N = 800
X = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
RIGHT, WIDE, SHIFTED = (
    jg.DiagonalGaussian.from_values(jnp.full(2, m), jnp.full(2, s)) for m, s in ((0.0, 1.0), (0.0, 1.6), (0.4, 1.0))
)
#: theta ~ N(0, 1), x ~ N(theta, 1): theta given x is N(x / 2, 1 / 2)
THETA = X[:, :1]
SEEN = THETA + np.random.default_rng(1).normal(size=(N, 1)).astype(np.float32)
POSTERIOR, SURE = (jg.LinearRegression.from_values([[0.5]], [0.0], [[v]]) for v in (0.5, 0.2))


def test_p_values_are_those_of_scipy():
    for n in (20, 1000):
        values = np.random.default_rng(n).random(n)
        found = kstest(values, "uniform")
        assert _beyond(found.statistic, n) == pytest.approx(found.pvalue, abs=0.01)  # Stephens: the second digit


def test_pit_is_uniform_for_the_right_model_alone():
    right, wide, shifted = (metrics.pit(KEY, model, X) for model in (RIGHT, WIDE, SHIFTED))
    assert right.p_value > 0.01 and wide.p_value < 1e-6 and shifted.p_value < 1e-6
    assert right.draws == 0 and right.values.shape == X.shape
    np.testing.assert_allclose(right.statistic, [kstest(c, "norm").statistic for c in X.T], atol=1e-3)


def test_pit_of_a_generator_is_by_draws():
    class Sampler:
        event_shape = (2,)

        def sample(self, key, shape=(), *, context=None):
            return jax.random.normal(key, (*shape, 2))

    jax.tree_util.register_static(Sampler)
    found = metrics.pit(KEY, Sampler(), X, draws=200)
    assert found.draws == 200 and found.p_value > 0.01
    assert metrics.pit(KEY, Sampler(), X + 0.5, draws=200).p_value < 1e-6


def test_pit_of_whole_numbers_is_uniform_too():
    x = poisson.rvs(2.0, size=(N, 1), random_state=0)
    assert metrics.pit(KEY, jg.Poisson.from_values([2.0]), x).p_value > 0.01
    assert metrics.pit(KEY, jg.Poisson.from_values([3.0]), x).p_value < 1e-6


def test_coverage_of_intervals():
    right, wide = (metrics.coverage(KEY, model, X) for model in (RIGHT, WIDE))
    assert right.error < 4 and wide.error > 8
    assert (wide.shares > wide.levels[:, None]).all()
    assert "50%" in str(right)


@pytest.mark.parametrize("name", ["expected_coverage", "tarp"])
def test_coverage_of_regions(name):
    measure = getattr(metrics, name)
    right, sure = (measure(KEY, model, (THETA, SEEN), draws=99) for model in (POSTERIOR, SURE))
    assert right.error < 4 and sure.error > 6
    assert (sure.shares < sure.levels[:, None]).all()
    assert measure(KEY, RIGHT, X, draws=99).error < 4


@pytest.mark.parametrize("name", ["expected_coverage", "tarp"])
def test_a_second_call_compiles_nothing(name):
    ask = lambda model: getattr(metrics, name)(KEY, model, X[:50], draws=20)  # noqa: E731
    ask(RIGHT)
    assert compilations(lambda: ask(WIDE))[0] == 0


def test_ranks_among_draws_of_a_posterior():
    right, sure = (metrics.sbc(KEY, model, (THETA, SEEN), draws=99) for model in (POSTERIOR, SURE))
    assert right.p_value > 0.01 and sure.p_value < 1e-4
    # too sure a posterior has the truth outside of its draws too often: ranks pile up at both ends
    ends = ((sure.values < 0.05) | (sure.values > 0.95)).mean()
    assert ends > 0.2
    assert chisquare(np.histogram(right.values, 10, (0, 1))[0]).pvalue > 0.01


REFUSED = {
    "no draws": (lambda: metrics.pit(KEY, RIGHT, X, draws=0), "ranks need draws"),
    "no level": (lambda: metrics.coverage(KEY, RIGHT, X, levels=[1.0]), "no such levels"),
    "weights": (lambda: metrics.sbc(KEY, RIGHT, {"x": X, "weight": np.ones(N)}), "every event once"),
    "other events": (lambda: metrics.pit(KEY, RIGHT, X[:, :1]), "shape"),
}
BROKEN = jax.tree.map(lambda leaf: leaf * jnp.nan, RIGHT)
REFUSED |= {
    f"NaN in {name}": (lambda name=name: getattr(metrics, name)(KEY, BROKEN, X[:9], draws=9), "no place among")
    for name in ("pit", "coverage", "sbc", "expected_coverage", "tarp")
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(jg.JaxgenError, match=message):
        call()
