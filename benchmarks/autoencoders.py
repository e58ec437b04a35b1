r"""Autoencoders beside the other families of the library on small sets of images, and one of codes.

    python benchmarks/autoencoders.py codes --data-dir ../shared/data     # VQ-VAE of Fashion-MNIST, priors on its codes
    python benchmarks/autoencoders.py omniglot --data-dir ../shared/data  # 4,840 letters, bits
    python benchmarks/autoencoders.py grey --data-dir ../shared/data      # 1,965 clothes of 28 by 20 pixels, 256 levels

Numbers are nats per image of the test part, lower is better, and minus the log-likelihood, its lower bound or an
estimate of it: each says which. What is chosen (numbers of components, steps until nothing is gained) is chosen on a
tenth of the training part. Bits are `x ~ Bernoulli(pixel / 255)`, drawn once; levels have uniform noise for those
families that are densities of real numbers. The set of 28 by 20 pixels has the size of the Frey faces, which are not at
hand, and other pictures: the first 1,965 clothes, cut at both sides.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import RESULTS, report
from matplotlib.figure import Figure
from vae import FLOOR, INDEPENDENT, Clock, bits, falling, grey

import jaxgen as jg

KEY = jax.random.key(0)


def parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test events: of five parts the last is for tests, of the rest a tenth validates."""
    order = np.random.default_rng(0).permutation(len(x))
    test, rest = np.split(x[order], [len(x) // 5])
    validation, train = np.split(rest, [len(rest) // 10])
    return train, validation, test


def trained(start: Any, train: np.ndarray, validation: np.ndarray, steps: int) -> Any:
    """The fit of a recipe, or of a model by its own algorithm, that was best on what validates."""
    model, algorithm = start
    return jg.fit(KEY, model, train, algorithm, steps=steps, batch_size=100, validation=validation, every=steps // 20,
                  patience=6).model  # fmt: skip


def nats(model: Any, test: np.ndarray, samples: int = 1) -> dict[str, Any]:
    found = jg.score(jax.random.key(1), model, test, samples=samples)
    return {"nats": -found.mean, "standard error": found.standard_error, "kind": str(found.kind), "samples": samples}


def mixtures(make: Callable[[np.ndarray], Any], train: np.ndarray, validation: np.ndarray) -> Any:
    """Of mixtures with 5 to 80 components the one with the best validation likelihood."""
    best, model = -np.inf, None
    for k in (5, 10, 20, 40, 80):
        found = jg.fit(KEY, jg.Mixture.init(KEY, train, k, make), train, steps=50).model
        value = jg.score(KEY, found, validation).mean
        if value > best:
            best, model = value, found
    return model


def by_flow(train: np.ndarray, validation: np.ndarray, test: np.ndarray, high: int) -> dict[str, Any]:
    """Four couplings between the ends of what levels and uniform noise can be."""
    inside = jg.bijections.Interval(0.0, high + 1.0)
    make = lambda key, y: jg.recipes.realnvp(key, y, layers=4, features=(128,), support=inside)[0]  # noqa: E731
    steps = 2000
    start = jg.Dequantized.init(KEY, train, make, high=high), jg.Gradient(jg.losses.negative_elbo, falling(1e-3, steps))
    return nats(trained(start, train, validation, steps), test, 100)


def told(rows: dict[str, Any], name: str, make: Callable[[], dict[str, Any]]) -> None:
    clock = Clock()
    rows[name] = make() | clock.read()
    print(name, rows[name], flush=True)


def omniglot(options: Any) -> None:
    with np.load(options.data_dir / "omniglot_small" / "omniglot_small.npz") as data:
        x = bits(data["images28"] / np.float32(255), 0).reshape(-1, 784)
    train, validation, test = parts(x)
    rows: dict[str, Any] = {}

    def autoencoder(latent: int = 32, hidden: tuple[int, ...] = (300, 300)) -> dict[str, Any]:
        return nats(trained(jg.recipes.vae(KEY, train, latent, hidden=hidden), train, validation, 6000), test, 500)

    def mixture() -> dict[str, Any]:
        model = mixtures(functools.partial(jg.Bernoulli.init, prior=1.5), train, validation)
        return nats(model, test) | {"components": len(model.weights)}

    def machine() -> dict[str, Any]:
        model, algorithm = jg.recipes.rbm(KEY, train, 200, step_size=0.05)
        fitted = jg.fit(KEY, model, train, algorithm, steps=8000, batch_size=100)
        between = jg.metrics.log_likelihood(
            fitted.model, test, jg.metrics.bracket(KEY, fitted.model, train[:200], chains=200, steps=2000)
        )
        return {"nats": -between.mean, "standard error": between.standard_error, "kind": str(between.kind),
                "from": -between.high, "to": -between.low}  # fmt: skip

    def flow() -> dict[str, Any]:
        return by_flow(train, validation, test, 1)

    told(rows, "independent pixels", lambda: nats(jg.Bernoulli.init(KEY, train, prior=1.5), test))
    told(rows, "mixture of independent pixels", mixture)
    told(rows, "VAE 784-300-300-32", autoencoder)
    told(rows, "RBM of 200 hidden units", machine)
    told(rows, "RealNVP of bits with uniform noise", flow)
    report("autoencoders_omniglot", {"images": [len(train), len(validation), len(test)], "rows": rows})


def levels(options: Any) -> None:
    x = jg.data.read_idx(options.data_dir / "fashion_mnist" / "train-images-idx3-ubyte.gz")[:1965, :, 4:24]
    train, validation, test = parts(x.reshape(-1, 560).astype(np.int32))
    noisy = lambda rows: rows + np.random.default_rng(1).random(rows.shape, np.float32)  # noqa: E731
    rows: dict[str, Any] = {}

    def autoencoder() -> dict[str, Any]:
        likelihood = jg.likelihoods.LogisticMixtureLevels(3)
        start = jg.recipes.vae(KEY, train, 16, hidden=(200,), likelihood=likelihood)
        return nats(trained(start, train, validation, 3000), test, 500)

    def planes() -> dict[str, Any]:
        make = functools.partial(jg.LowRankGaussian.init, rank=8, floor=1.0)
        model = mixtures(make, noisy(train), noisy(validation))
        return nats(jg.Dequantized(model), test, 100) | {"components": len(model.weights)}

    def machine() -> dict[str, Any]:
        model = jg.RBM.init(KEY, noisy(train), 16, visible=jg.units.Gaussian.init)
        fitted = jg.fit(KEY, model, noisy(train), steps=8000, batch_size=100)
        return nats(fitted.model, noisy(test))

    def flow() -> dict[str, Any]:
        return by_flow(train, validation, test, 255)

    told(rows, "independent pixels", lambda: nats(
        jg.Categorical.init(KEY, train, size=256, prior=1.1), test))
    told(rows, "mixture of planes of rank 8, uniform noise", planes)
    told(rows, "VAE 560-200-16, mixtures of discretised logistics", autoencoder)
    told(rows, "RBM of 16 hidden units, uniform noise", machine)
    told(rows, "RealNVP with uniform noise", flow)
    report("autoencoders_grey", {"images": [len(train), len(validation), len(test)], "rows": rows})


def codes(options: Any) -> None:
    """A codebook of 64 and 7 by 7 codes; the prior is the best of three families by codes that no fit saw."""
    train = bits(grey(options.data_dir, "fashion_mnist", "train"), 0)
    test = bits(grey(options.data_dir, "fashion_mnist", "t10k"), 1)
    clock = Clock()
    model, algorithm = jg.recipes.vqvae(KEY, train, 64, features=8, width=options.width)
    fitted = jg.fit(KEY, model, train, algorithm, steps=options.steps, batch_size=100)
    model, cost = fitted.model, {"of the networks": clock.read()}
    rows: dict[str, Any] = {}
    leaf = functools.partial(jg.Categorical.init, size=64, prior=1.1)
    starts = {
        "independent codes": lambda key, z: leaf(key, z),
        "mixture of 100": lambda key, z: jg.Mixture.init(key, z, 100, leaf),
        "HMM of 64 states, line by line": lambda key, z: jg.HMM.init(key, z[..., None], 64, leaf),
    }
    found = {}
    for name, start in starts.items():
        def make(start: Any = start, name: str = name) -> dict[str, Any]:
            found[name] = jg.fit_prior(KEY, model, train[:20_000], start, steps=50)
            return nats(found[name], train[-2000:])

        told(rows, name, make)
    best = min(rows, key=lambda name: rows[name]["nats"])
    drawn = np.asarray(found[best].sample(jax.random.key(2), (16,)))
    figure = Figure(figsize=(6, 6.6), layout="constrained")
    jg.plot.samples_side_by_side({"data": test[:16], best: drawn}, figure)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "autoencoders_codes.png", dpi=100)
    report("autoencoders_codes", {
        "validation": rows, "prior": best, "test": nats(found[best], test), "entropy floor, nats": FLOOR,
        "independent pixels, nats": INDEPENDENT, "steps": options.steps, "width": options.width,
    } | cost)  # fmt: skip


ROWS = {"codes": codes, "omniglot": omniglot, "grey": levels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=tuple(ROWS))
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000, help="of the networks of codes")
    parser.add_argument("--width", type=int, default=8, help="channels of their first grid")
    options = parser.parse_args()
    ROWS[options.row](options)


if __name__ == "__main__":
    main()
