"""Watchers: what looks at a fit between its steps, on the host, and may end it.

A watcher is any function `progress -> bool | None`; True ends the fit with `Status.STOPPED`. It is called after every
so many steps, and once more at the end:

    fit(key, model, x, watch=[print, watch.Every(100, lambda p: p.metrics["loss"] < 0.1), watch.CSV("fit.csv")])

Nothing that a watcher does reaches the numbers of a fit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np

from jaxgen.core.errors import FileError, FitError
from jaxgen.core.methods import check_key
from jaxgen.fit.loop import Status

M = TypeVar("M")


@dataclass(frozen=True)
class Progress(Generic[M]):
    """The progress of a fit, as it is given to a watcher.

    Args:
        step: steps made.
        steps: how many will be made at most.
        status: `RUNNING`, or why the fit ended.
        elapsed: seconds since `fit` was called.
        history: metrics of the steps made, numpy arrays `[step]` (`[restarts, step]`); where there is validation also
            `validation` and `validation_step`.
        model: after the last step; with restarts a batch of them. It may be kept: nobody changes it.
        state: the algorithm's.
        monitor: name of the metric that the algorithm watches itself.
        restarts: how many, or None.
    """

    step: int
    steps: int
    status: Status
    elapsed: float
    history: dict[str, np.ndarray] = field(repr=False)
    model: M = field(repr=False)
    state: Any = field(repr=False)
    monitor: str = "loss"
    restarts: int | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        """The last value of each metric, a float; with restarts an array `[restarts]`."""
        last = {name: values[..., -1] for name, values in self.history.items() if values.shape[-1]}
        last.pop("validation_step", None)
        return {name: float(value) if np.ndim(value) == 0 else value for name, value in last.items()}

    def __str__(self) -> str:
        shown = (f"{name} {latest(value):.4f}" for name, value in self.metrics.items())
        return ", ".join([f"step {self.step} of {self.steps}", *shown, f"{self.elapsed:.1f} s"])


def latest(value: Any) -> float:
    """The largest of the restarts' values; NaN, of those that failed, does not count where there are others."""
    return float(np.fmax.reduce(np.asarray(value), axis=None))


@runtime_checkable
class Watcher(Protocol):
    """Looks at a fit after every `every` steps and at its end.

    A plain function is one too; it is called as often as validation would be, about fifty times a fit.
    """

    @property
    def every(self) -> int | None:
        """Steps between two calls; None leaves it to `fit`."""
        ...

    def __call__(self, progress: Progress[Any]) -> Any:
        """Look; return True to end the fit."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A watcher that has something to finish when the fit is over, also after an interrupt."""

    def close(self, progress: Progress[Any]) -> None:
        """Finish."""
        ...


@dataclass(frozen=True)
class Every:
    """A function to be called every so many steps.

    Args:
        every: steps between two calls.
        function: `progress -> bool | None`; True ends the fit.

    Example:
        >>> import jax.numpy as jnp, jaxgen as jg
        >>> x, seen = jnp.linspace(-1, 3, 64)[:, None], []
        >>> start = jg.DiagonalGaussian.from_values([0.0], [1.0])
        >>> look = Every(50, lambda progress: seen.append(progress.step))
        >>> fitted = jg.fit(jax.random.key(0), start, x, jg.Gradient(), steps=120, watch=[look])
        >>> seen
        [50, 100, 120]
    """

    every: int
    function: Callable[[Progress[Any]], Any]

    def __call__(self, progress: Progress[Any]) -> Any:
        """Call the function."""
        return self.function(progress)


class _Rows:
    """Which steps a logger has not written yet."""

    def __init__(self, every: int):
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise FitError("every is a number of steps", called=f"every={every!r}", expected="a positive int",
                           got=repr(every)[:80])  # fmt: skip
        self.every, self.done = every, 0

    def new(self, progress: Progress[Any]) -> Iterator[tuple[int, dict[str, float]]]:
        """`(step, metrics)` of the steps made since: one in `every`, the last one, and those that were validated."""
        scored = progress.history.get("validation_step", np.zeros(0, int)).tolist()
        for step in range(self.done + 1, progress.step + 1):
            row: dict[str, float] = {}
            if step % self.every == 0 or (step == progress.step and progress.status != Status.RUNNING):
                named = {n: v[..., step - 1] for n, v in progress.history.items() if not n.startswith("validation")}
                row |= _numbers(named)
            if step in scored:
                row |= _numbers({"validation": progress.history["validation"][..., scored.index(step)]})
            if row:
                yield step, row
        self.done = progress.step


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """Scalars by name; of restarts `name[0]`, `name[1]` and so on."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        array = np.asarray(value)
        flat |= {name: array.item()} if not array.ndim else {f"{name}[{i}]": v for i, v in enumerate(array.tolist())}
    return flat


class _File:
    """A text file that a fit writes from its first row on; what stood there before goes."""

    def __init__(self, path: Any, called: str):
        self.path, self.called, self.fresh = Path(path), called, True

    def write(self, text: str) -> None:
        try:
            with self.path.open("w" if self.fresh else "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise FileError("the log cannot be written", called=self.called, expected="a path that can be written",
                            got=str(error)) from None  # fmt: skip
        self.fresh = False


class CSV:
    """A table of all steps as a file, that grows while the fit runs: one row a step, one column a metric.

    Args:
        path: where; a file that is there is replaced, also by a fit that resumes, whose first steps are written again.
        every: steps between two rows.

    Columns: `step`, `seconds` (since the fit began, when the row was written), the metrics, and `validation`, which is
    empty where there was none. With restarts `loss[0]`, `loss[1]` and so on.

    Example:
        >>> import tempfile, jax.numpy as jnp, jaxgen as jg
        >>> x, path = jnp.linspace(-1, 3, 64)[:, None], tempfile.mkdtemp() + "/fit.csv"
        >>> start = jg.DiagonalGaussian.from_values([0.0], [1.0])
        >>> fitted = jg.fit(jax.random.key(0), start, x, jg.Gradient(), steps=3, watch=[CSV(path)])
        >>> Path(path).read_text().split()[0]
        'step,seconds,gradient_norm,loss,validation'
    """

    def __init__(self, path: Any, *, every: int = 1):
        self._file, self._rows = _File(path, f"CSV({str(path)!r})"), _Rows(every)
        self._columns: list[str] = []

    @property
    def every(self) -> None:
        """As `fit` likes."""
        return

    def __call__(self, progress: Progress[Any]) -> None:
        """Write the steps made since the last call."""
        lines: list[str] = []
        for step, row in self._rows.new(progress):
            if self._file.fresh and not lines:
                scores = [f"validation[{i}]" for i in range(progress.restarts)] if progress.restarts else ["validation"]
                self._columns = sorted(set(row) - set(scores)) + scores
                lines.append(",".join(["step", "seconds", *self._columns]))
            cells = (repr(row[name]) if name in row else "" for name in self._columns)
            lines.append(",".join([str(step), f"{progress.elapsed:.3f}", *cells]))
        if lines:
            self._file.write("".join(line + "\n" for line in lines))

    def close(self, progress: Progress[Any]) -> None:
        """Write the rest; the next fit begins a new table."""
        self(progress)
        self._file.fresh, self._rows.done = True, 0


class JSONL:
    """The same as one JSON object a line: `{"step": 1, "seconds": 0.2, "loss": 1.5}`.

    Numbers that are not finite become null, which JSON can say.

    Args:
        path: where; a file that is there is replaced.
        every: steps between two rows.
    """

    def __init__(self, path: Any, *, every: int = 1):
        self._file, self._rows = _File(path, f"JSONL({str(path)!r})"), _Rows(every)

    @property
    def every(self) -> None:
        """As `fit` likes."""
        return

    def __call__(self, progress: Progress[Any]) -> None:
        """Write the steps made since the last call."""
        lines = []
        for step, row in self._rows.new(progress):
            known = {name: value if math.isfinite(value) else None for name, value in row.items()}
            lines.append(json.dumps({"step": step, "seconds": round(progress.elapsed, 3), **known}) + "\n")
        if lines:
            self._file.write("".join(lines))

    def close(self, progress: Progress[Any]) -> None:
        """Write the rest; the next fit begins a new file."""
        self(progress)
        self._file.fresh, self._rows.done = True, 0


class Scalars:
    """Metrics to a writer of TensorBoard's kind, `writer.add_scalar(tag, value, step)`.

    `torch.utils.tensorboard.SummaryWriter`, `tensorboardX.SummaryWriter` and `flax.metrics.tensorboard.SummaryWriter`
    (whose method is `scalar`) are such writers. For wandb, and anything else with a function of its own, give that
    function: `Scalars(lambda tag, value, step: wandb.log({tag: value}, step=step))`.

    Args:
        writer: a writer, or a function `(tag, value, step)`.
        every: steps between two values.
        prefix: what tags begin with.

    Example:
        >>> import jax.numpy as jnp, jaxgen as jg
        >>> x, seen = jnp.linspace(-1, 3, 64)[:, None], []
        >>> start = jg.DiagonalGaussian.from_values([0.0], [1.0])
        >>> log = Scalars(lambda tag, value, step: seen.append((tag, step)), every=2, prefix="fit/")
        >>> fitted = jg.fit(jax.random.key(0), start, x, jg.Gradient(), steps=4, watch=[log])
        >>> seen
        [('fit/gradient_norm', 2), ('fit/loss', 2), ('fit/gradient_norm', 4), ('fit/loss', 4)]
    """

    def __init__(self, writer: Any, *, every: int = 1, prefix: str = ""):
        methods = (getattr(writer, name, None) for name in ("add_scalar", "scalar"))
        self._add = next((m for m in methods if callable(m)), writer)
        if not callable(self._add):
            raise FitError(
                "that writes no scalars", called="watch.Scalars(writer)", got=repr(writer)[:80],
                expected="a writer with add_scalar(tag, value, step), or a function of these",
                fix="jaxgen.watch.Scalars(lambda tag, value, step: print(tag, value, step))",
            )  # fmt: skip
        self._rows, self._prefix = _Rows(every), prefix

    @property
    def every(self) -> None:
        """As `fit` likes."""
        return

    def __call__(self, progress: Progress[Any]) -> None:
        """Write the steps made since the last call."""
        for step, row in self._rows.new(progress):
            for name in sorted(row):
                self._add(self._prefix + name, row[name], step)

    def close(self, progress: Progress[Any]) -> None:
        """Write the rest; the next fit begins at its first step."""
        self(progress)
        self._rows.done = 0


class Samples:
    """Samples of the model every so many steps, given to a function: to be drawn, saved or compared with data.

    Args:
        key: typed key. The same in every call, so that pictures differ by the model only.
        show: `(progress, samples)`; returns True to end the fit. Samples are `[n, *event]` (`[restarts, n, *event]`).
        n: how many.
        every: steps between two calls; None leaves it to `fit`.
        context: `[n, *context]`, for a model that takes one.

    Example:
        >>> import jax.numpy as jnp, jaxgen as jg
        >>> x = jnp.linspace(-1, 3, 64)[:, None]
        >>> start = jg.DiagonalGaussian.from_values([0.0], [1.0])
        >>> look = Samples(jax.random.key(1), lambda progress, x: print(progress.step, x.shape), n=5, every=2)
        >>> fitted = jg.fit(jax.random.key(0), start, x, jg.Gradient(), steps=4, watch=[look])
        2 (5, 1)
        4 (5, 1)
    """

    def __init__(self, key: Any, show: Callable[..., Any], *, n: int = 16, every: int | None = None,
                 context: Any = None):  # fmt: skip
        check_key(key, "watch.Samples(key, show)")
        self._key, self._show, self._n, self._context = key, show, n, context
        self.every = every

    def __call__(self, progress: Progress[Any]) -> Any:
        """Draw, and show."""
        given = {} if self._context is None else {"context": self._context}
        draw = lambda model: model.sample(self._key, (self._n,), **given)  # noqa: E731
        return self._show(progress, (jax.vmap(draw) if progress.restarts else draw)(progress.model))
