"""Bijections of each coordinate by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgen.core.exchange import as_bijector
from jaxgen.core.gate import floating
from jaxgen.core.pytree import fixed, model
from jaxgen.nn.bijections.basics import check
from jaxgen.ops.units import mean_and_scale


@model
class Affine:
    """A trained shift and scale for each coordinate.

    `y = shift + exp(log_scale) x`, `log |det| = sum log_scale`

    Args:
        shift: `[*event]`.
        log_scale: `[*event]`.

    Example:
        >>> y, log_det = Affine(jnp.array([1.0, 2.0]), jnp.zeros(2)).forward(jnp.zeros(2))
        >>> y.tolist(), float(log_det)
        ([1.0, 2.0], 0.0)
    """

    shift: jax.Array
    log_scale: jax.Array

    @classmethod
    def from_data(cls, x) -> Affine:
        """The mean and standard deviation of each coordinate of events `[N, *event]`: on the side of the base they have
        mean 0 and scale 1. A coordinate that is the same in all events keeps the scale 1.

        Source: Kingma and Dhariwal (2018), Glow, section 3.1: the start of an activation normalisation.

        Example:
            >>> layer = Affine.from_data(jnp.array([[1.0, 7.0], [3.0, 7.0]]))
            >>> layer.shift.tolist(), layer.log_scale.tolist()
            ([2.0, 7.0], [0.0, 0.0])
        """
        units = Standardize.from_data(x)
        return cls(units.mean, jnp.log(units.scale))

    def started(self, x, context=None):
        """Itself from events `[N, *event]` on the side of the data, and those on the side of the base."""
        layer = Affine.from_data(x)
        return layer, jax.vmap(lambda x: layer.inverse(x)[0])(x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.shift.shape

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward", x, context)
        return self.shift + jnp.exp(self.log_scale) * x, jnp.sum(self.log_scale)

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse", y, context)
        return (y - self.shift) * jnp.exp(-self.log_scale), -jnp.sum(self.log_scale)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


@model
class Standardize:
    """Data of mean zero and unit variance to the data's own units; never trained.

    `y = mean + scale x`, `log |det| = sum log scale`

    Args:
        mean: `[*event]`, units of the data.
        scale: `[*event]`, positive, units of the data.

    Example:
        >>> layer = Standardize.from_data(jnp.array([[1.0, 7.0], [3.0, 7.0]]))
        >>> layer.mean.tolist(), layer.scale.tolist()
        ([2.0, 7.0], [1.0, 1.0])
    """

    mean: jax.Array = fixed()
    scale: jax.Array = fixed()

    @classmethod
    def from_data(cls, x) -> Standardize:
        """The mean and standard deviation of each coordinate of events `[N, *event]`.

        A coordinate that is the same in all events has no scale of its own and keeps 1.
        """
        x = floating(x)
        mean, scale = mean_and_scale(x.reshape((x.shape[0], -1)))
        return cls(mean.reshape(x.shape[1:]), scale.reshape(x.shape[1:]))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward", x, context)
        return self.mean + self.scale * x, jnp.sum(jnp.log(self.scale))

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse", y, context)
        return (y - self.mean) / self.scale, -jnp.sum(jnp.log(self.scale))

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)
