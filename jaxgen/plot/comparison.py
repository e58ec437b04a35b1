"""The picture of a comparison of models."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxgen.plot.style import GRID, INK, MODEL, clean


def comparison(found: Any, ax: Axes | None = None) -> Axes:
    """Draw how far models are behind the best of them: differences with two standard errors, the best on top.

    Args:
        found: what `tasks.compare` returned.
        ax: where to draw; None takes the current axis.

    Example:
        >>> import jax, jaxgen as jg, matplotlib.figure
        >>> x = jg.data.old_faithful().values
        >>> starts = {"full": jg.Gaussian.init, "diagonal": jg.DiagonalGaussian.init}
        >>> found = jg.tasks.compare(jax.random.key(0), starts, x, folds=2)
        >>> ax = comparison(found, matplotlib.figure.Figure().subplots())
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['full', 'diagonal']
    """
    ax = clean(ax)
    places = np.arange(len(found.rows))
    behind = np.array([row.difference for row in found.rows])
    errors = 2 * np.array([row.difference_error for row in found.rows])
    ax.axvline(0, color=GRID, zorder=0)
    ax.errorbar(-behind, places, xerr=errors, fmt="o", color=MODEL, ecolor=INK, elinewidth=1, capsize=2)
    ax.set_yticks(places, [row.name for row in found.rows])
    ax.set_ylim(len(places) - 0.5, -0.5)
    ax.set_xlabel("nats per event above the best, held out")
    return ax
