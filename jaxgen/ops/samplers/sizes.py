"""Samplers whose steps have sizes of their own, drawn at random."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import FitError
from jaxgen.core.files import loadable
from jaxgen.core.protocols import has


class Sized(Protocol):
    """A sampler whose steps have a size."""

    step_size: Any


@loadable
@dataclasses.dataclass(frozen=True)
class Spread:
    """A sampler whose every step has a size of its own: between `step_size / ratio` and `step_size`, even in its log.

    For densities whose steepness nobody knows beforehand, as that of a network while it trains: where the large steps
    are refused the small ones still move, and a chain does not stand still. The size is drawn without a look at the
    chain, so that what the sampler leaves invariant stays so, and reversible steps stay reversible.

    Args:
        sampler: with a `step_size`, its largest.
        ratio: of the largest to the smallest, 1 or more.

    Raises:
        FitError: a sampler without step size, a ratio below 1.

    Source: Neal (2011), MCMC using Hamiltonian dynamics, section 3.2, for sizes drawn at random.

    Example:
        >>> from jaxgen.ops.samplers import MALA, sample_chain
        >>> steep, start = lambda x: -1000.0 * x**2, jnp.float32(0.1)
        >>> chain = lambda key, sampler: sample_chain(key, sampler, steep, start, draws=100)[1].acceptance.mean()
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> one, many = (jax.vmap(lambda key: chain(key, s))(keys).mean() for s in (MALA(1.0), Spread(MALA(1.0), 1e4)))
        >>> float(one), float(many) > 0.1
        (0.0, True)
    """

    sampler: Any
    ratio: float = 200.0

    def __post_init__(self):
        if not has(self.sampler, Sized) or not 1 <= self.ratio < float("inf"):
            raise FitError(
                "there are no step sizes to draw from", called="Spread(sampler, ratio)", got=repr(self),
                expected="a sampler with a step_size, a ratio of 1 or more",
                fix="jaxgen.samplers.Spread(jaxgen.samplers.MALA(0.2), 200.0)",
            )  # fmt: skip

    def init(self, log_density, x):
        """The state before the first step."""
        return self.sampler.init(log_density, x)

    def step(self, key, log_density, state, observed=None):
        """One step of one size."""
        first, second = jax.random.split(key)
        share = jax.random.uniform(first, (), state.log_density.dtype)
        size = self.sampler.step_size * jnp.exp(-share * float(np.log(self.ratio)))
        return dataclasses.replace(self.sampler, step_size=size).step(second, log_density, state, observed)
