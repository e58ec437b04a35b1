"""Supports: what values data can take, and the bijection from all real numbers to them.

A flow is made on unbounded numbers and ends in the layer of its support, so that its density is one of the user's own
values: zero outside, and never mass where no data can be.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.bijections.basics import as_floating, check
from jaxgen.bijections.elementwise import finite_exp, interior, log_sigmoid_slope, outside
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.methods import latent_shape
from jaxgen.core.protocols import has
from jaxgen.core.pytree import model, static

HIGHEST = jax.lax.Precision.HIGHEST
#: how far the sum of a point of the simplex may be from one: what is left of coordinates that were rounded to float32
SUM_SLACK = 1e-5


@model
class Bounded:
    """Real numbers to an interval for each coordinate, whose ends may be infinite; never trained.

    `y = low + (high - low) / (1 + exp(-x))`, `low + exp(x)` without an upper end, `high - exp(-x)` without a lower one,
    and `x` without any.

    Args:
        low: a number, or numbers as nested tuples of the event's shape; -inf for none.
        high: the same, above `low`; inf for none.
        event_shape: the shape of one event.

    Example:
        >>> layer = Bounded.from_values([0.0, 0.0, -jnp.inf], [1.0, jnp.inf, jnp.inf])
        >>> layer.forward_and_log_det(jnp.zeros(3))[0].tolist()
        [0.5, 1.0, 0.0]
    """

    # structure, not arrays: a model is watched for arrays that are not finite
    low: Any = static()
    high: Any = static()
    event_shape: tuple[int, ...] = static()

    @classmethod
    def from_values(cls, low, high, event_shape: tuple[int, ...] | None = None) -> Bounded:
        """From numbers or arrays that broadcast to `event_shape`; None takes their own shape.

        Raises:
            ModelError: an interval that is empty, or ends that do not fit the shape.
        """
        ends = [np.asarray(end, float) for end in (low, high)]
        shape = np.broadcast_shapes(*(end.shape for end in ends)) if event_shape is None else tuple(event_shape)
        if any(end.shape not in ((), shape) for end in ends) or not np.all(ends[0] < ends[1]):
            raise ModelError(
                "an interval is empty, or does not fit the events", called="Bounded.from_values(low, high)",
                expected=f"low < high, each one number or of shape {list(shape)}",
                got=f"low {ends[0].tolist()}, high {ends[1].tolist()}"[:200],
            )  # fmt: skip
        return cls(_tuples(ends[0].tolist()), _tuples(ends[1].tolist()), tuple(map(int, shape)))

    def _ends(self, dtype):
        """The ends, which there are, and ends that are finite, for arithmetic."""
        low, high = (np.broadcast_to(np.asarray(end, float), self.event_shape) for end in (self.low, self.high))
        lower, upper = np.isfinite(low), np.isfinite(high)
        finite = (jnp.asarray(np.where(has, end, 0), dtype) for has, end in ((lower, low), (upper, high)))
        return jnp.asarray(low, dtype), jnp.asarray(high, dtype), lower, upper, *finite

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        x = as_floating(x)
        first, last, lower, upper, low, high = self._ends(x.dtype)
        width = jnp.where(lower & upper, high - low, 1)
        away = jnp.where(lower, x, -x)  # from the one end that there is
        step = finite_exp(jnp.where(lower ^ upper, away, 0))
        y = jnp.where(lower, low + step, jnp.where(upper, high - step, x))
        y = jnp.where(lower & upper, low + width * jax.nn.sigmoid(x), y)
        slope = jnp.where(lower ^ upper, away, 0)
        slope = jnp.where(lower & upper, jnp.log(width) + log_sigmoid_slope(x), slope)
        return interior(y, first, last), jnp.sum(slope)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        y = as_floating(y)
        first, last, lower, upper, low, high = self._ends(y.dtype)
        out = outside(y, first, last)
        # the distance from each end, 1 where there is none or y is beyond it
        below = jnp.log(jnp.where(lower & ~out, y - low, 1))
        above = jnp.log(jnp.where(upper & ~out, high - y, 1))
        width = jnp.where(lower & upper, high - low, 1)
        x = jnp.where(lower | upper, below - above, jnp.where(out, 0, y))
        slope = jnp.log(width) - below - above
        return x, jnp.sum(jnp.where(out, -jnp.inf, slope))

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


@model
class Simplex:
    """D - 1 real numbers to D positive ones of sum one, by the isometric log-ratio.

    `y = softmax(V x)`, `log |det| = sum_i log y_i + log(D) / 2`, where the columns of V `[D, D-1]` are an orthonormal
    basis of the vectors of sum zero: `x = V^T log y`.

    Distances of `x` are those of `log y` around its mean, and no coordinate is special. So no digits are lost near a
    corner, where stick-breaking subtracts from one and the additive log-ratio measures all against one small number.
    The density is that of the first D - 1 coordinates, as that of `scipy.stats.dirichlet`.

    Args:
        size: D, at least 2.

    A point with a coordinate that is not positive, or whose sum is not one, has a log-determinant of -inf. A sum within
    1e-5 of one is one that was rounded: the density is that of the point divided by it.

    Source: Egozcue et al. (2003), Isometric logratio transformations for compositional data analysis.

    Example:
        >>> layer = Simplex(3)
        >>> layer.forward_and_log_det(jnp.zeros(2))[0].round(4).tolist(), layer.latent_shape
        ([0.33329999446868896, 0.33329999446868896, 0.33329999446868896], (2,))
    """

    size: int = static()

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.size - 1,)

    def _basis(self, dtype):
        # Helmert's: column j is the mean of the first j coordinates against the next
        j = np.arange(1, self.size)
        basis = np.triu(np.ones((self.size, self.size - 1)))
        basis[j, j - 1] = -j
        return jnp.asarray(basis / np.sqrt(j * (j + 1)), dtype)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        x = as_floating(x)
        log_y = jax.nn.log_softmax(jnp.matmul(self._basis(x.dtype), x, precision=HIGHEST))
        return interior(jnp.exp(log_y), 0, 1), jnp.sum(log_y) + math.log(self.size) / 2

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        y = as_floating(y)
        total = jnp.sum(y)
        out = jnp.any(y <= 0) | (jnp.abs(total - 1) > SUM_SLACK)
        log_y = jnp.log(jnp.where(out, 1 / self.size, y)) - jnp.log(jnp.where(out, 1, total))
        x = jnp.matmul(log_y - jnp.mean(log_y), self._basis(y.dtype), precision=HIGHEST)
        return x, jnp.where(out, -jnp.inf, -jnp.sum(log_y) - math.log(self.size) / 2)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


@model
class Wrap:
    """Angles in radians of any number of turns as those from -pi to pi; never trained.

    `y = x - 2 pi round(x / 2 pi)`, `log |det| = 0`

    Both directions wrap: it inverts angles from -pi to pi. A density behind it is one of the circle, the same for whole
    turns, and integrates to one over any turn.

    Args:
        event_shape: the shape of one event.

    Example:
        >>> Wrap((2,)).inverse_and_log_det(jnp.array([1.0, 1.0 + 2 * jnp.pi]))[0].round(4).tolist()
        [1.0, 1.0]
    """

    event_shape: tuple[int, ...] = static()

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        return _wrapped(x)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        return _wrapped(y)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


def _wrapped(x):
    x = as_floating(x)
    return x - 2 * math.pi * jnp.round(x / (2 * math.pi)), jnp.zeros((), x.dtype)


class Support(Protocol):
    """The set of values that an event can take: `real`, `positive`, `simplex`, `circle` and `Interval(low, high)`.

    One with `periodic = True` is no line: its events are not standardised, and its layers close on the circle. One with
    a method `fix(x)` says in an error how data that lie outside of it get inside.
    """

    def layer(self, event_shape: tuple[int, ...]) -> Any:
        """The bijection from unbounded numbers to events; None where events are unbounded as they are."""
        ...


class Fixing(Protocol):
    """A support that says how data outside of it get inside."""

    def fix(self, x: Any) -> str:
        """Code, for an error."""
        ...


@dataclasses.dataclass(frozen=True)
class Interval:
    """Between two ends, exclusive; either may be infinite, and each may be a tuple of one number per coordinate.

    Args:
        low: the lower end or ends, `-math.inf` for none.
        high: the upper end or ends, `math.inf` for none.

    Example:
        >>> Interval(0.0, 1.0).layer((2,)).forward_and_log_det(jnp.zeros(2))[0].tolist()
        [0.5, 0.5]
    """

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]

    def layer(self, event_shape: tuple[int, ...]) -> Any:
        """The bijection to events of a shape.

        Raises:
            ModelError: ends that do not fit the shape, or no numbers between them.
        """
        layer = Bounded.from_values(self.low, self.high, event_shape)
        return layer if np.isfinite(layer.low).any() or np.isfinite(layer.high).any() else None

    def fix(self, x: np.ndarray) -> str:
        """An interval that holds the data."""
        if (x == np.floor(x)).all():
            return "a Dequantized model, for whole numbers"
        least, most = float(x.min()), float(x.max())
        margin = 0.01 * (most - least) or 1.0
        low = np.where(np.min(x, axis=0) <= self.low, least - margin, self.low).min()
        high = np.where(np.max(x, axis=0) >= self.high, most + margin, self.high).max()
        return f"support=Interval({low:.6g}, {high:.6g})".replace("inf", "np.inf")


@dataclasses.dataclass(frozen=True)
class _Simplex:
    def fix(self, x: np.ndarray) -> str:
        """Return code, for an error message, that scales parts to sum to one."""
        least = float(np.min(x, where=x > 0, initial=1)) / 2
        parts = "np.asarray(x, 'float32')" if x.dtype.itemsize < 4 else "np.asarray(x)"  # sums in 16 bits are rounded
        parts = parts if (x > 0).all() else f"np.maximum({parts}, {least:.3g})"
        return f"{parts} / {parts}.sum(-1, keepdims=True)"

    def layer(self, event_shape: tuple[int, ...]) -> Any:
        if len(event_shape) != 1 or event_shape[0] < 2:
            raise ModelError(
                "the simplex has vectors of two or more coordinates", called="support=simplex", expected="events [D]",
                got=f"events {list(event_shape)}",
            )  # fmt: skip
        return Simplex(int(event_shape[0]))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class _Circle:
    periodic = True

    def layer(self, event_shape: tuple[int, ...]) -> Any:
        return Wrap(tuple(map(int, event_shape)))


real = Interval(-math.inf, math.inf)
positive = Interval(0.0, math.inf)
simplex = _Simplex()
circle = _Circle()


def layer_of(support: Support, x: Any, called: str) -> Any:
    """The bijection from unbounded numbers to events such as those of `x`, `[N, *event]`; None if none is needed."""
    if not has(support, Support):
        raise ModelError(
            "that is no support", called=called, expected="real, positive, simplex, circle, Interval(low, high)",
            got=repr(support)[:80], fix="from jaxgen.bijections import positive",
        )  # fmt: skip
    return support.layer(tuple(x.shape[1:]))


def to_real(support: Support, x: Any, called: str) -> tuple[Any, Any]:
    """Data in the unbounded numbers of their support, `[N, *latent]`, and the layer from there, None if none is needed.

    Raises:
        DataError: data outside of the support or on its edge, where no density reaches.
        ModelError: a support that is none, or does not fit the events.

    Example:
        >>> z, layer = to_real(positive, jnp.array([[1.0], [2.0]]), "demo")
        >>> z.round(4).tolist()
        [[0.0], [0.6930999755859375]]
    """
    given, x = x, as_floating(jnp.asarray(as_array(x, name="x", called=called)))
    layer = layer_of(support, x, called)
    if layer is None:
        return x, None
    z, log_det = jax.jit(jax.vmap(layer.inverse_and_log_det))(x)
    if concrete(log_det) and not np.isfinite(log_det).all():
        refused = ~np.isfinite(log_det)
        first = int(np.argmax(refused))
        raise DataError(
            "data lie outside of the support or on its edge", called=called, expected=f"values inside of {support}",
            got=f"{int(refused.sum())} of {len(x)} events, the first x[{first}] = {np.asarray(x[first])}",
            fix=_fix(support, given),
        )  # fmt: skip
    return z, layer


def unseen_real(support: Support, x: jax.Array, called: str) -> tuple[jax.Array, Any]:
    """The same without data, of an `x` that has a shape alone: zeros `[1, *latent]`, and the layer.

    Example:
        >>> unseen_real(simplex, jnp.zeros((1, 3)), "demo")[0].shape
        (1, 2)
    """
    layer = layer_of(support, x, called)
    return (x, None) if layer is None else (jnp.zeros((1, *latent_shape(layer)), x.dtype), layer)


def _fix(support: Any, given: Any) -> str:
    return support.fix(np.asarray(given)) if has(support, Fixing) else ""
