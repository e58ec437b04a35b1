"""Two-dimensional densities to draw from, with their exact log-densities: what a fitted model can reach at best."""

from __future__ import annotations

import math
import operator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import as_array

_NODES_PER_PANEL = 24  # Gauss-Legendre; panels are two noise widths long
_FLOATS_AT_ONCE = 2**22  # of the [events, nodes] table in memory


def two_moons(key: jax.Array, n: int, *, noise: float = 0.05) -> jax.Array:
    """Draws from two interleaved half circles with Gaussian noise.

    `x = c + noise * z`, where with probability 1/2 `c = (cos a, sin a)`, else `c = (1 - cos a, 1/2 - sin a)`, and
    `a ~ Uniform(0, pi)`: scikit-learn's `make_moons`, but with random instead of equally spaced angles, so that events
    are independent. At noise 0.05 no model's expected log-likelihood exceeds -0.289 nats (-1.008 at noise 0.1).

    Args:
        key: a typed PRNG key.
        n: number of events.
        noise: standard deviation, not negative.

    Returns:
        `[n, 2]`, float32 (float64 where x64 is enabled). Traceable: `jit`, and `vmap` over keys.

    Raises:
        DataError: n below one, negative noise, a key of the old style.

    Example:
        >>> two_moons(jax.random.key(0), 100).shape
        (100, 2)

    Source: Pedregosa et al. (2011), scikit-learn, `make_moons`.
    """
    n = _count(n, "two_moons")
    return _draw_moons(_typed(key, "two_moons"), n, _scale(noise, "two_moons", "noise", zero=True))


def two_moons_log_density(x: Any, *, noise: float = 0.05) -> jax.Array:
    """The exact log-density of `two_moons`, by quadrature over the angle.

    `log p(x) = log 1/2 sum_moons 1/pi int_0^pi N(x; c_moon(a), noise^2 I) da`, by Gauss-Legendre panels two noise
    widths long: exact to 1e-7 nats wherever float64 could tell the density from zero, and to 1e-5 of the value in the
    far emptiness. Its mean over the density itself is -0.2892 nats at noise 0.05.

    Args:
        x: `[*batch, 2]`.
        noise: standard deviation, positive.

    Returns:
        `[*batch]` nats. Traceable and differentiable in x.

    Raises:
        ShapeError: the last axis is not 2.
        DataError: noise not positive, x not data.

    Example:
        >>> x = two_moons(jax.random.key(0), 5000)
        >>> bool(abs(two_moons_log_density(x).mean() + 0.289) < 0.05)
        True
    """
    x = _points(x, "two_moons_log_density")
    noise = _scale(noise, "two_moons_log_density", "noise")
    n_panels = math.ceil(math.pi / (2 * noise))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES_PER_PANEL)
    edges = np.linspace(0, math.pi, n_panels + 1)
    half = math.pi / n_panels / 2
    angles = (edges[:-1, None] + half * (nodes + 1)).ravel()
    log_weight = jnp.asarray(np.tile(np.log(weights * half / math.pi), (2, n_panels)), x.dtype)
    outer = np.stack([np.cos(angles), np.sin(angles)], -1)
    centers = jnp.asarray(np.stack([outer, (1, 0.5) - outer]), x.dtype)  # [2, nodes, 2]

    def one(point):
        log_joint = log_weight - jnp.sum(((point - centers) / noise) ** 2, -1) / 2
        return jax.nn.logsumexp(log_joint) - math.log(2 * 2 * math.pi * noise**2)

    points = x.reshape(-1, 2)
    batch = max(1, min(len(points), _FLOATS_AT_ONCE // centers.size))
    return jax.lax.map(one, points, batch_size=batch).reshape(x.shape[:-1])


def eight_gaussians(
    key: jax.Array, n: int, *, radius: float = 4 / math.sqrt(2), scale: float = 0.5 / math.sqrt(2)
) -> jax.Array:
    """Draws from eight equal round Gaussians on a ring.

    `x = radius * (cos a, sin a) + scale * z`, `a` uniform on the eight multiples of `pi / 4`. The defaults are the
    usual ring of radius 4 and standard deviation 0.5, both divided by sqrt 2: no model's expected log-likelihood
    exceeds -2.832 nats. (It is -log 8 - log(2 pi e scale^2) = -2.838, and 0.007 back for the overlap of neighbours.)

    Args:
        key: a typed PRNG key.
        n: number of events.
        radius: of the ring, positive.
        scale: standard deviation of each Gaussian, positive.

    Returns:
        `[n, 2]`, float32 (float64 where x64 is enabled). Traceable: `jit`, and `vmap` over keys.

    Raises:
        DataError: n below one, radius or scale not positive, a key of the old style.

    Example:
        >>> eight_gaussians(jax.random.key(0), 100).shape
        (100, 2)

    Source: Grathwohl et al. (2019), FFJORD, toy densities.
    """
    n = _count(n, "eight_gaussians")
    centers = jnp.asarray(eight_gaussians_centers(radius=radius))
    return _draw_ring(_typed(key, "eight_gaussians"), n, centers, _scale(scale, "eight_gaussians", "scale"))


def eight_gaussians_log_density(
    x: Any, *, radius: float = 4 / math.sqrt(2), scale: float = 0.5 / math.sqrt(2)
) -> jax.Array:
    """The exact log-density of `eight_gaussians`.

    `log p(x) = log 1/8 sum_k N(x; m_k, scale^2 I)`. Its mean over the density itself is -2.8316 nats by default.

    Args:
        x: `[*batch, 2]`.
        radius: of the ring, positive.
        scale: standard deviation of each Gaussian, positive.

    Returns:
        `[*batch]` nats. Traceable and differentiable in x.

    Raises:
        ShapeError: the last axis is not 2.
        DataError: radius or scale not positive, x not data.

    Example:
        >>> print(f"{float(eight_gaussians_log_density([2.0, 2.0])):.4f}")
        -1.8379
    """
    x = _points(x, "eight_gaussians_log_density")
    scale = _scale(scale, "eight_gaussians_log_density", "scale")
    centers = jnp.asarray(eight_gaussians_centers(radius=radius), x.dtype)
    log_joint = -jnp.sum(((x[..., None, :] - centers) / scale) ** 2, -1) / 2
    return jax.nn.logsumexp(log_joint, axis=-1) - math.log(8 * 2 * math.pi * scale**2)


def eight_gaussians_centers(*, radius: float = 4 / math.sqrt(2)) -> np.ndarray:
    """The eight means of `eight_gaussians`, counter-clockwise from (radius, 0): to count the modes that a model found.

    Args:
        radius: of the ring, positive.

    Returns:
        `[8, 2]` float64.

    Raises:
        DataError: radius not positive.

    Example:
        >>> eight_gaussians_centers(radius=1.0)[2].round(6).tolist()
        [0.0, 1.0]
    """
    angles = np.arange(8) * (math.pi / 4)
    return _scale(radius, "eight_gaussians_centers", "radius") * np.stack([np.cos(angles), np.sin(angles)], -1)


@partial(jax.jit, static_argnames="n")
def _draw_moons(key, n, noise):
    key_side, key_angle, key_noise = jax.random.split(key, 3)
    inner = jax.random.bernoulli(key_side, shape=(n, 1))
    angle = jax.random.uniform(key_angle, (n,), maxval=math.pi)
    outer = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    return jnp.where(inner, jnp.array([1, 0.5]) - outer, outer) + noise * jax.random.normal(key_noise, (n, 2))


@partial(jax.jit, static_argnames="n")
def _draw_ring(key, n, centers, scale):
    key_mode, key_noise = jax.random.split(key)
    return centers[jax.random.randint(key_mode, (n,), 0, 8)] + scale * jax.random.normal(key_noise, (n, 2))


def _points(x: Any, called: str) -> jax.Array:
    points = jnp.asarray(as_array(x, name="x"))
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ShapeError(
            "a point has two coordinates", called=f"{called}(x)", expected="[..., 2]", got=f"{points.shape}",
            fix="put the axis of the two coordinates last",
        )  # fmt: skip
    return points if jnp.issubdtype(points.dtype, jnp.floating) else points.astype(float)


def _typed(key: Any, called: str) -> jax.Array:
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0):
        raise DataError(
            "not a random key", called=f"{called}(key, n)", expected="one typed PRNG key",
            got=f"{type(key).__name__} of shape {np.shape(key)}", fix="jax.random.key(0)",
        )  # fmt: skip
    return key


def _count(n: Any, called: str) -> int:
    try:
        count = operator.index(n)
    except TypeError:
        count = 0
    if count < 1 or isinstance(n, bool):
        raise DataError(
            "not a number of events", called=f"{called}(key, n)", expected="an int, at least 1", got=repr(n)
        )
    return count


def _scale(value: Any, called: str, name: str, *, zero: bool = False) -> float:
    number = float(value) if isinstance(value, (int, float, np.number)) else math.nan
    if not (0 < number < math.inf or (zero and number == 0)):
        raise DataError(
            f"{name} is out of range", called=f"{called}(..., {name}=...)", got=repr(value),
            expected="a finite number, " + ("not negative" if zero else "positive"),
        )  # fmt: skip
    return number
