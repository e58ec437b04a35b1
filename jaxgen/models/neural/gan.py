"""Generators: noise through a network, a model that can be sampled and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import context_shape, per_event, per_latent, per_sample
from jaxgen.core.protocols import Implicit, has
from jaxgen.core.pytree import fixed, float_type, model, part, static
from jaxgen.nn import amortized
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops.entries import flagged
from jaxgen.ops.scaling import mean_and_scale, middle_and_reach


@model
class Generator:
    """The generator of a generative adversarial network.

    `x = center + scale net(z)`, `z ~ base`; with a context c `net(z, c)`

    An `Implicit`: it has samples and no likelihood. `Adversarial` trains it against a critic.

    Args:
        base: what draws the noise, vectors `[L]`: a standard normal, or a mixture for data in clusters. Its own
            parameters train as far as its samples are differentiable in them, so not the weights of a mixture.
        net: `[L] -> [*event]`, or `[L], [*context] -> [*event]`.
        event_shape: shape of one event.
        scaling: center and scale of the data, never trained; a critic sees `standardize(x) = (x - center) / scale`.
        context_shape: shape of one context, None without.
        context_optional: whether a context may be absent (a row of NaN; None for all): the network takes contexts flat,
            sees zeros in place of one that is absent, and behind every context a number more, 1 where there was one and
            else 0.

    Source: Goodfellow et al. (2014), Generative adversarial nets.

    Example:
        >>> import jaxgen as jg
        >>> x = jg.data.eight_gaussians(jax.random.key(0), 100)
        >>> generator = Generator.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> generator.sample(jax.random.key(2), (5,)).shape, generator.decode(jnp.zeros(2)).shape
        ((5, 2), (2,))
    """

    base: Any = part()
    net: Any
    event_shape: tuple[int, ...] = static()
    scaling: Any = fixed()
    context_shape: tuple[int, ...] | None = static(default=None)
    context_optional: bool = static(default=False)

    @classmethod
    def init(
        cls, key, x, base: Any, *, hidden: tuple[int, ...] = (128, 128),
        activation: Callable[[Any], Any] = jax.nn.relu, module: Any = None,
        context_shape: tuple[int, ...] | None = None, context_optional: bool = False,
    ) -> Generator:  # fmt: skip
        """A network for events of the data's shape, in the data's units.

        The scaling of vectors is each coordinate's mean and standard deviation; those of images map the range of all
        pixels to [-1, 1], which is what the tanh of a `ConvGenerator` fills.

        Args:
            key: typed key.
            x: events `[N, *event]`, for the shape, the dtype and the scaling.
            base: draws vectors `[L]`, such as `StandardNormal((64,))`.
            hidden: widths of a multilayer perceptron's hidden layers.
            activation: of that, a module-level function.
            module: a linen module `[L] -> [*event]` in place of the perceptron, such as `ConvGenerator((8, 8))`; with a
                context one of two inputs.
            context_shape: shape of one context, for samples that depend on it.
            context_optional: whether it may be absent, as in the class.

        Raises:
            DataError: data that are not data. ModelError: a base that draws no vectors, a module that draws events of
                another shape, or no context that could be absent.
        """
        x, called = jnp.asarray(as_array(x, name="x")), "Generator.init(key, x, base)"
        event, latent = tuple(map(int, x.shape[1:])), _latent_shape(base, called)
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        if module is None:
            module = MLP((*hidden, math.prod(event)), activation, out_shape=event)
        context = None if context_shape is None else tuple(context_shape)
        amortized.check_context(base, context, context_optional, False, called)
        seen = (math.prod(context) + 1,) if context_optional and context is not None else context
        inputs = [jnp.zeros(shape, dtype) for shape in (latent, seen) if shape is not None]
        net = Net.init(key, module, *inputs)
        made = jax.eval_shape(net, *inputs).shape
        if made != event:
            raise ModelError(
                "the module draws events of another shape than the data's", called=called, got=f"shape {list(made)}",
                expected=f"shape {list(event)}", fix=f"jaxgen.nn.mlp.MLP((64, {math.prod(event)}), out_shape={event})",
            )  # fmt: skip
        scaling = mean_and_scale(x) if len(event) < 2 else middle_and_reach(x)
        return cls(base, net, event, scaling, context, context_optional)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.base.event_shape

    def _draw(self, z, context):
        # a base without parameters draws in its own dtype
        if context is not None and self.context_optional:
            context = flagged(context)
        inputs = (jnp.asarray(z, float_type(self.net)), *(() if context is None else (context,)))
        return self.scaling[0] + self.scaling[1] * self.net(*inputs)

    @per_latent
    def decode(self, z, *, context=None) -> jax.Array:
        """The event of each noise vector, `[*batch, L] -> [*batch, *event]`."""
        return self._draw(z, context)

    @per_event
    def standardize(self, x) -> jax.Array:
        """Events in the generator's units, `[*batch, *event] -> [*batch, *event]`: what a critic sees."""
        return (x - self.scaling[0]) / self.scaling[1]

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        return self._draw(self.base.sample(key), context)


def _latent_shape(base: Any, called: str) -> tuple[int, ...]:
    shape: Any = base.event_shape if has(base, Implicit) else None
    vectors = isinstance(shape, tuple) and len(shape) == 1 and isinstance(shape[0], int)
    if not (vectors and context_shape(base) is None):
        raise ModelError(
            "the base draws no vectors", called=called, expected="sample without context, event_shape (L,)",
            got=f"{type(base).__name__} with event_shape {shape}", fix="jaxgen.StandardNormal((64,))",
        )  # fmt: skip
    return shape
