"""Pictures of the plane: points, samples and densities."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba

from jaxgen.core.errors import ModelError
from jaxgen.plot.axes import column_names
from jaxgen.plot.style import DATA, INK, MODEL, PALETTE, clean, dot_size, plane_points

#: from the paper to the model's colour: densities
DENSITY = LinearSegmentedColormap.from_list("density", ["#ffffff", "#cfe3f2", "#6aaed6", MODEL, "#083a63"])


def data_and_samples(x: Any, samples: Any, ax: Axes | None = None) -> Axes:
    """Data beside what a model draws, in the plane.

    Args:
        x: data `[N, 2]`.
        samples: `[M, 2]`.
        ax: where to draw; None takes the current axis.

    Returns:
        the axis.

    Raises:
        ShapeError: points that are not in the plane.

    Example:
        >>> import matplotlib.figure
        >>> ax = matplotlib.figure.Figure().subplots()
        >>> data_and_samples(np.zeros((5, 2)), np.ones((4, 2)), ax) is ax
        True
    """
    ax = clean(ax)
    parts = [plane_points(p, "data_and_samples(x, samples)", n) for p, n in ((x, "x"), (samples, "samples"))]
    both = np.concatenate(parts)
    which = np.repeat([0, 1], [len(p) for p in parts])
    # in one random order, so that neither covers the other
    order = np.random.RandomState(0).permutation(len(both))
    colours = np.array([to_rgba(DATA), to_rgba(PALETTE[1])])
    ax.scatter(both[order, 0], both[order, 1], s=dot_size(len(both)), c=colours[which[order]], linewidths=0)
    for colour, label in zip(colours, ("data", "samples"), strict=True):
        ax.scatter([], [], s=22, color=colour, label=label)
    ax.legend(frameon=False, loc="best", handletextpad=0.2)
    return ax


def points(x: Any, ax: Axes | None = None, *, colour: str = DATA) -> Axes:
    """Points in the plane.

    Args:
        x: `[N, 2]`.
        ax: where to draw; None takes the current axis.
        colour: of the dots.

    Raises:
        ShapeError: points that are not in the plane.
    """
    ax = clean(ax)
    dots = plane_points(x, "points(x)", "x")
    ax.scatter(dots[:, 0], dots[:, 1], s=dot_size(len(dots)), color=colour, linewidths=0)
    _name(ax, x)
    return ax


def density(
    model: Any, x: Any, ax: Axes | None = None, *, context: Any = None, resolution: int = 160
) -> Axes:  # fmt: skip
    """The density of a model of the plane as filled contours, with data over it.

    The levels hold 25, 50, 75, 90 and 99 % of the model's mass within the picture.

    Args:
        model: a `Density` of events `[2]`.
        x: data `[N, 2]`, which also set the picture's limits.
        ax: where to draw; None takes the current axis.
        context: `[*context]`, that of the density, of a model that takes one.
        resolution: grid points per side.

    Raises:
        ShapeError: points that are not in the plane. ModelError: a density that is NaN or infinite in the picture.
    """
    ax = clean(ax)
    dots = plane_points(x, "density(model, x)", "x")
    low, high = dots.min(axis=0), dots.max(axis=0)
    margin = 0.2 * np.where(high > low, high - low, 1)
    axes = [np.linspace(a, b, resolution) for a, b in zip(low - margin, high + margin, strict=True)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).astype(np.float32)
    given = {} if context is None else {"context": context}  # a density of one's own may know of none
    log_p = np.asarray(model.log_prob(jnp.asarray(grid), **given), np.float64)
    if not np.isfinite(log_p.max()):  # NaN or infinite somewhere, or zero everywhere
        raise ModelError("the density makes no picture", called="density(model, x)", expected="log p below infinity",
                         got=f"largest log p {log_p.max()} of {repr(model)[:200]}")  # fmt: skip
    p = np.exp(log_p - log_p.max())
    descending = np.sort(p.ravel())[::-1]
    inside = np.cumsum(descending) / descending.sum()
    last = [min(int(np.searchsorted(inside, share)), p.size - 1) for share in (0.99, 0.9, 0.75, 0.5, 0.25)]
    # equal levels, where the mass sits in few grid points, are no contours
    levels = sorted({*descending[last].tolist(), 1.0 + 1e-9})
    colours = DENSITY(np.linspace(0.16, 0.82, max(1, len(levels) - 1)))
    if len(levels) > 1:
        ax.contourf(*axes, p, levels=levels, colors=[tuple(c) for c in colours], antialiased=True)
    ax.scatter(dots[:, 0], dots[:, 1], s=dot_size(len(dots)), color=INK, alpha=0.5, linewidths=0)
    _name(ax, x)
    return ax


def _name(ax: Axes, x: Any) -> None:
    """Write the names of the columns of a DataFrame."""
    names = column_names(x, None, 2, "points(x)")
    if names is not None:
        ax.set(xlabel=names[0], ylabel=names[1])
