"""The masked network of autoregressive models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ShapeError
from jaxgen.core.files import loadable


@loadable
class MADE(nn.Module):
    """Dense layers whose output for coordinate d depends on the coordinates before d only.

    `[*batch, repeats * size + context] -> [*batch, outputs * size]`: the first feature of all coordinates, then the
    second, then the context, which every output may use; the first output of all coordinates, then the second.

    Args:
        size: D, the number of coordinates.
        features: widths of the hidden layers, any; units have degrees up to D-1, spread evenly, and see what is
            of at most their degree.
        outputs: numbers for each coordinate.
        repeats: features of each coordinate.
        context: size of the context.
        activation: elementwise, a module-level function.
        precision: of the matrix products.

    The last layer starts at zero.

    Source: Germain et al. (2015), MADE: masked autoencoder for distribution estimation, with their degrees spread
    evenly in place of drawn.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), MADE(3, (16,), 2), (3,))
        >>> net(jnp.ones((5, 3))).shape
        (5, 6)
    """

    size: int
    features: tuple[int, ...]
    outputs: int
    repeats: int = 1
    context: int = 0
    activation: Callable[[Any], Any] = jax.nn.relu
    precision: str = "highest"

    @nn.compact
    def __call__(self, x: Any) -> Any:
        inputs = self.repeats * self.size + self.context
        if x.shape[-1:] != (inputs,):
            raise ShapeError(
                "the input does not fit the network", called="MADE(...)(x)", expected=f"[*batch, {inputs}]",
                got=f"shape {list(x.shape)}",
            )  # fmt: skip
        # a coordinate's degree is its number from 1, a unit's the last coordinate that it has seen; a context's is 0
        seen = np.concatenate([np.tile(1 + np.arange(self.size), self.repeats), np.zeros(self.context, int)])
        # units of degree 0 see the context alone: what the first coordinate depends on
        first = 0 if self.context or self.size == 1 else 1
        for i, width in enumerate(self.features):
            unit = first + np.arange(width) * (self.size - first) // width
            x = self.activation(self._masked(x, seen[:, None] <= unit, i, nn.initializers.lecun_normal()))
            seen = unit
        out = np.tile(1 + np.arange(self.size), self.outputs)
        return self._masked(x, seen[:, None] < out, len(self.features), nn.initializers.zeros_init())

    def _masked(self, x: Any, mask: np.ndarray, i: int, start: Any) -> Any:
        kernel = self.param(f"kernel_{i}", start, mask.shape)
        bias = self.param(f"bias_{i}", nn.initializers.zeros_init(), mask.shape[1:])
        return jnp.matmul(x, kernel * mask.astype(x.dtype), precision=self.precision) + bias
