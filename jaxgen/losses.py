"""Losses for `Gradient`, through the protocols only: `loss(key, model, batch) -> scalar` in nats per event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch, floating, widened
from jaxgen.core.pytree import combine, partition
from jaxgen.core.value import algorithm


def weighted_mean(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """`sum(w v) / sum(w)`; the mean without weights. An event of weight 0 does not count, whatever its value.

    Example:
        >>> float(weighted_mean(jnp.array([1.0, jnp.inf]), jnp.array([2.0, 0.0])))
        1.0
    """
    values, weight = widened((values, weight))
    if weight is None:
        return jnp.mean(values)
    return jnp.sum(jnp.where(weight > 0, weight * jnp.where(weight > 0, values, 0), 0)) / jnp.sum(weight)


def _check(loss: str, model: Any, method: str, fix: str) -> None:
    if not hasattr(type(model), method):
        raise FitError(
            f"losses.{loss} needs a model with {method}", called=f"losses.{loss}(key, {type(model).__name__}, batch)",
            expected=f"a method {method}", got=repr(model)[:200], fix=fix,
        )  # fmt: skip


def nll(key: Any, model: Any, batch: Batch) -> jax.Array:
    """Negative log-likelihood of a `Density`: `-mean_n log p(x_n | context_n)`, nats per event.

    Example:
        >>> import jaxgen as jg
        >>> loss = nll(jax.random.key(0), jg.StandardNormal((2,)), Batch(jnp.zeros((3, 2))))
        >>> round(float(loss), 4)
        1.8379
    """
    _check("nll", model, "log_prob", "the loss of a model with a bound is negative_elbo")
    return weighted_mean(-model.log_prob(batch.x, context=batch.context), batch.weight)


def negative_elbo(key: Any, model: Any, batch: Batch) -> jax.Array:
    """Negative evidence lower bound of a `Bound`: `-mean_n ELBO(x_n)`, nats per event."""
    _check("negative_elbo", model, "elbo", "the loss of a model with log_prob is nll")
    return weighted_mean(-model.elbo(key, batch.x, context=batch.context), batch.weight)


@algorithm
class ReverseKL:
    """What `reverse_kl` returns: a loss of draws alone."""

    log_density: Callable[..., Any]
    draws: int = 256
    path_gradient: bool = False
    #: `fit(key, model, None, Gradient(loss))` needs no data
    data_free = True

    def __call__(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        """`mean_s (log q(x_s) - log p~(x_s))`, nats."""
        _check("reverse_kl", model, "log_prob", "a Density with samples that can be differentiated, such as a flow")
        trained, rest = partition(model)
        held = combine(jax.lax.stop_gradient(trained), rest)

        def term(key: Any, context: Any) -> jax.Array:
            x, log_q = algebra.sample_and_log_prob(model, key, context)
            if self.path_gradient:
                log_q = held.log_prob(x, context=context)
            target = self.log_density(x) if context is None else self.log_density(x, context)
            return log_q - target

        if batch.context is None:
            return jnp.mean(jax.vmap(lambda key: term(key, None))(jax.random.split(key, self.draws)))
        keys = jax.random.split(key, batch.events)
        return weighted_mean(jax.vmap(term)(keys, batch.context), batch.weight)


def reverse_kl(log_density: Callable[..., Any], *, draws: int = 256, path_gradient: bool = False) -> ReverseKL:
    """The loss of variational inference: a density q is fitted to one that is known up to a constant.

    `KL(q || p) - log Z = E_q [log q(x) - log p~(x)]`, whose negative is a lower bound of `log Z`

    Gradients pass through the draws, so q's must be differentiable: those of a flow on a Gaussian are. The reverse
    divergence seeks a mode and forgives missing others; `metrics.importance` says how good the fit is. The forward
    divergence, from data, is `nll`.

    Args:
        log_density: `x [*event] -> log p~(x)`, of one event, nats; with a conditional q `(x, context) -> ...`, and the
            contexts are the data: `fit(key, q, (x of any values, contexts), ...)`, one draw for each.
        draws: per step, without contexts.
        path_gradient: leaves out the part of the gradient that is zero in the mean. Its noise vanishes as q comes close
            to p; each draw costs a way back through the layers.

    Raises:
        FitError: no draws, or a density that is no function.

    Source: Rezende and Mohamed (2015), Variational inference with normalizing flows; Roeder, Wu and Duvenaud (2017),
    Sticking the landing, for the path gradient.

    Example:
        >>> import jaxgen as jg, optax
        >>> from jaxgen.bijections import Affine
        >>> q = jg.Flow(jg.StandardNormal((1,)), Affine(jnp.zeros(1), jnp.zeros(1)))
        >>> loss = reverse_kl(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2), path_gradient=True)
        >>> fitted = jg.fit(jax.random.key(0), q, None, jg.Gradient(loss, optax.adam(0.1)), steps=200)
        >>> fitted.model.bijection.shift.round(1).tolist(), round(-float(fitted.history["loss"][-1]), 3)
        ([3.0], 0.919)
    """
    if not callable(log_density) or draws < 1:
        raise FitError(
            "the target is a function, and the loss needs draws", called="losses.reverse_kl(log_density, draws=...)",
            expected="x -> log density, draws of 1 or more", got=f"{str(log_density)[:60]}, draws={draws}",
        )  # fmt: skip
    return ReverseKL(log_density, draws, path_gradient)


@algorithm
class DenoisingScoreMatching:
    """What `denoising_score_matching` returns."""

    noise: float

    def __call__(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        """`mean_n |noise score(x_n + noise e_n) + e_n|^2 / 2`."""
        energy = getattr(type(model), "energy", None)
        if energy is None:
            _check("denoising_score_matching", model, "log_prob", "a model with energy or log_prob")
        x = floating(batch.x)
        e = jax.random.normal(key, x.shape, x.dtype)
        noisy = x + self.noise * e

        def log_density(x: jax.Array, context: Any) -> jax.Array:
            return model.log_prob(x, context=context) if energy is None else -model.energy(x)

        axes = (0, None if batch.context is None else 0)
        score = jax.vmap(jax.grad(log_density), axes)(noisy, batch.context)
        missed = (self.noise * score + e).reshape((len(e), -1))
        return weighted_mean(0.5 * jnp.sum(missed**2, axis=1), batch.weight)


def denoising_score_matching(noise: float) -> DenoisingScoreMatching:
    """The loss that needs neither a partition function nor chains: the model's score points from noisy data to data.

    `mean_n |noise grad log p(x_n + noise e_n) + e_n|^2 / 2`, `e ~ N(0, I)`. Its minimum is at the density of the noisy
    data, of which p is a model then: the noise is to be smaller than what matters. The loss is no likelihood, and it
    looks at neighbours only: how much mass parts of the data have that are far from each other it hardly knows.

    Args:
        noise: standard deviation, in the units of the data, positive.

    Raises:
        FitError: no noise.

    Source: Vincent (2011), A connection between score matching and denoising autoencoders, equation 11.

    Example:
        >>> import jaxgen as jg
        >>> loss, key = denoising_score_matching(0.5), jax.random.key(0)
        >>> x = jax.random.normal(key, (100_000, 1))
        >>> right, wrong = (jg.Gaussian.from_covariance([0.0], [[v]]) for v in (1.25, 0.5))  # noisy data: 1 + 0.5^2
        >>> bool(loss(jax.random.key(1), right, Batch(x)) < loss(jax.random.key(1), wrong, Batch(x)))
        True
    """
    if isinstance(noise, bool) or not 0 < noise < float("inf"):
        raise FitError(
            "denoising needs noise", called=f"losses.denoising_score_matching({noise!r})", expected="a number above 0",
            got=repr(noise),
        )  # fmt: skip
    return DenoisingScoreMatching(float(noise))
