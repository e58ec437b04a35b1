"""A style-based generator of images and its critic, which grow from coarse images to fine ones.

Both are sums over sizes, from the smallest grid to the image: what a size adds starts at zero, and its parameters have
names that say the size. So the networks of images of twice the side hold those of the small ones, and begin as the same
picture with its pixels repeated, and as a critic that looks at means of 2 by 2 pixels (`recipes.grown`).
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
from jaxgen.nn.conv import Conv, halvings
from jaxgen.ops.convolutions import convolve
from jaxgen.ops.doubled import doubled

#: fewest channels of a size
NARROWEST = 8


def sides(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the heights and widths of the grids of an image, the coarsest first.

    Raises:
        ShapeError: no image, as of `halvings`.

    Example:
        >>> sides((28, 28)), sides((8, 12, 3))
        ([(7, 7), (14, 14), (28, 28)], [(4, 6), (8, 12)])
    """
    levels = halvings(shape)
    return [(shape[0] >> level, shape[1] >> level) for level in reversed(range(levels + 1))]


def noise_size(shape: tuple[int, ...]) -> int:
    """Return the number of noise inputs of a `StyleGenerator`: one a pixel of each of its layers.

    Example:
        >>> noise_size((8, 8))  # one layer of 4 by 4, two of 8 by 8
        144
    """
    first, *further = (height * width for height, width in sides(shape))
    return first + 2 * sum(further)


def _width(width: int, level: int) -> int:
    return max(width >> level, min(width, NARROWEST))


def _halved(x: Any) -> Any:
    n, height, width, channels = x.shape
    return x.reshape((n, height // 2, 2, width // 2, 2, channels)).mean(axis=(2, 4))


@loadable
class StyledConv(nn.Module):
    """A convolution whose kernel each event scales by its style.

    `w'_ijo = s_i w_ijo / sqrt(sum_ij (s_i w_ijo)^2)`, `s = A w + 1`; `[N, H, W, C], [N, S] -> [N, H, W, features]`

    with input channels i, pixels j and output channels o. The kernel's scale is undone (`demodulate`) in the outputs,
    so that a style sets the shares of the channels and not their size.

    Args:
        features: output channels.
        size: side of the kernel.
        demodulate: undo the scale.
        zero: start at zero.

    Source: Karras et al. (2020), Analyzing and improving the image quality of StyleGAN, equations 1 and 3.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), StyledConv(5), (2, 4, 4, 3), (2, 6))
        >>> net(jnp.ones((2, 4, 4, 3)), jnp.ones((2, 6))).shape
        (2, 4, 4, 5)
    """

    features: int
    size: int = 3
    demodulate: bool = True
    zero: bool = False

    @nn.compact
    def __call__(self, x: Any, style: Any) -> Any:
        channels = x.shape[-1]
        start = nn.initializers.zeros_init() if self.zero else nn.initializers.he_normal()
        kernel = self.param("kernel", start, (self.size, self.size, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        scale = nn.Dense(channels, bias_init=nn.initializers.ones_init(), name="style")(style)
        y = convolve(x * scale[:, None, None, :], kernel)
        if self.demodulate:
            # the inputs are scaled in place of the kernel, the outputs by its norm: one convolution for all events
            squares = jnp.square(scale) @ jnp.square(kernel).sum(axis=(0, 1))
            y = y * jax.lax.rsqrt(squares + 1e-8)[:, None, None, :]
        return y + bias


@loadable
class StyleMapping(nn.Module):
    """Noise to a style: the noise at mean square 1, then dense layers with an activation after each.

    `[*batch, L] -> [*batch, features[-1]]`; further vectors, such as a context, are joined to the noise.

    Args:
        features: widths of the layers.
        activation: elementwise, a module-level function.

    Source: Karras, Laine and Aila (2019), A style-based generator architecture for generative adversarial networks.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> Net.init(jax.random.key(0), StyleMapping((8, 6)), (4,))(jnp.ones((5, 4))).shape
        (5, 6)
    """

    features: tuple[int, ...]
    activation: Callable[[Any], Any] = jax.nn.leaky_relu

    @nn.compact
    def __call__(self, z: Any, *more: Any) -> Any:
        w = z * jax.lax.rsqrt(jnp.mean(jnp.square(z), axis=-1, keepdims=True) + 1e-8)
        w = jnp.concatenate([w, *more], axis=-1)
        for width in self.features:
            w = self.activation(nn.Dense(width, kernel_init=nn.initializers.he_normal())(w))
        return w


@loadable
class StyleGenerator(nn.Module):
    """Noise to an image by way of a style, which scales every layer, with noise of its own at every pixel.

    `w = mapping(z)`; the image is the sum over sizes of what each has in colours, doubled up to the full size,
    `[*batch, latent + n] -> [*batch, *out_shape]`.

    Args:
        out_shape: `(H, W)` or `(H, W, C)`.
        latent: L, how many of the inputs make the style. They are put at mean square 1 first.
        noise: the other n inputs are noise at the pixels, `n = noise_size(out_shape)`, each layer's in units of a
            number that it learns; or there are none, and n = 0. So the map is pure: all that is random is its input.
        width: channels of the smallest grid; half as many with each doubling, 8 at least.
        style: S, the numbers of a style.
        mapping: layers between noise and style.
        truncation: psi; styles are moved towards the mean one, `w' = center + psi (w - center)`. 1 leaves them, and has
            no `center` among its parameters: `recipes.truncated` makes a generator with another.
        activation: elementwise, a module-level function.
        head: of the output, elementwise: tanh for images scaled to [-1, 1].

    Further vectors, such as a context, are joined to the L numbers.

    Raises:
        ShapeError: an input of another length than `latent + n`.

    Source: Karras, Laine and Aila (2019), A style-based generator architecture for generative adversarial networks, for
    mapping, noise and truncation; Karras et al. (2020), as `StyledConv`, for the sum of sizes and the layers; Karras et
    al. (2018), Progressive growing of GANs, for growth.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> module = StyleGenerator((8, 8), latent=4, width=8, style=4)
        >>> net = Net.init(jax.random.key(0), module, (4 + noise_size((8, 8)),))
        >>> net(jnp.ones((5, 148))).shape
        (5, 8, 8)
    """

    out_shape: tuple[int, ...]
    latent: int = 64
    noise: bool = True
    width: int = 64
    style: int = 64
    mapping: int = 3
    truncation: float = 1.0
    activation: Callable[[Any], Any] = jax.nn.leaky_relu
    head: Callable[[Any], Any] = jnp.tanh

    @nn.compact
    def __call__(self, z: Any, *more: Any) -> Any:
        batch, length = z.shape[:-1], self.latent + (noise_size(self.out_shape) if self.noise else 0)
        if z.shape[-1] != length:
            raise ShapeError(
                "the noise does not fit the generator", called="StyleGenerator(...)(z)", got=f"shape {list(z.shape)}",
                expected=f"[*batch, {length}]", fix=f"jaxgen.StandardNormal(({length},)), a base of as many numbers",
            )  # fmt: skip
        n = math.prod(batch)
        z = z.reshape((n, length))
        w = mapping_of(self, "styles")(z[:, : self.latent], *(one.reshape((n, one.shape[-1])) for one in more))
        if self.truncation != 1:
            center = self.param("center", nn.initializers.zeros_init(), (self.style,))
            w = center + self.truncation * (w - center)
        grids, noise = sides(self.out_shape), z[:, self.latent :]
        image: Any = None
        colors = self.out_shape[2] if len(self.out_shape) == 3 else 1
        x = self.param("constant", nn.initializers.normal(1.0), (*grids[0], self.width))
        x = jnp.broadcast_to(x, (n, *x.shape))
        for level, (height, width) in enumerate(grids):
            x = x if image is None else doubled(x)
            for layer in ("a",) if image is None else ("a", "b"):
                x = StyledConv(_width(self.width, level), name=f"layer{level}{layer}")(x, w)
                if self.noise:
                    here, noise = noise[:, : height * width], noise[:, height * width :]
                    strength = self.param(f"noise{level}{layer}", nn.initializers.zeros_init(), ())
                    x = x + strength * here.reshape((n, height, width, 1))
                x = self.activation(x)
            color = StyledConv(colors, 1, demodulate=False, zero=image is not None, name=f"color{level}")(x, w)
            image = color if image is None else doubled(image) + color
        return self.head(image).reshape((*batch, *self.out_shape))


def mapping_of(module: StyleGenerator, name: str | None = None) -> StyleMapping:
    """Return the network between noise and style, whose parameters are those named `styles`.

    Example:
        >>> mapping_of(StyleGenerator((8, 8), style=5, mapping=2)).features
        (5, 5)
    """
    return StyleMapping((module.style,) * module.mapping, module.activation, name=name)


@loadable
class StyleCritic(nn.Module):
    """An image to one number, by a sum over sizes: what is seen at each is added to what the finer ones saw.

    `[*batch, *in_shape] -> [*batch]`; called with more, such as a context `[*batch, C]`, it adds the inner product of
    its features and an embedding of that, as a `ProjectionCritic`.

    Args:
        in_shape: `(H, W)` or `(H, W, C)`.
        width: channels of the smallest grid; half as many with each doubling, 8 at least.
        activation: elementwise, a module-level function.

    What a size hands to the next coarser one starts at zero: at first the critic sees the smallest image, whose pixels
    are means.

    Raises:
        ShapeError: the input is no such image.

    Source: Karras et al. (2020), as `StyledConv`, section 4.1 (input skips); Karras et al. (2018), Progressive growing
    of GANs.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), StyleCritic((8, 8), width=8), (8, 8))
        >>> net(jnp.ones((8, 8))).shape, net(jnp.ones((5, 8, 8))).shape
        ((), (5,))
    """

    in_shape: tuple[int, ...]
    width: int = 64
    activation: Callable[[Any], Any] = jax.nn.leaky_relu

    @nn.compact
    def __call__(self, x: Any, *more: Any) -> Any:
        batch = x.shape[: max(x.ndim - len(self.in_shape), 0)]
        if x.shape[len(batch) :] != self.in_shape:
            raise ShapeError(
                "the input does not fit the critic", called="StyleCritic(...)(x)", got=f"shape {list(x.shape)}",
                expected=f"[*batch, {', '.join(map(str, self.in_shape))}]",
            )  # fmt: skip
        image: Any = x.reshape((math.prod(batch), *self.in_shape[:2], -1))
        h: Any = None
        for level in reversed(range(len(sides(self.in_shape)))):
            channels = _width(self.width, level)
            seen = Conv(channels, name=f"color{level}")(image)
            h = self.activation(seen if h is None else seen + h)
            h = self.activation(Conv(channels, name=f"layer{level}")(h))
            if level:
                h = Conv(_width(self.width, level - 1), stride=2, zero=True, name=f"down{level}")(h)
                image = _halved(image)
        h = self.activation(nn.Dense(self.width, name="features")(h.reshape((len(h), -1))))
        number = nn.Dense(1, name="number")(h)[:, 0]
        if more:
            flat = jnp.concatenate([one.reshape((len(h), one.shape[-1])) for one in more], axis=-1)
            number = number + jnp.sum(h * nn.Dense(self.width, use_bias=False, name="context")(flat), axis=-1)
        return number.reshape(batch)
