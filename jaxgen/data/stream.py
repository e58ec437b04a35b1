"""Data larger than memory: a source that is read again in each pass, in chunks of one shape."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import Batch, as_array, widened
from jaxgen.core.methods import check_key
from jaxgen.core.pytree import name_of
from jaxgen.data.opening import checked, refusing

#: events in a chunk: enough that a pass is arithmetic and not overhead, little enough for any memory
CHUNK = 65_536

Parts = dict[str, np.ndarray]


class Stream:
    """Events that are read in chunks, as often as asked, and never held in memory as a whole.

    `fit(key, model, Stream(...), EM())` makes exact EM steps, each over one pass. Algorithms that work on batches take
    the chunks, in their order, as batches: shuffle a sorted file once, or they follow its order.

    Args:
        source: the path of an `.npy` file, which is mapped and not loaded; anything with a shape that slices (a numpy
            memory map, an HDF5 or Zarr array, an array); a tuple `(x, context, weight)` or a dict of these; or a
            function without arguments that returns a fresh iterator of pieces, each an array, a tuple or a dict, of
            any number of events: they are cut anew. From a piece of fractions on, whole numbers are fractions too.
        chunk: events per chunk at most. Where the number of events is known, chunks are made equal; the last one is
            filled up with events of weight 0, so that one compiled program serves all.

    Iterating gives `Batch`es of numpy arrays, `chunk` events each, with weights. Chunks whose weights are all 0 are
    left out. `fit` checks each chunk as it checks an array, in every pass.

    Raises:
        DataError: a source that is empty, none of the above, or an iterator, which can be read only once; a chunk
            below 1. ShapeError: parts of different lengths, or pieces of different shapes. FileError: a file that is
            missing or damaged.

    Example:
        >>> stream = Stream(np.arange(10.0)[:, None], chunk=4)
        >>> stream
        Stream(10 events, float64[1], in chunks of 4)
        >>> [batch.weight.tolist() for batch in stream][-1]
        [1.0, 1.0, 0.0, 0.0]
        >>> def pieces():
        ...     yield np.zeros((3, 1))
        ...     yield np.ones((3, 1))
        >>> [batch.x[:, 0].tolist() for batch in Stream(pieces, chunk=4)]
        [[0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]

    A start from data needs some of them at hand: `Mixture.init(key, stream.sample(key, 10_000).x, 16, Gaussian.init)`.
    """

    def __init__(self, source: Any, *, chunk: int = CHUNK):
        if isinstance(chunk, bool) or not isinstance(chunk, (int, np.integer)) or chunk < 1:
            raise DataError(
                "a chunk is a number of events", called=f"Stream(source, chunk={chunk!r})", expected="a positive int",
                got=repr(chunk)[:80], fix="leave chunk out",
            )  # fmt: skip
        if isinstance(source, Iterator):
            raise DataError(
                "an iterator can be read only once", called="Stream(source)",
                expected="a source for many passes: a path, arrays, or a function that returns a fresh iterator",
                got=type(source).__name__, fix="a function that returns the iterator",
            )  # fmt: skip
        self._function: Callable[[], Iterable[Any]] | None = source if callable(source) else None
        self._parts = {} if callable(source) else {name: _opened(part, name) for name, part in _named(source).items()}
        self._pass: Any = None  # the last iterator that the function returned
        #: the number of events, None where only a pass would tell
        self.events = None if self._function else _common_length(self._parts)
        #: events in each chunk
        self.chunk = int(chunk) if self.events is None else -(-self.events // -(-self.events // int(chunk)))

    def __repr__(self) -> str:
        if self._function:
            return f"Stream({name_of(self._function)}, in chunks of {self.chunk})"
        x = self._parts["x"]
        event = ",".join(map(str, x.shape[1:]))
        return f"Stream({self.events} events, {x.dtype}[{event}], in chunks of {self.chunk})"

    def __iter__(self) -> Iterator[Batch]:
        weightless = True
        for parts in self._pieces():
            if "weight" in parts and not np.any(parts["weight"]):
                continue  # nothing to learn from, and a mean over it is no number
            weightless = False
            yield _filled(parts, self.chunk)
        if weightless:
            raise DataError(
                "all weights are 0", called=repr(self), expected="an event that counts", got="weights of 0 only"
            )

    def _pieces(self) -> Iterator[Parts]:
        """One pass in chunks, the last one as short as it is."""
        if self._function is None:
            for start in range(0, self.events or 0, self.chunk):
                yield {name: _read(part, start, start + self.chunk) for name, part in self._parts.items()}
            return
        buffer: Parts = {}
        filled, found = 0, False
        for parts in self._items(self._function):
            rows, at = len(parts["x"]), 0
            while at < rows:
                if not filled:  # a new one each time: the last may still be on its way to the device
                    buffer = {name: np.empty((self.chunk, *a.shape[1:]), a.dtype) for name, a in parts.items()}
                buffer = {name: a.astype(parts[name].dtype, copy=False) for name, a in buffer.items()}
                take = min(rows - at, self.chunk - filled)
                for name, a in parts.items():
                    buffer[name][filled : filled + take] = a[at : at + take]
                at, filled, found = at + take, filled + take, True
                if filled == self.chunk:
                    filled = 0
                    yield buffer
        if filled:
            yield {name: a[:filled] for name, a in buffer.items()}
        if not found:
            raise DataError("the source is empty", called=repr(self), expected="one event or more", got="no events")

    def _items(self, function: Callable[[], Iterable[Any]]) -> Iterator[Parts]:
        """Yield the pieces of the function's iterator, in the first one's shapes and in dtypes that hold all so far."""
        items = function()
        if not isinstance(items, Iterable) or isinstance(items, (str, Mapping, tuple)):
            raise DataError(
                "the source returns no iterator", called=repr(self), expected="a function that returns an iterator",
                got=type(items).__name__, fix="a function that makes a new iterator, such as a generator",
            )  # fmt: skip
        if items is self._pass and isinstance(items, Iterator):
            raise DataError(
                "the source returned the same iterator again", called=repr(self), expected="a new one at each call",
                got=type(items).__name__, fix="a function that makes a new iterator, such as a generator",
            )  # fmt: skip
        self._pass = items
        first: Parts = {}
        kinds: dict[str, np.dtype] = {}
        for i, item in enumerate(items):
            parts = {name: widened(_host(part, name)) for name, part in _named(item).items()}
            _common_length(parts)
            first = first or parts
            mine = {name: a.shape[1:] for name, a in parts.items()}
            wanted = {name: a.shape[1:] for name, a in first.items()}
            if mine != wanted:
                raise ShapeError(
                    f"piece {i} of the source has another shape than the first", called=repr(self),
                    expected=_shapes(wanted), got=_shapes(mine), fix="give every piece the same parts and event shape",
                )  # fmt: skip
            # a column of a table is whole numbers in one piece, and fractions or gaps in another
            kinds = {name: np.promote_types(kinds.get(name, a.dtype), a.dtype) for name, a in parts.items()}
            yield {name: a.astype(kinds[name], copy=False) for name, a in parts.items()}

    def head(self, n: int) -> Batch:
        """The first n events, fewer where there are fewer: for a look, or for validation.

        Example:
            >>> Stream(np.arange(10.0), chunk=4).head(5).x.tolist()
            [0.0, 1.0, 2.0, 3.0, 4.0]
        """
        _check_number(n, "head")
        if self._function is None:
            return Batch(**{name: _read(part, 0, n) for name, part in self._parts.items()})
        found: list[Parts] = []
        have = 0
        for parts in self._items(self._function):
            found.append({name: a[: n - have] for name, a in parts.items()})
            have += len(found[-1]["x"])
            if have >= n:
                break
        return Batch(**_joined(found)) if have else Batch(**next(self._pieces()))

    def sample(self, key: Any, n: int) -> Batch:
        """n events drawn without replacement, all those of weight above 0 alike, in the order of the source.

        Of a source of known length only the chosen rows are read where slices are lazy, as those of a memory map;
        a function is read once through.

        Args:
            key: typed key.
            n: how many; fewer are returned where there are fewer.

        Source: Vitter (1985), Random sampling with a reservoir, in the form that keeps the n smallest of one uniform
        number per event.

        Example:
            >>> Stream(np.arange(10.0), chunk=4).sample(jax.random.key(0), 3).x.shape
            (3,)
        """
        check_key(key, "Stream.sample(key, n)")
        _check_number(n, "sample")
        draw = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
        if self.events is not None:
            return Batch(**self._chosen(draw, n, self.events))
        kept: Parts = {}
        ticket = np.zeros(0)
        for parts in self._pieces():
            counts = np.flatnonzero(parts["weight"] > 0) if "weight" in parts else np.arange(len(parts["x"]))
            more = {name: a[counts] for name, a in parts.items()}
            kept = _joined([kept, more]) if kept else more
            ticket = np.concatenate([ticket, draw.random(len(counts))])
            if len(ticket) > n:
                winners = np.sort(np.argpartition(ticket, n - 1)[:n])
                kept, ticket = {name: a[winners] for name, a in kept.items()}, ticket[winners]
        return Batch(**kept)

    def _chosen(self, draw: np.random.Generator, n: int, events: int) -> Parts:
        """Rows drawn from a source of known length, read where they are."""
        if "weight" in self._parts:
            counts = np.flatnonzero(np.asarray(self._parts["weight"]) > 0)
            rows = np.sort(draw.choice(counts, min(n, len(counts)), replace=False))
        else:
            rows = np.sort(draw.choice(events, min(n, events), replace=False))
        found = [{name: np.asarray(part[:0]) for name, part in self._parts.items()}]
        for start in range(0, events, self.chunk):
            here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + self.chunk)] - start
            if len(here):
                found.append({name: _read(part, start, start + self.chunk, here) for name, part in self._parts.items()})
        return _joined(found)


def _named(source: Any) -> dict[str, Any]:
    """The parts of a batch by name; those that are None left out."""
    if isinstance(source, Batch):
        parts = source._asdict()
    elif isinstance(source, Mapping):
        parts = dict(source)
    elif isinstance(source, tuple):
        parts = dict(zip(Batch._fields, source, strict=False))
        if len(source) > len(Batch._fields):
            parts["one entry too many"] = source[-1]
    else:
        parts = {"x": source}
    unknown = sorted(set(map(str, parts)) - set(Batch._fields)) or (["no x"] if parts.get("x") is None else [])
    if unknown:
        fields = ", ".join(Batch._fields)
        raise DataError(
            "the source is no data", called="Stream(source)", got=", ".join(unknown),
            expected=f"x, or ({fields}), or a dict of them, or a function that returns an iterator of these",
            fix="jaxgen.data.Stream({'x': x, 'weight': weight}), for example",
        )  # fmt: skip
    return {name: part for name, part in parts.items() if part is not None}


def _opened(part: Any, name: str) -> Any:
    """A part as something with a shape that slices."""
    if isinstance(part, (str, os.PathLike)):
        called = f"Stream({os.fspath(part)!r})"
        path = checked(part, called)
        with refusing(called, "an .npy file of numbers"):
            return np.lib.format.open_memmap(path, mode="r")
    slices = hasattr(part, "shape") and hasattr(part, "dtype") and hasattr(part, "__getitem__")
    return part if slices and not isinstance(part, jax.Array) and not hasattr(part, "to_numpy") else _host(part, name)


def _host(part: Any, name: str) -> np.ndarray:
    """A part in memory as a numpy array; its values are checked where they are used."""
    plain = type(part) is np.ndarray and part.dtype.kind in "biuf"
    return part if plain else np.asarray(as_array(part, name=name, allow_nan=True))


def _common_length(parts: dict[str, Any]) -> int:
    lengths = {name: part.shape[0] if len(part.shape) else None for name, part in parts.items()}
    if None in lengths.values() or len(set(lengths.values())) > 1:
        raise ShapeError(
            "the parts of the source do not have one number of events", called="Stream(source)",
            expected="a leading axis of events, of one length", got=_shapes({k: p.shape for k, p in parts.items()}),
        )  # fmt: skip
    if not lengths["x"]:
        raise DataError("the source is empty", called="Stream(source)", expected="one event or more", got="no events")
    return int(lengths["x"])


def _shapes(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())


def _read(part: Any, start: int, stop: int, chosen: Any = slice(None)) -> np.ndarray:
    """Rows, or those chosen of them, as a copy in memory; pages of a file that a map brought in are given back."""
    rows = np.array(np.asarray(part[start:stop])[chosen])
    mapped = getattr(part, "_mmap", None)
    # else the process would seem to hold all of the file that it has seen; only of a map that cannot hold changes
    if isinstance(mapped, mmap.mmap) and getattr(part, "mode", "") == "r" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    return rows


def _filled(parts: Parts, rows: int) -> Batch:
    """A batch of so many rows: repeats of the last event, with weight 0, fill it up."""
    x = parts["x"]
    weight = parts.get("weight")
    if weight is None:
        # half precision could not count the events of a chunk
        weight = np.ones(len(x), np.result_type(x.dtype, np.float32) if x.dtype.kind == "f" else float)
    missing = rows - len(x)
    if missing:
        parts = {name: np.concatenate([a, np.repeat(a[-1:], missing, axis=0)]) for name, a in parts.items()}
        weight = np.concatenate([weight, np.zeros((missing, *weight.shape[1:]), weight.dtype)])
    return Batch(**{**parts, "weight": weight})


def _joined(found: list[Parts]) -> Parts:
    return {name: np.concatenate([parts[name] for parts in found]) for name in found[0]}


def _check_number(n: Any, method: str) -> None:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise DataError(
            "n is a number of events", called=f"Stream.{method}(n={n!r})", expected="a positive int", got=repr(n)[:80]
        )
