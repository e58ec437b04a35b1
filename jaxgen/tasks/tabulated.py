"""Columns of several tables of one kind, as numbers that can be compared: what measures of made tables look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from jaxgen.core.cells import Cells, Reading, plain, shown
from jaxgen.core.errors import DataError
from jaxgen.core.tables import columns_of
from jaxgen.tasks.margins import LABEL, margin_of, read

#: numbers are counted in so many quantiles of the first table's column beside labels
BINS = 10


class Column(NamedTuple):
    """A column of several tables.

    Args:
        name: of it.
        label: whether it holds labels.
        values: for each table `[N]`: numbers, NaN where not seen; or codes of labels, of which one is of no cell.
        levels: of labels, in the order of their codes.
    """

    name: str
    label: bool
    values: tuple[np.ndarray, ...]
    levels: tuple[Any, ...]

    def binned(self) -> tuple[np.ndarray, ...]:
        """Codes `[N]`: of numbers the tenth of the first table that they fall into; one for what was not seen."""
        if self.label:
            return self.values
        first = self.values[0][~np.isnan(self.values[0])]
        edges = np.unique(np.quantile(first, np.linspace(0, 1, BINS + 1)[1:-1])) if len(first) else np.zeros(0)
        codes = (np.searchsorted(edges, column, side="right") for column in self.values)
        return tuple(np.where(np.isnan(v), len(edges) + 1, code) for v, code in zip(self.values, codes, strict=True))

    def scaled(self) -> list[np.ndarray]:
        """Coordinates `[N, F]` whose absolute differences add up to those of numbers, in units of the first range.

        Labels are 0 or 1 apart, as are a number and a cell that was not seen where the number is at an end.
        """
        if self.label:
            return [(v[:, None] == np.arange(len(self.levels))) / 2 for v in self.values]
        seen = self.values[0][~np.isnan(self.values[0])]
        low, width = (float(seen.min()), float(np.ptp(seen))) if len(seen) else (0.0, 0.0)
        gaps = [np.isnan(v) for v in self.values]
        inside = [np.where(gap, 0.5, (v - low) / (width or 1.0)) for v, gap in zip(self.values, gaps, strict=True)]
        return [np.stack(pair, axis=1) for pair in zip(inside, (gap / 2 for gap in gaps), strict=True)]

    def features(self, by: int = 0) -> list[np.ndarray]:
        """Coordinates `[N, F]` for a classifier: numbers in standard deviations of a table, indicators of labels."""
        if self.label:
            return [(v[:, None] == np.arange(len(self.levels))).astype(float) for v in self.values]
        seen = self.values[by][~np.isnan(self.values[by])]
        mean, scale = (seen.mean(), seen.std()) if len(seen) else (0.0, 1.0)
        gaps = [np.isnan(v) for v in self.values]
        flagged = any(gap.any() for gap in gaps)
        inside = [np.where(gap, 0.0, (v - mean) / (scale or 1.0)) for v, gap in zip(self.values, gaps, strict=True)]
        return [np.stack([v, gap] if flagged else [v], axis=1) for v, gap in zip(inside, gaps, strict=True)]


def tabulated(frames: Mapping[str, Any], called: str, labels: Sequence[str] = ()) -> list[Column]:
    """The columns of several frames by what they are called, those of the first, in all of them.

    Raises:
        DataError: a column that a frame does not have, or whose cells are of another kind.
    """
    tables = {role: columns_of(frame, called) for role, frame in frames.items()}
    first = next(iter(tables.values()))
    for role, table in tables.items():
        if lost := [name for name in first if name not in table]:
            raise DataError(
                f"the {role} table has no {shown(lost[0])}", called=called, got=", ".join(map(repr, list(table)[:12])),
                expected=", ".join(map(repr, list(first)[:12])),
            )  # fmt: skip
    reading = Reading(called, "jaxgen.tasks.fidelity(key, made, train, holdout, {})", tuple(labels))
    return [_column(name, [table[name] for table in tables.values()], reading, list(first), called) for name in first]


def _column(name: str, given: list[Any], reading: Reading, names: list[str], called: str) -> Column:
    margin, first = margin_of(name, given[0], reading, names)
    cells = [first, *map(read, given[1:])]
    if margin.kind != LABEL:
        numbers = (margin.encoded(own, called)[0] if len(own.seen) else np.zeros(0) for own in cells)
        return Column(name, False, tuple(own.spread(v) for own, v in zip(cells, numbers, strict=True)), ())
    # labels that other tables alone have are some, too
    text = all(isinstance(level, str) for level in margin.levels)
    listed = [_labels(own, text) for own in cells]
    levels = sorted({level for own in listed for level in own}, key=lambda level: (level is None, str(level)))
    place = {level: code for code, level in enumerate(levels)}
    return Column(name, True, tuple(np.array([place[v] for v in own]) for own in listed), tuple(levels))


def _labels(cells: Cells, text: bool) -> list[Any]:
    """Labels of all cells, None where there is none."""
    seen = iter(cells.seen.tolist())
    return [(str if text else plain)(next(seen)) if there else None for there in cells.rows.tolist()]


def alike(one: Column, a: int, b: int) -> float:
    """Return how alike two tables' columns are, from 0 to 1: one less a Kolmogorov-Smirnov or total variation distance.

    Numbers that were not seen count as the highest.

    Example:
        >>> column = Column("a", False, (np.array([1.0, 2.0]), np.array([2.0, 3.0, 3.0, np.nan])), ())
        >>> alike(column, 0, 1)
        0.25
    """
    if one.label:
        return 1 - _variation(one.values[a], one.values[b])
    both = [np.sort(np.where(np.isnan(v), np.inf, v)) for v in (one.values[a], one.values[b])]
    below = [np.searchsorted(v, np.concatenate(both), side="right") / len(v) for v in both]
    return 1 - float(np.max(np.abs(below[0] - below[1])))


def pair_alike(one: Column, other: Column, a: int, b: int) -> float:
    """Return how alike the dependence of two columns is in two tables, from 0 to 1.

    Of two numbers half of the difference of their rank correlations is taken off, of others the total variation of
    their tables of counts.
    """
    if not (one.label or other.label):
        return 1 - abs(_spearman(one, other, a) - _spearman(one, other, b)) / 2
    size = 1 + max(int(codes.max()) for codes in other.binned())
    codes = [size * own + more for own, more in zip(one.binned(), other.binned(), strict=True)]
    return 1 - _variation(codes[a], codes[b])


def _variation(a: np.ndarray, b: np.ndarray) -> float:
    """The total variation distance of codes."""
    size = 1 + max(int(a.max()), int(b.max()))
    counts = [np.bincount(v, minlength=size) / len(v) for v in (a, b)]
    return float(np.abs(counts[0] - counts[1]).sum() / 2)


def _spearman(one: Column, other: Column, table: int) -> float:
    """The rank correlation of rows where both were seen, 0 where a column is constant."""
    a, b = one.values[table], other.values[table]
    both = ~np.isnan(a) & ~np.isnan(b)
    if both.sum() < 2 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(a[both]), rankdata(b[both]))[0, 1])
