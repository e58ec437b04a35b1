"""One use of each family, beside what does it without a generative model."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree
from scipy.special import gammaln, logsumexp
from scipy.stats import multivariate_normal, norm, rankdata, spearmanr

from jaxgen import data, plot, tasks
from jaxgen.models.densities.uniform import Uniform
from jaxgen.plot.style import clean, component_colour
from jaxgen.report import drawn
from jaxgen.tasks.conformal import benjamini_hochberg, p_values
from jaxgen.tour.shared import add_titles, new_figure
from jaxgen.tour.uses import Use

#: weeks of the simulator, and the corners of its prior: shape and mean of a gamma density
WEEKS, CORNERS = 52, ((0.5, 0.5), (4.0, 5.0))
#: simulations that posteriors learn from, and steps of the flow's training
SIMULATIONS, STEPS = 4000, 300


# ---- baselines, of arrays


def auroc(score: np.ndarray, strange: np.ndarray) -> float:
    """Return how often a strange event scores above a usual one, of equal scores a half."""
    rank, k = rankdata(score), int(strange.sum())
    return float((rank[strange].sum() - k * (k + 1) / 2) / (k * (len(score) - k)))


def mahalanobis(train: np.ndarray, x: np.ndarray, ridge: float = 0.01) -> np.ndarray:
    """Return squared distances of rows to the mean of others, in their covariance and a ridge on its diagonal."""
    away = x - train.mean(axis=0)
    return np.einsum("nd,nd->n", away, np.linalg.solve(np.cov(train.T) + ridge * np.eye(x.shape[1]), away.T).T)


def principal(x: np.ndarray, train: np.ndarray, size: int) -> np.ndarray:
    """Return rows in the first principal components of others."""
    center = x[train].mean(axis=0)
    directions = np.linalg.eigh(np.cov(x[train].T))[1][:, -size:]
    return (x - center) @ directions


def told_by_neighbours(made: np.ndarray, real: np.ndarray) -> float:
    """Return the share of rows of two tables of one length whose nearest other row is of the same table.

    A half where nothing tells them apart (Schilling 1986, Multivariate two-sample tests based on nearest neighbors).
    """
    x = np.concatenate([made, real]) / real.std(axis=0)
    squares = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(squares, np.inf)
    side = np.arange(len(x)) < len(made)
    return float((side[squares.argmin(axis=1)] == side).mean())


# ---- uses


def anomalies(key: Any, machine: Any, quick: bool) -> Use:
    """Digits that slipped by a column or stand in a mirror, by a Boltzmann machine of digits."""
    d = data.digits()
    bits = np.asarray(d.images >= 8, np.float32)
    train, test = bits[d.train].reshape(-1, 64), bits[d.test]
    normal, asked = test[::2], test[1::2]
    strange = np.concatenate([np.roll(asked, 1, axis=2), asked[:, :, ::-1]])
    x = np.concatenate([normal, asked, strange]).reshape(-1, 64)
    surprise = tasks.Surprise()(key, machine, x)
    odd = np.arange(len(x) - len(normal)) >= len(asked)
    known, scores = np.split(surprise, [len(normal)])
    called = benjamini_hochberg(p_values(scores, known), 0.2)
    rest = x[len(normal) :]
    figure, axes = new_figure(2, 2.6, width_ratios=(4, 5))
    edges = np.linspace(surprise.min(), surprise.max(), 30).tolist()
    for picked, colour, label in ((~odd, plot.DATA, "usual"), (odd, plot.PALETTE[1], "strange")):
        axes[0].hist(scores[picked], edges, density=True, alpha=0.6, color=colour, label=label)
    clean(axes[0]).set(xlabel="free energy", yticks=())
    axes[0].legend(frameon=False, fontsize=9)
    plot.images(rest[np.argsort(-scores)[:40]].reshape(-1, 8, 8), axes[1], columns=10)
    add_titles(axes, "digits that the fit did not see", "the strangest, row by row")
    false = int((called & ~odd).sum())
    return Use(
        "Boltzmann machine", "digits 8x8, binary", "AUROC", auroc(scores, odd),
        {"Mahalanobis distance": auroc(mahalanobis(train, rest), odd),
         "nearest neighbour": auroc(KDTree(train).query(rest)[0], odd)},
        "Anomaly detection: is this a digit as those of the training? The strange ones slipped to the right by a "
        "column of pixels, or stand in a mirror, where some of them are digits still. The score is the free energy, "
        "minus the log-likelihood up to a constant. The number is the probability that a strange digit scores above a "
        f"usual one. Conformal p-values by {len(known)} other digits call {int(called.sum())} of {len(rest)} strange, "
        f"at most a fifth of them falsely in the mean: {false} are false here.",
        [drawn(figure, "Left: free energies of usual and of strange digits. Right: the forty that are strangest.")],
    )  # fmt: skip


def few_labels(key: Any, autoencoder: Any, quick: bool) -> Use:
    """A hundred labels for five thousand pictures of clothes, by the latents of an autoencoder that saw none."""
    d = data.fashion_mnist()
    grey = np.asarray(d.images, np.float32) / 255
    label, flat = np.asarray(d.labels, np.int64), grey.reshape(len(grey), -1)
    rng = np.random.default_rng(0)
    told = np.concatenate([rng.permutation(np.flatnonzero(label == c))[:10] for c in range(10)])
    few = np.full(len(label), -1)
    few[told] = label[told]
    asked = few < 0
    z = tasks.features(autoencoder, grey)
    found = tasks.spread_labels(z, few).argmax(axis=1)

    def right(guess: np.ndarray) -> float:
        return float((guess == label)[asked].mean())

    share = principal(flat, d.train, z.shape[1]).astype(np.float32)
    figure, axes = new_figure(2, 3.8, sharex=True, sharey=True)
    plane = principal(z, np.arange(len(z)), 2)[:, ::-1]
    for ax, rows, size in ((axes[0], told, 22), (axes[1], np.arange(len(z)), 2)):
        ax.scatter(*plane.T, s=1, color=plot.GRID)
        for c in range(10):  # two marks, since there are fewer colours than classes
            own = rows[found[rows] == c]
            ax.scatter(*plane[own].T, s=size, marker="os"[c // len(plot.PALETTE)], color=component_colour(c))
        clean(ax).set(xlabel="first principal latent")
    axes[0].set(ylabel="second principal latent")
    add_titles(axes, "the hundred labels that are told", "labels that spread from them")
    return Use(
        "variational autoencoder", "Fashion-MNIST", "share named right", right(found),
        {"nearest of the told, in pixels": right(label[told][KDTree(flat[told]).query(flat)[1]]),
         "spread over principal components": right(tasks.spread_labels(share, few).argmax(axis=1))},
        f"Few labels: ten pictures of each of ten kinds of clothes are named, and {int(asked.sum())} are to be. The "
        "autoencoder learned without labels where pictures lie in 20 dimensions; labels spread there from neighbour to "
        "neighbour. The same spreading over 20 principal components of the pixels is a baseline.",
        [drawn(figure, "Pictures along two directions of the latent space, colours by class: the labels that are told, "
               "and all labels that spread from them.")],
    )  # fmt: skip


def critic_probe(key: Any, critic: Any, quick: bool) -> Use:
    """Digits that a linear probe names by what the critic of a game sees in them."""
    d = data.digits()
    images = np.asarray(d.images, np.float32) / 16
    label, flat = np.asarray(d.labels), images.reshape(-1, 64)
    z = tasks.features(critic, images)
    components = principal(flat, d.train, 20).astype(np.float32)
    share = {}
    for name, x in {"critic": z, "pixels": flat, "20 principal components": components}.items():
        probe = tasks.linear_probe(key, x[d.train], label[d.train], ridge=1e-3)
        share[name] = probe.accuracy(x[d.test], label[d.test])
    figure, axes = new_figure(2, 3.6)
    for ax, x in zip(axes, (flat, z), strict=True):
        plot.latent_map(x[d.test], ax, label=label[d.test])
    axes[0].get_legend().remove()
    add_titles(axes, "held-out digits, by pixels", "by what the critic sees in them")
    return Use(
        "adversarial network", "digits 8x8, grey", "share named right", share.pop("critic"), share,
        f"Features: the last layer of the critic, {z.shape[1]} numbers, made to tell digits from what the generator "
        "drew, without any label. A linear classifier of them, fitted to 1500 digits, names 297 others; the baselines "
        "are the same classifier of pixels and of their principal components.",
        [drawn(figure, "Held-out digits along the two directions in which they differ most, colours by class.")],
    )  # fmt: skip


def made_table(key: Any, mixture: Any, quick: bool) -> Use:
    """Eruptions that a mixture makes up, beside columns that are resampled one by one."""
    d = data.old_faithful()
    train, test = d.values[d.train], d.values[d.test]
    made = np.asarray(mixture.sample(key, (len(test),)), np.float64)
    rng = np.random.default_rng(0)
    apart = np.stack([rng.choice(column, len(test)) for column in train.T], axis=1)
    gaussian = rng.multivariate_normal(train.mean(axis=0), np.cov(train.T), len(test))
    tables = {"held-out rows": test, "rows of the mixture": made, "columns on their own": apart}
    figure, axes = new_figure(3, 3.2, sharex=True, sharey=True)
    for ax, rows, colour in zip(axes, tables.values(), (plot.DATA, plot.PALETTE[0], plot.PALETTE[1]), strict=True):
        plot.points(rows, ax, colour=colour)
        ax.set(xlabel="eruption (minutes)")
    axes[0].set(ylabel="waiting (minutes)")
    add_titles(axes, *tables)
    orders = [float(spearmanr(*rows.T).statistic) for rows in tables.values()]
    return Use(
        "Gaussian mixture", "Old Faithful", "told from held-out rows, least", told_by_neighbours(made, test),
        {"columns on their own": told_by_neighbours(apart, test), "one Gaussian": told_by_neighbours(gaussian, test)},
        f"A made table: {len(made)} rows of the mixture beside {len(test)} rows that its fit did not see. The number "
        "is the share of rows whose nearest row, of both tables, is of their own: a half where nothing tells them "
        f"apart, with a standard error of about {0.5 / math.sqrt(2 * len(test)):.2f}. Rank correlations of the two "
        f"columns are {orders[0]:.2f} in held-out rows, {orders[1]:.2f} in those made and {orders[2]:.2f} where "
        "columns are drawn on their own. Frames of mixed columns are the business of tasks.synthesizer.",
        [drawn(figure, "Held-out eruptions, rows that the mixture made, and columns resampled one by one.")],
        least=True,
    )  # fmt: skip


def forecasts(key: Any, nats: Any, quick: bool) -> Use:
    """Densities of the next week compared week by week."""
    d = data.weekly_returns()
    name, *others = nats
    ahead = {other: nats[name] - nats[other] for other in others}
    figure, ax = new_figure(1, 3.0)
    for i, (other, gains) in enumerate(ahead.items()):
        ax.plot(d.years[d.test], np.cumsum(gains), color=plot.PALETTE[i], label=f"over {other}")
    ax.axhline(0, color=plot.INK, linewidth=0.8)
    whole = np.arange(np.ceil(d.years[d.test].min()), d.years[d.test].max())
    clean(ax).set(xlabel="year", ylabel="nats ahead, in all", xticks=whole, xticklabels=[f"{y:.0f}" for y in whole])
    ax.legend(frameon=False, fontsize=9)
    means = {other: float(nats[other].mean()) for other in others}
    best = max(means, key=means.__getitem__)
    error = float(ahead[best].std(ddof=1)) / math.sqrt(len(d.test))
    return Use(
        "hidden Markov model", "S&P 500 by weeks", "nats per week", float(nats[name].mean()), means,
        "A comparison of densities: how likely each forecast held what came, in the weeks after those of the fit. "
        "Forecasts of one week are paired, so that the difference is known better than either number: the two regimes "
        f"are ahead of the best baseline, {best}, by {float(ahead[best].mean()):.3f} ± {error:.3f} nats a week, in "
        f"{int((ahead[best] > 0).sum())} of {len(d.test)} weeks. The error takes weeks as independent.",
        [drawn(figure, "The lead of two regimes over each other forecast, added up over the weeks that no fit saw.")],
    )  # fmt: skip


def simulated_year(key: Any, theta: Any) -> jax.Array:
    """Log of the mean and mean of the logs of a year of weekly moves, given shape and mean of a gamma density."""
    shape, mean = theta[:, :1], theta[:, 1:]
    logs = jax.random.loggamma(key, jnp.broadcast_to(shape, (len(theta), WEEKS))) + jnp.log(mean / shape)
    return jnp.stack([jax.nn.logsumexp(logs, axis=1) - math.log(WEEKS), jnp.mean(logs, axis=1)], axis=1)


def year_log_likelihood(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return what the exact log-likelihood of a year's two summaries, which are sufficient, has of the parameters.

    `n (a log(a / m) - log G(a) + (a - 1) x_2 - a / m exp x_1)`, theta `[..., 2]` of shape a and mean m
    """
    a, m = theta[..., 0], theta[..., 1]
    return WEEKS * (a * np.log(a / m) - gammaln(a) + (a - 1) * x[..., 1] - a / m * np.exp(x[..., 0]))


def prior_grid(cells: int = 120) -> tuple[np.ndarray, float]:
    """Return the middles of equal cells of the prior's box, `[C, C, 2]`, and the area of one."""
    low, high = np.array(CORNERS)
    middles = low + np.outer((np.arange(cells) + 0.5) / cells, high - low)
    return np.stack(np.meshgrid(*middles.T, indexing="ij"), axis=-1), float(np.prod((high - low) / cells))


def exact_log_posterior(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the log-density of parameters `[N, 2]` given years `[N, 2]`, nats, by a sum over a grid."""
    grid, area = prior_grid()
    total = np.array([logsumexp(year_log_likelihood(grid, own)) for own in x])
    return year_log_likelihood(theta, x) - total - math.log(area)


def regression_log_prob(known: np.ndarray, seen: np.ndarray, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the log-density of parameters given data under a linear regression of simulated pairs."""
    design = lambda x: np.column_stack([np.ones(len(x)), x])  # noqa: E731
    line = np.linalg.lstsq(design(seen), known, rcond=None)[0]
    residual = multivariate_normal(np.zeros(known.shape[1]), np.cov((known - design(seen) @ line).T))
    return residual.logpdf(theta - design(x) @ line)


def nearest_parameters(known: np.ndarray, seen: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the parameters `[N, 100, D]` of the simulations whose data are the nearest."""
    squares = (((x[:, None] - seen) / seen.std(axis=0)) ** 2).sum(axis=-1)
    return known[np.argsort(squares, axis=1)[:, :100]]


def nearest_log_prob(known: np.ndarray, seen: np.ndarray, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the log-density of parameters under normal densities of those of the nearest simulations."""
    accepted = nearest_parameters(known, seen, x)
    return norm.logpdf(theta, accepted.mean(axis=1), accepted.std(axis=1)).sum(axis=1)


def posterior(key: Any, kept: Any, quick: bool) -> Use:
    """The posterior of a simulator's parameters, learned by a flow from simulations alone."""
    learn, draw, *fresh = jax.random.split(key, 4)
    d, prior = data.weekly_returns(), Uniform.from_values(*CORNERS)
    found = tasks.npe(learn, prior, simulated_year, simulations=SIMULATIONS, steps=5 if quick else STEPS)
    asked = prior.sample(fresh[0], (SIMULATIONS,))  # programs of this number are there already
    asked, years = asked[:500], simulated_year(fresh[1], asked)[:500]
    number = float(np.asarray(found.log_prob(asked, years), np.float64).mean())
    theta, x = np.asarray(asked, np.float64), np.asarray(years, np.float64)
    exact = float(exact_log_posterior(theta, x).mean())
    known, seen = (np.asarray(a, np.float64) for a in (found.simulations.theta, found.simulations.x))
    baselines = {
        "linear regression": regression_log_prob(known, seen, theta, x),
        "nearest simulations": nearest_log_prob(known, seen, theta, x),
    }
    year = d.size[d.train][-WEEKS:]
    observed = np.array([[np.log(year.mean()), np.log(year).mean()]])
    draws = np.asarray(found.sample(draw, 1000, jnp.asarray(observed[0], jnp.float32)))
    grid = prior_grid()[0]
    density = np.exp(year_log_likelihood(grid, observed[0]) - year_log_likelihood(grid, observed[0]).max())
    mass = np.sort(density.ravel())[::-1]
    levels = [mass[np.searchsorted(np.cumsum(mass) / mass.sum(), share)] for share in (0.95, 0.5)]
    figure, axes = new_figure(2, 3.4, sharex=True, sharey=True)
    accepted = nearest_parameters(known, seen, observed)[0]
    for ax, rows, colour in zip(axes, (draws, accepted), plot.PALETTE, strict=False):
        plot.points(rows, ax, colour=colour)
        ax.contour(*np.moveaxis(grid, -1, 0), density, levels=levels, colors=plot.INK, linewidths=1)
        ax.set(xlabel="shape")
    axes[0].set(ylabel="mean weekly move (percent)", xlim=(0.5, 2.5), ylim=(1, 3.5))
    add_titles(axes, "draws of the flow", f"the 100 nearest of {SIMULATIONS} simulations")
    return Use(
        "flow", "S&P 500, a year", "nats per posterior", number,
        {name: float(nats.mean()) for name, nats in baselines.items()},
        "Inference by simulation, by a conditional flow of its own: weekly moves of a year are drawn of a gamma "
        "density, whose shape and mean are asked. The flow learns the posterior of all years at once from "
        f"{SIMULATIONS} simulations, {found.fitted.steps} steps, with the mean of the moves and of their logs for "
        "data. The number is the log-density of the parameters of 500 fresh simulations. Here the posterior is known "
        f"by quadrature: {exact:.3f} nats, which nothing beats. Baselines are normal densities around a linear "
        "regression, and of the 100 nearest simulations.",
        [drawn(figure, "The last year before 2012: contours hold 50 and 95 % of the exact posterior. Left draws of the "
               "flow, right the parameters of the nearest simulations.")],
    )  # fmt: skip
