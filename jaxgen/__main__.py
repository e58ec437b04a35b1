"""The command line: `python -m jaxgen tour`, `fit`, `score`, `sample`; each is a few lines of the library."""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import recipes
from jaxgen._version import __version__
from jaxgen.core.compiled import keep_programs
from jaxgen.core.errors import FileError, FitError, JaxgenError, JaxgenWarning
from jaxgen.core.files import load, save
from jaxgen.data.readers import read
from jaxgen.data.tables import read_csv
from jaxgen.fit.driver import fit
from jaxgen.fit.loop import Status
from jaxgen.metrics.likelihood import score
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.ops import likelihoods
from jaxgen.tour import tour


def _gaussians(recipe: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    # cells without a number, let in by --missing, are entries that were not seen
    return lambda key, x, k: recipe(key, x, k, leaf=functools.partial(Gaussian.init, missing=bool(np.isnan(x).any())))


def _vae(key: Any, x: Any, k: int) -> Any:
    # bits have a Bernoulli likelihood, all else a Gaussian one
    bits = bool(((x == 0) | (x == 1)).all())
    return recipes.vae(key, x, k, likelihood=likelihoods.bernoulli if bits else likelihoods.gaussian)


#: options of `read_csv` in messages, which here are flags
_OPTION = re.compile(r"\b(delimiter|encoding|header|index|missing)=('[^']*'|True|False)")
#: by name: `(key, x, k) -> (model, algorithm)` for a table, and what k counts and its default
FAMILIES: dict[str, tuple[Callable[..., tuple[Any, Any]], str, int]] = {
    "gaussian-mixture": (_gaussians(recipes.gaussian_mixture), "components", 3),
    "hmm": (_gaussians(recipes.hidden_markov), "states", 3),
    "rbm": (recipes.rbm, "hidden units", 16),
    "realnvp": (lambda key, x, k: recipes.realnvp(key, x, layers=k), "layers", 12),
    "vae": (_vae, "latent dimensions", 8),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: as on the command line, without the program's name; None takes those of the process.

    Returns:
        the exit status: 0, 1 where the work itself failed, 2 where the request could not be served.
    """
    options = _parser().parse_args(arguments)
    if arguments is None:  # a process of its own
        keep_programs()
    try:
        with _said(options.command):
            return options.run(options)
    except JaxgenError as error:
        print(f"jaxgen {options.command}: {_on_the_command_line(error)}", file=sys.stderr)
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
    counts = "; ".join(f"{name}: {what}, {default}" for name, (_, what, default) in FAMILIES.items())
    command.add_argument("family", choices=list(FAMILIES))
    command.add_argument("data", help="csv, tsv, npy, npz or idx, also gzipped; one event a row (hmm: one time a row)")
    command.add_argument("-o", "--out", required=True, help="the file to save the model to")
    command.add_argument("-k", "--components", type=int, help=f"what it counts, and its default: {counts}")
    command.add_argument("--steps", type=int, help="at most so many (the algorithm's default)")
    command.add_argument("--validation-fraction", type=float, default=0.0, metavar="F",
                         help="share of rows that are held out, to keep the model that is best on them")  # fmt: skip
    command.add_argument("--seed", type=int, default=0)
    _add_text_options(command)
    command.set_defaults(run=_fit)

    command = commands.add_parser("score", help="print the mean log-likelihood of a file under a model, and its kind")
    command.add_argument("model")
    command.add_argument("data")
    command.add_argument("--samples", type=int, default=64, help="draws per event for a bound (%(default)s)")
    command.add_argument("--seed", type=int, default=0)
    _add_text_options(command)
    command.set_defaults(run=_score)

    command = commands.add_parser("sample", help="draw events from a model, as csv")
    command.add_argument("model")
    command.add_argument("-n", type=int, default=10, help="rows; of a series: its length (%(default)s)")
    command.add_argument("-o", "--out", help="the file to write (standard output)")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=_sample)
    return parser


def _add_text_options(command: argparse.ArgumentParser) -> None:
    """The options of `read_csv`, by the same names."""
    either, group = argparse.BooleanOptionalAction, command.add_argument_group("tables of text")
    group.add_argument("--delimiter", help="what separates cells, such as ';' (a comma, in .tsv a tab)")
    group.add_argument("--encoding", help="of the text, such as latin-1 or utf-16 (utf-8)")
    group.add_argument("--header", action=either, help="the first line holds names (decided by what it holds)")
    group.add_argument("--index", action=either, help="the first column numbers the rows (decided by name and numbers)")
    group.add_argument("--missing", action="store_true", default=None,
                       help="cells without a number were not seen (for models that can do without)")  # fmt: skip


@contextlib.contextmanager
def _said(command: str) -> Iterator[None]:
    """Warnings as lines of the program, in terms of its flags."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", JaxgenWarning)
        warnings.showwarning = lambda message, *_: print(
            f"jaxgen {command}: {_OPTION.sub(_flag, str(message))}", file=sys.stderr
        )
        yield


def _flag(option: re.Match[str]) -> str:
    name, value = option[1].replace("_", "-"), option[2]
    return {"True": f"--{name}", "False": f"--no-{name}"}.get(value, f"--{name} {value}")


def _on_the_command_line(error: JaxgenError) -> JaxgenError:
    """The error with its fix in flags, where the fix is options of `read_csv`; other code helps nobody here."""
    if error.code:
        code = error.code[0]
        flags = " ".join(_flag(option) for option in _OPTION.finditer(code)) if code.startswith("read_csv(") else ""
        error.fix = flags + error.fix[len(code) :] if flags else ""
    return error


def _tour(options: argparse.Namespace) -> int:
    result = tour(options.out, quick=options.quick)
    print(f"\n{result.seconds:.0f} s in all; pictures in {result.page}")
    return 1 if result.failed else 0


def _fit(options: argparse.Namespace) -> int:
    folder = Path(options.out).parent
    if not folder.is_dir():  # found out now rather than after the fit
        raise FileError("the folder to save into is not there", called=f"fit -o {options.out}", got=str(folder),
                        expected="an existing folder", fix="make that folder first")  # fmt: skip
    start, split, train = jax.random.split(jax.random.key(options.seed), 3)
    x = _numbers(options.data, options)
    recipe, _, k = FAMILIES[options.family]
    x, held_out = (x[None], None) if options.family == "hmm" else _split(split, x, options.validation_fraction)
    if options.family == "hmm" and options.validation_fraction:
        raise FitError("one series has nothing to hold out", called="fit hmm --validation-fraction",
                       expected="no such option", got=str(options.validation_fraction))  # fmt: skip
    model, algorithm = recipe(start, x, k if options.components is None else options.components)
    fitted = fit(train, model, x, algorithm, steps=options.steps, validation=held_out)
    save(fitted.model, options.out)
    print(repr(fitted))
    why = fitted.failure or fitted.status.message
    print(f"{why}; compiled in {fitted.compile_seconds:.1f} s, fitted in {fitted.seconds:.1f} s")
    for name, rows in (("training", x), ("held out", held_out)):
        if rows is not None:
            print(f"{name}: {score(split, fitted.model, rows)}")
    return 1 if fitted.status == Status.NON_FINITE else 0


def _score(options: argparse.Namespace) -> int:
    model = load(options.model)
    x = _events(model, _numbers(options.data, options))
    print(score(jax.random.key(options.seed), model, x, samples=options.samples))
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


def _numbers(path: str, options: argparse.Namespace) -> np.ndarray:
    """The table in a file, `[N, D]` float32: one event a row, whatever its shape was."""
    text = {name: getattr(options, name) for name in ("delimiter", "encoding", "header", "index", "missing")}
    text = {name: value for name, value in text.items() if value is not None}
    separated = re.search(r"\.([ct])sv(\.gz)?$", path, re.IGNORECASE)
    if text or separated:
        tab = {"delimiter": "\t"} if separated and separated[1].lower() == "t" else {}
        content: Any = read_csv(path, **(tab | text))
    else:
        content = read(path)
    if isinstance(content, dict):
        if len(content) != 1 and "x" not in content:
            raise FileError("the file holds several arrays", called=f"read({path!r})", expected="one, or one called x",
                            got=", ".join(content), fix="save the one to take alone, or call it x")  # fmt: skip
        content = content["x"] if "x" in content else next(iter(content.values()))
    values = content if isinstance(content, np.ndarray) else content.numbers("the file", f"read({path!r})")
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
