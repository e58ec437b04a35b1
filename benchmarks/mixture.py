"""Gaussian mixtures beside scikit-learn: equal step by step, and the time of an EM iteration.

    python benchmarks/mixture.py
    python benchmarks/mixture.py --gmmx    # gmmx on its own workload, in an environment that has it; takes minutes
"""

from __future__ import annotations

import sys
import time

import jax
import numpy as np
from common import interleaved, report
from sklearn.mixture import GaussianMixture

import jaxgen as jg
from jaxgen.core import algebra

STEPS = 20
#: what an EM iteration of the peer changes
PARAMETERS = ("weights_", "means_", "precisions_cholesky_")


def problem(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Float32 data, and a common start: means at events, the covariance of all data."""
    rng = np.random.default_rng(0)
    centers = 4 * rng.normal(size=(k, d))
    factors = rng.normal(size=(k, d, d)) / np.sqrt(d)
    label = rng.integers(0, k, n)
    x = (centers[label] + np.einsum("nde,ne->nd", factors[label], rng.normal(size=(n, d)))).astype(np.float32)
    return x, x[rng.choice(n, k, replace=False)].astype(np.float64), np.cov(x.T.astype(np.float64))


def ours(x, means, covariance, kind, dtype):
    k = len(means)
    if kind == "full":
        covariances = np.stack([covariance] * k).astype(dtype)
        leaf = jg.Gaussian.from_values(means.astype(dtype), covariances, floor=0.0)
    else:
        scale = np.stack([np.sqrt(np.diag(covariance))] * k).astype(dtype)
        leaf = jg.DiagonalGaussian.from_values(means.astype(dtype), scale, floor=0.0)
    return jg.Mixture.from_components(leaf), x.astype(dtype)


def peer(x, means, covariance, kind, dtype):
    k = len(means)
    precisions = np.stack([np.linalg.inv(covariance) if kind == "full" else 1 / np.diag(covariance)] * k)
    model = GaussianMixture(
        k, covariance_type=kind, weights_init=np.full(k, 1 / k), means_init=means, precisions_init=precisions,
        reg_covar=0.0,
    )
    x = x.astype(dtype)
    model._initialize_parameters(x, np.random.RandomState(0))
    return model, x


def equality(kind: str, dtype: type) -> float:
    """The largest difference of the log-likelihood per event over STEPS iterations; the peer works in float64.

    The problem has no component that shrinks to a few events: there float32 follows another path, scikit-learn's too.
    """
    with jax.enable_x64(dtype == np.float64):
        start = problem(4000, 3, 4)
        model, x = ours(*start, kind, dtype)
        fitted = jg.fit(jax.random.key(0), model, x, jg.EM(), steps=STEPS, tolerance=0.0)
        reference, x64 = peer(*start, kind, np.float64)
        expected = []
        for _ in range(STEPS):
            value, share = reference._e_step(x64)
            reference._m_step(x64, share)
            expected.append(value)
        return float(np.abs(fitted.history["log_likelihood"] - np.array(expected)).max())


def workload(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Float32 data of overlapping components for timing, and a common start."""
    rng = np.random.default_rng(0)
    centers, factors = 1.5 * rng.normal(size=(k, d)), 0.6 * rng.normal(size=(k, d, d)) / np.sqrt(d)
    label = rng.integers(0, k, n)
    x = centers[label] + 0.3 * rng.normal(size=(n, d))
    for one in range(k):  # a component at a time: no copy of a factor for each event
        rows = label == one
        x[rows] += rng.normal(size=(rows.sum(), d)) @ factors[one].T
    return x.astype(np.float32), x[rng.choice(n, k, replace=False)], np.cov(x.T)


def iterations(model, x, steps: int):
    """The compiled program of so many EM iterations, all of it: what is prepared of the data is prepared in it."""
    call = jax.jit(lambda m, x: jg.scan_fit(jax.random.key(0), m, x, jg.EM(), steps=steps, tolerance=-1.0))
    begun = time.perf_counter()
    program = call.lower(model, x).compile()
    return program, time.perf_counter() - begun


def speed(n: int, d: int, k: int, kind: str, dtype: type, steps: int, rounds: int) -> dict[str, float]:
    """Milliseconds per EM iteration of both, interleaved, after their log-likelihoods were compared."""
    with jax.enable_x64(dtype == np.float64):
        start = workload(n, d, k)
        model, x = ours(*start, kind, dtype)
        x = jax.device_put(x)
        reference, x_peer = peer(*start, kind, dtype)
        begin = [getattr(reference, name).astype(dtype) for name in PARAMETERS]
        program, compile_seconds = iterations(model, x, steps)
        last = {}

        def iterate_peer():
            for name, value in zip(PARAMETERS, begin, strict=True):
                setattr(reference, name, value)
            for _ in range(steps):
                last["scikit-learn"], share = reference._e_step(x_peer)
                reference._m_step(x_peer, share)

        def iterate():
            last["jaxgen"] = float(program(model, x).history["log_likelihood"][-1])

        median = interleaved({"jaxgen": iterate, "scikit-learn": iterate_peer}, rounds=rounds)
        row = {f"{name} ms": 1e3 * t / steps for name, t in median.items()}
        ratio = median["scikit-learn"] / median["jaxgen"]
        difference = abs(last["jaxgen"] - float(last["scikit-learn"]))
        return {**row, "ratio": ratio, "difference, nats per event": difference, "compile s": compile_seconds}


def restarts(n: int, d: int, k: int, dtype: type, count: int, steps: int, rounds: int) -> dict[str, float]:
    """The same for so many restarts at once, per iteration of one restart; the peer makes one after the other."""
    with jax.enable_x64(dtype == np.float64):
        x, _, covariance = workload(n, d, k)
        rng = np.random.default_rng(1)
        starts = [x[rng.choice(n, k, replace=False)].astype(np.float64) for _ in range(count)]
        models = algebra.stack([ours(x, means, covariance, "full", dtype)[0] for means in starts])
        data = jax.device_put(x.astype(dtype))
        peers = [peer(x, means, covariance, "full", dtype) for means in starts]
        run = jax.jit(
            jax.vmap(
                lambda m, x: jg.scan_fit(jax.random.key(0), m, x, jg.EM(), steps=steps, tolerance=-1.0), (0, None)
            )
        )
        begun = time.perf_counter()
        program = run.lower(models, data).compile()
        compile_seconds, last = time.perf_counter() - begun, {}
        begin = [[getattr(one, name).astype(dtype) for name in PARAMETERS] for one, _ in peers]

        def iterate_peer():
            last["scikit-learn"] = []
            for (one, x_peer), values in zip(peers, begin, strict=True):
                for name, value in zip(PARAMETERS, values, strict=True):
                    setattr(one, name, value)
                for _ in range(steps):
                    value, share = one._e_step(x_peer)
                    one._m_step(x_peer, share)
                last["scikit-learn"].append(float(value))

        def iterate():
            last["jaxgen"] = np.asarray(program(models, data).history["log_likelihood"][:, -1])

        median = interleaved({"jaxgen": iterate, "scikit-learn": iterate_peer}, rounds=rounds)
        row = {f"{name} ms": 1e3 * t / steps / count for name, t in median.items()}
        difference = float(np.abs(last["jaxgen"] - last["scikit-learn"]).max())
        ratio = median["scikit-learn"] / median["jaxgen"]
        return {**row, "ratio": ratio, "difference, nats per event": difference, "compile s": compile_seconds}


def beside_gmmx(n: int = 8192, d: int = 32, k: int = 64, steps: int = 2) -> dict[str, float]:
    """gmmx (`pip install gmmx`) on an eighth of the workload that it publishes: it holds `[N, K, D, D]` in memory, 17
    GiB on the whole. Two iterations, in float32: from the third on it hangs with jaxlib 0.10 on two cores, whose
    triangular solves of batches wait for each other."""
    from gmmx import EMFitter, GaussianMixtureModelJax

    x, means, covariance = workload(n, d, k)
    model, _ = ours(x, means, covariance, "full", np.float32)
    data = jax.device_put(x)
    program, compile_seconds = iterations(model, data, steps)
    covariances = np.stack([covariance] * k).astype(np.float32)
    rival = GaussianMixtureModelJax.from_squeezed(
        means=means.astype(np.float32), covariances=covariances, weights=np.full(k, 1 / k, np.float32)
    )
    fitter, last = EMFitter(max_iter=steps, tol=-1.0, reg_covar=0.0), {}

    def iterate():
        last["jaxgen"] = float(program(model, data).history["log_likelihood"][-1])

    def iterate_rival():
        fitted = fitter.fit(x=data, gmm=rival)
        jax.block_until_ready(fitted.gmm)
        last["gmmx"], last["iterations"] = float(fitted.log_likelihood), int(fitted.n_iter)

    median = interleaved({"jaxgen": iterate, "gmmx": iterate_rival}, rounds=1)
    row = {"jaxgen ms": 1e3 * median["jaxgen"] / steps, "gmmx ms": 1e3 * median["gmmx"] / last["iterations"]}
    difference = abs(last["jaxgen"] - last["gmmx"])
    return {**row, "ratio": row["gmmx ms"] / row["jaxgen ms"], "difference, nats per event": difference,
            "gmmx iterations": last["iterations"], "compile s": compile_seconds}  # fmt: skip


def main() -> None:
    row = {}
    for dtype in (np.float64, np.float32):
        name = np.dtype(dtype).name
        for kind in ("full", "diag"):
            row[f"largest difference, nats per event, {kind} {name}"] = equality(kind, dtype)
        row[f"100k x 16, K=32, full, {name}"] = speed(100_000, 16, 32, "full", dtype, steps=5, rounds=3)
        row[f"1M x 8, K=16, diagonal, {name}"] = speed(1_000_000, 8, 16, "diag", dtype, steps=3, rounds=3)
        row[f"5k x 2, K=5, full, {name}"] = speed(5_000, 2, 5, "full", dtype, steps=50, rounds=7)
        row[f"5k x 2, K=5, full, 10 restarts, {name}"] = restarts(5_000, 2, 5, dtype, count=10, steps=50, rounds=3)
    report("mixture", row)


if __name__ == "__main__":
    if "--gmmx" in sys.argv:
        report("mixture_gmmx", {"8192 x 32, K=64, full, float32": beside_gmmx()})
    else:
        main()
