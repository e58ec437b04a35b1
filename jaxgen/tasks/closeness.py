"""Rows of a made table beside those that its model was fitted to: who is near to whom, and what that gives away."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from jaxgen.tasks.tabulated import Column

#: rows whose distances to all others are held at once
CHUNK = 256
#: distances that differ by less are one
TIE = 1e-9


class Privacy(NamedTuple):
    """The numbers that say what a made table gives away of the rows that its model was fitted to.

    Distances are means over columns: of numbers in units of the fitted column's range, of labels 0 or 1.

    Args:
        closer: share of made rows whose closest row was fitted; of several that are as close, the share of those.
        expected: the same of rows that know nothing of which were fitted, `n_train / (n_train + n_holdout)`.
        standard_error: of `closer` where nothing is known of them: a real row that is the closest of many counts once.
        membership: the advantage of an adversary who says that a row was fitted where a made row is nearer than the
            best threshold: the share of fitted rows that are, less that of held-out ones.
        membership_by_chance: what it is in the mean where nothing is given away: the best threshold is never negative.
        copies, holdout_copies: share of made and of held-out rows that are fitted rows, cell by cell.
        distance, holdout_distance: mean distance of made and of held-out rows to the closest fitted one.
    """

    closer: float
    expected: float
    standard_error: float
    membership: float
    membership_by_chance: float
    copies: float
    holdout_copies: float
    distance: float
    holdout_distance: float


def closeness(columns: list[Column]) -> Privacy:
    """Compare a fitted, a held-out and a made table, which the columns have in this order.

    Example:
        >>> real = np.array([0.0, 10.0, 3.0, 4.0, 1.0])
        >>> found = closeness([Column("a", False, (real, real + 0.5, np.array([5.0])), ())])
        >>> round(found.distance, 6), found.closer, found.expected
        (0.1, 0.0, 0.5)
    """
    parts = zip(*(column.scaled() for column in columns), strict=True)
    train, holdout, made = (np.concatenate(own, axis=1) for own in parts)
    share, n = len(train) / (len(train) + len(holdout)), len(columns)
    real = np.concatenate([train, holdout])
    nearest, distance, to_made = np.zeros(len(real)), np.zeros(len(made)), np.full(len(real), np.inf)
    for at in range(0, len(made), CHUNK):
        d = cdist(made[at : at + CHUNK], real, "cityblock")
        tied = d <= d.min(axis=1, keepdims=True) + TIE
        nearest += np.sum(tied / tied.sum(axis=1, keepdims=True), axis=0)
        distance[at : at + CHUNK] = d[:, : len(train)].min(axis=1) / n
        to_made = np.minimum(to_made, d.min(axis=0))
    fresh = np.concatenate([
        cdist(holdout[at : at + CHUNK], train, "cityblock").min(axis=1) for at in range(0, len(holdout), CHUNK)
    ]) / n  # fmt: skip
    error = math.sqrt(share * (1 - share) * np.sum((nearest - nearest.mean()) ** 2)) / len(made)
    advantage = _advantage(to_made[: len(train)], to_made[len(train) :])
    return Privacy(
        float(nearest[: len(train)].sum() / len(made)), share, error, advantage,
        math.sqrt(math.pi / 8 * (1 / len(train) + 1 / len(holdout))), float(np.mean(distance <= TIE)),
        float(np.mean(fresh <= TIE)), float(distance.mean()), float(fresh.mean()),
    )  # fmt: skip


def _advantage(fitted: np.ndarray, fresh: np.ndarray) -> float:
    """The largest difference of the shares below a threshold."""
    thresholds = np.unique(np.concatenate([fitted, fresh]))
    below = [np.searchsorted(np.sort(v), thresholds, side="right") / len(v) for v in (fitted, fresh)]
    return max(0.0, float(np.max(below[0] - below[1])))
