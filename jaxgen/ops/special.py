"""The gamma function and its relatives without their large parts, computed without cancellation."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled

#: below this `|log ratio| / 2` a logarithm's series is used, and its terms: the first one left out is 2e-17 there
_NEAR = 0.1
_ATANH = tuple(2 / (2 * k + 1) for k in range(1, 8))
#: B_2k, from k = 1: the numbers of all asymptotic series here
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
_STIRLING = tuple(b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1))
_DIGAMMA = tuple(b / (2 * k) for k, b in enumerate(_BERNOULLI, 1))
_TETRAGAMMA = tuple(b * (2 * k + 1) for k, b in enumerate(_BERNOULLI, 1))
#: of `log(sinh(l / 2) / (l / 2))`, in powers of l^2 from the first
_LOG_SINHC = tuple(b / (2 * k * math.factorial(2 * k)) for k, b in enumerate(_BERNOULLI, 1))
#: `log n! - n log n + n` for n = 0 to 15; from 16 on Stirling's series is exact to float64 rounding
_FACTORIALS = tuple(math.lgamma(n + 1) - (n * math.log(n) if n else 0.0) + n for n in range(16))
#: a count this many times larger than its rate, where their ratio might overflow
_RARE = 1e30


@compiled
def excess(u: jax.Array, log: jax.Array) -> jax.Array:
    """`u - log(1 + u)`, never negative: how far a ratio `1 + u` is from one, to full relative precision near it.

    Args:
        u: above -1.
        log: `log(1 + u)`, used away from one only; the caller may know it better than u tells it near -1.

    Source: Loader (2000), Fast and accurate computation of binomial probabilities (the series of his D0).

    Example:
        >>> u = jnp.float32(1e-6)
        >>> round(float(excess(u, jnp.log1p(u)) / (u * u / 2)), 5)
        1.0
    """
    half = u / (2 + u)
    near = jnp.abs(half) < _NEAR
    v = jnp.where(near, half, 0)
    series = v * (jnp.where(near, u, 0) - v * v * _horner(_ATANH, v * v))
    return jnp.where(near, series, u - log)


@compiled
def stirling_error(z: jax.Array) -> jax.Array:
    """`log Gamma(z) - ((z - 1/2) log z - z + log(2 pi) / 2)` for z > 0: what Stirling's formula leaves out.

    Source: Abramowitz and Stegun (1964), 6.1.41 and 6.1.15.

    Example:
        >>> round(float(stirling_error(jnp.float32(1.0))), 6)
        0.081061
    """
    steps, small, large = _raised(z)
    z = jnp.where(small, z, 1)
    below = sum((z + k + 0.5) * jnp.log1p(1 / (z + k)) - 1 for k in range(steps))
    return _horner(_STIRLING, 1 / (large * large)) / large + jnp.where(small, below, 0)


class Gaps(NamedTuple):
    """`log z - psi(z)`, and the derivatives `psi'(z) - 1/z` and `psi''(z) + 1/z^2` of its negative."""

    log: jax.Array
    first: jax.Array
    second: jax.Array


@compiled
def digamma_gaps(z: jax.Array) -> Gaps:
    """The digamma function and two derivatives, less those of the logarithm, for z > 0.

    `log z - psi(z)` is what a gamma density with shape z has between the logarithm of its mean and the mean of its
    logarithm.

    Source: Abramowitz and Stegun (1964), 6.3.18 and 6.4.12 to 6.4.14, and the recurrences 6.3.6 and 6.4.6.

    Example:
        >>> [round(float(part), 5) for part in digamma_gaps(jnp.float32(1.0))]
        [0.57722, 0.64493, -1.40411]
    """
    steps, small, large = _raised(z)
    z = jnp.where(small, z, 1)
    ladder = [z + k for k in range(steps)]
    log = sum(1 / y for y in ladder) - jnp.log1p(steps / z)
    first = sum(1 / (y * y * (y + 1)) for y in ladder)
    second = sum((3 * y + 2) / (y * y * y * (y + 1) * (y + 1)) for y in ladder)
    inverse = 1 / large
    s = inverse * inverse
    return Gaps(
        inverse * (0.5 + inverse * _horner(_DIGAMMA, s)) + jnp.where(small, log, 0),
        s * (0.5 + inverse * _horner(_BERNOULLI, s)) + jnp.where(small, first, 0),
        -s * inverse * (1 + inverse * _horner(_TETRAGAMMA, s)) - jnp.where(small, second, 0),
    )


@compiled
def poisson_log_mass(x: jax.Array, rate: jax.Array, log_rate: jax.Array | None = None) -> jax.Array:
    """Return `x log rate - rate - log x!` of counts, as a deviance, so that large ones keep their digits.

    Binomial and multinomial log-masses are sums of it: given their total, independent Poisson counts are such.

    Args:
        x: whole numbers from 0, floating.
        rate: expected counts, from 0; where it is 0 a count of 0 is certain.
        log_rate: their logarithm, where it is known better than a rate that underflows; None takes it.

    Source: Loader (2000), Fast and accurate computation of binomial probabilities.

    Example:
        >>> jnp.exp(poisson_log_mass(jnp.array([0.0, 2.0]), jnp.float32(2.0))).round(4).tolist()
        [0.13529999554157257, 0.27070000767707825]
    """
    positive = x > 0
    common = positive & (rate * _RARE > x)
    safe = jnp.where(common, rate, 1)
    log_ratio = jnp.log1p(jnp.where(common, (x - safe) / safe, 0))
    far = positive & ~common
    log_rate = jnp.log(jnp.where(far, rate, 1)) if log_rate is None else log_rate
    log_ratio = jnp.where(far, jnp.log(jnp.where(far, x, 1)) - log_rate, log_ratio)
    small = jnp.asarray(_FACTORIALS, x.dtype).at[x.astype(jnp.int32)].get(mode="clip")
    large = jnp.maximum(x, 16.0)
    inverse = 1 / (large * large)
    series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / large
    rest = jnp.where(x < 16, small, 0.5 * jnp.log(2 * math.pi * large) + series)
    return x - rate - x * log_ratio - rest


@compiled
def negative_binomial_log_mass(x: jax.Array, m: jax.Array, r: jax.Array) -> jax.Array:
    """Return the log-mass of counts of mean m and variance `m + m^2 / r`, one each.

    Stirling errors, and the deviances of the two kinds of trial that x + r is, so that large counts keep their digits.

    Args:
        x: whole numbers from 0, floating.
        m: expected counts, positive.
        r: dispersion, positive.

    Source: as `poisson_log_mass`.

    Example:
        >>> mass = jnp.exp(negative_binomial_log_mass(jnp.array([0.0, 1.0]), jnp.float32(2.0), jnp.float32(1.0)))
        >>> [round(float(p), 4) for p in mass]
        [0.3333, 0.2222]
    """
    positive = x > 0
    y = jnp.where(positive, x, 1)
    total = r + m
    ratio = (y + r) / total
    stop = r * excess((y - m) / total, jnp.log(ratio))
    go = y * excess(r / total * ((m - y) / y), jnp.log(ratio * (m / y)))
    errors = stirling_error(y + r) - stirling_error(r) - stirling_error(y)
    value = errors - stop - go - 0.5 * (jnp.log(2 * math.pi * y) + jnp.log1p(y / r))
    return jnp.where(positive, value, -r * jnp.log1p(m / r))


@compiled
def wide_excess(u: jax.Array, log: jax.Array) -> jax.Array:
    """Return `u - log(1 + u)` from u, or from the logarithm where u is next to -1 or overflows.

    Example:
        >>> wide_excess(jnp.float32(-1.0), jnp.float32(-30.0)).tolist()
        29.0
    """
    middle = (u > -0.5) & (u < _RARE)
    return excess(u, jnp.where(middle, jnp.log1p(jnp.where(middle, u, 0)), log))


@compiled
def beta_errors(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return what Stirling's formula leaves out of minus the logarithm of the Beta function.

    Example:
        >>> round(float(beta_errors(jnp.float32(1.0), jnp.float32(1.0))), 6)
        -0.120782
    """
    return stirling_error(a + b) - stirling_error(a) - stirling_error(b)


@compiled
def beta_ratios(x: jax.Array, logit_mean: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return `x - m`, and `t - 1 - log t` for `t = x / m` and for `t = (1 - x) / (1 - m)`, m the mean.

    Example:
        >>> beta_ratios(jnp.float32(0.5), jnp.float32(0.0))[0].tolist()
        0.0
    """
    m, rest = jax.nn.sigmoid(logit_mean), jax.nn.sigmoid(-logit_mean)
    # from the nearer end, where numbers are fine-grained
    d = jnp.where(logit_mean < 0, x - m, rest - (1 - x))
    left = wide_excess(d / m, jnp.log(x) + jax.nn.softplus(-logit_mean))
    return d, left, wide_excess(-d / rest, jnp.log1p(-x) + jax.nn.softplus(logit_mean))


@compiled
def beta_log_density(x: jax.Array, logit_mean: jax.Array, log_concentration: jax.Array) -> jax.Array:
    """Return the log-density of Beta shares, one each, as deviances, so that concentrated ones keep their digits.

    Args:
        x: above 0 and below 1.
        logit_mean: `log a - log b`.
        log_concentration: `log (a + b)`.

    Source: as `poisson_log_mass`.

    Example:
        >>> round(float(beta_log_density(jnp.float32(0.75), jnp.log(2.0), jnp.log(3.0))), 5)  # log 1.5
        0.40547
    """
    m, rest, s = jax.nn.sigmoid(logit_mean), jax.nn.sigmoid(-logit_mean), jnp.exp(log_concentration)
    _, left, right = beta_ratios(x, logit_mean)
    log_room = -jax.nn.softplus(logit_mean) - jax.nn.softplus(-logit_mean)
    constant = 0.5 * (log_concentration + log_room - math.log(2 * math.pi)) + beta_errors(s * m, s * rest)
    return constant - s * (m * left + rest * right) - jnp.log(x) - jnp.log1p(-x)


@compiled
def tilted_log_density(x: jax.Array | float, logit: jax.Array) -> jax.Array:
    """Return the log-density on the unit interval that is proportional to `e^(l x)`: `l x - log((e^l - 1) / l)`.

    Uniform at l = 0, around which the logarithm is its series; for large `|l|` it is taken from the nearer end, so that
    value and derivatives have all their digits at any logit.

    Source: Loaiza-Ganem and Cunningham (2019), The continuous Bernoulli: fixing a pervasive error in variational
    autoencoders, equation 7, with another way around one half.

    Example:
        >>> [round(float(tilted_log_density(1.0, jnp.float32(l))), 4) for l in (-2.0, 0.0, 1e4)]
        [-1.1614, 0.0, 9.2103]
    """
    near = jnp.abs(logit) < 0.5
    small = jnp.where(near, logit, 0)
    series = (x - 0.5) * small - small * small * _horner(_LOG_SINHC, small * small)
    large = jnp.where(near, 1, logit)
    size = jnp.abs(large)
    return jnp.where(near, series, (x - (large > 0)) * large - jnp.log(-jnp.expm1(-size)) + jnp.log(size))


def _raised(z):
    """Steps of the recurrence, where they are needed, and arguments large enough for eight terms of the series."""
    steps = 4 if jnp.finfo(z.dtype).bits <= 32 else 8
    small = z < steps
    return steps, small, jnp.where(small, z + steps, z)


def _horner(coefficients, s):
    total = jnp.zeros_like(s)
    for c in reversed(coefficients):
        total = total * s + c
    return total
