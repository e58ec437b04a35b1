"""Fixes for data that are no data: code that was tried on the very input before it is given as advice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

#: code by the kind of a dtype that is not numbers, and for all others
_BY_KIND = {
    "M": ("(data - data.min()) / np.timedelta64(1, 's')", "(data - data.min()).astype(float)"),
    "m": ("data / np.timedelta64(1, 's')",),
    "c": ("np.stack([np.real(data), np.imag(data)], axis=-1)",),
    "V": ("np.stack([data[field] for field in data.dtype.names], axis=-1)",),
}
_LABELS = "np.unique(data, return_inverse=True)[1]"
_TEXT = ("np.asarray(data, dtype=float)", _LABELS)
_OBJECTS = ("data.toarray()", "np.asarray(data, dtype=float)", "np.column_stack(list(data.values()))",
            "np.asarray(list(data), dtype=float)", "data.head(1000).x")  # fmt: skip
_COLUMNS = ("data.select_dtypes('number')", "data.astype(float)", _LABELS, *_BY_KIND["M"], "data.factorize()[0]")


def working(codes: tuple[str, ...], data: Any, name: str, otherwise: str = "", allow_nan: bool = False) -> str:
    """The first of these codes that makes numbers of the data, with their name in place of the word "data".

    Example:
        >>> working(("data[np.isfinite(data)]",), [1.0, np.nan], "x")
        'np.asarray(x)[np.isfinite(np.asarray(x))]'
    """
    for code in codes:
        for form in (code, code.replace("data", "np.asarray(data)")):  # lists have no methods
            try:
                value = eval(form, {"np": np, "data": data})  # our own code, one of the constants here
                hidden = bool(np.any(np.ma.getmask(value)))
                value = np.asarray(value.to_numpy(float, na_value=np.nan) if hasattr(value, "to_numpy") else value)
                numbers = value.dtype.kind in "biuf" and value.size > 0 and value.ndim > 0 and not hidden
                if numbers and (np.isfinite(value) | (allow_nan & np.isnan(value))).all():
                    return form.replace("data", name)
            except Exception:  # that is why others are tried
                continue
    return otherwise


def unseen(called: str) -> str:
    """Code after which a model takes NaN as not seen, for errors of its constructor and of its methods."""
    return f"jaxgen.{called[:-1]}, missing=True)" if ".init(" in called else "dataclasses.replace(model, missing=True)"


def for_kind(kind: str, data: Any, name: str) -> str:
    """For arrays of text, of dates, of complex numbers and of records."""
    return working(_BY_KIND.get(kind, _TEXT), data, name, "turn it into numbers first")


def for_objects(data: Any, name: str) -> str:
    """For what numpy makes an array of objects, if any."""
    if isinstance(data, Iterator):  # to try it would use it up
        return f"np.asarray(list({name}))"
    return working(_OBJECTS, data, name, "turn it into an array of numbers first")


def for_table(data: Any, name: str) -> str:
    """For tables and columns, of pandas and its kin, that are not numbers."""
    return working(_COLUMNS, data, name, "turn it into numbers first")


def for_masked(data: Any, name: str, allow_nan: bool) -> str:
    """For masked arrays of which something is hidden."""
    rows = f"~np.ma.getmaskarray(data){_of_all(np.ndim(data), 'any')}"
    return working(("data.filled(np.nan)",) * allow_nan + (f"data[{rows}]",), data, name, "unmask it", allow_nan)


def for_values(kind: str, data: Any, name: str, ndim: int, missing: str) -> str:
    """For numbers that are not finite in the precision in which they are to be used; NaN may pass as missing."""
    if kind == "too large for float32":
        return working(("data / np.abs(data).max()",), data, name)
    code = "data if np.isfinite(data) else 0" if ndim == 0 else f"data[np.isfinite(data){_of_all(ndim)}]"
    rows = working((code, "data.dropna()"), data, name)
    if kind == "NaN" and missing:
        return f"{rows}, or {missing}" if rows else missing
    return rows or "there is no row without such values: impute them, or leave columns out"


def _of_all(ndim: int, so: str = "all") -> str:
    """Return code that reduces booleans to one per row of the first axis, by `all` or `any`; empty below two axes."""
    return "" if ndim < 2 else f".{so}(axis={1 if ndim == 2 else tuple(range(1, ndim))})"
