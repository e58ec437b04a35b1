"""Helpers that the parts of the tour share: figures, timings, forecasts and baselines of series."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxgen import plot
from jaxgen.fit.fitted import Fitted
from jaxgen.report import Timing


def new_figure(columns: int, height: float, *, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure ten inches wide, and its axes."""
    figure = Figure(figsize=(10, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def add_titles(axes: Any, *titles: str) -> None:
    """Put a title over each of the axes."""
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=11, loc="left", color=plot.INK)


def timing(key: Any, fitted: Fitted, n: int, **options: Any) -> tuple[Timing, Any]:
    """Return seconds of a fit and samples per second at the second call, and these samples."""
    first, second = jax.random.split(key)
    jax.block_until_ready(fitted.model.sample(first, (n,), **options))
    begun = time.perf_counter()
    drawn = jax.block_until_ready(fitted.model.sample(second, (n,), **options))
    return Timing(fitted.seconds, n / (time.perf_counter() - begun)), drawn


def forecast(model: Any, x: Any, cut: int) -> np.ndarray:
    """Return `log p(x_t | x_..t)` of each time step from `cut` on, nats."""
    return np.asarray(model.filter(x).log_evidence, np.float64)[cut:]


def order_one(leaf: Any, x: Any, group: Any, test: Any) -> np.ndarray:
    """Return `log p(x_t | group of what came before)` of each time step of `test`: a Markov chain of order one.

    Args:
        leaf: a density of one time step, whose M-step gives each group of the past its own parameters.
        x: what it is fitted to, `[T, *event]`, and
        group: the group of the past of each of these steps, whole numbers from 0.
        test: such a pair of later steps.
    """

    @jax.jit
    def run(known: Any, x: Any, later: Any) -> Any:
        each = jax.vmap(lambda weight: leaf.m_step(leaf.e_step(x, weight)[0]))(known)
        return jax.vmap(lambda model: model.log_prob(later))(each)

    later, later_group = test
    known = np.eye(int(max(np.max(group), np.max(later_group))) + 1, dtype=np.float32)[np.asarray(group)].T
    log_p = np.asarray(run(known, x, later), np.float64)
    return log_p[np.asarray(later_group), np.arange(len(later))]


def thirds(past: Any, train: Any) -> np.ndarray:
    """Return 0, 1 or 2: in which third of its values in `train` each number lies."""
    return np.searchsorted(np.quantile(np.asarray(past)[train], (1 / 3, 2 / 3)), np.asarray(past))


def mark_cut(ax: Any, at: float) -> None:
    """Draw the dashed line right of which the fit saw nothing."""
    ax.axvline(at, color=plot.INK, linewidth=1, linestyle=(0, (4, 3)))
