"""Tables in text files."""

from __future__ import annotations

import codecs
import csv
import datetime
import io
import itertools
import math
import os
import re
import warnings
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, cast

import numpy as np

from jaxgen.core.cells import Cells, Reading, as_objects
from jaxgen.core.errors import DataError, FileError, JaxgenWarning
from jaxgen.core.tables import Dates, Table, chosen
from jaxgen.data.opening import opened

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
#: what a first column is called that numbers the rows: `DataFrame.to_csv` leaves the name out
_INDEX = re.compile(r"(unnamed: ?\d+|id|index|row|row_?(id|names?|numbers?)|)", re.IGNORECASE)
_WHOLE = re.compile(r"\s*[+-]?\d*\s*")
#: whole numbers of 64 bits as Python writes them: 01234 is a code
_PLAIN = re.compile(r"0|-?[1-9][0-9]{0,17}")
#: rows from which a column that counts them does not do so by chance
_COUNTS = 10
#: whole numbers up to this are exact as floats
_EXACT = 2.0**53
#: so many different texts in a column of numbers may stand for cells that are missing
_WORDS = 3


def read_csv(
    path: str | os.PathLike[str], *, delimiter: str = ",", decimal: str = ".", header: bool | None = None,
    index: bool | None = None, columns: Sequence[str] | None = None, labels: Sequence[str] = (),
    dates: Dates = "refuse", missing: bool = False, missing_as: Sequence[str] = (), encoding: str = "utf-8",
) -> Table:  # fmt: skip
    """Reads a table in text, with or without a line of names.

    Columns are numbers, whole numbers, true and false, text (labels) or dates, as in `Table.from_frame`.

    Args:
        path: the file, plain or gzipped.
        delimiter: what separates cells: `","`, `";"`, `"\\t"`, ...
        decimal: the point in numbers, `"."` or `","`.
        header: whether the first line holds names; None decides: text only is names, numbers only is data, but for
            the names 0 to D - 1 that tables without names get, above numbers that are not whole or beside an index.
        index: whether the first column numbers or names the rows and is left out, whatever it holds; None decides: one
            without a name, or called id, index or row, of whole numbers, each once, is left out with a `JaxgenWarning`.
        columns: the names of those to take, in that order; None takes all.
        labels: columns to take as labels, whatever they hold, such as classes that are written as numbers.
        dates: `"features"` makes a day number, a weekday and a month of each column of dates, else they are refused.
        missing: turn missing cells (empty, NA, NaN, null, none, ?) into NaN rather than refuse them.
        missing_as: other cells that are missing, such as `["-999", "unknown"]`: numbers however they are written
            (-999.0), but in columns of labels, whose cells are text.
        encoding: of the text: `"latin-1"`, `"utf-16"`, ...

    Returns:
        `Table`, values `[N, D]` float64.

    Raises:
        FileError: missing; empty; a cell of a column of numbers that is no finite number; rows of unequal length (with
            line and column); a column that `Table.from_frame` refuses; text in another encoding.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "x.csv"
        >>> _ = path.write_text('"height, cm",mass,eyes\\n170,65.5,blue\\n180,80,brown\\n')
        >>> table = read_csv(path)
        >>> table.columns, table.values.tolist()
        (('height, cm', 'mass', 'eyes'), [[170.0, 65.5, 0.0], [180.0, 80.0, 1.0]])
    """
    called = f"read_csv({os.fspath(path)!r})"
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise FileError(
            "a delimiter is one character", called=called, expected="',' or ';' or a tab ...", got=repr(delimiter),
            fix="read_csv(path, delimiter=';')",
        )  # fmt: skip
    if decimal not in (".", ",") or decimal == delimiter:
        raise FileError(
            "that is no decimal point", called=called, expected="'.' or ',', and another delimiter",
            got=f"decimal={decimal!r}, delimiter={delimiter!r}", fix="read_csv(path, decimal=',', delimiter=';')",
        )  # fmt: skip
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise FileError(
            "no such encoding", called=called, expected="a name that Python knows", got=repr(encoding),
            fix="read_csv(path, encoding='utf-8')",
        ) from None  # fmt: skip
    reading = Reading(called, "read_csv(path, {})", tuple(labels), dates)
    words = (missing_as,) if isinstance(missing_as, str) else tuple(missing_as)
    cells = _Parser(reading, decimal, missing or bool(words), frozenset(word.strip().lower() for word in words))
    with opened(path, called, f"a table as {encoding} text") as (stream, _):
        raw = io.BufferedReader(cast(io.RawIOBase, stream))
        _check_encoding(raw.peek(4)[:4], encoding, called)
        signed = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
        text = io.TextIOWrapper(raw, encoding=signed, newline="")
        rows = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            return cells.table(rows, header, index, columns)
        except UnicodeDecodeError as error:
            got = f"{error.reason}, {error.object[error.start] :#04x}"
            _refuse_encoding(called, encoding, "latin-1", got)
        except DataError as error:  # of the columns, as for frames
            raise FileError(
                error.message, called=called, expected=error.expected, got=error.got, fix=error.fix
            ) from None  # fmt: skip


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
        f"the text is not in {encoding}", called=called, expected=f"a table as {encoding} text", got=got,
        fix=f"read_csv(path, encoding={other!r})",
    ) from None  # fmt: skip


class _Cells:
    """The cells of one column while its lines are read: 8 bytes each, where a list of floats takes 32.

    Args:
        place: its number, from 0.
        name: of the column.
        label: all cells are text.
    """

    def __init__(self, place: int, name: str, label: bool):
        self.place, self.name, self.label = place, name, label
        self.values = array("d")  # numbers, or places in `texts`
        self.numbers, self.whole = 0, True
        self.texts: dict[str, int] = {}
        self.line = 0  # of the first text

    def add(self, cell: str, number: float | None, unseen: bool, line: int) -> None:
        if unseen:
            self.values.append(math.nan)
        elif number is None or self.label:
            text = cell.strip()
            self.line = self.line or line
            self.values.append(self.texts.setdefault(text, len(self.texts)))
        else:
            self.numbers += 1
            if self.whole and (number % 1 or not _WHOLE.fullmatch(cell) or abs(number) > _EXACT):
                self.whole = False
            self.values.append(number)

    @property
    def first(self) -> str:
        """The first text."""
        return next(iter(self.texts))

    def cells(self) -> Cells:
        """As `Table.from_cells` takes them."""
        values = np.frombuffer(self.values, dtype=np.float64)
        rows = ~np.isnan(values)
        seen = values[rows]
        if not self.texts:
            return Cells(*((seen.astype(np.int64), rows, None, "int64") if self.whole and len(seen) else
                           (seen, rows, None, "float64")))  # fmt: skip
        found = list(self.texts)
        if {text.lower() for text in found} <= {"true", "false"}:
            kinds: np.ndarray = np.array([text.lower() == "true" for text in found])
        elif all(map(_PLAIN.fullmatch, found)):
            kinds = np.array([int(text) for text in found])
        else:
            kinds = _dates(found) if not self.label else as_objects(found)
        return Cells(kinds[seen.astype(np.int64)], rows, None, str(kinds.dtype) if kinds.dtype != object else "str")


def _dates(texts: list[str]) -> np.ndarray:
    """Texts as dates where all of them are, in the notation of ISO 8601."""
    try:
        if all(len(text) >= 8 for text in texts):
            return np.array([datetime.datetime.fromisoformat(text).isoformat()[:19] for text in texts], "datetime64[s]")
    except ValueError:
        pass
    return as_objects(texts)


class _Parser:
    """Turns the lines of a file into a table.

    Args:
        reading: labels, dates, and what errors say.
        decimal: point of numbers.
        missing: cells that are missing pass.
        words: what they are, beside the usual.
    """

    def __init__(self, reading: Reading, decimal: str, missing: bool, words: frozenset[str]):
        self.reading, self.called, self.decimal, self.missing, self.words = (
            reading, reading.called, decimal, missing, words
        )  # fmt: skip
        self.absent = {number for number in map(self._number, words) if number is not None}

    def table(self, rows: Any, header: bool | None, index: bool | None, columns: Sequence[str] | None) -> Table:
        first = next((row for row in rows if row), None)
        if first is None:
            raise FileError("the file is empty", called=self.called, expected="at least one row", got="no lines")
        line, second = rows.line_num, next(rows, None)
        left = 1 if index else 0
        named = header
        if header is None:  # pandas names an index by nothing, and columns without names by their numbers
            numbered = len(first) > 1 and [c.strip() for c in first] == ["", *map(str, range(len(first) - 1))]
            named = numbered or self._is_header(first[left:], (second or [])[left:], line)
        names = [(cell.strip() if named else "") or f"x{i}" for i, cell in enumerate(first)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise FileError(
                f"two columns are called {twice[0]!r}", called=self.called, expected="a name for each column",
                got=_shorten(names), fix="rename one of them in the file's first line",
            )  # fmt: skip
        taken = chosen(columns, names[left:], self.called)
        read = [_Cells(i, name, name in self.reading.labels) for i, name in enumerate(names) if name in taken]
        if not named:
            self._add(read, first, line)
        for row, at in self._lines(rows, second, names):
            self._add(read, row, at)
        if not read[0].values:
            raise FileError(
                "the file has names but no rows", called=self.called, expected="at least one row",
                got=f"one line: {_shorten(names)}", fix=self._fix_for_names(names, left),
            )  # fmt: skip
        if index is None and columns is None:
            read = self._without_index(read, [c.strip() for c in first] if named else None)
        for column in read:
            self._check(column, len(names))
        cells = {column.name: column.cells() for column in read}
        return Table.from_cells({name: cells[name] for name in ([*cells] if columns is None else taken)}, self.reading)

    def _lines(self, rows: Any, second: list[str] | None, names: list[str]) -> Iterator[tuple[list[str], int]]:
        """Further rows and their lines, each of the length of the first."""
        blank = 0
        for row in itertools.chain([] if second is None else [second], rows):
            if not row:
                blank = blank or rows.line_num
                continue
            if blank or len(row) != len(names):
                commas = len(names) == 1 and ";" in names[0]
                raise FileError(
                    f"line {blank or rows.line_num} has another length than the first", called=self.called,
                    expected=f"{len(names)} cells",
                    got="a blank line" if blank else f"{len(row)} cells: {_shorten(row)}",
                    fix=self.reading.fix("decimal=',', delimiter=';'") if commas and not blank
                    else "remove the line, or quote cells that hold the delimiter",
                )  # fmt: skip
            yield row, rows.line_num

    def _add(self, read: list[_Cells], row: list[str], line: int) -> None:
        for column in read:
            cell = row[column.place]
            number = self._number(cell)
            word = cell.strip().lower()
            blank = word in _MISSING if number is None else number in self.absent and not column.label
            unseen = blank or word in self.words
            if unseen and not self.missing:
                raise FileError(
                    f"line {line}, column {column.place + 1} ({column.name!r}) is missing", called=self.called,
                    expected="a value in each cell", got=_shorten([cell]),
                    fix=f"{self.reading.fix('missing=True')} makes it NaN",
                )  # fmt: skip
            column.add(cell, number, unseen, line)

    def _check(self, cells: _Cells, width: int) -> None:
        """Refuses text in a column of numbers, and all lines as one column."""
        if not cells.texts or cells.label:
            return
        other = self._fix_for_delimiter([cells.first]) if width == 1 else ""
        words = list(cells.texts)
        if not cells.numbers and not other and not any(map(_is_typo, words)):
            return
        few = cells.numbers and len(words) <= _WORDS
        absent = self.reading.fix(f"missing=True, missing_as={words}") if few else ""
        raise FileError(
            f"line {cells.line}, column {cells.place + 1} ({cells.name!r}) is not a number", called=self.called,
            expected="a finite number", got=_shorten(words),
            fix=other or (f"{absent}, or " if absent else "") + self.reading.fix(f"labels=[{cells.name!r}]"),
        )  # fmt: skip

    def _without_index(self, read: list[_Cells], names: list[str] | None) -> list[_Cells]:
        """The columns without the first that number the rows: nobody wants those modelled."""
        left: list[str] = []
        while len(left) < len(read) - 1:
            column, name = read[len(left)], names[len(left)] if names else None
            values = np.frombuffer(column.values, dtype=np.float64)
            shown = f"column {len(left) + 1} ({name or 'without a name'})"
            whole = not column.texts and bool((values == np.round(values)).all())
            if name is not None and _INDEX.fullmatch(name) and whole and len(np.unique(values)) == len(values):
                left.append(shown)
                continue
            counts = whole and len(values) >= _COUNTS and values[0] in (0, 1) and (np.diff(values) == 1).all()
            if not left and (counts or (name == "" and not column.texts)):
                counted = "counts the rows but " if counts else ""
                _say(f"{self.called}: {shown} {counted}is taken as data; index=True leaves it out")
            break
        if left:
            _say(f"{self.called}: {', '.join(left)} numbers the rows and is left out; index=False keeps it")
        return read[len(left) :]

    def _is_header(self, first: list[str], second: list[str], line: int) -> bool:
        given = [cell for cell in first if cell.strip().lower() not in _MISSING]
        texts = [cell for cell in given if self._number(cell) is None]
        numbers = [cell for cell in given if self._number(cell) is not None]
        if len(first) > 1 and first == [*map(str, range(len(first)))] and not all(map(_WHOLE.fullmatch, second)):
            _say(f"{self.called}: line {line}, 0 to {len(first) - 1}, is taken as names; header=False makes it data")
            return True
        if texts and numbers:
            alike = [self._number(cell) is None for cell in first] == [self._number(cell) is None for cell in second]
            raise FileError(
                f"line {line} holds names and numbers", called=self.called, expected="names only, or numbers only",
                got=f"{texts[0][:40]!r} in column {first.index(texts[0]) + 1}, and {numbers[0][:40]!r} in another",
                fix="read_csv(path, header=False) if it is a row, or read_csv(path, header=True) if it holds names"
                if alike else "read_csv(path, header=True) if it holds names; else mend the line",
            )  # fmt: skip
        return bool(texts)

    def _number(self, cell: str) -> float | None:
        if self.decimal == ",":
            cell = "" if "." in cell else cell.replace(",", ".")
        try:  # Python's float takes 1_000, which in a file is a typing error
            value = None if "_" in cell else float(cell)
        except ValueError:
            return None
        return value if value is not None and math.isfinite(value) else None

    def _fix_for_names(self, names: list[str], left: int) -> str:
        """For a file of names alone, which may be data after all."""
        data = all(self._number(cell) is not None for cell in names[left:])
        return self._fix_for_delimiter(names) or ("read_csv(path, header=False)" if data else "add rows")

    def _fix_for_delimiter(self, row: list[str]) -> str:
        # of numbers only where they would be numbers then: 1,5;2,5 is none
        text = row[0] if len(row) == 1 else ""
        other = next((d for d in ";\t|" if d in text and "," not in text), None)
        return f"read_csv(path, delimiter={other!r})" if other else ""


def _is_typo(text: str) -> bool:
    """True of text that is nearly a number, or not text: infinity, 1_000, bytes of zero."""
    try:
        float(text)
    except ValueError:
        return "\0" in text
    return True


def _say(text: str) -> None:
    warnings.warn(text, JaxgenWarning, stacklevel=5)


def _shorten(row: Sequence[str]) -> str:
    text = ", ".join(repr(cell[:40]) for cell in row[:6])
    return text + (", ..." if len(row) > 6 else "")
