"""A restricted Boltzmann machine of 784 by 500 bits on MNIST: test log-likelihood in nats, bracketed by annealing.

    python benchmarks/rbm_mnist.py --data-dir ../shared/data            # shortened: minutes on two cores
    python benchmarks/rbm_mnist.py --data-dir ../shared/data --full     # hours on a CPU, meant for a GPU

Each pixel is drawn, `x ~ Bernoulli(pixel / 255)`, by fixed seeds: once to test, `--drawings` times to train. Persistent
chains (tempered ones with `--replicas`), a centred machine, weight decay, and a step size that falls to zero in a
straight line. The partition function lies between annealing from the data's independent bits to the machine and
annealing back from chains of the training.

For scale: Salakhutdinov & Murray (2008), On the quantitative analysis of deep belief networks, table 1, -86.34 for 500
hidden units by CD-25, an estimate by annealing forward alone. Their bits are another drawing of the same pixels.
The short run's settings are the second ones that were tried: 40,000 steps on one drawing without weight decay gave
-86.44, in [-87.28, -85.47].
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import optax
from common import report

import jaxgen as jg
from jaxgen.fit.negative import Persistent, Tempered
from jaxgen.fit.penalties import Decay
from jaxgen.metrics import bracket, energy_gap, log_likelihood

PUBLISHED, GOAL, WIDEST = -86.34, -86.3, 1.0
#: steps, kernel steps per update, chains and temperatures of the annealing
SHORT, FULL = (50_000, 1, 100, 15_000), (600_000, 5, 500, 50_000)


def bits(folder: Path, part: str, seed: int) -> np.ndarray:
    """Fixed bits of one part of the set, `[N, 784]` uint8."""
    images = jg.data.read_idx(folder / "mnist" / f"{part}-images-idx3-ubyte.gz").reshape(-1, 784)
    return (np.random.default_rng(seed).random(images.shape, np.float32) < images / np.float32(255)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--k", type=int, help="kernel steps per update")
    parser.add_argument("--ais-chains", type=int)
    parser.add_argument("--ais-steps", type=int)
    parser.add_argument("--hidden", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument("--replicas", type=int, default=1, help="2 or more: tempered chains")
    parser.add_argument("--step-size", type=float, default=0.1)
    parser.add_argument("--average", type=float, default=0.999)
    parser.add_argument("--decay", type=float, default=1e-4, help="weight decay")
    parser.add_argument("--drawings", type=int, default=4, help="drawings of the training images")
    options = parser.parse_args()
    default = FULL if options.full else SHORT
    given = (options.steps, options.k, options.ais_chains, options.ais_steps)
    steps, k, ais_chains, ais_steps = (d if g is None else g for g, d in zip(given, default, strict=True))

    # seed 1 is that of the test images
    drawings = [bits(options.data_dir, "train", seed if seed == 0 else seed + 1) for seed in range(options.drawings)]
    train, test = drawings[0], bits(options.data_dir, "t10k", 1)
    start_key, fit_key, bracket_key = jax.random.split(jax.random.key(0), 3)
    rbm = jg.RBM.init(start_key, train, options.hidden, centred=True)
    logits = rbm.visible_bias
    negative = Persistent(options.chains, k)
    if options.replicas > 1:
        negative = Tempered(options.chains, options.replicas, path=lambda m: m.annealing_path(logits), k=k)
    optimizer = optax.sgd(optax.linear_schedule(options.step_size, 0.0, steps))
    algorithm = jg.ContrastiveDivergence(
        optimizer, average=jg.Average(options.average), negative=negative, penalty=Decay(options.decay)
    )
    data = np.concatenate(drawings)
    fitted = jg.fit(fit_key, rbm, data, algorithm, steps=steps, batch_size=options.batch_size, progress=False)

    begun = time.perf_counter()
    chains = fitted.state.chains.reshape(-1, 784)[-options.chains :]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", jg.JaxgenWarning)
        found = bracket(
            bracket_key, fitted.model.annealing_path(logits), chains, chains=ais_chains, steps=ais_steps, sweeps=1000
        )
    annealing = time.perf_counter() - begun
    seen, held_out = (log_likelihood(fitted.model, x, found) for x in (train[:10_000], test))
    report(
        "rbm_mnist",
        {
            "shortened": (steps, k) != FULL[:2],
            "full run": dict(zip(("steps", "k", "ais chains", "ais steps"), FULL, strict=True)),
            "test log-likelihood, nats": held_out.mean,
            "bracket": [held_out.low, held_out.high],
            "bracket width, nats": found.width,
            "standard error over images and log Z": held_out.standard_error,
            "train log-likelihood, nats": seen.mean,
            "energy gap of test and train, nats": energy_gap(fitted.model, train[:10_000], test).mean,
            "log Z": found.log_z,
            "forward": [found.forward.log_z, found.forward.standard_error, found.forward.ess],
            "reverse": [found.reverse.log_z, found.reverse.standard_error, found.reverse.ess],
            "warnings": [str(w.message) for w in caught],
            "goal": GOAL,
            "published": PUBLISHED,
            "met": held_out.low >= GOAL and found.width <= WIDEST,
            "steps": steps,
            "epochs": steps * options.batch_size / len(train),
            "k": k,
            "chains": options.chains,
            "replicas": options.replicas,
            "swap acceptance": float(fitted.history["swap_acceptance"][-1]) if options.replicas > 1 else None,
            "step size": options.step_size,
            "average": options.average,
            "weight decay": options.decay,
            "drawings of the training images": options.drawings,
            "ais chains, steps": [ais_chains, ais_steps],
            "training s": fitted.seconds,
            "ms per step": 1e3 * fitted.seconds / fitted.steps,
            "annealing s, both ways": annealing,
            "status": fitted.status.name,
        },
    )


if __name__ == "__main__":
    main()
