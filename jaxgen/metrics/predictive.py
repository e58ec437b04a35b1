"""Calibration: whether what a model says of chances is so, for densities and for posteriors."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import DataError, FitError, ModelError
from jaxgen.core.inputs import Batch, widened
from jaxgen.core.methods import check_key, is_count
from jaxgen.core.protocols import Density, Implicit
from jaxgen.metrics.events import events_of
from jaxgen.ops.mixing import has_quantiles

#: scalars of draws that are held at once
SCALARS = 2**22


class Uniform(NamedTuple):
    """Numbers that are uniform where a model is calibrated, and how far they are from it.

    Args:
        values: `[N, D]`, from 0 to 1: of each event, of each coordinate or of one statistic.
        statistic: `[D]`, the largest distance of the shares below a number from that number (Kolmogorov-Smirnov).
        p_value: the least over columns of how often a uniform sample is as far, times the number of columns, 1 at most.
        draws: of the model for each event; 0 where its distribution function was asked.
    """

    values: np.ndarray
    statistic: np.ndarray
    p_value: float
    draws: int

    def __str__(self) -> str:
        n, d = self.values.shape
        columns = f", the furthest of {d} columns" if d > 1 else ""
        return f"{self.statistic.max():.4f} from uniform{columns} (p = {self.p_value:.4f}, {n} events)"

    def __repr__(self) -> str:
        return str(self)


class Coverage(NamedTuple):
    """Shares of events in the regions that a model says hold so many.

    Args:
        levels: `[L]`, what it says.
        shares: `[L, D]`, what was seen, of each coordinate or of whole events.
        standard_errors: of the shares where the levels are true, `[L]`.
        events: N.
    """

    levels: np.ndarray
    shares: np.ndarray
    standard_errors: np.ndarray
    events: int

    @property
    def error(self) -> float:
        """The largest difference of a share and its level, in standard errors."""
        return float(np.max(np.abs(self.shares - self.levels[:, None]) / self.standard_errors[:, None]))

    def __str__(self) -> str:
        rows = zip(self.levels, self.shares, self.standard_errors, strict=True)
        lines = [f"{level:.0%} say, {' '.join(f'{s:.4f}' for s in share)} seen ± {error:.4f}"
                 for level, share, error in rows]  # fmt: skip
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def pit(key: Any, model: Any, data: Any, *, draws: int = 1000) -> Uniform:
    """Return the probability integral transform of each coordinate: uniform where the model predicts what happens.

    `P(X_d < x_d) + v P(X_d = x_d)`, v uniform, which makes it exact for whole numbers too

    A histogram that is high at both ends is of predictions that are too narrow, one that is high in the middle of
    predictions that are too wide.

    Args:
        key: typed key.
        model: has `cdf`, such as a `Gaussian` or a `Mixture`; any other that can be sampled is asked by so many draws.
        data: `[N, *event]`, or a tuple `(x, context)`, or a dict of them, that the model was not fitted to.
        draws: of the model for each event, where it has no `cdf`.

    Raises:
        ModelError: a model that cannot be sampled. FitError: no draws. DataError, ShapeError: data that do not fit the
        model, and what is NaN.

    Source: Dawid (1984), Statistical theory: the prequential approach; Gneiting, Balabdaoui and Raftery (2007),
    Probabilistic forecasts, calibration and sharpness.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.normal(jax.random.key(0), (500, 2))
        >>> right, narrow = (jg.DiagonalGaussian.from_values(jnp.zeros(2), jnp.full(2, s)) for s in (1.0, 0.5))
        >>> pit(jax.random.key(1), right, x).p_value > 0.05, pit(jax.random.key(1), narrow, x).p_value < 0.001
        (True, True)
    """
    called = f"metrics.pit(key, {type(model).__name__}, data)"
    model, batch = _asked(key, model, data, called, draws)
    if not has_quantiles(model):
        return _uniform(_ranks(key, model, batch, draws, _flat, called) / (draws + 1), draws)
    x = jnp.asarray(batch.x)
    x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
    below, upto = (model.cdf(a, context=batch.context) for a in (jnp.nextafter(x, -jnp.inf), x))
    noise = jax.random.uniform(key, upto.shape, upto.dtype)
    values = np.asarray(below + noise * (upto - below), np.float64).reshape(len(x), -1)
    return _uniform(_known(values, called), 0)


def coverage(
    key: Any, model: Any, data: Any, *, levels: Any = (0.5, 0.8, 0.9, 0.95), draws: int = 1000
) -> Coverage:  # fmt: skip
    """Return how many events lie in central predictive intervals of each level, of each coordinate.

    Args:
        key, model, data, draws: as of `pit`, by which it goes: whole numbers on an interval's edge count by chance, so
            that a true model has the level itself.
        levels: above 0 and below 1.

    Raises:
        As `pit`, and DataError for levels that are none.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.normal(jax.random.key(0), (2000, 1))
        >>> right = jg.DiagonalGaussian.from_values(jnp.zeros(1), jnp.ones(1))
        >>> coverage(jax.random.key(1), right, x).error < 3
        True
    """
    return _coverage(2 * np.abs(pit(key, model, data, draws=draws).values - 0.5), levels, "metrics.coverage")


def sbc(key: Any, model: Any, data: Any, *, draws: int = 255) -> Uniform:
    """Return simulation-based calibration: ranks of parameters among draws of a posterior, over `draws + 1`.

    `(#(theta^l < theta) + v (1 + #(theta^l = theta))) / (L + 1)`, v uniform, is uniform for `theta ~ p(theta)`,
    `x ~ p(x | theta)`, `theta^l ~ p(theta | x)`

    Args:
        key: typed key.
        model: a conditional model that stands for `p(theta | x)`.
        data: a tuple `(theta, x)` of parameters `[N, *event]`, drawn of the prior, and contexts, simulated with them.
        draws: L, for each simulation.

    Raises:
        As `pit`.

    Source: Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian inference algorithms with
    simulation-based calibration.

    Example:
        >>> import jaxgen as jg
        >>> theta = jax.random.normal(jax.random.key(0), (400, 1))
        >>> x = theta + jax.random.normal(jax.random.key(1), (400, 1))
        >>> posterior = jg.LinearRegression.from_values([[0.5]], [0.0], [[0.5]])  # x / 2, variance 1/2
        >>> sbc(jax.random.key(2), posterior, (theta, x)).p_value > 0.05
        True
    """
    called = f"metrics.sbc(key, {type(model).__name__}, data)"
    model, batch = _asked(key, model, data, called, draws)
    return _uniform(_ranks(key, model, batch, draws, _flat, called) / (draws + 1), draws)


def expected_coverage(
    key: Any, model: Any, data: Any, *, levels: Any = (0.5, 0.8, 0.9, 0.95), draws: int = 255
) -> Coverage:  # fmt: skip
    """Return how many events lie in a density's regions of highest density, of each level.

    An event is in the region of level a if at most a share a of draws has a higher density.

    Args:
        key: typed key.
        model: a density, conditional or not.
        data: `[N, *event]`, or a tuple `(x, context)`, or a dict of them.
        levels: above 0 and below 1. draws: for each event.

    Raises:
        As `coverage`; ModelError also for a model without `log_prob`.

    Source: Hermans et al. (2022), A trust crisis in simulation-based inference?

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.normal(jax.random.key(0), (1000, 3))
        >>> expected_coverage(jax.random.key(1), jg.StandardNormal((3,)), x).error < 3
        True
    """
    called = f"metrics.expected_coverage(key, {type(model).__name__}, data)"
    algebra.needed(model, Density, called)
    model, batch = _asked(key, model, data, called, draws)
    return _coverage(_ranks(key, model, batch, draws, _surprise, called) / (draws + 1), levels, called)


def tarp(
    key: Any, model: Any, data: Any, *, levels: Any = (0.5, 0.8, 0.9, 0.95), draws: int = 255
) -> Coverage:  # fmt: skip
    """Return coverage by random points (TARP): how many events lie in balls that hold a share of a model's draws.

    A ball is around a point that is chosen at random beside each event. With draws alone, and no density, it finds
    what is wrong with whole events, and it is enough: a model whose balls have their coverage for all points is right.

    Args:
        key: typed key.
        model: can be sampled, conditional or not.
        data: `[N, *event]`, or a tuple `(x, context)`, or a dict of them. Coordinates count in units of their spread.
        levels: above 0 and below 1. draws: for each event.

    Raises:
        As `coverage`.

    Source: Lemos, Coogan, Hezaveh and Perreault-Levasseur (2023), Sampling-based accuracy testing of posterior
    estimators for general inference.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.normal(jax.random.key(0), (1000, 3))
        >>> tarp(jax.random.key(1), jg.StandardNormal((3,)), x).error < 3
        True
    """
    called = f"metrics.tarp(key, {type(model).__name__}, data)"
    model, batch = _asked(key, model, data, called, draws)
    choose, rank = jax.random.split(key)
    x = np.asarray(batch.x, np.float64).reshape(batch.events, -1)
    spread = np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    # points from a cube that holds the data: drawn apart from them, as the test wants
    low, high = x.min(axis=0), x.max(axis=0)
    points = low + np.asarray(jax.random.uniform(choose, x.shape)) * (high - low)
    balls = jnp.asarray(np.stack([points, np.broadcast_to(spread, points.shape)], axis=1), float)
    return _coverage(_ranks(rank, model, batch, draws, _distance, called, balls) / (draws + 1), levels, called)


def _asked(key: Any, model: Any, data: Any, called: str, draws: int) -> tuple[Any, Batch]:
    check_key(key, called)
    algebra.needed(model, Implicit, called)
    if not is_count(draws, 1):
        raise FitError("ranks need draws", called=called, expected="draws of 1 or more", got=str(draws))
    if None in model.event_shape:
        raise ModelError("events of free length have no coordinates to compare", called=called,
                         expected="a model of events of one shape", got=type(model).__name__)  # fmt: skip
    model = widened(model)
    batch = events_of(model, data, called)
    if batch.weight is not None:
        raise DataError("calibration counts every event once", called=called, expected="no weights", got="weights",
                        fix="leave them out, or repeat events")  # fmt: skip
    return model, batch


def _flat(model: Any, x: Any, extra: Any) -> jax.Array:
    """Coordinates as one axis."""
    return jnp.reshape(x, (*x.shape[: x.ndim - len(model.event_shape)], -1))


def _surprise(model: Any, x: Any, context: Any) -> jax.Array:
    """Minus the log-density, as one coordinate."""
    return -jnp.reshape(model.log_prob(x, context=context), (*x.shape[: x.ndim - len(model.event_shape)], 1))


def _distance(model: Any, x: Any, ball: Any) -> jax.Array:
    """The squared distance from the point of each event in units of the spread, `ball [N, 2, D]`, as one coordinate."""
    ball = ball.reshape(len(ball), 2, *[1] * (x.ndim - len(model.event_shape) - 1), -1)
    away = (_flat(model, x, None) - ball[:, 0]) / ball[:, 1]
    return jnp.sum(away**2, axis=-1, keepdims=True)


def _known(values: np.ndarray, called: str) -> np.ndarray:
    """The values, or an error where some are NaN: these are on no side of anything."""
    if np.isnan(values).any():
        raise DataError(
            "events or the model's draws have no place among each other", called=called, expected="numbers",
            got=f"NaN for {np.isnan(values).any(axis=1).sum()} of {len(values)} events",
            fix="leave out events with entries that were not seen; then look at what the model draws and scores",
        )  # fmt: skip
    return values


def _ranks(
    key: Any, model: Any, batch: Batch, draws: int, statistic: Any, called: str, extra: Any = None
) -> np.ndarray:  # fmt: skip
    """The place of each event's statistic among those of draws, with a uniform share of ties, `[N, D]`, 0 to L + 1."""
    n = batch.events
    size = max(1, min(n, SCALARS // (draws * max(1, math.prod(model.event_shape)))))
    found = []
    for i, start in enumerate(range(0, n, size)):
        # the last chunk is moved back: one compiled program for all
        begin = min(start, n - size)
        x, context, more = (None if a is None else jnp.asarray(a[begin : begin + size])
                            for a in (batch.x, batch.context, extra))  # fmt: skip
        rows = _places(jax.random.fold_in(key, i), model, x, context, more, draws, statistic)
        found.append(np.asarray(rows, np.float64)[start - begin :])
    return _known(np.concatenate(found), called)


@functools.partial(jax.jit, static_argnames=("draws", "statistic"))
def _places(key: Any, model: Any, x: Any, context: Any, extra: Any, draws: int, statistic: Any) -> jax.Array:
    draw, noise = jax.random.split(key)
    given = None if context is None else jnp.repeat(context[:, None], draws, axis=1)
    others = model.sample(draw, (len(x), draws), context=given)
    seen = statistic(model, x, context if extra is None else extra)
    drawn = statistic(model, others, given if extra is None else extra)
    below, ties = (jnp.sum(rows, axis=1) for rows in (drawn < seen[:, None], drawn == seen[:, None]))
    unknown = jnp.isnan(seen) | jnp.isnan(drawn).any(axis=1)
    return jnp.where(unknown, jnp.nan, below + jax.random.uniform(noise, seen.shape) * (1 + ties))


def _uniform(values: np.ndarray, draws: int) -> Uniform:
    n, d = values.shape
    ordered = np.sort(values, axis=0)
    steps = np.arange(n + 1)[:, None] / n
    statistic = np.maximum((steps[1:] - ordered).max(axis=0), (ordered - steps[:-1]).max(axis=0))
    return Uniform(values, statistic, min(1.0, d * _beyond(float(statistic.max()), n)), draws)


def _beyond(distance: float, n: int) -> float:
    """Return how often the Kolmogorov-Smirnov distance of n uniform numbers is larger: Kolmogorov's series in a size
    that Stephens (1970) corrected for n."""
    scaled = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    k = np.arange(1, 101)
    if scaled < 0.3:  # where the series needs more terms it is 1 to nine digits
        return 1.0
    return float(np.clip(2 * np.sum((-1.0) ** (k - 1) * np.exp(-2 * (k * scaled) ** 2)), 0, 1))


def _coverage(reached: np.ndarray, levels: Any, called: str) -> Coverage:
    """Shares of events whose region begins at or below each level, `reached [N, D]` uniform for a true model."""
    levels = np.atleast_1d(np.asarray(levels, np.float64))
    if levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all():
        raise DataError("there are no such levels", called=called, expected="numbers above 0 and below 1",
                        got=str(levels)[:80])  # fmt: skip
    n = len(reached)
    shares = np.stack([(reached <= level).mean(axis=0) for level in levels])
    return Coverage(levels, shares, np.sqrt(levels * (1 - levels) / n), n)
