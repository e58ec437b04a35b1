"""Checks that `fit` and `scan_fit` make before the first step: of the algorithm, numbers and labels."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.core.algorithms import Algorithm, Prepared, Scheduled, Traits
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.methods import context_shape
from jaxgen.core.protocols import Implicit, Labelled, has
from jaxgen.core.pytree import float_type


def check_counts(called: str, counts: dict[str, Any], least: int = 1) -> None:
    """Refuses options that are no integers of `least` or more; None passes."""
    for name, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least):
            raise FitError(
                f"{name} must be {'a positive' if least else 'an'} int", called=called, got=repr(value)[:80],
                expected=f"{name} of {least} or more",
            )  # fmt: skip


def check_algorithm(algorithm: Any, called: str) -> None:
    """Refuses what is no `Algorithm`."""
    known = isinstance(algorithm, Algorithm) and isinstance(algorithm.traits, Traits)  # of a class it is a property
    if isinstance(algorithm, type) or not known:
        raise FitError(
            "that is no algorithm", called=called, expected="an instance with init, step and traits",
            got=repr(algorithm)[:80], fix="jaxgen.EM(), or jaxgen.Gradient(jaxgen.losses.nll, optax.adam(1e-3))",
        )  # fmt: skip


def for_steps(algorithm: Any, steps: int) -> Any:
    """Return an algorithm for a fit of so many steps: one whose step sizes fall to the end knows where that is."""
    return algorithm.for_steps(max(steps, 1)) if isinstance(algorithm, Scheduled) else algorithm


def no_data(algorithm: Any, model: Any, called: str) -> Any:
    """Return placeholder data for an algorithm that uses none: one event of zeros.

    Raises:
        FitError: an algorithm that needs data.
    """
    shape = model.event_shape if has(model, Implicit) else (None,)
    if algorithm.traits.data or None in shape or context_shape(model) is not None:
        raise FitError(
            "there are no data", called=called, expected="data, or a loss that needs none and a model without context",
            got=f"None, {str(algorithm)[:80]}", fix="jaxgen.Gradient(jaxgen.losses.reverse_kl(log_density))",
        )  # fmt: skip
    return jnp.zeros((1, *shape), float_type(model))


def prepare(algorithm: Any, model: Any, batch: Batch, batch_size: int | None) -> Batch:
    """All events in the form that the algorithm's steps like best, where it has one and sees all of them in a step."""
    whole = batch_size is None and isinstance(algorithm, Prepared)
    return algorithm.prepare(model, batch) if whole else batch


def check_label(algorithm: Any, model: Any, label: Any, called: str) -> None:
    """Refuses labels that nobody would look at, or that the model has no class for."""
    if label is None:
        return
    if not (algorithm.traits.labels and has(model, Labelled)):
        raise FitError(
            "labels would not be looked at", called=called,
            expected="EM or Gradient on a mixture or chain, or data without label",
            got=f"{type(algorithm).__name__} on {type(model).__name__}",
            fix="leave the label out, or fit a mixture by EM or Gradient",
        )  # fmt: skip
    model.check_label(label)


def check_batch_size(algorithm: Any, batch_size: int | None, n: int) -> None:
    """Refuses a batch size that the algorithm or the data cannot serve."""
    if batch_size is None:
        return
    if algorithm.traits.full_batch:
        raise FitError(
            f"{type(algorithm).__name__} needs all events in every step", called=f"fit(..., batch_size={batch_size})",
            expected="batch_size=None", got=str(batch_size), fix="leave batch_size out, or use jaxgen.Gradient",
        )  # fmt: skip
    if not 1 <= batch_size <= n:
        raise FitError(
            "the batch size does not fit the data", called=f"fit(..., batch_size={batch_size})",
            expected=f"1 to {n}, the number of events", got=str(batch_size),
        )  # fmt: skip
