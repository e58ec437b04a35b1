"""Glow on handwritten digits, 8 by 8 pixels of 17 levels: bits per dimension of images it has not seen.

    python benchmarks/glow_digits.py

1500 digits to train, the last 200 of them for validation, 297 to test; uniform noise, drawn anew in each step. Beside
it those of two simpler models: independent pixels (frequencies of levels), and a Gaussian with the same noise. Bits are
those of the bound from one draw of noise, and of the tighter one of a hundred.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import report

import jaxgen as jg

PIXELS = 64
HIGHEST = 16
DRAWS = 100


def bits(nats: Any) -> float:
    """Bits per dimension of log-probabilities in nats."""
    return float(-np.mean(np.asarray(nats, np.float64)) / PIXELS / np.log(2))


def one(seed: int, images: dict[str, Any], steps: int) -> dict[str, Any]:
    """One fit by the recipe, the best on the validation images kept, with its bits on all three sets."""
    start, key = jax.random.split(jax.random.key(seed))
    model, algorithm = jg.recipes.glow(start, images["train"], highest=HIGHEST)
    result = jg.fit(
        key, model, images["train"], algorithm, steps=steps, batch_size=128, validation=images["validation"],
        progress=False,
    )  # fmt: skip
    return {
        "seed": seed, "status": result.status.name, "steps": result.steps,
        **{f"{name}_bits": bits(result.model.elbo(key, x)) for name, x in images.items()},
        "test_bits_of_100_draws": bits(result.model.iwae(key, images["test"], samples=DRAWS)),
        "fit_seconds": result.seconds, "compile_seconds": result.compile_seconds,
    }  # fmt: skip


def independent(train: Any, test: Any) -> float:
    """Each pixel by the frequencies of its levels, one added to each count."""
    flat = np.asarray(train).reshape(len(train), -1)
    counts = 1.0 + (flat[:, :, None] == np.arange(HIGHEST + 1)).sum(0)
    log_p = np.log(counts / counts.sum(-1, keepdims=True))
    return bits(log_p[np.arange(PIXELS), np.asarray(test).reshape(len(test), -1)].sum(-1))


def gaussian(train: Any, test: Any) -> float:
    """A Gaussian of images with uniform noise, ten draws of it for each image to train."""
    keys = jax.random.split(jax.random.key(0), 3)
    flat = lambda x: jnp.asarray(x, jnp.float32).reshape(-1, PIXELS)  # noqa: E731
    x = jnp.tile(flat(train), (10, 1))
    x = x + jax.random.uniform(keys[0], x.shape)
    model, algorithm = jg.recipes.gaussian_mixture(keys[1], x, 1)
    model = jg.fit(keys[1], model, x, algorithm, steps=50, progress=False).model
    y = flat(test)
    return bits(model.log_prob(y + jax.random.uniform(keys[2], y.shape)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Glow on digits.")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3000)
    args = parser.parse_args()
    data = jg.data.digits()
    images = {
        "train": data.images[data.train[:-200]], "validation": data.images[data.train[-200:]],
        "test": data.images[data.test],
    }  # fmt: skip
    runs = [one(seed, images, args.steps) for seed in range(args.seeds)]
    whole = np.concatenate([images["train"], images["validation"]])
    peers = {
        "independent_pixels": independent(whole, images["test"]),
        "gaussian": gaussian(whole, images["test"]),
    }
    row = {"kind": "lower bound", "steps": args.steps, "runs": runs, "peers_test_bits": peers}
    report("glow_digits", row)


if __name__ == "__main__":
    main()
