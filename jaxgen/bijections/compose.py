"""Bijections made of bijections, and those of distrax."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.basics import as_floating, check, shared_context
from jaxgen.bijections.starts import started
from jaxgen.core import algebra
from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.methods import context_shape, latent_shape
from jaxgen.core.pytree import model, part, parts, static
from jaxgen.core.sequences import Sequences, padded


@model
class DistraxBijector:
    """A distrax bijector as a layer, built inside each call, since distrax objects do not live as leaves.

    `y = make(params).forward_and_log_det(x)`

    Args:
        params: what `make` takes, all trained.
        make: `params -> bijector`, a module-level function.
        event_shape: the shape of one event; a bijector of fewer dimensions acts on each part of it.

    Example:
        >>> from jaxgen.core.exchange import distrax
        >>> def shift_by(shift):
        ...     return distrax().ScalarAffine(shift)
        >>> layer = DistraxBijector(jnp.array([1.0, 2.0]), shift_by, (2,))
        >>> layer.forward_and_log_det(jnp.zeros(2))[0].tolist()
        [1.0, 2.0]
    """

    params: Any
    make: Callable[[Any], Any] = static()
    event_shape: tuple[int, ...] = static()

    def _call(self, method, x, context):
        check(self, method, x, context)
        y, log_det = getattr(self.make(self.params), method)(x)
        if jnp.shape(y) != self.event_shape:
            raise ShapeError(
                "the distrax bijector changes the shape of an event", called=f"DistraxBijector.{method}(x)",
                expected=f"shape {list(self.event_shape)}", got=f"shape {list(jnp.shape(y))}",
                fix="params of one bijector, without a batch shape",
            )  # fmt: skip
        return y, jnp.sum(log_det)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        return self._call("forward_and_log_det", x, context)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        return self._call("inverse_and_log_det", y, context)

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
        >>> from jaxgen.bijections import Affine
        >>> layer = Inverse(Affine(jnp.ones(2), jnp.zeros(2)))
        >>> layer.forward_and_log_det(jnp.zeros(2))[0].tolist()
        [-1.0, -1.0]
    """

    layer: Any = part()

    @property
    def event_shape(self):
        return latent_shape(self.layer)

    @property
    def latent_shape(self):
        return self.layer.event_shape

    @property
    def context_shape(self):
        return context_shape(self.layer)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        return self.layer.inverse_and_log_det(x, context)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        return self.layer.forward_and_log_det(y, context)

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
        >>> from jaxgen.bijections import Affine
        >>> double = Affine(jnp.zeros(1), jnp.full(1, jnp.log(2.0)))
        >>> add = Affine(jnp.ones(1), jnp.zeros(1))
        >>> Chain((double, add)).forward_and_log_det(jnp.ones(1))[0].tolist()
        [3.0]
    """

    layers: tuple[Any, ...] = part()

    @property
    def event_shape(self):
        return self.layers[-1].event_shape

    @property
    def latent_shape(self):
        return latent_shape(self.layers[0])

    @property
    def context_shape(self):
        return shared_context(*self.layers)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        log_dets = []
        for layer in self.layers:
            x, log_det = layer.forward_and_log_det(x, context)
            log_dets.append(log_det)
        return x, sum(log_dets)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        log_dets = []
        for layer in reversed(self.layers):
            y, log_det = layer.inverse_and_log_det(y, context)
            log_dets.append(log_det)
        return y, sum(log_dets)

    def started(self, x, context=None):
        """Itself from events on the side of the data, and those on the side of the base, see `initialize`."""
        layers = []
        for layer in reversed(self.layers):
            layer, x = started(layer, x, context)
            layers.append(layer)
        return Chain(tuple(reversed(layers))), x

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)


@model
class Scan:
    """L bijections of one kind one after the other, in a program whose size does not depend on L.

    `y = layer_L(... layer_1(x))`, `log |det|` the sum of theirs

    Args:
        layers: one bijection whose leaves carry a leading axis L; the first is next to the base. Its two sides have
            one shape.

    Example:
        >>> from jaxgen.bijections import Affine
        >>> layers = jax.vmap(lambda shift: Affine(shift, jnp.zeros(2)))(jnp.ones((5, 2)))
        >>> Scan(layers).forward_and_log_det(jnp.zeros(2))[0].tolist()
        [5.0, 5.0]
    """

    layers: Any = parts()

    @property
    def event_shape(self):
        one = algebra.element(self.layers)
        if latent_shape(one) != tuple(one.event_shape):
            raise ModelError(
                "layers that change the shape of an event cannot follow one another", called="Scan(layers)",
                expected="one shape on both sides", fix="Chain, with layers whose shapes fit",
                got=f"{type(one).__name__} from {list(latent_shape(one))} to {list(one.event_shape)}",
            )  # fmt: skip
        return one.event_shape

    @property
    def context_shape(self):
        return context_shape(algebra.element(self.layers))

    @compiled
    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        start = as_floating(x, x, self.layers)
        y, log_dets = jax.lax.scan(lambda x, layer: layer.forward_and_log_det(x, context), start, self.layers)
        # emitted and summed outside: the sum of L numbers rounds less than a running total
        return y, jnp.sum(log_dets)

    @compiled
    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        start = as_floating(y, y, self.layers)
        back = lambda y, layer: layer.inverse_and_log_det(y, context)  # noqa: E731
        x, log_dets = jax.lax.scan(back, start, self.layers, reverse=True)
        return x, jnp.sum(log_dets)

    def started(self, x, context=None):
        """Itself from events on the side of the data, and those on the side of the base, see `initialize`."""

        def one(x, layer):
            layer, x = started(layer, x, context)
            return x, layer

        x, layers = jax.lax.scan(one, as_floating(x, x, self.layers), self.layers, reverse=True)
        return Scan(layers), x

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)


@model
class Vmap:
    """One bijection of every entry of a sequence, of any length; one in another for every pixel of an image.

    `y_t = layer(x_t)`, `log |det|` the sum over t

    So a flow on a hidden Markov model, `Flow(hmm, Vmap(layer))`, is one whose emissions have been warped alike. It
    takes `Sequences` of many lengths, as that does; steps that are not there, or were not seen, have no determinant.

    Args:
        layer: a bijection of one entry; a context is shared by all.
        length: T, the number of entries; None is free.

    Example:
        >>> from jaxgen.bijections import Affine
        >>> layer = Vmap(Affine(jnp.ones(2), jnp.zeros(2)))
        >>> layer.event_shape, layer.forward_and_log_det(jnp.zeros((5, 2)))[0].shape
        ((None, 2), (5, 2))
    """

    layer: Any = part()
    length: int | None = static(default=None)

    @property
    def event_shape(self):
        return (self.length, *self.layer.event_shape)

    @property
    def latent_shape(self):
        return (self.length, *latent_shape(self.layer))

    @property
    def context_shape(self):
        return context_shape(self.layer)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        return self._of_each("forward_and_log_det", x, context)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        return self._of_each("inverse_and_log_det", y, context)

    def _of_each(self, method, x, context):
        check(self, method, x, context)
        moved, log_dets = jax.vmap(lambda x: getattr(self.layer, method)(x, context))(padded(x))
        if isinstance(x, Sequences):
            return dataclasses.replace(x, x=moved), jnp.sum(jnp.where(x.valid, log_dets, 0))
        return moved, jnp.sum(log_dets)

    def started(self, x, context=None):
        """Itself from events on the side of the data, and those on the side of the base, see `initialize`."""
        length = x.shape[1]
        context = None if context is None else jnp.repeat(context, length, axis=0)
        layer, z = started(self.layer, x.reshape((-1, *x.shape[2:])), context)
        return Vmap(layer, self.length), z.reshape((-1, length, *z.shape[1:]))

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)
