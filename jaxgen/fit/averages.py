"""Averages of the iterates of a training: noise that the last iterate still has, an average has not."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.value import algorithm


@runtime_checkable
class Averaging(Protocol):
    """An average `a' = a + rate(t) (theta - a)` of iterates theta, a frozen value that hashes by value.

    `a` starts as the parameters before the first step.
    """

    def rate(self, step: Any) -> jax.Array:
        """Return the weight of the iterate after step t = 0, 1, ... in the average, from 0 to 1."""
        ...


@algorithm
class Average:
    """An exponential moving average of the iterates, whose decay warms up.

    `rate(t) = 1 - min(decay, (1 + t) / (10 + t))`

    Args:
        decay: from 0 to 1, 1 excluded: the average remembers about `1 / (1 - decay)` steps.

    Source: the warm-up is the customary one of TensorFlow's ExponentialMovingAverage(num_updates=t).

    Example:
        >>> [round(float(Average(0.99).rate(t)), 2) for t in (0, 90, 10_000)]
        [0.9, 0.09, 0.01]
    """

    decay: float

    def rate(self, step: Any) -> jax.Array:
        """Return the weight of the newest iterate."""
        return 1 - jnp.minimum(self.decay, (1.0 + step) / (10.0 + step))


@algorithm
class PowerAverage:
    """A moving average of the iterates that grows with the training: the weight of iterate i after t is as `i^gamma`.

    `rate(t) = 1 - (1 - 1 / (t + 1))^(gamma + 1)`, so that the start is forgotten with the first step and the average
    always covers the same share of the training, however long it goes on.

    Args:
        width: standard deviation of the iterates' times as a share of the training, above 0 and up to 0.288, which is
            gamma = 0: the plain mean of all iterates (Polyak and Ruppert). 0.05 to 0.15 are usual.

    Source: Karras, Aittala, Lehtinen, Hellsten, Aila and Laine (2024), Analyzing and improving the training dynamics of
    diffusion models, section 3.1 and appendix C.

    Example:
        >>> round(PowerAverage(0.1).exponent, 2)  # as the paper has it
        6.94
        >>> round(float(PowerAverage(12**-0.5).rate(3)), 4)  # the fourth of four iterates in their mean
        0.25
    """

    width: float

    @property
    def exponent(self) -> float:
        """Return gamma, which `width = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3)))` defines, 0 or more."""

        def too_wide(gamma: float) -> bool:
            return (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)) > self.width**2

        low, high = 0.0, 1 / self.width  # at 1 / width the profile is narrower than that
        for _ in range(100):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if too_wide(middle) else (low, middle)
        return low

    def rate(self, step: Any) -> jax.Array:
        """Return the weight of the newest iterate."""
        # by logarithms: of a long training 1 - (1 - 1 / t)^g would have no digits left
        return -jnp.expm1((self.exponent + 1) * jnp.log1p(-1 / (1.0 + step)))


def named(average: Any, called: str) -> dict[str, Averaging]:
    """Return averages by name, in their order: the first is the fitted model.

    Args:
        average: None, an average, or a dict of them.
        called: what an error names.

    Raises:
        FitError: no average, or one out of range.

    Example:
        >>> [*named(Average(0.9), "demo")], [*named({"slow": Average(0.999), "fast": Average(0.9)}, "demo")]
        (['average'], ['slow', 'fast'])
    """
    averages = {} if average is None else average if isinstance(average, dict) else {"average": average}
    for name, one in averages.items():
        if isinstance(one, (int, float)) and not isinstance(one, bool):
            raise FitError(
                "an average is a value, not a number", called=called, got=f"{one!r}",
                expected="jaxgen.Average(decay), jaxgen.PowerAverage(width), or a dict of several",
                fix=f"average = jaxgen.Average({one if 0 <= one < 1 else 0.999})",
            )  # fmt: skip
        if not isinstance(one, Averaging) or isinstance(one, type) or not isinstance(name, str):
            raise FitError(
                "that is no average", called=called, got=f"{name!r}: {one!r}"[:200],
                expected="None, jaxgen.Average(decay), jaxgen.PowerAverage(width), or a dict of them by name",
                fix="average = jaxgen.Average(0.999)",
            )  # fmt: skip
        if isinstance(one, Average) and not 0 <= one.decay < 1:
            raise FitError(
                "the decay of a moving average is out of range", called=called, got=repr(one),
                expected="a number from 0 to 1, 1 excluded, such as 0.999", fix="average = jaxgen.Average(0.999)",
            )  # fmt: skip
        if isinstance(one, PowerAverage) and not 0 < one.width <= math.sqrt(1 / 12):
            raise FitError(
                "the width of a power average is out of range", called=called, got=repr(one),
                expected="a number above 0 and up to 0.288", fix="average = jaxgen.PowerAverage(0.1)",
            )  # fmt: skip
    return dict(averages)
