"""Losses for `Gradient`, through the protocols only: `loss(key, model, batch) -> scalar` in nats per event."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.gate import Batch


def weighted_mean(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """`sum(w v) / sum(w)`; the mean without weights. An event of weight 0 does not count, whatever its value.

    Example:
        >>> float(weighted_mean(jnp.array([1.0, jnp.inf]), jnp.array([2.0, 0.0])))
        1.0
    """
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
    _check("nll", model, "log_prob", "jaxgen.losses.negative_elbo for a model with a bound")
    return weighted_mean(-model.log_prob(batch.x, context=batch.context), batch.weight)


def negative_elbo(key: Any, model: Any, batch: Batch) -> jax.Array:
    """Negative evidence lower bound of a `Bound`: `-mean_n ELBO(x_n)`, nats per event."""
    _check("negative_elbo", model, "elbo", "jaxgen.losses.nll for a model with log_prob")
    return weighted_mean(-model.elbo(key, batch.x, context=batch.context), batch.weight)
