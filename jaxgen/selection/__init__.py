"""Choosing a model: every number of components or states and every kind of them, fitted and compared in one table."""

from jaxgen.selection.search import gaussian_leaves, select
from jaxgen.selection.table import CRITERIA, Candidate, Selection

__all__ = ["CRITERIA", "Candidate", "Selection", "gaussian_leaves", "select"]
