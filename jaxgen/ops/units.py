"""The units of data: a center and a scale, so that networks see numbers of order one whatever was measured in."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgen.core.gate import floating


def mean_and_scale(x) -> tuple[jax.Array, jax.Array]:
    """The mean and standard deviation of events: per coordinate for vectors, one of each for events of more axes.

    An image has one unit, its brightness: a scale for each pixel would blow up those that are nearly always blank.

    Args:
        x: events `[N, *event]`.

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
    # twice, since the mean of large numbers is only as exact as they are
    center = jnp.mean(x, axis=axis)
    center = center + jnp.mean(x - center, axis=axis)
    scale = jnp.std(x - center, axis=axis)
    # compared, because rounding gives a constant column a deviation of its last digit
    varies = (jnp.max(x, axis=axis) > jnp.min(x, axis=axis)) & (scale > 0)
    return center, jnp.where(varies, scale, 1)


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
