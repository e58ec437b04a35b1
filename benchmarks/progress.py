"""What the progress bar costs: the same fit with the bar drawn and without, in turns.

    python benchmarks/progress.py
"""

from __future__ import annotations

import contextlib
import os

import jax
import numpy as np
from common import interleaved, report

import jaxgen as jg

STEPS = 4000


def main() -> None:
    x = np.random.default_rng(0).normal(size=(4096, 8)).astype(np.float32)
    model, algorithm = jg.recipes.realnvp(jax.random.key(0), x, layers=4, features=(32,))

    def fit(progress: bool):
        # the bar is drawn, to a file that nobody reads
        with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
            jg.fit(jax.random.key(1), model, x, algorithm, steps=STEPS, batch_size=256, progress=progress)

    median = interleaved({"bar": lambda: fit(True), "none": lambda: fit(False)}, rounds=5)
    report(
        "progress",
        {
            "steps": STEPS,
            "ms per step": 1e3 * median["none"] / STEPS,
            "cost of the bar, %": 100 * (median["bar"] / median["none"] - 1),
        },
    )


if __name__ == "__main__":
    main()
