"""Kernel distances of samples and data: KID, and the maximum mean discrepancy of any kernel."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, FitError, ShapeError
from jaxgen.core.value import ByValue
from jaxgen.metrics.samples.source import Estimate, both, halves
from jaxgen.ops.distances import over_rows, squared_distances

#: `([B, F], [N, F]) -> [B, N]`
Kernel = Callable[[jax.Array, jax.Array], jax.Array]
#: a jackknife of a U-statistic leaves one of three out, and each half of the data needs as many
LEAST = 6


def cubic(x: jax.Array, y: jax.Array) -> jax.Array:
    """The kernel of KID, `(x.y / F + 1)^3`.

    Example:
        >>> cubic(jnp.ones((1, 2)), jnp.ones((1, 2))).tolist()
        [[8.0]]
    """
    return (jnp.matmul(x, y.T, precision="highest") / x.shape[1] + 1) ** 3


def gaussian(scale: float) -> Kernel:
    """Return the kernel `exp(-|x - y|^2 / (2 scale^2))`, scale in units of the features.

    Raises:
        FitError: a scale of 0 or less.

    Example:
        >>> gaussian(1.0)(jnp.zeros((1, 2)), jnp.ones((1, 2))).shape
        (1, 1)
    """
    if not scale > 0:
        raise FitError("a kernel needs a width", called=f"samples.gaussian({scale})", expected="scale above 0",
                       got=str(scale))  # fmt: skip
    return lambda x, y: jnp.exp(-squared_distances(x, y) / (2 * scale**2))


def kid(key: Any, model: Any, data: Any, feature: Any = None, *, n: int | None = None) -> Estimate:
    """Return the kernel inception distance: the squared MMD of the cubic kernel, unbiased, of all samples at once.

    Published values are means over subsets of 1000, which have the same expectation; some print them times 1000.

    Args:
        key, model, data, feature, n: as of `mmd`.

    Source: Binkowski, Sutherland, Arbel and Gretton (2018), Demystifying MMD GANs.

    Example:
        >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] * 2)
        >>> kid(jax.random.key(0), x, x + 1.0).value > 0
        True
    """
    return mmd(key, model, data, cubic, feature, n=n)


def mmd(
    key: Any, model: Any, data: Any, kernel: Kernel, feature: Any = None, *, n: int | None = None
) -> Estimate:  # fmt: skip
    """Return the squared maximum mean discrepancy of samples and data, unbiased: it may be below 0.

    `mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j)`

    Args:
        key: typed key, for draws.
        model: can be sampled; or samples `[N, *event]`, N of 6 or more.
        data: `[M, *event]`, M of 6 or more, or a stream.
        kernel: `([B, F], [N, F]) -> [B, N]`, symmetric and positive definite, such as `cubic` or `gaussian(1.0)`.
        feature: a function of a batch of events, a `Feature`, or None for the default of `metrics.samples`.
        n: how many draws of a model; as many as there are data where not told.

    Returns:
        `Estimate`, its standard error by a jackknife. Features are kept, `N x N` numbers are not.

    Raises:
        DataError, ShapeError: too few events, no data, features or kernels that are not finite, or a kernel of another
            shape.
        ModelError: a model that cannot be sampled.

    Source: Gretton et al. (2012), A kernel two-sample test.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(400, 2))
        >>> found = mmd(jax.random.key(0), x[:200] + [1.0, 0.0], x[200:], gaussian(1.0))
        >>> found.value > 3 * found.standard_error, abs(found.floor) < 0.02
        (True, True)
    """
    called = "samples.mmd(key, model, data, kernel)"
    fake, real = both(key, model, data, feature, called, n=n, least=LEAST, why="three in each half")
    shape = jax.eval_shape(kernel, fake[:2], real[:5]).shape
    if shape != (2, 5):
        raise ShapeError("the kernel does not give a number for each pair", called=called,
                         expected="([B, F], [N, F]) -> [B, N]", got=f"[2, F], [5, F] -> {list(shape)}")  # fmt: skip
    value, error = _discrepancy(kernel, fake, real)
    if not math.isfinite(value):
        raise DataError(
            "the kernel gives numbers that are not finite", called=called, expected="finite sums of k(x, y)",
            got=f"a distance of {value}, of features up to {float(max(abs(fake).max(), abs(real).max())):g}",
            fix="bring features to a size near one, or take a kernel that is bounded, such as a Gaussian one",
        )  # fmt: skip
    return Estimate(value, error, _discrepancy(kernel, *halves(real))[0], len(fake), len(real))


def _discrepancy(kernel: Kernel, x: jax.Array, y: jax.Array) -> tuple[float, float]:
    n, m = len(x), len(y)
    sums = functools.partial(_row_sums, ByValue(kernel))
    # on the host in float64: the terms are alike, and their difference is small
    (xx, yy), (xy, yx) = (
        [np.asarray(row, np.float64) for row in rows]
        for rows in ((sums(x, x, True), sums(y, y, True)), (sums(x, y, False), sums(y, x, False)))
    )
    across = (xy.sum() + yx.sum()) / (2 * n * m)
    own_x, own_y = xx.sum() / (n * (n - 1)), yy.sum() / (m * (m - 1))
    value = own_x + own_y - 2 * across
    without_x = (xx.sum() - 2 * xx) / ((n - 1) * (n - 2)) + own_y - 2 * (xy.sum() - xy) / ((n - 1) * m)
    without_y = (yy.sum() - 2 * yy) / ((m - 1) * (m - 2)) + own_x - 2 * (yx.sum() - yx) / ((m - 1) * n)
    variance = sum((1 - 1 / len(left)) * np.sum((left - left.mean()) ** 2) for left in (without_x, without_y))
    return float(value), float(np.sqrt(variance))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _row_sums(kernel: Any, x: jax.Array, y: jax.Array, without_self: bool) -> jax.Array:
    """`sum_j k(x_i, y_j)`, `[N]`, without j = i where told."""

    def rows(rows: Any, index: Any) -> jax.Array:
        own = (index[:, None] == jnp.arange(len(y))) & without_self
        return jnp.sum(jnp.where(own, 0, kernel(rows, y)), axis=1)

    return over_rows(rows, x, len(x))
