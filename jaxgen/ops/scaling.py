"""The units of data: a center and a scale, so that networks see numbers of order one whatever was measured in."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxgen.core.inputs import floating


def mean_and_scale(x) -> tuple[jax.Array, jax.Array]:
    """The mean and standard deviation of events: per coordinate for vectors, one of each for events of more axes.

    An image has one unit, its brightness: a scale for each pixel would blow up those that are nearly always blank.

    Args:
        x: events `[N, *event]`; NaN is an entry that was not seen, and counts nowhere.

    Returns:
        center and scale, both `[*event]` for scalar and vector events and `[]` for others; a coordinate that is the
        same in all events keeps the scale 1.

    Example:
        >>> center, scale = mean_and_scale(jnp.array([[1.0, 7.0], [3.0, 7.0]]))
        >>> center.tolist(), scale.tolist()
        ([2.0, 7.0], [1.0, 1.0])
    """
    x = floating(x)
    axis = 0 if x.ndim <= 2 else None
    low, high = jnp.nanmin(x, axis=axis), jnp.nanmax(x, axis=axis)
    # by a power of two, which rounds nothing: squares of 1e30 or of 1e-30 are no numbers in float32
    exponent = jnp.frexp(jnp.maximum(jnp.abs(low), jnp.abs(high)))[1]
    most = jnp.finfo(x.dtype).maxexp - 4  # one over it is normal too
    unit = jnp.ldexp(jnp.ones((), x.dtype), jnp.clip(exponent, -most, most))
    x = x / unit
    # twice, since the mean of large numbers is only as exact as they are
    center = jnp.nanmean(x, axis=axis)
    center = center + jnp.nanmean(x - center, axis=axis)
    scale = jnp.nanstd(x - center, axis=axis)
    # compared, because rounding gives a constant column a deviation of its last digit
    varies = (high > low) & (scale > 0)
    return center * unit, jnp.where(varies, scale * unit, 1)


def units(x) -> tuple[jax.Array, jax.Array]:
    """The mean and standard deviation of each column; of a constant one its size stands for that, and of zeros 1.

    Args:
        x: `[N, D]`.

    Returns:
        center and scale `[D]`, which a change of units multiplies, unless all is zero.

    Example:
        >>> [unit.tolist() for unit in units(jnp.array([[1.0, 7.0, 0.0], [3.0, 7.0, 0.0]]))]
        [[2.0, 7.0, 0.0], [1.0, 7.0, 1.0]]
    """
    x = floating(x)
    center, scale = mean_and_scale(x)
    size = jnp.max(jnp.abs(x), axis=0)
    constant = jnp.max(x, axis=0) == jnp.min(x, axis=0)
    return center, jnp.where(constant, jnp.where(size > 0, size, 1), scale)


def middle_and_reach(x) -> tuple[jax.Array, jax.Array]:
    """The middle of all values and how far they reach to either side: `(x - middle) / reach` fills [-1, 1].

    Args:
        x: events `[N, *event]`.

    Returns:
        two scalars; the reach of constant data is 1.

    Example:
        >>> [float(a) for a in middle_and_reach(jnp.array([0, 16, 3]))]
        [8.0, 8.0]
    """
    x = floating(x)
    low, high = jnp.min(x), jnp.max(x)
    reach = (high - low) / 2
    return low + reach, jnp.where(reach > 0, reach, 1)


def standardize(x: jax.Array, scaling: tuple[jax.Array, jax.Array] | None) -> jax.Array:
    """Return `(x - center) / scale`, or x as it is without a scaling.

    Example:
        >>> standardize(jnp.array([5.0]), (jnp.float32(1.0), jnp.float32(2.0))).tolist()
        [2.0]
    """
    return x if scaling is None else (x - scaling[0]) / scaling[1]


def in_units(y: jax.Array, scaling: tuple[jax.Array, jax.Array] | None) -> jax.Array:
    """Return `center + scale y`, or y as it is without a scaling.

    Example:
        >>> in_units(jnp.array([2.0]), (jnp.float32(1.0), jnp.float32(2.0))).tolist()
        [5.0]
    """
    return y if scaling is None else scaling[0] + scaling[1] * y


def log_volume(
    scaling: tuple[jax.Array, jax.Array] | None, event_shape: tuple[int, ...], where: jax.Array | None = None
) -> jax.Array | float:
    """Return the logarithm of the volume that one event of scale 1 has in the data's units, nats.

    With `where`, bools of that shape, it is that of the entries where they are True.

    Example:
        >>> round(float(log_volume((jnp.float32(1.0), jnp.float32(2.0)), (3,))), 4)
        2.0794
    """
    return 0.0 if scaling is None else jnp.sum(jnp.broadcast_to(jnp.log(scaling[1]), event_shape), where=where)


#: the bulk of a column ends so many of its scales from the center; what lies beyond is bent to within the limit
BULK, LIMIT = 3.0, 5.0
#: pairs of quantiles, each with its distance in standard deviations of a normal
_PAIRS = ((0.1, 1.2815516), (0.02, 2.0537489), (0.001, 3.0902323))
#: quantiles are those of at most so many rows, evenly spaced
_ROWS = 2**16


def center_and_scale(x) -> tuple[jax.Array, jax.Array]:
    """The median of each column and its scale by the deciles, which no outlier moves.

    The scale is the distance of the first and the last decile, and 1 standard deviation for a normal column. Where
    those coincide it is that of quantiles further out, and where all of them do the standard deviation.

    Args:
        x: events `[N, *event]`.

    Returns:
        center and scale, both `[*event]`; a coordinate that is the same in all events keeps the scale 1.

    Example:
        >>> center, scale = center_and_scale(jnp.array([[1.0, 7.0], [3.0, 7.0], [2.0, 7.0], [1e9, 7.0]])[:3])
        >>> center.tolist(), scale.round(2).tolist()
        ([2.0, 7.0], [0.6200000047683716, 1.0])
    """
    x = floating(x)
    ordered = jnp.sort(x[:: -(-len(x) // _ROWS)], axis=0)

    def quantile(p):
        # exact where neighbours are equal, so that a constant column has no scale
        place = p * (len(ordered) - 1)
        low = ordered[math.floor(place)]
        return low + (place - math.floor(place)) * (ordered[math.ceil(place)] - low)

    center = quantile(0.5)
    spans = [(quantile(1 - p) - quantile(p)) / (2 * distance) for p, distance in _PAIRS]
    constant = jnp.max(x, axis=0) == jnp.min(x, axis=0)
    scale = jnp.where(constant, 1, jnp.sqrt(jnp.mean((x - center) ** 2, axis=0)))
    for span in reversed(spans):
        scale = jnp.where(span > 0, span, scale)
    return center, jnp.where(scale > 0, scale, 1)


def tails(u) -> jax.Array:
    """Return the bend of each column's two tails that brings it within the limit, the b of `bent`.

    Args:
        u: events `[N, *event]` in units of their scale, as by `center_and_scale`, up to a million of them.

    Returns:
        `[2, *event]`, for the lower and the upper tail: 0 where the data are within the limit as they are.
    """
    room = LIMIT - BULK
    far = (jnp.stack([jnp.max(-u, axis=0), jnp.max(u, axis=0)]) - BULK) / room
    # log(1 + far b) = b, from above, so that what is left is inside; no more than brings a million scales within the
    # limit, since float32 has to find the way back
    bend = 2 * jnp.maximum(far - 1, 0)
    for _ in range(8):
        bend = jnp.minimum(jnp.log1p(jnp.maximum(far, 0) * bend), 16)
    return bend / room


def bent(u, bend) -> tuple[jax.Array, jax.Array]:
    """Numbers as they are in the bulk, on a logarithmic scale beyond, and the log of the slope.

    `z = u` up to `B = 3`, `z = B + log(1 + b (u - B)) / b` above, and so below `-B`; b = 0 is the identity.

    Args:
        u: `[*event]`.
        bend: b, `[2, *event]` for the two sides.

    Example:
        >>> z, log_slope = bent(jnp.array([1.0, 103.0]), jnp.ones((2, 2)))
        >>> [f"{a:.3f}" for a in (*z, *log_slope)]
        ['1.000', '7.615', '-0.000', '-4.615']
    """
    b, size = jnp.where(u < 0, bend[0], bend[1]), jnp.abs(u) - BULK
    moves = (b > 0) & (size > 0)
    b, size = jnp.where(moves, b, 1), jnp.where(moves, size, 0)
    log_slope = jnp.log1p(b * size)
    return jnp.where(moves, jnp.sign(u) * (BULK + log_slope / b), u), -log_slope


def unbent(z, bend) -> tuple[jax.Array, jax.Array]:
    """The inverse of `bent`, and the log of its slope.

    Example:
        >>> u, log_slope = unbent(jnp.array([1.0, 7.6151]), jnp.ones((2, 2)))
        >>> [f"{a:.1f}" for a in (*u, *log_slope)]
        ['1.0', '103.0', '0.0', '4.6']
    """
    b, size = jnp.where(z < 0, bend[0], bend[1]), jnp.abs(z) - BULK
    moves = (b > 0) & (size > 0)
    b, size = jnp.where(moves, b, 1), jnp.where(moves, size, 0)
    log_slope = b * size
    # the last power that the dtype holds, so that no draw is infinite
    power = jnp.minimum(log_slope, (jnp.finfo(z.dtype).maxexp - 1) * math.log(2))
    return jnp.where(moves, jnp.sign(z) * (BULK + jnp.expm1(power) / b), z), log_slope
