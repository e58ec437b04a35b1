"""Pictures of mixtures: their components, what they share, and how many there should be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.core.protocols import Classifier, Covaried, Located, Spread, has
from jaxgen.metrics.information import CRITERIA
from jaxgen.plot.style import DATA, GRID, INK, MARKERS, PALETTE, clean, component_colour, dot_size


def ellipses(
    mixture: Any, ax: Axes | None = None, *, x: Any = None, coordinates: tuple[int, int] | None = None,
    deviations: tuple[float, ...] = (1.0, 2.0),
) -> Axes:  # fmt: skip
    """The components of a Gaussian mixture as ellipses, opaque as their weight, over data where they are given.

    Args:
        mixture: has `weights [K]` and components with `mean [K, D]` and `covariance [K, D, D]` (or `variance [K, D]`).
        ax: where to draw; None takes the current axis.
        x: data `[N, D]` to draw below.
        coordinates: the two to show where D is above 2; the ellipses are then those of the marginals.
        deviations: radii, in standard deviations.

    Raises:
        ModelError: components without means and covariances, or coordinates that they do not have.
        ShapeError: data of another dimension.

    Example:
        >>> import jaxgen as jg, matplotlib.figure
        >>> parts = jg.DiagonalGaussian.from_values(np.zeros((2, 3)), np.ones((2, 3)))
        >>> ax = matplotlib.figure.Figure().subplots()
        >>> len(ellipses(jg.Mixture.from_components(parts), ax, coordinates=(0, 2)).patches)
        4
    """
    ax = clean(ax)
    parts = mixture.components
    mean = np.asarray(parts.mean if has(parts, Located) else np.zeros(0), np.float64)
    covered = has(parts, Covaried) or has(parts, Spread)
    if mean.ndim != 2 or not covered or (mean.shape[1] != 2 and coordinates is None):
        raise ModelError(
            "ellipses need Gaussians in the plane", called="ellipses(mixture)", expected="mean [K, 2] and covariance",
            got=repr(mixture)[:200], fix="coordinates = (0, 1) shows two of more; density shows any density",
        )  # fmt: skip
    pair = _pair(coordinates, mean.shape[1], "ellipses(mixture, coordinates=...)")
    if has(parts, Covaried):
        covariance = np.asarray(parts.covariance, np.float64)[:, pair[:, None], pair]
    else:
        covariance = np.asarray(parts.variance, np.float64)[:, pair, None] * np.eye(2)
    if x is not None:
        dots = _columns(x, pair, mean.shape[1], "ellipses(mixture, x=x)")
        ax.scatter(dots[:, 0], dots[:, 1], s=dot_size(len(dots)), color=DATA, alpha=0.7, linewidths=0)
    weights = np.asarray(mixture.weights, np.float64)
    for k in np.flatnonzero(weights > 0):
        variances, axes = np.linalg.eigh(covariance[k])
        width, height = 2 * np.sqrt(np.maximum(variances[::-1], 0))
        angle = math.degrees(math.atan2(axes[1, 1], axes[0, 1]))
        colour, share = component_colour(k), float(weights[k] / weights.max())
        for i, r in enumerate(deviations):
            face, edge = to_rgba(colour, 0.03 + 0.17 * share), to_rgba(colour, 0.3 + 0.7 * share)
            size, line = (r * width, r * height), 1.6 if i == 0 else 1.0
            ax.add_patch(Ellipse(mean[k, pair], *size, angle=angle, facecolor=face, edgecolor=edge, linewidth=line))
        ax.plot(*mean[k, pair], marker="+", color=colour, markersize=9, markeredgewidth=2)
    ax.autoscale_view()
    return ax


def responsibilities(
    mixture: Any, x: Any, ax: Axes | None = None, *, coordinates: tuple[int, int] | None = None
) -> Axes:  # fmt: skip
    """Events in the colours of their components, mixed as the mixture shares them: those in doubt look blended.

    The colours are those of `ellipses`, which goes over it. Events in doubt are drawn last.

    Args:
        mixture: has `responsibilities(x) -> [N, K]`.
        x: `[N, D]`.
        ax: where to draw; None takes the current axis.
        coordinates: the two to show where D is above 2.

    Raises:
        ModelError: no mixture, or coordinates that it does not have. ShapeError: data that do not fit.
    """
    ax, called = clean(ax), "responsibilities(mixture, x)"
    if not has(mixture, Classifier):
        raise ModelError("nothing is shared between components", called=called, expected="a mixture",
                         got=type(mixture).__name__, fix="jaxgen.plot.points(x)")  # fmt: skip
    size = mixture.event_shape[0] if len(mixture.event_shape) == 1 else 0
    if size != 2 and (coordinates is None or size < 2):
        raise ShapeError("only points in the plane are drawn", called=called, expected="events [2]",
                         got=f"events {list(mixture.event_shape)}", fix="coordinates = (0, 1)")  # fmt: skip
    pair = _pair(coordinates, size, called)
    dots = _columns(x, pair, size, called)
    share = np.asarray(mixture.responsibilities(x), np.float64)
    order = np.argsort(-share.max(axis=1), kind="stable")
    colours = blended(share)
    ax.scatter(dots[order, 0], dots[order, 1], s=1.6 * dot_size(len(dots)), c=colours[order], linewidths=0)
    return ax


def blended(share: Any) -> np.ndarray:
    """Return the colours of components mixed in shares `[N, K]`, red, green and blue `[N, 3]`."""
    share = np.asarray(share, np.float64)
    palette = np.array([to_rgba(component_colour(k))[:3] for k in range(share.shape[1])])
    # light adds in proportion to the square of what a screen is sent, nearly
    return np.sqrt(np.clip(share @ palette**2, 0, 1))


def information(selection: Any, ax: Axes | None = None, *, by: str = "bic") -> Axes:
    """A criterion of the models that `select` fitted, by number of components, a line for each kind of component.

    Fits that failed or were repaired are gaps. Far from the best the lines leave the picture.

    Args:
        selection: what `select` returned.
        ax: where to draw; None takes the current axis.
        by: `"bic"`, `"aic"` or `"icl"`, of which lower is better, or `"held_out"`, of which higher is.

    Raises:
        FitError: a criterion that the selection does not have, or no fit that may compete.
    """
    ax = clean(ax)
    best = selection.best(by)
    height = getattr(best, by)
    others: list[float] = []
    for i, leaf in enumerate(dict.fromkeys(row.leaf for row in selection.rows)):
        rows = sorted((row for row in selection.rows if row.leaf == leaf), key=lambda row: row.k)
        values = np.array([getattr(row, by) if row.sound else np.nan for row in rows], np.float64)
        others.extend(values[np.isfinite(values)])
        ax.plot([row.k for row in rows], values, color=PALETTE[i % len(PALETTE)], linewidth=1.6,
                marker=MARKERS[i % len(MARKERS)], markersize=4.5, label=leaf)  # fmt: skip
    # up from the best where lower is better, down from it where higher is
    sign = CRITERIA[by]
    away = sign * (np.array(others) - height)
    reach = max(3 * float(np.median(away)), 1e-3 * abs(height), 1e-9)
    reach = min(reach, float(away.max()) + 0.05 * reach)
    ax.set_ylim(*sorted((height - 0.22 * sign * reach, height + sign * reach)))
    ax.plot(best.k, height, marker="o", markersize=13, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4)
    digits = 4 if by == "held_out" else 1
    number = f"{height:.{digits}f}".replace("-", "\N{MINUS SIGN}")  # as the axis writes it
    ax.annotate(
        f"{best.leaf}, K = {best.k}: {number}", (best.k, height), (0, -12 * sign), textcoords="offset points",
        color=INK, fontsize=10, va="top" if sign > 0 else "bottom",
        ha="left" if best.k < np.mean(ax.get_xlim()) else "right",
    )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.set_xlabel("number of components or states K")
    name = {"held_out": "held-out log-likelihood (nats per event, higher is better)"}
    ax.set_ylabel(name.get(by, f"{by.upper()} (twice nats, lower is better)"))
    ax.grid(axis="y", color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, loc="lower center", ncols=4, fontsize=10, labelcolor=INK, bbox_to_anchor=(0.5, 1.0))
    return ax


def _pair(coordinates: Any, size: int, called: str) -> np.ndarray:
    """Two coordinates of an event."""
    pair = np.asarray((0, 1) if coordinates is None else coordinates)
    if pair.shape != (2,) or pair.dtype.kind not in "iu" or pair[0] == pair[1] or pair.min() < 0 or pair.max() >= size:
        raise ModelError("these are no two coordinates", called=called, got=repr(coordinates)[:80],
                         expected=f"two different numbers from 0 to {size - 1}")  # fmt: skip
    return pair


def _columns(x: Any, pair: np.ndarray, size: int, called: str) -> np.ndarray:
    """Two columns of data of so many."""
    dots = np.asarray(as_array(x, name="x", called=called, allow_nan=True), np.float64)
    if dots.ndim != 2 or dots.shape[1] != size:
        raise ShapeError("x does not fit the mixture", called=called, expected=f"[N, {size}]",
                         got=f"shape {list(dots.shape)}")  # fmt: skip
    return dots[:, pair]
