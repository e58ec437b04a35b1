"""Small tables, as text and in HTML for what shows itself in a notebook."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Sequence
from typing import Any

#: the method that notebooks ask for
SHOWS = "_repr_html_"


class Raw(str):
    """HTML that stands as it is, in place of text."""

    __slots__ = ()


def of(value: Any) -> Raw:
    """Return a value as it shows itself in a notebook, or its representation."""
    shows = getattr(type(value), SHOWS, None)
    return Raw(html.escape(repr(value)) if shows is None else shows(value))


def aligned(lines: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """Return lines of cells as text with columns below each other, those of the numbers to the right.

    Example:
        >>> print(aligned([["a", "7"], ["bc", "12"]], [1]))
        a    7
        bc  12
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
              for line in lines)  # fmt: skip
    return "\n".join("  ".join(line).rstrip() for line in padded)


def grid(head: Sequence[str], body: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return a table of named columns, all text in it escaped.

    Example:
        >>> grid(["a"], [["<"]])
        '<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>&lt;</td></tr></tbody></table>'
    """
    row = lambda cells, tag: "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells)  # noqa: E731
    lines = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in body)
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{above}<thead><tr>{row(head, 'th')}</tr></thead><tbody>{lines}</tbody></table>"


def table(rows: Iterable[tuple[Any, Any]], caption: str = "") -> str:
    """Return a table of names and values, all text in it escaped.

    Example:
        >>> table([("mean", "[0, 1]")], "A < B")
        '<table><caption>A &lt; B</caption><tbody><tr><th>mean</th><td>[0, 1]</td></tr></tbody></table>'
    """
    cell = lambda value: value if isinstance(value, Raw) else html.escape(str(value))  # noqa: E731
    body = "".join(f"<tr><th>{cell(name)}</th><td>{cell(value)}</td></tr>" for name, value in rows)
    return f"<table>{f'<caption>{cell(caption)}</caption>' if caption else ''}<tbody>{body}</tbody></table>"
