"""`Fitted`: what `fit` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from jaxgen.core import markup
from jaxgen.fit.loop import Status
from jaxgen.fit.watch import latest

M = TypeVar("M")


@dataclass(frozen=True)
class Fitted(Generic[M]):
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
        compile_seconds: spent on tracing and compiling, whenever that was.
        seconds: all others: spent on steps, validations and watchers.
    """

    model: M
    status: Status
    steps: int
    history: dict[str, np.ndarray]
    state: Any = field(repr=False)
    scores: np.ndarray | None = None
    models: M | None = None
    failure: str = ""
    compile_seconds: float = 0.0
    seconds: float = 0.0

    def __repr__(self) -> str:
        metrics = {k: v for k, v in self.history.items() if v.size and not k.startswith("validation")}
        shown = {k: latest(v[..., -1]) for k, v in metrics.items()}  # of restarts that did not fail
        last = "".join(f", {name}={value:.4f}" for name, value in shown.items())
        return f"Fitted({self.status.name} after {self.steps} steps{last.replace(', ', ': ', 1)}; {self.model!r})"

    def _repr_html_(self) -> str:
        last = [(name, f"{latest(v[..., -1]):.4f}") for name, v in self.history.items() if v.size]
        rows = [("status", f"{self.status!r}, after {self.steps} steps"), *last, ("model", markup.of(self.model))]
        return markup.table(rows, "Fitted")
