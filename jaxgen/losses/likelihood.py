"""Losses that are minus a likelihood, or minus a bound of one, or what a model says itself."""

from __future__ import annotations

from typing import Any

import jax

from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Stepped, Trained, has
from jaxgen.losses.base import (
    HasElbo,
    HasLogProb,
    Loss,
    check_model,
    check_unlabelled,
    companions,
    mean_of_events,
)


def nll(key: Any, model: Any, batch: Batch, step: Any = 0) -> jax.Array:
    """Return the negative log-likelihood of a `Density`: `-mean_n log p(x_n | context_n)`, nats per event.

    Of an event whose label is known, of a mixture or chain, it is that of both, `-log p(x_n, label_n | context_n)`.

    Example:
        >>> import jax.numpy as jnp, jaxgen as jg
        >>> loss = nll(jax.random.key(0), jg.StandardNormal((2,)), Batch(jnp.zeros((3, 2))))
        >>> round(float(loss), 4)
        1.8379
    """
    check_model("nll", model, HasLogProb, "log_prob", "the loss of a model with a bound is negative_elbo")
    return mean_of_events(-model.log_prob(batch.x, **companions(batch)), batch, "log_prob")


def negative_elbo(key: Any, model: Any, batch: Batch, step: Any = 0) -> jax.Array:
    """Return the negative evidence lower bound of a `Bound`: `-mean_n ELBO(x_n)`, nats per event; labels as in `nll`.

    Example:
        >>> import jax.numpy as jnp, jaxgen as jg
        >>> x = jnp.ones((4, 6))
        >>> vae = jg.VAE.init(jax.random.key(0), x, jg.StandardNormal((2,)), hidden=(8,))
        >>> negative_elbo(jax.random.key(1), vae, Batch(x)).shape
        ()
    """
    check_model("negative_elbo", model, HasElbo, "elbo", "the loss of a model with log_prob is nll")
    return mean_of_events(-model.elbo(key, batch.x, **companions(batch)), batch, "elbo")


def own(key: Any, model: Any, batch: Batch, step: Any = 0) -> jax.Array | Loss:
    """Return the loss that a model names itself: `mean_n model.loss(key, x_n, context=context_n)`.

    Of a model whose loss is one of a whole batch (`core.protocols.Stepped`) it is that, with its metrics.

    Example:
        >>> import jax.numpy as jnp, jaxgen as jg
        >>> @jg.model
        ... class Median:
        ...     middle: jax.Array
        ...     event_shape = ()
        ...     @jg.per_event
        ...     def loss(self, key, x):
        ...         return jnp.abs(x - self.middle)
        >>> float(own(jax.random.key(0), Median(jnp.float32(1.0)), Batch(jnp.array([0.0, 3.0]))))
        1.5
    """
    if has(model, Stepped):
        check_unlabelled("own", batch)
        return Loss(*model.batch_loss(key, batch.x, batch.weight, step))
    check_model("own", model, Trained, "loss", "the loss nll, or negative_elbo for a bound; fit chooses by itself")
    return mean_of_events(model.loss(key, batch.x, **companions(batch)), batch, "loss")
