"""Triangular algebra that cannot hang on a CPU, differentiable and batched over leading axes.

In jaxlib 0.10.2 two independent batched calls of LAPACK's triangular solve in one CPU program can deadlock on a machine
with two cores: each blocks a thread of the pool that should run its pieces. jax's own derivative of the Cholesky
factor contains such a call. Here the CPU gets substitution as a loop of vector-matrix products, whose program has the
same size for every dimension; other platforms get their own triangular solve.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ShapeError
from jaxgen.core.inputs import widened

__all__ = [
    "cholesky",
    "inverse_cholesky",
    "inverse_of_sums",
    "log_det",
    "log_det_tril",
    "solve_tril",
    "spectral_bound",
    "tril_inverse",
]


def _matmul(a: Array, b: Array) -> Array:
    # GPUs round the factors of a default float32 product to 10 bits.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _transpose(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)


def _substitute(lower: Array, b: Array) -> Array:
    """Forward substitution, one row of the solution per step."""
    lower = jnp.tril(lower)
    pivots = jnp.diagonal(lower, axis1=-2, axis2=-1)[..., None]

    def solve_row(i, x):
        # Rows i, i + 1, ... of x are still zero, so the whole row of the matrix can multiply it.
        known = _matmul(lax.dynamic_slice_in_dim(lower, i, 1, -2), x)
        right = lax.dynamic_slice_in_dim(b, i, 1, -2)
        pivot = lax.dynamic_slice_in_dim(pivots, i, 1, -2)
        return lax.dynamic_update_slice_in_dim(x, (right - known) / pivot, i, -2)

    return lax.fori_loop(0, lower.shape[-1], solve_row, jnp.zeros_like(b))


def _library_solve(lower: Array, b: Array) -> Array:
    return lax.linalg.triangular_solve(lower, b, left_side=True, lower=True)


def _solve(lower: Array, b: Array) -> Array:
    return lax.platform_dependent(lower, b, cpu=_substitute, default=_library_solve)


def _check_square(name: str, a: Array) -> None:
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ShapeError(
            "not square matrices",
            called=name,
            expected="[..., D, D]",
            got=f"{a.shape}",
            fix=f"scale[..., None] * jnp.eye({a.shape[-1]}) makes a matrix of its diagonal" if a.ndim == 1 else "",
        )


@jax.custom_jvp
def _tril_inverse(lower: Array) -> Array:
    return _solve(lower, jnp.broadcast_to(jnp.eye(lower.shape[-1], dtype=lower.dtype), lower.shape))


@_tril_inverse.defjvp
def _tril_inverse_jvp(primals, tangents):
    w = _tril_inverse(*primals)
    return w, -_matmul(w, _matmul(jnp.tril(tangents[0]), w))


@jax.custom_jvp
def _solve_tril(lower: Array, b: Array) -> Array:
    return _solve(lower, b)


@_solve_tril.defjvp
def _solve_tril_jvp(primals, tangents):
    (lower, b), (lower_dot, b_dot) = primals, tangents
    x = _solve_tril(lower, b)
    # A product with the inverse, not a second solve: reverse mode has to transpose this line.
    return x, _matmul(_tril_inverse(lower), b_dot - _matmul(jnp.tril(lower_dot), x))


@jax.custom_jvp
def _cholesky(a: Array) -> Array:
    return jnp.linalg.cholesky(a)


@_cholesky.defjvp
def _cholesky_jvp(primals, tangents):
    lower = _cholesky(*primals)
    w = _tril_inverse(lower)
    a_dot = (tangents[0] + _transpose(tangents[0])) / 2
    inner = jnp.tril(_matmul(_matmul(w, a_dot), _transpose(w)))
    half_diagonal = 1 - jnp.eye(lower.shape[-1], dtype=lower.dtype) / 2
    return lower, _matmul(lower, inner * half_diagonal)


@compiled
def tril_inverse(lower: Array) -> Array:
    """Inverse of lower triangular matrices by forward substitution.

    `W L = I`, with `dW = -W dL W`.

    Args:
        lower: `[..., D, D]`; the part above the diagonal is not read.

    Returns:
        W, `[..., D, D]`, lower triangular. A zero on the diagonal gives non-finite entries.

    Raises:
        ShapeError: if the last two axes are not square.

    Example:
        >>> import jax.numpy as jnp
        >>> tril_inverse(jnp.array([[2.0, 0.0], [1.0, 4.0]])).round(4).tolist()
        [[0.5, 0.0], [-0.125, 0.25]]

    Source: Higham (2002), Accuracy and Stability of Numerical Algorithms, section 14.2, method 1.
    """
    lower = widened(jnp.asarray(lower))
    _check_square("tril_inverse(lower)", lower)
    return _tril_inverse(lower)


@compiled
def solve_tril(lower: Array, b: Array) -> Array:
    """Solution of lower triangular systems by forward substitution.

    `L x = b`.

    Args:
        lower: `[..., D, D]`; the part above the diagonal is not read.
        b: `[..., D, M]`, M right-hand sides; leading axes broadcast against those of `lower`.

    Returns:
        x, `[..., D, M]`.

    Raises:
        ShapeError: if the matrices are not square or `b` does not have D rows.

    Example:
        >>> import jax.numpy as jnp
        >>> solve_tril(jnp.array([[2.0, 0.0], [1.0, 4.0]]), jnp.array([[2.0], [9.0]])).tolist()
        [[1.0], [2.0]]

    Source: Golub & Van Loan (2013), Matrix Computations, algorithm 3.1.3.
    """
    lower, b = widened((jnp.asarray(lower), jnp.asarray(b)))
    _check_square("solve_tril(lower, b)", lower)
    if b.ndim < 2 or b.shape[-2] != lower.shape[-1]:
        raise ShapeError(
            "right-hand sides that do not fit the matrices",
            called="solve_tril(lower, b)",
            expected=f"lower [..., D, D] and b [..., D, M], here D = {lower.shape[-1]}",
            got=f"{lower.shape} and {b.shape}",
            fix="b[..., None], a vector as a column",
        )
    dtype = jnp.result_type(lower, b)
    batch = jnp.broadcast_shapes(lower.shape[:-2], b.shape[:-2])
    lower = jnp.broadcast_to(lower.astype(dtype), batch + lower.shape[-2:])
    return _solve_tril(lower, jnp.broadcast_to(b.astype(dtype), batch + b.shape[-2:]))


@compiled
def cholesky(a: Array) -> Array:
    """Cholesky factor of symmetric positive definite matrices, with a derivative that cannot hang either.

    `L L^T = A`, with `dL = L Phi(L^-1 dA L^-T)`, where Phi keeps the lower triangle and halves the diagonal.

    Args:
        a: `[..., D, D]`, read as `(A + A^T) / 2`.

    Returns:
        L, `[..., D, D]`, lower triangular with a positive diagonal. A matrix that is not positive definite (in its own
        precision) gives NaN in its lower triangle, the other matrices of the batch are not touched.

    Raises:
        ShapeError: if the last two axes are not square.

    Example:
        >>> import jax.numpy as jnp
        >>> cholesky(jnp.array([[4.0, 2.0], [2.0, 5.0]])).tolist()
        [[2.0, 0.0], [1.0, 2.0]]

    Source: Murray (2016), Differentiation of the Cholesky decomposition, equation 8.
    """
    a = widened(jnp.asarray(a))
    _check_square("cholesky(a)", a)
    return _cholesky(a)


@compiled
def inverse_cholesky(cov: Array) -> Array:
    """Whitening matrix: the inverse of the Cholesky factor.

    `W cov W^T = I`, so that `W (x - mean)` is white and `log|cov| = -2 sum_i log W_ii`.

    Args:
        cov: `[..., D, D]`, symmetric positive definite.

    Returns:
        W, `[..., D, D]`, lower triangular with a positive diagonal; NaN where `cov` is not positive definite.

    Raises:
        ShapeError: if the last two axes are not square.

    Example:
        >>> import jax.numpy as jnp
        >>> inverse_cholesky(jnp.array([[4.0, 2.0], [2.0, 5.0]])).tolist()
        [[0.5, 0.0], [-0.25, 0.5]]

    Source: as `cholesky` and `tril_inverse`.
    """
    cov = widened(jnp.asarray(cov))
    _check_square("inverse_cholesky(cov)", cov)
    return _tril_inverse(_cholesky(cov))


@compiled
def symmetric(a: Array) -> Array:
    """True if all matrices `[..., D, D]` are symmetric, up to the rounding of numbers that were computed elsewhere.

    `|a_ij - a_ji| <= 1e-4 sqrt(a_ii a_jj)`, in whatever units the coordinates are.

    Example:
        >>> bool(symmetric(jnp.array([[1e6, 1e-3], [0.0, 1e-6]]))), bool(symmetric(jnp.array([[1.0, 0.5], [0.0, 1.0]])))
        (False, False)
    """
    size = jnp.sqrt(jnp.diagonal(a, axis1=-2, axis2=-1))
    return jnp.all(jnp.abs(a - jnp.swapaxes(a, -1, -2)) <= 1e-4 * size[..., :, None] * size[..., None, :])


@compiled
def log_det_tril(lower: Array) -> Array:
    """Log of the absolute determinant of triangular matrices.

    `log|det L| = sum_i log|L_ii|`.

    Args:
        lower: `[..., D, D]`, triangular.

    Returns:
        `[...]`; -inf for a zero on the diagonal.

    Raises:
        ShapeError: if the last two axes are not square.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(log_det_tril(jnp.array([[2.0, 0.0], [1.0, 4.0]]))), 4)
        2.0794
    """
    lower = widened(jnp.asarray(lower))
    _check_square("log_det_tril(lower)", lower)
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(lower, axis1=-2, axis2=-1))), axis=-1)


def _eliminate(a: Array) -> tuple[Array, Array]:
    """The inverse of one matrix and the log of its absolute determinant, one column per step."""
    size = a.shape[-1]
    rows = jnp.arange(size)

    def column(k, state):
        # in place: column k of the matrix makes room for column k of the inverse
        a, order, logs = state
        p = jnp.argmax(jnp.where(rows >= k, jnp.abs(a[:, k]), -1))
        swap = jnp.where(rows == k, p, jnp.where(rows == p, k, rows))
        a, order = a[swap], order[swap]
        pivot, factors = a[k, k], jnp.where(rows == k, 0, a[:, k])
        row = jnp.where(rows == k, 1, a[k]) / pivot
        a = jnp.where(rows == k, 0, a) - factors[:, None] * row
        return a.at[k].set(row), order, logs.at[k].set(jnp.log(jnp.abs(pivot)))

    start = (a, rows, jnp.zeros(size, a.dtype))
    inverse, order, logs = lax.fori_loop(0, size, column, start)
    return jnp.zeros_like(a).at[:, order].set(inverse), jnp.sum(logs)


@jax.custom_jvp
def _log_det(a: Array) -> tuple[Array, Array]:
    return _eliminate(a)


@_log_det.defjvp
def _log_det_jvp(primals, tangents):
    inverse, log_det = _log_det(*primals)
    change = tangents[0]
    return (inverse, log_det), (-_matmul(inverse, _matmul(change, inverse)), jnp.sum(inverse.T * change))


@compiled
def log_det(a: Array) -> Array:
    """Log of the absolute determinant of square matrices, by elimination with partial pivoting.

    `log|det A|`, with `d log|det A| = tr(A^-1 dA)`.

    Args:
        a: `[..., D, D]`.

    Returns:
        `[...]`; -inf or NaN for a matrix that is singular. It costs `2 D^3` multiplications.

    Raises:
        ShapeError: if the last two axes are not square.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(log_det(jnp.array([[0.0, 2.0], [3.0, 1.0]]))), 4)  # log 6
        1.7918

    Source: Golub & Van Loan (2013), Matrix Computations, algorithm 3.4.1.
    """
    a = widened(jnp.asarray(a))
    _check_square("log_det(a)", a)
    return jnp.vectorize(lambda a: _log_det(a)[1], signature="(d,d)->()")(a)


@functools.partial(jax.jit, static_argnames="squarings", inline=True)
def spectral_bound(a: Array, squarings: int = 6) -> Array:
    """An upper bound of the largest singular value that is a smooth function of the matrix and nearly exact.

    `|A|_2 <= |(A^T A)^q|_F^(1/2q)`, `q = 2^squarings`: a power mean of all singular values, above the largest by no
    more than a factor of `r^(1/4q)`, r the rank: 1.02 for r = 128 and six squarings. Power iteration, which is the
    usual way, needs a state and comes from below.

    Args:
        a: `[M, N]`.
        squarings: of the smaller Gram matrix.

    Returns:
        `[]`, exact up to rounding in that it bounds; 0 for a zero matrix, where the gradient is zero.

    Raises:
        ShapeError: not one matrix.

    Example:
        >>> import jax.numpy as jnp
        >>> spectral_bound(jnp.array([[3.0, 0.0], [0.0, 2.0]])).round(4).tolist()
        3.0

    Source: Delattre et al. (2023), Efficient bound of Lipschitz constant for convolutional layers by Gram iteration,
    theorem 1.
    """
    a = widened(jnp.asarray(a))
    if a.ndim != 2:
        raise ShapeError("not one matrix", called="spectral_bound(a)", expected="[M, N]", got=f"{a.shape}")
    # squares of small numbers would underflow; the result does not depend on this unit
    unit = lax.stop_gradient(jnp.max(jnp.abs(a), initial=0))
    unit = jnp.where(unit > 0, unit, 1)
    a = (a if a.shape[0] <= a.shape[1] else a.T) / unit

    def square(gram, _):
        total = jnp.sum(gram**2)
        size = jnp.where(total > 0, total, 1) ** 0.5
        gram = gram / size
        return _matmul(gram, gram), (total > 0, jnp.log(size))

    _, (found, logs) = lax.scan(square, _matmul(a, a.T), length=squarings + 1)
    return jnp.where(found[0], unit * jnp.exp(jnp.sum(logs * 0.5 ** jnp.arange(1, squarings + 2, dtype=logs.dtype))), 0)


@compiled
def inverse_of_sums(matrix: Array, scale: Array) -> tuple[Array, Array]:
    """The inverse of a matrix of weighted sums, such as normal equations, on the directions that it knows.

    Args:
        matrix: `[P, P]`, symmetric positive semidefinite up to rounding.
        scale: `[P]`, the size of the terms that were added for the diagonal: the diagonal itself, or that before means
            were taken out. What is no more than the rounding of these is no number, and its direction is left out.

    Returns:
        The inverse `[P, P]`, zero on directions that were left out, and whether there were none.

    Example:
        >>> inverse_of_sums(jnp.array([[4.0, 0.0], [0.0, 0.0]]), jnp.array([4.0, 1.0]))[0].tolist()
        [[0.25, 0.0], [0.0, 0.0]]

    Source: Golub & Van Loan (2013), Matrix Computations, section 5.5.
    """
    size = jnp.where(scale > 0, scale, 1) ** -0.5
    value, vector = jnp.linalg.eigh(matrix * size[:, None] * size)
    real = value > 16 * max(len(scale), 1) * jnp.finfo(value.dtype).eps
    inner = _matmul(vector * jnp.where(real, 1 / jnp.where(real, value, 1), 0), vector.T)
    return inner * size[:, None] * size, jnp.all(real)
