"""Hidden Markov models of counts, of sizes, of characters and of flows."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import data, plot, recipes
from jaxgen.core.protocols import Kind
from jaxgen.fit.driver import fit
from jaxgen.metrics.likelihood import perplexity, score
from jaxgen.models.densities.categorical import Categorical
from jaxgen.models.densities.gamma import Gamma
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.densities.poisson import Poisson
from jaxgen.models.latent.mixture import Mixture
from jaxgen.report import Row
from jaxgen.tour.shared import forecast, new_figure, timing


def hidden_markov(key: Any, quick: bool) -> Row:
    """HMM with Poisson emissions on earthquakes, against one Poisson."""
    start, train_key, rate = jax.random.split(key, 3)
    d = data.earthquakes()
    x = jnp.asarray(d.counts, jnp.float32)
    train = x[d.train]
    model, algorithm = recipes.hidden_markov(start, train[None], 3, leaf=Poisson.init)
    fitted = fit(train_key, model, train[None], algorithm, steps=5 if quick else None)
    rates = np.asarray(fitted.model.emissions.rate)
    figure, ax = new_figure(1, 3.6)
    plot.states(d.counts, fitted.model.viterbi(x).path, ax, time=d.years, levels=rates)
    ax.axvline(d.years[d.test[0]] - 0.5, color=plot.INK, linewidth=1, linestyle=(0, (4, 3)))
    ax.set(xlabel="year", ylabel="earthquakes a year")
    return Row(
        data="earthquakes", kind=Kind.EXACT, unit="year", held_out=forecast(fitted.model, x, len(train)),
        baseline=score(key, Poisson.init(start, train), x[d.test]).mean, baseline_name="one Poisson",
        timing=timing(rate, fitted, 1000, length=100),
        text="Three hidden states, each with its own rate of major earthquakes in the world, by "
        f"{fitted.steps} steps of Baum-Welch on the years to 1979. The states found have "
        f"{', '.join(f'{r:.0f}' for r in np.sort(rates))} earthquakes a year. The number is a forecast: the exact "
        "log-probability of 1980 to 2006 given the years before, mean per year. A sample is a century.",
        pictures=[(
            figure, "The most probable path of states (colours, by Viterbi), the rate of each (bars), and the counts. "
            "Right of the dashed line are years that the fit did not see.",
        )],
    )  # fmt: skip


def regimes(key: Any, quick: bool) -> Row:
    """HMM of gamma densities on a stock market, against one gamma density."""
    start, train_key, rate = jax.random.split(key, 3)
    d = data.weekly_returns()
    x = jnp.asarray(d.size, jnp.float32)
    train = x[d.train]
    model, algorithm = recipes.hidden_markov(start, train[None], 2, leaf=Gamma.init)
    fitted = fit(train_key, model, train[None], algorithm, steps=5 if quick else None)
    # states by how much the market moves in them
    order = jnp.argsort(fitted.model.emissions.mean)
    found = fitted.model.permute(order)
    mean, stay = np.asarray(found.emissions.mean), np.diag(np.asarray(found.transition))
    figure, axes = new_figure(1, 4.6, rows=2, sharex=True, height_ratios=(3, 2))
    plot.states(d.size, found.viterbi(x).path, axes[0], time=d.years, levels=mean)
    axes[0].set(ylabel="weekly move (percent)")
    filtered = jnp.exp(found.filter(x).log_filtered)
    axes[1].stackplot(d.years, np.asarray(filtered).T, colors=plot.PALETTE[:2], alpha=0.6, linewidth=0)
    axes[1].set(xlabel="year", ylabel="probability so far", ylim=(0, 1))
    for ax in axes:
        ax.axvline(d.years[d.test[0]], color=plot.INK, linewidth=1, linestyle=(0, (4, 3)))
    weeks = " and ".join(f"{1 / max(1 - s, 1e-3):.0f}" for s in stay)
    return Row(
        data="S&P 500 by weeks", kind=Kind.EXACT, unit="week", held_out=forecast(found, x, len(train)),
        baseline=score(key, Gamma.init(start, train), x[d.test]).mean, baseline_name="one gamma density",
        timing=timing(rate, fitted, 1000, length=100),
        text=f"Two regimes of a stock market, by {fitted.steps} steps of Baum-Welch on how much it moved in each week "
        f"to the end of 2011: {mean[0]:.1f} and {mean[1]:.1f} percent on average, in spells of about {weeks} weeks. "
        "The number is a forecast: the exact log-density of the weeks after that given all before them, mean per week.",
        pictures=[(
            figure, "Top: weekly moves, the most probable regimes (colours) and their means (bars). Below: what the "
            "filter knew at the time, from the data so far only. Right of the dashed line are weeks that the fit did "
            "not see.",
        )],
    )  # fmt: skip


def text(key: Any, quick: bool) -> Row:
    """HMM over characters, against independent characters."""
    start, train_key, draw, rate = jax.random.split(key, 4)
    d, width = data.text(), 256
    train, test = (
        jnp.asarray(d.codes[i[: len(i) // width * width]].reshape(-1, width), jnp.int32) for i in (d.train, d.test)
    )
    # half a count for every character that a state did not meet: the test part may hold it
    leaf = functools.partial(Categorical.init, size=len(d.alphabet), prior=1.5)
    states, train = (4, train[:20]) if quick else (24, train[::3])
    model, algorithm = recipes.hidden_markov(start, train, states, leaf=leaf, stickiness=1 / states)
    fitted = fit(train_key, model, train, algorithm, steps=2 if quick else 30, tolerance=0.0)
    found = score(key, fitted.model, test)
    held_out = found.mean / width
    base = score(key, leaf(start, train.reshape(-1)), test.reshape(-1)).mean
    sample = "".join(d.alphabet[c] for c in np.asarray(fitted.model.sample(draw, length=600)))
    return Row(
        data="The Time Machine", kind=found.kind, unit="character", held_out=held_out, baseline=base,
        baseline_name="independent", timing=timing(rate, fitted, 100, length=width),
        text=f"A hidden Markov model of {states} states over the {len(d.alphabet)} characters of a novel, "
        f"{fitted.steps} steps of Baum-Welch. On the last tenth of the book its perplexity is "
        f"{perplexity(held_out):.1f}, that of independent characters {perplexity(base):.1f}: so many equally likely "
        f"characters would be as hard to guess. A sample is {width} characters; here are 600. The states learn vowels, "
        "consonants, gaps and endings, and no spelling.",
        pictures=[], block=sample,
    )  # fmt: skip


def composition(key: Any, quick: bool) -> Row:
    """HMM whose emissions are mixtures, on Old Faithful in time, against as many Gaussians without time."""
    start, train_key, base_key, rate = jax.random.split(key, 4)
    x, cut = jnp.asarray(data.old_faithful().values, jnp.float32), 200

    def leaf(key: Any, x: Any) -> Mixture:
        return Mixture.init(key, x, 2, Gaussian.init)

    model, algorithm = recipes.hidden_markov(start, x[None, :cut], 2, leaf=leaf, stickiness=0.5)
    fitted = fit(train_key, model, x[None, :cut], algorithm, steps=5 if quick else None)
    four = fit(base_key, recipes.gaussian_mixture(base_key, x[:cut], 4)[0], x[:cut], algorithm).model
    move = np.asarray(fitted.model.transition)
    figure, ax = new_figure(1, 3.0)
    path = np.asarray(fitted.model.viterbi(x).path)
    plot.states(x[cut:, 1], path[cut:], ax, time=np.arange(cut, len(x)))
    ax.set(xlabel="eruption, in order of time", ylabel="waiting (minutes)")
    return Row(
        data="Old Faithful in time", kind=Kind.EXACT, unit="eruption", held_out=forecast(fitted.model, x, cut),
        baseline=score(key, four, x[cut:]).mean, baseline_name="4 Gaussians, no time",
        timing=timing(rate, fitted, 1000, length=100),
        text="Any model is a part of any other: here each state of a hidden Markov model emits from a mixture of two "
        f"Gaussians, and EM trains all of it, {fitted.steps} steps, by recursion. The geyser alternates, and the model "
        f"learns it: it leaves its states with probabilities {move[0, 1]:.2f} and {move[1, 0]:.2f}. The number is the "
        "exact log-density of the last 72 eruptions given the 200 before; the baseline has four Gaussians too, and no "
        "memory.",
        pictures=[(figure, "The decoded states of eruptions that the fit did not see, over their waiting times.")],
    )  # fmt: skip
