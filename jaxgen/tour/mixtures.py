"""Mixtures of Gaussians, by maximum likelihood and variational."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import data, plot, recipes
from jaxgen.fit.driver import fit
from jaxgen.metrics.likelihood import score
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.densities.normal_wishart import NormalWishart
from jaxgen.models.latent.mixture import Mixture
from jaxgen.models.latent.variational import VariationalMixture
from jaxgen.plot.style import clean
from jaxgen.report import Row, drawn
from jaxgen.tour.shared import add_titles, new_figure, timing


def gaussian_mixture(key: Any, quick: bool) -> Row:
    """Gaussian mixture on Old Faithful, against one Gaussian."""
    start, train_key, rate = jax.random.split(key, 3)
    d = data.old_faithful()
    train, test = (jnp.asarray(d.values[i], jnp.float32) for i in (d.train, d.test))
    model, algorithm = recipes.gaussian_mixture(start, train, 2)
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else None)
    found = score(key, fitted.model, test)
    figure, axes = new_figure(2, 4.2, sharex=True, sharey=True)
    plot.points(train, axes[0])
    plot.ellipses(fitted.model, axes[0])
    plot.density(fitted.model, test, axes[1])
    add_titles(axes, "components over training data", "density over held-out data")
    for ax in axes:
        ax.set(xlabel="eruption (minutes)", ylabel="waiting for the next (minutes)")
    return Row(
        data="Old Faithful", kind=found.kind, unit="eruption", held_out=found.mean,
        baselines={"one Gaussian": score(key, Gaussian.init(start, train), test).mean},
        timing=timing(rate, fitted, 100_000)[0], kept=fitted.model,
        text=f"Two Gaussians with full covariances, from a k-means start, by {fitted.steps} steps of EM on 200 "
        "eruptions of the geyser: how long each took, and the wait for the next one. The number is the exact "
        "log-density of 72 other eruptions, mean per eruption.",
        pictures=[drawn(
            figure, "Left: the two components at one and two standard deviations, over the training data. Right: the "
            "density of the mixture, contours around 25 to 99 % of its mass, with held-out eruptions.",
        )],
    )  # fmt: skip


def variational_mixture(key: Any, quick: bool) -> Row:
    """Variational mixture with more components than Old Faithful needs, against maximum likelihood with as many."""
    start, train_key, rate = jax.random.split(key, 3)
    d, k = data.old_faithful(), 10
    train, test = (jnp.asarray(d.values[i], jnp.float32) for i in (d.train, d.test))
    steps = 5 if quick else None
    fitted = fit(train_key, VariationalMixture.init(start, train, k, NormalWishart.init), train, steps=steps)
    # of several starts the best that has no component on a single point, where the likelihood is a matter of the floor
    likeliest = fit(
        train_key, lambda key: Mixture.init(key, train, k, Gaussian.init), train, steps=steps, restarts=8
    )  # fmt: skip
    found = score(key, fitted.model, test)
    weights = [np.sort(np.asarray(f.model.weights))[::-1] for f in (fitted, likeliest)]
    needed = int((weights[0] > 0.02).sum())
    figure, axes = new_figure(3, 3.6, width_ratios=(4, 4, 3))
    for ax, model in zip(axes, (fitted.model, likeliest.model), strict=False):
        plot.density(model, test, ax, resolution=320)
        ax.set(xlabel="eruption (minutes)")
    axes[0].set(ylabel="waiting for the next (minutes)")
    for i, (name, heights) in enumerate(zip(("variational", "maximum likelihood"), weights, strict=True)):
        axes[2].bar(np.arange(1, k + 1) + 0.4 * (i - 0.5), heights, 0.38, color=plot.PALETTE[i], label=name)
    clean(axes[2]).set(xlabel="component, by weight", xticks=range(1, k + 1))
    axes[2].legend(frameon=False, fontsize=9)
    add_titles(axes, "variational", "maximum likelihood", "weights")
    return Row(
        data="Old Faithful", kind=found.kind, unit="eruption", held_out=found.mean,
        baselines={f"{k} Gaussians by EM": score(key, likeliest.model, test).mean},
        timing=timing(rate, fitted, 100_000)[0],
        text=f"A Dirichlet process mixture of up to {k} Gaussians, by {fitted.steps} steps of variational EM on the "
        "same 200 eruptions. Weights, means and covariances have posteriors, and components that the data do not need "
        f"fade: {needed} of {k} keep a weight above 0.02. The number is the log-density of the posterior predictive, "
        f"exact for the fitted posterior; the baseline is {k} Gaussians by maximum likelihood from the best of eight "
        "starts, which overfit.",
        pictures=[drawn(
            figure, f"Two densities of up to {k} components each, with eruptions that neither fit saw, and the weights "
            "of their components.",
        )],
    )  # fmt: skip
