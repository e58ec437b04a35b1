"""Histograms of columns with a model's density over them, and pairs of columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxgen.core import algebra, latent
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.protocols import Classifier, has
from jaxgen.models.latent.mixture import Mixture
from jaxgen.ops.mixing import has_quantiles
from jaxgen.plot.axes import column_names, table
from jaxgen.plot.components import blended
from jaxgen.plot.style import DATA, INK, MODEL, clean, component_colour, dot_size

#: values up to so many whole numbers get a bar each; else so many bins at most, and points of a density
WHOLE, BINS, POINTS = 40, 60, 400


def histogram(
    model: Any, x: Any, ax: Axes | None = None, *, column: int = 0, names: Sequence[str] | None = None
) -> Axes:  # fmt: skip
    """A histogram of one column of data, and over it the density that a model gives that column by itself.

    The components of a mixture are drawn too, each in its own colour, which is that of its number in all pictures.
    Whole numbers get a bar each, and the model a dot for each.

    Args:
        model: has `cdf` and `quantile`, or a density of one number; None draws the data alone.
        x: data `[N]` or `[N, D]`, or a DataFrame, whose names are written; NaN is left out.
        ax: where to draw; None takes the current axis.
        column: which.
        names: of the columns.

    Raises:
        ModelError: a model that has no density of one column, or of other events. ShapeError: data that are no table.
        DataError: a column without a value.

    Example:
        >>> import jaxgen as jg, matplotlib.figure
        >>> mixture = jg.Mixture.from_components(jg.Poisson.from_values([[1.0], [9.0]]))
        >>> ax = histogram(mixture, [[0], [1], [1], [9]], matplotlib.figure.Figure().subplots())
        >>> len(ax.patches), len(ax.lines)
        (10, 3)
    """
    ax, called = clean(ax), "histogram(model, x)"
    values = table(x, called)
    size = values.shape[1]
    fits = model is None or tuple(model.event_shape) in ((size,), *[()] * (size == 1))
    if column not in range(size) or not fits:
        raise ModelError("there is no such column", called=called, expected=f"a column from 0 to {size - 1}, and a "
                         f"model of events [{size}]", got=f"column {column!r}"
                         + ("" if model is None else f", a model of events {list(model.event_shape)}"))  # fmt: skip
    seen = values[:, column]
    seen = seen[np.isfinite(seen)]
    if not len(seen):
        raise DataError("the column has no value", called=called, expected="a cell that was seen",
                        got=f"{len(values)} rows, column {column} missing in all")  # fmt: skip
    whole = bool((seen == np.round(seen)).all()) and np.ptp(seen) < WHOLE
    if whole:
        edges = np.arange(seen.min() - 0.5, seen.max() + 1)
    else:
        edges = np.histogram_bin_edges(seen, min(BINS, max(10, int(2 * len(seen) ** 0.4))))
    count, _ = np.histogram(seen, edges)
    share = count / (len(seen) * np.diff(edges))
    ax.bar(edges[:-1], share, np.diff(edges), align="edge", color=DATA, alpha=0.35, edgecolor="white", linewidth=0.6)
    if model is not None:
        _over(ax, model, values, column, edges, whole)
    label = column_names(x, names, size, called)
    ax.set_xlabel("" if label is None else label[column])
    ax.set_ylabel("probability" if whole else "density")
    ax.set_ylim(0, None)
    return ax


def _over(ax: Axes, model: Any, values: np.ndarray, column: int, edges: np.ndarray, whole: bool) -> None:
    """The density of a model, and those of its components."""
    # what the model's floats can tell apart, or a difference would be one of rounded points
    ends = edges if whole else np.linspace(edges[0], edges[-1], POINTS + 1)
    ends = np.unique(ends.astype(jnp.result_type(float))).astype(np.float64)
    at = (ends[1:] + ends[:-1]) / 2
    curves = _densities(model, values.shape[1], column, ends)
    style: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 0.8} if whole else {"linewidth": 1.4}
    for k, curve in enumerate(curves[1:]):
        ax.plot(at, curve, color=component_colour(k), zorder=3, **style)
    style = style if whole else {"linewidth": 2.2}
    ax.plot(at, curves[0], color=INK if len(curves) > 1 else MODEL, zorder=2, **style)


def _densities(model: Any, size: int, column: int, ends: np.ndarray) -> list[np.ndarray]:
    """Return the mean densities between points of one column, of the model and then of its weighted components."""
    shape = tuple(model.event_shape)
    if has_quantiles(model):
        # what is between two points is the difference of a distribution function, whatever the other columns are
        x = ends if shape == () else np.where(np.arange(size) == column, ends[:, None], 0)
        x = x.astype(jnp.result_type(float))
        share = lambda one: one.cdf(x)[..., column] if shape else one.cdf(x)  # noqa: E731
        curves = [np.asarray(share(model), np.float64)]
        if isinstance(model, Mixture):
            parts = np.asarray(algebra.each(share, model.components), np.float64)
            curves += list(parts * np.asarray(model.weights, np.float64)[:, None])
        return [np.diff(curve) / np.diff(ends) for curve in curves]
    if size == 1 and latent.has_density(model):
        at = ((ends[1:] + ends[:-1]) / 2).astype(jnp.result_type(float))
        return [np.exp(np.asarray(model.log_prob(at.reshape((-1, *shape))), np.float64))]
    raise ModelError(
        "the model has no density of one column", called="histogram(model, x)", expected="cdf and quantile",
        got=repr(model)[:120], fix="jaxgen.plot.corner(None, x, samples=model.sample(key, (1000,)))",
    )  # fmt: skip


def corner(
    model: Any, x: Any, figure: Figure | None = None, *, samples: Any = None, names: Sequence[str] | None = None
) -> np.ndarray:  # fmt: skip
    """All pairs of columns of a table, below a diagonal of histograms with the model's densities.

    Dots of a mixture have the colours of their components, mixed as it shares them.

    Args:
        model: as in `histogram`; None draws the data alone.
        x: data `[N, D]`, or a DataFrame, whose names are written.
        figure: where to draw; None takes the current one.
        samples: `[M, D]`, draws of a model, which go over the data in black.
        names: of the columns.

    Returns:
        the axes, `[D, D]`, None above the diagonal.

    Raises:
        ModelError, ShapeError: as `histogram`. DataError: no row with a value in every column.

    Example:
        >>> import jax, jaxgen as jg, matplotlib.figure
        >>> normal = jg.DiagonalGaussian.from_values(np.zeros(3), np.ones(3))
        >>> x = normal.sample(jax.random.key(0), (50,))
        >>> axes = corner(normal, x, matplotlib.figure.Figure(), names=["a", "b", "c"])
        >>> axes.shape, axes[2, 0].get_xlabel(), axes[2, 0].get_ylabel(), axes[0, 2]
        ((3, 3), 'a', 'c', None)
    """
    called = "corner(model, x)"
    figure = plt.gcf() if figure is None else figure
    values = table(x, called)
    drawn = None if samples is None else table(samples, called)
    size = values.shape[1]
    label = column_names(x, names, size, called) or [f"x{d}" for d in range(size)]
    grid = figure.add_gridspec(size, size, wspace=0.08, hspace=0.08)
    axes = np.full((size, size), None, object)
    colours: Any = DATA
    whole = np.isfinite(values).all(axis=1)
    if not whole.any():
        raise DataError("no row has a value in every column", called=called, expected="a row without a missing cell",
                        got=f"{len(values)} rows, seen in each column: "
                        + ", ".join(map(str, np.isfinite(values).sum(axis=0)[:12])))  # fmt: skip
    if model is not None and has(model, Classifier) and latent.has_density(model):
        colours = blended(model.responsibilities(values[whole].astype(np.float32)))
    for i in range(size):
        for j in range(i + 1):
            ax = axes[i, j] = clean(figure.add_subplot(grid[i, j], sharex=axes[j, j] if i > j else None))
            if i == j:
                histogram(model, values, ax, column=i)
                if drawn is not None:
                    ax.hist(drawn[:, i], bins=30, density=True, histtype="step", color=INK, linewidth=0.9)
                ax.autoscale(axis="y")
                ax.set(ylabel="", yticks=[], ylim=(0, None))
                ax.spines["left"].set_visible(False)
            else:
                ax.scatter(values[whole, j], values[whole, i], s=dot_size(len(values)), c=colours, linewidths=0)
                if drawn is not None:
                    ax.scatter(drawn[:, j], drawn[:, i], s=dot_size(len(drawn)), color=INK, alpha=0.7, linewidths=0)
                ax.set_ylim(*_range(values[whole, i]))
            ax.set_xlabel(label[j] if i == size - 1 else "")
            if j == 0 and i > 0:
                ax.set_ylabel(label[i])
            ax.tick_params(labelbottom=i == size - 1, labelleft=j == 0 and i > 0)
    return axes


def _range(values: np.ndarray) -> tuple[float, float]:
    margin = 0.05 * (np.ptp(values) or 1)
    return float(values.min() - margin), float(values.max() + margin)
