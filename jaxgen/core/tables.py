"""Tables of columns of several kinds, as events `[N, D]`, and the schema that reads frames and writes them.

A `Table` stands wherever its array would. The model of one (`Product`, and what is made of it) keeps the schema, which
is static: it is saved with the model, reads later frames with the same levels, and refuses those of other columns.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from jaxgen.core.cells import LABEL, NUMBER, Cells, Column, Reading, described, encoded, read_cells, shown
from jaxgen.core.errors import DataError
from jaxgen.core.files import loadable
from jaxgen.core.pytree import registered, static

Dates = Literal["refuse", "features"]


@runtime_checkable
class Frame(Protocol):
    """A data frame of pandas, polars or their kin."""

    columns: Any

    def to_numpy(self) -> np.ndarray: ...

    def __getitem__(self, name: Any) -> Any: ...


def columns_of(frame: Any, called: str) -> dict[str, Any]:
    """Return the columns of a frame, or of a dict of them, by name.

    Raises:
        DataError: what is no frame, or has no rows; two columns of one name.
    """
    if not isinstance(frame, (Frame, Mapping)):
        raise DataError(
            "that is no frame", called=called, expected="a DataFrame of pandas or polars, or a dict of columns",
            got=type(frame).__name__, fix="give the columns names, in a dict",
        )  # fmt: skip
    names = list(frame) if isinstance(frame, Mapping) else list(frame.columns)
    twice = [name for name, count in collections.Counter(map(str, names)).items() if count > 1]
    if twice:
        raise DataError(
            f"two columns are called {twice[0]!r}", called=called, expected="a name of its own for each column",
            got=", ".join(map(repr, names[:8])), fix="rename one of them",
        )  # fmt: skip
    for name in names:
        if isinstance(frame[name], np.ndarray) and frame[name].ndim != 1:
            raise DataError(
                f"{shown(str(name))} is not one column", called=called, expected="an array [N]",
                got=f"shape {list(frame[name].shape)}", fix="give each of its columns a name",
            )  # fmt: skip
    if not names or not len(frame[names[0]]):
        raise DataError(
            "the frame is empty", called=called, expected="one row and one column or more",
            got=f"{len(names)} columns, {len(frame[names[0]]) if names else 0} rows",
        )  # fmt: skip
    columns = {str(name): frame[name] for name in names}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise DataError("the columns are of several lengths", called=called, expected="one length",
                        got=", ".join(map(str, sorted(lengths))))  # fmt: skip
    return columns


def _meaning(column: Column) -> tuple[Any, ...]:
    """Return what the numbers of a column stand for."""
    return column.levels, column.since


@loadable
@dataclasses.dataclass(frozen=True)
class Schema:
    """The columns of a table, each with its kind and levels: what turns frames into numbers and numbers into frames.

    Args:
        columns: a `Column` for each number of an event.
        missing: True where the table that it was made of had cells that were not seen.
    """

    columns: tuple[Column, ...]
    missing: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    def place(self, name: str, called: str = "table") -> int:
        """The number of a column.

        Raises:
            DataError: no such column.
        """
        if name not in self.names:
            raise DataError(
                f"there is no {shown(name)}", called=called, expected="one of " + ", ".join(map(repr, self.names[:12])),
                got=repr(name),
            )  # fmt: skip
        return self.names.index(name)

    def encode(self, frame: Any, called: str = "table.like(frame)") -> np.ndarray:
        """A frame as numbers `[N, D]` float64, its levels as this schema counts them.

        Raises:
            DataError: columns that are not there, or cells that are none of theirs. Other columns are left out.
        """
        series = columns_of(frame, called)
        wanted = {column.date or column.name for column in self.columns}
        cells = {name: read_cells(column) for name, column in series.items() if name in wanted}
        return self.encode_cells(cells, called)

    def encode_cells(self, cells: Mapping[str, Cells], called: str) -> np.ndarray:
        """Columns of cells by name as numbers `[N, D]`."""
        wanted = [column.date or column.name for column in self.columns]
        if lost := [name for name in wanted if name not in cells]:
            raise DataError(
                f"the table has no {shown(lost[0])}", called=called, expected=", ".join(map(repr, self.names[:12])),
                got=", ".join(map(repr, list(cells)[:12])),
            )  # fmt: skip
        return np.stack([encoded(c, cells[name], called) for c, name in zip(self.columns, wanted, strict=True)], axis=1)

    def read(self, data: Any, called: str) -> Any:
        """The numbers of a frame or `Table` by this schema; other data are returned as they are.

        Raises:
            DataError: a table of other columns or levels.
        """
        if isinstance(data, Table):
            data.schema.check(self, called)
            return data.values
        return self.encode(data, called) if isinstance(data, Frame) else data

    def check(self, wanted: Schema, called: str) -> None:
        """Refuse to stand for another schema, unless names, levels and the first days of dates are the same."""
        if (self.names, *map(_meaning, self.columns)) == (wanted.names, *map(_meaning, wanted.columns)):
            return
        if self.names != wanted.names:
            raise DataError(
                "the table has other columns than the model's", called=called, expected=", ".join(wanted.names[:12]),
                got=", ".join(self.names[:12]), fix="make it by the method like of the table that was fitted",
            )  # fmt: skip
        pairs = zip(self.columns, wanted.columns, strict=True)
        own, other = next((a, b) for a, b in pairs if _meaning(a) != _meaning(b))
        if own.since != other.since:
            raise DataError(
                f"{shown(own.date or own.name)} counts days from another date than the model's", called=called,
                expected=other.since or "no date", got=own.since or "no date",
                fix="make it by the method like of the table that was fitted",
            )  # fmt: skip
        raise DataError(
            f"{shown(own.name)} has other levels than the model's", called=called, expected=str(other.levels)[:200],
            got=str(own.levels)[:200], fix="make it by the method like of the table that was fitted",
        )  # fmt: skip

    def decode(self, values: Any) -> dict[str, np.ndarray]:
        """Cells of events `[N, D]` by column: whole numbers rounded, levels in place of codes, None where not seen."""
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.columns):
            raise DataError(
                "those are no rows of the table", called="table.frame(values)", expected=f"[N, {len(self.columns)}]",
                got=f"shape {list(values.shape)}",
                fix=f"np.reshape(values, (-1, {len(self.columns)}))" if values.shape[-1:] == (len(self.columns),)
                else f"give it events, such as a model's samples, of these columns: {', '.join(self.names)[:120]}",
            )  # fmt: skip
        return {column.name: column.decode(values[:, i]) for i, column in enumerate(self.columns)}

    def frame(self, values: Any) -> Any:
        """A pandas frame of events `[N, D]`, such as samples: names, dtypes and levels are those of the table.

        Raises:
            DataError: other events; no pandas (`decode` needs none).
        """
        try:
            import pandas
        except ImportError:
            raise DataError(
                "frames are made by pandas", called="table.frame(values)", expected="pandas", got="none installed",
                fix="install pandas, or take the dict of columns that the schema can decode",
            ) from None  # fmt: skip
        out = {}
        for column, cells in zip(self.columns, self.decode(values).values(), strict=True):
            unseen = cells.dtype == object and any(cell is None for cell in cells)
            dtype: Any = column.dtype
            if column.kind == LABEL and all(isinstance(level, str) for level in column.levels):
                dtype = pandas.CategoricalDtype(column.levels) if dtype == "category" else "str"
            elif column.kind == LABEL or (column.kind == NUMBER and not column.whole):
                dtype = None
            else:
                dtype = dtype.lower()
                if column.whole and not _has_room(dtype, cells):
                    dtype = "int64"
                if unseen:  # what can lack cells
                    dtype = "boolean" if dtype == "bool" else dtype.replace("uint", "UInt").replace("int", "Int")
            out[column.name] = pandas.Series(cells, dtype=dtype)
        return pandas.DataFrame(out)


def _has_room(dtype: str, cells: np.ndarray) -> bool:
    """True where whole numbers are in the range of a dtype: samples may leave that of the table's."""
    info = np.iinfo(dtype.partition("[")[0])  # Arrow's is int64[pyarrow]
    return all(cell is None or info.min <= cell <= info.max for cell in cells.tolist())


@registered
@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of columns of several kinds as an array of floats, with the schema that says what they mean.

    `Table.from_frame(frame)` makes one of a data frame. It stands wherever its array would.

    Args:
        values: `[N, D]` float64, or sequences of rows `[N, T, D]`; NaN where a cell was not seen.
        schema: names, kinds and levels of the columns.

    Example:
        >>> table = Table.from_frame({"age": [22.5, None, 31.0], "port": ["S", "C", "S"], "alone": [True, False, True]})
        >>> table.values.tolist()
        [[22.5, 1.0, 1.0], [nan, 0.0, 0.0], [31.0, 1.0, 1.0]]
        >>> {column.name: column.kind for column in table.schema.columns}
        {'age': 'number', 'port': 'label', 'alone': 'flag'}
        >>> table.schema.decode(table.values)["port"].tolist()
        ['S', 'C', 'S']
    """

    values: Any
    schema: Schema = static()

    @classmethod
    def from_frame(
        cls, frame: Any, *, columns: Sequence[str] | None = None, labels: Sequence[str] = (), dates: Dates = "refuse",
        reading: Reading | None = None,
    ) -> Table:  # fmt: skip
        """From a frame of pandas or polars, or a dict of columns.

        Numbers stay numbers; booleans, and whole numbers that are all 0 or 1, are flags; text and categories become
        codes from 0, their levels kept (those of a category in its own order, of text sorted); whole numbers from 0
        that spread as counts do are counts: a variance of a quarter of the mean or more, and a standard deviation below
        10. Cells that were not seen are NaN.

        Args:
            frame: of rows, which are events.
            columns: the names of those to take, in that order; None takes all.
            labels: columns to take as labels, whatever they hold, such as classes that are written as numbers.
            dates: `"refuse"`, or `"features"`: a column "when" of dates becomes "when day" (days since that of the
                first date, with fractions), "when weekday" and "when month" (labels).
            reading: what errors say, for readers of files; None speaks of frames.

        Raises:
            DataError: a column that is nothing of these, or of several kinds; one without a value; one that numbers or
                names the rows; two of one name.
        """
        code = "jaxgen.data.Table.from_frame(frame, {})"
        reading = reading or Reading("Table.from_frame(frame)", code, tuple(labels), dates)
        series = columns_of(frame, reading.called)
        taken = chosen(columns, list(series), reading.called)
        cells = {name: read_cells(series[name]) for name in taken}
        for name in taken:
            _check_index(name, cells[name].seen, reading, taken)
        return cls.from_cells(cells, reading)

    @classmethod
    def from_cells(cls, cells: Mapping[str, Cells], reading: Reading) -> Table:
        """From columns of cells by name, as readers of files have them."""
        called = reading.called
        if reading.dates not in ("refuse", "features"):
            raise DataError("dates are refused or made features", called=called, got=repr(reading.dates),
                            expected="dates='refuse' or dates='features'")  # fmt: skip
        if unknown := [name for name in reading.labels if name not in cells]:
            raise DataError(f"there is no {shown(unknown[0])} to take as labels", called=called,
                            got=repr(reading.labels), expected="names of columns in a list, such as "
                            f"{list(cells)[:1]}")  # fmt: skip
        names = list(cells)
        columns = [column for name in names for column in described(name, cells[name], reading, names)]
        schema = Schema(tuple(columns), not all(column.rows.all() for column in cells.values()))
        if twice := [name for name, count in collections.Counter(schema.names).items() if count > 1]:
            raise DataError(f"a feature of a date has the name of another column: {twice[0]!r}", called=called,
                            expected="names that differ", got=repr(schema.names)[:200], fix="rename it")  # fmt: skip
        return cls(schema.encode_cells(cells, called), schema)

    @classmethod
    def from_values(cls, columns: Iterable[str], values: Any):
        """From names and an array `[N, D]` of numbers, or sequences of rows `[N, T, D]`.

        Raises:
            DataError: not a name for each column.
        """
        values, names = np.asarray(values), [str(name) for name in columns]
        if values.ndim < 2 or values.shape[-1] != len(names):
            raise DataError(
                "there is a name for each column", called="Table.from_values(columns, values)",
                expected=f"values [N, {len(names)}]", got=f"shape {list(values.shape)}, names {', '.join(names)[:80]}",
            )  # fmt: skip
        return cls(values, Schema(tuple(Column(name, NUMBER) for name in names), bool(np.isnan(values).any())))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self.schema.names

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.shape(self.values))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{column.name}: {column.kind}" for column in self.schema.columns)
        return f"Table({' x '.join(map(str, self.shape))}; {kinds})"

    def numbers(self, name: str = "x", called: str = "") -> Any:
        """The values, where all columns are numbers: codes of labels have no distances, and are refused.

        Raises:
            DataError: columns of labels.
        """
        labels = [column for column in self.schema.columns if column.kind == LABEL]
        if labels:
            raise DataError(
                f"{shown(labels[0].name)} of {name} holds labels, not numbers", called=called,
                expected="numbers in all columns", got=", ".join(map(repr, labels[0].levels[:5])),
                fix="take a Product for the leaf, with a density for each kind of column; or leave those columns out",
            )  # fmt: skip
        return self.values

    def like(self, frame: Any) -> Table:
        """Another frame as a table of these columns and levels; columns that this one does not have are left out.

        Raises:
            DataError: columns that are not there, or cells that are none of theirs.
        """
        return Table(self.schema.encode(frame), self.schema)

    def frame(self, values: Any = None) -> Any:
        """A pandas frame of samples or other events `[N, D]` of this table's columns; None is its own rows."""
        return self.schema.frame(self.values if values is None else values)

    def take(self, columns: Iterable[str]) -> Table:
        """The table of some of its columns, in that order."""
        places = [self.schema.place(name, "table.take(columns)") for name in columns]
        return self._with(places)

    def drop(self, *columns: str) -> Table:
        """The table without some of its columns."""
        gone = {self.schema.place(name, "table.drop(column)") for name in columns}
        return self._with([i for i in range(len(self.columns)) if i not in gone])

    def _with(self, places: list[int]) -> Table:
        values = self.values[..., places]
        missing = bool(np.isnan(values).any())
        return Table(values, Schema(tuple(self.schema.columns[i] for i in places), missing))

    def codes(self, column: str) -> np.ndarray:
        """One column as whole numbers `[N]` int32, -1 where it was not seen: labels for `EM`."""
        values = np.asarray(self.values[..., self.schema.place(column, "table.codes(column)")])
        return np.where(np.isnan(values), -1, values).astype(np.int32)


def chosen(columns: Sequence[str] | None, names: Sequence[str], called: str) -> Sequence[str]:
    """Names of columns, where they are some of those that are there; None takes all."""
    if columns is None:
        return names
    if isinstance(columns, str) or not len(columns) or (lost := [name for name in columns if name not in names]):
        wanted = repr(columns) if isinstance(columns, str) or not len(columns) else repr(lost[0])
        raise DataError("there is no such column", called=called, got=wanted,
                        expected="a list of some of " + ", ".join(map(repr, names[:12])))  # fmt: skip
    return list(dict.fromkeys(columns))


def _check_index(name: str, seen: np.ndarray, reading: Reading, names: Sequence[str]) -> None:
    """Refuses what `DataFrame.to_csv` writes before the columns, and `read_csv` of pandas takes for one."""
    if name.startswith("Unnamed: ") and seen.dtype.kind in "iu" and len(np.unique(seen)) == len(seen):
        raise DataError(
            f"{shown(name)} numbers the rows", called=reading.called, expected="columns to be modelled",
            got=f"whole numbers, each once: {', '.join(map(str, seen[:3]))}, ...", fix=reading.without(name, names),
        )  # fmt: skip


class Tabular(Protocol):
    """A model that knows the columns of the table whose rows its events are.

    Default: its parts of the same events do, or none (`core.latent.schema`). Law: a frame, its table and the table's
    values have one `log_prob`.
    """

    schema: Any
