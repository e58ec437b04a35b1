"""All that can be asked of a model beside data, in one table."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent, markup
from jaxgen.core.errors import DataError, FitError
from jaxgen.core.methods import check_key, is_count
from jaxgen.core.protocols import Energy, Kind, has
from jaxgen.core.pytree import is_model
from jaxgen.core.scores import plus_minus
from jaxgen.metrics.likelihood import bits_per_dim, perplexity, score
from jaxgen.metrics.samples import c2st, frechet, kid, neighbours, sliced_wasserstein
from jaxgen.metrics.samples.source import BATCH, as_source, enough, is_model_of_samples

#: events and samples that measures of pairs and of a classifier look at, at most
LARGEST = 5000


class Measure(NamedTuple):
    """One row of a table: a number, what kind of number it is, its error bar, and what it is for the data themselves.

    Args:
        name: of the measure, with its unit.
        value, standard_error: NaN where there is none.
        floor: of one random half of the data beside the other; NaN where there is none.
        kind: of a likelihood what it means; of a measure of samples `estimate`.
        better: `"higher"` or `"lower"`.
        seconds: that it took, compiling included.
    """

    name: str
    value: float
    standard_error: float
    floor: float
    kind: Kind
    better: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A table of measures, each with its kind, error bar and floor.

    Args:
        rows: by measure.
        title: of what beside what.
        skipped: what was not asked, and why.
    """

    rows: tuple[Measure, ...]
    title: str
    skipped: tuple[str, ...]

    def __getitem__(self, name: str) -> Measure:
        """Return a row by its name or the beginning of it."""
        found = [row for row in self.rows if row.name.startswith(name)]
        if not found:
            raise DataError("no such measure", called=f"evaluation[{name!r}]", got=name,
                            expected=", ".join(row.name for row in self.rows))  # fmt: skip
        return found[0]

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table as text, its header first."""
        head = ("measure", "value", "floor", "kind", "better", "s")
        body = [
            (row.name, plus_minus(row.value, row.standard_error),
             f"{row.floor:.4f}" if math.isfinite(row.floor) else "", str(row.kind), row.better, f"{row.seconds:.1f}")
            for row in self.rows
        ]  # fmt: skip
        return [head, *body]

    def __str__(self) -> str:
        return "\n".join([self.title, markup.aligned(self.cells()), *(f"not asked: {text}" for text in self.skipped)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head, *body = self.cells()
        return markup.grid(head, body, self.title)


def evaluate(
    key: Any, model: Any, data: Any, feature: Any = None, *, n: int | None = None, samples: int = 1,
    largest: int = LARGEST,
) -> Evaluation:  # fmt: skip
    """Ask a model, or samples, all that can be asked beside data, and return one table.

    Its likelihood or bound, as bits per dimension too (in the units of the data, where these are no whole numbers) and,
    of one symbol, as perplexity; and of its samples the Frechet distance, the kernel distance, precision, recall,
    density, coverage, the sliced Wasserstein distance and a classifier two-sample test.

    Args:
        key: typed key.
        model: any model, or samples `[N, *event]`.
        data: `[M, *event]`, or a tuple or dict of events and what comes with them, that the model was not fitted to.
        feature: for the measures of samples, a function of a batch of events; None for `metrics.samples`'s default.
        n: how many draws of the model; as many as there are data where not told.
        samples: draws per event for a bound (`jaxgen.score`).
        largest: events and samples that measures of all pairs, and the two-sample test, look at.

    Returns:
        `Evaluation`, which prints itself.

    Raises:
        DataError, ShapeError: data that do not fit the model, or fewer than 20 events. FitError: no number of draws.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.normal(jax.random.key(0), (100, 2))
        >>> found = evaluate(jax.random.key(1), jg.StandardNormal((2,)), x)
        >>> found["log-likelihood"].kind, found["C2ST"].value < 0.7, len(found.rows)
        (<Kind.EXACT: 'exact'>, True, 10)
    """
    called = f"metrics.evaluate(key, {type(model).__name__}, data)"
    check_key(key, called)
    if n is not None and not is_count(n, 1):
        raise FitError("samples need a number", called=called, expected="n of 1 or more", got=repr(n))
    ask, draw, *keys = jax.random.split(key, 7)
    rows: list[Measure] = []
    skipped: list[str] = []
    if is_model(model) and (latent.has_density(model) or latent.has_bound(model) or has(model, Energy)):
        rows += _likelihoods(ask, model, data, samples)
    else:
        skipped.append("log-likelihood: there is neither a density, nor a bound, nor an energy")
    if reason := _without_samples(model):
        return Evaluation(tuple(rows), _title(model, data), (*skipped, f"measures of samples: {reason}"))
    real = as_source(data, called)
    enough(len(real), 20, called, "data", "ten in each half")
    fake = _drawn(draw, model, len(real) if n is None else n, called)
    few = fake[:largest], real[:largest]
    for name, measure in (
        ("Frechet distance", lambda: frechet(keys[0], fake, real, feature)),
        ("KID", lambda: kid(keys[1], *few, feature)),
        ("sliced Wasserstein, squared", lambda: sliced_wasserstein(keys[2], *few, feature)),
    ):
        found, seconds = _timed(measure)
        rows.append(Measure(name, found.value, found.standard_error, found.floor, Kind.ESTIMATE, "lower", seconds))
    shares, seconds = _timed(lambda: neighbours(keys[3], *few, feature))
    rows += [
        Measure(name, share.value, share.standard_error, share.floor, Kind.ESTIMATE, "higher", seconds / 4)
        for name, share in zip(("precision", "recall", "density", "coverage"), shares[:4], strict=True)
    ]
    test, seconds = _timed(lambda: c2st(keys[4], *few, feature))
    rows.append(Measure("C2ST accuracy", test.accuracy, test.standard_error, 0.5, Kind.ESTIMATE, "lower", seconds))
    return Evaluation(tuple(rows), _title(model, real), tuple(skipped))


def _likelihoods(key: Any, model: Any, data: Any, samples: int) -> list[Measure]:
    found, seconds = _timed(lambda: score(key, model, data, samples=samples))
    name = "log-likelihood, nats per event"
    rows = [Measure(name, found.mean, found.standard_error, math.nan, found.kind, "higher", seconds)]
    shape = tuple(model.event_shape)
    if found.kind is Kind.UNNORMALISED or None in shape:
        return rows
    size = max(1, math.prod(shape))
    # an upper bound of what it costs, where the likelihood is a lower one
    kind = Kind.UPPER_BOUND if found.kind is Kind.LOWER_BOUND else found.kind
    bits = bits_per_dim(found, size)
    error = found.standard_error / (size * math.log(2))
    rows.append(Measure("bits per dimension", bits, error, math.nan, kind, "lower", 0.0))
    x = as_source(data, "metrics.evaluate(key, model, data)")
    if size == 1 and np.issubdtype(x.dtype, np.integer):
        rows.append(Measure("perplexity", perplexity(found), perplexity(found) * found.standard_error, math.nan, kind,
                            "lower", 0.0))  # fmt: skip
    return rows


def _without_samples(model: Any) -> str:
    """Why a model's samples are not measured here; nothing where they are."""
    if not is_model(model):
        return ""
    if not is_model_of_samples(model):
        return "the model cannot be sampled"
    if None in model.event_shape:
        return "events of free length have no features of one size"
    needs = algebra.context_shape(model) is not None and not algebra.context_optional(model)
    return "draw a conditional model with contexts, and pass the samples" if needs else ""


def _drawn(key: Any, model: Any, n: int, called: str) -> Any:
    """Samples, once for all measures."""
    if not is_model_of_samples(model):
        return as_source(model, called, "model")
    parts = [model.sample(jax.random.fold_in(key, i), (min(BATCH, n),)) for i in range(-(-n // BATCH))]
    return jnp.concatenate(parts)[:n]


def _timed(measure: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    return measure(), time.perf_counter() - begun


def _title(model: Any, data: Any) -> str:
    what = type(model).__name__ if is_model(model) else f"{len(model)} samples"
    return f"{what} beside {len(data) if isinstance(data, (np.ndarray, jax.Array)) else 'its'} events"
