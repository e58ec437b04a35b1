"""Bijections of each coordinate by itself.

Those whose image is not all real numbers share one rule, so that no NaN comes of an edge. Forward it stops at the last
number of its dtype inside of the image, as in float32 the logistic function of 17 is 1. The inverse of a point on the
edge or outside is a finite point with a log-determinant of -inf, so that a density there is zero; its gradient is zero.
NaN stays NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.basics import as_floating, check
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.inputs import concrete, floating
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops.scaling import bent, center_and_scale, tails, unbent


@model
class Affine:
    """A trained shift and scale for each coordinate.

    `y = shift + exp(log_scale) x`, `log |det| = sum log_scale`

    Args:
        shift: `[*event]`.
        log_scale: `[*event]`.

    Example:
        >>> y, log_det = Affine.from_values([1.0, 2.0], 2.0).forward_and_log_det(jnp.ones(2))
        >>> y.tolist(), round(float(log_det / jnp.log(2.0)), 4)
        ([3.0, 4.0], 2.0)
    """

    shift: jax.Array
    log_scale: jax.Array

    @classmethod
    def from_values(cls, shift, scale) -> Affine:
        """Return the map of shifts and positive scales, `[*event]` each, or one for all.

        Raises:
            ModelError: scales that are not positive.
        """
        shift, scale = floating(shift, name="shift"), floating(scale, name="scale")
        if concrete(scale) and not (scale > 0).all():
            raise ModelError("an affine map needs positive scales", called="Affine.from_values(shift, scale)",
                             expected="numbers above 0", got=f"smallest {scale.min()}")  # fmt: skip
        shift, log_scale = jnp.broadcast_arrays(shift, jnp.log(scale).astype(shift.dtype))
        return cls(shift, log_scale)

    @classmethod
    def from_data(cls, x) -> Affine:
        """The median of each coordinate of events `[N, *event]` and its scale by the deciles, which no outlier moves:
        on the side of the base they have center 0 and scale 1. A coordinate that is the same in all events keeps the
        scale 1.

        Source: Kingma and Dhariwal (2018), Glow, section 3.1: the start of an activation normalisation.

        Example:
            >>> layer = Affine.from_data(jnp.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]]))
            >>> layer.shift.tolist(), layer.scale.round(4).tolist()
            ([2.0, 7.0], [0.6241999864578247, 1.0])
        """
        center, scale = center_and_scale(x)
        return cls(center, jnp.log(scale))

    def started(self, x, context=None):
        """Itself from events `[N, *event]` on the side of the data, and those on the side of the base."""
        layer = Affine.from_data(x)
        return layer, jax.vmap(lambda x: layer.inverse_and_log_det(x)[0])(x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.shift.shape

    @property
    def scale(self) -> jax.Array:
        """`[*event]`, positive."""
        return jnp.exp(self.log_scale)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        return self.shift + jnp.exp(self.log_scale) * x, jnp.sum(self.log_scale)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        return (y - self.shift) * jnp.exp(-self.log_scale), -jnp.sum(self.log_scale)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


@model
class Standardize:
    """Numbers of about unit size to the data's own units; never trained.

    `y = center + scale u`, `u = x` in the bulk, `|x| <= 3`. Where a column has data further out than 5, the tail on
    that side is logarithmic, `x = sign(u) (3 + log(1 + b (|u| - 3)) / b)`, so that all data lie within 5.

    Args:
        center: `[*event]`, units of the data.
        scale: `[*event]`, positive, units of the data.
        bend: b, `[2, *event]`, of the lower and the upper tail, 0 for none; None for none at all.

    Example:
        >>> layer = Standardize.from_data(jnp.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]]))
        >>> layer.center.tolist(), layer.scale.round(4).tolist(), layer.bend.tolist()
        ([2.0, 7.0], [0.6241999864578247, 1.0], [[0.0, 0.0], [0.0, 0.0]])
    """

    center: jax.Array = fixed()
    scale: jax.Array = fixed()
    bend: jax.Array | None = fixed(default=None)

    @classmethod
    def from_data(cls, x) -> Standardize:
        """The median of each coordinate of events `[N, *event]`, its scale by the deciles, and its far tails.

        No outlier moves the scale, see `ops.scaling.center_and_scale`. A coordinate that is the same in all events has
        no scale of its own and keeps 1.
        """
        x = floating(x)
        center, scale = center_and_scale(x)
        return cls(center, scale, tails((x - center) / scale))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.center.shape

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        u, log_slope = (x, 0) if self.bend is None else unbent(x, self.bend)
        return self.center + self.scale * u, jnp.sum(jnp.log(self.scale) + log_slope)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        u = (y - self.center) / self.scale
        x, log_slope = (u, 0) if self.bend is None else bent(u, self.bend)
        return x, jnp.sum(log_slope - jnp.log(self.scale))

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


def interior(y, low, high):
    """`y` kept to the numbers of its dtype inside of an open interval, whose ends may be infinite or arrays."""
    kind = jnp.finfo(y.dtype)
    low, high = jnp.asarray(low, y.dtype), jnp.asarray(high, y.dtype)
    # the number next to zero is subnormal, which devices take for zero
    first = jnp.maximum(jnp.nextafter(low, jnp.full_like(low, jnp.inf)), low + kind.tiny)
    last = jnp.minimum(jnp.nextafter(high, jnp.full_like(high, -jnp.inf)), high - kind.tiny)
    return jnp.clip(y, first, last)


def outside(y, low, high):
    """True where `y` is outside the open interval `(low, high)`; NaN counts as inside, so that it stays NaN."""
    return (y <= low) | (y >= high)


def sigmoid(x):
    """The logistic function and the log of its slope, of each coordinate."""
    return interior(jax.nn.sigmoid(x), 0, 1), log_sigmoid_slope(x)


def log_sigmoid_slope(x):
    """`log (s(x) s(-x))` of the logistic function `s`, exact however far out."""
    size = jnp.abs(x)
    return -size - 2 * jnp.log1p(jnp.exp(-size))


def logit(y):
    """The inverse of `sigmoid`, and the log of its slope."""
    out = outside(y, 0, 1)
    y = jnp.where(out, 0.5, y)
    low, high = jnp.log(y), jnp.log1p(-y)
    return low - high, jnp.where(out, -jnp.inf, -low - high)


def exp(x):
    """The exponential function and the log of its slope, of each coordinate."""
    return interior(finite_exp(x), 0, jnp.inf), x


def finite_exp(x):
    """The exponential function, constant where it would overflow."""
    return jnp.exp(jnp.minimum(x, (jnp.finfo(x.dtype).maxexp - 1) * math.log(2)))


def log(y):
    """The inverse of `exp`, and the log of its slope."""
    out = outside(y, 0, jnp.inf)
    x = jnp.log(jnp.where(out, 1, y))
    return x, jnp.where(out, -jnp.inf, -x)


def _tanh(x):
    size = jnp.abs(x)
    return interior(jnp.tanh(x), -1, 1), 2 * (math.log(2) - size - jnp.log1p(jnp.exp(-2 * size)))


def _arctanh(y):
    out = outside(y, -1, 1)
    y = jnp.where(out, 0, y)
    up, down = jnp.log1p(y), jnp.log1p(-y)
    return (up - down) / 2, jnp.where(out, -jnp.inf, -up - down)


def _softplus(x):
    return interior(jax.nn.softplus(x), 0, jnp.inf), -jax.nn.softplus(-x)


def _softplus_inverse(y):
    out = outside(y, 0, jnp.inf)
    y = jnp.where(out, 1, y)
    log_slope = jnp.log(-jnp.expm1(-y))
    return y + log_slope, jnp.where(out, -jnp.inf, -log_slope)


class _Numbers:
    """A function of one number at each coordinate: `there(x)` and `back(y)` give its image and the log of its slope."""

    there: Callable[..., Any]
    back: Callable[..., Any]

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        y, log_slope = self.there(as_floating(x))
        return y, jnp.sum(log_slope)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        x, log_slope = self.back(as_floating(y))
        return x, jnp.sum(log_slope)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


@model
class Sigmoid(_Numbers):
    """Real numbers to the open interval from 0 to 1; `Bounded` has other ends.

    `y = 1 / (1 + exp(-x))`, `log |det| = -sum (|x| + 2 log(1 + exp(-|x|)))`

    Args:
        event_shape: the shape of one event.

    Example:
        >>> y, log_det = Sigmoid(()).forward_and_log_det(jnp.float32(-80.0))
        >>> f"{y:.3e} {log_det:.3f}"
        '1.805e-35 -80.000'
    """

    event_shape: tuple[int, ...] = static()
    there = staticmethod(sigmoid)
    back = staticmethod(logit)


@model
class Tanh(_Numbers):
    """Real numbers to the open interval from -1 to 1.

    `y = tanh(x)`, `log |det| = 2 sum (log 2 - |x| - log(1 + exp(-2 |x|)))`

    Args:
        event_shape: the shape of one event.

    Example:
        >>> y, log_det = Tanh(()).forward_and_log_det(jnp.float32(20.0))
        >>> f"{y:.7f} {log_det:.6f}"
        '0.9999999 -38.613705'
    """

    event_shape: tuple[int, ...] = static()
    there = staticmethod(_tanh)
    back = staticmethod(_arctanh)


@model
class Softplus(_Numbers):
    """Real numbers to positive ones, nearly the identity where they are large.

    `y = log(1 + exp(x))`, `log |det| = -sum log(1 + exp(-x))`

    Args:
        event_shape: the shape of one event.

    Example:
        >>> y, log_det = Softplus(()).forward_and_log_det(jnp.float32(-80.0))
        >>> f"{y:.3e} {log_det:.3f}"
        '1.805e-35 -80.000'
    """

    event_shape: tuple[int, ...] = static()
    there = staticmethod(_softplus)
    back = staticmethod(_softplus_inverse)


@model
class Exp(_Numbers):
    """Real numbers to positive ones.

    `y = exp(x)`, `log |det| = sum x`

    Args:
        event_shape: the shape of one event.

    Example:
        >>> y, log_det = Exp((2,)).forward_and_log_det(jnp.log(jnp.array([2.0, 3.0])))
        >>> y.round(4).tolist(), f"{log_det:.4f}"
        ([2.0, 3.0], '1.7918')
    """

    event_shape: tuple[int, ...] = static()
    there = staticmethod(exp)
    back = staticmethod(log)
