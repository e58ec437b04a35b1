"""The tour: every family fitted on real data that ships in the package, one table, and one page of pictures."""

from __future__ import annotations

import functools
import io
import math
import math
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from jaxgen import data, plot, recipes
from jaxgen._version import __version__
from jaxgen.core.protocols import Kind
from jaxgen.fit.driver import Fitted, fit
from jaxgen.metrics.likelihood import perplexity, score
from jaxgen.models.discrete import Bernoulli, Categorical, Poisson
from jaxgen.models.gaussian import Gaussian
from jaxgen.models.mixture import Mixture
from jaxgen.page import Picture, Section, page

#: standard deviation of each Gaussian on the ring of `data.eight_gaussians`
RING_SCALE = 0.5 / math.sqrt(2)
#: standard deviation of each Gaussian on the ring of `data.eight_gaussians`
RING_SCALE = 0.5 / math.sqrt(2)
HEADER = ("family", "data", "likelihood", "held-out nats", "baseline", "compile s", "fit s", "samples/s")


class Row(NamedTuple):
    """What one family's part of the tour found.

    Args:
        data: what it was fitted to.
        kind: what the likelihoods mean.
        unit: what they are per: `"event"`, `"year"`, `"image"`.
        held_out: nats per unit on data that the model did not see; None where there is no likelihood.
        baseline: the same events under the baseline.
        baseline_name: what that is.
        compile_seconds, seconds: of the fit.
        samples_per_second: at the second call of one shape.
        text: paragraphs, what was fitted and what the number means.
        pictures: figures with captions.
        block: text to show as it is.
        instead: what the table shows where there is no likelihood.
    """

    data: str
    kind: Kind
    unit: str
    held_out: float | None
    baseline: float | None
    baseline_name: str
    compile_seconds: float
    seconds: float
    samples_per_second: float
    text: Sequence[str]
    pictures: Sequence[tuple[Figure, str]]
    block: str = ""
    instead: str = ""


class Failed(NamedTuple):
    """A part of the tour that raised."""

    error: str
    trace: str


class Result(NamedTuple):
    """What `tour` did: its rows by family, seconds in all, and the page.

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


def tour(out: Any, *, quick: bool = False, parts: dict[str, Part] | None = None, seed: int = 0) -> Result:
    """Fits every family, prints one table, and writes pictures and `index.html`.

    Args:
        out: the folder to write, made where it is missing.
        quick: a few steps of everything, to see that it runs; the numbers then mean little.
        parts: `(key, quick) -> Row` by family; None is all of them, `PARTS`.
        seed: of all randomness.

    Returns:
        `Result`; a part that raises is in it as `Failed`, and the others go on.

    Example:
        >>> import tempfile
        >>> result = tour(tempfile.mkdtemp(), quick=True, parts={})  # doctest: +ELLIPSIS
        family ...
        >>> result.page.name, result.failed
        ('index.html', [])
    """
    begun = time.perf_counter()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    parts = PARTS if parts is None else parts
    keys = jax.random.split(jax.random.key(seed), max(1, len(parts)))
    rows: dict[str, Row | Failed] = {}
    # disable=None: silent where standard error is no terminal
    with tqdm(total=len(parts), disable=None, unit="family", leave=False, dynamic_ncols=True) as bar:
        for key, (name, part) in zip(keys, parts.items(), strict=False):
            bar.set_description(name)
            try:
                rows[name] = part(key, quick)
            except Exception as error:  # one family's failure is its row's, and the exit status's
                first = (str(error).splitlines() or [""])[0]
                rows[name] = Failed(f"{type(error).__name__}: {first}", traceback.format_exc())
            bar.update()
    seconds = time.perf_counter() - begun
    print(table(rows))
    path = folder / "index.html"
    path.write_text(_page(rows, folder, seconds, quick), encoding="utf-8")
    for name, row in rows.items():
        if isinstance(row, Failed):
            print(f"\n{name} failed:\n{row.trace}", file=sys.stderr)
    return Result(rows, seconds, path)


def cells(name: str, row: Row | Failed) -> list[str]:
    """One row of the table as text.

    Example:
        >>> cells("flow", Failed("ValueError: no", ""))[:3]
        ['flow', 'FAILED', 'ValueError: no']
    """
    if isinstance(row, Failed):
        return [name, "FAILED", row.error[:60], "", "", "", "", ""]
    numbers = [
        row.instead if row.held_out is None else f"{row.held_out:.3f} / {row.unit}",
        "" if row.baseline is None else f"{row.baseline:.3f} ({row.baseline_name})",
        f"{row.compile_seconds:.1f}", f"{row.seconds:.1f}", _short(row.samples_per_second),
    ]  # fmt: skip
    return [name, row.data, str(row.kind), *numbers]


def table(rows: dict[str, Row | Failed]) -> str:
    """The table of the tour as text, columns aligned.

    Example:
        >>> print(table({}))
        family  data  likelihood  held-out nats  baseline  compile s  fit s  samples/s
    """
    lines = [list(HEADER), *(cells(name, row) for name, row in rows.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]

    def aligned(line: list[str]) -> str:
        return "  ".join(c.rjust(w) if i > 4 else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))).rstrip()

    return "\n".join(aligned(line) for line in lines)


def _short(number: float) -> str:
    """Two or three digits and a letter for thousands and millions."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def _page(rows: dict[str, Row | Failed], folder: Path, seconds: float, quick: bool) -> str:
    sections = []
    for name, row in rows.items():
        anchor = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        if isinstance(row, Failed):
            sections.append(Section(anchor, name, ["This part failed."], row.trace, []))
            continue
        pictures = []
        for i, (figure, caption) in enumerate(row.pictures):
            png = _png(figure)
            (folder / f"{anchor}-{i + 1}.png").write_bytes(png)
            pictures.append(Picture(png, caption))
        sections.append(Section(anchor, f"{name}: {row.data}", row.text, row.block, pictures))
    device = jax.devices()[0]
    intro = [
        "Six families of generative models, and models made of them, each fitted in seconds on real data that ship "
        "with the package and judged on data that it did not see.",
        f"jaxgen {__version__}, JAX {jax.__version__} on {device.platform} ({device.device_kind}), "
        f"{seconds:.0f} seconds for everything, compilation included"
        + (". A quick run: few steps, so the numbers mean little." if quick else "."),
    ]
    note = (
        "Nats are natural-log units of log-likelihood, higher is better. Numbers of different kinds are not compared: "
        "exact is log p itself; a lower bound is at most log p; an estimate may err on either side. Model and baseline "
        "see the same held-out events. Samples per second are those of a second call, after compilation."
    )
    text = [cells(name, row) for name, row in rows.items()]
    return page("jaxgen: the tour", intro, HEADER, text, sections, note=note)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, facecolor="white")
    return buffer.getvalue()


def _figure(columns: int = 2, height: float = 4.2, **options: Any) -> tuple[Figure, Any]:
    """A figure of 1000 pixels width and its axes."""
    figure = Figure(figsize=(10, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08, wspace=0.04)  # type: ignore[union-attr]
    return figure, figure.subplots(1, columns, **options)


def _titles(axes: Any, *titles: str) -> None:
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=11, loc="left", color=plot.INK)


def _scores(key: Any, model: Any, test: Any, **options: Any) -> dict[str, Any]:
    result = score(key, model, test, **options)
    return {"held_out": result.mean, "kind": result.kind}


def _rate(key: Any, model: Any, n: int, **options: Any) -> float:
    """Samples per second at the second call."""
    first, second = jax.random.split(key)
    jax.block_until_ready(model.sample(first, (n,), **options))
    begun = time.perf_counter()
    jax.block_until_ready(model.sample(second, (n,), **options))
    return n / (time.perf_counter() - begun)


def _timing(key: Any, fitted: Fitted, n: int, **options: Any) -> dict[str, float]:
    return {
        "compile_seconds": fitted.compile_seconds, "seconds": fitted.seconds,
        "samples_per_second": _rate(key, fitted.model, n, **options),
    }  # fmt: skip


def gaussian_mixture(key: Any, quick: bool) -> Row:
    """Gaussian mixture on Old Faithful, against one Gaussian."""
    start, train_key, draw, rate = jax.random.split(key, 4)
    d = data.old_faithful()
    train, test = (jnp.asarray(d.values[i], jnp.float32) for i in (d.train, d.test))
    model, algorithm = recipes.gaussian_mixture(start, train, 2)
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else None)
    one = Gaussian.init(start, train)
    figure, axes = _figure()
    axes[0].scatter(*np.asarray(train).T, s=10, color=plot.DATA, linewidths=0)
    plot.ellipses(fitted.model, axes[0])
    plot.density(fitted.model, test, axes[1])
    _titles(axes, "components over training data", "density over held-out data")
    for ax in axes:
        ax.set(xlabel="eruption (minutes)", ylabel="waiting for the next (minutes)")
    return Row(
        data="Old Faithful", unit="eruption", **_scores(key, fitted.model, test),
        baseline=score(key, one, test).mean, baseline_name="one Gaussian", **_timing(rate, fitted, 100_000),
        text=[
            f"Two Gaussians with full covariances, from a k-means start, by {fitted.steps} steps of EM on 200 eruptions "
            "of the geyser: how long each took, and the wait for the next one. The number is the exact log-density of 72 "
            "other eruptions, mean per eruption.",
        ],
        pictures=[
            (figure, "Left: the two components at one and two standard deviations, over the training data. "
                     "Right: the density of the mixture, contours around 25 to 99 % of its mass, with held-out eruptions."),
        ],
    )  # fmt: skip


def hidden_markov(key: Any, quick: bool) -> Row:
    """HMM with Poisson emissions on earthquakes, against one Poisson."""
    start, train_key, rate = jax.random.split(key, 3)
    d = data.earthquakes()
    x = jnp.asarray(d.counts, jnp.float32)
    train = x[d.train]
    model, algorithm = recipes.hidden_markov(start, train[None], 3, leaf=Poisson.init)
    fitted = fit(train_key, model, train[None], algorithm, steps=5 if quick else None)
    one = Poisson.init(start, train)
    figure, ax = _figure(1, 3.6)
    path = np.asarray(fitted.model.viterbi(x).path)
    plot.states(d.counts, path, ax, time=d.years, levels=fitted.model.emissions.rate)
    ax.axvline(d.years[d.test[0]] - 0.5, color=plot.INK, linewidth=1, linestyle=(0, (4, 3)))
    ax.set(xlabel="year", ylabel="earthquakes a year")
    rates = ", ".join(f"{r:.0f}" for r in np.sort(np.asarray(fitted.model.emissions.rate)))
    return Row(
        data="earthquakes", kind=Kind.EXACT, unit="year", held_out=_forecast(fitted.model, x, len(train)),
        baseline=score(key, one, x[d.test]).mean, baseline_name="one Poisson", **_timing(rate, fitted, 1000, length=100),
        text=[
            "Three hidden states, each with its own rate of major earthquakes in the world, by "
            f"{fitted.steps} steps of Baum-Welch on the years to 1979. The states found have {rates} earthquakes a year. "
            "The number is a forecast: the exact log-probability of 1980 to 2006 given the years before, mean per year. "
            "A sample is a century.",
        ],
        pictures=[
            (figure, "The most probable path of states (colours, Viterbi), the rate of each (line), and the counts. "
                     "Right of the dashed line are years that the fit did not see.")
        ],
    )  # fmt: skip


def text(key: Any, quick: bool) -> Row:
    """HMM over characters, against independent characters."""
    start, train_key, draw, rate = jax.random.split(key, 4)
    d = data.text()
    width = 256
    train, test = (
        jnp.asarray(d.codes[i[: len(i) // width * width]].reshape(-1, width), jnp.int32) for i in (d.train, d.test)
    )
    # half a count for every character that a state did not meet: the test part may hold it
    leaf = functools.partial(Categorical.init, size=len(d.alphabet), prior=1.5)
    states = 4 if quick else 24
    model, algorithm = recipes.hidden_markov(start, train, states, leaf=leaf, stickiness=1 / states)
    fitted = fit(train_key, model, train[::3], algorithm, steps=2 if quick else 30, tolerance=0.0)
    held_out = score(key, fitted.model, test).mean / width
    base = score(key, leaf(start, train.reshape(-1)), test.reshape(-1)).mean
    sample = "".join(d.alphabet[c] for c in np.asarray(fitted.model.sample(draw, length=600)))
    return Row(
        data="The Time Machine", kind=Kind.EXACT, unit="character", held_out=held_out, baseline=base,
        baseline_name="independent", **_timing(rate, fitted, 100, length=width),
        text=[
            f"A hidden Markov model of {states} states over the {len(d.alphabet)} characters of a novel, {fitted.steps} "
            f"steps of Baum-Welch. On the last tenth of the book its perplexity is {perplexity(held_out):.1f}, that of "
            f"independent characters {perplexity(base):.1f}: so many equally likely characters would be as hard to guess. "
            f"A sample is {width} characters; below are 600. The states learn vowels, consonants, gaps and endings, "
            "and no spelling.",
        ],
        pictures=[], block=sample,
    )  # fmt: skip


def composition(key: Any, quick: bool) -> Row:
    """HMM whose emissions are mixtures, on Old Faithful in time, against the same Gaussians without time."""
    start, train_key, base_key, rate = jax.random.split(key, 4)
    x = jnp.asarray(data.old_faithful().values, jnp.float32)
    cut = 200

    def leaf(key: Any, x: Any) -> Mixture:
        return Mixture.init(key, x, 2, Gaussian.init)

    model, algorithm = recipes.hidden_markov(start, x[None, :cut], 2, leaf=leaf, stickiness=0.5)
    fitted = fit(train_key, model, x[None, :cut], algorithm, steps=5 if quick else None)
    four = fit(base_key, recipes.gaussian_mixture(base_key, x[:cut], 4)[0], x[:cut], algorithm).model
    figure, ax = _figure(1, 3.2)
    tail = slice(cut, len(x))
    path = np.asarray(fitted.model.viterbi(x).path)
    plot.states(x[tail, 1], path[tail], ax, time=np.arange(len(x))[tail])
    ax.set(xlabel="eruption, in order of time", ylabel="waiting (minutes)")
    move = np.asarray(fitted.model.transition)
    return Row(
        data="Old Faithful in time", kind=Kind.EXACT, unit="eruption", held_out=_forecast(fitted.model, x, cut),
        baseline=score(key, four, x[cut:]).mean, baseline_name="4 Gaussians, no time",
        **_timing(rate, fitted, 1000, length=100),
        text=[
            "Any model is a part of any other: here each state of a hidden Markov model emits from a mixture of two "
            f"Gaussians, and EM trains all of it in {fitted.steps} steps, by recursion. The model learns that the geyser "
            f"alternates: its states change with probabilities {move[0, 1]:.2f} and {move[1, 0]:.2f}. The number is the "
            "exact log-density of the last 72 eruptions given the 200 before; the baseline has the same four Gaussians, "
            "and no memory.",
        ],
        pictures=[(figure, "The decoded states of the eruptions that the fit did not see, over their waiting times.")],
    )  # fmt: skip


def _forecast(model: Any, x: Any, cut: int) -> float:
    """`log p(x_cut.. | x_..cut)` per time step, nats."""
    return float(model.log_prob(x) - model.log_prob(x[:cut])) / (len(x) - cut)


def boltzmann_machine(key: Any, quick: bool) -> Row:
    """Restricted Boltzmann machine on binary digits, against independent pixels."""
    start, train_key, draw, rate = jax.random.split(key, 4)
    d = data.digits()
    bits = (d.images >= 8).reshape(-1, 64).astype(np.float32)
    train, test = jnp.asarray(bits[d.train]), jnp.asarray(bits[d.test])
    model, algorithm = recipes.rbm(start, train, 16)
    fitted = fit(train_key, model, train, algorithm, steps=20 if quick else 5000)
    samples = fitted.model.sample(draw, (48,))
    figure, axes = _figure(3, 2.9, width_ratios=(4, 4, 3))
    plot.images(test[:48].reshape(-1, 8, 8), axes[0], columns=8)
    plot.images(samples.reshape(-1, 8, 8), axes[1], columns=8)
    plot.filters(fitted.model.weights, (8, 8), axes[2], columns=4)
    _titles(axes, "held-out data", "samples", "weights of the 16 hidden units")
    return Row(
        data="digits 8x8, binary", unit="image", **_scores(key, fitted.model, test),
        baseline=score(key, Bernoulli.init(start, train, prior=0.5), test).mean, baseline_name="independent pixels",
        **_timing(rate, fitted, 200),
        text=[
            f"A restricted Boltzmann machine of 64 visible and 16 hidden bits, {fitted.steps} steps of persistent "
            "contrastive divergence on 1500 handwritten digits, a pixel black where at least half of it is ink. With 16 "
            "hidden units all 65,536 of their states can be enumerated, so the partition function, and with it the "
            "log-likelihood of 297 other digits, is exact. A sample is the end of a Markov chain of 1000 sweeps.",
        ],
        pictures=[(figure, "Held-out digits, samples, and what each hidden unit sees: blue pixels switch it on, brown off.")],
    )  # fmt: skip


def autoencoder(key: Any, quick: bool) -> Row:
    """VAE on binary pictures of clothes, against independent pixels."""
    start, train_key, draw, rate, coins, held_coins = jax.random.split(key, 6)
    d = data.fashion_mnist()
    grey = jnp.asarray(d.images, jnp.float32) / 255
    # four coins for each training pixel: the same pictures, less to learn by heart
    train = jax.random.bernoulli(coins, grey[d.train], (4, len(d.train), 28, 28)).reshape(-1, 28, 28)
    test = jax.random.bernoulli(held_coins, grey[d.test])
    train, test = (train[:200], test[:50]) if quick else (train, test)
    steps = 5 if quick else 1000
    model, algorithm = recipes.vae(start, train, 20, steps=steps)
    fitted = fit(train_key, model, train, algorithm, steps=steps, batch_size=128)
    shown = test[:40]
    means = fitted.model.decode(fitted.model.prior.sample(draw, (40,)))
    figure, axes = _figure(3, 2.4)
    for ax, pictures in zip(axes, (shown, fitted.model.decode(fitted.model.encode(shown)[0]), means), strict=True):
        plot.images(jnp.asarray(pictures, jnp.float32), ax, columns=8)
    _titles(axes, "held-out data", "reconstructions", "samples (means of pixels)")
    curve, ax = _figure(1, 2.6)
    plot.history(fitted, "loss", ax)
    bound, one = score(key, fitted.model, test), score(key, fitted.model, test, samples=32)
    base = Bernoulli.init(start, jnp.asarray(train, jnp.float32), prior=1.5)
    return Row(
        data="Fashion-MNIST, binary", kind=one.kind, unit="image", held_out=one.mean,
        baseline=score(key, base, jnp.asarray(test, jnp.float32)).mean, baseline_name="independent pixels",
        **_timing(rate, fitted, 1000),
        text=[
            "A variational autoencoder with 20 latent dimensions and one hidden layer of 400 on either side, "
            f"{fitted.steps} steps of Adam on 4000 pictures of clothes, each pixel black with the probability of its "
            "brightness. The number is a lower bound of the log-likelihood of 1000 other pictures, importance weighted "
            f"over 32 draws (the plain bound, the ELBO, is {bound.mean:.1f}); the baseline's is exact.",
        ],
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
    figure, axes = _figure(2, 3.3)
    plot.images(d.images[d.test][:60], axes[0], columns=12)
    plot.images(jnp.clip(fitted.model.sample(draw, (60,)), 0, 1), axes[1], columns=12)
    _titles(axes, "held-out data", "samples")
    return Row(
        data="digits 8x8, grey", kind=Kind.NONE, unit="image", held_out=None, baseline=None, baseline_name="",
        **_timing(rate, fitted, 50_000),
        text=[
            "A generator from 32 numbers of noise to an image, trained against a critic, multilayer perceptrons both, by "
            f"{fitted.steps} steps of the non-saturating game with gradient penalties. A generator has samples and no "
            "density, so there is no likelihood to report: look at the samples. The network shown is the moving average "
            "of its own course.",
        ],
        pictures=[(figure, "Held-out digits, and samples.")],
    )  # fmt: skip


def adversarial_ring(key: Any, quick: bool) -> Row:
    """GAN on the ring of eight Gaussians: modes found and samples near them."""
    start, train_key, draw, rate, points = jax.random.split(key, 5)
    train = data.eight_gaussians(points, 20_000)
    model, algorithm = recipes.gan(start, train, 2, hidden=(64, 64))
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else 3000, batch_size=256)
    samples = np.asarray(fitted.model.sample(draw, (10_000,)))
    distance = np.linalg.norm(samples[:, None] - data.eight_gaussians_centers(), axis=-1)
    near = distance.min(axis=1) < 3 * RING_SCALE
    # a mode counts as found from a quarter of its fair share on
    found = int((np.bincount(distance.argmin(axis=1)[near], minlength=8) > len(samples) / 32).sum())
    figure, axes = _figure(2, 4.4, sharex=True, sharey=True)
    for ax, dots, colour in zip(axes, (train[:2000], samples[:2000]), (plot.DATA, plot.PALETTE[1]), strict=True):
        ax.scatter(*np.asarray(dots).T, s=3, color=colour, linewidths=0)
        ax.set_aspect("equal")
        ax.spines[["top", "right"]].set_visible(False)
    _titles(axes, "data", "samples")
    return Row(
        data="eight Gaussians", kind=Kind.NONE, unit="point", held_out=None, baseline=None, baseline_name="",
        **_timing(rate, fitted, 100_000), instead=f"{found} of 8 modes, {near.mean():.1%} near",
        text=[
            f"The same game in the plane, {fitted.steps} steps. Of 10,000 samples {near.mean():.1%} lie within three "
            f"standard deviations of one of the eight centres (98.9 % of the data do), and {found} of the eight modes "
            "get at least a quarter of their share of the samples.",
        ],
        pictures=[(figure, "The ring of eight Gaussians, and samples.")],
    )  # fmt: skip


def adversarial_digits(key: Any, quick: bool) -> Row:
    """GAN on grey digits: samples and no likelihood."""
    start, train_key, draw, rate = jax.random.split(key, 4)
    d = data.digits()
    train = jnp.asarray(d.images[d.train], jnp.float32) / 16
    model, algorithm = recipes.gan(start, train)
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else 2500, batch_size=64)
    figure, axes = _figure(2, 3.3)
    plot.images(d.images[d.test][:60], axes[0], columns=12)
    plot.images(jnp.clip(fitted.model.sample(draw, (60,)), 0, 1), axes[1], columns=12)
    _titles(axes, "held-out data", "samples")
    return Row(
        data="digits 8x8, grey", kind=Kind.NONE, unit="image", held_out=None, baseline=None, baseline_name="",
        **_timing(rate, fitted, 50_000),
        text=[
            "A generator from 32 numbers of noise to an image, trained against a critic, multilayer perceptrons both, by "
            f"{fitted.steps} steps of the non-saturating game with gradient penalties. A generator has samples and no "
            "density, so there is no likelihood to report: look at the samples. The network shown is the moving average "
            "of its own course.",
        ],
        pictures=[(figure, "Held-out digits, and samples.")],
    )  # fmt: skip


def adversarial_ring(key: Any, quick: bool) -> Row:
    """GAN on the ring of eight Gaussians: modes found and samples near them."""
    start, train_key, draw, rate, points = jax.random.split(key, 5)
    train = data.eight_gaussians(points, 20_000)
    model, algorithm = recipes.gan(start, train, 2, hidden=(64, 64))
    fitted = fit(train_key, model, train, algorithm, steps=5 if quick else 3000, batch_size=256)
    samples = np.asarray(fitted.model.sample(draw, (10_000,)))
    distance = np.linalg.norm(samples[:, None] - data.eight_gaussians_centers(), axis=-1)
    near = distance.min(axis=1) < 3 * RING_SCALE
    # a mode counts as found from a quarter of its fair share on
    found = int((np.bincount(distance.argmin(axis=1)[near], minlength=8) > len(samples) / 32).sum())
    figure, axes = _figure(2, 4.4, sharex=True, sharey=True)
    for ax, dots, colour in zip(axes, (train[:2000], samples[:2000]), (plot.DATA, plot.PALETTE[1]), strict=True):
        ax.scatter(*np.asarray(dots).T, s=3, color=colour, linewidths=0)
        ax.set_aspect("equal")
        ax.spines[["top", "right"]].set_visible(False)
    _titles(axes, "data", "samples")
    return Row(
        data="eight Gaussians", kind=Kind.NONE, unit="point", held_out=None, baseline=None, baseline_name="",
        **_timing(rate, fitted, 100_000), instead=f"{found} of 8 modes, {near.mean():.1%} near",
        text=[
            f"The same game in the plane, {fitted.steps} steps. Of 10,000 samples {near.mean():.1%} lie within three "
            f"standard deviations of one of the eight centres (98.9 % of the data do), and {found} of the eight modes "
            "get at least a quarter of their share of the samples.",
        ],
        pictures=[(figure, "The ring of eight Gaussians, and samples.")],
    )  # fmt: skip


def flow(key: Any, quick: bool) -> Row:
    """RealNVP on two moons, against one Gaussian."""
    start, train_key, draw, rate, a, b = jax.random.split(key, 6)
    train, test = data.two_moons(a, 20_000), data.two_moons(b, 10_000)
    steps = 5 if quick else 3000
    model, algorithm = recipes.realnvp(start, train, steps=steps)
    fitted = fit(train_key, model, train, algorithm, steps=steps, batch_size=256)
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
        data="two moons", unit="point", **_scores(key, fitted.model, test),
        baseline=score(key, Gaussian.init(start, train), test).mean, baseline_name="one Gaussian",
        **_timing(rate, fitted, 20_000),
        text=[
            f"A RealNVP flow of eight affine coupling layers, {fitted.steps} steps of Adam on batches of 256 points. Its "
            "density is exact: change of variables through layers that invert. The points are drawn from a known density, "
            f"whose own score on such points is {best:.3f} nats: no model can do better on average.",
        ],
        pictures=[
            (figure, "The fitted density, and samples from it beside held-out points."),
            (curve, "Training: minus the log-likelihood of each batch, and its running mean."),
        ],
    )  # fmt: skip


PARTS: dict[str, Part] = {
    "Gaussian mixture": gaussian_mixture,
    "hidden Markov model": hidden_markov,
    "HMM of characters": text,
    "Boltzmann machine": boltzmann_machine,
    "variational autoencoder": autoencoder,
    "adversarial network": adversarial_digits,
    "adversarial network, ring": adversarial_ring,
    "adversarial network": adversarial_digits,
    "adversarial network, ring": adversarial_ring,
    "flow (RealNVP)": flow,
    "HMM of Gaussian mixtures": composition,
}
