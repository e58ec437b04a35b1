"""Tables of numbers in text files."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import math
import os
import re
import warnings
from array import array
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np

from jaxgen.core.errors import FileError, JaxgenWarning
from jaxgen.data.opening import opened

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
#: what a first column is called that numbers the rows: `DataFrame.to_csv` leaves the name out
_INDEX = re.compile(r"(unnamed: ?\d+|id|index|row|row_?(id|names?|numbers?)|)", re.IGNORECASE)
_WHOLE = re.compile(r"\s*[+-]?\d*\s*")
#: rows from which a column that counts them does not do so by chance
_COUNTS = 10


class Table(NamedTuple):
    """A numeric table.

    Args:
        columns: D names, `x0, x1, ...` where the file has none.
        values: `[N, D]` float64.
    """

    columns: tuple[str, ...]
    values: np.ndarray


def read_csv(
    path: str | os.PathLike[str], *, delimiter: str = ",", header: bool | None = None, index: bool | None = None,
    allow_nan: bool = False, encoding: str = "utf-8",
) -> Table:  # fmt: skip
    """Reads a table of numbers in text, with or without a line of names.

    Args:
        path: the file, plain or gzipped.
        delimiter: what separates cells: `","`, `";"`, `"\\t"`, ...
        header: whether the first line holds names; None decides: text only is names, numbers only is data, but for
            the names 0 to D - 1 that tables without names get, above numbers that are not whole or beside an index.
        index: whether the first column numbers the rows and is left out, whatever it holds; None decides: one without
            a name, or called id, index or row, of whole numbers, each once, is left out with a `JaxgenWarning`.
        allow_nan: turn missing cells (empty, NA, NaN, null, none, ?) into NaN rather than refuse them.
        encoding: of the text: `"latin-1"`, `"utf-16"`, ...

    Returns:
        `Table(columns, values)`, values `[N, D]` float64.

    Raises:
        FileError: missing; empty; a cell that is no finite number; rows of unequal length (with line and column);
            text in another encoding.

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
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise FileError(
            "no such encoding", called=called, expected="a name that Python knows", got=repr(encoding),
            fix="read_csv(path, encoding='utf-8')",
        ) from None  # fmt: skip
    with opened(path, called, f"a table of numbers as {encoding} text") as (stream, _):
        raw = io.BufferedReader(cast(io.RawIOBase, stream))
        _check_encoding(raw.peek(4)[:4], encoding, called)
        signed = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
        text = io.TextIOWrapper(raw, encoding=signed, newline="")
        rows = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            return _parse_csv(rows, called, header, index, allow_nan)
        except UnicodeDecodeError as error:
            got = f"{error.reason}, {error.object[error.start] :#04x}"
            _refuse_encoding(called, encoding, "latin-1", got)


def _check_encoding(head: bytes, encoding: str, called: str) -> None:
    """Refuses text in 16 bits under the name of another encoding: its zeros would be read as characters."""
    if encoding.lower().startswith(("utf-16", "utf16", "utf_16")):
        return
    marked = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    if marked or b"\0" in head[:2]:
        wide = "utf-16" if marked else "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
        _refuse_encoding(called, encoding, wide, f"the first bytes {head.hex(' ')}")


def _refuse_encoding(called: str, encoding: str, other: str, got: str) -> NoReturn:
    raise FileError(
        f"the text is not in {encoding}", called=called, expected=f"a table of numbers as {encoding} text", got=got,
        fix=f"read_csv(path, encoding={other!r})",
    ) from None  # fmt: skip


def _parse_csv(rows: Any, called: str, header: bool | None, index: bool | None, allow_nan: bool) -> Table:
    first = next((row for row in rows if row), None)
    if first is None:
        raise FileError("the file is empty", called=called, expected="at least one row of numbers", got="no lines")
    line, second = rows.line_num, next(rows, None)
    left = 1 if index else 0
    named = header
    if header is None:  # pandas names an index by nothing, and columns without names by their numbers
        numbered = len(first) > 1 and [c.strip() for c in first] == ["", *map(str, range(len(first) - 1))]
        named = numbered or _is_header(first[left:], (second or [])[left:], called, line)
    columns = tuple((cell.strip() if named else "") or f"x{i}" for i, cell in enumerate(first))
    values = array("d")  # 8 bytes a cell, where a list of floats takes 32
    if not named:
        values.extend(_parse_row(first, left, columns, called, line, allow_nan))
    blank = 0
    for row in itertools.chain([] if second is None else [second], rows):
        if not row:
            blank = blank or rows.line_num
            continue
        if blank or len(row) != len(columns):
            raise FileError(
                f"line {blank or rows.line_num} has another length than the first", called=called,
                expected=f"{len(columns)} cells", got="a blank line" if blank else f"{len(row)} cells: {_shorten(row)}",
                fix="remove the line, or quote cells that hold the delimiter",
            )  # fmt: skip
        values.extend(_parse_row(row, left, columns, called, rows.line_num, allow_nan))
    if not values:
        raise FileError(
            "the file has names but no numbers", called=called, expected="at least one row of numbers",
            got=f"one line: {_shorten(columns)}", fix=_fix_for_names(columns, left),
        )  # fmt: skip
    table = Table(columns[left:], np.frombuffer(values, dtype=np.float64).reshape(-1, len(columns) - left))
    return table if index is not None else _without_index(table, [c.strip() for c in first] if named else None, called)


def _without_index(table: Table, names: list[str] | None, called: str) -> Table:
    """The table without first columns that number its rows: nobody wants those modelled."""
    columns, values = table
    left: list[str] = []
    while len(left) < len(columns) - 1:
        column, name = values[:, len(left)], names[len(left)] if names else None
        shown = f"column {len(left) + 1} ({name or 'without a name'})"
        whole = bool((column == np.round(column)).all())
        if name is not None and _INDEX.fullmatch(name) and whole and len(np.unique(column)) == len(column):
            left.append(shown)
            continue
        counts = len(column) >= _COUNTS and column[0] in (0, 1) and (np.diff(column) == 1).all()
        if not left and (counts or name == ""):
            counted = "counts the rows but " if counts else ""
            _say(f"{called}: {shown} {counted}is taken as data; index=True leaves it out")
        break
    if left:
        _say(f"{called}: {', '.join(left)} numbers the rows and is left out; index=False keeps it")
    return Table(columns[len(left) :], values[:, len(left) :])


def _say(text: str) -> None:
    warnings.warn(text, JaxgenWarning, stacklevel=5)


def _is_header(first: list[str], second: list[str], called: str, line: int) -> bool:
    given = [cell for cell in first if cell.strip().lower() not in _MISSING]
    texts = [cell for cell in given if _number(cell) is None]
    numbers = [cell for cell in given if _number(cell) is not None]
    if len(first) > 1 and first == [*map(str, range(len(first)))] and not all(map(_WHOLE.fullmatch, second)):
        _say(f"{called}: line {line}, 0 to {len(first) - 1}, is taken as names; header=False makes it data")
        return True
    if texts and numbers:
        raise FileError(
            f"line {line} holds names and numbers", called=called, expected="names only, or numbers only",
            got=f"{texts[0][:40]!r} in column {first.index(texts[0]) + 1}, and {numbers[0][:40]!r} in another",
            fix="read_csv(path, header=True) if it holds names; else remove the column of text",
        )  # fmt: skip
    return bool(texts)


def _parse_row(
    row: list[str], left: int, columns: tuple[str, ...], called: str, line: int, allow_nan: bool
) -> list[float]:
    numbers = []
    for place, cell in enumerate(row[left:], left):
        number = _number(cell)
        if number is None:
            missing = cell.strip().lower() in _MISSING
            if not (missing and allow_nan):
                raise FileError(
                    f"line {line}, column {place + 1} ({columns[place]!r}) is not a number", called=called,
                    expected="a finite number", got=f"{_shorten([cell])}" + (" (missing)" if missing else ""),
                    fix="read_csv(path, allow_nan=True) makes it NaN" if missing
                    else _fix_for_text(row, place),
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


def _fix_for_names(names: tuple[str, ...], left: int) -> str:
    """For a file of names alone, which may be data after all."""
    data = all(_number(cell) is not None for cell in names[left:])
    return _fix_for_delimiter(names) or ("read_csv(path, header=False)" if data else "add rows of numbers")


def _fix_for_text(row: list[str], place: int) -> str:
    """For a cell that is no number: another delimiter, or first cells that name the rows."""
    rest = len(row) > 1 and place == 0 and all(_number(cell) is not None for cell in row[1:])
    index = "read_csv(path, index=True) leaves the first column out" if rest else ""
    return _fix_for_delimiter(row) or index or "remove the column, or encode it as numbers"


def _fix_for_delimiter(row: list[str] | tuple[str, ...]) -> str:
    # of numbers only where they would be numbers then: 1,5;2,5 is none
    text = row[0] if len(row) == 1 else ""
    other = next((d for d in ";\t|" if d in text and "," not in text), None)
    return f"read_csv(path, delimiter={other!r})" if other else ""


def _shorten(row: list[str] | tuple[str, ...]) -> str:
    text = ", ".join(repr(cell[:40]) for cell in row[:6])
    return text + (", ..." if len(row) > 6 else "")
