"""Diagnostics of games: the spectrum of their steps, calibration of a critic, and the modes that samples cover."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxgen.core.errors import DataError, FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.methods import check_key, is_count
from jaxgen.core.pytree import combine, partition
from jaxgen.ops.arnoldi import leading_eigenvalues


class Spectrum(NamedTuple):
    """The leading eigenvalues of the Jacobian of a step of a game.

    Args:
        eigenvalues: by falling modulus, complex. A modulus above 1 is a direction in which the game leaves the point
            where it is, an imaginary part one in which it turns. What a step does not move has the eigenvalue 1:
            directions in which neither loss changes, of which large networks have many.
        residuals: how far each is from being one, `|A v - lambda v|`; large ones need a larger size.
    """

    eigenvalues: np.ndarray
    residuals: np.ndarray

    @property
    def radius(self) -> float:
        """The largest modulus: the factor by which a small deviation grows in a step."""
        return float(np.abs(self.eigenvalues[0]))


def spectrum(key: Any, algorithm: Any, state: Any, batch: Batch, *, size: int = 20) -> Spectrum:
    """The spectrum of the step of a game around the point where it is, by Jacobian-vector products.

    The map is the step as the algorithm makes it, of one batch and noise: of what trains in both players, and of their
    optimisers' moments. Averages only follow, and are left out.

    Args:
        key: typed key of the step's noise and of the first vector.
        algorithm: an `Adversarial`.
        state: of it.
        batch: events, all of them or many: the spectrum is that of this batch.
        size: eigenvalues that are computed, one product each.

    Returns:
        `Spectrum`.

    Raises:
        FitError: a step without a derivative here, such as Adam's before it has seen a gradient; a size that is none.

    Source: Mescheder, Nowozin and Geiger (2017), The numerics of GANs, proposition 4.

    Example:
        >>> import optax, jaxgen as jg
        >>> from jaxgen.nn.mlp import MLP
        >>> x = jg.data.eight_gaussians(jax.random.key(0), 100)
        >>> start = jg.Generator.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(4,))
        >>> game = jg.Adversarial(MLP((4, 1), jax.nn.silu), optax.sgd(0.1), optax.sgd(0.1))
        >>> found = spectrum(jax.random.key(3), game, game.init(jax.random.key(2), start), jg.Batch(x), size=5)
        >>> found.eigenvalues.shape, 0.9 < found.radius < 1.2
        ((5,), True)
    """
    called = f"metrics.spectrum(key, {type(algorithm).__name__}, state, batch)"
    check_key(key, called)
    if not is_count(size, 1):
        raise FitError("a spectrum needs eigenvalues", called=called, expected="size of 1 or more", got=repr(size))
    step_key, vector_key = jax.random.split(key)
    point, unravel = ravel_pytree(_moving(state)[0])

    @jax.jit
    def product(state: Any, batch: Batch, point: jax.Array, vector: jax.Array) -> jax.Array:
        def move(point: jax.Array) -> jax.Array:
            after = algorithm.step(step_key, _put(state, unravel(point)), batch)[0]
            return ravel_pytree(_moving(after)[0])[0]

        return jax.jvp(move, (point,), (vector,))[1]

    def checked(vector: Any) -> np.ndarray:
        image = np.asarray(product(state, batch, point, jnp.asarray(vector, point.dtype)))
        if not np.isfinite(image).all():
            raise FitError(
                "the step has no derivative here", called=called, got="a product that is not finite",
                expected="a step that is differentiable in parameters and moments: Adam's is not where a parameter has "
                "had no gradient", fix="optax.adam(1e-3, eps_root=1e-8), or optax.sgd(1e-3)",
            )  # fmt: skip
        return image

    return Spectrum(*leading_eigenvalues(vector_key, checked, point.size, size))


def _moving(state: Any) -> tuple[Any, Any]:
    """Return what a step moves of both players, and all the rest."""
    players = (state.generator, state.critic)
    halves = [partition((player.iterate, player.moments)) for player in players]
    return [trained for trained, _ in halves], [rest for _, rest in halves]


def _put(state: Any, moving: Any) -> Any:
    """The state with other numbers in what a step moves."""
    made = [combine(trained, rest) for trained, rest in zip(moving, _moving(state)[1], strict=True)]
    generator, critic = (
        dataclasses.replace(player, iterate=iterate, moments=moments)
        for player, (iterate, moments) in zip((state.generator, state.critic), made, strict=True)
    )
    return state._replace(generator=generator, critic=critic)


class Calibration(NamedTuple):
    """The distance of a critic's outputs from the log-odds that they should be.

    Args:
        error: mean over events of the distance between confidence and share, the expected calibration error.
        accuracy: share of data and samples taken for what they are.
        confidence: mean probability of data in each bin, `[bins]`, NaN in those without events.
        share: the share that data really have in each bin, `[bins]`.
        counts: events in each bin, `[bins]`.

    Source: Naeini, Cooper and Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning.
    """

    error: float
    accuracy: float
    confidence: np.ndarray
    share: np.ndarray
    counts: np.ndarray


def calibration(real: Any, fake: Any, *, bins: int = 10) -> Calibration:
    """The calibration of a critic, from its outputs on as many data as samples, which should be log-odds.

    Args:
        real: outputs on data it has not seen, `[N]`.
        fake: outputs on samples, `[N]`.
        bins: of the probability, of equal widths.

    Returns:
        `Calibration`.

    Raises:
        DataError: other numbers of outputs, or outputs that are not finite. FitError: no bins.

    Example:
        >>> calibration(np.zeros(100), np.zeros(100)).error
        0.0
    """
    ends = [np.asarray(end, np.float64) for end in (real, fake)]
    if ends[0].shape != ends[1].shape or ends[0].ndim != 1 or not ends[0].size or not np.isfinite(ends).all():
        raise DataError(
            "those are no outputs of a critic", called="metrics.calibration(real, fake)",
            expected="finite, [N] both", got=f"shapes {[list(end.shape) for end in ends]}",
        )  # fmt: skip
    if not is_count(bins, 1):
        raise FitError("shares are of bins", called="metrics.calibration(real, fake)", expected="bins of 1 or more",
                       got=repr(bins))  # fmt: skip
    logits, label = np.concatenate(ends), np.repeat([1.0, 0.0], len(ends[0]))
    probability = np.asarray(jax.nn.sigmoid(logits), np.float64)
    place = np.minimum((probability * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence, share = (np.bincount(place, v, minlength=bins) / counts for v in (probability, label))
    error = np.nansum(counts * np.abs(confidence - share)) / len(label)
    accuracy = np.mean(np.where(logits == 0, 0.5, (logits > 0) == label))
    return Calibration(float(error), float(accuracy), confidence, share, counts)


class Modes(NamedTuple):
    """The classes that samples cover.

    Args:
        covered: how many classes have at least the least of their due share, and one sample.
        classes: how many there are.
        shares: of samples in each class, `[classes]`.
        due: of data in each class, `[classes]`.
        divergence: `KL(shares || due)`, nats.
    """

    covered: int
    classes: int
    shares: np.ndarray
    due: np.ndarray
    divergence: float


def modes(samples: Any, classify: Callable[[Any], Any], labels: Any, *, least: float = 0.0) -> Modes:
    """The modes of labelled data that samples cover, as a classifier sees them.

    Args:
        samples: events, whatever the classifier takes.
        classify: events to whole numbers from 0, `[N]`: a classifier trained on the data.
        labels: of the data, whole numbers from 0, `[M]`, which say how many classes there are and what is due to each.
        least: the part of its due share from which on a class counts as covered; 0 asks for one sample.

    Returns:
        `Modes`.

    Raises:
        DataError: labels that are no whole numbers from 0, or one class only, or a class that the data have not.

    Source: Metz, Poole, Pfau and Sohl-Dickstein (2017), Unrolled generative adversarial networks, section 3.3.

    Example:
        >>> found = modes(np.array([0.1, 0.2, 2.2]), lambda x: x.astype(int), np.array([0, 1, 2, 2]))
        >>> found.covered, found.classes, found.shares.round(2).tolist()
        (2, 3, [0.67, 0.0, 0.33])
    """
    called = "metrics.modes(samples, classify, labels)"
    told, seen = (np.asarray(one) for one in (labels, classify(samples)))
    for name, one in (("labels", told), ("classify(samples)", seen)):
        if one.ndim != 1 or not one.size or not np.issubdtype(one.dtype, np.integer) or one.min() < 0:
            raise DataError(
                "classes are whole numbers from 0", called=called, expected=f"{name} [N], ints",
                got=f"{one.dtype} of shape {list(one.shape)}", fix="of probabilities, the argmax over the last axis",
            )  # fmt: skip
    classes = int(told.max()) + 1
    if classes < 2 or seen.max() >= classes:
        raise DataError(
            "there are not the classes of the data", called=called, expected="two classes or more in labels, and no "
            "others in samples", got=f"{classes} in labels, up to {int(seen.max()) + 1} in samples",
        )  # fmt: skip
    shares, due = (np.bincount(one, minlength=classes) / len(one) for one in (seen, told))
    if strange := np.flatnonzero((shares > 0) & (due == 0)).tolist():
        raise DataError("there are not the classes of the data", called=called,
                        expected="samples of classes that labels have", got=f"{strange} in samples alone")  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.sum(np.where(shares > 0, shares * np.log(shares / due), 0))
    return Modes(int(((shares > 0) & (shares >= least * due)).sum()), classes, shares, due, float(divergence))
