"""Uses of the fits of the tour, one of each family: a table of them, and their sections on the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxgen.core.markup import aligned
from jaxgen.report import Failed, Picture, failure, markup, section

HEADER = ("use", "family", "data", "measure", "model", "baseline", "best baseline", "total s")
#: columns of numbers, aligned to the right
NUMBERS = (4, 5, 7)
NOTE = (
    "Each use takes up the fit of its family above, or says that it makes one. Model and baseline are judged on the "
    "same events; higher is better, unless the measure says least."
)


class Use(NamedTuple):
    """The results of one use of a model.

    Args:
        family: whose model it is.
        data: what was asked.
        measure: what the number is.
        number: of the model.
        baselines: the same number of simple methods, by what those are.
        text: what was done, and what the number means.
        pictures: what was drawn.
        least: True where less is better.
        seconds: of everything that was done for it; the tour fills it in.
    """

    family: str
    data: str
    measure: str
    number: float
    baselines: dict[str, float]
    text: str
    pictures: Sequence[Picture]
    least: bool = False
    seconds: float = 0.0

    @property
    def best(self) -> str:
        """The name of the best baseline."""
        return (min if self.least else max)(self.baselines, key=self.baselines.__getitem__)

    @property
    def wins(self) -> bool:
        """True where the model is ahead of all baselines."""
        ahead = self.number - self.baselines[self.best]
        return ahead < 0 if self.least else ahead > 0


class Asked(NamedTuple):
    """A use before it is made.

    Args:
        family: the part of the tour whose fit it takes up.
        make: `(key, kept, quick) -> Use`, given what the row of that part kept.
    """

    family: str
    make: Callable[[Any, Any, bool], Use]


def cells(name: str, use: Use | Failed) -> list[str]:
    """One line of the table as text.

    Example:
        >>> cells("a table", Use("mixture", "d", "share", 0.5, {"b": 0.25, "c": 0.375}, "", [], seconds=1.25))
        ['a table', 'mixture', 'd', 'share', '0.500', '0.375', 'c', '1.2']
    """
    if isinstance(use, Failed):
        return [name, "FAILED", use.error[:60], *[""] * (len(HEADER) - 3)]
    return [name, use.family, use.data, use.measure, f"{use.number:.3f}", f"{use.baselines[use.best]:.3f}", use.best,
            f"{use.seconds:.1f}"]  # fmt: skip


def verdict(use: Use) -> str:
    """Say how a model stands to its baselines.

    Example:
        >>> verdict(Use("mixture", "d", "share told apart, least", 0.5, {"b": 0.7}, "", [], least=True))
        'share told apart, least: 0.500, ahead of all baselines: b 0.700.'
    """
    names = sorted(use.baselines, key=use.baselines.__getitem__, reverse=not use.least)
    listed = ", ".join(f"{name} {use.baselines[name]:.3f}" for name in names)
    return f"{use.measure}: {use.number:.3f}, {'ahead of all' if use.wins else 'not ahead of all'} baselines: {listed}."


def table(uses: dict[str, Use | Failed]) -> str:
    """The table as text, columns aligned.

    Example:
        >>> print(table({"a table": Failed("no", "")}).splitlines()[1])
        a table  FAILED  no
    """
    return aligned([list(HEADER), *(cells(name, use) for name, use in uses.items())], NUMBERS)


def sections(uses: dict[str, Use | Failed], folder: Path) -> list[str]:
    """HTML of the table and of each use; the pictures are written to the folder too.

    Example:
        >>> sections({}, Path("."))
        []
        >>> len(sections({"a table": Failed("no", "")}, Path(".")))
        4
    """
    if not uses:
        return []
    lines = {name: (cells(name, use), isinstance(use, Failed)) for name, use in uses.items()}
    return [
        "<h2>What models are for</h2>", markup(HEADER, NUMBERS, lines), f'<p class="note">{NOTE}</p>',
        *(
            failure(name, use) if isinstance(use, Failed)
            else section(name, f"{use.family}, {use.data}", (use.text, verdict(use)), use.pictures, folder)
            for name, use in uses.items()
        ),
    ]  # fmt: skip
