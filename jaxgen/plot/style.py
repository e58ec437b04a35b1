"""The colours and the axes of all pictures."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from jaxgen.core.errors import ShapeError
from jaxgen.core.inputs import as_array

INK, DATA, MODEL, GRID = "#2b2f36", "#7d8793", "#0b6fb8", "#dde3e9"
#: categorical colours that differ in lightness as well as in hue (after Okabe and Ito 2008)
PALETTE = ("#0b6fb8", "#d9541e", "#2a9d6f", "#b4569d", "#c89b1d", "#57b4dc", "#6b4fa0", "#8c564b")
#: with the colours, so that lines differ in print too
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


def component_colour(k: Any) -> str:
    """Return the colour of a component or state, by its number: the same in all pictures."""
    return PALETTE[int(k) % len(PALETTE)]


def clean(ax: Axes | None) -> Axes:
    """Return an axis, or the current one, in the style of all pictures."""
    ax = plt.gca() if ax is None else ax
    ax.spines[["top", "right"]].set_visible(False)
    for spine in ax.spines.values():
        spine.set_color("#9aa3ad")
    ax.tick_params(colors=INK, labelsize=10, color="#9aa3ad", length=3)
    ax.xaxis.label.set(color=INK, size=11)
    ax.yaxis.label.set(color=INK, size=11)
    return ax


def dot_size(n: int) -> float:
    """Return the size of one of n dots, in square points."""
    return float(np.clip(5000 / n, 2.5, 12))


def plane_points(points: Any, called: str, name: str) -> np.ndarray:
    """Return points in the plane as an array `[N, 2]`, or refuse what is none."""
    points = np.asarray(as_array(points, name=name), np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError(
            f"{name}: only points in the plane are drawn", called=called, expected="[N, 2]",
            got=f"shape {list(points.shape)}", fix=f"np.asarray({name})[:, :2] takes the first two coordinates",
        )  # fmt: skip
    return points
