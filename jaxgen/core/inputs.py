"""Checked inputs: what a user passes becomes arrays here, or is refused with a clear error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import remedies
from jaxgen.core.errors import DataError, ModelError, ShapeError
from jaxgen.core.precision import warn_of_lost_digits
from jaxgen.core.pytree import dtype_of
from jaxgen.core.tables import Frame, Schema, Table


class Batch(NamedTuple):
    """The data of one step of an algorithm: events, and per event an optional context, weight and label.

    Args:
        x: events, `[N, *event]`.
        context: `[N, *context]` or None.
        weight: `[N]`, non-negative, or None for ones; a weight of 2 is the event twice, of 0 no event.
        label: `[N]` int32, the latent class that is known of an event (its component in a mixture), -1 where it is not.
    """

    x: Any
    context: Any = None
    weight: Any = None
    label: Any = None

    @property
    def events(self) -> int:
        """The number of events, N."""
        return int(np.shape(jax.tree.leaves(self.x)[0])[0])


@runtime_checkable
class Chunked(Protocol):
    """Data that come in chunks of one shape, in as many passes as asked: `jaxgen.data.Stream`."""

    @property
    def chunk(self) -> int:
        """Events in each chunk."""
        ...

    @property
    def events(self) -> int | None:
        """Events in all, where that is known."""
        ...

    def head(self, n: int) -> Batch:
        """The first n events."""
        ...

    def __iter__(self) -> Iterator[Batch]: ...


class Companion(NamedTuple):
    """The rules for an array that may accompany the events, such as a context or a label.

    Args:
        shape: of the array.
        holds: what numbers it has.
        absent: how one that is not there is written.
        may_lack: which events may be without one.
    """

    shape: str
    holds: str
    absent: str
    may_lack: str


#: the companions of events: what `Batch`, checked methods and their errors go by
COMPANIONS = {
    "context": Companion(
        "[*batch, *context], or [*context] for all", "numbers", "a row of NaN; None where all are absent",
        "those of a model whose `context_optional` is True",
    ),
    "label": Companion("[*batch, ...]", "whole numbers from 0, int32", "-1; None where none is known", "all"),
    "weight": Companion("[N]", "non-negative floats, not all zero", "None, which is ones", "none"),
    "observed": Companion("[*batch, *event], or [*event] for all", "bools", "None, which holds nothing", "none"),
}  # fmt: skip


def widened(tree: Any) -> Any:
    """The same tree with its 16-bit floats as float32: they may store numbers, but they cannot count or add them up.

    float16 ends at 65,504 and bfloat16 has three digits, so that a sum over a few hundred events is wrong in either.

    Example:
        >>> widened({"a": np.ones(2, np.float16), "b": np.arange(2, dtype=np.int8)})["a"].dtype
        dtype('float32')
    """

    def wide(leaf: Any) -> Any:
        dtype = dtype_of(leaf)
        narrow = dtype is not None and jax.dtypes.issubdtype(dtype, np.floating) and dtype.itemsize < 4
        return leaf.astype(np.float32) if narrow else leaf

    # one array needs no walk, which takes longer than all else that a call checks
    return wide(tree) if isinstance(tree, (jax.Array, np.ndarray)) else jax.tree.map(wide, tree)


def as_array(
    data: Any, *, name: str = "data", called: str = "", allow_nan: bool = False, missing: str = "",
    columns: tuple[str, ...] = (),
) -> np.ndarray | jax.Array:  # fmt: skip
    """Turns lists, numpy arrays, frames and tables of numbers, and jax arrays into a numeric array, or refuses.

    Args:
        data: anything numeric and rectangular.
        name: what to call it in errors.
        called: what the user called, for errors.
        allow_nan: let NaN pass (infinities never do).
        missing: code after which NaN would pass, for errors.
        columns: names of the last axis, for errors; frames and tables have their own.

    Returns:
        the array: a jax array is returned as it is, anything else as numpy; nothing is copied without need. 16-bit
        floats become float32.

    Raises:
        DataError: empty, ragged, text, objects, complex numbers, dates, NaN or infinity, or numbers that do not fit
            the 32-bit types that JAX would silently squeeze them into.

    Example:
        >>> as_array([[1, 2], [3, 4]]).shape
        (2, 2)
        >>> as_array([1.0, float("nan")])
        Traceback (most recent call last):
        jaxgen.core.errors.DataError: data has values that are not finite
          called:   as_array(data)
          expected: finite numbers
          got:      1 of 2 values NaN, the first at index (1,)
          fix:      np.asarray(data)[np.isfinite(np.asarray(data))]
    """
    if isinstance(data, Table):
        columns, data = data.columns, data.numbers(name, called or f"as_array({name})")
    if isinstance(data, jax.core.Tracer):
        return widened(data)
    if isinstance(data, (list, tuple)) and not concrete(data):
        return widened(jnp.asarray(data))
    called, given = called or f"as_array({name})", data
    columns = tuple(map(str, data.columns)) if isinstance(data, Frame) else columns
    if isinstance(data, np.ma.MaskedArray):
        data = _unmasked(data, name, called, allow_nan)
    elif not isinstance(data, (np.ndarray, jax.Array)):
        data = _convert(data, name, called)
    if jax.dtypes.issubdtype(data.dtype, jax.dtypes.prng_key):
        raise DataError(
            f"{name} is a random key, not data", called=called, expected="numbers", got="a PRNG key",
            fix="jaxgen.fit(key, model, data): the order is key first, model second, data third",
        )  # fmt: skip
    if not (jax.dtypes.issubdtype(data.dtype, np.number) or data.dtype == bool) or data.dtype.kind in "mc":
        raise DataError(
            f"{name} is not numeric", called=called, expected="real numbers", got=f"dtype {data.dtype}",
            fix=remedies.for_kind(data.dtype.kind, given, name),
        )  # fmt: skip
    if data.size == 0:
        raise DataError(f"{name} is empty", called=called, expected="at least one event", got=f"shape {data.shape}")
    _check_values(data, given, name, called, allow_nan, missing, columns)
    return widened(data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("=")))


def _convert(data: Any, name: str, called: str) -> np.ndarray:
    if hasattr(data, "to_numpy"):  # pandas and its kin, without importing them
        return _from_table(data, name, called)
    if isinstance(data, (list, tuple)) and isinstance(next(iter(jax.tree.leaves(data[:1])), None), jax.Array):
        data = widened(data)  # numpy makes no array of bfloat16 scalars
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        got = str(error).splitlines()[0]
        if isinstance(error, ValueError):
            raise DataError(
                f"{name} is ragged", called=called, expected="rows of one length", got=got,
                fix=f"jaxgen.Sequences.pack({name})" if all(map(np.ndim, data)) else "make all rows of one length",
            ) from None  # fmt: skip
        raise DataError(
            f"{name} is not an array of numbers", called=called, expected="numbers", got=got,
            fix=remedies.for_objects(data, name),
        ) from None  # fmt: skip
    if array.dtype == object:
        numbers = (int, float, np.number)
        first = next((v for v in array.flat if not isinstance(v, numbers)), array.flat[0] if array.size else data)
        raise DataError(
            f"{name} is not an array of numbers", called=called, expected="lists, numpy, pandas or jax numbers",
            got=f"{type(data).__name__} holding {type(first).__name__} {str(first)[:40]!r}",
            fix=remedies.for_objects(data, name),
        )  # fmt: skip
    return array


def _from_table(data: Any, name: str, called: str) -> np.ndarray:
    """The numbers of a table or column; missing entries become NaN, which is refused where it has no meaning."""
    array = data.to_numpy()
    if array.dtype != object:
        return array
    dtypes = getattr(data, "dtypes", array.dtype)
    columns = list(dtypes.items()) if hasattr(dtypes, "items") else [(name, dtypes)]
    foreign = {str(c): str(t) for c, t in columns if getattr(t, "kind", "O") not in "biuf"}
    if foreign:
        raise DataError(
            f"{name} has columns that are not numeric", called=called, expected="numeric columns", got=str(foreign),
            fix=remedies.for_table(data, name),
        )  # fmt: skip
    # columns of numbers, of which some are bool or may be missing, have no common dtype but this one
    return data.to_numpy(dtype=float, na_value=np.nan)


def _unmasked(data: np.ma.MaskedArray, name: str, called: str, allow_nan: bool) -> np.ndarray:
    hidden = int(np.ma.count_masked(data))
    if hidden:
        raise DataError(
            f"{name} has masked values", called=called, expected="an array without a mask",
            got=f"{hidden} of {data.size} values masked",
            fix=remedies.for_masked(data, name, allow_nan),
        )  # fmt: skip
    return np.ma.getdata(data)


def _check_values(
    data: np.ndarray | jax.Array, given: Any, name: str, called: str, allow_nan: bool, missing: str,
    columns: tuple[str, ...],
) -> None:  # fmt: skip
    host = np.asarray(data)
    wide = not jax.config.jax_enable_x64 and host.dtype.itemsize > 4  # type: ignore[attr-defined]
    if host.dtype.kind in "iu":
        limit = np.iinfo(np.int32 if host.dtype.kind == "i" else np.uint32)
        if wide and (host.max() > limit.max or host.min() < limit.min):
            raise DataError(
                f"{name} overflows {limit.dtype}", called=called, expected=f"integers in [{limit.min}, {limit.max}]",
                got=f"range [{host.min()}, {host.max()}]", fix="jax.config.update('jax_enable_x64', True)",
            )  # fmt: skip
        return
    if host.dtype == bool:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(host.astype(np.float32) if wide else host)
    bad = ~finite & ~np.isnan(host) if allow_nan else ~finite
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        value = host[where]
        kind = "NaN" if np.isnan(value) else "infinite" if np.isinf(value) else "too large for float32"
        place = f"at index {where}"
        if where and len(columns) == host.shape[-1]:
            place = f"in row {', '.join(map(str, where[:-1]))} of column {columns[where[-1]]!r}"
        raise DataError(
            f"{name} has values that are not finite", called=called, expected="finite numbers",
            got=f"{int(bad.sum())} of {bad.size} values {kind}, the first {place}",
            fix=remedies.for_values(kind, given, name, host.ndim, missing),
        )  # fmt: skip


def floating(data: Any, *, name: str = "x") -> jax.Array:
    """Data as a floating jax array: `as_array`, with integers and bools as floats of the default precision.

    Example:
        >>> floating([1, 2]).dtype
        dtype('float32')
    """
    x = jnp.asarray(as_array(data, name=name))
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


#: how far from one the sum of probabilities may be that were rounded elsewhere, to float32 or to five digits
SUM_SLACK = 1e-4


def probabilities(rows: Any, *, name: str, called: str, shape: tuple[int, ...] | None = None) -> jax.Array:
    """Rows of probabilities `[..., V]`, floating, each divided by its sum; what holds none is refused.

    A sum may differ from one by what rounding made of it before: 1e-4, or as much as 16-bit numbers are coarse.

    Raises:
        ModelError: negative values, rows that do not sum to one, or another shape than that given.

    Example:
        >>> probabilities(np.array([1, 3]), name="weights", called="demo")
        Traceback (most recent call last):
        jaxgen.core.errors.ModelError: weights holds no probabilities
          called:   demo
          expected: values from 0 to 1, rows that sum to one
          got:      smallest 1.0, sums from 4.0 to 4.0
          fix:      weights / weights.sum(-1, keepdims=True)
    """
    value = floating(rows, name=name)
    if shape is not None and value.shape != shape:
        raise ModelError(
            f"{name} has another shape than the model asks for", called=called, expected=f"shape {list(shape)}",
            got=f"shape {list(value.shape)}",
        )  # fmt: skip
    kind = dtype_of(rows) or value.dtype
    slack = max(SUM_SLACK, float(jnp.finfo(kind).eps)) if jax.dtypes.issubdtype(kind, np.floating) else SUM_SLACK
    known = concrete(value)
    value = np.asarray(value) if known else value  # type: ignore[assignment]  # on the host each line here is no program
    total = value.sum(-1, keepdims=True)
    if known and not ((value >= 0).all() and (np.abs(total - 1) < slack).all()):
        shares = (value >= 0).all() and (total > 0).all()
        array = name if hasattr(rows, "sum") else f"np.asarray({name})"
        raise ModelError(
            f"{name} holds no probabilities", called=called, expected="values from 0 to 1, rows that sum to one",
            got=f"smallest {value.min()!s}, sums from {total.min()!s} to {total.max()!s}",
            fix=f"{array} / {array}.sum(-1, keepdims=True)" if shares else f"jax.nn.softmax({array}) of logarithms",
        )  # fmt: skip
    return jnp.asarray(value / total)


def as_events(
    data: Any, *, name: str, called: str, allow_nan: bool = False, missing: str = "", schema: Schema | None = None
) -> Any:  # fmt: skip
    """`as_array`, or for events in several arrays, such as `Sequences`, their own check.

    With the schema of a model of a table, frames and tables are read by it.
    """
    if checked := getattr(data, "checked", None):
        return checked(name=name, called=called, allow_nan=allow_nan, schema=schema)
    columns: tuple[str, ...] = ()
    if schema is not None:
        columns, data = schema.names, schema.read(data, called)
    return as_array(data, name=name, called=called, allow_nan=allow_nan, missing=missing, columns=columns)


def as_batch(
    data: Any, *, name: str = "data", called: str = "", missing: bool = False, unseen: str = "", absent: int = 0,
    schema: Schema | None = None,
) -> Batch:  # fmt: skip
    """Turns what `fit` accepts into a `Batch`: an array, a tuple `(x, context, weight, label)`, or a dict.

    Args:
        data: what was passed.
        name: what to call it in errors.
        called: what the user called, for errors.
        missing: NaN in x is an entry that was not seen, and passes.
        unseen: code after which it would, for errors.
        absent: the number of leading axes of contexts along which each may be absent, a row of NaN; 0 where none may.
        schema: that frames and tables are read by, of a model of a table.

    Raises:
        DataError: unknown names, or anything `as_array` refuses; negative weights; labels that are no whole numbers.
        ShapeError: leading axes that differ.

    Example:
        >>> as_batch(([[1.0], [2.0]], [0, 1])).context.shape
        (2,)
        >>> as_batch({"x": [[1.0], [2.0]], "weight": [1.0, 0.5]}).events
        2
    """
    called = called or f"as_batch({name})"
    names = {field: f"{name}[{field!r}]" for field in Batch._fields}
    if isinstance(data, Batch):
        parts, names = data._asdict(), {field: f"{name}.{field}" for field in Batch._fields}
    elif isinstance(data, Mapping):
        parts = dict(data)
    elif isinstance(data, tuple):
        parts = dict(zip(Batch._fields, data, strict=False))
        names = {field: f"{name}[{i}]" for i, field in enumerate(Batch._fields)}
        if len(data) > len(Batch._fields):
            parts["a fifth entry"] = data[4]
    else:
        parts, names = {"x": data}, names | {"x": name}
    if unknown := sorted(set(map(str, parts)) - set(Batch._fields)) or (["no x"] if parts.get("x") is None else []):
        raise DataError(
            f"{name} is not a batch", called=called, got=", ".join(unknown),
            expected="x, or (x, context, weight, label), or a dict of them",
            fix="dict(x=x, context=context, weight=weight, label=label), without those that there are not",
        )  # fmt: skip
    nan = {"x": missing, "label": True, "context": bool(absent)}
    parts = {k: as_events(v, name=names.get(k, k), called=called, allow_nan=nan.get(k, False),
                          missing=unseen if k == "x" else "", schema=schema if k == "x" else None)
             for k, v in parts.items() if v is not None}  # fmt: skip
    batch = Batch(**parts)
    for part, value in batch._asdict().items():
        if value is None:
            continue
        if np.ndim(value) == 0 or np.shape(value)[0] != np.shape(batch.x)[0]:
            raise ShapeError(
                f"{name}[{part!r}] has another number of events than x" if part != "x" else f"{name} is one number",
                called=called, expected=f"[{batch.events}, ...]" if part != "x" else "[N, *event]",
                got=f"shape {list(np.shape(value))}",
            )  # fmt: skip
    warn_of_lost_digits(batch.x, names["x"], () if schema is None else schema.names)
    warn_of_lost_digits(batch.context, names["context"])
    if batch.context is not None and absent:
        check_rows(batch.context, absent, called, f"{name}['context']")
    batch = batch._replace(label=as_label(batch.label, f"{name}['label']", called))
    if batch.weight is None:
        return batch
    weight = _as_weight(batch.weight, name, called)
    x, context, label = (_silenced(part, weight) for part in (batch.x, batch.context, batch.label))
    return Batch(x, context, weight, label)


def check_rows(context: Any, axes: int, called: str, name: str = "context") -> None:
    """Refuse contexts of which a part is NaN: one is there, or it is absent as a whole.

    Args:
        context: `[*batch, *context]`.
        axes: how many of its axes are of contexts, each of which may be absent by itself.
        called: what the user called, for errors.
        name: what to call it in errors.

    Raises:
        DataError: a row with NaN and numbers.

    Example:
        >>> check_rows(np.array([[0.0, 1.0], [np.nan, np.nan]]), 1, "demo")
    """
    if not concrete(context) or not jnp.issubdtype(context.dtype, jnp.floating):
        return
    nan = np.isnan(np.asarray(context))
    part = nan.any(axis=tuple(range(axes, nan.ndim))) & ~nan.all(axis=tuple(range(axes, nan.ndim)))
    if part.any():
        raise DataError(
            f"{name} has rows of which a part is NaN", called=called, got=f"{int(part.sum())} of {part.size} rows",
            expected=f"numbers, or to be absent {COMPANIONS['context'].absent}",
            fix="fill in what is not known, or write NaN in all of the row",
        )  # fmt: skip


def as_label(label: Any, name: str, called: str) -> Any:
    """Labels `[N, ...]` as int32, -1 where not known; NaN, as tables write it, is not known either."""
    if label is None:
        return None
    if not concrete(label):
        return jnp.where(jnp.isnan(label), -1, label).astype(jnp.int32)
    host = np.asarray(label)
    host = np.where(np.isnan(host), -1, host) if host.dtype.kind == "f" else host
    whole = host.astype(np.int32)
    if (whole != host).any() or (whole < -1).any():
        raise DataError(
            f"{name} holds no labels", called=called, expected="whole numbers from 0, -1 where not known",
            got=f"values such as {host[(whole != host) | (whole < -1)][0]}",
            fix="np.unique(label, return_inverse=True)[1] numbers them from 0",
        )  # fmt: skip
    return whole


def _silenced(part: Any, weight: Any) -> Any:
    """Rows of weight 0 replaced by one that counts: nothing they hold, such as an overflow, can then reach a sum."""
    if part is None or (concrete(weight) and np.all(weight > 0)):
        return part

    def silenced(array: Any) -> Any:
        counts = jnp.asarray(weight > 0).reshape((-1,) + (1,) * (np.ndim(array) - 1))
        return jnp.where(counts, array, jnp.asarray(array)[jnp.argmax(weight)])

    return jax.tree.map(silenced, part)


def _as_weight(weight: Any, name: str, called: str) -> Any:
    """Weights `[N]` as floats; what can be known of their values is checked."""
    known = concrete(weight)
    if np.ndim(weight) != 1 or (known and (np.min(weight) < 0 or not np.any(weight))):
        raise DataError(
            f"{name}['weight'] is no weight", called=called, expected="[N], non-negative, not all zero",
            got=f"shape {list(np.shape(weight))}" + (f", range [{np.min(weight)}, {np.max(weight)}]" if known else ""),
        )  # fmt: skip
    return weight if jnp.issubdtype(weight.dtype, jnp.floating) else weight.astype(jnp.result_type(float))


def concrete(*values: Any) -> bool:
    """True where all values are known now, so that a constructor may look at them; under `jit` and `vmap` it may not.

    Example:
        >>> concrete(np.ones(2)), jax.vmap(lambda x: int(concrete(x)))(np.ones(1)).item()
        (True, 0)
    """
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))
