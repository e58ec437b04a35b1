"""Axes: names of columns, and times, dates among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import as_array


@runtime_checkable
class Frame(Protocol):
    """A table with names: a DataFrame, or what `read_csv` returns."""

    columns: Any
    values: Any


@runtime_checkable
class Series(Protocol):
    """A column with a name."""

    name: Any


@runtime_checkable
class Dated(Protocol):
    """Has an index, which may be of dates; a list's method of that name is none."""

    index: Any


def column_names(x: Any, names: Sequence[str] | None, size: int, called: str) -> list[str] | None:
    """Return the names of so many columns: those given, or those of a DataFrame or Series, or None."""
    names = x.columns if names is None and isinstance(x, Frame) else names
    if names is None:
        return [str(x.name)] if isinstance(x, Series) and x.name is not None and size == 1 else None
    found = [str(name) for name in names]
    if len(found) != size:
        raise ShapeError("there is a name for each column", called=called, expected=f"{size} names",
                         got=f"{len(found)}: {found}"[:120])  # fmt: skip
    return found


def table(x: Any, called: str) -> np.ndarray:
    """Return data `[N]` or `[N, D]` as a table `[N, D]` of float64; NaN where nothing was seen."""
    given = x.values if isinstance(x, Frame) else x
    values = np.asarray(as_array(given, name="x", called=called, allow_nan=True), np.float64)
    if values.ndim not in (1, 2):
        raise ShapeError("only tables are drawn", called=called, expected="x [N] or [N, D]",
                         got=f"shape {list(values.shape)}", fix="np.reshape(x, (len(x), -1))")  # fmt: skip
    return values.reshape(len(values), -1)


def times(time: Any, x: Any, steps: int, called: str) -> np.ndarray:
    """Return the times of so many steps: those given, or the dates of a Series or DataFrame, or counted from 0."""
    if time is None:
        index = np.asarray(x.index if isinstance(x, Dated) else None)
        if index.dtype.kind != "M":
            return np.arange(steps, dtype=np.float64)
        time = index
    found = np.asarray(time)
    if found.dtype.kind == "O" or found.dtype.kind in "US":  # dates of Python, or written ones
        try:
            found = found.astype("datetime64[us]")
        except (TypeError, ValueError):
            raise DataError("those are no times", called=called, expected="numbers, or dates",
                            got=repr(time)[:80]) from None  # fmt: skip
    found = found if found.dtype.kind == "M" else np.asarray(as_array(found, name="time", called=called), np.float64)
    if found.shape != (steps,):
        raise ShapeError("one time for each step", called=called, expected=f"time [{steps}]",
                         got=f"shape {list(found.shape)}")  # fmt: skip
    return found


def dated(ax: Axes, time: np.ndarray) -> None:
    """Write the dates of a time axis as short as they can be; leave one of numbers."""
    if time.dtype.kind == "M":
        locator = AutoDateLocator(minticks=3, maxticks=8)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def between(time: np.ndarray) -> np.ndarray:
    """Return the times at which steps begin and end, `[T + 1]`: one lasts until half way to the next time."""
    return np.concatenate([time[:1], time[:-1] + (time[1:] - time[:-1]) / 2, time[-1:]])
