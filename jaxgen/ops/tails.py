"""Distribution functions of the gamma and beta families at any size of their parameters.

Series and continued fractions take `sqrt(a)` terms, and what jax makes of them in float32 is wrong by 0.04 at a = 1e5.
Here small parameters are raised by the recurrences, and the tail beyond a point is a quadrature of the density around
its mode, in the deviance form that keeps its digits. No loop, and derivatives in all arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from jaxgen.ops.roots import reach
from jaxgen.ops.special import excess, stirling_error

#: parameters are raised to more than so much, where the density has the shape of a normal one; and the points and
#: weights on [0, 1] of the quadrature: then what it leaves is below the rounding of float32, and 1e-9 in float64
RAISED, ORDER = 12, 40


def _excess(u: jax.Array, ratio: jax.Array | None = None) -> jax.Array:
    """`u - log(1 + u)`; near -1 from the ratio `1 + u`, where the caller knows it to more digits."""
    tiny = jnp.finfo(u.dtype).tiny
    return excess(u, jnp.log(jnp.maximum(1 + u if ratio is None else ratio, tiny)))


def _quadrature(log_density: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array) -> jax.Array:
    """Return the integral of `exp(log_density)` between limits of any shape."""
    nodes, weights = (jnp.asarray(a, low.dtype) for a in np.polynomial.legendre.leggauss(ORDER))
    points = low[..., None] + (high - low)[..., None] * (nodes + 1) / 2
    return (high - low) / 2 * jnp.sum(weights * jnp.exp(log_density(points)), axis=-1)


def gamma_tails(a: Any, x: Any) -> tuple[jax.Array, jax.Array]:
    """Return the shares of a gamma density below x and above: the incomplete gamma functions `P(a, x)`, `Q(a, x)`.

    Args:
        a: shapes, positive.
        x: from 0, in units in which the mean is a; broadcast with a.

    Returns:
        the shares below x, of which small ones keep three digits or more, and above, which sum to one. A Poisson count
        of rate x is at most k with probability `Q(k + 1, x)`.

    Source: Press et al. (2007), Numerical Recipes, section 6.2.1 (the quadrature); Abramowitz and Stegun (1964), 6.5.21
    (the recurrence).

    Example:
        >>> [[f"{share:.4f}" for share in part] for part in gamma_tails(1e5, jnp.array([0.0, 1e5]))]
        [['0.0000', '0.5004'], ['1.0000', '0.4996']]
    """
    a, x = jnp.broadcast_arrays(*map(jnp.asarray, (a, x)))
    a, x = (v.astype(jnp.result_type(a, x, float)) for v in (a, x))
    small = a < RAISED
    mode = jnp.where(small, a + (RAISED - 1), a - 1)
    u, spread = (x - mode) / mode, 1 / jnp.sqrt(mode)
    below = u < 0
    low = jnp.where(below, jnp.maximum(-1, jnp.minimum(-8 * spread, u - 6 * spread)), u)
    high = jnp.where(below, u, jnp.maximum(12 * spread, u + 6 * spread))
    area = _quadrature(lambda u: -mode[..., None] * _excess(u), low, high)
    tail = jnp.sqrt(mode / (2 * math.pi)) * jnp.exp(-stirling_error(mode)) * area
    more = jnp.where(small, _climb(_gamma_term(jnp.where(small, a, 1), x), lambda k: x / (a + k + 1)), 0)
    p, q = jnp.where(below, tail, 1 - tail) + more, jnp.where(below, 1 - tail, tail) - more
    # what lies below the least of floats has no share there either
    return jnp.where(x > 0, jnp.clip(p, 0, 1), 0), jnp.where(x > 0, jnp.clip(q, 0, 1), 1)


def _gamma_term(z: jax.Array, x: jax.Array) -> jax.Array:
    """`x^z e^-x / Gamma(z + 1)`."""
    return jnp.exp(-z * _excess((x - z) / z, x / z) - stirling_error(z)) / jnp.sqrt(2 * math.pi * z)


def _climb(term: jax.Array, ratio: Callable[[int], jax.Array]) -> jax.Array:
    """Return the sum of `RAISED` terms, each the one before times a ratio."""
    total = term
    for k in range(RAISED - 1):
        term = term * ratio(k)
        total = total + term
    return total


def beta_cdf(a: Any, b: Any, x: Any, rest: Any) -> jax.Array:
    """Return the regularised incomplete beta function `I_x(a, b)`: the share of a beta density below x.

    Args:
        a, b: shapes, positive.
        x: from 0 to 1, broadcast with them.
        rest: `1 - x`, which the caller may know to more digits.

    Returns:
        from 0 to 1, floating; small ones keep three digits or more. Of n trials with probability p of a success at most
        k succeed with probability `I_(1 - p)(n - k, k + 1)`.

    Source: Press et al. (2007), Numerical Recipes, section 6.4.1 (the quadrature); Abramowitz and Stegun (1964),
    26.5.15 and 26.5.16 (the recurrences).

    Example:
        >>> f"{beta_cdf(2e6, 1e6, jnp.float32(2 / 3), jnp.float32(1 / 3)):.4f}"
        '0.4999'
    """
    a, b, x, rest = jnp.broadcast_arrays(*map(jnp.asarray, (a, b, x, rest)))
    a, b, x, rest = (v.astype(jnp.result_type(a, b, x, float)) for v in (a, b, x, rest))
    small_a, small_b = a < RAISED, b < RAISED
    top = jnp.where(small_a, a + RAISED, a)
    powers = jnp.where(small_a, a + (RAISED - 1), a - 1), jnp.where(small_b, b + (RAISED - 1), b - 1)
    n = powers[0] + powers[1]
    mode, other = powers[0] / n, powers[1] / n
    d, spread = _distance(mode, other, x, rest), jnp.sqrt(mode * other / n)
    below = d < 0
    low = jnp.where(below, jnp.maximum(-mode, jnp.minimum(-10 * spread, d - 6 * spread)), d)
    high = jnp.where(below, d, jnp.minimum(other, jnp.maximum(10 * spread, d + 6 * spread)))
    shape = [v[..., None] for v in (*powers, mode, other)]
    area = _quadrature(lambda d: -_deviance(*shape, d), low, high)
    errors = _joint_errors(n, *powers)
    tail = (n + 1) * jnp.sqrt(n / (2 * math.pi)) * jnp.exp(errors) / jnp.sqrt(powers[0] * powers[1]) * area
    p = jnp.where(below, tail, 1 - tail)
    # from (top, b + RAISED) down to (top, b), and from there to (a, b); in one array, for a small program
    less, density, more = _beta_term(
        *map(jnp.stack, ((jnp.where(small_b, b, 1), top, jnp.where(small_a, a, 1)), (top, b, b), (rest, x, x),
                         (x, rest, rest))))  # fmt: skip
    less = _climb(less, lambda k: rest * (top + b + k) / (b + k + 1))
    far = top * rest > x
    p = jnp.where(small_b, jnp.where(far, _far_below(density, top, b, x, rest), p - less), p)
    p = jnp.clip(p + jnp.where(small_a, _climb(more, lambda k: x * (a + b + k) / (a + k + 1)), 0), 0, 1)
    return jnp.where(x > 0, jnp.where(rest > 0, p, 1), 0)


def _far_below(term: jax.Array, a: jax.Array, b: jax.Array, x: jax.Array, rest: jax.Array) -> jax.Array:
    """`I_x(a, b)` for a large, b small, and x further from 1 than `1 / a`: a quadrature down from x, and its term."""
    x, rest = jnp.maximum(x, jnp.finfo(x.dtype).tiny), jnp.where(rest > 0, rest, 1)
    wide = jnp.minimum(1, (30 + 12 * jnp.sqrt(b)) / a)

    def log_ratio(share: jax.Array) -> jax.Array:
        """The logarithm of the density at `x - share x` over that at x."""
        other = jnp.log1p(share * (x / rest)[..., None])
        return (a - 1)[..., None] * jnp.log1p(-share) + (b - 1)[..., None] * other

    return term * a / rest * _quadrature(log_ratio, jnp.zeros_like(wide), wide)


def _distance(mode: jax.Array, other: jax.Array, x: jax.Array, rest: jax.Array) -> jax.Array:
    """`x - mode`, from the end that is nearer."""
    return jnp.where(mode < other, x - mode, other - rest)


def _deviance(
    a: jax.Array, b: jax.Array, mode: jax.Array, other: jax.Array, d: jax.Array, *ratios: jax.Array
) -> jax.Array:
    """`-log (x / mode)^a ((1 - x) / other)^b` for `x = mode + d`, where the mode is `a / (a + b)`."""
    left, right = ratios or (None, None)
    return a * _excess(d / mode, left) + b * _excess(-d / other, right)


def _joint_errors(n: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    errors = stirling_error(jnp.stack([n, a, b]))
    return errors[0] - errors[1] - errors[2]


def _beta_term(z: jax.Array, b: jax.Array, x: jax.Array, rest: jax.Array) -> jax.Array:
    """`x^z rest^b Gamma(z + b) / (Gamma(z + 1) Gamma(b))`."""
    n = z + b
    mode, other = z / n, b / n
    errors = _joint_errors(n, z, b)
    deviance = _deviance(z, b, mode, other, _distance(mode, other, x, rest), x / mode, rest / other)
    return jnp.exp(errors - deviance) * jnp.sqrt(b / (2 * math.pi * z * n))


def student_cdf(z: Any, df: Any) -> jax.Array:
    """Return `P(Z <= z)` of the t density of `df` degrees of freedom, location 0 and scale 1.

    Example:
        >>> student_cdf(jnp.array([-1.0, 0.0, 1.0]), 1.0).round(4).tolist()  # Cauchy
        [0.25, 0.5, 0.75]
    """
    low = _student_tail(-jnp.abs(z), df)
    return jnp.where(z > 0, 1 - low, low)


def student_quantile(level: Any, df: Any) -> jax.Array:
    """Return the quantiles of the same density, levels above 0 and below 1.

    Example:
        >>> student_quantile(jnp.array([0.25, 0.5]), 1.0).round(4).tolist()
        [-1.0, 0.0]
    """
    tail = jnp.minimum(level, 1 - level)
    z = reach(lambda z: _student_tail(z, df), tail, jnp.minimum(ndtri(tail), -1), 0.0)
    return jnp.where(level < 0.5, 1, -1) * z


def _student_tail(z: jax.Array, df: Any) -> jax.Array:
    """Return the probability of no more than z, which is not positive."""
    ratio = jnp.where(z > 0, 0, z) / jnp.sqrt(df)
    far = jnp.abs(ratio) > 1  # where the square may overflow
    inner, outer = jnp.where(far, 0, ratio) ** 2, 1 / jnp.where(far, ratio, 1) ** 2
    near, rest = (jnp.where(far, a, b) for a, b in ((outer / (1 + outer), 1 / (1 + inner)),
                                                    (1 / (1 + outer), inner / (1 + inner))))  # fmt: skip
    return jnp.where(z < 0, 0.5 * beta_cdf(df / 2, 0.5, near, rest), jnp.where(z >= 0, 0.5, z))


def von_mises_tail(concentration: jax.Array, angle: jax.Array) -> jax.Array:
    """Return the probability of a von Mises density from an angle beside its direction to the opposite one.

    Args:
        concentration: positive.
        angle: from 0 to pi, broadcast with it.

    Example:
        >>> von_mises_tail(jnp.float32(2.0), jnp.array([0.0, jnp.pi])).round(4).tolist()
        [0.5, 0.0]
    """
    k, angle = jnp.broadcast_arrays(concentration, angle)
    wide = 12 / jnp.sqrt(k)
    log_density = lambda s: -2 * k[..., None] * jnp.sin(s / 2) ** 2  # noqa: E731
    whole = _quadrature(log_density, jnp.zeros_like(angle), jnp.minimum(math.pi, wide))
    return 0.5 * _quadrature(log_density, angle, jnp.minimum(math.pi, angle + wide)) / whole
