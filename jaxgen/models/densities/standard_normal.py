"""The standard normal density."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxgen.core.exchange import distrax
from jaxgen.core.methods import per_event, per_level, per_sample
from jaxgen.core.pytree import model, static
from jaxgen.ops.gaussians import LOG_2PI


@model
class StandardNormal:
    """The normal density with mean zero and unit variance, without parameters: a base and a prior.

    `log p(x) = -|x|^2 / 2 - (D / 2) log 2 pi`

    Args:
        event_shape: the shape of one event.

    Example:
        >>> round(float(StandardNormal((2,)).log_prob(jnp.zeros(2))), 4)
        -1.8379
    """

    event_shape: tuple[int, ...] = static()

    mean = property(lambda self: jnp.zeros(self.event_shape), doc="Zero, `[*event]`.")
    variance = property(lambda self: jnp.ones(self.event_shape), doc="One, `[*event]`.")

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        return -0.5 * (jnp.sum(x * x) + x.size * LOG_2PI)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        return ndtr(x)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        return jnp.full(self.event_shape, ndtri(level))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        return jax.random.normal(key, self.event_shape)

    def normal_moments(self):
        """Zeros and ones, `[D]` both, of the flat event."""
        size = math.prod(self.event_shape)
        return np.zeros(size), np.ones(size)

    def kl_from_normal(self, mean, log_scale):
        """`KL(N(mean, scale^2) || self)` of each coordinate, nats, `[*event]`: what a VAE uses in place of draws.

        `(mean_d^2 + scale_d^2 - 1) / 2 - log scale_d`

        Source: Kingma and Welling (2014), Auto-encoding variational Bayes, appendix B.
        """
        return 0.5 * (mean**2 + jnp.expm1(2 * log_scale)) - log_scale

    def distribution(self):
        """The distrax distribution."""
        dx = distrax()
        normal = dx.Normal(jnp.zeros(self.event_shape), jnp.ones(self.event_shape))
        return dx.Independent(normal, len(self.event_shape))
