"""A conditional generative adversarial network on digits: is a drawn digit the one that was asked for?

    python benchmarks/gan_conditional.py

The recipe `gan` with one-hot classes as contexts, on the 1,500 training images of 8 by 8 pixels; 2,000 samples, 200 of
each class. Two judges name them: a support vector machine (scikit-learn) trained on the same real images, and the
package's classifier, `metrics.features`. What they say of the 297 test images stands beside. The variety of a class is
the mean standard deviation of its pixels, as a multiple of that of real images.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import report

import jaxgen as jg
from jaxgen.metrics.features import grey_classes
from jaxgen.nn.critics import ClassifierCritic, ProjectionCritic
from jaxgen.nn.mlp import MLP

GOAL = 0.95
EACH = 200
BODY = MLP((128, 128), jax.nn.silu, in_shape=(8, 8))
#: None is the recipe's own critic, which sees image and class joined
CRITICS = {
    "joined": None, "projection": ProjectionCritic(BODY, jax.nn.silu),
    "classifier": ClassifierCritic(BODY, 10, jax.nn.silu),
}  # fmt: skip


def judges(train: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    from sklearn.svm import SVC  # only the judge needs scikit-learn

    machine = SVC(gamma=0.001, C=10.0).fit(train.reshape(len(train), -1), label)
    return {
        "support vector machine": lambda x: machine.predict(x.reshape(len(x), -1)),
        "package's classifier": lambda x: np.asarray(grey_classes(x.clip(0, 16), white=16)[:, :10]).argmax(axis=1),
    }


def spread(x: np.ndarray, label: np.ndarray) -> float:
    return float(np.mean([x[label == k].std(axis=0).mean() for k in range(10)]))


def run(seed: int, critic: str, steps: int) -> dict[str, Any]:
    d = jg.data.digits()
    x, label = d.images[d.train].astype(np.float32), d.labels[d.train]
    start_key, fit_key, sample_key = jax.random.split(jax.random.key(seed), 3)
    model, algorithm = jg.recipes.gan(start_key, x, context_shape=(10,))
    if CRITICS[critic] is not None:
        algorithm = dataclasses.replace(algorithm, critic=CRITICS[critic])
    begun = time.perf_counter(), time.process_time()
    contexts = np.eye(10, dtype=np.float32)
    fitted = jg.fit(fit_key, model, (x, contexts[label]), algorithm, steps=steps, batch_size=128, progress=False)
    wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    asked = np.repeat(np.arange(10), EACH)
    drawn = np.asarray(fitted.model.sample(sample_key, (len(asked),), context=jnp.asarray(contexts[asked])))
    found = judges(x, label)
    named = {name: float((judge(drawn) == asked).mean()) for name, judge in found.items()}
    real, truth = d.images[d.test].astype(np.float32), d.labels[d.test]
    return {
        "seed": seed, "critic": critic, "named as asked": named,
        "of real test images": {name: float((judge(real) == truth).mean()) for name, judge in found.items()},
        "variety": spread(drawn, asked) / spread(x, label), "met": min(named.values()) >= GOAL,
        "steps": fitted.steps, "wall s": wall, "cpu s": cpu,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="a third of those of the recipe")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--critics", nargs="+", choices=[*CRITICS], default=[*CRITICS])
    options = parser.parse_args()
    rows = []
    for critic in options.critics:
        for seed in range(options.seeds):
            rows.append(run(seed, critic, options.steps))
            print(rows[-1], flush=True)
    if options.critics == [*CRITICS]:
        report("gan_conditional", {"goal": GOAL, "runs": rows})


if __name__ == "__main__":
    main()
