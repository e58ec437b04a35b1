"""Sequences of different lengths as one event array: what is not there is padded, and marked."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import as_array, concrete, widened
from jaxgen.core.pytree import registered
from jaxgen.core.tables import Frame, Schema, Table

#: the shortest length that sequences are padded to; longer ones go by doubling, so that few programs serve all
SHORTEST = 64
#: `join` makes so many rows at least, and rows of so many steps at most, but for longer sequences; it joins where the
#: rows have less than this share of the padded steps
ROWS, LONG, WORTH = 16, 4096, 0.9


@registered
@dataclasses.dataclass(frozen=True)
class Sequences:
    """A batch of sequences that differ in length or have steps that were not seen: stands wherever their array would.

    `Sequences.pack([first, second, ...])` makes one of a list.

    Args:
        x: `[*batch, T, *event]`; what a step beyond the length or one that was not seen holds does not matter.
        length: `[*batch]` int32, 1 to T.
        observed: `[*batch, T]` bool, False for a step that was not seen; None where all were.

    Example:
        >>> import jaxgen as jg
        >>> data = jg.Sequences.pack([[0, 1, 1], [1, 0]])
        >>> data.x.shape, data.length.tolist()
        ((2, 64), [3, 2])
        >>> coin = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], jg.Bernoulli.from_values([0.5, 0.5]))
        >>> (coin.log_prob(data) / jnp.log(0.5)).round(2).astype(int).tolist()
        [3, 2]
    """

    x: Any
    length: Any
    observed: Any = None

    @classmethod
    def pack(cls, sequences: Iterable[Any], observed: Iterable[Any] | None = None, *, steps: int | None = None):
        """From arrays `[T_n, *event]` and, if given, flags `[T_n]` of what was seen.

        Args:
            sequences: a list of arrays.
            observed: as many arrays of bools.
            steps: T, at least the greatest length; None takes 64, 128, 256, ..., so that data of many lengths share
                few compiled programs.

        Raises:
            DataError: no sequence, an empty one, or values that are no data. ShapeError: events of several shapes, or
            more steps than T.
        """
        called = "Sequences.pack(sequences)"
        rows = [np.asarray(as_array(s, name=f"sequences[{i}]", called=called, allow_nan=True))
                for i, s in enumerate(sequences)]  # fmt: skip
        if not rows:
            raise DataError("there is no sequence", called=called, expected="one array or more", got="none")
        events = {row.shape[1:] for row in rows}
        if len(events) > 1 or rows[0].ndim == 0:
            raise ShapeError(
                "sequences of several kinds of events", called=called, expected="arrays [T_n, *event], one event shape",
                got=", ".join(sorted(str(list(row.shape)) for row in rows)[:4]), fix="give all events one shape",
            )  # fmt: skip
        length = np.array([len(row) for row in rows], np.int32)
        longest = int(length.max())
        steps = SHORTEST << max(0, -(-longest // SHORTEST) - 1).bit_length() if steps is None else steps
        if steps < longest:
            raise ShapeError("too few steps", called=called, expected=f"steps={longest} or more", got=f"steps={steps}")
        # the last row again: inside any support
        x = np.stack([np.concatenate([row, np.repeat(row[-1:], steps - len(row), axis=0)]) for row in rows])
        if observed is None:
            return cls(x, length)
        flags = [np.asarray(flag, bool) for flag in observed]
        if [flag.shape for flag in flags] != [(n,) for n in length]:
            raise ShapeError(
                "flags do not fit the sequences", called=called, expected=f"bools of shapes {length[:4].tolist()}",
                got=f"{len(flags)} of shapes {[flag.shape for flag in flags[:4]]}",
            )  # fmt: skip
        return cls(x, length, np.stack([np.pad(flag, (0, steps - len(flag))) for flag in flags]))

    @classmethod
    def from_table(cls, table: Table, by: str | None = None) -> Sequences:
        """The rows of a table as steps: one sequence, or one for each value of a column, which is left out.

        Args:
            table: rows in the order of time.
            by: the column that says which sequence a row belongs to; sequences are in the order of their first rows.

        Raises:
            DataError: no such column, or rows that belong to none.

        Example:
            >>> table = Table.from_frame({"who": ["a", "a", "b"], "pulse": [61.5, 63.0, 80.0]})
            >>> Sequences.from_table(table, by="who").length.tolist()
            [2, 1]
        """
        called, values = f"Sequences.from_table(table, by={by!r})", np.asarray(table.values)
        if by is None:
            parts = [values]
        else:
            owner, table = values[:, table.schema.place(by, called)], table.drop(by)
            if np.isnan(owner).any():
                raise DataError(f"column {by!r} does not say to which sequence each row belongs", called=called,
                                expected="a value in each row", got=f"{np.isnan(owner).sum()} missing")  # fmt: skip
            values = np.asarray(table.values)
            parts = [values[owner == one] for one in dict.fromkeys(owner.tolist())]
        longest = max(map(len, parts))
        packed = cls.pack(parts, steps=longest if all(len(part) == longest for part in parts) else None)
        return dataclasses.replace(packed, x=Table(packed.x, table.schema))

    @property
    def shape(self) -> tuple[int, ...]:
        """That of x."""
        return tuple(np.shape(self.x))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        return self.x.dtype

    @property
    def valid(self) -> jax.Array:
        """`[*batch, T]` bool: the steps that are there and were seen."""
        return self._valid(jnp)

    def _valid(self, xp: Any) -> Any:
        steps = np.arange(self.shape[np.ndim(self.length)])
        there = steps < xp.asarray(self.length)[..., None]
        return there if self.observed is None else there & xp.asarray(self.observed, bool)

    def __len__(self) -> int:
        return self.shape[0]

    def checked(self, *, name: str, called: str, allow_nan: bool, schema: Schema | None = None) -> Sequences:
        """The same with its parts looked at, or an error that names what is wrong.

        Steps that are rows of a table are read by the schema of its model.
        """
        length = np.asarray(self.length) if concrete(self.length) else self.length
        axes = np.ndim(length)
        fits = np.shape(length) == self.shape[:axes] and self.ndim > axes and self.shape[axes] > 0
        if not fits or (self.observed is not None and np.shape(self.observed) != self.shape[: axes + 1]):
            seen = "" if self.observed is None else f", observed {list(np.shape(self.observed))}"
            raise ShapeError(
                f"the parts of {name} do not belong together", called=called,
                expected="x [*batch, T, *event], length [*batch], observed [*batch, T]",
                got=f"x {list(self.shape)}, length {list(np.shape(length))}{seen}",
                fix="pack the arrays themselves",
            )  # fmt: skip
        if isinstance(length, np.ndarray) and (
            length.dtype.kind not in "iu" or (length < 1).any() or (length > self.shape[axes]).any()
        ):
            raise DataError(
                f"lengths of {name} that cannot be", called=called, expected=f"integers from 1 to {self.shape[axes]}",
                got=f"{length.dtype} from {length.min()} to {length.max()}",
            )  # fmt: skip
        x, columns = self.x, () if schema is None else schema.names
        if isinstance(x, Table):
            x = x.numbers(name, called) if schema is None else schema.read(x, called)
        if concrete(self):
            # what is not there may be anything, what is there may not
            inside = self._valid(np)
            host = np.asarray(x)
            good = host[inside] if inside.any() else host.reshape((-1, *host.shape[axes + 1 :]))[:1]
            as_array(good, name=name, called=called, allow_nan=allow_nan, columns=columns)
            if host.dtype.kind == "f" and not np.isfinite(host).all():
                shape = inside.shape + (1,) * (host.ndim - inside.ndim)
                x = np.where(inside.reshape(shape), host, good.reshape((-1, *host.shape[axes + 1 :]))[0])
        length = length.astype(np.int32) if isinstance(length, np.ndarray) else length
        return Sequences(widened(x), length, self.observed)


@registered
@dataclasses.dataclass(frozen=True)
class Joined(Sequences):
    """Sequences one after the other in rows of about one length, so that little is padded: `join` makes them.

    Args:
        starts: `[R, T]` bool, the steps at which a sequence begins.
    """

    starts: Any = None

    @property
    def count(self) -> jax.Array:
        """`[R]`: how many sequences there are in each row."""
        return jnp.sum(self.starts, axis=-1)

    def checked(self, *, name: str, called: str, allow_nan: bool, schema: Schema | None = None) -> Joined:
        """The same: it was made of checked sequences."""
        return self


def join(x: Sequences, label: Any = None) -> tuple[Joined, Any] | None:
    """Sequences in the rows that pad least, with their labels `[N, T]`; None where that would save little.

    Longest first, each sequence goes to the row that is shortest so far (Graham 1969, Bounds on multiprocessing timing
    anomalies), for a few numbers of rows of which the best is taken: rows as long as the longest sequence or longer, so
    that they fill, and at least `ROWS` where there are as many sequences, for the work of a step on all of them.

    Example:
        >>> rows, _ = join(Sequences.pack([[0] * n for n in (60, 20, 30, 10)]))
        >>> rows.length.tolist(), rows.count.tolist()
        ([60, 60], [1, 3])
    """
    length = np.asarray(x.length)
    total, longest, steps = int(length.sum()), int(length.max()), x.shape[1]
    fewest = -(-total // max(longest, min(total // ROWS, LONG)))
    by_length = np.argsort(-length, kind="stable")
    best: tuple[int, list[list[int]]] | None = None
    for rows in sorted({min(len(length), -(-fewest * n // 8)) for n in range(8, 15)}):
        heap, content = [(0, r) for r in range(rows)], [[] for _ in range(rows)]  # type: ignore[var-annotated]
        for n in by_length:
            size, row = heap[0]
            content[row].append(int(n))
            heapq.heapreplace(heap, (size + int(length[n]), row))
        area = rows * max(size for size, _ in heap)
        best = (area, content) if best is None or area < best[0] else best
    if best is None or best[0] > WORTH * length.size * steps:
        return None
    area, content = best
    size = area // len(content)
    source, starts = np.zeros((len(content), size), np.int64), np.zeros((len(content), size), bool)
    filled = np.zeros(len(content), np.int32)
    for row, inside in enumerate(content):
        ends = np.cumsum(length[inside])
        starts[row, np.concatenate([[0], ends[:-1]])] = True
        filled[row] = ends[-1]
        source[row, : ends[-1]] = np.concatenate([n * steps + np.arange(length[n]) for n in inside])
        source[row, ends[-1] :] = source[row, 0]  # inside any support
    take = lambda a: np.asarray(a).reshape((-1, *np.shape(a)[2:]))[source]  # noqa: E731
    observed = None if x.observed is None else take(x.observed)
    return Joined(take(x.x), filled, observed, starts), None if label is None else take(label)


def padded(x: Any) -> Any:
    """The padded array of `Sequences`, or an array as it is."""
    return x.x if isinstance(x, Sequences) else x


def opened(data: Any) -> tuple[Any, Schema | None]:
    """The values of a frame, of a `Table` or of sequences of rows of one, and its schema; other data, and None."""
    if isinstance(data, Sequences):
        values, schema = opened(data.x)
        return dataclasses.replace(data, x=values), schema
    table = Table.from_frame(data) if isinstance(data, Frame) else data
    return (table.values, table.schema) if isinstance(table, Table) else (data, None)


@dataclasses.dataclass(frozen=True)
class _OfTable:
    """A leaf `(key, values) -> model` that shows another one the table whose values it is given."""

    leaf: Callable[..., Any]
    schema: Schema

    def __call__(self, key: Any, values: Any, *rest: Any) -> Any:
        rows = isinstance(values, Sequences)
        table = Table(values.x if rows else values, self.schema)
        return self.leaf(key, dataclasses.replace(values, x=table) if rows else table, *rest)


def shown_to(leaf: Any, schema: Schema | None) -> Any:
    """A leaf, or a list of leaves, that is given tables of a schema; as it is where there is none."""
    if schema is None:
        return leaf
    return [_OfTable(one, schema) for one in leaf] if isinstance(leaf, (list, tuple)) else _OfTable(leaf, schema)
