"""An affine map around what a linear regression predicts of an event from its context; never trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.bijections.basics import as_floating, check
from jaxgen.core.errors import ShapeError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.inputs import floating
from jaxgen.core.pytree import fixed, model

HIGHEST = jax.lax.Precision.HIGHEST
#: directions whose variance is a smaller share of the largest, in units of the columns, have that share of it
LEAST_SHARE = 1e-8


@model
class Predicted:
    """Numbers of unit variance, not correlated, to what they are the residuals of: `y = center + B c + M x`.

    Layers behind it see only what a line leaves of the dependence on the context, in the axes in which that varies
    most and least. Of a posterior that is normal with a mean linear in the data they have nothing more to learn, and a
    shape that the context moves about is one shape.

    Args:
        center: `[D]`, units of the event.
        coefficients: B, `[D, C]`.
        axes: M, `[D, D]`: columns are the principal axes of the residuals, in units of their deviations.
        inverse: of M.
        log_volume: `log |det M|`.

    Example:
        >>> context = jnp.linspace(-1, 1, 50)[:, None]
        >>> layer = Predicted.from_data(3 * context + jnp.where(jnp.arange(50)[:, None] % 2, 0.1, -0.1), context)
        >>> round(float(layer.coefficients[0, 0]), 1), round(float(layer.axes[0, 0]), 2)
        (3.0, 0.1)
    """

    center: jax.Array = fixed()
    coefficients: jax.Array = fixed()
    axes: jax.Array = fixed()
    inverse: jax.Array = fixed()
    log_volume: jax.Array = fixed()

    @classmethod
    def from_data(cls, x, context) -> Predicted:
        """By least squares of events `[N, D]` on contexts `[N, C]`, in float64 on the host.

        Raises:
            ShapeError: events or contexts that are no vectors, or of another number.
        """
        events, given = (np.asarray(a, np.float64) for a in (x, context))
        if events.ndim != 2 or given.ndim != 2 or len(events) != len(given):
            raise ShapeError(
                "a line is fitted to vectors and their contexts", called="Predicted.from_data(x, context)",
                expected="x [N, D], context [N, C]", got=f"shapes {list(events.shape)}, {list(given.shape)}",
            )  # fmt: skip
        mean, middle = events.mean(axis=0), given.mean(axis=0)
        slope = np.linalg.lstsq(given - middle, events - mean, rcond=1e-6)[0]
        left = events - mean - (given - middle) @ slope
        scale = np.where(left.std(axis=0) > 0, left.std(axis=0), 1)
        variance, turn = np.linalg.eigh(left.T @ left / len(left) / np.outer(scale, scale))
        # the narrowest first; a direction without residuals keeps a width, so that the map has an inverse
        deviation = np.sqrt(np.maximum(variance, max(LEAST_SHARE * variance[-1], np.finfo(np.float32).tiny)))
        axes, inverse = scale[:, None] * turn * deviation, (turn / deviation).T / scale
        values = mean - middle @ slope, slope.T, axes, inverse, np.sum(np.log(deviation) + np.log(scale))
        kind = floating(jnp.asarray(x)).dtype
        return cls(*(jnp.asarray(value, kind) for value in values))

    @property
    def event_shape(self):
        return self.center.shape

    @property
    def context_shape(self):
        return self.coefficients.shape[-1:]

    def _middle(self, context):
        context = jnp.asarray(context, self.center.dtype)
        return self.center + jnp.matmul(self.coefficients, context, precision=HIGHEST)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        y = self._middle(context) + jnp.matmul(self.axes, as_floating(x), precision=HIGHEST)
        return y, self.log_volume

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        return jnp.matmul(self.inverse, as_floating(y) - self._middle(context), precision=HIGHEST), -self.log_volume

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)
