"""Cells back into the frame that they came from: its library, and the types of its columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxgen.core.errors import DataError
from jaxgen.tasks.margins import DATE, NUMBER, Margin

_ZONE = re.compile(r"(?:, |tz=)([\w/+:-]+)\]")  # of pandas, and of its columns of Arrow
_ZONED = re.compile(r"^Datetime\(time_unit='(ns|us|ms)', time_zone=(?:'(.+)'|None)\)$")


def library_of(frame: Any) -> str:
    """The library of a frame: pandas, polars, or dict of what is none."""
    room = type(frame).__module__.partition(".")[0]
    return room if room in ("pandas", "polars") else "dict"


def frame_of(library: str, margins: Sequence[Margin], cells: Sequence[np.ndarray], called: str) -> Any:
    """A frame of columns of cells, None or NaN where they were not seen.

    Raises:
        DataError: its library is not installed.

    Example:
        >>> margin = Margin("a", "number", "float32")
        >>> frame_of("pandas", [margin], [np.array([0.5, 1.5])], "draw").dtypes.astype(str).to_dict()
        {'a': 'float32'}
    """
    if library == "dict":
        return {margin.name: _array(margin, own) for margin, own in zip(margins, cells, strict=True)}
    try:
        return (_pandas if library == "pandas" else _polars)(margins, cells)
    except ImportError:
        raise DataError(f"frames are made by {library}", called=called, expected=library, got="none installed",
                        fix=f"install {library}") from None  # fmt: skip


def _array(margin: Margin, cells: np.ndarray) -> np.ndarray:
    """Numbers in the precision of the column."""
    exact = margin.kind == NUMBER and cells.dtype != object
    return cells.astype(margin.dtype.partition("[")[0].lower()) if exact else cells


def _pandas(margins: Sequence[Margin], cells: Sequence[np.ndarray]) -> Any:
    import pandas

    def column(margin: Margin, values: np.ndarray) -> Any:
        if margin.dtype == "category":
            return pandas.Categorical(values.tolist(), categories=list(margin.levels), ordered=margin.ordered)
        if margin.kind == DATE and not margin.days:
            dates, zone = pandas.Series(values), _ZONE.search(margin.dtype)
            if zone:  # an hour that a clock skips is the next one, of one that it repeats the first is meant
                early = np.ones(len(values), bool)
                dates = dates.dt.tz_localize(zone[1], ambiguous=early, nonexistent="shift_forward")
            return dates.astype(margin.dtype)
        return pandas.Series(values.tolist() if values.dtype == object else values, dtype=margin.dtype)

    return pandas.DataFrame({margin.name: column(margin, own) for margin, own in zip(margins, cells, strict=True)})


def _polars(margins: Sequence[Margin], cells: Sequence[np.ndarray]) -> Any:
    import polars

    def column(margin: Margin, values: np.ndarray) -> Any:
        if margin.dtype == "Date":
            return polars.Series(str(margin.name), values.astype("datetime64[us]")).cast(polars.Date)
        zoned = _ZONED.match(margin.dtype)
        if zoned:
            unit, zone = zoned.groups()
            dates = polars.Series(str(margin.name), values.astype("datetime64[us]"), dtype=polars.Datetime("us"))
            if zone:
                dates = dates.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
            return dates.cast(polars.Datetime(unit, zone))  # type: ignore[arg-type]
        if margin.dtype.startswith("Enum"):
            return polars.Series(str(margin.name), values.tolist(), dtype=polars.Enum(list(margin.levels)))
        plain = vars(polars)[margin.dtype.partition("(")[0]]
        # a number that is none is no missing cell of polars
        cells = [None if cell != cell else cell for cell in values.tolist()]
        return polars.Series(str(margin.name), cells, dtype=plain)

    return polars.DataFrame([column(*pair) for pair in zip(margins, cells, strict=True)])
