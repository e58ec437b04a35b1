"""Log-space arithmetic against scipy, at infinities, under every derivative, and long sums against exact ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxgen.ops.stable import compensated_add, compensated_sum, finite_max, log_normalize, logsumexp, softmax

INF = np.inf
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def x64(dtype):
    return jax.enable_x64(dtype == np.float64)


@DTYPES
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_is_scipys(dtype, axis, keepdims):
    a = np.random.default_rng(0).normal(scale=100, size=(4, 5)).astype(dtype)
    a[1] = -INF
    a[2, :3] = -INF
    with x64(dtype):
        got = logsumexp(jnp.asarray(a), axis, keepdims)
    assert got.dtype == dtype
    expected = scipy.special.logsumexp(a.astype(np.float64), axis=axis, keepdims=keepdims)
    # The log and the last addition round once each, at the size of the result.
    np.testing.assert_allclose(got, expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("row", "value"),
    [([-INF, -INF], -INF), ([-INF, 2.0], 2.0), ([INF, 1.0], INF), ([INF, -INF], INF), ([np.nan, 1.0], np.nan)],
)
def test_logsumexp_at_infinities(row, value):
    np.testing.assert_equal(np.asarray(logsumexp(jnp.array(row))), np.float32(value))
    np.testing.assert_equal(np.asarray(jax.jit(logsumexp)(jnp.array(row))), np.float32(value))


@pytest.mark.parametrize(
    "rows", [[[-INF, -INF, -INF], [-INF, 1.0, 2.0], [0.0, 500.0, -500.0], [INF, 0.0, -INF]], [[3.0], [-INF], [INF]]]
)
def test_logsumexp_derivatives_are_finite_and_right(rows):
    a = np.array(rows, np.float32)
    expected = np.where(np.isposinf(a), 1.0, 0.0)
    ordinary = np.isfinite(a.max(1))
    expected[ordinary] = scipy.special.softmax(a[ordinary], axis=1)
    hessian = expected[:, :, None] * np.eye(a.shape[1]) - expected[:, :, None] * expected[:, None, :]
    first = [jax.grad(logsumexp), jax.jacfwd(logsumexp)]
    second = [jax.hessian(logsumexp), jax.jacrev(jax.grad(logsumexp)), jax.jacfwd(jax.jacfwd(logsumexp))]
    firsts, seconds = jax.jit(jax.vmap(lambda row: ([f(row) for f in first], [f(row) for f in second])))(a)
    for got in firsts:
        np.testing.assert_allclose(got, expected, atol=1e-6)  # float32 softmax
    for got in seconds:
        np.testing.assert_allclose(got, hessian, atol=1e-6)


def test_finite_max_is_a_shift_without_gradient():
    a = jnp.array([[1.0, 3.0], [-INF, -INF]])
    np.testing.assert_array_equal(a - finite_max(a, keepdims=True), [[-2.0, 0.0], [-INF, -INF]])
    np.testing.assert_array_equal(jax.grad(lambda b: finite_max(b).sum())(a), np.zeros((2, 2)))


@DTYPES
def test_log_normalize_keeps_an_empty_row_empty(dtype):
    with x64(dtype):
        a = jnp.array([[0.0, 1.0, -INF], [-INF, -INF, -INF], [-2000.0, -2000.0, -INF]], dtype)
        log_p, z = log_normalize(a)
        gradient = jax.grad(lambda b: jnp.sum(jnp.where(jnp.isfinite(b), log_normalize(b)[0], 0)[:, 0]))(a)
        transposed, _ = log_normalize(a.T, axis=0)
        log_p, z, gradient, transposed = (np.asarray(x) for x in (log_p, z, gradient, transposed))
    assert log_p.dtype == z.dtype == dtype
    np.testing.assert_array_equal(log_p[1], [-INF] * 3)
    assert z[1] == -INF
    # One rounding of the normaliser at 2000 nats.
    np.testing.assert_allclose(z[2], -2000 + math.log(2), rtol=np.finfo(dtype).eps)
    np.testing.assert_allclose(np.exp(log_p).sum(-1), [1, 0, 1], atol=2000 * np.finfo(dtype).eps)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(transposed, log_p.T)


def test_softmax_is_scipys_and_zero_for_an_empty_row():
    a = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(softmax(jnp.asarray(a)), scipy.special.softmax(a, axis=-1), rtol=1e-6)  # float32 exp
    np.testing.assert_array_equal(softmax(jnp.full(3, -INF)), np.zeros(3))
    np.testing.assert_array_equal(jax.grad(lambda b: softmax(b)[0])(jnp.full(3, -INF)), np.zeros(3))


@jax.jit
def _add_up(x, times):
    zero = jax.tree.map(jnp.zeros_like, x)
    total, carry = jax.lax.fori_loop(0, times, lambda _, s: compensated_add(*s, x), (zero, zero))
    plain = jax.lax.fori_loop(0, times, lambda _, s: jax.tree.map(jnp.add, s, x), zero)
    return total, carry, plain


def test_compensated_add_survives_compilation():
    x = {"a": jnp.float32(0.1), "b": jnp.array([1e-3, 7.0], jnp.float32)}
    total, carry, plain = _add_up(x, 1_000_000)
    for name, term in x.items():
        exact = np.asarray(term, np.float64) * 1_000_000
        # The total is the sum rounded once; with the carry, a million errors of 2 u^2 = 7e-15 at worst.
        np.testing.assert_allclose(total[name], exact, rtol=6.1e-8)
        got = np.asarray(total[name], np.float64) + np.asarray(carry[name], np.float64)
        np.testing.assert_allclose(got, exact, rtol=7e-9)
        assert carry[name].dtype == np.float32
    assert abs(float(plain["a"]) - 100_000) > 100  # what it protects from


def test_compensated_add_keeps_the_tree():
    tree = {"a": (jnp.ones(2), None), "b": ()}
    total, carry = compensated_add(tree, jax.tree.map(jnp.zeros_like, tree), tree)
    assert jax.tree.structure(total) == jax.tree.structure(carry) == jax.tree.structure(tree)
    assert compensated_add((), (), ()) == ((), ())


def test_compensated_add_of_infinities():
    total, carry = compensated_add(jnp.float32(1), jnp.float32(1e-9), jnp.float32(-INF))
    total, carry = compensated_add(total, carry, jnp.float32(1))
    assert total == -INF
    assert carry == 0


@pytest.mark.parametrize("n", [0, 1, 2, 10, 100_003])
def test_compensated_sum_is_the_exact_sum(n):
    x = (np.random.default_rng(2).gamma(0.3, size=(n, 2)) * [1, -1000]).astype(np.float32)
    got = jax.jit(compensated_sum)(jnp.asarray(x))
    exact = [math.fsum(column) for column in x.T.astype(np.float64)]
    np.testing.assert_allclose(got, exact, rtol=1.2e-7)  # one float32 rounding of the result
    assert got.dtype == np.float32


def test_compensated_sum_passes_infinities_and_gradients():
    x = jnp.array([1.0, -INF, 2.0, 3.0])
    assert compensated_sum(x) == -INF
    assert np.isnan(compensated_sum(x.at[0].set(INF)))
    np.testing.assert_array_equal(jax.grad(compensated_sum)(jnp.arange(7.0)), np.ones(7))
