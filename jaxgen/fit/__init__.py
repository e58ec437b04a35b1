"""Algorithms, and the loop that runs them."""

from jaxgen.fit import watch

__all__ = ["watch"]
