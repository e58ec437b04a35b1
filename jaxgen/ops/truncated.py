"""The unit normal density cut off at zero: its normaliser, mean and quantiles, exact far out on either side."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

#: by bits: the input below whose negative the continued fraction is used, and how many of its terms are exact there
_FAR, _TERMS = {32: 2.0, 64: 3.0}, {32: 26, 64: 50}
_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


def _below(y):
    """The mean for an input of -y, y of 2 or more: `1 / (y + 2 / (y + 3 / (y + ...)))`, in which nothing cancels."""
    rest = jnp.zeros_like(y)
    for k in range(_TERMS[jnp.finfo(y.dtype).bits], 1, -1):
        rest = k / (y + rest)
    return 1 / (y + rest)


def _parts(x):
    """`(log normaliser, mean)`."""
    limit = _FAR[jnp.finfo(x.dtype).bits]
    far = x < -limit
    near, y = jnp.where(far, 0, x), jnp.where(far, -x, limit)
    mean = _below(y)
    # above the limit the error function still has all its digits
    mass = 0.5 * jax.lax.erfc(-near * math.sqrt(0.5))
    square = 0.5 * near * near
    return (
        jnp.where(far, -jnp.log(y + mean), square + (_HALF_LOG_2_PI + jnp.log(mass))),
        jnp.where(far, mean, near + jnp.exp(-square - _HALF_LOG_2_PI) / mass),
    )


@jax.custom_jvp
def truncated_log_partition(x):
    """`log int_0^inf exp(x h - h^2 / 2) dh = x^2 / 2 + log(2 pi) / 2 + log Phi(x)`, nats.

    Its derivative is `truncated_mean(x)`.

    Args:
        x: floating array of any shape.

    Source: Abramowitz and Stegun (1964), 26.2.14, the continued fraction for inputs far below zero.

    Example:
        >>> [round(float(nats), 3) for nats in truncated_log_partition(jnp.array([-50.0, 0.0, 50.0]))]
        [-3.912, 0.226, 1250.919]
    """
    return _parts(x)[0]


@jax.custom_jvp
def truncated_mean(x):
    """The mean of the density proportional to `exp(x h - h^2 / 2)` on h > 0: `x + phi(x) / Phi(x)`.

    Source: as `truncated_log_partition`.

    Example:
        >>> [round(float(mean), 5) for mean in truncated_mean(jnp.array([-50.0, 0.0, 50.0]))]
        [0.01998, 0.79788, 50.0]
    """
    return _parts(x)[1]


def truncated_variance(x):
    """The variance of that density: `1 - m (m - x)` with the mean m.

    Example:
        >>> round(float(truncated_variance(jnp.float32(0.0))), 5)
        0.36338
    """
    mean = truncated_mean(x)
    return jnp.maximum(1 - mean * (mean - x), 0)


truncated_log_partition.defjvp(
    lambda primals, tangents: (truncated_log_partition(*primals), truncated_mean(*primals) * tangents[0])
)
truncated_mean.defjvp(
    lambda primals, tangents: (truncated_mean(*primals), truncated_variance(*primals) * tangents[0])
)  # fmt: skip


def truncated_quantile(u, x):
    """The h above which the density proportional to `exp(x h - h^2 / 2)`, h > 0, has the mass u.

    A uniform u gives a draw.

    Args:
        u: in (0, 1), broadcast against x.
        x: floating array.

    Example:
        >>> [round(float(h), 4) for h in truncated_quantile(jnp.float32(0.5), jnp.array([-50.0, 0.0, 50.0]))]
        [0.0139, 0.6745, 50.0]
    """
    far = x < -5
    near = jnp.where(far, 0, x)
    mass = u * (0.5 * jax.lax.erfc(-near * math.sqrt(0.5)))
    above = near - jax.scipy.special.ndtri(mass)
    # `log u = log R(y + h) - log R(y) - y h - h^2 / 2`, with R the ratio of the normal's tail to its density
    y, nats = jnp.where(far, -x, 5.0), -jnp.log(u)

    def ratio(z):
        return 1 / (z + _below(z))

    h, at_zero = 2 * nats / (y + jnp.sqrt(y * y + 2 * nats)), ratio(y)
    for _ in range(2):
        at = ratio(y + h)
        h = h + at * (nats + jnp.log(at / at_zero) - h * (y + 0.5 * h))
    return jnp.maximum(jnp.where(far, h, above), 0)
