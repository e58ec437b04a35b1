r"""Trains the classifier of small grey images in jaxgen/data/files: digits and clothes, 28 by 28 pixels.

    python benchmarks/build_features.py --data-dir ../shared/data

reads the official files of MNIST and Fashion-MNIST below `--data-dir`, and the package's own 8 by 8 digits. It trains
on all but the last 3,000 training images of each (and all but the last 150 of the 1,500 small ones), which it validates
on, writes the weights as 8-bit numbers, prints their sha256, which belongs into `jaxgen/metrics/features.py`, and last
the accuracy of what it wrote on the test images. About 20 minutes of two free cores.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from build_data import PACKAGE_FILES
from common import report

import jaxgen as jg
from jaxgen.data import read_idx
from jaxgen.metrics import features

WANTED = {"mnist": 0.99, "fashion": 0.92}
#: how often an event of each set stands among those that batches are drawn from
COPIES = {"mnist": 1, "fashion": 4, "digits": 6}
#: farthest shift of an image, pixels; clothes fill the frame
SHIFT, SHIFT_CLOTHES = 2, 1


class Images(NamedTuple):
    """Images `[N, 28, 28]` from 0 to 255 and their classes, of 20."""

    x: np.ndarray
    label: np.ndarray


def official(folder: Path, part: str, first: int) -> Images:
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz").astype(np.int32)
    return Images(read_idx(folder / f"{part}-images-idx3-ubyte.gz"), labels + first)


def small(which: str) -> Images:
    d = jg.data.digits()
    index = getattr(d, which)
    enlarged = jax.image.resize(d.images[index].astype(np.float32) * (255 / 16), (len(index), 28, 28), "linear")
    return Images(np.rint(np.asarray(enlarged)).astype(np.uint8), d.labels[index].astype(np.int32))


def load(folder: Path, which: str) -> dict[str, Images]:
    part = {"train": "train", "test": "t10k"}[which]
    return {
        "mnist": official(folder / "mnist", part, 0), "fashion": official(folder / "fashion_mnist", part, 10),
        "digits": small(which),
    }  # fmt: skip


@jg.model
class Classifier:
    """A class given an image: `log p(y | x)`."""

    net: Any
    event_shape = ()
    context_shape = (28, 28)

    @jg.per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        return jax.nn.log_softmax(self.net(context[None] / 255)[1][0])[x.astype(int)]


def augmented(key: Any, images: jax.Array, label: jax.Array) -> jax.Array:
    """Images moved by some pixels, and half of the clothes mirrored."""
    mirror, shift = jax.random.split(key)
    flip = jax.random.bernoulli(mirror, shape=label.shape) & (label >= 10)
    images = jnp.where(flip[:, None, None], images[:, :, ::-1], images)
    padded = jnp.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    far = jnp.where(label >= 10, SHIFT_CLOTHES, SHIFT)[:, None]
    corners = SHIFT + jax.random.randint(shift, (len(images), 2), -far, far + 1)
    return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, corner, (28, 28)))(padded, corners)


def loss(key: Any, model: Any, batch: Any, step: Any) -> jax.Array:
    """The negative log-likelihood of augmented images, with a twentieth of the class spread over all."""
    images = augmented(key, jnp.asarray(batch.context, jnp.float32), batch.x)
    logits = model.net(images / 255)[1]
    target = optax.smooth_labels(jax.nn.one_hot(batch.x.astype(int), logits.shape[1]), 0.05)
    return optax.softmax_cross_entropy(logits, target).mean()


def accuracy(params: Any, images: Images) -> float:
    run = jax.jit(lambda x: features.apply(params, x / 255.0)[1].argmax(axis=1))
    found = [np.asarray(run(images.x[i : i + 500])) for i in range(0, len(images.x), 500)]
    return float(np.mean(np.concatenate(found) == images.label))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classifier that ships inside jaxgen.")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the originals")
    parser.add_argument("--out", type=Path, default=PACKAGE_FILES / "grey_classifier.npz", help="file of the weights")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--step-size", type=float, default=4e-3)
    args = parser.parse_args()

    train = load(args.data_dir, "train")
    held = {name: len(images.x) // 10 if name == "digits" else 3000 for name, images in train.items()}
    kept = {name: Images(*(a[: -held[name]] for a in images)) for name, images in train.items()}
    validation = {name: Images(*(a[-held[name] :] for a in images)) for name, images in train.items()}
    x, label = (
        np.concatenate([getattr(kept[name], field) for name, copies in COPIES.items() for _ in range(copies)])
        for field in Images._fields
    )

    def optimizer(steps: int) -> Any:
        rate = optax.warmup_cosine_decay_schedule(0.0, args.step_size, steps // 20, steps, 0.0)
        return optax.chain(optax.clip_by_global_norm(5.0), optax.adamw(rate, weight_decay=0.02))

    net = jg.Net.init(jax.random.key(0), (features.draw, features.apply), (1, 28, 28))
    model = Classifier(net)
    begun = time.perf_counter()
    fitted = jg.fit(
        jax.random.key(1), model, (label.astype(np.float32), x), jg.Gradient(loss, optimizer), steps=args.steps,
        batch_size=args.batch_size, watch=[jg.watch.Every(500, lambda progress: print(progress, flush=True))],
        progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    arrays = features.encode(fitted.model.net.params)
    np.savez_compressed(args.out, **arrays)
    content = args.out.read_bytes()
    params = features.decode(arrays)
    valid = {name: accuracy(params, images) for name, images in validation.items()}
    print("validation", valid, flush=True)
    tested = {name: accuracy(params, images) for name, images in load(args.data_dir, "test").items()}
    report(
        "build_features",
        {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "parameters": sum(map(np.size, params.values())),
            "validation accuracy": valid,
            "test accuracy": tested,
            "wanted": WANTED,
            "met": all(tested[name] > least for name, least in WANTED.items()),
            "training s": seconds,
            "copies": COPIES,
            "steps": args.steps,
            "batch size": args.batch_size,
        },
    )


if __name__ == "__main__":
    main()
