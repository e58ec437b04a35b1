"""Losses of the aggregate posterior, the mean of `q(z | x)` over the data: its correlations, its distance to p(z)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Factored, has
from jaxgen.core.value import algorithm
from jaxgen.losses.base import Loss, weighted_mean
from jaxgen.losses.bounds import Schedule, at, check_inferring, check_weight, of_events
from jaxgen.ops.stable import logsumexp

#: scales of the kernels of `mmd`, in multiples of the mean squared distance of two draws of the prior
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def _terms(key: Any, model: Any, batch: Batch) -> tuple[jax.Array, ...]:
    """A draw for each event, its log-densities, and the posterior's contexts: `z, log q, log p(z), log p(x|z), c`."""

    def one(key: Any, x: Any, context: Any) -> tuple[Any, ...]:
        given = model.inference(x, context=context)
        z, log_q = given.propose(key)
        return z, log_q, given.log_prior(z), given.log_likelihood(z), given.parameters

    return of_events(one, key, batch)


@algorithm
class TotalCorrelation:
    """The loss that `total_correlation` makes."""

    events: int
    beta: Any = 6.0
    alpha: Any = 1.0
    gamma: Any = 1.0

    def __call__(self, key: Any, model: Any, batch: Batch, step: Any = 0) -> Loss:
        """`distortion + alpha I + beta TC + gamma sum_d KL_d`, nats, and its terms as metrics."""
        check_inferring("total_correlation", model, batch)
        context = None if batch.context is None else batch.context[0]
        posterior = model.inference(batch.x[0], context=context).posterior
        if batch.weight is not None or not has(posterior, Factored) or batch.events < 2:
            raise FitError(
                "the total correlation is not known of that", called="losses.total_correlation(key, model, batch)",
                expected="two events or more without weights, and a posterior of independent coordinates",
                got=f"{batch.events} events, {type(posterior).__name__}",
                fix="the model's default posterior, jaxgen.posteriors.ConditionalNormal",
            )  # fmt: skip
        z, log_q, log_prior, log_likelihood, parameters = _terms(key, model, batch)
        each = jax.vmap(jax.vmap(posterior.entries, (None, 0)), (0, None))(z, parameters)
        n, rows = batch.events, each.reshape((batch.events, batch.events, -1))
        # the event itself is one of all events, the others of the batch stand for the rest
        log_share = jnp.log(jnp.where(jnp.eye(n, dtype=bool), 1, (self.events - 1) / (n - 1)) / self.events)
        log_aggregate = logsumexp(jnp.sum(rows, axis=2) + log_share, axis=1)
        log_product = jnp.sum(logsumexp(rows + log_share[..., None], axis=1), axis=1)
        parts = {
            "mutual_information": jnp.mean(log_q - log_aggregate),
            "total_correlation": jnp.mean(log_aggregate - log_product),
            "dimension_rate": jnp.mean(log_product - log_prior),
        }
        distortion, rate = -jnp.mean(log_likelihood), jnp.mean(log_q - log_prior)
        weights = (at(weight, step) for weight in (self.alpha, self.beta, self.gamma))
        cost = sum(weight * part for weight, part in zip(weights, parts.values(), strict=True))
        return Loss(distortion + cost, parts | {"distortion": distortion, "rate": rate, "elbo": -distortion - rate})


def total_correlation(
    events: int, *, beta: Schedule = 6.0, alpha: Schedule = 1.0, gamma: Schedule = 1.0
) -> TotalCorrelation:  # fmt: skip
    """The loss of the beta-TCVAE: the rate in three parts, each with a weight of its own.

    `D + alpha I(x; z) + beta KL(q(z) || prod_d q(z_d)) + gamma sum_d KL(q(z_d) || p(z_d))`, nats, where `q(z)` is the
    mean of the posteriors of all events. The middle part is the total correlation: without it the coordinates of a
    latent are independent. With weights of one the loss is minus the ELBO.

    Args:
        events: N, the number of events of the data. Of these a batch is a sample, in which each event stands for
            itself and the others for the rest.
        beta: weight of the total correlation, a number or a function of the step.
        alpha: weight of the mutual information.
        gamma: weight of the divergence of the coordinates.

    Raises:
        FitError: fewer than two events, or a negative weight; in a fit, a posterior whose coordinates depend on each
            other.

    Source: Chen, Li, Grosse and Duvenaud (2018), Isolating sources of disentanglement in variational autoencoders,
    equation 4 and, for the weights of a batch, appendix C.2.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> fitted = jg.fit(jax.random.key(2), vae, x, jg.Gradient(total_correlation(50)), steps=3)
        >>> "total_correlation" in fitted.history
        True
    """
    if events < 2:
        raise FitError("there is no aggregate", called="losses.total_correlation(events)", expected="2 or more",
                       got=str(events))  # fmt: skip
    for name, value in (("beta", beta), ("alpha", alpha), ("gamma", gamma)):
        check_weight("losses.total_correlation", name, value)
    return TotalCorrelation(events, beta, alpha, gamma)


@algorithm
class Discrepancy:
    """The loss that `mmd` makes."""

    weight: Any = 10.0
    rate: Any = 0.0

    def __call__(self, key: Any, model: Any, batch: Batch, step: Any = 0) -> Loss:
        """`distortion + rate R + weight MMD^2`, and its terms as metrics."""
        check_inferring("mmd", model, batch)
        if batch.context is not None or batch.weight is not None or batch.events < 2:
            raise FitError(
                "the aggregate is that of unweighted events without context", called="losses.mmd(key, model, batch)",
                expected="two events or more", got=f"{batch.events} events, with a context or weights",
            )  # fmt: skip
        first, second = jax.random.split(key)
        z, log_q, log_prior, log_likelihood, _ = _terms(first, model, batch)
        drawn = jax.vmap(lambda key: model.sample_with_latent(key)[0])(jax.random.split(second, batch.events))
        distance = squared_discrepancy(*(a.reshape((batch.events, -1)) for a in (z, drawn)))
        distortion = -weighted_mean(log_likelihood, None)
        total = jnp.mean(log_q - log_prior)
        value = distortion + at(self.rate, step) * total + at(self.weight, step) * distance
        return Loss(value, {"distortion": distortion, "rate": total, "mmd": distance, "elbo": -distortion - total})


def mmd(weight: Schedule = 10.0, *, rate: Schedule = 0.0) -> Discrepancy:
    """The loss of a Wasserstein autoencoder, or of an InfoVAE: the aggregate posterior is held to the prior by samples.

    `D + rate KL(q(z | x) || p(z)) + weight MMD^2(q(z), p(z))`, where the maximum mean discrepancy has inverse
    multiquadric kernels of seven scales, in units of the distance of two draws of the prior

    It does not press each posterior towards the prior, as the rate does, but all together. With `rate=0` it is the
    WAE-MMD; the InfoVAE with its alpha and lambda is `rate=1 - alpha, weight=alpha + lambda - 1`. It bounds no
    likelihood; the history has the `elbo` beside it.

    Args:
        weight: of the discrepancy, a number or a function of the step.
        rate: weight of the divergence of each posterior, the same.

    Raises:
        FitError: a negative weight; in a fit, contexts or weights.

    Source: Tolstikhin, Bousquet, Gelly and Schoelkopf (2018), Wasserstein auto-encoders; Zhao, Song and Ermon (2019),
    InfoVAE: balancing learning and inference in variational autoencoders, equation 6.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> fitted = jg.fit(jax.random.key(2), vae, x, jg.Gradient(mmd()), steps=3)
        >>> "mmd" in fitted.history
        True
    """
    check_weight("losses.mmd", "weight", weight)
    check_weight("losses.mmd", "rate", rate)
    return Discrepancy(weight, rate)


def squared_discrepancy(a: jax.Array, b: jax.Array) -> jax.Array:
    """An unbiased estimate of the squared maximum mean discrepancy of two samples `[N, D]`, units of the kernel.

    `E k(a, a') + E k(b, b') - 2 E k(a, b)`, `k(u, v) = (1 / 7) sum_s (1 + |u - v|^2 / (s m))^-1`, m the mean squared
    distance within b

    Example:
        >>> a, b = jax.random.normal(jax.random.key(0), (2, 500, 2))
        >>> bool(abs(squared_discrepancy(a, b)) < 0.01), bool(squared_discrepancy(a + 3, b) > 0.3)
        (True, True)
    """
    n = len(a)
    away = lambda u, v: jnp.sum(jnp.square(u[:, None] - v[None]), axis=2)  # noqa: E731
    others = 1 - jnp.eye(n, dtype=a.dtype)
    within = jnp.sum(away(b, b) * others) / (n * (n - 1))
    scales = jax.lax.stop_gradient(within) * jnp.asarray(SCALES, a.dtype)
    kernel = lambda d: jnp.mean(1 / (1 + d[..., None] / scales), axis=-1)  # noqa: E731
    same = sum(jnp.sum(kernel(away(u, u)) * others) for u in (a, b)) / (n * (n - 1))
    return same - 2 * jnp.mean(kernel(away(a, b)))
