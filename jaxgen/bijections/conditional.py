"""Layers whose parameters depend on a context."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxgen.bijections.basics import check
from jaxgen.core import methods
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.pytree import combine, float_type, model, parameter_count, partition, static
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops.entries import flagged


@model
class Conditional:
    """Any layer with parameters that depend on a context.

    `y = layer(theta + net(context))(x)`, theta the layer's own parameters

    Args:
        layer: a bijection without context.
        net: `[C] -> [P]`, what to add to all P trained numbers of the layer, in the order of its leaves.
        context_shape: shape of one context.

    So linear, planar, radial and Sylvester layers become conditional, and serve as posteriors of a variational
    autoencoder as in their papers. Couplings and autoregressive layers take the context into their own networks.

    Source: Rezende and Mohamed (2015), Variational inference with normalizing flows, section 4.2.

    Example:
        >>> from jaxgen.bijections import Affine
        >>> layer = Conditional.init(jax.random.key(0), Affine(jnp.ones(2), jnp.zeros(2)), (3,), features=(8,))
        >>> layer.forward_and_log_det(jnp.zeros(2), jnp.ones(3))[0].tolist()
        [1.0, 1.0]
    """

    layer: Any
    net: Any
    context_shape: tuple[int, ...] = static()

    @classmethod
    def init(
        cls, key, layer: Any, context_shape: tuple[int, ...], *, features: tuple[int, ...] = (64,),
        activation: Callable[[Any], Any] = jax.nn.silu,
    ) -> Conditional:  # fmt: skip
        """The layer as it is: a network of widths `features` whose last layer starts at zero.

        Raises:
            ModelError: a layer without parameters, or with a context of its own.
        """
        count, taken = parameter_count(layer), methods.context_shape(layer)
        if not count or taken is not None:
            raise ModelError(
                "this layer's parameters cannot follow a context", called="Conditional.init(key, layer, context_shape)",
                expected="a layer with parameters and without a context",
                got=f"{type(layer).__name__} with {count} parameters, context {taken}",
            )  # fmt: skip
        shape = tuple(context_shape)
        module = MLP((*features, count), activation=activation, zero_last=True)
        return cls(layer, Net.init(key, module, jnp.zeros(math.prod(shape), float_type(layer))), shape)

    @property
    def event_shape(self):
        return self.layer.event_shape

    @property
    def latent_shape(self):
        return methods.latent_shape(self.layer)

    def _given(self, x, context, method):
        check(self, method, x, context)
        trained, rest = partition(self.layer)
        own, unravel = ravel_pytree(trained)
        return combine(unravel(own + self.net(jnp.ravel(context).astype(own.dtype))), rest)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        return self._given(x, context, "forward_and_log_det").forward_and_log_det(x)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        return self._given(y, context, "inverse_and_log_det").inverse_and_log_det(y)

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)


@model
class OptionalContext:
    """Any layer that takes a context, which may then be absent: None for all events, a row of NaN for one.

    `y = layer(x; [c, 1])` where there is a context c, `y = layer(x; [0, 0])` where there is none

    Args:
        layer: a bijection whose context is a vector of one number more.

    A flow whose layers all allow it, and which trains on data of which some have no context, has both densities,
    `p(x | c)` and `p(x)`: what guidance and semi-supervised models need.

    Source: Ho and Salimans (2022), Classifier-free diffusion guidance, section 3.2, for training both in one network.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.zeros((1, 2))
        >>> layer = OptionalContext(jg.bijections.Coupling.init(jax.random.key(0), x, context_shape=(4,)))
        >>> flow = jg.Flow(jg.StandardNormal((2,)), layer)
        >>> flow.log_prob(jnp.zeros((5, 2))).shape, flow.log_prob(jnp.zeros((5, 2)), context=jnp.ones(3)).shape
        ((5,), (5,))
    """

    layer: Any
    context_optional = True

    @property
    def context_shape(self):
        taken = methods.context_shape(self.layer)
        if taken is None or len(taken) != 1 or taken[0] < 2:
            raise ModelError(
                "the layer has no room for an absent context", called="OptionalContext(layer)",
                expected="a layer with context_shape (C + 1,), of which the last says whether there is a context",
                got=f"{type(self.layer).__name__} with context_shape {taken}",
            )  # fmt: skip
        return (taken[0] - 1,)

    @property
    def event_shape(self):
        return self.layer.event_shape

    @property
    def latent_shape(self):
        return methods.latent_shape(self.layer)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        return self.layer.forward_and_log_det(x, flagged(context))

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        return self.layer.inverse_and_log_det(y, flagged(context))

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)
