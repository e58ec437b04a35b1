"""Hidden Markov models beside hmmlearn: equal step by step, and the time of an EM iteration.

    python benchmarks/hmm.py
    python benchmarks/hmm.py --dynamax    # dynamax in place of hmmlearn, in an environment that has it

Viterbi and posterior samples are in `chains.py`.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
import warnings

import jax
import numpy as np
from common import interleaved, report
from hmmlearn import hmm as peers

import jaxgen as jg

STEPS = 20
#: what an EM iteration of the peer changes
PARAMETERS = ("startprob_", "transmat_", "means_", "_covars_", "emissionprob_")
#: log-likelihood of the two-state example in `by_hand`
HAND = -3.3725020443


#: name, emissions, sequences, length, D, K, symbols, iterations
WORKLOADS = (
    ("diagonal, K=8 D=4, 1 x 100k", "diagonal", 1, 100_000, 4, 8, 6, 3),
    ("diagonal, K=32 D=8, 64 x 1000", "diagonal", 64, 1000, 8, 32, 6, 3),
    ("categorical, K=16 V=64, 1 x 200k", "categorical", 1, 200_000, 1, 16, 64, 3),
    ("diagonal, K=3 D=1, 1 x 500", "diagonal", 1, 500, 1, 3, 6, 50),
)


def problem(sequences: int, length: int, d: int, k: int, symbols: int = 6) -> dict[str, np.ndarray]:
    """Series that stay in a regime for a while, and a start that no model has converged to; float64."""
    rng = np.random.default_rng(0)
    state = np.cumsum(rng.random((sequences, length)) < 0.1, axis=1) * rng.integers(1, k, (sequences, 1)) % k
    centers, factor = 3 * rng.normal(size=(k, d)), rng.normal(size=(k, d, d))
    x = centers[state] + rng.normal(size=(sequences, length, d))
    return {
        "x": x, "initial": rng.dirichlet(np.ones(k)), "transition": rng.dirichlet(np.ones(k) + 5 * np.eye(k)[0], k),
        "mean": centers + rng.normal(size=(k, d)), "covariance": factor @ factor.swapaxes(1, 2) / d + np.eye(d),
        "labels": rng.dirichlet(np.ones(symbols), k), "rate": rng.gamma(3, 1, (k, d)),
        "symbols": (state * symbols // k + rng.integers(0, symbols, state.shape) // 2) % symbols,
        "counts": rng.poisson(np.abs(x)),
    }  # fmt: skip


def ours(p: dict[str, np.ndarray], kind: str, dtype: type) -> tuple[jg.HMM, jax.Array]:
    """The model and its data."""
    as_dtype = {name: value.astype(dtype) for name, value in p.items()}
    variance = np.einsum("kdd->kd", as_dtype["covariance"])
    emissions, x = {
        "categorical": lambda: (jg.Categorical.from_values(as_dtype["labels"]), p["symbols"]),
        "poisson": lambda: (jg.Poisson.from_values(as_dtype["rate"]), p["counts"]),
        "full": lambda: (jg.Gaussian.from_values(as_dtype["mean"], as_dtype["covariance"]), as_dtype["x"]),
        "diagonal": lambda: (jg.DiagonalGaussian.from_values(as_dtype["mean"], np.sqrt(variance)), as_dtype["x"]),
    }[kind]()
    return jg.HMM.from_values(as_dtype["initial"], as_dtype["transition"], emissions), jax.numpy.asarray(x)


def peer(p: dict[str, np.ndarray], kind: str, steps: int, implementation: str) -> tuple[peers.BaseHMM, np.ndarray]:
    """hmmlearn's model at the same start, without its priors, and its data; float64."""
    k = len(p["initial"])
    options = dict(n_components=k, n_iter=steps, tol=-np.inf, init_params="", implementation=implementation)
    gaussian = functools.partial(peers.GaussianHMM, covars_prior=0.0, covars_weight=0.0, min_covar=0.0, **options)
    model, values, x = {
        "categorical": lambda: (
            peers.CategoricalHMM(**options), {"emissionprob_": p["labels"]}, p["symbols"][..., None],
        ),
        "poisson": lambda: (peers.PoissonHMM(**options), {"lambdas_": p["rate"]}, p["counts"]),
        "full": lambda: (gaussian(covariance_type="full"), {"means_": p["mean"], "covars_": p["covariance"]}, p["x"]),
        "diagonal": lambda: (
            gaussian(covariance_type="diag"),
            {"means_": p["mean"], "covars_": np.einsum("kdd->kd", p["covariance"])}, p["x"],
        ),
    }[kind]()  # fmt: skip
    model.startprob_, model.transmat_ = p["initial"], p["transition"]
    for name, value in values.items():
        setattr(model, name, value)
    return model, x.reshape(-1, x.shape[-1])


@functools.partial(jax.jit, static_argnames="steps")
def baum_welch(model: jg.HMM, x: jax.Array, steps: int) -> tuple[jax.Array, jg.HMM]:
    fitted = jg.scan_fit(jax.random.key(0), model, x, jg.EM(), steps=steps)
    return fitted.history["log_likelihood"], fitted.model


def equality(kind: str, dtype: type) -> float:
    """The largest difference of the log-likelihood in STEPS iterations, nats per time step; the peer is in float64."""
    p = problem(4, 500, 3, 4)
    sequences, length = p["x"].shape[:2]
    reference, flat = peer(p, kind, STEPS, "log")
    reference.fit(flat, [length] * sequences)
    with jax.enable_x64(dtype == np.float64):
        history = np.asarray(baum_welch(*ours(p, kind, dtype), STEPS)[0], np.float64)
    return float(np.abs(history / length - np.array(reference.monitor_.history) / (sequences * length)).max())


def by_hand(dtype: type) -> float:
    """How far the log-likelihood of the two-state example is from its published value, nats."""
    with jax.enable_x64(dtype == np.float64):
        emissions = jg.Categorical.from_values(np.array([[0.9, 0.1], [0.2, 0.8]], dtype))
        transition = np.array([[0.7, 0.3], [0.3, 0.7]], dtype)
        model = jg.HMM.from_values(np.array([0.5, 0.5], dtype), transition, emissions)
        return abs(float(model.log_prob(np.array([0, 0, 1, 0, 0]))) - HAND)


def earthquakes(k: int) -> dict[str, object]:
    """The best of 8 starts on the yearly counts of large earthquakes."""
    counts = jg.data.earthquakes().counts[None]
    start = lambda key: jg.HMM.init(key, counts, k, jg.Poisson.init)  # noqa: E731
    with jax.enable_x64(True):
        fitted = jg.fit(jax.random.key(0), start, counts, restarts=8, steps=2000, tolerance=1e-12)
        rates = np.sort(np.asarray(fitted.model.emissions.rate))
    return {"log-likelihood": round(fitted.scores.max(), 4), "rates": rates.round(4).tolist()}


def speed(
    kind: str, sequences: int, length: int, d: int, k: int, symbols: int, steps: int, dtype: type, rounds: int = 5
) -> dict[str, float]:
    """Milliseconds per EM iteration beside hmmlearn's faster implementation, after their likelihoods were compared."""
    p = problem(sequences, length, d, k, symbols)
    reference, flat = peer(p, kind, steps, "scaling")
    lengths = [length] * sequences
    with jax.enable_x64(dtype == np.float64):
        model, x = ours(p, kind, dtype)
        begun = time.perf_counter()
        compiled = baum_welch.lower(model, x, steps).compile()
        compile_seconds, last = time.perf_counter() - begun, {}
        begin = {name: np.copy(getattr(reference, name)) for name in PARAMETERS if hasattr(reference, name)}

        def iterate():
            last["jaxgen"] = float(compiled(model, x)[0][-1]) / length

        def iterate_peer():
            for name, value in begin.items():
                setattr(reference, name, value.copy())
            reference.fit(flat, lengths)
            last["hmmlearn"] = reference.monitor_.history[-1] / (sequences * length)

        median = interleaved({"jaxgen": iterate, "hmmlearn": iterate_peer}, rounds=rounds)
    row = {f"{name} ms": 1e3 * t / steps for name, t in median.items()}
    difference = abs(last["jaxgen"] - last["hmmlearn"])
    return {**row, "ratio": median["hmmlearn"] / median["jaxgen"], "difference, nats per step": difference,
            "compile s": compile_seconds}  # fmt: skip


def beside_dynamax(
    kind: str, sequences: int, length: int, d: int, k: int, symbols: int, steps: int, rounds: int = 3
) -> dict[str, float]:
    """The same beside dynamax, in float32, its default."""
    from dynamax.hidden_markov_model import CategoricalHMM, DiagonalGaussianHMM

    p = problem(sequences, length, d, k, symbols)
    model, x = ours(p, kind, np.float32)
    compiled = baum_welch.lower(model, x, steps).compile()
    chain = {"initial_probs": p["initial"].astype(np.float32), "transition_matrix": p["transition"].astype(np.float32)}
    if kind == "categorical":
        rival = CategoricalHMM(k, 1, symbols, initial_probs_concentration=1.0, transition_matrix_concentration=1.0,
                               emission_prior_concentration=1.0)  # fmt: skip
        start = {"emission_probs": p["labels"][:, None].astype(np.float32)}
        data = jax.numpy.asarray(p["symbols"][..., None])
    else:
        rival = DiagonalGaussianHMM(k, d, initial_probs_concentration=1.0, transition_matrix_concentration=1.0)
        scale = np.sqrt(np.einsum("kdd->kd", p["covariance"])).astype(np.float32)
        start = {"emission_means": p["mean"].astype(np.float32), "emission_scale_diags": scale}
        data = jax.numpy.asarray(p["x"].astype(np.float32))
    parameters, properties = rival.initialize(jax.random.key(0), **chain, **start)
    last = {}

    def iterate():
        last["jaxgen"] = float(compiled(model, x)[0][0]) / length

    def iterate_rival():
        _, values = rival.fit_em(parameters, properties, data, num_iters=steps, verbose=False)
        last["dynamax"] = float(values[0]) / (sequences * length)

    median = interleaved({"jaxgen": iterate, "dynamax": iterate_rival}, rounds=rounds)
    row = {f"{name} ms": 1e3 * t / steps for name, t in median.items()}
    difference = abs(last["jaxgen"] - last["dynamax"])
    return {**row, "ratio": median["dynamax"] / median["jaxgen"], "first difference, nats per step": difference}


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)  # it calls equal steps at the optimum not converging
    row: dict[str, object] = {}
    for dtype in (np.float64, np.float32):
        name = np.dtype(dtype).name
        row[f"difference from {HAND}, {name}"] = by_hand(dtype)
        for kind in ("categorical", "diagonal", "full", "poisson"):
            row[f"largest difference in {STEPS} iterations, nats per step, {kind} {name}"] = equality(kind, dtype)
        for workload, *shape in WORKLOADS:
            row[f"EM iteration, {workload}, {name}"] = speed(*shape, dtype)
    for k in (2, 3):
        row[f"earthquakes, Poisson K={k}"] = earthquakes(k)
    report("hmm", row)


if __name__ == "__main__":
    if "--dynamax" in sys.argv:
        report("hmm_dynamax", {name: beside_dynamax(*shape) for name, *shape in WORKLOADS})
    else:
        main()
