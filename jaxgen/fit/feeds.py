"""Feeds: where the batches of a fit come from, behind one face.

A step sees all events or some of them; they lie on the device, come from an iterator, or are read from a stream in each
pass. The driver only asks for steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.algorithms import Arranged, Prepared
from jaxgen.core.errors import FitError, JaxgenError
from jaxgen.core.inputs import Batch, Chunked
from jaxgen.core.mesh import along_events, filled
from jaxgen.core.rare import without_rare_paths
from jaxgen.fit import diagnosis
from jaxgen.fit.checks import check_batch_size
from jaxgen.fit.gate import Gate
from jaxgen.fit.loop import Carry, Loop, advance_chunk, begin, next_batch
from jaxgen.fit.mesh import Shards, check_shares
from jaxgen.fit.streaming import add_chunk, cycle, finish_pass, fold_pass, mean_score, zero_sums

#: steps that one call of a compiled program makes at most
CHUNK = 256
#: events of a step where nobody says how many
BATCH = 256

Rows = list[dict[str, Any]]


class Feed(Protocol):
    """A source of the batches that the driver trains on."""

    @property
    def batch(self) -> Batch:
        """At hand: what a step sees, to start and to compile with."""
        ...

    @property
    def batch_size(self) -> int | None:
        """Events of a step, where they are drawn from all."""
        ...

    @property
    def whole(self) -> bool:
        """True if every step sees all events."""
        ...

    @property
    def epoch(self) -> int:
        """Steps in which all events are seen once."""
        ...

    @property
    def ended(self) -> bool:
        """True if there are no more batches."""
        ...

    @property
    def mark(self) -> Any:
        """A value that identifies the data without reading all of a stream; None where nothing does."""
        ...

    def begin(self, loop: Loop, model: Any) -> Carry:
        """The carry before the first step, and the data in the form that the algorithm likes best."""
        ...

    def seek(self, step: int) -> None:
        """Leave out the batches that so many steps saw, in a fit that resumes."""
        ...

    def advance(self, loop: Loop, carry: Carry, limit: int) -> tuple[Carry, Rows]:
        """Steps until `limit` or earlier, and their metrics in pieces along a leading axis of steps.

        Where the carry is at the limit already no step is made, and everything is compiled.
        """
        ...

    def mean(self, score: Callable[[Batch], Any]) -> Any:
        """The mean over all events of a score that is a mean over a batch."""
        ...

    def explain(self, loop: Loop, key: Any, state: Any, step: int, order: Any) -> str:
        """Say which numbers were not finite in step `step`, by making it again from the state before it."""
        ...


class Arrays:
    """Events on the device: all of them in every step, or the next ones of a new random order each epoch."""

    ended = False

    def __init__(self, data: Any, gate: Gate, batch_size: int | None, shards: Shards):
        checked, algorithm = gate(data), gate.algorithm
        n = checked.events
        if batch_size is None and not algorithm.traits.full_batch and n > BATCH:
            batch_size = max(BATCH - BATCH % shards.count, shards.count)
        check_batch_size(algorithm, batch_size, n)
        self._shards = shards
        if batch_size is not None:
            check_shares(batch_size, shards, "the events of a step", f"batch_size={_shared(batch_size, n, shards)}")
            # an order of all events is drawn from, so that every device needs all of them
            self.batch = shards.everywhere(checked, but_spread=True)
        elif algorithm.traits.summed:
            self.batch = shards.events(filled(checked, shards.count))
        else:
            check_shares(n, shards, "the events", f"batch_size={_shared(n, n, shards)}")
            self.batch = shards.events(checked)
        # what lies in pieces stays so, and its rows are sent from device to device; else all are everywhere
        self._pieces = batch_size is None or shards.in_pieces(checked)
        self._given, self._events, self._weighted = self.batch, n, checked.weight is not None
        self.batch_size = batch_size
        self.whole = batch_size is None or batch_size == n
        self.epoch = 1 if batch_size is None else n // batch_size

    @property
    def mark(self) -> Any:
        """The events themselves, wherever they are."""
        return _unfilled(self._given, self._events, self._weighted)

    def begin(self, loop: Loop, model: Any) -> Carry:
        """Arranged and prepared, where a step sees all events."""
        how = loop.algorithm
        # rows of several sequences are of no use where devices share events one by one
        if self.batch_size is None and isinstance(how, Arranged) and self._shards.count == 1:
            self.batch = how.arrange(algebra.element(model) if loop.lanes else model, self.batch)
        if self.batch_size is None and isinstance(how, Prepared):
            self.batch = _prepare(how, loop.lanes, model, self.batch)
        return begin(loop, model, self.batch, batch_size=self.batch_size)

    def seek(self, step: int) -> None:
        """The carry knows the order."""

    def advance(self, loop: Loop, carry: Carry, limit: int) -> tuple[Carry, Rows]:
        """Up to `CHUNK` steps in one call; from the first on that needs a rare path by the program that has them."""
        advance = functools.partial(advance_chunk, self.batch_size, CHUNK, self._pieces, loop)
        rows: Rows = []
        if not carry.rare:
            begun = carry.step
            with without_rare_paths():
                carry, made = advance(carry, self.batch, np.int32(limit))
            rows = [{name: np.asarray(row)[: int(carry.step) - int(begun)] for name, row in made.items()}]
            if not carry.rare:
                return carry, rows
        carry, made = advance(carry, self.batch, np.int32(limit))
        return carry, [*rows, made]

    def mean(self, score: Callable[[Batch], Any]) -> Any:
        """The score itself."""
        return score(self.batch)

    def explain(self, loop: Loop, key: Any, state: Any, step: int, order: Any) -> str:
        """By the step's own events."""
        size = self.batch_size
        if size is None:
            rows = np.arange(self._given.events)
            return diagnosis.of_step(loop.algorithm, key, state, self.batch, self._given, rows)
        place = step % self.epoch
        _, order = next_batch(loop.key, step - place, order, self.batch, size)
        rows = np.asarray(order)[place * size :][:size]
        batch = jax.tree.map(lambda a: a[rows], self.batch)
        return diagnosis.of_step(loop.algorithm, key, state, batch, batch, rows)


class Batches:
    """A batch a step: those of an iterator, or the chunks of a stream, pass after pass."""

    whole, batch_size = False, None

    def __init__(self, items: Iterator[Any] | Chunked, gate: Gate, batch_size: int | None, shards: Shards):
        self._source = items if isinstance(items, Chunked) else None
        if batch_size is not None:
            _refuse_batch_size(self._source, batch_size, gate.algorithm)
        if gate.algorithm.traits.full_batch:
            _refuse_batches(gate.algorithm)
        self._items: Iterator[Any] = cycle(items) if isinstance(items, Chunked) else items
        self._gate, self._shards = gate, shards
        self.ended, self._fresh = False, True  # the batch at hand was not used yet
        first = gate(_first(self._items))
        self.batch = self._placed(first)
        known = None if self._source is None else self._source.events
        self.epoch = 1 if known is None else -(-known // self._source.chunk)  # type: ignore[union-attr]
        self.mark = None if self._source is None else _mark(self._source, first)

    def _placed(self, batch: Batch) -> Batch:
        if self._source is not None:  # whose last chunk is filled up in this way too
            return self._shards.events(filled(batch, self._shards.count))
        check_shares(batch.events, self._shards, "the events of a batch",
                     "batches of one size that all devices can share")
        return self._shards.events(batch)

    def begin(self, loop: Loop, model: Any) -> Carry:
        """With the first of them."""
        return begin(loop, model, self.batch, batch_size=None)

    def seek(self, step: int) -> None:
        """The batches that the saved steps saw are left out."""
        if self._source is not None and step:
            self._items, self._fresh = cycle(self._source, step), False
        else:
            for _ in range(step):
                self._next()

    def advance(self, loop: Loop, carry: Carry, limit: int) -> tuple[Carry, Rows]:
        """A call for each step, so that the host reads the next batch meanwhile."""
        rows: Rows = []
        step = int(carry.step)
        if step >= limit:
            return advance_chunk(None, 1, True, loop, carry, self.batch, np.int32(step))[0], []
        while step < limit and self._next():
            step += 1
            carry, made = advance_chunk(None, 1, True, loop, carry, self.batch, np.int32(step))
            rows.append(made)
        return carry, rows

    def _next(self) -> bool:
        """Makes the next batch the one at hand; False at the end."""
        if not self._fresh:
            item = next(self._items, None)
            if item is None:
                self.ended = True
                return False
            self.batch = self._placed(self._gate(item))
        self._fresh = False
        return True

    def mean(self, score: Callable[[Batch], Any]) -> Any:
        """Over all chunks of a stream; of an iterator, which cannot be read again, of its last batch."""
        if self._source is None:
            return score(self.batch)
        return mean_score(score, _chunks(self._source, self._gate, self._shards, "data"))

    def explain(self, loop: Loop, key: Any, state: Any, step: int, order: Any) -> str:
        """By the last batch, whose events nobody counts."""
        return diagnosis.of_step(loop.algorithm, key, state, self.batch, self.batch, None)


class Passes:
    """A stream that each step reads once through, adding up what the algorithm's step is a function of."""

    whole, epoch, batch_size, ended = True, 1, None, False

    def __init__(self, source: Chunked, gate: Gate, batch_size: int | None, shards: Shards):
        if batch_size is not None:
            _refuse_batch_size(source, batch_size, gate.algorithm)
        self._source, self._gate, self._shards = source, gate, shards
        self._zero: Any = None
        first = gate(_first(iter(source)))
        self.batch = shards.events(filled(first, shards.count))
        self.mark = _mark(source, first)

    def begin(self, loop: Loop, model: Any) -> Carry:
        """With the first of them."""
        return begin(loop, model, self.batch, batch_size=None)

    def seek(self, step: int) -> None:
        """Every pass begins anew."""

    def advance(self, loop: Loop, carry: Carry, limit: int) -> tuple[Carry, Rows]:
        """One step, of one pass; of the chunk at hand where none is wanted."""
        model, going = carry.state.model, int(carry.step) < limit
        add = functools.partial(add_chunk, loop.algorithm, loop.lanes, model)
        if self._zero is None:
            self._zero = zero_sums(loop.algorithm, loop.lanes, model, self.batch)
        sums = fold_pass(self._chunks() if going else [self.batch], add, self._zero)
        moved, rows = finish_pass(loop, carry, sums)
        return (moved, [rows]) if going else (carry, [])

    def _chunks(self) -> Iterator[Batch]:
        return _chunks(self._source, self._gate, self._shards, "data")

    def mean(self, score: Callable[[Batch], Any]) -> Any:
        """Over one pass."""
        return mean_score(score, self._chunks())

    def explain(self, loop: Loop, key: Any, state: Any, step: int, order: Any) -> str:
        """By one more pass."""
        return diagnosis.of_pass(loop.algorithm, key, state, self._chunks)


class Held:
    """Data that a fit is scored on and never sees: arrays or a stream.

    Args:
        data: what was passed as validation.
        gate: of the fit.
        shards: of the fit; each device scores its share where all are alike.
    """

    def __init__(self, data: Any, gate: Gate, shards: Shards):
        self._source, self._gate, self._shards = data if isinstance(data, Chunked) else None, gate, shards
        first = gate(_first(iter(data)) if isinstance(data, Chunked) else data, "validation")
        whole = filled(first, shards.count) if gate.algorithm.traits.summed else first
        self._batch = shards.everywhere(whole) if whole.events % shards.count else shards.events(whole)
        unfilled = _unfilled(self._batch, first.events, first.weight is not None)
        self.mark = unfilled if self._source is None else _mark(self._source, first)

    def mean(self, score: Callable[[Batch], Any]) -> Any:
        """The mean of a score over all events."""
        if self._source is None:
            return score(self._batch)
        return mean_score(score, _chunks(self._source, self._gate, self._shards, "validation"))


@functools.partial(jax.jit, static_argnames=("algorithm", "lanes"))
def _prepare(algorithm: Any, lanes: int | None, model: Any, batch: Batch) -> Batch:
    return along_events(algorithm.prepare(algebra.element(model) if lanes else model, batch))


def _chunks(source: Chunked, gate: Gate, shards: Shards, name: str) -> Iterator[Batch]:
    """One pass over a source, each chunk checked."""
    for i, item in enumerate(source):
        try:
            batch = shards.events(filled(gate(item, name), shards.count))
        except JaxgenError as error:
            error.add_note(f"  in chunk {i} (from 0) of a pass over {source!r}")
            raise
        yield batch


def _shared(wanted: int, n: int, shards: Shards) -> int:
    """The number of events next to the one that was wanted that all devices can share."""
    return max(wanted - wanted % shards.count, shards.count) if n >= shards.count else wanted


def _first(items: Iterator[Any]) -> Any:
    item = next(items, None)
    if item is None:
        raise FitError("the iterator of batches is empty", called="fit(key, model, data)", expected="one batch or more")
    return item


def _unfilled(batch: Batch, n: int, weighted: bool) -> Batch:
    """A batch without what filled it up."""
    return batch if batch.events == n else jax.tree.map(lambda a: a[:n], batch._replace(
        weight=batch.weight if weighted else None))  # fmt: skip


def _mark(source: Chunked, first: Batch) -> Any:
    return jax.tree.map(jnp.asarray, first), np.asarray([source.chunk, -1 if source.events is None else source.events])


def _refuse_batch_size(source: Any, batch_size: int, algorithm: Any) -> None:
    if source is None:
        return _refuse_batches(algorithm)
    raise FitError(
        "a stream's chunks are its batches", called="fit(...)", expected="no batch_size", got=str(batch_size),
        fix=f"jaxgen.data.Stream(source, chunk={batch_size}) has chunks of that size",
    )  # fmt: skip


def _refuse_batches(algorithm: Any) -> None:
    raise FitError(
        "an iterator sets its own batches", called="fit(...)", expected="an algorithm on batches, and no batch_size",
        got=str(algorithm), fix="use Gradient, without a batch size; EM needs all events in every step",
    )  # fmt: skip
