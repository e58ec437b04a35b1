"""Gaussian densities: full and diagonal covariance with closed-form maximum likelihood, and the standard normal."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.door import per_event, per_sample, weighted_events
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import distrax
from jaxgen.core.gate import concrete, floating
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import linalg

LOG_2PI = math.log(2.0 * math.pi)
HIGHEST = jax.lax.Precision.HIGHEST
#: default floor of a variance, as a share of the data's: far below any structure, above float32 rounding
RELATIVE_FLOOR = 1e-6


class Moments(NamedTuple):
    """Weighted moments around the old mean: total weight, first and second moment."""

    weight: jax.Array
    first: jax.Array
    second: jax.Array


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

    @per_event
    def log_prob(self, x):
        """Nats, `[*batch, *event] -> [*batch]`."""
        return -0.5 * (jnp.sum(x * x) + x.size * LOG_2PI)

    @per_sample
    def sample(self, key):
        """Draws `[*shape, *event]`."""
        return jax.random.normal(key, self.event_shape)

    def kl_from_normal(self, mean, log_scale):
        """`KL(N(mean, scale^2) || self)` in nats, of one event: what a VAE uses in place of draws.

        `sum_d (mean_d^2 + scale_d^2 - 1) / 2 - log scale_d`

        Source: Kingma and Welling (2014), Auto-encoding variational Bayes, appendix B.
        """
        return jnp.sum(0.5 * (mean**2 + jnp.expm1(2 * log_scale)) - log_scale)

    def distribution(self):
        """The distrax distribution."""
        dx = distrax()
        normal = dx.Normal(jnp.zeros(self.event_shape), jnp.ones(self.event_shape))
        return dx.Independent(normal, len(self.event_shape))


def _floor(x, floor):
    """The variance floor: as given, or a small share of the data's mean variance (of 1 where all is constant)."""
    variance = jnp.mean(jnp.var(x - x[0], axis=0))
    scale = jnp.where(variance > 0, variance, 1.0)
    return jnp.asarray(RELATIVE_FLOOR * scale if floor is None else floor, x.dtype)


def _residual(model, x):
    """`x - mean` of one model, or `[K, N, D]` of K: x is moved to the origin first, where float32 is fine-grained."""
    batched = model.origin.ndim == 2
    origin, offset = (model.origin[:, None], model.offset[:, None]) if batched else (model.origin, model.offset)
    return (x - origin) - offset


def _alive(weight):
    # below this total weight a mean is rounding noise
    return weight > 10 * jnp.finfo(weight.dtype).eps


@model
class Gaussian:
    """The multivariate normal density with a full covariance matrix.

    `log p(x) = -|W (x - mean)|^2 / 2 + log det W - (D / 2) log 2 pi`, with `W` lower triangular and
    `W cov W^T = I`: the inverse Cholesky factor is what is stored, so that scoring is one matrix product and solves
    nothing.

    Args:
        offset: `[D]`, the mean relative to `origin`.
        raw: `[D, D]`, `W` below the diagonal and the logarithm of its diagonal on it; the rest is not used.
        origin: `[D]`, a point amid the data, never trained: data far from zero lose no digits to float32.
        floor: scalar added to every variance in the M-step (scikit-learn's `reg_covar`); never trained.

    The M-step repairs: a component of no mass keeps its parameters; a covariance without a Cholesky factor keeps only
    its diagonal, floored.

    Example:
        >>> g = Gaussian.from_covariance([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]])
        >>> round(float(g.log_prob(jnp.array([0.0, 1.0]))), 4)
        -2.1177
        >>> g.covariance.round(4).tolist()
        [[2.0, 0.5], [0.5, 1.0]]
    """

    offset: jax.Array
    raw: jax.Array
    origin: jax.Array = fixed()
    floor: jax.Array = fixed(0.0)

    @classmethod
    def init(cls, key, x, *, floor=None) -> Gaussian:
        """The maximum-likelihood Gaussian of data `[N, D]`; `floor` defaults to 1e-6 of their mean variance."""
        x = floating(x)
        origin, d = x[0] + jnp.mean(x - x[0], axis=0), x.shape[-1]
        start = cls(jnp.zeros_like(origin), jnp.zeros((d, d), x.dtype), origin, _floor(x, floor))
        return start.m_step(start.e_step(x, jnp.ones(x.shape[0], x.dtype))[0])

    @classmethod
    def from_covariance(cls, mean, covariance, *, floor=0.0) -> Gaussian:
        """From a mean `[*K, D]` and a covariance `[*K, D, D]`.

        Raises:
            ModelError: the covariance is not symmetric positive definite, or the shapes do not fit.
        """
        mean, covariance = floating(mean, name="mean"), floating(covariance, name="covariance")
        called = "Gaussian.from_covariance(mean, covariance)"
        if covariance.shape != (*mean.shape, mean.shape[-1]):
            raise ModelError(
                "the covariance does not fit the mean", called=called, got=f"shape {list(covariance.shape)}",
                expected=f"shape {[*mean.shape, mean.shape[-1]]}",
            )  # fmt: skip
        whitener = linalg.inverse_cholesky(covariance)
        symmetric = jnp.allclose(covariance, jnp.swapaxes(covariance, -1, -2), rtol=1e-4)
        if concrete(covariance) and not (symmetric and jnp.isfinite(whitener).all()):
            raise ModelError(
                "the covariance is not symmetric positive definite", called=called, fix="add a ridge: cov + 1e-6 * I",
                expected="a positive definite matrix", got=f"diagonal {jnp.diagonal(covariance, axis1=-2, axis2=-1)}",
            )  # fmt: skip
        floor = jnp.broadcast_to(jnp.asarray(floor, mean.dtype), mean.shape[:-1])
        return cls(jnp.zeros_like(mean), _raw(whitener), mean, floor)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.offset.shape

    @property
    def mean(self) -> jax.Array:
        """`[*K, D]`, units of x."""
        return self.origin + self.offset

    @property
    def whitener(self) -> jax.Array:
        """`W`, `[*K, D, D]` lower triangular with a positive diagonal."""
        diagonal = jnp.exp(jnp.diagonal(self.raw, axis1=-2, axis2=-1))
        return jnp.tril(self.raw, -1) + diagonal[..., None] * jnp.eye(self.raw.shape[-1], dtype=self.raw.dtype)

    @property
    def scale_tril(self) -> jax.Array:
        """The Cholesky factor of the covariance, `[*K, D, D]`."""
        return linalg.tril_inverse(self.whitener)

    @property
    def covariance(self) -> jax.Array:
        """`[*K, D, D]`, units of x squared."""
        factor = self.scale_tril
        return jnp.matmul(factor, jnp.swapaxes(factor, -1, -2), precision=HIGHEST)

    @per_event
    def log_prob(self, x):
        """Nats, `[*batch, D] -> [*batch]`."""
        z = jnp.matmul(self.whitener, _residual(self, x), precision=HIGHEST)
        return -0.5 * (jnp.sum(z * z) + z.size * LOG_2PI) + jnp.trace(self.raw)

    @per_sample
    def sample(self, key):
        """Draws `[*shape, D]`."""
        noise = jax.random.normal(key, self.offset.shape, self.offset.dtype)
        return self.mean + jnp.matmul(self.scale_tril, noise, precision=HIGHEST)

    @weighted_events
    def e_step(self, x, weight):
        """`Moments` around the mean, and `log_prob [N]`."""
        moments = self._moments(_residual(self, x), weight)
        return moments, self.log_prob(x)

    @staticmethod
    def _moments(d, weight):
        second = jnp.matmul((d * weight[:, None]).T, d, precision=HIGHEST)
        return Moments(jnp.sum(weight), jnp.matmul(weight, d, precision=HIGHEST), second)

    def m_step(self, statistics) -> Gaussian:
        """Weighted maximum likelihood, with `floor` added to the variances."""
        return self.maximize(statistics)[0]

    def maximize(self, statistics):
        """`m_step`, and 1 where it had to repair this density, else 0."""
        weight, first, second = statistics
        alive = _alive(weight)
        safe = jnp.where(alive, weight, 1.0)
        shift = first / safe
        covariance = second / safe - jnp.outer(shift, shift) + self.floor * jnp.eye(len(shift), dtype=shift.dtype)
        whitener = linalg.inverse_cholesky(covariance)
        regular = jnp.isfinite(whitener).all()
        tiny = jnp.finfo(shift.dtype).tiny
        variances = jnp.maximum(jnp.diagonal(covariance), jnp.maximum(self.floor, tiny))
        raw = jnp.where(regular, _raw(whitener), jnp.diag(-0.5 * jnp.log(variances)))
        offset = jnp.where(alive, self.offset + shift, self.offset)
        new = Gaussian(offset, jnp.where(alive, raw, self.raw), self.origin, self.floor)
        return new, (~(alive & regular)).astype(jnp.int32)

    def log_prob_components(self, x):
        """`[K, N]`: residuals whitened by one batched matrix product."""
        z = jnp.matmul(_residual(self, x), jnp.swapaxes(self.whitener, -1, -2), precision=HIGHEST)
        log_det = jnp.trace(self.raw, axis1=-2, axis2=-1)
        return -0.5 * (jnp.sum(z * z, axis=-1) + x.shape[-1] * LOG_2PI) + log_det[:, None]

    def e_step_components(self, x, weight):
        """`Moments` of K components, leading axis K, from weights `[K, N]`."""
        return jax.vmap(self._moments)(_residual(self, x), weight)

    def distribution(self):
        """The distrax distribution."""
        return distrax().MultivariateNormalTri(self.mean, self.scale_tril)


def _raw(whitener):
    diagonal = jnp.diagonal(whitener, axis1=-2, axis2=-1)
    return jnp.tril(whitener, -1) + jnp.log(diagonal)[..., None] * jnp.eye(diagonal.shape[-1], dtype=whitener.dtype)


@model
class DiagonalGaussian:
    """The normal density with independent coordinates.

    `log p(x) = -sum_d ((x_d - mean_d) / scale_d)^2 / 2 - sum_d log scale_d - (D / 2) log 2 pi`

    Args:
        offset: `[D]`, the mean relative to `origin`.
        log_scale: `[D]`, logarithm of the standard deviations.
        origin: `[D]`, a point amid the data, never trained: data far from zero lose no digits to float32.
        floor: scalar added to every variance in the M-step; never trained.

    The M-step repairs: a component of no mass keeps its parameters; a variance at or below zero becomes the floor.

    Example:
        >>> g = DiagonalGaussian.from_scale([0.0, 1.0], [1.0, 2.0])
        >>> round(float(g.log_prob(jnp.array([0.0, 1.0]))), 4)
        -2.531
    """

    offset: jax.Array
    log_scale: jax.Array
    origin: jax.Array = fixed()
    floor: jax.Array = fixed(0.0)

    @classmethod
    def init(cls, key, x, *, floor=None) -> DiagonalGaussian:
        """The maximum-likelihood density of data `[N, D]`; `floor` defaults to 1e-6 of their mean variance."""
        x = floating(x)
        origin = x[0] + jnp.mean(x - x[0], axis=0)
        start = cls(jnp.zeros_like(origin), jnp.zeros_like(origin), origin, _floor(x, floor))
        return start.m_step(start.e_step(x, jnp.ones(x.shape[0], x.dtype))[0])

    @classmethod
    def from_scale(cls, mean, scale, *, floor=0.0) -> DiagonalGaussian:
        """From means and standard deviations `[*K, D]`.

        Raises:
            ModelError: a scale that is not positive, or shapes that differ.
        """
        mean, scale = floating(mean, name="mean"), floating(scale, name="scale")
        if mean.shape != scale.shape or (concrete(scale) and not (scale > 0).all()):
            raise ModelError(
                "scales must be positive, one for each mean", called="DiagonalGaussian.from_scale(mean, scale)",
                expected=f"positive, shape {list(mean.shape)}", got=f"shape {list(scale.shape)}: {scale}",
            )  # fmt: skip
        floor = jnp.broadcast_to(jnp.asarray(floor, mean.dtype), mean.shape[:-1])
        return cls(jnp.zeros_like(mean), jnp.log(scale), mean, floor)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.offset.shape

    @property
    def mean(self) -> jax.Array:
        """`[*K, D]`, units of x."""
        return self.origin + self.offset

    @property
    def scale(self) -> jax.Array:
        """Standard deviations, `[*K, D]`, units of x."""
        return jnp.exp(self.log_scale)

    @property
    def variance(self) -> jax.Array:
        """`[*K, D]`, units of x squared."""
        return jnp.exp(2 * self.log_scale)

    @per_event
    def log_prob(self, x):
        """Nats, `[*batch, D] -> [*batch]`."""
        z = _residual(self, x) * jnp.exp(-self.log_scale)
        return -0.5 * (jnp.sum(z * z) + z.size * LOG_2PI) - jnp.sum(self.log_scale)

    @per_sample
    def sample(self, key):
        """Draws `[*shape, D]`."""
        return self.mean + self.scale * jax.random.normal(key, self.offset.shape, self.offset.dtype)

    @weighted_events
    def e_step(self, x, weight):
        """`Moments` around the mean, and `log_prob [N]`."""
        return self._moments(_residual(self, x), weight), self.log_prob(x)

    @staticmethod
    def _moments(d, weight):
        first, second = (jnp.matmul(weight, v, precision=HIGHEST) for v in (d, d * d))
        return Moments(jnp.sum(weight), first, second)

    def m_step(self, statistics) -> DiagonalGaussian:
        """Weighted maximum likelihood, with `floor` added to the variances."""
        return self.maximize(statistics)[0]

    def maximize(self, statistics):
        """`m_step`, and 1 where it had to repair this density, else 0."""
        weight, first, second = statistics
        alive = _alive(weight)
        safe = jnp.where(alive, weight, 1.0)
        shift = first / safe
        variance = second / safe - shift * shift + self.floor
        lowest = jnp.maximum(self.floor, jnp.finfo(shift.dtype).tiny)
        regular = (variance > 0).all()
        log_scale = 0.5 * jnp.log(jnp.where(variance > 0, variance, lowest))
        offset = jnp.where(alive, self.offset + shift, self.offset)
        new = DiagonalGaussian(offset, jnp.where(alive, log_scale, self.log_scale), self.origin, self.floor)
        return new, (~(alive & regular)).astype(jnp.int32)

    def log_prob_components(self, x):
        """`[K, N]`, in one fused pass over the scaled residuals."""
        z = _residual(self, x) * jnp.exp(-self.log_scale)[:, None]
        constant = jnp.sum(self.log_scale, axis=-1)[:, None] + 0.5 * x.shape[-1] * LOG_2PI
        return -0.5 * jnp.sum(z * z, axis=-1) - constant

    def e_step_components(self, x, weight):
        """`Moments` of K components, leading axis K, from weights `[K, N]`."""
        return jax.vmap(self._moments)(_residual(self, x), weight)

    def distribution(self):
        """The distrax distribution."""
        return distrax().MultivariateNormalDiag(self.mean, self.scale)
