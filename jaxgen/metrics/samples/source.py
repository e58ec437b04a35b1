"""Samples as a measure takes them: features of events, of a model's draws, of arrays or of streams, in batches."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import DataError, FitError, ModelError, ShapeError
from jaxgen.core.inputs import Batch, Chunked, as_array, as_batch, widened
from jaxgen.core.methods import check_key, is_count
from jaxgen.core.protocols import Implicit, has
from jaxgen.core.scores import Measured, plus_minus
from jaxgen.core.tables import Frame, Table
from jaxgen.core.value import ByValue, algorithm
from jaxgen.metrics.features import grey_classes, grey_features
from jaxgen.ops.scales import EXTENT
from jaxgen.ops.scaling import units

#: events whose features are found at once
BATCH = 1024
#: events that are taken for grey images, which have features of their own
GREY = ((28, 28), (28, 28, 1))


class Estimate(NamedTuple):
    """A measure of samples beside data, with its error bar and its floor.

    Args:
        value: the measure.
        standard_error: of it, over samples; NaN where none is known.
        floor: the same measure of one random half of the data beside the other: what no model can be told apart by;
            NaN where there is none.
        samples, events: how many of the model and of the data.

    Example:
        >>> print(Estimate(0.5, 0.01, 0.08, 1000, 2000))
        0.5000 ± 0.0100 (floor 0.0800, 1000 samples beside 2000 events)
    """

    value: float
    standard_error: float
    floor: float
    samples: int
    events: int

    def __str__(self) -> str:
        floor = f"floor {self.floor:.4f}, " if math.isfinite(self.floor) else ""
        about = f"({floor}{self.samples} samples beside {self.events} events)"
        return f"{plus_minus(self.value, self.standard_error)} {about}"

    def __repr__(self) -> str:
        return str(self)


@algorithm
class Feature:
    """A function of a batch of events that says which numbers it takes: others are refused, not measured.

    Args:
        function: events `[N, *event]` -> features `[N, ...]`, flattened.
        low, high: the range of the numbers in an event.

    Example:
        >>> grey = Feature(lambda x: x.mean((1, 2)), 0.0, 1.0)
        >>> grey(jnp.ones((3, 2, 2))).shape
        (3,)
    """

    function: Callable[[Any], Any]
    low: float = -math.inf
    high: float = math.inf

    def __call__(self, x: Any) -> Any:
        return self.function(x)


def flat(x: Any) -> jax.Array:
    """The events themselves as vectors: the feature where none is given.

    Example:
        >>> flat(jnp.ones((3, 2, 2))).shape
        (3, 4)
    """
    return jnp.reshape(x, (len(x), -1))


@algorithm
class _OfImages:
    """The package's classifier, of grey images with an axis of one channel or without."""

    network: Callable[..., Any]
    white: float

    def __call__(self, x: Any) -> Any:
        return self.network(jnp.reshape(x, (len(x), 28, 28)), white=self.white)


def as_feature(feature: Any, source: Any, network: Callable[..., Any] = grey_features) -> Feature:
    """Return a feature: itself, what any function makes of events, or the default one.

    By default grey images 28 by 28 are what the package's classifier makes of them, `metrics.features`: black 0 and
    white 1, or 255 of whole numbers that pass 1. Other events are vectors.

    Args:
        feature: a function of a batch of events, a `Feature`, or None for the default.
        source: what `as_source` gave.
        network: `grey_features`, or `grey_classes`.

    Example:
        >>> as_feature(None, np.full((5, 28, 28), 9)).high, as_feature(None, np.zeros((5, 3))).function is flat
        (255, True)
    """
    if isinstance(feature, Feature):
        return feature
    if feature is None and event_shape(source) in GREY:
        x = _first(source)
        white = 255 if np.issubdtype(x.dtype, np.integer) and x.max(initial=0) > 1 else 1
        return Feature(_OfImages(network, white), 0, white)
    return Feature(flat if feature is None else feature)


def as_classifier(classifier: Any, source: Any, called: str) -> Feature:
    """Return probabilities of classes as a feature: by default, of grey images, those of the package's classifier.

    Raises:
        DataError: events of which none is known.

    Example:
        >>> as_classifier(None, np.zeros((5, 28, 28)), "score")(jnp.zeros((5, 28, 28))).shape
        (5, 20)
    """
    if classifier is None and event_shape(source) not in GREY:
        raise DataError(
            "no classifier of such events is known", called=called, expected="grey images [N, 28, 28], or classifier",
            got=f"events of shape {list(event_shape(source))}", fix="pass classifier, events -> probabilities",
        )  # fmt: skip
    return as_feature(classifier, source, grey_classes)


def blocks(key: Any, source: Any, feature: Any, called: str, *, n: int | None = None, name: str = "data",
           batch: int = BATCH) -> Iterator[jax.Array]:  # fmt: skip
    """Yield features of a source, a batch after the other, each event once.

    Args:
        key: typed key, for a model's draws.
        source: an `Implicit` model; an array `[N, *event]`, or a tuple or dict with one; a stream. Weights are 0 or 1.
        feature: a function of events, a `Feature`, or None for the default of `as_feature`.
        called: what the user called, for errors.
        n: how many draws of a model; of an array at most so many of its events; None for all.
        name: what to call the source in errors.
        batch: events at once.

    Yields:
        `[up to batch, F]`, floating.

    Raises:
        DataError, ShapeError: what is no data, has other weights, is outside of the feature's range, or has features
            that are not finite.
        ModelError: a model that cannot be sampled. FitError: a model without a number of draws.
    """
    check_key(key, called)
    source = as_source(source, called, name)
    feature = as_feature(feature, source)
    for x, fresh in _batches(key, source, n, called, name, batch):
        found, *told = _features(ByValue(feature), x)
        low, high, largest = map(float, jax.device_get(told))
        if not (feature.low <= low and high <= feature.high):
            raise DataError(
                f"{name}: numbers outside of the range that the feature takes", called=called,
                expected=f"from {feature.low} to {feature.high}", got=f"from {low:g} to {high:g}",
                fix="divide pixels or clip draws, or pass another feature, such as samples.flat",
            )  # fmt: skip
        if found.ndim != 2 or len(found) != len(x):
            raise ShapeError(
                "the feature does not give a row for each event", called=called, expected=f"[{len(x)}, ...]",
                got=f"shape {list(found.shape)}",
            )  # fmt: skip
        if not math.isfinite(largest):
            raise DataError(f"{name}: features that are not finite", called=called, expected="finite numbers",
                            got="NaN or infinity", fix="check the events, then the feature")  # fmt: skip
        limit = float(jnp.finfo(found.dtype).max) ** EXTENT
        if largest > limit:
            raise DataError(f"{name}: features whose squares are no numbers", called=called, got=f"{largest:g}",
                            expected=f"up to {limit:.0e}", fix="other units of the events")  # fmt: skip
        yield found[:fresh]


def features(key: Any, source: Any, feature: Any, called: str, *, n: int | None = None, name: str = "data",
             least: int = 1, why: str = "") -> jax.Array:  # fmt: skip
    """Return the features of all events of a source, `[N, F]`; arguments as `blocks`.

    Raises:
        DataError: fewer events than `least`, which the measure needs because of `why`.
    """
    found = jnp.concatenate(list(blocks(key, source, feature, called, n=n, name=name)))
    enough(len(found), least, called, name, why)
    return found


def both(key: Any, model: Any, data: Any, feature: Any, called: str, *, n: int | None, least: int, why: str = "",
         ) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Return features of a model's draws, or of samples, and of data: `[N, F]` and `[M, F]`, N = M where not told."""
    first, second = split(key, called)
    real = features(second, data, feature, called, least=least, why=why)
    wanted = len(real) if n is None and is_model_of_samples(model) else n
    fake = features(first, model, feature, called, n=wanted, name="model", least=least, why=why)
    if fake.shape[1] != real.shape[1]:
        raise ShapeError(
            "samples and data have different features", called=called, expected=f"{real.shape[1]} of each, as the data",
            got=f"{fake.shape[1]} of each sample",
        )  # fmt: skip
    return fake, real


def halves(x: Any) -> tuple[Any, Any]:
    """Cut rows into two random halves, of equal size, always the same ones."""
    order = np.random.default_rng(0).permutation(len(x))
    half = len(x) // 2
    return x[order[:half]], x[order[half : 2 * half]]


def standardized(reference: jax.Array, *sets: jax.Array) -> list[jax.Array]:
    """Return sets of rows in units of a reference's columns: less its mean, over its unbiased standard deviation."""
    center, scale = units(reference)
    scale = scale * math.sqrt(len(reference) / (len(reference) - 1))
    return [(rows - center) / scale for rows in sets]


def split(key: Any, called: str) -> tuple[Any, Any]:
    """Check a key and make two of it."""
    check_key(key, called)
    first, second = jax.random.split(key)
    return first, second


def enough(n: int, least: int, called: str, name: str, why: str = "") -> None:
    """Refuse fewer events than a measure needs."""
    if n < least:
        raise DataError(
            f"{name}: too few for this measure", called=called,
            expected=f"{least} or more{f', {why}' if why else ''}", got=f"{n}",
        )  # fmt: skip


def is_model_of_samples(source: Any) -> bool:
    """True for a model that can be sampled, False for arrays."""
    return not isinstance(source, (np.ndarray, jax.Array)) and has(source, Implicit)


@functools.partial(jax.jit, static_argnums=0)
def _features(feature: Any, x: Any) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Features, with the least and the largest number of the events, and the size of the largest feature."""
    found = jnp.asarray(feature(x))
    if not jnp.issubdtype(found.dtype, jnp.floating):
        found = found.astype(jnp.result_type(float))
    rows = found.ndim > 0 and len(found) == len(x)
    found = widened(found).reshape(len(x), -1) if rows else found
    return found, jnp.min(x), jnp.max(x), jnp.max(jnp.abs(found), initial=0)


def as_source(source: Any, called: str, name: str = "data") -> Any:
    """Return a source as it is read: a model that can be sampled, a stream, or a checked array of events."""
    if isinstance(source, Measured):
        source = source.x
    if is_model_of_samples(source) or isinstance(source, Chunked):
        return source
    if isinstance(source, (dict, tuple)):
        batch = as_batch(source, name=name, called=called)
        source = _counted(batch, name, called)
    if not isinstance(source, (np.ndarray, jax.Array, list, Table, Frame)):
        raise ModelError(
            f"{name}: neither a model that can be sampled nor an array of events", called=called,
            expected="sample(key, shape), or [N, *event]", got=type(source).__name__,
        )  # fmt: skip
    return _events(source, name, called)


def event_shape(source: Any) -> tuple[int, ...]:
    """Return the shape of one event of what `as_source` gave."""
    if is_model_of_samples(source):
        return tuple(source.event_shape)
    return tuple(np.shape(source.head(1).x if isinstance(source, Chunked) else source)[1:])


def probe(feature: Feature, source: Any) -> Any:
    """Return two fixed events of the range that the feature takes, from 0 to 1 where it takes any, `[2, *event]`.

    Whole where the source's events are, but for images, of which bits and greys are one thing.

    Example:
        >>> probe(Feature(flat, 0, 9), np.zeros((4, 3), int)).dtype.kind
        'i'
    """
    low, high = (feature.low, feature.high) if math.isfinite(feature.high - feature.low) else (0.0, 1.0)
    shape = [1 if axis is None else axis for axis in event_shape(source)]
    x = low + (high - low) * np.random.default_rng(0).random((2, *shape), np.float32)
    dtype = _first(source).dtype
    whole = dtype.kind in "iub" and not isinstance(feature.function, _OfImages)
    return np.rint(x).astype(dtype) if whole else x


def _first(source: Any) -> np.ndarray:
    """Events of what `as_source` gave: all of an array, some of a stream, none of a model."""
    if is_model_of_samples(source):
        like = jax.eval_shape(lambda key: source.sample(key, (2,)), jax.random.key(0))
        return np.zeros((0,), like.dtype)
    return np.asarray(source.head(BATCH).x if isinstance(source, Chunked) else source)


def _batches(key: Any, source: Any, n: int | None, called: str, name: str, batch: int) -> Iterator[tuple[Any, int]]:
    """Batches of equal size, and how many rows of each are to be counted."""
    if n is not None and not is_count(n, 1):
        raise FitError("samples need a number", called=called, expected="n of 1 or more", got=str(n))
    if is_model_of_samples(source):
        yield from _draws(key, source, n, called, batch)
    elif isinstance(source, Chunked):
        for part in source:
            rows = _events(_counted(part, name, called), name, called)
            yield from _rows(rows, len(rows), batch)
    else:
        yield from _rows(source, len(source) if n is None else min(n, len(source)), batch)


def _counted(batch: Batch, name: str, called: str) -> Any:
    """Events of weight 1, without those of weight 0, which fill up the last chunk of a stream."""
    if batch.weight is None:
        return batch.x
    weight = np.asarray(batch.weight)
    if not np.isin(weight, (0, 1)).all():
        raise DataError(
            f"{name}: measures of samples count every event once", called=called, expected="weights of 0 and 1",
            got=f"weights from {weight.min():g} to {weight.max():g}", fix="draw events in proportion to their weights",
        )  # fmt: skip
    return batch.x[weight > 0]


def _events(x: Any, name: str, called: str) -> Any:
    x = as_array(x, name=name, called=called)
    if x.ndim == 0:
        raise ShapeError(f"{name}: one number is no batch of events", called=called, expected="[N, *event]", got="[]")
    return x


def _rows(x: Any, n: int, batch: int) -> Iterator[tuple[Any, int]]:
    for start in range(0, n, batch):
        rows = x[start : min(start + batch, n)]
        # the last batch is filled up with its first event: one compiled program for all
        short = min(batch, n) - len(rows)
        filled = rows if short == 0 else np.concatenate([rows, np.repeat(rows[:1], short, axis=0)])
        yield jnp.asarray(filled), len(rows)


def _draws(key: Any, model: Any, n: int | None, called: str, batch: int) -> Iterator[tuple[Any, int]]:
    if n is None:
        raise FitError("how many samples of the model?", called=called, expected="n", got="None",
                       fix="pass n, how many to draw")  # fmt: skip
    if algebra.context_shape(model) is not None and not algebra.context_optional(model):
        raise ModelError(
            "a conditional model draws nothing without a context", called=called, expected="samples, as an array",
            got=type(model).__name__, fix="draw them with contexts, and pass what was drawn",
        )  # fmt: skip
    size = min(batch, n)
    for i, start in enumerate(range(0, n, size)):
        yield model.sample(jax.random.fold_in(key, i), (size,)), min(size, n - start)
