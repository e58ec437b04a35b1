"""The von Mises density: independent angles, such as directions, phases and times of day."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.exchange import distrax
from jaxgen.core.inputs import as_array, concrete, floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.core.remedies import unseen
from jaxgen.ops import entries
from jaxgen.ops.roots import reach
from jaxgen.ops.stable import has_mass
from jaxgen.ops.tails import von_mises_tail

HIGHEST = jax.lax.Precision.HIGHEST
#: default floor of 1 / concentration, a variance in the narrow limit, as a share of the data's: as for a Gaussian
RELATIVE_FLOOR = 1e-6
#: Newton steps on the concentration; from its start two give all of float32 and four of float64, two to spare
STEPS = 6
#: `log(sqrt(2 pi k) I0(k) e^-k) = sum_j c_j k^-j`: the logarithm of Abramowitz and Stegun (1964), 9.7.1
_LOG_I0 = (1 / 8, 1 / 16, 25 / 384, 13 / 128, 1073 / 5120, 103 / 192, 375733 / 229376, 23797 / 4096)


class VonMisesStatistics(NamedTuple):
    """Around the old direction: weight, and sums of `sin` and of `1 - cos` of the difference, `[*event]` each.

    They hold what the sums of cos x and of sin x do, and lose no digits where the angles are nearly one.
    """

    weight: jax.Array
    sine: jax.Array
    versine: jax.Array


@model
class VonMises:
    """Independent angles in radians: the normal density of the circle.

    `log p(x) = sum_d k_d cos(x_d - loc_d) - log (2 pi I0(k_d))`

    Args:
        location: `[*event]`, mean directions in radians; whole turns do not matter.
        log_concentration: `[*event]`, logarithm of k: 0 for k is uniform, and `1 / k` the variance of a narrow one.
        floor: `[*event]`, the least `1 / k` that the M-step gives, about a variance in squared radians, which keeps a
            component off a single event; never trained. None leaves only what the dtype can tell.
        prior: `[*event, 3]`, (c, mu, R): as if c events had been seen whose unit vectors sum to length R, at most c, in
            the direction mu; the conjugate density `I0(k)^-c exp(k R cos(location - mu))`. Never trained. None is flat.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    Every finite angle is in the support, and the density integrates to one over any turn. Draws lie within half a turn
    of zero. The M-step finds the direction in closed form and the concentration by Newton's iteration, to rounding. It
    repairs: a coordinate of no mass keeps its parameters, a concentration above `1 / floor` stops there.

    Source: Mardia and Jupp (2000), Directional statistics, sections 3.5.4 and 5.3; Guttorp and Lockhart (1988), Finding
    the location of a signal: a Bayesian analysis (the prior).

    Example:
        >>> wind = VonMises.from_values([0.0], [2.0])
        >>> [round(float(v), 3) for v in wind.log_prob(jnp.array([[0.0], [math.pi], [2 * math.pi]]))]
        [-0.662, -4.662, -0.662]
    """

    location: jax.Array
    log_concentration: jax.Array
    floor: jax.Array | None = fixed(default=None)
    prior: jax.Array | None = fixed(default=None)
    missing: bool = static(default=False)

    @classmethod
    @compiled_by_trace
    def init(cls, key, x, *, floor=None, prior=None, missing=False) -> VonMises:
        """The maximum-likelihood density of angles `[N, *event]`; the key is not used.

        Args:
            key: not used.
            x: radians.
            floor: broadcast to `[*event]`; None is 1e-6 of the data's `1 / k`, or of 1 where that is larger.
            prior: broadcast to `[*event, 3]`.
            missing: whether NaN means an entry that was not seen.

        Raises:
            DataError: values that are not finite.
        """
        x = jnp.asarray(as_array(x, name="x", called="VonMises.init(key, x)", allow_nan=missing,
            missing=unseen("VonMises.init(key, x)")))
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        event = x.shape[1:]
        zeros, ones = jnp.zeros(event, dtype), jnp.ones(len(x), dtype)
        start = cls(zeros, zeros, None, _prior(prior, event, dtype), missing)
        for _ in range(2):  # the second around the direction that the first has found
            start = start.m_step(start.e_step(x, ones)[0])
        floor = RELATIVE_FLOOR * jnp.minimum(jnp.exp(-start.log_concentration), 1) if floor is None else floor
        return dataclasses.replace(start, floor=jnp.broadcast_to(jnp.asarray(floor, dtype), event))

    @classmethod
    def from_values(cls, location, concentration, *, floor=None, prior=None, missing=False) -> VonMises:
        """From directions in radians and concentrations, `[*K, *event]` each, or one for all; 0 becomes the root of the
        smallest normal number.

        Raises:
            ModelError: a negative concentration.
        """
        location, concentration = floating(location, name="location"), floating(concentration, name="concentration")
        if concrete(concentration) and not (concentration >= 0).all():
            raise ModelError(
                "concentrations must not be negative", called="VonMises.from_values(location, concentration)",
                expected="0 or more", got=f"smallest {concentration.min()}",
                fix="np.maximum(concentration, 0); the constructor takes logarithms",
            )  # fmt: skip
        least = _least(concentration.dtype)
        location, log = jnp.broadcast_arrays(location, jnp.log(jnp.maximum(concentration, least)))
        floor = None if floor is None else jnp.broadcast_to(jnp.asarray(floor, location.dtype), location.shape)
        return cls(location, log.astype(location.dtype), floor, _prior(prior, location.shape, location.dtype), missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.location.shape

    @property
    def concentration(self) -> jax.Array:
        """`[*K, *event]`, k."""
        return jnp.exp(self.log_concentration)

    @property
    def resultant(self) -> jax.Array:
        """The length of the mean unit vector, `I1(k) / I0(k)`, `[*K, *event]`: 0 for uniform, 1 for one angle."""
        return _ratio(self.concentration)[0]

    @property
    def free_parameters(self) -> int:
        """A direction and a concentration for each coordinate."""
        return 2 * math.prod(self.location.shape)

    def check_data(self, x) -> None:
        """Refuses angles that are not finite with a DataError."""
        x = as_array(x, name="x", called="VonMises.check_data(x)", allow_nan=self.missing,
            missing=unseen("VonMises.check_data(x)"))
        if concrete(x) and np.abs(np.where(np.isnan(np.asarray(x, float)), 0, x)).max() > 1e4:
            raise DataError(
                "x has angles of more than a thousand turns, whose fraction is lost to rounding",
                called="VonMises.check_data(x)", expected="radians", got=f"up to {np.nanmax(np.abs(np.asarray(x)))}",
                fix="np.angle(np.exp(1j * np.asarray(x, float))), in float64; np.deg2rad(x) for degrees",
            )  # fmt: skip

    def _from_cut(self, x):
        """Return the probability between -pi and x, where draws lie; as much again for every turn beyond."""

        def around(d):
            turns = jnp.round(d / (2 * math.pi))
            d = d - 2 * math.pi * turns
            tail = von_mises_tail(self.concentration, jnp.abs(d))
            return turns + jnp.where(d < 0, tail, 1 - tail)

        loc = _wrapped(self.location)
        return around(x - loc) - around(-math.pi - loc)

    def _difference(self, x):
        """Angles from the direction within half a turn, what is finite, and each entry's penalty."""
        dtype = self.location.dtype
        inside = (x > -jnp.inf) & (x < jnp.inf)
        penalty = jnp.where(x != x, 0.0 if self.missing else jnp.nan, jnp.where(inside, 0.0, -jnp.inf)).astype(dtype)
        return _turned(jnp.where(inside, x, 0).astype(dtype), self.location), inside, penalty

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        difference, inside, penalty = self._difference(x)
        # k (cos - 1) by the half angle: a narrow density sees differences whose cosine rounds to one
        value = -2 * self.concentration * jnp.sin(difference / 2) ** 2
        value = value - (math.log(2 * math.pi) + _log_i0e(self.concentration))
        return jnp.sum(jnp.where(inside, value, 0) + penalty)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        share = self._from_cut(x.astype(self.location.dtype))
        inside = jnp.abs(x) <= math.pi
        return entries.cumulated(x, inside, share)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        level = jnp.broadcast_to(level, self.event_shape)
        return reach(self._from_cut, level, -math.pi, math.pi)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`, from -pi to pi.

        The rejection sampler of Best and Fisher (1979), written in the tangent of the half angle, where the envelope is
        a Cauchy density and nothing cancels however narrow it is. Two of three proposals are accepted or more.
        """
        k = self.concentration
        base = (1 + 1 / (2 * k + jnp.hypot(1, 2 * k))) / 2
        scale = jnp.sqrt(base / (base + 2 * k))

        def propose(state):
            key, tangent, done = state
            key, now = jax.random.split(key)
            turn, height = jax.random.uniform(now, (2, *k.shape), k.dtype)
            t = scale * jnp.tan(math.pi * (turn - 0.5))
            # sin^2 of the half angle; a tangent that overflows is half a turn
            y = base + 2 * k * jnp.where(jnp.abs(t) > 1, 1 / (1 + (1 / t) ** 2), t * t / (1 + t * t))
            accept = height <= y * jnp.exp(1 - y)
            return key, jnp.where(done, tangent, t), done | accept

        start = (key, jnp.zeros_like(k), jnp.zeros(k.shape, bool))
        _, tangent, _ = jax.lax.while_loop(lambda state: ~jnp.all(state[2]), propose, start)
        return _wrapped(self.location + 2 * jnp.arctan(tangent))

    @weighted_events
    def e_step(self, x, weight=None):
        """`VonMisesStatistics`, and `log_prob [N]`; entries that are not finite count nowhere."""
        difference, inside, _ = self._difference(x)
        seen = inside.astype(difference.dtype)
        parts = (seen, seen * jnp.sin(difference), seen * 2 * jnp.sin(difference / 2) ** 2)
        weight = weight.astype(seen.dtype)
        sums = (jnp.tensordot(weight, part, axes=1, precision=HIGHEST) for part in parts)
        return VonMisesStatistics(*sums), self.log_prob(x)

    def m_step(self, statistics) -> VonMises:
        """Weighted maximum likelihood; with a prior, the posterior mode."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where a coordinate has no mass or stops at the largest concentration, else 0."""
        eps = float(jnp.finfo(self.location.dtype).eps)
        alive = has_mass(statistics.weight)
        weight, sine, versine = jax.tree.map(jnp.add, statistics, self._pseudo())
        weight = jnp.where(alive, weight, 1)
        s, v = (jnp.where(alive, part / weight, 0) for part in (sine, versine))
        length = jnp.minimum(jnp.hypot(s, 1 - v), 1)
        # 1 - length, which 1 - length^2 = 2 v - v^2 - s^2 tells more exactly where the length is near one
        spread = jnp.where(alive, jnp.maximum(v * (2 - v) - s * s, 0) / (1 + length), 0.5)
        # ten roundings of an angle are the least spread there is
        least = jnp.maximum(0 if self.floor is None else self.floor, (10 * eps) ** 2)
        regular = spread > _ratio(1 / least)[1]
        k = jnp.where(regular, _concentration(jnp.where(regular, spread, 0.5), length), 1 / least)
        new = dataclasses.replace(
            self,
            location=jnp.where(alive, _wrapped(self.location + jnp.arctan2(s, 1 - v)), self.location),
            log_concentration=jnp.where(alive, jnp.log(k), self.log_concentration),
        )
        return new, jnp.any(~(alive & regular)).astype(jnp.int32)

    def _pseudo(self):
        """Return the statistics of the prior's pseudo-events, which add to those of the data."""
        if self.prior is None:
            return VonMisesStatistics(*[jnp.zeros_like(self.location)] * 3)
        count, mu, length = jnp.moveaxis(self.prior, -1, 0)
        versine = count - length + 2 * length * jnp.sin((mu - self.location) / 2) ** 2
        return VonMisesStatistics(count, length * jnp.sin(mu - self.location), versine)

    def log_prior(self):
        """`k R cos(location - mu) - c log I0(k)`, nats up to a constant."""
        if self.prior is None:
            return jnp.zeros((), self.location.dtype)
        pseudo = self._pseudo()
        return -jnp.sum(pseudo.weight * _log_i0e(self.concentration) + self.concentration * pseudo.versine)

    def freeze(self, statistics, frozen):
        """With a direction that is frozen the concentration is fitted around it: to the mean of cos, at least 0."""
        pseudo = self._pseudo()
        most = statistics.weight + pseudo.weight - pseudo.versine
        return statistics._replace(
            sine=jnp.where(frozen.location, -pseudo.sine, statistics.sine),
            versine=jnp.where(frozen.location, jnp.minimum(statistics.versine, most), statistics.versine),
        )

    def recentre(self, old, statistics):
        """Statistics around the old direction, around this one."""
        weight, sine, versine = statistics
        turn = self.location - old.location
        moved = 2 * weight * jnp.sin(turn / 2) ** 2 + versine * jnp.cos(turn) - sine * jnp.sin(turn)
        return VonMisesStatistics(weight, sine * jnp.cos(turn) - (weight - versine) * jnp.sin(turn), moved)

    def features(self, x):
        """Unit vectors, cosines and then sines, `[N, 2 D]`, for clustering; NaN where an entry was not seen."""
        x = jnp.where(jnp.isfinite(x), x, jnp.nan).astype(self.location.dtype).reshape((x.shape[0], -1))
        return jnp.concatenate([jnp.cos(x), jnp.sin(x)], axis=1)

    def distribution(self):
        """The distrax distribution."""
        dx = distrax()
        return dx.Independent(dx.VonMises(self.location, self.concentration), len(self.event_shape))


def _turned(x, location):
    """`x - location` less whole turns, to the last digit of what was given: a narrow density may straddle pi.

    Source: Knuth (1969), section 4.2.2, for the error of a difference; Cody and Waite (1980) for the turn in two parts.
    """
    difference = x - location
    back = difference - x
    error = (x - (difference - back)) - (location + back)
    turns = jnp.round(jax.lax.stop_gradient(difference) / (2 * math.pi))
    # a turn of ten bits, whose multiples are exact, and the rest of it
    return (difference - 6.28125 * turns) + (error - (2 * math.pi - 6.28125) * turns)


def _wrapped(angle):
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))


def _least(dtype):
    return float(jnp.finfo(dtype).tiny) ** 0.5


def _split(k):
    """Return a mask of where the asymptotic series is exact to rounding, and safe arguments for either side."""
    large = k > (10 if jnp.finfo(k.dtype).bits <= 32 else 300)
    return large, jnp.where(large, 1, k), jnp.where(large, k, 1000)


def _log_i0e(k):
    """`log I0(k) - k`, with a derivative that keeps its digits at large k."""
    large, small, k = _split(k)
    series = jnp.zeros_like(k)
    for c in reversed(_LOG_I0):
        series = (series + c) / k
    return jnp.where(large, series - 0.5 * jnp.log(2 * math.pi * k), jnp.log(jax.scipy.special.i0e(small)))


def _ratio(k):
    """`A(k) = I1(k) / I0(k)`, `1 - A` and `A'`, the last two with all their digits at large k."""
    large, small, k = _split(k)
    series, slope = jnp.zeros_like(k), jnp.zeros_like(k)
    # -d/dk of the series of log I0(k) - k, and again
    for j, c in reversed(list(enumerate(_LOG_I0, 1))):
        series, slope = (series + j * c) / k, (slope + j * (j + 1) * c) / k
    ratio = jax.scipy.special.i1e(small) / jax.scipy.special.i0e(small)
    per_k = jnp.where(small > 1e-3, ratio / jnp.maximum(small, 1e-3), 0.5 - small * small / 16)
    spread = jnp.where(large, (0.5 + series) / k, 1 - ratio)
    return (
        jnp.where(large, 1 - spread, ratio),
        spread,
        jnp.where(large, (0.5 + slope) / (k * k), 1 - ratio * ratio - per_k),
    )


def _concentration(spread, length):
    """The k with `A(k) = length = 1 - spread`, each given to its own digits.

    Source: Sra (2012), A short note on parameter approximation for von Mises-Fisher distributions: Newton's iteration
    from the start of Banerjee et al. (2005).
    """
    start = length * (2 - length * length) / (spread * (2 - spread))

    def step(_, k):
        own_length, own_spread, slope = _ratio(k)
        # below one half the length has the digits, above it the spread
        error = jnp.where(spread > 0.5, length - own_length, own_spread - spread)
        # A is concave in k: Newton's step never passes the root from below, and from above the start is near it
        return jnp.clip(k + error / slope, k / 4, k * 4)

    return jax.lax.fori_loop(0, STEPS, step, jnp.maximum(start, _least(start.dtype)))


def _prior(prior, shape, dtype):
    return None if prior is None else jnp.broadcast_to(jnp.asarray(prior, dtype), (*shape, 3))
