"""Bijections of images: squeezes, 1x1 convolutions, and architectures of several scales."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from jaxgen.bijections.basics import check, example, shared_context
from jaxgen.bijections.compose import Vmap
from jaxgen.bijections.linear import LULinear
from jaxgen.bijections.starts import started
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.methods import check_key, latent_shape
from jaxgen.core.pytree import model, part, static


@model
class Reshape:
    """The same numbers in another shape.

    `y = x.reshape(event_shape)`, `log |det| = 0`

    Args:
        event_shape: on the side of the data.
        latent_shape: on the side of the base.

    Example:
        >>> layer = Reshape.from_values((2, 3), (6,))
        >>> layer.forward_and_log_det(jnp.arange(6.0))[0].tolist()
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """

    event_shape: tuple[int, ...] = static()
    latent_shape: tuple[int, ...] = static()

    @classmethod
    def from_values(cls, event_shape: tuple[int, ...], latent_shape: tuple[int, ...]) -> Reshape:
        """From two shapes of as many numbers.

        Raises:
            ModelError: shapes of different numbers.
        """
        if math.prod(event_shape) != math.prod(latent_shape):
            raise ModelError(
                "another shape has to hold the same numbers", called="Reshape.from_values(event_shape, latent_shape)",
                expected=f"{math.prod(event_shape)} numbers, as {list(event_shape)}", got=f"{list(latent_shape)}",
            )  # fmt: skip
        return cls(tuple(map(int, event_shape)), tuple(map(int, latent_shape)))

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        return x.reshape(self.event_shape), jnp.zeros((), x.dtype)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        return y.reshape(self.latent_shape), jnp.zeros((), y.dtype)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


@model
class Squeeze:
    """An image as one of half the height and width, with the pixels of each 2 by 2 block as channels.

    Data `[H, W, C]`, base `[H / 2, W / 2, 4 C]`, `log |det| = 0`

    Args:
        event_shape: `(H, W, C)`, of the data.

    Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, section 3.6.

    Example:
        >>> layer = Squeeze.from_values((4, 4, 1))
        >>> image = jnp.arange(16.0).reshape(4, 4, 1)
        >>> layer.inverse_and_log_det(image)[0][0, 0].tolist(), layer.latent_shape
        ([0.0, 1.0, 4.0, 5.0], (2, 2, 4))
    """

    event_shape: tuple[int, ...] = static()

    @classmethod
    def from_values(cls, event_shape: tuple[int, ...]) -> Squeeze:
        """From the shape of an image.

        Raises:
            ModelError: not `(H, W, C)` with H and W even.
        """
        if len(event_shape) != 3 or event_shape[0] % 2 or event_shape[1] % 2:
            raise ModelError(
                "such an image has no blocks of 2 by 2", called="Squeeze.from_values(event_shape)",
                expected="(H, W, C), H and W even", got=str(tuple(event_shape)),
                fix="pad the images, or add an axis of one channel",
            )  # fmt: skip
        return cls(tuple(map(int, event_shape)))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        height, width, channels = self.event_shape
        return (height // 2, width // 2, 4 * channels)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        height, width, channels = self.event_shape
        blocks = x.reshape((height // 2, width // 2, 2, 2, channels))
        return blocks.transpose((0, 2, 1, 3, 4)).reshape(self.event_shape), jnp.zeros((), x.dtype)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        height, width, channels = self.event_shape
        blocks = y.reshape((height // 2, 2, width // 2, 2, channels))
        return blocks.transpose((0, 2, 1, 3, 4)).reshape(self.latent_shape), jnp.zeros((), y.dtype)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


def conv1x1(key, x) -> Vmap:
    """The invertible 1x1 convolution: one `LULinear` over the channels, at every pixel.

    Args:
        key: typed key.
        x: images `[N, H, W, C]`, for their shape and dtype, or the shape of one, `(H, W, C)`.

    Returns:
        the layer, which starts as a random permutation of the channels.

    Raises:
        ShapeError: events that are no images.

    Source: Kingma and Dhariwal (2018), Glow, section 3.2.

    Example:
        >>> import jax
        >>> conv1x1(jax.random.key(0), jnp.zeros((1, 4, 4, 3))).event_shape
        (4, 4, 3)
    """
    check_key(key, "conv1x1")
    x = example(x)
    height, width, channels = image_shape(x, "conv1x1(key, x)")
    return every_pixel(LULinear.init(key, x.reshape((-1, channels))), height, width)


def every_pixel(layer: Any, height: int, width: int) -> Vmap:
    """A layer of the channels `[C]` as one of images `[H, W, C]`, the same at every pixel."""
    return Vmap(Vmap(layer, width), height)


def image_shape(x: Any, called: str) -> tuple[int, int, int]:
    """`(H, W, C)` of images `[N, H, W, C]`.

    Raises:
        ShapeError: events that are no images.
    """
    if x.ndim != 4:
        raise ShapeError(
            "this layer takes images", called=called, expected="x [N, H, W, C]", got=f"shape {list(x.shape)}",
            fix="np.asarray(x)[..., None] for one channel",
        )  # fmt: skip
    height, width, channels = map(int, x.shape[1:])
    return height, width, channels


@model
class MultiScale:
    """Levels of which each gives the first channels of its result to the next and leaves the others to the base.

    On the way to the base, `(h_l, z_l) = split(level_l^-1(h_l-1))` and `h_0 = y`; all of the last level leaves, and
    `z = (z_1, ..., z_L)`, flat; `log |det|` the sum of theirs

    Args:
        levels: tuple of bijections, the first next to the data. Of the base side of each, `[H, W, C]`, the first C'
            channels are the data side of the next.

    Half of the numbers then pass through one level, a quarter through two, and so on. A level whose part next to the
    base is a coupling, which moves the last channels given the first, makes those that leave normal given those that
    stay, with a mean and a scale that depend on them: the learned prior of Glow.

    Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, section 3.6; Kingma and Dhariwal
    (2018), Glow, section 3.

    Example:
        >>> first, second = Squeeze.from_values((4, 4, 1)), Squeeze.from_values((2, 2, 2))
        >>> flow = MultiScale.from_levels((first, second))
        >>> flow.latent_shape
        (16,)
    """

    levels: tuple[Any, ...] = part()

    @classmethod
    def from_levels(cls, levels: tuple[Any, ...]) -> MultiScale:
        """From bijections that fit each other.

        Raises:
            ModelError: no levels, or one that does not take a part of the channels before it.
        """
        called = "MultiScale.from_levels(levels)"
        if not levels:
            raise ModelError("an architecture of no levels", called=called, expected="one or more", got="none")
        for before, level in zip(levels, levels[1:], strict=False):
            given, taken = latent_shape(before), tuple(level.event_shape)
            if given[:-1] != taken[:-1] or not given or not 0 < taken[-1] < given[-1]:
                raise ModelError(
                    "a level does not fit the one before it", called=called,
                    expected=f"events {[*given[:-1], 'fewer than ' + str(given[-1])]}", got=f"events {list(taken)}",
                )  # fmt: skip
        return cls(tuple(levels))

    @property
    def event_shape(self):
        return self.levels[0].event_shape

    @property
    def latent_shape(self):
        return (math.prod(self.event_shape),)

    @property
    def context_shape(self):
        return shared_context(*self.levels)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        stays: Any = None
        log_dets, end = [], x.shape[0]
        for i in reversed(range(len(self.levels))):
            shape: Any = latent_shape(self.levels[i])
            leaving = shape if stays is None else (*shape[:-1], shape[-1] - stays.shape[-1])
            start = end - math.prod(leaving)
            leaves, end = x[start:end].reshape(leaving), start
            whole = leaves if stays is None else jnp.concatenate([stays, leaves], axis=-1)
            stays, log_det = self.levels[i].forward_and_log_det(whole, context)
            log_dets.append(log_det)
        return stays, sum(log_dets)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        parts, log_dets = [], []
        for i, level in enumerate(self.levels):
            y, log_det = level.inverse_and_log_det(y, context)
            y, leaves = self._split(i, y)
            parts.append(leaves.ravel())
            log_dets.append(log_det)
        return jnp.concatenate(parts), sum(log_dets)

    def started(self, x, context=None):
        """Itself from events on the side of the data, and those on the side of the base, see `initialize`."""
        levels, parts = [], []
        for i, level in enumerate(self.levels):
            level, x = started(level, x, context)
            x, leaves = self._split(i, x)
            levels.append(level)
            parts.append(leaves.reshape((len(leaves), -1)))
        return MultiScale(tuple(levels)), jnp.concatenate(parts, axis=1)

    def _split(self, i, h):
        """The channels that stay after level i, and those that leave."""
        stays = self.levels[i + 1].event_shape[-1] if i + 1 < len(self.levels) else 0
        return jnp.split(h, [stays], axis=-1)

    def bijector(self, context=None):
        """The distrax bijector, given one context."""
        return as_bijector(self, context)
