"""`fit`: the host's side of fitting, around compiled chunks of steps.

A chunk ends early at the limit it is given, so that one compiled program serves every number of steps, and results do
not depend on where chunks end.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import jax
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.algorithms import Algorithm, Reviewed
from jaxgen.core.errors import FitError, JaxgenWarning
from jaxgen.core.methods import check_key
from jaxgen.core.protocols import Key
from jaxgen.fit import checkpoint as files
from jaxgen.fit.clock import Clock
from jaxgen.fit.feeds import CHUNK
from jaxgen.fit.fitted import Fitted
from jaxgen.fit.loop import Loop, Status
from jaxgen.fit.mesh import Shards, shards_of
from jaxgen.fit.plan import Plan, plan
from jaxgen.fit.progress import Bar, watched
from jaxgen.fit.validation import Validation, score_of
from jaxgen.fit.watch import Closing, Progress, Watcher

M = TypeVar("M")

#: seconds between two looks of the host: the bar moves and an interrupt is heard ten times a second, at little cost
PACE = 0.1
#: as many times as many steps between the next two looks, at most, where steps are fast
FASTER = 8
#: seconds after an interrupt in which another one is meant for whatever called `fit`
TWICE = 1.0
_interrupted = -TWICE


@overload
def fit(
    key: Key,
    model: Callable[[Key], M],
    data: Any,
    algorithm: Algorithm | None = None,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    tolerance: float | None = None,
    validation: Any = None,
    patience: int | None = None,
    every: int | None = None,
    restarts: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    watch: Sequence[Callable[[Progress[Any]], Any]] = (),
    progress: bool | None = None,
) -> Fitted[M]: ...


@overload
def fit(
    key: Key,
    model: M,
    data: Any,
    algorithm: Algorithm | None = None,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    tolerance: float | None = None,
    validation: Any = None,
    patience: int | None = None,
    every: int | None = None,
    restarts: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    watch: Sequence[Callable[[Progress[Any]], Any]] = (),
    progress: bool | None = None,
) -> Fitted[M]: ...


def fit(
    key: Key,
    model: Any,
    data: Any,
    algorithm: Algorithm | None = None,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    tolerance: float | None = None,
    validation: Any = None,
    patience: int | None = None,
    every: int | None = None,
    restarts: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    watch: Sequence[Callable[[Progress[Any]], Any]] = (),
    progress: bool | None = None,
) -> Fitted[Any]:
    """Fits a model to data.

    Args:
        key: typed key; the same key gives the same fit, bit for bit.
        model: the start; or, needed for restarts, a function `key -> model` that makes one. Its 16-bit parameters train
            as float32, of which steps of a thousandth are something.
        data: an array `[N, *event]`, a tuple `(x, context, weight, label)`, a dict of them, or an iterator of such
            batches; or a `data.Stream`, whose passes are EM's steps and whose chunks are the batches of the others.
            None for a loss that looks at none, such as `losses.reverse_kl`.
        algorithm: `EM`, `Gradient`, `ContrastiveDivergence`, `Adversarial`, or your own; None chooses by protocol.
        steps: how many at most, and where step sizes that fall to the end get to; None takes the algorithm's own
            number; 0 returns the start, scored where there is something to score it on.
        batch_size: events per step, in a new random order each epoch; None takes all, or 256 where the algorithm
            works on batches and there are more.
        tolerance: end when the monitored metric changes by less, in nats per event; EM's default is 1e-6.
        validation: data, also a `data.Stream`, to score the model on every `every` steps; the best on it is returned.
        patience: end after so many validations without a better one.
        every: steps between validations, and between calls of watchers that do not say how often; None is one epoch,
            and at least a 50th of all steps.
        restarts: fit so many starts at once by `vmap` and return the best, by validation or else training score, of
            those whose last step repaired nothing where there are any.
        mesh: devices that share the events, along its axis "data" or else its first: each step is that of one device,
            and what it sums over events is added once. `jax.make_mesh((jax.device_count(),), ("data",))` takes all
            devices. None takes the mesh of `jax.set_mesh`, or that on which the data lie.
        checkpoint: a folder; the fit is saved there every `checkpoint_every` steps and resumes from there. One that
            ended for a reason (tolerance, patience, a watcher, numbers that are not finite) stays ended.
        watch: functions `progress -> bool | None`, called on the host after every `every` steps and at the end; True
            ends the fit. `jaxgen.watch` has some that log and that draw samples.
        progress: a bar on standard error; None shows it on a terminal and in a notebook.

    Returns:
        `Fitted`.

    Raises:
        FitError: options that do not go together. DataError, ShapeError: data that do not fit the model.
        FileError: a checkpoint of another fit.

    Example:
        >>> import jax.numpy as jnp, jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> start = lambda key: jg.Mixture.init(key, x, 2, jg.Gaussian.init)
        >>> fitted = jg.fit(jax.random.key(0), start, x, restarts=4)
        >>> fitted.status.name, fitted.scores.shape
        ('CONVERGED', (4,))
    """
    check_key(key, "fit(key, model, data)")
    watch = (watch,) if callable(watch) else tuple(watch)
    if not all(map(callable, watch)):
        raise FitError("a watcher is a function", called="fit(..., watch=)", got=repr(watch)[:80],
                       expected="functions progress -> bool | None, such as print")  # fmt: skip
    shards = shards_of(mesh, data)
    with shards.at_work():
        planned = plan(
            shards.everywhere(key), model, data, algorithm, steps=steps, batch_size=batch_size, tolerance=tolerance,
            validation=validation,
            patience=patience, every=every, restarts=restarts, checkpoint_every=checkpoint_every, watched=bool(watch),
            shards=shards,
        )  # fmt: skip
        run = Run(planned, watch, Bar(planned.steps, watched(progress)))
        if checkpoint is not None:
            run.resume(checkpoint, checkpoint_every, shards)
        run.go()
        fitted = run.result()
    parts = {name: shards.returned(getattr(fitted, name)) for name in ("model", "state", "models")}
    return dataclasses.replace(fitted, **parts)


class Run:
    """One call of `fit`: what changes between chunks of steps."""

    def __init__(self, plan: Plan, watch: Iterable[Any], bar: Bar):
        self.plan, self.bar, self.clock = plan, bar, Clock()
        loop = Loop(plan.algorithm, plan.restarts, plan.key)
        self.carry = plan.feed.begin(loop, plan.model)
        monitor = plan.algorithm.traits.monitor
        self.loop = dataclasses.replace(loop, tolerance=np.asarray(plan.tolerance, self.carry.metrics[monitor].dtype))
        self.step, self.status = 0, Status.RUNNING
        lanes = (plan.restarts,) if plan.restarts else ()
        self.history = {name: np.zeros((0, *lanes), m.dtype) for name, m in self.carry.metrics.items()}
        held = plan.held is not None
        self.validation = Validation(self.loop, plan.held, plan.every, plan.patience, self.model) if held else None
        # scores first, so that the others see them
        self.watchers: list[Any] = [*([self.validation] if self.validation else []), *watch]
        self.looked: dict[int, int] = {}

    @property
    def model(self) -> Any:
        """After the last step."""
        return self.carry.state.model

    @property
    def over(self) -> bool:
        """True if the fit has ended or made all its steps."""
        return self.status != Status.RUNNING or self.step >= self.plan.steps

    def progress(self) -> Progress[Any]:
        """Return the progress of the fit, as a watcher sees it."""
        history = {name: np.moveaxis(rows, 0, -1) for name, rows in self.history.items()}
        history |= self.validation.history if self.validation else {}
        return Progress(
            self.step, self.plan.steps, self.status, self.clock.elapsed, history, self.model, self.carry.state,
            self.plan.algorithm.traits.monitor, self.plan.restarts,
        )  # fmt: skip

    def snapshot(self) -> Any:
        """All that a fit needs to go on, a pytree."""
        v, lanes = self.validation, (self.plan.restarts,) if self.plan.restarts else ()
        scores = (np.zeros((0, *lanes)), np.zeros(0, np.int64)) if v is None else (v.scores, v.steps)
        ends = np.asarray(self.step), np.asarray(int(self.status))
        return self.carry, self.history, v and v.best, (*scores, *ends)

    def resume(self, folder: str | Path, every: int, shards: Shards) -> None:
        """Go on from the checkpoint in a folder where there is one, and save there from now on."""
        plan = self.plan
        held = None if plan.held is None else plan.held.mark
        mark = files.fingerprint(
            plan.key, plan.model, plan.feed.mark, held, plan.algorithm, plan.feed.batch_size, plan.restarts
        )
        saved = files.read(folder, mark, self.snapshot())
        self.watchers.append(files.Checkpoint(folder, mark, every, self.snapshot))
        if saved is None:
            return
        carry, self.history, best, (scores, score_steps, step, status) = saved
        self.carry, best = shards.everywhere((carry, best))
        if self.validation:
            self.validation.best, self.validation.scores, self.validation.steps = best, scores, score_steps
        self.step = int(step)
        ended = Status(int(status))
        # a fit that ran out of steps may be given more; one that ended for a reason stays ended
        self.status = Status.RUNNING if ended in (Status.FINISHED, Status.INTERRUPTED, Status.EXHAUSTED) else ended
        plan.feed.seek(self.step)

    def go(self) -> None:
        """All steps; an interrupt ends them, a second one within a second goes on to whatever called."""
        global _interrupted
        self.bar.begin(self.step)
        whole = False
        try:
            self.plan.feed.advance(self.loop, self.carry, self.step)  # compiles, makes no step
            self.bar.compiled()
            try:
                self._all_steps()
            except KeyboardInterrupt:
                now, before = time.monotonic(), _interrupted
                _interrupted = now
                if now - before < TWICE:
                    raise
                self.status = Status.INTERRUPTED
            whole = True
        finally:
            self.status = self.status if whole else Status.INTERRUPTED  # what is not whole is not saved
            self.bar.close(self.status)
            end = self.progress()
            for watcher in self.watchers:
                if isinstance(watcher, Closing):
                    watcher.close(end)

    def _all_steps(self) -> None:
        pace = 1
        while not self.over:
            begun = time.perf_counter()
            self._steps(min(self._boundary(), self.step + pace))
            pace = min(pace * max(1, min(FASTER, int(PACE / (time.perf_counter() - begun)))), CHUNK)
            self.bar(self.progress())
            if not self.over:
                self._look()
        if self.status == Status.RUNNING:
            self.status = Status.FINISHED
        self._look(at_the_end=True)
        self.bar(self.progress())

    def _period(self, watcher: Any) -> int:
        """Steps between two calls of a watcher."""
        return (watcher.every if isinstance(watcher, Watcher) else None) or self.plan.every

    def _boundary(self) -> int:
        """The next step after which the host has something to do."""
        return min([self.plan.steps] + [(self.step // p + 1) * p for p in map(self._period, self.watchers)])

    def _steps(self, limit: int) -> None:
        """Makes the steps up to `limit`, fewer where the fit ends."""
        carry, rows = self.plan.feed.advance(self.loop, self.carry, limit)
        step = int(carry.step)  # waits for the device; an interrupt up to here leaves all as it was
        made = {name: [np.asarray(row[name]) for row in rows] for name in self.history}
        self.history = {name: np.concatenate([h, *made[name]])[:step] for name, h in self.history.items()}
        self.carry, self.step = carry, step
        statuses = np.asarray(carry.status)
        if not (statuses == Status.RUNNING).any():
            failed = (statuses == Status.NON_FINITE).all()
            self.status = Status.NON_FINITE if failed else Status(int(statuses[statuses != Status.NON_FINITE].min()))
        elif self.plan.feed.ended:
            self.status = Status.EXHAUSTED

    def _look(self, at_the_end: bool = False) -> None:
        """Lets watchers see the fit, each once a step, those whose turn it is or all; one that says so ends it."""
        for i, watcher in enumerate(self.watchers):
            if self.looked.get(i) == self.step or not (at_the_end or self.step % self._period(watcher) == 0):
                continue
            self.looked[i] = self.step
            verdict = watcher(self.progress())
            if self.status in (Status.RUNNING, Status.FINISHED) and (isinstance(verdict, Status) or bool(verdict)):
                self.status = verdict if isinstance(verdict, Status) else Status.STOPPED

    def result(self) -> Fitted[Any]:
        """Return the result of the fit, with a warning where it is not what was asked for."""
        state, restarts = self.carry.state, self.plan.restarts
        history = self.progress().history
        best = self.validation.best if self.validation and len(self.validation.scores) else None
        model = state.model if best is None else best[1]
        failed = np.atleast_1d(np.asarray(self.carry.status) == Status.NON_FINITE)
        failure = self._failure(failed) if failed.any() else ""
        if failure:
            what = f"{failed.sum()} of {restarts} restarts, the last" if restarts else "the fit"
            warnings.warn(f"{what} {failure}; the model is that before the failing step", JaxgenWarning, stacklevel=3)
        known = "repaired" in history and self.step > 0
        repaired = np.atleast_1d(history["repaired"][..., -1]) if known else np.zeros(len(failed), int)
        scores: Any = None
        models, top = None, 0
        if restarts:
            scores = score_of(self.loop, model, self.plan.feed) if best is None else best[0]
            scores = np.where(failed | np.isnan(scores), -np.inf, np.asarray(scores, np.float64))
            # a part at its floor has a likelihood that the floor made
            sound = ~failed & (repaired == 0)
            top = int(np.argmax(np.where(sound, scores, -np.inf) if sound.any() else scores))
            model, models = algebra.take(model, top), model
        if repaired[top]:
            warnings.warn(_repairs(repaired[top]), JaxgenWarning, stacklevel=3)
        if isinstance(self.plan.algorithm, Reviewed) and self.step and not failed[top]:
            one = {name: rows[top] if restarts else rows for name, rows in history.items()}
            if fault := self.plan.algorithm.review(one):
                warnings.warn(fault, JaxgenWarning, stacklevel=3)
        timing = (self.clock.compiling, self.clock.working)
        return Fitted(model, self.status, self.step, history, state, scores, models, failure, *timing)

    def _failure(self, failed: np.ndarray) -> str:
        """Say which numbers the last failed step made not finite, by making that step once more."""
        key, state, restarts = self.plan.key, self.carry.state, self.plan.restarts
        steps = np.isnan(self.history[self.plan.algorithm.traits.monitor].reshape(self.step, -1)).argmax(axis=0)
        last = int(np.argmax(np.where(failed, steps, -1)))
        step = int(steps[last])
        if restarts:
            key, state = jax.random.split(key, restarts)[last], algebra.take(state, last)
        key = jax.random.fold_in(key, step + 1)
        return f"at step {step + 1}: {self.plan.feed.explain(self.loop, key, state, step, self.carry.order)}"


def _repairs(parts: Any) -> str:
    return (
        f"the last step repaired {parts} of the model's parts: no mass, or a variance raised to its floor ("
        "constant or dependent columns, a component of too few events); the likelihood then depends on the floor"
    )
