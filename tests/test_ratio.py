"""The ratio of two densities by a critic, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg
from jaxgen.nn.mlp import MLP
from jaxgen.tasks import ratio

KEY = jax.random.key(0)


def normal(mean):
    return jg.DiagonalGaussian.from_values([mean], [1.0])


@pytest.fixture(scope="module")
def found():
    return {mean: ratio(KEY, normal(0.0), normal(mean), steps=600) for mean in (1.0, 3.0)}


def test_the_critic_is_the_log_ratio(found):
    x = jnp.linspace(-2.5, 3.5, 61)
    np.testing.assert_allclose(
        jax.nn.sigmoid(found[1.0].log_ratio(x[:, None])), jax.nn.sigmoid(0.5 - x), atol=0.01
    )  # the figure asked for, where both have draws


def test_divergences(found):
    one, three = found[1.0], found[3.0]
    # three standard errors of 50,000 draws are .0045, .006
    assert float(one.jsd[0]) == pytest.approx(0.1114214822, abs=0.005)
    assert float(three.jsd[0]) == pytest.approx(0.526777306521, abs=0.006)
    assert float(one.value[0]) == pytest.approx(-1.163451396750, abs=0.01)
    assert 0.0005 < float(one.jsd[1]) < 0.003
    # of two unit normals a shift d apart both are d^2 / 2
    for divergence in (one.kl, one.reverse_kl):
        assert float(divergence[0]) == pytest.approx(0.5, abs=0.03)
    # told by the sign of 1/2 - x: Phi(1/2)
    assert float(one.accuracy[0]) == pytest.approx(0.691462461, abs=0.01)


def test_of_the_same_nothing_is_told():
    same = ratio(KEY, normal(0.0), normal(0.0), steps=200)
    assert float(same.value[0]) == pytest.approx(-np.log(4), abs=0.01)
    assert abs(float(same.jsd[0])) < 0.005


def test_arrays_in_any_units():
    """Two arrays; the divergence does not depend on what they were measured in."""
    x, y = (np.random.default_rng(seed).normal(seed, 1, size=(4000, 1)).astype(np.float32) for seed in (0, 1))
    runs = [ratio(KEY, scale * x, scale * y, steps=300) for scale in (1.0, 1024.0)]
    assert float(runs[0].jsd[0]) == pytest.approx(float(runs[1].jsd[0]), abs=1e-4)
    # 1000 held draws a side: a standard error of .009
    assert float(runs[0].jsd[0]) == pytest.approx(0.111, abs=0.03)
    assert "JSD" in str(runs[0])


@pytest.mark.parametrize(("p", "q", "options", "error", "match"), [
    (np.zeros((8, 2)), np.zeros((8, 3)), {}, jg.DataError, "different shapes"),
    (np.zeros((3, 2)), np.zeros((8, 2)), {}, jg.DataError, "too few"),
    (np.full((8, 2), np.nan), np.zeros((8, 2)), {}, jg.DataError, "NaN"),
    (MLP((1,)), np.zeros((8, 2)), {}, jg.DataError, "p"),
    (np.zeros((8, 2)), np.ones((8, 2)), {"draws": 1}, jg.FitError, "need draws"),
    (np.zeros((8, 2)), np.ones((8, 2)), {"critic": MLP((3,))}, jg.FitError, "one number"),
])  # fmt: skip
def test_errors(p, q, options, error, match):
    with pytest.raises(error, match=match):
        ratio(KEY, p, q, **options)
