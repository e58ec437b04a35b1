"""Speed of EM in this checkout beside another one, in interleaved processes on the same data.

    python benchmarks/versions.py OTHER_CHECKOUT [--rounds 2]

Prints for each workload the best time of a step of both, their ratio (above 1: this checkout is faster), and compares
the log-likelihoods that both reach. Compilation is not in the times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import report

HERE = Path(__file__).resolve().parent.parent


def workloads():
    """`(name, start, data, steps)` of each workload."""
    import jax
    import numpy as np

    import jaxgen as jg

    rng, key = np.random.default_rng(0), jax.random.key(0)

    def data(n, d, k):
        centers = rng.normal(size=(k, d)) * 4
        return (centers[rng.integers(k, size=n)] + rng.normal(size=(n, d))).astype(np.float32)

    def mixture(x, k, leaf):
        return lambda: jg.Mixture.init(key, x, k, leaf)

    def chain(x, k, leaf):
        return lambda: jg.HMM.init(key, x, k, leaf)

    def chains(x, k, states, leaf):
        return lambda: jg.Mixture.init(key, x, k, lambda key, x: jg.HMM.init(key, x, states, leaf))

    full, diagonal = jg.Gaussian.init, jg.DiagonalGaussian.init
    for name, x, k, leaf, steps in (
        ("mixture 100k x 16, K=32, full", data(100_000, 16, 32), 32, full, 6),
        ("mixture 200k x 8, K=16, diagonal", data(200_000, 8, 16), 16, diagonal, 10),
        ("mixture 5k x 2, K=5, full", data(5_000, 2, 5), 5, full, 100),
        ("mixture 20k x 4, K=8, full", data(20_000, 4, 8), 8, full, 40),
    ):
        yield name, mixture(x, k, leaf), x, steps
    many = data(64_000, 4, 16).reshape(64, 1000, 4)
    yield "HMM 64 x 1000 x 4, K=16, diagonal", chain(many, 16, diagonal), many, 8
    long = data(20_000, 3, 8).reshape(1, 20_000, 3)
    yield "HMM 1 x 20k x 3, K=8, full", chain(long, 8, full), long, 12
    short = data(12_000, 3, 8).reshape(60, 200, 3)
    yield "3 HMMs 60 x 200 x 3, K=8, full", chains(short, 3, 8, full), short, 10


def measure() -> None:
    """Prints `{name: (milliseconds a step, log-likelihood)}` of this process's jaxgen."""
    import jax

    import jaxgen as jg

    found = {}
    for name, start, x, steps in workloads():
        model, times = start(), []
        for _ in range(4):
            begun = time.perf_counter()
            fitted = jg.fit(jax.random.key(0), model, x, jg.EM(), steps=steps, tolerance=0.0, progress=False)
            times.append((time.perf_counter() - begun) / steps * 1e3)
        found[name] = (min(times[1:]), float(fitted.history["log_likelihood"][-1]))
    print(json.dumps(found))


def main() -> None:
    """Runs both checkouts in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="a checkout of another version")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, list[float]]]] = {"other": [], "this": []}
    for _ in range(options.rounds):
        for which, path in (("other", options.other.resolve()), ("this", HERE)):
            here = str(Path(__file__).resolve().parent)
            code = f"import sys; sys.path.insert(0, {here!r}); import versions; versions.measure()"
            run = subprocess.run(
                [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(path)}, cwd=path, text=True,
                stdout=subprocess.PIPE, check=True,
            )  # fmt: skip
            runs[which].append(json.loads(run.stdout.strip().splitlines()[-1]))
    rows = []
    for name in runs["this"][0]:
        other, this = (min(run[name][0] for run in runs[which]) for which in ("other", "this"))
        same = abs(runs["other"][0][name][1] - runs["this"][0][name][1])
        rows.append({"workload": name, "other_ms": other, "this_ms": this, "ratio": other / this, "difference": same})
        print(f"{name:36s} {other:8.2f} ms  {this:8.2f} ms  ratio {other / this:.2f}  difference {same:.1e} nats")
    report("versions", {"workloads": rows})


if __name__ == "__main__":
    main()
