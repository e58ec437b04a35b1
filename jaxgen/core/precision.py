"""Columns that float32 cannot tell apart: far from zero beside how much they vary."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np

from jaxgen.core.errors import JaxgenWarning

#: the share of a column's own spread that rounding may take before it is said
SHARE = 1e-3
#: rows that are looked at, spread over all; fewer of many columns
ROWS, NUMBERS = 1024, 2**18


def lost_share(rows: np.ndarray) -> np.ndarray:
    """Return what rounding to float32 takes of each column `[N, D]`, as a share of its own spread, `[D]`.

    `median |x - float32(x)| / (the ninth decile of x - the first)`: no far value sets either. Of a column of one
    value, and of what float32 holds exactly, it is zero. NaN is left out.

    Example:
        >>> lost_share(np.stack([1.7e9 + 10.0 * np.arange(100), np.linspace(0, 1, 100)], axis=1)).round(2).tolist()
        [0.04, 0.0]
    """
    most = min(ROWS, max(64, NUMBERS // rows.shape[1]))
    rows = rows[:: -(-len(rows) // most)]
    error = np.abs(rows - rows.astype(np.float32).astype(np.float64))
    if not np.any(error > 0):
        return np.zeros(rows.shape[1])
    seen = np.sum(~np.isnan(error), axis=0)

    def quantile(values: np.ndarray, level: float) -> np.ndarray:
        at = np.maximum(np.round(level * (seen - 1)).astype(int), 0)
        return np.take_along_axis(np.sort(values, axis=0), at[None], axis=0)[0]  # NaN comes last

    x = rows.astype(np.float64)
    spread = quantile(x, 0.9) - quantile(x, 0.1)
    spread = np.where(spread > 0, spread, quantile(x, 1.0) - quantile(x, 0.0))
    return np.where(spread > 0, quantile(error, 0.5) / np.where(spread > 0, spread, 1), 0)


def warn_of_lost_digits(data: Any, name: str, columns: tuple[str, ...] = ()) -> None:
    """Warn of columns `[..., D]`, or of numbers `[N]`, that vary by less than float32 can tell, where it is float32.

    Numbers of 32 bits have no more digits to lose; whole numbers have, above 16,777,216.
    """
    if jax.config.jax_enable_x64 or not isinstance(data, (np.ndarray, jax.Array)):  # type: ignore[attr-defined]
        return
    if isinstance(data, jax.core.Tracer) or data.dtype.itemsize < 4 or data.dtype.kind not in "iuf":
        return
    if data.dtype == np.float32 or 0 in data.shape:
        return
    host = np.asarray(data)
    share = lost_share(host.reshape(-1, host.shape[-1] if host.ndim > 1 else 1))
    worst = int(np.argmax(share))
    if share[worst] > SHARE:
        named = len(columns) == len(share)
        column = f"column {columns[worst]!r} of {name}" if named else f"column {worst} of {name}"
        offset = "column - column.median()" if named else "x - np.median(x, axis=0)"
        warnings.warn(
            f"{column if host.ndim > 1 else name} loses {100 * min(share[worst], 1):.2g} % of its own spread where it "
            f"becomes float32; subtract an offset first, {offset}, or take 64 bits, "
            "jax.config.update('jax_enable_x64', True)",
            JaxgenWarning, stacklevel=4,
        )  # fmt: skip
