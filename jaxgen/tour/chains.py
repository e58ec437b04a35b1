"""Hidden Markov models of counts, of sizes, of characters and of mixtures, beside baselines that know the time too."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.stats as stats
import numpy as np
from matplotlib.colors import PowerNorm

from jaxgen import data, plot, recipes
from jaxgen.core.protocols import Kind
from jaxgen.fit.driver import fit
from jaxgen.metrics.likelihood import perplexity, score
from jaxgen.models.densities.categorical import Categorical
from jaxgen.models.densities.gamma import Gamma
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.densities.poisson import Poisson
from jaxgen.models.densities.regression import LinearRegression, lagged
from jaxgen.models.latent.mixture import Mixture
from jaxgen.plot.style import clean
from jaxgen.report import Row, drawn
from jaxgen.tour.shared import add_titles, forecast, mark_cut, new_figure, order_one, thirds, timing

#: columns of the map of characters: what is alike stands together
VOWELS, CONSONANTS, MARKS = "aeiouy", "bcdfghjklmnpqrstvwxz", ",.;:-'\"!?"


def hidden_markov(key: Any, quick: bool) -> Row:
    """HMM with Poisson emissions on earthquakes, against Poissons with and without a memory of one year."""
    start, train_key, rate = jax.random.split(key, 3)
    d = data.earthquakes()
    x, cut = jnp.asarray(d.counts, jnp.float32), len(d.train)
    train, test = x[:cut], x[cut:]
    model, algorithm = recipes.hidden_markov(start, train[None], 3, leaf=Poisson.init)
    fitted = fit(train_key, model, train[None], algorithm, steps=5 if quick else None)
    one, before = Poisson.init(start, train), thirds(d.counts[:-1], d.train)
    found = fitted.model.permute(np.argsort(np.asarray(fitted.model.emissions.rate)))
    rates = np.asarray(found.emissions.rate)
    figure, ax = new_figure(1, 3.6)
    plot.states(d.counts, found.viterbi(x).path, ax, time=d.years, levels=rates)
    mark_cut(ax, d.years[cut] - 0.5)
    ax.set(xlabel="year", ylabel="earthquakes a year")
    return Row(
        data="earthquakes", kind=Kind.EXACT, unit="year", held_out=float(forecast(found, x, cut).mean()),
        baselines={
            "one Poisson": float(one.log_prob(test).mean()),
            "Poisson of last year's count": float(stats.poisson.logpmf(test, x[cut - 1 : -1]).mean()),
            "Markov chain of thirds": float(
                order_one(one, train[1:], before[: cut - 1], (test, before[cut - 1 :])).mean()
            ),
        },
        timing=timing(rate, fitted, 1000, length=100)[0],
        text="Three hidden states, each with its own rate of major earthquakes in the world, by "
        f"{fitted.steps} steps of Baum-Welch on the years to 1979. The states found have "
        f"{', '.join(f'{r:.0f}' for r in rates)} earthquakes a year. The number is a forecast: the exact "
        "log-probability of 1980 to 2006 given the years before, mean per year. A sample is a century. The Markov "
        "chain has a Poisson for each third that last year's count may lie in.",
        pictures=[drawn(
            figure, "The most probable path of states (colours, by Viterbi), the rate of each (bars), and the counts. "
            "Right of the dashed line are years that the fit did not see.",
        )],
    )  # fmt: skip


def regimes(key: Any, quick: bool) -> Row:
    """HMM of gamma densities on a stock market, against gamma densities with and without a memory."""
    start, train_key, rate = jax.random.split(key, 3)
    d = data.weekly_returns()
    x, cut, width = jnp.asarray(d.size, jnp.float32), len(d.train), 10
    train, test = x[:cut], x[cut:]
    model, algorithm = recipes.hidden_markov(start, train[None], 2, leaf=Gamma.init)
    fitted = fit(train_key, model, train[None], algorithm, steps=5 if quick else None)
    one = Gamma.init(start, train)
    week = thirds(d.size[:-1], d.train)
    # of the ten weeks before each week from the eleventh on
    recent = thirds(np.convolve(d.size[:-1], np.full(width, 1 / width), mode="valid"), d.train[:-width])
    # states by how much the market moves in them
    found = fitted.model.permute(np.argsort(np.asarray(fitted.model.emissions.mean)))
    mean, stay = np.asarray(found.emissions.mean), np.diag(np.asarray(found.transition))
    figure, axes = new_figure(1, 4.6, rows=2, sharex=True, height_ratios=(3, 2))
    plot.states(d.size, found.viterbi(x).path, axes[0], time=d.years, levels=mean)
    axes[0].set(ylabel="weekly move (percent)")
    filtered = np.exp(np.asarray(found.filter(x).log_filtered))
    axes[1].stackplot(d.years, filtered.T, colors=plot.PALETTE[:2], alpha=0.6, linewidth=0, labels=("calm", "wild"))
    axes[1].legend(loc="upper left", fontsize=9, framealpha=0.9, edgecolor="none")
    clean(axes[1]).set(xlabel="year", ylabel="probability so far", ylim=(0, 1))
    for ax in axes:
        mark_cut(ax, d.years[cut])
    weeks = " and ".join(f"{1 / max(1 - s, 1e-3):.0f}" for s in stay)
    nats = {
        "two regimes": forecast(found, x, cut),
        "one gamma density": np.asarray(one.log_prob(test), np.float64),
        "Markov chain of thirds": order_one(one, train[1:], week[: cut - 1], (test, week[cut - 1 :])),
        "thirds of ten weeks' mean": order_one(
            one, train[width:], recent[: cut - width], (test, recent[cut - width :])
        ),
    }
    means = {name: float(each.mean()) for name, each in nats.items()}
    return Row(
        data="S&P 500 by weeks", kind=Kind.EXACT, unit="week", held_out=means.pop("two regimes"), baselines=means,
        kept=nats,
        timing=timing(rate, fitted, 1000, length=100)[0],
        text=f"Two regimes of a stock market, by {fitted.steps} steps of Baum-Welch on how much it moved in each week "
        f"to the end of 2011: {mean[0]:.1f} and {mean[1]:.1f} percent on average, in spells of about {weeks} weeks. "
        "The number is a forecast: the exact log-density of the weeks after that given all before them, mean per week. "
        "The baselines that remember have a gamma density for each third that the last week's move, or the mean of the "
        "last ten, may lie in.",
        pictures=[drawn(
            figure, "Top: weekly moves, the most probable regimes (colours) and their means (bars). Below: what the "
            "filter knew at the time, from the data so far only. Right of the dashed line are weeks that the fit did "
            "not see.",
        )],
    )  # fmt: skip


def text(key: Any, quick: bool) -> Row:
    """HMM over characters, against independent characters and a Markov chain of them."""
    start, train_key, rate = jax.random.split(key, 3)
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
    one = leaf(start, train.reshape(-1))
    base = float(np.asarray(one.log_probs)[np.asarray(test)].mean())
    # the first of each line follows nothing, for the model as for the chain
    steps, past = (a.reshape(-1) for a in (np.asarray(train)[:, 1:], np.asarray(train)[:, :-1]))
    later, later_past = (a.reshape(-1) for a in (np.asarray(test)[:, 1:], np.asarray(test)[:, :-1]))
    chain = float(order_one(one, steps, past, (later, later_past)).mean()) * (width - 1) / width
    chain += float(np.asarray(one.log_probs)[np.asarray(test[:, 0])].mean()) / width
    times, samples = timing(rate, fitted, 100, length=600)
    return Row(
        data="The Time Machine", kind=found.kind, unit="character", held_out=held_out,
        baselines={"independent": base, "Markov chain": chain}, timing=times,
        text=f"A hidden Markov model of {states} states over the {len(d.alphabet)} characters of a novel, "
        f"{fitted.steps} steps of Baum-Welch. On the last tenth of the book its perplexity is "
        f"{perplexity(held_out):.1f}, that of a Markov chain of characters {perplexity(chain):.1f}, and that of "
        f"independent characters {perplexity(base):.1f}: so many equally likely characters would be as hard to guess. "
        "A sample is 600 characters; one is below. The states learn vowels, consonants, gaps and endings, and no "
        "spelling.",
        pictures=[drawn(
            _characters(fitted.model, d.alphabet), "Left: which characters each state emits: space (\u2423), end "
            "of line (\u00b6), vowels, consonants, marks. Right: which state follows which, states in the same order.",
        )], block="".join(d.alphabet[c] for c in np.asarray(samples[0])),
    )  # fmt: skip


def _characters(model: Any, alphabet: str) -> Any:
    """Draw what the states of a chain emit, and how they follow each other."""
    names = [" ", "\n", *VOWELS, *CONSONANTS, *MARKS]
    emitted, move = np.asarray(model.emissions.probs), np.asarray(model.transition)
    known = [emitted[:, alphabet.index(name)] if name in alphabet else np.zeros(len(emitted)) for name in names]
    capitals = emitted[:, [i for i, c in enumerate(alphabet) if c.isupper()]].sum(axis=1)
    share = np.stack([*known, capitals, 1 - sum(known) - capitals], axis=1)
    order = np.lexsort((-share.max(axis=1), share.argmax(axis=1)))
    figure, axes = new_figure(2, 4.2, width_ratios=(5, 3))
    norm = PowerNorm(0.5, 0, 1)
    for ax, values in zip(axes, (share[order], move[order][:, order]), strict=True):
        picture = ax.imshow(values, cmap=plot.DENSITY, norm=norm, aspect="auto", interpolation="nearest")
        clean(ax).tick_params(length=0, labelsize=9, colors=plot.INK)
    labels = ["\u2423", "\u00b6", *names[2:], "A-Z", "other"]
    axes[0].set_xticks(range(len(labels)), labels)
    for label in axes[0].get_xticklabels()[-2:]:
        label.set_rotation(90)
    axes[0].set(ylabel="state", yticks=(), xlabel="character")
    axes[1].set(ylabel="state", yticks=(), xlabel="next state", xticks=())
    add_titles(axes, "what a state emits", "what follows it")
    figure.colorbar(picture, ax=axes[1], label="probability", ticks=(0, 0.05, 0.2, 0.5, 1))
    return figure


def composition(key: Any, quick: bool) -> Row:
    """HMM whose emissions are mixtures, on Old Faithful in time, against Gaussians with and without a memory."""
    start, train_key, base_key, rate = jax.random.split(key, 4)
    x, cut = jnp.asarray(data.old_faithful().values, jnp.float32), 200
    (now, past), steps = lagged(x, 1), 5 if quick else None

    # one covariance for the Gaussians of a mixture: with one each, a few eruptions of equal length would get their own
    gaussian = functools.partial(Gaussian.init, tied=True)

    def leaf(key: Any, x: Any) -> Mixture:
        return Mixture.init(key, x, 2, gaussian)

    model, algorithm = recipes.hidden_markov(start, x[None, :cut], 2, leaf=leaf, stickiness=0.5)
    fitted = fit(train_key, model, x[None, :cut], algorithm, steps=steps)
    four, algorithm = recipes.gaussian_mixture(base_key, x[:cut], 4, leaf=gaussian)
    four = fit(base_key, four, x[:cut], algorithm, steps=steps).model
    autoregression = LinearRegression.init(start, now[: cut - 1], past[: cut - 1])
    move = np.asarray(fitted.model.transition)
    path = np.asarray(fitted.model.viterbi(x).path)
    figure, axes = new_figure(2, 3.4, width_ratios=(2, 5), sharey=True)
    for state in range(2):
        plot.points(x[path == state], axes[0], colour=plot.PALETTE[state])
    plot.states(x[cut:, 1], path[cut:], axes[1], time=np.arange(cut, len(x)))
    axes[0].set(xlabel="eruption (minutes)", ylabel="waiting (minutes)")
    axes[1].set(xlabel="eruption, in order of time")
    add_titles(axes, "all eruptions", "those that the fit did not see")
    return Row(
        data="Old Faithful in time", kind=Kind.EXACT, unit="eruption",
        held_out=float(forecast(fitted.model, x, cut).mean()),
        baselines={
            "4 Gaussians, no time": float(four.log_prob(x[cut:]).mean()),
            "autoregression": float(autoregression.log_prob(now[cut - 1 :], context=past[cut - 1 :]).mean()),
        },
        timing=timing(rate, fitted, 1000, length=100)[0],
        text="Any model is a part of any other: here each state of a hidden Markov model emits from a mixture of two "
        f"Gaussians of one covariance, and EM trains all of it, {fitted.steps} steps, by recursion. The geyser "
        f"alternates, and the model learns it: it leaves its states with probabilities {move[0, 1]:.2f} and "
        f"{move[1, 0]:.2f}. The number is the exact log-density of the last 72 eruptions given the 200 before. One "
        "baseline has four Gaussians too and no memory; the other is one Gaussian around a linear function of the "
        "eruption before.",
        pictures=[drawn(figure, "The decoded states of eruptions: colours in the plane and behind the waits.")],
    )  # fmt: skip
