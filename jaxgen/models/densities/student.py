"""The multivariate Student t density: a Gaussian with tails, whose M-step outliers do not move."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import concrete, floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import linalg, scales
from jaxgen.ops.gaussians import (
    LOG_2PI,
    fill_missing,
    floored_whitener,
    log_diagonal,
    matmul,
    raw_whitener,
    ridge,
    whitener_scales,
)
from jaxgen.ops.stable import has_mass
from jaxgen.ops.tails import student_cdf, student_quantile

#: where the M-step looks for degrees of freedom: draws of less leave float32 too often, and more is a Gaussian (the
#: log-densities differ by less than (D + 1)^2 / 4 df near the bulk)
DF_RANGE = (0.1, 1e4)
#: where a fit starts: tails heavy enough to see outliers, light enough not to call all events outliers
DF_START = 10.0
#: M-steps that a start makes from a diagonal scale, at the degrees of freedom that it starts with
START_STEPS = 10


class StudentStatistics(NamedTuple):
    """Sums over events of weight w, with the precision `u = E[tau | x]` that an event's latent scale gives it.

    Args:
        weight: `sum w`.
        precision: `sum w u`.
        first: `sum w u d`, `[D]`, d the distance to the old location.
        second: `sum w E[tau d d^T | x]`, `[D, D]`.
        spread: `sum w (E[log tau | x] - u + 1)`, at most zero: all that the degrees of freedom depend on.
    """

    weight: jax.Array
    precision: jax.Array
    first: jax.Array
    second: jax.Array
    spread: jax.Array


def _log_gamma_ratio(a, h):
    """`log Gamma(a + h) - log Gamma(a) - h log a`, zero in the limit of large a, without cancelling there.

    The recurrence carries both arguments beyond 8, where six terms of Stirling's series are exact to float64 rounding.
    """
    z = a + 8
    series = lambda z: _polynomial(1 / z, (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360))  # noqa: E731
    stirling = (z + h - 0.5) * jnp.log1p(h / z) - h + series(z + h) - series(z)
    return stirling + h * jnp.log1p(8 / a) - sum(jnp.log1p(h / (a + i)) for i in range(8))


def _digamma_gap(a):
    """`log a - digamma(a)`, positive, falling as `1 / 2a`: digits kept at every size."""
    z = a + 8
    series = _polynomial(1 / z, (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760)) / z
    return sum(1 / (a + i) for i in range(8)) - jnp.log1p(8 / a) + 0.5 / z + series


def _polynomial(y, coefficients):
    """`sum_k c_k y^(2k + 1)`."""
    total = 0.0
    for c in reversed(coefficients):
        total = total * y * y + c
    return total * y


def _invert_gap(gap, low, high):
    """The a from low to high whose `_digamma_gap` is nearest to `gap`: it falls with a, so halving always finds it."""

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        above = _digamma_gap(jnp.exp(middle)) > gap
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    bracket = tuple(jnp.broadcast_to(jnp.log(end), gap.shape).astype(gap.dtype) for end in (low, high))
    low, high = jax.lax.fori_loop(0, 30 if gap.dtype == jnp.float32 else 56, halve, bracket)
    return jnp.exp((low + high) / 2)


@model
class StudentT:
    """The multivariate Student t density with a full scale matrix: heavy tails, down to Cauchy's and below.

    `log p(x) = log Gamma((df + D) / 2) - log Gamma(df / 2) - (D / 2) log(pi df) + log det W
    - ((df + D) / 2) log(1 + |W (x - location)|^2 / df)`, with `W` lower triangular and `W S W^T = I` for the scale
    matrix S

    It is a Gaussian of covariance `S / tau`, with `tau ~ Gamma(df / 2, df / 2)` an event's own precision. EM takes
    tau as what is not seen: far events count less. The M-step is that of the model in which tau also has a scale, to be
    scaled away afterwards: as safe as EM (no step decreases the likelihood), in fewer steps.

    Args:
        offset: `[D]`, the location relative to `origin`.
        raw: `[D, D]`, `W` below the diagonal and the logarithm of its diagonal on it; the rest is not used.
        log_df: scalar, logarithm of the degrees of freedom; the M-step keeps them from 0.1 to 1e4.
        origin: `[D]`, a point amid the data, never trained: data far from zero lose no digits to float32.
        floor: `[D]`, in units of x squared, `S >= diag(floor)` in every direction; never trained.
        missing: NaN entries of an event were not seen, and are marginalised exactly: what is left of an event has a
            t density with the same df.

    The M-step repairs: a component of no mass, or whose squares overflow, keeps its parameters; in units in which the
    floor is one, eigenvalues of S below it are raised to it. Events of which nothing was seen have no mass.
    There is no prior.

    Source: Liu and Rubin (1995), ML estimation of the t distribution using EM and its extensions, ECM and ECME;
    Liu, Rubin and Wu (1998), Parameter expansion to accelerate EM, section 4 (the step used here).

    Example:
        >>> t = StudentT.from_values([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]], 3.0)
        >>> round(float(t.log_prob(jnp.array([0.0, 1.0]))), 4)
        -2.1177
        >>> t.scale_matrix.round(4).tolist(), round(float(t.df), 4)
        ([[2.0, 0.5], [0.5, 1.0]], 3.0)
    """

    offset: jax.Array
    raw: jax.Array
    log_df: jax.Array
    origin: jax.Array = fixed()
    floor: jax.Array = fixed(default=0.0)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, df=DF_START, floor=None, missing=False) -> StudentT:
        """A start from data `[N, D]`: location and scale matrix at given tails, which no outlier sets.

        Args:
            key: not used.
            x: measurements; NaN where `missing`.
            df: degrees of freedom to start from.
            floor: of its diagonal, one number or `[D]`; None is 1e-6 of each column's own squared scale (`ops.scales`).
            missing: see the class.
        """
        x = scales.table(x, "StudentT.init(key, x)", missing)
        center, scale = scales.columns(x)
        zero, log_df = jnp.zeros_like(center), jnp.log(jnp.asarray(df, x.dtype))
        start = cls(zero, jnp.diag(-jnp.log(scale)), log_df, center, scales.variance_floor(scale, floor), missing)
        one = jnp.ones(x.shape[0], x.dtype)
        step = lambda _, t: dataclasses.replace(t.m_step(t.e_step(x, one)[0]), log_df=log_df)  # noqa: E731
        return jax.lax.fori_loop(0, START_STEPS, step, start)

    @classmethod
    def from_values(cls, location, scale_matrix, df, *, floor=0.0, missing=False) -> StudentT:
        """From locations `[*K, D]`, scale matrices `[*K, D, D]` and degrees of freedom `[*K]` or one for all.

        The covariance is `scale_matrix df / (df - 2)`, where df exceeds 2.

        Raises:
            ModelError: a scale matrix that is not symmetric positive definite, df that is not positive, or shapes that
                differ.
        """
        location, scale_matrix = floating(location, name="location"), floating(scale_matrix, name="scale_matrix")
        called = "StudentT.from_values(location, scale_matrix, df)"
        if location.ndim < 1 or scale_matrix.shape != (*location.shape, location.shape[-1]):
            raise ModelError(
                "the scale matrix does not fit the location", called=called, got=f"shape {list(scale_matrix.shape)}",
                expected=f"shape {[*location.shape, *location.shape[-1:]]}",
            )  # fmt: skip
        df = jnp.broadcast_to(floating(df, name="df").astype(location.dtype), location.shape[:-1])
        raw, positive_definite = raw_whitener(scale_matrix)
        if concrete(scale_matrix, df) and not (positive_definite and (df > 0).all()):
            raise ModelError(
                "no scale matrix, or no degrees of freedom", called=called,
                fix="" if positive_definite else ridge("scale_matrix", scale_matrix),
                expected="a symmetric positive definite scale matrix and df > 0",
                got=f"diagonal {jnp.diagonal(scale_matrix, axis1=-2, axis2=-1)}, df {df}",
            )  # fmt: skip
        floor = jnp.broadcast_to(jnp.asarray(floor, location.dtype), location.shape)
        return cls(jnp.zeros_like(location), raw, jnp.log(df), location, floor, missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.offset.shape

    @property
    def location(self) -> jax.Array:
        """The mode, and the mean where df exceeds 1, `[*K, D]`, units of x."""
        return self.origin + self.offset

    @property
    def df(self) -> jax.Array:
        """Degrees of freedom, `[*K]`."""
        return jnp.exp(self.log_df)

    @property
    def whitener(self) -> jax.Array:
        """`W`, `[*K, D, D]` lower triangular with a positive diagonal."""
        diagonal = jnp.exp(jnp.diagonal(self.raw, axis1=-2, axis2=-1))
        return jnp.tril(self.raw, -1) + diagonal[..., None] * jnp.eye(self.raw.shape[-1], dtype=self.raw.dtype)

    @property
    def scale_matrix(self) -> jax.Array:
        """S, `[*K, D, D]`, units of x squared."""
        factor = linalg.tril_inverse(self.whitener)
        return matmul(factor, jnp.swapaxes(factor, -1, -2))

    @property
    def free_parameters(self) -> int:
        """Location, symmetric scale matrix, and df, of one model."""
        d = self.offset.shape[-1]
        return d + d * (d + 1) // 2 + 1

    def check_data(self, x) -> None:
        """Refuses NaN, unless missing entries are allowed, and squares that overflow, with a DataError."""
        scales.seen_numbers(x, "StudentT.check_data(x)", self.missing)

    @property
    def _scales(self):
        """Scales of the coordinates by themselves, `[*K, D]`."""
        return jnp.linalg.norm(linalg.tril_inverse(self.whitener), axis=-1)

    def _residual(self, x):
        return (x - self.origin) - self.offset

    def _density(self, half, distance, log_volume):
        """`log p` from half the number of coordinates seen, squared distance and `log det W - (D / 2) log 2 pi`."""
        df = self.df
        tail = (df / 2 + half) * jnp.log1p(distance / df)
        return _log_gamma_ratio(df / 2, half) + log_volume - tail

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, D] -> [*batch]`."""
        d, whitener, half = self._residual(x), self.whitener, x.size / 2
        log_volume = jnp.trace(self.raw) - half * LOG_2PI
        if self.missing:
            half = jnp.sum(~jnp.isnan(d)).astype(d.dtype) / 2
            d, _, correction = fill_missing(whitener, d)
            log_volume = log_volume + correction
        z = matmul(whitener, d)
        # exactly nothing is said of an event of which nothing was seen
        return jnp.where(half > 0, self._density(half, jnp.sum(z * z), log_volume), 0)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, D] -> [*batch, D]`."""
        return student_cdf(self._residual(x) / self._scales, self.df)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, D]`."""
        return self.location + self._scales * student_quantile(level, self.df)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, D]`."""
        normal, gamma = jax.random.split(key)
        noise = jax.random.normal(normal, self.offset.shape, self.offset.dtype)
        # in logarithms: a small gamma variable underflows
        log_tau = jax.random.loggamma(gamma, self.df / 2, dtype=self.offset.dtype) - (self.log_df - math.log(2))
        return self.location + jnp.exp(-0.5 * log_tau) * matmul(linalg.tril_inverse(self.whitener), noise)

    @weighted_events
    def e_step(self, x, weight=None):
        """`StudentStatistics` around the location, and `log_prob [N]`."""
        d, whitener, half = self._residual(x), self.whitener, jnp.asarray(x.shape[1] / 2, x.dtype)
        covariance = None
        if self.missing:
            half = jnp.sum(~jnp.isnan(d), axis=1).astype(d.dtype) / 2
            d, covariance, _ = jax.vmap(fill_missing, (None, 0))(whitener, d)
            weight = jnp.where(half > 0, weight, 0)
        z = matmul(d, whitener.T)
        df, largest = self.df, jnp.finfo(z.dtype).max
        distance = jnp.minimum(jnp.sum(z * z, axis=1), largest / 4)  # an overflow has no weight, but is no NaN
        u = (df + 2 * half) / (df + distance)
        # u - 1, which keeps its digits where u is next to one
        excess = (2 * half - distance) / (df + distance)
        log_u = jnp.where(excess < -0.5, jnp.log(u), jnp.log1p(jnp.maximum(excess, -0.5)))
        spread = log_u - excess - _digamma_gap(df / 2 + half)
        scaled = (weight * u)[:, None] * d
        second = matmul(scaled.T, d)
        if covariance is not None:
            second = second + jnp.tensordot(weight, covariance, 1, precision=jax.lax.Precision.HIGHEST)
        total = lambda values: jnp.sum(weight * values)  # noqa: E731
        statistics = StudentStatistics(jnp.sum(weight), total(u), jnp.sum(scaled, axis=0), second, total(spread))
        return statistics, self.log_prob(x)

    def m_step(self, statistics) -> StudentT:
        """Weighted maximum likelihood of the expanded model, under `S >= diag(floor)`."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where it had to repair this density, else 0."""
        weight, precision, first, second, spread = statistics
        tiny = jnp.finfo(weight.dtype).tiny
        alive = has_mass(weight) & (precision > tiny)
        weight, precision = (jnp.where(alive, total, 1.0) for total in (weight, precision))
        shift = first / precision
        scale = second / precision - jnp.outer(shift, shift)
        alive = alive & jnp.isfinite(scale).all()  # squares that overflow
        whitener, singular = floored_whitener(jnp.where(alive, scale, jnp.eye(len(scale)))[None], self.floor[None])
        raw = log_diagonal(whitener[0])
        new = StudentT(
            self.offset + shift, raw, self._log_df(weight, precision, spread), self.origin, self.floor, self.missing
        )
        kept = jax.tree.map(lambda new, old: jnp.where(alive, new, old), new, self)
        return kept, (~alive | singular[0]).astype(jnp.int32)

    def _log_df(self, weight, precision, spread):
        """Degrees of freedom: of the gamma density with mean one that fits tau best, tau scaled by its mean."""
        excess = precision / weight - 1
        gap = jnp.log1p(excess) - excess - spread / weight
        # a start from outside of the range must not be made worse
        low, high = jnp.minimum(DF_RANGE[0], self.df), jnp.maximum(DF_RANGE[1], self.df)
        return jnp.log(2 * _invert_gap(gap, low / 2, high / 2)).astype(self.log_df.dtype)

    def log_prob_components(self, x):
        """`[K, N]`: residuals whitened by one batched matrix product; with missing entries one by one."""
        if self.missing:
            return algebra.default_log_prob(self, x)
        z = matmul((x - self.origin[:, None]) - self.offset[:, None], jnp.swapaxes(self.whitener, -1, -2))
        half = x.shape[-1] / 2
        constant = _log_gamma_ratio(self.df / 2, half) + jnp.trace(self.raw, axis1=-2, axis2=-1) - half * LOG_2PI
        df = self.df[:, None]
        return constant[:, None] - (df / 2 + half) * jnp.log1p(jnp.sum(z * z, axis=-1) / df)

    def parameter_scales(self):
        """Scales of the location and of W."""
        offset, raw = whitener_scales(self.whitener)
        return {"offset": offset, "raw": raw}

    def freeze(self, statistics, frozen):
        """Statistics whose M-step is the constrained one: some coordinates of `offset`, rows of `raw`, or df frozen.

        A free coordinate of the location follows the frozen ones by its regression on them. With a part of S
        frozen there is nothing that could be scaled away, and the step is that of plain EM.
        """
        weight, precision, first, second, spread = statistics
        kept, fixed_scale = frozen.offset, jnp.any(jnp.tril(frozen.raw))
        alive = has_mass(weight) & (precision > jnp.finfo(weight.dtype).tiny)
        safe = jnp.where(alive, precision, 1)
        mean = first / safe
        scale = jnp.where(fixed_scale, self.scale_matrix, second / safe - jnp.outer(mean, mean))
        eye = jnp.eye(len(mean), dtype=mean.dtype)
        whitener = linalg.inverse_cholesky(jnp.where(kept[:, None] & kept, scale + self.floor * eye, eye))
        pull = matmul(whitener.T, matmul(whitener, jnp.where(kept, -mean, 0)))
        follow = matmul(jnp.where(kept, scale, 0), pull)
        shift = jnp.where(kept, 0, mean + jnp.where(jnp.isfinite(follow).all(), follow, 0))
        around = second - jnp.outer(shift, first) - jnp.outer(first, shift) + precision * jnp.outer(shift, shift)
        by = jnp.where(fixed_scale, weight, precision)
        return StudentStatistics(weight, by, by * shift, around + by * jnp.outer(shift, shift), spread)

    def recentre(self, old, statistics):
        """Statistics around the location of `old` as they are around this one."""
        weight, precision, first, second, spread = statistics
        step = (old.origin - self.origin) + (old.offset - self.offset)
        moved = first + precision * step
        return StudentStatistics(
            weight, precision, moved, second + jnp.outer(first, step) + jnp.outer(step, moved), spread
        )

    def distribution(self):
        """The distrax distribution."""
        return as_distribution(self)
