"""The Frechet distance of features, without a matrix square root, from statistics that are additive over batches."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, FitError, ModelError, ShapeError
from jaxgen.core.inputs import floating
from jaxgen.core.methods import check_key, is_count
from jaxgen.core.pytree import fixed, model, part, static
from jaxgen.core.scores import plus_minus
from jaxgen.metrics.samples.source import (
    as_feature,
    as_source,
    blocks,
    both,
    enough,
    event_shape,
    is_model_of_samples,
    probe,
    split,
)

#: rows that are folded into a triangle at once, as a multiple of its size, and at least so many
FOLD, LEAST_ROWS = 4, 4096
#: how far two computations of the same features may be apart, in their largest value: other devices, other batches
SAME = 1e-2
#: singular values, as a share of the largest, which a square in float64 does not know, and how large a share of the sum
#: of all they may be at most to be left at that
UNKNOWN, NEGLIGIBLE = 1e-7, 1e-6


@model
class Moments:
    """Mean and scatter of feature vectors, the scatter as a factor: exact in float32 also for fewer rows than columns.

    `factor^T factor = sum_n (f_n - mean)(f_n - mean)^T`. Up to D rows the factor is the centred rows themselves, from
    there on a triangle of them and what is new, by float64, so that small variances keep their digits.

    Args:
        count: N, int32.
        mean: `[D]`.
        factor: `[min(N, D), D]`, or fewer rows than that where it is known.
    """

    count: jax.Array = fixed()
    mean: jax.Array = fixed()
    factor: jax.Array = fixed()

    @classmethod
    def of(cls, rows: Any) -> Moments:
        """Return the moments of rows `[N, D]`."""
        rows = np.asarray(rows, np.float64)
        mean = rows.mean(axis=0)
        return cls(jnp.asarray(len(rows), jnp.int32), jnp.asarray(mean, float), _reduced(rows - mean))

    @property
    def covariance(self) -> jax.Array:
        """`[D, D]`, unbiased."""
        return jnp.matmul(self.factor.T, self.factor, precision="highest") / (self.count - 1)

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows."""
        n, m = int(self.count), int(other.count)
        if n + m > np.iinfo(np.int32).max:
            raise DataError("more events than can be counted", called="moments.merge(other)",
                            expected=f"{np.iinfo(np.int32).max} or fewer", got=f"{n + m}")  # fmt: skip
        share = m / (n + m)
        mean, away, factor, more = (
            np.asarray(v, np.float64) for v in (self.mean, other.mean - self.mean, self.factor, other.factor)
        )
        rows = np.concatenate([factor, more, math.sqrt(n * share) * away[None]])
        return Moments(jnp.asarray(n + m, jnp.int32), jnp.asarray(mean + share * away, float), _reduced(rows))


@model
class FeatureMoments:
    """Statistics of features for the Frechet distance: of two random halves, with what says which features they are of.

    `jaxgen.save` and `jaxgen.load` take them. `moments` makes them, `FeatureMoments.from_values` from a mean and a
    covariance that others published.

    Args:
        parts: moments of both halves; of one set where there are no halves, and then no floor.
        probe: `[2, D]`, the features of two fixed events: others are not these features. None where not known.
        event: the shape of the events.
    """

    parts: Any = part()
    probe: Any = fixed(default=None)
    event: tuple[int, ...] = static(default=())

    @classmethod
    def from_values(cls, mean: Any, covariance: Any, count: int) -> FeatureMoments:
        """Make statistics of a mean `[D]` and an unbiased covariance `[D, D]` of so many events.

        Raises:
            ModelError: shapes that do not fit, no covariance, or a count below 2.

        Example:
            >>> FeatureMoments.from_values([0.0, 0.0], [[2.0, 1.0], [1.0, 2.0]], 100).whole.covariance.round(4).tolist()
            [[2.0, 1.0], [1.0, 2.0]]
        """
        called = "FeatureMoments.from_values(mean, covariance, count)"
        mean, covariance = np.asarray(floating(mean), np.float64), np.asarray(floating(covariance), np.float64)
        if mean.ndim != 1 or covariance.shape != 2 * mean.shape or not is_count(count, 2):
            raise ModelError("no moments", called=called, expected="[D], [D, D] and a count of 2 or more",
                             got=f"shapes {list(mean.shape)}, {list(covariance.shape)}, count {count}")  # fmt: skip
        values, vectors = np.linalg.eigh(covariance)
        if values[0] < -1e-4 * abs(values[-1]) or not np.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6):
            raise ModelError("that is no covariance", called=called, expected="symmetric, no negative variance",
                             got=f"smallest eigenvalue {values[0]:g}")  # fmt: skip
        factor = np.sqrt(np.maximum(values, 0) * (count - 1))[:, None] * vectors.T
        return cls((Moments(jnp.asarray(count, jnp.int32), jnp.asarray(mean, float), jnp.asarray(factor, float)),))

    @property
    def whole(self) -> Moments:
        """The moments of all events."""
        return functools.reduce(Moments.merge, self.parts)

    def merge(self, other: FeatureMoments) -> FeatureMoments:
        """Return the statistics of both sets of events.

        Raises:
            DataError: statistics of other features.
        """
        check_same(self, other, "moments.merge(other)")
        parts = tuple(a.merge(b) for a, b in zip(self.parts, other.parts, strict=True))
        return FeatureMoments(parts, self.probe, self.event)


class Frechet(NamedTuple):
    """The Frechet distance of two sets of features, squared as everyone prints it.

    Args:
        value: `|m_1 - m_2|^2 + tr C_1 + tr C_2 - 2 tr (C_1 C_2)^(1/2)`.
        standard_error: of it, first and second order, for features that are about normal.
        bias: how much of the value finitely many samples make, to first order in 1/N, for features that are about
            normal; `value - bias` is what infinitely many would have. Means nothing for N below D, where it is NaN.
        floor: the value of two random halves of the data; NaN for statistics without halves.
        samples, events: how many of the model and of the data.
    """

    value: float
    standard_error: float
    bias: float
    floor: float
    samples: int
    events: int

    @property
    def debiased(self) -> float:
        """The value less its bias."""
        return self.value - self.bias

    def __str__(self) -> str:
        floor = f"floor {self.floor:.4f}" if math.isfinite(self.floor) else "no floor"
        bias = f"bias {self.bias:.4f}, " if math.isfinite(self.bias) else ""
        about = f"({bias}{floor}, {self.samples} samples beside {self.events} events)"
        return f"{plus_minus(self.value, self.standard_error)} {about}"

    def __repr__(self) -> str:
        return str(self)


class Extrapolated(NamedTuple):
    """A Frechet distance as infinitely many samples would have it.

    Args:
        value: where a line through `values` over `1 / sizes` meets 0.
        standard_error: of that, by the residuals of the line.
        sizes: numbers of samples and events, of each.
        values: distances of so many.
    """

    value: float
    standard_error: float
    sizes: tuple[int, ...]
    values: tuple[float, ...]


def moments(key: Any, source: Any, feature: Any = None, *, n: int | None = None) -> FeatureMoments:
    """Return the statistics of a source's features that the Frechet distance needs; no event is kept.

    Args:
        key: typed key, for draws.
        source: a model that can be sampled, an array `[N, *event]`, or a `data.Stream`.
        feature: a function of a batch of events, a `Feature`, or None for the default of `metrics.samples`.
        n: how many draws of a model.

    Raises:
        DataError, ShapeError: no data, fewer than 4 events, or features that are not finite.
        ModelError, FitError: a model that cannot be sampled, or without n.

    Example:
        >>> found = moments(jax.random.key(0), np.random.default_rng(0).normal(size=(500, 3)))
        >>> int(found.whole.count), found.whole.covariance.shape
        (500, (3, 3))
    """
    called = "samples.moments(key, source, feature)"
    check_key(key, called)
    source = as_source(source, called, "source")
    feature = as_feature(feature, source)
    parts: list[Any] = [None, None]
    waiting: list[list[jax.Array]] = [[], []]

    def fold() -> None:
        for i, waits in enumerate(waiting):
            rows = jnp.concatenate(waits)
            waits.clear()
            if len(rows):  # the half of one event may be none
                new = Moments.of(rows)
                parts[i] = new if parts[i] is None else parts[i].merge(new)

    total = 0
    for i, rows in enumerate(blocks(key, source, feature, called, n=n, name="source")):
        order = np.random.default_rng(i).permutation(len(rows))
        half = (len(rows) + i % 2) // 2
        waiting[0].append(rows[order[:half]])
        waiting[1].append(rows[order[half:]])
        total += len(rows)
        if sum(map(len, waiting[0])) >= max(LEAST_ROWS, FOLD * rows.shape[1]):
            fold()
    enough(total, 4, called, "source", "two in each half")
    if waiting[0]:
        fold()
    known = next(blocks(jax.random.key(0), probe(feature, source), feature.function, called))
    return FeatureMoments(tuple(parts), known, event_shape(source))


def frechet(key: Any, model: Any, data: Any, feature: Any = None, *, n: int | None = None) -> Frechet:
    """Return the Frechet distance of features of samples and of data, with its bias, its error and its floor.

    `|m_1 - m_2|^2 + tr C_1 + tr C_2 - 2 |F_1 F_2^T|_*`, `F^T F = C`, the nuclear norm by its singular values

    No root of a matrix is taken. Sums are float64, on the host, and factors are kept in float32: the value is exact to
    about 1e-7 of the traces, also for fewer samples than features. With the features of an InceptionV3 it is the FID.

    Args:
        key: typed key, for draws.
        model: can be sampled; or samples `[N, *event]`, or their `moments`.
        data: `[M, *event]`, a stream, or their `moments`.
        feature: a function of a batch of events, a `Feature`, or None for the default. Statistics remember
            theirs, and refuse others.
        n: how many draws of a model; as many as there are data where not told.

    Returns:
        `Frechet`, in squared units of the features; `debiased` is comparable between numbers of samples.

    Raises:
        DataError, ShapeError: no data, fewer than 4 events, features that are not finite, or not those of the
            statistics. ModelError: a model that cannot be sampled.

    Source: Heusel et al. (2017), GANs trained by a two time-scale update rule converge to a local Nash equilibrium;
    Mathiasen and Hvilshoj (2020), Backpropagating through Frechet inception distance, for the small product.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2000, 2))
        >>> found = frechet(jax.random.key(0), x[:1000] + [1.0, 0.0], x[1000:])
        >>> abs(found.value - 1.0) < 4 * found.standard_error, found.floor < 0.02
        (True, True)
    """
    called = "samples.frechet(key, model, data)"
    first, second = split(key, called)
    real = data if isinstance(data, FeatureMoments) else moments(second, data, feature)
    fake = model
    if not isinstance(model, FeatureMoments):
        count = sum(int(half.count) for half in real.parts)
        fake = moments(first, model, feature, n=count if n is None and is_model_of_samples(model) else n)
    check_same(fake, real, called)
    a, b = fake.whole, real.whole
    value, error, bias = distance(a, b)
    floor = distance(*real.parts)[0] if len(real.parts) == 2 else math.nan
    return Frechet(value, error, bias, floor, int(a.count), int(b.count))


def extrapolated_frechet(
    key: Any, model: Any, data: Any, feature: Any = None, *, n: int | None = None, sizes: int = 8
) -> Extrapolated:  # fmt: skip
    """Return the Frechet distance that infinitely many samples would have, from a line over 1/N.

    Distances of random subsets of N / sizes, ..., N events each lie on a line in 1/N, to first order: whatever the
    features are distributed as, which `Frechet.bias` takes to be normal.

    Args:
        key: typed key, for draws and subsets.
        model, data, feature, n: as of `frechet`, without statistics: features are kept.
        sizes: how many subsets, 3 or more.

    Raises:
        FitError: fewer than 3 sizes. DataError: fewer than 4 events for each size. Others as `frechet`.

    Source: Chong and Forsyth (2020), Effectively unbiased FID and Inception score and where to find them.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(4000, 3))
        >>> found = extrapolated_frechet(jax.random.key(0), x[:2000] + [1.0, 0.0, 0.0], x[2000:])
        >>> len(found.sizes), bool(abs(found.value - 1) < 0.15)
        (8, True)
    """
    called = "samples.extrapolated_frechet(key, model, data)"
    if not is_count(sizes, 3):
        raise FitError("a line needs points", called=called, expected="sizes of 3 or more", got=str(sizes))
    draw, choose = split(key, called)
    fake, real = both(draw, model, data, feature, called, n=n, least=4 * sizes, why="4 for each size")
    counts = [min(len(fake), len(real)) * (i + 1) // sizes for i in range(sizes)]
    values = []
    for i, count in enumerate(counts):
        a, b = jax.random.split(jax.random.fold_in(choose, i))
        rows = (x[jax.random.permutation(k, len(x))[:count]] for k, x in ((a, fake), (b, real)))
        values.append(distance(*map(Moments.of, rows))[0])
    # a small subset is as much noisier as it is smaller
    inverse, weight = 1 / np.array(counts, float), np.array(counts, float)
    (slope, value), covariance = np.polyfit(inverse, values, 1, w=weight, cov=True)
    del slope
    return Extrapolated(float(value), float(np.sqrt(covariance[1, 1])), tuple(counts), tuple(values))


def distance(a: Moments, b: Moments) -> tuple[float, float, float]:
    """Return the distance of two sets of moments, its standard error and its bias, as `Frechet` has them.

    Raises:
        ShapeError: features of different size.
    """
    if a.mean.shape != b.mean.shape:
        raise ShapeError("features of different size", called="distance(a, b)", expected=f"{list(a.mean.shape)}",
                         got=f"{list(b.mean.shape)}")  # fmt: skip
    n, m = int(a.count), int(b.count)
    if len(a.factor) > len(b.factor):
        return distance(b, a)
    f, g = (np.asarray(x.factor, np.float64) / math.sqrt(int(x.count) - 1) for x in (a, b))
    away = np.asarray(a.mean, np.float64) - np.asarray(b.mean, np.float64)
    u, s, v = _singular(f @ g.T)
    # traces of C and of C^2, and how far the distance moves with either covariance: `|C - C^(1/2) W C^(1/2)|^2`, W the
    # optimal map, whose root in the coordinates of a factor is `U S U^T`
    traces = np.array([[np.sum(x * x), np.sum((x @ x.T) ** 2)] for x in (f, g)]).T
    along = np.array([np.sum((x @ away) ** 2) for x in (f, g)])
    through = np.array([np.sum(s[:, None] * (q @ x) ** 2) for x, q in ((f, u.T), (g, v))])
    slopes = np.maximum(traces[1] - 2 * through + np.sum(s**2), 0)
    # to second order in what noise does to covariances, for normal features: `E dC_ij^2 = s_i s_j (1 + [i = j]) / N`
    pairs = s[:, None] * s / np.maximum(s[:, None] + s, np.finfo(float).tiny)
    pairs *= 0.5 * (1 / n + 1 / m) * (1 + np.eye(len(s)))
    counts = np.array([n, m])
    first = np.sum((4 * along + 2 * slopes) / counts)
    means = 2 * (np.sum(traces[1] / counts**2) + 2 * np.sum(s**2) / (n * m))
    second = means + 4 * np.sum(pairs**2) - 2 * np.sum(np.diag(pairs) ** 2)
    # slopes that are themselves noise have twice the second order for a mean: it is taken off again
    error = math.sqrt(max(first - second, second))
    bias = np.sum(traces[0] / counts) + pairs.sum() if min(n, m) > a.mean.size else math.nan
    return max(float(np.sum(away**2) + traces[0].sum() - 2 * s.sum()), 0.0), error, float(bias)


def check_same(a: FeatureMoments, b: FeatureMoments, called: str) -> None:
    """Refuse statistics of different features."""
    if a.probe is None or b.probe is None:
        same = a.parts[0].mean.shape == b.parts[0].mean.shape
    else:
        same = a.event == b.event and a.probe.shape == b.probe.shape
        size = jnp.max(jnp.abs(b.probe), initial=0)
        same = same and bool(jnp.all(jnp.abs(a.probe - b.probe) <= SAME * size))
    if not same:
        raise DataError(
            "statistics of different features", called=called, expected="those that made the saved statistics",
            got=f"{a.parts[0].mean.size} features of events {list(a.event)} beside {b.parts[0].mean.size} of "
            f"{list(b.event)}" + (", which differ on two fixed events" if a.event == b.event else ""),
            fix="make both with one feature",
        )  # fmt: skip


def _reduced(rows: np.ndarray) -> jax.Array:
    """As many rows as columns at most, with the same products of columns.

    By Cholesky of these products on the host: a square in float64 has more digits than a factor in float32, and BLAS
    makes it four times faster than XLA does on a CPU, by half of the products.
    """
    if len(rows) > rows.shape[1]:
        try:
            rows = np.linalg.cholesky(rows.T @ rows).T
        except np.linalg.LinAlgError:  # columns that depend on each other
            rows = np.asarray(np.linalg.qr(rows, mode="r"))
    return jnp.asarray(rows, float)


def _singular(product: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular vectors and values `u, s, v` of a matrix that is no higher than wide.

    By eigenvectors of its square, a third of the work: values are the norms of what these make of the matrix itself,
    which no root of rounding spoils, except where the square knows no direction. Those count if they are many.
    """
    u = np.linalg.eigh(product @ product.T)[1]
    rows = u.T @ product
    s = np.sqrt(np.sum(rows**2, axis=1))
    unknown = s[s < UNKNOWN * s.max()]
    if math.sqrt(len(unknown) * np.sum(unknown**2)) > NEGLIGIBLE * s.sum():
        return np.linalg.svd(product, full_matrices=False)
    return u, s, rows / np.where(s > 0, s, 1)[:, None]
