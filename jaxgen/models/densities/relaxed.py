"""Relaxations of bits and labels to real numbers, whose draws can be differentiated: the concrete distributions.

Their densities are those of logits and of log-probabilities, where nothing is rounded to an edge: in float32 a soft bit
of logit 17 is 1. Where posterior and prior are relaxations a bound is one of the relaxed model, and no mixture of the
two worlds. `jax.nn.sigmoid(z)` and `jnp.exp(z)` in a decoder are the soft bits and labels.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.pytree import model, static
from jaxgen.ops.stable import logsumexp


@model
class RelaxedBernoulli:
    """Independent bits, relaxed: the logits of numbers between 0 and 1 that come near both ends.

    `z = (a + e) / t`, e logistic; `log p(z) = sum_i log t - e_i - 2 log(1 + exp(-e_i))`, `e = t z - a`

    `z > 0` with the probability `sigmoid(a)` whatever the temperature t is.

    Args:
        event_shape: of z.
        temperature: t, positive: draws are bits in the limit of 0; 1/2 to 2/3 are usual.
        logits: a, `[*event]`, those of a prior; None takes them as the context, of the same shape.

    `Flow(RelaxedBernoulli(...), bijections.Sigmoid((L,)))` is the density of the soft bits themselves.

    Source: Maddison, Mnih and Teh (2017), The concrete distribution, appendix B; Jang, Gu and Poole (2017), Categorical
    reparameterization with Gumbel-softmax.

    Example:
        >>> prior, q = RelaxedBernoulli((3,), logits=jnp.zeros(3)), RelaxedBernoulli((3,))
        >>> z = q.sample(jax.random.key(0), (1000,), context=jnp.array([-9.0, 0.0, 9.0]))
        >>> (z > 0).mean(axis=0).round(1).tolist(), prior.log_prob(z).shape
        ([0.0, 0.5, 1.0], (1000,))
    """

    event_shape: tuple[int, ...] = static()
    temperature: float = static(default=0.5)
    logits: Any = None

    @property
    def context_shape(self):
        return self.event_shape if self.logits is None else None

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        return self._log_density(self.temperature * x - self._logits(context))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        return self._draw(key, context)[0]

    @per_sample
    def sample_and_log_prob(self, key, shape=(), *, context=None) -> tuple[jax.Array, jax.Array]:
        """Draws `[*shape, *event]`, differentiable in the logits, and their log-density `[*shape]`."""
        z, noise = self._draw(key, context)
        return z, self._log_density(noise)

    def center(self, context=None):
        """The median of each entry, `[*batch, *event]`, of contexts `[*batch, *event]`."""
        return self._logits(context) / self.temperature

    def _logits(self, context):
        return context if self.logits is None else self.logits

    def _draw(self, key, context):
        logits = self._logits(context)
        noise = jax.random.logistic(key, self.event_shape, logits.dtype)
        return (logits + noise) / self.temperature, noise

    def _log_density(self, noise):
        # even in e: -e - 2 softplus(-e) = e - 2 softplus(e), of which the first keeps its digits where e is positive
        size = jnp.abs(noise)
        return jnp.sum(math.log(self.temperature) - size - 2 * jnp.log1p(jnp.exp(-size)))


@model
class RelaxedCategorical:
    """A label, or independent ones, relaxed: logarithms of probabilities that come near the corners of the simplex.

    `z = log softmax((a + g) / t)`, g Gumbel;
    `log p(z) = log Gamma(V) + (V - 1) log t + sum_k (a_k - t z_k) - V log sum_k exp(a_k - t z_k)`

    The largest entry is that of label k with the probability `softmax(a)_k` whatever the temperature t is. The density
    is with respect to `dy_1 ... dy_(V-1) / (y_1 ... y_V)`, `y = exp(z)`, in which no label is set apart.

    Args:
        event_shape: of z, `(*columns, V)`.
        temperature: t, positive; at most `1 / (V - 1)` puts no mode inside of the simplex.
        logits: a, `[*columns, V]`, those of a prior; None takes them as the context, of the same shape.

    Source: Maddison, Mnih and Teh (2017), The concrete distribution, appendix C.3.

    Example:
        >>> q = RelaxedCategorical((3,), 0.1)
        >>> z = q.sample(jax.random.key(0), (1000,), context=jnp.log(jnp.array([0.2, 0.3, 0.5])))
        >>> bool((jnp.abs(jnp.exp(z).sum(axis=1) - 1) < 1e-5).all()), round(float((z.argmax(axis=1) == 2).mean()), 1)
        (True, 0.5)
    """

    event_shape: tuple[int, ...] = static()
    temperature: float = static(default=0.5)
    logits: Any = None

    @property
    def context_shape(self):
        return self.event_shape if self.logits is None else None

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        return self._log_density(x, self._logits(context))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        return self._draw(key, self._logits(context))

    @per_sample
    def sample_and_log_prob(self, key, shape=(), *, context=None) -> tuple[jax.Array, jax.Array]:
        """Draws `[*shape, *event]`, differentiable in the logits, and their log-density `[*shape]`."""
        logits = self._logits(context)
        z = self._draw(key, logits)
        return z, self._log_density(z, logits)

    def center(self, context=None):
        """The value of no noise, `log softmax(a / t)`, `[*batch, *event]`, of contexts `[*batch, *event]`."""
        return jax.nn.log_softmax(self._logits(context) / self.temperature)

    def _logits(self, context):
        return context if self.logits is None else self.logits

    def _draw(self, key, logits):
        noise = jax.random.gumbel(key, self.event_shape, logits.dtype, mode="high")
        return jax.nn.log_softmax((logits + noise) / self.temperature)

    def _log_density(self, z, logits):
        size = self.event_shape[-1]
        scores = logits - self.temperature * z
        constant = math.lgamma(size) + (size - 1) * math.log(self.temperature)
        return jnp.sum(constant + jnp.sum(scores, axis=-1) - size * logsumexp(scores))
