"""Gaussian mixtures beside scikit-learn: equal step by step, and the time of an EM iteration.

    python benchmarks/mixture.py
"""

from __future__ import annotations

import jax
import numpy as np
from common import interleaved, report
from sklearn.mixture import GaussianMixture

import jaxgen as jg

STEPS = 20


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
        leaf = jg.Gaussian.from_covariance(means.astype(dtype), covariances, floor=0.0)
    else:
        scale = np.stack([np.sqrt(np.diag(covariance))] * k).astype(dtype)
        leaf = jg.DiagonalGaussian.from_scale(means.astype(dtype), scale, floor=0.0)
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


def speed(n: int, d: int, k: int, kind: str, dtype: type) -> dict[str, float]:
    """Milliseconds per EM iteration of both, interleaved."""
    with jax.enable_x64(dtype == np.float64):
        start = problem(n, d, k)
        model, x = ours(*start, kind, dtype)
        x = jax.device_put(x)
        reference, x_peer = peer(*start, kind, dtype)

        def iterate_peer():
            for _ in range(3):
                _, share = reference._e_step(x_peer)
                reference._m_step(x_peer, share)

        def iterate():
            return jg.fit(jax.random.key(0), model, x, jg.EM(), steps=3, tolerance=0.0)

        compile_seconds = iterate().compile_seconds
        median = interleaved({"jaxgen": iterate, "scikit-learn": iterate_peer}, rounds=5)
        row = {f"{name} ms": 1e3 * t / 3 for name, t in median.items()}
        return {**row, "ratio": median["scikit-learn"] / median["jaxgen"], "compile s": compile_seconds}


def main() -> None:
    row = {}
    for kind in ("full", "diag"):
        for dtype in (np.float64, np.float32):
            name = f"{kind} {np.dtype(dtype).name}"
            row[f"largest difference, nats per event, {name}"] = equality(kind, dtype)
            row[f"EM iteration 20k x 8, K=16, {name}"] = speed(20_000, 8, 16, kind, dtype)
    report("mixture", row)


if __name__ == "__main__":
    main()
