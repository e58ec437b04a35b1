"""Pictures whose factors are known: one blob each, of a place, a size and a brightness."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import DataError
from jaxgen.core.methods import check_key, is_count

#: the largest and smallest radius, in widths of the picture, and brightness
RADII, BRIGHTNESS = (0.08, 0.2), (0.4, 1.0)
#: how far from the border the middle of a blob stays, in widths
MARGIN = 0.2


class Blobs(NamedTuple):
    """Pictures of blobs, see `blobs`."""

    images: jax.Array
    factors: jax.Array
    names: tuple[str, ...]


def blobs(key: jax.Array, n: int, *, size: int = 16) -> Blobs:
    """Draws pictures of one round blob each, made of four independent factors: what codes of a model can be held to.

    `pixel(u, v) = b exp(-((u - h)^2 + (v - w)^2) / (2 r^2))`, u and v the middles of rows and columns in widths of the
    picture

    Args:
        key: a typed PRNG key.
        n: number of pictures, 1 or more.
        size: rows and columns of a picture, 4 or more.

    Returns:
        `Blobs`: `images [n, size, size]` in [0, 1], `factors [n, 4]` and their names: row h and column w of the middle,
        uniform in [0.2, 0.8], radius r, uniform in [0.08, 0.2], all in widths, and brightness b, uniform in [0.4, 1].

    Raises:
        DataError: no pictures, too few pixels, a key of the old style.

    Example:
        >>> images, factors, names = blobs(jax.random.key(0), 5, size=8)
        >>> images.shape, factors.shape, names
        ((5, 8, 8), (5, 4), ('row', 'column', 'radius', 'brightness'))
    """
    called = "blobs(key, n, size=...)"
    check_key(key, called)
    if not (is_count(n, 1) and is_count(size, 4)):
        raise DataError(
            "no pictures", called=called, expected="n of 1 or more, size of 4 or more", got=f"n={n}, size={size}"
        )
    images, factors = _drawn(key, int(n), int(size))
    return Blobs(images, factors, ("row", "column", "radius", "brightness"))


@partial(jax.jit, static_argnames=("n", "size"))
def _drawn(key: jax.Array, n: int, size: int) -> tuple[jax.Array, jax.Array]:
    low = jnp.array([MARGIN, MARGIN, RADII[0], BRIGHTNESS[0]])
    high = jnp.array([1 - MARGIN, 1 - MARGIN, RADII[1], BRIGHTNESS[1]])
    factors = low + (high - low) * jax.random.uniform(key, (n, 4))
    row, column, radius, brightness = (f[:, None, None] for f in factors.T)
    middles = (jnp.arange(size) + 0.5) / size
    square = (middles[:, None] - row) ** 2 + (middles[None, :] - column) ** 2
    return brightness * jnp.exp(-square / (2 * radius**2)), factors
