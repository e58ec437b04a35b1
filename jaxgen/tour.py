"""The tour: every family fitted to data that ship in the package, one table, and one page of pictures."""

from __future__ import annotations

import functools
import math
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from tqdm import tqdm

from jaxgen import data, losses, plot, recipes
from jaxgen._version import __version__
from jaxgen.bijections import Coupling, Interval
from jaxgen.core.protocols import Kind
from jaxgen.fit.driver import fit
from jaxgen.fit.fitted import Fitted
from jaxgen.fit.gradient import Gradient
from jaxgen.metrics.bridge import bracket
from jaxgen.metrics.likelihood import bits_per_dim, perplexity, score
from jaxgen.metrics.partition import log_likelihood
from jaxgen.models.densities.bernoulli import Bernoulli
from jaxgen.models.densities.categorical import Categorical
from jaxgen.models.densities.dequantized import Dequantized
from jaxgen.models.densities.gamma import Gamma
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.densities.normal_wishart import NormalWishart
from jaxgen.models.densities.poisson import Poisson
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.latent.mixture import Mixture
from jaxgen.models.latent.variational import VariationalMixture
from jaxgen.models.neural.flow import Flow
from jaxgen.report import Failed, Row, Timing, page, table

#: standard deviation of each Gaussian on the ring of `data.eight_gaussians`
RING_SCALE = 0.5 / math.sqrt(2)


class Tour(NamedTuple):
    """What `tour` did.

    Args:
        rows: `Row` or `Failed` by the family's name.
        seconds: wall time of everything.
        page: the path of `index.html`.
    """

    rows: dict[str, Row | Failed]
    seconds: float
    page: Path

    @property
    def failed(self) -> list[str]:
        """Names of the families that failed."""
        return [name for name, row in self.rows.items() if isinstance(row, Failed)]


Part = Callable[[Any, bool], Row]


def tour(out: Any, *, quick: bool = False, parts: dict[str, Part] | None = None, seed: int = 0) -> Tour:
    """Fits every family, prints one table, and writes pictures and `index.html`.

    Args:
        out: the folder to write, made where it is missing.
        quick: a few steps of everything, to see that it runs; the numbers then mean little.
        parts: `(key, quick) -> Row` by family; None takes `PARTS`, which is all of them.
        seed: of all randomness.

    Returns:
        `Tour`; a part that raises is in it as `Failed`, its traceback goes to standard error, and the others go on.

    Example:
        >>> import tempfile
        >>> result = tour(tempfile.mkdtemp(), parts={})
        family  data  likelihood  held-out nats  baseline  compile s  fit s  samples/s
        >>> result.page.name, result.failed
        ('index.html', [])
    """
    begun = time.perf_counter()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    parts = PARTS if parts is None else parts
    rows: dict[str, Row | Failed] = {}
    # disable=None: silent where standard error is no terminal
    with tqdm(total=len(parts), disable=None, unit="family", leave=False, dynamic_ncols=True) as bar:
        for i, (name, part) in enumerate(parts.items()):
            bar.set_description(name)
            try:
                rows[name] = part(jax.random.fold_in(jax.random.key(seed), i), quick)
            except Exception as error:  # one family's failure is its row's, and the exit status's
                message = (str(error).splitlines() or [""])[0]
                rows[name] = Failed(f"{type(error).__name__}: {message}", traceback.format_exc())
            bar.update()
    path = folder / "index.html"
    device = jax.devices()[0]
    seconds = time.perf_counter() - begun
    introduction = [
        "Six families of generative models, and a model made of them, each fitted in seconds to data that ship with "
        "the package and judged on data that the fit did not see.",
        f"jaxgen {__version__}, JAX {jax.__version__} on {device.platform} ({device.device_kind}), "
        f"{seconds:.0f} seconds for everything, compilation included."
        + " A quick run: the numbers mean little." * quick,
    ]
    path.write_text(page("jaxgen: the tour", introduction, rows, folder), encoding="utf-8")
    print(table(rows))
    for name, row in rows.items():
        if isinstance(row, Failed):
            print(f"\n{name} failed:\n{row.trace}", file=sys.stderr)
    return Tour(rows, time.perf_counter() - begun, path)


def gaussian_mixture(key: Any, quick: bool) -> Row:
    """Gaussian mixture on Old Faithful, against one Gaussian."""
    start, train_key, rate = jax.random.split(key, 3)
    d = data.old_faithful()
    train, test = (jnp.asarray(d.values[i], jnp.float32) for i in (d.train, d.test))
    model, algorithm = recipes.gaussian_mixture(start, train, 2)
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else None)
    found = score(key, fitted.model, test)
    figure, axes = _figure(2, 4.2)
    plot.points(train, axes[0])
    plot.ellipses(fitted.model, axes[0])
    plot.density(fitted.model, test, axes[1])
    _titles(axes, "components over training data", "density over held-out data")
    for ax in axes:
        ax.set(xlabel="eruption (minutes)", ylabel="waiting for the next (minutes)")
    return Row(
        data="Old Faithful", kind=found.kind, unit="eruption", held_out=found.mean,
        baseline=score(key, Gaussian.init(start, train), test).mean, baseline_name="one Gaussian",
        timing=_timing(rate, fitted, 100_000),
        text=f"Two Gaussians with full covariances, from a k-means start, by {fitted.steps} steps of EM on 200 "
        "eruptions of the geyser: how long each took, and the wait for the next one. The number is the exact "
        "log-density of 72 other eruptions, mean per eruption.",
        pictures=[(
            figure, "Left: the two components at one and two standard deviations, over the training data. Right: the "
            "density of the mixture, contours around 25 to 99 % of its mass, with held-out eruptions.",
        )],
    )  # fmt: skip


def hidden_markov(key: Any, quick: bool) -> Row:
    """HMM with Poisson emissions on earthquakes, against one Poisson."""
    start, train_key, rate = jax.random.split(key, 3)
    d = data.earthquakes()
    x = jnp.asarray(d.counts, jnp.float32)
    train = x[d.train]
    model, algorithm = recipes.hidden_markov(start, train[None], 3, leaf=Poisson.init)
    fitted = fit(train_key, model, train[None], algorithm, steps=5 if quick else None)
    rates = np.asarray(fitted.model.emissions.rate)
    figure, ax = _figure(1, 3.6)
    plot.states(d.counts, fitted.model.viterbi(x).path, ax, time=d.years, levels=rates)
    ax.axvline(d.years[d.test[0]] - 0.5, color=plot.INK, linewidth=1, linestyle=(0, (4, 3)))
    ax.set(xlabel="year", ylabel="earthquakes a year")
    return Row(
        data="earthquakes", kind=Kind.EXACT, unit="year", held_out=_forecast(fitted.model, x, len(train)),
        baseline=score(key, Poisson.init(start, train), x[d.test]).mean, baseline_name="one Poisson",
        timing=_timing(rate, fitted, 1000, length=100),
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
    figure, axes = _figure(1, 4.6, rows=2, sharex=True, height_ratios=(3, 2))
    plot.states(d.size, found.viterbi(x).path, axes[0], time=d.years, levels=mean)
    axes[0].set(ylabel="weekly move (percent)")
    filtered = jnp.exp(found.filter(x).log_filtered)
    axes[1].stackplot(d.years, np.asarray(filtered).T, colors=plot.PALETTE[:2], alpha=0.6, linewidth=0)
    axes[1].set(xlabel="year", ylabel="probability so far", ylim=(0, 1))
    for ax in axes:
        ax.axvline(d.years[d.test[0]], color=plot.INK, linewidth=1, linestyle=(0, (4, 3)))
    weeks = " and ".join(f"{1 / max(1 - s, 1e-3):.0f}" for s in stay)
    return Row(
        data="S&P 500 by weeks", kind=Kind.EXACT, unit="week", held_out=_forecast(found, x, len(train)),
        baseline=score(key, Gamma.init(start, train), x[d.test]).mean, baseline_name="one gamma density",
        timing=_timing(rate, fitted, 1000, length=100),
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
        baseline_name="independent", timing=_timing(rate, fitted, 100, length=width),
        text=f"A hidden Markov model of {states} states over the {len(d.alphabet)} characters of a novel, "
        f"{fitted.steps} steps of Baum-Welch. On the last tenth of the book its perplexity is "
        f"{perplexity(held_out):.1f}, that of independent characters {perplexity(base):.1f}: so many equally likely "
        f"characters would be as hard to guess. A sample is {width} characters; here are 600. The states learn vowels, "
        "consonants, gaps and endings, and no spelling.",
        pictures=[], block=sample,
    )  # fmt: skip


def boltzmann_machine(key: Any, quick: bool) -> Row:
    """Restricted Boltzmann machine on binary digits, against independent pixels."""
    start, train_key, draw, anneal, rate = jax.random.split(key, 5)
    d = data.digits()
    bits = jnp.asarray((d.images >= 8).reshape(-1, 64), jnp.float32)
    train, test = bits[d.train], bits[d.test]
    model, algorithm = recipes.rbm(start, train, 16)
    fitted = fit(train_key, model, train, algorithm, steps=20 if quick else 10_000)
    found = score(key, fitted.model, test)
    between = log_likelihood(fitted.model, test, bracket(anneal, fitted.model, train, chains=200, steps=500))
    figure, axes = _figure(3, 2.9, width_ratios=(4, 4, 3))
    plot.images(test[:48].reshape(-1, 8, 8), axes[0], columns=8)
    plot.images(fitted.model.sample(draw, (48,)).reshape(-1, 8, 8), axes[1], columns=8)
    plot.filters(fitted.model.weights, (8, 8), axes[2], columns=4)
    _titles(axes, "held-out data", "samples", "weights of the 16 hidden units")
    return Row(
        data="digits 8x8, binary", kind=found.kind, unit="image", held_out=found.mean,
        baseline=score(key, Bernoulli.init(start, train, prior=1.5), test).mean, baseline_name="independent pixels",
        timing=_timing(rate, fitted, 200),
        text=f"A restricted Boltzmann machine of 64 visible and 16 hidden bits, {fitted.steps} steps of persistent "
        "contrastive divergence on 1500 handwritten digits, a pixel black where at least half of it is ink. All 65,536 "
        "states of 16 hidden units can be enumerated, so the partition function, and with it the log-likelihood of 297 "
        "other digits, is exact. Larger machines have to rely on annealing: to this one and away from it, without the "
        f"enumeration, it puts the number between {between.low:.2f} and {between.high:.2f}. A sample is the end of a "
        "Markov chain of 1000 sweeps.",
        pictures=[(
            figure, "Held-out digits, samples, and what each hidden unit sees: blue pixels switch it on, brown off.",
        )],
    )  # fmt: skip


def autoencoder(key: Any, quick: bool) -> Row:
    """VAE on binary pictures of clothes, against independent pixels."""
    start, train_key, draw, rate, coins, held_coins = jax.random.split(key, 6)
    d = data.fashion_mnist()
    grey = jnp.asarray(d.images, jnp.float32) / 255
    # four coins for each training pixel: the same pictures, less to learn by heart
    train = jax.random.bernoulli(coins, grey[d.train], (4, len(d.train), 28, 28)).reshape(-1, 28, 28)
    test = jax.random.bernoulli(held_coins, grey[d.test])
    train, test, steps = (train[:200], test[:50], 5) if quick else (train, test, 1000)
    model, algorithm = recipes.vae(start, train, 20, steps=steps)
    fitted = fit(train_key, model, train, algorithm, steps=steps, batch_size=128)
    elbo, found = score(key, fitted.model, test), score(key, fitted.model, test, samples=32)
    shown = test[:40]
    rebuilt = fitted.model.decode(fitted.model.encode(shown)[0])
    drawn = fitted.model.decode(fitted.model.prior.sample(draw, (40,)))
    figure, axes = _figure(3, 2.4)
    for ax, pictures in zip(axes, (shown.astype(jnp.float32), rebuilt, drawn), strict=True):
        plot.images(pictures, ax, columns=8)
    _titles(axes, "held-out data", "reconstructions", "samples (means of pixels)")
    curve, ax = _figure(1, 2.6)
    plot.history(fitted, "loss", ax)
    baseline = score(key, Bernoulli.init(start, train, prior=1.5), test)
    return Row(
        data="Fashion-MNIST, binary", kind=found.kind, unit="image", held_out=found.mean, baseline=baseline.mean,
        baseline_name="independent pixels", timing=_timing(rate, fitted, 1000),
        text="A variational autoencoder with 20 latent dimensions and one hidden layer of 400 on either side, "
        f"{fitted.steps} steps of Adam on 4000 pictures of clothes, each pixel black with the probability of its "
        "brightness. The number is a lower bound of the log-likelihood of 1000 other pictures, importance weighted "
        f"over 32 draws (the plain bound, the ELBO, is {elbo.mean:.1f}); the baseline's is exact.",
        pictures=[
            (figure, "Held-out pictures, what remains of them after 20 numbers, and pictures drawn from the prior."),
            (curve, "Training: minus the bound of each batch, and its running mean."),
        ],
    )  # fmt: skip


def adversarial_digits(key: Any, quick: bool) -> Row:
    """GAN on grey digits: samples and no likelihood."""
    start, train_key, draw, rate = jax.random.split(key, 4)
    d = data.digits()
    train = jnp.asarray(d.images[d.train], jnp.float32) / 16
    model, algorithm = recipes.gan(start, train)
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else 2500, batch_size=64)
    figure, axes = _figure(2, 2.5)
    plot.images(d.images[d.test][:60], axes[0], columns=12)
    plot.images(jnp.clip(fitted.model.sample(draw, (60,)), 0, 1), axes[1], columns=12)
    _titles(axes, "held-out data", "samples")
    return Row(
        data="digits 8x8, grey", kind=Kind.NONE, unit="image", held_out=None, baseline=None, baseline_name="",
        timing=_timing(rate, fitted, 50_000),
        text="A generator from 32 numbers of noise to an image, trained against a critic, both multilayer perceptrons, "
        f"by {fitted.steps} steps of the non-saturating game with gradient penalties. A generator has samples and no "
        "density, so there is no likelihood to report: look at the samples. They come from the moving average of the "
        "generator over the training.",
        pictures=[(figure, "Held-out digits, and samples.")],
    )  # fmt: skip


def adversarial_ring(key: Any, quick: bool) -> Row:
    """GAN on the ring of eight Gaussians: modes found, and samples near them."""
    start, train_key, draw, rate, points = jax.random.split(key, 5)
    train = data.eight_gaussians(points, 20_000)
    model, algorithm = recipes.gan(start, train, 8, hidden=(64, 64))
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else 3000, batch_size=256)
    samples = np.asarray(fitted.model.sample(draw, (10_000,)))
    distance = np.linalg.norm(samples[:, None] - data.eight_gaussians_centers(), axis=-1)
    near = distance.min(axis=1) < 3 * RING_SCALE
    # a mode counts as found from a quarter of its fair share on
    # of each coordinate around its centre: samples that all sit in the middles would be near too
    spread = np.sqrt(np.mean(distance.min(axis=1)[near] ** 2) / 2)
    found = int((np.bincount(distance.argmin(axis=1)[near], minlength=8) > len(samples) / 32).sum())
    figure, axes = _figure(2, 4.0, sharex=True, sharey=True)
    for ax, dots, colour in zip(axes, (train[:2000], samples[:2000]), (plot.DATA, plot.PALETTE[1]), strict=True):
        plot.points(dots, ax, colour=colour)
        ax.set_aspect("equal")
    _titles(axes, "data", "samples")
    return Row(
        data="eight Gaussians", kind=Kind.NONE, unit="point", held_out=None, baseline=None, baseline_name="",
        timing=_timing(rate, fitted, 100_000), instead=f"{found} of 8 modes, {near.mean():.0%} near",
        text=f"The same game in the plane, {fitted.steps} steps. Of 10,000 samples {near.mean():.1%} lie within three "
        f"standard deviations of one of the eight centres (98.9 % of the data do), {found} of the eight modes get at "
        f"least a quarter of their share, and around its centre a coordinate has standard deviation {spread:.2f} (the "
        f"data's: {RING_SCALE:.2f}). No such number says that the two densities are equal.",
        pictures=[(
            figure, "The ring of eight Gaussians and samples: a continuous map of one Gaussian joins modes by threads.",
        )],
    )  # fmt: skip


def flow(key: Any, quick: bool) -> Row:
    """RealNVP on two moons, against one Gaussian."""
    start, train_key, draw, rate, a, b = jax.random.split(key, 6)
    train, test = data.two_moons(a, 20_000), data.two_moons(b, 10_000)
    steps = 5 if quick else 2000
    model, algorithm = recipes.realnvp(start, train, steps=steps)
    fitted = fit(train_key, model, train, algorithm, steps=steps, batch_size=256)
    found = score(key, fitted.model, test)
    best = float(np.mean(data.two_moons_log_density(test[:2000])))
    figure, axes = _figure(2, 3.0)
    plot.density(fitted.model, test[:400], axes[0])
    plot.data_and_samples(test[:1500], fitted.model.sample(draw, (1500,)), axes[1])
    _titles(axes, "density, with held-out data", "samples beside held-out data")
    for ax in axes:
        ax.set_aspect("equal")
    curve, ax = _figure(1, 2.6)
    plot.history(fitted, "loss", ax)
    return Row(
        data="two moons", kind=found.kind, unit="point", held_out=found.mean,
        baseline=score(key, Gaussian.init(start, train), test).mean, baseline_name="one Gaussian",
        timing=_timing(rate, fitted, 20_000),
        text=f"A RealNVP flow of twelve affine coupling layers, {fitted.steps} steps of Adam on batches of 256 points. "
        "Its density is exact: change of variables through layers that invert. The points are drawn from a known "
        f"density, whose own score on the first 2000 of these is {best:.3f} nats: no model does better on average.",
        pictures=[
            (figure, "The fitted density, and samples from it beside held-out points."),
            (curve, "Training: minus the log-likelihood of each batch, and its running mean."),
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
    figure, axes = _figure(3, 2.9)
    classes = np.repeat(np.eye(10, dtype=np.float32), 10, axis=0)
    drawn = given.model.sample(draw, (100,), context=classes).reshape(-1, 8, 8)
    free_drawn = free.model.sample(draw, (100,)).reshape(-1, 8, 8)
    for ax, pictures in zip(axes, (d.images[d.test][:100], free_drawn, drawn), strict=True):
        plot.images(pictures, ax, columns=10)
    _titles(axes, "held-out data", "samples", "samples, one class a row")
    return Row(
        data="digits 8x8, 17 levels", kind=bits[0][0].kind, unit="image", held_out=bits[0][0].mean,
        baseline=alone.mean, baseline_name="independent pixels", timing=_timing(rate, free, 2000),
        text="A flow of four affine couplings on the 64 pixels of a digit. Pixels are whole numbers: uniform noise "
        "makes them real, and the flow ends on the interval of the levels, so that the bound is one of a distribution "
        f"over whole numbers. Bits per dimension, importance weighted over 50 draws: {bits[0][1]:.3f} without the "
        f"class, {bits[1][1]:.3f} with it, {bits_per_dim(alone, 64):.3f} for independent pixels (exact).",
        pictures=[(figure, "Held-out digits, samples of the flow, and samples of the flow that was told the class.")],
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
    figure, ax = _figure(1, 3.0)
    path = np.asarray(fitted.model.viterbi(x).path)
    plot.states(x[cut:, 1], path[cut:], ax, time=np.arange(cut, len(x)))
    ax.set(xlabel="eruption, in order of time", ylabel="waiting (minutes)")
    return Row(
        data="Old Faithful in time", kind=Kind.EXACT, unit="eruption", held_out=_forecast(fitted.model, x, cut),
        baseline=score(key, four, x[cut:]).mean, baseline_name="4 Gaussians, no time",
        timing=_timing(rate, fitted, 1000, length=100),
        text="Any model is a part of any other: here each state of a hidden Markov model emits from a mixture of two "
        f"Gaussians, and EM trains all of it, {fitted.steps} steps, by recursion. The geyser alternates, and the model "
        f"learns it: it leaves its states with probabilities {move[0, 1]:.2f} and {move[1, 0]:.2f}. The number is the "
        "exact log-density of the last 72 eruptions given the 200 before; the baseline has four Gaussians too, and no "
        "memory.",
        pictures=[(figure, "The decoded states of eruptions that the fit did not see, over their waiting times.")],
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
    figure, axes = _figure(2, 4.2, sharex=True, sharey=True)
    for ax, model in zip(axes, (fitted.model, likeliest.model), strict=True):
        plot.density(model, test, ax)
        ax.set(xlabel="eruption (minutes)", ylabel="waiting for the next (minutes)")
    _titles(axes, "variational, held-out data", "maximum likelihood, held-out data")
    return Row(
        data="Old Faithful", kind=found.kind, unit="eruption", held_out=found.mean,
        baseline=score(key, likeliest.model, test).mean, baseline_name=f"{k} Gaussians by EM",
        timing=_timing(rate, fitted, 100_000),
        text=f"A Dirichlet process mixture of up to {k} Gaussians, by {fitted.steps} steps of variational EM on the "
        "same 200 eruptions. Weights, means and covariances have posteriors, and components that the data do not need "
        f"fade: {needed} of {k} keep a weight above 0.02. The number is the log-density of the posterior predictive, "
        f"exact for the fitted posterior; the baseline is {k} Gaussians by maximum likelihood, which overfit.",
        pictures=[(figure, f"Two densities of up to {k} components each, with eruptions that neither fit saw.")],
    )  # fmt: skip


def _figure(columns: int, height: float, *, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure 1000 pixels wide, and its axes."""
    figure = Figure(figsize=(10, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def _titles(axes: Any, *titles: str) -> None:
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=11, loc="left", color=plot.INK)


def _timing(key: Any, fitted: Fitted, n: int, **options: Any) -> Timing:
    """Seconds of a fit, and samples per second at the second call."""
    first, second = jax.random.split(key)
    jax.block_until_ready(fitted.model.sample(first, (n,), **options))
    begun = time.perf_counter()
    jax.block_until_ready(fitted.model.sample(second, (n,), **options))
    return Timing(fitted.compile_seconds, fitted.seconds, n / (time.perf_counter() - begun))


def _forecast(model: Any, x: Any, cut: int) -> float:
    """`log p(x_cut.. | x_..cut)` per time step, nats."""
    return float(model.log_prob(x) - model.log_prob(x[:cut])) / (len(x) - cut)


PARTS: dict[str, Part] = {
    "Gaussian mixture": gaussian_mixture,
    "hidden Markov model": hidden_markov,
    "HMM of gamma densities": regimes,
    "HMM of characters": text,
    "Boltzmann machine": boltzmann_machine,
    "variational autoencoder": autoencoder,
    "adversarial network": adversarial_digits,
    "adversarial network, ring": adversarial_ring,
    "flow (RealNVP)": flow,
    "flow of pixels": pixels,
    "HMM of Gaussian mixtures": composition,
    "variational mixture": variational_mixture,
}
