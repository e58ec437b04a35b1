"""The sliced Wasserstein distance: earth movers on lines through samples and data."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import FitError
from jaxgen.core.methods import is_count
from jaxgen.metrics.samples.source import Estimate, both, halves, split

#: lines whose projections are held at once
TOGETHER = 16


def sliced_wasserstein(
    key: Any, model: Any, data: Any, feature: Any = None, *, lines: int = 512, n: int | None = None
) -> Estimate:  # fmt: skip
    """Return the squared sliced Wasserstein-2 distance: the mean over lines of what moving one set on the other costs.

    `mean_theta int_0^1 (F_x^-1(u) - F_y^-1(u))^2 du`, F the distribution functions of projections on theta

    Of a shift by D it is `|D|^2 / F`, exactly where `lines` is a multiple of F: lines come in random orthogonal frames.
    With the features of an InceptionV3 it is the distance that MIND averages over lines, without a factor.

    Args:
        key: typed key, for lines and draws.
        model: can be sampled; or samples `[N, *event]`.
        data: `[M, *event]`, M of 4 or more, or a stream.
        feature: a function of a batch of events, a `Feature`, or None for the default of `metrics.samples`.
        lines: how many, 2 or more.
        n: how many draws of a model; as many as there are data where not told.

    Returns:
        `Estimate`, in squared units of the features: exact for these samples but for the choice of lines, of which the
        standard error is. It is above 0 for two samples of one distribution, as is its floor.

    Raises:
        DataError, ShapeError: too few events, no data, features that are not finite. FitError: no lines.
        ModelError: a model that cannot be sampled.

    Source: Bonneel, Rabin, Peyre and Pfister (2015), Sliced and Radon Wasserstein barycenters of measures; Berthet et
    al. (2026), MIND: Monge inception distance for generative models evaluation.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 2))
        >>> round(sliced_wasserstein(jax.random.key(0), x + [3.0, 4.0], x).value, 4)  # 25 / 2
        12.5
    """
    called = f"samples.sliced_wasserstein(key, model, data, lines={lines})"
    if not is_count(lines, 2):
        raise FitError("no lines to project on", called=called, expected="lines of 2 or more", got=str(lines))
    draw, choose = split(key, called)
    fake, real = both(draw, model, data, feature, called, n=n, least=4, why="two in each half")
    size = real.shape[1]
    frames = jax.random.orthogonal(choose, size, (-(-lines // size),), real.dtype)
    directions = frames.reshape(-1, size)[:lines]
    costs = _moved(fake, real, directions)
    floor = _moved(*halves(real), directions)
    return Estimate(float(costs.mean()), float(costs.std(ddof=1) / math.sqrt(lines)), float(floor.mean()), len(fake),
                    len(real))  # fmt: skip


def _moved(x: jax.Array, y: jax.Array, directions: jax.Array) -> np.ndarray:
    return np.asarray(_costs(x, y, directions, *_couplings(len(x), len(y))), np.float64)


@jax.jit
def _costs(x: Any, y: Any, directions: Any, left: Any, right: Any, mass: Any) -> jax.Array:
    """The cost along each direction, `[lines]`."""
    center = jnp.mean(y, axis=0)

    def along(direction: Any) -> jax.Array:
        a, b = (jnp.sort(jnp.matmul(rows - center, direction, precision="highest")) for rows in (x, y))
        return jnp.sum(mass * (a[left] - b[right]) ** 2)

    return jax.lax.map(along, directions, batch_size=min(TOGETHER, len(directions)))


@functools.lru_cache(maxsize=16)
def _couplings(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which sorted point goes to which, with what mass: the steps of both distribution functions."""
    # whole numbers, in units of 1 / (n m): no step is lost to rounding
    steps = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    mass = np.diff(steps, prepend=0)
    left, right = (steps - 1) // m, (steps - 1) // n
    return left.astype(np.int32), right.astype(np.int32), (mass / (n * m)).astype(np.float32)
