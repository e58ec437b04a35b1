"""A generative adversarial network on stacked digits: how many of a thousand modes are there?

    python benchmarks/gan_stacked.py

Three digits of 8 by 8 pixels, drawn at random from the 1,500 training images, are the channels of an image; the modes
are the triples of their classes. The recipe `gan` as it is, on 50,000 such images; 10,000 samples, whose channels the
package's classifier names (`metrics.features`). Real images drawn anew stand beside: as many as cover all modes. The
divergence is that of the samples' shares of the modes from even ones, nats; of 10,000 real draws it is about .05.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np
from common import report

import jaxgen as jg
from jaxgen.metrics.features import grey_classes

GOAL = 900
TRAIN, SAMPLES = 50_000, 10_000


def stacked(seed: int, n: int) -> np.ndarray:
    """Three digits each, `[n, 8, 8, 3]`, ink from 0 to 16."""
    d = jg.data.digits()
    index = np.random.default_rng(seed).choice(d.train, (n, 3))
    return np.moveaxis(d.images[index], 1, -1).astype(np.float32)


def modes(x: np.ndarray) -> dict[str, float]:
    """The number of different triples of classes, and how uneven they are."""
    channels = np.moveaxis(x, -1, 0).clip(0, 16)
    classes = [np.asarray(grey_classes(channel, white=16)[:, :10]).argmax(axis=1) for channel in channels]
    counts = np.bincount(np.ravel_multi_index(classes, (10, 10, 10)), minlength=1000)
    share = counts[counts > 0] / len(x)
    return {"modes": int((counts > 0).sum()), "divergence": float(np.sum(share * np.log(share * 1000)))}


def run(seed: int, steps: int | None) -> dict[str, Any]:
    start_key, fit_key, sample_key = jax.random.split(jax.random.key(seed), 3)
    x = stacked(seed, TRAIN)
    model, algorithm = jg.recipes.gan(start_key, x)
    begun = time.perf_counter(), time.process_time()
    fitted = jg.fit(fit_key, model, x, algorithm, steps=steps, batch_size=128, progress=False)
    wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    found = modes(np.asarray(fitted.model.sample(sample_key, (SAMPLES,))))
    return {"seed": seed, **found, "met": found["modes"] >= GOAL, "steps": fitted.steps, "wall s": wall, "cpu s": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        rows.append(run(seed, options.steps))
        print(rows[-1], flush=True)
    if options.steps is None:
        report("gan_stacked", {"goal": GOAL, "runs": rows, "real images": modes(stacked(99, SAMPLES))})


if __name__ == "__main__":
    main()
