"""The tour: every family fitted on real data that ships in the package, one table, and one page of pictures."""

from __future__ import annotations

import io
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
from jaxgen.metrics.likelihood import score
from jaxgen.models.discrete import Bernoulli
from jaxgen.models.gaussian import Gaussian
from jaxgen.page import Picture, Section, page

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
        "" if row.held_out is None else f"{row.held_out:.3f} / {row.unit}",
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


def flow(key: Any, quick: bool) -> Row:
    """RealNVP on two moons, against one Gaussian."""
    start, train_key, draw, rate, a, b = jax.random.split(key, 6)
    train, test = data.two_moons(a, 20_000), data.two_moons(b, 10_000)
    steps = 5 if quick else 3000
    model, algorithm = recipes.realnvp(start, train, steps=steps)
    fitted = fit(train_key, model, train, algorithm, steps=steps, batch_size=256)
    best = float(np.mean(data.two_moons_log_density(test[:2000])))
    figure, axes = _figure(2, 3.4)
    plot.density(fitted.model, test[:1500], axes[0])
    plot.data_and_samples(test[:1500], fitted.model.sample(draw, (1500,)), axes[1])
    _titles(axes, "density", "samples beside held-out data")
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
    "Boltzmann machine": boltzmann_machine,
    "flow (RealNVP)": flow,
}
