"""The normal density whose mean and covariance are its context: a posterior whose coordinates depend on each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.pytree import model, static
from jaxgen.models.densities.diagonal_gaussian import DiagonalGaussian
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.ops.gaussians import LOG_2PI, matmul
from jaxgen.ops.likelihoods import bounded
from jaxgen.ops.linalg import solve_tril


@model
class FullNormal:
    """Correlated normal coordinates whose mean and Cholesky factor are the context, without parameters of its own.

    `z = m + S e`, `e ~ N(0, I)`, `log p(z | m, S) = -|S^-1 (z - m)|^2 / 2 - sum_i log S_ii - (L / 2) log 2 pi`

    S is the lower triangle of the context's matrix R, its diagonal `exp(6 tanh(R_ii / 6))`: no network's output
    collapses a coordinate to a point, or overflows.

    Args:
        event_shape: `(L,)`.

    A context is `[1 + L, L]`: m, and the rows of R. The divergence from a `StandardNormal`, `DiagonalGaussian` or
    `Gaussian` is a closed form.

    Source: Rezende, Mohamed and Wierstra (2014), Stochastic backpropagation and approximate inference in deep
    generative models, section 4.3.

    Example:
        >>> q = FullNormal((2,))
        >>> context = jnp.array([[1.0, -1.0], [0.0, 0.0], [0.5, 0.0]])
        >>> q.covariance(context).tolist(), q.center(context).tolist()
        ([[1.0, 0.5], [0.5, 1.25]], [1.0, -1.0])
        >>> round(float(q.log_prob(jnp.array([1.0, -1.0]), context=context)), 4)
        -1.8379
    """

    event_shape: tuple[int, ...] = static()

    @property
    def context_shape(self):
        (size,) = self.event_shape
        return (1 + size, size)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, L] -> [*batch]`."""
        factor, log_scale = _factor(context)
        noise = solve_tril(factor, (x - context[0])[:, None])[:, 0]
        return _log_density(noise, log_scale)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, L]`."""
        return _draw(key, context)[0]

    @per_sample
    def sample_and_log_prob(self, key, shape=(), *, context=None) -> tuple[jax.Array, jax.Array]:
        """Draws `[*shape, L]`, differentiable in the context, and their log-density `[*shape]`."""
        z, noise, log_scale = _draw(key, context)
        return z, _log_density(noise, log_scale)

    def center(self, context):
        """The mean, of one context `[1 + L, L]` or of a batch of them."""
        return context[..., 0, :]

    def covariance(self, context):
        """`[*batch, L, L]`, of one context `[1 + L, L]` or of a batch of them."""
        factor = _factor(context)[0]
        return matmul(factor, jnp.swapaxes(factor, -1, -2))

    def has_divergence(self, prior) -> bool:
        """True for Gaussians."""
        return isinstance(prior, (StandardNormal, DiagonalGaussian, Gaussian))

    def divergence(self, prior, context):
        """`KL(q || prior)`, nats, a scalar, of one context.

        `(|W S|^2 + |W (m - m_0)|^2 - L) / 2 - log det S - log det W`, W the whitener of the prior
        """
        factor, log_scale = _factor(context)
        whitener, log_det = _whitener(prior, factor.dtype)
        apart = context[0] - prior.mean.astype(factor.dtype)
        both = matmul(whitener, jnp.concatenate([factor, apart[:, None]], axis=1))
        return 0.5 * (jnp.sum(both**2) - len(apart)) - jnp.sum(log_scale) - log_det


def _factor(context):
    """S `[..., L, L]`, and the logarithms of its diagonal `[..., L]`."""
    raw = context[..., 1:, :]
    log_scale = bounded(jnp.diagonal(raw, axis1=-2, axis2=-1))
    eye = jnp.eye(raw.shape[-1], dtype=raw.dtype)
    return jnp.tril(raw, -1) + eye * jnp.exp(log_scale)[..., None], log_scale


def _draw(key, context):
    factor, log_scale = _factor(context)
    noise = jax.random.normal(key, log_scale.shape, log_scale.dtype)
    return context[0] + matmul(factor, noise), noise, log_scale


def _log_density(noise, log_scale):
    return -0.5 * jnp.sum(noise * noise) - jnp.sum(log_scale) - 0.5 * noise.size * LOG_2PI


def _whitener(prior, dtype):
    """W of a Gaussian, `W cov W^T = I`, and `log det W`."""
    if isinstance(prior, Gaussian):
        whitener = prior.whitener
        return whitener, jnp.sum(jnp.log(jnp.diagonal(whitener)))
    scale = jnp.ones(prior.event_shape, dtype) if isinstance(prior, StandardNormal) else prior.scale
    return jnp.diag(1 / scale), -jnp.sum(jnp.log(scale))
