"""Likelihoods of real numbers: normal coordinates with scales that are given, learned or found by the network."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxgen.core.exchange import distrax
from jaxgen.core.files import loadable
from jaxgen.ops.likelihoods.contract import REAL, Support, bounded

LOG_2PI = math.log(2.0 * math.pi)


@dataclasses.dataclass(frozen=True, eq=False)
class Normals:
    """Independent normal coordinates of one event.

    `log p(x) = -sum_i ((x_i - m_i) / s_i)^2 / 2 + log s_i + (log 2 pi) / 2`

    Args:
        location: `[*event]`, m.
        log_scale: `[*event]` or a scalar, log s.
    """

    location: jax.Array
    log_scale: jax.Array
    support: ClassVar[Support] = REAL

    def log_prob(self, x):
        """Return the log-density of an event, nats, a scalar."""
        return jnp.sum(self.entries(x))

    def entries(self, x):
        """Return the log-density of each coordinate by itself, nats, `[*event]`."""
        z = (x - self.location) * jnp.exp(-self.log_scale)
        return -0.5 * (z * z + LOG_2PI) - self.log_scale

    def mean(self):
        """`[*event]`."""
        return self.location

    def sample(self, *, seed):
        """Draws one event, `[*event]`."""
        noise = jax.random.normal(seed, jnp.shape(self.location), self.location.dtype)
        return self.location + jnp.exp(self.log_scale) * noise

    def distribution(self):
        """The distrax distribution."""
        scale = jnp.broadcast_to(jnp.exp(self.log_scale), jnp.shape(self.location))
        return distrax().Independent(distrax().Normal(self.location, scale), jnp.ndim(self.location))


@loadable
def gaussian(mean: jax.Array, raw: jax.Array) -> Normals:
    """Normal coordinates with means and scales from the network, `log s = 6 tanh(raw / 6)`.

    Example:
        >>> round(float(gaussian(jnp.zeros(2), jnp.zeros(2)).log_prob(jnp.zeros(2))), 4)
        -1.8379
    """
    return Normals(mean, bounded(raw))


@loadable
@dataclasses.dataclass(frozen=True)
class GaussianOfScale:
    """Normal coordinates with means from the network and one scale that is given.

    Args:
        scale: standard deviation, positive; in units of the data's own where the model standardises them.

    Example:
        >>> round(float(GaussianOfScale(0.5)(jnp.zeros(2)).log_prob(jnp.zeros(2))), 4)
        -0.4516
    """

    scale: float = 1.0

    def __call__(self, mean: jax.Array) -> Normals:
        return Normals(mean, jnp.asarray(math.log(self.scale), mean.dtype))


@loadable
def gaussian_of_one_scale(mean: jax.Array, *, raw: jax.Array) -> Normals:
    """Normal coordinates with means from the network and one scale that the model learns, `log s = 6 tanh(raw / 6)`.

    Source: Rybkin, Daniilidis and Levine (2021), Simple and effective VAE training with calibrated decoders.

    Example:
        >>> round(float(gaussian_of_one_scale(jnp.zeros(2), raw=jnp.float32(0.0)).log_prob(jnp.zeros(2))), 4)
        -1.8379
    """
    return Normals(mean, bounded(raw))
