"""Residual convolutional networks between images and vectors, or grids of vectors, without batch statistics.

An image is halved before anything else happens and doubled last: all residual blocks work on grids of half its side and
less, where a block of the whole image would cost four times as much. Grids are doubled by a convolution at the small
size whose channels become pixels (Shi et al. 2016, Real-time single image and video super-resolution).
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
from jaxgen.nn.conv import SMALLEST, Conv, halvings


def grid_shape(image: tuple[int, ...], depth: int | None = None) -> tuple[int, int]:
    """Return height and width of an image that is halved `depth` times; None halves it as often as 4 pixels are left.

    Raises:
        ShapeError: not an image, or one that cannot be halved, or not that often.

    Example:
        >>> grid_shape((28, 28)), grid_shape((32, 32, 3), depth=2)
        ((7, 7), (8, 8))
    """
    most = halvings(image)
    if most == 0:
        sides = " by ".join(str(-(-max(side, 2 * SMALLEST) // 4) * 4) for side in image[:2])
        raise ShapeError(
            "the image cannot be halved", called="a residual network", got=f"shape {list(image)}",
            expected=f"two even sides of {2 * SMALLEST} or more",
            fix=f"pad the images to {sides} pixels, or take an MLP",
        )  # fmt: skip
    depth = most if depth is None else depth
    if not 1 <= depth <= most:
        raise ShapeError(
            "the image cannot be halved that often", called=f"a residual network of depth {depth}",
            got=f"shape {list(image)}", expected=f"a depth from 1 to {most}", fix="leave depth out",
        )  # fmt: skip
    return image[0] >> depth, image[1] >> depth


class Norm(nn.Module):
    """Group normalisation: of each event by itself, in groups of two channels or more; or nothing at all."""

    norm: bool = True

    @nn.compact
    def __call__(self, x: Any) -> Any:
        if not self.norm:
            return x
        groups = math.gcd(x.shape[-1] // 2 or 1, 8)
        # the variance as the mean square of what is left of the mean: that of squares less the square cancels
        return nn.GroupNorm(num_groups=groups, use_fast_variance=False)(x)


class Block(nn.Module):
    """Two convolutions beside the identity, the second of which starts at zero; `[N, H, W, C] -> [N, H, W, C]`.

    Further vectors shift the channels between the two.
    """

    activation: Callable[[Any], Any]
    norm: bool = True

    @nn.compact
    def __call__(self, x: Any, *more: Any) -> Any:
        channels = x.shape[-1]
        inner = Conv(channels)(self.activation(Norm(self.norm)(x)))
        if more:
            inner = inner + nn.Dense(channels)(jnp.concatenate(more, axis=-1))[:, None, None]
        return x + Conv(channels, zero=True)(self.activation(Norm(self.norm)(inner)))


def _doubled(x):
    """Channels as pixels, `[N, H, W, 4 C] -> [N, 2 H, 2 W, C]`."""
    n, height, width, channels = x.shape
    x = x.reshape((n, height, width, 2, 2, channels // 4)).transpose((0, 1, 3, 2, 4, 5))
    return x.reshape((n, 2 * height, 2 * width, channels // 4))


def _flat(x, shape, more, called):
    """Batch axes, and the arrays with these as one."""
    batch = x.shape[: max(x.ndim - len(shape), 0)]
    if x.shape[len(batch) :] != shape:
        raise ShapeError(
            "the input does not fit the network", called=f"{called}(...)(x)", got=f"shape {list(x.shape)}",
            expected=f"[*batch, {', '.join(map(str, shape))}]",
        )  # fmt: skip
    n = math.prod(batch)
    return batch, x.reshape((n, *shape)), tuple(vector.reshape((n, vector.shape[-1])) for vector in more)


@loadable
class ImageToGrid(nn.Module):
    """An image to a grid of vectors: halvings, with residual blocks after each.

    `[*batch, *in_shape] -> [*batch, h, w, features]`, `h = H / 2^depth`; called with more vectors, such as a context
    `[*batch, C]`, these shift the channels of every block.

    Args:
        in_shape: `(H, W)` or `(H, W, C)`.
        features: of each vector.
        width: channels after the first halving; they double with each further one.
        blocks: residual blocks after each halving.
        depth: number of halvings; None is as many as leave 4 pixels: 28 -> 14 -> 7.
        activation: elementwise, a module-level function.
        norm: group normalisation, of each event by itself.

    Raises:
        ShapeError: an image that cannot be halved so often.

    Source: He, Zhang, Ren and Sun (2016), Identity mappings in deep residual networks; Wu and He (2018), Group
    normalization.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), ImageToGrid((8, 8), 3, width=4), (8, 8))
        >>> net(jnp.ones((5, 8, 8))).shape
        (5, 4, 4, 3)
    """

    in_shape: tuple[int, ...]
    features: int
    width: int = 32
    blocks: int = 1
    depth: int | None = None
    activation: Callable[[Any], Any] = jax.nn.silu
    norm: bool = True

    @nn.compact
    def __call__(self, x: Any, *more: Any) -> Any:
        height, _ = grid_shape(self.in_shape, self.depth)
        batch, x, more = _flat(x, self.in_shape, more, "ImageToGrid")
        x = x.reshape((*x.shape[:3], -1))
        for level in range((self.in_shape[0] // height).bit_length() - 1):
            x = Conv(self.width << level, size=4, stride=2)(x)
            for _ in range(self.blocks):
                x = Block(self.activation, self.norm)(x, *more)
        x = Conv(self.features, size=1)(self.activation(Norm(self.norm)(x)))
        return x.reshape((*batch, *x.shape[1:]))


@loadable
class GridToImage(nn.Module):
    """A grid of vectors to P images: residual blocks, with a doubling after each size.

    `[*batch, h, w, F] -> [*batch, *out_shape]`, `h = H / 2^depth`; further vectors as in `ImageToGrid`.

    Args:
        out_shape: `(P, H, W)` or `(P, H, W, C)`, as a likelihood of P parameters takes it.
        width: channels before the last doubling; they halve with each one.
        blocks: residual blocks before each doubling.
        depth: number of doublings, as in `ImageToGrid`.
        activation: elementwise, a module-level function.
        norm: group normalisation, of each event by itself.

    Raises:
        ShapeError: an image that cannot be halved so often, or a grid of another size.

    Source: as `ImageToGrid`.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), GridToImage((2, 8, 8), width=4), (4, 4, 3))
        >>> net(jnp.ones((5, 4, 4, 3))).shape
        (5, 2, 8, 8)
    """

    out_shape: tuple[int, ...]
    width: int = 32
    blocks: int = 1
    depth: int | None = None
    activation: Callable[[Any], Any] = jax.nn.silu
    norm: bool = True

    @nn.compact
    def __call__(self, x: Any, *more: Any) -> Any:
        count, *image = self.out_shape
        height, width = grid_shape(tuple(image), self.depth)
        batch, x, more = _flat(x, (height, width, x.shape[-1]), more, "GridToImage")
        levels = (image[0] // height).bit_length() - 1
        x = Conv(self.width << levels - 1)(x)
        for level in reversed(range(levels)):
            for _ in range(self.blocks):
                x = Block(self.activation, self.norm)(x, *more)
            if level:
                x = _doubled(Conv(4 * (self.width << level - 1))(x))
        x = self.activation(Norm(self.norm)(x))
        x = _doubled(Conv(4 * count * math.prod(image[2:]))(x))
        x = x.reshape((*x.shape[:3], count, *image[2:]))
        return jnp.moveaxis(x, 3, 1).reshape((*batch, *self.out_shape))


@loadable
class ResNetEncoder(nn.Module):
    """An image to a vector, or an array of another shape: `ImageToGrid`, and a dense layer.

    `[*batch, *in_shape] -> [*batch, *out_shape]`; further vectors, such as a context, as in `ImageToGrid`.

    Args:
        in_shape: `(H, W)` or `(H, W, C)`.
        out_shape: of one output: `(F,)`, or `(2, L)` for the means and scales of L latent numbers.
        width: channels after the first halving; they double with each further one.
        blocks: residual blocks after each halving.
        depth: number of halvings; None is as many as leave 4 pixels.
        activation: elementwise, a module-level function.
        norm: group normalisation, of each event by itself.

    Raises:
        ShapeError: an image that cannot be halved so often.

    Source: as `ImageToGrid`.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), ResNetEncoder((8, 8), (2, 3), width=4), (8, 8))
        >>> net(jnp.ones((5, 8, 8))).shape
        (5, 2, 3)
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    width: int = 32
    blocks: int = 1
    depth: int | None = None
    activation: Callable[[Any], Any] = jax.nn.silu
    norm: bool = True

    @nn.compact
    def __call__(self, x: Any, *more: Any) -> Any:
        grid = ImageToGrid(
            self.in_shape, self.width, self.width, self.blocks, self.depth, self.activation, self.norm
        )(x, *more)  # fmt: skip
        batch = grid.shape[:-3]
        x = self.activation(grid).reshape((*batch, math.prod(grid.shape[-3:])))
        return nn.Dense(math.prod(self.out_shape))(x).reshape((*batch, *self.out_shape))


@loadable
class ResNetDecoder(nn.Module):
    """A vector to P images: a dense layer to the smallest grid, and `GridToImage`.

    `[*batch, L] -> [*batch, *out_shape]`; further vectors, such as a context, are joined to the first, and shift the
    channels of every block.

    Args:
        out_shape: `(P, H, W)` or `(P, H, W, C)`, as a likelihood of P parameters takes it.
        width: channels before the last doubling; they halve with each one.
        blocks: residual blocks before each doubling.
        depth: number of doublings; None is as many as leave 4 pixels.
        activation: elementwise, a module-level function.
        norm: group normalisation, of each event by itself.

    Raises:
        ShapeError: an image that cannot be halved so often.

    Source: as `ImageToGrid`.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), ResNetDecoder((1, 8, 8), width=4), (16,))
        >>> net(jnp.ones(16)).shape, net(jnp.ones((5, 16))).shape
        ((1, 8, 8), (5, 1, 8, 8))
    """

    out_shape: tuple[int, ...]
    width: int = 32
    blocks: int = 1
    depth: int | None = None
    activation: Callable[[Any], Any] = jax.nn.silu
    norm: bool = True

    @nn.compact
    def __call__(self, z: Any, *more: Any) -> Any:
        height, width = grid_shape(self.out_shape[1:], self.depth)
        x = jnp.concatenate([z, *more], axis=-1)
        x = nn.Dense(height * width * self.width)(x).reshape((*x.shape[:-1], height, width, self.width))
        return GridToImage(
            self.out_shape, self.width, self.blocks, self.depth, self.activation, self.norm
        )(x, *more)  # fmt: skip
