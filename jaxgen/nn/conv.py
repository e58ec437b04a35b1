"""Convolutions, and networks of them for small images: those of a DCGAN, and one for couplings. No batch statistics.

Images are `[H, W]` or `[H, W, C]`. Between the smallest grid and the image stand as many halvings as both sides allow
with at least 4 left: 8 -> 4, 28 -> 14 -> 7, 32 -> 16 -> 8 -> 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core.errors import ShapeError
from jaxgen.core.files import loadable
from jaxgen.ops.convolutions import convolve
from jaxgen.ops.doubled import convolve_doubled

#: smallest side of the grid that a generator starts from and a critic ends with
SMALLEST = 4


def halvings(shape: tuple[int, ...]) -> int:
    """Return the number of times that both sides of an image can be halved with at least 4 left.

    Raises:
        ShapeError: not an image, or one smaller than 4 by 4.

    Example:
        >>> [halvings(shape) for shape in ((8, 8), (28, 28), (32, 32, 3), (9, 8))]
        [1, 2, 3, 0]
    """
    if len(shape) not in (2, 3) or min(shape[:2]) < SMALLEST:
        raise ShapeError(
            "that is no image", called="a convolutional network", got=f"shape {list(shape)}",
            expected=f"[H, W] or [H, W, C], H and W of {SMALLEST} or more", fix="an MLP, for vectors",
        )  # fmt: skip
    count, (height, width) = 0, shape[:2]
    while height % 2 == width % 2 == 0 and min(height, width) >= 2 * SMALLEST:
        count, height, width = count + 1, height // 2, width // 2
    return count


@loadable
class Conv(nn.Module):
    """A convolution with zero padding: `[N, H, W, C] -> [N, H', W', features]`, `H' = ceil(H / stride)`.

    What `flax.linen.Conv` computes, with parameters of the same names and shapes.

    Args:
        features: output channels.
        size: side of the kernel.
        stride: in both directions.
        zero: start at zero.
        precision: of the matrix product: "highest" is float32 on every device, "default" the device's own.
        double: convolve the grid doubled by repetition, `[N, 2 H, 2 W, features]`; of size 3 and stride 1.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> Net.init(jax.random.key(0), Conv(5, stride=2), (2, 7, 7, 3))(jnp.ones((2, 7, 7, 3))).shape
        (2, 4, 4, 5)
    """

    features: int
    size: int = 3
    stride: int = 1
    zero: bool = False
    precision: str = "default"
    double: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        shape = (self.size, self.size, x.shape[-1], self.features)
        start = nn.initializers.zeros_init() if self.zero else nn.initializers.he_normal()
        kernel = self.param("kernel", start, shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        if self.double:
            return convolve_doubled(x, kernel, precision=self.precision) + bias
        return convolve(x, kernel, stride=self.stride, precision=self.precision) + bias


@loadable
class ConvGenerator(nn.Module):
    """Noise to an image: a dense layer to the smallest grid, then doubled grids with a convolution after each.

    `[*batch, L] -> [*batch, *out_shape]`; called with more than one vector, such as noise and a context, it sees them
    joined.

    Args:
        out_shape: `(H, W)` or `(H, W, C)`.
        width: channels of the largest grid before the image; they double with each halving.
        activation: elementwise, a module-level function.
        head: of the output, elementwise: tanh for images scaled to [-1, 1].

    Grids are doubled by repetition, not by strided transposed convolutions, which leave checkerboards (Odena, Dumoulin
    and Olah 2016, Deconvolution and checkerboard artifacts). Without batch statistics an event depends on its own
    noise only.

    Source: Radford, Metz and Chintala (2016), Unsupervised representation learning with deep convolutional generative
    adversarial networks.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), ConvGenerator((8, 8), width=4), (16,))
        >>> net(jnp.ones(16)).shape, net(jnp.ones((5, 16))).shape
        ((8, 8), (5, 8, 8))
    """

    out_shape: tuple[int, ...]
    width: int = 32
    activation: Callable[[Any], Any] = jax.nn.relu
    head: Callable[[Any], Any] = jnp.tanh

    @nn.compact
    def __call__(self, z: Any, *more: Any) -> Any:
        z = jnp.concatenate([z, *more], axis=-1)
        levels = halvings(self.out_shape)
        height, width = (side >> levels for side in self.out_shape[:2])
        channels = self.width << levels
        batch = z.shape[:-1]
        x = self.activation(nn.Dense(height * width * channels, kernel_init=nn.initializers.he_normal())(z))
        x = x.reshape((math.prod(batch), height, width, channels))
        for level in reversed(range(levels)):
            x = self.activation(Conv(self.width << level, double=True)(x))
        colors = self.out_shape[2] if len(self.out_shape) == 3 else 1
        x = Conv(colors)(x)
        return self.head(x).reshape((*batch, *self.out_shape))


@loadable
class ConvCritic(nn.Module):
    """An image to one number, or to features: convolutions of stride two to the smallest grid, then a dense layer.

    `[*batch, *in_shape] -> [*batch]`; called with more, such as a context `[*batch, C]`, it sees that as C channels
    more, the same at all pixels.

    Args:
        in_shape: `(H, W)` or `(H, W, C)`.
        width: channels of the first convolution; they double with each halving.
        activation: elementwise, a module-level function; leaky, so that a generator always has a gradient to follow.
        features: F numbers in place of one, `[*batch, F]`: a body of `ProjectionCritic` or `ClassifierCritic`.

    Source: as `ConvGenerator`.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), ConvCritic((8, 8), width=4), (8, 8))
        >>> net(jnp.ones((8, 8))).shape, net(jnp.ones((5, 8, 8))).shape
        ((), (5,))
    """

    in_shape: tuple[int, ...]
    width: int = 32
    activation: Callable[[Any], Any] = jax.nn.leaky_relu
    features: int | None = None

    @nn.compact
    def __call__(self, x: Any, *more: Any) -> Any:
        levels = halvings(self.in_shape)
        batch = x.shape[: max(x.ndim - len(self.in_shape), 0)]
        if x.shape[len(batch) :] != self.in_shape:
            raise ShapeError(
                "the input does not fit the critic", called="ConvCritic(...)(x)", got=f"shape {list(x.shape)}",
                expected=f"[*batch, {', '.join(map(str, self.in_shape))}]",
            )  # fmt: skip
        image = (math.prod(batch), *self.in_shape[:2])
        flat = (vector.reshape((image[0], 1, 1, vector.shape[-1])) for vector in more)
        everywhere = (jnp.broadcast_to(vector, (*image, vector.shape[-1])) for vector in flat)
        x = jnp.concatenate([x.reshape((*image, -1)), *everywhere], axis=-1)
        x = self.activation(Conv(self.width)(x))
        for level in range(1, levels + 1):
            x = self.activation(Conv(self.width << level, stride=2)(x))
        out = () if self.features is None else (self.features,)
        return nn.Dense(math.prod(out))(x.reshape((len(x), -1))).reshape((*batch, *out))


@loadable
class ConvNet(nn.Module):
    """An image to one of the same size, for the coupling of a flow: convolutions of 3, 1 and 3 pixels.

    `[*batch, H, W, C] -> [*batch, H, W, features]`; it starts as the constant zero, and is float32 on every device.

    Args:
        features: output channels.
        width: hidden channels.
        activation: elementwise, a module-level function.

    Source: Kingma and Dhariwal (2018), Glow: generative flow with invertible 1x1 convolutions, section 5.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), ConvNet(6, width=8), (4, 4, 2))
        >>> net(jnp.ones((4, 4, 2))).shape, net(jnp.ones((5, 4, 4, 2))).shape
        ((4, 4, 6), (5, 4, 4, 6))
    """

    features: int
    width: int = 64
    activation: Callable[[Any], Any] = jax.nn.silu

    @nn.compact
    def __call__(self, x: Any) -> Any:
        batch, image = x.shape[:-3], x.shape[-3:]
        x = x.reshape((math.prod(batch), *image))
        x = self.activation(Conv(self.width, precision="highest")(x))
        x = self.activation(Conv(self.width, size=1, precision="highest")(x))
        x = Conv(self.features, zero=True, precision="highest")(x)
        return x.reshape((*batch, *image[:2], self.features))
