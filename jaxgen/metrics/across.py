"""Scores of several fits of one model, such as seeds or settings side by side: their mean and how sure it is."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from jaxgen.core import algebra
from jaxgen.core.errors import FitError, ShapeError
from jaxgen.core.methods import check_key
from jaxgen.core.protocols import Kind
from jaxgen.core.scores import Score
from jaxgen.metrics.likelihood import score


class Across(NamedTuple):
    """The mean over fits with a confidence interval of it, by Student's t.

    Args:
        mean: nats per event.
        low, high: the ends of the interval; NaN where one of the scores is not finite.
        level: how often such an interval holds the mean over all seeds.
        scores: of each fit.
        kind: what the numbers mean.

    Example:
        >>> print(Across(-3.0, -3.2, -2.8, 0.95, (None,) * 5, Kind.EXACT))
        -3.0000 in [-3.2000, -2.8000] nats per event (exact, mean of 5 fits, 95% interval)
    """

    mean: float
    low: float
    high: float
    level: float
    scores: tuple[Score, ...]
    kind: Kind

    def __str__(self) -> str:
        return (f"{self.mean:.4f} in [{self.low:.4f}, {self.high:.4f}] nats per event "
                f"({self.kind}, mean of {len(self.scores)} fits, {self.level:.0%} interval)")  # fmt: skip


def across(key: Any, models: Any, data: Any, *, samples: int = 1, level: float = 0.95) -> Across:
    """Score models that lie side by side in one, and return their mean with a confidence interval.

    `mean ± t s / sqrt(R)`, s the standard deviation of the R scores, t a quantile of Student's distribution of R - 1
    degrees of freedom. It says how sure the mean over seeds is, all judged on the same data; how sure the data are is
    the standard error of each score.

    Args:
        key: typed key, the same for all, so that draws of bounds are no difference between them.
        models: with a leading axis on every leaf, as `fit(..., restarts=8).models`, or the model of a `scan_fit` under
            `jax.vmap`.
        data, samples: as of `jaxgen.score`.
        level: above 0 and below 1.

    Raises:
        ShapeError: leaves without one leading axis of two or more. FitError: a level that is none. As `jaxgen.score`.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.normal(jax.random.key(0), (60, 2))
        >>> start = lambda key: jg.Mixture.init(key, x[:40], 2, jg.DiagonalGaussian.init)
        >>> found = across(jax.random.key(1), jg.fit(jax.random.key(2), start, x[:40], restarts=4).models, x[40:])
        >>> len(found.scores), found.low <= found.mean <= found.high
        (4, True)
    """
    called = "metrics.across(key, models, data)"
    check_key(key, called)
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(models)}
    if len(sizes) != 1 or sizes == {()} or min(sizes)[0] < 2:
        raise ShapeError(
            "those are no models side by side", called=called, expected="a leading axis of 2 or more on every leaf",
            got=f"leading axes {sorted(size[0] if size else 0 for size in sizes)}",
            fix="the field models of a fit with restarts",
        )  # fmt: skip
    if not 0 < level < 1:
        raise FitError("no such level", called=called, expected="above 0 and below 1", got=f"level={level!r}")
    count = min(sizes)[0]
    scores = tuple(score(key, algebra.take(models, i), data, samples=samples) for i in range(count))
    values = np.array([one.mean for one in scores])
    half = stats.t.ppf((1 + level) / 2, count - 1) * values.std(ddof=1) / count**0.5
    mean = float(values.mean())
    return Across(mean, mean - float(half), mean + float(half), level, scores, scores[0].kind)
