"""What a linear probe finds in the features of each family, beside raw pixels and principal components of their number.

    python benchmarks/representation.py digits
    python benchmarks/representation.py fashion --data-dir ../shared/data

Models and probes see the train rows (digits: the package's split; Fashion-MNIST: 20,000 of 60,000), of which a fifth
chooses the ridge; the numbers are of the test rows. No model sees a label. All features are 20 numbers but the pixels.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import report

import jaxgen as jg
from jaxgen.tasks import agreement, features, linear_probe, neighbour_accuracy

KEY, SIZE = jax.random.key(0), 20
Features = Callable[[np.ndarray], np.ndarray]


def digits(options: Any) -> tuple[Any, ...]:
    d = jg.data.digits()
    x, y = d.images.reshape(-1, 64).astype(np.float32) / 16, np.asarray(d.labels)
    return x[d.train], y[d.train], x[d.test], y[d.test], 0.2


def fashion(options: Any) -> tuple[Any, ...]:
    read = lambda name: np.asarray(jg.data.read(options.data_dir / "fashion_mnist" / name))  # noqa: E731
    x, y = read("train-images-idx3-ubyte.gz"), read("train-labels-idx1-ubyte.gz").astype(int)
    test, wanted = read("t10k-images-idx3-ubyte.gz"), read("t10k-labels-idx1-ubyte.gz").astype(int)
    chosen = np.random.default_rng(0).permutation(len(x))[:20_000]
    flat = lambda images: images.reshape(len(images), -1).astype(np.float32) / 255  # noqa: E731
    return flat(x[chosen]), y[chosen], flat(test), wanted, 0.2


def fitted(start: Any, data: Any, algorithm: Any = None, **options: Any) -> Any:
    return jg.fit(KEY, start, data, algorithm, progress=False, **options).model


def principal(x: np.ndarray) -> Features:
    center = x.mean(axis=0)
    basis = np.linalg.svd(x - center, full_matrices=False)[2][:SIZE].T
    return lambda rows: (rows - center) @ basis


def factors(x: np.ndarray) -> Features:
    model = fitted(jg.LowRankGaussian.init(KEY, x, rank=SIZE, floor=1e-3), x, steps=30)
    return lambda rows: features(model, rows)


def mixture(x: np.ndarray) -> Features:
    leaf = functools.partial(jg.DiagonalGaussian.init, floor=1e-2)
    model = fitted(jg.Mixture.init(KEY, x, SIZE, leaf), x, steps=40)
    return lambda rows: features(model, rows)


def machine(x: np.ndarray) -> Features:
    model, algorithm = jg.recipes.rbm(KEY, np.round(x), SIZE)
    model = fitted(model, np.round(x), algorithm, steps=5000)
    return lambda rows: features(model, np.round(rows))


def autoencoder(x: np.ndarray) -> Features:
    likelihood = jg.likelihoods.GaussianOfScale(0.3)
    model, algorithm = jg.recipes.vae(KEY, x, SIZE, hidden=(400,), likelihood=likelihood)
    model = fitted(model, x, algorithm, steps=2500, batch_size=128)
    return lambda rows: features(model, rows)


def critic(steps: int) -> Callable[[np.ndarray], Features]:
    """Principal components of what the critic of a DCGAN sees in the middle of a game; of no steps, as it was drawn."""

    def made(x: np.ndarray) -> Features:
        side = math.isqrt(x.shape[1])
        images = lambda rows: 2 * rows.reshape(-1, side, side) - 1  # noqa: E731
        model, algorithm = jg.recipes.dcgan(KEY, images(x), 32, width=8)
        state = algorithm.init(KEY, model)
        if steps:
            state = jg.fit(KEY, model, images(x), algorithm, steps=steps, batch_size=64, progress=False).state
        seen = lambda rows: features(state.critic.model, images(rows))  # noqa: E731
        components = principal(seen(x))
        return lambda rows: components(seen(rows))

    return made


FAMILIES: dict[str, Callable[[np.ndarray], Features]] = {
    "pixels": lambda x: lambda rows: rows,
    "principal components": principal,
    "LowRankGaussian, factors": factors,
    "mixture of diagonal Gaussians, responsibilities": mixture,
    "RBM, hidden means": machine,
    "VAE, posterior means": autoencoder,
    "critic of a DCGAN before its game, principal components": critic(0),
    "critic of a DCGAN, principal components": critic(2000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["digits", "fashion"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--validate", action="store_true", help="the last fifth of the train rows in place of the test")
    parser.add_argument("--only", help="a part of a name")
    options = parser.parse_args()
    if options.data == "fashion" and options.data_dir is None:
        parser.error("--data-dir is the folder with fashion_mnist")
    x, y, test, wanted, share = {"digits": digits, "fashion": fashion}[options.data](options)
    if options.validate:
        cut = len(x) * 4 // 5
        x, y, test, wanted = x[:cut], y[:cut], x[cut:], y[cut:]
    rows = {}
    for name, make in FAMILIES.items():
        if options.only and options.only not in name:
            continue
        begun = time.perf_counter()
        of = make(x)
        own, others = of(x), of(test)
        probe = linear_probe(KEY, own, y, validation=share)
        few = jg.Mixture.init(KEY, own, 10, functools.partial(jg.DiagonalGaussian.init, floor=1e-3))
        rows[name] = {
            "linear probe": 100 * probe.accuracy(others, wanted), "ridge": probe.ridge, "features": own.shape[1],
            "nearest neighbour": 100 * neighbour_accuracy(own[:5000], y[:5000], others[:2000], wanted[:2000]),
            "clusters at a k-means start": agreement(wanted, few.predict(others))._asdict(),
            "seconds": time.perf_counter() - begun,
        }  # fmt: skip
        print(f"{name}: {rows[name]}", flush=True)
    report(f"representation_{options.data}" + "_validation" * options.validate, {"test rows, percent": rows})


if __name__ == "__main__":
    main()
