"""Memorisation: samples that are nearer to what a model was trained on than to what it never saw."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.core.errors import ShapeError
from jaxgen.metrics.samples.source import both, features, halves, split, standardized
from jaxgen.ops.distances import nearest, over_rows, squared_distances
from jaxgen.ops.stable import logsumexp

#: permutations of which points were trained on
PERMUTATIONS = 10_000
#: the published fit of the kernels' variances: Adam's step and steps, the share of a far kernel's distance that is
#: taken off, what is added to a distance before its logarithm, and the variances that bound it, as logarithms
STEP, STEPS, NEARER, LEAST, BOUNDS = 0.5, 50, 0.1, 1e-3, (-40.0, 20.0)
#: samples whose likelihood is fitted: an array of so many by the training events is held
LARGEST = 10_000


class Likelihood(NamedTuple):
    """The feature likelihood divergence, in hundredths of nats per feature dimension; lower is better.

    Args:
        value: how much worse the samples' kernels explain held-out data than the training data's own do.
        gap: how much better they explain the training data than held-out data: far below 0 where samples are copies.
        floor: the value with one half of the training data for samples: 0 by definition of the baseline, up to noise.
        samples, training, held_out: how many of each.
    """

    value: float
    gap: float
    floor: float
    samples: int
    training: int
    held_out: int

    def __str__(self) -> str:
        return (
            f"{self.value:.4f} (floor {self.floor:.4f}, memorisation gap {self.gap:.4f}, {self.samples} samples, "
            f"{self.training} events trained on, {self.held_out} held out)"
        )

    def __repr__(self) -> str:
        return str(self)


class Memorised(NamedTuple):
    """The result of a nearest-neighbour test for memorisation.

    Args:
        share: of samples whose nearest event was trained on.
        expected: the same of a model that knows nothing of which events were, the share of those among all.
        p_value: how often the share is as high where which were trained on is drawn anew.
        samples: how many.
    """

    share: float
    expected: float
    p_value: float
    samples: int

    def __str__(self) -> str:
        return f"{self.share:.4f} (expected {self.expected:.4f}, p = {self.p_value:.4f}, {self.samples} samples)"

    def __repr__(self) -> str:
        return str(self)


def memorised(
    key: Any, model: Any, training: Any, held_out: Any, feature: Any = None, *, n: int | None = None
) -> Memorised:  # fmt: skip
    """Test whether samples are nearer to training events than to held-out ones, beyond chance.

    Of a model that did not copy, which of all events were trained on says nothing: the share of samples whose nearest
    event was is compared with that under 10,000 other choices of as many events, which is exact.

    Args:
        key: typed key, for draws and permutations.
        model: can be sampled; or samples `[N, *event]`.
        training, held_out: `[M, *event]` each, of one distribution.
        feature: a function of a batch of events, a `Feature`, or None for the default of `metrics.samples`.
        n: how many draws of a model; as many as held-out events where not told.

    Raises:
        DataError, ShapeError: fewer than 10 of any, no data, features that are not finite.
        ModelError: a model that cannot be sampled.

    Source: Meehan, Chaudhuri and Dasgupta (2020), A non-parametric test to detect data-copying in generative models,
    for the question; the statistic is that of nearest neighbours.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> copies = memorised(jax.random.key(0), x[:50] + 0.01, x[:100], x[100:200])
        >>> fresh = memorised(jax.random.key(0), x[200:], x[:100], x[100:200])
        >>> copies.share > 0.8, copies.p_value < 0.01, fresh.p_value > 0.05
        (True, True, True)
    """
    called = "samples.memorised(key, model, training, held_out)"
    fake, known, fresh = _three(key, model, training, held_out, feature, called, n, 10)
    pooled = jnp.concatenate([known, fresh])
    rng = np.random.default_rng(int(jax.random.bits(key, (), np.uint32)))
    # in an order of chance: of events that are as near, which comes first says nothing of which were trained on
    order = rng.permutation(len(pooled))
    index, _ = nearest(fake, pooled[order])
    counts = np.bincount(order[np.asarray(index)], minlength=len(pooled))
    share = counts[: len(known)].sum() / len(fake)
    # only events that are nearest to a sample count: which of them were trained on is a draw without replacement
    others = np.array([rng.permutation(counts)[: len(known)].sum() for _ in range(PERMUTATIONS)]) / len(fake)
    p_value = (1 + np.sum(others >= share)) / (1 + PERMUTATIONS)
    return Memorised(float(share), len(known) / len(pooled), float(p_value), len(fake))


def feature_likelihood(
    key: Any, model: Any, training: Any, held_out: Any, feature: Any = None, *, n: int | None = None
) -> Likelihood:  # fmt: skip
    """Return the feature likelihood divergence, which sees quality, variety and memorisation at once, and its gap.

    `100 / F (L(training half) - L(samples))`, L(S) the mean log-likelihood of held-out features under normal kernels
    around S, one variance each, fitted to the training features; the gap is
    `100 / F (mean log-likelihood of held-out - of training features)` under the samples' kernels.

    A kernel around a copy of a training event shrinks to nothing and explains no other: copies cost.

    Args:
        key: typed key, for draws and halves.
        model: can be sampled; or samples `[N, *event]`, of which 10,000 at most count.
        training, held_out: `[M, *event]` each, of one distribution; features are standardized by the held-out ones.
        feature: a function of a batch of events, a `Feature`, or None for the default of `metrics.samples`.
        n: how many draws of a model; as many as held-out events where not told.

    Raises:
        DataError, ShapeError: fewer than 10 of any, no data, features that are not finite.
        ModelError: a model that cannot be sampled.

    Source: Jiralerspong et al. (2023), Feature likelihood divergence: evaluating the generalization of generative
    models using samples; steps and starts are those of its program.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> copies = feature_likelihood(jax.random.key(0), x[:100], x[:100], x[100:200])
        >>> fresh = feature_likelihood(jax.random.key(0), x[200:], x[:100], x[100:200])
        >>> copies.gap < fresh.gap, copies.value > fresh.value
        (True, True)
    """
    called = "samples.feature_likelihood(key, model, training, held_out)"
    fake, known, fresh = _three(key, model, training, held_out, feature, called, n, 10)
    fake = fake[:LARGEST]
    fake, known, fresh = standardized(fresh, fake, known, fresh)
    first, second = halves(known)
    size = min(len(fake), len(first))
    base = _log_likelihood(first[:size], _variances(first[:size], second), fresh)
    variances = _variances(fake, known)
    seen, unseen = (_log_likelihood(fake, variances, x) for x in (known, fresh))
    floor = _log_likelihood(second[:size], _variances(second[:size], first), fresh)
    per = 100 / known.shape[1]
    return Likelihood(per * (base - unseen), per * (unseen - seen), per * (base - floor), len(fake), len(known),
                      len(fresh))  # fmt: skip


def _three(
    key: Any, model: Any, training: Any, held_out: Any, feature: Any, called: str, n: int | None, least: int
) -> tuple[jax.Array, ...]:  # fmt: skip
    first, second = split(key, called)
    fake, fresh = both(first, model, held_out, feature, called, n=n, least=least)
    known = features(second, training, feature, called, name="training", least=least)
    if known.shape[1] != fresh.shape[1]:
        raise ShapeError("training and held-out data have different features", called=called,
                         expected=f"{fresh.shape[1]} of each", got=f"{known.shape[1]}")  # fmt: skip
    return fake, known, fresh


def _log_likelihood(centers: jax.Array, log_variance: jax.Array, x: jax.Array) -> float:
    return float(np.mean(np.asarray(_scores(centers, log_variance, x), np.float64)))


@jax.jit
def _scores(centers: Any, log_variance: Any, x: Any) -> jax.Array:
    def row(x: Any, index: Any) -> jax.Array:
        return logsumexp(_normal(squared_distances(x, centers), log_variance, x.shape[1])) - math.log(len(centers))

    return over_rows(row, x, len(x))


def _normal(squares: Any, log_variance: Any, d: int) -> jax.Array:
    """The log-density of normal kernels of d dimensions at such squared distances."""
    return -0.5 * (squares * jnp.exp(-log_variance) + d * (log_variance + math.log(2 * math.pi)))


@jax.jit
def _variances(centers: Any, x: Any) -> jax.Array:
    """The logarithm of each kernel's variance, by so many steps up the likelihood of x, `[N]`."""
    d = x.shape[1]
    squares = over_rows(lambda x, index: squared_distances(x, centers), x, len(x))
    # a wide kernel around the mean of all keeps those that explain nothing from being all that there is
    far = (1 - NEARER) ** 2 * squared_distances(x, jnp.mean(x, axis=0, keepdims=True))
    start = jnp.log((jnp.min(squares, axis=0) + LEAST) / d), jnp.zeros((1,), x.dtype)
    optimizer = optax.adam(STEP)

    def loss(at: Any) -> jax.Array:
        own, wide = at
        near = _normal(squares, own, d) - math.log(len(centers))
        return -jnp.mean(logsumexp(jnp.concatenate([near, _normal(far, wide, d)], axis=1))) / d

    def step(carry: Any, _: Any) -> Any:
        at, state = carry
        updates, state = optimizer.update(jax.grad(loss)(at), state)
        own, wide = optax.apply_updates(at, updates)
        return ((jnp.clip(own, *BOUNDS), wide), state), None

    ((own, _), _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)
    return own
