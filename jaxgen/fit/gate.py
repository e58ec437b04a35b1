"""The gate that every batch of a fit comes through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxgen.core import latent
from jaxgen.core.algebra import absent_axes, check_context, context_optional
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch, as_batch
from jaxgen.core.methods import batch_axes, context_shape
from jaxgen.fit.checks import check_label


@dataclass(frozen=True)
class Gate:
    """Turns what was passed as data into a `Batch` that a model and an algorithm can take, or refuses.

    Args:
        model: one, of which only the structure counts.
        algorithm: that will see the batch.
    """

    model: Any
    algorithm: Any

    def __call__(self, data: Any, name: str = "data") -> Batch:
        """The events of one batch, chunk or set, checked, wherever they are.

        Raises:
            DataError, ShapeError: data that do not fit the model. FitError: a context or labels nobody looks at.
        """
        model = self.model
        called = f"fit(key, {type(model).__name__}, {name})"
        batch = as_batch(data, name=name, called=called, missing=latent.accepts_missing(model),
                         unseen=latent.unseen(model), schema=latent.schema(model),
                         absent=absent_axes(model))  # fmt: skip
        if len(batch_axes(np.shape(batch.x), model.event_shape, called, name)) != 1:
            raise FitError(
                f"{name} needs one leading axis of events", called=called, expected=f"[N, {model.event_shape}]",
                got=f"shape {list(np.shape(batch.x))}",
                fix=f"np.asarray({name})[None]" if np.ndim(batch.x) == len(model.event_shape)
                else "flatten leading axes",
            )  # fmt: skip
        latent.check_data(model, batch.x)
        self._check_context(batch.context, name, called)
        check_context(model, batch.context)
        check_label(self.algorithm, model, batch.label, f"fit(key, model, {name})")
        return batch

    def _check_context(self, context: Any, name: str, called: str) -> None:
        wanted = context_shape(self.model)
        given = None if context is None else np.shape(context)[1:]
        if given is None and context_optional(self.model):
            return  # absent, of all events
        if not _alike(wanted, given):
            raise FitError(
                f"the context of {name} does not fit the model", called=called,
                expected="no context" if wanted is None else f"context [N, {', '.join(map(str, wanted))}]",
                got="none" if given is None else f"[N, {', '.join(map(str, given))}]",
                fix=f"{name} = (x, context)" if given is None else "leave it out" if wanted is None else "reshape it",
            )  # fmt: skip


def _alike(wanted: Any, given: Any) -> bool:
    """True if a context's shape is the one wanted, in which None is any length."""
    if wanted is None or given is None:
        return wanted is given
    return len(wanted) == len(given) and all(w in (None, g) for w, g in zip(wanted, given, strict=True))
