"""Grids of images and of weights."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from jaxgen.core.errors import ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.plot.style import GRID

#: negative, zero, positive: weights
SIGNED = LinearSegmentedColormap.from_list("signed", ["#8c2d04", "#f2a071", "#ffffff", "#7fb8de", "#083a63"])


def images(array: Any, ax: Axes | None = None, *, columns: int | None = None) -> Axes:
    """Grey pictures in a grid, dark as ink on white.

    Args:
        array: `[N, height, width]`, or with a last axis of 1 or 3 (red, green, blue in [0, 1]).
        ax: where to draw; None takes the current axis.
        columns: pictures in a row; None makes the grid about square.

    Raises:
        ShapeError: not a batch of pictures.
    """
    array = np.asarray(as_array(array, name="array"), np.float64)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    mosaic = _mosaic(array, columns, "images(array)", fill=np.nan if array.ndim == 3 else 1.0)
    return _picture(mosaic, ax, colormaps["gray_r"], 0.0, float(np.nanmax(mosaic)) or 1.0)


def filters(weights: Any, shape: tuple[int, int], ax: Axes | None = None, *, columns: int | None = None) -> Axes:
    """Weights as pictures, one per hidden unit: blue for positive, brown for negative, white for zero.

    Args:
        weights: `[V, H]`, V = height x width; every picture is scaled by its own largest weight.
        shape: `(height, width)`.
        ax: where to draw; None takes the current axis.
        columns: pictures in a row; None makes the grid about square.

    Raises:
        ShapeError: V is not height x width.
    """
    weights = np.asarray(as_array(weights, name="weights"), np.float64)
    if weights.ndim != 2 or weights.shape[0] != math.prod(shape):
        raise ShapeError(
            "the weights make no pictures of that shape", called=f"filters(weights, {shape})",
            expected=f"[{math.prod(shape)}, H]", got=f"shape {list(weights.shape)}",
        )  # fmt: skip
    largest = np.abs(weights).max(axis=0)
    pictures = (weights / np.where(largest > 0, largest, 1)).T.reshape((-1, *shape))
    return _picture(_mosaic(pictures, columns, "filters(weights, shape)", np.nan), ax, SIGNED, -1.0, 1.0)


def _mosaic(pictures: np.ndarray, columns: int | None, called: str, fill: float) -> np.ndarray:
    """One picture out of many, with a line of `fill` between them."""
    if pictures.ndim not in (3, 4) or (pictures.ndim == 4 and pictures.shape[-1] != 3):
        raise ShapeError(
            "not a batch of pictures", called=called, expected="[N, height, width], or [N, height, width, 1 or 3]",
            got=f"shape {list(pictures.shape)}", fix="np.reshape(array, (-1, height, width))",
        )  # fmt: skip
    n, height, width = pictures.shape[:3]
    columns = columns or math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    gap = max(1, height // 14)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *pictures.shape[3:]), fill)
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def _picture(sheet: np.ndarray, ax: Axes | None, cmap: Any, low: float, high: float) -> Axes:
    ax = plt.gca() if ax is None else ax
    # what is NaN is the grid between the pictures
    ax.imshow(sheet, cmap=cmap.with_extremes(bad=GRID), vmin=low, vmax=high, interpolation="nearest")
    ax.set_axis_off()
    return ax
