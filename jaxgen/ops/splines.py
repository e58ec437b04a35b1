"""Monotone rational-quadratic splines: free functions on arrays, number by number.

Between two knots the spline is a quotient of two quadratic polynomials, fixed by the knots `(x_k, y_k)` and the slopes
there. It increases, its derivative is continuous, and its inverse has a closed form. Outside of the knots it is the
identity, which continues it where the end knots are on the diagonal with slope 1, as those of free splines are.

Knots and parameters lie on the leading axis, `[K + 1, *shape]` for numbers `[*shape]`: inner loops run over numbers.

Source: Gregory and Delbourgo (1982), Piecewise rational quadratic interpolation to monotonic data; Durkan et al.
(2019), Neural spline flows, section 3.1 and appendix A.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxgen.ops.pieces import pieces

__all__ = [
    "Knots", "free_spline_forward", "free_spline_inverse", "free_spline_knots", "spline_forward", "spline_inverse",
]  # fmt: skip

#: Whatever parameters a network invents, float32 has to find the way back. The widths of two bins of a spline differ by
#: at most a factor e^3, and so do the slopes of two bins; the slope at a knot is at most a factor e away from the
#: harmonic mean of its bins' slopes, which is at most twice the smaller one. Then the slope anywhere is between about
#: e^-5.5 and e^4, at parameters of any size.
LOG_WIDTH, LOG_SLOPE, LOG_KNOT = 1.5, 1.5, 1.0


class Knots(NamedTuple):
    """The knots of splines with K bins.

    Args:
        x: `[K + 1, *shape]`, increasing.
        y: `[K + 1, *shape]`, increasing.
        slope: `[K + 1, *shape]`, positive: dy/dx at the knots.
    """

    x: Any
    y: Any
    slope: Any


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
    inside, z, place = _between(knots, knots.x, x)
    y, log_slope = _forward(place, z)
    return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0)


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
    inside, z, place = _between(knots, knots.y, y)
    x, log_slope = _inverse(place, z)
    return jnp.where(inside, x, y), jnp.where(inside, log_slope, 0)


def free_spline_forward(params: Any, x: Any, bound: float, circular: bool = False) -> tuple[jax.Array, jax.Array]:
    """A spline of `[-bound, bound]` onto itself with free parameters; the identity at zero parameters.

    The widths of the bins are a softmax; the slopes of the bins, normalised so that the heights fill the interval, and
    those of the knots are relative to their neighbours. All logarithms are bounded smoothly (`c tanh(r / c)`).

    Args:
        params: `[3 K - 1, *shape]`: for K bins the log-widths, then their log-slopes, then those of the K-1 knots
            between them; `[3 K, *shape]` on a circle, the last for the knot where it closes.
        x: `[*shape]`.
        bound: half the width of the interval, positive.
        circular: the ends are one point of a circle of circumference `2 bound`, and have one slope; else their slopes
            are one.

    Returns:
        `y` and `log dy/dx`, both `[*shape]`; outside of the interval `x` and 0.

    Source: Durkan et al. (2019), section 3.1; Rezende et al. (2020), Normalizing flows on tori and spheres, section
    2.1.2, for the circle.

    Example:
        >>> y, log_slope = free_spline_forward(jnp.zeros(8), jnp.float32(2.0), 3.0)
        >>> round(float(y), 5), round(float(log_slope), 5)
        (2.0, 0.0)
    """
    return _free(params, jnp.asarray(x), float(bound), circular, False)


def free_spline_inverse(params: Any, y: Any, bound: float, circular: bool = False) -> tuple[jax.Array, jax.Array]:
    """The inverse of `free_spline_forward`: `x` and `log dx/dy`.

    Example:
        >>> params = jax.random.normal(jax.random.key(0), (8,))
        >>> y, _ = free_spline_forward(params, jnp.float32(2.0), 3.0)
        >>> round(float(free_spline_inverse(params, y, 3.0)[0]), 4)
        2.0
    """
    return _free(params, jnp.asarray(y), float(bound), circular, True)


def free_spline_knots(params: Any, bound: float, circular: bool = False) -> Knots:
    """The knots of a free spline, to look at or to keep; evaluated through them it is slower.

    Example:
        >>> free_spline_knots(jnp.zeros(8), 3.0).x.tolist()
        [-3.0, -1.0, 1.0, 3.0]
    """
    width, slope, knot = _parts(params)
    width = width / jnp.sum(width, axis=0)
    slope, knot = slope / jnp.sum(width * slope, axis=0), _factor(knot, LOG_KNOT)
    if circular:
        after = _at_knot(slope, jnp.roll(slope, -1, axis=0), knot)
        slopes = jnp.concatenate([after[-1:], after])
    else:
        one = jnp.ones_like(width[:1])
        slopes = jnp.concatenate([one, _at_knot(slope[:-1], slope[1:], knot), one])
    return Knots(_edges(width, bound), _edges(width * slope, bound), slopes)


class _Bin(NamedTuple):
    """Each number's bin: where it begins and how far it reaches, on both axes, and the slopes at its ends."""

    low: Any
    width: Any
    bottom: Any
    height: Any
    left: Any
    right: Any


def _forward(place: _Bin, x):
    slope, t = place.height / place.width, (x - place.low) / place.width
    rest = t * (1 - t)
    share = (slope * t**2 + place.left * rest) / (slope + (place.left + place.right - 2 * slope) * rest)
    return place.bottom + place.height * share, _log_slope(t, slope, place.left, place.right)


def _inverse(place: _Bin, y):
    slope, u = place.height / place.width, (y - place.bottom) / place.height
    # a t^2 + b t = slope u, each root by the formula in which nothing cancels
    b = place.left - u * (place.left + place.right - 2 * slope)
    a = slope - b
    root = jnp.sqrt(jnp.maximum(b**2 + 4 * a * slope * u, 0))
    t = jnp.where(b >= 0, 2 * slope * u, root - b) / jnp.where(b >= 0, b + root, 2 * a)
    return place.low + place.width * t, -_log_slope(t, slope, place.left, place.right)


def _log_slope(t, slope, left, right):
    rest = t * (1 - t)
    middle = slope + (left + right - 2 * slope) * rest
    return jnp.log((right * t**2 + 2 * slope * rest + left * (1 - t) ** 2) * (slope / middle) ** 2)


def _between(knots, axis, x):
    """Return a mask of the x between the end knots, x with the first knot in place of others, and the bins."""
    x = jnp.asarray(x)
    knots, axis = jax.tree.map(lambda a: _over(a, x), (knots, axis))
    inside = (x >= axis[0]) & (x <= axis[-1])
    z = jnp.where(inside, x, lax.stop_gradient(axis[0]))
    index = jnp.sum(z >= axis[1:-1], axis=0)
    low, bottom, left = (_sum(values, index, jnp.equal) for values in knots)
    high, top, right = (_sum(values, index + 1, jnp.equal) for values in knots)
    return inside, z, _Bin(low, high - low, bottom, top - bottom, left, right)


# Each number has arrays of K bins, dear to keep for a gradient and cheap to compute again. Kept are the sums over them.
@functools.partial(
    jax.checkpoint, static_argnums=(2, 3, 4), prevent_cse=False,
    policy=jax.checkpoint_policies.save_only_these_names("kept"),
)  # fmt: skip
def _free(params, x, bound, circular, back):
    width, slope, knot = _parts(_over(params, x))
    height, bins = width * slope, len(width)
    total_width, total_height = _kept(jnp.sum(width, axis=0)), _kept(jnp.sum(height, axis=0))
    inside = (x >= -bound) & (x <= bound)
    z = jnp.where(inside, x, -bound)
    parts, total = (height, total_height) if back else (width, total_width)
    # which bin it is has no derivative, hence neither have the sums that tell
    parts, place = lax.stop_gradient((parts, (z + bound) * (total / (2 * bound))))
    index = _kept(jnp.minimum(jnp.sum(place >= jnp.cumsum(parts, axis=0), axis=0), bins - 1))
    before, after = ((index - 1) % bins, (index + 1) % bins) if circular else (index - 1, index + 1)

    across, up = 2 * bound / total_width, 2 * bound / total_height
    here, unit = _sum(slope, index, jnp.equal), up / across
    at_left, at_right = (_factor(_sum(knot, i, jnp.equal), LOG_KNOT) for i in (before, index))
    left = _at_knot(_sum(slope, before, jnp.equal), here, at_left) * unit
    right = _at_knot(here, _sum(slope, after, jnp.equal), at_right) * unit
    if not circular:
        left, right = jnp.where(index == 0, 1, left), jnp.where(index == bins - 1, 1, right)
    found = _Bin(
        # from the middle, so that what is near it keeps its digits
        across * (_sum(width, index, jnp.less) - total_width / 2), across * _sum(width, index, jnp.equal),
        up * (_sum(height, index, jnp.less) - total_height / 2), up * _sum(height, index, jnp.equal), left, right,
    )  # fmt: skip
    y, log_slope = (_inverse if back else _forward)(found, z)
    return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0)


def _over(a, x):
    """Axes of length one behind the leading one, so that one spline can serve many numbers."""
    return lax.expand_dims(a, range(1, x.ndim + 2 - a.ndim))


def _kept(a):
    return checkpoint_name(a, "kept")


def _sum(values, index, which):
    """The sum of the values whose numbers compare so with an index, `[K, *shape], [*shape] -> [*shape]`."""
    # a masked sum: faster than a gather, and much faster than its gradient
    number = jnp.arange(len(values)).reshape((-1,) + (1,) * index.ndim)
    return _kept(jnp.sum(jnp.where(which(number, index), values, 0), axis=0))


def _parts(params):
    """Widths and slopes of bins, both up to a factor, and the parameters of knots."""
    bins = (len(params) + 1) // 3
    width, slope, knot = pieces(params, (bins, bins, len(params) - 2 * bins))
    return _factor(width, LOG_WIDTH), _factor(slope, LOG_SLOPE), knot


def _factor(raw, bound):
    return jnp.exp(bound * jnp.tanh(raw / bound))


def _at_knot(before, after, factor):
    """The slope at a knot: a factor times the harmonic mean of those beside it."""
    return factor * 2 * before * after / (before + after)


def _edges(parts, bound):
    # the ends are exact, whatever the sum of the parts rounds to
    end = jnp.full_like(parts[:1], bound)
    return jnp.concatenate([-end, 2 * bound * jnp.cumsum(parts[:-1], axis=0) - bound, end])
