"""Restricted Boltzmann machines: log Z from both sides, exact likelihoods, and speed beside scikit-learn's.

    python benchmarks/rbm.py
    python benchmarks/rbm.py --only speed              # rounds in which nothing else ran
    python benchmarks/rbm.py --only speed --one-core   # processor seconds of one core, whatever else goes on

The machines R(nv, nh, s) have W_ij = s sin(1.7 (i+1) + 2.3 (j+1)), b_i = .3 cos(1.1 (i+1)) and
c_j = -.2 + .4 sin(.9 (j+1)), indices from 0. Digits are 8 by 8, a pixel is on at 8 of 16 or more, 1500 to train and 297
to test, 16 hidden units, `fit` with its defaults; every likelihood is exact, scikit-learn's too. Bars and stripes are
the 30 patterns of 4 by 4 pixels whose rows or whose columns are each of one colour: the best is -log 30.

Speed is that of one epoch of PCD-1 on 10,000 rows of 784 bits, 256 hidden units, batches of 128: compiled, in turns
with scikit-learn's `BernoulliRBM`, whose algorithm is that of `Persistent(reuse=True)`. A step makes the products of
[128, 784] by [784, 256] for the chains' visible units, and those of twice the rows for both phases and for their
gradient: five times 51.4 MFLOP. Other `Persistent` chains, whose hidden units are drawn by the present parameters, take
a sixth.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import interleaved, report, undisturbed

import jaxgen as jg
from jaxgen.core.inputs import Batch
from jaxgen.fit.negative import Persistent
from jaxgen.metrics import ais, bracket, log_likelihood, reverse_ais, smc
from jaxgen.metrics.bridge import bar, replica_exchange

SEEDS = (0, 1, 2)
#: scikit-learn's learning rate and epochs at its default batch of 10
PEERS = ((0.02, 50), (0.1, 50), (0.02, 200), (0.1, 200))


def family(nv: int, nh: int, s: float) -> Any:
    i, j = np.arange(1, nv + 1.0), np.arange(1, nh + 1.0)
    w = s * np.sin(1.7 * i[:, None] + 2.3 * j)
    return jg.RBM.from_values(0.3 * np.cos(1.1 * i), -0.2 + 0.4 * np.sin(0.9 * j), w)


def partition_functions() -> dict[str, Any]:
    """log Z of three machines, enumerated, and by ten runs of 500 chains at 1000 even temperatures both ways."""
    both = {
        "ais": lambda key, rbm: ais(key, rbm),
        "smc": lambda key, rbm: smc(key, rbm),
        "reverse": lambda key, rbm: reverse_ais(key, rbm, rbm.sample_exact(jax.random.fold_in(key, 1), (500,))),
        "replica_exchange": lambda key, rbm: replica_exchange(key, rbm)[0],
    }
    keys = jax.random.split(jax.random.key(0), 10)
    rows = {}
    for nv, nh, s in ((4, 3, 1.0), (8, 6, 2.0), (30, 16, 1.0)):
        rbm = family(nv, nh, s)
        exact = float(rbm.log_partition())
        row: dict[str, Any] = {"log_z": exact}
        found = {}
        for name, estimate in both.items():
            run = jax.jit(jax.vmap(estimate, in_axes=(0, None)))
            jax.block_until_ready(run(keys, rbm))  # compile
            begin = time.perf_counter()
            runs = found[name] = jax.block_until_ready(run(keys, rbm))
            seconds = (time.perf_counter() - begin) / len(keys)
            error = np.asarray(runs.log_z) - exact
            row[name] = {
                "worst_error": np.abs(error).max(), "mean_error": error.mean(), "spread": error.std(ddof=1),
                "standard_error": runs.standard_error.mean(), "ess": runs.ess.mean(), "seconds": seconds,
            }  # fmt: skip
        ratio = jax.vmap(bar)(found["ais"], found["reverse"])
        row["bar"] = {
            "worst_error": np.abs(ratio.log_z - exact).max(), "standard_error": ratio.standard_error.mean(),
        }  # fmt: skip
        brackets = [bracket(key, rbm, rbm.sample_exact(jax.random.fold_in(key, 1), (500,))) for key in keys]
        row["bracket"] = {
            "contains_the_truth": sum(b.low < exact < b.high for b in brackets), "of": len(brackets),
            "widest": max(b.width for b in brackets),
        }  # fmt: skip
        rows[f"R({nv},{nh},{s:g})"] = row
    return rows


def bars_and_stripes() -> dict[str, Any]:
    """Exact mean log-likelihood of all 30 patterns, 16 hidden units, 20,000 updates of the default trainer."""
    rows = (np.arange(16)[:, None] >> np.arange(4)) & 1
    x = np.unique(np.concatenate([np.repeat(rows, 4, axis=1), np.tile(rows, 4)]), axis=0).astype(np.float32)
    found = []
    for seed in SEEDS:
        start, key = jax.random.split(jax.random.key(seed))
        fitted = jg.fit(key, jg.RBM.init(start, x, 16), x, steps=20_000, progress=False)
        found.append(log_likelihood(fitted.model, x).mean)
    return {"patterns": len(x), "optimum": -np.log(len(x)), "log_likelihood": found, "asked": -3.6, "steps": 20_000}


def speed(timed: Any) -> dict[str, Any]:
    """Seconds of an epoch, in turns with scikit-learn's, and the arithmetic of it."""
    n, v, h, batch = 10_000, 784, 256, 128
    steps = n // batch
    x = (np.random.default_rng(0).random((n, v)) < 0.2).astype(np.float32)
    start, data = jg.RBM.init(jax.random.key(0), x, h), jnp.asarray(x)

    def trainer(negative: Any) -> Any:
        return jg.ContrastiveDivergence(optax.sgd(0.01), negative=negative, average=None)

    @functools.partial(jax.jit, static_argnames="algorithm")
    def epoch(key: Any, state: Any, data: Any, algorithm: Any) -> Any:
        def step(state: Any, inputs: Any) -> Any:
            t, rows = inputs
            return algorithm.step(jax.random.fold_in(key, t), state, Batch(rows))

        batches = data[: steps * batch].reshape(steps, batch, v)
        return jax.lax.scan(step, state, (jnp.arange(steps), batches))

    def call(algorithm: Any) -> Any:
        state = jax.jit(algorithm.init)(jax.random.key(1), start)
        return lambda: jax.block_until_ready(epoch(jax.random.key(2), state, data, algorithm))

    calls: dict[str, Any] = {
        "jaxgen": call(trainer(Persistent(batch, reuse=True))), "jaxgen, persistent": call(trainer(Persistent(batch))),
        "products alone": lambda: jax.block_until_ready(_products(start.weights, data[:batch], steps)),
    }  # fmt: skip
    try:
        from sklearn.neural_network import BernoulliRBM
    except ImportError:
        pass
    else:
        for dtype in (np.float64, np.float32):
            peer = BernoulliRBM(h, learning_rate=0.01, batch_size=batch, n_iter=1, random_state=0)
            calls[f"scikit-learn {np.dtype(dtype).name}"] = functools.partial(peer.fit, x.astype(dtype))
    seconds = timed(calls)
    if not seconds:
        raise SystemExit("other programs never left the machine alone; --patience, or --one-core")
    fitted = jg.fit(
        jax.random.key(3), start, data, trainer(Persistent(batch, reuse=True)), steps=10 * steps, batch_size=batch,
        progress=False,
    )
    flops = steps * 5 * 2 * batch * v * h
    # weights are read by two products and by the update, written by it, and their gradient both; the rest is batches,
    # samples and fields
    floats = steps * (6 * v * h + 7 * batch * v + 10 * batch * h)
    return {
        "seconds": seconds, "ratio": {k: t / seconds["jaxgen"] for k, t in seconds.items() if "scikit" in k},
        "asked": {"scikit-learn float64": 3.4, "scikit-learn float32": 2.2},
        "wall_seconds_of_an_epoch_in_fit": fitted.seconds / 10, "gigaflops_of_products": flops / 1e9,
        "gigaflops_per_second": flops / seconds["jaxgen"] / 1e9, "gigabytes": 4 * floats / 1e9,
        "share_of_the_products_own_speed": seconds["products alone"] / seconds["jaxgen"],
    }  # fmt: skip


@functools.partial(jax.jit, static_argnames="steps")
def _products(weights: jax.Array, chains: jax.Array, steps: int) -> Any:
    """The matrix products of so many steps and nothing else, for the limit that they set."""

    def step(carry: Any, _: Any) -> Any:
        weights, field = carry
        both = jnp.concatenate([chains, field @ weights.T])
        new = both @ weights
        return (weights + 1e-9 * (both.T @ new), new[len(chains) :]), None

    return jax.lax.scan(step, (weights, chains @ weights), None, length=steps)[0]


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
    held = log_likelihood(fitted.model, test, bracket(jax.random.key(9), fitted.model, fitted.state.chains))
    return {
        "test_log_likelihood": [s.mean for s in ours], "kind": ours[0].kind, "steps": fitted.steps, "asked": -18.5,
        "same_by_annealing": {"exact": ours[-1].mean, "estimate": held.mean, "bracket": [held.low, held.high]},
        "seconds_cold_then_warm": seconds, "scikit_learn": scikit_learn(train, test),
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
        rbm = jg.RBM.from_values(peer.intercept_visible_, peer.intercept_hidden_, peer.components_.T)
        rows[f"rate {rate}, {epochs} epochs"] = {
            "test_log_likelihood": log_likelihood(rbm, test).mean, "seconds": seconds,
        }  # fmt: skip
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("figures", "speed"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for a quiet machine")
    parser.add_argument("--one-core", action="store_true")
    options = parser.parse_args()
    if options.only != "speed":
        row = {"partition_functions": partition_functions(), "bars_and_stripes": bars_and_stripes(), "digits": digits()}
        report("rbm", row)
    if options.only != "figures":
        if options.one_core:
            from threadpoolctl import threadpool_limits  # scikit-learn brings it

            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
            with threadpool_limits(1):
                timed = functools.partial(interleaved, rounds=options.rounds, clock=time.process_time)
                report("rbm_speed_one_core", speed(timed))
        else:
            report("rbm_speed", speed(functools.partial(undisturbed, rounds=options.rounds, patience=options.patience)))
