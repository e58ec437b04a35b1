"""Gaussian densities with a full covariance matrix, and closed-form maximum likelihood."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import distrax
from jaxgen.core.inputs import floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import gaussians, linalg, scales
from jaxgen.ops.conjugate import NormalInverseWishart, broadcast_prior
from jaxgen.ops.coordinates import chosen_and_rest
from jaxgen.ops.gaussians import LOG_2PI, Moments, check_covariance, checked_whitener, log_diagonal, matmul
from jaxgen.ops.stable import has_mass


def _of_one(method, model, *args):
    """A method for K models, on one."""
    out = method(*(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], a) for a in (model, *args)))
    return jax.tree.map(lambda leaf: leaf[0], out[0]), out[1]


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
        floor: `[D]`, the smallest variances, units of x squared: `cov >= diag(floor)`; never trained.
        prior: of mean and covariance, or None for maximum likelihood; never trained.
        tied: components of one mixture share their covariance.
        missing: NaN in an event is an entry that was not seen, and is integrated out, exactly.

    The M-step is the maximum under `cov >= diag(floor)`: in units in which the floor is one, eigenvalues below it are
    raised to it. It repairs: a component of no mass keeps its parameters; a covariance with raised eigenvalues
    (singular) counts as repaired.

    Source: Anderson and Olkin (1985), Maximum-likelihood estimation of the parameters of a multivariate normal
    distribution; Little and Rubin (2002), section 11.2, for missing entries.

    Example:
        >>> g = Gaussian.from_values([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]])
        >>> round(float(g.log_prob(jnp.array([0.0, 1.0]))), 4)
        -2.1177
        >>> g.covariance.round(4).tolist()
        [[2.0, 0.5], [0.5, 1.0]]
        >>> g.condition((0,), [2.0]).mean.tolist()
        [1.5]
    """

    offset: jax.Array
    raw: jax.Array
    origin: jax.Array = fixed()
    floor: jax.Array = fixed(default=0.0)
    prior: NormalInverseWishart | None = fixed(default=None)
    tied: bool = static(default=False)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, floor=None, prior=None, tied=False, missing=False) -> Gaussian:
        """The maximum-likelihood Gaussian of data `[N, D]`.

        With missing entries, what one step of EM makes of the means and variances of the columns.

        Args:
            key: not used.
            x: measurements; NaN where `missing`.
            floor: one variance, or `[D]`; None is 1e-6 of each column's own squared scale (`ops.scales`).
            prior, tied, missing: see the class.
        """
        x = scales.table(x, "Gaussian.init(key, x)", missing)
        origin, size = scales.columns(x)
        floor = scales.variance_floor(size, floor)
        scale = jnp.sqrt(jnp.maximum(jnp.nan_to_num(jnp.nanmean((x - origin) ** 2, axis=0)), floor))
        raw = jnp.diag(-jnp.log(jnp.where(scale > 0, scale, 1)))
        start = cls(jnp.zeros_like(origin), raw, origin, floor, prior, tied, missing)
        return start.m_step(start.e_step(x, jnp.ones(x.shape[0], x.dtype))[0])

    @classmethod
    def from_values(cls, mean, covariance, *, floor=0.0, prior=None, tied=False, missing=False) -> Gaussian:
        """From a mean `[*K, D]` and a covariance `[*K, D, D]`.

        Raises:
            ModelError: the covariance is not symmetric positive definite, or the shapes do not fit.
        """
        mean, covariance = floating(mean, name="mean"), floating(covariance, name="covariance")
        called = "Gaussian.from_values(mean, covariance)"
        check_covariance(mean, covariance, called)
        raw = checked_whitener(covariance, called)
        floor = jnp.broadcast_to(jnp.asarray(floor, mean.dtype), mean.shape)
        return cls(jnp.zeros_like(mean), raw, mean, floor, broadcast_prior(prior, mean.shape[:-1]), tied, missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.offset.shape

    @property
    def free_parameters(self) -> int:
        """Means, and the covariance's upper triangle."""
        d = self.offset.shape[-1]
        return d + d * (d + 1) // 2

    @property
    def free_parameters_components(self) -> int:
        """The number of free parameters of K components, which may share a covariance."""
        k, d = self.offset.shape
        return k * d + (1 if self.tied else k) * (d * (d + 1) // 2)

    @property
    def mean(self) -> jax.Array:
        """`[*K, D]`, units of x."""
        return self.origin + self.offset

    @property
    def variance(self) -> jax.Array:
        """The diagonal of the covariance, `[*K, D]`, units of x squared."""
        return jnp.diagonal(self.covariance, axis1=-2, axis2=-1)

    @property
    def whitener(self) -> jax.Array:
        """`W`, `[*K, D, D]` lower triangular with a positive diagonal."""
        diagonal = jnp.exp(jnp.diagonal(self.raw, axis1=-2, axis2=-1))
        return jnp.tril(self.raw, -1) + diagonal[..., None] * jnp.eye(self.raw.shape[-1], dtype=self.raw.dtype)

    @property
    @compiled
    def scale_tril(self) -> jax.Array:
        """The Cholesky factor of the covariance, `[*K, D, D]`."""
        return linalg.tril_inverse(self.whitener)

    @property
    @compiled
    def covariance(self) -> jax.Array:
        """`[*K, D, D]`, units of x squared."""
        factor = self.scale_tril
        return matmul(factor, jnp.swapaxes(factor, -1, -2))

    @property
    def _deviation(self):
        """Standard deviations, `[*K, D]`."""
        return jnp.linalg.norm(self.scale_tril, axis=-1)

    def _residual(self, x):
        # the data move to the origin first, where float32 is fine-grained
        return (x - self.origin) - self.offset

    def check_data(self, x) -> None:
        """Refuses NaN, unless missing entries are allowed, and squares that overflow, with a DataError."""
        scales.seen_numbers(x, "Gaussian.check_data(x)", self.missing)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, D] -> [*batch]`."""
        d, whitener = self._residual(x), self.whitener
        correction: Any = 0.0
        if self.missing:
            d, _, correction = gaussians.fill_missing(whitener, d)
        z = matmul(whitener, d)
        return -0.5 * (jnp.sum(z * z) + z.size * LOG_2PI) + jnp.trace(self.raw) + correction

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, D] -> [*batch, D]`."""
        return ndtr(self._residual(x) / self._deviation)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, D]`."""
        return self.mean + self._deviation * ndtri(level)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, D]`."""
        noise = jax.random.normal(key, self.offset.shape, self.offset.dtype)
        return self.mean + matmul(self.scale_tril, noise)

    @per_event
    def impute(self, x) -> jax.Array:
        """Events with what is missing (NaN) at its conditional mean given the rest, `[*batch, D]`."""
        return self.mean + gaussians.fill_missing(self.whitener, self._residual(x)).d

    @weighted_events
    def e_step(self, x, weight=None):
        """`Moments` around the mean, and `log_prob [N]`."""
        return self._moments(x, weight), self.log_prob(x)

    def _moments(self, x, weight):
        d = self._residual(x)
        uncertain: Any = 0.0
        if self.missing:
            d, covariance, _ = jax.vmap(lambda d: gaussians.fill_missing(self.whitener, d))(d)
            uncertain = jnp.tensordot(weight, covariance, 1, precision="highest")
        return Moments(jnp.sum(weight), matmul(weight, d), matmul((d * weight[:, None]).T, d) + uncertain)

    def m_step(self, statistics) -> Gaussian:
        """The maximum of the weighted likelihood, or with a prior of the posterior, under `cov >= diag(floor)`."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where it had to repair this density, else 0."""
        return _of_one(Gaussian.maximize_components, self, statistics)

    @compiled
    def maximize_components(self, statistics, mass=None):
        """`maximize` of K components; tied ones get the covariance that is best for all of them."""
        shift, scatter, count = jax.vmap(Gaussian._update)(self, statistics)
        alive = counted = has_mass(statistics.weight)
        if self.tied:
            scatter, count = (jnp.broadcast_to(jnp.sum(a, axis=0), a.shape) for a in (scatter, count))
            counted = jnp.broadcast_to(jnp.any(alive), alive.shape)
        if self.prior is not None:
            scatter, count = scatter + self.prior.scatter, count + self.prior.df + shift.shape[-1] + 1
        covariance = scatter / jnp.where(counted, count, 1)[:, None, None]
        whitener, singular = gaussians.floored_whitener(covariance, self.floor)
        offset = jnp.where(alive[:, None], self.offset + shift, self.offset)
        raw = jnp.where(counted[:, None, None], log_diagonal(whitener), self.raw)
        new = Gaussian(offset, raw, self.origin, self.floor, self.prior, self.tied, self.missing)
        return new, jnp.sum(~alive | (counted & singular)).astype(jnp.int32)

    def _update(self, statistics):
        """The mean's move, the scatter around the new mean and the events it stands for."""
        weight, first, second = statistics
        if self.prior is None:
            shift = first / jnp.where(has_mass(weight), weight, 1.0)
            return shift, second - jnp.outer(first, shift), weight
        strength, at = self.prior.strength, self._prior_mean(self.prior)
        shift = (first + strength * at) / (weight + strength)
        scatter = second - jnp.outer(first, shift) - jnp.outer(shift, first) + weight * jnp.outer(shift, shift)
        return shift, scatter + strength * jnp.outer(shift - at, shift - at), weight + 1

    def _prior_mean(self, prior):
        """The prior's mean relative to the mean."""
        return (prior.mean - self.origin) - self.offset

    def parameter_scales(self):
        """Scales of the mean and of W."""
        offset, raw = gaussians.whitener_scales(self.whitener)
        return {"offset": offset, "raw": raw}

    def freeze(self, statistics, frozen):
        """A frozen mean does not move: the covariance is then taken around it."""
        still = 0.0 if self.prior is None else -self.prior.strength * self._prior_mean(self.prior)
        return statistics._replace(first=jnp.where(frozen.offset, still, statistics.first))

    def recentre(self, old, statistics):
        """Moments around the mean of `old` as moments around this one's."""
        return gaussians.shift_moments(statistics, (self.origin - old.origin) + (self.offset - old.offset))

    def log_prior(self):
        """Log density of the prior at these parameters, nats up to a constant; 0 without one."""
        return self._log_prior_of_mean() + self._log_prior_of_covariance()

    def log_prior_components(self):
        """`log_prior` of K components, summed; a covariance that they share counts once."""
        of_mean = jnp.sum(jax.vmap(Gaussian._log_prior_of_mean)(self))
        of_covariance = jax.vmap(Gaussian._log_prior_of_covariance)(self)
        return of_mean + (of_covariance[0] if self.tied else jnp.sum(of_covariance))

    def _log_prior_of_mean(self):
        if self.prior is None:
            return jnp.zeros((), self.raw.dtype)
        z = matmul(self.whitener, self._prior_mean(self.prior))
        return jnp.trace(self.raw) - 0.5 * self.prior.strength * jnp.sum(z * z)

    def _log_prior_of_covariance(self):
        if self.prior is None:
            return jnp.zeros((), self.raw.dtype)
        fit = jnp.sum(matmul(self.whitener, self.prior.scatter) * self.whitener)
        return (self.prior.df + self.offset.shape[-1] + 1) * jnp.trace(self.raw) - 0.5 * fit

    columns = staticmethod(gaussians.full_columns)

    def ready(self, center, events):
        """K components as a `Quadratic`, for so many events whose columns are taken around `center`."""
        mean = (self.origin - center) + self.offset
        return gaussians.Quadratic.full(mean, self._shared().whitener, center, events)

    def _shared(self):
        """Tied components after a gradient step, which moves each copy of the covariance by its own share."""
        if not self.tied:
            return self
        raw = jnp.broadcast_to(jnp.mean(self.raw, axis=0), self.raw.shape)
        return Gaussian(self.offset, raw, self.origin, self.floor, self.prior, self.tied, self.missing)

    def log_prob_components(self, x):
        """`[K, N]`: residuals, whitened."""
        shared = self._shared()
        if self.missing:  # one component at a time: an event needs a matrix of its own
            return jax.lax.map(lambda one: one.log_prob(x), shared)
        return gaussians.full_log_prob(x, self.origin, self.offset, shared.whitener)

    def e_step_components(self, x, weight):
        """`Moments` of K components, leading axis K, from weights `[K, N]`."""
        if self.missing:
            return jax.lax.map(lambda pair: pair[0]._moments(x, pair[1]), (self._shared(), weight))
        return gaussians.full_moments(x, self.origin, self.offset, weight)

    def normal_moments(self):
        """Mean `[D]` and covariance `[D, D]`, float64."""
        raw = np.asarray(self.raw, np.float64)
        factor = np.linalg.inv(np.tril(raw, -1) + np.diag(np.exp(np.diag(raw))))
        return np.asarray(self.origin, np.float64) + np.asarray(self.offset, np.float64), factor @ factor.T

    @compiled_by_trace
    def marginal(self, indices) -> Gaussian:
        """The density of some coordinates, those at `indices` (static), in their order."""
        chosen, _ = chosen_and_rest(indices, self.offset.shape[-1], "Gaussian.marginal(indices)")
        raw = log_diagonal(linalg.inverse_cholesky(self.covariance[..., chosen, :][..., chosen]))
        return self._part(chosen, self.offset[..., chosen], raw, self.origin[..., chosen])

    @compiled_by_trace
    def condition(self, indices, values) -> Gaussian:
        """The density of the other coordinates given those at `indices` (static), `values [len(indices)]`.

        `mean_a|b = mean_a - P_aa^-1 P_ab (b - mean_b)`, `cov_a|b = P_aa^-1`, P the precision
        """
        chosen, rest = chosen_and_rest(indices, self.offset.shape[-1], "Gaussian.condition(indices, values)")
        if not len(rest):
            raise ModelError("no coordinate is left", called=f"Gaussian.condition({indices!r}, values)",
                             expected=f"fewer than {len(chosen)} indices", got=str(len(chosen)))  # fmt: skip
        values = jnp.asarray(values, self.offset.dtype)
        precision = matmul(jnp.swapaxes(self.whitener, -1, -2), self.whitener)
        inverse = linalg.inverse_cholesky(precision[..., rest, :][..., rest])
        covariance = matmul(jnp.swapaxes(inverse, -1, -2), inverse)
        d = (values - self.origin[..., chosen]) - self.offset[..., chosen]
        pull = jnp.sum(precision[..., rest, :][..., chosen] * d[..., None, :], axis=-1)
        shift = -jnp.sum(covariance * pull[..., None, :], axis=-1)
        raw = log_diagonal(linalg.inverse_cholesky(covariance))
        return self._part(rest, self.offset[..., rest] + shift, raw, self.origin[..., rest])

    def _part(self, chosen, offset, raw, origin):
        return Gaussian(offset, raw, origin, self.floor[..., chosen], None, self.tied, self.missing)

    def distribution(self):
        """The distrax distribution."""
        return distrax().MultivariateNormalTri(self.mean, self.scale_tril)
