"""A variational autoencoder on all of Fashion-MNIST: nats per image of fixed bits, after at most 90 CPU seconds.

    python benchmarks/vae_fashion.py --data-dir ../shared/data

Each pixel is drawn once, `x ~ Bernoulli(pixel / 255)`, by a fixed seed. Networks 784-400-400-50 and back. For scale:
the drawing's own entropy is 189.9 nats, independent pixels cost 384.9.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import numpy as np
import optax
from common import report

import jaxgen as jg


def bits(folder: Path, part: str, seed: int) -> np.ndarray:
    """Fixed bits of one part of the set, `[N, 784]` uint8."""
    images = jg.data.read_idx(folder / "fashion_mnist" / f"{part}-images-idx3-ubyte.gz").reshape(-1, 784)
    return (np.random.default_rng(seed).random(images.shape, np.float32) < images / np.float32(255)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--step-size", type=float, default=2e-3)
    parser.add_argument("--average", type=float, default=0.995)
    parser.add_argument("--iwae-events", type=int, default=500)
    options = parser.parse_args()

    train, test = bits(options.data_dir, "train", 0), bits(options.data_dir, "t10k", 1)
    start_key, fit_key, elbo_key, iwae_key = jax.random.split(jax.random.key(0), 4)
    vae = jg.VAE.init(start_key, train, jg.StandardNormal((50,)), hidden=(400, 400))
    steps = options.epochs * (len(train) // options.batch_size)
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.step_size, 100, steps)
    algorithm = jg.Gradient(jg.losses.negative_elbo, optax.adam(schedule), average=jg.Average(options.average))

    wall, cpu = time.perf_counter(), time.process_time()
    fitted = jg.fit(fit_key, vae, train, algorithm, steps=steps, batch_size=options.batch_size)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu

    elbo = jg.metrics.score(elbo_key, fitted.model, test)
    # the two bounds on the same images
    subset = test[:: len(test) // options.iwae_events][: options.iwae_events]
    elbo_subset = jg.metrics.score(elbo_key, fitted.model, subset, samples=1)
    iwae = jg.metrics.score(iwae_key, fitted.model, subset, samples=500)
    report(
        "vae_fashion",
        {
            "negative elbo, test, nats": -elbo.mean,
            "standard error": elbo.standard_error,
            "bound": 245.0,
            "met": -elbo.mean <= 245.0,
            "images of the subset": options.iwae_events,
            "negative elbo, subset, nats": -elbo_subset.mean,
            "negative iwae-500, subset, nats": -iwae.mean,
            "negative elbo, train, last 300 steps, nats": fitted.history["loss"][-300:].mean(),
            "cpu s, compilation included": cpu,
            "wall s, compilation included": wall,
            "compile s": fitted.compile_seconds,
            "ms per step, wall": 1e3 * fitted.seconds / fitted.steps,
            "epochs": options.epochs,
            "batch size": options.batch_size,
            "step size": options.step_size,
            "average": options.average,
            "status": fitted.status.name,
        },
    )


if __name__ == "__main__":
    main()
