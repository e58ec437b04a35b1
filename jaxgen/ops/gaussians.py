"""Gaussian likelihoods and moments of K components on N events, as matrix products.

Two forms of the same numbers. *Residuals*, `W_k (x_n - m_k)`, lose nothing to float32 but cost D^2 products for each
pair. *Columns*, the monomials of degree one and two of `x_n - center`, are computed once per fit; after that the
exponents of all pairs are one matrix product and all moments another, of D (D + 3) / 2 products a pair. Their rounding
error grows with the square of (distance from the center / width of the component), so a `Quadratic` bounds it and turns
to residuals where it could be seen.

Source: the monomials are the sufficient statistics of the exponential family (Bishop, 2006, Pattern recognition and
machine learning, section 2.4); errors of inner products after Higham (2002), Accuracy and stability, section 3.1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import concrete
from jaxgen.core.pytree import registered
from jaxgen.core.rare import any_lane, rare_paths_left_out, rarely
from jaxgen.ops.linalg import inverse_cholesky, symmetric, tril_inverse

LOG_2PI = math.log(2.0 * math.pi)
HIGHEST = jax.lax.Precision.HIGHEST
#: rounding of an exponent, nats, beyond which columns give way to residuals (measured: the mean log-likelihood is off
#: by a tenth of it); and the number of events from which that holds. Fewer average less, and have time for residuals
COLUMN_ERROR, COLUMN_EVENTS = 5e-5, 6000
#: events below which columns hardly ever do: there they are the rare path
FEW_EVENTS = 2000
#: roundings that the entries of a correlation matrix of sums are off by, for each root of its size
NOISE = 16


class Moments(NamedTuple):
    """Weighted moments around the mean of the model that took them: total weight, first and second moment."""

    weight: jax.Array
    first: jax.Array
    second: jax.Array


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """A matrix product in full precision, on GPUs too."""
    return jnp.matmul(a, b, precision=HIGHEST)


@compiled
def log_diagonal(whitener: jax.Array) -> jax.Array:
    """Lower triangular matrices `[..., D, D]` with the logarithms of their diagonals: free parameters.

    Example:
        >>> log_diagonal(jnp.array([[1.0, 0.0], [3.0, 1.0]])).tolist()
        [[0.0, 0.0], [3.0, 0.0]]
    """
    diagonal = jnp.diagonal(whitener, axis1=-2, axis2=-1)
    return jnp.tril(whitener, -1) + jnp.log(diagonal)[..., None] * jnp.eye(diagonal.shape[-1], dtype=whitener.dtype)


@compiled
def whitener_scales(whitener: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The scales of a mean and of what `log_diagonal` makes of W, for steps that do not depend on the units of x.

    A coordinate's scale is `1 / sqrt(P_dd)`, P the precision: its standard deviation given all others. W has the
    inverse of it in each column, but for its diagonal, whose logarithm has no units.

    Args:
        whitener: W, `[*K, D, D]`.

    Returns:
        `[*K, D]` and `[*K, D, D]`.

    Example:
        >>> mean, raw = whitener_scales(jnp.array([[2.0, 0.0], [0.0, 4.0]]))
        >>> mean.tolist(), raw.tolist()
        ([0.5, 0.25], [[1.0, 4.0], [2.0, 1.0]])
    """
    precision = jnp.sum(whitener**2, axis=-2)
    diagonal = jnp.eye(whitener.shape[-1], dtype=bool)
    return jax.lax.rsqrt(precision), jnp.where(diagonal, 1, jnp.sqrt(precision)[..., None, :])


@compiled
def raw_whitener(covariance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`log_diagonal` of the whiteners of covariances `[..., D, D]`, and whether all are symmetric positive definite."""
    whitener = inverse_cholesky(covariance)
    return log_diagonal(whitener), symmetric(covariance) & jnp.isfinite(whitener).all()


def ridge(name: str, matrix: Any) -> str:
    """Code that makes matrices that are not symmetric positive definite so, as the fix of an error.

    Example:
        >>> ridge("covariance", [[1.0, 2.0], [2.0, 1.0]])
        'np.asarray(covariance) + 1.1 * np.eye(2)'
    """
    a = np.asarray(matrix, np.float64)
    turned = np.swapaxes(a, -1, -2)
    values = np.linalg.eigvalsh((a + turned) / 2)
    size = 1.1 * (max(-values.min(), 0) + 1e-3 * (np.abs(values).max() or 1))
    array = f"np.asarray({name})"
    array = array if np.allclose(a, turned, rtol=1e-4) else f"({array} + np.swapaxes({array}, -1, -2)) / 2"
    return f"{array} + {size:.2g} * np.eye({a.shape[-1]})"


def checked_whitener(covariance: jax.Array, called: str) -> jax.Array:
    """Return `log_diagonal` of the whiteners of covariances `[..., D, D]`, which is how Gaussians keep them.

    Raises:
        ModelError: one that is not symmetric positive definite.
    """
    raw, positive_definite = raw_whitener(covariance)
    if concrete(covariance) and not positive_definite:
        raise ModelError(
            "the covariance is not symmetric positive definite", called=called, fix=ridge("covariance", covariance),
            expected="a positive definite matrix", got=f"diagonal {jnp.diagonal(covariance, axis1=-2, axis2=-1)}",
        )  # fmt: skip
    return raw


def check_covariance(mean: jax.Array, covariance: jax.Array, called: str) -> None:
    """Refuses covariances that are not `[..., D, D]` for means `[..., D]` with a ModelError."""
    wanted = (*mean.shape, *mean.shape[-1:])
    if covariance.shape != wanted:
        raise ModelError(
            "the covariance does not fit the mean", called=called, got=f"shape {list(covariance.shape)}",
            expected=f"shape {list(wanted)}",
        )  # fmt: skip


def shift_moments(moments: Moments, by: jax.Array) -> Moments:
    """Moments `(w [], first [D], second [D, D] or [D])` around another point, `by` away from the one they were around.

    Example:
        >>> around_zero = Moments(jnp.float32(1), jnp.array([2.0]), jnp.array([[4.0]]))
        >>> shift_moments(around_zero, jnp.array([2.0])).second.tolist()
        [[0.0]]
    """
    weight, first, second = moments
    if second.ndim == first.ndim:
        return Moments(weight, first - weight * by, second - by * (2 * first - weight * by))
    moved = first - weight * by
    return Moments(weight, moved, second - jnp.outer(first, by) - jnp.outer(by, moved))


@compiled
def floored_whitener(covariance: jax.Array, floor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whiteners of covariances `[K, D, D]` under `cov >= diag(floor)`, floors `[K, D]`, and which had to be raised.

    With `u = 1 / sqrt(lowest)` for the larger of the floor and of what rounding leaves of a column's own variance, the
    eigenvalues of `diag(u) cov diag(u)` below one become one: the likeliest covariance in that set, in any units.

    Source: Anderson and Olkin (1985), Maximum-likelihood estimation of the parameters of a multivariate normal
    distribution.

    Example:
        >>> whitener, raised = floored_whitener(jnp.array([[[4.0, 0.0], [0.0, 0.0]]]), jnp.array([[1.0, 1.0]]))
        >>> whitener.tolist(), raised.tolist()
        ([[[0.5, 0.0], [0.0, 1.0]]], [True])
    """
    size, kind = covariance.shape[-1], jnp.finfo(covariance.dtype)
    variance = jnp.diagonal(covariance, axis1=-2, axis2=-1)
    # an eigenvalue of a correlation below this is the rounding of its entries
    lowest = jnp.maximum(jnp.maximum(floor, NOISE * size**0.5 * float(kind.eps) * variance), kind.tiny)
    scale = jnp.sqrt(jnp.maximum(variance, lowest))
    correlation = covariance / (scale[..., None] * scale[..., None, :])
    share = lowest / scale**2
    white = inverse_cholesky(correlation)
    # the sum of the eigenvalues of an inverse bounds the smallest of the matrix from below
    regular = jnp.sum(white**2 * share[..., None, :], axis=(-2, -1)) <= 1

    def raised() -> tuple[jax.Array, jax.Array]:
        root = jnp.sqrt(share)
        value, vector = jnp.linalg.eigh(correlation / (root[..., None] * root[..., None, :]))
        low = ~(value[:, 0] >= 1) | ~jnp.isfinite(white).all(axis=(-2, -1))
        higher = matmul(vector * jnp.maximum(value, 1)[:, None], jnp.swapaxes(vector, -1, -2))
        new = inverse_cholesky(higher * root[..., None] * root[..., None, :])
        # where rounding leaves no factor, the columns by themselves; what is no number stays none
        failed = ~jnp.isfinite(new).all(axis=(-2, -1)) & jnp.isfinite(value).all(axis=-1)
        new = jnp.where(failed[:, None, None], jnp.eye(size, dtype=new.dtype), new)
        return jnp.where(low[:, None, None], new, white), low

    chosen, low = rarely(~regular, raised, lambda: (white, ~regular))
    return chosen / scale[..., None, :], low


def full_columns(x: jax.Array) -> jax.Array:
    """The monomials of degree two and one, `[N, D] -> [D (D + 1) / 2 + D, N]`: what full covariances need.

    Example:
        >>> full_columns(jnp.array([[2.0, 3.0]])).ravel().tolist()
        [4.0, 6.0, 9.0, 2.0, 3.0]
    """
    rows, i, j = x.T, *np.triu_indices(x.shape[1])
    return jnp.concatenate([rows[i] * rows[j], rows])


def diagonal_columns(x: jax.Array) -> jax.Array:
    """Squares and values, `[N, D] -> [2 D, N]`: what diagonal covariances need.

    Example:
        >>> diagonal_columns(jnp.array([[2.0, 3.0]])).ravel().tolist()
        [4.0, 9.0, 2.0, 3.0]
    """
    rows = x.T
    return jnp.concatenate([rows * rows, rows])


def each(function: Callable[..., Any], *args: Any) -> Any:
    """`function` of each of K components: one by one on a CPU, whose caches like small pieces, else at once."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda one: function(*one), args)
    return jax.vmap(function)(*args)


@compiled
def full_log_prob(x: jax.Array, origin: jax.Array, offset: jax.Array, whitener: jax.Array) -> jax.Array:
    """`log N` of K components, means `origin + offset [K, D]` and whiteners `[K, D, D]`, on events `[N, D]`: `[K, N]`.

    Events are columns here: sums over coordinates then run along memory.
    """
    rows = x.T

    def one(origin: jax.Array, offset: jax.Array, whitener: jax.Array) -> jax.Array:
        z = matmul(whitener, (rows - origin[:, None]) - offset[:, None])
        return -0.5 * (jnp.sum(z * z, axis=0) + len(z) * LOG_2PI) + jnp.sum(jnp.log(jnp.diagonal(whitener)))

    return each(one, origin, offset, whitener)


@compiled
def full_moments(x: jax.Array, origin: jax.Array, offset: jax.Array, weight: jax.Array) -> Moments:
    """`Moments` of K components around their means `[K, D]` from events `[N, D]` and weights `[K, N]`."""
    rows = x.T

    def one(origin: jax.Array, offset: jax.Array, weight: jax.Array) -> Moments:
        d = (rows - origin[:, None]) - offset[:, None]
        return Moments(jnp.sum(weight), matmul(d, weight), matmul(d * weight, d.T))

    return each(one, origin, offset, weight)


@compiled
def diagonal_log_prob(x: jax.Array, origin: jax.Array, offset: jax.Array, log_scale: jax.Array) -> jax.Array:
    """`log N` of K components from means and logarithms of scales `[K, D]` on events `[N, D]`: `[K, N]`."""
    rows = x.T

    def one(origin: jax.Array, offset: jax.Array, log_scale: jax.Array) -> jax.Array:
        z = ((rows - origin[:, None]) - offset[:, None]) * jnp.exp(-log_scale)[:, None]
        return -0.5 * jnp.sum(z * z, axis=0) - (jnp.sum(log_scale) + 0.5 * len(z) * LOG_2PI)

    return each(one, origin, offset, log_scale)


@compiled
def diagonal_moments(x: jax.Array, origin: jax.Array, offset: jax.Array, weight: jax.Array) -> Moments:
    """`Moments` of K components, second moments of each coordinate, from events `[N, D]` and weights `[K, N]`."""
    rows = x.T

    def one(origin: jax.Array, offset: jax.Array, weight: jax.Array) -> Moments:
        d = (rows - origin[:, None]) - offset[:, None]
        return Moments(jnp.sum(weight), matmul(d, weight), matmul(d * d, weight))

    return each(one, origin, offset, weight)


@registered
@dataclasses.dataclass(frozen=True)
class Quadratic:
    """K Gaussians made ready for many events: their exponents as linear functions of columns.

    It stands in the place of the components in an E-step, on `Events` with columns.

    Args:
        linear: `[K, F]`, coefficients of the columns.
        constant: `[K]`.
        mean: `[K, D]`, relative to the center of the columns.
        origin: `[K, D]`, the center.
        shape: `[K, D, D]` whiteners, or `[K, D]` logarithms of scales.
        coarse: bool, whether columns lose digits, so that residuals are needed.
        few: whether there are so few events that a program without rare paths takes residuals in any case.
    """

    linear: jax.Array
    constant: jax.Array
    mean: jax.Array
    origin: jax.Array
    shape: jax.Array
    coarse: jax.Array
    few: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def full(cls, mean: jax.Array, whitener: jax.Array, center: jax.Array, events: int) -> Quadratic:
        """From means `[K, D]` relative to the center and whiteners `[K, D, D]`, for sums over so many events."""
        precision = matmul(jnp.swapaxes(whitener, -1, -2), whitener)
        slope = jnp.sum(precision * mean[:, None], axis=-1)
        log_det = jnp.sum(jnp.log(jnp.diagonal(whitener, axis1=-2, axis2=-1)), axis=-1)
        constant = log_det - 0.5 * (jnp.sum(slope * mean, axis=-1) + mean.shape[-1] * LOG_2PI)
        i, j = np.triu_indices(mean.shape[-1])
        factor = jnp.asarray(np.where(i == j, -0.5, -1.0), mean.dtype)
        linear = jnp.concatenate([factor * precision[:, i, j], slope], axis=-1)
        reach = jnp.abs(mean) + jnp.sqrt(jnp.sum(tril_inverse(whitener) ** 2, axis=-1))
        terms = precision * reach[:, None] * reach[..., None]
        return cls._on(events, terms, linear, constant, mean, center, whitener)

    @classmethod
    def diagonal(cls, mean: jax.Array, log_scale: jax.Array, center: jax.Array, events: int) -> Quadratic:
        """From means `[K, D]` relative to the center and logarithms of scales `[K, D]`, for so many events."""
        precision = jnp.exp(-2 * log_scale)
        slope = precision * mean
        energy = jnp.sum(slope * mean, axis=-1) + mean.shape[-1] * LOG_2PI
        constant = -jnp.sum(log_scale, axis=-1) - 0.5 * energy
        linear = jnp.concatenate([-0.5 * precision, slope], axis=-1)
        terms = precision * (jnp.abs(mean) + jnp.exp(log_scale)) ** 2
        return cls._on(events, terms, linear, constant, mean, center, log_scale)

    @classmethod
    def _on(
        cls, events: int, terms: jax.Array, linear: jax.Array, constant: jax.Array, mean: jax.Array, center: jax.Array,
        shape: jax.Array,
    ) -> Quadratic:  # fmt: skip
        few = events < FEW_EVENTS
        by_residuals = few and rare_paths_left_out()
        coarse = jnp.ones((), bool) if by_residuals else _coarse(terms, events)
        return cls(linear, constant, mean, jnp.broadcast_to(center, mean.shape), shape, coarse, few)

    def _by(self, events: Any, residuals: Callable[[], jax.Array], columns: Callable[[], jax.Array]) -> jax.Array:
        if self.few and rare_paths_left_out():
            return residuals()
        return rarely(events.precise, residuals, columns)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.mean.shape

    @property
    def _is_full(self) -> bool:
        return self.shape.ndim > self.mean.ndim

    def log_prob_components(self, events: Any) -> jax.Array:
        """`[K, N]` nats."""

        def by_residuals() -> jax.Array:
            log_prob = full_log_prob if self._is_full else diagonal_log_prob
            return log_prob(events.x, self.origin, self.mean, self.shape)

        def by_columns() -> jax.Array:
            return matmul(self.linear, events.columns) + self.constant[:, None]

        return self._by(events, by_residuals, by_columns)

    def e_step_components(self, events: Any, weight: jax.Array) -> Moments:
        """Return the sums over a chunk, with weights `[K, N]`, that `finish` turns into `Moments` of K components.

        First and second moments as the columns have them, packed and around the center; around the means where
        residuals are taken.
        """
        d = self.mean.shape[-1]

        def by_residuals() -> jax.Array:
            moments = full_moments if self._is_full else diagonal_moments
            _, first, second = moments(events.x, self.origin, self.mean, weight)
            second = second[:, *np.triu_indices(d)] if self._is_full else second
            return jnp.concatenate([second, first], axis=1)

        def by_columns() -> jax.Array:
            return jax.lax.dot_general(weight, events.columns, (((1,), (1,)), ((), ())), precision=HIGHEST)

        sums = self._by(events, by_residuals, by_columns)
        return Moments(jnp.sum(weight, axis=1), sums[:, -d:], sums[:, :-d])

    def finish(self, sums: Moments, precise: jax.Array) -> Moments:
        """`Moments` around the means from what the chunks add up to."""
        second = sums.second[:, _unpacking(self.mean.shape[-1])] if self._is_full else sums.second
        move = jnp.where(precise, 0, self.mean)
        return jax.vmap(shift_moments)(Moments(sums.weight, sums.first, second), move)


def _unpacking(d: int) -> np.ndarray:
    """Return the place of each entry of a symmetric matrix among those of its upper triangle, `[D, D]`."""
    place = np.zeros((d, d), int)
    place[np.triu_indices(d)] = np.arange(d * (d + 1) // 2)
    return np.maximum(place, place.T)


def _coarse(terms: jax.Array, events: int) -> jax.Array:
    """True if exponents that add `terms [K, ...]` round off by more than is allowed: rounding errors add like noise."""
    norm = jnp.sqrt(jnp.sum(terms**2, axis=tuple(range(1, terms.ndim))))
    bound = jnp.finfo(terms.dtype).eps * jnp.mean(norm)
    # NaN is not small either
    return any_lane(jax.lax.stop_gradient(~(bound < COLUMN_ERROR * min(1, events / COLUMN_EVENTS) ** 2)))


class Filled(NamedTuple):
    """Residuals of one event `[D]` with what was not seen at its conditional mean, the conditional covariance
    `[D, D]` (zero where seen), and what the filled event's log-density lacks to be that of the seen part."""

    d: jax.Array
    covariance: jax.Array
    correction: jax.Array


@compiled
def fill_missing(whitener: jax.Array, d: jax.Array) -> Filled:
    """The conditional moments of the missing entries (NaN) of one event, exactly.

    With `P = W^T W` and M the missing entries: `cov_MM = (P_MM)^-1`, `d_M = -cov_MM P_MO d_O`, and
    `log p(x_O) = log p(x_O, d_M) + (|M| log 2 pi - log det P_MM) / 2`, since a Gaussian at its conditional mean is its
    normalising constant.

    Args:
        whitener: `[D, D]`.
        d: residuals `[D]`, NaN where missing.

    Returns:
        `Filled`. Elimination runs without pivots, which a positive definite matrix does not need (Higham 2002,
        section 10.1), and is a loop over D: no LAPACK.

    Source: Little and Rubin (2002), Statistical analysis with missing data, section 11.2.

    Example:
        >>> filled = fill_missing(jnp.eye(2), jnp.array([1.0, jnp.nan]))
        >>> filled.d.tolist(), filled.covariance[1, 1].item()
        ([1.0, 0.0], 1.0)
    """
    size = d.shape[-1]
    missing = jnp.isnan(d)
    seen = jnp.where(missing, 0, d)
    precision = matmul(whitener.T, whitener)
    both = missing[:, None] & missing
    block = jnp.where(both, precision, jnp.eye(size, dtype=precision.dtype))

    def eliminate(state: Any, i: Any) -> Any:
        a, log_det = state
        pivot = a[i, i]
        row, column = a[i] / pivot, a[:, i]
        unit = jnp.arange(size) == i
        rest = a - jnp.where(unit, 0, column)[:, None] * row
        rest = jnp.where(unit[:, None], row, rest)
        # the pivot's column of the inverse takes the place of the unit vector that it became
        rest = jnp.where(unit, (jnp.where(unit, 1, -column) / pivot)[:, None], rest)
        return (rest, log_det + jnp.log(pivot)), None

    (inverse, log_det), _ = jax.lax.scan(eliminate, (block, jnp.zeros((), block.dtype)), jnp.arange(size))
    covariance = jnp.where(both, inverse, 0)
    fill = -matmul(covariance, matmul(precision, seen))
    return Filled(seen + fill, covariance, 0.5 * (jnp.sum(missing) * LOG_2PI - log_det))
