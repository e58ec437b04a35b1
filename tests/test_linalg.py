"""Triangular algebra, determinants and norms against numpy in float64, its derivatives, and its promise not to hang."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.core.errors import ShapeError
from jaxgen.ops.linalg import (
    cholesky,
    inverse_cholesky,
    log_det,
    log_det_tril,
    solve_tril,
    spectral_bound,
    symmetric,
    tril_inverse,
)

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def x64(dtype):
    return jax.enable_x64(dtype == np.float64)


def covariances(batch, d, seed=0):
    """Well-conditioned: eigenvalues between about 0.1 and 3."""
    a = np.random.default_rng(seed).normal(size=(*batch, d, 3 * d))
    return a @ np.swapaxes(a, -1, -2) / (3 * d)


def tolerance(dtype):
    # Errors grow with the condition number, here up to about 100.
    return 200 * np.finfo(dtype).eps


@DTYPES
@pytest.mark.parametrize(("batch", "d"), [((), 1), ((), 2), ((3,), 5), ((2, 3), 16), ((), 64)])
def test_values_are_numpys(dtype, batch, d):
    cov = covariances(batch, d)
    factor = np.linalg.cholesky(cov)
    b = np.random.default_rng(1).normal(size=(*batch, d, 2))
    with x64(dtype):
        cast = lambda x: jnp.asarray(x, dtype)  # noqa: E731
        got = cholesky(cast(cov)), tril_inverse(cast(factor)), inverse_cholesky(cast(cov))
        x, log_det = solve_tril(cast(factor), cast(b)), log_det_tril(cast(factor))
    for value in (*got, x, log_det):
        assert value.dtype == dtype
    close = dict(atol=tolerance(dtype), rtol=tolerance(dtype))
    np.testing.assert_allclose(got[0], factor, **close)
    np.testing.assert_allclose(got[1], np.linalg.inv(factor), **close)
    np.testing.assert_allclose(got[2], np.linalg.inv(factor), **close)
    np.testing.assert_allclose(x, np.linalg.solve(factor, b), **close)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(factor)[1], **close)
    white = np.asarray(got[2], np.float64) @ cov @ np.swapaxes(np.asarray(got[2], np.float64), -1, -2)
    np.testing.assert_allclose(white, np.broadcast_to(np.eye(d), white.shape), atol=tolerance(dtype))
    np.testing.assert_array_equal(np.triu(got[1:], 1), 0)


def test_upper_part_is_not_read_and_leading_axes_broadcast():
    lower = jnp.array([[2.0, jnp.nan], [1.0, 4.0]])
    np.testing.assert_allclose(tril_inverse(lower), [[0.5, 0], [-0.125, 0.25]])
    b = jnp.ones((5, 1, 2, 3))
    x = solve_tril(jnp.stack([lower, lower]), b)
    assert x.shape == (5, 2, 2, 3)
    np.testing.assert_allclose(x[4, 1], np.linalg.solve(np.tril(lower), np.ones((2, 3))), rtol=1e-6)  # float32
    gradient = jax.grad(lambda m: solve_tril(m, b).sum() + tril_inverse(m).sum())(lower)
    assert np.isfinite(gradient).all()
    assert gradient[0, 1] == 0


def test_a_matrix_that_is_not_positive_is_nan_and_spares_its_neighbours():
    cov = jnp.asarray(covariances((3,), 4), jnp.float32).at[1].set(-jnp.eye(4))
    for f in (cholesky, inverse_cholesky):
        out = np.asarray(f(cov))
        assert np.isnan(out[1][np.tril_indices(4)]).all()
        assert np.isfinite(out[[0, 2]]).all()


@pytest.mark.parametrize("function", [cholesky, inverse_cholesky, tril_inverse, solve_tril])
def test_derivatives(function):
    """Reverse and forward mode, first and second order, against central differences in float64."""
    cov = covariances((2,), 3)
    rng = np.random.default_rng(3)
    with x64(np.float64):
        lower, b, direction, weight = (jnp.asarray(rng.normal(size=(2, 3, 3))) for _ in range(4))
        lower = jnp.tril(lower, -1) + 2 * jnp.eye(3)
        if function in (cholesky, inverse_cholesky):
            argument, f = jnp.asarray(cov), lambda a: jnp.sum(weight * function(a))
        elif function is tril_inverse:
            argument, f = lower, lambda a: jnp.sum(weight * function(a))
        else:
            argument, f = lower, lambda a: jnp.sum(weight * function(a, b * jnp.sum(a)))
        f = jax.jit(f)
        step = 1e-5
        numeric = (f(argument + step * direction) - f(argument - step * direction)) / (2 * step)
        gradient = jax.jit(jax.grad(f))
        # Differences of step h are good to h^2 plus the rounding 1e-16 / h, times the curvature.
        np.testing.assert_allclose(jnp.sum(gradient(argument) * direction), numeric, rtol=1e-7)
        np.testing.assert_allclose(jax.jvp(f, (argument,), (direction,))[1], numeric, rtol=1e-7)
        along = lambda a: jnp.sum(gradient(a) * direction)  # noqa: E731
        second = (along(argument + step * direction) - along(argument - step * direction)) / (2 * step)
        np.testing.assert_allclose(jnp.sum(jax.grad(along)(argument) * direction), second, rtol=1e-6)


def test_gradient_is_that_of_the_inverse():
    with x64(np.float64):
        lower = jnp.asarray(np.linalg.cholesky(covariances((), 6)))
        weight = jnp.asarray(np.random.default_rng(4).normal(size=(6, 6)))
        got = jax.grad(lambda a: jnp.sum(weight * tril_inverse(a)))(lower)
        expected = jnp.tril(jax.grad(lambda a: jnp.sum(jnp.tril(weight) * jnp.linalg.inv(jnp.tril(a))))(lower))
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)  # float64, condition number about 10


def test_program_does_not_grow_with_the_dimension():
    f = jax.jit(jax.grad(lambda a: inverse_cholesky(a).sum()))
    lines = [len(f.lower(jnp.eye(d)).as_text().splitlines()) for d in (2, 64)]
    assert lines[0] == lines[1]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about the CPU's program")
def test_no_lapack_triangular_solve_on_cpu():
    f = jax.jit(jax.value_and_grad(lambda a, b: solve_tril(cholesky(a), b).sum() + inverse_cholesky(a).sum()))
    text = f.lower(jnp.ones((4, 3, 3)), jnp.ones((4, 3, 1))).compile().as_text()
    assert "lapack_spotrf" in text  # the Cholesky factor itself is LAPACK's, so the next line tests something
    assert "trsm" not in text
    assert "triangular-solve" not in text


MANY_AT_ONCE = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax, jax.numpy as jnp
from jaxgen.ops.linalg import inverse_cholesky, solve_tril

@jax.jit
def run(covs, x):
    def one(cov):
        whiten = jax.vmap(inverse_cholesky)
        return jnp.sum(whiten(cov)), jnp.sum(jax.vmap(solve_tril, (0, None))(cov, x))
    return sum(sum(one(cov)) + jnp.sum(jax.grad(lambda c: one(c)[0])(cov)) for cov in covs)

root = jax.random.normal(jax.random.key(0), (16, 32, 16, 32))
covs = list(root @ jnp.swapaxes(root, -1, -2) / 32 + jnp.eye(16))
for i in range(10):
    print(i, float(run(covs, jnp.ones((16, 500)) + i)), flush=True)
print("done")
"""


def test_many_batched_calls_at_once_do_not_hang():
    """Sixteen independent batched calls in one program on two cores, in a process that can be killed."""
    environment = dict(os.environ, JAX_PLATFORMS="cpu", PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    command = [sys.executable, "-c", MANY_AT_ONCE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")
    assert "nan" not in done.stdout


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_wrong_shapes_are_named(shape):
    for f in (tril_inverse, cholesky, inverse_cholesky, log_det_tril):
        with pytest.raises(ValueError, match="not square"):
            f(jnp.ones(shape))
    with pytest.raises(ValueError, match="as a column"):
        solve_tril(jnp.eye(3), jnp.ones(3))


@DTYPES
@pytest.mark.parametrize("d", [1, 3, 16])
def test_log_det_and_its_derivative_are_numpys(dtype, d):
    rng = np.random.default_rng(d)
    a = np.eye(d)[rng.permutation(d)] + 0.5 * rng.normal(size=(4, d, d)) / d**0.5  # needs its rows exchanged
    a = a.astype(dtype)
    wide, bound = a.astype(np.float64), 4 * d * np.linalg.cond(a).max() * np.finfo(dtype).eps
    with x64(dtype):
        value, gradient = jax.jit(jax.vmap(jax.value_and_grad(log_det)))(a)
        assert value.dtype == dtype
        np.testing.assert_allclose(value, np.linalg.slogdet(wide)[1], atol=bound)
        np.testing.assert_allclose(gradient, np.swapaxes(np.linalg.inv(wide), -1, -2), atol=4 * bound)
        np.testing.assert_allclose(log_det(a), value, atol=bound)


def test_second_derivative_of_log_det_and_a_singular_matrix():
    with jax.enable_x64(True):
        a, step = jnp.eye(3) + 0.3 * jax.random.normal(jax.random.key(0), (3, 3)), 1e-5
        b = jax.random.normal(jax.random.key(1), (3, 3))
        gradient = jax.grad(log_det)
        change = (gradient(a + step * b) - gradient(a - step * b)) / (2 * step)
        np.testing.assert_allclose(jax.jvp(gradient, (a,), (b,))[1], change, atol=1e-8)
    assert not np.isfinite(log_det(jnp.ones((2, 2)))), "no finite number for what has none"


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 16)])
def test_spectral_bound_is_one_and_close(shape):
    a = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    exact, eps = np.linalg.norm(a.astype(np.float64), 2), np.finfo(np.float32).eps
    bound, gradient = jax.jit(jax.value_and_grad(spectral_bound))(a)
    assert exact * (1 - 8 * eps) <= bound <= exact * min(shape) ** (1 / 256) * (1 + 8 * eps)
    # of a norm: along the matrix itself the norm again, and no longer than one
    np.testing.assert_allclose(np.sum(np.asarray(gradient) * a), bound, rtol=1e-5)
    assert np.linalg.norm(np.asarray(gradient), "nuc") <= 1 + 1e-5
    np.testing.assert_allclose(spectral_bound(a * 1e-25), bound * 1e-25, rtol=1e-6)


def test_spectral_bound_of_equals_and_of_zero():
    np.testing.assert_allclose(spectral_bound(3 * jnp.eye(16)), 3 * 16 ** (1 / 256), rtol=1e-6)
    value, gradient = jax.value_and_grad(spectral_bound)(jnp.zeros((3, 2)))
    assert value == 0 and not gradient.any()
    with pytest.raises(ShapeError, match="one matrix"):
        spectral_bound(jnp.zeros((2, 2, 2)))
    with pytest.raises(ShapeError, match="square"):
        log_det(jnp.zeros((2, 3)))


def test_symmetric_but_for_rounding_in_any_units():
    cov = covariances((), 3).astype(np.float32)
    for units in (np.ones(3), np.array([1e-9, 1.0, 1e9])):
        scaled = units[:, None] * cov * units
        rounded = scaled * (1 + 1e-6 * np.triu(np.ones((3, 3))))
        uneven = scaled * (1 + 0.1 * np.triu(np.ones((3, 3)), 1))
        assert symmetric(jnp.asarray(scaled)) and symmetric(jnp.asarray(rounded))
        assert not symmetric(jnp.asarray(uneven))
        assert not symmetric(jnp.asarray(np.stack([scaled, uneven])))
