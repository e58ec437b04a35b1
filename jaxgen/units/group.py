"""Layers of several kinds side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.protocols import has
from jaxgen.core.pytree import model
from jaxgen.units.base import Units, parts


@model
class Group:
    """Layers side by side as one: values, statistics and fields are those of the members, one after another.

    A label beside an image, for a machine that classifies: `Group.of(Categorical.zeros(1, 10), Bernoulli.zeros(784))`.

    Args:
        members: the layers.

    Example:
        >>> from jaxgen.units import Bernoulli, Categorical
        >>> group = Group.of(Categorical.zeros(1, 3), Bernoulli.zeros(2))
        >>> group.statistic(jnp.array([2, 1, 0])).tolist()
        [0.0, 0.0, 1.0, 1.0, 0.0]
    """

    members: tuple[Any, ...]

    @classmethod
    def of(cls, *members) -> Group:
        """A layer of layers.

        Raises:
            ModelError: no layers, or something else.
        """
        if not members or not all(has(m, Units) for m in members):
            raise ModelError(
                "a group is made of layers of units", called="Group.of(*members)", expected="one layer or more",
                got=", ".join(type(m).__name__ for m in members) or "none",
                fix="jaxgen.units.Group.of(jaxgen.units.Categorical.zeros(1, 10), jaxgen.units.Bernoulli.zeros(784))",
            )  # fmt: skip
        return cls(members)

    @property
    def states(self) -> None:
        """The members' are their own."""

    @property
    def kinds(self) -> str:
        return "".join(k for k in "biuf" if all(k in part.kinds for part in parts(self)))

    @property
    def sites(self) -> int:
        return sum(m.sites for m in self.members)

    @property
    def size(self) -> int:
        return sum(m.size for m in self.members)

    def _values(self, u):
        return jnp.split(u, np.cumsum([m.sites for m in self.members])[:-1], axis=-1)

    def _fields(self, field):
        return jnp.split(field, np.cumsum([m.size for m in self.members])[:-1], axis=-1)

    def check(self, x, called) -> None:
        """Each member refuses what is none of its own."""
        at = 0
        for m in self.members:
            m.check(x[..., at : at + m.sites], f"{called}, columns {at} to {at + m.sites - 1}")
            at += m.sites

    def statistic(self, u):
        return jnp.concatenate([m.statistic(v) for m, v in zip(self.members, self._values(u), strict=True)], axis=-1)

    def energy(self, u):
        return sum(m.energy(v) for m, v in zip(self.members, self._values(u), strict=True))

    def _each(self, method, *arrays):
        rows = zip(self.members, *arrays, strict=True)
        return jnp.concatenate([getattr(m, method)(*row) for m, *row in rows], axis=-1)

    def log_partition(self, field):
        return self._each("log_partition", self._fields(field))

    def mean(self, field):
        return self._each("mean", self._fields(field))

    def sample(self, noise, field):
        return self._each("sample", self._values(noise), self._fields(field))

    def to_values(self, mean):
        return self._each("to_values", self._fields(mean))


def group(*columns: tuple[int, Callable[..., Any]]) -> Callable[[Any], Group]:
    """A start from data for columns of several kinds, `x -> Group`.

    Args:
        columns: for each kind how many columns it has, and its start, such as `Bernoulli.init`.

    Raises:
        ShapeError: data of another number of columns.

    Example:
        >>> from jaxgen.units import Bernoulli, Categorical
        >>> start = group((1, Categorical.init), (2, Bernoulli.init))
        >>> [m.sites for m in start(jnp.array([[2, 0, 1], [0, 1, 1]])).members]
        [1, 2]
    """

    def start(x: Any) -> Group:
        ends = np.cumsum([n for n, _ in columns])
        if np.ndim(x) != 2 or np.shape(x)[1] != ends[-1]:
            raise ShapeError(
                "the data have other columns than the group", called="units.group(*columns)(x)",
                expected=f"[N, {ends[-1]}]", got=f"shape {list(np.shape(x))}",
            )  # fmt: skip
        return Group.of(*(init(x[:, end - n : end]) for end, (n, init) in zip(ends, columns, strict=True)))

    return start
