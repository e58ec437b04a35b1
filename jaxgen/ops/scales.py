"""A center and a scale for each column of a table, which no far value, no second cluster and no other column can set.

Floors of variances, distances of clusters and tolerances are multiples of these scales, so that nothing depends on the
units in which a column was measured.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.remedies import unseen

#: rows that are looked at; a scale is wanted to a factor of two
ROWS = 1024
#: shares of the values that a window has to hold, the first that is wider than nothing is taken; and its fewest values
SHARES, FEWEST = (0.05, 0.1, 0.25, 0.5, 0.75), 8
#: default floor of a variance, as a share of the squared scale: far below any structure, above float32 rounding
RELATIVE_FLOOR = 1e-6
#: standard deviations that stand for a whole range, where less than a quarter of the values differ from the rest
RANGE = 6.0
#: scales beyond which distances are all the same
FAR = 1e12
#: power of the largest number that values may reach, so that sums of their squares are numbers; one over it is what a
#: column has to vary by, so that floors of its variance are
EXTENT = 0.4


def seen_numbers(x: Any, called: str, missing: bool = False, name: str = "x") -> Any:
    """Events as an array, NaN in them only where `missing`, and of sizes whose squares are numbers.

    Raises:
        DataError: what `core.inputs.as_array` refuses; values too large, or columns that vary too little, for squares.
    """
    x = as_array(x, name=name, called=called, allow_nan=missing, missing=unseen(called))
    if not concrete(x) or np.ndim(x) < 2 or not np.size(x):
        return x
    host = np.asarray(x, float).reshape(-1, np.shape(x)[-1])
    host = host[~np.isnan(host).all(axis=1)]
    kind = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
    limit = float(jnp.finfo(jnp.promote_types(kind, jnp.float32) if jax.config.jax_enable_x64 else jnp.float32).max)  # type: ignore[attr-defined]
    limit = limit**EXTENT
    low, high = (np.where(np.isnan(host), fill, host) for fill in (np.inf, -np.inf))
    low, high = np.min(low, axis=0, initial=np.inf), np.max(high, axis=0, initial=-np.inf)
    reach, width = np.maximum(np.abs(low), np.abs(high)), high - low
    wrong = (np.isfinite(reach) & (reach > limit)) | ((width > 0) & (width < 1 / limit))
    if wrong.any():
        raise DataError(
            f"{name} has columns whose squares are no numbers", called=called,
            expected=f"values up to {limit:.0e}, and columns that vary by {1 / limit:.0e} or more",
            got=f"column {int(np.argmax(wrong))} from {low[wrong][0]:.3g} to {high[wrong][0]:.3g}",
            fix=f"np.asarray({name}) / np.where(np.any({name}, axis=0), np.nanmax(np.abs({name}), axis=0), 1)",
        )  # fmt: skip
    return x


def table(x: Any, called: str, missing: bool = False) -> jax.Array:
    """Data `[N, D]` as floats, checked as `seen_numbers` does.

    Raises:
        ShapeError: data of other axes. DataError: as `seen_numbers`.
    """
    if np.ndim(x) != 2:
        raise ShapeError(
            "a Gaussian needs a table", called=called, expected="x [N, D]", got=f"shape {list(np.shape(x))}",
            fix="np.asarray(x)[:, None] for one column",
        )  # fmt: skip
    x = jnp.asarray(seen_numbers(x, called, missing))
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


class Columns(NamedTuple):
    """Center and scale of each column, `[D]` both, in units of the column."""

    center: jax.Array
    scale: jax.Array


@jax.jit
def columns(x: jax.Array) -> Columns:
    """A value amid the densest part of each column, and the width of that part as a standard deviation.

    The shortest window that holds a twentieth of the values is as wide as a normal density of some standard deviation
    is around its middle; that one is the scale. Where so many values are equal, the window holds more of them; where
    nearly all are, a sixth of the range stands in; of a constant column its size, and of one of zeros 1. So the scale
    is that of a cluster where there are clusters, and a multiple of a column has the same multiple of its scale.

    Args:
        x: `[N, D]` floats, NaN where an entry was not seen.

    Returns:
        `Columns`: `center [D]`, values of x (0 where nothing was seen), and `scale [D]`, positive.

    Source: Rousseeuw and Leroy (1988), A robust scale estimator based on the shortest half, for half of the values.

    Example:
        >>> x = jnp.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [10.0, 5.0], [11.0, 5.0], [12.0, 5.0], [1e6, 5.0]])
        >>> [round(float(scale)) for scale in columns(x).scale]
        [7, 5]
    """
    rows = jnp.sort(x[:: -(-len(x) // ROWS)], axis=0)  # NaN last
    count = jnp.sum(~jnp.isnan(rows), axis=0)
    index = jnp.arange(len(rows))[:, None]

    def window(share: jax.Array) -> tuple[jax.Array, jax.Array]:
        held = jnp.maximum(jnp.ceil(share * count), jnp.minimum(FEWEST, (count + 1) // 2)).astype(count.dtype)
        held = jnp.clip(held, 2, jnp.maximum(count, 2))
        end = index + held - 1
        width = jnp.take_along_axis(rows, jnp.minimum(end, len(rows) - 1), axis=0) - rows
        width = jnp.where(end < count, width, jnp.inf)
        # of windows that are about as narrow the one next to zero, from where differences are exact
        size = jnp.where(width <= 2 * jnp.min(width, axis=0), jnp.abs(rows), jnp.inf)
        first = jnp.argmin(size, axis=0)
        middle = jnp.take_along_axis(rows, (first + held // 2)[None], axis=0)[0]
        # what a normal density has within z standard deviations of its middle
        z = ndtri((1 + held / (count + 1)) / 2)
        return middle, (jnp.min(width, axis=0) / (2 * z)).astype(x.dtype)

    middles, widths = jax.lax.map(window, jnp.asarray(SHARES, x.dtype))
    found = jnp.isfinite(widths) & (widths > 0)
    best = jnp.argmax(found, axis=0)[None]
    center = jnp.take_along_axis(middles, jnp.where(found.any(axis=0), best, 0), axis=0)[0]
    center = jnp.where(jnp.isnan(center), jnp.nanmax(x, axis=0), center)  # of one value that was seen
    center = jnp.where(jnp.isnan(center), 0, center)
    whole = (jnp.nanmax(x, axis=0) - jnp.nanmin(x, axis=0)) / RANGE
    size = jnp.where(center != 0, jnp.abs(center), 1)
    scale = jnp.where(found.any(axis=0), jnp.take_along_axis(widths, best, axis=0)[0], whole)
    return Columns(center, jnp.where(scale > 0, scale, size))


def variance_floor(scale: jax.Array, floor: jax.Array | float | None, share: float = RELATIVE_FLOOR) -> jax.Array:
    """The floor of the variance of each column, `[D]`: as given, or a share of its squared scale `[D]`.

    Example:
        >>> variance_floor(jnp.ones(1), None).tolist(), variance_floor(jnp.ones(2), 0.5).tolist()
        ([9.999999974752427e-07], [0.5, 0.5])
    """
    if floor is not None:
        return jnp.broadcast_to(jnp.asarray(floor, scale.dtype), scale.shape)
    return jnp.asarray(share, scale.dtype) * scale**2


def standardized(x: jax.Array, *, together: bool = False) -> jax.Array:
    """Columns `[N, D]` around their centers, in units of their scales; NaN stays.

    Args:
        together: one scale for all, the median of those of the columns that vary: for events of one unit, as images.
    """
    center, scale = columns(x)
    if together:
        varies = jnp.nanmax(x, axis=0) > jnp.nanmin(x, axis=0)
        middle = jnp.nanmedian(jnp.where(varies, scale, jnp.nan))
        scale = jnp.where(jnp.isnan(middle), 1, middle)
    # squares of what is so far away would overflow
    return jnp.clip((x - center) / scale, -FAR, FAR)
