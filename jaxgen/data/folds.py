"""Events split into folds, of which each is left out once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.methods import is_count


def split_folds(key: Any, batch: Batch, folds: int, called: str) -> list[tuple[Batch, Batch]]:
    """`(fitted, held out)` of each fold, all of one shape: one program serves them."""
    n = batch.events
    if not (is_count(folds, 2) and folds <= n):
        raise FitError("these are no folds", called=called, expected=f"2 to {n}", got=f"folds={folds!r}")
    order = np.asarray(jax.random.permutation(key, n))
    largest = -(-n // folds)
    weight = jnp.ones(n, jnp.result_type(float)) if batch.weight is None else batch.weight
    parts = []
    for part in np.array_split(order, folds):
        rest = np.setdiff1d(order, part)[: n - largest]  # smaller folds leave one event to neither
        filled = np.concatenate([part, np.repeat(part[:1], largest - len(part))])
        silent = jnp.asarray(np.arange(largest) < len(part))
        fitted = algebra.take(batch, rest)
        parts.append((fitted, algebra.take(batch, filled)._replace(weight=weight[filled] * silent, label=None)))
    return parts
