"""Monotone rational-quadratic splines: free functions on arrays, number by number.

Between two knots the spline is a quotient of two quadratic polynomials, fixed by the knots `(x_k, y_k)` and the slopes
there. It increases, its derivative is continuous, and its inverse has a closed form. Outside of the knots it is the
identity, which continues it where the end knots are on the diagonal with slope 1, as those of `spline_knots` are.

Knots lie on the last axis: `[*shape, K + 1]` for numbers `[*shape]`.

Source: Gregory and Delbourgo (1982), Piecewise rational quadratic interpolation to monotonic data; Durkan et al.
(2019), Neural spline flows, section 3.1 and appendix A.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["Knots", "circular_spline_knots", "spline_forward", "spline_inverse", "spline_knots"]

#: Whatever parameters a network invents, float32 has to find the way back. The widths of two bins of a spline differ by
#: at most a factor e^3, and so do the slopes of two bins; the slope at a knot is at most a factor e away from the
#: harmonic mean of its bins' slopes, which is at most twice the smaller one. Then the slope anywhere is between about
#: e^-5.5 and e^4, at parameters of any size.
LOG_WIDTH, LOG_SLOPE, LOG_KNOT = 1.5, 1.5, 1.0


class Knots(NamedTuple):
    """The knots of splines with K bins.

    Args:
        x: `[*shape, K + 1]`, increasing.
        y: `[*shape, K + 1]`, increasing.
        slope: `[*shape, K + 1]`, positive: dy/dx at the knots.
    """

    x: Any
    y: Any
    slope: Any


def spline_knots(params: Any, bound: float) -> Knots:
    """Knots of a spline of `[-bound, bound]` onto itself from free parameters; the identity at zero parameters.

    The widths of the bins are a softmax; the slopes of the bins, normalised so that the heights fill the interval, and
    those of the knots are relative to their neighbours. All logarithms are bounded smoothly (`c tanh(r / c)`).

    Args:
        params: `[*shape, 3 K - 1]`: for K bins the log-widths, then their log-slopes, then those of the K-1 knots
            between them.
        bound: half the width of the interval, positive.

    Example:
        >>> spline_knots(jnp.zeros(8), 3.0).x.tolist()
        [-3.0, -1.0, 1.0, 3.0]
    """
    width, slope, knot = _bins(params, (params.shape[-1] + 1) // 3)
    one = jnp.ones_like(width[..., :1])
    inner = _at_knots(slope[..., :-1], slope[..., 1:], knot)
    return Knots(_edges(width, bound), _edges(width * slope, bound), jnp.concatenate([one, inner, one], axis=-1))


def circular_spline_knots(params: Any, bound: float) -> Knots:
    """Knots of a spline of a circle of circumference `2 bound` onto itself: the slopes at both ends are one.

    Args:
        params: `[*shape, 3 K]`, as for `spline_knots`, with one more for the knot where the circle closes, the last.
        bound: half the circumference, positive.

    Source: Rezende et al. (2020), Normalizing flows on tori and spheres, section 2.1.2.

    Example:
        >>> knots = circular_spline_knots(jax.random.normal(jax.random.key(0), (12,)), jnp.pi)
        >>> knots.x.shape, bool(knots.slope[0] == knots.slope[-1])
        ((5,), True)
    """
    width, slope, knot = _bins(params, params.shape[-1] // 3)
    after = _at_knots(slope, jnp.roll(slope, -1, axis=-1), knot)
    return Knots(
        _edges(width, bound), _edges(width * slope, bound), jnp.concatenate([after[..., -1:], after], axis=-1)
    )


def spline_forward(knots: Knots, x: Any) -> tuple[jax.Array, jax.Array]:
    """The spline and the logarithm of its derivative.

    Args:
        knots: for numbers `[*shape]`.
        x: `[*shape]`.

    Returns:
        `y` and `log dy/dx`, both `[*shape]`; outside of the knots `x` and 0.

    Example:
        >>> knots = Knots(*map(jnp.array, ([-3.0, -1.0, 0.5, 3.0], [-3.0, -2.0, 1.0, 3.0], [1.0, 0.5, 2.0, 1.0])))
        >>> y, log_slope = spline_forward(knots, jnp.float32(-2.0))
        >>> round(float(y), 4), round(float(log_slope), 4)
        (-2.4, -0.9163)
    """
    inside, z, low, width, bottom, height, left, right = _bin(knots.x, knots, x)
    slope, t = height / width, (z - low) / width
    rest = t * (1 - t)
    y = bottom + height * (slope * t**2 + left * rest) / (slope + (left + right - 2 * slope) * rest)
    return jnp.where(inside, y, x), jnp.where(inside, _log_slope(t, slope, left, right), 0)


def spline_inverse(knots: Knots, y: Any) -> tuple[jax.Array, jax.Array]:
    """The inverse of the spline and the logarithm of the inverse's derivative.

    Args:
        knots: for numbers `[*shape]`.
        y: `[*shape]`.

    Returns:
        `x` and `log dx/dy`, both `[*shape]`; outside of the knots `y` and 0.

    Example:
        >>> knots = Knots(*map(jnp.array, ([-3.0, -1.0, 0.5, 3.0], [-3.0, -2.0, 1.0, 3.0], [1.0, 0.5, 2.0, 1.0])))
        >>> x, log_slope = spline_inverse(knots, jnp.float32(-2.4))
        >>> round(float(x), 4), round(float(log_slope), 4)
        (-2.0, 0.9163)
    """
    inside, z, low, width, bottom, height, left, right = _bin(knots.y, knots, y)
    slope, u = height / width, (z - bottom) / height
    # a t^2 + b t = slope u, each root by the formula in which nothing cancels
    b = left - u * (left + right - 2 * slope)
    a = slope - b
    root = jnp.sqrt(jnp.maximum(b**2 + 4 * a * slope * u, 0))
    t = jnp.where(b >= 0, 2 * slope * u, root - b) / jnp.where(b >= 0, b + root, 2 * a)
    return jnp.where(inside, low + width * t, y), jnp.where(inside, -_log_slope(t, slope, left, right), 0)


def _bounded(raw, bound):
    return bound * jnp.tanh(raw / bound)


def _bins(params, bins):
    """Widths that sum to one, slopes whose mean is one, and the factors at the knots."""
    widths, slopes, knots = jnp.split(params, [bins, 2 * bins], axis=-1)
    width = jax.nn.softmax(_bounded(widths, LOG_WIDTH), axis=-1)
    slope = jnp.exp(_bounded(slopes, LOG_SLOPE))
    slope = slope / jnp.sum(width * slope, axis=-1, keepdims=True)
    return width, slope, jnp.exp(_bounded(knots, LOG_KNOT))


def _at_knots(before, after, factor):
    return factor * 2 * before * after / (before + after)


def _edges(parts, bound):
    # the ends are exact, whatever the sum of the parts rounds to
    end = jnp.full_like(parts[..., :1], bound)
    return jnp.concatenate([-end, 2 * bound * jnp.cumsum(parts[..., :-1], axis=-1) - bound, end], axis=-1)


def _bin(axis, knots, x):
    """Whether x is between the ends, x or a number that is, and the edges and slopes of its bin."""
    inside = (x >= axis[..., 0]) & (x <= axis[..., -1])
    z = jnp.where(inside, x, lax.stop_gradient(axis[..., 0]))
    # selected by a product with zeros and a one: faster than a gather, and much faster than its gradient
    index = jnp.sum(z[..., None] >= axis[..., 1:-1], axis=-1)
    here = jax.nn.one_hot(index, axis.shape[-1] - 1, dtype=z.dtype)
    low, bottom, left = (jnp.sum(here * values[..., :-1], axis=-1) for values in knots)
    high, top, right = (jnp.sum(here * values[..., 1:], axis=-1) for values in knots)
    return inside, z, low, high - low, bottom, top - bottom, left, right


def _log_slope(t, slope, left, right):
    rest = t * (1 - t)
    middle = slope + (left + right - 2 * slope) * rest
    return jnp.log((right * t**2 + 2 * slope * rest + left * (1 - t) ** 2) * (slope / middle) ** 2)
