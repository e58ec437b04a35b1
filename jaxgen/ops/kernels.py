"""Kernel densities: a Gaussian at each of many points, all of one covariance, which is found by leaving points out."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxgen.ops import linalg
from jaxgen.ops.distances import squared_distances
from jaxgen.ops.stable import logsumexp

HIGHEST = jax.lax.Precision.HIGHEST
#: rows scored at once: with some thousands of centers their distances stay small in memory
CHUNK = 1024
#: nats per event by which an iteration has to gain, to make another one
GAIN = 1e-3


def kernel_log_density(x: jax.Array, centers: jax.Array, whitener: jax.Array) -> jax.Array:
    """`log (1 / n) sum_j N(x; c_j, (W^T W)^-1)`, nats.

    Args:
        x: `[N, D]`; centers: `[n, D]`, standardised.
        whitener: W, `[D, D]`.

    Returns:
        `[N]`.

    Example:
        >>> value = kernel_log_density(jnp.zeros((1, 1)), jnp.zeros((3, 1)), jnp.eye(1))
        >>> round(float(value[0]), 4)
        -0.9189
    """
    centers = jnp.matmul(centers, whitener.T, precision=HIGHEST)
    constant = _log_volume(whitener) - math.log(len(centers))

    def score(rows: jax.Array) -> jax.Array:
        rows = jnp.matmul(rows, whitener.T, precision=HIGHEST)
        return logsumexp(-0.5 * squared_distances(rows, centers), axis=1) + constant

    size = min(CHUNK, len(x))
    chunks = -(-len(x) // size)
    padded = jnp.concatenate([x, jnp.broadcast_to(x[:1], (chunks * size - len(x), x.shape[1]))])
    return jax.lax.map(score, padded.reshape(chunks, size, -1)).reshape(-1)[: len(x)]


def _log_volume(whitener: jax.Array) -> jax.Array:
    return jnp.sum(jnp.log(jnp.diagonal(whitener))) - 0.5 * len(whitener) * math.log(2 * math.pi)


def kernel_by_leaving_out(
    x: jax.Array, *, shrinkage: float = 0.5, floor: float = 0.1, steps: int = 12
) -> tuple[jax.Array, jax.Array]:
    """Find the covariance that all kernels share by EM on the leave-one-out likelihood.

    `max_S sum_n log (1 / (n - 1)) sum_{j != n} N(x_n; x_j, S)`; each step shrinks what EM gives towards its diagonal,
    and adds a floor, without which equal rows would make it zero.

    Args:
        x: `[n, D]`, standardised columns.
        shrinkage: towards the diagonal, from 0 to 1.
        floor: a standard deviation that no direction falls below, in units of the columns.
        steps: at most; few leave it wider than the maximum.

    Returns:
        the whitener W `[D, D]`, lower triangular, `W S W^T = I`, and `[n]` log-densities, each without its own kernel.

    Source: Duin (1976), On the choice of smoothing parameters for Parzen estimators; Leiva-Murillo and Artés-Rodríguez
    (2012), Algorithms for maximum-likelihood bandwidth selection in kernel density estimators.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (200, 1))
        >>> whitener, _ = kernel_by_leaving_out(x, steps=50)
        >>> 0.2 < 1 / float(whitener[0, 0]) < 0.6  # 200^(-1/5) is 0.35
        True
    """
    n, d = x.shape
    eye = jnp.eye(d, dtype=x.dtype)

    def score(covariance: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        whitener = linalg.inverse_cholesky(covariance)
        white = jnp.matmul(x, whitener.T, precision=HIGHEST)
        logs = jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, -0.5 * squared_distances(white, white))
        total = logsumexp(logs, axis=1)
        return whitener, total + _log_volume(whitener) - math.log(n - 1), jnp.exp(logs - total[:, None])

    def step(carry: tuple) -> tuple:
        covariance, last, value, i = carry
        _, log_density, share = score(covariance)
        received = jnp.sum(share, axis=0)
        cross = jnp.matmul(x.T, jnp.matmul(share, x, precision=HIGHEST), precision=HIGHEST)
        spread = (jnp.matmul(x.T, x * (1 + received)[:, None], precision=HIGHEST) - cross - cross.T) / n
        spread = (1 - shrinkage) * spread + shrinkage * jnp.diag(jnp.diagonal(spread)) + floor**2 * eye
        value, last = jnp.mean(log_density), value
        return jnp.where(value - last < GAIN, covariance, spread), last, value, i + 1

    lowest = jnp.full((), -jnp.inf, x.dtype)
    start = (eye * n ** (-2 / (d + 4)), lowest, lowest, 0)
    goes_on = lambda carry: (carry[3] < steps) & ~(carry[2] - carry[1] < GAIN)  # noqa: E731
    covariance, *_ = jax.lax.while_loop(goes_on, step, start)
    whitener, log_density, _ = score(covariance)
    return whitener, log_density
