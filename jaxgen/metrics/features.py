"""Features of small grey images, from a classifier that ships inside the package: digits and clothes.

What a Fréchet distance, a count of modes or an inception score of 28 by 28 images is made of. Of the test images of
MNIST it names 99.2 % as they are, of Fashion-MNIST's 92.1 %, of the small digits' 97.3 %. Its weights were made by
`benchmarks/build_features.py`, and are read once, when they are first needed.
"""

from __future__ import annotations

import functools
import hashlib
import io
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, FileError, ShapeError
from jaxgen.core.inputs import as_array, concrete
from jaxgen.ops.convolutions import convolve

#: sha256 of the file of weights that this version of the code goes with
SHA256 = "113da7a0a50613770a3eaf1a9f57696264a27e94aafb05d3b57e437f56151058"
#: digits 0 to 9, then the classes of Fashion-MNIST
CLASSES = (
    *map(str, range(10)),
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
#: channels at 14 by 14, 7 by 7 and 4 by 4 pixels; the last are the features
WIDTHS = (16, 32, 64)
#: images that go through the network at once
CHUNK = 500


def grey_features(images: Any, *, white: float) -> jax.Array:
    """Return 64 numbers that describe a grey image, by a network that tells digits and clothes apart.

    `[*batch, 28, 28] -> [*batch, 64]`: means over the pixels of the last layer before the classes, 0 or more.

    Args:
        images: light on dark, as those of MNIST and Fashion-MNIST, `[*batch, 28, 28]`; or `[*batch, 8, 8]`, as those of
            `data.digits`, which are enlarged by linear interpolation.
        white: the number of a white pixel, where 0 is black: 1, 255, or 16 of `data.digits`.

    Raises:
        ShapeError: images of another size. DataError: NaN, numbers outside of 0 to `white`, or images with `white=255`
            of which none passes 1. Inside `jit` only shapes are checked.

    Source: the idea is that of Heusel et al. (2017), GANs trained by a two time-scale update rule converge to a local
    Nash equilibrium, with a network for such images.

    Example:
        >>> import jaxgen as jg
        >>> d = jg.data.fashion_mnist()
        >>> grey_features(d.images[:5], white=255).shape
        (5, 64)
    """
    return _evaluated(images, white, "grey_features")[0]


def grey_classes(images: Any, *, white: float) -> jax.Array:
    """Return the probability of each class of grey images: 10 digits, then 10 kinds of clothes.

    `[*batch, 28, 28] -> [*batch, 20]`, in the order of `CLASSES`. Of digits alone take the first ten columns.

    Args:
        images: as in `grey_features`.
        white: as in `grey_features`.

    Raises:
        ShapeError, DataError: as in `grey_features`.

    Example:
        >>> import jaxgen as jg
        >>> d = jg.data.digits()
        >>> grey_classes(d.images[:4], white=16).argmax(axis=1).tolist(), d.labels[:4].tolist()
        ([0, 1, 2, 3], [0, 1, 2, 3])
        >>> clothes = jg.data.fashion_mnist().images[:2]
        >>> [CLASSES[k] for k in grey_classes(clothes, white=255).argmax(axis=1)]
        ['ankle boot', 't-shirt']
    """
    return jax.nn.softmax(_evaluated(images, white, "grey_classes")[1])


def draw(key: Any, images: Any) -> dict[str, jax.Array]:
    """Return the network's parameters before training; `images` are not looked at."""
    shapes: dict[str, tuple[int, ...]] = {"stem": (5, 5, 1, WIDTHS[0])}
    for level, width in enumerate(WIDTHS):
        if level:
            shapes[f"down{level}"] = (3, 3, WIDTHS[level - 1], width)
        shapes[f"first{level}"] = shapes[f"second{level}"] = (3, 3, width, width)
    shapes["classes"] = (WIDTHS[-1], len(CLASSES))
    params = {}
    for (name, shape), own in zip(shapes.items(), jax.random.split(key, len(shapes)), strict=True):
        start = 0.0 if name.startswith("second") else (2 / np.prod(shape[:-1])) ** 0.5
        params[name] = start * jax.random.normal(own, shape)
        params[f"{name}.bias"] = jnp.zeros(shape[-1])
    return params


def apply(params: dict[str, jax.Array], images: Any) -> tuple[jax.Array, jax.Array]:
    """Return features and logits of images from 0 to 1, `[N, 28, 28] -> [N, 64], [N, 20]`."""

    def conv(name: str, x: jax.Array, stride: int = 1) -> jax.Array:
        return convolve(x, params[name], stride=stride) + params[f"{name}.bias"]

    x = conv("stem", 2 * images[..., None] - 1, stride=2)
    for level in range(len(WIDTHS)):
        if level:
            x = conv(f"down{level}", x, stride=2)
        x = x + conv(f"second{level}", jax.nn.relu(conv(f"first{level}", jax.nn.relu(_normalized(x)))))
    features = jax.nn.relu(_normalized(x)).mean(axis=(1, 2))
    return features, features @ params["classes"] + params["classes.bias"]


def _normalized(x: jax.Array, group: int = 8) -> jax.Array:
    """Groups of channels of each image at mean 0 and scale 1."""
    groups = x.reshape((*x.shape[:3], -1, group))
    centered = groups - groups.mean(axis=(1, 2, 4), keepdims=True)
    scale = jnp.sqrt(jnp.mean(centered**2, axis=(1, 2, 4), keepdims=True) + 1e-5)
    return (centered / scale).reshape(x.shape)


def _evaluated(images: Any, white: float, name: str) -> tuple[jax.Array, jax.Array]:
    called = f"{name}(images, white={white})"
    images = as_array(images, name="images", called=called)
    *batch, height, width = (0, 0, *images.shape) if images.ndim < 2 else images.shape
    if (height, width) not in ((28, 28), (8, 8)):
        raise ShapeError(
            "the images are of another size", called=called, expected="[*batch, 28, 28], or [*batch, 8, 8] of digits",
            got=f"shape {list(images.shape)}", fix="crop, pad or resize them; colours have no place here",
        )  # fmt: skip
    if concrete(images):
        _check_range(images, white, called, name)
    features, logits = _run(_weights(), jnp.asarray(images).reshape((-1, height, width)), white)
    return features.reshape((*batch, -1)), logits.reshape((*batch, -1))


def _check_range(images: Any, white: float, called: str, name: str) -> None:
    """Refuses pixels that are none on this scale, or that look as if they were on that from 0 to 1."""
    low, high = float(images.min()), float(images.max())
    slack = 1e-4 * white  # the rounding of a generator that ends in a tanh
    other = next((one for one in (1, 16, 255) if high <= one), None)
    if low < -slack or high > white + slack:
        raise DataError(
            "the images are outside of their range", called=called, expected=f"0 for black to white={white}",
            got=f"from {low:.4g} to {high:.4g}",
            fix="clip them, or scale images from -1 to 1 by (images + 1) / 2" if low < -slack or other is None
            else f"{name}(images, white={other})",
        )  # fmt: skip
    if white > 1 and 0 < high <= 1:
        raise DataError(
            "the images are nearly black", called=called, expected=f"0 for black to white={white}",
            got=f"no pixel above {high:.4g}", fix=f"{name}(images, white=1)",
        )  # fmt: skip


@jax.jit
def _run(params: Any, images: jax.Array, white: Any) -> tuple[jax.Array, jax.Array]:
    def chunk(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        images = images.astype(params["stem"].dtype) / white
        if images.shape[1:] != (28, 28):
            images = jax.image.resize(images, (len(images), 28, 28), "linear")
        return apply(params, images)

    # (an empty remainder is no chunk)
    whole = len(images) // CHUNK * CHUNK
    parts = []
    if whole:
        found = jax.lax.map(chunk, images[:whole].reshape((-1, CHUNK, *images.shape[1:])))
        parts.append(jax.tree.map(lambda a: a.reshape((whole, -1)), found))
    if whole < len(images):
        parts.append(chunk(images[whole:]))
    return jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts)


def encode(params: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the parameters for a file: kernels as 8 bits and a step for each output, the rest as they are."""
    arrays = {}
    for name, value in params.items():
        value = np.asarray(value, np.float32)
        if value.ndim > 1:
            step = np.abs(value).max(axis=tuple(range(value.ndim - 1))) / 127
            arrays[f"{name}.step"], value = step, np.rint(value / np.maximum(step, 1e-12)).astype(np.int8)
        arrays[name] = value
    return arrays


def decode(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the parameters that a file holds, as float32: the inverse of `encode` up to its rounding."""
    names = [name for name in arrays if not name.endswith(".step")]
    return {name: arrays[name] * arrays.get(f"{name}.step", np.ones(1, np.float32)) for name in names}


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    content = (resources.files("jaxgen") / "data" / "files" / "grey_classifier.npz").read_bytes()
    return read_weights(content)


def read_weights(content: bytes) -> dict[str, np.ndarray]:
    """Return the parameters in the bytes of the package's file.

    Raises:
        FileError: other bytes than those that belong to this version.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise FileError(
            "the weights of the classifier are not those of this version", called="grey_features(images)",
            expected=f"sha256 {SHA256}", got=f"sha256 {found}", fix="install jaxgen again",
        )  # fmt: skip
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return decode(dict(arrays))
