"""Data that a fit did not see: what a model says of them, and cross-validation."""

from __future__ import annotations

import math
from typing import Any

import jax

from jaxgen.core.inputs import Batch
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
