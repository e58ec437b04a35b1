"""The report of the tour, as a table of text and as one self-contained page of HTML."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from jaxgen.core.markup import aligned
from jaxgen.core.protocols import Kind

HEADER = (
    "family", "data", "likelihood", "per", "nats", "baseline", "best baseline", "compile s", "fit s", "total s",
    "samples/s",
)  # fmt: skip
#: columns of numbers, aligned to the right
NUMBERS = (4, 5, 7, 8, 9, 10)
NOTE = (
    "Nats are natural-log units of log-likelihood of held-out data, higher is better; each row says per what they are, "
    "and rows of different data or kinds are not to be compared: exact is log p itself, a lower bound is at most "
    "log p, an estimate may err on either side. Model and baseline see the same held-out events. All times are in "
    "seconds: the total of a row is everything that was done for it, compile is all compiling in it, fit the steps of "
    "the fit alone; the rest of it went into starts, baselines, scores, samples and pictures. Samples per second are "
    "those of a second call, after compilation."
)
#: pixels per inch of the pictures, ten inches wide: two for each that the page shows, for sharp screens
DPI = 200
_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 2.2rem 1.4rem 4rem; max-width: 1020px; background: #fff; color: #2b2f36;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.75rem; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .3rem; padding-top: 1.1rem; border-top: 1px solid #e3e7ec; }
p { margin: .5rem 0; max-width: 46rem; }
.scroll { overflow-x: auto; margin: 1.4rem 0 .8rem; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .4rem .5rem; text-align: left; border-bottom: 1px solid #e9edf1; vertical-align: top; }
th { font-weight: 600; border-bottom: 2px solid #c5ccd4; }
td.n, th.n { text-align: right; white-space: nowrap; }
tfoot td { font-weight: 600; border-top: 2px solid #c5ccd4; }
tr.failed td { color: #a32a0c; }
a { color: #0b5a96; text-decoration: none; } a:hover { text-decoration: underline; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
figcaption, .note { font-size: .88rem; color: #5a6470; max-width: 46rem; }
pre { background: #f5f7f9; padding: .7rem .9rem; font-size: .82rem; line-height: 1.45; white-space: pre-wrap; }
"""


class Timing(NamedTuple):
    """The times of one family.

    Args:
        fit: seconds of the steps of its fit, without compiling.
        samples_per_second: at the second call of one shape.
        compile: seconds of all compiling, and
        total: of everything that was done for the family; the tour fills both in.
    """

    fit: float
    samples_per_second: float
    compile: float = 0.0
    total: float = 0.0


class Picture(NamedTuple):
    """A drawn picture as the bytes of a PNG file, and its caption."""

    png: bytes
    caption: str


class Row(NamedTuple):
    """The results of the tour for one family.

    Args:
        data: what it was fitted to.
        kind: what the model's likelihood means.
        unit: what it is per: `"event"`, `"year"`, `"image"`.
        held_out: nats per unit on data that the fit did not see; None where there is no likelihood.
        baselines: exact nats of the same events under other models, by what those are.
        timing: of the fit, of sampling and of all.
        text: what was fitted and what the number means.
        pictures: what was drawn.
        block: text to show as it is, such as a sample of characters.
        kept: what those who use the model afterwards take up, such as the model.
    """

    data: str
    kind: Kind
    unit: str
    held_out: float | None
    baselines: dict[str, float]
    timing: Timing
    text: str
    pictures: Sequence[Picture]
    block: str = ""
    kept: Any = None

    @property
    def best(self) -> str:
        """The name of the best baseline, empty where there is none."""
        return max(self.baselines, key=self.baselines.__getitem__, default="")

    @property
    def gain(self) -> float | None:
        """Nats over the best baseline, negative where the model loses to it; None where there is nothing to compare."""
        return None if self.held_out is None or not self.baselines else self.held_out - self.baselines[self.best]


class Failed(NamedTuple):
    """A part of the tour that raised: the error in one line, and its traceback."""

    error: str
    trace: str


def drawn(figure: Figure, caption: str) -> Picture:
    """Return a figure as a picture.

    Example:
        >>> drawn(Figure(figsize=(1, 1)), "nothing").png[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return Picture(buffer.getvalue(), caption)


def stacked(pictures: Sequence[Picture]) -> bytes:
    """Return pictures of one width as one PNG, one below the other, in 256 colours.

    Example:
        >>> picture = drawn(Figure(figsize=(1, 1)), "")
        >>> Image.open(io.BytesIO(stacked([picture, picture]))).size
        (200, 400)
    """
    parts = [Image.open(io.BytesIO(picture.png)).convert("RGB") for picture in pictures]
    sheet = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    buffer = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def verdict(row: Row) -> str:
    """Say how a model stands to its baselines.

    Example:
        >>> verdict(Row("d", Kind.EXACT, "week", -1.5, {"one": -2.0, "chain": -1.25}, Timing(1, 1), "", []))
        'It loses to the best baseline by 0.250 nats per week. Baselines: chain -1.250, one -2.000.'
    """
    if row.gain is None:
        return "There is no likelihood to compare."
    what = f"It {'beats' if row.gain > 0 else 'loses to'} the best baseline by {abs(row.gain):.3f} nats per {row.unit}."
    names = sorted(row.baselines, key=row.baselines.__getitem__, reverse=True)
    listed = ", ".join(f"{name} {row.baselines[name]:.3f}" for name in names)
    return f"{what} Baseline{'s' * (len(names) > 1)}: {listed}."


def cells(name: str, row: Row | Failed) -> list[str]:
    """One row of the table as text.

    Example:
        >>> cells("flow", Failed("ValueError: no", ""))[:3]
        ['flow', 'FAILED', 'ValueError: no']
    """
    if isinstance(row, Failed):
        return [name, "FAILED", row.error[:60], *[""] * (len(HEADER) - 3)]
    times = (row.timing.compile, row.timing.fit, row.timing.total)
    return [
        name, row.data, str(row.kind), row.unit, "" if row.held_out is None else f"{row.held_out:.3f}",
        f"{row.baselines[row.best]:.3f}" if row.baselines else "", row.best,
        *map(_seconds, times), _short(row.timing.samples_per_second),
    ]  # fmt: skip


def sums(rows: dict[str, Row | Failed]) -> list[str]:
    """The last row of the table: the seconds of all families.

    Example:
        >>> sums({"a": Row("d", Kind.NONE, "u", None, {}, Timing(1, 1, 2, 4), "", [])})[7:]
        ['2.0', '1.0', '4.0', '']
    """
    timings = [row.timing for row in rows.values() if isinstance(row, Row)]
    times = (sum(t.compile for t in timings), sum(t.fit for t in timings), sum(t.total for t in timings))
    return ["all", *[""] * 6, *map(_seconds, times), ""]


def table(rows: dict[str, Row | Failed]) -> str:
    """The table as text, columns aligned.

    Example:
        >>> print(table({}).splitlines()[0])
        family  data  likelihood  per  nats  baseline  best baseline  compile s  fit s  total s  samples/s
    """
    return aligned([list(HEADER), *(cells(name, row) for name, row in rows.items()), sums(rows)], NUMBERS)


def page(
    title: str, paragraphs: Sequence[str], rows: dict[str, Row | Failed], folder: Path, uses: Sequence[str] = ()
) -> str:  # fmt: skip
    """The page as one string; the pictures are embedded, and written as PNG files to `folder` too.

    Args:
        title: of the page.
        paragraphs: under the title.
        rows: by family, in order.
        folder: an existing folder.
        uses: HTML that stands after the table and its sections, of what the models are for.

    Example:
        >>> text = page("A & B", ["1 < 2"], {"x": Failed("no", "why")}, Path("."))
        >>> "A &amp; B" in text, "1 &lt; 2" in text, '<a href="#x">x</a>' in text
        (True, True, True)
    """
    lines = {name: (cells(name, row), isinstance(row, Failed)) for name, row in rows.items()}
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(text)}</p>" for text in paragraphs),
        markup(HEADER, NUMBERS, lines, sums(rows)),
        f'<p class="note">{html.escape(NOTE)}</p>',
        *(_section(name, row, folder) for name, row in rows.items()),
        *uses,
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def markup(
    header: Sequence[str], numbers: Sequence[int], lines: Mapping[str, tuple[Sequence[str], bool]],
    foot: Sequence[str] = (),
) -> str:  # fmt: skip
    """A table of HTML.

    Args:
        header: names of columns.
        numbers: those of them that are aligned to the right.
        lines: by the name of a section that each leads to, its cells and whether it failed.
        foot: cells of a last line.

    Example:
        >>> "<th>a</th><th class=n>b</th>" in markup(["a", "b"], [1], {"x": (["x", "2"], False)})
        True
    """

    def row(tag: str, cells: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=n' * (i in numbers)}>{cell}</{tag}>" for i, cell in enumerate(cells))

    def line(name: str, cells: Sequence[str], failed: bool) -> str:
        first, *rest = map(html.escape, cells)
        mark = ' class="failed"' if failed else ""
        return f"<tr{mark}>" + row("td", [f'<a href="#{_anchor(name)}">{first}</a>', *rest]) + "</tr>"

    head, body = row("th", [*map(html.escape, header)]), "".join(line(name, *own) for name, own in lines.items())
    last = f"<tfoot><tr>{row('td', [*map(html.escape, foot)])}</tr></tfoot>" if foot else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{last}</table></div>'


def _section(name: str, row: Row | Failed, folder: Path) -> str:
    if isinstance(row, Failed):
        return failure(name, row)
    return section(name, row.data, (row.text, verdict(row)), row.pictures, folder, row.block)


def failure(name: str, failed: Failed) -> str:
    """The section of a part that raised."""
    return (
        f'<h2 id="{_anchor(name)}">{html.escape(name)}</h2>\n<p>This part failed.</p>\n'
        f"<pre>{html.escape(failed.trace)}</pre>"
    )


def section(
    name: str, data: str, paragraphs: Sequence[str], pictures: Sequence[Picture], folder: Path, block: str = ""
) -> str:
    """A section of the page: paragraphs, text as it is, and pictures, which are written to the folder too.

    Example:
        >>> section("A part", "d", ["1 < 2"], [], Path("."))
        '<h2 id="a-part">A part: d</h2>\\n<p>1 &lt; 2</p>'
    """
    anchor = _anchor(name)
    parts = [f'<h2 id="{anchor}">{html.escape(f"{name}: {data}")}</h2>',
             *(f"<p>{html.escape(text)}</p>" for text in paragraphs)]  # fmt: skip
    if block:
        parts.append(f"<pre>{html.escape(block)}</pre>")
    for i, picture in enumerate(pictures):
        (folder / f"{anchor}-{i + 1}.png").write_bytes(picture.png)
        source, shown = base64.b64encode(picture.png).decode("ascii"), html.escape(picture.caption)
        image = f'<img width=1000 alt="{shown}" src="data:image/png;base64,{source}">'
        parts.append(f"<figure>{image}<figcaption>{shown}</figcaption></figure>")
    return "\n".join(parts)


def _seconds(number: float) -> str:
    """Two significant digits, or all before the point."""
    rounded = float(f"{number:.1e}")
    digits = 1 - math.floor(math.log10(rounded)) if rounded > 0 else 1
    return f"{number:.{max(digits, 0)}f}"


def _short(number: float) -> str:
    """Three digits, and a letter for thousands and millions."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"
