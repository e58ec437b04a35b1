"""Constructor arguments of estimators, checked when they are fitted, as scikit-learn's conventions ask."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """The values that an argument may have: a test, and it in words."""

    holds: Callable[[Any], bool]
    words: str


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def integer(low: int) -> Rule:
    """Return the rule of integers from `low` on."""
    return Rule(lambda value: _is_number(value, numbers.Integral) and value >= low, f"an int in the range [{low}, inf)")


def real(low: float = -math.inf, *, above: bool = False) -> Rule:
    """Return the rule of numbers from `low` on, or above it."""
    words = f"a float in the range {'(' if above else '['}{low}, inf)"
    return Rule(lambda value: _is_number(value, numbers.Real) and (value > low if above else value >= low), words)


def share() -> Rule:
    """Return the rule of numbers from 0 to below 1."""
    return Rule(lambda value: _is_number(value, numbers.Real) and 0 <= value < 1, "a float in the range [0, 1)")


def one_of(*values: Any) -> Rule:
    """Return the rule of a few values."""
    words = f"one of {{{', '.join(map(repr, values))}}}"
    return Rule(lambda value: isinstance(value, type(values[0])) and value in values, words)


def widths() -> Rule:
    """Return the rule of the widths of a network's hidden layers."""
    one = integer(1)
    return Rule(lambda value: isinstance(value, tuple | list) and all(map(one.holds, value)),
                "a tuple of ints in the range [1, inf)")  # fmt: skip


def optional(rule: Rule) -> Rule:
    """Return a rule that None keeps too."""
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.words} or None")


def check_options(estimator: Any, rules: Mapping[str, Rule]) -> None:
    """Refuse arguments that break their rule.

    Raises:
        ValueError: the name, what was expected and what came.

    Example:
        >>> class Estimator:
        ...     def __init__(self, k):
        ...         self.k = k
        >>> check_options(Estimator(0), {"k": integer(1)})
        Traceback (most recent call last):
        ...
        ValueError: The 'k' parameter of Estimator must be an int in the range [1, inf). Got 0 instead.
    """
    for name, rule in rules.items():
        value = vars(estimator)[name]
        if not rule.holds(value):
            raise ValueError(
                f"The {name!r} parameter of {type(estimator).__name__} must be {rule.words}. Got {value!r} instead."
            )
