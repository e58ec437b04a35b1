"""Restricted Boltzmann machines: log Z exact and annealed, and digits by their exact likelihood beside scikit-learn's.

    python benchmarks/rbm.py

The machines R(nv, nh, s) have W_ij = s sin(1.7 (i+1) + 2.3 (j+1)), b_i = .3 cos(1.1 (i+1)) and
c_j = -.2 + .4 sin(.9 (j+1)), indices from 0. Digits are 8 by 8, a pixel is on at 8 of 16 or more, 1500 to train and 297
to test, 16 hidden units, `fit` with its defaults; every likelihood is exact, scikit-learn's too.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
from common import report

import jaxgen as jg
from jaxgen.metrics.partition import ais, log_likelihood

SEEDS = (0, 1, 2)
#: scikit-learn's learning rate and epochs at its default batch of 10
PEERS = ((0.02, 50), (0.1, 50), (0.02, 200), (0.1, 200))


def family(nv: int, nh: int, s: float) -> Any:
    i, j = np.arange(1, nv + 1.0), np.arange(1, nh + 1.0)
    w = s * np.sin(1.7 * i[:, None] + 2.3 * j)
    return jg.RBM.from_parameters(0.3 * np.cos(1.1 * i), -0.2 + 0.4 * np.sin(0.9 * j), w)


def partition_functions() -> dict[str, Any]:
    """log Z of three machines, enumerated, and by ten runs of 500 chains at 1000 even temperatures."""
    anneal = jax.jit(jax.vmap(ais, in_axes=(0, None)))
    keys = jax.random.split(jax.random.key(0), 10)
    rows = {}
    for nv, nh, s in ((4, 3, 1.0), (8, 6, 2.0), (30, 16, 1.0)):
        rbm = family(nv, nh, s)
        jax.block_until_ready(anneal(keys, rbm))  # compile
        begin = time.perf_counter()
        runs = jax.block_until_ready(anneal(keys, rbm))
        seconds = (time.perf_counter() - begin) / len(keys)
        error = np.asarray(runs.log_z - rbm.log_partition())
        rows[f"R({nv},{nh},{s:g})"] = {
            "log_z": rbm.log_partition(), "ais_worst_error": np.abs(error).max(), "ais_spread": error.std(ddof=1),
            "ais_standard_error": runs.standard_error.mean(), "ais_ess": runs.ess.mean(), "ais_seconds": seconds,
        }  # fmt: skip
    return rows


def digits() -> dict[str, Any]:
    """Exact held-out log-likelihood, nats per image, of the default fit."""
    d = jg.data.digits()
    x = (d.images >= 8).reshape(-1, 64).astype(np.float32)
    train, test = x[d.train], x[d.test]
    ours, seconds = [], []
    for seed in SEEDS:
        start, key = jax.random.split(jax.random.key(seed))
        begin = time.perf_counter()
        fitted = jg.fit(key, jg.RBM.init(start, train, 16), train, progress=False)
        seconds.append(time.perf_counter() - begin)
        ours.append(log_likelihood(fitted.model, test))
    estimate = log_likelihood(fitted.model, test, ais(jax.random.key(9), fitted.model))
    return {
        "test_log_likelihood": [s.mean for s in ours], "kind": ours[0].kind, "steps": fitted.steps,
        "same_by_ais": [ours[-1].mean, estimate.mean], "seconds_cold_then_warm": seconds,
        "scikit_learn": scikit_learn(train, test),
    }  # fmt: skip


def scikit_learn(train: np.ndarray, test: np.ndarray) -> dict[str, Any] | None:
    """The same likelihood of scikit-learn's machines at four settings, or None where it is not installed."""
    try:
        from sklearn.neural_network import BernoulliRBM
    except ImportError:
        return None
    rows = {}
    for rate, epochs in PEERS:
        begin = time.perf_counter()
        peer = BernoulliRBM(16, learning_rate=rate, n_iter=epochs, random_state=0).fit(train)
        seconds = time.perf_counter() - begin
        rbm = jg.RBM.from_parameters(peer.intercept_visible_, peer.intercept_hidden_, peer.components_.T)
        rows[f"rate {rate}, {epochs} epochs"] = {
            "test_log_likelihood": log_likelihood(rbm, test).mean, "seconds": seconds,
        }  # fmt: skip
    return rows


if __name__ == "__main__":
    report("rbm", {"partition_functions": partition_functions(), "digits": digits()})
