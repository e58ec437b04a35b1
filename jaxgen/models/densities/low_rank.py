"""Gaussian densities of low-rank plus diagonal covariance: factor analysis, and in a mixture mixtures of it."""

from __future__ import annotations

from typing import NamedTuple

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
from jaxgen.ops import gaussians, linalg, scales
from jaxgen.ops.coordinates import chosen_and_rest
from jaxgen.ops.gaussians import LOG_2PI, matmul
from jaxgen.ops.stable import has_mass


class FactorStatistics(NamedTuple):
    """Sums over events of weight w, of what the model that took them thinks of the noise `r = x - mean - F z` of an
    event and of its factors z. What was not seen of an event has the noise that the model gives it.

    Around the model's own fit rather than around the mean: near the end these sums hold what is left to learn, and a
    small psi is no difference of large numbers.

    Args:
        weight: `sum w`.
        first: `sum w E[r | x]`, `[D]`.
        second: `sum w E[r^2 | x]`, `[D]`.
        cross: `sum w E[r z^T | x]`, `[D, q]`.
        factors: `sum w E[z | x]`, `[q]`.
        square: `sum w E[z z^T | x]`, `[q, q]`.
    """

    weight: jax.Array
    first: jax.Array
    second: jax.Array
    cross: jax.Array
    factors: jax.Array
    square: jax.Array


class Explained(NamedTuple):
    """The posterior of the factors and the noise of events: `E[z | x] [*batch, q]`, `E[r | x]` in standard deviations
    `[*batch, D]`, `log p [*batch]`, and the blocks of `_orthonormal` that the posterior covariances are made of."""

    factors: jax.Array
    noise: jax.Array
    log_prob: jax.Array
    top: jax.Array
    bottom: jax.Array


def _orthonormal(scaled):
    """Orthonormal columns of `[scaled; I]`, `scaled [..., D, q]`, in blocks `[..., D, q]` and `[..., q, q]`.

    With `M = I + scaled^T scaled` and R its Cholesky factor, they are `scaled R^-1` and `R^-1`, without forming M:
    where psi is small M has eigenvalues from 1 to 1e6, and its Cholesky factor in float32 would lose the small ones.
    Gram and Schmidt, each column twice, which is enough (Giraud, Langou and Rozloznik, 2005).
    """
    *batch, d, q = scaled.shape
    columns = jnp.concatenate([scaled, jnp.broadcast_to(jnp.eye(q, dtype=scaled.dtype), (*batch, q, q))], axis=-2)

    def add(i, done):
        column = jax.lax.dynamic_index_in_dim(columns, i, -1)
        for _ in range(2):
            column = column - matmul(done, matmul(jnp.swapaxes(done, -1, -2), column))
        column = column / jnp.sqrt(jnp.sum(column**2, axis=-2, keepdims=True))
        return jax.lax.dynamic_update_slice_in_dim(done, column, i, -1)

    done = jax.lax.fori_loop(0, q, add, jnp.zeros_like(columns))
    return done[..., :d, :], done[..., d:, :]


@model
class LowRankGaussian:
    """The normal density with a covariance of low rank plus a diagonal: factor analysis.

    `x = mean + F z + noise`, `z ~ N(0, I)` of q factors, `noise ~ N(0, diag(psi))`, hence

    `log p(x) = -(sum_j (d - F b)_j^2 / psi_j + |b|^2 + sum_j log psi_j + log det M + D log 2 pi) / 2`,
    with `d = x - mean`, `M = I + F^T diag(psi)^-1 F` and the factors `b = E[z | x] = M^-1 F^T diag(psi)^-1 d`

    An event costs about 4 D q products in place of D^2, and of D q numbers fewer events tell. A mixture of them is the
    mixture of factor analysers. F is known up to a rotation of the factors.

    Args:
        offset: `[D]`, the mean relative to `origin`.
        factor: `[D, q]`, F.
        log_noise: `[D]`, log psi, the logarithm of the variances of the noise.
        origin: `[D]`, a point amid the data, never trained: data far from zero lose no digits to float32.
        floor: `[D]`, the smallest psi, units of x squared; never trained.
        missing: NaN in an event is an entry that was not seen, and is integrated out, exactly.

    The M-step regresses events on their factors, under `psi >= floor`. It is that of the model in which the factors
    also have a mean and a covariance, which F and the mean then take over: as safe as EM (no step decreases the
    likelihood), in fewer steps. It repairs: a component of no mass keeps its parameters; a psi below the floor becomes
    the floor; factors without a covariance leave F as it is. Events of which nothing was seen have no mass.

    Source: Rubin and Thayer (1982), EM algorithms for ML factor analysis; Ghahramani and Hinton (1996), The EM
    algorithm for mixtures of factor analyzers; Liu, Rubin and Wu (1998), Parameter expansion to accelerate EM.

    Example:
        >>> g = LowRankGaussian.from_values([0.0, 1.0], [[1.0], [0.5]], [1.0, 0.75])
        >>> g.covariance.tolist()
        [[2.0, 0.5], [0.5, 1.0]]
        >>> round(float(g.log_prob(jnp.array([0.0, 1.0]))), 4)
        -2.1177
        >>> round(float(g.encode(jnp.array([2.0, 1.0]))[0]), 4)
        0.8571
    """

    offset: jax.Array
    factor: jax.Array
    log_noise: jax.Array
    origin: jax.Array = fixed()
    floor: jax.Array = fixed(default=0.0)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, rank: int, floor=None, missing: bool = False) -> LowRankGaussian:
        """A start from data `[N, D]`: the principal components of the columns in units of their standard deviations.

        Those with one psi for all have a maximum in closed form; EM goes on from there.

        Args:
            key: not used.
            x: measurements; NaN where `missing`.
            rank: the number of factors q, 1 to D.
            floor: the smallest psi, one number or `[D]`; None is 1e-6 of each column's squared scale (`ops.scales`).
            missing: see the class.

        Source: Tipping and Bishop (1999), Probabilistic principal component analysis, equation 7.
        """
        called = f"LowRankGaussian.init(key, x, rank={rank})"
        x = scales.table(x, called, missing)
        n, d = x.shape
        if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or not 1 <= rank <= d:
            raise ModelError("the number of factors does not fit the data", called=called, got=str(rank),
                             expected=f"a number from 1 to {d}, the number of columns")  # fmt: skip
        own = scales.columns(x)
        floor = scales.variance_floor(own.scale, floor)
        unseen = jnp.isnan(x).all(axis=0)
        shift = jnp.where(unseen, 0, jnp.nanmean(x - own.center, axis=0))
        origin = own.center + shift
        variance = jnp.where(unseen, 0, jnp.nanmean((x - origin) ** 2, axis=0))
        # each column by itself: their units may be far apart
        scale = jnp.sqrt(jnp.where(variance > 0, variance, scales.RELATIVE_FLOOR * own.scale**2))
        z = jnp.where(jnp.isnan(x), 0, (x - origin) / scale)
        correlation = matmul(z.T, z) / n
        value, vector = jnp.linalg.eigh(correlation)  # rising
        noise = jnp.mean(value[: d - rank]) if rank < d else value[0] / 2
        factor = vector[:, d - rank :] * jnp.sqrt(jnp.maximum(value[d - rank :] - noise, 0))
        # columns that are not all seen, or constant, have the rest of their variance as noise
        share = jnp.maximum(noise + 1 - jnp.diagonal(correlation), scales.RELATIVE_FLOOR)
        psi = jnp.maximum(scale**2 * share, jnp.maximum(floor, jnp.finfo(x.dtype).tiny))
        return cls(jnp.zeros_like(origin), scale[:, None] * factor, jnp.log(psi), origin, floor, missing)

    @classmethod
    def from_values(cls, mean, factor, noise_variance, *, floor=0.0, missing: bool = False) -> LowRankGaussian:
        """From means `[*K, D]`, factors `[*K, D, q]` and variances of the noise `[*K, D]`.

        Raises:
            ModelError: a variance that is not positive, or shapes that do not fit.
        """
        mean, factor = floating(mean, name="mean"), floating(factor, name="factor")
        noise_variance = floating(noise_variance, name="noise_variance")
        if factor.ndim < 2 or mean.shape != factor.shape[:-1] or noise_variance.shape != mean.shape:
            raise ModelError(
                "the shapes do not fit", called="LowRankGaussian.from_values(mean, factor, noise_variance)",
                expected="mean [*K, D], factor [*K, D, q] and noise_variance [*K, D]",
                got=f"shapes {list(mean.shape)}, {list(factor.shape)} and {list(noise_variance.shape)}",
            )  # fmt: skip
        if concrete(noise_variance) and not (noise_variance > 0).all():
            raise ModelError(
                "a variance is positive", called="LowRankGaussian.from_values(mean, factor, noise_variance)",
                expected="positive numbers", got=f"{noise_variance}"[:80],
            )  # fmt: skip
        floor = jnp.broadcast_to(jnp.asarray(floor, mean.dtype), mean.shape)
        return cls(jnp.zeros_like(mean), factor, jnp.log(noise_variance), mean, floor, missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.offset.shape

    @property
    def rank(self) -> int:
        """The number of factors, q."""
        return self.factor.shape[-1]

    @property
    def free_parameters(self) -> int:
        """Means, psi, and the factors up to a rotation; no more than a full covariance has."""
        d = self.offset.shape[-1]
        q = min(self.rank, d)
        return d + min(d * q - q * (q - 1) // 2 + d, d * (d + 1) // 2)

    @property
    def mean(self) -> jax.Array:
        """`[*K, D]`, units of x."""
        return self.origin + self.offset

    @property
    def variance(self) -> jax.Array:
        """The diagonal of the covariance, `[*K, D]`, units of x squared."""
        return jnp.diagonal(self.covariance, axis1=-2, axis2=-1)

    @property
    def noise_variance(self) -> jax.Array:
        """Variances of the noise, `[*K, D]`, units of x squared."""
        return jnp.exp(self.log_noise)

    @property
    def covariance(self) -> jax.Array:
        """`F F^T + diag(psi)`, `[*K, D, D]`, units of x squared."""
        noise = self.noise_variance[..., None] * jnp.eye(self.noise_variance.shape[-1], dtype=self.noise_variance.dtype)
        return matmul(self.factor, jnp.swapaxes(self.factor, -1, -2)) + noise

    @property
    def _deviation(self):
        """Standard deviations, `[*K, D]`."""
        return jnp.sqrt(self.noise_variance + jnp.sum(self.factor**2, axis=-1))

    def check_data(self, x) -> None:
        """Refuses NaN, unless missing entries are allowed, with a DataError."""
        scales.seen_numbers(x, "LowRankGaussian.check_data(x)", self.missing)

    def _blocks(self):
        """`_orthonormal` of all coordinates, of K models at once."""
        return _orthonormal(self.factor * jnp.exp(-0.5 * self.log_noise)[..., None])

    def _explain(self, x, blocks=None):
        """`Explained` of events `[*batch, D]`, with `_blocks()`; of one event `[D]` where entries may be missing."""
        d = (x - self.origin) - self.offset
        volume = -0.5 * (self.log_noise + LOG_2PI)
        if self.missing:
            seen = ~jnp.isnan(x)
            d, volume = jnp.where(seen, d, 0), jnp.where(seen, volume, 0)
            scaled = self.factor * jnp.exp(-0.5 * self.log_noise)[:, None]
            blocks = _orthonormal(jnp.where(seen[:, None], scaled, 0))
        d = d * jnp.exp(-0.5 * self.log_noise)
        top, bottom = self._blocks() if blocks is None else blocks
        # what [d; 0] has of the columns of [scaled; I], and what it has not: the noise, and minus the factors
        within = matmul(d, top)
        noise, factors = d - matmul(within, top.T), matmul(within, bottom.T)
        distance = jnp.sum(noise**2, axis=-1) + jnp.sum(factors**2, axis=-1)
        log_prob = jnp.sum(volume) + jnp.sum(jnp.log(jnp.diagonal(bottom))) - 0.5 * distance
        return Explained(factors, noise, log_prob, top, bottom)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, D] -> [*batch]`."""
        return self._explain(x).log_prob

    @per_event
    def encode(self, x) -> jax.Array:
        """The factors of events, `E[z | x]`, `[*batch, D] -> [*batch, q]`."""
        return self._explain(x).factors

    @per_event
    def impute(self, x) -> jax.Array:
        """Events with what is missing (NaN) at its conditional mean given the rest, `[*batch, D]`."""
        return jnp.where(jnp.isnan(x), self.mean + matmul(self.factor, self._explain(x).factors), x)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, D] -> [*batch, D]`."""
        return ndtr((x - self.mean) / self._deviation)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, D]`."""
        return self.mean + self._deviation * ndtri(level)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, D]`."""
        draws = jax.random.normal(key, (self.rank + self.offset.size,), self.offset.dtype)
        return self.mean + matmul(self.factor, draws[: self.rank]) + jnp.exp(0.5 * self.log_noise) * draws[self.rank :]

    @weighted_events
    def e_step(self, x, weight=None):
        """`FactorStatistics`, and `log_prob [N]`."""
        return self._expect(x, weight)

    def _expect(self, x, weight, blocks=None):
        scale = jnp.exp(0.5 * self.log_noise)
        if self.missing:
            factors, noise, log_prob, top, bottom = jax.vmap(self._explain)(x)
            unseen = jnp.isnan(x)
            weight = jnp.where(unseen.all(axis=1), 0, weight)
            total = lambda values: jnp.tensordot(weight, values, 1, precision="highest")  # noqa: E731
            spread, unseen = total(jnp.sum(top**2, axis=-1)), total(unseen.astype(weight.dtype))
            spread = spread + unseen
            pull = total(matmul(top, jnp.swapaxes(bottom, -1, -2)))
            uncertain = total(matmul(bottom, jnp.swapaxes(bottom, -1, -2)))
        else:
            factors, noise, log_prob, top, bottom = self._explain(x, blocks)
            mass = jnp.sum(weight)
            spread = mass * jnp.sum(top**2, axis=-1)
            pull, uncertain = mass * matmul(top, bottom.T), mass * matmul(bottom, bottom.T)
        weighted = weight[:, None] * factors
        statistics = FactorStatistics(
            jnp.sum(weight),
            scale * matmul(weight, noise),
            scale**2 * (matmul(weight, noise**2) + spread),
            scale[:, None] * (matmul(noise.T, weighted) - pull),
            jnp.sum(weighted, axis=0),
            matmul(factors.T, weighted) + uncertain,
        )
        return statistics, log_prob

    def m_step(self, statistics) -> LowRankGaussian:
        """Weighted maximum likelihood of the expanded model under `psi >= floor`."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where it had to repair this density, else 0."""
        alive = has_mass(statistics.weight)
        mean, second, cross, factors, square = (s / jnp.where(alive, statistics.weight, 1) for s in statistics[1:])
        eye, limits = jnp.eye(self.rank, dtype=square.dtype), jnp.finfo(square.dtype)
        root = linalg.cholesky(square - jnp.outer(factors, factors))
        inverse = linalg.tril_inverse(root)
        regular = jnp.isfinite(inverse).all()
        root = jnp.where(regular, root, eye)
        # noise that follows the factors, which have the covariance root root^T: it is theirs
        follow = jnp.where(regular, matmul(cross - jnp.outer(mean, factors), inverse.T), 0)
        factor = matmul(self.factor, root) + follow
        psi = second - mean**2 - jnp.sum(follow**2, axis=1)
        # below that share of a variance, psi is rounding noise
        lowest = jnp.maximum(jnp.maximum(self.floor, limits.tiny), limits.eps * jnp.sum(factor**2, axis=1))
        singular = jnp.any(psi < lowest)
        offset = self.offset + mean + matmul(self.factor, factors)
        log_noise = jnp.log(jnp.maximum(psi, lowest))
        new = LowRankGaussian(offset, factor, log_noise, self.origin, self.floor, self.missing)
        finite = jnp.isfinite(jnp.sum(offset) + jnp.sum(factor) + jnp.sum(log_noise))  # squares that overflow
        kept = jax.tree.map(lambda new, old: jnp.where(alive & finite, new, old), new, self)
        return kept, (~(alive & finite & regular) | singular).astype(jnp.int32)

    def parameter_scales(self):
        """Means and factors move in standard deviations of the noise."""
        noise = jnp.sqrt(self.noise_variance)
        return {"offset": noise, "factor": noise[..., None]}

    def freeze(self, statistics, frozen):
        """Statistics whose M-step is the constrained one: some coordinates of `offset` or entries of `factor` frozen.

        Each coordinate is a regression of its own, on the factors and a constant, of which some coefficients stay. A
        frozen mean cannot take over the mean of the factors, frozen factors cannot take over their covariance: they
        keep those of the model.
        """
        weight, first, second, cross, factors, square = statistics
        safe = jnp.where(has_mass(weight), weight, 1)
        q = self.rank
        design = jnp.block([[square, factors[:, None]], [factors[None], weight[None, None]]]) / safe
        target = jnp.concatenate([cross, first[:, None]], axis=1) / safe
        free = ~jnp.concatenate([frozen.factor, frozen.offset[:, None]], axis=1)
        eye = jnp.eye(q + 1, dtype=design.dtype)
        inverse = linalg.inverse_cholesky(jnp.where(free[:, :, None] & free[:, None], design, eye))
        whitened = jnp.sum(inverse * jnp.where(free, target, 0)[:, None], axis=-1)
        moved = jnp.where(free, jnp.sum(inverse * whitened[..., None], axis=-2), 0)
        moved = jnp.where(jnp.isfinite(moved).all(axis=1, keepdims=True), moved, 0)
        psi = second / safe - 2 * jnp.sum(moved * target, axis=1) + jnp.sum(matmul(moved, design) * moved, axis=1)
        factor, shift = self.factor + moved[:, :q], moved[:, q]
        held_mean, held_factor = jnp.any(frozen.offset), jnp.any(frozen.factor)
        root = linalg.cholesky(square / safe)
        root = jnp.where(held_factor | ~jnp.isfinite(root).all(), jnp.eye(q, dtype=root.dtype), root)
        change = matmul(factor, root) - self.factor
        shift = jnp.where(held_mean, shift, shift + matmul(factor, factors / safe))
        made = FactorStatistics(
            weight, weight * shift, weight * (psi + shift**2 + jnp.sum(change**2, axis=1)), weight * change,
            jnp.zeros(q, design.dtype), weight * jnp.eye(q, dtype=design.dtype),
        )  # fmt: skip
        return jax.tree.map(lambda new, old: jnp.where(held_mean | held_factor, new, old), made, statistics)

    def recentre(self, old, statistics):
        """Statistics that `old` took as this model would write them: with the noise that its mean and F leave.

        What is known of the factors remains what `old` thinks of them.
        """
        weight, first, second, cross, factors, square = statistics
        step, turn = (old.origin - self.origin) + (old.offset - self.offset), old.factor - self.factor
        moved = first + weight * step + matmul(turn, factors)
        crossed = cross + jnp.outer(step, factors) + matmul(turn, square)
        second = second + step * (first + moved) + jnp.sum(turn * (cross + crossed), axis=1)
        return FactorStatistics(weight, moved, second, crossed, factors, square)

    def log_prob_components(self, x):
        """`[K, N]`, in matrix products of all events; with missing entries one component at a time."""
        if self.missing:
            return jax.lax.map(lambda one: one.log_prob(x), self)
        return gaussians.each(lambda one, blocks: one._explain(x, blocks).log_prob, self, self._blocks())

    def e_step_components(self, x, weight):
        """`FactorStatistics` of K components, leading axis K, from weights `[K, N]`."""
        if self.missing:
            return jax.lax.map(lambda pair: pair[0]._expect(x, pair[1])[0], (self, weight))
        return gaussians.each(lambda one, *given: one._expect(x, *given)[0], self, weight, self._blocks())

    def normal_moments(self):
        """Mean `[D]` and covariance `[D, D]`, float64."""
        origin, offset, factor, log_noise = (
            np.asarray(one, np.float64) for one in (self.origin, self.offset, self.factor, self.log_noise)
        )
        return origin + offset, factor @ factor.T + np.diag(np.exp(log_noise))

    @compiled_by_trace
    def marginal(self, indices) -> LowRankGaussian:
        """The density of some coordinates, those at `indices` (static), in their order."""
        return self._part(chosen_and_rest(indices, self.offset.shape[-1], "LowRankGaussian.marginal(indices)")[0])

    @compiled_by_trace
    def condition(self, indices, values) -> LowRankGaussian:
        """The density of the other coordinates given those at `indices` (static), `values [len(indices)]`.

        `mean_a|b = mean_a + F_a E[z | b]`, `cov_a|b = F_a M_b^-1 F_a^T + diag(psi_a)`: of low rank again.
        """
        chosen, rest = chosen_and_rest(indices, self.offset.shape[-1], "LowRankGaussian.condition(indices, values)")
        if not len(rest):
            raise ModelError("no coordinate is left", called=f"LowRankGaussian.condition({indices!r}, values)",
                             expected=f"fewer than {len(chosen)} indices", got=str(len(chosen)))  # fmt: skip
        known, left = self._part(chosen), self._part(rest)
        top, bottom = known._blocks()
        d = jnp.exp(-0.5 * known.log_noise) * ((jnp.asarray(values, self.offset.dtype) - known.origin) - known.offset)
        within = jnp.sum(top * d[..., None], axis=-2)
        factors = jnp.sum(bottom * within[..., None, :], axis=-1)
        offset = left.offset + jnp.sum(left.factor * factors[..., None, :], axis=-1)
        factor = matmul(left.factor, bottom)
        return LowRankGaussian(offset, factor, left.log_noise, left.origin, left.floor, self.missing)

    def _part(self, chosen):
        parts = (self.offset, self.log_noise, self.origin, self.floor)
        offset, log_noise, origin, floor = (part[..., chosen] for part in parts)
        return LowRankGaussian(offset, self.factor[..., chosen, :], log_noise, origin, floor, self.missing)

    def distribution(self):
        """The distrax distribution."""
        return distrax().MultivariateNormalTri(self.mean, linalg.cholesky(self.covariance))
