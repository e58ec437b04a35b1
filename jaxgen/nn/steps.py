"""A perceptron that goes over the steps of a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core.files import loadable


@loadable
class StepMLP(nn.Module):
    """The same perceptron at each step of a sequence, of the step and its neighbours.

    `y_t = mlp(x_(t - r), ..., x_t, ..., x_(t + r))`, zeros beyond the ends, `[*batch, T, D] -> [*batch, P, T, D']`

    Args:
        features: widths of the layers, the output's, `P D'`, last.
        activation: elementwise, a module-level function.
        outputs: P, the number of arrays that it gives, such as a mean and a log-scale.
        reach: r, the number of neighbours on either side.
        precision: of the matrix products, as in `MLP`.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), StepMLP((8, 6), outputs=2), (5, 4))
        >>> net(jnp.ones((5, 4))).shape, net(jnp.ones((3, 7, 4))).shape
        ((2, 5, 3), (3, 2, 7, 3))
    """

    features: tuple[int, ...]
    activation: Callable[[Any], Any] = jax.nn.relu
    outputs: int = 1
    reach: int = 2
    precision: str = "highest"

    @nn.compact
    def __call__(self, x: Any) -> Any:
        steps, r = x.shape[-2], self.reach
        padded = jnp.pad(x, (*[(0, 0)] * (x.ndim - 2), (r, r), (0, 0)))
        x = jnp.concatenate([padded[..., i : i + steps, :] for i in range(2 * r + 1)], axis=-1)
        for width in self.features[:-1]:
            x = self.activation(nn.Dense(width, precision=self.precision)(x))
        x = nn.Dense(self.features[-1], precision=self.precision)(x)
        return jnp.moveaxis(x.reshape((*x.shape[:-1], self.outputs, -1)), -2, -3)
