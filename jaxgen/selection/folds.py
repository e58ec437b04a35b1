"""Data that a fit did not see: what a model says of them, and cross-validation."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.fit.checks import check_counts
from jaxgen.fit.loop import Status
from jaxgen.metrics.information import Evidence, evidence
from jaxgen.selection.restarts import Found


def unseen_evidence(found: Found, held_out: Batch, called: str) -> Evidence:
    """Return the evidence of a fit on events that it did not see; NaN for a fit that failed."""
    failed = found.status == Status.NON_FINITE
    return Evidence(math.nan, math.nan, 0) if failed else evidence(found.padded, held_out, called)


def mean_nats(numbers: Evidence) -> float:
    """Return the log-likelihood in nats per event."""
    return numbers.log_likelihood / numbers.events


def split_folds(key: Any, batch: Batch, folds: int, called: str) -> list[tuple[Batch, Batch]]:
    """`(fitted, held out)` of each fold, all of one shape: one program serves them."""
    n = batch.events
    check_counts(called, {"folds": folds})
    if not 2 <= folds <= n:
        raise FitError("these are no folds", called=called, expected=f"2 to {n}", got=f"folds={folds}")
    order = np.asarray(jax.random.permutation(key, n))
    largest = -(-n // folds)
    weight = jnp.ones(n, jnp.result_type(float)) if batch.weight is None else batch.weight
    parts = []
    for part in np.array_split(order, folds):
        rest = np.setdiff1d(order, part)[: n - largest]  # smaller folds leave one event to neither
        filled = np.concatenate([part, np.repeat(part[:1], largest - len(part))])
        silent = jnp.asarray(np.arange(largest) < len(part))
        fitted = algebra.take(batch, rest)
        parts.append((fitted, Batch(algebra.take(batch.x, filled), None, weight[filled] * silent)))
    return parts


def cross_validate(search: Any, key: Any, parts: Any, k: int, width: int | None, called: str) -> float:
    """Nats per event of events that the fits did not see."""
    if width is not None:  # of a mixture
        if k > parts[0][0].events:
            return math.nan
        width = min(width, parts[0][0].events)
    total = weight = 0.0
    for i, (fitted, held_out) in enumerate(parts):
        found = search(jax.random.fold_in(key, i), fitted, k, width)
        numbers = unseen_evidence(found, held_out, called)
        total, weight = total + numbers.log_likelihood, weight + numbers.events
    return total / weight
