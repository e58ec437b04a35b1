"""Protocols of densities that have closed forms for what others need draws for. `core.protocols` is the page on which
these stand with all others."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import numpy as np


class Marginal(Protocol):
    """Knows the density of some of its coordinates, alone and given the others. Default: neither.

    Law: `p(x) = p(x_b) p(x_a | x_b)`.
    """

    def marginal(self, indices: Any) -> Any:
        """The density of the coordinates at `indices`, static ints, in their order."""

    def condition(self, indices: Any, values: Any) -> Any:
        """The density of the others, in their order, given those at `indices`, `values [len(indices)]`."""


class NormalMoments(Protocol):
    """Is a normal density. Default: entropies and divergences are means over draws. Law: `log_prob` is that of its
    moments."""

    def normal_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean `[D]` of the flat event, and its covariance `[D, D]`, or its variances `[D]` where it is diagonal.

        float64, made of the parameters on the host: of a covariance that was formed in float32 the determinant of
        columns that nearly follow from each other has no digits.
        """


class LabelProbabilities(Protocol):
    """Is a density of independent labels. Default: as of `NormalMoments`. Law: `log_prob` is the sum of its entries."""

    def label_log_probs(self) -> jax.Array:
        """`log p(x_d = v)`, nats, `[*event, V]`."""


class Ranged(Protocol):
    """Has events between two ends, and none outside. Default: all real numbers. Law: beyond them `log_prob` is -inf."""

    @property
    def bounds(self) -> tuple[Any, Any]:
        """The lower and the upper ends, `[*event]` both; infinite where there is none."""


class Strange(Protocol):
    """Says of events how strange they are, and nothing else. Default: their surprise."""

    def strangeness(self, x: Any) -> jax.Array:
        """`[*batch, *event] -> [*batch]`, high is strange."""
