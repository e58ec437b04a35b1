"""The classifier two-sample test: how well a network tells samples from data that it did not see."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.core.errors import FitError
from jaxgen.core.methods import is_count
from jaxgen.metrics.samples.source import both, split, standardized

#: the network's training, as scikit-learn's `MLPClassifier` has it
RATE, BATCH, PENALTY, TOLERANCE, PATIENCE = 1e-3, 200, 1e-4, 1e-4, 10
#: permutations of labels for the p-value
PERMUTATIONS = 10_000


class C2ST(NamedTuple):
    """The result of a classifier two-sample test.

    Args:
        accuracy: share of samples and data that were told apart by a network which did not see them, the mean over
            folds: 1/2 where nothing tells them apart, 1 where all does.
        standard_error: of it, over what was classified.
        auc: how often a sample scores above an event, the mean over folds: finds what the accuracy's threshold hides.
        p_value: how often labels in another order are told apart as well.
        folds: the accuracy of each fold.
        epochs: passes that the longest training took.
        samples: of the model, and as many of the data.
    """

    accuracy: float
    standard_error: float
    auc: float
    p_value: float
    folds: tuple[float, ...]
    epochs: int
    samples: int

    def __str__(self) -> str:
        return (
            f"{self.accuracy:.4f} ± {self.standard_error:.4f} (chance 0.5, AUC {self.auc:.4f}, p = {self.p_value:.4f}, "
            f"{self.samples} samples beside {self.samples} events)"
        )

    def __repr__(self) -> str:
        return str(self)


def c2st(
    key: Any, model: Any, data: Any, feature: Any = None, *, n: int | None = None, folds: int = 5, epochs: int = 1000,
    z_score: bool = True,
) -> C2ST:  # fmt: skip
    """Return the accuracy at which a network tells samples from data, by cross-validation, as sbibm defines it.

    A network of two hidden layers of 10 d rectified units is trained on four fifths of both (Adam, batches of 200, a
    penalty of 1e-4, until the loss has not fallen by 1e-4 for ten epochs) and asked for the last fifth, in turns.
    This is scikit-learn's `MLPClassifier` in one compiled program.

    Args:
        key: typed key, for draws, starts, folds and batches.
        model: can be sampled; or samples `[N, *event]`.
        data: `[M, *event]`, a stream, or reference samples: sbibm's first argument, by which both are standardized.
            The larger of both is cut to the size of the smaller.
        feature: a function of a batch of events, a `Feature`, or None for the default of `metrics.samples`.
        n: how many draws of a model; as many as there are data where not told.
        folds: 2 or more. epochs: at most so many. z_score: whether both are standardized.

    Returns:
        `C2ST`. The p-value takes the network of each fold as given.

    Raises:
        DataError, ShapeError: fewer than two of each for every fold, no data, features that are not finite.
        FitError: folds or epochs below the least. ModelError: a model that cannot be sampled.

    Source: Lopez-Paz and Oquab (2017), Revisiting classifier two-sample tests; Lueckmann et al. (2021), Benchmarking
    simulation-based inference.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(600, 2))
        >>> found = c2st(jax.random.key(0), x[:300] + [1.0, 0.0], x[300:])
        >>> 0.62 < found.accuracy < 0.76, found.p_value < 0.01  # the best possible is .691
        (True, True)
    """
    called = "samples.c2st(key, model, data)"
    if not (is_count(folds, 2) and is_count(epochs, 1)):
        raise FitError("no cross-validation", called=called, expected="folds of 2 or more, epochs of 1 or more",
                       got=f"folds={folds}, epochs={epochs}")  # fmt: skip
    draw, rest = split(key, called)
    cut, fold, train = jax.random.split(rest, 3)
    fake, real = both(draw, model, data, feature, called, n=n, least=2 * folds, why=f"two for each of {folds} folds")
    each = min(len(fake), len(real))
    fake, real = (x if len(x) == each else x[jax.random.permutation(cut, len(x))[:each]] for x in (fake, real))
    x = jnp.concatenate([real, fake])
    if z_score:
        (x,) = standardized(real, x)
    label = np.arange(2 * each) >= each
    order = np.asarray(jax.random.permutation(fold, 2 * each))
    held = np.array_split(order, folds)
    least = 2 * each - max(map(len, held))  # folds differ by one event: so may what is trained on
    seen = np.stack([np.setdiff1d(order, part, assume_unique=True)[:least] for part in held])
    scores, passes = _scores(train, x, jnp.asarray(label), jnp.asarray(seen), epochs)
    outside = [np.asarray(row)[part] for row, part in zip(scores, held, strict=True)]
    labels = [label[part] for part in held]
    hits = [(score > 0) == y for score, y in zip(outside, labels, strict=True)]
    accuracy = tuple(float(row.mean()) for row in hits)
    share = float(np.mean(accuracy))
    seed = int(jax.random.bits(cut, (), np.uint32))
    return C2ST(
        share, math.sqrt(share * (1 - share) / (2 * each)), float(np.mean([*map(_auc, outside, labels)])),
        _p_value(seed, outside, labels, sum(int(row.sum()) for row in hits)), accuracy, int(np.max(passes)), each,
    )  # fmt: skip


def _auc(score: np.ndarray, label: np.ndarray) -> float:
    """Pairs in the right order, of equal scores a half; 1/2 where a fold has one class alone."""
    values, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positive = int(label.sum())
    pairs = positive * (len(label) - positive)
    return float((rank[label].sum() - positive * (positive + 1) / 2) / pairs) if pairs else 0.5


def _p_value(seed: int, scores: list[np.ndarray], labels: list[np.ndarray], hits: int) -> float:
    """The share of permutations of labels inside of folds with as many hits: each fold's are hypergeometric."""
    rng = np.random.default_rng(seed)
    total = np.zeros(PERMUTATIONS)
    for score, label in zip(scores, labels, strict=True):
        n, positive, called = len(label), int(label.sum()), int((score > 0).sum())
        right = rng.hypergeometric(positive, n - positive, called, PERMUTATIONS) if called else 0
        total += n - positive - called + 2 * right
    return float((1 + np.sum(total >= hits)) / (1 + PERMUTATIONS))


@functools.partial(jax.jit, static_argnames=("epochs",))
def _scores(key: Any, x: Any, label: Any, seen: Any, epochs: int) -> tuple[jax.Array, jax.Array]:
    """The score of every event by the network of each fold, `[folds, N]`, and how many epochs it took."""
    train = functools.partial(_trained, x, label, epochs)

    # each fold is a loop of its own: all end when they have to, and run beside each other on several cores
    ends = [train(*row) for row in zip(jax.random.split(key, len(seen)), seen, strict=True)]
    return jnp.stack([_score(layers, x) for layers, _ in ends]), jnp.stack([passes for _, passes in ends])


def _trained(x: Any, label: Any, epochs: int, key: Any, seen: Any) -> Any:
    n, d = len(seen), x.shape[1]
    size = min(BATCH, n)
    steps = -(-n // size)
    optimizer = optax.adam(RATE)
    start, shuffle = jax.random.split(key)
    layers = _start(start, (d, 10 * d, 10 * d, 1), x.dtype)

    def step(carry: Any, batch: Any) -> Any:
        (layers, state), (x, y, weight) = carry, batch
        loss, slope = jax.value_and_grad(_loss)(layers, x, y, weight)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(layers, updates), state), loss * jnp.sum(weight)

    def epoch(carry: Any) -> Any:
        layers, state, best, stale, t = carry
        order = jax.random.permutation(jax.random.fold_in(shuffle, t), seen)
        # the last batch is shorter: filled up with what does not count
        order = jnp.concatenate([order, jnp.broadcast_to(order[:1], (steps * size - n,))])
        weight = (jnp.arange(steps * size) < n).astype(x.dtype)
        rows = (x[order].reshape(steps, size, d), label[order].reshape(steps, size), weight.reshape(steps, size))
        (layers, state), losses = jax.lax.scan(step, (layers, state), rows)
        loss = jnp.sum(losses) / n
        stale = jnp.where(loss > best - TOLERANCE, stale + 1, 0)
        return layers, state, jnp.minimum(best, loss), stale, t + 1

    going = lambda carry: (carry[3] <= PATIENCE) & (carry[4] < epochs)  # noqa: E731
    begin = layers, optimizer.init(layers), jnp.asarray(jnp.inf, x.dtype), jnp.zeros((), int), jnp.zeros((), int)
    layers, _, _, _, passes = jax.lax.while_loop(going, epoch, begin)
    return layers, passes


def _start(key: Any, sizes: tuple[int, ...], dtype: Any) -> Any:
    """Uniform weights and intercepts of Glorot's width."""
    layers = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        width = math.sqrt(6 / (a + b))
        weights, intercept = jax.random.split(jax.random.fold_in(key, i))
        layers.append((jax.random.uniform(weights, (a, b), dtype, -width, width),
                       jax.random.uniform(intercept, (b,), dtype, -width, width)))  # fmt: skip
    return layers


def _score(layers: Any, x: Any) -> jax.Array:
    """The logarithm of the odds that an event is a sample, `[N]`."""
    *inner, (weights, intercept) = layers
    for w, b in inner:
        x = jnp.maximum(x @ w + b, 0)
    return (x @ weights + intercept)[:, 0]


def _loss(layers: Any, x: Any, label: Any, weight: Any) -> jax.Array:
    score = _score(layers, x)
    losses = jax.nn.softplus(jnp.where(label, -score, score))
    count = jnp.sum(weight)
    squares = sum(jnp.sum(w**2) for w, _ in layers)
    return (jnp.sum(weight * losses) + 0.5 * PENALTY * squares) / count
