"""`plan`: everything that was asked of `fit`, looked at once before the first step."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.algorithms import Evaluated
from jaxgen.core.errors import FitError, JaxgenWarning
from jaxgen.core.inputs import Chunked, concrete, widened
from jaxgen.core.protocols import Energy, Stepped, Trained, has
from jaxgen.core.pytree import is_model
from jaxgen.fit.checks import check_algorithm, check_counts, for_steps, no_data
from jaxgen.fit.contrastive import ContrastiveDivergence
from jaxgen.fit.em import EM
from jaxgen.fit.feeds import Arrays, Batches, Feed, Held, Passes
from jaxgen.fit.gate import Gate
from jaxgen.fit.gradient import Gradient
from jaxgen.fit.loop import STARTS
from jaxgen.fit.mesh import Shards
from jaxgen.losses import negative_elbo, own

#: validations in a fit where nobody says how many
LOOKS = 50
#: bytes of a memory map that are no longer read without a word
LARGE_MAP = 2**28


@dataclass(frozen=True)
class Plan:
    """A fit that can be made.

    Args:
        key: of the fit.
        model: the start, or with restarts a batch of them.
        algorithm: chosen, where none was given, and for that number of steps.
        feed: the data.
        held: validation data, or None.
        steps: how many at most.
        tolerance: zero where no change of the metric ends the fit.
        every: steps between validations, and between the calls of watchers that do not say how often.
        patience: validations without a better one, or None.
        restarts: how many, or None.
    """

    key: Any
    model: Any
    algorithm: Any
    feed: Feed
    held: Held | None
    steps: int
    tolerance: float
    every: int
    patience: int | None
    restarts: int | None


def plan(
    key: Any, model: Any, data: Any, algorithm: Any, *, steps: Any, batch_size: Any, tolerance: Any, validation: Any,
    patience: Any, every: Any, restarts: Any, checkpoint_every: Any, watched: bool, shards: Shards,
) -> Plan:  # fmt: skip
    """Check all that was asked, and open the data.

    Raises:
        FitError: options that do not go together. DataError, ShapeError: data that do not fit the model.
    """
    check_counts("fit(...)", {"batch_size": batch_size, "patience": patience, "every": every, "restarts": restarts,
                              "checkpoint_every": checkpoint_every})  # fmt: skip
    check_counts("fit(...)", {"steps": steps}, least=0)
    model = widened(_starts(key, model, restarts))
    if not concrete(key, model, None if isinstance(data, Iterator) else data):
        raise FitError(
            "fit runs on the host, not inside jit, vmap or grad", called="fit(key, model, data)",
            expected="arrays", got="traced values", fix="jaxgen.scan_fit(key, model, data, algorithm, steps=100)",
        )  # fmt: skip
    one = algebra.element(model) if restarts else model
    algorithm = choose_algorithm(one) if algorithm is None else algorithm
    check_algorithm(algorithm, "fit(key, model, data, algorithm)")
    data = no_data(algorithm, one, "fit(key, model, None)") if data is None else data
    _warn_of_maps(data)
    gate = Gate(one, algorithm)
    passes = isinstance(data, Chunked) and algorithm.traits.summed
    kind = Passes if passes else Batches if isinstance(data, (Chunked, Iterator)) else Arrays
    feed: Feed = kind(data, gate, batch_size, shards)
    held = None if validation is None else Held(validation, gate, shards)
    if (patience is not None and held is None) or (every is not None and held is None and not watched):
        raise FitError("patience and every need something to watch", called="fit(...)", expected="validation=data",
                       got="none")  # fmt: skip
    if (held is not None or restarts) and not isinstance(algorithm, Evaluated):
        raise FitError(
            f"{type(algorithm).__name__} has no score to choose by", called="fit(...)", got=str(algorithm),
            expected="an algorithm with evaluate", fix="leave validation and restarts out",
        )  # fmt: skip
    steps = _number_of_steps(steps, algorithm)
    algorithm = for_steps(algorithm, steps)
    if shards.mesh is not None:
        key, model = shards.everywhere((key, model))
    return Plan(key, model, algorithm, feed, held, steps, _tolerance(tolerance, feed, algorithm),
                every or max(feed.epoch, -(-steps // LOOKS)), patience, restarts)  # fmt: skip


def _warn_of_maps(data: Any) -> None:
    """Says that a file which is mapped is about to be read as a whole."""
    parts = data if isinstance(data, tuple) else data.values() if isinstance(data, dict) else (data,)
    size = sum(part.nbytes for part in parts if isinstance(part, np.memmap))
    if size >= LARGE_MAP:
        warnings.warn(
            f"fit reads all {size / 1e9:.1f} GB of a memory map; jaxgen.data.Stream(data) is read in chunks",
            JaxgenWarning, stacklevel=4,
        )  # fmt: skip


def _number_of_steps(steps: Any, algorithm: Any) -> int:
    steps = algorithm.traits.steps if steps is None else steps
    if steps is None:
        raise FitError(f"{type(algorithm).__name__} has no default number of steps", called="fit(...)",
                       expected="steps=", got="none")  # fmt: skip
    check_counts(f"fit(key, model, data, {type(algorithm).__name__}(...))", {"steps": steps}, least=0)
    return int(steps)


def _tolerance(tolerance: Any, feed: Feed, algorithm: Any) -> float:
    if tolerance is None:
        return (algorithm.traits.tolerance or 0.0) if feed.whole else 0.0
    if not (isinstance(tolerance, (int, float, np.floating)) and tolerance >= 0):
        raise FitError("tolerance must be a number", called="fit(...)", expected="0 or more, in nats per event",
                       got=repr(tolerance))  # fmt: skip
    if not feed.whole:
        raise FitError(
            "a tolerance needs all events in every step", called="fit(...)", expected="batch_size=None",
            got=str(feed.batch_size), fix="validation data and patience end a training on batches",
        )  # fmt: skip
    return float(tolerance)


def _starts(key: Any, model: Any, restarts: int | None) -> Any:
    if not is_model(model) and callable(model):
        key = jax.random.fold_in(key, STARTS)
        model = jax.vmap(model)(jax.random.split(key, restarts)) if restarts else model(key)
    elif restarts is not None:
        raise FitError(
            "restarts need a start each", called=f"fit(..., restarts={restarts})",
            expected="a function key -> model", got=type(model).__name__,
            fix="jaxgen.fit(key, lambda key: jaxgen.Mixture.init(key, x, 2, jaxgen.Gaussian.init), x, restarts=4)",
        )  # fmt: skip
    if not is_model(model):
        raise FitError(
            "that is no model", called="fit(key, model, data)", expected="an @model instance, second of three",
            got=type(model).__name__,
        )  # fmt: skip
    return model


def choose_algorithm(model: Any) -> Any:
    """The algorithm of a model's protocol: the gradient of its own loss where it names one, EM where all parts have it,
    else the gradient of the log-likelihood or of its bound, else contrastive divergence.

    Raises:
        FitError: nothing but `sample` to go by.
    """
    if has(model, Trained) or has(model, Stepped):
        return Gradient(own)
    if latent.supports_em(model):
        return EM()
    if latent.has_density(model):
        return Gradient()
    if latent.has_bound(model):
        return Gradient(negative_elbo)
    if has(model, Energy):
        return ContrastiveDivergence()
    raise FitError(
        "no default algorithm for this model", called=f"fit(key, {type(model).__name__}, data)",
        expected="a Latent, Density, Bound or Energy model, or one with a loss", got=str(model)[:200],
        fix="jaxgen.fit(key, model, data, jaxgen.Adversarial(critic)) for a generator",
    )  # fmt: skip
