"""The Laplace density: a location that is a median, with tails that fall exponentially on both sides."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import entries, scales
from jaxgen.ops.stable import has_mass


class LaplaceStatistics(NamedTuple):
    """Weighted sums over events of what the distances d from the old location make, `[*event]` each.

    Args:
        weight: of all that were seen.
        near: of those at the location, to the rounding of the scale.
        precision: of `1 / |d|` of the others, which EM takes for Gaussian with that precision.
        sign: of the signs of d of the others.
        distance: of `|d|`.
    """

    weight: jax.Array
    near: jax.Array
    precision: jax.Array
    sign: jax.Array
    distance: jax.Array


@model
class Laplace:
    """Independent coordinates with a median, and tails that fall exponentially on both sides.

    `log p(x) = sum_d -|x_d - m_d| / b_d - log 2 b_d`, with m the locations and b the scales

    Args:
        offset: `[*event]`, the location relative to `origin`.
        log_scale: `[*event]`, logarithm of the scales b, the mean distances from the location.
        origin: `[*event]`, a point amid the data, never trained: data far from zero lose no digits to float32.
        floor: `[*event]`, the smallest scales, units of x; never trained.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    The likeliest location is a weighted median, which no finite sums over events hold. So the M-step goes one step
    towards it, that of a Gaussian whose variance is each event's own: `|r| <= r^2 / 2|d| + |d| / 2`, equal at the old
    distance d. Events at the location, where no parabola touches `|r|`, keep it as it is, so that a location on top of
    an event leaves it exactly if that is likelier. No step loses likelihood by more than rounding, and the limit is a
    weighted median and the mean distance from it. `init` takes them from the data at once.

    The M-step repairs: a coordinate of no mass keeps its parameters, a scale below the floor becomes it.

    Source: Lange and Sinsheimer (1993), Normal/independent distributions and their applications in robust regression;
    Phillips (2002), Least absolute deviations estimation via the EM algorithm.

    Example:
        >>> error = Laplace.from_values([1.0], [2.0])
        >>> [round(float(v), 4) for v in error.log_prob(jnp.array([[1.0], [-1.0]]))]
        [-1.3863, -2.3863]
    """

    offset: jax.Array
    log_scale: jax.Array
    origin: jax.Array = fixed()
    floor: jax.Array = fixed(default=0.0)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, floor=None, missing=False) -> Laplace:
        """Return the maximum-likelihood density of data `[N, *event]`, by their medians; the key is not used.

        The floor is broadcast to `[*event]`; None is a thousandth of each column's own scale (`ops.scales`).
        """
        x = jnp.asarray(scales.seen_numbers(x, "Laplace.init(key, x)", missing))
        dtype, event = entries.float_dtype(x), x.shape[1:]
        x = x.astype(dtype)
        if floor is None:
            columns = scales.columns(x.reshape((len(x), -1)))
            floor = jnp.sqrt(scales.variance_floor(columns.scale.reshape(event), None))
        middle = jnp.nan_to_num(jnp.nanmedian(x, axis=0))  # of a column of which nothing was seen
        zero = jnp.zeros(event, dtype)
        start = cls(zero, zero, middle, jnp.broadcast_to(jnp.asarray(floor, dtype), event), missing)
        around = start.e_step(x, jnp.ones(len(x), dtype))[0]
        return start.m_step(around._replace(sign=zero))

    @classmethod
    def from_values(cls, location, scale, *, floor=0.0, missing=False) -> Laplace:
        """Return the density of locations and scales, `[*K, *event]` or one for all, in units of x.

        Raises:
            ModelError: scales that are not positive.
        """
        scale = entries.positive(scale, name="scale", called="Laplace.from_values(location, scale)")
        location, log_scale = jnp.broadcast_arrays(floating(location, name="location"), jnp.log(scale))
        floor = jnp.broadcast_to(jnp.asarray(floor, location.dtype), location.shape)
        return cls(jnp.zeros_like(location), log_scale, location, floor, missing)

    event_shape = property(lambda self: self.offset.shape)
    location = property(lambda self: self.origin + self.offset, doc="The median, `[*K, *event]`, units of x.")
    mean = property(lambda self: self.origin + self.offset, doc="`[*K, *event]`, units of x.")
    scale = property(lambda self: jnp.exp(self.log_scale), doc="Mean distance, `[*K, *event]`, units of x.")
    variance = property(lambda self: 2 * jnp.exp(2 * self.log_scale), doc="`[*K, *event]`, units of x squared.")
    free_parameters = property(lambda self: 2 * math.prod(self.offset.shape), doc="Two for each coordinate.")

    def check_data(self, x) -> None:
        """Refuse NaN, unless missing entries are allowed, with a DataError."""
        scales.seen_numbers(x, "Laplace.check_data(x)", self.missing)

    def _residual(self, x):
        # the data move to the origin first, where float32 is fine-grained
        return (x - self.origin) - self.offset

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Return nats, `[*batch, *event] -> [*batch]`."""
        value = -jnp.abs(self._residual(x)) / self.scale - self.log_scale - math.log(2)
        return jnp.sum(jnp.where(jnp.isnan(x), 0, value) if self.missing else value)

    @per_event
    def impute(self, x) -> jax.Array:
        """Return events with what is missing (NaN) at its mean, `[*batch, *event]`."""
        return entries.filled(x, self.mean)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        z = self._residual(x) / self.scale
        tail = 0.5 * jnp.exp(-jnp.abs(z))
        return jnp.where(z < 0, tail, 1 - tail)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        tail = jnp.minimum(level, 1 - level)
        return self.location + jnp.where(level < 0.5, 1, -1) * self.scale * jnp.log(2 * tail)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Return draws `[*shape, *event]`."""
        return self.location + self.scale * jax.random.laplace(key, self.offset.shape, self.offset.dtype)

    @weighted_events
    def e_step(self, x, weight=None):
        """Return `LaplaceStatistics`, and `log_prob [N]`."""
        d = self._residual(x)
        seen = ~jnp.isnan(d) if self.missing else jnp.ones(d.shape, bool)
        d = jnp.where(seen, d, 0)
        far = jnp.abs(d) > jnp.finfo(d.dtype).eps * self.scale
        parts = seen, seen & ~far, far / jnp.abs(jnp.where(far, d, 1)), jnp.where(far, jnp.sign(d), 0), jnp.abs(d)
        return LaplaceStatistics(*entries.sums(weight, *(p.astype(d.dtype) for p in parts))), self.log_prob(x)

    def m_step(self, statistics) -> Laplace:
        """Return a density of higher likelihood, under `scale >= floor`."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """Return `m_step`, and 1 where a coordinate has no mass or a scale below the floor, else 0."""
        weight, near, precision, sign, distance = statistics
        alive = has_mass(weight)
        # the minimum of near |s| + precision s^2 / 2 - sign s: zero where the events at the location outweigh the rest
        pull = jnp.sign(sign) * jnp.maximum(jnp.abs(sign) - near, 0)
        shift = jnp.where(precision > 0, pull / jnp.where(precision > 0, precision, 1), 0)
        # the bound of the sum of distances there
        scale = (distance - 0.5 * pull * shift) / jnp.where(alive, weight, 1)
        lowest = jnp.maximum(self.floor, jnp.finfo(scale.dtype).tiny)
        log_scale = jnp.where(alive, jnp.log(jnp.maximum(scale, lowest)), self.log_scale)
        new = dataclasses.replace(self, offset=self.offset + jnp.where(alive, shift, 0), log_scale=log_scale)
        return new, jnp.any(~(alive & (scale >= lowest))).astype(jnp.int32)

    def parameter_scales(self):
        """Locations move in scales."""
        return {"offset": self.scale}

    def freeze(self, statistics, frozen):
        """Return statistics that leave a location where it is frozen."""
        return statistics._replace(sign=jnp.where(frozen.offset, 0, statistics.sign))

    def recentre(self, old, statistics):
        """Return statistics whose bound is that of the old location's, as a function of the distance from this one."""
        weight, near, precision, sign, distance = statistics
        by = (self.origin - old.origin) + (self.offset - old.offset)
        moved = jnp.abs(by) > jnp.finfo(by.dtype).eps * self.scale
        # what was at the old location is not at this one
        more = jnp.where(moved, near / jnp.abs(jnp.where(moved, by, 1)), 0)
        distance = distance + by * (precision * by / 2 - sign) + jnp.where(moved, near * jnp.abs(by), 0)
        sign = sign - precision * by - jnp.where(moved, near * jnp.sign(by), 0)
        return LaplaceStatistics(weight, jnp.where(moved, 0, near), precision + more, sign, distance)

    distribution = as_distribution
