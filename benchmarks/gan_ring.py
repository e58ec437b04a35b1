"""A generative adversarial network on the ring of eight Gaussians, by the default recipe: are all modes there, and is
each of them the whole mode?

    python benchmarks/gan_ring.py

A sample is on a mode within 3 standard deviations of its center; of the ring's own draws 98.9 % are. Of the samples on
a mode the spread is the standard deviation along both principal axes of their covariance, as a multiple of the truth:
thin arcs inside the modes are near them and not like them.
"""

from __future__ import annotations

import argparse
import math
import time

import jax
import numpy as np
from common import report

import jaxgen as jg

SCALE = 0.5 / math.sqrt(2)
SAMPLES = 20_000


def quality(x: np.ndarray) -> dict[str, float]:
    """The share of samples on a mode, the smallest and largest share of one mode (1/8 each at best), and spreads."""
    distance = np.linalg.norm(x[:, None] - jg.data.eight_gaussians_centers(), axis=-1)
    on, which = distance.min(axis=1) < 3 * SCALE, distance.argmin(axis=1)
    shares = np.bincount(which[on], minlength=8) / len(x)
    spreads = [
        np.sqrt(np.linalg.eigvalsh(np.cov(x[on & (which == mode)].T))) / SCALE if shares[mode] > 0.001 else np.zeros(2)
        for mode in range(8)
    ]
    return {
        "on a mode": on.mean(), "smallest mode": shares.min(), "largest mode": shares.max(),
        "smallest spread": np.min(spreads), "largest spread": np.max(spreads),
    }  # fmt: skip


def run(seed: int, steps: int | None) -> dict[str, float]:
    """The recipe as it is, from data to samples."""
    data_key, start_key, fit_key, sample_key = jax.random.split(jax.random.key(seed), 4)
    x = jg.data.eight_gaussians(data_key, 50_000)
    model, algorithm = jg.recipes.gan(start_key, x)
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = jg.fit(fit_key, model, x, algorithm, steps=steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "seed": seed,
        **quality(np.asarray(fitted.model.sample(sample_key, (SAMPLES,)))),
        "steps": fitted.steps,
        "wall s": wall,
        "cpu s": cpu,
        "compile s": fitted.compile_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    rows = []
    for seed in range(options.first, options.first + options.seeds):
        rows.append(run(seed, options.steps))
        print(rows[-1], flush=True)
    # a mode counts as found with a fifth of its due share
    passed = [
        row["on a mode"] >= 0.95 and row["smallest mode"] >= 1 / 40
        and row["smallest spread"] >= 0.7 and row["largest spread"] <= 1.3 for row in rows
    ]  # fmt: skip
    ideal = quality(np.asarray(jg.data.eight_gaussians(jax.random.key(99), SAMPLES)))
    if options.first == 0 and options.steps is None:
        report("gan_ring", {"seeds passed": f"{sum(passed)} of {len(rows)}", "runs": rows, "the ring itself": ideal})


if __name__ == "__main__":
    main()
