"""The commands: each is a few lines of the library."""

from __future__ import annotations

import argparse
from typing import Any

import jax
import numpy as np

from jaxgen.cli import rows
from jaxgen.cli.families import FAMILIES, Family
from jaxgen.cli.picture import draw
from jaxgen.core import latent
from jaxgen.core.errors import FitError
from jaxgen.core.files import load, load_schema, save
from jaxgen.core.scores import plus_minus
from jaxgen.core.sequences import Sequences
from jaxgen.core.tables import Schema, Table
from jaxgen.fit.driver import fit
from jaxgen.fit.loop import Status
from jaxgen.metrics.likelihood import score
from jaxgen.selection.search import select
from jaxgen.tasks.anomalies import anomaly
from jaxgen.tasks.detection import detector
from jaxgen.tour import tour


def run_tour(options: argparse.Namespace) -> int:
    """Fits and draws everything."""
    result = tour(options.out, quick=options.quick)
    print(f"\n{result.seconds:.0f} s in all; pictures in {result.page}")
    return 1 if result.failed else 0


def run_fit(options: argparse.Namespace) -> int:
    """Fits a model, or several of which BIC chooses, and saves it."""
    rows.check_places("fit", options.out, options.plot)
    for flag, count in (("restarts", options.restarts), ("steps", options.steps)):
        if count is not None and count < 1:
            raise FitError(f"not a number of {flag}", called=f"fit --{flag}", expected="1 or more", got=str(count))
    start, split, train = jax.random.split(jax.random.key(options.seed), 3)
    family = FAMILIES[options.family]
    if options.group and family.init is None:
        raise FitError("only series have groups", called=f"fit {options.family} --group", expected="fit hmm --group",
                       got=options.family, fix="leave the option out")  # fmt: skip
    table = rows.read_rows(options.data, options)
    schema = table.schema if isinstance(table, Table) else None
    x: Any = table if family.mixed and schema is not None else rows.numbers_of(table, options.family)
    held_out: Any = None
    if family.init is not None:
        if options.validation_fraction:
            raise FitError("series have nothing to hold out", called="fit hmm --validation-fraction",
                           expected="no such option", got=str(options.validation_fraction))  # fmt: skip
        x = rows.in_series(x, options.group)
        schema = x.x.schema if isinstance(x, Sequences) else schema
    else:
        x, held_out = _split(split, x, options.validation_fraction)
    if family.leaf is None or (schema is not None and not _is_mixed(family, x)):
        schema = schema and rows.numeric(schema)
    ks = options.components or [family.default]
    model, status = _chosen(start, x, ks, family, options) if len(ks) > 1 else _fitted(
        start, train, x, held_out, ks[0], family, options
    )  # fmt: skip
    save(model, options.out, schema=schema)
    for name, part in (("training", x), ("held out", held_out)):
        if part is not None:
            print(f"{name}: {_scored(split, model, part, 1)}")
    if options.plot:
        draw(options.plot, split, model, x, schema)
        print(f"drawn: {options.plot}")
    return 1 if status == Status.NON_FINITE else 0


def _is_mixed(family: Family, x: Any) -> bool:
    """True of a model that takes columns by their kinds."""
    data = x.x if isinstance(x, Sequences) else x
    return family.mixed and isinstance(data, Table)


def _fitted(start: Any, train: Any, x: Any, held_out: Any, k: int, family: Family, options: Any) -> tuple[Any, Status]:
    """One fit, of the best of several starts where so many are asked for."""
    model, algorithm = family.make(start, x, k)
    many = options.restarts is not None and options.restarts > 1
    begin = (lambda key: family.make(key, x, k)[0]) if many else model
    fitted = fit(train, begin, x, algorithm, steps=options.steps, validation=held_out,
                 restarts=options.restarts if many else None)  # fmt: skip
    print(repr(fitted))
    why = fitted.failure or fitted.status.message
    print(f"{why}; compiled in {fitted.compile_seconds:.1f} s, fitted in {fitted.seconds:.1f} s")
    return fitted.model, fitted.status


def _chosen(key: Any, x: Any, ks: list[int], family: Family, options: Any) -> tuple[Any, Status]:
    """The fit that BIC chooses among several numbers of components."""
    if family.leaf is None or options.validation_fraction:
        called = f"fit {options.family} -k"
        raise FitError("BIC does not choose here", called=called, expected="one number", got=", ".join(map(str, ks)),
                       fix="mixture, gaussian-mixture and hmm are chosen, of all rows")  # fmt: skip
    found = select(key, x, ks, {options.family: family.leaf(x)}, family=family.init,
                   restarts=4 if options.restarts is None else options.restarts,
                   steps=1000 if options.steps is None else options.steps)  # fmt: skip
    print(found)
    best = found.best("bic")
    return best.model, best.status


def run_score(options: argparse.Namespace) -> int:
    """Prints the likelihood of a file."""
    model = load(options.model)
    schema: Schema | None = load_schema(options.model) or latent.schema(model)
    x = rows.as_events(model, rows.read_rows(options.data, options, schema), schema, options.group)
    print(_scored(jax.random.key(options.seed), model, x, options.samples))
    return 0


def _scored(key: Any, model: Any, x: Any, samples: int) -> str:
    """The likelihood of rows, for each of them; of series, for each of their steps."""
    found = score(key, model, x, samples=samples)
    if None not in model.event_shape:
        return str(found)
    n, longest = np.shape(x)[:2]
    length = np.asarray(x.length, np.float64) if isinstance(x, Sequences) else np.full(n, float(longest))
    steps, mean, error = length.sum(), found.mean * n / length.sum(), float("nan")
    if n > 1 and latent.has_density(model):  # of a ratio of sums over series
        rest = np.asarray(model.log_prob(x), np.float64) - mean * length
        error = float(np.sqrt(n / (n - 1) * np.sum(rest**2)) / steps)
    return f"{plus_minus(mean, error)} nats per step ({found.kind}, {n} series of {int(steps)} steps)"


def run_sample(options: argparse.Namespace) -> int:
    """Draws rows, with the columns of the table that the model was fitted to."""
    rows.check_places("sample", options.out)
    model = load(options.model)
    if options.n < 1:
        raise FitError("not a number of rows", called="sample -n", expected="1 or more", got=str(options.n))
    drawn = rows.drawn(jax.random.key(options.seed), model, options.n)
    rows.write_rows(options.out, drawn, load_schema(options.model) or latent.schema(model))
    return 0


def run_anomaly(options: argparse.Namespace) -> int:
    """Says which rows of a file are none of the kind of those in another."""
    rows.check_places("anomaly", options.out)
    split, train, judge = jax.random.split(jax.random.key(options.seed), 3)
    if options.model:
        model = load(options.model)
        schema: Schema | None = load_schema(options.model) or latent.schema(model)
        reference, x = (
            rows.as_events(model, rows.read_rows(path, options, schema), schema, options.group, "anomaly")
            for path in (options.reference, options.data)
        )
    else:
        normal = rows.read_rows(options.reference, options)
        schema = normal.schema if isinstance(normal, Table) else None
        x = rows.read_rows(options.data, options, schema)
        x = rows.like(schema, x) if schema is not None and isinstance(x, Table) else x
        seen, reference = _split(split, normal, 0.5)
        model = detector(train, seen)
    found = anomaly(judge, model, x, reference=reference, level=options.level)
    print(found)
    if options.out:
        columns = {"score": found.scores, "p_value": found.p_values, "anomaly": found.rejected.astype(int)}
        rows.write_columns(options.out, columns)
    return 0


def run_select(options: argparse.Namespace) -> int:
    """Prints the criteria of mixtures of several sizes, and of several kinds where all columns are numbers."""
    table = rows.read_rows(options.data, options)
    print(select(jax.random.key(options.seed), table, options.components, restarts=options.restarts, progress=False))
    return 0


def _split(key: Any, x: Any, fraction: float) -> tuple[Any, Any]:
    """Rows to train on, and rows held out at random."""
    held = round(fraction * len(x))
    if not 0 <= fraction < 1 or (fraction > 0 and not 0 < held < len(x)):
        raise FitError("no such share of the rows", called="fit --validation-fraction", expected="0 to below 1",
                       got=f"{fraction} of {len(x)} rows")  # fmt: skip
    if held == 0:
        return x, None
    order = np.asarray(jax.random.permutation(key, len(x)))
    kept, out = np.sort(order[held:]), np.sort(order[:held])
    return jax.tree.map(lambda values: values[kept], x), jax.tree.map(lambda values: values[out], x)
