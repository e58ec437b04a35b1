"""Scores of strangeness: values that turn a model and events into one number an event, high where it is strange.

A score is any function `(key, model, x) -> [N]`; these are callable, hash by value, and say what they need of the model
by the protocols. No score looks at the events that it is calibrated on, so conformal p-values hold for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import latent
from jaxgen.core.errors import DataError, FitError, ModelError
from jaxgen.core.methods import check_key, is_count
from jaxgen.core.protocols import Encoder, Energy, Inferring, Reconstructing, Strange, Weighted, has
from jaxgen.core.value import algorithm
from jaxgen.metrics.events import by_chunks, events_of


@algorithm
class Surprise:
    """Score events by minus their log-likelihood, or by what the model has in its place.

    `s(x) = -log p(x)` of a `Density`; minus the bound of `samples` draws of a `Bound`; the energy of an `Energy`, which
    is the same up to a constant. In nats. Of a `detector`, which is no density, how strange it finds them.

    Args:
        samples: draws an event of a model that has a bound only: importance weighted where it can be.

    Raises:
        ModelError: a model without any of these. DataError, ShapeError: events that do not fit the model.

    Example:
        >>> import jaxgen as jg
        >>> Surprise()(jax.random.key(0), jg.StandardNormal((1,)), [[0.0], [2.0]]).round(4).tolist()
        [0.9189, 2.9189]
    """

    samples: int = 20

    def __call__(self, key: Any, model: Any, x: Any) -> np.ndarray:
        called = f"Surprise()(key, {type(model).__name__}, x)"
        if not is_count(self.samples, 1):
            raise FitError("a bound needs draws", called=called, expected="samples >= 1", got=repr(self.samples))
        return _chunked(self._number(model, called), key, model, x, called, self.samples)

    def _number(self, model: Any, called: str) -> Callable[..., Any]:
        if has(model, Strange):
            return lambda key, x, context: model.strangeness(x)
        if latent.has_density(model):
            return lambda key, x, context: -model.log_prob(x, context=context)
        if latent.has_bound(model) and has(model, Weighted):
            return lambda key, x, context: -model.iwae(key, x, samples=self.samples, context=context)
        if latent.has_bound(model):
            keys = lambda key: jax.random.split(key, self.samples)  # noqa: E731
            return lambda key, x, context: -sum(model.elbo(k, x, context=context) for k in keys(key)) / self.samples
        if has(model, Energy):
            return lambda key, x, context: model.energy(x)
        raise ModelError(
            "the model says nothing of how likely an event is", called=called, got=type(model).__name__,
            expected="log_prob, elbo, energy or strangeness",
        )  # fmt: skip


@algorithm
class Typicality:
    """Score events by how far their surprise is from what the model's own draws have.

    `s(x) = |-log p(x) - H|`, H the mean surprise of draws of the model: an event may be strange by being too likely.

    Args:
        samples: draws of the model for H.
        surprise: of what it is the distance.
        length: steps of the draws, of a model of sequences.

    Source: Nalisnick, Matsukawa, Teh and Lakshminarayanan (2019), Detecting out-of-distribution inputs to deep
    generative models using typicality.

    Example:
        >>> import jaxgen as jg
        >>> score = Typicality(samples=2000)(jax.random.key(0), jg.StandardNormal((100,)), [[0.0] * 100, [1.0] * 100])
        >>> bool(score[0] > 40 and score[1] < 2)  # the mode of 100 coordinates is not what they look like
        True
    """

    samples: int = 1000
    surprise: Any = Surprise()
    length: int | None = None

    def __call__(self, key: Any, model: Any, x: Any) -> np.ndarray:
        called = f"Typicality()(key, {type(model).__name__}, x)"
        check_key(key, called)
        if not is_count(self.samples, 1):
            raise FitError("a mean needs draws", called=called, expected="samples >= 1", got=repr(self.samples))
        draw, own, score = jax.random.split(key, 3)
        options = {} if self.length is None else {"length": self.length}
        usual = self.surprise(own, model, model.sample(draw, (self.samples,), **options))
        return np.abs(self.surprise(score, model, x) - usual.mean())


@algorithm
class LikelihoodRatio:
    """Score events by how much better a background model explains them.

    `s(x) = log p_background(x) - log p(x)`: what makes all events of a kind likely cancels.

    Args:
        background: a model of the same events, of something more general: of all data, of perturbed events, of
            independent columns.
        surprise: how both are scored.

    Source: Ren et al. (2019), Likelihood ratios for out-of-distribution detection.

    Example:
        >>> import jaxgen as jg
        >>> ratio = LikelihoodRatio(jg.DiagonalGaussian.from_values(jnp.zeros(1), jnp.full(1, 10.0)))
        >>> bool(np.diff(ratio(jax.random.key(0), jg.StandardNormal((1,)), [[0.0], [5.0]]))[0] > 0)
        True
    """

    background: Any
    surprise: Any = Surprise()

    def __call__(self, key: Any, model: Any, x: Any) -> np.ndarray:
        first, second = jax.random.split(key)
        return self.surprise(first, model, x) - self.surprise(second, self.background, x)


@algorithm
class Reconstruction:
    """Score events by their distance to what an autoencoder makes of them.

    `s(x) = mean_d ((x_d - r_d(x)) / unit_d)^2`

    Args:
        unit: a number or an array that broadcasts to an event: what a distance of one is in each column; None is 1, for
            columns of one unit, such as pixels.

    Raises:
        ModelError: a model without `reconstruct`.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 4))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(8,))
        >>> Reconstruction()(jax.random.key(2), vae, x).shape
        (50,)
    """

    unit: Any = None

    def __call__(self, key: Any, model: Any, x: Any) -> np.ndarray:
        called = f"Reconstruction()(key, {type(model).__name__}, x)"
        _needed(model, Reconstructing, "reconstruct(x)", called)
        unit = 1.0 if self.unit is None else jnp.asarray(self.unit)

        def distance(key: Any, x: Any, context: Any) -> jax.Array:
            away = (x - model.reconstruct(x, context=context)) / unit
            return jnp.mean(away.reshape(len(away), -1) ** 2, axis=1)

        return _chunked(distance, key, model, x, called)


@algorithm
class LatentDensity:
    """Score events by how rare their latent is.

    `s(x) = -log p(z)`, `z = encode(x)`: where a posterior of them is known with the model's own prior at its center, as
    of a VAE; or with a density of latents of your own, as `fit_prior` fits one.

    Args:
        density: a density of `encode(x)`; None takes the model's own prior.

    Raises:
        ModelError: a model without `encode`, or without a prior where no density is given.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 4))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(8,))
        >>> LatentDensity()(jax.random.key(2), vae, x).shape
        (50,)
    """

    density: Any = None

    def __call__(self, key: Any, model: Any, x: Any) -> np.ndarray:
        called = f"LatentDensity()(key, {type(model).__name__}, x)"
        _needed(model, Encoder, "encode(x)", called)
        if self.density is not None:
            return _chunked(lambda key, x, context: -self.density.log_prob(_encoded(model, x, context)), key, model, x,
                            called)  # fmt: skip
        _needed(model, Inferring, "a prior of its own, or LatentDensity(density)", called)

        return _chunked(lambda key, x, context: _rarity(model, x, context), key, model, x, called)


@jax.jit
def _rarity(model: Any, x: Any, context: Any) -> jax.Array:
    """`-log p(z)` at the latents of events, by the model's own prior."""

    def one(x: Any, context: Any) -> jax.Array:
        return -model.inference(x, context=context).log_prior(model.encode(x, context=context))

    return jax.vmap(one, in_axes=(0, None if context is None else 0))(x, context)


@algorithm
class LikelihoodRegret:
    """Score events by what the bound gains from a posterior of the event's own, in place of the encoder's.

    `s(x) = max_q ELBO(x, q) - ELBO(x, q(. | x))`, q of the encoder's kind, by steps of Adam on its parameters, the
    context that the posterior has of this single event. It is the gap of amortisation: an event that is likely by
    chance of its pixels, but is like none that the encoder learned, has a large one. Nats, 0 where the encoder is right
    (below it by what draws and steps leave).

    Args:
        steps: of Adam for each event, 1 or more.
        draws: of both posteriors in the estimate, the same noise in both.
        step_size: of Adam, in the units of the posterior's parameters.

    Raises:
        ModelError: a model without a posterior. FitError: no steps, or no draws.

    Source: Xiao, Yan and Amit (2020), Likelihood regret: an out-of-distribution detection score for variational
    autoencoders.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (20, 4))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(8,))
        >>> LikelihoodRegret(steps=20)(jax.random.key(2), vae, x).shape
        (20,)
    """

    steps: int = 300
    draws: int = 32
    step_size: float = 0.05

    def __call__(self, key: Any, model: Any, x: Any) -> np.ndarray:
        called = f"LikelihoodRegret()(key, {type(model).__name__}, x)"
        if not (is_count(self.steps, 1) and is_count(self.draws, 1) and self.step_size > 0):
            raise FitError(
                "a posterior is refitted in steps", called=called, expected="steps and draws of 1 or more, a step_size "
                "above 0", got=f"steps={self.steps!r}, draws={self.draws!r}, step_size={self.step_size!r}",
            )  # fmt: skip
        _needed(model, Inferring, "inference(x), the terms of a bound", called)
        number = lambda key, x, context: _regret(self, model, key, x, context)  # noqa: E731
        return _chunked(number, key, model, x, called, self.draws)


@functools.partial(jax.jit, static_argnums=0)
def _regret(score: LikelihoodRegret, model: Any, key: Any, x: Any, context: Any) -> jax.Array:
    """The gains of the bounds of events `[N, *event]`, `[N]`."""
    import optax

    optimizer = optax.adam(score.step_size)

    def one(key: Any, x: Any, context: Any) -> jax.Array:
        given = model.inference(x, context=context)

        def bound(parameters: Any, key: Any, samples: int = 1) -> jax.Array:
            own = given.at(parameters)
            known = own.divergence()

            def term(z: Any, log_q: Any) -> jax.Array:
                return own.log_likelihood(z) + (own.log_prior(z) - log_q if known is None else 0)

            return own.expect(key, term, samples) - (0 if known is None else jnp.sum(known))

        def step(carry: Any, key: Any) -> Any:
            parameters, moments = carry
            slope = jax.grad(lambda own: -bound(own, key))(parameters)
            updates, moments = optimizer.update(slope, moments)
            return (optax.apply_updates(parameters, updates), moments), None

        train, judge = jax.random.split(key)
        start = given.parameters, optimizer.init(given.parameters)
        (best, _), _ = jax.lax.scan(step, start, jax.random.split(train, score.steps))
        return bound(best, judge, score.draws) - bound(given.parameters, judge, score.draws)

    return jax.vmap(one, in_axes=(0, 0, None if context is None else 0))(jax.random.split(key, len(x)), x, context)


def _encoded(model: Any, x: Any, context: Any) -> jax.Array:
    return model.encode(x) if context is None else model.encode(x, context=context)


def _needed(model: Any, capability: Any, expected: str, called: str) -> None:
    if not has(model, capability):
        raise ModelError("the model cannot be scored so", called=called, expected=expected, got=type(model).__name__,
                         fix="another score, such as the surprise")  # fmt: skip


def _chunked(
    number: Callable[..., Any], key: Any, model: Any, x: Any, called: str, draws: int = 1
) -> np.ndarray:
    """`number(key, x, context)` of every event, `[N]` float64, a chunk of equal size at a time."""
    check_key(key, called)
    batch = events_of(model, x, called)
    if batch.weight is not None:
        raise DataError("a score is of one event, whatever its weight", called=called, expected="no weights",
                        got="weights", fix="leave them out, or repeat events")  # fmt: skip
    return by_chunks(number, key, batch, draws)
