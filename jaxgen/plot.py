"""Pictures of data, densities, states, weights and training: each function draws on one matplotlib axis and returns it.

Nothing here chooses a backend or shows a window: the caller's figure stays the caller's.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.patches import Ellipse, Patch
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1 import make_axes_locatable

from jaxgen.core.errors import DataError, ModelError, ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.core.protocols import Classifier, Covaried, Located, Sequential, Spread, has

INK, DATA, MODEL, GRID = "#2b2f36", "#7d8793", "#0b6fb8", "#dde3e9"
#: categorical colours that differ in lightness as well as in hue (after Okabe and Ito 2008)
PALETTE = ("#0b6fb8", "#d9541e", "#2a9d6f", "#b4569d", "#c89b1d", "#57b4dc", "#6b4fa0", "#8c564b")
#: with the colours, so that lines differ in print too
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
#: times up to which each is a dot
MANY = 150
#: from the paper to the model's colour: densities
DENSITY = LinearSegmentedColormap.from_list("density", ["#ffffff", "#cfe3f2", "#6aaed6", MODEL, "#083a63"])
#: negative, zero, positive: weights
SIGNED = LinearSegmentedColormap.from_list("signed", ["#8c2d04", "#f2a071", "#ffffff", "#7fb8de", "#083a63"])


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
    ax = _clean(ax)
    parts = [_plane(p, "data_and_samples(x, samples)", n) for p, n in ((x, "x"), (samples, "samples"))]
    both = np.concatenate(parts)
    which = np.repeat([0, 1], [len(p) for p in parts])
    # in one random order, so that neither covers the other
    order = np.random.RandomState(0).permutation(len(both))
    colours = np.array([to_rgba(DATA), to_rgba(PALETTE[1])])
    ax.scatter(both[order, 0], both[order, 1], s=_dot(len(both)), c=colours[which[order]], linewidths=0)
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
    ax = _clean(ax)
    dots = _plane(x, "points(x)", "x")
    ax.scatter(dots[:, 0], dots[:, 1], s=_dot(len(dots)), color=colour, linewidths=0)
    return ax


def density(model: Any, x: Any, ax: Axes | None = None, *, resolution: int = 160) -> Axes:
    """The density of a model of the plane as filled contours, with data over it.

    The levels hold 25, 50, 75, 90 and 99 % of the model's mass within the picture.

    Args:
        model: a `Density` of events `[2]`.
        x: data `[N, 2]`, which also set the picture's limits.
        ax: where to draw; None takes the current axis.
        resolution: grid points per side.

    Raises:
        ShapeError: points that are not in the plane. ModelError: a density that is NaN or infinite in the picture.
    """
    ax = _clean(ax)
    dots = _plane(x, "density(model, x)", "x")
    low, high = dots.min(axis=0), dots.max(axis=0)
    margin = 0.2 * np.where(high > low, high - low, 1)
    axes = [np.linspace(a, b, resolution) for a, b in zip(low - margin, high + margin, strict=True)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).astype(np.float32)
    log_p = np.asarray(model.log_prob(jnp.asarray(grid)), np.float64)
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
    ax.scatter(dots[:, 0], dots[:, 1], s=_dot(len(dots)), color=INK, alpha=0.5, linewidths=0)
    return ax


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
        >>> parts = jg.DiagonalGaussian.from_scale(np.zeros((2, 3)), np.ones((2, 3)))
        >>> ax = matplotlib.figure.Figure().subplots()
        >>> len(ellipses(jg.Mixture.from_components(parts), ax, coordinates=(0, 2)).patches)
        4
    """
    ax = _clean(ax)
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
        ax.scatter(dots[:, 0], dots[:, 1], s=_dot(len(dots)), color=DATA, alpha=0.7, linewidths=0)
    weights = np.asarray(mixture.weights, np.float64)
    for k in np.flatnonzero(weights > 0):
        variances, axes = np.linalg.eigh(covariance[k])
        width, height = 2 * np.sqrt(np.maximum(variances[::-1], 0))
        angle = math.degrees(math.atan2(axes[1, 1], axes[0, 1]))
        colour, share = PALETTE[k % len(PALETTE)], float(weights[k] / weights.max())
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
    ax, called = _clean(ax), "responsibilities(mixture, x)"
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
    palette = np.array([to_rgba(PALETTE[k % len(PALETTE)])[:3] for k in range(share.shape[1])])
    order = np.argsort(-share.max(axis=1), kind="stable")
    # light adds in proportion to the square of what a screen is sent, nearly
    colours = np.sqrt(np.clip(share @ palette**2, 0, 1))
    ax.scatter(dots[order, 0], dots[order, 1], s=1.6 * _dot(len(dots)), c=colours[order], linewidths=0)
    return ax


def information(selection: Any, ax: Axes | None = None, *, by: str = "bic") -> Axes:
    """A criterion of the models that `select` fitted, by number of components, a line for each kind of component.

    Fits that failed or were repaired are gaps. Far below the best the lines leave the picture.

    Args:
        selection: what `select` returned.
        ax: where to draw; None takes the current axis.
        by: `"bic"`, `"aic"`, `"icl"` or `"held_out"`; higher is better in all of them.

    Raises:
        FitError: a criterion that the selection does not have, or no fit that may compete.
    """
    ax = _clean(ax)
    best = selection.best(by)
    height = getattr(best, by)
    others: list[float] = []
    for i, leaf in enumerate(dict.fromkeys(row.leaf for row in selection.rows)):
        rows = sorted((row for row in selection.rows if row.leaf == leaf), key=lambda row: row.k)
        values = np.array([getattr(row, by) if row.sound else np.nan for row in rows], np.float64)
        others.extend(values[np.isfinite(values)])
        ax.plot([row.k for row in rows], values, color=PALETTE[i % len(PALETTE)], linewidth=1.6,
                marker=MARKERS[i % len(MARKERS)], markersize=4.5, label=leaf)  # fmt: skip
    depth = max(3 * (height - float(np.median(others))), 1e-3 * abs(height), 1e-9)
    low = max(height - depth, min(others) - 0.05 * depth)
    ax.set_ylim(low, height + 0.22 * (height - low))
    ax.plot(best.k, height, marker="o", markersize=13, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4)
    digits = 4 if by == "held_out" else 1
    number = f"{height:.{digits}f}".replace("-", "\N{MINUS SIGN}")  # as the axis writes it
    ax.annotate(
        f"{best.leaf}, K = {best.k}: {number}", (best.k, height), (0, 12), textcoords="offset points",
        color=INK, fontsize=10, ha="left" if best.k < np.mean(ax.get_xlim()) else "right",
    )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.set_xlabel("number of components or states K")
    name = {"held_out": "held-out log-likelihood (nats per event)"}
    ax.set_ylabel(name.get(by, f"{by.upper()} (twice nats, higher is better)"))
    ax.grid(axis="y", color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, loc="lower center", ncols=4, fontsize=10, labelcolor=INK, bbox_to_anchor=(0.5, 1.0))
    return ax


def states(x: Any, path: Any, ax: Axes | None = None, *, time: Any = None, levels: Any = None) -> Axes:
    """A series with its decoded states as colours behind it.

    Args:
        x: one series `[T]` or `[T, D]`; NaN is a gap.
        path: the state at each time, `[T]` ints, such as a Viterbi path.
        ax: where to draw; None takes the current axis.
        time: `[T]` increasing; None counts from 0.
        levels: what each state predicts, `[K]`, drawn as bars over its times; None draws none.

    Raises:
        ShapeError: a path of another length than the series.
    """
    ax = _clean(ax)
    x, path = np.asarray(as_array(x, name="x", allow_nan=True)), np.asarray(as_array(path, name="path"))
    time = np.arange(len(x)) if time is None else np.asarray(as_array(time, name="time"))
    if path.shape != x.shape[:1] or time.shape != x.shape[:1]:
        raise ShapeError(
            "one state per time", called="states(x, path)", expected=f"path {list(x.shape[:1])}",
            got=f"path {list(path.shape)}, time {list(time.shape)}",
        )  # fmt: skip
    edges = _edges(time)
    changes = np.flatnonzero(np.diff(path)) + 1
    runs = list(zip(np.r_[0, changes], np.r_[changes, len(path)], strict=True))
    for start, stop in runs:
        ax.axvspan(edges[start], edges[stop], color=PALETTE[int(path[start]) % len(PALETTE)], alpha=0.16, linewidth=0)
    few = len(x) <= MANY
    for i, row in enumerate(x.reshape(len(x), -1).T):
        colour = DATA if levels is not None or i % 2 else INK
        ax.plot(time, row, color=colour, linewidth=1.2 if few else 0.9, marker="o" if few else "", markersize=2.8)
    if levels is not None:
        for start, stop in runs:
            colour = PALETTE[int(path[start]) % len(PALETTE)]
            ax.hlines(np.asarray(levels)[path[start]], edges[start], edges[stop], color=colour, linewidth=3)
    ax.set_xlim(edges[0], edges[-1])
    return ax


def decoded(
    model: Any, x: Any, ax: Axes | None = None, *, context: Any = None, time: Any = None, levels: Any = None
) -> tuple[Axes, Axes]:  # fmt: skip
    """A series on the states of its most probable path, and below how sure the model is of the state of each step.

    Args:
        model: a hidden Markov model: `viterbi(x)` and `smooth(x)`.
        x: one series `[T]` or `[T, D]`.
        ax: where to draw, divided in two; None takes the current axis.
        context: `[T, *context]`, of a model that takes one.
        time: `[T]` increasing; None counts from 0.
        levels: what each state predicts, `[K]`, drawn as bars over its times, such as `model.emissions.rate`.

    Returns:
        the axes above and below. The colours are those of `states`; below they fill `p(z_t = k | x)`, state 0 at the
        bottom.

    Raises:
        ModelError: no hidden Markov model. ShapeError: not one series. DataError: a series that no path explains.

    Example:
        >>> import jaxgen as jg, matplotlib.figure
        >>> hmm = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], jg.Poisson.from_rate([1.0, 9.0]))
        >>> above, below = decoded(hmm, [0, 1, 2, 9, 8, 1], matplotlib.figure.Figure().subplots())
        >>> len(above.patches), len(below.collections)
        (3, 2)
    """
    called = "decoded(model, x)"
    if not has(model, Sequential):
        raise ModelError("there are no states to decode", called=called, expected="a model with viterbi and smooth",
                         got=type(model).__name__,
                         fix="jaxgen.plot.states(x, path) draws a path that is known")  # fmt: skip
    x = as_array(x, name="x", called=called, allow_nan=True)
    if np.ndim(x) != len(model.event_shape) or np.ndim(x) > 2:
        raise ShapeError("one series is drawn", called=called, got=f"shape {list(np.shape(x))}",
                         expected="[T] or [T, D], an event of the model", fix="np.asarray(x)[0]")  # fmt: skip
    path = np.asarray(model.viterbi(x, context=context).path)
    if (path < 0).any():
        raise DataError("no path explains the series", called=called, expected="data that the model finds possible",
                        got="log p = -inf")  # fmt: skip
    above = states(x, path, ax, time=time, levels=levels)
    below = _clean(make_axes_locatable(above).append_axes("bottom", size="38%", pad=0.12, sharex=above))
    share = np.asarray(model.smooth(x, context=context), np.float64)
    colours = [PALETTE[k % len(PALETTE)] for k in range(share.shape[1])]
    # each step from half way to half way, as above
    edges = _edges(np.arange(len(path)) if time is None else np.asarray(time))
    height = np.concatenate([share, share[-1:]]).T
    below.stackplot(edges, height, colors=colours, step="post", alpha=0.75, linewidth=0)
    below.set(ylim=(0, 1), yticks=(0, 1), ylabel="p(state | x)")
    above.tick_params(labelbottom=False)
    marks = [Patch(color=to_rgba(colour, 0.6), label=f"state {k}") for k, colour in enumerate(colours)]
    above.legend(handles=marks, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(marks), 6),
                 fontsize=10, labelcolor=INK, handlelength=1.2, columnspacing=1.4)  # fmt: skip
    return above, below


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


def history(fitted: Any, name: str, ax: Axes | None = None) -> Axes:
    """One metric of a fit by step, with the validation scores where there are some.

    Args:
        fitted: what `fit` returned.
        name: a key of `fitted.history`, such as `"log_likelihood"` or `"loss"`.
        ax: where to draw; None takes the current axis.

    Raises:
        DataError: no such metric.
    """
    ax = _clean(ax)
    if name not in fitted.history:
        known = str(sorted(fitted.history))
        raise DataError("no such metric", called=f"history(fitted, {name!r})", expected=known, got=name)
    values = np.atleast_2d(np.asarray(fitted.history[name], np.float64))
    steps = np.arange(1, values.shape[1] + 1)
    many = values.shape[1] > 400  # then the noise of batches is pale, and through it goes the running mean
    for row in values:
        ax.plot(steps, row, color=MODEL, linewidth=0.8 if many else 1.6, alpha=0.3 if many else 0.9)
        if many:
            width = len(row) // 50
            mean = np.convolve(row, np.ones(width) / width, mode="valid")
            ax.plot(steps[width // 2 :][: len(mean)], mean, color=MODEL, linewidth=1.8)
    if "validation" in fitted.history:
        # validation is higher-is-better; a loss is its negative
        sign = -1 if "loss" in name else 1
        for row in np.atleast_2d(fitted.history["validation"]):
            ax.plot(fitted.history["validation_step"], sign * row, color=PALETTE[1], linewidth=1.6, label="validation")
        ax.legend(*(part[:1] for part in ax.get_legend_handles_labels()), frameon=False)
    ax.set_xlabel("step")
    unit = " (nats per event)" if name in ("loss", "log_likelihood") else ""
    ax.set_ylabel(name.replace("_", " ") + unit)
    return ax


def _clean(ax: Axes | None) -> Axes:
    ax = plt.gca() if ax is None else ax
    ax.spines[["top", "right"]].set_visible(False)
    for spine in ax.spines.values():
        spine.set_color("#9aa3ad")
    ax.tick_params(colors=INK, labelsize=10, color="#9aa3ad", length=3)
    ax.xaxis.label.set(color=INK, size=11)
    ax.yaxis.label.set(color=INK, size=11)
    return ax


def _edges(time: np.ndarray) -> np.ndarray:
    """Where the states of times begin and end, `[T + 1]`: one lasts until half way to the next time."""
    return np.concatenate([[time[0]], (time[1:] + time[:-1]) / 2, [time[-1]]])


def _dot(n: int) -> float:
    """The size of one of n dots, in square points."""
    return float(np.clip(5000 / n, 2.5, 12))


def _plane(points: Any, called: str, name: str) -> np.ndarray:
    points = np.asarray(as_array(points, name=name), np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError(
            f"{name}: only points in the plane are drawn", called=called, expected="[N, 2]",
            got=f"shape {list(points.shape)}", fix=f"np.asarray({name})[:, :2] takes the first two coordinates",
        )  # fmt: skip
    return points


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


