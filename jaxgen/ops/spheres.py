"""Directions: the von Mises-Fisher family on the sphere in any number of dimensions, its integrals and its draws.

The part w of a direction along the mean one has a density proportional to `exp(k w) (1 - w^2)^((D - 3) / 2)`. With
`w = tanh t` that is `exp(-k y) / cosh(t)^(D - 1)`, `y = 1 - tanh t`, smooth on the whole line, and about as wide
whatever k is: the trapezoidal rule gives its integrals to the last digits, from two dimensions up,
and without Bessel functions.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.ops.stable import logsumexp, softmax

__all__ = ["draw_along", "gap", "log_area", "log_normalizer", "mean_gap"]

#: the rule's step and reach, in units of `1 / sqrt(D - 1)`, by the bits of a float: what they leave out is below its
#: rounding in the slowest case, D = 2, whose density falls as exp(-|t|) and whose transform as exp(-pi^2 / (2 step))
RULES = {32: (0.25, 20.0), 64: (0.125, 40.0)}
#: Gauss-Legendre points on one side of a draw, which is smooth
NODES, WEIGHTS = (a.astype(np.float64) for a in np.polynomial.legendre.leggauss(64))


def log_area(size: int) -> float:
    """Return the logarithm of the area of the unit sphere in `size` dimensions.

    `2 pi^(D / 2) / Gamma(D / 2)`

    Example:
        >>> round(math.exp(log_area(2)) / math.pi, 6), round(math.exp(log_area(3)) / math.pi, 6)
        (2.0, 4.0)
    """
    return math.log(2.0) + size / 2 * math.log(math.pi) - math.lgamma(size / 2)


def gap(t: Any) -> jax.Array:
    """Return `1 - tanh t`, with all its digits.

    Example:
        >>> round(float(gap(jnp.float32(20.0))) * 1e18, 3)
        8.497
    """
    return 2 * jax.nn.sigmoid(-2 * t)


def log_normalizer(concentration: Any, size: int) -> jax.Array:
    """Return `log integral exp(k (m . x - 1)) dx` over the unit sphere, m any direction, nats.

    Args:
        concentration: k, 0 or more, `[]`.
        size: D, 2 or more.

    Example:
        >>> k = jnp.float32(2.0)  # in three dimensions 2 pi (1 - exp(-2 k)) / k
        >>> round(float(jnp.exp(log_normalizer(k, 3))), 4), round(math.pi * (1 - math.exp(-4.0)), 4)
        (3.0841, 3.0841)
    """
    step, heights, _ = _integrand(concentration, size)
    return log_area(size - 1) + math.log(step) + logsumexp(heights)


def mean_gap(concentration: Any, size: int) -> jax.Array:
    """Return `1 - E[m . x]`, one minus the mean resultant length `I_(D/2)(k) / I_(D/2 - 1)(k)`.

    Example:
        >>> k = jnp.float32(2.0)  # in three dimensions 1 - coth k + 1 / k
        >>> round(float(mean_gap(k, 3)), 5), round(1.5 - 1 / math.tanh(2.0), 5)
        (0.46269, 0.46269)
    """
    _, heights, t = _integrand(concentration, size)
    return jnp.sum(softmax(heights) * gap(t))


def draw_along(key: Any, concentration: Any, size: int) -> jax.Array:
    """Return a draw of t, where `tanh t` is the part of a direction along the mean one.

    It is reparametrised in k by the implicit derivative of its distribution function F, `dt/dk = -(dF/dk) / F'(t)`,
    however it was drawn.

    Source: Wood (1994), Simulation of the von Mises Fisher distribution, for the draws by rejection, at most 1.6 tries
    in the mean; Figurnov, Mohamed and Mnih (2018), Implicit reparameterization gradients.

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 1000)
        >>> t = jax.vmap(lambda key: draw_along(key, jnp.float32(2.0), 3))(keys)
        >>> abs(float(jnp.tanh(t).mean()) - 0.537) < 0.05
        True
    """
    concentration = jnp.asarray(concentration)
    t = _drawn(key, jax.lax.stop_gradient(concentration), size)
    return _following(size)(concentration, t)


def _peak(k, size):
    """The t at which `exp(-k y) / cosh(t)^(D - 1)` is largest."""
    return jnp.asinh(2 * k / (size - 1)) / 2


def _log_density(t, k, size):
    """`-k y - (D - 1) log cosh t`."""
    far = jnp.abs(t)
    log_cosh = far + jnp.log1p(jnp.exp(-2 * far)) - math.log(2.0)
    return -k * gap(t) - (size - 1) * log_cosh


def _integrand(k, size):
    """The step of the rule, the logarithms of the integrand at its points, and the points."""
    k = jnp.asarray(k)
    step, reach = RULES[max(jnp.finfo(k.dtype).bits, 32)]
    unit = 1 / math.sqrt(size - 1)
    places = jnp.asarray(unit * np.arange(-reach, reach + step, step), k.dtype)
    # where the points are changes no integral, and so no derivative
    t = jax.lax.stop_gradient(_peak(k, size)) + places
    return step * unit, _log_density(t, k, size), t


def _drawn(key, k, size):
    peak = _peak(k, size)
    low = gap(peak)

    def propose(key):
        first, second = jax.random.split(key)
        noise = jax.random.normal(first, (size,), k.dtype)
        across = jnp.maximum(jnp.sqrt(jnp.sum(noise[1:] ** 2)), jnp.finfo(k.dtype).tiny)
        # a uniform direction has the part tanh(asinh(.)) along the first axis, and Wood's envelope is it moved by a sum
        t = peak + jnp.asinh(noise[0] / across)
        y = gap(t)
        log_ratio = k * (low - y) + (size - 1) * jnp.log((low + (1 - low) * y) / (low * (2 - low)))
        return t, jnp.log1p(-jax.random.uniform(second, (), k.dtype)) <= log_ratio

    def again(state):
        key, *_ = state
        key, now = jax.random.split(key)
        return key, *propose(now)

    state = key, jnp.zeros((), k.dtype), jnp.zeros((), bool)
    return jax.lax.while_loop(lambda state: ~state[2], again, state)[1]


def _following(size):
    """`(k, t) -> t`, whose derivative with respect to k keeps the distribution function at t where it is."""

    @jax.custom_jvp
    def follow(k, t):
        return t

    @follow.defjvp
    def _(primals, tangents):
        k, t = primals
        return follow(k, t), _speed(k, t, size) * tangents[0] + tangents[1]

    return follow


def _speed(k, t, size):
    """`-(dF/dk) / F'(t)`: the integral of `(w - E w) F'` beyond t, over `F'(t)`, on the side where F' falls."""
    side = jnp.where(t >= _peak(k, size), 1, -1).astype(t.dtype)
    reach = RULES[32][1] / math.sqrt(size - 1)
    along, weights = (jnp.asarray(a, t.dtype) for a in ((NODES + 1) / 2 * reach, WEIGHTS / 2 * reach))
    there = t + side * along
    relative = jnp.exp(_log_density(there, k, size) - _log_density(t, k, size))
    return side * jnp.sum(weights * (mean_gap(k, size) - gap(there)) * relative)
