"""Whole fits of hidden Markov models beside hmmlearn: 50 iterations of EM, sequences of one length and of many.

    python benchmarks/hmm_fits.py float32
    python benchmarks/hmm_fits.py float64

Later iterations are not like the first: transitions that never happen go to 1e-10, 1e-19, 1e-28 and zero. The peer
works in probability space (`implementation="scaling"`) and in float64 only; both start from the same values, and their
likelihoods are compared, after 5 iterations and after all, before anything is timed. Compilation is apart.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
import warnings
from typing import Any

import jax
import numpy as np
from common import interleaved, report
from hmmlearn import hmm as peers

import jaxgen as jg

STEPS = 50
#: name, emissions, lengths, states, columns or symbols
FITS: tuple[tuple[str, str, list[int], int, int], ...] = (
    ("diagonal, K=24 D=8, 40 x 400..1180", "diagonal", [*range(400, 1181, 20)], 24, 8),
    ("diagonal, K=24 D=8, 40 x 790", "diagonal", [790] * 40, 24, 8),
    ("diagonal, K=12 D=4, 1 x 50k", "diagonal", [50_000], 12, 4),
    ("categorical, K=10 V=30, 1 x 150k", "categorical", [150_000], 10, 30),
    ("diagonal, K=4 D=2, 1 x 2000", "diagonal", [2000], 4, 2),
)


def problem(kind: str, lengths: list[int], k: int, d: int) -> dict[str, Any]:
    """Sequences of a sticky chain, and a start that is not where they come from; float64."""
    rng = np.random.default_rng(0)
    transition = 0.85 * np.eye(k) + 0.15 * rng.dirichlet(np.ones(k), k)
    until = np.cumsum(transition, axis=1)
    center, share = 3 * rng.normal(size=(k, d)), rng.dirichlet(np.full(d, 0.3), k)
    sequences = []
    for length in lengths:
        path, uniform = np.empty(length, int), rng.random(length)
        path[0] = rng.integers(k)
        for t in range(1, length):
            path[t] = min(np.searchsorted(until[path[t - 1]], uniform[t]), k - 1)
        if kind == "categorical":
            drawn = (np.cumsum(share, axis=1)[path] < rng.random((length, 1))).sum(1)
            sequences.append(np.minimum(drawn, d - 1).astype(np.int32))
        else:
            sequences.append(center[path] + rng.normal(size=(length, d)))
    return {
        "sequences": sequences, "initial": np.full(k, 1 / k), "transition": 0.5 * np.eye(k) + 0.5 / k,
        "mean": center + rng.normal(size=center.shape), "share": 0.5 * share + 0.5 * rng.dirichlet(np.ones(d), k),
    }  # fmt: skip


def ours(p: dict[str, Any], kind: str, dtype: type) -> tuple[jg.HMM, Any]:
    """The model at the start and its data: an array where all lengths are equal."""
    emissions = (
        jg.Categorical.from_values(p["share"].astype(dtype)) if kind == "categorical" else
        jg.DiagonalGaussian.from_values(p["mean"].astype(dtype), np.full(p["mean"].shape, 1.5, dtype))
    )  # fmt: skip
    rows = [s if kind == "categorical" else s.astype(dtype) for s in p["sequences"]]
    equal = len({len(row) for row in rows}) == 1
    x = np.stack(rows) if equal else jg.Sequences.pack(rows)
    return jg.HMM.from_values(p["initial"].astype(dtype), p["transition"].astype(dtype), emissions), x


def peer(p: dict[str, Any], kind: str, steps: int) -> Any:
    """A call that fits hmmlearn's model from the start, without its priors, and returns it."""
    k = len(p["initial"])
    options = dict(n_components=k, n_iter=steps, tol=-np.inf, init_params="", implementation="scaling")
    make = {
        "categorical": functools.partial(peers.CategoricalHMM, n_features=p["share"].shape[1], **options),
        "diagonal": functools.partial(peers.GaussianHMM, covariance_type="diag", covars_prior=0.0, covars_weight=0.0,
                                      min_covar=0.0, **options),
    }[kind]  # fmt: skip
    flat = np.concatenate(p["sequences"])
    flat, lengths = flat.reshape(len(flat), -1), [len(s) for s in p["sequences"]]

    def fit() -> Any:
        model = make()
        model.startprob_, model.transmat_ = p["initial"].copy(), p["transition"].copy()
        if kind == "categorical":
            model.emissionprob_ = p["share"].copy()
        else:
            model.means_, model.covars_ = p["mean"].copy(), np.full(p["mean"].shape, 2.25)
        return model.fit(flat, lengths)

    return fit


def beside(kind: str, lengths: list[int], k: int, d: int, dtype: type, rounds: int = 1) -> dict[str, float]:
    """Milliseconds per iteration of both, and how far their likelihoods are apart, in nats per time step."""
    p = problem(kind, lengths, k, d)
    steps = sum(lengths)
    with jax.enable_x64(dtype == np.float64):
        model, x = ours(p, kind, dtype)
        fit = lambda n=STEPS: jg.fit(jax.random.key(0), model, x, jg.EM(), steps=n, tolerance=0.0)  # noqa: E731
        first = fit()
        row = {"compile s": first.compile_seconds}
        history = np.asarray(first.history["log_likelihood"], float) * len(lengths) / steps
        theirs = np.array(peer(p, kind, STEPS)().monitor_.history) / steps
        row["difference after 5, nats per step"] = float(np.abs(history[:5] - theirs[:5]).max())
        row["difference after all, nats per step"] = float(abs(history[-1] - theirs[-1]))
        calls, times = {"jaxgen": fit, "hmmlearn": peer(p, kind, STEPS)}, {"jaxgen": [], "hmmlearn": []}
        for _ in range(rounds):  # in turns; both are warm
            for name, call in calls.items():
                begun = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - begun) / STEPS)
    row |= {f"{name} ms": 1e3 * min(t) for name, t in times.items()}
    return {**row, "ratio": row["hmmlearn ms"] / row["jaxgen ms"]}


def viterbi(steps: int, k: int, dtype: type, rounds: int = 5) -> dict[str, float]:
    """Milliseconds of one call, and how many states are others than the peer's."""
    from hmmlearn import _hmmc

    rng = np.random.default_rng(0)
    a = 0.4 * rng.dirichlet(np.full(k, 5.0), k) + 0.6 * np.eye(k)
    rows = 2 * rng.normal(size=(steps, k))
    with jax.enable_x64(dtype == np.float64):
        args = [jax.numpy.asarray(x, dtype) for x in (np.full(k, -np.log(k)), np.log(a), rows)]
        begun = time.perf_counter()
        program = jax.jit(jg.ops.chains.viterbi).lower(*args).compile()
        compile_seconds = time.perf_counter() - begun
        rows = np.asarray(args[2], np.float64)
        theirs = lambda: _hmmc.viterbi(np.full(k, 1 / k), a, rows)  # noqa: E731
        off = int((np.asarray(program(*args).path) != theirs()[1]).sum())
        calls = {"jaxgen": lambda: jax.block_until_ready(program(*args)), "hmmlearn": theirs}
        median = interleaved(calls, rounds=rounds)
    row = {f"{name} ms": 1e3 * t for name, t in median.items()}
    return {**row, "ratio": median["hmmlearn"] / median["jaxgen"], "steps off": off, "compile s": compile_seconds}


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)  # it calls equal steps at the optimum not converging
    dtype = {"float32": np.float32, "float64": np.float64}[sys.argv[1]]
    row: dict[str, object] = {f"{STEPS} iterations, {name}": beside(*shape, dtype) for name, *shape in FITS}
    for steps, k in ((50_000, 16), (100_000, 8)):
        row[f"Viterbi, K={k} T={steps}"] = viterbi(steps, k, dtype)
    report(f"hmm_fits_{sys.argv[1]}", row)


if __name__ == "__main__":
    main()
