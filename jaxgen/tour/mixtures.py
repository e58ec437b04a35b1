"""Mixtures of Gaussians, by maximum likelihood and variational."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen import data, plot, recipes
from jaxgen.fit.driver import fit
from jaxgen.metrics.likelihood import score
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.densities.normal_wishart import NormalWishart
from jaxgen.models.latent.mixture import Mixture
from jaxgen.models.latent.variational import VariationalMixture
from jaxgen.report import Row
from jaxgen.tour.shared import add_titles, new_figure, timing


def gaussian_mixture(key: Any, quick: bool) -> Row:
    """Gaussian mixture on Old Faithful, against one Gaussian."""
    start, train_key, rate = jax.random.split(key, 3)
    d = data.old_faithful()
    train, test = (jnp.asarray(d.values[i], jnp.float32) for i in (d.train, d.test))
    model, algorithm = recipes.gaussian_mixture(start, train, 2)
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else None)
    found = score(key, fitted.model, test)
    figure, axes = new_figure(2, 4.2)
    plot.points(train, axes[0])
    plot.ellipses(fitted.model, axes[0])
    plot.density(fitted.model, test, axes[1])
    add_titles(axes, "components over training data", "density over held-out data")
    for ax in axes:
        ax.set(xlabel="eruption (minutes)", ylabel="waiting for the next (minutes)")
    return Row(
        data="Old Faithful", kind=found.kind, unit="eruption", held_out=found.mean,
        baseline=score(key, Gaussian.init(start, train), test).mean, baseline_name="one Gaussian",
        timing=timing(rate, fitted, 100_000),
        text=f"Two Gaussians with full covariances, from a k-means start, by {fitted.steps} steps of EM on 200 "
        "eruptions of the geyser: how long each took, and the wait for the next one. The number is the exact "
        "log-density of 72 other eruptions, mean per eruption.",
        pictures=[(
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
    likeliest = fit(train_key, Mixture.init(start, train, k, Gaussian.init), train, steps=steps)
    found = score(key, fitted.model, test)
    needed = int((fitted.model.weights > 0.02).sum())
    figure, axes = new_figure(2, 4.2, sharex=True, sharey=True)
    for ax, model in zip(axes, (fitted.model, likeliest.model), strict=True):
        plot.density(model, test, ax)
        ax.set(xlabel="eruption (minutes)", ylabel="waiting for the next (minutes)")
    add_titles(axes, "variational, held-out data", "maximum likelihood, held-out data")
    return Row(
        data="Old Faithful", kind=found.kind, unit="eruption", held_out=found.mean,
        baseline=score(key, likeliest.model, test).mean, baseline_name=f"{k} Gaussians by EM",
        timing=timing(rate, fitted, 100_000),
        text=f"A Dirichlet process mixture of up to {k} Gaussians, by {fitted.steps} steps of variational EM on the "
        "same 200 eruptions. Weights, means and covariances have posteriors, and components that the data do not need "
        f"fade: {needed} of {k} keep a weight above 0.02. The number is the log-density of the posterior predictive, "
        f"exact for the fitted posterior; the baseline is {k} Gaussians by maximum likelihood, which overfit.",
        pictures=[(figure, f"Two densities of up to {k} components each, with eruptions that neither fit saw.")],
    )  # fmt: skip
