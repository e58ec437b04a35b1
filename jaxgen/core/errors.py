"""The error family: every error says what was called, what was expected, what came, and the likely fix."""

from __future__ import annotations

import ast
import re


class JaxgenError(Exception):
    """Base of every error that jaxgen raises on purpose.

    Args:
        message: what went wrong.
        called: what the user called.
        expected: what it takes.
        got: what came.
        fix: the likely fix. It begins with code that works on this input, or is words alone.

    All are attributes too.

    Example:
        >>> print(JaxgenError("wrong shape", called="f(x)", expected="[3]", got="[2]", fix="f(x[:3])"))
        wrong shape
          called:   f(x)
          expected: [3]
          got:      [2]
          fix:      f(x[:3])
    """

    def __init__(self, message: str, *, called: str = "", expected: str = "", got: str = "", fix: str = ""):
        self.message, self.called, self.expected, self.fix = message, called, expected, fix
        self.got = " ".join(str(got).split())  # arrays print over many lines
        super().__init__(message)

    def __str__(self) -> str:
        rows = (("called", self.called), ("expected", self.expected), ("got", self.got), ("fix", self.fix))
        return "\n".join([self.message] + [f"  {name + ':':<9} {text}" for name, text in rows if text])

    @property
    def code(self) -> tuple[str, ...]:
        """The code in the fix: what it begins with, and what follows on an "or"; empty where it is words.

        Example:
            >>> JaxgenError("no such shape", fix="x[:, None] for one column, or x.T").code
            ('x[:, None]', 'x.T')
        """
        first, *more = (_code(part) for part in re.split("[,;] or ", self.fix))
        return (first, *(code for code in more if code)) if first else ()


def _code(text: str) -> str:
    """The longest beginning that is Python and not just a word."""
    for end in range(len(text), 0, -1):
        head = text[:end]
        if text[end : end + 1] not in ("", " ", ",", ";", ":") or head[-1] in " ,;:":
            continue
        try:
            (statement,) = ast.parse(head).body
        except (SyntaxError, ValueError):
            continue
        value = getattr(statement, "value", None)  # of an expression or an assignment, not of a loop or a function
        words = any(isinstance(node, (ast.Is, ast.In, ast.BoolOp, ast.Not)) for node in ast.walk(statement))
        bare = isinstance(value, ast.Tuple) and head[value.col_offset] != "("
        if not (value is None or bare or words or isinstance(value, ast.Name)):
            return head
    return ""


class DataError(JaxgenError, ValueError):
    """The data are not data: empty, ragged, strings, non-finite where that has no meaning."""


class ShapeError(JaxgenError, ValueError):
    """An array's shape does not fit the model's event or context shape."""


class ModelError(JaxgenError, ValueError):
    """A model was built from values that make no model: no components, a matrix that is no covariance."""


class FitError(JaxgenError, ValueError):
    """`fit` was asked for something that its algorithm, model or data cannot do."""


class FileError(JaxgenError, ValueError):
    """A file is missing, cut short, foreign, hostile, or describes another model."""


class JaxgenWarning(UserWarning):
    """Something a user should know that did not stop the work: a non-finite step, restarts that failed."""
