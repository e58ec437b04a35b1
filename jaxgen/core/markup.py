"""Small tables in HTML, for what shows itself in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable
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


def table(rows: Iterable[tuple[Any, Any]], caption: str = "") -> str:
    """Return a table of names and values, all text in it escaped.

    Example:
        >>> table([("mean", "[0, 1]")], "A < B")
        '<table><caption>A &lt; B</caption><tbody><tr><th>mean</th><td>[0, 1]</td></tr></tbody></table>'
    """
    cell = lambda value: value if isinstance(value, Raw) else html.escape(str(value))  # noqa: E731
    body = "".join(f"<tr><th>{cell(name)}</th><td>{cell(value)}</td></tr>" for name, value in rows)
    return f"<table>{f'<caption>{cell(caption)}</caption>' if caption else ''}<tbody>{body}</tbody></table>"
