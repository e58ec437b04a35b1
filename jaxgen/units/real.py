"""Units of real numbers: Gaussian and rectified."""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled
from jaxgen.core.inputs import as_array
from jaxgen.core.pytree import fixed, model
from jaxgen.ops.scaling import mean_and_scale
from jaxgen.ops.truncated import truncated_log_partition, truncated_mean, truncated_quantile, truncated_variance
from jaxgen.units.base import open_interval, refuse, table

_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


@model
class Gaussian:
    """Real numbers of learned mean m and standard deviation s: `t(u) = (u - m) / s`, `B = t^2 / 2`,
    `A(f) = f^2 / 2 + log s + log(2 pi) / 2`; given the field, `u ~ N(m + s f, s^2)`.

    Weights see the number in units of s and around m, so that they mean the same whatever the data were measured in.
    What is trained is of order one for the same reason: `m = center + unit shift` and `s = unit exp(log_width)`.

    Args:
        shift: `[n]`.
        log_width: `[n]`.
        center: `[n]`, of the data; not trained.
        unit: `[n]`, standard deviations of the data; not trained.

    Source: Welling, Rosen-Zvi & Hinton (2004), Exponential family harmoniums with an application to information
    retrieval; Melchior, Wang & Wiskott (2017), Gaussian-binary restricted Boltzmann machines for modeling natural image
    statistics.

    Example:
        >>> reals = Gaussian.from_values([1.0, 2.0], [0.5, 3.0])
        >>> reals.statistic(jnp.array([2.0, 2.0])).tolist(), reals.to_values(jnp.array([2.0, 1.0])).tolist()
        ([2.0, 0.0], [2.0, 5.0])
    """

    shift: jax.Array
    log_width: jax.Array
    center: jax.Array = fixed()
    unit: jax.Array = fixed()
    states: ClassVar[int | None] = None
    kinds: ClassVar[str] = "f"

    @classmethod
    def from_values(cls, location, scale) -> Gaussian:
        """From means and standard deviations given a field of zero, `[n]`, in which the data are then measured."""
        location, scale = jnp.asarray(location), jnp.asarray(scale)
        dtype = jnp.result_type(location, scale, jnp.float32)
        location, scale = jnp.broadcast_arrays(location.astype(dtype), scale.astype(dtype))
        return cls(jnp.zeros_like(location), jnp.zeros_like(location), location, scale)

    @classmethod
    def zeros(cls, n, dtype=None) -> Gaussian:
        """`n` of mean 0 and variance 1."""
        zeros = jnp.zeros(n, dtype)
        return cls(zeros, zeros, zeros, zeros + 1)

    @classmethod
    def init(cls, x, called="Gaussian.init(x)") -> Gaussian:
        """The means and standard deviations of data `[N, n]`; a constant column has the deviation 1."""
        center, scale = mean_and_scale(table(x, called))
        return cls(jnp.zeros_like(center), jnp.zeros_like(center), center, scale)

    @property
    def location(self) -> jax.Array:
        """m, in the units of the data."""
        return self.center + self.unit * self.shift

    @property
    def scale(self) -> jax.Array:
        """s, the standard deviation, in the units of the data."""
        return self.unit * jnp.exp(self.log_width)

    @property
    def sites(self) -> int:
        return self.shift.shape[-1]

    @property
    def size(self) -> int:
        return self.shift.shape[-1]

    def check(self, x, called) -> None:
        """Any finite number is one of these."""
        as_array(x, name="x", called=called)

    def statistic(self, u):
        # around the center first, which the data's digits are spent on
        return ((u.astype(self.shift.dtype) - self.center) / self.unit - self.shift) * jnp.exp(-self.log_width)

    def energy(self, u):
        return 0.5 * jnp.sum(self.statistic(u) ** 2, axis=-1)

    def log_partition(self, field):
        return 0.5 * field**2 + (self.log_width + jnp.log(self.unit) + _HALF_LOG_2_PI)

    def mean(self, field):
        return field

    def sample(self, noise, field):
        normal = math.sqrt(2) * jax.lax.erf_inv(2 * open_interval(noise) - 1)
        return self.to_values(field + normal)

    def to_values(self, mean):
        return self.center + self.unit * (self.shift + jnp.exp(self.log_width) * mean)


@model
class Rectified:
    """Numbers of zero and above: `t(u) = u`, `B(u) = u^2 / 2 - b u`; given the field, N(b + f, 1) cut off at zero.

    `A(f) = log int_0^inf exp((b + f) u - u^2 / 2) du`. Unlike the rectified linear units of Nair and Hinton, which are
    a recipe for sampling, this has an energy, and all is exact.

    Args:
        bias: `[n]`, b.

    Source: Socci, Lee & Seung (1998), The rectified Gaussian distribution; Su, Liao, Chen & Carin (2016), Nonlinear
    statistical learning with truncated Gaussian graphical models.

    Example:
        >>> units = Rectified.zeros(1)
        >>> round(float(units.mean(jnp.zeros(1))[0]), 4), bool(units.sample(jnp.array([0.0]), jnp.zeros(1))[0] > 5)
        (0.7979, True)
    """

    bias: jax.Array
    states: ClassVar[int | None] = None
    kinds: ClassVar[str] = "f"

    @classmethod
    def zeros(cls, n, dtype=None) -> Rectified:
        """`n` of bias 0."""
        return cls(jnp.zeros(n, dtype))

    @classmethod
    def init(cls, x, called="Rectified.init(x)") -> Rectified:
        """Biases whose means are those of data `[N, n]`; a column of zeros counts as one of mean 1/N."""
        x = table(x, called)
        cls.zeros(0).check(x, called)
        return cls(_bias_of(jnp.maximum(jnp.mean(x, axis=0), 1 / x.shape[0])))

    @property
    def sites(self) -> int:
        return self.bias.shape[-1]

    @property
    def size(self) -> int:
        return self.bias.shape[-1]

    def check(self, x, called) -> None:
        """Refuses negative numbers."""
        refuse(
            x, lambda x: ~(np.isfinite(x) & (x >= 0)), called, "not rectified", "finite numbers, zero or above",
            lambda x: "np.maximum(x, 0), or units of either sign",
        )  # fmt: skip

    def statistic(self, u):
        return u.astype(self.bias.dtype)

    def energy(self, u):
        u = u.astype(self.bias.dtype)
        return jnp.sum(u * (0.5 * u - self.bias), axis=-1)

    def log_partition(self, field):
        return truncated_log_partition(self.bias + field)

    def mean(self, field):
        return truncated_mean(self.bias + field)

    def sample(self, noise, field):
        return truncated_quantile(open_interval(noise), self.bias + field)

    def to_values(self, mean):
        return mean


@compiled
def _bias_of(mean):
    """The biases of rectified units with these means."""

    # the mean rises with the bias, is convex, and at this start too large: Newton's steps go down to the root
    def newton(_, bias):
        return bias - (truncated_mean(bias) - mean) / truncated_variance(bias)

    return jax.lax.fori_loop(0, 30, newton, mean)
