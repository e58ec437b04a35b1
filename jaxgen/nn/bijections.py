"""Bijections: the layers of normalizing flows, maps without a density of their own.

A bijection is a small model with `event_shape` and two methods for one event, `forward(x, context)` from the base to
the data and `inverse(y, context)` back. Each returns the image and the log-determinant of its own direction. Anything
with these methods is a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.door import context_shape
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.gate import as_array, floating
from jaxgen.core.pytree import fixed, model, static
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops.units import mean_and_scale

#: largest |log scale| of one coupling layer: a factor e^2 either way, so that one layer costs the inverse at most one
#: of float32's seven digits
BOUND = 2.0
#: from this many units on, networks see coordinates on a logarithmic scale; well outside of standardised data
REACH = 3.0


@runtime_checkable
class Bijection(Protocol):
    """An invertible map of one event."""

    @property
    def event_shape(self) -> tuple[int, ...]: ...

    def forward(self, x: Any, context: Any = None) -> tuple[jax.Array, jax.Array]:
        """From the base to the data: `y` and `log |det dy/dx|`."""
        ...

    def inverse(self, y: Any, context: Any = None) -> tuple[jax.Array, jax.Array]:
        """From the data to the base: `x` and `log |det dx/dy|`."""
        ...


def _check(layer: Any, method: str, x: Any, context: Any) -> None:
    """One event, and the context the layer was made for: a batch would be split along the wrong axis in silence."""
    wanted = context_shape(layer)
    for what, array, shape in (("x", x, layer.event_shape), ("context", context, wanted)):
        if shape is not None and (array is None or jnp.shape(array) != shape):
            raise ShapeError(
                f"{what} does not fit the layer", called=f"{type(layer).__name__}.{method}({what}={what})",
                expected=f"one event's, shape {list(shape)}",
                got="none" if array is None else f"shape {list(jnp.shape(array))}",
                fix=f"jax.vmap(layer.{method})(x) for a batch, or jaxgen.Flow(base, layer)",
            )  # fmt: skip


def shared_context(*parts: Any) -> tuple[int, ...] | None:
    """The one context shape of all parts that take a context."""
    shapes = {context_shape(part) for part in parts} - {None}
    if len(shapes) > 1:
        raise ModelError(
            "the parts of a flow take contexts of different shapes", called="Flow.context_shape",
            expected="one context for all parts that take one", got=str(sorted(map(str, shapes))),
        )  # fmt: skip
    return next(iter(shapes), None)


def as_floating(x: Any, *trees: Any) -> Any:
    """`x` in the floating dtype in which it meets the arrays of `trees`; their own where it comes from a base."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(trees) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.asarray(x).astype(jnp.result_type(*dtypes)) if dtypes else x


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

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.shift.shape

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        _check(self, "forward", x, context)
        return self.shift + jnp.exp(self.log_scale) * x, jnp.sum(self.log_scale)

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        _check(self, "inverse", y, context)
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
        _check(self, "forward", x, context)
        return self.mean + self.scale * x, jnp.sum(jnp.log(self.scale))

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        _check(self, "inverse", y, context)
        return (y - self.mean) / self.scale, -jnp.sum(jnp.log(self.scale))

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


@model
class Permute:
    """The coordinates of a vector in another order; never trained.

    `y_i = x_order(i)`, `log |det| = 0`

    Args:
        order: `[D]` int32, each of 0 to D-1 once.

    Example:
        >>> Permute.from_order([2, 0, 1]).forward(jnp.array([1.0, 2.0, 3.0]))[0].tolist()
        [3.0, 1.0, 2.0]
    """

    order: jax.Array = fixed()

    @classmethod
    def from_order(cls, order) -> Permute:
        """From integers `[D]`.

        Raises:
            ModelError: a number of 0 to D-1 is missing.
        """
        order = np.asarray(as_array(order, name="order"))
        if order.ndim != 1 or sorted(order.tolist()) != list(range(order.size)):
            raise ModelError(
                "not an order of the coordinates", called="Permute.from_order(order)", got=str(order.tolist())[:80],
                expected=f"each of 0 to {order.size - 1} once", fix="jax.random.permutation(key, d)",
            )  # fmt: skip
        return cls(jnp.asarray(order, jnp.int32))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.order.shape

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        _check(self, "forward", x, context)
        return _take(x, self.order), jnp.zeros((), x.dtype)

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        _check(self, "inverse", y, context)
        return _take(y, jnp.argsort(self.order)), jnp.zeros((), y.dtype)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


def _take(x, order):
    # both promises hold for every order, and spare the bounds check and the sort in the gradient
    return x.at[order].get(mode="promise_in_bounds", unique_indices=True)


@model
class AffineCoupling:
    """The first coordinates of a vector shift and scale the others.

    `y_a = x_a`, `y_b = x_b exp(s) + t`, `log |det| = sum s`, with `(t, r) = net(u, context)`, `u = 3 asinh(x_a / 3)`,
    `s = bound tanh(r / bound)`. The network sees far coordinates on a logarithmic scale, so that shifts do not grow
    from layer to layer and float32 finds the way back: made for coordinates of about unit scale, as standardised data.

    Args:
        net: `[split + C] -> [2 (D - split)]`, the shifts `t` and the raw log-scales `r`; C is the context's size.
        size: D, the number of coordinates.
        split: how many coordinates stay as they are, 1 to D-1.
        bound: largest `|s|`, positive. A free log-scale lets the inverse lose all of float32's digits (Behrmann et
            al. 2021, Understanding and mitigating exploding inverses in invertible neural networks).
        context_shape: shape of one context, None without.

    Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, equations 7 and 8, with the tanh
    of their section 4.1.

    Example:
        >>> layer = AffineCoupling.init(jax.random.key(0), 3, features=(8,))
        >>> layer.forward(jnp.array([1.0, 2.0, 3.0]))[0].tolist()
        [1.0, 2.0, 3.0]
    """

    net: Any
    size: int = static()
    split: int = static()
    bound: float = static(BOUND)
    context_shape: tuple[int, ...] | None = static(None)

    @classmethod
    def init(
        cls, key, size: int, *, features: tuple[int, ...] = (128, 128), activation: Callable[[Any], Any] = jax.nn.silu,
        split: int | None = None, bound: float = BOUND, context_shape: tuple[int, ...] | None = None,
        dtype: Any = jnp.float32,
    ) -> AffineCoupling:  # fmt: skip
        """The identity: a network of widths `features` whose last layer starts at zero; `split` defaults to half.

        Raises:
            ModelError: fewer than two coordinates, or a split that leaves one side empty.
        """
        split = size // 2 if split is None else split
        if not 0 < split < size:
            raise ModelError(
                "a coupling layer splits its coordinates in two parts, one to move given the other",
                called=f"AffineCoupling.init(key, {size}, split={split})", expected="0 < split < size, so size >= 2",
                got=f"size {size}, split {split}",
                fix="for one coordinate use a mixture of Gaussians, or another layer than a coupling",
            )  # fmt: skip
        shape = None if context_shape is None else tuple(context_shape)
        inputs = split + (0 if shape is None else int(np.prod(shape)))
        module = MLP((*features, 2 * (size - split)), activation=activation, zero_last=True)
        return cls(Net.init(key, module, jnp.zeros(inputs, dtype)), size, split, bound, shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.size,)

    def _shift_and_log_scale(self, kept, context):
        seen = REACH * jnp.arcsinh(kept / REACH)
        if self.context_shape is not None:
            # in the event's dtype: a context of higher precision must not change the density's
            seen = jnp.concatenate([seen, jnp.ravel(context).astype(seen.dtype)])
        shift, raw = jnp.split(self.net(seen), 2)
        return shift, self.bound * jnp.tanh(raw / self.bound)

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        _check(self, "forward", x, context)
        kept, moved = jnp.split(x, [self.split])
        shift, log_scale = self._shift_and_log_scale(kept, context)
        return jnp.concatenate([kept, moved * jnp.exp(log_scale) + shift]), jnp.sum(log_scale)

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        _check(self, "inverse", y, context)
        kept, moved = jnp.split(y, [self.split])
        shift, log_scale = self._shift_and_log_scale(kept, context)
        return jnp.concatenate([kept, (moved - shift) * jnp.exp(-log_scale)]), -jnp.sum(log_scale)

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)


@model
class DistraxBijector:
    """A distrax bijector as a layer, built inside each call, since distrax objects do not live as leaves.

    `y = make(params).forward(x)`

    Args:
        params: what `make` takes, all trained.
        make: `params -> bijector`, a module-level function.
        event_shape: the shape of one event; a bijector of fewer dimensions acts on each part of it.

    Example:
        >>> from jaxgen.core.exchange import distrax
        >>> def shift_by(shift):
        ...     return distrax().ScalarAffine(shift)
        >>> layer = DistraxBijector(jnp.array([1.0, 2.0]), shift_by, (2,))
        >>> layer.forward(jnp.zeros(2))[0].tolist()
        [1.0, 2.0]
    """

    params: Any
    make: Callable[[Any], Any] = static()
    event_shape: tuple[int, ...] = static()

    def _call(self, method, x, context):
        _check(self, method, x, context)
        y, log_det = getattr(self.make(self.params), f"{method}_and_log_det")(x)
        if jnp.shape(y) != self.event_shape:
            raise ShapeError(
                "the distrax bijector changes the shape of an event", called=f"DistraxBijector.{method}(x)",
                expected=f"shape {list(self.event_shape)}", got=f"shape {list(jnp.shape(y))}",
                fix="params of one bijector, without a batch shape",
            )  # fmt: skip
        return y, jnp.sum(log_det)

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        return self._call("forward", x, context)

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        return self._call("inverse", y, context)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


@model
class Inverse:
    """A bijection in the other direction.

    `y = layer^-1(x)`

    Args:
        layer: the bijection.

    Example:
        >>> layer = Inverse(Affine(jnp.ones(2), jnp.zeros(2)))
        >>> layer.forward(jnp.zeros(2))[0].tolist()
        [-1.0, -1.0]
    """

    layer: Any

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.layer.event_shape

    @property
    def context_shape(self):
        return context_shape(self.layer)

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        return self.layer.inverse(x, context)

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        return self.layer.forward(y, context)

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)


@model
class Chain:
    """Different bijections one after the other, the first next to the base. For many equal ones use `Scan`.

    `y = layer_n(... layer_1(x))`, `log |det|` the sum of theirs

    Args:
        layers: tuple of bijections, in the order in which a sample meets them (distrax.Chain lists them backwards).

    Example:
        >>> double = Affine(jnp.zeros(1), jnp.full(1, jnp.log(2.0)))
        >>> add = Affine(jnp.ones(1), jnp.zeros(1))
        >>> Chain((double, add)).forward(jnp.ones(1))[0].tolist()
        [3.0]
    """

    layers: tuple[Any, ...]

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.layers[0].event_shape

    @property
    def context_shape(self):
        return shared_context(*self.layers)

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        log_dets = []
        for layer in self.layers:
            x, log_det = layer.forward(x, context)
            log_dets.append(log_det)
        return x, sum(log_dets)

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        log_dets = []
        for layer in reversed(self.layers):
            y, log_det = layer.inverse(y, context)
            log_dets.append(log_det)
        return y, sum(log_dets)

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)


@model
class Scan:
    """L bijections of one kind one after the other, in a program whose size does not depend on L.

    `y = layer_L(... layer_1(x))`, `log |det|` the sum of theirs

    Args:
        layers: one bijection whose leaves carry a leading axis L; the first is next to the base.

    Example:
        >>> layers = jax.vmap(lambda shift: Affine(shift, jnp.zeros(2)))(jnp.ones((5, 2)))
        >>> Scan(layers).forward(jnp.zeros(2))[0].tolist()
        [5.0, 5.0]
    """

    layers: Any

    @property
    def event_shape(self) -> tuple[int, ...]:
        return algebra.element(self.layers).event_shape

    @property
    def context_shape(self):
        return context_shape(algebra.element(self.layers))

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        start = as_floating(x, x, self.layers)
        y, log_dets = jax.lax.scan(lambda x, layer: layer.forward(x, context), start, self.layers)
        # emitted and summed outside: the sum of L numbers rounds less than a running total
        return y, jnp.sum(log_dets)

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        start = as_floating(y, y, self.layers)
        x, log_dets = jax.lax.scan(lambda y, layer: layer.inverse(y, context), start, self.layers, reverse=True)
        return x, jnp.sum(log_dets)

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)
