"""The drop-in `jaxgen.sklearn.GaussianMixture` beside scikit-learn's, and beside the compiled EM that it stands on.

    python benchmarks/drop_in_speed.py

The workloads are those of `benchmarks/mixture.py`. All make as many steps from the same start; whole fits are timed,
with all checks of the data, and divided by the steps. The share is what the estimator keeps of the native speed. The
first fit is timed in a process of its own, after the imports, without programs kept on disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import jax
import numpy as np
import sklearn.mixture
from common import interleaved, report
from mixture import iterations, ours, workload
from sklearn.exceptions import ConvergenceWarning

import jaxgen.sklearn

FIRST = """
import time, numpy as np, jax, jaxgen.sklearn
jax.numpy.ones(3).block_until_ready()
x = np.random.default_rng(0).normal(size=(5000, 2)).astype({dtype!r})
x[:2500] += 3
begun = time.perf_counter()
jaxgen.sklearn.GaussianMixture(5, random_state=0).fit(x)
print(time.perf_counter() - begun)
"""


def first_fit(dtype: str) -> float:
    """Seconds of the first fit of 5000 x 2 numbers, K = 5, its k-means included."""
    hidden = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FIRST.format(dtype=dtype)], env=hidden, check=True,
                          capture_output=True, text=True)  # fmt: skip
    return float(done.stdout.split()[-1])


def speed(n: int, d: int, k: int, kind: str, dtype: type, steps: int, rounds: int) -> dict[str, float]:
    """Milliseconds per EM iteration of the three, interleaved, after their bounds were compared."""
    start = workload(n, d, k)
    x, means, covariance = start[0].astype(dtype), *start[1:]
    precision = np.stack([np.linalg.inv(covariance) if kind == "full" else 1 / np.diag(covariance)] * k)
    options = {
        "covariance_type": kind, "weights_init": np.full(k, 1 / k), "means_init": means, "precisions_init": precision,
        "max_iter": steps, "tol": 0.0,
    }  # fmt: skip
    estimators = {
        "estimator": jaxgen.sklearn.GaussianMixture(k, **options),
        "scikit-learn": sklearn.mixture.GaussianMixture(k, **options),
    }  # fmt: skip
    with jax.enable_x64(dtype == np.float64):
        model, data = ours(*start, kind, dtype)
        data = jax.device_put(data)
        program, _ = iterations(model, data, steps)

        def native() -> None:
            jax.block_until_ready(program(model, data).model)

        calls = {name: (lambda one=one: one.fit(x)) for name, one in estimators.items()}
        median = interleaved({"native": native, **calls}, rounds=rounds)
    bounds = [one.lower_bound_ for one in estimators.values()]
    return {
        **{f"{name} ms": 1e3 * seconds / steps for name, seconds in median.items()},
        "over scikit-learn": median["scikit-learn"] / median["estimator"],
        "share of the native speed": median["native"] / median["estimator"],
        "difference, nats per event": abs(bounds[0] - bounds[1]),
    }


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows: dict[str, object] = {}
    for dtype in (np.float32, np.float64):
        name = np.dtype(dtype).name
        rows[f"100k x 16, K=32, full, {name}"] = speed(100_000, 16, 32, "full", dtype, 20, 3)
        rows[f"1M x 8, K=16, diagonal, {name}"] = speed(1_000_000, 8, 16, "diag", dtype, 20, 3)
        rows[f"5k x 2, K=5, full, {name}"] = speed(5000, 2, 5, "full", dtype, 100, 7)
        rows[f"first fit, {name}, s"] = first_fit(name)
    report("drop_in_speed", rows)


if __name__ == "__main__":
    main()
