"""Coordinates of an event, chosen by their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgen.core.errors import ModelError


def chosen_and_rest(indices: Any, size: int, called: str) -> tuple[np.ndarray, np.ndarray]:
    """Return some coordinates of an event as a static array, and those that are left.

    Args:
        indices: different numbers from 0 to `size - 1`, in any order, which is kept.
        size: D, how many coordinates an event has.
        called: what the user called, for errors.

    Raises:
        ModelError: no coordinates, one of them twice, or others than there are.

    Example:
        >>> [part.tolist() for part in chosen_and_rest((3, 0), 4, "f(indices)")]
        [[3, 0], [1, 2]]
    """
    chosen = np.asarray(indices, int).reshape(-1)
    if not len(chosen) or len(set(chosen)) != len(chosen) or (chosen < 0).any() or (chosen >= size).any():
        raise ModelError(
            "these are no coordinates of an event", called=called, expected=f"different numbers from 0 to {size - 1}",
            got=repr(indices)[:80],
        )  # fmt: skip
    return chosen, np.setdiff1d(np.arange(size), chosen)
