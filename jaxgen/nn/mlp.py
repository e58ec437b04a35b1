"""The multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core.errors import ShapeError
from jaxgen.core.files import loadable


@loadable
class MLP(nn.Module):
    """Dense layers with an activation between them.

    `x -> W_n act(... act(W_1 x + b_1) ...) + b_n`, `[*batch, *in_shape] -> [*batch, *out_shape]`

    Called with more than one input, such as an event and a context, it sees them joined: `in_shape` is that of the
    first, the others are vectors.

    Args:
        features: widths of the layers, the output's last; no activation after the last layer.
        activation: elementwise, a module-level function.
        in_shape: shape of one input, flattened first; None for vectors of any length.
        out_shape: shape of one output, with as many entries as `features[-1]`; None for a vector.
        zero_last: start the last layer at zero, so that the network starts as the constant zero.
        precision: of the matrix products: "highest" is float32 on every device, "default" the device's own (TF32 on
            GPUs, which costs a likelihood three digits).

    Raises:
        ShapeError: the input does not end in `in_shape`, or `out_shape` does not hold `features[-1]` entries.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxgen.nn.net import Net
        >>> module = MLP(features=(32, 12), in_shape=(8, 8), out_shape=(3, 4))
        >>> net = Net.init(jax.random.key(0), module, (8, 8))
        >>> net(jnp.ones((5, 8, 8))).shape
        (5, 3, 4)
    """

    features: tuple[int, ...]
    activation: Callable[[Any], Any] = jax.nn.relu
    in_shape: tuple[int, ...] | None = None
    out_shape: tuple[int, ...] | None = None
    zero_last: bool = False
    precision: str = "highest"

    @nn.compact
    def __call__(self, x: Any, *more: Any) -> Any:
        self._check(x)
        if self.in_shape is not None:
            x = x.reshape((*x.shape[: x.ndim - len(self.in_shape)], math.prod(self.in_shape)))
        if more:
            x = jnp.concatenate([x, *more], axis=-1)
        for width in self.features[:-1]:
            x = self.activation(nn.Dense(width, precision=self.precision)(x))
        start = nn.initializers.zeros_init() if self.zero_last else nn.initializers.lecun_normal()
        x = nn.Dense(self.features[-1], kernel_init=start, precision=self.precision)(x)
        return x if self.out_shape is None else x.reshape((*x.shape[:-1], *self.out_shape))

    def _check(self, x: Any) -> None:
        if self.in_shape is not None and x.shape[max(x.ndim - len(self.in_shape), 0) :] != self.in_shape:
            raise ShapeError(
                "the input does not fit the network", called="MLP(...)(x)", got=f"shape {list(x.shape)}",
                expected=f"[*batch, {', '.join(map(str, self.in_shape))}]",
            )  # fmt: skip
        if self.out_shape is not None and math.prod(self.out_shape) != self.features[-1]:
            raise ShapeError(
                "the output's shape does not hold the last layer", called="MLP(features, out_shape=...)",
                expected=f"{self.features[-1]} entries", got=f"out_shape {self.out_shape}",
                fix=f"features = {(*self.features[:-1], math.prod(self.out_shape))}",
            )  # fmt: skip
