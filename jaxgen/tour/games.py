"""Adversarial networks."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import data, plot, recipes
from jaxgen.core.protocols import Kind
from jaxgen.fit.driver import fit
from jaxgen.report import Row, drawn
from jaxgen.tour.shared import add_titles, new_figure, timing

#: standard deviation of each Gaussian on the ring of `data.eight_gaussians`
RING_SCALE = 0.5 / math.sqrt(2)


def adversarial_digits(key: Any, quick: bool) -> Row:
    """GAN on grey digits: samples and no likelihood."""
    start, train_key, rate = jax.random.split(key, 3)
    d = data.digits()
    train = jnp.asarray(d.images[d.train], jnp.float32) / 16
    model, algorithm = recipes.gan(start, train)
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else 5000, batch_size=64)
    times, samples = timing(rate, fitted, 50_000)
    figure, axes = new_figure(2, 2.5)
    plot.images(d.images[d.test][:60], axes[0], columns=12)
    plot.images(jnp.clip(samples[:60], 0, 1), axes[1], columns=12)
    add_titles(axes, "held-out data", "samples")
    return Row(
        data="digits 8x8, grey", kind=Kind.NONE, unit="image", held_out=None, baselines={},
        timing=times, kept=fitted.state.critic.model,
        text="A generator from 32 numbers of noise to an image, trained against a critic, both multilayer perceptrons, "
        f"by {fitted.steps} steps of the relativistic game with gradient penalties. A generator has samples and no "
        "density, so there is no likelihood to report: look at the samples. They come from the moving average of the "
        "generator over the training.",
        pictures=[drawn(figure, "Held-out digits, and samples.")],
    )  # fmt: skip


def adversarial_ring(key: Any, quick: bool) -> Row:
    """GAN on the ring of eight Gaussians: modes found, and samples near them."""
    start, train_key, rate, points = jax.random.split(key, 4)
    train = data.eight_gaussians(points, 20_000)
    model, algorithm = recipes.gan(start, train)
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else None, batch_size=64)
    times, samples = timing(rate, fitted, 10_000)
    samples = np.asarray(samples)
    distance = np.linalg.norm(samples[:, None] - data.eight_gaussians_centers(), axis=-1)
    near, mode = distance.min(axis=1) < 3 * RING_SCALE, distance.argmin(axis=1)
    # a mode counts as found from a quarter of its fair share on
    found = np.flatnonzero(np.bincount(mode[near], minlength=8) > len(samples) / 32)
    # along both axes of each: samples on thin arcs would be near too
    widths = [np.sqrt(np.linalg.eigvalsh(np.cov(samples[near & (mode == k)].T))) / RING_SCALE for k in found]
    span = f"{np.min(widths):.2f} to {np.max(widths):.2f}" if widths else ""
    wide = f"; along its axes one is {span} times as wide as it should be" if widths else ""
    figure, axes = new_figure(2, 4.0, sharex=True, sharey=True)
    for ax, dots, colour in zip(axes, (train[:2000], samples[:2000]), (plot.DATA, plot.PALETTE[1]), strict=True):
        plot.points(dots, ax, colour=colour)
        ax.set_aspect("equal")
    add_titles(axes, "data", "samples")
    return Row(
        data="eight Gaussians", kind=Kind.NONE, unit="point", held_out=None, baselines={},
        timing=times,
        text=f"The same game in the plane, {fitted.steps} steps. Of 10,000 samples {near.mean():.1%} lie within three "
        f"standard deviations of one of the eight centres (98.9 % of the data do), {len(found)} of the eight modes get "
        f"at least a quarter of their share{wide}. No such number says that the two densities are "
        "equal.",
        pictures=[drawn(
            figure, "The ring of eight Gaussians and samples: a continuous map of one Gaussian joins modes by threads.",
        )],
    )  # fmt: skip
