"""Boltzmann machines, fitted by contrastive divergence."""

from __future__ import annotations

from typing import Any

from jaxgen.core.inputs import as_array
from jaxgen.fit.contrastive import ContrastiveDivergence, default_optimizer
from jaxgen.models.energy.rbm import RBM


def rbm(key: Any, x: Any, hidden: int = 16, *, step_size: float = 0.1) -> tuple[RBM, ContrastiveDivergence]:
    """A restricted Boltzmann machine, and persistent contrastive divergence with averaged iterates.

    Args:
        key: typed key.
        x: bits `[N, V]`.
        hidden: number of hidden units; up to 22 leave the likelihood exact.
        step_size: of the first step of gradient descent; it falls to zero.

    Raises:
        DataError: data that are not zeros and ones. ModelError: no hidden units.

    Source: Tieleman (2008), Training restricted Boltzmann machines using approximations to the likelihood gradient.

    Example:
        >>> import jax
        >>> model, algorithm = rbm(jax.random.key(0), [[0, 1, 1], [1, 0, 0]], 4)
        >>> model.weights.shape, algorithm.chains
        ((3, 4), 100)
    """
    return RBM.init(key, as_array(x), hidden), ContrastiveDivergence(default_optimizer(step_size))
