"""Conjugate posteriors of Gaussians and of weights: expectations, divergences and predictive densities.

All is written in differences that stay small: `digamma(a)` near `log a`, `log Gamma(a)` near Stirling's formula. With
1e6 events the terms of a textbook bound are of size 1e7 and cancel to a few hundred, which float32 cannot hold; here
nothing cancels. Scales are normalised: `C = S / df`, the inverse of the expected precision.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

__all__ = [
    "digamma_remainder",
    "expected_log_normal",
    "expected_log_stick",
    "kl_beta",
    "kl_normal_wishart",
    "log_gamma_divergence",
    "log_gamma_ratio",
    "log_gamma_remainder",
    "log_student",
    "multivariate_digamma_remainder",
]

#: the asymptotic series are taken this far to the right of the argument: nine terms are then exact in float64
_SHIFT = 8
#: Bernoulli numbers B_2, B_4, ... of the asymptotic series of log Gamma (Abramowitz and Stegun 6.1.40)
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798)


def _series(a: Array, coefficients: list[float]) -> Array:
    total = jnp.zeros_like(a)
    for coefficient in reversed(coefficients):
        total = total / (a * a) + coefficient
    return total


def _steps(a: Array) -> Array:
    """a, a + 1, ... up to where the series begin, on a new last axis."""
    return a[..., None] + jnp.arange(_SHIFT, dtype=a.dtype)


def digamma_remainder(a: Array) -> Array:
    """Return the digamma function minus the logarithm.

    `digamma(a) - log a`, about `-1 / 2a`

    Args:
        a: positive, `[...]`.

    Returns:
        `[...]`, exact to a few units of rounding of the larger of 1 and the value.

    Example:
        >>> round(float(digamma_remainder(jnp.float32(1e6)) * 2e6), 4)
        -1.0

    Source: Abramowitz and Stegun (1964), Handbook of Mathematical Functions, 6.3.5 and 6.3.18.
    """
    b, steps = a + _SHIFT, _steps(a)
    far = -0.5 / b - _series(b, [n / (2 * i) for i, n in enumerate(_BERNOULLI, 1)]) / (b * b)
    return far + jnp.sum(jnp.log1p(1 / steps) - 1 / steps, axis=-1)


def log_gamma_remainder(a: Array) -> Array:
    """Return the log-gamma function minus Stirling's formula.

    `log Gamma(a) - (a - 1/2) log a + a - log(2 pi) / 2`, about `1 / 12a`

    Args:
        a: positive, `[...]`.

    Returns:
        `[...]`, exact to a few units of rounding of the larger of 1 and the value.

    Example:
        >>> round(float(log_gamma_remainder(jnp.float32(1.0))), 4)  # 1 - log(2 pi) / 2
        0.0811

    Source: Abramowitz and Stegun (1964), Handbook of Mathematical Functions, 6.1.15 and 6.1.40.
    """
    b, steps = a + _SHIFT, _steps(a)
    far = _series(b, [n / (2 * i * (2 * i - 1)) for i, n in enumerate(_BERNOULLI, 1)]) / b
    return far + jnp.sum((steps + 0.5) * jnp.log1p(1 / steps) - 1, axis=-1)


def log_gamma_ratio(a: Array, b: Array | float) -> Array:
    """The logarithm of a rising factorial.

    `log Gamma(a + b) - log Gamma(a)`

    Args:
        a, b: positive, `[...]`.

    Example:
        >>> round(float(log_gamma_ratio(jnp.float32(1e6), 1.0) - math.log(1e6)), 5)
        0.0

    Source: as `log_gamma_remainder`.
    """
    remainder = log_gamma_remainder(a + b) - log_gamma_remainder(a)
    return (a - 0.5) * jnp.log1p(b / a) + b * (jnp.log(a + b) - 1) + remainder


def log_gamma_divergence(prior: Array, a: Array) -> Array:
    """The part of a divergence between Gamma, Beta, Dirichlet or Wishart densities that their shapes make.

    `log Gamma(prior) - log Gamma(a) + (a - prior) digamma(a) - (a - prior)`

    Args:
        prior, a: positive, `[...]`.

    Returns:
        `[...]`, of size `log a` however large a is.

    Example:
        >>> float(log_gamma_divergence(jnp.float32(2.0), jnp.float32(2.0)))
        0.0

    Source: worked out here from the two remainders.
    """
    remainder = log_gamma_remainder(prior) - log_gamma_remainder(a)
    return (prior - 0.5) * jnp.log(prior / a) + (a - prior) * digamma_remainder(a) + remainder


def _halves(df: Array, d: int) -> Array:
    """`(df - i) / 2` for i = 0 to d - 1, on a new last axis."""
    return 0.5 * (df[..., None] - jnp.arange(d, dtype=df.dtype))


def multivariate_digamma_remainder(df: Array, d: int) -> Array:
    """`E log det L` of a Wishart matrix L of expectation one.

    `sum_i digamma((df - i) / 2) - d log(df / 2)`, i = 0 to d - 1

    Args:
        df: above d - 1, `[...]`.
        d: size of the matrix.

    Example:
        >>> round(float(multivariate_digamma_remainder(jnp.float32(4.0), 2)), 4)  # digamma(2) + digamma(3/2) - 2 log 2
        -0.927

    Source: Bishop (2006), Pattern Recognition and Machine Learning, B.81.
    """
    share = jnp.log1p(-jnp.arange(d, dtype=df.dtype) / df[..., None])
    return jnp.sum(digamma_remainder(_halves(df, d)) + share, axis=-1)


def expected_log_normal(distance: Array, log_det: Array, strength: Array, df: Array, d: int) -> Array:
    """The expectation of a Gaussian log-density under a normal-Wishart posterior of its mean and precision.

    `E log N(x | mean, L^-1) = (E log det L - d log 2 pi - d / strength - (x - m)^T E[L] (x - m)) / 2`

    Args:
        distance: `(x - m)^T C^-1 (x - m)`, with C the normalised scale, `[...]`.
        log_det: `log det C^-1 / 2`.
        strength: of the mean, in events.
        df: of freedom, above d - 1.
        d: coordinates of x.

    Example:
        >>> zero, big = jnp.float32(0.0), jnp.float32(1e8)  # a posterior that knows: the density itself
        >>> round(float(jnp.exp(expected_log_normal(zero, zero, big, big, 2))) * 2 * math.pi, 5)
        1.0

    Source: Bishop (2006), Pattern Recognition and Machine Learning, 10.64 and 10.65.
    """
    spread = d * math.log(2 * math.pi) + d / strength - multivariate_digamma_remainder(df, d)
    return log_det - 0.5 * (spread + distance)


def log_student(distance: Array, log_det: Array, strength: Array, excess: Array, d: int) -> Array:
    """The posterior predictive density of a Gaussian under a normal-Wishart posterior: a Student-t.

    `t(x | m, C df (strength + 1) / (strength excess), excess)`, with `excess = df - d + 1`

    Args:
        distance: `(x - m)^T C^-1 (x - m)`, with C the normalised scale, `[...]`.
        log_det: `log det C^-1 / 2`.
        strength: of the mean, in events.
        excess: degrees of freedom of the predictive density, positive.
        d: coordinates of x.

    Example:
        >>> one = jnp.float32(1.0)  # Cauchy with scale sqrt 2
        >>> round(float(jnp.exp(log_student(0 * one, 0 * one, one, one, 1))) * math.pi * math.sqrt(2), 5)
        1.0

    Source: Bishop (2006), Pattern Recognition and Machine Learning, 10.81 and 10.82.
    """
    df = excess + (d - 1)
    shrink = df * (1 + 1 / strength)
    norm = log_gamma_ratio(0.5 * excess, 0.5 * d) - 0.5 * d * (jnp.log(shrink) + math.log(math.pi))
    return norm + log_det - 0.5 * (df + 1) * jnp.log1p(distance / shrink)


def kl_normal_wishart(
    distance: Array,
    trace: Array,
    log_det: Array,
    prior_log_det: Array,
    strength: Array,
    prior_strength: Array,
    df: Array,
    prior_df: Array,
    d: int,
) -> Array:
    """`KL(q || p)` of two normal-Wishart densities, in nats.

    Args:
        distance: `(m - m0)^T C^-1 (m - m0)`, with C the normalised scale of q, `[...]`.
        trace: `tr S0 C^-1`, with S0 the scale of p, not normalised.
        log_det: `log det C^-1 / 2`.
        prior_log_det: `log det S0^-1 / 2`.
        strength, prior_strength: of the mean under q and p, in events.
        df, prior_df: of freedom under q and p.
        d: coordinates.

    Example:
        >>> a, zero = jnp.float32(3.0), jnp.float32(0.0)  # C = 1 and S0 = 3: the same density
        >>> abs(float(kl_normal_wishart(zero, a, zero, -0.5 * jnp.log(a), a, a, a, a, 1))) < 1e-6
        True

    Source: Penny (2001), KL-divergences of Normal, Gamma, Dirichlet and Wishart densities.
    """
    ratio = prior_strength / strength
    mean = 0.5 * (d * (ratio - 1 - jnp.log(ratio)) + prior_strength * distance)
    shape = jnp.sum(log_gamma_divergence(_halves(prior_df, d), _halves(df, d)), axis=-1)
    scale = 0.5 * (trace - prior_df * d)
    return mean + shape + scale + prior_df * (prior_log_det - log_det + 0.5 * d * jnp.log(df))


def expected_log_stick(log_a: Array, log_b: Array) -> tuple[Array, Array]:
    """`E log v` and `E log (1 - v)` of a Beta(a, b) variable.

    `digamma(a) - digamma(a + b)` and `digamma(b) - digamma(a + b)`

    Args:
        log_a, log_b: logarithms of the parameters, `[...]`.

    Example:
        >>> [round(float(e), 4) for e in expected_log_stick(jnp.log(3.0), jnp.log(1.0))]
        [-0.3333, -1.8333]

    Source: Blei and Jordan (2006), Variational inference for Dirichlet process mixtures, section 3.2.
    """
    a, b = jnp.exp(log_a), jnp.exp(log_b)
    whole = digamma_remainder(a + b)
    return (
        jax.nn.log_sigmoid(log_a - log_b) + digamma_remainder(a) - whole,
        jax.nn.log_sigmoid(log_b - log_a) + digamma_remainder(b) - whole,
    )


def kl_beta(a: Array, b: Array, prior_a: Array, prior_b: Array) -> Array:
    """`KL(Beta(a, b) || Beta(prior_a, prior_b))` in nats, `[...]`.

    Example:
        >>> two = jnp.float32(2.0)
        >>> round(float(kl_beta(two, two, two / 2, two / 2)), 4)  # log 6 - 5/3
        0.1251

    Source: Penny (2001), KL-divergences of Normal, Gamma, Dirichlet and Wishart densities.
    """
    both = log_gamma_divergence(prior_a, a) + log_gamma_divergence(prior_b, b)
    return both - log_gamma_divergence(prior_a + prior_b, a + b)
