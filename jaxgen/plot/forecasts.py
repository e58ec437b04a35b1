"""Fans of forecasts: a series, and the numbers between which it will go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.models.chains.forecasts import Forecast
from jaxgen.plot.axes import column_names, dated, table, times
from jaxgen.plot.style import INK, MODEL, clean


def forecast(
    ahead: Any, x: Any = None, ax: Axes | None = None, *, time: Any = None, column: int = 0,
    intervals: tuple[float, ...] = (0.5, 0.9), names: Sequence[str] | None = None,
) -> Axes:  # fmt: skip
    """A series as a line, and after it the median of what comes in a fan of intervals.

    Args:
        ahead: a forecast, `hmm.forecast(state, horizon)`, or joint draws `[S, horizon]` or `[S, horizon, D]` such as
            `hmm.sample_paths(key, state, horizon, (1000,)).x`.
        x: what was seen, `[T]` or `[T, D]`, or a Series or DataFrame, whose dates are used; None is nothing.
        ax: where to draw; None takes the current axis.
        time: of the steps seen, `[T]`, or of all of them, `[T + horizon]`: numbers or dates. Steps to come follow at
            the distance of the last two; None counts from 0.
        column: which.
        intervals: probabilities of the bands, of equal tails.
        names: of the columns.

    Raises:
        ShapeError: a column that is not there, times that do not fit. DataError: an interval that is no probability.

    Example:
        >>> import jaxgen as jg, matplotlib.figure
        >>> hmm = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], jg.Poisson.from_values([1.0, 9.0]))
        >>> x = np.array([0, 1, 2, 9, 8])
        >>> ax = forecast(hmm.forecast(hmm.filter(x), 4), x, matplotlib.figure.Figure().subplots())
        >>> len(ax.collections), len(ax.lines), ax.lines[-1].get_xdata().tolist()
        (2, 2, [5.0, 6.0, 7.0, 8.0])
    """
    ax, called = clean(ax), "forecast(ahead, x)"
    if not intervals or not all(0 < level < 1 for level in intervals):
        raise DataError("intervals are probabilities", called=called, expected="above 0 and below 1",
                        got=repr(intervals), fix="intervals = (0.5, 0.9)")  # fmt: skip
    wide = sorted(intervals, reverse=True)
    levels = np.array([0.5, *(0.5 - w / 2 for w in wide), *(0.5 + w / 2 for w in wide)])
    fan = _quantiles(ahead, levels, called)
    if column not in range(fan.shape[2]):
        raise ShapeError("there is no such column", called=called, got=repr(column),
                         expected=f"0 to {fan.shape[2] - 1}")  # fmt: skip
    fan, horizon = fan[..., column], fan.shape[1]
    seen = np.zeros((0, 1)) if x is None else table(x, called)
    known, later = _times(time, x, len(seen), horizon, called)
    if x is not None:
        ax.plot(known, seen[:, column], color=INK, linewidth=1.2)
    for i, level in enumerate(wide, 1):
        ax.fill_between(later, fan[i], fan[i + len(wide)], color=MODEL, alpha=0.18, linewidth=0, label=f"{level:.0%}")
    ax.plot(later, fan[0], color=MODEL, linewidth=1.8, label="median")
    label = None if x is None else column_names(x, names, seen.shape[1], called)
    ax.set_ylabel("" if label is None else label[column])
    dated(ax, later)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(wide) + 1, fontsize=9, labelcolor=INK)
    return ax


def _quantiles(ahead: Any, levels: np.ndarray, called: str) -> np.ndarray:
    """Return quantiles `[levels, horizon, D]`."""
    if isinstance(ahead, Forecast):
        at = np.asarray(ahead.quantile(levels), np.float64)
    else:
        draws = np.asarray(as_array(ahead, name="ahead", called=called), np.float64)
        if draws.ndim not in (2, 3):
            raise ShapeError("that is no forecast", called=called, got=f"shape {list(draws.shape)}",
                             expected="hmm.forecast(state, horizon), or draws [S, horizon, D]")  # fmt: skip
        at = np.quantile(draws, levels, axis=0)
    return at.reshape((*at.shape[:2], -1))


def _times(time: Any, x: Any, steps: int, horizon: int, called: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of the steps seen and of those to come."""
    if time is not None and len(time) == steps + horizon:
        both = times(time, None, steps + horizon, called)
        return both[:steps], both[steps:]
    known = times(time, x, steps, called)
    if steps == 0:
        return known, np.arange(float(horizon))
    if steps == 1 and known.dtype.kind == "M":
        raise ShapeError("one date says nothing of the next", called=called, expected=f"time [{1 + horizon}]",
                         got="time [1]")  # fmt: skip
    step = known[-1] - known[-2] if steps > 1 else 1
    return known, known[-1] + step * np.arange(1, horizon + 1)
