"""One self-contained page of HTML: a table, sections of text and pictures embedded in it, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 2.2rem 1.4rem 4rem; max-width: 1020px; background: #fff; color: #2b2f36;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.75rem; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .3rem; padding-top: 1.1rem; border-top: 1px solid #e3e7ec; }
p { margin: .5rem 0; max-width: 46rem; }
.scroll { overflow-x: auto; margin: 1.4rem 0; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .4rem .55rem; text-align: left; border-bottom: 1px solid #e9edf1; vertical-align: top; }
th { font-weight: 600; border-bottom: 2px solid #c5ccd4; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.failed td { color: #a32a0c; }
a { color: #0b5a96; text-decoration: none; } a:hover { text-decoration: underline; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; color: #5a6470; max-width: 46rem; }
pre { background: #f5f7f9; padding: .7rem .9rem; overflow-x: auto; font-size: .82rem; line-height: 1.45; white-space: pre-wrap; }
.note { font-size: .88rem; color: #5a6470; }
"""


class Picture(NamedTuple):
    """A picture as the bytes of a PNG, and what it shows."""

    png: bytes
    caption: str


class Section(NamedTuple):
    """One section: a title, paragraphs, a block of fixed-width text or none, pictures.

    Args:
        anchor: the id that the table's first cell links to.
        title: shown above.
        paragraphs: plain text.
        block: text shown as it is, such as a sample of characters or an error.
        pictures: in order.
    """

    anchor: str
    title: str
    paragraphs: Sequence[str]
    block: str
    pictures: Sequence[Picture]


def page(
    title: str, paragraphs: Sequence[str], header: Sequence[str], rows: Sequence[Sequence[str]],
    sections: Sequence[Section], *, text_columns: int = 3, note: str = "",
) -> str:  # fmt: skip
    """The page as one string.

    Args:
        title: of the page.
        paragraphs: under the title.
        header: names of the table's columns.
        rows: cells, one row per section in the same order.
        sections: what follows the table.
        text_columns: so many first columns are text; the others are numbers, set to the right.
        note: under the table.

    Example:
        >>> text = page("A & B", [], ["name", "n"], [["x", "1"]], [Section("x", "X", ["<p>"], "", [])], text_columns=1)
        >>> "A &amp; B" in text, "&lt;p&gt;" in text, '<a href="#x">x</a>' in text
        (True, True, True)
    """

    def cell(tag: str, i: int, inner: str) -> str:
        return f'<{tag}{" class=n" * (i >= text_columns)}>{inner}</{tag}>'

    head = "".join(cell("th", i, html.escape(name)) for i, name in enumerate(header))
    lines = []
    for row, section in zip(rows, sections, strict=True):
        cells = [html.escape(value) for value in row]
        cells[0] = f'<a href="#{section.anchor}">{cells[0]}</a>'
        lines.append("<tr>" + "".join(cell("td", i, inner) for i, inner in enumerate(cells)) + "</tr>")
    body = [
        f"<h1>{html.escape(title)}</h1>",
        *_paragraphs(paragraphs),
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>',
        f'<p class="note">{html.escape(note)}</p>' if note else "",
        *map(_section, sections),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [f"<p>{html.escape(text)}</p>" for text in texts]


def _section(section: Section) -> str:
    parts = [f'<h2 id="{section.anchor}">{html.escape(section.title)}</h2>', *_paragraphs(section.paragraphs)]
    if section.block:
        parts.append(f"<pre>{html.escape(section.block)}</pre>")
    for picture in section.pictures:
        data = base64.b64encode(picture.png).decode("ascii")
        caption = html.escape(picture.caption)
        parts.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
        )
    return "\n".join(parts)
