"""A diagnosis of fits that ended with `Status.NON_FINITE`: the numbers at fault, found on the host afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import latent
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Energy, has
from jaxgen.fit.streaming import add_chunk, fold_pass, zero_sums

#: events that a message names
SHOWN = 5


def of_step(algorithm: Any, key: Any, state: Any, batch: Batch, events: Batch, rows: Any) -> str:
    """Names the first metric or parameter that a step made not finite, and the events that it came from.

    Args:
        algorithm: whose step failed.
        key: of that step.
        state: before it.
        batch: of that step, as the algorithm sees it.
        events: the same as they were given, to be looked at one by one.
        rows: which of all events these are; None for those of an iterator, which nobody counts.
    """
    new, metrics = jax.jit(algorithm.step)(key, state, batch)
    name, values = _numbers(key, state.model, events)
    wrong = np.flatnonzero(_wrong(values, events))
    where = "" if rows is not None else " of the last batch"
    return f"{first_wrong(metrics, new.model)}; {_told(name, values, wrong, rows, where)}"


def of_pass(algorithm: Any, key: Any, state: Any, chunks: Callable[[], Iterator[Batch]]) -> str:
    """The same of a step that is a pass over a source."""
    zero = zero_sums(algorithm, None, state.model, next(chunks()))
    sums = fold_pass(chunks(), functools.partial(add_chunk, algorithm, None, state.model), zero)
    new, metrics = jax.jit(algorithm.advance)(key, state, *sums[0])
    name, parts, masks = "", [], []
    for chunk in chunks():
        name, values = _numbers(key, state.model, chunk)
        parts.append(values)
        masks.append(_wrong(values, chunk))
    values = np.concatenate(parts)
    wrong = np.flatnonzero(np.concatenate(masks))
    return f"{first_wrong(metrics, new.model)}; {_told(name, values, wrong, np.arange(len(values)), '')}"


def first_wrong(metrics: dict[str, Any], model: Any) -> str:
    """The first metric that is not finite, or else the first parameter, by its path.

    Example:
        >>> first_wrong({"loss": np.float32(2)}, {"a": np.zeros(2), "b": np.array([0.0, np.nan])})
        "the parameter ['b'] was not finite (nan, 1 of 2 numbers)"
    """
    for name, value in metrics.items():
        if not np.isfinite(value).all():
            return f"the metric {name} was not finite ({np.asarray(value)})"
    for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]:
        values = np.asarray(leaf)
        # minus infinity is a fair parameter, as in the loop
        wrong = ~(values < np.inf) if jnp.issubdtype(values.dtype, jnp.floating) else np.zeros(values.shape, bool)
        if wrong.any():
            of = f", {wrong.sum()} of {wrong.size} numbers" if wrong.size > 1 else ""
            return f"the parameter {jax.tree_util.keystr(path).lstrip('.')} was not finite ({values[wrong][0]}{of})"
    return "a metric or a parameter was not finite, but is when the step is made again"


def _wrong(values: np.ndarray | None, events: Batch) -> np.ndarray:
    if values is None:
        return np.zeros(events.events, bool)
    return ~np.isfinite(values) & (True if events.weight is None else np.asarray(events.weight) > 0)


def _told(name: str, values: np.ndarray | None, wrong: np.ndarray, rows: Any, where: str) -> str:
    if values is None:
        return "the model gives no number for a single event"
    if not len(wrong):
        return f"no single event has a {name} that is not finite under the model before it"
    first = wrong[:SHOWN] if rows is None else rows[wrong[:SHOWN]]
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    events = f"event{'s' * (len(wrong) > 1)} {', '.join(map(str, first))}{more}{where}"
    return f"under the model before it the {name} of {events} is {values[wrong[0]]}"


def _numbers(key: Any, model: Any, events: Batch) -> tuple[str, Any]:
    """The name and the values `[N]` of what the model says of single events; None where it says nothing."""
    x, context = jax.tree.map(jnp.asarray, events.x), {}
    if events.context is not None:
        context = {"context": jnp.asarray(events.context)}
    if latent.has_density(model):
        return "log_prob", np.asarray(model.log_prob(x, **context))
    if latent.has_bound(model):
        return "elbo", np.asarray(model.elbo(key, x, **context))
    if has(model, Energy):
        return "energy", np.asarray(model.energy(x))
    return "", None
