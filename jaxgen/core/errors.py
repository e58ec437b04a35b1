"""The error family: every error says what was called, what was expected, what came, and the likely fix."""

from __future__ import annotations


class JaxgenError(Exception):
    """Base of every error that jaxgen raises on purpose.

    Args:
        message: what went wrong.
        called: what the user called.
        expected: what it takes.
        got: what came.
        fix: the likely fix, in code where possible.

    Example:
        >>> print(JaxgenError("wrong shape", called="f(x)", expected="[3]", got="[2]", fix="f(x[:3])"))
        wrong shape
          called:   f(x)
          expected: [3]
          got:      [2]
          fix:      f(x[:3])
    """

    def __init__(self, message: str, *, called: str = "", expected: str = "", got: str = "", fix: str = ""):
        rows = (("called", called), ("expected", expected), ("got", got), ("fix", fix))
        super().__init__("\n".join([message] + [f"  {name + ':':<9} {text}" for name, text in rows if text]))


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
