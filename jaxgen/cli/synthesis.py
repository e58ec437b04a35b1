"""Rows like those of a file, and how good they are."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import jax
import numpy as np

from jaxgen.cli import rows
from jaxgen.core.errors import FileError, FitError
from jaxgen.core.files import save
from jaxgen.core.tables import Table
from jaxgen.tasks.fidelity import fidelity
from jaxgen.tasks.margins import LABEL, Margin
from jaxgen.tasks.synthesis import COMPONENTS, Synthesizer, synthesizer


def run_synthesize(options: argparse.Namespace) -> int:
    """Fits a model of the rows of a file, and writes rows that it draws."""
    rows.check_places("synthesize", options.out, options.model)
    if options.n is not None and options.n < 1:
        raise FitError("not a number of rows", called="synthesize -n", expected="1 or more", got=str(options.n))
    table = rows.read_rows(options.data, options)
    if not isinstance(table, Table):
        raise FileError("an array has no columns to be made", called=f"synthesize {options.data}", got="no names",
                        expected="csv or parquet", fix="write it as csv with a line of names")  # fmt: skip
    columns = table.schema.decode(table.values)
    split, fitted, drawn, judged = jax.random.split(jax.random.key(options.seed), 4)
    order = np.asarray(jax.random.permutation(split, len(table)))
    kept = order[len(table) // 2 :] if options.report else np.sort(order)
    train, holdout = ({name: column[at] for name, column in columns.items()} for at in (kept, order[: len(table) // 2]))
    made = synthesizer(fitted, train, components=options.components or COMPONENTS)
    given = dict(_given(made, text) for text in options.given or ())
    if options.report:
        print(fidelity(judged, made.draw(drawn, len(kept)).frame, train, holdout), file=sys.stderr)
    frame = made.draw(drawn, options.n or len(table), given=given).frame
    if options.model:
        save(made, options.model)
    rows.write_columns(options.out, frame)
    return 0


def _given(made: Synthesizer, text: str) -> tuple[str, Any]:
    """A column and its cell, of text such as sex=M."""
    name, equals, cell = text.partition("=")
    margin = next((margin for margin in made.margins if margin.name == name), None)
    if not equals or margin is None:
        raise FitError("that says nothing of a column", called=f"synthesize --given {text}", got=repr(text),
                       expected="COLUMN=CELL of one of " + ", ".join(map(str, made.names[:12])))  # fmt: skip
    return name, _cell(margin, cell, text)


def _cell(margin: Margin, cell: str, text: str) -> Any:
    if not cell:
        return None
    if margin.kind == LABEL:
        return next((level for level in margin.levels if str(level) == cell), cell)
    try:
        return float(cell)
    except ValueError:
        raise FitError(f"{margin.name} holds numbers", called=f"synthesize --given {text}", expected="a number",
                       got=repr(cell)) from None  # fmt: skip
