"""Convolutions of images, by what is fast where they run."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def convolve(x: Any, kernel: Any, *, stride: int = 1, precision: str = "default") -> jax.Array:
    """Return the convolution `[N, H, W, C], [size, size, C, F] -> [N, H', W', F]`, by what is fast where it runs.

    On a CPU it is one matrix product of patches. Training runs in a compiled loop, and in there XLA's own convolution
    is a plain loop on CPUs, of 0.4 GFlop/s on two cores where the product reaches 10 to 50 (outside of a loop it would
    be the faster by 2); seeds side by side, each with its own kernel, make it slower still. Elsewhere it is XLA's own,
    on GPUs cuDNN's. Which of the two is decided for the device that a program is compiled for, which need not be the
    default one.

    Example:
        >>> convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
        [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    options = {"stride": stride, "precision": precision}
    by_product, by_own = (functools.partial(how, **options) for how in (_by_patches, _by_convolution))
    return jax.lax.platform_dependent(x, kernel, cpu=by_product, default=by_own)


def _by_patches(x, kernel, stride, precision):
    rows = kernel.reshape((-1, kernel.shape[-1]))
    return jnp.matmul(patches(x, kernel.shape[0], stride), rows, precision=precision)


def _by_convolution(x, kernel, stride, precision):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=layout, precision=precision
    )  # fmt: skip


def patches(x: Any, size: int, stride: int) -> jax.Array:
    """Return the neighbourhoods that a convolution sees, `[N, H, W, C] -> [N, H', W', size * size * C]`, zeros outside.

    Example:
        >>> patches(jnp.ones((1, 3, 3, 2)), 3, 2).shape
        (1, 2, 2, 18)
    """
    sides = x.shape[1:3]
    counts = [-(-side // stride) for side in sides]
    short = [max((count - 1) * stride + size - side, 0) for count, side in zip(counts, sides, strict=True)]
    x = jnp.pad(x, ((0, 0), *((lack // 2, lack - lack // 2) for lack in short), (0, 0)))
    rows, columns = (np.arange(count)[:, None] * stride + np.arange(size) for count in counts)
    # one gather, whose program is half as long to compile as that of size^2 slices, and no slower to run
    found = x.at[:, rows[:, None, :, None], columns[None, :, None, :]].get(mode="promise_in_bounds")
    return found.reshape((*found.shape[:3], -1))
