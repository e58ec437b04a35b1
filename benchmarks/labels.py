"""Digits with few labels: every way of the library to classify them, on the same random splits.

    python benchmarks/labels.py            # 20 splits of scikit-learn's 1797 digits, 100 labels each
    python benchmarks/labels.py --tune     # 6 other splits, on which the settings were chosen

All pixels are seen, and 100 labels: accuracy is on the 1697 others (transductive). Fits that see no labels are made
once; what depends on the labels is made for each split. Settings (numbers of components, ranks, floors, neighbours and
the reach of labels) were chosen on splits 100 to 105; those reported are 0 to 19.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from common import report
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading

import jaxgen as jg
from jaxgen.tasks import class_densities, features, propagate, spread_labels

KEY, LABELS = jax.random.key(0), 100
#: of pixels from 0 to 1 around what a decoder says
NOISE = jg.likelihoods.GaussianOfScale(0.2)
#: `label -> predictions`, labels and predictions `[1797]`
Way = Callable[[np.ndarray], Any]


def fitted(start: Any, data: Any, algorithm: Any = None, **options: Any) -> Any:
    return jg.fit(KEY, start, data, algorithm, progress=False, **options).model


def by_spreading(z: Callable[[], np.ndarray], neighbours: int = 5) -> Way:
    return lambda label: spread_labels(z(), label, neighbours=neighbours).argmax(axis=1)


def ways(x: np.ndarray) -> dict[str, Way]:
    """By name, the quick ones first; pixels are from 0 to 16, floors of variances in their squares."""
    bits = (x >= 8).astype(np.float32)

    @functools.cache
    def factors() -> np.ndarray:
        start = jg.LowRankGaussian.init(KEY, x, rank=20, floor=1.0)
        return features(fitted(start, x, steps=50), x)

    @functools.cache
    def mixture() -> Any:
        leaf = functools.partial(jg.DiagonalGaussian.init, floor=4.0)
        return fitted(jg.Mixture.init(KEY, x, 60, leaf), x, steps=60)

    @functools.cache
    def planes() -> Any:
        leaf = functools.partial(jg.LowRankGaussian.init, rank=4, floor=4.0)
        return fitted(jg.Mixture.init(KEY, x, 30, leaf), x, steps=40)

    @functools.cache
    def latents() -> np.ndarray:
        model, algorithm = jg.recipes.vae(KEY, x / 16, 20, hidden=(200,), likelihood=NOISE)
        return features(fitted(model, x / 16, algorithm, steps=2000, batch_size=100), x / 16)

    @functools.cache
    def hidden_means() -> np.ndarray:
        machine, algorithm = jg.recipes.rbm(KEY, bits, 64)
        return features(fitted(machine, bits, algorithm, steps=4000), bits)

    def of_classes(label: np.ndarray) -> Any:
        leaf = functools.partial(jg.DiagonalGaussian.init, floor=4.0)
        return class_densities(KEY, leaf, x, label).model.predict(x)

    def classes_as_components(label: np.ndarray) -> Any:
        leaf = functools.partial(jg.LowRankGaussian.init, rank=8, floor=4.0)
        start = jg.Mixture.init(KEY, x, 10, leaf, label=label)
        return fitted(start, {"x": x, "label": label}, steps=30).predict(x)

    def m2(label: np.ndarray) -> Any:
        given = jg.VAE.init(KEY, x / 16, jg.StandardNormal((10,)), hidden=(200,), context_shape=(10,), likelihood=NOISE)
        model = jg.SemiSupervised.init(KEY, x / 16, given, hidden=(200,), alpha=len(x) / LABELS)
        adam = jg.Gradient(jg.losses.own, optax.adam(2e-3))
        model = fitted(model, {"x": x / 16, "label": label}, adam, steps=1000, batch_size=200)
        return np.asarray(model.classify(x / 16)).argmax(axis=1)

    return {
        "labels spread over pixels": by_spreading(lambda: x),
        "labels spread over 20 factors of a LowRankGaussian": by_spreading(factors),
        "label spreading over 7 neighbours (scikit-learn)": lambda y: LabelSpreading(
            kernel="knn", alpha=0.2).fit(x, y).transduction_,
        "logistic regression (scikit-learn)": lambda y: LogisticRegression(max_iter=500).fit(
            x[y >= 0] / 16, y[y >= 0]).predict(x / 16),
        "labels spread over latents of a VAE": by_spreading(latents),
        "labels spread over hidden means of an RBM": by_spreading(hidden_means),
        "60 diagonal Gaussians of all rows, classes by propagation": lambda y: propagate(mixture(), x, y).predict(x),
        "a diagonal Gaussian for each class, labelled rows alone": of_classes,
        "30 planes of rank 4 of all rows, classes by propagation": lambda y: propagate(planes(), x, y).predict(x),
        "M2, a VAE given the class": m2,
        "10 planes of rank 8, components are classes, all rows": classes_as_components,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--only", help="a part of a name")
    options = parser.parse_args()
    digits = load_digits()
    x, y = digits.data.astype(np.float32), digits.target
    seeds = range(100, 106) if options.tune else range(20)
    rows, made = {}, ways(x)
    for name, way in made.items():
        if options.only and options.only not in name:
            continue
        found, begun = [], time.perf_counter()
        for seed in seeds:
            label = np.full(len(y), -1)
            shown = np.random.default_rng(seed).permutation(len(y))[:LABELS]
            label[shown] = y[shown]
            found.append(100 * float(np.mean((np.asarray(way(label)) == y)[label < 0])))
        rows[name] = {"accuracy": float(np.mean(found)), "deviation": float(np.std(found)), "worst": min(found),
                      "seconds": time.perf_counter() - begun}  # fmt: skip
        print(f"{name}: {rows[name]}", flush=True)
        if not (options.tune or options.only):  # the slow ones are last, and what is there is kept
            report("labels", {"accuracy on 1697 digits, 100 labels, percent": rows})


if __name__ == "__main__":
    main()
