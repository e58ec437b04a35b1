"""Mixtures of posteriors: the aggregate posterior of some events, and the prior of pseudo-inputs that is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import is_count, per_event, per_sample
from jaxgen.core.pytree import fixed, model, part, static
from jaxgen.ops.scaling import mean_and_scale
from jaxgen.ops.stable import log_normalize, logsumexp


@model
class Aggregate:
    """A mixture of what one posterior is for K contexts.

    `p(z) = sum_k w_k q(z | c_k)`; with the contexts of all data in equal shares it is the aggregate posterior q(z).

    Args:
        contexts: `[K, *context]`.
        logits: `[K]`, of the shares w, up to a constant; None for equal ones.
        posterior: a density that takes a context.

    Source: Hoffman and Johnson (2016), ELBO surgery, for the aggregate posterior.

    Example:
        >>> import jaxgen as jg
        >>> q = jg.posteriors.ConditionalNormal((1,))
        >>> density = Aggregate(jnp.array([[[-2.0], [0.0]], [[2.0], [0.0]]]), None, q)
        >>> round(float(density.log_prob(jnp.zeros(1))), 4)  # that of N(2, 1) at 0
        -2.9189
        >>> density.sample(jax.random.key(0), (5,)).shape
        (5, 1)
    """

    contexts: Any
    logits: Any = None
    posterior: Any = part(default=None)

    @property
    def event_shape(self):
        return tuple(self.posterior.event_shape)

    @property
    def log_weights(self) -> jax.Array:
        """`[K]`, nats."""
        k = self.contexts.shape[0]
        if self.logits is None:
            return jnp.full(k, -math.log(k), self.contexts.dtype)
        return log_normalize(self.logits)[0]

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        scores = jax.vmap(lambda c: self.posterior.log_prob(x, context=c))(self.contexts)
        return logsumexp(scores + self.log_weights.astype(scores.dtype))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        which, within = jax.random.split(key)
        # a rare part needs noise beyond 16
        k = jax.random.categorical(which, self.log_weights, mode="high")
        return self.posterior.sample(within, context=self.contexts[k])


@model
class VampPrior:
    """The prior that is a mixture of posteriors at pseudo-inputs: no density by itself, but completed by an encoder.

    `p(z) = sum_k w_k q(z | u_k)`, u_k trained events, w equal or trained

    In a `VAE` the encoder and the posterior are the model's own, so that prior and posterior are of one kind and meet
    where the data are. Pseudo-inputs are encoded once for a batch, not once for each of its events.

    Args:
        inputs: u, `[K, *event]`, in units of the data.
        unit: `[*event]`, the data's scale, in which gradients step; never trained.
        event_shape: of z.
        logits: `[K]`, of the shares, up to a constant; None for equal ones.

    Source: Tomczak and Welling (2018), VAE with a VampPrior.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> prior = VampPrior.init(jax.random.key(1), x, 8, (2,))
        >>> vae = jg.VAE.init(jax.random.key(2), x, prior, hidden=(16,))
        >>> vae.elbo(jax.random.key(3), x).shape, vae.sample(jax.random.key(4), (3,)).shape
        ((50,), (3, 6))
    """

    inputs: jax.Array
    unit: jax.Array = fixed()
    event_shape: tuple[int, ...] = static()
    logits: Any = None

    @classmethod
    def init(cls, key, x, k: int, event_shape: tuple[int, ...], *, weights: bool = False) -> VampPrior:
        """Pseudo-inputs at K rows of the data, drawn without replacement.

        Args:
            key: typed key.
            x: events `[N, *event]`.
            k: K, 1 to N.
            event_shape: of z.
            weights: whether the shares of the pseudo-inputs train too.

        Raises:
            ModelError: K below 1 or above N.
        """
        x = jnp.asarray(as_array(x, name="x"))
        if not (is_count(k, 1) and k <= len(x)):
            raise ModelError(
                "pseudo-inputs start at different rows of the data", called="VampPrior.init(key, x, k, event_shape)",
                expected=f"k from 1 to {len(x)}", got=str(k), fix=f"k = {len(x)}",
            )  # fmt: skip
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
        rows = jax.random.choice(key, len(x), (k,), replace=False)
        unit = jnp.broadcast_to(mean_and_scale(x)[1], x.shape[1:])
        return cls(x[rows], unit, tuple(event_shape), jnp.zeros(k, x.dtype) if weights else None)

    def parameter_scales(self):
        """Pseudo-inputs are in units of the data."""
        return {"inputs": self.unit}

    def given(self, infer: Callable[[Any], Any], posterior: Any) -> Aggregate:
        """The density, given a model's encoder `event -> context` and its posterior."""
        return Aggregate(jax.vmap(infer)(self.inputs), self.logits, posterior)
