"""Images in another size, pixel for pixel as the programs do it whose figures are published."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ShapeError
from jaxgen.core.inputs import floating

#: `(pixels now, pixels then) -> weights [then, now]`, float64, rows that sum to one
Kernel = Callable[[int, int], np.ndarray]


def pil_bicubic(now: int, then: int) -> np.ndarray:
    """Weights of Pillow's bicubic filter (a = -1/2), which widens where images shrink: that of clean-fid.

    Example:
        >>> pil_bicubic(4, 4).round(6).tolist() == np.eye(4).tolist(), pil_bicubic(8, 2).shape
        (True, (2, 8))
    """
    scale = max(now / then, 1.0)
    weights = np.zeros((then, now))
    for i in range(then):
        center = (i + 0.5) * now / then
        first, last = max(int(center - 2 * scale + 0.5), 0), min(int(center + 2 * scale + 0.5), now)
        row = _cubic((np.arange(first, last) - center + 0.5) / scale)
        weights[i, first:last] = row / row.sum()
    return weights


def torch_bilinear(now: int, then: int) -> np.ndarray:
    """Weights of torch's bilinear `interpolate`, `align_corners=False`: by pixel centres, no wider where they shrink.

    Example:
        >>> torch_bilinear(2, 4).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    return _two(np.maximum((np.arange(then) + 0.5) * now / then - 0.5, 0), now)


def tf1_bilinear(now: int, then: int) -> np.ndarray:
    """Weights of TensorFlow 1's `resize_bilinear`: pixel i is taken at `i now / then`, which shifts images.

    Example:
        >>> tf1_bilinear(2, 4).tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.0, 1.0]]
    """
    return _two(np.arange(then) * now / then, now)


def resize(images: Any, size: tuple[int, int], kernel: Kernel) -> jax.Array:
    """Return images in another size, `Y = W_h X W_w^T` for each channel.

    Bicubic values overshoot what they are made of; nothing is clipped or rounded.

    | published figures of | kernel |
    |---|---|
    | clean-fid | `pil_bicubic` |
    | the first FID, in TensorFlow 1 | `tf1_bilinear` |
    | pytorch-fid | `torch_bilinear` |

    Args:
        images: `[..., height, width, channels]`, any units.
        size: `(height, width)` of the result.
        kernel: what gives the weights.

    Returns:
        `[..., *size, channels]`, floating, in the units of the images.

    Raises:
        ShapeError: fewer than three axes, or a size of no pixels.

    Example:
        >>> resize(jnp.arange(4.0).reshape(2, 2, 1), (2, 4), torch_bilinear)[..., 0].tolist()
        [[0.0, 0.25, 0.75, 1.0], [2.0, 2.25, 2.75, 3.0]]

    Source: Parmar, Zhang and Zhu (2022), On aliased resizing and surprising subtleties in GAN evaluation.
    """
    images = floating(images, name="images")
    if images.ndim < 3 or len(size) != 2 or min(size) < 1:
        raise ShapeError(
            "no images to resize", called=f"resize(images, {size}, kernel)", expected="[..., height, width, channels]",
            got=f"shape {list(images.shape)}", fix="give grey images an axis of one channel",
        )  # fmt: skip
    rows, columns = (
        jnp.asarray(_weights(kernel, now, then), images.dtype)
        for now, then in zip(images.shape[-3:-1], size, strict=True)
    )
    out = jnp.einsum("hi,...ijc->...hjc", rows, images, precision="highest")
    return jnp.einsum("wj,...hjc->...hwc", columns, out, precision="highest")


@functools.lru_cache(maxsize=64)
def _weights(kernel: Kernel, now: int, then: int) -> np.ndarray:
    return kernel(now, then)


def _cubic(x: np.ndarray) -> np.ndarray:
    """The cubic of Keys (1981) with a = -1/2."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _two(position: np.ndarray, now: int) -> np.ndarray:
    """Weights of the two pixels beside each position."""
    weights = np.zeros((len(position), now))
    for i, place in enumerate(position):
        left = min(math.floor(place), now - 1)
        right = min(left + 1, now - 1)
        weights[i, left] += 1 - (place - left)
        weights[i, right] += place - left
    return weights
