"""The search over numbers and kinds of components."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import latent
from jaxgen.core.errors import FitError, ModelError
from jaxgen.core.inputs import Batch, as_batch, as_events
from jaxgen.core.methods import check_key
from jaxgen.core.sequences import opened, shown_to
from jaxgen.core.tables import Schema
from jaxgen.core.value import ByValue
from jaxgen.data.folds import split_folds
from jaxgen.fit.checks import check_counts
from jaxgen.fit.loop import Status
from jaxgen.fit.progress import make_bar, watched
from jaxgen.metrics.information import Evidence, evidence, observations, posterior_entropy
from jaxgen.models.densities.diagonal_gaussian import DiagonalGaussian
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.latent.product import Product
from jaxgen.selection.folds import cross_validate, mean_nats, unseen_evidence
from jaxgen.selection.restarts import Found, fit_family, fit_mixtures, padded_width
from jaxgen.selection.table import Candidate, Selection


def gaussian_leaves(*, floor: float | None = None, missing: bool = False) -> dict[str, Callable[[Any, Any], Any]]:
    """The four kinds of Gaussian components: full, tied, diagonal and spherical covariances.

    Args:
        floor: the smallest variance, in units of x squared; None is each leaf's own.
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
            `(x, None, weight)`, or a dict of them; NaN is an entry that was not seen. Or a frame, or `data.Table`.
        ks: numbers of components, each from 1 to N, or of states.
        leaves: `{name: (key, x) -> model}`, such as `{"student": jaxgen.StudentT.init}`; None takes Gaussians, full,
            tied, diagonal and spherical covariances, with `missing=True` where x has NaN (`gaussian_leaves`); of a
            table `Product.init`, a density for each kind of column.
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
    x, schema = _values(x)
    batch = _data(x, called)
    ks = _numbers(ks, batch.events if family is None else None, called)
    if leaves is None and schema is not None:
        leaves = {"product": Product.init}
    if leaves is None:
        values = np.asarray(jax.tree.leaves(batch.x)[0])
        leaves = gaussian_leaves(missing=bool(np.isnan(values).any()))
    leaves = {name: shown_to(leaf, schema) for name, leaf in leaves.items()}
    models = [_check_leaf(key, name, leaf, family, ks[0], batch, called) for name, leaf in leaves.items()]
    if validation is not None and folds is not None:
        raise FitError("two ways to hold out", called=called, expected="validation or folds", got="both")
    held_out = None if validation is None else _data(validation, called, latent.schema(models[0]))
    parts = [] if folds is None else split_folds(key, batch, folds, called)
    rows = []
    shown = make_bar(len(leaves) * len(ks), "fit") if watched(progress) else contextlib.nullcontext()
    with shown as bar:
        for i, (name, leaf) in enumerate(leaves.items()):
            fit_one = fit_mixtures if family is None else functools.partial(fit_family, family=family)
            search = functools.partial(fit_one, leaf=ByValue(leaf), restarts=restarts, steps=steps, tolerance=tolerance)
            for k in ks:
                if bar is not None:
                    bar.set_description(f"{name}, K = {k}", refresh=False)
                one = jax.random.fold_in(jax.random.fold_in(key, i), k)
                width = padded_width(k, max(ks), batch.events)
                found = search(one, batch, k, width)
                score = None if held_out is None else mean_nats(unseen_evidence(found, held_out, called))
                if parts:
                    score = cross_validate(search, one, parts, k, width if family is None else None, called)
                rows.append(_row(name, k, found, batch, score))
                if bar is not None:
                    bar.update()
    kind = "validation" if held_out is not None else f"{folds} folds" if parts else ""
    return Selection(rows, observations(models[0], batch), kind, time.perf_counter() - begun)


def _values(x: Any) -> tuple[Any, Schema | None]:
    """Data with the values of a table in its place, and its schema."""
    if isinstance(x, Mapping):
        values, schema = opened(x.get("x"))
        return {**x, "x": values}, schema
    if isinstance(x, tuple) and x:
        values, schema = opened(x[0])
        return (x._replace(x=values) if isinstance(x, Batch) else (values, *x[1:])), schema
    return opened(x)


def _data(x: Any, called: str, schema: Schema | None = None) -> Batch:
    batch = as_batch(x, name="x", called=called, missing=True, schema=schema)
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
        as_events(batch.x, name="x", called=f"{called}, leaf {name!r}", schema=latent.schema(abstract))
    latent.check_data(abstract, batch.x)
    return abstract


def _row(name: str, k: int, found: Found, batch: Batch, held_out: float | None) -> Candidate:
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
