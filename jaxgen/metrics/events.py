"""Data as a measure of a model takes them: a checked batch of events."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.errors import DataError
from jaxgen.core.inputs import Batch, as_batch, widened
from jaxgen.core.methods import batch_axes

#: events looked at at once, and scalars of data times draws: what keeps the memory of a wide network small
CHUNK_EVENTS = 2048
CHUNK_SCALARS = 2**20


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


def by_chunks(
    number: Callable[[Any, Any, Any], Any], key: Any, batch: Batch, cost: int = 1, dtype: Any = np.float64
) -> np.ndarray:
    """Return `number(key, x, context)` of every event, `[N, ...]`, a chunk of equal size at a time.

    Args:
        number: of a chunk, `[n, ...]`, with a key of its own.
        key: typed key.
        batch: events, with contexts or without.
        cost: how many times the scalars of the data it holds at once, such as the number of draws.
        dtype: of the result; None is that of the number.

    Example:
        >>> batch = Batch(jnp.arange(6.0).reshape(3, 2))
        >>> by_chunks(lambda key, x, context: x.sum(axis=1), jax.random.key(0), batch).tolist()
        [1.0, 5.0, 9.0]
    """
    n = batch.events
    scalars = max(1, math.prod(np.shape(batch.x)[1:]) * cost)
    chunks = -(-n // max(1, min(CHUNK_EVENTS, CHUNK_SCALARS // scalars)))
    size = -(-n // chunks)
    values: Any = None
    for i in range(chunks):
        start = min(i * size, n - size)  # the last chunk is moved back: one compiled program for all
        part = jax.tree.map(lambda a, s=start: jnp.asarray(widened(a[s : s + size])), (batch.x, batch.context))
        found = np.asarray(number(jax.random.fold_in(key, i), *part))
        values = np.empty((n, *found.shape[1:]), dtype or found.dtype) if values is None else values
        values[start : start + size] = found
    return values
