"""Roots and fixed points against closed forms, scipy's brentq and differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxgen.ops.roots import bisect, fixed_point

EPS = np.finfo(np.float32).eps


def bent(x, slope):
    """Increasing, with values from steep to flat."""
    return slope * x + jnp.tanh(3 * x) + x**3


def test_roots_are_those_of_brentq():
    y = np.concatenate([np.linspace(-3, 3, 13), [-1e6, 1e-6, 1e12]]).astype(np.float32)
    slope = np.linspace(0.1, 2, y.size).astype(np.float32)
    found = np.asarray(jax.jit(lambda s, y: bisect(lambda x: bent(x, s), y))(slope, y))
    assert found.dtype == np.float32

    def exact(s, y):
        return scipy.optimize.brentq(lambda x: s * x + np.tanh(3 * x) + x**3 - y, -1e6, 1e6, xtol=1e-14, rtol=1e-14)

    # what the bracket leaves (of width 1), and a few roundings of the function and the root themselves
    expected = np.array([exact(float(s), float(v)) for s, v in zip(slope, y, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=8 * EPS, atol=2 * EPS)


def test_roots_far_from_the_guess_and_of_tiny_width():
    far = bisect(lambda x: x, jnp.array([1e15, -1e15]), guess=0.0)
    np.testing.assert_allclose(far, [1e15, -1e15], rtol=2 * EPS)
    tiny = bisect(lambda x: x**3, jnp.float32(1e-24), guess=0.0, width=1e-9)
    np.testing.assert_allclose(tiny, 1e-8, rtol=1e-5)
    with jax.enable_x64(True):
        wide = bisect(jnp.sinh, jnp.array([0.3, 40.0], jnp.float64))
        np.testing.assert_allclose(wide, np.arcsinh([0.3, 40.0]), rtol=1e-14)


def test_no_root_is_nan():
    found = bisect(jnp.tanh, jnp.array([0.5, 2.0, -3.0, jnp.nan]))
    np.testing.assert_allclose(found[0], np.arctanh(0.5), rtol=1e-6)
    assert np.isnan(found[1:]).all(), "tanh never reaches 2"
    broken = bisect(lambda x: jnp.where(x > 0.3, jnp.nan, x), jnp.array([0.2, 0.5]), guess=0.0)
    assert np.isnan(broken[1]), "a function that gives NaN on the way has no root to trust"
    constant = bisect(lambda x: 0 * x, jnp.ones(2))
    assert np.isnan(constant).all()


def test_derivatives_are_those_of_the_implicit_function():
    def root(slope, y):
        return bisect(lambda x: bent(x, slope), y)

    slope, y = jnp.float32(0.7), jnp.float32(1.3)
    by_slope, by_y = jax.jit(jax.grad(root, (0, 1)))(slope, y)
    x = float(root(slope, y))
    steepness = 0.7 + 3 / np.cosh(3 * x) ** 2 + 3 * x**2
    np.testing.assert_allclose([by_slope, by_y], [-x / steepness, 1 / steepness], rtol=1e-5)
    np.testing.assert_allclose(jax.jvp(root, (slope, y), (1.0, 2.0))[1], by_slope + 2 * by_y, rtol=1e-5)
    with jax.enable_x64(True):
        slope, y, h = jnp.float64(0.7), jnp.float64(1.3), 1e-5
        curvature = jax.jit(jax.grad(jax.grad(root, 1), 1))(slope, y)
        grad = jax.jit(jax.grad(root, 1))
        np.testing.assert_allclose(curvature, (grad(slope, y + h) - grad(slope, y - h)) / (2 * h), rtol=1e-6)


def test_under_vmap_every_search_ends_by_itself():
    slopes, y = jnp.linspace(0.1, 2.0, 5), jnp.array([-1e4, 0.0, 1.0, 2.0, jnp.nan])
    one = lambda s, v: bisect(lambda x: bent(x, s), v)  # noqa: E731
    np.testing.assert_array_equal(jax.vmap(one)(slopes, y), [one(s, v) for s, v in zip(slopes, y, strict=True)])


def test_fixed_point_of_an_affine_map():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(5, 5))
    matrix = (0.9 * matrix / np.linalg.norm(matrix, 2)).astype(np.float32)
    shift = rng.normal(size=5).astype(np.float32)

    def solved(matrix, shift):
        return fixed_point(lambda x: jnp.matmul(matrix, x, precision="highest") + shift, jnp.zeros(5))

    wide, b = matrix.astype(np.float64), shift.astype(np.float64)
    expected = np.linalg.solve(np.eye(5) - wide, b)
    # 1 / (1 - 0.9) times the rounding of numbers up to 5
    np.testing.assert_allclose(solved(matrix, shift), expected, atol=1e-5)
    weight = np.arange(1.0, 6)
    by_matrix, by_shift = jax.jit(jax.grad(lambda m, s: solved(m, s) @ weight, (0, 1)))(matrix, shift)
    adjoint = np.linalg.solve(np.eye(5) - wide.T, weight)
    np.testing.assert_allclose(by_shift, adjoint, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_matrix, np.outer(adjoint, expected), rtol=1e-4, atol=1e-4)
    _, tangent = jax.jvp(lambda s: solved(matrix, s), (shift,), (jnp.ones(5),))
    np.testing.assert_allclose(tangent, np.linalg.solve(np.eye(5) - wide, np.ones(5)), atol=1e-5)


def test_fixed_point_that_is_none_is_nan():
    assert np.isnan(fixed_point(lambda x: 2 * x + 1, jnp.ones(3))).all(), "no contraction"
    assert np.isnan(fixed_point(lambda x: -x, jnp.ones(3))).all(), "goes round"
    assert np.isnan(fixed_point(lambda x: 0.999 * x + 1, jnp.zeros(()), steps=50)), "not there yet"
    assert np.isnan(fixed_point(lambda x: x * jnp.nan, jnp.ones(2))).all()
    assert float(fixed_point(lambda x: x, jnp.float32(3.0))) == 3.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_fixed_points_under_vmap(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        a = jnp.array([0.1, 0.5, 0.95], dtype)
        x = jax.vmap(lambda a: fixed_point(lambda x: a * jnp.cos(x), a))(a)
        assert x.dtype == dtype
        expected = [scipy.optimize.brentq(lambda x, c=float(c): x - c * np.cos(x), 0, 1, xtol=1e-15) for c in a]
        np.testing.assert_allclose(x, expected, rtol=8 * jnp.finfo(dtype).eps)
