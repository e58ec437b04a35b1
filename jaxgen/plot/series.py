"""Pictures of series and of the states behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch
from mpl_toolkits.axes_grid1 import make_axes_locatable

from jaxgen.core.errors import DataError, ModelError, ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.core.protocols import Sequential, has
from jaxgen.plot.axes import between, column_names, dated, times
from jaxgen.plot.style import DATA, INK, clean, component_colour

#: times up to which each is a dot
MANY = 150


def states(x: Any, path: Any, ax: Axes | None = None, *, time: Any = None, levels: Any = None) -> Axes:
    """A series with its decoded states as colours behind it.

    Args:
        x: one series `[T]` or `[T, D]`; NaN is a gap.
        path: the state at each time, `[T]` ints, such as a Viterbi path.
        ax: where to draw; None takes the current axis.
        time: `[T]` increasing, numbers or dates; None takes the dates of a Series or DataFrame, or counts from 0.
        levels: what each state predicts, `[K]`, drawn as bars over its times; None draws none.

    Raises:
        ShapeError: a path of another length than the series.
    """
    ax, called = clean(ax), "states(x, path)"
    given, path = x, np.asarray(as_array(path, name="path"))
    x = np.asarray(as_array(x, name="x", allow_nan=True))
    time = times(time, given, len(x), called)
    if path.shape != x.shape[:1]:
        raise ShapeError("one state per time", called=called, expected=f"path {list(x.shape[:1])}",
                         got=f"path {list(path.shape)}")  # fmt: skip
    edges = between(time)
    changes = np.flatnonzero(np.diff(path)) + 1
    runs = list(zip(np.r_[0, changes], np.r_[changes, len(path)], strict=True))
    for start, stop in runs:
        ax.axvspan(edges[start], edges[stop], color=component_colour(path[start]), alpha=0.16, linewidth=0)
    few = len(x) <= MANY
    for i, row in enumerate(x.reshape(len(x), -1).T):
        colour = DATA if levels is not None or i % 2 else INK
        ax.plot(time, row, color=colour, linewidth=1.2 if few else 0.9, marker="o" if few else "", markersize=2.8)
    if levels is not None:
        for start, stop in runs:
            colour = component_colour(path[start])
            ax.hlines(np.asarray(levels)[path[start]], edges[start], edges[stop], color=colour, linewidth=3)
    ax.set_xlim(edges[0], edges[-1])
    dated(ax, time)
    label = column_names(given, None, x.size // len(x), called)
    ax.set_ylabel("" if label is None or len(label) > 1 else label[0])
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
        time: as in `states`.
        levels: what each state predicts, `[K]`, drawn as bars over its times, such as `model.emissions.rate`.

    Returns:
        the axes above and below. The colours are those of `states`; below they fill `p(z_t = k | x)`, state 0 at the
        bottom.

    Raises:
        ModelError: no hidden Markov model. ShapeError: not one series. DataError: a series that no path explains.

    Example:
        >>> import jaxgen as jg, matplotlib.figure
        >>> hmm = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], jg.Poisson.from_values([1.0, 9.0]))
        >>> above, below = decoded(hmm, [0, 1, 2, 9, 8, 1], matplotlib.figure.Figure().subplots())
        >>> len(above.patches), len(below.collections)
        (3, 2)
    """
    called = "decoded(model, x)"
    if not has(model, Sequential):
        raise ModelError("there are no states to decode", called=called, expected="a model with viterbi and smooth",
                         got=type(model).__name__,
                         fix="jaxgen.plot.states(x, path) draws a path that is known")  # fmt: skip
    given, x = x, as_array(x, name="x", called=called, allow_nan=True)
    if np.ndim(x) != len(model.event_shape) or np.ndim(x) > 2:
        raise ShapeError("one series is drawn", called=called, got=f"shape {list(np.shape(x))}",
                         expected="[T] or [T, D], an event of the model", fix="np.asarray(x)[0]")  # fmt: skip
    path = np.asarray(model.viterbi(x, context=context).path)
    if (path < 0).any():
        raise DataError("no path explains the series", called=called, expected="data that the model finds possible",
                        got="log p = -inf")  # fmt: skip
    above = states(given, path, ax, time=time, levels=levels)
    below = clean(make_axes_locatable(above).append_axes("bottom", size="38%", pad=0.12, sharex=above))
    share = np.asarray(model.smooth(x, context=context), np.float64)
    colours = [component_colour(k) for k in range(share.shape[1])]
    # each step from half way to half way, as above
    edges = between(times(time, given, len(path), called))
    height = np.concatenate([share, share[-1:]]).T
    below.stackplot(edges, height, colors=colours, step="post", alpha=0.75, linewidth=0)
    below.set(ylim=(0, 1), yticks=(0, 1), ylabel="p(state | x)")
    above.tick_params(labelbottom=False)
    marks = [Patch(color=to_rgba(colour, 0.6), label=f"state {k}") for k, colour in enumerate(colours)]
    above.legend(handles=marks, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(marks), 6),
                 fontsize=10, labelcolor=INK, handlelength=1.2, columnspacing=1.4)  # fmt: skip
    return above, below

