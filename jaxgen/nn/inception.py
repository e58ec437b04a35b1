"""The InceptionV3 of 2015-12-05, by which Fréchet inception distances are published.

Its parameters have the names, and its kernels the layout, of the checkpoint that pytorch-fid made of TensorFlow's
graph.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.core.files import loadable

#: of the images that the network takes
SIDE = 299
#: of the network's outputs, of which 1000 are those of ImageNet
CLASSES = 1008
#: numbers of the layer before the classes
FEATURES = 2048


class Layer(NamedTuple):
    """A convolution with its normalisation and a rectifier: name, channels, size of the kernel, stride, padding."""

    name: str
    features: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


def max_pool(x: Any, stride: int, padding: str) -> jax.Array:
    """Return the maximum of 3 by 3 pixels, `[N, H, W, C] -> [N, H', W', C]`.

    Example:
        >>> max_pool(jnp.arange(9.0).reshape(1, 3, 3, 1), 1, "SAME")[0, 0, :, 0].tolist()
        [4.0, 5.0, 5.0]
    """
    return nn.max_pool(x, (3, 3), (stride, stride), padding)


def mean_pool(x: Any) -> jax.Array:
    """Return the mean of 3 by 3 pixels, of those inside the image alone, `[N, H, W, C] -> [N, H, W, C]`.

    Example:
        >>> mean_pool(jnp.ones((1, 3, 3, 1)))[0, 0, :, 0].tolist()
        [1.0, 1.0, 1.0]
    """
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _same_max_pool(x: Any) -> jax.Array:
    return max_pool(x, 1, "SAME")


@loadable
class InceptionConv(nn.Module):
    """A convolution without bias, normalised by statistics of its training, and rectified; as `Layer` says."""

    features: int
    size: tuple[int, int]
    stride: int
    padding: str

    @nn.compact
    def __call__(self, x: Any) -> Any:
        channels = (self.features,)
        kernel = self.param("conv.weight", nn.initializers.he_normal(1, 0), (*channels, x.shape[-1], *self.size))
        scale = self.param("bn.weight", nn.initializers.ones_init(), channels)
        shift = self.param("bn.bias", nn.initializers.zeros_init(), channels)
        mean = self.param("bn.running_mean", nn.initializers.zeros_init(), channels)
        variance = self.param("bn.running_var", nn.initializers.ones_init(), channels)
        y = jax.lax.conv_general_dilated(
            x, kernel, (self.stride, self.stride), self.padding, dimension_numbers=("NHWC", "OIHW", "NHWC")
        )  # fmt: skip
        return jax.nn.relu((y - mean) * (scale * jax.lax.rsqrt(variance + 0.001)) + shift)


@loadable
class InceptionBlock(nn.Module):
    """Branches of layers beside each other, whose channels are joined; a tuple in a branch is layers side by side.

    Args:
        branches: of layers; a function in the first place, such as a pooling, comes before them.
    """

    branches: tuple[Any, ...]

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return jnp.concatenate([self._branch(branch, x) for branch in self.branches], axis=-1)

    def _branch(self, branch: tuple[Any, ...], x: Any) -> Any:
        for step in branch:
            if isinstance(step, Layer):
                x = InceptionConv(*step[1:], name=step.name)(x)
            elif isinstance(step, tuple):
                x = jnp.concatenate([self._branch((one,), x) for one in step], axis=-1)
            else:
                x = step(x)
        return x


def _strided_max_pool(x: Any) -> jax.Array:
    return max_pool(x, 2, "VALID")


def _row(name: str, *layers: tuple[Any, ...]) -> tuple[Layer, ...]:
    return tuple(Layer(f"{name}_{i + 1}", *layer) for i, layer in enumerate(layers))


def _a(pool: int) -> tuple[Any, ...]:
    return (
        (Layer("branch1x1", 64),),
        _row("branch5x5", (48,), (64, (5, 5))),
        _row("branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3))),
        (mean_pool, Layer("branch_pool", pool)),
    )


def _c(width: int) -> tuple[Any, ...]:
    row, column = (width, (1, 7)), (width, (7, 1))
    return (
        (Layer("branch1x1", 192),),
        _row("branch7x7", (width,), row, (192, (7, 1))),
        _row("branch7x7dbl", (width,), column, row, column, (192, (1, 7))),
        (mean_pool, Layer("branch_pool", 192)),
    )


def _e(pool: Any) -> tuple[Any, ...]:
    def cross(name: str) -> tuple[Layer, Layer]:
        return Layer(f"{name}a", 384, (1, 3)), Layer(f"{name}b", 384, (3, 1))

    return (
        (Layer("branch1x1", 320),),
        (*_row("branch3x3", (384,)), cross("branch3x3_2")),
        (*_row("branch3x3dbl", (448,), (384, (3, 3))), cross("branch3x3dbl_3")),
        (pool, Layer("branch_pool", 192)),
    )


_HALVED = ((3, 3), 2, "VALID")
_B = (
    (Layer("branch3x3", 384, *_HALVED),),
    _row("branch3x3dbl", (64,), (96, (3, 3)), (96, *_HALVED)),
    (_strided_max_pool,),
)
_D = (
    _row("branch3x3", (192,), (320, *_HALVED)),
    _row("branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1)), (192, *_HALVED)),
    (_strided_max_pool,),
)
#: from the image to the last grid
STEPS: tuple[Any, ...] = (
    Layer("Conv2d_1a_3x3", 32, *_HALVED),
    Layer("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
    Layer("Conv2d_2b_3x3", 64, (3, 3)),
    _strided_max_pool,
    Layer("Conv2d_3b_1x1", 80, (1, 1), 1, "VALID"),
    Layer("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
    _strided_max_pool,
    ("Mixed_5b", _a(32)), ("Mixed_5c", _a(64)), ("Mixed_5d", _a(64)),
    ("Mixed_6a", _B), ("Mixed_6b", _c(128)), ("Mixed_6c", _c(160)), ("Mixed_6d", _c(160)), ("Mixed_6e", _c(192)),
    ("Mixed_7a", _D), ("Mixed_7b", _e(mean_pool)), ("Mixed_7c", _e(_same_max_pool)),
)  # fmt: skip


@loadable
class InceptionV3(nn.Module):
    """The network whose last layer before the classes inception distances compare.

    `[N, 299, 299, 3]` from -1 to 1 to features `[N, 2048]`, means over pixels, and logits `[N, 1008]`. Its mean pools
    do not count what lies outside of the image, and the last block, `Mixed_7c`, has a maximum for a mean: the graph of
    2015 had it so, and published figures with it.

    Source: Szegedy et al. (2016), Rethinking the inception architecture for computer vision; Heusel et al. (2017), GANs
    trained by a two time-scale update rule converge to a local Nash equilibrium, for the distance.

    Example:
        >>> shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))
        >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
        23885392
    """

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for step in STEPS:
            if isinstance(step, Layer):
                x = InceptionConv(*step[1:], name=step.name)(x)
            elif isinstance(step, tuple):
                x = InceptionBlock(step[1], name=step[0])(x)
            else:
                x = step(x)
        features = x.mean(axis=(1, 2))
        weight = self.param("fc.weight", nn.initializers.lecun_normal(1, 0), (CLASSES, FEATURES))
        bias = self.param("fc.bias", nn.initializers.zeros_init(), (CLASSES,))
        return features, features @ weight.T + bias
