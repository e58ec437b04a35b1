"""Columns of a frame as normal scores and labels, and back to cells of the same types.

A number becomes the normal quantile of its rank, `z = Phi^-1(u)`. A value that many rows have takes the interval of its
ranks, in which u is drawn, so that counts and rounded numbers come back as they were. Back, `Phi(z)` falls into the
interval of one value: of one that was seen more often it is that value, of one that was seen once a number between it
and its neighbours, with the decimals of the column. Nothing leaves the range that was seen.
"""

from __future__ import annotations

import dataclasses
import datetime
import numbers
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.special import ndtr, ndtri

from jaxgen.core.cells import FLAG, LABEL, Cells, Reading, as_objects, codes_of, described, plain, read_cells, shown
from jaxgen.core.errors import DataError
from jaxgen.core.files import loadable

#: dates, as microseconds since 1970, are multiples of the largest of these units
UNITS = {"D": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1000, "us": 1}
#: numbers are tried with so many decimals, of which negative ones are zeros before the point
DECIMALS = range(-9, 16)
NUMBER, DATE = "number", "date"


@loadable
@dataclasses.dataclass(frozen=True)
class Margin:
    """One column: what its cells are, and how they are written.

    Args:
        name: of the column.
        kind: `"number"`, `"date"` or `"label"`.
        dtype: as its frame calls it.
        whole: True of numbers that are kept as integers: whole ones, dates, codes of labels.
        levels: of labels, in the order of their codes.
        ordered: of a category of pandas, whether its levels have an order.
        decimals: of numbers, that all of them have; None where there are more than any grid has.
        unit: of dates, microseconds that all of them are multiples of.
        days: True where cells are Python's dates without a time.
        missing: True where some cells were not seen.
    """

    name: Any
    kind: str
    dtype: str
    whole: bool = False
    levels: tuple[Any, ...] = ()
    ordered: bool = False
    decimals: int | None = None
    unit: int = 1
    days: bool = False
    missing: bool = False

    @property
    def codes(self) -> int:
        """The number of codes that a label has, one of them for cells that were not seen."""
        return len(self.levels) + self.missing

    def encoded(self, cells: Cells, called: str) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the cells that have one, `[n]`, and which these are, `[N]`: a label that is missing has a code.

        Raises:
            DataError: cells of another kind, or labels that are none of the levels.
        """
        seen = cells.seen
        if self.kind == LABEL:
            found = np.full(len(cells.rows), len(self.levels))
            found[cells.rows] = codes_of(str(self.name), self.levels, seen, called)
            return found, np.ones(len(found), bool)
        if self.kind == DATE:
            return _microseconds(self.name, seen, called) // self.unit, cells.rows
        if seen.dtype.kind in "iuf" or all(_is_number(cell) for cell in seen.tolist()):
            return _as_numbers(self.name, seen, called), cells.rows
        raise DataError(
            f"{shown(str(self.name))} is not numeric", called=called, expected=f"{self.dtype}, as in the table",
            got=f"{cells.dtype}, such as {str(seen[0])[:40]!r}",
        )  # fmt: skip


def _is_number(cell: Any) -> bool:
    return isinstance(cell, numbers.Real) and not isinstance(cell, bool)


def margin_of(name: Any, column: Any, reading: Reading, names: list[str]) -> tuple[Margin, Cells]:
    """Decide what a column is, and read its cells.

    Raises:
        DataError: nothing was seen; cells of several kinds; text that names the rows; infinite numbers.
    """
    cells = read(column)
    name, dtype = plain(name), str(column.dtype) if isinstance(column, Typed) else cells.dtype
    missing, seen = bool(not cells.rows.all()), cells.seen
    if len(seen) and cells.levels is None and str(name) not in reading.labels and _are_dates(seen):
        steps = _microseconds(name, seen, reading.called)
        unit = next(unit for unit in UNITS.values() if not np.any(steps % unit))
        days = seen.dtype.kind == "O" and not any(isinstance(cell, datetime.datetime) for cell in seen)
        return Margin(name, DATE, dtype, True, unit=unit, days=days, missing=missing), cells
    found = described(str(name), cells, reading, names)[0]
    if found.kind in (LABEL, FLAG):
        ordered = isinstance(column, Typed) and isinstance(column.dtype, Ordered) and bool(column.dtype.ordered)
        return Margin(name, LABEL, dtype, True, found.levels, ordered, missing=missing), cells
    values = _as_numbers(name, seen, reading.called)
    whole = values.dtype.kind == "i"
    return Margin(name, NUMBER, dtype, whole, decimals=_decimals(values, seen), missing=missing), cells


def read(column: Any) -> Cells:
    """The cells of a column; dates with a zone as they are written there."""
    zoned = isinstance(column, Typed) and str(column.dtype).startswith("Datetime(")  # of polars
    return read_cells(column.dt.replace_time_zone(None) if zoned else column)


@runtime_checkable
class Typed(Protocol):
    """A column that knows the type of its cells."""

    dtype: Any


@runtime_checkable
class Ordered(Protocol):
    """A type of categories that says whether they have an order."""

    ordered: Any


def _are_dates(seen: np.ndarray) -> bool:
    return seen.dtype.kind == "M" or (
        seen.dtype.kind == "O" and all(isinstance(cell, (datetime.date, np.datetime64)) for cell in seen.tolist()))


def _microseconds(name: Any, seen: np.ndarray, called: str) -> np.ndarray:
    """Dates as microseconds since 1970."""
    if seen.dtype.kind == "M":
        return seen.astype("datetime64[us]").astype(np.int64)
    if not _are_dates(seen):
        raise DataError(f"{shown(str(name))} holds no dates", called=called, expected="dates, as in the table",
                        got=f"such as {str(seen[0])[:40]!r}", fix="turn them into dates first")  # fmt: skip
    # as it is written where it was: midnights stay midnights
    local = [cell.replace(tzinfo=None) if isinstance(cell, datetime.datetime) else cell for cell in seen.tolist()]
    return np.array(local, "datetime64[us]").astype(np.int64)


def _as_numbers(name: Any, seen: np.ndarray, called: str) -> np.ndarray:
    if not len(seen):
        return seen.astype(np.float64)
    counted = seen.dtype.kind == "O" and all(isinstance(cell, numbers.Integral) for cell in seen.tolist())
    whole, values = counted or seen.dtype.kind in "iu", seen.astype(np.float64)
    if bad := int((~np.isfinite(values)).sum()):
        raise DataError(f"{shown(str(name))} holds infinite numbers", called=called, expected="finite numbers",
                        got=f"{bad} of {len(seen)}", fix="leave those rows out")  # fmt: skip
    if whole and np.abs(values).max() >= 2.0**62:
        raise DataError(f"{shown(str(name))} holds whole numbers beyond what is counted with", called=called,
                        expected="below 2^62", got=str(seen.max()), fix="turn them into floats")  # fmt: skip
    return seen.astype(np.int64) if whole else values


def _decimals(values: np.ndarray, seen: np.ndarray) -> int | None:
    """The fewest decimals that all numbers have, in their own precision."""
    own = seen.dtype if seen.dtype.kind == "f" else values.dtype
    with np.errstate(over="ignore", invalid="ignore"):
        for decimals in DECIMALS:
            if np.array_equal(np.round(values, decimals).astype(own), values.astype(own)):
                return decimals
    return None


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The numbers of a column that were seen, sorted, and how often.

    Args:
        values: `[n]` float64 or int64, each once.
        counts: `[n]`.

    Example:
        >>> ranks = Ranks(np.array([1, 2, 5]), np.array([2, 1, 1]))
        >>> ranks.numbers(np.array([-3.0, -0.1, 0.3, 0.5, 3.0]), 0).tolist()
        [1, 1, 2, 3, 5]
    """

    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, numbers: np.ndarray) -> Ranks:
        """From the numbers of a column."""
        return cls(*np.unique(numbers, return_counts=True))

    @property
    def ends(self) -> np.ndarray:
        """`[n + 1]`, the shares of rows below each value, and 1."""
        return np.concatenate([[0], np.cumsum(self.counts)]) / self.counts.sum()

    def interval(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest share of rank of numbers, which are one where a number was not seen."""
        ends, below = self.ends, np.searchsorted(self.values, numbers)
        above = np.searchsorted(self.values, numbers, side="right")
        return ends[below], ends[above]

    def scores(self, numbers: np.ndarray, place: Any) -> np.ndarray:
        """Normal scores of numbers, at places from 0 to 1 in the intervals of their ranks."""
        low, high = self.interval(numbers)
        edge = 0.25 / self.counts.sum()  # numbers at the very ends have scores, too
        return ndtri(np.clip(low + (high - low) * place, edge, 1 - edge))

    def numbers(self, scores: np.ndarray, decimals: int | None) -> np.ndarray:
        """The numbers that scores stand for."""
        ends, last = self.ends, len(self.values) - 1
        share = ndtr(np.asarray(scores, np.float64))
        at = np.clip(np.searchsorted(ends, share, side="right") - 1, 0, last)
        within = np.clip((share - ends[at]) / (ends[at + 1] - ends[at]), 0, 1)
        value = self.values[at]
        # halves first: the difference of two huge numbers may be none
        down, up = (self.values[np.clip(at + step, 0, last)] / 2 - value / 2 for step in (-1, 1))
        moved = np.where(within < 0.5, down * (1 - 2 * within), up * (2 * within - 1)) * (self.counts[at] == 1)
        if value.dtype.kind == "i":
            grid = 10 ** max(0, -(decimals or 0))
            return value + np.rint(moved / grid).astype(np.int64) * grid
        return value + moved if decimals is None else np.round(value + moved, decimals)


def cells_of(margin: Margin, values: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Cells of a column from its numbers or codes, None where they were not seen."""
    if margin.kind == LABEL:
        cells = as_objects([*margin.levels, None])[np.where(unseen, len(margin.levels), values)]
        return cells if unseen.any() or margin.dtype in ("object", "str") else np.array(cells.tolist())
    if margin.kind == DATE:
        values = (values * margin.unit).astype("datetime64[us]")
        cells = np.where(unseen, np.datetime64("NaT"), values)
        return cells.astype("datetime64[D]").astype(object) if margin.days else cells
    if not unseen.any():
        return values
    if values.dtype.kind == "f":
        return np.where(unseen, np.nan, values)
    cells = values.astype(object)
    cells[unseen] = None
    return cells
