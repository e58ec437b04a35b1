"""Posterior means of what was not seen of an event, and the likeliest values where a mean is no value.

A mean over components is linear in what each expects, which of a number is the number and of a label its probabilities.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.errors import ModelError
from jaxgen.core.protocols import has


class Imputing(Protocol):
    """Knows the mean of what was not seen (NaN) of an event given the rest, `impute(x)`: events `[*batch, *event]`."""

    impute: Any


class Averaged(Imputing, Protocol):
    """Has entries of which a mean is no value, such as labels: mixtures average what it expects of them instead.

    Default: `impute`. Law: `completed(x, expected(x))` is `impute(x)`.
    """

    def expected(self, x: Any) -> Any:
        """A tree of arrays `[N, ...]`, for events `[N, *event]`."""

    def completed(self, x: Any, expected: Any) -> jax.Array:
        """Events with what is missing as their expectations have it; looks at no parameter."""


def expected(model: Any, x: Any) -> Any:
    """Return what a model expects of events `[N, *event]` with missing entries, to be averaged."""
    return model.expected(x) if has(model, Averaged) else model.impute(x)


def completed(model: Any, x: jax.Array, expectation: Any) -> jax.Array:
    """Events with what is missing (NaN) filled in from what was expected."""
    if has(model, Averaged):
        return model.completed(x, expectation)
    return jnp.where(jnp.isnan(x), expectation, x)


def mean_of(components: Any, share: jax.Array, x: Any, called: str) -> Any:
    """Return what a mixture expects: the mean over its components, by shares `[K, N]`.

    Raises:
        ModelError: components without `impute`, or labels in components of several kinds.
    """
    algebra.needed(components, Imputing, called)
    if isinstance(components, algebra.Several):
        if any(has(batch, Averaged) for batch in components.members):
            raise ModelError(
                "labels of components of several kinds are not averaged", called=called, got=repr(components)[:200],
                expected="components of one kind, or of numbers",
            )  # fmt: skip
        filled = algebra.each(lambda component: component.impute(x), components)
    else:
        filled = algebra.each(lambda component: expected(component, x), components)
    weigh = lambda a: jnp.sum(share.reshape(share.shape + (1,) * (a.ndim - 2)) * a, axis=0)  # noqa: E731
    return jax.tree.map(weigh, filled)
