"""Densities of directions in any number of dimensions: von Mises-Fisher, and the uniform one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.pytree import model, static
from jaxgen.ops import spheres
from jaxgen.ops.likelihoods import bounded

#: how far from one the length of a vector may be that is taken for a direction: many roundings of float32, and less
#: than what any mistake would be
OFF = 1e-3


@model
class UniformSphere:
    """The uniform density on the unit sphere, without parameters: the prior of directions.

    `p(x) = Gamma(D / 2) / (2 pi^(D / 2))`, with respect to the area; zero for vectors of another length than one

    Args:
        event_shape: `(D,)`, D of 2 or more.

    Example:
        >>> round(float(UniformSphere((3,)).log_prob(jnp.array([0.0, 0.0, 1.0]))), 4)  # -log 4 pi
        -2.531
    """

    event_shape: tuple[int, ...] = static()

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, D] -> [*batch]`."""
        return _on_sphere(x, -spheres.log_area(x.size))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, D]`."""
        return _direction(jax.random.normal(key, self.event_shape))


@model
class VonMisesFisher:
    """Directions around a mean one, which is the context as their concentration is, without parameters of its own.

    `log p(x | m, k) = k (m . x - 1) - log integral exp(k (m . y - 1)) dy`, with respect to the area of the unit sphere;
    m is the context's direction, and `log k = log (D - 1) + 6 tanh(r / 6)`

    A concentration of D - 1 is about what a raw number r of zero has to mean in any dimension: the part of a draw along
    the mean direction is then neither nothing nor all.

    Args:
        event_shape: `(D,)`, D of 2 or more.

    A context is `[D + 1]`: a vector of any length but zero along m (zeros are the first axis), and r. Draws are
    differentiable in both. The divergence from a `UniformSphere` is a closed form.

    Source: Davidson, Falorsi, De Cao, Kipf and Tomczak (2018), Hyperspherical variational auto-encoders; Figurnov,
    Mohamed and Mnih (2018), Implicit reparameterization gradients.

    Example:
        >>> q, context = VonMisesFisher((3,)), jnp.array([0.0, 2.0, 0.0, 0.0])
        >>> q.center(context).tolist(), float(q.concentration(context))
        ([0.0, 1.0, 0.0], 2.0)
        >>> q.sample(jax.random.key(0), (5,), context=context).shape
        (5, 3)
    """

    event_shape: tuple[int, ...] = static()

    @property
    def context_shape(self):
        (size,) = self.event_shape
        return (size + 1,)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, D] -> [*batch]`."""
        concentration = self.concentration(context)
        # m . x - 1, with its digits where x is near m
        versine = 0.5 * jnp.sum((x - self.center(context)) ** 2)
        return _on_sphere(x, -concentration * versine - spheres.log_normalizer(concentration, x.size))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, D]`."""
        return self._draw(key, context)[0]

    @per_sample
    def sample_and_log_prob(self, key, shape=(), *, context=None) -> tuple[jax.Array, jax.Array]:
        """Draws `[*shape, D]`, differentiable in the context, and their log-density `[*shape]`."""
        z, t = self._draw(key, context)
        concentration = self.concentration(context)
        return z, -concentration * spheres.gap(t) - spheres.log_normalizer(concentration, z.size)

    def _draw(self, key, context):
        first, second = jax.random.split(key)
        mean = self.center(context)
        t = spheres.draw_along(first, self.concentration(context), mean.size)
        noise = jax.random.normal(second, mean.shape, mean.dtype)
        across = _direction(noise - jnp.sum(noise * mean) * mean)
        return (1 - spheres.gap(t)) * mean + across / jnp.cosh(t), t

    def center(self, context):
        """The mean direction, of one context `[D + 1]` or of a batch of them."""
        return _direction(context[..., :-1])

    def concentration(self, context):
        """k, of one context `[D + 1]` or of a batch of them."""
        return (context.shape[-1] - 2) * jnp.exp(bounded(context[..., -1]))

    def has_divergence(self, prior) -> bool:
        """True for the uniform density."""
        return isinstance(prior, UniformSphere)

    def divergence(self, prior, context):
        """`KL(q || prior)`, nats, a scalar, of one context.

        `log area - k (1 - E[m . x]) - log integral exp(k (m . x - 1)) dx`
        """
        (size,) = self.event_shape
        concentration = self.concentration(context)
        spread = concentration * spheres.mean_gap(concentration, size)
        return spheres.log_area(size) - spread - spheres.log_normalizer(concentration, size)


def _direction(vector):
    """A vector `[..., D]` at length one; that of length zero is the first axis, so that a gradient is finite."""
    square = jnp.sum(vector**2, axis=-1, keepdims=True)
    first = jnp.zeros_like(vector).at[..., 0].set(1)
    known = square > 0
    return jnp.where(known, vector * jax.lax.rsqrt(jnp.where(known, square, 1)), first)


def _on_sphere(x, value):
    """`value` for a direction, -inf for a vector of another length; NaN of NaN."""
    off = jnp.abs(jnp.sum(x * x) - 1)
    return jnp.where(off <= 2 * OFF, value, jnp.where(jnp.isnan(off), jnp.nan, -jnp.inf)).astype(x.dtype)
