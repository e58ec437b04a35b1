"""Commands and their options; errors and warnings in terms of them."""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence

from jaxgen._version import __version__
from jaxgen.cli import commands, synthesis
from jaxgen.cli.families import FAMILIES
from jaxgen.core.compiled import keep_programs
from jaxgen.core.errors import JaxgenError, JaxgenWarning

#: options of readers in warnings, which here are flags
_OPTION = re.compile(r"\b(delimiter|encoding|header|index|missing)=('[^']*'|True|False)")
_EXAMPLES = {
    "": """examples:
  jaxgen tour
  jaxgen fit mixture people.csv -k 1..6 --missing -o people
  jaxgen score people others.csv
  jaxgen sample people -n 1000 -o made.csv
  jaxgen anomaly new.csv --reference normal.csv -o strange.csv""",
    "fit": """examples:
  jaxgen fit mixture people.csv -k 3 -o model            columns of any kinds
  jaxgen fit mixture people.csv -k 1..6 --missing -o model   as many components as BIC chooses
  jaxgen fit gaussian-mixture measurements.tsv --columns height,mass -o model --plot model.png
  jaxgen fit hmm visits.csv --group patient -k 4 --restarts 8 -o model
  jaxgen fit realnvp preise.csv --delimiter ';' --decimal , --encoding latin-1 -o model""",
    "score": """examples:
  jaxgen score model people.csv --missing
  jaxgen score model visits.csv --group patient""",
    "sample": """examples:
  jaxgen sample model -n 1000 -o made.csv --seed 1""",
    "anomaly": """examples:
  jaxgen anomaly new.csv --reference normal.csv --level 0.05 -o strange.csv
  jaxgen anomaly new.csv --reference others.csv --model people     others: rows that the fit has not seen""",
    "synthesize": """examples:
  jaxgen synthesize people.csv -o made.csv --missing
  jaxgen synthesize people.parquet -n 5000 -o made.parquet --given sex=M --report""",
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
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="jaxgen", description="Generative models in JAX.", epilog=_EXAMPLES[""], formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"jaxgen {__version__}", help="print the version")
    commands_ = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return commands_.add_parser(name, help=help, epilog=_EXAMPLES.get(name), formatter_class=raw, description=help)

    one = command("tour", "fit every family on real data that ships here, and draw it")
    one.add_argument("--out", default="tour", help="the folder for index.html and the pictures (%(default)s)")
    one.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it runs")
    one.set_defaults(run=commands.run_tour)

    one = command("fit", "fit a model to a file of rows and save it")
    counts = "; ".join(f"{name}: {family.counts}, {family.default}" for name, family in FAMILIES.items())
    one.add_argument("family", choices=list(FAMILIES), help="; ".join(f"{n}: {f.what}" for n, f in FAMILIES.items()))
    one.add_argument("data", help="csv, tsv, npy, npz or idx, also gzipped, or parquet; one event a row")
    one.add_argument("-o", "--out", required=True, help="the file to save the model to")
    one.add_argument("-k", "--components", type=_numbers, metavar="K",
                     help=f"how many, or several such as 1..6, of which BIC chooses ({counts})")  # fmt: skip
    one.add_argument("--restarts", type=int, metavar="N", help="fit from so many starts and keep the best (one)")
    one.add_argument("--steps", type=int, metavar="N", help="at most so many (the algorithm's default)")
    one.add_argument("--validation-fraction", type=float, default=0.0, metavar="F",
                     help="share of rows that are held out, to keep the model that is best on them")  # fmt: skip
    one.add_argument("--plot", metavar="FILE", help="draw the columns beside samples of the model: png, pdf or svg")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random (%(default)s)")
    _add_reading(one)
    one.set_defaults(run=commands.run_fit)

    one = command("score", "print the mean log-likelihood of a file under a model, and its kind")
    one.add_argument("model", help="a file that fit wrote")
    one.add_argument("data", help="as for fit; of a table, the columns of the model by their names")
    one.add_argument("--samples", type=int, default=64, metavar="N", help="draws per event for a bound (%(default)s)")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (%(default)s)")
    _add_reading(one)
    one.set_defaults(run=commands.run_score)

    one = command("sample", "draw rows from a model, as csv with the columns of its table")
    one.add_argument("model", help="a file that fit wrote")
    one.add_argument("-n", type=int, default=10, metavar="N", help="rows; of a series: its length (%(default)s)")
    one.add_argument("-o", "--out", help="the file to write, csv or parquet (csv on standard output)")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (%(default)s)")
    one.set_defaults(run=commands.run_sample)

    one = command("select", "compare mixtures of several sizes and kinds by information criteria")
    one.add_argument("data", help="as for fit")
    one.add_argument("-k", "--components", type=_numbers, default=[1, 2, 3, 4], metavar="K", help="such as 1..6 (1..4)")
    one.add_argument("--restarts", type=int, default=4, metavar="N", help="starts of each fit (%(default)s)")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random (%(default)s)")
    _add_reading(one)
    one.set_defaults(run=commands.run_select)

    one = command("anomaly", "say which rows are strange beside normal ones, so many of them false at most")
    one.add_argument("data", help="the rows in question, as for fit")
    one.add_argument("--reference", required=True, metavar="FILE", help="normal rows, of the same columns")
    one.add_argument("--model", metavar="FILE", help="a file that fit wrote, not from the reference (none: half of it "
                     "makes a detector)")  # fmt: skip
    one.add_argument("--level", type=float, default=0.1, metavar="F",
                     help="the share of false ones among those found, at most (%(default)s)")  # fmt: skip
    one.add_argument("-o", "--out", metavar="FILE", help="scores, p-values, and 1 for what is strange, csv or parquet")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random (%(default)s)")
    _add_reading(one)
    one.set_defaults(run=commands.run_anomaly)

    one = command("synthesize", "write rows like those of a table: a model of all columns, whatever their kinds")
    one.add_argument("data", help="csv, tsv or parquet, one row a line")
    one.add_argument("-o", "--out", help="the file to write, csv or parquet (csv on standard output)")
    one.add_argument("-n", type=int, metavar="N", help="rows (as many as there are)")
    one.add_argument("-k", "--components", type=_numbers, metavar="K",
                     help="how many components, or several of which held-out rows choose (1,2,4,8,16,32)")  # fmt: skip
    one.add_argument("--given", action="append", metavar="A=B", help="what is known of the rows; may be repeated")
    one.add_argument("--model", metavar="FILE", help="save the model, too")
    one.add_argument("--report", action="store_true",
                     help="fit one half of the rows, and print how good the made ones are by the other")  # fmt: skip
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random (%(default)s)")
    _add_reading(one)
    one.set_defaults(run=synthesis.run_synthesize)
    return parser


def _add_reading(command: argparse.ArgumentParser) -> None:
    """The options of the readers, by the same names."""
    either, group = argparse.BooleanOptionalAction, command.add_argument_group("how the file is read")
    group.add_argument("--columns", type=_names, metavar="A,B", help="take these columns, in this order (all)")
    group.add_argument("--labels", type=_names, metavar="A,B", help="take these columns as labels, though numbers")
    group.add_argument("--group", metavar="COLUMN", help="each value of this column is a series of its own, for hmm")
    group.add_argument("--dates", action="store_true", help="take day number, weekday and month of dates")
    group.add_argument("--missing", action="store_true", help="cells without a value were not seen")
    group.add_argument("--missing-as", action="append", metavar="TEXT",
                       help="a cell that means a missing one, such as -999; may be repeated")  # fmt: skip
    group.add_argument("--delimiter", metavar="C", help="what separates cells, such as ';' (a comma, in .tsv a tab)")
    group.add_argument("--decimal", metavar="C", help="the point in numbers, . or , (.)")
    group.add_argument("--encoding", metavar="NAME", help="of the text, such as latin-1 or utf-16 (utf-8)")
    group.add_argument("--header", action=either, help="the first line holds names (decided by what it holds)")
    group.add_argument("--index", action=either, help="the first column numbers the rows (decided by name and numbers)")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _numbers(text: str) -> list[int]:
    """Numbers of components: 3, or 1..6, or 1,2,4."""
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if ends and int(ends[1]) <= int(ends[2]):
        return list(range(int(ends[1]), int(ends[2]) + 1))
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of components, such as 3 or 1..6") from None


@contextlib.contextmanager
def _said(command: str) -> Iterator[None]:
    """Warnings as lines of the program, in terms of its flags."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", JaxgenWarning)
        warnings.showwarning = lambda message, *_: print(
            f"jaxgen {command}: {_OPTION.sub(_flag_of, str(message))}", file=sys.stderr
        )
        yield


def _flag_of(option: re.Match[str]) -> str:
    return _flag(option[1], ast.literal_eval(option[2]))


def _flag(name: str, value: object) -> str:
    """An option of a reader as a flag."""
    flag = f"--{name.replace('_', '-')}"
    if value is True or name == "dates":
        return flag
    if value is False:
        return f"--no-{name}"
    if name == "missing_as":
        return " ".join(f"{flag}={shlex.quote(word)}" for word in value)  # type: ignore[attr-defined]
    return f"{flag} {shlex.quote(','.join(value) if isinstance(value, list) else str(value))}"


def _on_the_command_line(error: JaxgenError) -> JaxgenError:
    """The error with its fix in flags, where the fix is options of a reader; other code helps nobody here."""
    for code in error.code:
        flags = _flags(code)
        if not flags:
            error.fix = ""
        error.fix = error.fix.replace(code, flags)
    return error


def _flags(code: str) -> str:
    call = ast.parse(code).body[0]
    call = call.value if isinstance(call, ast.Expr) else call  # type: ignore[assignment]
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not call.func.id.startswith("read_"):
        return ""
    return " ".join(_flag(str(option.arg), ast.literal_eval(option.value)) for option in call.keywords)
