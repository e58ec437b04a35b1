"""The command line: `python -m jaxgen tour`, `fit`, `score`, `sample`; each is a few lines of the library."""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import recipes
from jaxgen._version import __version__
from jaxgen.core.errors import FileError, FitError, JaxgenError
from jaxgen.core.files import load, save
from jaxgen.data.readers import read
from jaxgen.fit.driver import fit
from jaxgen.fit.loop import Status
from jaxgen.metrics.likelihood import score
from jaxgen.ops import likelihoods
from jaxgen.tour import tour


def _vae(key: Any, x: Any, k: int, **options: Any) -> Any:
    # bits have a Bernoulli likelihood, all else a Gaussian one
    bits = bool(((x == 0) | (x == 1)).all())
    return recipes.vae(key, x, k, likelihood=likelihoods.bernoulli if bits else likelihoods.gaussian, **options)


#: by name: `(key, x, k[, steps=]) -> (model, algorithm)` for a table, what k counts and its default, and whether the
#: recipe plans for the number of steps
FAMILIES: dict[str, tuple[Callable[..., tuple[Any, Any]], str, int, bool]] = {
    "gaussian-mixture": (recipes.gaussian_mixture, "components", 3, False),
    "hmm": (recipes.hidden_markov, "states", 3, False),
    "rbm": (recipes.rbm, "hidden units", 16, False),
    "realnvp": (lambda key, x, k, **options: recipes.realnvp(key, x, layers=k, **options), "layers", 12, True),
    "vae": (_vae, "latent dimensions", 8, True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: as on the command line, without the program's name; None takes those of the process.

    Returns:
        the exit status: 0, 1 where the work itself failed, 2 where the request could not be served.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except JaxgenError as error:
        print(f"jaxgen {options.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output left: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"jaxgen {options.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jaxgen", description="Generative models in JAX.")
    parser.add_argument("--version", action="version", version=f"jaxgen {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("tour", help="fit every family on real data that ships here, and draw it")
    command.add_argument("--out", default="tour", help="the folder for index.html and the pictures (%(default)s)")
    command.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it runs")
    command.set_defaults(run=_tour)

    command = commands.add_parser("fit", help="fit a model to a file of numbers and save it")
    counts = "; ".join(f"{name}: {what}, {default}" for name, (_, what, default, _) in FAMILIES.items())
    command.add_argument("family", choices=list(FAMILIES))
    command.add_argument("data", help="csv, tsv, npy, npz or idx, also gzipped; one event a row (hmm: one time a row)")
    command.add_argument("-o", "--out", required=True, help="the file to save the model to")
    command.add_argument("-k", "--components", type=int, help=f"what it counts, and its default: {counts}")
    command.add_argument("--steps", type=int, help="at most so many (the algorithm's default)")
    command.add_argument("--validation-fraction", type=float, default=0.0, metavar="F",
                         help="share of rows that are held out, to keep the model that is best on them")  # fmt: skip
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=_fit)

    command = commands.add_parser("score", help="print the mean log-likelihood of a file under a model, and its kind")
    command.add_argument("model")
    command.add_argument("data")
    command.add_argument("--samples", type=int, default=64, help="draws per event for a bound (%(default)s)")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=_score)

    command = commands.add_parser("sample", help="draw events from a model, as csv")
    command.add_argument("model")
    command.add_argument("-n", type=int, default=10, help="rows; of a series: its length (%(default)s)")
    command.add_argument("-o", "--out", help="the file to write (standard output)")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=_sample)
    return parser


def _tour(options: argparse.Namespace) -> int:
    result = tour(options.out, quick=options.quick)
    print(f"\n{result.seconds:.0f} s in all; pictures in {result.page}")
    return 1 if result.failed else 0


def _fit(options: argparse.Namespace) -> int:
    folder = Path(options.out).parent
    if not folder.is_dir():  # found out now rather than after the fit
        raise FileError("the folder to save into is not there", called=f"fit -o {options.out}", got=str(folder),
                        expected="an existing folder", fix=f"mkdir -p {folder}")  # fmt: skip
    start, split, train = jax.random.split(jax.random.key(options.seed), 3)
    x = _numbers(options.data)
    recipe, _, k, plans = FAMILIES[options.family]
    x, held_out = (x[None], None) if options.family == "hmm" else _split(split, x, options.validation_fraction)
    if options.family == "hmm" and options.validation_fraction:
        raise FitError("one series has nothing to hold out", called="fit hmm --validation-fraction",
                       expected="no such option", got=str(options.validation_fraction))  # fmt: skip
    planned = {"steps": options.steps} if plans and options.steps else {}
    model, algorithm = recipe(start, x, k if options.components is None else options.components, **planned)
    fitted = fit(train, model, x, algorithm, steps=options.steps, validation=held_out)
    save(fitted.model, options.out)
    print(repr(fitted))
    print(f"{fitted.status.message}; compiled in {fitted.compile_seconds:.1f} s, fitted in {fitted.seconds:.1f} s")
    for name, rows in (("training", x), ("held out", held_out)):
        if rows is not None:
            print(f"{name}: {score(split, fitted.model, rows)}")
    return 1 if fitted.status == Status.NON_FINITE else 0


def _score(options: argparse.Namespace) -> int:
    model = load(options.model)
    print(score(jax.random.key(options.seed), model, _events(model, _numbers(options.data)), samples=options.samples))
    return 0


def _sample(options: argparse.Namespace) -> int:
    model = load(options.model)
    if options.n < 1:
        raise FitError("not a number of rows", called="sample -n", expected="1 or more", got=str(options.n))
    series = None in model.event_shape
    shape = {"length": options.n} if series else {"shape": (options.n,)}
    rows = np.asarray(model.sample(jax.random.key(options.seed), **shape)).reshape(options.n, -1)
    with open(options.out, "w", newline="") if options.out else contextlib.nullcontext(sys.stdout) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(f"x{i}" for i in range(rows.shape[1]))
        writer.writerows([format(value, ".9g") for value in row] for row in rows.tolist())
    return 0


def _numbers(path: str) -> np.ndarray:
    """The table in a file, `[N, D]` float32: one event a row, whatever its shape was."""
    content = read(path)
    if isinstance(content, dict):
        if len(content) != 1 and "x" not in content:
            raise FileError("the file holds several arrays", called=f"read({path!r})", expected="one, or one called x",
                            got=", ".join(content), fix="numpy.savez(path, x=data)")  # fmt: skip
        content = content["x"] if "x" in content else next(iter(content.values()))
    values = content if isinstance(content, np.ndarray) else content.values
    return values.reshape(len(values), -1).astype(np.float32) if values.ndim else values


def _split(key: Any, x: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows to train on, and rows held out at random."""
    held = round(fraction * len(x))
    if not 0 <= fraction < 1 or (fraction > 0 and not 0 < held < len(x)):
        raise FitError("no such share of the rows", called="fit --validation-fraction", expected="0 to below 1",
                       got=f"{fraction} of {len(x)} rows")  # fmt: skip
    if held == 0:
        return x, None
    order = np.asarray(jax.random.permutation(key, len(x)))
    return x[np.sort(order[held:])], x[np.sort(order[:held])]


def _events(model: Any, x: np.ndarray) -> jax.Array:
    """Rows as events of a model: pictures unflattened, scalars without their axis, all rows of a series one event."""
    event = model.event_shape
    if None in event:
        return jnp.asarray(x.reshape((1, len(x), *event[1:])) if x.shape[1] == np.prod(event[1:]) else x[None])
    return jnp.asarray(x.reshape((len(x), *event)) if x.shape[1] == np.prod(event) else x)


if __name__ == "__main__":
    sys.exit(main())
