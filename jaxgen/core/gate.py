"""The one gate for data: what a user passes becomes arrays here, or is refused with a clear error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.core.errors import DataError, ShapeError


class Batch(NamedTuple):
    """What an algorithm sees in one step: events, and per event an optional context and an optional weight.

    Args:
        x: events, `[N, *event]`.
        context: `[N, *context]` or None.
        weight: `[N]`, non-negative, or None for ones.
    """

    x: Any
    context: Any = None
    weight: Any = None

    def __len__(self) -> int:  # the number of events, not of fields
        return int(np.shape(self.x)[0])


def as_array(data: Any, *, name: str = "data", allow_nan: bool = False) -> np.ndarray | jax.Array:
    """Turns lists, numpy arrays, pandas tables and jax arrays into a numeric array, or refuses.

    Args:
        data: anything numeric and rectangular.
        name: what to call it in errors.
        allow_nan: let NaN pass (infinities never do).

    Returns:
        the array: a jax array is returned as it is, anything else as numpy; nothing is copied without need.

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
          fix:      drop or impute them, for example data[np.isfinite(data)]
    """
    if isinstance(data, jax.core.Tracer):
        return data
    called = f"as_array({name})"
    if not isinstance(data, (np.ndarray, jax.Array)):
        data = _convert(data, name, called)
    if jax.dtypes.issubdtype(data.dtype, jax.dtypes.prng_key):
        raise DataError(
            f"{name} is a random key, not data", called=called, expected="numbers", got="a PRNG key",
            fix="the order is key first, model second, data third: fit(key, model, data)",
        )  # fmt: skip
    if not (jax.dtypes.issubdtype(data.dtype, np.number) or data.dtype == bool) or data.dtype.kind == "c":
        raise DataError(
            f"{name} is not numeric", called=called, expected="real numbers", got=f"dtype {data.dtype}",
            fix="encode it first: np.unique(data, return_inverse=True)[1] turns labels into integers",
        )  # fmt: skip
    if data.size == 0:
        raise DataError(f"{name} is empty", called=called, expected="at least one event", got=f"shape {data.shape}")
    _check_values(data, name, called, allow_nan)
    return data


def _convert(data: Any, name: str, called: str) -> np.ndarray:
    if hasattr(data, "to_numpy"):  # pandas and its kin, without importing them
        array = data.to_numpy()
        if array.dtype == object and hasattr(data, "dtypes"):
            kinds = {str(c): str(t) for c, t in getattr(data.dtypes, "items", list)() if str(t) in ("object", "str")}
            raise DataError(
                f"{name} has columns that are not numeric", called=called, expected="numeric columns", got=str(kinds),
                fix="keep the numeric ones: data.select_dtypes('number')",
            )  # fmt: skip
    else:
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise DataError(
                f"{name} is ragged", called=called, expected="rows of one length", got=str(error).splitlines()[0],
                fix="pad the rows, or fit them one by one",
            ) from None  # fmt: skip
    if array.dtype == object:
        first = next((v for v in array.flat if not isinstance(v, (int, float, np.number))), None)
        raise DataError(
            f"{name} is not an array of numbers", called=called, expected="lists, numpy, pandas or jax numbers",
            got=f"{type(data).__name__} holding {type(first).__name__} {str(first)[:40]!r}",
            fix="pass np.asarray(data, dtype=float) once that works",
        )  # fmt: skip
    return array


def _check_values(data: np.ndarray | jax.Array, name: str, called: str, allow_nan: bool) -> None:
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
        raise DataError(
            f"{name} has values that are not finite", called=called, expected="finite numbers",
            got=f"{int(bad.sum())} of {bad.size} values {kind}, the first at index {where}",
            fix=f"drop or impute them, for example {name}[np.isfinite({name})]"
            if kind != "too large for float32" else f"scale it: {name} / np.abs({name}).max()",
        )  # fmt: skip


def as_batch(data: Any, *, name: str = "data") -> Batch:
    """Turns what `fit` accepts into a `Batch`: an array, a tuple `(x, context, weight)`, or a dict with those names.

    Raises:
        DataError: unknown names, or anything `as_array` refuses; negative weights.
        ShapeError: leading axes that differ.

    Example:
        >>> as_batch(([[1.0], [2.0]], [0, 1])).context.shape
        (2,)
        >>> len(as_batch({"x": [[1.0], [2.0]], "weight": [1.0, 0.5]}))
        2
    """
    if isinstance(data, Batch):
        parts = data._asdict()
    elif isinstance(data, Mapping):
        parts = dict(data)
    elif isinstance(data, tuple):
        parts = dict(zip(Batch._fields, data, strict=False))
        if len(data) > len(Batch._fields):
            parts["a fourth entry"] = data[3]
    else:
        parts = {"x": data}
    if unknown := sorted(set(map(str, parts)) - set(Batch._fields)) or (["no x"] if "x" not in parts else []):
        raise DataError(
            f"{name} is not a batch", called=f"as_batch({name})", expected="x, or (x, context, weight), or a dict of them",
            got=", ".join(unknown), fix=f"{name} = dict(x=..., context=..., weight=...)",
        )  # fmt: skip
    parts = {k: None if v is None else as_array(v, name=f"{name}[{k!r}]") for k, v in parts.items()}
    batch = Batch(**parts)
    for part, value in parts.items():
        if value is not None and np.shape(value)[:1] != np.shape(batch.x)[:1]:
            raise ShapeError(
                f"{name}[{part!r}] has another number of events than x", called=f"as_batch({name})",
                expected=f"leading axis {np.shape(batch.x)[:1]}", got=f"shape {np.shape(value)}",
            )  # fmt: skip
    if batch.weight is not None and (np.ndim(batch.weight) != 1 or np.min(batch.weight) < 0):
        raise DataError(
            f"{name}['weight'] is no weight", called=f"as_batch({name})", expected="[N], non-negative",
            got=f"shape {np.shape(batch.weight)}, smallest {np.min(batch.weight)}",
        )  # fmt: skip
    return batch
