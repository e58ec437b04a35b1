"""The way of numbers into estimators and out again: float32 or float64 as they came, seeds, rows of any number."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight

#: rows are padded to numbers with so many leading bits, so that few programs serve all sizes at an eighth more work
LEADING = 8


@contextlib.contextmanager
def precision_of(dtype: Any) -> Iterator[None]:
    """Compute in float64 where that is what came, whatever the process does by default.

    Example:
        >>> with precision_of(np.float64):
        ...     jax.numpy.ones(2).dtype
        dtype('float64')
    """
    with jax.enable_x64(np.dtype(dtype) == np.float64):
        yield


def key_of(random_state: Any) -> jax.Array:
    """Return a typed key from what scikit-learn takes for randomness: None, an int or a `RandomState`."""
    return jax.random.key(int(check_random_state(random_state).randint(2**31 - 1)))


def by_rows(function: Callable[[Any], Any], X: np.ndarray) -> np.ndarray:
    """Return what a compiled function makes of rows, each by itself, with few programs for all numbers of them.

    Example:
        >>> by_rows(lambda x: 2 * x, np.arange(3.0))
        array([0., 2., 4.])
    """
    rows = len(X)
    step = 1 << max((rows - 1).bit_length() - LEADING.bit_length() + 1, 0)
    padded = -(-rows // step) * step
    if padded > rows:
        X = np.concatenate([X, np.broadcast_to(X[-1:], (padded - rows, *X.shape[1:]))])
    with precision_of(X.dtype):
        return np.asarray(function(X))[:rows]


def checked_weight(weight: Any, X: np.ndarray) -> np.ndarray | None:
    """Return weights of events, not negative and not all zero, in the data's type; None for none.

    Raises:
        ValueError: another number of them, or negative ones, or a total of zero.
    """
    if weight is None:
        return None
    weight = _check_sample_weight(weight, X, dtype=X.dtype, ensure_non_negative=True)
    if not weight.sum() > 0:
        raise ValueError("sample_weight has a total of zero: no event is left to fit")
    return weight
