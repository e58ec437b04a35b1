"""Data as a measure of a model takes them: a checked batch of events."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.errors import DataError
from jaxgen.core.inputs import Batch, as_batch
from jaxgen.core.methods import batch_axes


def events_of(model: Any, data: Any, called: str) -> Batch:
    """Return data as a batch of the model's events, or refuse what is none, or what the model refuses.

    Args:
        model: has an `event_shape`.
        data: an array `[N, *event]`, `Sequences`, or a tuple or dict of events and what comes with them.
        called: what the user called, for errors.

    Raises:
        DataError, ShapeError: data that do not fit the model, or one event in place of several.

    Example:
        >>> import jaxgen as jg
        >>> events_of(jg.StandardNormal((2,)), [[0.0, 1.0]], "demo").events
        1
    """
    batch = as_batch(
        data, called=called, missing=latent.accepts_missing(model), unseen=latent.unseen(model),
        schema=latent.schema(model), absent=algebra.absent_axes(model),
    )  # fmt: skip
    if len(batch_axes(np.shape(batch.x), model.event_shape, called, "data")) != 1:
        raise DataError(
            "data need one leading axis of events", called=called, expected=f"[N, {model.event_shape}]",
            got=f"shape {list(np.shape(batch.x))}", fix="np.asarray(data)[None] for one event",
        )  # fmt: skip
    latent.check_data(model, batch.x)
    return batch
