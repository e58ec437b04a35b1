"""Reports on made tables: whether it looks like the real one, serves as well, and gives nobody away."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.core import markup
from jaxgen.core.errors import DataError
from jaxgen.core.methods import check_key
from jaxgen.core.scores import plus_minus
from jaxgen.metrics.samples.two_sample import C2ST, c2st
from jaxgen.tasks.closeness import Privacy, closeness
from jaxgen.tasks.tabulated import alike, pair_alike, tabulated
from jaxgen.tasks.utility import Utility, utility

#: rows that a classifier of five folds needs at least, and that it sees at most
LEAST, LARGEST = 10, 5000


class Fidelity(NamedTuple):
    """The result of `fidelity`: a table that prints; `plot.fidelity` draws it.

    Args:
        columns: `{column: share}`, one less the Kolmogorov-Smirnov distance of numbers, the total variation of labels:
            1 where both columns are alike.
        pairs: `{(column, other): share}`: `1 - |r - r'| / 2` of two numbers' rank correlations, of others one less the
            total variation of their table of counts, of numbers in tenths.
        c2st: how well a network tells made rows from held-out ones.
        utility: how well a classifier does that was fitted to made rows; None without a target.
        privacy: what is given away of the rows that were fitted.
    """

    columns: dict[str, float]
    pairs: dict[tuple[str, str], float]
    c2st: C2ST
    utility: Utility | None
    privacy: Privacy

    def _cells(self) -> list[tuple[str, str, str]]:
        rows = [("", "made rows", "at best")]
        for what, found in (("columns alike", self.columns), ("pairs alike", self.pairs)):
            if found:
                worst = min(found, key=lambda name: found[name])  # type: ignore[index]
                least = " and ".join((worst,) if isinstance(worst, str) else worst)
                rows.append((what, f"{_mean(found):.4f}", f"1 (least: {found[worst]:.4f}, {least})"))  # type: ignore[index]
        rows.append(("told from held-out rows", plus_minus(self.c2st.accuracy, self.c2st.standard_error), "0.5"))
        if self.utility is not None:
            u = self.utility
            rows.append((f"AUC of {u.target}", f"{u.auc:.4f}", f"{u.real_auc:.4f}, fitted to real rows"))
            rows.append(("its accuracy", f"{u.accuracy:.4f}", f"{u.real_accuracy:.4f}"))
        p = self.privacy
        return rows + [
            ("closest row was fitted", plus_minus(p.closer, p.standard_error), f"{p.expected:.4f}"),
            ("membership advantage", f"{p.membership:.4f}", f"{p.membership_by_chance:.4f}, by chance"),
            ("exact copies", f"{p.copies:.4f}", f"{p.holdout_copies:.4f}, of held-out rows"),
            ("distance to the closest", f"{p.distance:.4f}", f"{p.holdout_distance:.4f}, of held-out rows"),
        ]

    def __str__(self) -> str:
        return markup.aligned(self._cells())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        return markup.grid(head, body)


def fidelity(
    key: Any, made: Any, train: Any, holdout: Any, *, target: str | None = None, above: float | None = None,
    classifier: Callable[[], Any] | None = None, labels: Sequence[str] = (),
) -> Fidelity:  # fmt: skip
    """Compare a made table with the one that its model was fitted to, and with rows that it never saw.

    How alike columns and pairs are, and whether a network tells the rows apart, is asked of held-out rows.

    Args:
        key: typed key, of the network.
        made, train, holdout: frames of the same columns: what was made, what was fitted, what was not seen. Held-out
            rows have to be of the same table, split by chance.
        target: a column that is to be told from the others, by a classifier that is fitted to made and to real rows.
        above: where it holds numbers, whether it is at least this; None is the median of the fitted rows.
        classifier: a function that makes one, with `fit(X, y)` and `predict_proba(X)` as in scikit-learn; None takes
            its extremely randomised trees.
        labels: columns to take as labels, though they hold numbers.

    Raises:
        DataError: columns that are not in all of the tables; fewer than ten rows; a target of one class.
        ModelError: a target, no classifier, and no scikit-learn.

    Source: Lopez-Paz and Oquab (2017), Revisiting classifier two-sample tests; Platzer and Reutterer (2021), Holdout-
    based empirical assessment of mixed-type synthetic data, for the closest rows; Yeom et al. (2018), Privacy risk in
    machine learning, for the advantage.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> real = [{"a": rng.normal(size=100).round(1), "b": rng.choice(["x", "y"], 100)} for _ in range(2)]
        >>> copied = fidelity(jax.random.key(0), real[0], *real)
        >>> copied.privacy.copies, copied.columns["b"] > 0.8
        (1.0, True)
    """
    called = "fidelity(key, made, train, holdout)"
    check_key(key, called)
    columns = tabulated({"fitted": train, "held-out": holdout, "made": made}, called, labels)
    sizes = [len(v) for v in columns[0].values]
    if min(sizes) < LEAST:
        raise DataError("too few rows to be compared", called=called, expected=f"{LEAST} or more of each table",
                        got=", ".join(map(str, sizes)))  # fmt: skip
    parts = [column.features(1) for column in columns]
    features = [np.concatenate([own[i] for own in parts], axis=1)[:LARGEST].astype(np.float32) for i in (2, 1)]
    told = None if target is None else utility(columns, target, above, classifier, called)
    return Fidelity(
        {column.name: alike(column, 2, 1) for column in columns},
        {(a.name, b.name): pair_alike(a, b, 2, 1) for a, b in itertools.combinations(columns, 2)},
        c2st(jax.random.fold_in(key, 0), *features), told, closeness(columns),
    )  # fmt: skip


def _mean(found: dict[Any, float]) -> float:
    return float(np.mean(list(found.values()))) if found else math.nan
