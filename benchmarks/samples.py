"""Measures of samples: what the Frechet distance costs beside others, and one table of all families on Fashion-MNIST.

    python benchmarks/samples.py frechet                               # 10,000 x 2048 features, float32
    python benchmarks/samples.py two_sample                            # the classifier test of 3000 x 5
    python benchmarks/samples.py table --data-dir ../shared/data       # GAN, VAE, flow, RBM, mixture, PPCA
    python benchmarks/samples.py table --data-dir ../shared/data --quick

The peers of the first row are written down here as their programs have them (pytorch-fid: `scipy.linalg.sqrtm`;
torch-fidelity: `numpy.linalg.eigvals`), both after `numpy.cov` in float64. Their flops at N = 10,000, D = 2048: two
covariances 2 N D^2 = 84 G each, a Schur form about 25 D^3 = 215 G, eigenvalues about 10 D^3 = 86 G. Ours: two
triangles by Cholesky twice, 6 N D^2 = 252 G each, nearly all of it products; one symmetric eigenproblem about
9 D^3 = 77 G; ten products of 2 D^3 = 17 G.

The table's samples are grey images from 0 to 1, features those of the package's classifier. Models of bits (VAE, RBM)
show the means of pixels given their hidden variables, as is usual; those of real numbers are clipped to 0 and 1.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.stats
from common import RESULTS, interleaved, report
from matplotlib.figure import Figure

import jaxgen as jg
from jaxgen.metrics import features, samples
from jaxgen.metrics.samples import Feature, Moments

FEATURE = Feature(functools.partial(features.grey_features, white=1.0), 0.0, 1.0)


# ---- the cost of a Frechet distance


def of_network(n: int, d: int, seed: int) -> np.ndarray:
    """Features that look like those of a network: 0 or more, correlated, of unlike scales."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(9).normal(size=(d, d)) * np.logspace(0, -1.5, d)[:, None] / d**0.5
    return np.maximum(rng.normal(size=(n, d)) @ mix + 0.05 * seed, 0).astype(np.float32)


def by_root(x: np.ndarray, y: np.ndarray) -> float:
    """The distance as pytorch-fid has it."""
    c, e = (np.cov(rows.astype(np.float64), rowvar=False) for rows in (x, y))
    away = x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)
    return float(away @ away + np.trace(c) + np.trace(e) - 2 * np.trace(scipy.linalg.sqrtm(c @ e).real))


def by_eigenvalues(x: np.ndarray, y: np.ndarray) -> float:
    """The distance as torch-fidelity has it."""
    c, e = (np.cov(rows.astype(np.float64), rowvar=False) for rows in (x, y))
    away = x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)
    roots = np.sqrt(np.linalg.eigvals(c @ e).astype(complex)).real
    return float(away @ away + np.trace(c) + np.trace(e) - 2 * roots.sum())


def ours(x: np.ndarray, y: np.ndarray) -> float:
    """The distance with its error and its bias, which the others do not have; without a floor."""
    return samples.distance(Moments.of(x), Moments.of(y))[0]


def frechet(options: Any) -> None:
    n, d = (1000, 256) if options.quick else (10_000, 2048)
    x, y = of_network(n, d, 0), of_network(n, d, 1)
    calls = {"jaxgen, float32": ours, "scipy sqrtm, as pytorch-fid": by_root, "numpy eigvals, as torch-fidelity":
             by_eigenvalues}  # fmt: skip
    ours(x, y)  # compiles; the others need minutes, and nothing to warm up
    values, seconds = {}, {}
    for name, call in calls.items():
        begun = time.perf_counter()
        values[name] = call(x, y)
        seconds[name] = time.perf_counter() - begun
        print(name, values[name], f"{seconds[name]:.2f} s", flush=True)
    first, *others = values.values()
    # float32 is exact to about 1e-6 of the traces, which here are of the size of the distance or some times larger
    assert all(abs(first - other) < 1e-3 * abs(other) for other in others), values
    mine, *rest = seconds.values()
    report("samples_frechet" + "_quick" * options.quick, {
        "features": f"{n} x {d}", "values": values, "seconds": seconds,
        "times faster": [other / mine for other in rest],
    })  # fmt: skip


# ---- the cost of a two-sample test


def two_sample(options: Any) -> None:
    """The test as sbibm has it, on normals half a deviation apart in one of 5 columns, by scikit-learn and by ours."""
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    n, d = (300, 2) if options.quick else (3000, 5)
    x, y = (np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32) for seed in (0, 1))
    x[:, 0] += 0.5

    def by_sklearn() -> float:
        rows = (np.concatenate([y, x]) - y.mean(0)) / y.std(0, ddof=1)
        network = MLPClassifier((10 * d, 10 * d), activation="relu", max_iter=1000, solver="adam", random_state=1)
        folds = KFold(5, shuffle=True, random_state=1)
        return float(cross_val_score(network, rows, np.repeat([0, 1], n), cv=folds, scoring="accuracy").mean())

    calls = {"jaxgen": lambda: samples.c2st(jax.random.key(1), x, y).accuracy, "scikit-learn": by_sklearn}
    values = {name: call() for name, call in calls.items()}
    # the best that can be told is Phi(1/4); each loses a little of that to fitting its own noise
    assert abs(values["jaxgen"] - values["scikit-learn"]) < (0.08 if options.quick else 0.02), values
    seconds = interleaved(calls, rounds=3)
    cpu = {}
    for name, call in calls.items():
        begun = time.process_time()
        call()
        cpu[name] = time.process_time() - begun
    report("samples_two_sample" + "_quick" * options.quick, {
        "samples": f"{n} x {d}", "values": values, "best": float(scipy.stats.norm.cdf(0.25)), "seconds": seconds,
        "cpu seconds": cpu,
    })  # fmt: skip


# ---- one table of all families


Sampler = Callable[[Any, int], Any]


def of_bits(images: np.ndarray, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(images.shape, np.float32) < images).astype(np.float32)


def gan(x: np.ndarray, steps: int) -> Sampler:
    model, algorithm = jg.recipes.gan(jax.random.key(0), x, 64, hidden=(512, 512), steps=steps)
    fitted = jg.fit(jax.random.key(1), model, x, algorithm, steps=steps)
    return lambda key, n: fitted.model.sample(key, (n,))


def vae(x: np.ndarray, steps: int) -> Sampler:
    model, algorithm = jg.recipes.vae(jax.random.key(0), of_bits(x, 0), 32, hidden=(400, 400))
    fitted = jg.fit(jax.random.key(1), model, of_bits(x, 0), algorithm, steps=steps, batch_size=200)
    return lambda key, n: fitted.model.decode(fitted.model.prior.sample(key, (n,)))


def flow(x: np.ndarray, steps: int) -> Sampler:
    # levels are spread over their width: a density of grey levels alone has no bound
    noisy = 0.02 + 0.96 * (x * 255 + np.random.default_rng(0).random(x.shape, np.float32)) / 256
    inside = jg.bijections.Interval(0.0, 1.0)
    model, algorithm = jg.recipes.realnvp(jax.random.key(0), noisy, layers=6, features=(256,), support=inside)
    fitted = jg.fit(jax.random.key(1), model, noisy, algorithm, steps=steps, batch_size=200)
    return lambda key, n: (fitted.model.sample(key, (n,)) - 0.02) / 0.96


def rbm(x: np.ndarray, steps: int) -> Sampler:
    bits = of_bits(x, 0)
    model = jg.RBM.init(jax.random.key(0), bits, 300, centred=True)
    algorithm = jg.ContrastiveDivergence(negative=jg.Persistent(100, 1))
    fitted = jg.fit(jax.random.key(1), model, bits, algorithm, steps=steps, batch_size=100)

    def sample(key: Any, n: int) -> Any:
        chain, last = jax.random.split(key)
        drawn = fitted.model.sample(chain, (n,))
        return fitted.model.decode(fitted.model.sample_hidden(last, drawn))

    return sample


def mixture(x: np.ndarray, steps: int) -> Sampler:
    few = x[:10_000]
    make = functools.partial(jg.LowRankGaussian.init, rank=min(10, len(few) // 20), floor=1e-4)
    fitted = jg.fit(jax.random.key(1), jg.Mixture.init(jax.random.key(0), few, 10, make), few, jg.EM(), steps=steps)
    return lambda key, n: fitted.model.sample(key, (n,))


def ppca(x: np.ndarray, steps: int) -> Sampler:
    # the start is the principal components themselves: the maximum, in closed form
    model = jg.LowRankGaussian.init(jax.random.key(0), x, rank=min(50, len(x) // 2), floor=1e-4)
    return lambda key, n: model.sample(key, (n,))


#: steps of each fit, and of a quick look
FAMILIES = {
    "GAN": (gan, 8000, 20), "VAE": (vae, 6000, 20), "flow": (flow, 3000, 10), "RBM": (rbm, 12_000, 20),
    "mixture": (mixture, 20, 2), "PPCA": (ppca, 0, 0),
}  # fmt: skip


def measured(key: Any, fake: Any, test: Any) -> dict[str, Any]:
    """All measures of samples beside test images, by features of the classifier."""
    keys = jax.random.split(key, 4)
    found = samples.frechet(keys[0], fake, test, FEATURE)
    kernel = samples.kid(keys[1], fake, test, FEATURE)
    shares = samples.neighbours(keys[2], fake, test, FEATURE)
    # 64 features make networks of 640 units: what is quick enough of ten thousand is not of these
    told = samples.c2st(keys[3], fake[:2000], test[:2000], FEATURE, epochs=30)
    return {
        "FD": found.value, "FD floor": found.floor, "FD error": found.standard_error,
        "times the floor": found.value / found.floor, "KID": kernel.value, "KID error": kernel.standard_error,
        "precision": shares.precision.value, "recall": shares.recall.value, "coverage": shares.coverage.value,
        "C2ST": told.accuracy, "C2ST AUC": told.auc,
    }  # fmt: skip


def shown(pictures: dict[str, np.ndarray], name: str) -> None:
    """Samples of all families side by side."""
    figure = Figure(figsize=(2 * len(pictures), 2.3), layout="constrained")
    jg.plot.samples_side_by_side(pictures, figure)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"{name}.png", dpi=100)


def table(options: Any) -> None:
    folder = options.data_dir / "fashion_mnist"
    train, test = (jg.data.read_idx(folder / f"{part}-images-idx3-ubyte.gz") / np.float32(255)
                   for part in ("train", "t10k"))  # fmt: skip
    if options.quick:
        train, test = train[:2000], test[:500]
    flat, rows, pictures = train.reshape(-1, 784), {}, {"data": test[:16]}
    for name, (make, steps, few) in FAMILIES.items():
        if options.only and name not in options.only:
            continue
        wall, cpu = time.perf_counter(), time.process_time()
        sample = make(flat, few if options.quick else steps)
        fit = {"fit wall s": time.perf_counter() - wall, "fit cpu s": time.process_time() - cpu}
        draw, ask = jax.random.split(jax.random.key(7))
        parts = [sample(jax.random.fold_in(draw, i), 500) for i in range(len(test) // 500)]
        fake = jnp.clip(jnp.concatenate(parts), 0, 1).reshape(-1, 28, 28)
        pictures[name] = np.asarray(fake[:16])
        rows[name] = measured(ask, fake, test) | fit | {"cpu s": time.process_time() - cpu}
        print(name, {k: round(float(v), 4) for k, v in rows[name].items()}, flush=True)
        best = min(rows, key=lambda name: rows[name]["FD"])
        to = "samples_table" + "_quick" * options.quick
        report(to, {"rows": rows, "least FD": best, "the linear model wins": best == "PPCA"})  # what is there is kept
        shown(pictures, to)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=("frechet", "two_sample", "table"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=FAMILIES, help="these families alone")
    options = parser.parse_args()
    {"frechet": frechet, "two_sample": two_sample, "table": table}[options.row](options)


if __name__ == "__main__":
    main()
