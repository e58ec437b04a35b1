"""Helpers that the parts of the tour share: figures, timings and forecasts."""

from __future__ import annotations

import time
from typing import Any

import jax
from matplotlib.figure import Figure

from jaxgen import plot
from jaxgen.fit.fitted import Fitted
from jaxgen.report import Timing


def new_figure(columns: int, height: float, *, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure 1000 pixels wide, and its axes."""
    figure = Figure(figsize=(10, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def add_titles(axes: Any, *titles: str) -> None:
    """Put a title over each of the axes."""
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=11, loc="left", color=plot.INK)


def timing(key: Any, fitted: Fitted, n: int, **options: Any) -> Timing:
    """Return seconds of a fit, and samples per second at the second call."""
    first, second = jax.random.split(key)
    jax.block_until_ready(fitted.model.sample(first, (n,), **options))
    begun = time.perf_counter()
    jax.block_until_ready(fitted.model.sample(second, (n,), **options))
    return Timing(fitted.compile_seconds, fitted.seconds, n / (time.perf_counter() - begun))


def forecast(model: Any, x: Any, cut: int) -> float:
    """Return `log p(x_cut.. | x_..cut)` per time step, nats."""
    return float(model.log_prob(x) - model.log_prob(x[:cut])) / (len(x) - cut)
