"""The mean log-likelihood of data under any model, with the kind of number that it is, and units made from it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxgen.core import latent
from jaxgen.core.errors import DataError, FitError, ModelError
from jaxgen.core.inputs import Chunked, widened
from jaxgen.core.methods import check_key
from jaxgen.core.protocols import Annealed, Energy, Kind, Tractable, Weighted, has
from jaxgen.core.scores import Score, as_measured
from jaxgen.metrics.bridge import bracket
from jaxgen.metrics.events import by_chunks, events_of


def score(key: Any, model: Any, data: Any, *, samples: int = 1) -> Score:
    """Mean log-likelihood of data, by the strongest means that the model's protocol offers.

    `mean_n log p(x_n)`, weighted where there are weights

    | the model | the number | its kind |
    |---|---|---|
    | `Density` | `log_prob` | exact, or what the model says (`Kinded`) |
    | `Bound` | `elbo`, or `iwae` of `samples` draws where there is one | lower bound |
    | `Energy` | `-energy - log Z`, log Z enumerated | exact |
    | the same, too large to enumerate | log Z by annealing both ways, with `low` and `high` | estimate |
    | the same, without a path to anneal along | `-energy` | unnormalised |

    Args:
        key: typed key; not used where the number is exact.
        model: a `Density`, `Bound` or `Energy`.
        data: an array `[N, *event]`, `Sequences`, a tuple `(x, context, weight)` or a dict of them; or a `data.Stream`,
            which is read once through, or what `data.binarized` made, whose space is printed.
        samples: draws per event for a bound: the importance weighted bound of so many where the model has `iwae`,
            else the mean of so many draws of the bound.

    Returns:
        `Score`, nats per event, which is a whole sequence for a model of sequences; memory does not grow with N.

    Raises:
        ModelError: a model that can only be sampled. FitError: samples below 1.
        DataError, ShapeError: data that do not fit the model.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders; Neal (2001), Annealed importance
    sampling.

    Example:
        >>> import jaxgen as jg
        >>> print(score(jax.random.key(0), jg.StandardNormal((2,)), [[0.0, 0.0], [1.0, 1.0]]))
        -2.3379 ± 0.5000 nats per event (exact, 2 events)
    """
    called = f"score(key, {type(model).__name__}, data)"
    check_key(key, called)
    if samples < 1:
        raise FitError("a bound needs draws", called=called, expected="samples=1 or more", got=f"samples={samples}")
    model, (data, space) = widened(model), as_measured(data)
    number, cost, kind = _asked(model, samples, called)
    chunks = enumerate(data) if isinstance(data, Chunked) else [(None, data)]
    found = [_scored(number, key if i is None else jax.random.fold_in(key, i), model, part, cost, called)
             for i, part in chunks]  # fmt: skip
    values, weight = (np.concatenate(rows) for rows in zip(*found, strict=True))
    result = _mean(values, weight, kind)._replace(space=space)
    return result if kind is not Kind.UNNORMALISED else _normalised_energy(key, model, result)


def _asked(model: Any, samples: int, called: str) -> tuple[Callable[..., jax.Array], int, Kind]:
    """Return what a model is scored by: a number of each event, the draws that it costs, and its kind."""
    if latent.has_density(model):
        return _exact, 1, latent.likelihood_kind(model)
    if latent.has_bound(model):
        bound = functools.partial(_iwae if has(model, Weighted) and samples > 1 else _elbo, samples)
        return bound, samples, Kind.LOWER_BOUND
    if has(model, Energy):
        return _minus_energy, 1, Kind.UNNORMALISED
    raise ModelError(
        "the model has no likelihood, nor a bound, nor an energy", called=called, got=type(model).__name__,
        expected="log_prob, elbo or energy", fix="compare its samples with data: a generator has no density",
    )  # fmt: skip


def _scored(
    number: Callable[..., jax.Array], key: Any, model: Any, data: Any, cost: int, called: str
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the number of each event, and its weight, `[N]` float64 both."""
    batch = events_of(model, data, called)
    values = by_chunks(lambda key, x, context: number(key, model, x, context), key, batch, cost)
    return values, np.ones(len(values)) if batch.weight is None else np.asarray(batch.weight, np.float64)


def perplexity(nats_per_symbol: Score | float) -> float:
    """The number of equally likely symbols that would be as hard to predict: `exp(-mean log p)`.

    Args:
        nats_per_symbol: a mean log-likelihood, nats per symbol.

    Raises:
        DataError: a score that is unnormalised.

    Example:
        >>> round(perplexity(-math.log(26)), 6)
        26.0
    """
    return math.exp(-_normalised(nats_per_symbol, "perplexity(nats_per_symbol)"))


def bits_per_dim(nats: Score | float, dims: int) -> float:
    """A mean log-likelihood as bits per dimension: `-mean log p / (D log 2)`; lower is better.

    A density of data that were scaled by `s` per dimension differs from that of the raw data by `log2 s`, which is the
    caller's to add: 8 bits for pixels that were divided by 256.

    Args:
        nats: a mean log-likelihood, nats per event.
        dims: D, the number of dimensions of an event, at least 1.

    Raises:
        DataError: a score that is unnormalised, or no dimensions.

    Example:
        >>> bits_per_dim(-784 * math.log(2), 784)
        1.0
    """
    if dims < 1:
        raise DataError("no dimensions", called="bits_per_dim(nats, dims)", expected="dims of 1 or more", got=str(dims))
    return -_normalised(nats, "bits_per_dim(nats, dims)") / (dims * math.log(2))


def _normalised(value: Score | float, called: str) -> float:
    if not isinstance(value, Score):
        return float(value)
    if value.kind in (Kind.UNNORMALISED, Kind.NONE):
        raise DataError(
            "the score is not that of a normalised density", called=called, expected="exact, a bound or an estimate",
            got=str(value),
            fix="jaxgen.metrics.log_likelihood(model, x, jaxgen.metrics.bracket(key, model)) is normalised",
        )  # fmt: skip
    return value.mean


def _exact(key: Any, model: Any, x: Any, context: Any) -> jax.Array:
    return model.log_prob(x, context=context)


def _elbo(samples: int, key: Any, model: Any, x: Any, context: Any) -> jax.Array:
    # one draw after the other: memory as for one
    def add(total: Any, key: Any) -> Any:
        return total + model.elbo(key, x, context=context), None

    keys = jax.random.split(key, samples)
    total, _ = jax.lax.scan(add, model.elbo(keys[0], x, context=context), keys[1:])
    return total / samples


def _iwae(samples: int, key: Any, model: Any, x: Any, context: Any) -> jax.Array:
    return model.iwae(key, x, samples=samples, context=context)


def _mean(values: np.ndarray, weight: np.ndarray, kind: Kind) -> Score:
    # on the host in float64: a mean of many float32 numbers of one sign loses digits
    values, weight = values[weight > 0], weight[weight > 0]
    n = len(values)
    if n == 0:
        raise DataError("no event counts", called="score(key, model, data)", expected="a positive weight", got="zeros")
    mean = float(np.sum(weight * values) / np.sum(weight))
    if n == 1 or not math.isfinite(mean):
        return Score(mean, math.nan, kind, n)
    spread = np.sqrt(np.sum((weight * (values - mean)) ** 2) * n / (n - 1)) / np.sum(weight)
    return Score(mean, float(spread), kind, n)


def _normalised_energy(key: Any, model: Any, score: Score) -> Score:
    """Return the score of minus an energy less log Z, where that can be enumerated or annealed to."""
    if has(model, Tractable):
        try:
            return score._replace(mean=score.mean - float(model.log_partition()), kind=Kind.EXACT)
        except ModelError:  # too large to enumerate
            pass
    if not has(model, Annealed):
        return score
    found, mean = bracket(key, model), score.mean
    error = math.hypot(score.standard_error, found.standard_error)
    return Score(mean - found.log_z, error, found.kind, score.events, mean - found.high, mean - found.low, score.space)


def _minus_energy(key: Any, model: Any, x: Any, context: Any) -> jax.Array:
    return -model.energy(x)
