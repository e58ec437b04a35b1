"""Rows of files as events of models, and samples as rows of files."""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.core.cells import LABEL, NUMBER
from jaxgen.core.errors import FileError, FitError
from jaxgen.core.inputs import as_array
from jaxgen.core.sequences import Sequences
from jaxgen.core.tables import Schema, Table
from jaxgen.data.readers import pandas_with_parquet, read, read_parquet
from jaxgen.data.tables import read_csv

_SEPARATED = re.compile(r"\.([ct])sv(\.gz)?$", re.IGNORECASE)


def read_rows(path: str, options: argparse.Namespace, schema: Schema | None = None) -> np.ndarray | Table:
    """The rows of a file: a `Table`, or an array `[N, D]` of one that has no names.

    Args:
        path: of the file.
        options: of the command.
        schema: of the model's table, whose columns, labels and dates are taken where the options name none.
    """
    known = () if schema is None else schema.columns
    taken = options.columns or list(dict.fromkeys(column.date or column.name for column in known))
    labels = options.labels or [c.name for c in known if c.kind == LABEL and not c.date and c.name in taken]
    if taken and options.group and options.group not in taken:
        taken = [*taken, options.group]
    dates = "features" if options.dates or any(column.date for column in known) else "refuse"
    common: dict[str, Any] = {"columns": taken or None, "labels": labels, "dates": dates}
    text = {name: getattr(options, name) for name in ("delimiter", "decimal", "encoding", "header", "index")}
    text = {name: value for name, value in text.items() if value is not None}
    separated = _SEPARATED.search(path)
    if path.lower().endswith(".parquet"):
        table: Any = read_parquet(path, **common)
    elif text or separated:
        tab = {"delimiter": "\t"} if separated and separated[1].lower() == "t" else {}
        table = read_csv(path, missing=options.missing, missing_as=options.missing_as or (), **common, **(tab | text))
    else:
        return _array(path, options)
    as_array(table.values, name="data", called=f"read({path!r})", allow_nan=True, columns=table.columns)
    return _seen(table, path, options)


def _array(path: str, options: argparse.Namespace) -> np.ndarray:
    content = read(path)
    if isinstance(content, dict):
        if len(content) != 1 and "x" not in content:
            raise FileError("the file holds several arrays", called=f"read({path!r})", expected="one, or one called x",
                            got=", ".join(content), fix="save the one to take alone, or call it x")  # fmt: skip
        content = content["x"] if "x" in content else next(iter(content.values()))
    if named := [flag for flag in ("columns", "labels", "group") if getattr(options, flag)]:
        raise FileError("an array has no names of columns", called=f"read({path!r})", expected=f"no --{named[0]}",
                        got=f"--{named[0]}", fix="write it as csv with a line of names")  # fmt: skip
    values: Any = content
    as_array(values, name="data", called=f"read({path!r})", allow_nan=True)
    return _seen(values.reshape(len(values), -1).astype(np.float32) if values.ndim else values, path, options)


def _seen(rows: Any, path: str, options: argparse.Namespace) -> Any:
    """Rows without missing cells, unless the options let them in."""
    values = np.asarray(rows, np.float64)
    if np.isnan(values).any() and not (options.missing or options.missing_as):
        raise FileError(
            "cells of the file are missing", called=f"read({path!r})", expected="a value in each",
            got=f"{int(np.isnan(values).sum())} of {values.size} missing", fix="--missing takes them as not seen",
        )  # fmt: skip
    return rows


def numbers_of(rows: Any, family: str) -> np.ndarray:
    """The rows of a table of numbers as an array `[N, D]` float32."""
    if isinstance(rows, Table):
        if labels := [column.name for column in rows.schema.columns if column.kind == LABEL]:
            others = ",".join(name for name in rows.columns if name not in labels)
            fix = "take the family mixture, for columns of any kinds"
            raise FitError(
                f"column {labels[0]!r} holds labels, not numbers", called=f"fit {family}", expected="only numbers",
                got=", ".join(map(repr, labels)), fix=fix + (f", or --columns {others}" if others else ""),
            )  # fmt: skip
        return np.asarray(rows.values, np.float32)
    return rows


def in_series(rows: Any, by: str | None) -> Any:
    """Rows as the steps of one series, or of one for each value of a column."""
    return Sequences.from_table(rows, by) if isinstance(rows, Table) else rows[None]


def numeric(schema: Schema) -> Schema:
    """The columns as a model of numbers draws them: counts and flags are whole numbers."""
    return Schema(tuple(
        dataclasses.replace(c, kind=NUMBER, levels=(), dtype="int64" if c.dtype == "bool" else c.dtype)
        for c in schema.columns
    ), schema.missing)  # fmt: skip


def like(schema: Schema, rows: Table) -> Table:
    """Rows of another file as a schema has them, columns by name and labels by level."""
    # features of dates are columns of both by now
    plain = Schema(tuple(dataclasses.replace(column, date="") for column in schema.columns), schema.missing)
    values = plain.encode(rows.schema.decode(rows.values), "score")
    for i, column in enumerate(schema.columns):
        if column.since:  # the other file's days are counted from its own first date
            own = rows.schema.columns[rows.schema.place(column.name)]
            values[:, i] += (np.datetime64(own.since, "D") - np.datetime64(column.since, "D")).astype(int)
    return Table(values, schema)


def as_events(model: Any, rows: Any, schema: Schema | None, by: str | None, verb: str = "score") -> Any:
    """Rows of a file as events of a model: its columns by name, all rows one series, or one for each value of a column.

    Pictures are unflattened, scalars without their axis.
    """
    event, owner = model.event_shape, None
    if isinstance(rows, Table):
        owner = None if by is None else rows.values[:, rows.schema.place(by, f"{verb} --group")]
        rows = rows if schema is None else like(schema, rows)
        rows = numbers_of(rows, verb) if schema is None else np.asarray(rows.values, np.float32)
    if None not in event:
        return jnp.asarray(rows.reshape((len(rows), *event)) if rows.shape[1] == np.prod(event) else rows)
    if rows.shape[1] == np.prod(event[1:]):
        rows = rows.reshape((len(rows), *event[1:]))
    if owner is None:
        return jnp.asarray(rows[None])
    return Sequences.pack([rows[owner == one] for one in dict.fromkeys(owner.tolist())])


def drawn(key: Any, model: Any, n: int) -> np.ndarray:
    """Samples of a model as rows `[n, D]`; of a model of series one of n steps."""
    shape = {"length": n} if None in model.event_shape else {"shape": (n,)}
    return np.asarray(model.sample(key, **shape)).reshape(n, -1)


def check_places(command: str, *paths: str | None) -> None:
    """Refuse files that could not be written, before the work rather than after it."""
    for path in filter(None, paths):
        if not Path(path).parent.is_dir():
            raise FileError("the folder to write into is not there", called=f"{command} {path}",
                            expected="an existing folder", got=str(Path(path).parent),
                            fix="make that folder first")  # fmt: skip
        if _is_parquet(path):
            pandas_with_parquet(f"{command} {path}")


def write_rows(path: str | None, rows: np.ndarray, schema: Schema | None) -> None:
    """Write rows `[N, D]` with the names and types of their columns, as `write_columns` does."""
    if schema is None:
        columns: dict[str, Any] = {f"x{i}": column for i, column in enumerate(rows.T)}
    else:
        columns = schema.decode(rows)
    write_columns(path, columns)


def write_columns(path: str | None, columns: dict[str, Any]) -> None:
    """Write columns by name as parquet where the file is called so, else as csv; None is standard output."""
    if path and _is_parquet(path):
        frame = {name: list(column) for name, column in columns.items()}
        pandas_with_parquet(path).DataFrame(frame).to_parquet(path)
        return
    with open(path, "w", newline="", encoding="utf-8") if path else contextlib.nullcontext(sys.stdout) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(map(_cell, column.tolist()) for column in columns.values()), strict=True))


def _is_parquet(path: str) -> bool:
    return path.lower().endswith(".parquet")


def _cell(value: Any) -> str:
    return "" if value is None else format(value, ".9g") if isinstance(value, float) else str(value)
