"""A picture of each column of a file beside samples of its model."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.figure
import numpy as np

from jaxgen.cli.rows import drawn
from jaxgen.core.cells import COUNT, FLAG, LABEL, Column
from jaxgen.core.errors import FileError
from jaxgen.core.sequences import Sequences
from jaxgen.core.tables import Schema
from jaxgen.plot.style import DATA, MODEL, clean

#: samples, columns and levels that are drawn at most
SAMPLES, PANELS, LEVELS = 2000, 24, 20


def draw(path: str, key: Any, model: Any, x: Any, schema: Schema | None) -> None:
    """Draw the distribution of each column, of the rows of a file in grey and of samples in colour.

    Raises:
        FileError: a name that does not end in a kind of picture.
    """
    rows = _rows(x)
    samples = drawn(key, model, min(SAMPLES, len(rows)) if None in model.event_shape else SAMPLES)
    width = min(rows.shape[1], PANELS)
    columns = min(width, 4)
    figure = matplotlib.figure.Figure(figsize=(3.2 * columns, 2.6 * math.ceil(width / columns)), layout="constrained")
    for i in range(width):
        ax = clean(figure.add_subplot(math.ceil(width / columns), columns, i + 1))
        _panel(ax, rows[:, i], samples[:, i], None if schema is None else schema.columns[i])
        ax.set_xlabel(f"x{i}" if schema is None else schema.names[i])
        ax.set_yticks([])
        if i == 0:
            ax.legend(frameon=False, fontsize=8)
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise FileError("no such kind of picture", called=f"fit --plot {path}", expected="a name in .png, .pdf or .svg",
                        got=str(error)) from None  # fmt: skip


def _rows(x: Any) -> np.ndarray:
    """Rows `[N, D]` of a table, of an array or of the steps of series."""
    if isinstance(x, Sequences):
        values, there = np.asarray(x.x), np.asarray(x.valid)
        return values[there]
    values = np.asarray(x)
    return values.reshape(-1, values.shape[-1])


def _panel(ax: Any, rows: np.ndarray, samples: np.ndarray, column: Column | None) -> None:
    rows, samples = rows[~np.isnan(rows)], samples[~np.isnan(samples)]
    levels = () if column is None else column.levels
    if column is not None and column.kind in (LABEL, FLAG, COUNT):
        top = len(levels) if levels else int(max(rows.max(), np.quantile(samples, 0.99))) + 1
        places = np.arange(min(top, 60))
        for values, shift, colour, label in ((rows, -0.2, DATA, "data"), (samples, 0.2, MODEL, "model")):
            share = np.bincount(np.clip(np.rint(values), 0, top).astype(int), minlength=top + 1)[places] / len(values)
            ax.bar(places + shift, share, width=0.4, color=colour, label=label)
        if levels and top <= LEVELS:
            text = [str(level) for level in levels]
            ax.set_xticks(places, text, rotation=90 if sum(map(len, text)) > 24 else 0)
        return
    low, high = np.quantile(np.concatenate([rows, samples]), [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, 41)
    if column is not None and column.whole:  # a bar for each number, or for as many as there are in forty bars
        step = max(1, math.ceil((high - low) / 40))
        edges = np.arange(math.floor(low), math.ceil(high) + step + 1, step) - 0.5
    ax.hist(rows, edges, density=True, color=DATA, alpha=0.6, label="data")
    ax.hist(samples, edges, density=True, histtype="step", color=MODEL, linewidth=1.6, label="model")
