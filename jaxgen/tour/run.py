"""The tour itself: all its parts, one after the other."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from jaxgen._version import __version__
from jaxgen.fit.clock import Clock
from jaxgen.report import Failed, Row, page, stacked, table, verdict
from jaxgen.tour import uses as purposes
from jaxgen.tour.applications import anomalies, critic_probe, few_labels, forecasts, made_table, posterior
from jaxgen.tour.autoencoders import autoencoder
from jaxgen.tour.chains import composition, hidden_markov, regimes, text
from jaxgen.tour.energy import boltzmann_machine
from jaxgen.tour.flows import flow, pixels
from jaxgen.tour.games import adversarial_digits, adversarial_ring
from jaxgen.tour.mixtures import gaussian_mixture, variational_mixture
from jaxgen.tour.uses import Asked, Use


class Tour(NamedTuple):
    """The result of `tour`.

    Args:
        rows: `Row` or `Failed` by the family's name.
        uses: `Use` or `Failed` by the name of the use, of the families that were fitted.
        seconds: wall time of everything after the imports.
        page: the path of `index.html`.
    """

    rows: dict[str, Row | Failed]
    uses: dict[str, Use | Failed]
    seconds: float
    page: Path

    @property
    def failed(self) -> list[str]:
        """Names of the families and uses that failed."""
        return [name for name, found in (*self.rows.items(), *self.uses.items()) if isinstance(found, Failed)]


Part = Callable[[Any, bool], Row]


def tour(out: Any, *, quick: bool = False, parts: dict[str, Part] | None = None, seed: int = 0) -> Tour:
    """Fits every family, puts six of them to use, prints two tables, and writes pictures and `index.html`.

    Args:
        out: the folder to write, made where it is missing.
        quick: a few steps of everything, to see that it runs; the numbers then mean little.
        parts: `(key, quick) -> Row` by family; None takes `PARTS`, which is all of them.
        seed: of all randomness.

    Returns:
        `Tour`; a part that raises is in it as `Failed`, its traceback goes to standard error, and the others go on.

    Example:
        >>> import tempfile
        >>> result = tour(tempfile.mkdtemp(), parts={})  # doctest: +ELLIPSIS
        family  data  likelihood  per  nats  baseline  best baseline  compile s  fit s  total s  samples/s
        ...
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
            clock = Clock()
            try:
                row = part(jax.random.fold_in(jax.random.key(seed), i), quick)
                rows[name] = row._replace(timing=row.timing._replace(compile=clock.compiling, total=clock.elapsed))
            except Exception as error:  # one family's failure is its row's, and the exit status's
                rows[name] = _failed(error)
            bar.update()
    done = {name: row for name, row in rows.items() if isinstance(row, Row)}
    uses: dict[str, Use | Failed] = {}
    for i, (name, asked) in enumerate(USES.items()):
        if asked.family not in done:
            continue
        clock = Clock()
        try:
            key = jax.random.fold_in(jax.random.key(seed), len(PARTS) + i)
            use = asked.make(key, done[asked.family].kept, quick)
            uses[name] = use._replace(seconds=clock.elapsed)
        except Exception as error:
            uses[name] = _failed(error)
    path = folder / "index.html"
    device = jax.devices()[0]
    fitted = time.perf_counter() - begun
    introduction = [
        f"{len(rows)} generative models, each fitted in seconds to data that ship with the package and judged on data "
        "that the fit did not see; and what they are for.",
        f"jaxgen {__version__}, JAX {jax.__version__} on {device.platform} ({device.device_kind}), "
        f"{fitted:.0f} seconds for all of them, compilation included."
        f"{' A quick run: the numbers mean little.' * quick}",
    ]
    path.write_text(page("jaxgen: the tour", introduction, rows, folder, purposes.sections(uses, folder)),
                    encoding="utf-8")  # fmt: skip
    shown = [done[name].pictures[0] for name in OVERVIEW if name in done]
    if shown:
        (folder / "tour.png").write_bytes(stacked(shown))
    print(table(rows))
    for name, row in done.items():
        if row.gain is not None and row.gain < 0:
            print(f"{name}: {verdict(row)}")
    if uses:
        print(f"\nWhat models are for\n{purposes.table(uses)}")
    for name, failure in (*rows.items(), *uses.items()):
        if isinstance(failure, Failed):
            print(f"\n{name} failed:\n{failure.trace}", file=sys.stderr)
    seconds = time.perf_counter() - begun
    print(f"{seconds:.0f} s after imports, of which {seconds - fitted:.1f} s went into the page.")
    return Tour(rows, uses, seconds, path)


def _failed(error: Exception) -> Failed:
    """The error that is being handled, in one line and in full."""
    message = (str(error).splitlines() or [""])[0]
    return Failed(f"{type(error).__name__}: {message}", traceback.format_exc())


#: whose first pictures are the overview `tour.png`
OVERVIEW = (
    "Gaussian mixture", "hidden Markov model", "variational autoencoder", "Boltzmann machine", "flow (RealNVP)",
)  # fmt: skip

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

#: by name what they are for, and whose fit each takes up
USES: dict[str, Asked] = {
    "anomaly detection": Asked("Boltzmann machine", anomalies),
    "few labels": Asked("variational autoencoder", few_labels),
    "features": Asked("adversarial network", critic_probe),
    "a made table": Asked("Gaussian mixture", made_table),
    "a comparison": Asked("HMM of gamma densities", forecasts),
    "inference by simulation": Asked("flow (RealNVP)", posterior),
}
