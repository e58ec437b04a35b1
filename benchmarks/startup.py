"""How long a new process waits: the import, and the first small mixture fit with its compilation, without and with
JAX's persistent compilation cache.

    python benchmarks/startup.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from common import report

IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
FIT = """
import time
import jax, numpy as np, jaxgen as jg
x = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32)
x[:2500] += 4
jax.devices()
t = time.perf_counter()
start = jg.Mixture.init(jax.random.key(0), x, 5, jg.Gaussian.init)
jax.block_until_ready(start)
middle = time.perf_counter()
jg.fit(jax.random.key(1), start, x, steps=50)
print(time.perf_counter() - middle, middle - t)
"""


def run(code: str, cache: str | None = None) -> list[float]:
    """The numbers that a new Python prints; `cache` is a folder for compiled programs."""
    keep = {"JAX_COMPILATION_CACHE_DIR": cache or "", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = os.environ | (keep if cache else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return [float(word) for word in done.stdout.split()]


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    rounds = [(run(IMPORT.format("jax"))[0], run(IMPORT.format("jax, jaxgen"))[0], *run(FIT)) for _ in range(5)]
    jax, both, fit, init = (median(list(column)) for column in zip(*rounds, strict=True))
    with tempfile.TemporaryDirectory() as cache:
        run(FIT, cache)
        again = [run(FIT, cache) for _ in range(5)]
        cached, cached_init = (median(list(column)) for column in zip(*again, strict=True))
    report(
        "startup",
        {
            "import jax, s": jax,
            "import jaxgen over import jax, s": both - jax,
            "first fit of a mixture (5000 x 2, K=5), cold, s": fit,
            "its k-means start before that, cold, s": init,
            "first fit with the persistent cache, s": cached,
            "its k-means start with the persistent cache, s": cached_init,
        },
    )


if __name__ == "__main__":
    main()
