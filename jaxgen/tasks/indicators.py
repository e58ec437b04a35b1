"""Columns of labels and of cells that are missing, as numbers in which distance means something."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.cells import FLAG, LABEL, read_cells
from jaxgen.core.pytree import model, static
from jaxgen.core.tables import Frame, Schema, Table


def schema_of_mixed(x: Any) -> Schema | None:
    """Return the schema of a frame or table that has labels or cells that are missing; None of numbers alone.

    Raises:
        DataError: a frame that is no table.

    Example:
        >>> schema_of_mixed(np.ones((3, 2))) is None
        True
    """
    if isinstance(x, Frame):
        cells = [read_cells(x[name]) for name in x.columns]
        if all(own.seen.dtype.kind in "biuf" and own.rows.all() and own.levels is None for own in cells):
            return None
        return Table.from_frame(x).schema
    if not isinstance(x, Table):
        return None
    return x.schema if x.schema.missing or any(column.kind == LABEL for column in x.schema.columns) else None


@model
class Indicators:
    """Rows of a table as numbers: an indicator of each level and of cells that are missing, `[N, D] -> [N, E]`.

    A number is itself, the mean where it is missing, and has an indicator of that. A label has one for each level, and
    one for missing: all levels are equally far from each other, in whatever order they are.

    Args:
        center: `[D]`, means of numbers.
        levels: of each column their number, 0 of numbers.
    """

    center: jax.Array
    levels: tuple[int, ...] = static()

    @classmethod
    def of(cls, schema: Schema, x: Any) -> Indicators:
        """From a table's schema and its numbers `[N, D]`."""
        levels = tuple(len(c.levels) if c.kind in (LABEL, FLAG) else 0 for c in schema.columns)
        return cls(jnp.asarray(np.nanmean(np.asarray(x, np.float64), axis=0), jnp.asarray(x).dtype), levels)

    @property
    def groups(self) -> tuple[int, ...]:
        """The column of each indicator, -1 of numbers, `[E]`."""
        return tuple(i for at, k in enumerate(self.levels) for i in ([at] * (k + 1) if k else [-1, at]))

    def __call__(self, x: jax.Array) -> jax.Array:
        columns: list[jax.Array] = []
        for at, k in enumerate(self.levels):
            own, unseen = x[:, at], jnp.isnan(x[:, at])
            if k:
                columns.append(jax.nn.one_hot(jnp.where(unseen, k, own).astype(int), k + 1, dtype=x.dtype))
            else:
                filled = jnp.where(unseen, self.center[at], own)
                columns.append(jnp.stack([filled, unseen.astype(x.dtype)], axis=1))
        return jnp.concatenate(columns, axis=1)


def by_column(x: jax.Array, scale: jax.Array, groups: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Return scales that give the indicators of a column together the variance of one number, and which they are.

    Example:
        >>> scale, indicator = by_column(jnp.eye(2), jnp.ones(2), (0, 0))
        >>> (2 * scale**2).round(3).tolist(), indicator.tolist()
        ([1.0, 1.0], [True, True])
    """
    own = np.array(groups)
    indicator = own >= 0
    total = jax.ops.segment_sum(jnp.where(indicator, jnp.var(x, axis=0), 0), jnp.maximum(own, 0), max(own.max(), 0) + 1)
    shared = jnp.sqrt(total)[np.maximum(own, 0)]
    return jnp.where(indicator, jnp.where(shared > 0, shared, 1), scale), jnp.asarray(indicator)
