"""The ratio of likelihood and evidence, from a network that tells pairs from what was shuffled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections import Standardize
from jaxgen.core.inputs import Batch
from jaxgen.core.pytree import fixed, model
from jaxgen.core.value import algorithm
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net

#: hidden widths of the critic, and wrong parameters that each right one stands among
FEATURES, WRONG = (128, 128, 128), 9


@model
class LikelihoodRatio:
    """A critic of pairs: `log p(x | theta) - log p(x)` up to a constant of x.

    Args:
        net: `[D + P] -> [1]`.
        theta_units, x_units: bijections, of which the inverses make numbers of order one.
    """

    net: Any
    theta_units: Any = fixed()
    x_units: Any = fixed()

    @classmethod
    def starting(cls, theta, x) -> Callable[[Any], LikelihoodRatio]:
        """Return a function of a key that makes a critic for pairs such as `[N, D]` and `[N, P]`."""
        units = Standardize.from_data(theta), Standardize.from_data(x)
        example = jnp.zeros(theta.shape[1] + x.shape[1], theta.dtype)
        return lambda key: cls(Net.init(key, MLP((*FEATURES, 1), jax.nn.silu), example), *units)

    @property
    def event_shape(self):
        return self.theta_units.event_shape

    @property
    def context_shape(self):
        return self.x_units.event_shape

    def __call__(self, theta, x) -> jax.Array:
        """Return the log-ratio of one pair, `[D]` and `[P]`, nats."""
        parts = self.theta_units.inverse_and_log_det(theta)[0], self.x_units.inverse_and_log_det(x)[0]
        return self.net(jnp.concatenate(parts))[0]


@algorithm
class Contrast:
    """Minus the log-probability of naming the right parameter among others of the batch, nats.

    `-mean_n log (exp f(theta_n, x_n) / sum_k exp f(theta_k, x_n))`

    Source: Durkan, Murray and Papamakarios (2020), On contrastive learning for likelihood-free inference.
    """

    def __call__(self, key: Any, critic: LikelihoodRatio, batch: Batch, step: Any) -> jax.Array:
        """Return the loss of pairs of which the events are parameters and the contexts data."""
        theta, x = batch.x, batch.context
        others = range(min(WRONG + 1, len(x)))
        score = jnp.stack([jax.vmap(critic)(jnp.roll(theta, k, axis=0), x) for k in others])
        return -jnp.mean(jax.nn.log_softmax(score, axis=0)[0])
