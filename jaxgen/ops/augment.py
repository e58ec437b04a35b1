"""Random changes of images through which gradients flow, for a critic that would learn few images by heart.

Each is a pure function `(key, x) -> x` of images `[N, H, W]` or `[N, H, W, C]`, drawn anew for every image, with the
middle of the range at 0, as a critic sees images. `augmented` applies several.

Source: Zhao, Liu, Lin, Zhu and Han (2020), Differentiable augmentation for data-efficient GAN training, whose ranges
the defaults are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ShapeError

Change = Callable[[Any, jax.Array], jax.Array]


def brightness(key: Any, x: jax.Array, *, reach: float = 0.5) -> jax.Array:
    """Add to each image one number from -reach to reach.

    Example:
        >>> bright = brightness(jax.random.key(0), jnp.zeros((3, 2, 2)))
        >>> bool(jnp.all(bright == bright[:, :1, :1])), bool(jnp.abs(bright).max() <= 0.5)
        (True, True)
    """
    return x + _each(key, x, -reach, reach)


def contrast(key: Any, x: jax.Array, *, reach: float = 0.5) -> jax.Array:
    """Multiply each image's distance from its mean by a number from 1 - reach to 1 + reach."""
    mean = jnp.mean(x, axis=tuple(range(1, x.ndim)), keepdims=True)
    return mean + (x - mean) * _each(key, x, 1 - reach, 1 + reach)


def saturation(key: Any, x: jax.Array, *, reach: float = 1.0) -> jax.Array:
    """Multiply each pixel's distance from its mean over colours by a number from 1 - reach to 1 + reach.

    Images `[N, H, W]` have no colours, and stay.
    """
    if x.ndim == 3:
        return x
    grey = jnp.mean(x, axis=-1, keepdims=True)
    return grey + (x - grey) * _each(key, x, 1 - reach, 1 + reach)


def translation(key: Any, x: jax.Array, *, reach: float = 0.125) -> jax.Array:
    """Move each image by a whole number of pixels, up to a share of its sides; zeros come in.

    Example:
        >>> moved = translation(jax.random.key(0), jnp.ones((5, 8, 8)), reach=0.25)
        >>> bool(moved.sum(axis=(1, 2)).min() >= 36)  # at most 2 rows and 2 columns leave
        True
    """
    n, height, width = _sides(x, "translation")
    keys = jax.random.split(key, 2)
    for axis, (one, side) in enumerate(zip(keys, (height, width), strict=True), start=1):
        most = round(side * reach)
        places = jnp.arange(side) + jax.random.randint(one, (n, 1), -most, most + 1)
        index = jnp.expand_dims(jnp.clip(places, 0, side - 1), tuple(i for i in range(1, x.ndim) if i != axis))
        inside = jnp.expand_dims((places >= 0) & (places < side), tuple(i for i in range(1, x.ndim) if i != axis))
        x = jnp.where(inside, jnp.take_along_axis(x, index, axis=axis), 0)
    return x


def cutout(key: Any, x: jax.Array, *, share: float = 0.5) -> jax.Array:
    """Put zeros into a rectangle of each image, of a share of both sides, its middle anywhere in the image."""
    n, height, width = _sides(x, "cutout")
    masks = []
    for one, side in zip(jax.random.split(key, 2), (height, width), strict=True):
        size = round(side * share)
        first = jax.random.randint(one, (n, 1), 0, side + 1 - size % 2) - size // 2
        masks.append((jnp.arange(side) >= first) & (jnp.arange(side) < first + size))
    cut = masks[0][:, :, None] & masks[1][:, None, :]
    return jnp.where(cut.reshape(cut.shape + (1,) * (x.ndim - 3)), 0, x)


def flip(key: Any, x: jax.Array) -> jax.Array:
    """Mirror each image left to right, or not, with even chances."""
    heads = jax.random.bernoulli(key, 0.5, (_sides(x, "flip")[0],) + (1,) * (x.ndim - 1))
    return jnp.where(heads, jnp.flip(x, axis=2), x)


#: colours, places and holes: the policy of Zhao et al. (2020)
USUAL: tuple[Change, ...] = (brightness, saturation, contrast, translation, cutout)


def augmented(key: Any, x: jax.Array, changes: tuple[Change, ...] = USUAL, probability: Any = 1.0) -> jax.Array:
    """Return images after each of the changes in turn, each made to an image with a probability.

    Where that is below 1 a generator does not learn to draw changed images: the distribution of changed images then
    tells that of the images (Karras et al. 2020, Training generative adversarial networks with limited data,
    section 2.2).

    Args:
        key: typed key.
        x: images `[N, H, W]` or `[N, H, W, C]`.
        changes: functions `(key, x) -> x`.
        probability: of each change, independently for each image.

    Raises:
        ShapeError: arrays that are no images.

    Example:
        >>> x = jnp.arange(32.0).reshape(2, 4, 4)
        >>> bool(jnp.all(augmented(jax.random.key(0), x, probability=0.0) == x))
        True
    """
    n = _sides(x, "augmented")[0]
    for change, one in zip(changes, jax.random.split(key, max(len(changes), 1)), strict=False):
        own, coin = jax.random.split(one)
        made = jax.random.bernoulli(coin, probability, (n,) + (1,) * (x.ndim - 1))
        x = jnp.where(made, change(own, x), x)
    return x


def _each(key: Any, x: jax.Array, low: float, high: float) -> jax.Array:
    return jax.random.uniform(key, (len(x),) + (1,) * (x.ndim - 1), x.dtype, low, high)


def _sides(x: jax.Array, called: str) -> tuple[int, int, int]:
    if x.ndim not in (3, 4):
        raise ShapeError(
            "those are no images", called=f"ops.augment.{called}(key, x)", got=f"shape {list(x.shape)}",
            expected="[N, H, W] or [N, H, W, C]",
        )  # fmt: skip
    return x.shape[0], x.shape[1], x.shape[2]
