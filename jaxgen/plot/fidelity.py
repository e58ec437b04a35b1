"""The picture of a report on a made table."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxgen.plot.style import GRID, INK, MODEL, clean


def fidelity(found: Any, ax: Axes | None = None) -> Axes:
    """Draw how alike the columns of a made and a real table are, the least alike on top, each with its worst pair.

    Args:
        found: what `tasks.fidelity` returned.
        ax: where to draw; None takes the current axis.

    Example:
        >>> import jax, matplotlib.figure
        >>> from jaxgen import tasks
        >>> rng = np.random.default_rng(0)
        >>> real = [{"a": rng.normal(size=50), "b": rng.choice(["x", "y"], 50)} for _ in range(3)]
        >>> ax = fidelity(tasks.fidelity(jax.random.key(0), *real), matplotlib.figure.Figure().subplots())
        >>> sorted(text.get_text() for text in ax.get_yticklabels())
        ['a', 'b']
    """
    ax = clean(ax)
    names = sorted(found.columns, key=lambda name: found.columns[name])
    places = np.arange(len(names))
    worst = [min([share for pair, share in found.pairs.items() if name in pair], default=np.nan) for name in names]
    ax.axvline(1, color=GRID, zorder=0)
    ax.plot([found.columns[name] for name in names], places, "o", color=MODEL, label="the column")
    ax.plot(worst, places, "|", color=INK, label="its worst pair")
    ax.set_yticks(places, names)
    ax.set_ylim(len(places) - 0.5, -0.5)
    ax.set_xlabel(f"share that is alike; told apart with {found.c2st.accuracy:.2f}, .5 by chance")
    ax.legend(frameon=False)
    return ax
