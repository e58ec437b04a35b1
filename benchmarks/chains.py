"""Hidden Markov chains beside hmmlearn's C functions and dynamax: equal first, then timed in turns.

    python benchmarks/chains.py            (pip install hmmlearn dynamax; dynamax may be missing)
    python benchmarks/chains.py --long     T = 1 000 000 in float32 against float64

The peers get likelihoods as they take them: hmmlearn's scaling functions exponentials, which it computes from logs in
the timed call, as its EM does; the smoothers all return state probabilities and transition counts. Times are of one
call, and of one of five iterations inside one program (`in a loop`): a program's first touch of fresh memory costs as
much as the work on it, and a training loop pays it once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import interleaved, report
from hmmlearn import _hmmc

from jaxgen.ops import chains

try:
    from dynamax.hidden_markov_model import inference as dynamax
except ImportError:
    dynamax = None

LOOP = 5
#: batch, steps, states
SHAPES = [(1, 100_000, 8), (64, 1000, 32), (1, 200_000, 16), (1, 500, 3)]


def problem(batch: int, steps: int, states: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of start and transition, log-likelihoods."""
    rng = np.random.default_rng(0)
    a = rng.dirichlet(np.ones(states) * 5, states) * 0.4 + 0.6 * np.eye(states)
    return np.full(states, 1 / states), a, rng.normal(size=(batch, steps, states)) * 2


def hmmlearn_smoother(pi: np.ndarray, a: np.ndarray, rows: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Summed log-likelihood, state probabilities and transition counts of a batch."""
    total, counts, marginals = 0.0, np.zeros_like(a), []
    for row in rows:
        b = np.exp(row)
        value, forward, scale = _hmmc.forward_scaling(pi, a, b)
        backward = _hmmc.backward_scaling(pi, a, b, scale)
        share = forward * backward
        marginals.append(share / share.sum(1, keepdims=True))
        counts += _hmmc.compute_scaling_xi_sum(forward, a, backward, b)
        total += value
    return total, np.stack(marginals), counts


def first(call: Callable[..., Any], *args: Any) -> tuple[Callable[[], Any], float]:
    """The compiled call, ready to be timed, and the seconds that compiling took."""
    begun = time.perf_counter()
    program = jax.jit(call).lower(*args).compile()
    return (lambda: jax.block_until_ready(program(*args))), time.perf_counter() - begun


def in_a_loop(backend: Any) -> Callable[..., Any]:
    """Smoothers whose transition is the one before's estimate: EM without emissions."""

    def loop(pi, a, b):
        def body(a, _):
            posterior = chains.smoother(pi, a, b, backend=backend)
            counts = jnp.sum(posterior.transition_counts, axis=0)
            weight = jnp.mean(posterior.marginals), jnp.sum(posterior.log_normalizer)
            return jnp.log(counts / jnp.sum(counts, axis=1, keepdims=True)), weight

        return jax.lax.scan(body, a, None, length=LOOP)

    return loop


def beside(shape: tuple[int, int, int], dtype: type, rounds: int = 5) -> dict[str, Any]:
    """All functions on one shape: differences, milliseconds and ratios."""
    batch, steps, states = shape
    pi, a, b = problem(*shape)
    with jax.enable_x64(dtype == np.float64):
        args = [jnp.asarray(x, dtype) for x in (np.log(pi), np.log(a), b)]
        exact = np.exp(np.asarray(args[1], float)), np.asarray(args[2], float)
        backends = {"chosen": None, "sequential": chains.Sequential(), "blocked": chains.Blocked()}
        calls: dict[str, Callable[[], Any]] = {"hmmlearn smoother": lambda: hmmlearn_smoother(pi, *exact)}
        calls["hmmlearn viterbi"] = lambda: [_hmmc.viterbi(pi, exact[0], row) for row in exact[1]]
        compiled, row = {}, {}
        for name, way in backends.items():
            everything = {
                "smoother in a loop": in_a_loop(way),
                "smoother": lambda *c, w=way: chains.smoother(*c, backend=w),
                "viterbi": lambda *c, w=way: chains.viterbi(*c, backend=w),
                "filter": chains.forward_filter,
                "log_normalizer": chains.log_normalizer,
                "sample_posterior": lambda *c: chains.sample_posterior(jax.random.key(0), *c),
            }
            for kind in list(everything)[: None if way is None else 3]:
                calls[f"{kind}, {name}"], compiled[f"{kind}, {name}"] = first(everything[kind], *args)
        if dynamax is not None:
            theirs = jnp.exp(args[0]), jnp.exp(args[1])
            one = lambda f: jax.vmap(lambda b: f(*theirs, b))  # noqa: E731
            keyed = lambda p, t, b: dynamax.hmm_posterior_sample(jax.random.key(0), p, t, b)  # noqa: E731
            for kind, function in {
                "smoother": one(dynamax.hmm_two_filter_smoother), "viterbi": one(dynamax.hmm_posterior_mode),
                "sample_posterior": one(keyed),
            }.items():  # fmt: skip
                calls[f"dynamax {kind}"], compiled[f"dynamax {kind}"] = first(function, args[2])

        total, marginals, counts = calls["hmmlearn smoother"]()
        paths = np.stack([path for _, path in calls["hmmlearn viterbi"]()])
        for name in backends:
            got = calls[f"smoother, {name}"]()
            row[f"difference, nats per step, {name}"] = abs(float(got.log_normalizer.sum()) - total) / (batch * steps)
            row[f"difference of marginals, {name}"] = float(np.abs(got.marginals - marginals).max())
            off = np.abs(np.asarray(got.transition_counts).sum(0) - counts) / counts
            row[f"relative difference of counts, {name}"] = float(off.max())
            row[f"steps off hmmlearn's path, {name}"] = int((calls[f"viterbi, {name}"]().path != paths).sum())
        scale = {name: LOOP if "loop" in name else 1 for name in calls}
        median = {name: 1e3 * t / scale[name] for name, t in interleaved(calls, rounds).items()}
    row.update({f"{name} ms": t for name, t in median.items()})
    for kind in ("smoother", "smoother in a loop", "viterbi"):
        reference = median["hmmlearn viterbi" if kind == "viterbi" else "hmmlearn smoother"]
        row[f"ratio to hmmlearn, {kind}"] = reference / median[f"{kind}, chosen"]
    if dynamax is not None:
        for kind in ("smoother", "viterbi", "sample_posterior"):
            row[f"ratio to dynamax, {kind}"] = median[f"dynamax {kind}"] / median[f"{kind}, chosen"]
    return {**row, "compile s": compiled}


def long(steps: int = 1_000_000, states: int = 8) -> dict[str, float]:
    """The largest differences of float32 from float64 on a very long chain."""
    pi, a, b = (x.astype(np.float32) for x in problem(1, steps, states))
    results = []
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            args = [jnp.asarray(x, dtype) for x in (np.log(pi), np.log(a), b)]
            both = jax.jit(lambda *c: (chains.smoother(*c), chains.viterbi(*c)))(*args)
            results.append(jax.tree.map(lambda x: np.asarray(x, float), both))
    (got, path), (want, exact) = results
    counts = np.abs(got.transition_counts - want.transition_counts) / want.transition_counts
    return {
        "nats per step": float(np.abs(got.log_normalizer - want.log_normalizer).max()) / steps,
        "marginals": float(np.abs(got.marginals - want.marginals).max()),
        "counts, relative": float(counts.max()),
        "steps off the path": int((path.path != exact.path).sum()),
    }


def main() -> None:
    row: dict[str, Any] = {"T = 1 000 000, float32 from float64": long()}
    if "--long" not in sys.argv:
        for dtype in (np.float32, np.float64):
            for shape in SHAPES:
                batch, steps, states = shape
                row[f"{batch} x {steps}, K={states}, {np.dtype(dtype).name}"] = beside(shape, dtype)
    report("chains", row)


if __name__ == "__main__":
    main()
