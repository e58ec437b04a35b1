"""Scores of samples alone or of kernels around them: the inception-style score, and the Parzen window."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, FitError, JaxgenWarning
from jaxgen.core.methods import is_count
from jaxgen.core.protocols import Kind
from jaxgen.core.scores import Score
from jaxgen.metrics.samples.source import (
    Estimate,
    as_classifier,
    as_source,
    blocks,
    both,
    enough,
    flat,
    is_model_of_samples,
)
from jaxgen.ops.distances import over_rows, squared_distances
from jaxgen.ops.stable import logsumexp

#: how far probabilities may be from a sum of one
SLACK = 1e-3


def inception_score(
    key: Any, model: Any, classifier: Callable[[Any], Any] | None = None, data: Any = None, *, n: int = 10_000,
    splits: int = 10,
) -> Estimate:  # fmt: skip
    """Return the inception score of any classifier: K where samples are surely of K classes, in equal shares; least 1.

    `exp E KL(p(y | x) || p(y))`, p(y) the mean of p(y | x) over samples

    It says nothing of whether samples are like data: for that, score `data` too, which is the highest to expect.

    Args:
        key: typed key, for draws.
        model: can be sampled; or samples `[N, *event]`, or a stream of them: nothing is kept.
        classifier: events `[N, *event]` -> probabilities `[N, K]`; None, of grey images 28 by 28, for those of
            `metrics.features.grey_classes`, 10 digits and 10 kinds of clothes: at most 20.
        data: events that are scored likewise, printed as the floor.
        n: how many draws of a model; of samples all count.
        splits: into how many parts samples are cut for the standard error, 2 or more.

    Raises:
        DataError, ShapeError: fewer than 2 samples for each split, no probabilities, or one class alone.
        FitError: fewer than 2 splits. ModelError: a model that cannot be sampled.

    Source: Salimans et al. (2016), Improved techniques for training GANs.

    Example:
        >>> round(inception_score(jax.random.key(0), np.repeat(np.eye(10), 20, axis=0), lambda x: x).value, 4)
        10.0
    """
    called = "samples.inception_score(key, model, classifier)"
    if not is_count(splits, 2):
        raise FitError("an error bar needs parts", called=called, expected="splits of 2 or more", got=str(splits))
    value, error, count = _inception(key, model, classifier, n, splits, called, "model")
    floor, events = math.nan, 0
    if data is not None:
        floor, _, events = _inception(key, data, classifier, n, splits, called, "data")
    return Estimate(value, error, floor, count, events)


def _inception(
    key: Any, source: Any, classifier: Any, n: int, splits: int, called: str, name: str
) -> tuple[float, float, int]:  # fmt: skip
    means: Any = 0.0
    entropies, counts = np.zeros(splits), np.zeros(splits)
    draws = n if is_model_of_samples(source) else None
    source = as_source(source, called, name)
    classifier = as_classifier(classifier, source, called)
    for rows in blocks(key, source, classifier, called, n=draws, name=name):
        low, sums = float(rows.min()), rows.sum(axis=1)
        if rows.shape[1] < 2:
            raise DataError(
                "one class alone has no score", called=called, expected="probabilities [N, K], K of 2 or more",
                got=f"shape {list(rows.shape)}",
            )  # fmt: skip
        if low < 0 or float(abs(sums - 1).max()) > SLACK:
            raise DataError(
                "the classifier does not give probabilities", called=called,
                expected="rows of 0 or more that sum to one",
                got=f"smallest {low:g}, sums from {float(sums.min()):g} to {float(sums.max()):g}",
                fix="take the softmax of logits inside of the classifier",
            )  # fmt: skip
        # every split gets of every batch: classes that come in order are in all of them
        place = (np.arange(len(rows)) + int(counts.sum())) % splits
        negative = np.asarray(jnp.sum(jax.scipy.special.xlogy(rows, rows), axis=1), np.float64)
        means = means + np.stack([np.asarray(rows, np.float64)[place == i].sum(axis=0) for i in range(splits)])
        entropies += np.bincount(place, negative, splits)
        counts += np.bincount(place, minlength=splits)
    total = int(counts.sum())
    enough(total, 2 * splits, called, name, "two in each split")

    def score(mean: Any, negative: Any, count: Any) -> Any:
        share = mean / np.expand_dims(count, -1)
        return np.exp(negative / count - np.sum(share * np.log(np.where(share > 0, share, 1)), axis=-1))

    each = score(means, entropies, counts)
    value = float(score(means.sum(axis=0), entropies.sum(), total))
    return value, float(each.std(ddof=1) / math.sqrt(splits)), total


def parzen(
    key: Any, model: Any, data: Any, *, scale: float | None = None, n: int | None = None
) -> Score:  # fmt: skip
    """Return the log-likelihood of data under normal kernels around samples, with the warning that it deserves.

    `mean_m log 1/N sum_n N(x_m; s_n, scale^2)`

    It ranks models wrongly in more than a few dimensions: a model that repeats cluster centres of the training data
    scores above the data themselves. It is here since old tables have it; where there is a likelihood or a bound,
    `jaxgen.score` has it.

    Args:
        key: typed key, for draws.
        model: can be sampled; or samples `[N, *event]`.
        data: `[M, *event]`, of 20 or more.
        scale: of the kernels, units of the data; None takes the best of 20 on a tenth of the data, which is then not
            scored.
        n: how many draws of a model; as many as there are data where not told.

    Returns:
        `Score`, an estimate, nats per event.

    Raises:
        DataError, ShapeError: too few events, no data, or no scale in them. FitError: a scale of 0 or less.

    Source: Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2000, 1))
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     found = parzen(jax.random.key(0), x[:1000], x[1000:])
        >>> bool(abs(found.mean + 1.419) < 0.1)  # of a standard normal
        True
    """
    called = "samples.parzen(key, model, data)"
    if scale is not None and not scale > 0:
        raise FitError("a kernel needs a width", called=called, expected="scale above 0", got=str(scale))
    warnings.warn(
        f"{called}: a Parzen window is no likelihood of the model, and ranks models wrongly in many dimensions; use "
        "jaxgen.score where there is a likelihood or a bound, else distances of samples", JaxgenWarning, stacklevel=2,
    )  # fmt: skip
    fake, real = both(key, model, data, flat, called, n=n, least=20)
    if scale is None:
        tenth = max(len(real) // 10, 10)
        part, real = real[:tenth], real[tenth:]
        spread = float(jnp.sqrt(jnp.mean(jnp.var(real, axis=0))))
        if not spread > 0:
            raise DataError("data that are all the same have no scale", called=called, expected="events that differ",
                            got=f"{len(real)} equal events", fix="pass scale, in units of the data")  # fmt: skip
        scales = spread * np.logspace(-2, 0.5, 20)
        scale = float(scales[np.argmax([np.mean(_windows(fake, part, s)) for s in scales])])
    values = np.asarray(_windows(fake, real, scale), np.float64)
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    return Score(float(values.mean()), error, Kind.ESTIMATE, len(values), space=f"kernels of scale {scale:.4g}")


@functools.partial(jax.jit)
def _windows(fake: Any, real: Any, scale: Any) -> jax.Array:
    constant = math.log(len(fake)) + fake.shape[1] * (0.5 * math.log(2 * math.pi) + jnp.log(scale))
    score = lambda x, index: logsumexp(-0.5 * squared_distances(x, fake) / scale**2) - constant  # noqa: E731
    return over_rows(score, real, len(real))
