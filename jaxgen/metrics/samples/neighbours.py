"""Precision, recall, density and coverage: samples and data in the balls of each other's nearest neighbours."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import FitError
from jaxgen.core.methods import is_count
from jaxgen.metrics.samples.source import Estimate, both, halves
from jaxgen.ops.distances import neighbour_distances, over_rows, squared_distances


class Neighbours(NamedTuple):
    """Four shares of samples and data that lie in the balls of each other's neighbours.

    Args:
        precision: share of samples in the ball of some event: that look like data.
        recall: share of events in the ball of some sample: that the model covers.
        density: how many balls of events a sample lies in, over k: 1 where samples are data, more inside of modes.
        coverage: share of events with a sample in their own ball.
        k: which neighbour gives a ball its radius.
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate
    k: int

    def __str__(self) -> str:
        return "\n".join(f"{name:<12}{value}" for name, value in zip(self._fields[:4], self[:4], strict=True))

    def __repr__(self) -> str:
        return str(self)


def neighbours(
    key: Any, model: Any, data: Any, feature: Any = None, *, k: int = 5, n: int | None = None
) -> Neighbours:  # fmt: skip
    """Return precision, recall, density and coverage by k nearest neighbours.

    The ball of a point has the distance to its k-th nearest other point of its own set for a radius. On the ball's edge
    its authors decide: precision and recall count it in (`<=`, Kynkaanniemi et al.), density and coverage do not (`<`,
    the program of Naeem et al.), which differs where points are equal or on a grid.

    Args:
        key: typed key, for draws.
        model: can be sampled; or samples `[N, *event]`, N above k.
        data: `[M, *event]`, M above k, or a stream; the floor needs halves above k.
        feature: a function of a batch of events, a `Feature`, or None for the default of `metrics.samples`.
        k: 1 or more; 5 as published for density and coverage, 3 for precision and recall.
        n: how many draws of a model; as many as there are data where not told: shares depend on both numbers.

    Returns:
        `Neighbours`, standard errors over samples or events as they are. Features are kept, `N x N` distances are not.

    Raises:
        DataError, ShapeError: too few events, no data, features that are not finite. FitError: no k.
        ModelError: a model that cannot be sampled.

    Source: Kynkaanniemi et al. (2019), Improved precision and recall metric for assessing generative models; Naeem et
    al. (2020), Reliable fidelity and diversity metrics for generative models.

    Example:
        >>> real, fake = np.array([[0.0], [1.0], [2.0], [4.0]]), np.array([[0.5], [1.2], [3.5], [9.0]])
        >>> found = neighbours(jax.random.key(0), fake, real, k=1)
        >>> found.precision.value, found.recall.value, found.density.value, found.coverage.value
        (0.75, 1.0, 1.25, 1.0)
    """
    called = f"samples.neighbours(key, model, data, k={k})"
    if not is_count(k, 1):
        raise FitError("no such neighbour", called=called, expected="k of 1 or more", got=str(k))
    fake, real = both(key, model, data, feature, called, n=n, least=k + 1, why="a k-th neighbour for each")
    found = _shares(fake, real, k)
    half = len(real) // 2
    floor = _shares(*halves(real), k) if half > k else len(found) * [np.full(1, np.nan)]
    estimates = [
        Estimate(float(a.mean()), float(a.std(ddof=1) / np.sqrt(len(a))), float(b.mean()), len(fake), len(real))
        for a, b in zip(found, floor, strict=True)
    ]
    return Neighbours(estimates[0], estimates[1], estimates[2], estimates[3], k)


def _shares(fake: jax.Array, real: jax.Array, k: int) -> list[np.ndarray]:
    found = _within(fake, real, neighbour_distances(fake, k), neighbour_distances(real, k), k)
    return [np.asarray(a, np.float64) for a in found]


@functools.partial(jax.jit, static_argnames=("k",))
def _within(fake: Any, real: Any, fake_radius: Any, real_radius: Any, k: int) -> tuple[jax.Array, ...]:
    """Precision and density of each sample, recall and coverage of each event."""

    def of_samples(rows: Any, index: Any) -> Any:
        squares = squared_distances(rows, real)
        return jnp.any(squares <= real_radius, axis=1), jnp.sum(squares < real_radius, axis=1) / k

    def of_events(rows: Any, index: Any) -> Any:
        x, radius = rows
        squares = squared_distances(x, fake)
        return jnp.any(squares <= fake_radius, axis=1), jnp.min(squares, axis=1) < radius

    precision, density = over_rows(of_samples, fake, len(fake))
    recall, coverage = over_rows(of_events, (real, real_radius), len(real))
    return precision, recall, density, coverage
