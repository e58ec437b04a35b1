"""Losses that are minus a bound of a model with hidden variables: the ELBO with its schedules, and weighted draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Inferring
from jaxgen.core.value import algorithm
from jaxgen.losses.base import Loss, check_model, check_unlabelled, weighted_mean
from jaxgen.ops.bounds import free_bits as floored
from jaxgen.ops.stable import logsumexp

#: a number, or a function of the step: `optax.linear_schedule(0.0, 1.0, 1000)`
Schedule = float | Callable[[Any], Any]


@algorithm
class ELBO:
    """The loss that `elbo` makes."""

    beta: Any = 1.0
    free_bits: Any = 0.0
    capacity: Any = None
    samples: int = 1
    path_gradient: bool = False

    def __call__(self, key: Any, model: Any, batch: Batch, step: Any = 0) -> Loss:
        """`distortion + beta rate`, nats, and its terms as metrics."""
        check_inferring("elbo", model, batch)

        def one(key: Any, x: Any, context: Any) -> tuple[jax.Array, jax.Array]:
            given = model.inference(x, context=context)
            given = given.held(1.0) if self.path_gradient else given
            known = None if self.path_gradient else given.divergence()

            def terms(z: Any, log_q: Any) -> tuple[jax.Array, jax.Array]:
                return -given.log_likelihood(z), log_q - given.log_prior(z) if known is None else known

            return given.expect(key, terms, self.samples)

        distortion, rate = of_events(one, key, batch)
        distortion, rate = (mean_of_rows(a, batch.weight) for a in (distortion, rate))
        beta, total = at(self.beta, step), jnp.sum(rate)
        cost = floored(rate, at(self.free_bits, step) * (model_size(model) if rate.ndim == 0 else 1))
        if self.capacity is not None:
            cost = jnp.abs(cost - at(self.capacity, step))
        metrics = {"distortion": distortion, "rate": total, "elbo": -distortion - total}
        return Loss(distortion + beta * cost, metrics | ({"beta": beta} if callable(self.beta) else {}))


def elbo(
    *, beta: Schedule = 1.0, free_bits: Schedule = 0.0, capacity: Schedule | None = None, samples: int = 1,
    path_gradient: bool = False,
) -> ELBO:  # fmt: skip
    """The loss of a variational autoencoder, with a weight, a floor or a target for the divergence.

    `D + beta sum_d max(R_d, free_bits)`, or `D + beta |R - capacity|`, where the distortion `D = E_q [-log p(x | z)]`
    and the rate `R = KL(q(z | x) || p(z))` are means over the batch, nats

    With neither it is minus the ELBO, as `negative_elbo` is. The history has `distortion`, `rate` and `elbo`, which is
    `-D - R` whatever the weight.

    Args:
        beta: weight of the rate, a number or a function of the step: annealing is
            `optax.linear_schedule(0.0, 1.0, steps)`, cycles are `cyclical(steps, cycles)`.
        free_bits: nats below which the rate of a coordinate, in the mean over the batch, costs nothing more; of a
            posterior whose divergence is not known by coordinate that many nats a coordinate for all of them together.
        capacity: a rate to be reached, nats, usually a rising function of the step.
        samples: draws of z for an event.
        path_gradient: leaves out the part of the gradient that is zero in the mean; its noise vanishes as the posterior
            becomes exact. The rate is then estimated from draws.

    Raises:
        FitError: no draws, or negative constants.

    Source: Kingma and Welling (2014), Auto-encoding variational Bayes; Higgins et al. (2017), beta-VAE; Burgess et al.
    (2018), Understanding disentangling in beta-VAE, for the capacity; Kingma et al. (2016), Improved variational
    inference with inverse autoregressive flow, for free bits; Roeder, Wu and Duvenaud (2017), Sticking the landing.

    Example:
        >>> import jaxgen as jg, optax
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> loss = elbo(beta=optax.linear_schedule(0.0, 1.0, 50), free_bits=0.1)
        >>> fitted = jg.fit(jax.random.key(2), vae, x, jg.Gradient(loss, optax.adam(1e-3)), steps=60)
        >>> sorted(set(fitted.history) - {'gradient_norm'}), float(fitted.history["beta"][-1])
        (['beta', 'distortion', 'elbo', 'loss', 'rate'], 1.0)
    """
    check_draws("losses.elbo", samples)
    for name, value in (("beta", beta), ("free_bits", free_bits), ("capacity", capacity)):
        check_weight("losses.elbo", name, value)
    return ELBO(beta, free_bits, capacity, samples, path_gradient)


@algorithm
class ImportanceWeighted:
    """The loss that `iwae` makes."""

    samples: int = 50
    groups: int = 1
    beta: Any = 1.0
    share: float = 0.0
    doubly: bool = False
    partial: bool = False

    def __call__(self, key: Any, model: Any, batch: Batch, step: Any = 0) -> Loss:
        """Minus the bound, nats, and the mean effective number of draws."""
        check_inferring("iwae", model, batch)
        beta = jnp.asarray(at(self.beta, step))

        def one(key: Any, x: Any, context: Any) -> tuple[jax.Array, jax.Array]:
            given = model.inference(x, context=context)
            keys = jax.random.split(key, (self.groups, self.samples))

            def weights(given: Any) -> jax.Array:
                return jax.vmap(jax.vmap(lambda key: _log_weight(given, key, beta)))(keys)

            if self.partial:
                model_side, own_side = _bound(weights(given.held(0.0)).reshape((1, -1))), weights(given.fixed())
                found = model_side + _bound(own_side) - jax.lax.stop_gradient(_bound(own_side))
                return found, _effective(own_side)
            if not self.doubly:
                log_w = weights(given)
                return self.share * jnp.mean(log_w) + (1 - self.share) * _bound(log_w), _effective(log_w)
            normal = jax.lax.stop_gradient(jax.nn.softmax(weights(given), axis=1))
            mean, own = self.share / self.samples, (1 - self.share) * normal
            # what the bound weighs a draw by, and what of it goes through the draw
            factor = (mean + own * (1 - beta + beta * normal)) / jnp.maximum(mean + own, jnp.finfo(normal.dtype).tiny)
            log_w = jax.vmap(jax.vmap(lambda key, f: _log_weight(given.held(f), key, beta)))(keys, factor)
            return self.share * jnp.mean(log_w) + (1 - self.share) * _bound(log_w), _effective(log_w)

        found, effective = of_events(one, key, batch)
        return Loss(-weighted_mean(found, batch.weight), {"effective": weighted_mean(effective, batch.weight)})


def iwae(
    samples: int = 50, *, groups: int = 1, beta: Schedule = 1.0, share: float = 0.0, doubly: bool = False,
    partial: bool = False,
) -> ImportanceWeighted:  # fmt: skip
    """The loss of an importance weighted autoencoder, and its relatives.

    `-(1 / G) sum_g log (1 / S) sum_s w_gs`, `w = p(x | z) (p(z) / q(z | x))^beta`

    A tighter bound teaches the model better and the encoder worse, whose gradient drowns in noise; the relatives mend
    that. The history has the mean effective number of draws of S, `effective`.

    Args:
        samples: S, draws in one bound.
        groups: G, bounds that are averaged: more than one is MIWAE.
        beta: tempers the weights of draws; a number or a function of the step.
        share: of the ELBO of the same draws in the loss, from 0 to 1: CIWAE.
        doubly: the doubly reparametrised gradient, whose noise does not grow with S: DReG. It costs another pass.
        partial: the model follows the bound of all S G draws, the encoder that of G groups: PIWAE. It costs another
            pass.

    Raises:
        FitError: no draws or groups, a share outside of [0, 1], or more than one of `share`, `doubly` with `partial`.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders; Rainforth et al. (2018), Tighter
    variational bounds are not necessarily better, for groups, share and partial; Tucker et al. (2019), Doubly
    reparameterized gradient estimators for Monte Carlo objectives.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> fitted = jg.fit(jax.random.key(2), vae, x, jg.Gradient(iwae(5, doubly=True)), steps=3)
        >>> 1.0 <= float(fitted.history["effective"][0]) <= 5.0
        True
    """
    check_draws("losses.iwae", samples)
    check_draws("losses.iwae", groups)
    check_weight("losses.iwae", "beta", beta)
    if not 0 <= share <= 1 or (partial and (doubly or share)):
        raise FitError(
            "that is no bound", called="losses.iwae(...)", expected="a share from 0 to 1, and partial alone",
            got=f"share={share}, doubly={doubly}, partial={partial}",
        )  # fmt: skip
    return ImportanceWeighted(samples, groups, beta, share, doubly, partial)


def _log_weight(given: Any, key: Any, beta: Any) -> jax.Array:
    z, log_q = given.propose(key)
    return given.log_likelihood(z) + beta * (given.log_prior(z) - log_q)


def _bound(log_w: jax.Array) -> jax.Array:
    """The bounds of groups `[G, S]`, averaged."""
    return jnp.mean(logsumexp(log_w, axis=1)) - math.log(log_w.shape[1])


def _effective(log_w: jax.Array) -> jax.Array:
    """The effective number of draws, from 1 to S, averaged over groups."""
    normal = jax.nn.softmax(jax.lax.stop_gradient(log_w), axis=1)
    return jnp.mean(1 / jnp.sum(normal**2, axis=1))


def cyclical(steps: int, cycles: int = 4, share: float = 0.5, high: float = 1.0) -> Callable[[Any], jax.Array]:
    """A weight that rises from zero again and again: a function of the step for `beta=`.

    Args:
        steps: of all cycles; behind them the weight stays at `high`.
        cycles: how many times it starts from zero.
        share: of a cycle in which it rises, in a straight line.
        high: where it rises to.

    Raises:
        FitError: no cycles, or a share that is none.

    Source: Fu et al. (2019), Cyclical annealing schedule: a simple approach to mitigating KL vanishing.

    Example:
        >>> [float(cyclical(100, 2)(step)) for step in (0, 25, 49, 50, 75, 200)]
        [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    """
    if cycles < 1 or steps < cycles or not 0 < share <= 1:
        raise FitError(
            "those are no cycles", called="losses.cyclical(steps, cycles, share)",
            expected="steps of 1 or more in each cycle, and a share above 0 and at most 1",
            got=f"steps={steps}, cycles={cycles}, share={share}",
        )  # fmt: skip

    def weight(step: Any) -> jax.Array:
        place = jnp.asarray(step) * cycles / steps
        rising = jnp.minimum((place - jnp.floor(place)) / share, 1.0)
        return jnp.where(place >= cycles, high, high * rising)

    return weight


def at(schedule: Any, step: Any) -> Any:
    """The value of a number or a function of the step.

    Example:
        >>> at(2.0, 7), at(lambda step: step + 1, 7)
        (2.0, 8)
    """
    return schedule(step) if callable(schedule) else schedule


def of_events(one: Callable[..., Any], key: Any, batch: Batch) -> Any:
    """`one(key, x, context)` of every event of a batch, each with a key of its own."""
    keys = jax.random.split(key, batch.events)
    if batch.context is None:
        return jax.vmap(lambda key, x: one(key, x, None))(keys, batch.x)
    return jax.vmap(one)(keys, batch.x, batch.context)


def mean_of_rows(values: jax.Array, weight: Any) -> jax.Array:
    """The weighted mean over events of numbers or arrays, `[N, ...] -> [...]`."""
    flat = values.reshape((len(values), -1))
    return jax.vmap(lambda column: weighted_mean(column, weight), in_axes=1)(flat).reshape(values.shape[1:])


def model_size(model: Any) -> int:
    """The number of coordinates of a model's latent, of one step where their number is free."""
    return math.prod(1 if n is None else n for n in model.latent_shape)


def check_inferring(loss: str, model: Any, batch: Batch) -> None:
    """Refuses a model without the terms of its bound, and labels."""
    check_model(loss, model, Inferring, "inference", "a VAE; of other bounds the loss is jaxgen.losses.negative_elbo")
    check_unlabelled(loss, batch)


def check_draws(called: str, count: Any) -> None:
    if not isinstance(count, int) or count < 1:
        raise FitError("a bound needs draws", called=f"{called}(...)", expected="1 or more", got=str(count))


def check_weight(called: str, name: str, value: Any) -> None:
    if value is not None and not callable(value) and not value >= 0:
        raise FitError(
            "a weight is no number from 0 on", called=f"{called}({name}=...)", expected="0 or more, or a function of "
            "the step", got=repr(value)[:60],
        )  # fmt: skip
