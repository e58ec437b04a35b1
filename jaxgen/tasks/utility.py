"""The use of a made table: a classifier that is fitted to it, and asked about real rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from jaxgen.core.errors import DataError, ModelError
from jaxgen.tasks.tabulated import Column


class Utility(NamedTuple):
    """The scores of a column told from the others in held-out rows, by a classifier of made and one of real rows.

    Args:
        target: the column, and above which number where it holds numbers.
        auc: fitted to made rows; the mean over classes, each against the others.
        real_auc: fitted to real ones.
        accuracy, real_accuracy: the same of the likeliest class.
    """

    target: str
    auc: float
    real_auc: float
    accuracy: float
    real_accuracy: float


def utility(columns: list[Column], target: str, above: float | None, classifier: Callable[[], Any] | None,
            called: str) -> Utility:  # fmt: skip
    """Fit classifiers of a column to made and to real rows, and ask both about held-out ones.

    The columns have the fitted, the held-out and the made table, in this order.

    Raises:
        DataError: no such column, or one class of it.
        ModelError: no scikit-learn for the classifier, where none is given.
    """
    one = next((column for column in columns if column.name == target), None)
    if one is None:
        raise DataError("there is no such column to be told", called=called, got=repr(target),
                        expected=", ".join(repr(c.name) for c in columns[:12]))  # fmt: skip
    others = [column for column in columns if column is not one]
    if not others:
        raise DataError("nothing is left to tell it from", called=called, expected="two columns or more", got="one")
    if one.label:
        name, classes = target, one.values
    else:
        seen = one.values[0][~np.isnan(one.values[0])]
        limit = float(np.median(seen)) if above is None else above
        name, classes = f"{target} >= {limit:g}", tuple((v >= limit).astype(int) for v in one.values)
    x = [np.concatenate(parts, axis=1) for parts in zip(*(column.features() for column in others), strict=True)]
    for role, own in zip(("real", "held-out", "made"), classes, strict=True):
        if len(np.unique(own)) < 2:
            raise DataError(f"{name} is the same in all {role} rows", called=called, expected="two classes or more",
                            got="one", fix="another target, or another number that it is to be above")  # fmt: skip
    make = _forest(called) if classifier is None else classifier
    scores = [_scored(make().fit(x[i], classes[i]), x[1], classes[1]) for i in (2, 0)]
    (auc, accuracy), (real_auc, real_accuracy) = scores
    return Utility(name, auc, real_auc, accuracy, real_accuracy)


def _forest(called: str) -> Callable[[], Any]:
    try:
        from sklearn.ensemble import ExtraTreesClassifier
    except ImportError:
        raise ModelError(
            "the classifier is scikit-learn's", called=called, expected="scikit-learn", got="none installed",
            fix="install scikit-learn, or give a classifier",
        ) from None  # fmt: skip
    # five rows a leaf: calibrated enough for ranks, and trees of moderate size
    return lambda: ExtraTreesClassifier(300, min_samples_leaf=5, random_state=0)


def _scored(fitted: Any, x: np.ndarray, classes: np.ndarray) -> tuple[float, float]:
    """The mean area under the curve over classes that are among the rows, and the share that is right."""
    probability, known = np.asarray(fitted.predict_proba(x)), np.asarray(fitted.classes_)
    areas = []
    for one in np.unique(classes):
        at = np.flatnonzero(known == one)
        areas.append(_area(probability[:, at[0]] if len(at) else np.zeros(len(x)), classes == one))
    return float(np.mean(areas)), float(np.mean(known[probability.argmax(axis=1)] == classes))


def _area(score: np.ndarray, positive: np.ndarray) -> float:
    """Return how often a positive scores above a negative, of equal scores a half."""
    n = int(positive.sum())
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))
