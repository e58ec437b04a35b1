"""Pictures of training."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxgen.core.errors import DataError
from jaxgen.plot.style import MODEL, PALETTE, clean

#: what is in the unit of a validation
SCORES = ("loss", "log_likelihood", "objective")


def metrics(fitted: Any, figure: Figure | None = None, *, log_steps: bool = False) -> np.ndarray:
    """All metrics of a fit by step, one below the other.

    Args:
        fitted: what `fit` returned.
        figure: where to draw; None takes the current one.
        log_steps: the axis of steps is logarithmic: what happens early is seen too.

    Returns:
        the axes, one for each metric, `fitted.history` in alphabetical order.

    Example:
        >>> import jax, jaxgen as jg, matplotlib.figure
        >>> start = jg.DiagonalGaussian.from_values([0.0], [1.0])
        >>> fitted = jg.fit(jax.random.key(0), start, np.linspace(0, 1, 9)[:, None], jg.Gradient(), steps=20)
        >>> [ax.get_ylabel() for ax in metrics(fitted, matplotlib.figure.Figure(), log_steps=True)]
        ['gradient norm', 'loss (nats per event)']
    """
    figure = plt.gcf() if figure is None else figure
    names = [name for name in sorted(fitted.history) if not name.startswith("validation")]
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for name, ax in zip(names, axes, strict=True):
        history(fitted, name, ax, log_steps=log_steps)
        ax.label_outer()
    return axes


def history(fitted: Any, name: str | None = None, ax: Axes | None = None, *, log_steps: bool = False) -> Axes:
    """One metric of a fit by step, with the validation scores where it is what was validated.

    Args:
        fitted: what `fit` returned.
        name: a key of `fitted.history`, such as `"entropy"`; None takes `"loss"`, `"log_likelihood"` or else the first.
            `metrics` draws all of them.
        ax: where to draw; None takes the current axis.
        log_steps: the axis of steps is logarithmic.

    Raises:
        DataError: no such metric.
    """
    ax = clean(ax)
    if name is None:
        name = next((score for score in SCORES if score in fitted.history), min(fitted.history))
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
    if "validation" in fitted.history and name in SCORES:
        # validation is higher-is-better; a loss is its negative
        sign = -1 if "loss" in name else 1
        for row in np.atleast_2d(fitted.history["validation"]):
            ax.plot(fitted.history["validation_step"], sign * row, color=PALETTE[1], linewidth=1.6, label="validation")
        ax.legend(*(part[:1] for part in ax.get_legend_handles_labels()), frameon=False)
    ax.set_xlabel("step")
    if log_steps:
        ax.set_xscale("log")
    unit = " (nats per event)" if name in SCORES else ""
    ax.set_ylabel(name.replace("_", " ") + unit)
    return ax
