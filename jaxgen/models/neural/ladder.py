"""Blocks of hidden variables, each normal given those above: the priors and posteriors of hierarchical autoencoders."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError
from jaxgen.core.methods import is_count, per_event, per_sample
from jaxgen.core.pytree import model, static
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops.gaussians import LOG_2PI
from jaxgen.ops.likelihoods import bounded


@model
class Ladder:
    """Blocks of numbers from the top down, each normal given all above it and a context.

    `p(z | c) = prod_i N(z_i; m_i(z_1 ... z_(i-1), c), s_i(z_1 ... z_(i-1), c)^2)`, `log s = 6 tanh(raw / 6)`

    Without a context it is the prior of a hierarchical autoencoder, with the features of an event as context the
    posterior: `VAE(Ladder, ..., posterior=Ladder)` has a density in closed form at every step, and sees in its decoder
    all blocks. The top block of a ladder without context is standard normal.

    Args:
        nets: one for each block, `[L_1 + ... + L_(i-1) + C] -> [2, L_i]`, means and raw log-scales; None for a top
            block that has nothing to see.
        sizes: `(L_1, ..., L_n)`, numbers in each block, the top one first; an event is all of them in one vector.
        context_shape: shape of one context, None without.

    Source: Sonderby, Raiko, Maaloe, Sonderby and Winther (2016), Ladder variational autoencoders, for posteriors from
    the top down; Child (2021), Very deep VAEs, section 3.1, for each block seeing all above.

    Example:
        >>> prior = Ladder.init(jax.random.key(0), (2, 3), hidden=(8,))
        >>> z = prior.sample(jax.random.key(1), (5,))
        >>> z.shape, prior.log_prob(z).shape, [block.shape for block in prior.blocks(z)]
        ((5, 5), (5,), [(5, 2), (5, 3)])
    """

    nets: tuple[Any, ...]
    sizes: tuple[int, ...] = static()
    context_shape: tuple[int, ...] | None = static(default=None)

    @classmethod
    def init(
        cls, key, sizes: tuple[int, ...], *, context_shape: tuple[int, ...] | None = None,
        hidden: tuple[int, ...] = (64,), activation: Callable[[Any], Any] = jax.nn.silu, dtype: Any = jnp.float32,
    ) -> Ladder:  # fmt: skip
        """The standard normal: networks of widths `hidden` whose last layers start at zero.

        Raises:
            ModelError: no blocks, or one without numbers.

        Example:
            >>> q = Ladder.init(jax.random.key(0), (2, 3), context_shape=(4,))
            >>> round(float(q.log_prob(jnp.zeros(5), context=jnp.ones(4))), 4)
            -4.5947
        """
        sizes = tuple(sizes)
        if not sizes or not all(is_count(n, 1) for n in sizes):
            raise ModelError(
                "a ladder needs blocks of numbers", called=f"Ladder.init(key, {sizes})", expected="such as (8, 16)",
                got=str(sizes),
            )  # fmt: skip
        features = 0 if context_shape is None else math.prod(context_shape)
        nets: list[Any] = []
        for i, (k, size) in enumerate(zip(jax.random.split(key, len(sizes)), sizes, strict=True)):
            seen = sum(sizes[:i]) + features
            module = MLP((*hidden, 2 * size), activation, out_shape=(2, size), zero_last=True)
            nets.append(Net.init(k, module, jnp.zeros(seen, dtype)) if seen else None)
        return cls(tuple(nets), sizes, None if context_shape is None else tuple(context_shape))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (sum(self.sizes),)

    def blocks(self, z) -> list[jax.Array]:
        """The blocks of vectors `[*batch, L]`, the top one first, `[*batch, L_i]` each."""
        return jnp.split(z, np.cumsum(self.sizes)[:-1], axis=-1)

    def _down(self, context, dtype, block):
        """Each block by `block(i, mean, log_scale) -> z_i`, from the top down."""
        seen = jnp.zeros(0, dtype) if context is None else jnp.ravel(context).astype(dtype)
        blocks = []
        for i, (net, size) in enumerate(zip(self.nets, self.sizes, strict=True)):
            mean, raw = jnp.zeros((2, size), dtype) if net is None else net(seen)
            blocks.append(block(i, mean, bounded(raw)))
            seen = jnp.concatenate([seen, blocks[-1]])
        return blocks

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, L] -> [*batch]`."""
        own, scores = self.blocks(x), []

        def score(i, mean, log_scale):
            scores.append(_log_density((own[i] - mean) * jnp.exp(-log_scale), log_scale))
            return own[i]

        self._down(context, x.dtype, score)
        return sum(scores)

    def _draw(self, key, context):
        dtype = _dtype(self.nets)
        keys, scores = jax.random.split(key, len(self.sizes)), []

        def draw(i, mean, log_scale):
            noise = jax.random.normal(keys[i], mean.shape, dtype)
            scores.append(_log_density(noise, log_scale))
            return mean + jnp.exp(log_scale) * noise

        return jnp.concatenate(self._down(context, dtype, draw)), sum(scores)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, L]`."""
        return self._draw(key, context)[0]

    @per_sample
    def sample_and_log_prob(self, key, shape=(), *, context=None) -> tuple[jax.Array, jax.Array]:
        """Draws `[*shape, L]`, differentiable, and their log-density `[*shape]`."""
        return self._draw(key, context)

    def center(self, context=None):
        """The means from the top down, each given those above, `[*batch, L]` of contexts `[*batch, *context]`."""
        axes = 0 if context is None else context.ndim - len(self.context_shape or ())

        def one(context):
            return jnp.concatenate(self._down(context, _dtype(self.nets), lambda i, mean, log_scale: mean))

        for _ in range(axes):
            one = jax.vmap(one)
        return one(context)


def _dtype(nets):
    return jnp.result_type(*jax.tree.leaves(nets), jnp.float32)


def _log_density(noise, log_scale):
    return -0.5 * jnp.sum(noise * noise) - jnp.sum(log_scale) - 0.5 * noise.size * LOG_2PI
