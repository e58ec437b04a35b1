"""Gaussian densities of independent coordinates, diagonal and spherical, with closed-form maximum likelihood."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import distrax
from jaxgen.core.inputs import concrete, floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import gaussians, scales
from jaxgen.ops.conjugate import NormalInverseWishart, broadcast_prior
from jaxgen.ops.coordinates import chosen_and_rest
from jaxgen.ops.gaussians import LOG_2PI, Moments, matmul
from jaxgen.ops.stable import has_mass


@model
class DiagonalGaussian:
    """The normal density with independent coordinates.

    `log p(x) = -sum_d ((x_d - mean_d) / scale_d)^2 / 2 - sum_d log scale_d - (D / 2) log 2 pi`

    Args:
        offset: `[D]`, the mean relative to `origin`.
        log_scale: `[D]`, logarithm of the standard deviations.
        origin: `[D]`, a point amid the data, never trained: data far from zero lose no digits to float32.
        floor: `[D]`, the smallest variances, units of x squared; never trained.
        prior: of means and variances, one for each coordinate, with a diagonal `scatter [D]`; None for maximum
            likelihood; never trained.
        spherical: all coordinates have the same variance.
        missing: NaN in an event is an entry that was not seen, and is integrated out.

    The M-step repairs: a component of no mass keeps its parameters; a variance below the floor becomes the floor (a
    spherical one, below the mean of the floors, that mean).

    Example:
        >>> g = DiagonalGaussian.from_values([0.0, 1.0], [1.0, 2.0])
        >>> round(float(g.log_prob(jnp.array([0.0, 1.0]))), 4)
        -2.531
    """

    offset: jax.Array
    log_scale: jax.Array
    origin: jax.Array = fixed()
    floor: jax.Array = fixed(default=0.0)
    prior: NormalInverseWishart | None = fixed(default=None)
    spherical: bool = static(default=False)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, floor=None, prior=None, spherical=False, missing=False) -> DiagonalGaussian:
        """The maximum-likelihood density of data `[N, D]`.

        Args:
            key: not used.
            x: measurements; NaN where `missing`.
            floor: one variance, or `[D]`; None is 1e-6 of each column's own squared scale (`ops.scales`).
            prior, spherical, missing: see the class.
        """
        x = scales.table(x, "DiagonalGaussian.init(key, x)", missing)
        origin, size = scales.columns(x)
        floor = scales.variance_floor(size, floor)
        zero = jnp.zeros_like(origin)
        start = cls(zero, 0.5 * jnp.log(jnp.where(floor > 0, floor, 1)), origin, floor, prior, spherical, missing)
        return start.m_step(start.e_step(x, jnp.ones(x.shape[0], x.dtype))[0])

    @classmethod
    def from_values(
        cls, mean, scale, *, floor=0.0, prior=None, spherical=False, missing=False
    ) -> DiagonalGaussian:
        """From means and standard deviations `[*K, D]`.

        Raises:
            ModelError: a scale that is not positive, or shapes that differ.
        """
        mean, scale = floating(mean, name="mean"), floating(scale, name="scale")
        if mean.shape != scale.shape or (concrete(scale) and not (scale > 0).all()):
            raise ModelError(
                "scales must be positive, one for each mean", called="DiagonalGaussian.from_values(mean, scale)",
                expected=f"positive, shape {list(mean.shape)}", got=f"shape {list(scale.shape)}: {scale}",
            )  # fmt: skip
        floor = jnp.broadcast_to(jnp.asarray(floor, mean.dtype), mean.shape)
        prior = broadcast_prior(prior, mean.shape[:-1])
        return cls(jnp.zeros_like(mean), jnp.log(scale), mean, floor, prior, spherical, missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.offset.shape

    @property
    def free_parameters(self) -> int:
        """Means and variances."""
        d = self.offset.shape[-1]
        return d + (1 if self.spherical else d)

    @property
    def mean(self) -> jax.Array:
        """`[*K, D]`, units of x."""
        return self.origin + self.offset

    @property
    def scale(self) -> jax.Array:
        """Standard deviations, `[*K, D]`, units of x."""
        return jnp.exp(self._log_scale)

    @property
    def variance(self) -> jax.Array:
        """`[*K, D]`, units of x squared."""
        return jnp.exp(2 * self._log_scale)

    @property
    def covariance(self) -> jax.Array:
        """`[*K, D, D]`, units of x squared."""
        return self.variance[..., None] * jnp.eye(self.offset.shape[-1], dtype=self.offset.dtype)

    @property
    def _log_scale(self):
        if not self.spherical:
            return self.log_scale
        # a gradient moves each coordinate's copy by its own share
        return jnp.broadcast_to(jnp.mean(self.log_scale, axis=-1, keepdims=True), self.log_scale.shape)

    def _residual(self, x):
        return (x - self.origin) - self.offset

    def check_data(self, x) -> None:
        """Refuses NaN, unless missing entries are allowed, and squares that overflow, with a DataError."""
        scales.seen_numbers(x, "DiagonalGaussian.check_data(x)", self.missing)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, D] -> [*batch]`."""
        z = self._residual(x) * jnp.exp(-self._log_scale)
        terms = -0.5 * (z * z + LOG_2PI) - self._log_scale
        return jnp.sum(jnp.where(jnp.isnan(x), 0, terms) if self.missing else terms)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, D] -> [*batch, D]`."""
        return ndtr(self._residual(x) / self.scale)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, D]`."""
        return self.mean + self.scale * ndtri(level)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, D]`."""
        return self.mean + self.scale * jax.random.normal(key, self.offset.shape, self.offset.dtype)

    @per_event
    def impute(self, x) -> jax.Array:
        """Events with what is missing (NaN) at its mean, `[*batch, D]`."""
        return jnp.where(jnp.isnan(x), self.mean, x)

    @weighted_events
    def e_step(self, x, weight=None):
        """`Moments` around the mean, and `log_prob [N]`."""
        return self._moments(x, weight), self.log_prob(x)

    def _moments(self, x, weight):
        """Moments of each coordinate; with missing entries each one's total weight is its own, `[D]`."""
        d, total = self._residual(x), jnp.sum(weight)
        if self.missing:
            seen = ~jnp.isnan(x)
            d, total = jnp.where(seen, d, 0), matmul(weight, seen.astype(weight.dtype))
        return Moments(total, matmul(weight, d), matmul(weight, d * d))

    def m_step(self, statistics) -> DiagonalGaussian:
        """The maximum of the weighted likelihood, or with a prior of the posterior, under `variance >= floor`."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where it had to repair this density, else 0."""
        weight, first, second = statistics
        weight = jnp.broadcast_to(weight, first.shape)
        if self.prior is None:
            alive = has_mass(weight)
            shift = first / jnp.where(alive, weight, 1.0)
            scatter, count = second - first * shift, weight
        else:
            alive, at, strength = jnp.ones(first.shape, bool), self._prior_mean(self.prior), self.prior.strength
            shift = (first + strength * at) / (weight + strength)
            scatter = second - shift * (2 * first - weight * shift) + strength * (shift - at) ** 2 + self.prior.scatter
            count = weight + self.prior.df + 3
        floor = self.floor
        if self.spherical:
            scatter, count = (jnp.broadcast_to(jnp.sum(a), a.shape) for a in (scatter, count))
            floor = jnp.mean(floor)
        counted = has_mass(count)
        variance = scatter / jnp.where(counted, count, 1)
        lowest = jnp.maximum(floor, jnp.finfo(shift.dtype).tiny)
        singular = counted & (variance < lowest)
        log_scale = jnp.where(counted, 0.5 * jnp.log(jnp.maximum(variance, lowest)), self.log_scale)
        offset = jnp.where(alive, self.offset + shift, self.offset)
        new = DiagonalGaussian(offset, log_scale, self.origin, self.floor, self.prior, self.spherical, self.missing)
        return new, jnp.any(~alive | singular).astype(jnp.int32)

    def _prior_mean(self, prior):
        return (prior.mean - self.origin) - self.offset

    def parameter_scales(self):
        """Means move in standard deviations."""
        return {"offset": self.scale}

    def freeze(self, statistics, frozen):
        """A frozen mean does not move: the variance is then taken around it."""
        still = 0.0 if self.prior is None else -self.prior.strength * self._prior_mean(self.prior)
        return statistics._replace(first=jnp.where(frozen.offset, still, statistics.first))

    def recentre(self, old, statistics):
        """Moments around the mean of `old` as moments around this one's."""
        return gaussians.shift_moments(statistics, (self.origin - old.origin) + (self.offset - old.offset))

    def log_prior(self):
        """Log density of the prior at these parameters, nats up to a constant; 0 without one."""
        if self.prior is None:
            return jnp.zeros((), self.log_scale.dtype)
        fit = self.prior.scatter + self.prior.strength * self._prior_mean(self.prior) ** 2
        return -jnp.sum((self.prior.df + 3) * self._log_scale + 0.5 * fit * jnp.exp(-2 * self._log_scale))

    columns = staticmethod(gaussians.diagonal_columns)

    def ready(self, center, events):
        """K components as a `Quadratic`, for so many events whose columns are taken around `center`."""
        mean = (self.origin - center) + self.offset
        return gaussians.Quadratic.diagonal(mean, self._log_scale, center, events)

    def log_prob_components(self, x):
        """`[K, N]`, in one fused pass over the scaled residuals."""
        if self.missing:
            return jax.lax.map(lambda one: one.log_prob(x), self)
        return gaussians.diagonal_log_prob(x, self.origin, self.offset, self._log_scale)

    def e_step_components(self, x, weight):
        """`Moments` of K components, leading axis K, from weights `[K, N]`."""
        if self.missing:
            return jax.lax.map(lambda pair: pair[0]._moments(x, pair[1]), (self, weight))
        return gaussians.diagonal_moments(x, self.origin, self.offset, weight)

    def normal_moments(self):
        """Mean and variances, `[D]` both, float64."""
        origin, offset, log_scale = (np.asarray(a, np.float64) for a in (self.origin, self.offset, self._log_scale))
        return origin + offset, np.exp(2 * log_scale)

    @compiled_by_trace
    def marginal(self, indices) -> DiagonalGaussian:
        """The density of some coordinates, those at `indices` (static), in their order."""
        chosen, _ = chosen_and_rest(indices, self.offset.shape[-1], "DiagonalGaussian.marginal(indices)")
        return self._part(chosen)

    @compiled_by_trace
    def condition(self, indices, values) -> DiagonalGaussian:
        """The density of the other coordinates; those at `indices` say nothing of them."""
        _, rest = chosen_and_rest(indices, self.offset.shape[-1], "DiagonalGaussian.condition(indices, values)")
        return self._part(rest)

    def _part(self, chosen):
        offset, log_scale, origin, floor = (
            a[..., chosen] for a in (self.offset, self._log_scale, self.origin, self.floor)
        )
        return DiagonalGaussian(offset, log_scale, origin, floor, None, self.spherical, self.missing)

    def distribution(self):
        """The distrax distribution."""
        return distrax().MultivariateNormalDiag(self.mean, self.scale)
