"""The identity between two ends, which bends only beside them: for densities of numbers that cannot pass."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.bijections.basics import as_floating, check
from jaxgen.bijections.elementwise import interior, outside
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.pytree import model, static


@model
class SoftClip:
    """Real numbers to an interval for each coordinate, as they are but near its ends; never trained.

    `y = low + s softplus((x - low) / s) - s softplus((x - high) / s)`, with the term of an end that is infinite left
    out

    A density that ends at full height, as the posterior of a parameter with a uniform prior does, is then one with a
    tail of that width; `Bounded` would stretch all of the interval, and lines in it would be curves.

    Args:
        low: numbers as nested tuples of the event's shape; -inf for none.
        high: the same, above `low`; inf for none.
        width: s, the same, positive, units of the events.

    Source: Klein, Rios, Bormann and Cohn (2020), Soft clipping, as one of the bijectors of TensorFlow Probability.

    Example:
        >>> layer = SoftClip.from_values([-1.0, -jnp.inf], [1.0, jnp.inf], 0.1)
        >>> [round(float(y), 3) for y in layer.forward_and_log_det(jnp.array([0.25, 7.0]))[0]]
        [0.25, 7.0]
        >>> [round(float(y), 3) for y in layer.forward_and_log_det(jnp.array([1.5, 7.0]))[0]]
        [0.999, 7.0]
    """

    low: Any = static()
    high: Any = static()
    width: Any = static()

    @classmethod
    def from_values(cls, low, high, width) -> SoftClip:
        """From numbers or arrays that broadcast to one shape, which is the event's.

        Raises:
            ModelError: an interval that is empty, or a width that is not positive and finite.
        """
        low, high, width = np.broadcast_arrays(*(np.asarray(value, float) for value in (low, high, width)))
        if not (np.all(low < high) and np.all(width > 0) and np.all(np.isfinite(width))):
            raise ModelError(
                "an interval is empty, or its ends have no width", called="SoftClip.from_values(low, high, width)",
                expected="low < high, width > 0 and finite",
                got=f"low {low.tolist()}, high {high.tolist()}, width {width.tolist()}"[:200],
            )  # fmt: skip
        return cls(*map(_tuples, (low.tolist(), high.tolist(), width.tolist())))

    @property
    def event_shape(self):
        return np.shape(self.width)

    def _ends(self, dtype):
        """The ends, which there are, and for arithmetic ends that are finite, and the width."""
        low, high = (np.asarray(end, float) for end in (self.low, self.high))
        lower, upper = np.isfinite(low), np.isfinite(high)
        finite = (jnp.asarray(np.where(known, end, 0), dtype) for known, end in ((lower, low), (upper, high)))
        ends = jnp.asarray(low, dtype), jnp.asarray(high, dtype)
        return ends, (lower, upper), tuple(finite), jnp.asarray(self.width, dtype)

    def _log_slope(self, x, dtype):
        """`log dy/dx`: the slope is the difference of two logistic functions, that of the product of two."""
        _, (lower, upper), (low, high), s = self._ends(dtype)
        slope = jnp.where(lower, jax.nn.log_sigmoid((x - low) / s), 0)
        slope = slope + jnp.where(upper, jax.nn.log_sigmoid((high - x) / s), 0)
        both = lower & upper
        return slope + jnp.where(both, _log_missing(jnp.where(both, (high - low) / s, 1)), 0)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        x = as_floating(x)
        ends, (lower, upper), (low, high), s = self._ends(x.dtype)
        # softplus(a) = a + softplus(-a): what is far inside keeps its digits
        rise, cut = s * jax.nn.softplus((low - x) / s), s * jax.nn.softplus((x - high) / s)
        y = x + jnp.where(lower, rise, 0) - jnp.where(upper, cut, 0)
        return interior(y, *ends), jnp.sum(self._log_slope(x, x.dtype))

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        y = as_floating(y)
        ends, (lower, upper), (low, high), s = self._ends(y.dtype)
        out = outside(y, *ends)
        below, above = jnp.where(lower & ~out, (y - low) / s, 1), jnp.where(upper & ~out, (high - y) / s, 1)
        x = y + s * (jnp.where(lower, _log_missing(below), 0) - jnp.where(upper, _log_missing(above), 0))
        x = jnp.where(out, 0, x)
        return x, jnp.sum(jnp.where(out, -jnp.inf, -self._log_slope(x, y.dtype)))

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


def _log_missing(a):
    """`log (1 - exp(-a))` for positive a."""
    near = a < 0.7
    return jnp.where(near, jnp.log(-jnp.expm1(-jnp.where(near, a, 1))), jnp.log1p(-jnp.exp(-jnp.where(near, 1, a))))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
