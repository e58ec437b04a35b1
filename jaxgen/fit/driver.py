"""`fit`: the host's side of fitting, around compiled chunks of steps.

A chunk is a `while_loop` of at most `CHUNK` steps that ends early at the limit it is given, so that one compiled
program serves every number of steps, and results do not depend on where chunks end.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.errors import FitError, JaxgenError, JaxgenWarning
from jaxgen.core.inputs import Batch, as_batch, concrete, widened
from jaxgen.core.methods import batch_axes, check_key, context_shape
from jaxgen.core.protocols import Arranged, Bound, Density, Energy, Evaluated
from jaxgen.core.pytree import _repr, is_model
from jaxgen.fit import checkpoint as files
from jaxgen.fit.contrastive import ContrastiveDivergence
from jaxgen.fit.diagnosis import of_pass, of_step
from jaxgen.fit.em import EM
from jaxgen.fit.gradient import Gradient
from jaxgen.fit.loop import (
    STARTS,
    VALIDATIONS,
    Carry,
    Status,
    check_algorithm,
    check_batch_size,
    check_counts,
    check_label,
    guarded_step,
    next_batch,
    no_data,
    prepare,
    start,
)
from jaxgen.fit.progress import bar
from jaxgen.fit.streaming import (
    Chunked,
    add_chunk,
    cycle,
    finish_pass,
    fold_pass,
    mean_score,
    sums_over_passes,
    zero_sums,
)
from jaxgen.losses import negative_elbo

CHUNK = 256


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`.

    Args:
        model: the fitted model; with validation the best on it, with restarts the best of them.
        status: why the fit ended; `status.message` says it in words.
        steps: steps made.
        history: metrics as numpy arrays `[steps]` (`[restarts, steps]`), and where there is validation
            `validation` with `validation_step`.
        state: the algorithm's last state (of all restarts).
        scores: with restarts, each one's score, nats per event, higher is better; -inf for one that failed.
        models: with restarts, all of them as one batch of models.
        failure: where numbers were not finite: the first metric or parameter of which that is so, and which events it
            came from; else empty.
        compile_seconds: spent on compiling.
        seconds: spent on steps.
    """

    model: Any
    status: Status
    steps: int
    history: dict[str, np.ndarray]
    state: Any = field(repr=False)
    scores: np.ndarray | None = None
    models: Any = None
    failure: str = ""
    compile_seconds: float = 0.0
    seconds: float = 0.0

    def __repr__(self) -> str:
        metrics = {k: v for k, v in self.history.items() if v.size and not k.startswith("validation")}
        shown = {k: np.fmax.reduce(v[..., -1], axis=None) for k, v in metrics.items()}  # of restarts that did not fail
        last = ", ".join(f"{name}={value:.4f}" for name, value in shown.items())
        return f"Fitted({self.status.name} after {self.steps} steps: {last}; {_repr(self.model)})"


def choose_algorithm(model: Any) -> Any:
    """The algorithm of a model's protocol: EM where all parts have it, else the gradient of the log-likelihood or
    of its bound, else contrastive divergence.

    Raises:
        FitError: nothing but `sample` to go by.
    """
    if latent.supports_em(model):
        return EM()
    if isinstance(model, Density):
        return Gradient()
    if isinstance(model, Bound):
        return Gradient(negative_elbo)
    if isinstance(model, Energy):
        return ContrastiveDivergence()
    raise FitError(
        "no default algorithm for this model", called=f"fit(key, {type(model).__name__}, data)",
        expected="a Latent, Density, Bound or Energy model", got=str(model)[:200],
        fix="jaxgen.fit(key, model, data, jaxgen.Adversarial(critic)) for a generator",
    )  # fmt: skip


def fit(
    key: Any,
    model: Any,
    data: Any,
    algorithm: Any = None,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    tolerance: float | None = None,
    validation: Any = None,
    patience: int | None = None,
    every: int | None = None,
    restarts: int | None = None,
    checkpoint: str | None = None,
    checkpoint_every: int = 100,
    progress: bool | None = None,
) -> Fitted:
    """Fits a model to data.

    Args:
        key: typed key; the same key gives the same fit, bit for bit.
        model: the start; or, needed for restarts, a function `key -> model` that makes one. Its 16-bit parameters train
            as float32, of which steps of a thousandth are something.
        data: an array `[N, *event]`, a tuple `(x, context, weight, label)`, a dict of them, or an iterator of such
            batches; or a `data.Stream`, whose passes are EM's steps and whose chunks are the batches of the others.
            None for a loss that looks at none, such as `losses.reverse_kl`.
        algorithm: `EM`, `Gradient`, `ContrastiveDivergence`, `Adversarial`, or your own; None chooses by protocol.
        steps: how many at most; None takes the algorithm's default.
        batch_size: events per step, in a new random order each epoch; None takes all, or 256 where the algorithm
            works on batches and there are more.
        tolerance: end when the monitored metric changes by less, in nats per event; EM's default is 1e-6.
        validation: data, also a `data.Stream`, to score the model on every `every` steps; the best on it is returned.
        patience: end after so many validations without a better one.
        every: steps between validations; None is one epoch, and at least a 50th of all steps.
        restarts: fit so many starts at once by `vmap` and return the best, by validation or else training score, of
            those whose last step repaired nothing where there are any.
        checkpoint: a folder; the fit is saved there every `checkpoint_every` steps and resumes from there.
        progress: a bar on standard error; None shows it on a terminal only.

    Returns:
        `Fitted`.

    Raises:
        FitError: options that do not go together. DataError, ShapeError: data that do not fit the model.
        FileError: a checkpoint of another fit.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> start = lambda key: jg.Mixture.init(key, x, 2, jg.Gaussian.init)
        >>> fitted = jg.fit(jax.random.key(0), start, x, restarts=4)
        >>> fitted.status.name, fitted.scores.shape
        ('CONVERGED', (4,))
    """
    check_key(key, "fit(key, model, data)")
    counts = {"steps": steps, "batch_size": batch_size, "patience": patience, "every": every, "restarts": restarts}
    check_counts("fit(...)", counts | {"checkpoint_every": checkpoint_every})
    model = widened(_starts(key, model, restarts))
    one = algebra.element(model) if restarts else model
    if not concrete(key, model, None if isinstance(data, Iterator) else data):
        raise FitError(
            "fit runs on the host, not inside jit, vmap or grad", called="fit(key, model, data)",
            expected="arrays", got="traced values", fix="jaxgen.scan_fit(key, model, data, algorithm, steps=100)",
        )  # fmt: skip
    algorithm = choose_algorithm(one) if algorithm is None else algorithm
    check_algorithm(algorithm, "fit(key, model, data, algorithm)")
    data = no_data(algorithm, one, "fit(key, model, None)") if data is None else data
    source = data if isinstance(data, Chunked) else None
    exact = source is not None and sums_over_passes(algorithm)
    stream = data if isinstance(data, Iterator) else cycle(source) if source is not None and not exact else None
    batches = stream if stream is not None else source
    batch = _events(data if batches is None else _first(iter(batches)), one, "data")
    held_out = validation
    if not (validation is None or isinstance(validation, Chunked)):
        held_out = _events(validation, one, "validation")
    for given in (batch, held_out):
        if isinstance(given, Batch):
            check_label(algorithm, one, given, "fit(key, model, data)")
    options = _options(
        algorithm, batch, stream, source, steps, batch_size, tolerance, held_out, patience, every, restarts
    )
    run = _Run(key, model, one, batch, stream, source, algorithm, options, held_out)
    if checkpoint is not None:
        seen = _mark(source, batch) if source is not None else None if stream is not None else batch
        kept = _mark(held_out, _first(iter(held_out))) if isinstance(held_out, Chunked) else held_out
        mark = files.fingerprint(key, model, seen, kept, algorithm, options.batch_size, restarts)
        run.restore(files.read(checkpoint, mark, run.snapshot()))
        run.save, run.save_every = (lambda: files.write(checkpoint, mark, run.snapshot())), checkpoint_every
    with bar(options.steps, progress) as shown:
        run.go(shown)
    return run.result()


@dataclass(frozen=True)
class _Options:
    steps: int
    batch_size: int | None
    tolerance: float
    every: int | None
    patience: int | None
    restarts: int | None


def _starts(key: Any, model: Any, restarts: int | None) -> Any:
    if not is_model(model) and callable(model):
        key = jax.random.fold_in(key, STARTS)
        model = jax.vmap(model)(jax.random.split(key, restarts)) if restarts else model(key)
    elif restarts is not None:
        raise FitError(
            "restarts need a start each", called=f"fit(..., restarts={restarts})",
            expected="a function key -> model", got=type(model).__name__,
            fix="jaxgen.fit(key, lambda key: jaxgen.Mixture.init(key, x, 2, jaxgen.Gaussian.init), x, restarts=4)",
        )  # fmt: skip
    if not is_model(model):
        raise FitError(
            "that is no model", called="fit(key, model, data)", expected="an @model instance, second of three",
            got=type(model).__name__,
        )  # fmt: skip
    return model


def _first(stream: Iterator[Any]) -> Any:
    item = next(stream, None)
    if item is None:
        raise FitError("the iterator of batches is empty", called="fit(key, model, data)", expected="one batch or more")
    return item


def _mark(source: Chunked, first: Batch) -> Any:
    """What tells a stream from another, short of reading it all."""
    return first, np.asarray([source.chunk, -1 if source.events is None else source.events])


def _events(data: Any, model: Any, name: str) -> Batch:
    called = f"fit(key, {type(model).__name__}, {name})"
    batch = as_batch(data, name=name, called=called, missing=latent.accepts_missing(model),
        unseen=latent.unseen(model))
    if len(batch_axes(np.shape(batch.x), model.event_shape, called, name)) != 1:
        raise FitError(
            f"{name} needs one leading axis of events", called=called, expected=f"[N, {model.event_shape}]",
            got=f"shape {list(np.shape(batch.x))}",
            fix=f"np.asarray({name})[None]" if np.ndim(batch.x) == len(model.event_shape) else "flatten leading axes",
        )  # fmt: skip
    latent.check_data(model, batch.x)
    wanted = context_shape(model)
    given = None if batch.context is None else np.shape(batch.context)[1:]
    if not _alike(wanted, given):
        raise FitError(
            f"the context of {name} does not fit the model", called=called,
            expected="no context" if wanted is None else f"context [N, {', '.join(map(str, wanted))}]",
            got="none" if given is None else f"[N, {', '.join(map(str, given))}]",
            fix=f"{name} = (x, context)" if given is None else "leave it out" if wanted is None else "reshape it",
        )  # fmt: skip
    return jax.tree.map(jnp.asarray, batch)


def _alike(wanted: Any, given: Any) -> bool:
    """Whether a context's shape is the one wanted, in which None is any length."""
    if wanted is None or given is None:
        return wanted is given
    return len(wanted) == len(given) and all(w in (None, g) for w, g in zip(wanted, given, strict=True))


def _options(
    algorithm: Any, batch: Batch, stream: Any, source: Any, steps: Any, batch_size: Any, tolerance: Any, held_out: Any,
    patience: Any, every: Any, restarts: Any,
) -> _Options:  # fmt: skip
    def refuse(message: str, expected: str, got: Any, fix: str = "") -> None:
        raise FitError(message, called="fit(...)", expected=expected, got=str(got), fix=fix)

    n = batch.events
    traits, full_batch = algorithm.traits, algorithm.traits.full_batch
    if source is not None and batch_size is not None:
        refuse("a stream's chunks are its batches", "no batch_size", batch_size,
               f"jaxgen.data.Stream(source, chunk={batch_size}) has chunks of that size")  # fmt: skip
    if stream is None and batch_size is None and not full_batch and n > 256:
        batch_size = 256
    if stream is not None and (full_batch or batch_size is not None):
        refuse("an iterator sets its own batches", "an algorithm on batches, and no batch_size", algorithm,
               "use Gradient, without a batch size; EM needs all events in every step")  # fmt: skip
    check_batch_size(algorithm, batch_size, n)
    if tolerance is not None and not (isinstance(tolerance, (int, float, np.floating)) and tolerance >= 0):
        refuse("tolerance must be a number", "0 or more, in nats per event", repr(tolerance))
    full = stream is None and (batch_size is None or batch_size == n)
    if tolerance is not None and not full:
        refuse("a tolerance needs all events in every step", "batch_size=None", batch_size,
               "validation data and patience end a training on batches")  # fmt: skip
    if (patience is not None or every is not None) and held_out is None:
        refuse("patience and every need something to watch", "validation=data", "none")
    if (held_out is not None or restarts) and not isinstance(algorithm, Evaluated):
        refuse(f"{type(algorithm).__name__} has no score to choose by", "an algorithm with evaluate", algorithm,
               "leave validation and restarts out")  # fmt: skip
    steps = traits.steps if steps is None else steps
    if steps is None:
        refuse(f"{type(algorithm).__name__} has no default number of steps", "steps=", "none")
    if tolerance is None:
        tolerance = (traits.tolerance or 0.0) if full else 0.0
    epoch = 1 if batch_size is None else n // batch_size
    if source is not None and not full and source.events is not None:
        epoch = -(-source.events // source.chunk)
    every = None if held_out is None else every or max(epoch, -(-steps // 50))
    return _Options(steps, batch_size, tolerance, every, patience, restarts)


@functools.partial(jax.jit, static_argnames=("algorithm", "batch_size", "restarts"))
def _prepare(algorithm: Any, batch_size: int | None, restarts: int | None, model: Any, batch: Batch) -> Batch:
    return prepare(algorithm, algebra.element(model) if restarts else model, batch, batch_size)


@functools.partial(jax.jit, static_argnames=("algorithm", "batch_size", "restarts"))
def _begin(algorithm: Any, batch_size: int | None, restarts: int | None, key: Any, model: Any, batch: Batch) -> Carry:
    if not restarts:
        return start(algorithm, key, model, batch, batch_size)
    axes = Carry(None, 0, None, 0, 0)  # type: ignore[arg-type]
    begin = jax.vmap(lambda k, m: start(algorithm, k, m, batch, batch_size), out_axes=axes)
    return begin(jax.random.split(key, restarts), model)


@functools.partial(jax.jit, static_argnames=("algorithm", "batch_size", "restarts", "length"))
def _advance(
    algorithm: Any, batch_size: int | None, restarts: int | None, length: int,
    key: Any, carry: Carry, batch: Batch, limit: Any, tolerance: Any,
) -> tuple[Carry, dict[str, jax.Array]]:  # fmt: skip
    """Steps until `limit`, the end of the buffer or the end of the fit; the metrics of the steps made come first."""
    one = functools.partial(guarded_step, algorithm)
    keys = jax.random.split(key, restarts) if restarts else key
    step_all = jax.vmap(one, in_axes=(0, None, 0, 0, 0, None, None)) if restarts else one

    def body(loop: tuple[Carry, Any, Any]) -> tuple[Carry, Any, Any]:
        carry, history, i = loop
        rows, order = next_batch(key, carry.step, carry.order, batch, batch_size)
        state, status, metrics = step_all(keys, carry.step, carry.state, carry.status, carry.metrics, rows, tolerance)
        history = {name: history[name].at[i].set(metrics[name]) for name in history}
        return Carry(carry.step + 1, state, order, status, metrics), history, i + 1

    def go_on(loop: tuple[Carry, Any, Any]) -> jax.Array:
        carry, _, i = loop
        return (i < length) & (carry.step < limit) & jnp.any(carry.status == Status.RUNNING)

    history = {name: jnp.zeros((length, *m.shape), m.dtype) for name, m in carry.metrics.items()}
    carry, history, _ = jax.lax.while_loop(go_on, body, (carry, history, jnp.zeros((), jnp.int32)))
    return carry, history


@functools.partial(jax.jit, static_argnames=("algorithm", "restarts"))
def _evaluate(algorithm: Any, restarts: int | None, key: Any, model: Any, batch: Batch) -> jax.Array:
    score = jax.vmap(algorithm.evaluate, in_axes=(None, 0, None)) if restarts else algorithm.evaluate
    return score(key, model, batch)


@jax.jit
def _better(score: Any, model: Any, best_score: Any, best_model: Any) -> tuple[Any, Any]:
    """The better of two models, of each restart; a score that is NaN is never better, and beaten by any other."""
    higher = score > best_score
    # as long as no model has a score, the last one is the best guess
    better = higher | jnp.isneginf(best_score)

    def choose(new: Any, old: Any) -> Any:
        return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - better.ndim)), new, old)

    return jnp.where(higher, score, best_score), jax.tree.map(choose, model, best_model)


class _Run:
    """One call of `fit`: what changes between chunks of steps."""

    def __init__(self, key, model, one, batch, stream, source, algorithm, options, held_out):
        self.key, self.batch, self.stream, self.algorithm, self.options = key, batch, stream, algorithm, options
        self.held_out, self.one, self.source = held_out, one, source
        self.exact = source is not None and stream is None  # a step is a pass over the source
        self.fresh = True  # the batch at hand was not used yet
        self.save: Callable[[], None] | None = None
        self.save_every = 0
        begun = time.perf_counter()
        if stream is None and source is None:
            self.given = batch
            if options.batch_size is None and isinstance(algorithm, Arranged):
                batch = algorithm.arrange(one, batch)
            self.batch = _prepare(algorithm, options.batch_size, options.restarts, model, batch)
        self.carry = _begin(algorithm, options.batch_size, options.restarts, key, model, self.batch)
        self.compile_seconds, self.seconds = time.perf_counter() - begun, 0.0
        self.step = 0
        self.status = Status.RUNNING
        lanes = (options.restarts,) if options.restarts else ()
        self.history = {name: np.zeros((0, *lanes), m.dtype) for name, m in self.carry.metrics.items()}
        self.scores = np.zeros((0, *lanes))
        self.score_steps = np.zeros(0, np.int64)
        # nothing is better than a score that was not measured
        self.best: Any = (jnp.full(lanes, -jnp.inf), self.carry.state.model) if held_out is not None else None

    def snapshot(self) -> Any:
        rest = (self.scores, self.score_steps, np.asarray(self.step), np.asarray(int(self.status)))
        return self.carry, self.history, self.best, rest

    def restore(self, snapshot: Any) -> None:
        if snapshot is None:
            return
        self.carry, self.history, self.best, (self.scores, self.score_steps, step, status) = snapshot
        self.step = int(step)
        ended = Status(int(status))
        # a fit that ran out of steps may be given more; one that ended for a reason stays ended
        self.status = Status.RUNNING if ended in (Status.FINISHED, Status.INTERRUPTED, Status.EXHAUSTED) else ended
        if self.source is not None and self.stream is not None and self.step:
            self.stream, self.fresh = cycle(self.source, self.step), False
        elif self.stream is not None:
            for _ in range(self.step):  # the batches that the saved steps saw
                self._next_batch()

    def go(self, bar: Any) -> None:
        options = self.options
        bar.update(self.step)
        call = self._call()
        begun = time.perf_counter()
        jax.block_until_ready(call(self.carry, self.step))  # compiles, makes no step
        self.compile_seconds += time.perf_counter() - begun
        begun = time.perf_counter()
        pace = 1
        try:
            while self.status == Status.RUNNING and self.step < options.steps:
                limit = min(self._boundary(), self.step + pace)
                chunk = time.perf_counter()
                made = self._steps(call, limit)
                # ten times a second, at little cost: the bar moves, and an interrupt is heard
                if time.perf_counter() - chunk < 0.1:
                    pace = min(2 * pace, CHUNK)
                self._after(made, bar)
            if self.status == Status.RUNNING:
                self.status = Status.FINISHED
        except KeyboardInterrupt:
            self.status = Status.INTERRUPTED
        self.seconds = time.perf_counter() - begun
        if self.save and self.status != Status.INTERRUPTED:
            self.save()

    def _call(self) -> Callable[..., Any]:
        o, length = self.options, CHUNK if self.stream is None else 1
        tolerance = np.asarray(o.tolerance, self.carry.metrics[self.algorithm.traits.monitor].dtype)
        if self.exact:
            return self._pass(tolerance)
        head = functools.partial(_advance, self.algorithm, o.batch_size, o.restarts, length, self.key)
        return lambda carry, limit: head(carry, self.batch, np.int32(limit), tolerance)

    def _pass(self, tolerance: Any) -> Callable[..., Any]:
        """One step from a pass over the source; over its first chunk where no step is wanted, only to compile."""
        o, first = self.options, self.batch
        zero = zero_sums(self.algorithm, o.restarts, self.carry.state.model, first)

        def call(carry: Carry, limit: int) -> Any:
            add = functools.partial(add_chunk, self.algorithm, o.restarts, carry.state.model)
            sums = fold_pass(self._chunks(self.source, "data") if limit > self.step else [first], add, zero)
            return finish_pass(self.algorithm, o.restarts, self.key, carry, sums, tolerance)

        return call

    def _take(self, item: Any, name: str = "data") -> Batch:
        batch = _events(item, self.one, name)
        check_label(self.algorithm, self.one, batch, f"fit(key, model, {name})")
        return batch

    def _chunks(self, source: Any, name: str) -> Iterator[Batch]:
        """One pass over a source, each chunk checked."""
        for i, item in enumerate(source):
            try:
                batch = self._take(item, name)
            except JaxgenError as error:
                error.add_note(f"  in chunk {i} (from 0) of a pass over {source!r}")
                raise
            yield batch

    def _boundary(self) -> int:
        """The next step after which the host has something to do."""
        periods = [p for p in (self.options.every, self.save_every if self.save else None) if p]
        return min([self.options.steps] + [(self.step // p + 1) * p for p in periods])

    def _steps(self, call: Callable[..., Any], limit: int) -> int:
        """Makes the steps up to `limit`, fewer where the fit ends; returns how many."""
        if self.stream is None:
            carry, history = call(self.carry, limit)
            rows = [history]
        else:
            carry, rows = self.carry, []
            while self.step + len(rows) < limit and self._next_batch():
                carry, history = call(carry, self.step + len(rows) + 1)
                rows.append(history)
        made = int(carry.step) - self.step  # waits for the device; an interrupt up to here leaves all as it was
        self.history = {
            name: np.concatenate([h, *(np.asarray(row[name]) for row in rows)])[: self.step + made]
            for name, h in self.history.items()
        }
        self.carry, self.step = carry, self.step + made
        return made

    def _next_batch(self) -> bool:
        """Makes the next batch of the stream the one at hand; False at its end."""
        if not self.fresh:
            item = next(self.stream, None)
            if item is None:
                self.status = Status.EXHAUSTED
                return False
            self.batch = self._take(item)
        self.fresh = False
        return True

    def _after(self, made: int, bar: Any) -> None:
        statuses = np.asarray(self.carry.status)
        if not (statuses == Status.RUNNING).any():
            failed = (statuses == Status.NON_FINITE).all()
            self.status = Status.NON_FINITE if failed else Status(int(statuses[statuses < Status.NON_FINITE].min()))
        bar.update(made)
        if not bar.disable:
            monitor = self.algorithm.traits.monitor
            latest = np.fmax.reduce(self.history[monitor][-1], axis=None)  # NaN of those that failed
            bar.set_postfix_str(f"{monitor} {latest:.4f}", refresh=False)
        every = self.options.every
        if every and self.best is not None and (self.step % every == 0 or self.status != Status.RUNNING
                                                or self.step == self.options.steps):  # fmt: skip
            self._validate()
        if self.save and self.step % self.save_every == 0:
            self.save()

    def _validate(self) -> None:
        o, model = self.options, self.carry.state.model
        score = self._score(model, self.held_out)
        self.best = _better(score, model, *self.best)
        self.scores = np.concatenate([self.scores, np.asarray(score, np.float64)[None]])
        self.score_steps = np.append(self.score_steps, self.step)
        top = np.where(np.isnan(self.scores), -np.inf, self.scores).reshape(len(self.scores), -1).max(axis=1)
        stale = len(top) - 1 - int(np.argmax(top))
        if o.patience is not None and stale >= o.patience and self.status == Status.RUNNING:
            self.status = Status.PATIENCE

    def _score(self, model: Any, data: Any) -> Any:
        """The score of a model (of each restart) on a batch or on all of a source."""
        # one key for all validations: the same noise, so that scores differ by the model only
        key = jax.random.fold_in(self.key, VALIDATIONS)
        one = functools.partial(_evaluate, self.algorithm, self.options.restarts, key, model)
        return one(data) if isinstance(data, Batch) else mean_score(one, self._chunks(data, "validation"))

    def result(self) -> Fitted:
        o, state = self.options, self.carry.state
        history = {name: np.moveaxis(h, 0, -1) for name, h in self.history.items()}
        best = self.best if len(self.scores) else None  # there is none where an interrupt came before it
        if best is not None:
            history |= {"validation": np.moveaxis(self.scores, 0, -1), "validation_step": self.score_steps}
        model = state.model if best is None else best[1]
        timing: dict[str, Any] = {"compile_seconds": self.compile_seconds, "seconds": self.seconds}
        failed = np.atleast_1d(np.asarray(self.carry.status) == Status.NON_FINITE)
        failure = self._failure(failed) if failed.any() else ""
        if failure:
            what = f"{failed.sum()} of {o.restarts} restarts, the last" if o.restarts else "the fit"
            warnings.warn(f"{what} {failure}; the model is that before the failing step", JaxgenWarning, stacklevel=3)
        repaired = np.atleast_1d(history["repaired"][..., -1]) if "repaired" in history else np.zeros(len(failed), int)
        if not o.restarts:
            _say_repaired(repaired[0])
            return Fitted(model, self.status, self.step, history, state, failure=failure, **timing)
        if best is None:
            scores = self._score(model, self.batch if self.source is None else self.source)
        else:
            scores = best[0]
        scores = np.where(failed | np.isnan(scores), -np.inf, np.asarray(scores, np.float64))
        # a part at its floor has a likelihood that the floor made
        sound = ~failed & (repaired == 0)
        top = int(np.argmax(np.where(sound, scores, -np.inf) if sound.any() else scores))
        _say_repaired(repaired[top])
        return Fitted(
            algebra.take(model, top), self.status, self.step, history, state, scores, model, failure, **timing
        )  # fmt: skip

    def _failure(self, failed: np.ndarray) -> str:
        """What the last step that failed made not finite; the step is made once more, to be looked at."""
        o, key, state = self.options, self.key, self.carry.state
        steps = np.isnan(self.history[self.algorithm.traits.monitor].reshape(self.step, -1)).argmax(axis=0)
        last = int(np.argmax(np.where(failed, steps, -1)))
        step = int(steps[last])
        if o.restarts:
            key, state = jax.random.split(key, o.restarts)[last], algebra.take(state, last)
        key = jax.random.fold_in(key, step + 1)
        if self.exact:
            found = of_pass(self.algorithm, key, state, lambda: self._chunks(self.source, "data"))
        elif self.stream is not None:
            found = of_step(self.algorithm, key, state, self.batch, self.batch, None)
        elif o.batch_size is None:
            found = of_step(self.algorithm, key, state, self.batch, self.given, np.arange(self.given.events))
        else:
            size, place = o.batch_size, step % (self.batch.events // o.batch_size)
            _, order = next_batch(self.key, step - place, self.carry.order, self.batch, size)
            rows = np.asarray(order)[place * size :][:size]
            batch = jax.tree.map(lambda a: a[rows], self.batch)
            found = of_step(self.algorithm, key, state, batch, batch, rows)
        return f"at step {step + 1}: {found}"


def _say_repaired(parts: Any) -> None:
    if parts:
        warnings.warn(
            f"the last step repaired {parts} of the model's parts: no mass, or a variance raised to its floor ("
            "constant or dependent columns, a component of too few events); the likelihood then depends on the floor",
            JaxgenWarning, stacklevel=4,
        )  # fmt: skip
