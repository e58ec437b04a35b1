"""Generative adversarial networks."""

from __future__ import annotations

from typing import Any

import jax

from jaxgen.core.inputs import as_array
from jaxgen.fit.adversarial import Adversarial
from jaxgen.fit.averages import Average
from jaxgen.losses.critics import R1, R2
from jaxgen.losses.games import Relativistic
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.neural.gan import Generator
from jaxgen.nn.conv import ConvCritic, ConvGenerator
from jaxgen.nn.mlp import MLP
from jaxgen.recipes import optimizers

#: of the generators of `gan` and `dcgan`
GAN_AVERAGE, DCGAN_AVERAGE = Average(0.999), Average(0.999)
#: the weight of the gradient penalties of `gan`, and its steps unless it is told
GAN_PENALTY, GAN_STEPS = 0.2, 6000


def gan(
    key: Any, x: Any, latent: int = 32, *, hidden: tuple[int, ...] = (128, 128), penalty: float = GAN_PENALTY,
    step_size: float = 1e-3, context_shape: tuple[int, ...] | None = None, average: Any = GAN_AVERAGE,
    steps: int = GAN_STEPS,
) -> tuple[Generator, Adversarial]:  # fmt: skip
    """A generative adversarial network of multilayer perceptrons, both with the same hidden widths.

    The relativistic game with zero-centred gradient penalties on data and samples, a smooth critic, and step sizes that
    fall to the end.

    Args:
        key: typed key.
        x: events `[N, *event]`.
        latent: number of noise dimensions.
        hidden: widths of the hidden layers.
        penalty: weight of `R1` and of `R2`; larger is smoother and safer.
        step_size: of the generator's Adam at the start; the critic's is twice that.
        context_shape: shape of one context `[C]`, for samples that depend on it, which the critic sees too.
        average: of the generator's iterates, which is the fitted model; None keeps none.
        steps: how many `fit` makes at most unless it is told.

    Raises:
        DataError: data that are not data.

    Source: Goodfellow et al. (2014), Generative adversarial nets; Huang et al. (2024), The GAN is dead; long live the
    GAN! A modern baseline GAN, for game, penalties and steps that fall.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.eight_gaussians(jax.random.key(0), 100)
        >>> model, algorithm = gan(jax.random.key(1), x, 2, hidden=(16,))
        >>> jg.fit(jax.random.key(2), model, x, algorithm, steps=3).model.sample(jax.random.key(3), (5,)).shape
        (5, 2)
    """
    x = as_array(x)
    model = Generator.init(key, x, StandardNormal((latent,)), hidden=hidden, context_shape=context_shape)
    critic = MLP((*hidden, 1), jax.nn.silu, in_shape=model.event_shape)
    # the critic has to be near its best for the generator to see how wide a mode is
    own, opposed = (optimizers.of_two_players(size) for size in (step_size, 2 * step_size))
    return model, Adversarial(
        critic, own, opposed, game=Relativistic(), penalties=(R1(penalty), R2(penalty)), average=average, steps=steps,
    )  # fmt: skip


def dcgan(
    key: Any, x: Any, latent: int = 64, *, width: int = 32, context_shape: tuple[int, ...] | None = None,
    average: Any = DCGAN_AVERAGE,
) -> tuple[Generator, Adversarial]:  # fmt: skip
    """A generative adversarial network of convolutions, for images. On a CPU `gan` is many times faster.

    Args:
        key: typed key.
        x: images `[N, H, W]` or `[N, H, W, C]`, sides of 4 or more.
        latent: number of noise dimensions.
        width: channels of the largest grid.
        context_shape: shape of one context `[C]`, for images that depend on it, which the critic sees too.
        average: of the generator's iterates, which is the fitted model; None keeps none.

    Raises:
        ShapeError: events that are no images.

    Source: Radford, Metz and Chintala (2016), Unsupervised representation learning with deep convolutional generative
    adversarial networks.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model, algorithm = dcgan(jax.random.key(0), jnp.arange(640.0).reshape(10, 8, 8), 4, width=2)
        >>> model.event_shape
        (8, 8)
    """
    x = as_array(x)
    event = tuple(map(int, x.shape[1:]))
    model = Generator.init(key, x, StandardNormal((latent,)), module=ConvGenerator(event, width),
                           context_shape=context_shape)  # fmt: skip
    return model, Adversarial(ConvCritic(event, width), average=average)
