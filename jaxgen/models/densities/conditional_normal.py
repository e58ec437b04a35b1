"""The normal density whose means and scales are its context: the posterior of a variational autoencoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.protocols import NormalDivergence, has
from jaxgen.core.pytree import model, static
from jaxgen.ops.gaussians import LOG_2PI
from jaxgen.ops.likelihoods import bounded


@model
class ConditionalNormal:
    """Independent normal coordinates whose means and scales are the context, without parameters of its own.

    `log p(z | m, r) = -sum_i ((z_i - m_i) / s_i)^2 / 2 + log s_i + (log 2 pi) / 2`, `log s = 6 tanh(r / 6)`

    The bound on the log-scale keeps a network's output from collapsing a coordinate to a point, or from overflowing.

    Args:
        event_shape: of z; one axis may be None, a free length.

    A context is `[2, *event]`: m and r.

    Example:
        >>> q = ConditionalNormal((3,))
        >>> context = jnp.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
        >>> round(float(q.log_prob(jnp.array([1.0, 2.0, 3.0]), context=context)), 4)
        -2.7568
        >>> q.sample(jax.random.key(0), (5,), context=context).shape, q.center(context).tolist()
        ((5, 3), [1.0, 2.0, 3.0])
    """

    event_shape: tuple[int | None, ...] = static()

    @property
    def context_shape(self):
        return (2, *self.event_shape)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        log_scale = bounded(context[1])
        noise = (x - context[0]) * jnp.exp(-log_scale)
        return _log_density(noise, log_scale)

    @per_sample
    def sample(self, key, shape=(), *, context=None, length=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        return self._draw(key, context)[0]

    @per_sample
    def sample_and_log_prob(self, key, shape=(), *, context=None, length=None) -> tuple[jax.Array, jax.Array]:
        """Draws `[*shape, *event]`, differentiable in the context, and their log-density `[*shape]`."""
        z, noise, log_scale = self._draw(key, context)
        return z, _log_density(noise, log_scale)

    def _draw(self, key, context):
        log_scale = bounded(context[1])
        noise = jax.random.normal(key, log_scale.shape, log_scale.dtype)
        return context[0] + jnp.exp(log_scale) * noise, noise, log_scale

    def center(self, context):
        """The mean, of one context `[2, *event]` or of a batch of them."""
        return jnp.take(context, 0, axis=-1 - len(self.event_shape))

    def scale(self, context):
        """The standard deviations, of one context `[2, *event]` or of a batch of them."""
        return jnp.exp(bounded(jnp.take(context, 1, axis=-1 - len(self.event_shape))))

    def entries(self, z, context):
        """`log p` of each coordinate, nats, `[*event]`, of one event and context."""
        log_scale = bounded(context[1])
        noise = (z - context[0]) * jnp.exp(-log_scale)
        return -0.5 * (noise * noise + LOG_2PI) - log_scale

    def has_divergence(self, prior) -> bool:
        """True for a prior that knows its divergence from a normal."""
        return has(prior, NormalDivergence)

    def divergence(self, prior, context):
        """`KL(q || prior)` by coordinate, nats, `[*event]`, of one context."""
        return prior.kl_from_normal(context[0], bounded(context[1]))


def _log_density(noise, log_scale):
    return -0.5 * jnp.sum(noise * noise) - jnp.sum(log_scale) - 0.5 * noise.size * LOG_2PI
