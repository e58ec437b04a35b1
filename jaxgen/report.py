"""The report of the tour, as a table of text and as one self-contained page of HTML."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from jaxgen.core.protocols import Kind

HEADER = ("family", "data", "likelihood", "held-out nats", "baseline", "compile s", "fit s", "samples/s")
#: so many columns are text
TEXT_COLUMNS = 3
NOTE = (
    "Nats are natural-log units of log-likelihood, higher is better. Numbers of different kinds are not compared: "
    "exact is log p itself, a lower bound is at most log p, an estimate may err on either side. Model and baseline see "
    "the same held-out events. Samples per second are those of a second call, after compilation."
)
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
tr.failed td { color: #a32a0c; }
a { color: #0b5a96; text-decoration: none; } a:hover { text-decoration: underline; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
figcaption, .note { font-size: .88rem; color: #5a6470; max-width: 46rem; }
pre { background: #f5f7f9; padding: .7rem .9rem; font-size: .82rem; line-height: 1.45; white-space: pre-wrap; }
"""


class Timing(NamedTuple):
    """Seconds to compile and to fit, and samples per second at the second call of one shape."""

    compile_seconds: float
    seconds: float
    samples_per_second: float


class Row(NamedTuple):
    """The results of the tour for one family.

    Args:
        data: what it was fitted to.
        kind: what the model's likelihood means.
        unit: what it is per: `"event"`, `"year"`, `"image"`.
        held_out: nats per unit on data that the fit did not see; None where there is no likelihood.
        baseline: exact nats of the same events under the baseline.
        baseline_name: what that is.
        timing: of the fit and of sampling.
        text: what was fitted and what the number means.
        pictures: figures with captions.
        block: text to show as it is, such as a sample of characters.
        instead: what the table shows where there is no likelihood.
    """

    data: str
    kind: Kind
    unit: str
    held_out: float | None
    baseline: float | None
    baseline_name: str
    timing: Timing
    text: str
    pictures: Sequence[tuple[Figure, str]]
    block: str = ""
    instead: str = ""


class Failed(NamedTuple):
    """A part of the tour that raised: the error in one line, and its traceback."""

    error: str
    trace: str


def cells(name: str, row: Row | Failed) -> list[str]:
    """One row of the table as text.

    Example:
        >>> cells("flow", Failed("ValueError: no", ""))[:3]
        ['flow', 'FAILED', 'ValueError: no']
    """
    if isinstance(row, Failed):
        return [name, "FAILED", row.error[:60], "", "", "", "", ""]
    return [
        name, row.data, str(row.kind),
        row.instead if row.held_out is None else f"{row.held_out:.3f} / {row.unit}",
        "" if row.baseline is None else f"{row.baseline:.3f} ({row.baseline_name})",
        f"{row.timing.compile_seconds:.1f}", f"{row.timing.seconds:.1f}", _short(row.timing.samples_per_second),
    ]  # fmt: skip


def table(rows: dict[str, Row | Failed]) -> str:
    """The table as text, columns aligned.

    Example:
        >>> print(table({}))
        family  data  likelihood  held-out nats  baseline  compile s  fit s  samples/s
    """
    lines = [list(HEADER), *(cells(name, row) for name, row in rows.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]

    def aligned(line: list[str]) -> str:
        padded = [c.rjust(w) if i > 4 else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        return "  ".join(padded).rstrip()

    return "\n".join(map(aligned, lines))


def page(title: str, paragraphs: Sequence[str], rows: dict[str, Row | Failed], folder: Path) -> str:
    """The page as one string; the pictures are embedded, and written as PNG files to `folder` too.

    Args:
        title: of the page.
        paragraphs: under the title.
        rows: by family, in order.
        folder: an existing folder.

    Example:
        >>> text = page("A & B", ["1 < 2"], {"x": Failed("no", "why")}, Path("."))
        >>> "A &amp; B" in text, "1 &lt; 2" in text, '<a href="#x">x</a>' in text
        (True, True, True)
    """
    head = "".join(_cell("th", i, html.escape(name)) for i, name in enumerate(HEADER))
    body = "".join(_table_row(name, row) for name, row in rows.items())
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(text)}</p>" for text in paragraphs),
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>',
        f'<p class="note">{html.escape(NOTE)}</p>',
        *(_section(name, row, folder) for name, row in rows.items()),
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


def _cell(tag: str, i: int, inner: str) -> str:
    return f"<{tag}{' class=n' * (i >= TEXT_COLUMNS)}>{inner}</{tag}>"


def _table_row(name: str, row: Row | Failed) -> str:
    values = [html.escape(value) for value in cells(name, row)]
    values[0] = f'<a href="#{_anchor(name)}">{values[0]}</a>'
    mark = ' class="failed"' if isinstance(row, Failed) else ""
    return f"<tr{mark}>" + "".join(_cell("td", i, value) for i, value in enumerate(values)) + "</tr>"


def _section(name: str, row: Row | Failed, folder: Path) -> str:
    anchor = _anchor(name)
    if isinstance(row, Failed):
        return (
            f'<h2 id="{anchor}">{html.escape(name)}</h2>\n<p>This part failed.</p>\n<pre>{html.escape(row.trace)}</pre>'
        )
    parts = [f'<h2 id="{anchor}">{html.escape(f"{name}: {row.data}")}</h2>', f"<p>{html.escape(row.text)}</p>"]
    if row.block:
        parts.append(f"<pre>{html.escape(row.block)}</pre>")
    for i, (figure, caption) in enumerate(row.pictures):
        png = _png(figure)
        (folder / f"{anchor}-{i + 1}.png").write_bytes(png)
        source, shown = base64.b64encode(png).decode("ascii"), html.escape(caption)
        image = f'<img alt="{shown}" src="data:image/png;base64,{source}">'
        parts.append(f"<figure>{image}<figcaption>{shown}</figcaption></figure>")
    return "\n".join(parts)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, facecolor="white")
    return buffer.getvalue()


def _short(number: float) -> str:
    """Three digits, and a letter for thousands and millions."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"
