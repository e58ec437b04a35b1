"""The features of a critic: the numbers that its last linear layer makes one number of."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from jaxgen.core.errors import ModelError
from jaxgen.nn.net import Net
from jaxgen.nn.spectral import Spectral

#: networks that are called with events
Critic = (Net, Spectral)


def critic_features(critic: Any, *inputs: Any) -> jax.Array:
    """Return what the last linear layer of a critic sees, `[*batch, F]`.

    Args:
        critic: a `Net` or `Spectral` of a flax linen module whose last layer is a `Dense`, such as a game's
            `fitted.state.critic.model` or any of `jaxgen.nn`.
        inputs: events `[*batch, *event]`, and contexts where it takes them.

    Raises:
        ModelError: a network without such a layer, or of another library.

    Source: Radford, Metz and Chintala (2016), Unsupervised representation learning with deep convolutional generative
    adversarial networks, section 5.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxgen.nn.mlp import MLP
        >>> critic = Net.init(jax.random.key(0), MLP((16, 1)), (2,))
        >>> critic_features(critic, jnp.ones((5, 2))).shape
        (5, 16)
    """
    seen: list[jax.Array] = []

    def watched(call: Any, arguments: Any, options: Any, place: Any) -> Any:
        if isinstance(place.module, nn.Dense) and place.method_name == "__call__":
            seen.append(arguments[0])
        return call(*arguments, **options)

    with nn.intercept_methods(watched):
        critic(*inputs)
    if not seen:
        raise ModelError(
            "the network has no last linear layer", called=f"critic_features({type(critic).__name__}, x)",
            expected="a flax linen module that ends with a Dense", got=repr(critic)[:200],
            fix="write its features as a function of its own",
        )  # fmt: skip
    return seen[-1]
