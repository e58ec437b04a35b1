"""Features by the InceptionV3 of 2015-12-05, from a file of weights on this machine. Nothing is downloaded.

`benchmarks/convert_inception.py` makes the file, where torch is, from `pt_inception-2015-12-05-6726825d.pth`, which is
a release of pytorch-fid.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, FileError, ShapeError
from jaxgen.core.inputs import as_array, concrete
from jaxgen.nn.inception import SIDE, InceptionV3
from jaxgen.nn.net import Net
from jaxgen.ops.resize import Kernel, resize, torch_bilinear

#: where the file is looked for, unless a path is given
PLACE = Path("~/.cache/jaxgen/inception-2015-12-05.npz")
#: images that go through the network at once
CHUNK = 50


@dataclass(frozen=True, eq=False)
class Inception:
    """The network of inception distances with its weights.

    Args:
        net: `[N, 299, 299, 3]` to features and logits.
        kernel: of `resize`, by which images get to 299 by 299 pixels: `torch_bilinear` as pytorch-fid, `tf1_bilinear`
            as the first program, `pil_bicubic` as clean-fid, whose values are clipped to black and white.
        white: the number of a white pixel, where 0 is black: 1 or 255.

    Example:
        >>> Inception.from_file("nowhere.npz", white=255)
        Traceback (most recent call last):
        jaxgen.core.errors.FileError: there are no weights of InceptionV3
          called:   Inception.from_file('nowhere.npz')
          expected: a file of 472 arrays there; without a path at ~/.cache/jaxgen/inception-2015-12-05.npz
          got:      no file nowhere.npz
          fix:      make it by benchmarks/convert_inception.py from pt_inception-2015-12-05-6726825d.pth
    """

    net: Net
    kernel: Kernel
    white: float

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str] | None = None, *, white: float, kernel: Kernel = torch_bilinear
    ) -> Inception:  # fmt: skip
        """Reads the weights.

        Args:
            path: of the `.npz`; None is `~/.cache/jaxgen/inception-2015-12-05.npz`, where the script puts it.
            white: as in the class.
            kernel: as in the class.

        Raises:
            FileError: no file there, or one of other arrays.
        """
        called = f"Inception.from_file({'' if path is None else repr(os.fspath(path))})"
        place = Path(PLACE if path is None else path).expanduser()
        if not place.is_file():
            raise FileError(
                "there are no weights of InceptionV3", called=called, got=f"no file {place}",
                expected=f"a file of 472 arrays there; without a path at {PLACE}",
                fix="make it by benchmarks/convert_inception.py from pt_inception-2015-12-05-6726825d.pth",
            )  # fmt: skip
        with np.load(place, allow_pickle=False) as arrays:
            return cls(Net(nested(dict(arrays), called), InceptionV3()), kernel, white)

    def features(self, images: Any) -> jax.Array:
        """Return the 2048 numbers before the classes, `[N, H, W, 3]` or `[N, H, W]` to `[N, 2048]`.

        Raises:
            ShapeError: no such images. DataError: NaN, or pixels outside of 0 to `white`, or near 0 alone.
        """
        return self._run(images, "features")[0]

    def classes(self, images: Any) -> jax.Array:
        """Return the probability of each of 1008 classes, `[N, H, W, 3]` or `[N, H, W]` to `[N, 1008]`.

        Raises:
            ShapeError, DataError: as of `features`.
        """
        return jax.nn.softmax(self._run(images, "classes")[1])

    def _run(self, images: Any, name: str) -> tuple[jax.Array, jax.Array]:
        called = f"Inception.{name}(images)"
        images = as_array(images, name="images", called=called)
        if not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))):
            raise ShapeError(
                "those are no images", called=called, expected="[N, height, width, 3], or grey ones [N, height, width]",
                got=f"shape {list(images.shape)}",
            )  # fmt: skip
        if concrete(images) and not (images.min() >= 0 and images.max() <= self.white):
            raise DataError(
                "the images are outside of their range", called=called, got=f"from {images.min()} to {images.max()}",
                expected=f"0 for black to white={self.white}", fix="clip them, or read the weights with their white",
            )  # fmt: skip
        if concrete(images) and self.white > 1 and 0 < images.max() <= 1:
            raise DataError(
                "the images are nearly black", called=called, got=f"no pixel above {images.max():.4g}",
                expected=f"0 for black to white={self.white}", fix="read the weights for images whose white is 1",
            )  # fmt: skip
        through = lambda chunk: _through(self.net, chunk, self.white, self.kernel)  # noqa: E731
        if concrete(images):
            parts = [through(jnp.asarray(images[i : i + CHUNK])) for i in range(0, len(images), CHUNK)]
            return tuple(map(jnp.concatenate, zip(*parts, strict=True)))  # type: ignore[return-value]
        # inside of a program the network stands there once, not once for each chunk
        rest = -len(images) % CHUNK
        padded = jnp.pad(images, ((0, rest), *((0, 0),) * (images.ndim - 1)))
        found = jax.lax.map(through, padded.reshape((-1, CHUNK, *images.shape[1:])))
        return jax.tree.map(lambda a: a.reshape((-1, *a.shape[2:]))[: len(images)], found)


@functools.partial(jax.jit, static_argnums=3)
def _through(net: Net, images: jax.Array, white: float, kernel: Kernel) -> tuple[jax.Array, jax.Array]:
    images = images[..., None] if images.ndim == 3 else images
    x = images.astype(jnp.float32) / white
    if images.shape[1:3] != (SIDE, SIDE):
        x = resize(x, (SIDE, SIDE), kernel).clip(0, 1)
    return net(jnp.broadcast_to(2 * x - 1, (*x.shape[:3], 3)))


@functools.cache
def published_shapes() -> dict[str, tuple[int, ...]]:
    """Return the arrays of the published checkpoint by name, without its counts of batches."""
    tree = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))["params"]
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(step.key for step in path): leaf.shape for path, leaf in leaves}


def nested(arrays: dict[str, Any], called: str) -> dict[str, Any]:
    """Return the parameters of `InceptionV3` from the arrays of a checkpoint by their published names.

    Raises:
        FileError: other names or shapes.
    """
    wanted = published_shapes()
    wrong = [name for name, shape in wanted.items() if np.shape(arrays.get(name, 0.0)) != shape]
    if wrong or len(arrays) != len(wanted):
        raise FileError(
            "those are not the weights of the InceptionV3 of 2015-12-05", called=called,
            expected=f"{len(wanted)} arrays, among them {wrong[0]} {wanted[wrong[0]]}" if wrong else f"{len(wanted)}",
            got=f"{len(arrays)} arrays, {len(wrong)} of them missing or of another shape",
            fix="convert pt_inception-2015-12-05-6726825d.pth again",
        )  # fmt: skip
    tree: dict[str, Any] = {}
    for name in wanted:
        *path, layer, leaf = ("", *name.split("."))
        at = tree
        for step in path[1:]:
            at = at.setdefault(step, {})
        at[f"{layer}.{leaf}"] = jnp.asarray(arrays[name])
    return tree
