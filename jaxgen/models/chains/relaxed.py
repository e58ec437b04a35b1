"""A chain whose states are shares in place of choices, so that its samples are differentiable in all its parameters."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import ModelError
from jaxgen.core.methods import context_shape, is_count, per_sample
from jaxgen.core.pytree import model, part, static
from jaxgen.models.chains.hmm import HMM


@model
class Relaxed:
    """Sequences of one length from a hidden Markov model whose states are relaxed, for training by their samples.

    `z_1 ~ G(pi)`, `z_t ~ G(A^T z_(t-1))`, `x_t = sum_k z_tk e_tk`, `e_tk ~ p_k`

    with `G(p) = softmax((log p + g) / temperature)`, g standard Gumbel noise: a relaxed choice, and at temperature 0
    the choice itself, so that these are the samples of the model. An `Implicit`: `Adversarial` trains it, also where
    its emissions have no likelihood. `fitted.model.hmm` is what it has found.

    Args:
        hmm: an `HMM` without contexts, whose emissions have events of one shape.
        length: T, of every sequence.
        temperature: above 0; where it is low, gradients vary more, and where it is high, events are blends.

    Source: Jang, Gu and Poole (2017), Categorical reparameterization with Gumbel-softmax; Maddison, Mnih and Teh
    (2017), The concrete distribution.

    Example:
        >>> import jaxgen as jg
        >>> emissions = jg.Gaussian.from_values([[-2.0], [2.0]], jnp.ones((2, 1, 1)))
        >>> chain = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], emissions)
        >>> jg.Relaxed.from_hmm(chain, 5).sample(jax.random.key(0), (3,)).shape
        (3, 5, 1)
    """

    hmm: Any = part()
    length: int = static()
    temperature: float = static(default=0.2)

    @classmethod
    def from_hmm(cls, hmm: HMM, length: int, *, temperature: float = 0.2) -> Relaxed:
        """Relax a hidden Markov model; arguments as in the class.

        Raises:
            ModelError: another model, one with a context or with events of a free length, no length, no temperature.
        """
        called = f"Relaxed.from_hmm({type(hmm).__name__}, {length}, temperature={temperature})"
        if not isinstance(hmm, HMM) or context_shape(hmm) is not None or None in hmm.event_shape[1:]:
            raise ModelError(
                "only chains without contexts, of events of one shape, are relaxed", called=called, got=repr(hmm)[:200],
                expected="an HMM with context_shape None, emissions without a free length",
            )  # fmt: skip
        if not is_count(length, 1):
            raise ModelError("a sequence has steps", called=called, expected="length of 1 or more", got=str(length))
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ModelError("a share needs a temperature", called=called, expected="a number above 0",
                             got=str(temperature))  # fmt: skip
        return cls(hmm, length, float(temperature))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.length, *self.hmm.event_shape[1:])

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, T, *event]`."""
        first, walk, within = jax.random.split(key, 3)
        log_initial, transition = self.hmm.log_initial, self.hmm.transition

        def choose(key: Any, log_share: jax.Array) -> jax.Array:
            noise = jax.random.gumbel(key, log_share.shape, log_share.dtype)
            return jax.nn.softmax((log_share + noise) / self.temperature)

        def move(share: jax.Array, key: Any) -> tuple[jax.Array, jax.Array]:
            after = jnp.matmul(share, transition, precision="highest")
            after = choose(key, jnp.log(jnp.maximum(after, jnp.finfo(after.dtype).tiny)))
            return after, after

        start = choose(first, log_initial)
        _, rest = jax.lax.scan(move, start, jax.random.split(walk, self.length - 1))
        shares = jnp.concatenate([start[None], rest])
        if self.hmm.tie is not None:
            member = jax.nn.one_hot(np.array(self.hmm.tie), algebra.count(self.hmm.emissions), dtype=shares.dtype)
            shares = jnp.matmul(shares, member, precision="highest")

        def emit(key: Any, share: jax.Array) -> jax.Array:
            states = jnp.arange(len(share))
            drawn = jax.vmap(lambda key, k: algebra.sample_component(key, self.hmm.emissions, k))(
                jax.random.split(key, len(share)), states)  # fmt: skip
            return jnp.tensordot(share, drawn.astype(share.dtype), 1, precision="highest")

        return jax.vmap(emit)(jax.random.split(within, self.length), shares)
