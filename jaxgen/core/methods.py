"""Checked methods: a class writes the code for one event; here shapes are checked and axes mapped.

A method so decorated sees one event and traced arrays only. For its callers leading axes of the data are a batch,
one compiled program serves each shape, and a wrong shape, a missing context or an old-style key is a clear error.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.algebra import context_shape
from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.fast import Events
from jaxgen.core.inputs import as_array, widened
from jaxgen.core.protocols import Mapped, has
from jaxgen.core.sequences import Sequences

Shape = tuple[int | None, ...]


def latent_shape(model: Any) -> Shape:
    """The shape on the latent side of a bijection or a model: what `forward` or `decode` takes.

    That of an event unless it says otherwise, in an attribute `latent_shape`.
    """
    return tuple(model.latent_shape if has(model, Mapped) else model.event_shape)


def same_shape(shape: Shape, wanted: Shape) -> bool:
    """Whether two shapes agree, where None stands for any length.

    Example:
        >>> same_shape((5, 2), (None, 2)), same_shape((2,), (3,))
        (True, False)
    """
    if len(shape) != len(wanted):
        return False
    return all(a == b or None in (a, b) for a, b in zip(shape, wanted, strict=True))


def check_key(key: Any, called: str) -> None:
    """Refuses anything but one typed key (`jax.random.key`)."""
    if not (hasattr(key, "dtype") and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise DataError(
            "one typed random key is needed", called=called, expected="jax.random.key(seed)",
            got=f"{type(key).__name__} {getattr(key, 'dtype', '')}{list(getattr(key, 'shape', []))}",
            fix="key = jax.random.key(0), and jax.random.split(key) for more",
        )  # fmt: skip


def batch_axes(shape: tuple[int, ...], event: Shape, called: str, what: str = "x") -> tuple[int, ...]:
    """The leading axes of `shape` in front of an event shape (None matches any length above zero).

    Example:
        >>> batch_axes((5, 7, 2), (None, 2), "demo")
        (5,)
    """
    split = len(shape) - len(event)
    fits = split >= 0 and all(
        s == e or (e is None and s > 0) for s, e in zip(shape[split:], event, strict=True)
    )
    if not fits:
        wanted = ", ".join("length" if e is None else str(e) for e in event)
        tail = " (leading axes are a batch)"
        hint = f"reshape {what}, so that it ends in an event"
        hint = f"np.asarray({what})[..., None] adds a last axis of 1" if event == (1,) else hint
        raise ShapeError(
            f"{what} does not end in the shape of one event", called=called,
            expected=f"[*batch{', ' if wanted else ''}{wanted}]{tail}", got=f"shape {list(shape)}", fix=hint,
        )  # fmt: skip
    return shape[:split]


def _as_events(x: Any, called: str) -> Any:
    """Events as a jax array or as `Sequences`; the values of one that is on the device already are not read back."""
    if isinstance(x, Sequences):
        return jax.tree.map(jnp.asarray, x.checked(name="x", called=called, allow_nan=True))
    real = (jnp.floating, jnp.integer, jnp.bool_)
    plain = isinstance(x, jax.Array) and x.size and any(jnp.issubdtype(x.dtype, kind) for kind in real)
    return widened(x) if plain else jnp.asarray(as_array(x, name="x", called=called, allow_nan=True))


def _check_context(model: Any, context: Any, batch: tuple[int, ...], called: str) -> tuple[Any, bool]:
    """The context as an array, and whether all events share one."""
    shape = context_shape(model)
    if (shape is None) != (context is None):
        wanted = "no context" if shape is None else f"context=[*batch, {', '.join(map(str, shape))}]"
        got = "none" if context is None else f"shape {list(np.shape(context))}"
        raise ShapeError(f"{called}: context does not fit the model", called=called, expected=wanted, got=got)
    if shape is None:
        return None, True
    context = jnp.asarray(as_array(context, name="context", called=called))
    axes = batch_axes(context.shape, shape, called, "context")  # type: ignore[arg-type]
    if axes not in ((), batch):
        raise ShapeError(
            f"{called}: context has another batch than the events", called=called,
            expected=f"leading axes {list(batch)} or none", got=f"leading axes {list(axes)}",
        )  # fmt: skip
    return context, axes == ()


def _map(one: Callable[..., Any], batch: tuple[int, ...], key: Any, x: Any, context: Any, shared: bool) -> Any:
    """`one(key, x, context)` over the leading axes `batch`, which the result gets back; a key for each where keyed."""
    if batch == ():
        return one(key, x, context)
    n = math.prod(batch)
    flat = lambda a: a.reshape((n, *a.shape[len(batch) :]))  # noqa: E731
    keys = None if key is None else jax.random.split(key, n)
    x = jax.tree.map(flat, x)
    context = context if shared else flat(context)
    axes = tuple(None if a is None else 0 for a in (keys, x)) + (None if shared else 0,)
    out = jax.vmap(one, in_axes=axes)(keys, x, context)
    return jax.tree.map(lambda leaf: leaf.reshape((*batch, *leaf.shape[1:])), out)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and bool(value >= 0)


def _sample_axes(shape: Any, called: str) -> tuple[int, ...]:
    axes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if not all(map(_is_count, axes)):
        raise ShapeError(
            "that is no shape", called=called, expected="a number of events, or a tuple of numbers",
            got=repr(shape)[:80], fix="model.sample(key, (1000,))",
        )  # fmt: skip
    return tuple(map(int, axes))


def _name(model: Any, method: Callable[..., Any]) -> str:
    return f"{type(model).__name__}.{method.__name__}"


def _signature(method: Callable[..., Any], skip: tuple[str, ...]) -> tuple[bool, tuple[str, ...]]:
    names = tuple(inspect.signature(method).parameters)
    arrays = ("self", "key", "x", "z", "context", "observed")
    return "context" in names, tuple(n for n in names if n not in (*arrays, *skip))


def check_observed(observed: Any, x: Any, event: Shape, called: str) -> Any:
    """The mask of the coordinates that are held, with the shape of the events; None holds none."""
    if observed is None:
        return None
    mask = jnp.asarray(observed)
    if mask.dtype != bool or mask.shape not in (x.shape, x.shape[x.ndim - len(event) :]):
        raise ShapeError(
            "observed is no mask of the events", called=called,
            expected=f"bools, of shape {list(x.shape)} or of one event", got=f"{mask.dtype}{list(mask.shape)}",
            fix=f"observed = np.zeros({tuple(e or 1 for e in event)}, bool), with True where x is to stay",
        )  # fmt: skip
    return jnp.broadcast_to(mask, x.shape)


def per_event(method: Callable[..., Any]) -> Callable[..., Any]:
    """Opens a method written for one event, `(self, [key,] x[, context], **static options)`, to batches.

    The public method takes `x` as `[*batch, *event]`, `context` (keyword) as `[*batch, *context]` or one shared
    `[*context]`, and returns leaves with the leading axes `[*batch]`. A keyed method gets an independent key per
    event. Calls are compiled, once per shape. A method with a parameter `observed` takes a mask of bools, `[*batch,
    *event]` or one shared `[*event]`, or None.

    Example:
        >>> from jaxgen.core.pytree import model
        >>> @model
        ... class Exponential:
        ...     rate: jax.Array
        ...     event_shape = ()
        ...     @per_event
        ...     def log_prob(self, x):
        ...         return jnp.log(self.rate) - self.rate * x
        >>> Exponential(jnp.float32(2.0)).log_prob(jnp.ones((4, 3))).shape
        (4, 3)
    """
    return _opened(method, "event_shape")


def per_latent(method: Callable[..., Any]) -> Callable[..., Any]:
    """As `per_event`, for a method of one latent vector, `(self, z[, context])`: the model has `latent_shape`."""
    return _opened(method, "latent_shape")


def _opened(method: Callable[..., Any], shape: str) -> Callable[..., Any]:
    keyed = "key" in inspect.signature(method).parameters
    masked = "observed" in inspect.signature(method).parameters
    takes_context, options = _signature(method, ())

    @functools.partial(jax.jit, static_argnames=("axes", "shared", *options))
    def mapped(
        self: Any, key: Any, x: Any, observed: Any, context: Any, axes: int, shared: bool, **static: Any
    ) -> Any:
        wide = widened(self)

        def one(key: Any, both: Any, context: Any) -> Any:
            x, observed = both
            given = ((key,) if keyed else ()) + (x,) + ((context,) if takes_context else ())
            return method(wide, *given, **({"observed": observed} if masked else {}), **static)

        return _map(one, x.shape[:axes], key, (x, observed), context, shared)

    return _checked(method, mapped, shape, keyed, masked)


def _checked(
    method: Callable[..., Any], compiled: Callable[..., Any], shape: str, keyed: bool, masked: bool
) -> Callable[..., Any]:
    """The public method: it checks what it is given, and calls the compiled one."""

    def call(self: Any, key: Any, x: Any, context: Any, static: dict[str, Any]) -> Any:
        called = _name(self, method)
        if keyed:
            check_key(key, called)
        x = _as_events(x, called)
        batch = batch_axes(x.shape, getattr(self, shape), called)
        context, shared = _check_context(self, context, batch, called)
        observed = check_observed(static.pop("observed", None), x, getattr(self, shape), called) if masked else None
        return compiled(self, key, x, observed, context, len(batch), shared, **static)

    if keyed:

        @functools.wraps(method)
        def public_keyed(self: Any, key: Any, x: Any, *, context: Any = None, **static: Any) -> Any:
            return call(self, key, x, context, static)

        return public_keyed

    @functools.wraps(method)
    def public(self: Any, x: Any, *, context: Any = None, **static: Any) -> Any:
        return call(self, None, x, context, static)

    return public


def per_sample(method: Callable[..., Any]) -> Callable[..., Any]:
    """Opens a sampler written for one event, `(self, key[, context][, length])`, to `shape` events.

    The public method is `sample(key, shape=(), *, context=None, length=None)`; `length` is the free axis of models
    whose event shape has one (`None`), and only of those. Further options are static keywords.
    """
    takes_context, options = _signature(method, ("length",))
    takes_length = "length" in inspect.signature(method).parameters

    @functools.partial(jax.jit, static_argnames=("batch", "shared", "length", *options))
    def mapped(self: Any, key: Any, context: Any, batch: Any, shared: bool, length: int | None, **static: Any) -> Any:
        wide = widened(self)

        def one(key: Any, _: Any, context: Any) -> Any:
            given = (context,) if takes_context else ()
            return method(wide, key, *given, **({"length": length} if takes_length else {}), **static)

        return _map(one, batch, key, None, context, shared)

    @functools.wraps(method)
    def public(
        self: Any, key: Any, shape: Any = (), *, context: Any = None, length: int | None = None, **static: Any
    ) -> Any:
        called = _name(self, method)
        check_key(key, called)
        batch = _sample_axes(shape, called)
        free = None in self.event_shape
        if free != (length is not None) or (free and not (_is_count(length) and length)):
            raise ShapeError(
                f"{called}: length does not fit the model", called=called,
                expected="length=, a positive int" if free else "no length: every event has one shape",
                got=f"length={length}",
            )  # fmt: skip
        context, shared = _check_context(self, context, batch, called)
        return mapped(self, key, context, batch, shared, length, **static)

    return public


def per_batch(method: Callable[..., Any]) -> Callable[..., Any]:
    """Opens a method written for a flat batch, `(self, [key,] x [N, *event][, context])`, to any batch.

    For models that work on many events at once, as a mixture does with its matrix of components by events; a keyed
    method draws for all of them from its one key. `context` is `[N, *context]` or None, and a parameter `observed` a
    mask `[N, *event]` or None, as in `per_event`. Further options are static keywords.
    """
    parameters = inspect.signature(method).parameters
    keyed, masked, takes_context = ("key" in parameters, "observed" in parameters, "context" in parameters)
    _, options = _signature(method, ())

    @functools.partial(jax.jit, static_argnames=("axes", "shared", *options))
    def flat(
        self: Any, key: Any, x: Any, observed: Any, context: Any, axes: int, shared: bool, **static: Any
    ) -> Any:
        batch, n = x.shape[:axes], math.prod(x.shape[:axes])
        if context is not None:
            context = jnp.broadcast_to(context, (n, *context.shape)) if shared else context.reshape(
                (n, *context.shape[axes:])
            )
        x, observed = jax.tree.map(lambda a: a.reshape((n, *a.shape[axes:])), (x, observed))
        given = ((key,) if keyed else ()) + (x,) + ((context,) if takes_context else ())
        out = method(widened(self), *given, **({"observed": observed} if masked else {}), **static)
        return jax.tree.map(lambda leaf: leaf.reshape((*batch, *leaf.shape[1:])), out)

    return _checked(method, flat, "event_shape", keyed, masked)


def weighted_events(method: Callable[..., Any]) -> Callable[..., Any]:
    """Checks the inputs of `e_step(x, weight[, label][, context])`: `x` is `[N, *event]`, `weight` `[N]` (None: ones).

    `x` may be `fast.Events`, which passes as it is: `EM` made it from checked events. `label` is `[N, ...]` int32,
    -1 where it is not known; `context` `[N, *context]`.
    """
    takes = inspect.signature(method).parameters

    @jax.jit
    def flat(self: Any, x: Any, weight: Any, further: dict[str, Any]) -> Any:
        return method(widened(self), x, weight, **further)

    @functools.wraps(method)
    def public(self: Any, x: Any, weight: Any = None, label: Any = None, context: Any = None) -> Any:
        called = _name(self, method)
        further = {"label": label, "context": context}
        for name, given in further.items():
            if given is not None and name not in takes:
                raise ShapeError(f"there is no {name} to take", called=called, expected="x and weight", got=f"a {name}")
        events, x = (x, x.x) if isinstance(x, Events) else (None, _as_events(x, called))
        batch = batch_axes(x.shape, self.event_shape, called)
        dtype = jnp.result_type(float) if not jnp.issubdtype(x.dtype, jnp.floating) else x.dtype
        given = None if weight is None else as_array(weight, name="weight", called=called)
        weight = jnp.ones(batch, dtype) if given is None else jnp.asarray(given)
        if len(batch) != 1 or weight.shape != batch:
            raise ShapeError(
                "one weight per event", called=called, expected="x [N, *event] and weight [N]",
                got=f"x {list(x.shape)}, weight {list(weight.shape)}",
                fix="give each event a weight" if len(batch) == 1 else "np.reshape(x, (-1, *model.event_shape))",
            )  # fmt: skip
        weight = weight if jnp.issubdtype(weight.dtype, jnp.floating) else weight.astype(dtype)
        further["context"], _ = _check_context(self, context, batch, called)
        further = {name: value for name, value in further.items() if name in takes}
        return flat(self, x if events is None else events, weight, further)

    return public
