"""Protocols of densities that have closed forms for what others need draws for. `core.protocols` is the page on which
these stand with all others."""

from __future__ import annotations

from typing import Any, Protocol

import jax


class Marginal(Protocol):
    """Knows the density of some of its coordinates, alone and given the others. Default: neither.

    Law: `p(x) = p(x_b) p(x_a | x_b)`.
    """

    def marginal(self, indices: Any) -> Any:
        """The density of the coordinates at `indices`, static ints, in their order."""

    def condition(self, indices: Any, values: Any) -> Any:
        """The density of the others, in their order, given those at `indices`, `values [len(indices)]`."""


class Entropic(Protocol):
    """Knows its entropy. Default: the mean surprise of draws. Law: it is that."""

    def closed_entropy(self) -> jax.Array:
        """`-E log p(x)`, nats."""


class Relative(Protocol):
    """Knows its divergence from some densities. Default: the mean of `log p - log q` over draws. Law: it is that."""

    def has_divergence_from(self, other: Any) -> bool:
        """True for the densities that it knows."""

    def divergence_from(self, other: Any) -> jax.Array:
        """`KL(self || other)`, nats."""
