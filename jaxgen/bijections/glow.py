"""The architecture of Glow: steps of couplings, 1x1 convolutions and normalised activations, at several scales."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.compose import Chain, Scan
from jaxgen.bijections.coupling import Coupling
from jaxgen.bijections.elementwise import Affine, Standardize
from jaxgen.bijections.images import MultiScale, Squeeze, conv1x1, every_pixel, image_shape
from jaxgen.bijections.starts import initialize
from jaxgen.bijections.transforms import AFFINE, Transform
from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import floating
from jaxgen.core.methods import check_key
from jaxgen.nn.conv import ConvNet


def glow(
    key, x, transform: Transform = AFFINE, *, levels: int = 2, steps: int = 8, width: int = 64,
    network: Callable[[int], Any] | None = None, context_shape: tuple[int, ...] | None = None,
) -> MultiScale:  # fmt: skip
    """Glow for images: per level a squeeze and K steps, then half of the channels leave for the base.

    First each channel of the data is brought to unit scale and within the reach of splines (`Standardize`). One step,
    on the way to the base: the channels in their own units (`Affine`), a 1x1 convolution (`LULinear`), and a coupling
    in which half of the channels, through a network of convolutions, transform the others. Layers of a level are
    scanned. The units start from the data, so that x takes part with more than its shape.

    Args:
        key: typed key.
        x: images `[N, H, W, C]`; a few hundred are enough.
        transform: what a coupling does to a number.
        levels: L; `2^L` divides H and W.
        steps: K, of each level.
        width: hidden channels of the networks.
        network: another network, `outputs -> linen module` from `[H, W, inputs]` to `[H, W, outputs]`.
        context_shape: shape of one context for a conditional flow.

    Returns:
        a bijection with `event_shape` `[H, W, C]` and `latent_shape` `[H W C]`.

    Raises:
        ShapeError: events that are no images. ModelError: levels that do not divide the sides, or no steps.

    Source: Kingma and Dhariwal (2018), Glow: generative flow with invertible 1x1 convolutions, figure 2.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (20, 4, 4, 1))
        >>> flow = glow(jax.random.key(1), x, levels=1, steps=2, width=4)
        >>> flow.event_shape, flow.latent_shape
        ((4, 4, 1), (16,))
    """
    called = f"glow(key, x, levels={levels}, steps={steps})"
    check_key(key, "glow")
    x = floating(x)
    height, width_, channels = image_shape(x, called)
    if min(levels, steps) < 1 or height % 2**levels or width_ % 2**levels:
        raise ModelError(
            "the images cannot be halved so often", called=called, got=f"images {[height, width_]}, {levels} levels",
            expected="levels >= 1, steps >= 1, and sides that 2^levels divides", fix="fewer levels, or pad the images",
        )  # fmt: skip
    shape = None if context_shape is None else tuple(context_shape)
    network = functools.partial(ConvNet, width=width) if network is None else network
    # next to the data
    units: tuple[Any, ...] = (every_pixel(Standardize.from_data(x.reshape((-1, channels))), height, width_),)
    made = []
    for of_level in jax.random.split(key, levels):
        squeeze = Squeeze.from_values((height, width_, channels))
        like = jnp.zeros((1, *squeeze.latent_shape), x.dtype)
        step = functools.partial(_step, x=like, transform=transform, network=network, context_shape=shape)
        made.append(Chain((Scan(jax.jit(jax.vmap(step))(jax.random.split(of_level, steps))), squeeze, *units)))
        units = ()
        # half of the channels stay
        height, width_, channels = height // 2, width_ // 2, 2 * channels
    # couplings start as the identity: no context is seen yet
    context = None if shape is None else jnp.zeros((len(x), *shape), x.dtype)
    return initialize(MultiScale.from_levels(tuple(made)), x, context)


def _step(key, x, transform, network, context_shape):
    coupling, mixing = jax.random.split(key)
    height, width, channels = x.shape[1:]
    zeros = jnp.zeros(channels, x.dtype)
    return Chain((
        Coupling.init(coupling, x, transform, network=network, context_shape=context_shape),
        conv1x1(mixing, x),
        every_pixel(Affine(zeros, zeros), height, width),
    ))  # fmt: skip
