"""Labels of events as the tasks take them: whole numbers from 0, -1 where a class is not known."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import as_array, as_label


def checked_labels(label: Any, n: int, called: str, *, classes: int | None = None, least: int = 1,
                   unknown: bool = False, numbered: bool = False) -> np.ndarray:  # fmt: skip
    """Return labels of n events as int32 `[n]`, or refuse what are none.

    Args:
        label: whole numbers from 0; -1 where not known.
        n: number of events.
        called: what the user called, for errors.
        classes: their number, where it is given.
        least: so many classes have to be among them.
        unknown: -1 is let in.
        numbered: classes are numbered through, so that the largest label says how many there are.

    Raises:
        DataError: no whole numbers, none known, classes that are not there or too few of them. ShapeError: another
            number of labels than of events.

    Example:
        >>> checked_labels([0, 2, -1], 3, "demo", unknown=True).tolist()
        [0, 2, -1]
    """
    label = np.asarray(as_label(as_array(label, name="label", called=called, allow_nan=True), "label", called))
    if label.shape != (n,):
        raise ShapeError("there is a label for each event", called=called, expected=f"label [{n}]",
                         got=f"shape {list(label.shape)}")  # fmt: skip
    known = np.unique(label[label >= 0])
    if not len(known):
        raise DataError("no label is known", called=called, expected="a label of 0 or more of some events",
                        got=f"{n} labels -1")  # fmt: skip
    if len(known) < len(np.unique(label)) and not unknown:
        raise DataError("some labels are not known", called=called, expected="a class of each event",
                        got=f"{int((label < 0).sum())} of {n} labels -1", fix="leave those events out")  # fmt: skip
    if len(known) < least:
        raise DataError("there is only one class", called=called, expected="labels of 2 classes or more",
                        got=f"label {int(known[0])} throughout")  # fmt: skip
    if numbered and classes is None and known[-1] >= n:
        raise DataError("labels are no numbers of classes", called=called,
                        expected=f"0 to {len(known) - 1} for {len(known)} classes", got=f"up to {int(known[-1])}",
                        fix="number the classes without gaps")  # fmt: skip
    if classes is not None and known[-1] >= classes:
        raise DataError("a label is of a class that is not there", called=called, expected=f"0 to {classes - 1}",
                        got=str(int(known[-1])), fix="a larger number of classes, or other labels")  # fmt: skip
    return label
