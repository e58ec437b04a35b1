"""Normalizing flows: the density of a base density's samples after a bijection."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.door import context_shape, latent_shape, per_event, per_latent, per_sample, same_shape
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.gate import as_array
from jaxgen.core.pytree import model
from jaxgen.nn.bijections import AffineCoupling, Chain, Permute, Scan, Standardize
from jaxgen.nn.bijections.basics import as_floating, shared_context
from jaxgen.nn.bijections.coupling import BOUND


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
    def realnvp(
        cls, key, x, base: Any, *, layers: int = 8, features: tuple[int, ...] = (128, 128),
        activation: Callable[[Any], Any] = jax.nn.silu, bound: float = BOUND,
        context_shape: tuple[int, ...] | None = None,
    ) -> Flow:  # fmt: skip
        """RealNVP: coupling layers with permutations between them, then the units of the data.

        It starts as the base in the data's mean and standard deviation. Permutations come in pairs: one exchanges the
        two sides of the coupling, so that a pair of layers moves every coordinate; the next is a random cycle, so that
        the sides mix.

        Args:
            key: typed key.
            x: events `[N, D]`, D at least 2, for the standardisation and the dtype.
            base: density of events `[D]`, such as `StandardNormal((D,))`.
            layers: L, the number of coupling layers.
            features: hidden widths of each coupling's network.
            activation: of the networks, a module-level function.
            bound: largest |log scale| of a layer.
            context_shape: shape of one context for a conditional density.

        Raises:
            ModelError: one coordinate, no layers, or a base of another event shape.
            ShapeError: events that are no vectors.

        Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP.
        """
        called = "Flow.realnvp(key, x, base)"
        x = jnp.asarray(as_array(x, name="x"))
        if x.ndim != 2:
            raise ShapeError(
                "RealNVP takes vectors", called=called, expected="x [N, D]", got=f"shape {list(x.shape)}",
                fix="x.reshape(len(x), -1)",
            )  # fmt: skip
        size = x.shape[1]
        if layers < 1 or tuple(base.event_shape) != (size,):
            raise ModelError(
                "base and layers do not fit the data", called=called, expected=f"layers >= 1, events [{size}]",
                got=f"layers {layers}, a base of events {list(base.event_shape)}", fix=f"StandardNormal(({size},))",
            )  # fmt: skip
        shape = None if context_shape is None else tuple(context_shape)
        return cls(base, _realnvp(key, x, layers, tuple(features), activation, bound, shape))

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
    """The permutations after each of L couplings, `[L, D]`: exchanges of the sides, and random cycles in between."""
    exchange = jnp.roll(jnp.arange(size), -(size // 2))

    def cycle(key):
        # one cycle through all coordinates, so that none stays in its place; for D = 2 that is the exchange
        tour = jax.random.permutation(key, size)
        return jnp.zeros(size, tour.dtype).at[tour].set(jnp.roll(tour, 1))

    cycles = jax.vmap(cycle)(jax.random.split(key, layers))
    even = jnp.arange(layers)[:, None] % 2 == 0
    return jnp.where(even, exchange, cycles).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("layers", "features", "activation", "bound", "context_shape"))
def _realnvp(key, x, layers, features, activation, bound, context_shape):
    networks, orders = jax.random.split(key)
    size, units = x.shape[1], Standardize.from_data(x)

    def layer(key, order):
        coupling = AffineCoupling.init(
            key, size, features=features, activation=activation, bound=bound, context_shape=context_shape,
            dtype=units.mean.dtype,
        )  # fmt: skip
        return Chain((coupling, Permute(order)))

    stack = jax.vmap(layer)(jax.random.split(networks, layers), _orders(orders, size, layers))
    return Chain((Scan(stack), units))
