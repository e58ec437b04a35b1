"""A Gaussian with a posterior over its mean and precision: what Bayesian mixtures are made of.

A model here is a posterior density q of parameters, with its prior in fixed fields. Its M-step is the conjugate update,
its E-step sees expected log-densities, and the sum of what the E-step returns and of `log_prior()`, which is
`-KL(q || prior)`, is (a lower bound on) the log evidence. `log_prob` and `sample` are the posterior predictive density.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import as_array, concrete, floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model
from jaxgen.ops import linalg, scales, wishart
from jaxgen.ops.gaussians import log_diagonal, ridge, whitener_scales
from jaxgen.ops.tails import student_cdf, student_quantile

HIGHEST = jax.lax.Precision.HIGHEST
#: ridge on the default scatter of data in which a column is constant or follows from others, as a share of variances
RIDGE = 1e-6


class Moments(NamedTuple):
    """Weighted moments around the old posterior mean: total weight, first and second moment."""

    weight: jax.Array
    first: jax.Array
    second: jax.Array


def _product(a, b):
    return jnp.matmul(a, b, precision=HIGHEST)


def _diagonal(matrix):
    return jnp.diagonal(matrix, axis1=-2, axis2=-1)


def _triangle(lower, diagonal):
    """A lower triangular matrix from what is below the diagonal and what is on it."""
    return jnp.tril(lower, -1) + diagonal[..., None] * jnp.eye(lower.shape[-1], dtype=lower.dtype)


def _positive(scatter, diagonal):
    """True for symmetric positive definite matrices, or positive numbers, on the host."""
    if diagonal:
        return (scatter > 0).all()
    with jax.ensure_compile_time_eval():  # a mixture's start may be being traced
        alike = bool(linalg.symmetric(jnp.asarray(scatter)))
    return alike and (np.linalg.eigvalsh(scatter) > 0).all()


def _spread(x, size, diagonal):
    """The sample covariance of centred data `[N, D]`, or its diagonal; made regular by a ridge only where it is not.

    The ridge is relative to a column's own variance, to its size `[D]` where it does not vary.
    """
    n, d = x.shape
    covariance = _product(x.T, x) / max(n - 1, 1)
    variance = _diagonal(covariance)
    eps = float(jnp.finfo(x.dtype).eps)
    # half the digits for the ridge, half for what is above it
    ridge = max(RIDGE, eps**0.5) * jnp.where(variance > 0, variance, size**2)
    if diagonal:
        return jnp.where(variance > 0, variance, ridge)
    # a pivot that is all rounding is no variance
    pivot = _diagonal(linalg.cholesky(covariance)) ** 2
    regular = jnp.all(pivot > 10 * d * eps * variance)
    return jnp.where(regular, covariance, covariance + jnp.diag(ridge))


@model
class NormalWishart:
    """A Gaussian whose mean and precision are not known: their normal-Wishart posterior.

    `q(mu, L) = N(mu | mean, (strength L)^-1) Wishart(L | S^-1, df)`

    The predictive density is a Student-t with `df - D + 1` degrees of freedom. One step of `EM` on data is the
    exact posterior, and its next `objective` their exact log evidence per event. With a diagonal scatter S it is the
    best of that form (scikit-learn's `diag`), and the objective a lower bound.

    Args:
        offset: `[D]`, the mean relative to `origin`.
        raw: `[D, D]`, the lower triangular `W` with `W^T W = E[L] = df S^-1` and the logarithm of its diagonal; or
            `[D]`, the logarithm of a diagonal one.
        log_strength: scalar, of the mean, in events.
        log_excess: scalar, `log(df - (D - 1))`.
        origin: `[D]`, a point amid the data: data far from zero lose no digits to float32.
        prior_offset: `[D]`, the prior mean relative to `origin`.
        prior_tril: the Cholesky factor of the prior's S, `[D, D]`, or `[D]`.
        prior_strength, prior_excess: scalars, as above.

    Fields named prior, and the origin, never train. The M-step repairs: a scatter without a Cholesky factor keeps only
    its diagonal. No mass is no repair: the posterior is then the prior.

    Source: Bishop (2006), Pattern Recognition and Machine Learning, section 10.2.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [2.0]])
        >>> posterior = NormalWishart.init(jax.random.key(0), x)
        >>> round(float(posterior.strength), 4), round(float(posterior.df), 4)
        (4.0, 4.0)
        >>> posterior.mean.tolist(), posterior.covariance.round(4).tolist()
        ([1.0], [[0.75]])
    """

    offset: jax.Array
    raw: jax.Array
    log_strength: jax.Array
    log_excess: jax.Array
    origin: jax.Array = fixed()
    prior_offset: jax.Array = fixed()
    prior_tril: jax.Array = fixed()
    prior_strength: jax.Array = fixed()
    prior_excess: jax.Array = fixed()

    @classmethod
    def init(cls, key, x, *, mean=None, strength=1.0, df=None, scatter=None) -> NormalWishart:
        """The posterior of data `[N, D]` with a full scatter; priors not given are those of scikit-learn.

        Args:
            key: not used.
            x: events `[N, D]`.
            mean: `[D]`, the prior mean; None is that of the data.
            strength: of the prior mean, in events.
            df: of freedom of the prior, above D - 1; None is D.
            scatter: `[D, D]`, about `df` times the covariance that is expected of a component; None is the data's
                covariance.

        Raises:
            ModelError: values that make no prior. ShapeError: data that are not `[N, D]`.
        """
        return cls._init(x, mean, strength, df, scatter, False)

    @classmethod
    def init_diagonal(cls, key, x, *, mean=None, strength=1.0, df=None, scatter=None) -> NormalWishart:
        """As `init` with a diagonal scatter, `[D]`; None is the data's variances."""
        return cls._init(x, mean, strength, df, scatter, True)

    @classmethod
    def _init(cls, x, mean, strength, df, scatter, diagonal):
        x = floating(x)
        if x.ndim != 2:
            raise ShapeError(
                "events of a Gaussian are vectors", called="NormalWishart.init(key, x)", expected="x [N, D]",
                got=f"shape {list(x.shape)}", fix="np.reshape(x, (len(x), -1))",
            )  # fmt: skip
        origin = x[0] + jnp.mean(x - x[0], axis=0)
        given = None if scatter is None else as_array(scatter, name="scatter")
        if given is not None and given.ndim != (1 if diagonal else 2):
            raise ModelError(
                "the scatter has another form than the posterior", called="NormalWishart.init(key, x, scatter=...)",
                expected="[D]" if diagonal else "[D, D]", got=f"shape {list(given.shape)}",
                fix="init takes a matrix, init_diagonal a vector",
            )  # fmt: skip
        given = _spread(x - origin, scales.columns(x).scale, diagonal) if given is None else given
        prior = cls.from_values(origin if mean is None else mean, given, strength=strength, df=df)
        # moments around the data, wherever the prior has its mean
        start = dataclasses.replace(prior, origin=origin, prior_offset=prior.origin - origin)
        return start.m_step(start.e_step(x, jnp.ones(x.shape[0], x.dtype))[0])

    @classmethod
    def from_values(cls, mean, scatter, *, strength=1.0, df=None) -> NormalWishart:
        """A posterior that has seen nothing: the prior itself, as fields that train and as those that do not.

        Args:
            mean: `[*K, D]`.
            scatter: S, `[*K, D, D]`, or `[*K, D]` for a diagonal one.
            strength: positive, `[*K]` or one number.
            df: above D - 1, `[*K]` or one number; None is D.

        Raises:
            ModelError: a scatter that is not symmetric positive definite, numbers out of range, shapes that do not fit.

        Example:
            >>> NormalWishart.from_values([0.0, 0.0], [2.0, 4.0], df=2.0).covariance.round(4).tolist()
            [1.0, 2.0]
        """
        called = "NormalWishart.from_values(mean, scatter, strength=..., df=...)"
        mean = floating(mean, name="mean")
        scatter = as_array(scatter, name="scatter")
        d = mean.shape[-1] if mean.ndim else 0
        if not d or scatter.shape not in (mean.shape, (*mean.shape, d)):
            raise ModelError(
                "the scatter does not fit the mean", called=called,
                got=f"mean {list(mean.shape)}, scatter {list(scatter.shape)}",
                expected="mean [*K, D], scatter [*K, D, D] or [*K, D]",
            )  # fmt: skip
        diagonal = scatter.ndim == mean.ndim
        df = d if df is None else df
        # values that can be seen are checked, also while a mixture's start is being compiled
        known = concrete(strength, df)
        if known and not (np.all(np.asarray(strength) > 0) and np.all(np.asarray(df) > d - 1)):
            raise ModelError(
                "a prior out of range", called=called, expected=f"strength > 0, df > {d - 1} (D - 1)",
                got=f"strength {strength}, df {df}", fix=f"strength, df = (1.0, {d})",
            )  # fmt: skip
        if concrete(scatter) and not _positive(np.asarray(scatter, np.float64), diagonal):
            raise ModelError(
                "the scatter is not symmetric positive definite", called=called,
                fix="np.maximum(scatter, 1e-6)" if diagonal else ridge("scatter", scatter),
                expected="a positive definite matrix, or positive numbers", got=f"{scatter}"[:200],
            )  # fmt: skip
        strength, df = (jnp.broadcast_to(jnp.asarray(v, mean.dtype), mean.shape[:-1]) for v in (strength, df))
        scatter = jnp.asarray(scatter, mean.dtype)
        tril = jnp.sqrt(scatter) if diagonal else linalg.cholesky(scatter)
        root = jnp.sqrt(df)[..., None]
        raw = jnp.log(root / tril) if diagonal else log_diagonal(root[..., None] * linalg.tril_inverse(tril))
        excess = df - (d - 1)
        zero = jnp.zeros_like(mean)
        return cls(zero, raw, jnp.log(strength), jnp.log(excess), mean, zero, tril, strength, excess)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.offset.shape

    @property
    def diagonal(self) -> bool:
        """True for a posterior whose scatter is diagonal."""
        return len(self.raw.shape) == len(self.offset.shape)

    @property
    def free_parameters(self) -> int:
        """The number of free parameters of the Gaussian that the posterior is about: its mean and covariance."""
        d = self.offset.shape[-1]
        return 2 * d if self.diagonal else d + d * (d + 1) // 2

    @property
    def mean(self) -> jax.Array:
        """Posterior mean of the mean, `[*K, D]`, units of x."""
        return self.origin + self.offset

    @property
    def strength(self) -> jax.Array:
        """Events that the mean rests on, `[*K]`."""
        return jnp.exp(self.log_strength)

    @property
    def df(self) -> jax.Array:
        """Degrees of freedom, `[*K]`."""
        return jnp.exp(self.log_excess) + (self.offset.shape[-1] - 1)

    @property
    def scatter(self) -> jax.Array:
        """S, `df` times the covariance, `[*K, D, D]` or `[*K, D]`, units of x squared."""
        return self.covariance * self.df[(..., *[None] * (1 if self.diagonal else 2))]

    @property
    def whitener(self) -> jax.Array:
        """`W`, `[*K, D, D]` lower triangular with a positive diagonal, or `[*K, D]`; `W^T W` is the mean precision."""
        return jnp.exp(self.raw) if self.diagonal else _triangle(self.raw, jnp.exp(_diagonal(self.raw)))

    @property
    def scale_tril(self) -> jax.Array:
        """The inverse of `W`: the Cholesky factor of `covariance`, `[*K, D, D]`, or its root, `[*K, D]`."""
        return jnp.exp(-self.raw) if self.diagonal else linalg.tril_inverse(self.whitener)

    @property
    def covariance(self) -> jax.Array:
        """The inverse of the posterior mean precision, `[*K, D, D]`, or its diagonal, `[*K, D]`; units of x squared."""
        factor = self.scale_tril
        return factor**2 if self.diagonal else _product(factor, jnp.swapaxes(factor, -1, -2))

    @property
    def _log_det(self):
        """The log-determinant of the whitener, `[*K]`."""
        return jnp.sum(self.raw if self.diagonal else _diagonal(self.raw), axis=-1)

    def _whiten(self, v):
        """`W v` of vectors `[*K, ..., D]`."""
        if not self.diagonal:
            return _product(v, jnp.swapaxes(self.whitener, -1, -2))
        batch = self.raw.ndim - 1
        return v * self.whitener.reshape((*self.raw.shape[:-1], *(1,) * (v.ndim - 1 - batch), self.raw.shape[-1]))

    def _residual(self, x):
        """`x - mean`: of one model and x `[..., D]`, or `[K, N, D]` of K models and x `[N, D]`."""
        batched = self.origin.ndim == 2
        origin, offset = (v[:, None] if batched else v for v in (self.origin, self.offset))
        return (x - origin) - offset

    def _distance(self, x):
        z = self._whiten(self._residual(x))
        return jnp.sum(z * z, axis=-1)

    def _predictive(self, distance):
        """Log density at squared distances `[*K, ...]`."""
        values = (self._log_det, self.strength, jnp.exp(self.log_excess))
        log_det, strength, df = (v.reshape(v.shape + (1,) * (distance.ndim - v.ndim)) for v in values)
        return wishart.log_student(distance, log_det, strength, df, self.offset.shape[-1])

    def _expected(self, distance):
        values = (self._log_det, self.strength, self.df)
        log_det, strength, df = (v.reshape(v.shape + (1,) * (distance.ndim - v.ndim)) for v in values)
        return wishart.expected_log_normal(distance, log_det, strength, df, self.offset.shape[-1])

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """The posterior predictive density: nats, `[*batch, D] -> [*batch]`."""
        return self._predictive(self._distance(x))

    @per_event
    def step_log_prob(self, x) -> jax.Array:
        """`E_q log N(x | mu, L^-1)`: nats, `[*batch, D] -> [*batch]`."""
        return self._expected(self._distance(x))

    @property
    def _predictive_scales(self):
        """Scales of the coordinates of the predictive t density by themselves, `[D]`."""
        factor = self.scale_tril if self.diagonal else jnp.linalg.norm(self.scale_tril, axis=-1)
        return factor * jnp.sqrt(self.df * (1 + 1 / self.strength) / jnp.exp(self.log_excess))

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate of the predictive density, `[*batch, D] -> [*batch, D]`."""
        return student_cdf(self._residual(x) / self._predictive_scales, jnp.exp(self.log_excess))

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate of the predictive density, levels `[*batch] -> [*batch, D]`."""
        z = student_quantile(level, jnp.exp(self.log_excess))
        return self.mean + self._predictive_scales * z

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws of the posterior predictive density, `[*shape, D]`."""
        first, second = jax.random.split(key)
        noise = jax.random.normal(first, self.offset.shape, self.offset.dtype)
        noise = self.scale_tril * noise if self.diagonal else _product(self.scale_tril, noise)
        excess = jnp.exp(self.log_excess)
        # log: a chi-square of few degrees of freedom can be smaller than the smallest number
        log_chi = math.log(2) + jax.random.loggamma(second, 0.5 * excess, dtype=self.offset.dtype)
        return self.mean + noise * jnp.exp(0.5 * (jnp.log(self.df * (1 + 1 / self.strength)) - log_chi))

    @weighted_events
    def e_step(self, x, weight=None):
        """`Moments` around the posterior mean, and `step_log_prob [N]`."""
        return self._moments(self._residual(x), weight), self.step_log_prob(x)

    def _moments(self, d, weight):
        second = _product(weight, d * d) if self.diagonal else _product((d * weight[:, None]).T, d)
        return Moments(jnp.sum(weight), _product(weight, d), second)

    def m_step(self, statistics) -> NormalWishart:
        """The posterior given the statistics: the prior, updated."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where it had to repair this posterior, else 0."""
        weight, first, second = statistics
        square = (lambda v: v * v) if self.diagonal else (lambda v: jnp.outer(v, v))
        strength, excess = self.prior_strength + weight, self.prior_excess + weight
        pull = self.prior_offset - self.offset
        shift = (self.prior_strength * pull + first) / strength
        prior = square(self.prior_tril) if self.diagonal else _product(self.prior_tril, self.prior_tril.T)
        df = excess + (len(shift) - 1)
        # in this order: the update itself, then its two small corrections
        covariance = (prior + (second + (self.prior_strength * square(pull) - strength * square(shift)))) / df
        if self.diagonal:
            regular = jnp.asarray(True)
            # the exact update is never below the prior
            raw = -0.5 * jnp.log(jnp.maximum(covariance, prior / df))
        else:
            whitener = linalg.inverse_cholesky(covariance)
            regular = jnp.isfinite(whitener).all()
            alone = jnp.maximum(_diagonal(covariance), _diagonal(prior) / df)
            raw = jnp.where(regular, log_diagonal(whitener), jnp.diag(-0.5 * jnp.log(alone)))
        new = dataclasses.replace(
            self, offset=self.offset + shift, raw=raw, log_strength=jnp.log(strength), log_excess=jnp.log(excess)
        )
        return new, (~regular).astype(jnp.int32)

    def log_prior(self):
        """`-KL(q || prior)`, nats."""
        d = self.offset.shape[-1]
        pull = self._whiten(self.offset - self.prior_offset)
        tril = self.prior_tril
        spread = self.whitener * tril if self.diagonal else _product(self.whitener, tril)
        prior_log_det = -jnp.sum(jnp.log(tril if self.diagonal else _diagonal(tril)))
        return -wishart.kl_normal_wishart(
            jnp.sum(pull * pull), jnp.sum(spread * spread), self._log_det, prior_log_det, self.strength,
            self.prior_strength, self.df, self.prior_excess + (d - 1), d,
        )  # fmt: skip

    def parameter_scales(self):
        """Scales of the mean and of W."""
        if self.diagonal:
            return {"offset": 1 / self.whitener}
        offset, raw = whitener_scales(self.whitener)
        return {"offset": offset, "raw": raw}

    def freeze(self, statistics, frozen):
        """A frozen mean does not move: the scatter is then taken around it."""
        still = -self.prior_strength * (self.prior_offset - self.offset)
        return statistics._replace(first=jnp.where(frozen.offset, still, statistics.first))

    def recentre(self, old, statistics):
        """`Moments` around the mean of `old`, moved to the own mean."""
        weight, first, second = statistics
        move = (old.origin - self.origin) + (old.offset - self.offset)
        if self.diagonal:
            return Moments(weight, first + weight * move, second + move * (2 * first + weight * move))
        cross = jnp.outer(first + 0.5 * weight * move, move)
        return Moments(weight, first + weight * move, second + cross + cross.T)

    def log_prob_components(self, x):
        """`[K, N]`: residuals whitened by one batched matrix product."""
        return self._predictive(self._distance(x))

    def step_log_prob_components(self, x):
        """`step_log_prob` of K components, `[K, N]`."""
        return self._expected(self._distance(x))

    def e_step_components(self, x, weight):
        """`Moments` of K components, leading axis K, from weights `[K, N]`."""
        return jax.vmap(type(self)._moments)(self, self._residual(x), weight)

    def distribution(self):
        """The posterior predictive density as a distrax distribution."""
        return as_distribution(self)
