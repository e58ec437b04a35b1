"""A restricted Boltzmann machine."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen import data, plot, recipes
from jaxgen.fit.driver import fit
from jaxgen.metrics.bridge import bracket
from jaxgen.metrics.likelihood import score
from jaxgen.metrics.partition import log_likelihood
from jaxgen.models.densities.bernoulli import Bernoulli
from jaxgen.report import Row, drawn
from jaxgen.tour.shared import add_titles, new_figure, timing


def boltzmann_machine(key: Any, quick: bool) -> Row:
    """Restricted Boltzmann machine on binary digits, against independent pixels."""
    start, train_key, anneal, rate = jax.random.split(key, 4)
    d = data.digits()
    bits = jnp.asarray((d.images >= 8).reshape(-1, 64), jnp.float32)
    train, test = bits[d.train], bits[d.test]
    model, algorithm = recipes.rbm(start, train, 16)
    fitted = fit(train_key, model, train, algorithm, steps=20 if quick else 5000)
    found = score(key, fitted.model, test)
    between = log_likelihood(fitted.model, test, bracket(anneal, fitted.model, train, chains=200, steps=500))
    times, samples = timing(rate, fitted, 200)
    figure, axes = new_figure(3, 3.1, width_ratios=(4, 4, 3))
    plot.images(test[:48].reshape(-1, 8, 8), axes[0], columns=8)
    plot.images(samples[:48].reshape(-1, 8, 8), axes[1], columns=8)
    plot.filters(fitted.model.weights, (8, 8), axes[2], columns=4)
    add_titles(axes, "held-out data", "samples", "weights of the 16 hidden units")
    return Row(
        data="digits 8x8, binary", kind=found.kind, unit="image", held_out=found.mean,
        baselines={"independent pixels": score(key, Bernoulli.init(start, train, prior=1.5), test).mean},
        timing=times, kept=fitted.model,
        text=f"A restricted Boltzmann machine of 64 visible and 16 hidden bits, {fitted.steps} steps of persistent "
        "contrastive divergence on 1500 handwritten digits, a pixel black where at least half of it is ink. All 65,536 "
        "states of 16 hidden units can be enumerated, so the partition function, and with it the log-likelihood of 297 "
        "other digits, is exact. Larger machines have to rely on annealing: to this one and away from it, without the "
        f"enumeration, it puts the number between {between.low:.2f} and {between.high:.2f}. A sample is the end of a "
        "Markov chain of 1000 sweeps.",
        pictures=[drawn(
            figure, "Held-out digits, samples, and what each hidden unit sees: blue pixels switch it on, brown off.",
        )],
    )  # fmt: skip
