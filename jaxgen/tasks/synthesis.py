"""Tables made like a table: a density of normal scores and labels, and the margins that lead there and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

import jaxgen as jg
from jaxgen.core import algebra
from jaxgen.core.cells import Cells, Reading, plain, shown
from jaxgen.core.errors import DataError, FitError, ModelError
from jaxgen.core.methods import check_key, is_count, per_batch, per_sample
from jaxgen.core.protocols import Density, Marginal, has
from jaxgen.core.pytree import fixed, model, part, static
from jaxgen.core.tables import chosen, columns_of
from jaxgen.fit.driver import fit
from jaxgen.fit.loop import Status
from jaxgen.models.densities.categorical import Categorical
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.latent.product import Product
from jaxgen.ops.coordinates import chosen_and_rest
from jaxgen.tasks.frames import frame_of, library_of
from jaxgen.tasks.margins import LABEL, Margin, Ranks, cells_of, margin_of, read

#: numbers of components that are tried, each with so many rows for a component at least, and the share of rows that are
#: held out to choose among them
COMPONENTS, ROWS_EACH, HELD_OUT = (1, 2, 4, 8, 16, 32), 15, 0.2
#: the smallest variance of a component, of scores whose variance is one
FLOOR = 1e-4
#: starts of each fit, and its end, nats per row
RESTARTS, TOLERANCE = 4, 1e-4
#: ranks from 0 to 1 that float32 tells from these
EDGE = 1e-6
#: draws of what is known of a row, of which those that are likely together are taken
POOL = 4096
#: draws of a model that are looked at for what are no codes
LOOKED_AT = 100
#: rows drawn at once for a condition, and in all for each that is wanted
BATCH, TRIES = 4096, 1000


class Drawn(NamedTuple):
    """Rows of `Synthesizer.draw`.

    Args:
        frame: of the library of the frame that was fitted.
        rate: the share of drawn rows for which the condition held; 1 without one.
        tried: how many were drawn.
    """

    frame: Any
    rate: float
    tried: int


@model
class Synthesizer:
    """A density of the rows of a frame: of normal scores, labels, and of which cells are missing.

    Its events `[E]` are rows as `events` makes them: the score of each number, NaN where it was not seen, the code of
    each label, and for each column of numbers with missing cells whether one is. `tasks.synthesizer` fits it.

    Args:
        model: of events.
        values: for each column of numbers its values, sorted, as int32 pairs of their 64 bits, `[n, 2]`.
        counts: for each how often they were seen, `[n]` int32.
        margins: a `Margin` for each column.
        library: of the frame.
        scored: whether labels have scores too.
    """

    model: Any = part()
    values: tuple[Any, ...] = fixed()
    counts: tuple[Any, ...] = fixed()
    margins: tuple[Margin, ...] = static()
    library: str = static(default="pandas")
    scored: bool = static(default=False)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.model.event_shape

    @property
    def names(self) -> tuple[Any, ...]:
        """Names of the columns."""
        return tuple(margin.name for margin in self.margins)

    @per_batch
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats of rows as `events` makes them, `[*batch, E] -> [*batch]`: of scores, which have no units.

        Raises:
            ModelError: a model that has no density, such as an autoencoder, whose `model.elbo` is a bound.
        """
        algebra.needed(self.model, Density, "Synthesizer.log_prob(x)")
        return self.model.log_prob(x)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draw rows `[*shape, E]` that `frame` makes a frame of."""
        return self.model.sample(key)

    def _ranks(self) -> list[Ranks | None]:
        """The values of each column that has scores."""
        pairs = iter(zip(self.values, self.counts, strict=True))
        found: list[Ranks | None] = []
        for margin in self.margins:
            if margin.kind == LABEL and not self.scored:
                found.append(None)
                continue
            bits, counts = next(pairs)
            values = np.ascontiguousarray(bits).view(np.int64 if margin.whole else np.float64)[:, 0]
            found.append(Ranks(values, np.asarray(counts, np.int64)))
        return found

    def events(self, frame: Any, key: Any = None) -> np.ndarray:
        """Return the rows of a frame as events `[N, E]`, float32.

        Args:
            frame: with these columns; others are left out.
            key: places scores by chance in the intervals of their ranks; None in their middle.

        Raises:
            DataError: columns that are not there, cells of another kind, labels that are none of the levels.
        """
        called = "Synthesizer.events(frame)"
        series = columns_of(frame, called)
        if lost := [name for name in self.names if str(name) not in series]:
            raise DataError(
                f"the table has no {shown(str(lost[0]))}", called=called, got=", ".join(map(repr, list(series)[:12])),
                expected=", ".join(map(repr, self.names[:12])),
            )  # fmt: skip
        cells = [read(series[str(name)]) for name in self.names]
        return _encoded(key, self.margins, self._ranks(), cells, called)

    def frame(self, x: Any) -> Any:
        """Return a frame of events `[N, E]`, such as samples, with the names and types of the one that was fitted."""
        return self._decoded(x, {}, "Synthesizer.frame(x)")

    def _decoded(self, x: Any, given: Mapping[Any, Any], called: str) -> Any:
        """A frame of events; cells that were given are as given."""
        x = np.asarray(x, np.float64)
        if x.shape[1:] != tuple(self.event_shape):
            raise DataError("those are no rows of the table", called=called, got=f"shape {list(x.shape)}",
                            expected=f"[N, {self.event_shape[0]}]")  # fmt: skip
        places, cells = _places(self.margins, self.scored), []
        for margin, ranks, (own, flag) in zip(self.margins, self._ranks(), places, strict=True):
            unseen = np.zeros(len(x), bool) if flag is None else x[:, flag] > 0.5
            if ranks is None:
                values = x[:, own].astype(int)
            else:
                values = ranks.numbers(np.where(unseen, 0, x[:, own]), margin.decimals)
            if margin.name in given and not unseen.any():
                values = np.broadcast_to(margin.encoded(read([given[margin.name]]), called)[0], len(x))
            if margin.kind == LABEL:
                unseen = values == len(margin.levels)
            cells.append(cells_of(margin, values, unseen))
        return frame_of(self.library, self.margins, cells, called)

    def draw(
        self, key: Any, n: int, *, given: Mapping[str, Any] | None = None,
        where: Callable[[Any], Any] | None = None,
    ) -> Drawn:  # fmt: skip
        """Draw rows as a frame, with the names, types, ranges, decimals and missing cells of the one that was fitted.

        Args:
            key: typed key.
            n: how many rows.
            given: `{column: cell}`, what is known of each of them: they are draws of `p(rest | given)`, exactly for
                mixtures of `Gaussian` and `Categorical` blocks; None as a cell is a missing one.
            where: a function of a frame that says of each row whether it is wanted, `[N]` bools; others are drawn anew.

        Raises:
            DataError: columns that are not there, cells that no row can have. ModelError: a model without
                conditionals; a condition that holds for less than one row of a thousand.
        """
        called = "Synthesizer.draw(key, n)"
        check_key(key, called)
        if not is_count(n, 1):
            raise ModelError("that is no number of rows", called=called, expected="1 or more", got=repr(n))
        given = {plain(name): cell for name, cell in (given or {}).items()}
        draw = functools.partial(self._events, given=given, called=called)
        if where is not None and not callable(where):
            raise ModelError("a condition is a function of rows", called=called, got=type(where).__name__,
                             expected="where(frame) -> [N] bools")  # fmt: skip
        if where is None:
            return Drawn(self._decoded(draw(key, n), given, called), 1.0, n)
        kept: list[np.ndarray] = []
        tried = found = 0
        while found < n:
            if tried >= BATCH and found * TRIES < tried:
                raise ModelError(
                    "the condition holds for too few rows", called=called, expected=f"one row of {TRIES} or more",
                    got=f"{found} of {tried}",
                    fix="pass what it asks of single columns as given, or widen it",
                )  # fmt: skip
            x = draw(jax.random.fold_in(key, tried), BATCH)
            there = np.asarray(where(self._decoded(x, given, called)))
            if there.shape != (BATCH,) or there.dtype != bool:
                raise ModelError("a condition says yes or no of each row", called=called, expected=f"[{BATCH}] bools",
                                 got=f"{there.dtype} of shape {list(there.shape)}")  # fmt: skip
            kept.append(x[there])
            tried, found = tried + BATCH, found + int(there.sum())
        return Drawn(self._decoded(np.concatenate(kept)[:n], given, called), found / tried, tried)

    def _events(self, key: Any, n: int, given: dict[str, Any], called: str) -> np.ndarray:
        if not given:
            return np.asarray(self.sample(key, (n,)))
        if lost := [name for name in given if name not in self.names]:
            raise DataError(f"there is no column {lost[0]!r} to be given", called=called, got=repr(lost[0]),
                            expected=", ".join(map(repr, self.names[:12])))  # fmt: skip
        if not has(self.model, Marginal):
            raise ModelError("the model has no conditionals", called=called, got=type(self.model).__name__,
                             expected="a mixture of Gaussian and Categorical blocks, or no columns given",
                             fix="draw rows with where, a function that says which are wanted")  # fmt: skip
        at, codes, low, high = self._known(given, called)
        if len(at) == self.event_shape[0]:
            raise DataError("all columns are given", called=called, expected="one to draw",
                            got=", ".join(map(str, given)))  # fmt: skip
        return np.asarray(_conditional(key, self.model, at, np.array(codes), low, high, n))

    def _known(self, given: dict[Any, Any], called: str) -> tuple[list[int], list[float], list[float], list[float]]:
        """Places of what is given, codes, of scores NaN, and of these the lowest and highest ranks."""
        at: list[int] = []
        codes: list[float] = []
        ends: list[tuple[float, float]] = []
        for margin, ranks, (own, flag) in zip(
            self.margins, self._ranks(), _places(self.margins, self.scored), strict=True
        ):
            if margin.name not in given:
                continue
            cells = read([given[margin.name]])
            if not (cells.rows.all() or margin.missing):
                raise DataError(f"{shown(str(margin.name))} has no missing cells", called=called, expected=margin.dtype,
                                got=repr(given[margin.name]))  # fmt: skip
            numbers, there = margin.encoded(cells, called)
            if flag is not None:
                at.append(flag)
                codes.append(float(not there[0]))
            if not there[0]:
                continue
            at.append(own)
            codes.append(numbers[0] if ranks is None else math.nan)
            if ranks is not None:
                if not ranks.values[0] <= numbers[0] <= ranks.values[-1]:
                    low, high = (cells_of(margin, ranks.values[[i]], np.zeros(1, bool))[0] for i in (0, -1))
                    raise DataError(f"{shown(str(margin.name))} never was there", called=called,
                                    expected=f"in the range that was seen, {low} to {high}",
                                    got=repr(given[margin.name]))  # fmt: skip
                below, above = ranks.interval(numbers)
                ends.append((float(below[0]), float(above[0])))
        return at, codes, [low for low, _ in ends], [high for _, high in ends]


def _places(margins: Sequence[Margin], scored: bool) -> list[tuple[int, int | None]]:
    """The place of each column among the entries of an event, and that which says whether its number is missing."""
    # scores come first, then codes, then what is missing
    order = sorted(range(len(margins)), key=lambda i: not scored and margins[i].kind == LABEL)
    flags = [i for i, margin in enumerate(margins) if margin.kind != LABEL and margin.missing]
    return [
        (order.index(i), len(margins) + flags.index(i) if i in flags else None) for i in range(len(margins))
    ]  # fmt: skip


def _encoded(key: Any, margins: Sequence[Margin], ranks: Sequence[Ranks | None], columns: Sequence[Cells],
             called: str) -> np.ndarray:  # fmt: skip
    """Cells of columns as events `[N, E]`."""
    places, n = _places(margins, None not in ranks), len(columns[0].rows)
    x = np.zeros((n, 1 + max(place for pair in places for place in pair if place is not None)))
    inside = np.full(x.shape, 0.5) if key is None else np.asarray(jax.random.uniform(key, x.shape), np.float64)
    for margin, own_ranks, cells, (own, flag) in zip(margins, ranks, columns, places, strict=True):
        if not cells.rows.all() and not margin.missing:
            raise DataError(
                f"{shown(str(margin.name))} has missing cells", called=called, got=f"{int((~cells.rows).sum())} of {n}",
                expected="none, as in the table that was fitted", fix="leave those rows out",
            )  # fmt: skip
        numbers, there = margin.encoded(cells, called)
        x[~there, own] = np.nan
        x[there, own] = numbers if own_ranks is None else own_ranks.scores(numbers, inside[there, own])
        if flag is not None:
            x[:, flag] = ~cells.rows
    return x.astype(np.float32)


def _conditional(key: Any, model: Any, at: list[int], codes: np.ndarray, low: Any, high: Any, n: int) -> jax.Array:
    """Draws of events given their entries `at`: codes, and where these are NaN ranks from `low` to `high`."""
    unknown = tuple(np.flatnonzero(np.isnan(codes)).tolist())
    return _drawn_given(key, model, tuple(at), unknown, *(np.asarray(a, np.float32) for a in (codes, low, high)), n)


@functools.partial(jax.jit, static_argnames=("at", "unknown", "n"))
def _drawn_given(key: Any, model: Any, at: Any, unknown: Any, codes: Any, low: Any, high: Any, n: int) -> jax.Array:
    inside, choose, draw = jax.random.split(key, 3)
    known = jnp.broadcast_to(codes, (max(n, POOL) if unknown else n, len(at)))
    if unknown:
        # a value is an interval of scores: places in it by the margins, of which the likely ones together are kept
        share = low + (high - low) * jax.random.uniform(inside, (len(known), len(unknown)))
        scores = ndtri(jnp.clip(share, EDGE, 1 - EDGE))
        known = known.at[:, np.array(unknown)].set(scores)
        likely = model.marginal(at).log_prob(known) + 0.5 * jnp.sum(scores**2, axis=1)
        known = known[jax.random.categorical(choose, likely, shape=(n,))]
    rest = jax.vmap(lambda key, row: model.condition(at, row).sample(key))(jax.random.split(draw, n), known)
    _, others = chosen_and_rest(at, model.event_shape[0], "condition")
    x = jnp.zeros((n, model.event_shape[0]), rest.dtype)
    return x.at[:, np.array(at)].set(known.astype(rest.dtype)).at[:, others].set(rest)


def synthesizer(
    key: Any, frame: Any, *, model: Callable[[Any, Any], Any] | None = None, columns: Sequence[str] | None = None,
    labels: Sequence[str] = (), components: Iterable[int] = COMPONENTS, scored: bool = False, steps: int | None = None,
    batch_size: int | None = None,
) -> Synthesizer:  # fmt: skip
    """Fit a model of the rows of a frame, which draws rows like them.

    Each number becomes a normal score by its rank (a Gaussian copula's transform), labels are codes, and whether a
    number is missing is one more code. Of these the model is a mixture of a Gaussian block for all scores and
    a categorical block for all codes, with as many components as explain held-out rows best.

    Args:
        key: typed key.
        frame: of pandas or polars, or a dict of columns: numbers, counts, labels, booleans, dates; cells may be
            missing. Dates with a zone are the same instants again.
        model: another model of events `[N, E]`: `(key, x) -> start` or `-> (start, algorithm)`, as recipes are.
        columns: the names of those to take; None takes all.
        labels: columns to take as labels, though they hold numbers.
        components: numbers of components to choose among, by a fifth of the rows that are held out of their fits; those
            with fewer than 15 rows for a component are left out.
        scored: give labels a score too, by the rank of their code, for models of numbers alone such as flows, and
            autoencoders with `likelihoods.gaussian`.
        steps, batch_size: of the fit; None is the algorithm's own.

    Returns:
        `Synthesizer`: `draw(key, n)` has frames, `jaxgen.save` writes it to a file.

    Raises:
        DataError: fewer than two rows; a column without a value, of several kinds, or of text that names the rows.
        FitError: a fit that failed. ModelError: a model of numbers alone for labels without scores.

    Source: Sklar (1959), Fonctions de repartition a n dimensions et leurs marges, for the transform; Rajan and
    Bhattacharya (2016), Dependency clustering of mixed data with Gaussian mixture copulas, for the model.

    Example:
        >>> import pandas as pd
        >>> size = np.arange(100) % 7
        >>> frame = pd.DataFrame({"size": size, "price": 2.5 * size + 1, "kind": np.where(size > 3, "b", "a")})
        >>> made = synthesizer(jax.random.key(0), frame, components=[2]).draw(jax.random.key(1), 5).frame
        >>> made.dtypes.equals(frame.dtypes), set(made["price"]) <= set(frame["price"])
        (True, True)
    """
    called = "synthesizer(key, frame)"
    check_key(key, called)
    series = columns_of(frame, called)
    names = list(chosen(columns, list(series), called))
    if len(series[names[0]]) < 2:
        raise DataError("one row says nothing of others", called=called, expected="2 rows or more", got="1")
    if unknown := [name for name in labels if name not in names]:
        raise DataError(f"there is no {shown(unknown[0])} to take as labels", called=called, got=repr(list(labels)),
                        expected=f"names of columns in a list, such as {names[:1]}")  # fmt: skip
    reading = Reading(called, "jaxgen.tasks.synthesizer(key, frame, {})", tuple(labels))
    written = {str(name): name for name in (frame if isinstance(frame, Mapping) else frame.columns)}
    margins, cells = zip(*(margin_of(written[name], series[name], reading, names) for name in names), strict=True)
    if scored and (gaps := [margin.name for margin in margins if margin.missing and margin.kind != LABEL]):
        raise DataError(f"numbers that are missing have no score: {shown(str(gaps[0]))}", called=called,
                        expected="numbers in all rows, or scored=False", got="missing cells",
                        fix="leave those rows out")  # fmt: skip
    ranks = [
        Ranks.of(margin.encoded(own, called)[0]) if scored or margin.kind != LABEL else None
        for margin, own in zip(margins, cells, strict=True)
    ]
    place, train = jax.random.split(key)
    x = _encoded(place, margins, ranks, cells, called)
    made = _mixture(train, x, margins, scored, components) if model is None else model(train, x)
    start, algorithm = made if isinstance(made, tuple) else (made, None)
    fitted = fit(jax.random.fold_in(train, 1), start, x, algorithm, steps=steps, batch_size=batch_size, progress=False)
    if fitted.status == Status.NON_FINITE:
        raise FitError("the fit failed", called=called, expected="finite likelihoods", got=fitted.failure)
    if model is not None and not scored:
        _check_codes(jax.random.fold_in(train, 2), fitted.model, margins, called)
    known = [one for one in ranks if one is not None]
    return Synthesizer(
        fitted.model, tuple(one.values.view(np.int32).reshape(-1, 2) for one in known),
        tuple(one.counts.astype(np.int32) for one in known), tuple(margins), library_of(frame), scored,
    )  # fmt: skip


def _check_codes(key: Any, model: Any, margins: Sequence[Margin], called: str) -> None:
    """Refuse a model of numbers alone, whose draws of labels are no codes."""
    codes = [(own, margin) for margin, (own, _) in zip(margins, _places(margins, False), strict=True)
             if margin.kind == LABEL]  # fmt: skip
    if not codes:
        return
    x = np.asarray(model.sample(key, (LOOKED_AT,)))
    for own, margin in codes:
        drawn = x[:, own]
        if not np.isin(drawn, np.arange(margin.codes)).all():
            raise ModelError(
                f"the model draws numbers where {shown(str(margin.name))} has labels", called=called,
                expected=f"codes from 0 to {margin.codes - 1}", got=f"such as {drawn[0]:.3g}",
                fix="give labels scores too, by the argument scored",
            )  # fmt: skip


def _mixture(key: Any, x: np.ndarray, margins: Sequence[Margin], scored: bool, components: Iterable[int]) -> Any:
    """A mixture with as many components as explain held-out rows best, fitted to the others."""
    codes: dict[int, list[int]] = {}
    scores = []
    for margin, (own, flag) in zip(margins, _places(margins, scored), strict=True):
        if scored or margin.kind != LABEL:
            scores.append(own)
        else:
            codes.setdefault(margin.codes, []).append(own)
        if flag is not None:
            codes.setdefault(2, []).append(flag)
    # a label that a component never met has a small probability in it: one event's worth is spread over all levels
    gaps = bool(np.isnan(x).any())
    blocks: list[Any] = [
        (tuple(places), functools.partial(Categorical.init, size=size, prior=1 + 1 / size, missing=gaps))
        for size, places in codes.items()
    ]
    if scores:
        blocks.append((tuple(scores), functools.partial(Gaussian.init, floor=FLOOR, missing=gaps)))
    leaf = functools.partial(Product.init, blocks=tuple(blocks))
    held = round(HELD_OUT * len(x))
    ks = [k for k in components if k * ROWS_EACH <= len(x) - held] or [1]
    split, chooser = jax.random.split(key)
    order = np.asarray(jax.random.permutation(split, len(x)))
    chooses = len(ks) > 1
    seen, unseen = (x[order[held:]], x[order[:held]]) if chooses else (x, None)
    found = jg.select(chooser, seen, ks, {"table": leaf}, validation=unseen, restarts=RESTARTS, tolerance=TOLERANCE,
                   progress=False)  # fmt: skip
    return found.best("held_out" if chooses else "bic", repaired=True).model
