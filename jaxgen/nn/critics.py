"""Networks of two players: residual generators and critics of images, and critics that look at a context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core.errors import ShapeError
from jaxgen.core.files import loadable
from jaxgen.nn.resnet import ResNetDecoder, ResNetEncoder


@loadable
class ResNetGenerator(nn.Module):
    """Noise to an image, by residual blocks: a `ResNetDecoder` of one image.

    `[*batch, L] -> [*batch, *out_shape]`; further vectors, such as a context, are joined to the noise and shift the
    channels of every block.

    Args:
        out_shape: `(H, W)` or `(H, W, C)`.
        width: channels before the last doubling; they double with each further halving of the grid.
        blocks: residual blocks before each doubling.
        depth: number of doublings; None is as many as leave 4 pixels.
        activation: elementwise, a module-level function.
        norm: group normalisation in the blocks, each event's by itself; without it they start as the identity and keep
            their scale well enough for a few blocks.
        head: of the output, elementwise: tanh for images scaled to [-1, 1].

    Raises:
        ShapeError: an image that cannot be halved so often.

    Source: He, Zhang, Ren and Sun (2016), Identity mappings in deep residual networks; Gulrajani et al. (2017),
    Improved training of Wasserstein GANs, for a game of them.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), ResNetGenerator((8, 8), width=4), (16,), (3,))
        >>> net(jnp.ones((5, 16)), jnp.ones((5, 3))).shape
        (5, 8, 8)
    """

    out_shape: tuple[int, ...]
    width: int = 32
    blocks: int = 1
    depth: int | None = None
    activation: Callable[[Any], Any] = jax.nn.silu
    norm: bool = True
    head: Callable[[Any], Any] = jnp.tanh

    @nn.compact
    def __call__(self, z: Any, *more: Any) -> Any:
        images = ResNetDecoder(
            (1, *self.out_shape), self.width, self.blocks, self.depth, self.activation, self.norm
        )(z, *more)  # fmt: skip
        return self.head(images.reshape((*z.shape[:-1], *self.out_shape)))


@loadable
class ResNetCritic(nn.Module):
    """An image to one number, or to features, by residual blocks: a `ResNetEncoder` without normalisation.

    `[*batch, *in_shape] -> [*batch]`; further vectors, such as a context `[*batch, C]`, shift the channels of every
    block.

    Args:
        in_shape: `(H, W)` or `(H, W, C)`.
        features: F numbers in place of one, `[*batch, F]`: a body of `ProjectionCritic` or `ClassifierCritic`.
        width: channels after the first halving; they double with each further one.
        blocks: residual blocks after each halving.
        depth: number of halvings; None is as many as leave 4 pixels.
        activation: elementwise, a module-level function; leaky or smooth, so that a generator always has a gradient.
        norm: group normalisation, which gradient penalties do without.

    Raises:
        ShapeError: an image that cannot be halved so often.

    Source: as `ResNetGenerator`; Huang et al. (2024), The GAN is dead; long live the GAN!, for none to normalise.

    Example:
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), ResNetCritic((8, 8), width=4), (8, 8))
        >>> net(jnp.ones((8, 8))).shape, net(jnp.ones((5, 8, 8))).shape
        ((), (5,))
    """

    in_shape: tuple[int, ...]
    features: int | None = None
    width: int = 32
    blocks: int = 1
    depth: int | None = None
    activation: Callable[[Any], Any] = jax.nn.leaky_relu
    norm: bool = False

    @nn.compact
    def __call__(self, x: Any, *more: Any) -> Any:
        out = () if self.features is None else (self.features,)
        return ResNetEncoder(
            self.in_shape, out, self.width, self.blocks, self.depth, self.activation, self.norm
        )(x, *more)  # fmt: skip


@loadable
class ProjectionCritic(nn.Module):
    """A critic that compares the features of an event with an embedding of its context.

    `D(x, c) = a . f(x) + b + (V c) . f(x)`, `f = activation(body(x))`

    Of classes, one-hot contexts, the rows of V are an embedding of each; a vector is mapped linearly. Of a context that
    is absent, which a network sees as zeros, the last term is 0, so that the critic judges the event alone. Without a
    context it is `a . f(x) + b`.

    Args:
        body: `[*batch, *event] -> [*batch, F]`, a linen module: `MLP((256, 256), in_shape=...)`,
            `ConvCritic(shape, features=128)`, `ResNetCritic(shape, features=128)`.
        activation: of the features, elementwise, a module-level function.

    Source: Miyato and Koyama (2018), cGANs with projection discriminator, equation 4.

    Example:
        >>> from jaxgen.nn.mlp import MLP
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), ProjectionCritic(MLP((16, 16))), (2,), (3,))
        >>> net(jnp.ones((5, 2)), jnp.ones((5, 3))).shape
        (5,)
    """

    body: nn.Module
    activation: Callable[[Any], Any] = jax.nn.leaky_relu

    @nn.compact
    def __call__(self, x: Any, *more: Any) -> Any:
        features = self.activation(self.body(x))
        number = nn.Dense(1)(features)[..., 0]
        if more:
            embedded = nn.Dense(features.shape[-1], use_bias=False)(jnp.concatenate(more, axis=-1))
            number = number + jnp.sum(embedded * features, axis=-1)
        return number


@loadable
class ClassifierCritic(nn.Module):
    """A critic with an auxiliary classifier: how real an event looks, and how well it fits its class.

    `D(x, c) = a . f(x) + b + sum_k c_k log softmax(B f(x))_k`, `f = activation(body(x))`

    The logarithm of a ratio of joint densities is that of the events' plus that of the class given the event, of which
    this has one term each: so the classifier is trained by the game itself. Of a context that is absent, which a
    network sees as zeros, the last term is 0.

    Args:
        body: `[*batch, *event] -> [*batch, F]`, a linen module, as in `ProjectionCritic`.
        classes: K; contexts are one-hot, or the probabilities of classes, `[*batch, K]`. A further number, that says
            whether there is a context, is left alone.
        activation: of the features, elementwise, a module-level function.

    Raises:
        ShapeError: no context, or one of fewer numbers than classes.

    Source: Odena, Olah and Shlens (2017), Conditional image synthesis with auxiliary classifier GANs, for the head;
    Miyato and Koyama (2018), cGANs with projection discriminator, section 3, for the two terms.

    Example:
        >>> from jaxgen.nn.mlp import MLP
        >>> from jaxgen.nn.net import Net
        >>> net = Net.init(jax.random.key(0), ClassifierCritic(MLP((16, 16)), 3), (2,), (3,))
        >>> net(jnp.ones((5, 2)), jax.nn.one_hot(jnp.arange(5) % 3, 3)).shape
        (5,)
    """

    body: nn.Module
    classes: int
    activation: Callable[[Any], Any] = jax.nn.leaky_relu

    @nn.compact
    def __call__(self, x: Any, *more: Any) -> Any:
        context = jnp.concatenate(more, axis=-1) if more else jnp.zeros((0,))
        if context.shape[-1] not in (self.classes, self.classes + 1):
            raise ShapeError(
                "the context does not say a class", called=f"ClassifierCritic(body, {self.classes})(x, context)",
                expected=f"one-hot contexts [*batch, {self.classes}]",
                got=f"shape {list(context.shape)}" if more else "no context", fix="contexts by jax.nn.one_hot",
            )  # fmt: skip
        features = self.activation(self.body(x))
        log_probs = jax.nn.log_softmax(nn.Dense(self.classes)(features), axis=-1)
        return nn.Dense(1)(features)[..., 0] + jnp.sum(context[..., : self.classes] * log_probs, axis=-1)
