"""The protocols and helpers that all bijections share."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.inputs import floating, widened
from jaxgen.core.methods import context_shape, latent_shape, same_shape
from jaxgen.core.protocols import has
from jaxgen.core.sequences import padded


@runtime_checkable
class Bijection(Protocol):
    """An invertible map of one event.

    `event_shape` is the shape on the side of the data. One that differs on the side of the base, the input of
    `forward_and_log_det`, is in an attribute `latent_shape`.
    """

    @property
    def event_shape(self) -> tuple[int, ...]: ...

    def forward_and_log_det(self, x: Any, context: Any = None) -> tuple[jax.Array, jax.Array]:
        """From the base to the data: `y` and `log |det dy/dx|`."""
        ...

    def inverse_and_log_det(self, y: Any, context: Any = None) -> tuple[jax.Array, jax.Array]:
        """From the data to the base: `x` and `log |det dx/dy|`."""
        ...


class Startable(Protocol):
    """A layer that starts from the events that reach it. Default: it stays as it is."""

    def started(self, x: Any, context: Any = None) -> tuple[Any, jax.Array]:
        """The layer from events `[N, *event]`, and those on its other side, `[N, *latent]`."""
        ...


class Periodic(Protocol):
    """A transform or a support that closes on the circle. Default: of the line."""

    periodic: Any


class Wrapping(Protocol):
    """A layer made of copies of another."""

    layer: Any


class Transforming(Protocol):
    """A layer that moves numbers by a transform of one number."""

    transform: Any


def is_periodic(value: Any) -> bool:
    """Return whether a transform or support closes on the circle."""
    return has(value, Periodic) and bool(value.periodic)


def check(layer: Any, method: str, x: Any, context: Any) -> None:
    """One event, and the context the layer was made for: a batch would be split along the wrong axis in silence."""
    x, wanted = padded(x), context_shape(layer)
    side = latent_shape(layer) if method == "forward_and_log_det" else layer.event_shape
    for what, array, shape in (("x", x, side), ("context", context, wanted)):
        if shape is not None and (array is None or not same_shape(jnp.shape(array), shape)):
            raise ShapeError(
                f"{what} does not fit the layer", called=f"{type(layer).__name__}.{method}({what}={what})",
                expected=f"one event's, shape {list(shape)}",
                got="none" if array is None else f"shape {list(jnp.shape(array))}",
                fix=f"jax.vmap(layer.{method})(x) for a batch",
            )  # fmt: skip


def shared_context(*parts: Any) -> tuple[int, ...] | None:
    """The one context shape of all parts that take a context."""
    shapes = {context_shape(part) for part in parts} - {None}
    if len(shapes) > 1:
        raise ModelError(
            "the parts of a flow take contexts of different shapes", called="Flow.context_shape",
            expected="one context for all parts that take one", got=str(sorted(map(str, shapes))),
        )  # fmt: skip
    return next(iter(shapes), None)


def context_size(shape: tuple[int, ...] | None) -> int:
    """Return the number of values that a context adds to a network's input."""
    return 0 if shape is None else math.prod(shape)


def with_context(seen: jax.Array, context: Any) -> jax.Array:
    """Return a network's input `[*lead, K]` with the flat context appended at each of `lead`: `[*lead, K + C]`."""
    if context is None:
        return seen
    # in the event's dtype: a context of higher precision must not change the density's
    flat = jnp.ravel(context).astype(seen.dtype)
    return jnp.concatenate([seen, jnp.broadcast_to(flat, (*seen.shape[:-1], flat.size))], axis=-1)


def as_floating(x: Any, *trees: Any) -> Any:
    """`x` in the floating dtype in which it meets the arrays of `trees`, in its own where they have none; 32 bits or
    more."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(trees) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    own = jnp.result_type(x) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else jnp.result_type(float)
    return widened(jnp.asarray(x).astype(jnp.result_type(*dtypes) if dtypes else own))


def example(x: Any) -> jax.Array:
    """Return the events that a layer is made for, or for the shape of one, `(D,)` or D alone, a row of zeros like it.

    Example:
        >>> example((4, 4, 3)).shape, example(2).shape, example([[1.0, 2.0]]).shape
        ((1, 4, 4, 3), (1, 2), (1, 2))
    """
    shape = as_shape(x)
    return floating(x) if shape is None else jnp.zeros((1, *shape))


def as_shape(x: Any) -> tuple[int, ...] | None:
    """Return the shape of one event where that is what was given, `(D,)` or D alone; None of events.

    Example:
        >>> as_shape((4, 4)), as_shape(2), as_shape([[1.0, 2.0]])
        ((4, 4), (2,), None)
    """
    shape = (x,) if is_size(x) else x
    return tuple(map(int, shape)) if isinstance(shape, tuple) and all(map(is_size, shape)) else None


def is_size(value: Any) -> bool:
    """True for the length of an axis: a whole number of 1 or more, and no array."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value > 0)


def vectors(x: Any, called: str) -> tuple[int, Any]:
    """The size D and the dtype of events `[N, D]`, or of the shape `(D,)` of one, that a layer is made for.

    Raises:
        ShapeError: events that are no vectors.
    """
    x = example(x)
    if x.ndim != 2:
        raise ShapeError(
            "this layer takes vectors", called=called, expected="x [N, D], or the shape (D,) of one",
            got=f"shape {list(x.shape)}", fix="np.reshape(x, (len(x), -1))",
        )  # fmt: skip
    return int(x.shape[1]), x.dtype
