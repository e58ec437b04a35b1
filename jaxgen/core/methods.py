"""Checked methods: a class writes the code for one event; here shapes are checked and axes mapped.

A method so decorated sees one event and traced arrays only. For its callers leading axes of the data are a batch,
one compiled program serves each shape, and a wrong shape, a missing context or an old-style key is a clear error.
`per_event`, `per_latent`, `per_batch`, `per_sample`, `per_level` and `weighted_events` are ways through one mechanism.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import latent, signatures
from jaxgen.core.algebra import check_context, context_optional, context_shape
from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.fast import Events
from jaxgen.core.inputs import COMPANIONS, as_array, as_events, as_label, check_rows, concrete, widened
from jaxgen.core.protocols import Mapped, has
from jaxgen.core.pytree import float_type
from jaxgen.core.rare import rare_paths_left_out, with_rare_paths, without_rare_paths

F = TypeVar("F", bound=Callable[..., Any])
Shape = tuple[int | None, ...]


def latent_shape(model: Any) -> Shape:
    """The shape on the latent side of a bijection or a model: what `forward_and_log_det` or `decode` takes.

    That of an event unless it says otherwise, in an attribute `latent_shape`.
    """
    return tuple(model.latent_shape if has(model, Mapped) else model.event_shape)


def same_shape(shape: Shape, wanted: Shape) -> bool:
    """True if two shapes agree, where None stands for any length.

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
    if split >= 0 and shape[split:] == event:
        return shape[:split]
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


def _as_events(model: Any, x: Any, called: str) -> Any:
    """Events as a jax array or as `Sequences`; the values of one that is on the device already are not read back."""
    if isinstance(x, jax.Array) and x.size and _is_real(x.dtype):
        return x if x.dtype.itemsize > 2 else widened(x)
    known = None if isinstance(x, np.ndarray) else latent.schema(model)
    return jax.tree.map(jnp.asarray, as_events(x, name="x", called=called, allow_nan=True, schema=known))


@functools.cache
def _is_real(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _check_context(
    model: Any, context: Any, batch: tuple[int, ...], length: int | None, called: str
) -> tuple[Any, bool]:
    """The context as an array, and whether all events share one."""
    shape = context_shape(model)
    if shape is None and context is None:
        return None, True
    optional = context_optional(model)
    if context is None and optional and shape is not None:
        # on the host: no program is run for what is not there
        return np.full([length if n is None else n for n in shape], np.nan, jnp.result_type(float)), True
    if shape is None or context is None:
        wanted = "no context" if shape is None else f"context=[*batch, {', '.join(map(str, shape))}]"
        got = "none" if context is None else f"shape {list(np.shape(context))}"
        raise ShapeError(f"{called}: context does not fit the model", called=called, expected=wanted, got=got)
    context = jnp.asarray(as_array(context, name="context", called=called, allow_nan=optional))
    axes = batch_axes(context.shape, shape, called, "context")
    if axes not in ((), batch):
        raise ShapeError(
            f"{called}: context has another batch than the events", called=called,
            expected=f"leading axes {list(batch)} or none", got=f"leading axes {list(axes)}",
        )  # fmt: skip
    check_context(model, context)
    if optional:  # one dtype, in which absence can be written
        context = context if jnp.issubdtype(context.dtype, jnp.floating) else context.astype(jnp.result_type(float))
        check_rows(context, len(axes) + shape.count(None), called)
    return context, axes == ()


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


def _check_label(label: Any, batch: tuple[int, ...], called: str) -> Any:
    """Labels of the events as int32, -1 where not known; one number is the label of all."""
    if label is None:
        return None
    label = as_label(as_array(label, name="label", called=called, allow_nan=True), "label", called)
    if label.ndim and label.shape[: len(batch)] != batch:
        raise ShapeError(
            "label has another batch than the events", called=called, expected=f"{COMPANIONS['label'].shape}, batch "
            f"{list(batch)}", got=f"shape {list(label.shape)}",
        )  # fmt: skip
    return jnp.asarray(label) if label.ndim else jnp.full(batch, label)


def _check_weight(weight: Any, x: Any, batch: tuple[int, ...], called: str) -> Any:
    dtype = jnp.result_type(float) if not jnp.issubdtype(x.dtype, jnp.floating) else x.dtype
    given = None if weight is None else as_array(weight, name="weight", called=called)
    weight = jnp.ones(batch, dtype) if given is None else given if isinstance(given, jax.Array) else jnp.asarray(given)
    if len(batch) != 1 or weight.shape != batch:
        raise ShapeError(
            "one weight per event", called=called, expected="x [N, *event] and weight [N]",
            got=f"x {list(x.shape)}, weight {list(weight.shape)}",
            fix="give each event a weight" if len(batch) == 1 else "np.reshape(x, (-1, *model.event_shape))",
        )  # fmt: skip
    return weight if jnp.issubdtype(weight.dtype, jnp.floating) else weight.astype(dtype)


def is_count(value: Any, least: int = 0) -> bool:
    """True for a whole number from `least` on."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def sample_axes(shape: Any, called: str) -> tuple[int, ...]:
    """Return the axes of so many draws: a number or several, or refuse them."""
    axes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if not all(map(is_count, axes)):
        raise ShapeError(
            "that is no shape", called=called, expected="a number of events, or a tuple of numbers",
            got=repr(shape)[:80], fix="shape = (1000,)",
        )  # fmt: skip
    return tuple(map(int, axes))


def _check_length(model: Any, length: Any, called: str) -> None:
    free = None in model.event_shape
    if free != (length is not None) or (free and not is_count(length, 1)):
        raise ShapeError(
            f"{called}: length does not fit the model", called=called,
            expected="length=, a positive int" if free else "no length: every event has one shape",
            got=f"length={length}",
        )  # fmt: skip


def _free_length(x: Any, batch: tuple[int, ...], event: Shape) -> int | None:
    """The length of events that have a free one."""
    return x.shape[len(batch) + event.index(None)] if None in event else None


def _mapped(one: Callable[..., Any], keyed: bool, batch: tuple[int, ...], shared: bool, arrays: Any, rows: Any) -> Any:
    """`one(*arrays, **rows)` over the leading axes `batch`, which the result gets back; a key for each where keyed."""
    if batch == ():
        return one(*arrays, **rows)
    n = math.prod(batch)
    flat = lambda a: a.reshape((n, *a.shape[len(batch) :]))  # noqa: E731
    key = (jax.random.split(arrays[0], n),) if keyed else ()
    stays = {name: name == "context" and shared for name in rows}
    rows = {name: a if stays[name] else jax.tree.map(flat, a) for name, a in rows.items()}
    in_axes = (0, {name: None if stays[name] else 0 for name in rows})
    over = jax.vmap(lambda arrays, rows: one(*arrays, **rows), in_axes=in_axes)
    out = over((*key, *jax.tree.map(flat, arrays[len(key) :])), rows)
    return jax.tree.map(lambda leaf: leaf.reshape((*batch, *leaf.shape[1:])), out)


def _flat(one: Callable[..., Any], keyed: bool, batch: tuple[int, ...], shared: bool, arrays: Any, rows: Any) -> Any:
    """`one` of all events in one batch `[N, ...]`, with one key; its result gets the leading axes `batch` back."""
    n = math.prod(batch)
    # `Events`, which an E-step hands on to its own `log_prob`, are one batch already
    flat = lambda a: a if len(batch) == 1 else a.reshape((n, *a.shape[len(batch) :]))  # noqa: E731
    rows = {name: None if a is None else jnp.broadcast_to(a, (n, *a.shape)) if name == "context" and shared else flat(a)
            for name, a in rows.items()}  # fmt: skip
    out = one(*arrays[:keyed], *jax.tree.map(flat, arrays[keyed:]), **rows)
    return jax.tree.map(lambda leaf: leaf.reshape((*batch, *leaf.shape[1:])), out)


def _whole(one: Callable[..., Any], keyed: bool, batch: tuple[int, ...], shared: bool, arrays: Any, rows: Any) -> Any:
    """`one` of a batch `[N, ...]` that is all there is."""
    context = rows.get("context")
    if context is not None and shared:
        rows = rows | {"context": jnp.broadcast_to(context, (*batch, *context.shape))}
    return one(*arrays, **rows)


class _Way(NamedTuple):
    """The calling convention that one decorator gives to its methods.

    Args:
        decorator: its name, for errors.
        positional: what such a method takes by position.
        companions: what it may take beside that.
        run: what is done with the method for one event.
        unused: companions that a call may name although the method does not take them.
    """

    decorator: str
    positional: tuple[str, ...]
    companions: tuple[str, ...]
    run: Callable[..., Any]
    unused: tuple[str, ...] = ("context", "label")


_EVENT = _Way("per_event", ("key", "x"), ("context", "label", "observed"), _mapped)
_LATENT = _Way("per_latent", ("key", "z"), ("context", "label"), _mapped)
_BATCH = _Way("per_batch", ("key", "x"), ("context", "label", "observed"), _flat)
_SAMPLE = _Way("per_sample", ("key", "shape"), ("context", "label", "length"), _mapped, ("context", "label", "length"))
_LEVEL = _Way("per_level", ("level",), ("context",), _mapped)
_WEIGHTED = _Way("weighted_events", ("x", "weight"), ("context", "label"), _whole)


def _opened(method: F, way: _Way) -> F:
    """The public method: it binds and checks what it is given, and runs one compiled program."""
    signature = signatures.read(
        method, decorator=way.decorator, positional=way.positional, companions=way.companions, unused=way.unused
    )
    name, keyed = method.__name__, "key" in signature.positional
    of_events = "x" in signature.positional and "weight" not in signature.positional
    check = {"shape": _checked_sample, "level": _checked_levels}.get(signature.positional[-1], _checked_events)
    static = (*signature.options, *({"length"} & {*signature.companions}))

    def run(self: Any, arrays: Any, rows: Any, batch: tuple[int, ...], shared: bool, **options: Any) -> Any:
        wide = widened(self)
        one = lambda *arrays, **rows: method(wide, *arrays, **rows, **options)  # noqa: E731
        out = way.run(one, keyed, batch, shared, arrays, rows)
        if rare_paths_left_out() and not all(jnp.issubdtype(a.dtype, jnp.inexact) for a in jax.tree.leaves(out)):
            with with_rare_paths():  # labels and bools cannot say that they are wrong
                out = way.run(one, keyed, batch, shared, arrays, rows)
        return out, _undefined(jax.lax.optimization_barrier(out), arrays[-1]) if of_events else False

    run.__name__ = name  # what profiles and logs call the program
    compiled = jax.jit(run, static_argnames=("batch", "shared", *static))

    @functools.wraps(method)
    def public(self: Any, *args: Any, **given: Any) -> Any:
        called = f"{type(self).__name__}.{name}"
        given = signature.bound(self, called, args, given)
        key: tuple[Any, ...] = ()
        if keyed:
            key = (given.pop("key"),)
            check_key(key[0], called)
        arrays, rows, batch, shared = check(self, given, signature, called)
        program = functools.partial(compiled, self, (*key, *arrays), rows, batch, shared, **given)
        eager = of_events and concrete((self, arrays, rows))
        with without_rare_paths() if eager else contextlib.nullcontext():
            out, undefined = program()
        if eager and (isinstance(undefined, jax.core.Tracer) or undefined):  # inside a larger program, or rare
            out, undefined = program()
        if of_events and not isinstance(undefined, jax.core.Tracer) and undefined and not latent.accepts_missing(self):
            # only where a result is NaN are the events looked at
            as_events(arrays[-1], name="x", called=called, missing=latent.unseen(self))
        return out

    public.__signature__ = signature.public  # type: ignore[attr-defined]
    return public  # type: ignore[return-value]


def _undefined(out: Any, x: Any) -> Any:
    """True where a result is NaN or, of a method without floating results, an event."""
    floats = lambda tree: [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.floating)]  # noqa: E731
    return functools.reduce(jnp.logical_or, (jnp.isnan(a).any() for a in floats(out) or floats(x)), jnp.array(False))


def _checked_sample(model: Any, given: dict[str, Any], signature: Any, called: str) -> Any:
    """Take the checked inputs of a sampler's program out of the arguments of a call; options stay there."""
    batch = sample_axes(given.pop("shape", ()), called)
    length = given.get("length") if "length" in signature.companions else given.pop("length", None)
    _check_length(model, length, called)
    rows, shared = _companions(model, given, batch, length, signature, called)
    if "length" in signature.companions:
        given["length"] = length
    return (), rows, batch, shared


def _checked_levels(model: Any, given: dict[str, Any], signature: Any, called: str) -> Any:
    """Take the checked inputs of a program on levels `[*batch]` out of the arguments of a call; options stay there."""
    level = as_levels(given.pop("level"), jnp.promote_types(float_type(model), jnp.float32), called)
    rows, shared = _companions(model, given, level.shape, None, signature, called)
    return (level,), rows, level.shape, shared


def as_levels(level: Any, dtype: Any, called: str) -> jax.Array:
    """Return probabilities above 0 and below 1 as an array, NaN for others that cannot be seen yet, or refuse them."""
    level = as_array(level, name="level", called=called)
    if concrete(level) and not ((np.asarray(level) > 0) & (np.asarray(level) < 1)).all():
        raise DataError(
            "a level is a probability", called=called, expected="above 0 and below 1",
            got=f"{np.min(level)} to {np.max(level)}", fix="0.05 for five percent",
        )  # fmt: skip
    level = jnp.asarray(level, dtype)
    return jnp.where((level > 0) & (level < 1), level, jnp.nan)


def _checked_events(model: Any, given: dict[str, Any], signature: Any, called: str) -> Any:
    """Take the checked inputs of a program on events out of the arguments of a call; options stay there."""
    latent, weighted = "z" in signature.positional, "weight" in signature.positional
    event: Shape = latent_shape(model) if latent else model.event_shape
    x = given.pop("z" if latent else "x")
    whole, x = (x, x.x) if isinstance(x, Events) else (None, _as_events(model, x, called))
    batch = batch_axes(x.shape, event, called)
    weight = (_check_weight(given.pop("weight", None), x, batch, called),) if weighted else ()
    rows, shared = _companions(model, given, batch, _free_length(x, batch, event), signature, called)
    if "observed" in signature.companions:
        rows["observed"] = check_observed(given.pop("observed", None), x, event, called)
    return (x if whole is None else whole, *weight), rows, batch, shared


def _companions(
    model: Any, given: dict[str, Any], batch: tuple[int, ...], length: int | None, signature: Any, called: str
) -> tuple[dict[str, Any], bool]:
    """Return the checked context and label that the method takes, and whether all events share one context."""
    context, label, takes = given.pop("context", None), given.pop("label", None), signature.companions
    # a context that the model takes may be none of this method's business; but an E-step without it would be wrong
    if label is not None and "label" not in takes:
        raise ShapeError("there is no label to take", called=called, expected="no label", got="a label")
    if context is not None and "context" not in takes and "weight" in signature.positional:
        raise ShapeError("there is no context to take", called=called, expected="no context", got="a context")
    context, shared = _check_context(model, context, batch, length, called)
    rows = {"context": context} if "context" in takes else {}
    if "label" in takes:
        rows["label"] = _check_label(label, batch, called)
    return rows, shared


def per_event(method: F) -> F:
    """Opens a method written for one event, `(self, [key,] x, *, context=None, **static options)`, to batches.

    The method is written with the signature that its callers see. They pass `x` as `[*batch, *event]`, `context` as
    `[*batch, *context]` or one shared `[*context]`, and get leaves with the leading axes `[*batch]`. A keyed method
    gets an independent key per event. Calls are compiled, once per shape. A method with a parameter `observed` takes a
    mask of bools, `[*batch, *event]` or one shared `[*event]`, or None; one with `label` int32 labels `[*batch, ...]`,
    -1 where not known. Where a result is NaN because an event is, of a model without `missing=True`, a call outside of
    `jit` is a DataError; inside of it NaN stays NaN. Of a model whose `context_optional` is True a context may be
    absent: a row of NaN, which is also what the method sees for each event where the context is None.

    Raises:
        TypeError: where the class is made, for a parameter that is none of these and no option. An option has a default
            or comes after a `*`.

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
    return _opened(method, _EVENT)


def per_latent(method: F) -> F:
    """As `per_event`, for a method of one latent vector, `(self, z, *, context=None)`: the model has `latent_shape`."""
    return _opened(method, _LATENT)


def per_sample(method: F) -> F:
    """Opens a sampler written for one event, `(self, key, shape=(), *, context=None, length=None)`, to `shape` events.

    The method draws one event: it leaves `shape` as it is, and may leave it out. `length` is the free axis of models
    whose event shape has one (`None`), and only of those. Further options are static keywords.
    """
    return _opened(method, _SAMPLE)


def per_level(method: F) -> F:
    """Opens a method written for one probability, `(self, level, *, context=None)`, to any number of them.

    Callers pass levels `[*batch]`, above 0 and below 1, and get leaves with the leading axes `[*batch]`. The method
    sees them in the dtype of the model, and as NaN those outside, which could not be seen in a larger program.
    """
    return _opened(method, _LEVEL)


def per_batch(method: F) -> F:
    """Opens a method written for a flat batch, `(self, [key,] x [N, *event], *, context=None)`, to any batch.

    For models that work on many events at once, as a mixture does with its matrix of components by events; a keyed
    method draws for all of them from its one key. `context` is `[N, *context]` or None, and a parameter `observed` a
    mask `[N, *event]` or None, as in `per_event`. Further options are static keywords.
    """
    return _opened(method, _BATCH)


def weighted_events(method: F) -> F:
    """Checks the inputs of `e_step(x, weight=None, *, label=None, context=None)`: `x` is `[N, *event]`, `weight` `[N]`.

    The method always gets weights: None is ones. `x` may be `fast.Events`, which passes as it is: `EM` made it from
    checked events. `label` is `[N, ...]` int32, -1 where it is not known; `context` `[N, *context]`.
    """
    return _opened(method, _WEIGHTED)
