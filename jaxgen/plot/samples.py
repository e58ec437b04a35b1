"""Pictures of how samples and predictions stand to data: families side by side, and histograms of calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxgen.core.errors import DataError
from jaxgen.core.inputs import as_array
from jaxgen.metrics.predictive import Uniform
from jaxgen.plot.pictures import images
from jaxgen.plot.style import DATA, INK, MODEL, clean


def samples_side_by_side(pictures: Mapping[str, Any], figure: Figure, *, columns: int = 4) -> list[Axes]:
    """Pictures of several sources in one row, each a grid under its name, all on one scale of grey.

    Args:
        pictures: by name, `[N, height, width]`, or with a last axis of 1 or 3; the data first, by custom.
        figure: where to draw.
        columns: pictures in a row of each grid.

    Raises:
        DataError: no pictures. ShapeError: what is no batch of pictures.

    Example:
        >>> axes = samples_side_by_side({"data": np.ones((4, 8, 8)), "model": np.ones((4, 8, 8))}, Figure(), columns=2)
        >>> [ax.get_title() for ax in axes]
        ['data', 'model']
    """
    if not pictures:
        raise DataError("there is nothing to show", called="samples_side_by_side(pictures, figure)",
                        expected="one source or more", got="none")  # fmt: skip
    axes = list(figure.subplots(1, len(pictures), squeeze=False)[0])
    arrays = {name: np.asarray(as_array(rows, name=name), np.float64) for name, rows in pictures.items()}
    white = max(float(rows.max()) for rows in arrays.values()) or 1.0
    for ax, (name, rows) in zip(axes, arrays.items(), strict=True):
        images(rows, ax, columns=columns)
        ax.images[0].set_clim(0.0, white)
        ax.set_title(name, fontsize=10, color=INK)
    return axes


def calibration(found: Uniform, ax: Axes | None = None, *, column: int = 0, bins: int = 20) -> Axes:
    """A histogram of what is uniform where a model is calibrated, and the band in which chance leaves its bars.

    High ends are of predictions that are too narrow, a high middle of ones that are too wide, a slope of a shift.

    Args:
        found: of `metrics.pit` or `metrics.sbc`.
        ax: where to draw; None takes the current axis.
        column: which coordinate.
        bins: how many bars. The band holds 19 of 20 bars.

    Raises:
        DataError: no such column, or no bars.

    Example:
        >>> ax = calibration(Uniform(np.linspace(0.01, 0.99, 99)[:, None], np.zeros(1), 1.0, 0), Figure().subplots())
        >>> len(ax.patches)
        21
    """
    n, d = found.values.shape
    if column not in range(d) or bins < 2:
        raise DataError("there is no such histogram", called=f"calibration(found, column={column}, bins={bins})",
                        expected=f"a column from 0 to {d - 1}, two bins or more", got=f"{column}, {bins}")  # fmt: skip
    ax = clean(ax)
    counts, edges = np.histogram(found.values[:, column], bins, (0, 1))
    ax.bar(edges[:-1], counts * bins / n, 1 / bins, align="edge", color=DATA, edgecolor="white")
    reach = 1.96 * np.sqrt((bins - 1) / n)
    ax.axhspan(max(1 - reach, 0), 1 + reach, color=MODEL, alpha=0.2, linewidth=0)
    ax.axhline(1, color=MODEL, linewidth=1.5)
    ax.set(xlim=(0, 1), ylim=(0, None), xlabel="rank of what happened", ylabel="density")
    return ax
