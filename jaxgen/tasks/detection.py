"""The detector that asks for no choices: densities of two kinds in two views of the columns."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import DataError, ModelError, ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import batch_axes, check_key, is_count
from jaxgen.core.pytree import model, static
from jaxgen.core.tables import Schema
from jaxgen.fit.em import EM
from jaxgen.fit.scan import scan_fit
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.latent.mixture import Mixture
from jaxgen.ops.kernels import kernel_by_leaving_out, kernel_log_density
from jaxgen.ops.powers import best_power, yeo_johnson
from jaxgen.ops.scaling import units
from jaxgen.tasks.indicators import Indicators, by_column, schema_of_mixed

#: mixtures that share a vote, their components, and steps of EM
BAGS, COMPONENTS, STEPS = 4, 4, 40
#: the least variance of a component, of a column of variance one
FLOOR = 0.05
#: where the view of powers ends, in standard deviations: what is stranger is strange in the other view
END = 20.0


@model
class View:
    """Columns in units of their standard deviations, or made normal by powers of those.

    Args:
        center, scale: `[D]`, units of x.
        power: `[D]`, of Yeo and Johnson; None is the identity.
        middle, unit: `[D]`, of what the powers make.
    """

    center: jax.Array
    scale: jax.Array
    power: Any = None
    middle: Any = None
    unit: Any = None

    def __call__(self, x: jax.Array) -> jax.Array:
        z = (x - self.center) / self.scale
        if self.power is None:
            return z
        return jnp.clip((yeo_johnson(z, self.power) - self.middle) / self.unit, -END, END)


@model
class Vote:
    """One density's surprise in one view, in units of what normal events have.

    Args:
        centers, whitener: of a kernel density; or `mixtures`, a batch of mixtures whose mean surprise counts.
        middle, spread: of the surprise of normal events: median, and what is a standard deviation of a normal density
            between its quartiles.
    """

    centers: Any
    whitener: Any
    mixtures: Any
    middle: Any = 0.0
    spread: Any = 1.0

    def surprise(self, z: jax.Array) -> jax.Array:
        """`[N, D] -> [N]`, nats."""
        if self.mixtures is None:
            return -kernel_log_density(z, self.centers, self.whitener)
        return -jnp.mean(jax.lax.map(lambda mixture: mixture.log_prob(z), self.mixtures), axis=0)


@model
class Detector:
    """Densities of normal events, of which the most surprised one is heard. `tasks.detector` makes it from events.

    `s(x) = max_v (-log p_v(x) - m_v) / s_v`, over votes v, with median and spread of the surprise of normal events

    Args:
        views: of the columns.
        votes: for each view its densities.
        columns: what makes numbers of a table's rows; None of numbers.
        schema: of the table; frames are read by it.
    """

    views: tuple[View, ...]
    votes: tuple[tuple[Vote, ...], ...]
    columns: Indicators | None = None
    schema: Schema | None = static(default=None)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """`[D]`."""
        return tuple((self.views[0] if self.columns is None else self.columns).center.shape)

    @property
    def missing(self) -> bool:
        """True where a cell may be missing: of a table."""
        return self.schema is not None

    def strangeness(self, x: Any) -> jax.Array:
        """Return how strange events are, `[*batch, D] -> [*batch]`: about a standard normal number of normal ones.

        Of a table `x` is a frame with its columns, or the numbers that its schema makes of one, NaN for missing.

        Raises:
            ShapeError: other columns. DataError: NaN, or what are no numbers; a level that the table did not have.
        """
        called = "Detector.strangeness(x)"
        if self.schema is not None:
            x = self.schema.read(x, called)
        x = as_array(x, name="x", called=called, allow_nan=self.missing)
        x = jnp.asarray(x, self.views[0].center.dtype)
        batch = batch_axes(x.shape, self.event_shape, "Detector.strangeness(x)")
        return _strangeness(self, x.reshape(-1, *self.event_shape)).reshape(batch)


def detector(key: Any, x: Any, *, rows: int = 4096) -> Detector:
    """Make a detector of strange events from normal ones, without anything to choose.

    Columns are seen in units of their standard deviation, and made normal by the best power of Yeo and Johnson. In
    each view there is a kernel density, whose covariance EM finds by leaving events out, and four mixtures of four
    Gaussians, each of a resampled table. Their surprises are put on one scale, and the largest counts: strange is what
    one of them finds strange.

    In a frame with labels, booleans or missing cells each level, and being missing, has an indicator, and all of a
    column's together the variance of one number: a column of labels weighs as one of numbers, however many levels it
    has, and scores do not depend on their names or order. A cell that is missing in a column where none was, or a level
    of a category that no row had, is strange; a level that the columns do not know is refused.

    Args:
        key: typed key.
        x: normal events, 2 or more of them; a few anomalies among them do little: numbers `[N, D]`, or a frame of
            columns of any kinds but dates, or a `data.Table`.
        rows: at most so many of them, drawn by chance, are centers of kernels.

    Returns:
        `Detector`, whose `strangeness(x)` is high of strange events; `anomaly(key, found, x, reference=held_out)` has
        p-values, and so has `anomaly(key, tasks.detector, x, reference=normal, folds=5)`.

    Raises:
        DataError: too few events, NaN in an array, a frame that is no table. ShapeError: what is no table.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (100, 2))
        >>> found = detector(jax.random.key(1), x)
        >>> far, near = found.strangeness(jnp.array([[5.0, 5.0], [0.0, 0.0]])).tolist()
        >>> far > 5 > near
        True
    """
    called = "detector(key, x)"
    check_key(key, called)
    schema = schema_of_mixed(x)
    x = as_array(x if schema is None else schema.read(x, called), name="x", called=called,
                 allow_nan=schema is not None)  # fmt: skip
    x = jnp.asarray(x)
    if x.ndim != 2:
        fix = "np.asarray(x).reshape(len(x), -1)" if x.ndim > 2 else "np.asarray(x)[:, None]"
        raise ShapeError("a detector needs a table", called=called, expected="x [N, D]", got=f"shape {list(x.shape)}",
                         fix=fix)  # fmt: skip
    if len(x) < 2:
        raise DataError("one event says nothing of others", called=called, expected="2 or more", got=str(len(x)))
    if not is_count(rows, 2):
        raise ModelError("kernels need centers", called=called, expected="rows of 2 or more", got=repr(rows))
    x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
    columns = None if schema is None else Indicators.of(schema, x)
    x, groups = (x, (-1,) * x.shape[1]) if columns is None else (columns(x), columns.groups)
    chosen, resampled = jax.random.split(key)
    centers = x if len(x) <= rows else x[jax.random.choice(chosen, len(x), (rows,), replace=False)]
    views = _views(x, groups)
    votes = tuple((_kernel(view(centers)), _mixtures(resampled, view(x))) for view in views)
    return Detector(views, votes, columns, schema)


@functools.partial(jax.jit, static_argnames="groups")
def _views(x: jax.Array, groups: tuple[int, ...]) -> tuple[View, View]:
    center, scale = units(x)
    scale, indicator = by_column(x, scale, groups)
    z = (x - center) / scale
    constant = jnp.max(z, axis=0) == jnp.min(z, axis=0)
    power = jnp.where(constant | indicator, 1, best_power(z))
    made = yeo_johnson(z, power)
    unit = jnp.where(indicator, 1, jnp.std(made, axis=0))
    normal = View(center, scale, power, jnp.mean(made, axis=0), jnp.where(unit > 0, unit, 1))
    return View(center, scale), normal


def _scaled(vote: Vote, surprise: jax.Array) -> Vote:
    """A vote in units of the surprise of normal events."""
    low, middle, high = jnp.quantile(surprise, jnp.array([0.25, 0.5, 0.75]))
    spread = (high - low) / 1.349
    return dataclasses.replace(vote, middle=middle, spread=jnp.where(spread > 0, spread, 1))


@jax.jit
def _kernel(z: jax.Array) -> Vote:
    whitener, log_density = kernel_by_leaving_out(z)
    return _scaled(Vote(z, whitener, None), -log_density)


@jax.jit
def _mixtures(key: Any, z: jax.Array) -> Vote:
    n = len(z)
    k = min(COMPONENTS, max(1, n // 13))

    def one(key: Any) -> Mixture:
        draw, start, fitted = jax.random.split(key, 3)
        sample = z[jax.random.choice(draw, n, (n,))]
        mixture = Mixture.init(start, sample, k, lambda key, x: Gaussian.init(key, x, floor=FLOOR))
        return scan_fit(fitted, mixture, sample, EM(), steps=STEPS).model

    vote = Vote(None, None, jax.lax.map(one, jax.random.split(key, BAGS)))
    return _scaled(vote, vote.surprise(z))


@jax.jit
def _strangeness(detector: Detector, x: jax.Array) -> jax.Array:
    x = x if detector.columns is None else detector.columns(x)
    found = [
        (vote.surprise(z) - vote.middle) / vote.spread
        for view, votes in zip(detector.views, detector.votes, strict=True) for z in (view(x),) for vote in votes
    ]  # fmt: skip
    return jnp.max(jnp.stack(found), axis=0)
