"""Tables of numbers in text files."""

from __future__ import annotations

import csv
import io
import math
import os
from array import array
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import FileError
from jaxgen.data.opening import opened

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})


class Table(NamedTuple):
    """A numeric table.

    Args:
        columns: D names, `x0, x1, ...` where the file has none.
        values: `[N, D]` float64.
    """

    columns: tuple[str, ...]
    values: np.ndarray


def read_csv(
    path: str | os.PathLike[str], *, delimiter: str = ",", header: bool | None = None, allow_nan: bool = False
) -> Table:
    """Reads a table of numbers in text, with or without a line of names.

    Args:
        path: the file, UTF-8, plain or gzipped.
        delimiter: what separates cells: `","`, `";"`, `"\\t"`, ...
        header: whether the first line holds names; None decides: text only is names, numbers only is data.
        allow_nan: turn missing cells (empty, NA, NaN, null, none, ?) into NaN rather than refuse them.

    Returns:
        `Table(columns, values)`, values `[N, D]` float64.

    Raises:
        FileError: missing; empty; a cell that is no finite number; rows of unequal length (with line and column).

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "x.csv"
        >>> _ = path.write_text('"height, cm",mass\\n170,65.5\\n180,80\\n')
        >>> table = read_csv(path)
        >>> table.columns, table.values.tolist()
        (('height, cm', 'mass'), [[170.0, 65.5], [180.0, 80.0]])
    """
    called = f"read_csv({os.fspath(path)!r})"
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise FileError(
            "a delimiter is one character", called=called, expected="',' or ';' or a tab ...", got=repr(delimiter),
            fix="read_csv(path, delimiter=';')",
        )  # fmt: skip
    with opened(path, called, "a table of numbers as UTF-8 text") as (stream, _):
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        rows = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
        return _parse_csv(rows, called, header, allow_nan)


def _parse_csv(rows: Any, called: str, header: bool | None, allow_nan: bool) -> Table:
    first = next((row for row in rows if row), None)
    if first is None:
        raise FileError("the file is empty", called=called, expected="at least one row of numbers", got="no lines")
    columns = tuple(cell.strip() or f"x{i}" for i, cell in enumerate(first))
    values = array("d")  # 8 bytes a cell, where a list of floats takes 32
    if not _is_header(first, called, rows.line_num, header):
        columns = tuple(f"x{i}" for i in range(len(first)))
        values.extend(_parse_row(first, columns, called, rows.line_num, allow_nan))
    blank = 0
    for row in rows:
        if not row:
            blank = blank or rows.line_num
            continue
        if blank or len(row) != len(columns):
            raise FileError(
                f"line {blank or rows.line_num} has another length than the first", called=called,
                expected=f"{len(columns)} cells", got="a blank line" if blank else f"{len(row)} cells: {_shorten(row)}",
                fix="remove the line, or quote cells that hold the delimiter" + _fix_for_delimiter(columns),
            )  # fmt: skip
        values.extend(_parse_row(row, columns, called, rows.line_num, allow_nan))
    if not values:
        raise FileError(
            "the file has names but no numbers", called=called, expected="at least one row of numbers",
            got=f"one line: {_shorten(columns)}", fix="read_csv(path, header=False) if that line is data",
        )  # fmt: skip
    return Table(columns, np.frombuffer(values, dtype=np.float64).reshape(-1, len(columns)))


def _is_header(first: list[str], called: str, line: int, header: bool | None) -> bool:
    if header is not None:
        return header
    given = [cell for cell in first if cell.strip().lower() not in _MISSING]
    texts = [cell for cell in given if _number(cell) is None]
    numbers = [cell for cell in given if _number(cell) is not None]
    if texts and numbers:
        raise FileError(
            f"line {line} holds names and numbers", called=called, expected="names only, or numbers only",
            got=f"{texts[0][:40]!r} in column {first.index(texts[0]) + 1}, and {numbers[0][:40]!r} in another",
            fix="read_csv(path, header=True) if it holds names; else remove the column of text",
        )  # fmt: skip
    return bool(texts)


def _parse_row(row: list[str], columns: tuple[str, ...], called: str, line: int, allow_nan: bool) -> list[float]:
    numbers = []
    for index, cell in enumerate(row):
        number = _number(cell)
        if number is None:
            missing = cell.strip().lower() in _MISSING
            if not (missing and allow_nan):
                raise FileError(
                    f"line {line}, column {index + 1} ({columns[index]!r}) is not a number", called=called,
                    expected="a finite number", got=f"{_shorten([cell])}" + (" (missing)" if missing else ""),
                    fix="read_csv(path, allow_nan=True) makes it NaN" if missing
                    else "remove the column, or encode it as numbers" + _fix_for_delimiter(row),
                )  # fmt: skip
            number = math.nan
        numbers.append(number)
    return numbers


def _number(cell: str) -> float | None:
    try:  # Python's float takes 1_000, which in a file is a typing error
        value = None if "_" in cell else float(cell)
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None


def _fix_for_delimiter(row: list[str] | tuple[str, ...]) -> str:
    other = next((d for d in ";\t|" if len(row) == 1 and d in row[0]), None)
    return f"; or read_csv(path, delimiter={other!r})" if other else ""


def _shorten(row: list[str] | tuple[str, ...]) -> str:
    text = ", ".join(repr(cell[:40]) for cell in row[:6])
    return text + (", ..." if len(row) > 6 else "")
