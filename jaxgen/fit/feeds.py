"""Feeds: where the batches of a fit come from, behind one face.

A step sees all events or some of them; they lie on the device, come from an iterator, or are read from a stream in each
pass. The driver only asks for steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import FitError, JaxgenError
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Arranged
from jaxgen.fit import diagnosis
from jaxgen.fit.checks import check_batch_size, prepare
from jaxgen.fit.gate import Gate
from jaxgen.fit.loop import Carry, Loop, next_batch
from jaxgen.fit.streaming import Chunked, add_chunk, cycle, finish_pass, fold_pass, mean_score, zero_sums

#: steps that one call of a compiled program makes at most
CHUNK = 256
#: events of a step where nobody says how many
BATCH = 256

Rows = list[dict[str, jax.Array]]


class Feed(Protocol):
    """What the driver asks of the data."""

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
        """Whether every step sees all events."""
        ...

    @property
    def epoch(self) -> int:
        """Steps in which all events are seen once."""
        ...

    @property
    def ended(self) -> bool:
        """Whether there are no more batches."""
        ...

    @property
    def mark(self) -> Any:
        """What tells these data from others, short of reading all of a stream; None where nothing does."""
        ...

    def ready(self, algorithm: Any, model: Any, lanes: int | None) -> None:
        """Bring the data into the form that the algorithm likes best."""
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
        """What was not finite in the step with this number, made again from the state before it."""
        ...


class Arrays:
    """Events on the device: all of them in every step, or the next ones of a new random order each epoch."""

    ended = False

    def __init__(self, given: Batch, batch_size: int | None, algorithm: Any):
        n = given.events
        if batch_size is None and not algorithm.traits.full_batch and n > BATCH:
            batch_size = BATCH
        check_batch_size(algorithm, batch_size, n)
        self._given = self.batch = self.mark = given
        self.batch_size = batch_size
        self.whole = batch_size is None or batch_size == n
        self.epoch = 1 if batch_size is None else n // batch_size

    def ready(self, algorithm: Any, model: Any, lanes: int | None) -> None:
        """Arranged and prepared, where a step sees all events."""
        if self.batch_size is None and isinstance(algorithm, Arranged):
            self.batch = algorithm.arrange(algebra.element(model) if lanes else model, self.batch)
        self.batch = _prepare(algorithm, self.batch_size, lanes, model, self.batch)

    def seek(self, step: int) -> None:
        """The carry knows the order."""

    def advance(self, loop: Loop, carry: Carry, limit: int) -> tuple[Carry, Rows]:
        """Up to `CHUNK` steps in one call."""
        carry, rows = _advance(self.batch_size, CHUNK, loop, carry, self.batch, np.int32(limit))
        return carry, [rows]

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

    def __init__(self, items: Iterator[Any] | Chunked, gate: Gate, batch_size: int | None):
        self._source = items if isinstance(items, Chunked) else None
        if batch_size is not None:
            _refuse_batch_size(self._source, batch_size, gate.algorithm)
        if gate.algorithm.traits.full_batch:
            _refuse_batches(gate.algorithm)
        self._items: Iterator[Any] = cycle(items) if isinstance(items, Chunked) else items
        self._gate = gate
        self.ended, self._fresh = False, True  # the batch at hand was not used yet
        self.batch = gate(_first(self._items))
        known = None if self._source is None else self._source.events
        self.epoch = 1 if known is None else -(-known // self._source.chunk)  # type: ignore[union-attr]
        self.mark = None if self._source is None else _mark(self._source, self.batch)

    def ready(self, algorithm: Any, model: Any, lanes: int | None) -> None:
        """As they come."""

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
            return _advance(None, 1, loop, carry, self.batch, np.int32(step))[0], []
        while step < limit and self._next():
            step += 1
            carry, made = _advance(None, 1, loop, carry, self.batch, np.int32(step))
            rows.append(made)
        return carry, rows

    def _next(self) -> bool:
        """Makes the next batch the one at hand; False at the end."""
        if not self._fresh:
            item = next(self._items, None)
            if item is None:
                self.ended = True
                return False
            self.batch = self._gate(item)
        self._fresh = False
        return True

    def mean(self, score: Callable[[Batch], Any]) -> Any:
        """Over all chunks of a stream; of an iterator, which cannot be read again, of its last batch."""
        if self._source is None:
            return score(self.batch)
        return mean_score(score, _chunks(self._source, self._gate, "data"))

    def explain(self, loop: Loop, key: Any, state: Any, step: int, order: Any) -> str:
        """By the last batch, whose events nobody counts."""
        return diagnosis.of_step(loop.algorithm, key, state, self.batch, self.batch, None)


class Passes:
    """A stream that each step reads once through, adding up what the algorithm's step is a function of."""

    whole, epoch, batch_size, ended = True, 1, None, False

    def __init__(self, source: Chunked, gate: Gate, batch_size: int | None):
        if batch_size is not None:
            _refuse_batch_size(source, batch_size, gate.algorithm)
        self._source, self._gate = source, gate
        self._zero: Any = None
        self.batch = gate(_first(iter(source)))
        self.mark = _mark(source, self.batch)

    def ready(self, algorithm: Any, model: Any, lanes: int | None) -> None:
        """As they come."""

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
        return _chunks(self._source, self._gate, "data")

    def mean(self, score: Callable[[Batch], Any]) -> Any:
        """Over one pass."""
        return mean_score(score, self._chunks())

    def explain(self, loop: Loop, key: Any, state: Any, step: int, order: Any) -> str:
        """By one more pass."""
        return diagnosis.of_pass(loop.algorithm, key, state, self._chunks)


def make_feed(data: Any, gate: Gate, batch_size: int | None) -> Feed:
    """The feed of what was passed as data: arrays, an iterator or a stream."""
    if isinstance(data, Chunked):
        summed = gate.algorithm.traits.summed
        return Passes(data, gate, batch_size) if summed else Batches(data, gate, batch_size)
    if isinstance(data, Iterator):
        return Batches(data, gate, batch_size)
    return Arrays(gate(data), batch_size, gate.algorithm)


class Held:
    """Data that a fit is scored on and never sees: arrays or a stream.

    Args:
        data: what was passed as validation.
        gate: of the fit.
    """

    def __init__(self, data: Any, gate: Gate):
        self._source, self._gate = data if isinstance(data, Chunked) else None, gate
        first = gate(_first(iter(data)) if isinstance(data, Chunked) else data, "validation")
        self._batch = first
        self.mark = first if self._source is None else _mark(self._source, first)

    def mean(self, score: Callable[[Batch], Any]) -> Any:
        """The mean of a score over all events."""
        if self._source is None:
            return score(self._batch)
        return mean_score(score, _chunks(self._source, self._gate, "validation"))


@functools.partial(jax.jit, static_argnames=("algorithm", "batch_size", "lanes"))
def _prepare(algorithm: Any, batch_size: int | None, lanes: int | None, model: Any, batch: Batch) -> Batch:
    return prepare(algorithm, algebra.element(model) if lanes else model, batch, batch_size)


@functools.partial(jax.jit, static_argnames=("batch_size", "length"))
def _advance(
    batch_size: int | None, length: int, loop: Loop, carry: Carry, batch: Batch, limit: Any
) -> tuple[Carry, dict[str, jax.Array]]:
    """Steps until `limit`, the end of the buffer or the end of the fit; the metrics of the steps made come first."""
    take = functools.partial(next_batch, loop.key, data=batch, batch_size=batch_size)
    return loop.steps(carry, take, length, limit)


def _chunks(source: Chunked, gate: Gate, name: str) -> Iterator[Batch]:
    """One pass over a source, each chunk checked."""
    for i, item in enumerate(source):
        try:
            batch = gate(item, name)
        except JaxgenError as error:
            error.add_note(f"  in chunk {i} (from 0) of a pass over {source!r}")
            raise
        yield batch


def _first(items: Iterator[Any]) -> Any:
    item = next(items, None)
    if item is None:
        raise FitError("the iterator of batches is empty", called="fit(key, model, data)", expected="one batch or more")
    return item


def _mark(source: Chunked, first: Batch) -> Any:
    return first, np.asarray([source.chunk, -1 if source.events is None else source.events])


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
