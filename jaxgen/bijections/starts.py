"""Starting the layers of a bijection from data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.basics import Startable
from jaxgen.core.errors import ShapeError
from jaxgen.core.inputs import floating
from jaxgen.core.methods import batch_axes, context_shape
from jaxgen.core.protocols import has


def started(layer: Any, x: Any, context: Any = None) -> tuple[Any, jax.Array]:
    """A layer that starts from the events `[N, *event]` that reach it, and those on its other side, `[N, *latent]`.

    Layers that can do so have a method `started(x, context)`, `Affine` and those made of layers; others stay as they
    are.
    """
    if has(layer, Startable):
        return layer.started(x, context)
    of = None if context_shape(layer) is None else context
    back = lambda x, context: layer.inverse_and_log_det(x, context)[0]  # noqa: E731
    return layer, jax.vmap(back, in_axes=(0, None if of is None else 0))(x, of)


def initialize(bijection: Any, x: Any, context: Any = None) -> Any:
    """The same bijection with every `Affine` in it started from data.

    The events pass from the data to the base; each `Affine` on the way takes the median and the robust scale of
    what reaches it, so that each layer below sees numbers of center 0 and scale 1. All other parameters stay.

    Args:
        bijection: any; `Chain`, `Scan` and what else is made of layers start their parts one after the other.
        x: events `[N, *event]`, a few hundred are enough.
        context: `[N, *context]` where the bijection takes one.

    Returns:
        a bijection of the same structure.

    Raises:
        ShapeError: events or contexts of another shape. DataError: data that are not data.

    Example:
        >>> from jaxgen.bijections import Affine, Chain
        >>> layers = Chain((Affine(jnp.zeros(1), jnp.zeros(1)), Affine(jnp.zeros(1), jnp.zeros(1))))
        >>> initialize(layers, jnp.array([[1.0], [3.0]])).layers[1].shift.tolist()
        [2.0]

    Source: Kingma and Dhariwal (2018), Glow, section 3.1; Salimans and Kingma (2016), Weight normalization, section 3.
    """
    called = "initialize(bijection, x)"
    x, shape = floating(x), context_shape(bijection)
    events = batch_axes(x.shape, tuple(bijection.event_shape), called)
    if len(events) != 1 or (shape is None) != (context is None):
        raise ShapeError(
            "that cannot start the bijection", called=called, expected=f"x [N, {list(bijection.event_shape)}]" + (
                "" if shape is None else f", context [N, {list(shape)}]"
            ), got=f"x {list(x.shape)}, context {None if context is None else list(jnp.shape(context))}",
        )  # fmt: skip
    if context is not None:
        context = floating(context, name="context")
        if context.shape != (*events, *(shape or ())):
            raise ShapeError(
                "one context for each event", called=called, expected=f"context [{events[0]}, *{list(shape or ())}]",
                got=f"shape {list(context.shape)}",
            )  # fmt: skip
    return _initialize(bijection, x, context)


@jax.jit
def _initialize(bijection, x, context):
    return started(bijection, x, context)[0]
