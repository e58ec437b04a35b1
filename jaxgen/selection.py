"""Choosing a model: every number of components or states and every kind of them, fitted and compared in one table."""

from __future__ import annotations

import contextlib
import functools
import html
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.errors import FitError, ModelError
from jaxgen.core.inputs import Batch, as_batch, as_events
from jaxgen.core.methods import check_key
from jaxgen.core.pytree import float_type
from jaxgen.core.value import ByValue
from jaxgen.fit.checks import check_counts, prepare
from jaxgen.fit.em import EM
from jaxgen.fit.loop import Loop, Status
from jaxgen.fit.progress import make_bar, watched
from jaxgen.metrics.information import Evidence, evidence, observations, posterior_entropy
from jaxgen.models.densities.diagonal_gaussian import DiagonalGaussian
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.latent.mixture import Mixture
from jaxgen.ops.kmeans import cluster_means, kmeans_plus_plus, squared_distances
from jaxgen.ops.starts import blended, cluster_features

#: events times components up to which one program, for the largest K, fits all K: there compiling costs more than
#: components that do nothing (on two cores a program takes seconds, a fit of that size less)
PAIRS_OF_ONE_PROGRAM = 2**17
LLOYD_STEPS = 10
#: what `Selection.best` chooses by; higher is better
CRITERIA = ("bic", "aic", "icl", "held_out")


class Candidate(NamedTuple):
    """One fitted model: a row of a `Selection`.

    Args:
        leaf: name of its kind of components.
        k: number of components, or of states.
        log_likelihood: of all data, nats.
        parameters: how many are free.
        bic, aic, icl: criteria, higher is better; NaN for a fit that failed, and icl for models that classify nothing.
        held_out: nats per event (per step of sequences) of data that the fit did not see, or None.
        status: a `Status`: why the fit ended.
        repaired: dead or singular components in its last step. The likelihood of such a model is that of the floor of
            its variances, and comparable with nothing.
        restarts_failed: how many of the starts ended in numbers that are not finite.
        model: the `Mixture`, or what `family` made.
    """

    leaf: str
    k: int
    log_likelihood: float
    parameters: int
    bic: float
    aic: float
    icl: float
    held_out: float | None
    status: Status
    repaired: int
    restarts_failed: int
    model: Any

    @property
    def sound(self) -> bool:
        """Whether the fit gave finite numbers without repairs."""
        return self.status != Status.NON_FINITE and not self.repaired and math.isfinite(self.log_likelihood)


@dataclass(frozen=True)
class Selection:
    """What `select` found: a table that prints, also in notebooks, and knows its best rows.

    Args:
        rows: `Candidate`s, by leaf and then by k.
        events: number of events, or the sum of their weights; of sequences the number of their steps.
        held_out: what `held_out` of the rows was measured on; empty where it was not.
        seconds: of all fits, compilation included.
    """

    rows: list[Candidate]
    events: float
    held_out: str
    seconds: float

    def best(self, by: str = "bic", *, repaired: bool = False) -> Candidate:
        """The row with the highest `"bic"`, `"aic"`, `"icl"` or `"held_out"`.

        Args:
            by: the criterion.
            repaired: let rows compete whose last step had to repair a component.

        Raises:
            FitError: no such criterion, held-out data that there are not, or no row that may compete.
        """
        called = f"Selection.best({by!r})"
        if by not in CRITERIA[: 4 if self.held_out else 3]:
            raise FitError("no such criterion", called=called, expected=", ".join(CRITERIA), got=repr(by),
                           fix="select with validation data or folds, for held_out")  # fmt: skip
        rows = [r for r in self.rows if r.sound or (repaired and r.status != Status.NON_FINITE)]
        rows = [r for r in rows if math.isfinite(getattr(r, by))]
        if not rows:
            raise FitError(
                "no fit may compete", called=called, expected="one that is finite and without repairs",
                got=f"{len(self.rows)} that failed or were repaired", fix="smaller ks, or let repaired ones compete",
            )  # fmt: skip
        return max(rows, key=lambda r: getattr(r, by))

    def as_dict(self) -> dict[str, list[Any]]:
        """Columns by name, models left out: `pandas.DataFrame(selection.as_dict())`."""
        names = [name for name in Candidate._fields if name != "model"]
        columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in self.rows] for name in names}
        return columns | {"status": [row.status.name for row in self.rows]}

    def _winners(self) -> list[tuple[str, Candidate]]:
        try:
            return [(by, self.best(by)) for by in CRITERIA[: 4 if self.held_out else 3]]
        except FitError:
            return []

    def _grid(self) -> tuple[list[str], list[int], dict[tuple[str, int], Candidate]]:
        cells = {(r.leaf, r.k): r for r in self.rows}
        return list(dict.fromkeys(r.leaf for r in self.rows)), sorted({r.k for r in self.rows}), cells

    def _summary(self) -> list[str]:
        failed, repaired = (sum(map(f, self.rows)) for f in (_failed, lambda r: bool(r.repaired)))
        first = f"{len(self.rows)} models of {self.events:g} observations in {self.seconds:.1f} s"
        notes = ["x failed"] * bool(failed) + ["! components repaired: left out"] * bool(repaired)
        return [first + "".join(f"; {note}" for note in notes)]

    def _verdicts(self) -> list[str]:
        unit = {"held_out": f" nats per event, {self.held_out}"}
        return [f"{by.replace('_', '-') if by == 'held_out' else by.upper()}: {row.leaf}, K = {row.k} "
                f"({_number(getattr(row, by), 4 if by == 'held_out' else 2)}{unit.get(by, '')})"
                for by, row in self._winners()] or ["no fit may compete"]  # fmt: skip

    def __str__(self) -> str:
        leaves, ks, cells = self._grid()
        best = dict(self._winners()).get("bic")
        lines = [["K", *leaves]]
        for k in ks:
            rows = [cells.get((leaf, k)) for leaf in leaves]
            lines.append([str(k), *(_cell(row) + ("*" if row is best and row else " ") for row in rows)])
        widths = [max(len(line[i]) for line in lines) + 2 * bool(i) for i in range(len(lines[0]))]
        head, *body = ["".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*self._summary(), "BIC, higher is better", head, *body, "best by " + "\n        ".join(
            self._verdicts())])  # fmt: skip

    def _repr_html_(self) -> str:
        leaves, ks, cells = self._grid()
        best = dict(self._winners()).get("bic")
        values = [r.bic for r in self.rows if r.sound]
        low, high = (min(values), max(values)) if values else (0.0, 0.0)

        def cell(row: Candidate | None) -> str:
            shade = 0.0
            if row is not None and row.sound and high > low:
                shade = 0.32 * ((row.bic - low) / (high - low)) ** 4  # differences near the top are what counts
            style = f"text-align:right;padding:2px 10px;background:rgba(11,111,184,{shade:.3f});"
            if row and row is best:
                style += "font-weight:bold;outline:1.5px solid #0b6fb8;outline-offset:-1.5px;"
            title = "" if row is None else html.escape(
                f"log L {row.log_likelihood:.2f}, {row.parameters} parameters, AIC {row.aic:.2f}, ICL {row.icl:.2f}, "
                f"{row.status.name}, {row.repaired} repaired"
            )  # fmt: skip
            return f'<td style="{style}" title="{title}">{html.escape(_cell(row))}</td>'

        head = "".join(f'<th style="text-align:right;padding:2px 10px">{html.escape(leaf)}</th>' for leaf in leaves)
        body = "".join(
            f"<tr><th>{k}</th>{''.join(cell(cells.get((leaf, k))) for leaf in leaves)}</tr>" for k in ks
        )
        summary = "<br>".join(map(html.escape, self._summary()))
        verdicts = "<br>".join("best by " + html.escape(line) for line in self._verdicts())
        return (
            f"<div><p>{summary}</p><table><caption>BIC, higher is better</caption><thead><tr><th>K</th>{head}</tr>"
            f"</thead><tbody>{body}</tbody></table><p>{verdicts}</p></div>"
        )


def _failed(row: Candidate) -> bool:
    return row.status == Status.NON_FINITE or not math.isfinite(row.log_likelihood)


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}"


def _cell(row: Candidate | None) -> str:
    if row is None:
        return ""
    return "x" if _failed(row) else ("!" if row.repaired else "") + _number(row.bic)


def gaussian_leaves(*, floor: float | None = None, missing: bool = False) -> dict[str, Callable[[Any, Any], Any]]:
    """The four kinds of Gaussian components: full, tied, diagonal and spherical covariances.

    Args:
        floor: the smallest variance; None is each leaf's own.
        missing: NaN is an entry that was not seen.

    Example:
        >>> list(gaussian_leaves())
        ['full', 'tied', 'diagonal', 'spherical']
    """
    options = {"floor": floor, "missing": missing}
    return {
        "full": functools.partial(Gaussian.init, **options),
        "tied": functools.partial(Gaussian.init, tied=True, **options),
        "diagonal": functools.partial(DiagonalGaussian.init, **options),
        "spherical": functools.partial(DiagonalGaussian.init, spherical=True, **options),
    }


def select(
    key: Any,
    x: Any,
    ks: Iterable[int] = range(1, 21),
    leaves: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    *,
    restarts: int = 4,
    steps: int = 1000,
    tolerance: float = 1e-6,
    validation: Any = None,
    folds: int | None = None,
    family: Callable[[Any, Any, int, Any], Any] | None = None,
    progress: bool | None = None,
) -> Selection:
    """Fits a mixture for every number of components and every kind of them, by EM, and compares them.

    With `family=jaxgen.HMM.init` they are hidden Markov models, and K is the number of states.

    The best of several restarts counts; one without repairs goes before one with them. Every second restart looks for
    its first clusters in coordinates scaled to unit variance.

    One program serves many K: a mixture is padded with components of weight zero, to which EM gives no event and no
    weight, so that each fit is that of K components. Of another family each K is a program of its own, compiled once
    for each leaf.

    Args:
        key: typed key.
        x: events `[N, *event]`, such as sequences `[N, T, *event]` or `Sequences` for hidden Markov models, or
            `(x, None, weight)`, or a dict of them; NaN is an entry that was not seen.
        ks: numbers of components, each from 1 to N, or of states.
        leaves: `{name: (key, x) -> model}`, such as `{"student": jaxgen.StudentT.init}`; None takes Gaussians, full,
            tied, diagonal and spherical covariances, with `missing=True` where x has NaN (`gaussian_leaves`).
        restarts: starts for each fit.
        steps: of EM, at most.
        tolerance: a fit ends when its log-likelihood changes by less, in nats per event.
        validation: data to score each model on that it was not fitted to, as x.
        folds: without such data, cross-validation: fit each mixture so many times more, each time without one part of
            the events, and score it there. Costs that much more time. Without either, `held_out` is None.
        family: `(key, x, k, leaf) -> model` that has EM: a start from data, such as `jaxgen.HMM.init`, or
            `functools.partial(jaxgen.HMM.init, stickiness=0.99)`. None is a mixture.
        progress: a bar on standard error; None shows it on a terminal and in a notebook.

    Returns:
        `Selection`. A fit that failed is a row too, with its status.

    Raises:
        ModelError: numbers of components that do not fit the data. FitError: options out of range, or a leaf without
            EM. DataError, ShapeError: data that do not fit the leaves.

    Source: Fraley and Raftery (2002), Model-based clustering, discriminant analysis, and density estimation.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> found = jg.select(jax.random.key(0), x, range(1, 4), {"normal": jg.Gaussian.init})
        >>> found.best("bic").k, len(found.rows)
        (2, 3)
    """
    called = "select(key, x)"
    begun = time.perf_counter()
    check_key(key, called)
    check_counts(called, {"restarts": restarts, "steps": steps})
    batch = _data(x, called)
    ks = _numbers(ks, batch.events if family is None else None, called)
    if leaves is None:
        values = np.asarray(jax.tree.leaves(batch.x)[0])
        leaves = gaussian_leaves(missing=bool(np.isnan(values).any()))
    models = [_check_leaf(key, name, leaf, family, ks[0], batch, called) for name, leaf in leaves.items()]
    if validation is not None and folds is not None:
        raise FitError("two ways to hold out", called=called, expected="validation or folds", got="both")
    held_out = None if validation is None else _data(validation, called)
    parts = [] if folds is None else _parts(key, batch, folds, called)
    rows = []
    shown = make_bar(len(leaves) * len(ks), "fit") if watched(progress) else contextlib.nullcontext()
    with shown as bar:
        for i, (name, leaf) in enumerate(leaves.items()):
            fit_one = _fit if family is None else functools.partial(_fit_family, family=family)
            search = functools.partial(fit_one, leaf=ByValue(leaf), restarts=restarts, steps=steps, tolerance=tolerance)
            for k in ks:
                if bar is not None:
                    bar.set_description(f"{name}, K = {k}", refresh=False)
                one = jax.random.fold_in(jax.random.fold_in(key, i), k)
                width = _width(k, max(ks), batch.events)
                found = search(one, batch, k, width)
                score = None if held_out is None else _mean(_unseen(found, held_out, called))
                if parts:
                    score = _cross(search, one, parts, k, width if family is None else None, called)
                rows.append(_row(name, k, found, batch, score))
                if bar is not None:
                    bar.update()
    kind = "validation" if held_out is not None else f"{folds} folds" if parts else ""
    return Selection(rows, observations(models[0], batch), kind, time.perf_counter() - begun)


def _data(x: Any, called: str) -> Batch:
    batch = as_batch(x, name="x", called=called, missing=True)
    if batch.context is not None or batch.label is not None:
        raise FitError("models are compared on events", called=called, expected="x, and weight",
                       got="a context" if batch.label is None else "labels")  # fmt: skip
    return jax.tree.map(jnp.asarray, batch)


def _numbers(ks: Iterable[int], n: int | None, called: str) -> list[int]:
    numbers, last = list(ks), math.inf if n is None else n
    bad = [k for k in numbers if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= last]
    if bad or not numbers:
        raise ModelError(
            "these numbers of components do not fit the data", called=called, got=repr((bad or numbers)[:5]),
            expected="one or more from 1" + ("" if n is None else f" to {n}, the number of events"),
            fix=f"range(1, {min(5, last) + 1})",
        )  # fmt: skip
    return sorted({int(k) for k in numbers})


def _check_leaf(key: Any, name: str, leaf: Any, family: Any, k: int, batch: Batch, called: str) -> Any:
    """The model of events that a leaf makes, in the abstract, or an error."""
    if family is None:
        abstract = jax.eval_shape(leaf, key, batch.x)
    else:
        abstract = jax.eval_shape(lambda key: family(key, batch.x, k, leaf), key)
    if not latent.supports_em(abstract):
        raise FitError(
            f"EM does not apply to the leaf {name!r}", called=called, expected="a model with e_step and m_step",
            got=type(abstract).__name__,
        )  # fmt: skip
    if not latent.accepts_missing(abstract):
        as_events(batch.x, name="x", called=f"{called}, leaf {name!r}")
    latent.check_data(abstract, batch.x)
    return abstract


def _width(k: int, largest: int, events: int) -> int:
    """Components in the program that fits k of them: the largest, or for many events no more than twice as many."""
    width = largest
    while events * largest > PAIRS_OF_ONE_PROGRAM and k <= -(-width // 2) < width:
        width = -(-width // 2)
    return width


class _Found(NamedTuple):
    """The best restart, and how its fit ended. `padded` is the same model with components of weight zero, if it is."""

    model: Any
    padded: Any
    status: Status
    repaired: int
    failed: int


def _fit(key, batch, k, width, *, leaf, restarts, steps, tolerance) -> _Found:
    models, status, score, repaired = _search(key, batch, k, steps, tolerance, leaf, width, restarts)
    if width > k:  # the components that are not there say that they have no mass
        one = jax.tree.map(lambda leaf: leaf[0, -1:], models.components)
        repaired = np.maximum(repaired - (width - k) * int(_repairs_without_mass(one, batch.x[:1])), 0)
    found = _best(models, status, score, repaired)
    log_weights, components = jax.tree.map(lambda a: a[:k], (found.padded.log_weights, found.padded.components))
    return found._replace(model=Mixture(log_weights, components, None))


def _fit_family(key, batch, k, width, *, family, leaf, restarts, steps, tolerance) -> _Found:
    keys = jax.random.split(key, restarts)
    # starts are made where the data can be seen: a start may leave out what is padded
    models = jax.vmap(lambda one: family(one, batch.x, k, leaf.function))(keys)
    return _best(*_climb_family(key, models, batch, steps, tolerance, restarts))


def _best(models, status, score, repaired) -> _Found:
    status, score, repaired = (np.asarray(a) for a in (status, score, repaired))
    good = (status != Status.NON_FINITE) & np.isfinite(score)
    best = int(np.lexsort((np.where(good, score, -np.inf), good & (repaired == 0), good))[-1])
    ended = Status(int(status[best])) if good[best] else Status.NON_FINITE
    ended = Status.FINISHED if ended == Status.RUNNING else ended
    model = algebra.take(models, best)
    return _Found(model, model, ended, int(repaired[best]), int((~good).sum()))


def _row(name: str, k: int, found: _Found, batch: Batch, held_out: float | None) -> Candidate:
    parameters = latent.free_parameters(found.model)
    if found.status == Status.NON_FINITE:
        numbers = Evidence(math.nan, math.nan, parameters)
    else:
        # of the padded one: the same numbers, from a program that is there already
        classify = posterior_entropy(found.padded) is not None
        numbers = evidence(found.padded, batch, "select(key, x)", classify=classify, parameters=parameters)
    return Candidate(
        name, k, numbers.log_likelihood, parameters, numbers.bic, numbers.aic, numbers.icl, held_out, found.status,
        found.repaired, found.failed, found.model,
    )  # fmt: skip


def _unseen(found: _Found, held_out: Batch, called: str) -> Evidence:
    """What a fit says of events that it did not see; one that failed says nothing."""
    failed = found.status == Status.NON_FINITE
    return Evidence(math.nan, math.nan, 0) if failed else evidence(found.padded, held_out, called)


def _mean(numbers: Evidence) -> float:
    return numbers.log_likelihood / numbers.events


def _parts(key: Any, batch: Batch, folds: int, called: str) -> list[tuple[Batch, Batch]]:
    """`(fitted, held out)` of each fold, all of one shape: one program serves them."""
    n = batch.events
    check_counts(called, {"folds": folds})
    if not 2 <= folds <= n:
        raise FitError("these are no folds", called=called, expected=f"2 to {n}", got=f"folds={folds}")
    order = np.asarray(jax.random.permutation(key, n))
    largest = -(-n // folds)
    weight = jnp.ones(n, jnp.result_type(float)) if batch.weight is None else batch.weight
    parts = []
    for part in np.array_split(order, folds):
        rest = np.setdiff1d(order, part)[: n - largest]  # smaller folds leave one event to neither
        filled = np.concatenate([part, np.repeat(part[:1], largest - len(part))])
        silent = jnp.asarray(np.arange(largest) < len(part))
        fitted = algebra.take(batch, rest)
        parts.append((fitted, Batch(algebra.take(batch.x, filled), None, weight[filled] * silent)))
    return parts


def _cross(search: Any, key: Any, parts: Any, k: int, width: int | None, called: str) -> float:
    """Nats per event of events that the fits did not see."""
    if width is not None:  # of a mixture
        if k > parts[0][0].events:
            return math.nan
        width = min(width, parts[0][0].events)
    total = weight = 0.0
    for i, (fitted, held_out) in enumerate(parts):
        found = search(jax.random.fold_in(key, i), fitted, k, width)
        numbers = _unseen(found, held_out, called)
        total, weight = total + numbers.log_likelihood, weight + numbers.events
    return total / weight


@functools.partial(jax.jit, static_argnames=("leaf", "width", "restarts"))
def _search(key, batch, k, steps, tolerance, leaf, width, restarts):
    """All restarts, side by side: models, statuses, mean log-likelihoods and repairs, leading axis `restarts`."""
    keys = jax.random.split(key, restarts)
    models = jax.vmap(lambda one, i: _start(one, batch, k, i % 2 == 1, leaf, width))(keys, jnp.arange(restarts))
    return _climb(key, models, batch, steps, tolerance, restarts)


@functools.partial(jax.jit, static_argnames=("restarts",))
def _climb_family(key, models, batch, steps, tolerance, restarts):
    return _climb(key, models, batch, steps, tolerance, restarts)


def _climb(key, models, batch, steps, tolerance, restarts):
    """EM on each of a batch of models, with what `_search` returns."""
    em = EM()
    batch = prepare(em, algebra.element(models), batch, None)
    loop = Loop(em, restarts, key, tolerance)
    carry, _ = loop.steps(loop.start(models, batch, None), lambda step, order: (batch, order), 0, steps)
    return carry.state.model, carry.status, carry.metrics["log_likelihood"], carry.metrics["repaired"]


@jax.jit
def _repairs_without_mass(component, x):
    nothing = jnp.zeros(1, float_type(component))
    statistics = algebra.component_e_step(component, x, nothing[None])
    return latent.component_maximize(component, statistics, nothing)[1]


def _start(key, batch, k, scaled, leaf, width):
    """A mixture of `width` components of which the first k have a cluster each, and the others weight zero."""
    cluster, made = jax.random.split(key)
    x = cluster_features(leaf(made, batch.x), batch.x)
    spread = jnp.std(x, axis=0)
    x = jnp.where(scaled & (spread > 0), x / jnp.where(spread > 0, spread, 1), x)
    there = jnp.arange(width) < k
    member, distance = _clusters(cluster, x, there)
    share = jnp.where(there, blended(member, distance, k).T, 0)
    mixture = Mixture.init(made, batch.x, width, leaf, weight=batch.weight, responsibilities=share)
    return Mixture(jnp.where(there, mixture.logits, -jnp.inf), mixture.components, mixture.prior)


def _clusters(key, x, there):
    """k-means with a number of clusters that a program need not know: ones where an event belongs, `[width, N]`, and
    squared distances, a feature."""

    def assign(centers):
        distances = jnp.where(there[:, None], squared_distances(x, centers), jnp.inf)
        return jnp.argmin(distances, axis=0), distances

    def lloyd(centers, _):
        return cluster_means(x, assign(centers)[0], centers), None

    # the first k of so many centers are k centers
    centers, _ = jax.lax.scan(lloyd, kmeans_plus_plus(key, x, len(there)), None, length=LLOYD_STEPS)
    chosen, distances = assign(centers)
    return jax.nn.one_hot(chosen, len(there), axis=0, dtype=x.dtype), distances / x.shape[1]
