"""The cells of one column of a table: which kind of numbers they are, and how they are written as floats and read back.

| kind | cells | as numbers |
|---|---|---|
| number | floats, whole numbers that are no counts | themselves |
| count | whole numbers from 0 that spread as counts do, see `_are_counts` | themselves |
| flag | booleans, whole numbers that are all 0 or 1 | 0, 1 |
| label | text, categories | their place among the levels |

A cell that was not seen (None, NaN, NaT, NA) is NaN in all of them.
"""

from __future__ import annotations

import dataclasses
import datetime
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxgen.core.errors import DataError
from jaxgen.core.files import loadable

NUMBER, COUNT, FLAG, LABEL = "number", "count", "flag", "label"
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
#: the features that a date is made of, and their levels; none of those that are numbers
FEATURES: dict[str, tuple[str, ...]] = {"day": (), "weekday": WEEKDAYS, "month": MONTHS}
#: text of more levels than this, in more than half of the rows another, names the rows and sorts nothing
FEW = 20
_DATES = "dates='features'"


@loadable
@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table: its name, its kind, and how its cells are written.

    Args:
        name: of the column.
        kind: `"number"`, `"count"`, `"flag"` or `"label"`.
        levels: of a label, in the order of its codes; of a flag what its 0 and its 1 stand for.
        dtype: as the table called it: `"int64"`, `"category"`, ...
        date: of a feature of a date, the column that it is made of; else empty. The feature is the name's last word.
        since: of a feature that counts days, the day of the column's first date, `"2020-02-29"`, which is 0. Days since
            1970 would have no seconds in float32.
    """

    name: str
    kind: str
    levels: tuple[Any, ...] = ()
    dtype: str = "float64"
    date: str = ""
    since: str = ""

    @property
    def whole(self) -> bool:
        """True of a column of whole numbers."""
        return self.kind in (NUMBER, COUNT) and _is_whole(self.dtype)

    def decode(self, values: Any) -> np.ndarray:
        """Cells `[N]` of numbers: whole numbers rounded, levels in place of codes, None for NaN in all but floats."""
        values = np.asarray(values, np.float64)
        if self.kind in (NUMBER, COUNT) and not self.whole:
            return values.astype(np.float32 if self.dtype.lower() == "float32" else np.float64)
        unseen = np.isnan(values)
        whole = np.rint(np.where(unseen, 0, values)).astype(np.int64)
        if self.kind == COUNT:
            whole = np.maximum(whole, 0)
        if self.levels:
            bad = ~unseen & ((whole < 0) | (whole >= len(self.levels)))
            if bad.any():
                raise DataError(
                    f"{shown(self.name)} has codes of no level", called="table.frame(values)",
                    expected=f"whole numbers from 0 to {len(self.levels) - 1}", got=f"such as {values[bad][0]}",
                    fix="give it samples of the model of this very table",
                )  # fmt: skip
            text = any(isinstance(level, str) for level in self.levels)
            cells = as_objects(self.levels) if text or unseen.any() else np.array(self.levels)
            decoded = cells[whole]
        else:
            decoded = whole if not unseen.any() else whole.astype(object)
        if unseen.any():
            decoded[unseen] = None
        return decoded


def _is_whole(dtype: str) -> bool:
    return dtype.lower().startswith(("int", "uint"))


class Cells(NamedTuple):
    """The cells of a column as they came.

    Args:
        seen: those that were seen, `[n]`: floats, ints, bools, dates or objects.
        rows: `[N]` bool, True where a cell was seen.
        levels: of a column of categories, in their order; None of all others.
        dtype: as the table calls it.
    """

    seen: np.ndarray
    rows: np.ndarray
    levels: tuple[Any, ...] | None
    dtype: str

    def spread(self, values: Any) -> np.ndarray:
        """Values of the cells that were seen, as a column `[N]` with NaN in place of the others."""
        out = np.full(len(self.rows), np.nan)
        out[self.rows] = values
        return out


@runtime_checkable
class _Series(Protocol):
    """A column of pandas, polars and their kin."""

    dtype: Any

    def to_numpy(self) -> np.ndarray: ...

    def to_list(self) -> list[Any]: ...


def read_cells(column: Any) -> Cells:
    """The cells of a column of pandas, polars or numpy, or of a list.

    Example:
        >>> cells = read_cells(["a", None, "b"])
        >>> cells.seen.tolist(), cells.rows.tolist()
        (['a', 'b'], [True, False, True])
    """
    if isinstance(column, _Series):
        dtype, array = str(column.dtype), column.to_numpy()
    else:
        array = column if isinstance(column, np.ndarray) else as_objects(column)
        dtype = str(array.dtype)
    levels: tuple[Any, ...] | None = None
    if dtype.startswith(("category", "Enum(")):  # of pandas, of polars
        dtype, levels = "category", tuple(map(plain, column.dtype.categories.to_list()))
    if array.dtype.kind in "biu":
        return Cells(array, np.ones(len(array), bool), levels, dtype)
    if array.dtype.kind in "fMm":
        rows = ~(np.isnan(array) if array.dtype.kind == "f" else np.isnat(array))
        whole = array.dtype.kind == "f" and _is_whole(dtype)  # which a cell that is missing makes floats of
        return Cells(array[rows].astype(np.int64) if whole else array[rows], rows, levels, dtype)
    cells = column.to_list() if isinstance(column, _Series) else list(column)
    rows = np.array([not _unseen(cell) for cell in cells], bool)
    return Cells(as_objects([cell for cell, there in zip(cells, rows, strict=True) if there]), rows, levels, dtype)


def as_objects(cells: Sequence[Any]) -> np.ndarray:
    """An array of objects `[N]` of any cells, also of some that are sequences themselves."""
    out = np.empty(len(cells), object)
    for i, cell in enumerate(cells):
        out[i] = cell
    return out


def _unseen(cell: Any) -> bool:
    try:
        return cell is None or bool(cell != cell)
    except TypeError:  # NA of pandas is neither true nor false
        return True


def plain(level: Any) -> Any:
    """A level as a plain value, which a file can hold; what is none, such as an interval, is text.

    Example:
        >>> plain(np.int64(3)), plain("a"), plain(range(2))
        (3, 'a', 'range(0, 2)')
    """
    level = level.item() if isinstance(level, np.generic) else level
    return level if isinstance(level, (bool, int, float, str)) else str(level)


def shown(name: str) -> str:
    """A column as errors name it."""
    return f"column {name!r}"


class Reading(NamedTuple):
    """The way in which columns of a frame or file are read, and in which errors say it.

    Args:
        called: what the user called.
        code: the same as code that takes more options, `"read_csv(path, {})"`.
        labels: columns to take for labels.
        dates: `"refuse"` or `"features"`.
    """

    called: str
    code: str
    labels: tuple[str, ...] = ()
    dates: str = "refuse"

    def fix(self, options: str) -> str:
        """Code with more options."""
        return self.code.format(options)

    def without(self, name: str, names: Sequence[str]) -> str:
        """Code that leaves a column out."""
        others = [other for other in names if other != name]
        return self.fix(f"columns={others}") if others else "there is no other column"


def described(name: str, cells: Cells, reading: Reading, names: Sequence[str]) -> tuple[Column, ...]:
    """Decide by its cells what a column is: one `Column`, or those of a date's features.

    Args:
        name: of the column.
        cells: that were read of it.
        reading: labels, dates, and what errors say.
        names: of all columns.

    Raises:
        DataError: nothing seen, cells of several kinds, dates that are not to be features, or text that names rows.
    """
    seen, levels, called = cells.seen, cells.levels, reading.called
    if not len(seen):
        raise DataError(
            f"{shown(name)} has no value", called=called, expected="a cell that was seen",
            got=f"{len(cells.rows)} missing", fix=reading.without(name, names),
        )  # fmt: skip
    if levels is not None or name in reading.labels:
        if levels is None:
            found = {plain(cell) for cell in seen.tolist()}
            alike = len({isinstance(level, str) for level in found}) == 1
            levels = tuple(sorted(found) if alike else sorted(found, key=str))
        return (Column(name, LABEL, levels, cells.dtype),)
    kind = _type_of(name, seen, reading, names)
    if kind is bool:
        return (Column(name, FLAG, (False, True), "bool"),)
    if kind is int:
        values = seen.astype(np.float64)
        dtype = cells.dtype if _is_whole(cells.dtype) else "int64"
        if set(np.unique(values)) <= {0.0, 1.0}:
            return (Column(name, FLAG, (0, 1), dtype),)
        return (Column(name, COUNT if _are_counts(values) else NUMBER, (), dtype),)
    if kind is float:
        return (Column(name, NUMBER, (), cells.dtype if "float" in cells.dtype.lower() else "float64"),)
    if kind is str:
        levels = tuple(sorted(set(map(str, seen.tolist()))))
        if len(levels) > FEW and 2 * len(levels) > len(seen):
            raise DataError(
                f"{shown(name)} holds text that is another in most rows", called=called,
                expected="labels, of which each is seen more than once",
                got=f"{len(levels)} different texts in {len(seen)} rows, such as {levels[0]!r}",
                fix=(f"{reading.without(name, names)}, or " if len(names) > 1 else "")
                + reading.fix(f"labels=[{name!r}]"),
            )  # fmt: skip
        return (Column(name, LABEL, levels, "str"),)
    if reading.dates != "features":
        raise DataError(
            f"{shown(name)} holds dates, which are no numbers", called=called, expected="numbers, booleans or labels",
            got=f"{cells.dtype}, such as {seen[0]}", fix=f"{reading.fix(_DATES)} takes their day, weekday and month",
        )  # fmt: skip
    since = str(_dates(name, seen, called).min().astype("datetime64[D]"))
    return tuple(
        Column(f"{name} {feature}", LABEL, levels, "str", name) if levels
        else Column(f"{name} {feature}", NUMBER, (), "float64", name, since)
        for feature, levels in FEATURES.items()
    )  # fmt: skip


def _are_counts(values: np.ndarray) -> bool:
    """True of whole numbers from 0 that spread as counts do.

    Their variance is at least a quarter of the mean, which is that of Poisson's counts (years have less), and their
    standard deviation below 10: where it is more, steps of one are as good as a continuum (ages, prices).
    """
    return bool(values.min() >= 0 and 0.25 * values.mean() <= values.var() < 100.0)


def _type_of(name: str, seen: np.ndarray, reading: Reading, names: Sequence[str]) -> type:
    """Return what all cells are: bool, int, float, str or date."""
    by_kind = {"b": bool, "i": int, "u": int, "f": float, "M": datetime.date, "U": str, "T": str}
    if seen.dtype.kind in by_kind:
        return by_kind[seen.dtype.kind]
    found: dict[type, Any] = {}
    for cell in seen.tolist():
        found.setdefault(_type(cell), cell)
    if set(found) == {int, float}:
        return float
    if len(found) == 1 and object not in found:
        return next(iter(found))
    if str in found and set(found) <= {int, float, str}:
        text = sum(isinstance(cell, str) for cell in seen.tolist())
        raise DataError(
            f"{shown(name)} mixes numbers and text", called=reading.called, expected="numbers, or text",
            got=f"{text} of {len(seen)} cells are text, such as {found[str]!r}",
            fix=f"{reading.fix(f'labels=[{name!r}]')} takes all as labels; else turn the text into missing cells",
        )  # fmt: skip
    kinds = ", ".join(f"{type(cell).__name__} {str(cell)[:40]!r}" for cell in list(found.values())[:3])
    raise DataError(
        f"{shown(name)} holds what is no cell of a table of numbers and labels", called=reading.called,
        expected="numbers, booleans, text, categories or dates, one kind a column", got=kinds,
        fix=reading.without(name, names),
    )  # fmt: skip


def _type(cell: Any) -> type:
    for kind, types in ((bool, (bool, np.bool_)), (int, numbers.Integral), (float, numbers.Real), (str, str),
                        (datetime.date, (datetime.date, np.datetime64))):  # fmt: skip
        if isinstance(cell, types):  # type: ignore[arg-type]
            return kind
    return object


def codes_of(name: str, levels: tuple[Any, ...], seen: np.ndarray, called: str) -> list[int]:
    """The place of each cell among the levels of a column.

    Raises:
        DataError: cells that are none of them.
    """
    codes = {level: code for code, level in enumerate(levels)}
    # text is compared as text: codes such as 01234 are some, and rows that happen to have none with a zero are read as
    # whole numbers
    read = str if all(isinstance(level, str) for level in levels) else plain
    found = [codes.get(read(cell), -1) for cell in seen.tolist()]
    if -1 in found:
        unknown = sorted({str(cell) for cell, code in zip(seen.tolist(), found, strict=True) if code < 0})
        raise DataError(
            f"{shown(name)} holds what is none of its levels", called=called,
            expected=", ".join(map(repr, levels[:8])) + (", ..." if len(levels) > 8 else ""),
            got=", ".join(map(repr, unknown[:5])) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""),
            fix="one of its levels; or leave those rows out of a table, or make those cells missing: a category can "
            "have levels that no row has",
        )  # fmt: skip
    return found


def encoded(column: Column, cells: Cells, called: str) -> np.ndarray:
    """The cells of a column as numbers `[N]`, NaN where they were not seen.

    Raises:
        DataError: cells of another kind than the column's, or levels that it does not have.
    """
    seen = cells.seen
    if column.date:
        return cells.spread(_feature(column, seen, called))
    if column.kind == LABEL:
        return cells.spread(codes_of(column.name, column.levels, seen, called))
    try:
        if seen.dtype.kind not in "biuf" and any(isinstance(cell, (str, datetime.date)) for cell in seen.tolist()):
            raise ValueError
        values = seen.astype(np.float64)
    except (ValueError, TypeError):
        raise DataError(
            f"{shown(column.name)} is not numeric", called=called, expected=f"{column.dtype}, as in the table",
            got=f"{cells.dtype}, such as {str(next((c for c in seen.tolist() if isinstance(c, str)), seen[0]))[:40]!r}",
        ) from None  # fmt: skip
    if column.kind == FLAG and not np.isin(values, (0, 1)).all():
        raise DataError(
            f"{shown(column.name)} holds other numbers than 0 and 1", called=called, expected="0 or 1, as in the table",
            got=f"such as {values[~np.isin(values, (0, 1))][0]}",
            fix="make the table of all rows that are to be modelled",
        )  # fmt: skip
    if np.isinf(values).any():
        raise DataError(
            f"{shown(column.name)} holds infinite numbers", called=called, expected="finite numbers",
            got=f"{int(np.isinf(values).sum())} of {len(cells.rows)}", fix="leave those rows out",
        )  # fmt: skip
    return cells.spread(values)


def _dates(name: str, seen: np.ndarray, called: str) -> np.ndarray:
    """Dates to the second; local time, as it is written, where there are zones."""
    if seen.dtype.kind == "M":
        return seen.astype("datetime64[s]")
    try:
        return np.array([str(cell.isoformat())[:19] for cell in seen.tolist()], "datetime64[s]")
    except AttributeError:
        raise DataError(
            f"{shown(name)} holds no dates", called=called, expected="dates, as in the table",
            got=f"such as {str(seen[0])[:40]!r}", fix="turn them into dates first",
        ) from None  # fmt: skip


def _feature(column: Column, seen: np.ndarray, called: str) -> np.ndarray:
    """A feature of dates: days since the first, with fractions; the weekday from Monday; the month from January."""
    dates = _dates(column.date, seen, called)
    if column.since:
        return (dates - np.datetime64(column.since, "s")).astype(np.int64) / 86400
    return {
        "weekday": (dates.astype("datetime64[D]").astype(np.int64) + 3) % 7,  # 1970 began on a Thursday
        "month": dates.astype("datetime64[M]").astype(np.int64) % 12,
    }[column.name.rpartition(" ")[2]]
