"""A Gaussian seen through noise whose size is known for every event: extreme deconvolution."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import as_array, concrete, floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import linalg, scales
from jaxgen.ops.gaussians import (
    LOG_2PI,
    Moments,
    check_covariance,
    checked_whitener,
    floored_whitener,
    log_diagonal,
    matmul,
    shift_moments,
    whitener_scales,
)
from jaxgen.ops.stable import has_mass

#: EM steps of a start, from the covariance of the data with their noise
START_STEPS = 10


@model
class NoisyGaussian:
    """A Gaussian whose events are seen with errors of known size, another one for each event.

    `x_n = v_n + e_n`, `v_n ~ N(mean, cov)`, `e_n ~ N(0, S_n)`, so that `p(x_n) = N(x_n; mean, cov + S_n)`, with S_n
    the context of an event

    Args:
        offset: `[D]`, the mean relative to `origin`.
        raw: `[D, D]`, the inverse Cholesky factor W of the covariance below the diagonal and the logarithm of its
            diagonal on it; the rest is not used.
        origin: `[D]`, a point amid the data, never trained: data far from zero lose no digits to float32.
        floor: `[D]`, the smallest variances, units of x squared: `cov >= diag(floor)`; never trained.
        correlated: the context is the covariance of an event's errors, `[D, D]`; False: their standard deviations,
            `[D]`, which are independent.

    EM fits the density of what lies under the noise: an event's statistics are the posterior moments of its v. Where
    all noise is zero it is the exact maximum likelihood of a Gaussian; the larger the noise, the more steps it takes. A
    `Mixture` of these is extreme deconvolution. The M-step repairs as `Gaussian` does: a component of no mass keeps its
    parameters, eigenvalues of the covariance below the floor, in units in which that is one, are raised to it.

    Source: Bovy, Hogg and Roweis (2011), Extreme deconvolution.

    Example:
        >>> star = NoisyGaussian.from_values([0.0], [[3.0]])
        >>> round(float(star.log_prob(jnp.array([2.0]), context=jnp.array([1.0]))), 4)  # N(2; 0, 3 + 1)
        -2.1121
        >>> star.denoise(jnp.array([2.0]), context=jnp.array([1.0])).round(4).tolist()
        [1.5]
    """

    offset: jax.Array
    raw: jax.Array
    origin: jax.Array = fixed()
    floor: jax.Array = fixed(default=0.0)
    correlated: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, context, *, floor=None, correlated=False) -> NoisyGaussian:
        """Return a start from data `[N, D]` and their noise: ten steps of EM from the covariance of the data.

        Args:
            key: not used.
            x: measurements.
            context: of their errors, the standard deviations `[N, D]`, or where `correlated` covariances `[N, D, D]`.
            floor: one variance, or `[D]`; None is 1e-6 of each column's own squared scale (`ops.scales`).
            correlated: see the class.

        Raises:
            ShapeError: a context of another shape. DataError: errors of negative size.
        """
        called = "NoisyGaussian.init(key, x, context)"
        x = scales.table(as_array(x, name="x", called=called), called)
        context = as_array(context, name="context", called=called)
        noise = jnp.asarray(context).astype(x.dtype)
        wanted = (*x.shape, x.shape[1]) if correlated else x.shape
        if noise.shape != wanted:
            raise ShapeError(
                "the context is not the noise of these events", called=called, expected=f"shape {list(wanted)}",
                got=f"shape {list(noise.shape)}", fix="give each event its standard deviations, or its covariance",
            )  # fmt: skip
        if concrete(context):
            _check_sizes(context, correlated, called)
        origin, scale = scales.columns(x)
        floor = scales.variance_floor(scale, floor)
        spread = jnp.sqrt(jnp.maximum(jnp.mean((x - origin) ** 2, axis=0), scale**2))
        start = cls(jnp.zeros_like(origin), jnp.diag(-jnp.log(spread)), origin, floor, correlated)
        one = jnp.ones(len(x), x.dtype)
        return jax.lax.fori_loop(0, START_STEPS, lambda _, g: g.m_step(g.e_step(x, one, context=noise)[0]), start)

    @classmethod
    def from_values(cls, mean, covariance, *, floor=0.0, correlated=False) -> NoisyGaussian:
        """Return the density of means `[*K, D]` and covariances `[*K, D, D]` without noise.

        Raises:
            ModelError: a covariance that is not symmetric positive definite, or that does not fit the mean.
        """
        called = "NoisyGaussian.from_values(mean, covariance)"
        mean, covariance = floating(mean, name="mean"), floating(covariance, name="covariance")
        check_covariance(mean, covariance, called)
        raw = checked_whitener(covariance, called)
        floor = jnp.broadcast_to(jnp.asarray(floor, mean.dtype), mean.shape)
        return cls(jnp.zeros_like(mean), raw, mean, floor, correlated)

    event_shape = property(lambda self: self.offset.shape)
    context_shape = property(lambda self: self.offset.shape[-1:] * (2 if self.correlated else 1))
    mean = property(lambda self: self.origin + self.offset, doc="`[*K, D]`, units of x.")

    @property
    def variance(self) -> jax.Array:
        """The diagonal of the covariance, `[*K, D]`, units of x squared."""
        return jnp.diagonal(self.covariance, axis1=-2, axis2=-1)

    @property
    def free_parameters(self) -> int:
        """Means, and the covariance's upper triangle."""
        d = self.offset.shape[-1]
        return d + d * (d + 1) // 2

    @property
    def whitener(self) -> jax.Array:
        """`W`, `[*K, D, D]` lower triangular with a positive diagonal: the inverse of a root of the covariance."""
        diagonal = jnp.exp(jnp.diagonal(self.raw, axis1=-2, axis2=-1))
        return jnp.tril(self.raw, -1) + diagonal[..., None] * jnp.eye(self.raw.shape[-1], dtype=self.raw.dtype)

    @property
    @compiled
    def covariance(self) -> jax.Array:
        """Without noise, `[*K, D, D]`, units of x squared."""
        factor = linalg.tril_inverse(self.whitener)
        return matmul(factor, jnp.swapaxes(factor, -1, -2))

    def check_data(self, x) -> None:
        """Refuse NaN, and squares that overflow, with a DataError."""
        called = "NoisyGaussian.check_data(x)"
        scales.seen_numbers(as_array(x, name="x", called=called), called)

    def check_context(self, context) -> None:
        """Refuse negative deviations, or variances, with a DataError."""
        _check_sizes(context, self.correlated, "NoisyGaussian.check_context(context)")

    def _residual(self, x):
        return (x - self.origin) - self.offset

    def _noise(self, context):
        """Return the covariances of the errors of events `[*batch, D, D]`."""
        noise = context.astype(self.raw.dtype)
        return noise if self.correlated else noise[..., None] ** 2 * jnp.eye(noise.shape[-1], dtype=noise.dtype)

    def _scored(self, d, whitener):
        z = matmul(whitener, d[..., None])[..., 0]
        log_det = jnp.sum(jnp.log(jnp.diagonal(whitener, axis1=-2, axis2=-1)), axis=-1)
        return z, log_det - 0.5 * (jnp.sum(z * z, axis=-1) + d.shape[-1] * LOG_2PI)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Return nats, `[*batch, D] -> [*batch]`."""
        return self._scored(self._residual(x), linalg.inverse_cholesky(self.covariance + self._noise(context)))[1]

    @per_event
    def denoise(self, x, *, context=None):
        """Return the posterior means of events without their noise, `E[v | x]`, `[*batch, D]`."""
        whitener = linalg.inverse_cholesky(self.covariance + self._noise(context))
        z, _ = self._scored(self._residual(x), whitener)
        return self.mean + matmul(self.covariance, matmul(whitener.T, z))

    def _seen_scale(self, context):
        """Return standard deviations of what is seen of one event, `[D]`."""
        return jnp.sqrt(self.variance + jnp.diagonal(self._noise(context), axis1=-2, axis2=-1))

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate seen through its noise, `[*batch, D] -> [*batch, D]`."""
        return ndtr(self._residual(x) / self._seen_scale(context))

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate seen through its noise, levels `[*batch] -> [*batch, D]`."""
        return self.mean + self._seen_scale(context) * ndtri(level)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Return draws with their noise, `[*shape, D]`."""
        normal = jax.random.normal(key, self.offset.shape, self.offset.dtype)
        whitener = linalg.inverse_cholesky(self.covariance + self._noise(context))
        return self.mean + matmul(linalg.tril_inverse(whitener), normal)

    @weighted_events
    def e_step(self, x, weight=None, *, context=None):
        """Return `Moments` of the events without noise, around the mean, and `log_prob [N]`."""
        covariance, noise = self.covariance, self._noise(context)
        whitener = linalg.inverse_cholesky(covariance + noise)
        z, log_prob = self._scored(self._residual(x), jnp.broadcast_to(whitener, (len(x), *whitener.shape[-2:])))
        gain = matmul(covariance, jnp.swapaxes(whitener, -1, -2))
        d = matmul(gain, z[..., None])[..., 0]
        # cov - cov (cov + S)^-1 cov, in a form that does not cancel where S is small
        left = matmul(gain, matmul(whitener, noise))
        left = jnp.broadcast_to(left, (len(x), *left.shape[-2:]))
        second = matmul((d * weight[:, None]).T, d) + jnp.tensordot(weight, left, 1, precision="highest")
        return Moments(jnp.sum(weight), matmul(weight, d), 0.5 * (second + second.T)), log_prob

    def m_step(self, statistics) -> NoisyGaussian:
        """Return the maximum of the expected likelihood, under `cov >= diag(floor)`."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """Return `m_step`, and 1 where it had to repair this density, else 0."""
        weight, first, second = statistics
        alive = has_mass(weight)
        shift = first / jnp.where(alive, weight, 1)
        covariance = (second - jnp.outer(first, shift)) / jnp.where(alive, weight, 1)
        whitener, singular = floored_whitener(covariance[None], self.floor[None])
        new = dataclasses.replace(
            self, offset=jnp.where(alive, self.offset + shift, self.offset),
            raw=jnp.where(alive, log_diagonal(whitener[0]), self.raw),
        )  # fmt: skip
        return new, (~alive | singular[0]).astype(jnp.int32)

    def parameter_scales(self):
        """Scales of the mean and of W."""
        offset, raw = whitener_scales(self.whitener)
        return {"offset": offset, "raw": raw}

    def freeze(self, statistics, frozen):
        """Return moments whose covariance is taken around a mean that is frozen."""
        return statistics._replace(first=jnp.where(frozen.offset, 0, statistics.first))

    def recentre(self, old, statistics):
        """Return moments around the old mean as moments around this one."""
        return shift_moments(statistics, (self.origin - old.origin) + (self.offset - old.offset))


def _check_sizes(context, correlated, called):
    own = np.diagonal(context, axis1=-2, axis2=-1) if correlated else np.asarray(context)
    if (own < 0).any():
        raise DataError(
            f"the {'variances' if correlated else 'standard deviations'} of errors are negative", called=called,
            expected="0 or more; 0 for an event without error", got=f"{(own < 0).sum()} of {own.size} below 0",
            fix="give each event the size of its errors, which has no sign",
        )  # fmt: skip
