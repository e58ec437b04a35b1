"""RealNVP on two moons, noise 0.05: test log-likelihood beside the exact optimum and a Gaussian mixture.

    python benchmarks/flow_two_moons.py

20,000 events to train, as many to test, three seeds, the recipe's defaults. It fails below -0.40 nats, or where the
model beats the true density by more than three standard errors of their difference, which only an error could do.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import numpy as np
from common import report

import jaxgen as jg

EVENTS = 20_000
TARGET = -0.40
NOISE = 0.05


def one(seed: int, steps: int) -> dict[str, Any]:
    """One fit: test log-likelihood, the true density's on the same events, and the difference's standard error."""
    train_key, test_key, start, key = jax.random.split(jax.random.key(seed), 4)
    train, test = (jg.data.two_moons(k, EVENTS, noise=NOISE) for k in (train_key, test_key))
    model, algorithm = jg.recipes.realnvp(start, train)
    fitted = jg.fit(key, model, train, algorithm, steps=steps, batch_size=256, progress=False)
    log_prob = np.asarray(fitted.model.log_prob(test), np.float64)
    optimum = np.asarray(jg.data.two_moons_log_density(test, noise=NOISE), np.float64)
    back = np.asarray(fitted.model.decode(fitted.model.encode(test)))
    return {
        "seed": seed, "test_log_likelihood": log_prob.mean(), "optimum": optimum.mean(),
        "difference": (log_prob - optimum).mean(), "standard_error": (log_prob - optimum).std(ddof=1) / EVENTS**0.5,
        "round_trip_error": np.abs(back - np.asarray(test)).max(), "compile_seconds": fitted.compile_seconds,
        "fit_seconds": fitted.seconds,
    }  # fmt: skip


def mixture(components: int = 16) -> float | None:
    """scikit-learn's Gaussian mixture on the events of seed 0, or None where it is not installed."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError:
        return None
    keys = jax.random.split(jax.random.key(0), 4)
    train, test = (np.asarray(jg.data.two_moons(k, EVENTS, noise=NOISE)) for k in keys[:2])
    return float(GaussianMixture(components, random_state=0).fit(train).score(test))


def main() -> None:
    parser = argparse.ArgumentParser(description="RealNVP on two moons.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    runs = [one(seed, args.steps) for seed in range(args.seeds)]
    passed = all(
        r["test_log_likelihood"] >= TARGET and r["difference"] <= 3 * r["standard_error"] for r in runs
    )
    row = {"kind": "exact", "target": TARGET, "steps": args.steps, "runs": runs, "passed": passed}
    report("flow_two_moons", {**row, "gaussian_mixture_16": mixture()})
    if not passed:
        raise SystemExit("two moons: outside of the target")


if __name__ == "__main__":
    main()
