"""Pictures of training."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxgen.core.errors import DataError
from jaxgen.plot.style import MODEL, PALETTE, clean


def history(fitted: Any, name: str, ax: Axes | None = None) -> Axes:
    """One metric of a fit by step, with the validation scores where there are some.

    Args:
        fitted: what `fit` returned.
        name: a key of `fitted.history`, such as `"log_likelihood"` or `"loss"`.
        ax: where to draw; None takes the current axis.

    Raises:
        DataError: no such metric.
    """
    ax = clean(ax)
    if name not in fitted.history:
        known = str(sorted(fitted.history))
        raise DataError("no such metric", called=f"history(fitted, {name!r})", expected=known, got=name)
    values = np.atleast_2d(np.asarray(fitted.history[name], np.float64))
    steps = np.arange(1, values.shape[1] + 1)
    many = values.shape[1] > 400  # then the noise of batches is pale, and through it goes the running mean
    for row in values:
        ax.plot(steps, row, color=MODEL, linewidth=0.8 if many else 1.6, alpha=0.3 if many else 0.9)
        if many:
            width = len(row) // 50
            mean = np.convolve(row, np.ones(width) / width, mode="valid")
            ax.plot(steps[width // 2 :][: len(mean)], mean, color=MODEL, linewidth=1.8)
    if "validation" in fitted.history:
        # validation is higher-is-better; a loss is its negative
        sign = -1 if "loss" in name else 1
        for row in np.atleast_2d(fitted.history["validation"]):
            ax.plot(fitted.history["validation_step"], sign * row, color=PALETTE[1], linewidth=1.6, label="validation")
        ax.legend(*(part[:1] for part in ax.get_legend_handles_labels()), frameon=False)
    ax.set_xlabel("step")
    unit = " (nats per event)" if name in ("loss", "log_likelihood") else ""
    ax.set_ylabel(name.replace("_", " ") + unit)
    return ax
