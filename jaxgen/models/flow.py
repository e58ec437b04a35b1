"""Normalizing flows: the density of a base density's samples after a bijection."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.door import context_shape, latent_shape, per_event, per_latent, per_sample, same_shape
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.gate import as_array, floating
from jaxgen.core.pytree import model
from jaxgen.core.value import ByValue
from jaxgen.nn.bijections import Chain, Coupling, Permute, Scan, Standardize
from jaxgen.nn.bijections.basics import as_floating, shared_context
from jaxgen.nn.bijections.supports import Support, real, to_real


@model
class Flow:
    """The density of a base density's samples after a bijection.

    `log p(x) = log p_base(z) + log |det dz/dx|`, `z = bijection^-1(x)`

    Args:
        base: any density, with or without parameters: a standard normal, a mixture, another flow. Its events have the
            shape of the bijection's `latent_shape`; a free length takes the bijection's.
        bijection: any bijection; its `event_shape` is the flow's. What takes a context, base or layers, takes the same
            one.

    Example:
        >>> import jaxgen as jg
        >>> from jaxgen.nn.bijections import Affine
        >>> flow = Flow(jg.StandardNormal((2,)), Affine(jnp.array([1.0, 2.0]), jnp.zeros(2)))
        >>> round(float(flow.log_prob(jnp.array([1.0, 2.0]))), 4)
        -1.8379
        >>> flow.sample(jax.random.key(0), (5,)).shape
        (5, 2)
    """

    base: Any
    bijection: Any

    @classmethod
    def init(
        cls, key, x, base: Any, layer: Callable[[Any, Any], Any] = Coupling.init, *, layers: int = 8,
        support: Support = real,
    ) -> Flow:  # fmt: skip
        """Layers of one kind with permutations between them, then the units of the data, then their support.

        Couplings and autoregressive layers start as the identity, so that the flow starts as the base in the data's
        mean and standard deviation. Permutations come in pairs: one reverses the order, so that a pair of couplings
        moves every coordinate; the next is a random cycle, so that all sides mix.

        Args:
            key: typed key.
            x: events `[N, D]`, for the standardisation, the dtype, and layers that start from data.
            base: density of events `[D]`, such as `StandardNormal((D,))`; of `[D - 1]` on the simplex.
            layer: `(key, x) -> bijection` of events `[D]`, where x are the standardised events: `Coupling.init`, or
                `functools.partial(Coupling.init, transform=SplineTransform())`.
            layers: L, the number of layers.
            support: what values x can take: `real`, `positive`, `simplex`, or `Interval(low, high)`, of
                `jaxgen.nn.bijections`. The layers work on unbounded numbers, in units of their standard deviation; the
                density is one of x, and zero outside of the support.

        Raises:
            ModelError: no layers, or a base, a layer or a support of another event shape.
            ShapeError: events that are no vectors.
            DataError: data outside of the support or on its edge.

        Example:
            >>> import jaxgen as jg
            >>> x = jg.data.two_moons(jax.random.key(1), 100)
            >>> flow = Flow.init(jax.random.key(0), x, jg.StandardNormal((2,)), layers=2)
            >>> flow.log_prob(x).shape
            (100,)
        """
        called = "Flow.init(key, x, base, layer)"
        x = jnp.asarray(as_array(x, name="x"))
        if x.ndim != 2:
            raise ShapeError(
                "these layers take vectors", called=called, expected="x [N, D]", got=f"shape {list(x.shape)}",
                fix="x.reshape(len(x), -1)",
            )  # fmt: skip
        x, bounds = to_real(support, x, called)
        size = x.shape[1]
        if layers < 1 or tuple(base.event_shape) != (size,):
            raise ModelError(
                "base and layers do not fit the data", called=called, expected=f"layers >= 1, events [{size}]",
                got=f"layers {layers}, a base of events {list(base.event_shape)}", fix=f"StandardNormal(({size},))",
            )  # fmt: skip
        stack, units = _stacked(key, x, ByValue(layer), layers)
        if tuple(stack.event_shape) != (size,):
            raise ModelError(
                "the layer does not fit the data", called=called, expected=f"a bijection of events [{size}]",
                got=f"events {list(stack.event_shape)}", fix="a layer that reads its shape from the x it is given",
            )  # fmt: skip
        return cls(base, Chain((stack, units) if bounds is None else (stack, units, bounds)))

    @property
    def event_shape(self):
        if not same_shape(self.base.event_shape, latent_shape(self.bijection)):
            raise ModelError(
                "the base does not fit the bijection", called="Flow(base, bijection)",
                expected=f"a base of events {list(latent_shape(self.bijection))}",
                got=f"a {type(self.base).__name__} of events {list(self.base.event_shape)}",
                fix=f"StandardNormal({latent_shape(self.bijection)})",
            )  # fmt: skip
        return tuple(self.bijection.event_shape)

    @property
    def latent_shape(self):
        return latent_shape(self.bijection)

    @property
    def context_shape(self):
        return shared_context(self.base, self.bijection)

    def _for_base(self, context):
        return None if context_shape(self.base) is None else context

    @per_event
    def log_prob(self, x, context):
        """Nats, `[*batch, *event] -> [*batch]`."""
        z, log_det = self.bijection.inverse(x, context)
        return self.base.log_prob(z, context=self._for_base(context)) + log_det

    @per_sample
    def sample(self, key, context, length):
        """Draws `[*shape, *event]`."""
        # of a base of free length that is given by the bijection
        given = [n for n, free in zip(self.latent_shape, self.base.event_shape, strict=True) if free is None]
        free = {"length": length if given[0] is None else given[0]} if given else {}
        z = self.base.sample(key, context=self._for_base(context), **free)
        return self.bijection.forward(as_floating(z, self), context)[0]

    @per_sample
    def sample_and_log_prob(self, key, context):
        """Draws `[*shape, *event]` and their log-density `[*shape]`, without a way back through the layers."""
        z, log_base = algebra.sample_and_log_prob(self.base, key, self._for_base(context))
        x, log_det = self.bijection.forward(as_floating(z, self), context)
        return x, log_base - log_det

    @per_event
    def encode(self, x, context):
        """Events in the coordinates of the base, `z`, `[*batch, *event] -> [*batch, *latent]`."""
        return self.bijection.inverse(x, context)[0]

    @per_latent
    def decode(self, z, context):
        """From the coordinates of the base back to events, `[*batch, *latent] -> [*batch, *event]`."""
        return self.bijection.forward(z, context)[0]

    def distribution(self):
        """The distrax distribution."""
        return as_distribution(self)


def _orders(key, size, layers):
    """The permutations after each of L layers, `[L, D]`: reversals, and random cycles in between."""

    def cycle(key):
        # one cycle through all coordinates, so that none stays in its place; for D = 2 that is the reversal
        tour = jax.random.permutation(key, size)
        return jnp.zeros(size, tour.dtype).at[tour].set(jnp.roll(tour, 1))

    cycles = jax.vmap(cycle)(jax.random.split(key, layers))
    even = jnp.arange(layers)[:, None] % 2 == 0
    return jnp.where(even, jnp.arange(size)[::-1], cycles).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("layer", "layers"))
def _stacked(key, x, layer, layers):
    networks, orders = jax.random.split(key)
    units = Standardize.from_data(x)
    z = jax.vmap(units.inverse)(floating(x))[0]
    keys, orders = jax.random.split(networks, layers), _orders(orders, x.shape[1], layers)
    return Scan(jax.vmap(lambda key, order: Chain((layer(key, z), Permute(order))))(keys, orders)), units
