"""Models of any kinds compared on events that their fits did not see, with paired tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from jaxgen.core import latent, markup
from jaxgen.core.errors import FitError, ModelError
from jaxgen.core.inputs import as_batch
from jaxgen.core.methods import check_key
from jaxgen.core.protocols import Kind
from jaxgen.core.scores import plus_minus
from jaxgen.data.folds import split_folds
from jaxgen.fit.driver import fit
from jaxgen.fit.loop import Status
from jaxgen.tasks.scores import Surprise


class Row(NamedTuple):
    """One model of a `Comparison`.

    Args:
        name: as given.
        mean: held-out log-likelihood, nats per event, higher is better; NaN where a fit failed.
        standard_error: of the mean, over events.
        difference: the best model's mean less this one's, paired by event.
        difference_error: its standard error.
        p_value: of the two-sided t test that the difference is 0; NaN for the best.
        kind: what the number means. A lower bound may lose to a likelihood for being one.
    """

    name: str
    mean: float
    standard_error: float
    difference: float
    difference_error: float
    p_value: float
    kind: Kind


class Comparison(NamedTuple):
    """The result of `compare`: a table that prints, best first. `plot.comparison` draws it.

    Args:
        rows: one for each model, the best first.
        nats: `{name: [N]}`, held-out log-likelihood of each event, in the order that the folds have them.
        folds: their number.
    """

    rows: list[Row]
    nats: dict[str, np.ndarray]
    folds: int

    @property
    def best(self) -> Row:
        """The first row."""
        return self.rows[0]

    def _cells(self) -> list[tuple[str, ...]]:
        head = ("model", "nats per event", "behind the best", "p", "kind")
        return [head, *(
            (row.name, plus_minus(row.mean, row.standard_error),
             "" if i == 0 else plus_minus(row.difference, row.difference_error),
             "" if i == 0 else f"{row.p_value:.2g}", str(row.kind))
            for i, row in enumerate(self.rows))]  # fmt: skip

    def _summary(self) -> str:
        return f"{len(next(iter(self.nats.values())))} events, {self.folds} folds, higher is better"

    def __str__(self) -> str:
        return f"{self._summary()}\n{markup.aligned(self._cells())}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        return markup.grid(head, body, self._summary())


def compare(
    key: Any, starts: Mapping[str, Callable[[Any, Any], Any]], x: Any, *, folds: int = 5, samples: int = 50,
    steps: int | None = None,
) -> Comparison:  # fmt: skip
    """Compare models by the likelihood of events that their fits did not see, in cross-validation.

    All models are fitted on the same folds, so that their numbers are paired by event: the difference of two models is
    often known far better than either. The tests take the fits as they are, and events as independent.

    Args:
        key: typed key.
        starts: by name functions `(key, x) -> model`, or `-> (model, algorithm)` as recipes are, that make a start from
            the events of a fold (`x` is a dict where there is more than events).
        x: events `[N, *event]`, or with what comes with them, `dict(x=x, context=context)`.
        folds: 2 or more.
        samples: draws an event of models that have a bound only.
        steps: of each fit; None is each algorithm's own number.

    Returns:
        `Comparison`. A fit that failed has NaN, and stands last.

    Raises:
        FitError: no models, or no folds. ModelError: a model that has no likelihood, nor a bound.

    Source: Nadeau and Bengio (2003), Inference for the generalization error, for what such tests leave out.

    Example:
        >>> import jaxgen as jg
        >>> x = jg.data.old_faithful().values
        >>> two = lambda key, x: jg.Mixture.init(key, x, 2, jg.Gaussian.init)
        >>> found = compare(jax.random.key(0), {"one": jg.Gaussian.init, "two": two}, x, folds=3)
        >>> found.best.name, found.rows[1].p_value < 1e-6
        ('two', True)
    """
    called = "compare(key, starts, x)"
    check_key(key, called)
    if not isinstance(starts, Mapping) or not starts:
        raise FitError("there is nothing to compare", called=called, got=repr(starts)[:80],
                       expected="functions by name, {'gaussian': jaxgen.Gaussian.init}")  # fmt: skip
    split, fitted = jax.random.split(key)
    parts = split_folds(split, as_batch(x, name="x", called=called, missing=True), folds, called)
    nats, kinds = {}, {}
    for i, (name, start) in enumerate(starts.items()):
        found = [
            _held_out(jax.random.fold_in(jax.random.fold_in(fitted, i), j), start, *part, samples, steps, called)
            for j, part in enumerate(parts)
        ]
        nats[name], kinds[name] = np.concatenate([values for values, _ in found]), found[0][1]
    best = max(nats, key=lambda name: -math.inf if np.isnan(nats[name]).any() else nats[name].mean())
    rows = [_row(name, nats[name], nats[best], kinds[name]) for name in nats]
    return Comparison(sorted(rows, key=lambda r: (math.isnan(r.mean), -r.mean)), nats, folds)


def _held_out(
    key: Any, start: Any, seen: Any, held_out: Any, samples: int, steps: int | None, called: str
) -> tuple[np.ndarray, Kind]:
    """Log-likelihoods of events that a fit did not see, NaN where it failed, and their kind."""
    first, second, third = jax.random.split(key, 3)
    alone = all(value is None for value in seen[1:])
    made = start(first, seen.x if alone else {k: v for k, v in seen._asdict().items() if v is not None})
    model, algorithm = made if isinstance(made, tuple) else (made, None)
    kind = latent.likelihood_kind(model)
    if kind in (Kind.UNNORMALISED, Kind.NONE):
        raise ModelError("a model without a likelihood is not compared", called=called, got=type(model).__name__,
                         expected="models with log_prob or elbo")  # fmt: skip
    result = fit(second, model, seen, algorithm, steps=steps, progress=False)
    there = np.asarray(held_out.weight) > 0
    if result.status == Status.NON_FINITE:
        return np.full(int(there.sum()), np.nan), kind
    values = -Surprise(samples)(third, result.model, held_out._replace(weight=None))
    return values[there], kind


def _row(name: str, nats: np.ndarray, best: np.ndarray, kind: Kind) -> Row:
    error = lambda values: float(np.std(values, ddof=1)) / math.sqrt(len(values))  # noqa: E731
    behind = best - nats
    same = not np.any(behind)
    p = math.nan if same else float(stats.ttest_1samp(behind, 0.0).pvalue)
    return Row(name, float(nats.mean()), error(nats), float(behind.mean()), error(behind), p, kind)
