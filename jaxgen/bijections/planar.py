"""Bijections that move events along a few directions: planar, radial and Sylvester layers."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxgen.bijections.basics import check, vectors
from jaxgen.bijections.linear import Householder, matmul
from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.inputs import concrete, floating
from jaxgen.core.methods import check_key
from jaxgen.core.pytree import model
from jaxgen.ops.roots import bisect

#: `softplus(x + UNIT)` is 1 at 0
UNIT = math.log(math.e - 1)
#: from this slope on a hidden unit's root is a better measure of where it was than what it did
STRONG = 2.0


def _gain(raw):
    """A positive number that is one at zero: one plus the gain of a layer, which has to stay above minus one."""
    return jax.nn.softplus(raw + UNIT)


def _log_slope(gain, a):
    """`log(1 + (gain - 1) tanh'(a))`, as a sum of positive numbers: nothing cancels where the slope is near zero."""
    tanh = jnp.tanh(a)
    return jnp.log(tanh**2 + (1 - tanh**2) * gain)


def _unbend(gain, target):
    """a, where `a + (gain - 1) tanh(a) = target`."""
    return bisect(lambda a: a + (gain - 1) * jnp.tanh(a), target)


@model
class Planar:
    """One hidden unit: events are pushed apart or together along a direction, about a plane.

    `y = x + u' tanh(w^T x + b)`, `log |det| = log(1 + w^T u' tanh'(w^T x + b))`, where `u'` is u with its part along w
    changed so that `w^T u' > -1`, without which there is no inverse

    Args:
        direction: w, `[D]`.
        push: u, `[D]`; zero is the identity.
        bias: b, `[]`.

    The constraint is `w^T u' = softplus(w^T u + log(e - 1)) - 1`, which leaves `u = 0` at zero. The inverse is a root
    in one dimension, by bisection. Parameters that follow a context, as in the paper's posteriors, come from
    `Conditional`.

    Source: Rezende and Mohamed (2015), Variational inference with normalizing flows, equations 10 to 12, appendix A.1.

    Example:
        >>> layer = Planar(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0]), jnp.zeros(()))
        >>> y, log_det = layer.forward_and_log_det(jnp.array([1.0, 0.0]))
        >>> y.round(4).tolist(), float(log_det)
        ([1.0, 1.5231999158859253], 0.0)
    """

    direction: jax.Array
    push: jax.Array
    bias: jax.Array

    @classmethod
    def init(cls, key, x) -> Planar:
        """The identity with a random direction, for events like x, `[N, D]` or the shape `(D,)` of one.

        Raises:
            ShapeError: events that are no vectors.
        """
        check_key(key, "Planar.init")
        size, dtype = vectors(x, "Planar.init(key, x)")
        direction = jax.random.normal(key, (size,), dtype) / size**0.5
        return cls(direction, jnp.zeros_like(direction), jnp.zeros((), dtype))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.direction.shape

    def _push(self):
        """`u'` and `1 + w^T u'`."""
        along, square = jnp.sum(self.direction * self.push), jnp.sum(self.direction**2)
        gain = _gain(along)
        # without a direction the layer is a shift
        change = jnp.where(square > 0, (gain - 1 - along) / jnp.where(square > 0, square, 1), 0)
        return self.push + change * self.direction, gain

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        push, gain = self._push()
        a = jnp.sum(self.direction * x) + self.bias
        return x + push * jnp.tanh(a), _log_slope(gain, a)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        push, gain = self._push()
        target = jnp.sum(self.direction * y) + self.bias
        a = _unbend(gain, target)
        x = y - push * jnp.tanh(a)
        # along w, where a strong push leaves a small difference of large numbers, a itself says where x is
        square = jnp.sum(self.direction**2)
        missed = (a - self.bias - jnp.sum(self.direction * x)) / jnp.where(square > 0, square, 1)
        return x + jnp.where(gain > STRONG, missed, 0) * self.direction, -_log_slope(gain, a)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


@model
class Radial:
    """Events are pushed away from a point, or drawn to it.

    `y = x + beta h (x - c)`, `h = 1 / (alpha + r)`, `r = |x - c|`,
    `log |det| = (D - 1) log(1 + beta h) + log(1 + beta h - beta r h^2)`

    Args:
        center: c, `[D]`.
        log_radius: `[]`, alpha is its exponential: how far the push reaches.
        push: `[]`, `beta = alpha (softplus(push + log(e - 1)) - 1)`, which keeps `beta > -alpha`; zero is the identity.

    The distance from c solves a quadratic equation, so that the inverse has a closed form. Parameters that follow a
    context come from `Conditional`.

    Source: Rezende and Mohamed (2015), Variational inference with normalizing flows, equation 14 and appendix A.2.

    Example:
        >>> layer = Radial(jnp.zeros(2), jnp.zeros(()), jnp.ones(()))
        >>> layer.inverse_and_log_det(layer.forward_and_log_det(jnp.array([3.0, 4.0]))[0])[0].round(4).tolist()
        [3.0, 4.0]
    """

    center: jax.Array
    log_radius: jax.Array
    push: jax.Array

    @classmethod
    def from_values(cls, center, radius, push) -> Radial:
        """Return the layer about a point `[D]` whose push reaches as far as the radius, positive.

        Raises:
            ModelError: a radius that is not positive.
        """
        center, radius = floating(center, name="center"), floating(radius, name="radius")
        if concrete(radius) and not radius > 0:
            raise ModelError("a radius is positive", called="Radial.from_values(center, radius, push)",
                             expected="a number above 0", got=str(radius))  # fmt: skip
        return cls(center, jnp.log(radius).astype(center.dtype), floating(push, name="push").astype(center.dtype))

    @classmethod
    def init(cls, key, x) -> Radial:
        """The identity about a random point, for events like x, `[N, D]` or the shape `(D,)` of one.

        Raises:
            ShapeError: events that are no vectors.
        """
        check_key(key, "Radial.init")
        size, dtype = vectors(x, "Radial.init(key, x)")
        center = jax.random.normal(key, (size,), dtype)
        return cls(center, jnp.zeros((), dtype), jnp.zeros((), dtype))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.center.shape

    @property
    def radius(self) -> jax.Array:
        """alpha, `[]`, units of x."""
        return jnp.exp(self.log_radius)

    def _slopes(self, r):
        """The factors across the radius and along it, both quotients of positive sums."""
        alpha, gain = jnp.exp(self.log_radius), _gain(self.push)
        across = (r + alpha * gain) / (r + alpha)
        along = (r * (r + 2 * alpha) + alpha**2 * gain) / (r + alpha) ** 2
        return across, (self.center.shape[0] - 1) * jnp.log(across) + jnp.log(along)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        away = x - self.center
        across, log_det = self._slopes(_length(away))
        return self.center + across * away, log_det

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        away = y - self.center
        # r (r + alpha gain) / (r + alpha) = R for the root that is not negative, written so that nothing cancels
        alpha, gain, far = jnp.exp(self.log_radius), _gain(self.push), _length(away)
        half = (alpha * gain - far) / 2
        root = jnp.sqrt(half**2 + alpha * far)
        r = jnp.where(half > 0, alpha * far / jnp.where(half > 0, root + half, 1), root - half)
        across, log_det = self._slopes(r)
        return self.center + away / across, -log_det

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


def _length(x):
    """The norm, with a gradient of zero at zero."""
    square = jnp.sum(x**2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


@model
class Sylvester:
    """M hidden units: planar layers at once, in M orthogonal directions that act on each other in turn.

    `y = x + Q R tanh(S Q^T x + b)`, `log |det| = sum_i log(1 + R_ii S_ii tanh'(...)_i)`, Q `[D, M]` with orthonormal
    columns, R and S upper triangular, `R_ii S_ii > -1`

    Args:
        rotation: `Householder`, whose first M columns are Q.
        outer: `[M, M]`, R above the diagonal; on it g, with `R_ii S_ii = softplus(g_i + log(e - 1)) - 1`. Zeros are the
            identity.
        inner: `[M, M]`, S above the diagonal; on it `log S_ii`.
        bias: b, `[M]`.

    The inverse solves M equations in one unknown each, the last unit first. Parameters that follow a context come from
    `Conditional`.

    Source: van den Berg et al. (2018), Sylvester normalizing flows for variational inference, equations 9 to 14.

    Example:
        >>> layer = Sylvester.init(jax.random.key(0), jnp.zeros((1, 3)), units=2)
        >>> layer.forward_and_log_det(jnp.arange(3.0))[0].tolist()
        [0.0, 1.0, 2.0]
    """

    rotation: Householder
    outer: jax.Array
    inner: jax.Array
    bias: jax.Array

    @classmethod
    def init(cls, key, x, *, units: int | None = None, reflections: int | None = None) -> Sylvester:
        """The identity in random directions, for events like x, `[N, D]` or the shape `(D,)` of one.

        Args:
            key: typed key.
            x: events, for their shape and dtype.
            units: M, 1 to D; None is D.
            reflections: whose product is the rotation; None is D.

        Raises:
            ShapeError: events that are no vectors. ModelError: more units than coordinates, or none.
        """
        size, dtype = vectors(x, "Sylvester.init(key, x)")
        units = size if units is None else units
        if not 0 < units <= size:
            raise ModelError(
                "as many orthogonal directions as units do not exist", called=f"Sylvester.init(key, x, units={units})",
                expected=f"1 to {size}", got=str(units),
            )  # fmt: skip
        zeros = jnp.zeros((units, units), dtype)
        return cls(Householder.init(key, x, reflections=reflections), zeros, zeros, zeros[0])

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.rotation.event_shape

    def _parts(self):
        """R and S above their diagonals, and what is on them: gain and S."""
        gain, scale = _gain(jnp.diagonal(self.outer)), jnp.exp(jnp.diagonal(self.inner))
        return jnp.triu(self.outer, 1), jnp.triu(self.inner, 1), gain, scale

    def _onto(self, x):
        """`Q^T x`."""
        return self.rotation.inverse_and_log_det(x)[0][: self.bias.shape[0]]

    def _back(self, v):
        """`Q v`."""
        size, units = self.event_shape[0], self.bias.shape[0]
        return self.rotation.forward_and_log_det(jnp.concatenate([v, jnp.zeros(size - units, v.dtype)]))[0]

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        outer, inner, gain, scale = self._parts()
        v = self._onto(x)
        a = matmul(inner, v) + scale * v + self.bias
        h = jnp.tanh(a)
        return x + self._back(matmul(outer, h) + (gain - 1) / scale * h), jnp.sum(_log_slope(gain, a))

    @compiled
    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        outer, inner, gain, scale = self._parts()
        target = self._onto(y)

        def solve(known, i):
            # rows are zero on and before the diagonal, where units are still unknown
            v, a = known
            rest = target[i] - jnp.sum(outer[i] * jnp.tanh(a))
            shift = self.bias[i] + jnp.sum(inner[i] * v)
            root = _unbend(gain[i], scale[i] * rest + shift)
            moved = rest - (gain[i] - 1) / scale[i] * jnp.tanh(root)
            # as in `Planar.inverse_and_log_det`
            moved = jnp.where(gain[i] > STRONG, (root - shift) / scale[i], moved)
            return (v.at[i].set(moved), a.at[i].set(root)), None

        start = jnp.zeros_like(target)
        (v, a), _ = jax.lax.scan(solve, (start, start), jnp.arange(target.shape[0]), reverse=True)
        return y + self._back(v - target), -jnp.sum(_log_slope(gain, a))

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)
