"""Flows, of points and of pixels."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import optax

from jaxgen import data, losses, plot, recipes
from jaxgen.bijections import Coupling, Interval
from jaxgen.fit.driver import fit
from jaxgen.fit.gradient import Gradient
from jaxgen.metrics.likelihood import bits_per_dim, score
from jaxgen.models.densities.categorical import Categorical
from jaxgen.models.densities.dequantized import Dequantized
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.neural.flow import Flow
from jaxgen.report import Row, drawn
from jaxgen.tour.shared import add_titles, new_figure, timing


def flow(key: Any, quick: bool) -> Row:
    """RealNVP on two moons, against one Gaussian."""
    start, train_key, rate, a, b = jax.random.split(key, 5)
    train, test = data.two_moons(a, 20_000), data.two_moons(b, 10_000)
    model, algorithm = recipes.realnvp(start, train)
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else 1500, batch_size=256)
    found = score(key, fitted.model, test)
    best = float(np.mean(data.two_moons_log_density(test)))
    times, samples = timing(rate, fitted, 20_000)
    figure, axes = new_figure(2, 3.0, sharex=True, sharey=True)
    plot.density(fitted.model, test[:400], axes[0])
    plot.data_and_samples(test[:1500], samples[:1500], axes[1])
    add_titles(axes, "density, with held-out data", "samples beside held-out data")
    for ax in axes:
        ax.set_aspect("equal")
    curve, ax = new_figure(1, 2.6)
    plot.history(fitted, "loss", ax)
    return Row(
        data="two moons", kind=found.kind, unit="point", held_out=found.mean,
        baselines={"one Gaussian": score(key, Gaussian.init(start, train), test).mean},
        timing=times,
        text=f"A RealNVP flow of twelve affine coupling layers, {fitted.steps} steps of Adam on batches of 256 points. "
        "Its density is exact: change of variables through layers that invert. The points are drawn from a known "
        f"density, whose own score on these is {best:.3f} nats: no model does better on average.",
        pictures=[
            drawn(figure, "The fitted density, and samples from it beside held-out points."),
            drawn(curve, "Training: minus the log-likelihood of each batch, and its running mean."),
        ],
    )  # fmt: skip


def pixels(key: Any, quick: bool) -> Row:
    """Flows of whole grey levels, with and without the class, against independent pixels."""
    draw, rate, *keys = jax.random.split(key, 6)
    d = data.digits()
    x, context = d.images.reshape(-1, 64), np.eye(10, dtype=np.float32)[d.labels]
    train, valid = d.train[:1300], d.train[1300:]
    steps, levels = 5 if quick else 400, Interval(0.0, 17.0)
    fits, bits = [], []
    for i, shape in enumerate((None, (10,))):
        layer = functools.partial(Coupling.init, features=(128,), context_shape=shape)

        def make(key: Any, y: Any, layer: Any = layer) -> Flow:
            return Flow.init(key, y, StandardNormal((64,)), layer, layers=4, support=levels)

        def events(rows: Any, shape: Any = shape) -> Any:
            return x[rows] if shape is None else (x[rows], context[rows])

        model = Dequantized.init(keys[i], x[train], make, high=16)
        optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, steps, 0.01), weight_decay=0.01)
        fitted = fit(
            keys[2 + i], model, events(train), Gradient(losses.negative_elbo, optimizer), steps=steps, batch_size=128,
            validation=events(valid), every=min(steps, 50),
        )  # fmt: skip
        found = score(key, fitted.model, events(d.test), samples=5 if quick else 50)
        fits.append(fitted)
        bits.append((found, bits_per_dim(found, 64)))
    free, given = fits
    alone = score(key, Categorical.init(key, x[d.train], prior=1.5), x[d.test])
    figure, axes = new_figure(3, 2.9)
    classes = np.repeat(np.eye(10, dtype=np.float32), 10, axis=0)
    given_drawn = given.model.sample(draw, (100,), context=classes).reshape(-1, 8, 8)
    times, samples = timing(rate, free, 2000)
    for ax, pictures in zip(axes, (d.images[d.test][:100], samples[:100].reshape(-1, 8, 8), given_drawn), strict=True):
        plot.images(pictures, ax, columns=10)
    add_titles(axes, "held-out data", "samples", "samples, one class a row")
    return Row(
        data="digits 8x8, 17 levels", kind=bits[0][0].kind, unit="image", held_out=bits[0][0].mean,
        baselines={"independent pixels": alone.mean}, timing=times,
        text="A flow of four affine couplings on the 64 pixels of a digit. Pixels are whole numbers: uniform noise "
        "makes them real, and the flow ends on the interval of the levels, so that the bound is one of a distribution "
        f"over whole numbers. Bits per dimension, importance weighted over 50 draws: {bits[0][1]:.3f} without the "
        f"class, {bits[1][1]:.3f} with it, {bits_per_dim(alone, 64):.3f} for independent pixels (exact).",
        pictures=[drawn(figure, "Held-out digits, samples, and samples of the flow that was told the class.")],
    )  # fmt: skip
