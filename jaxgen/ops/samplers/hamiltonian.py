"""Hamiltonian Monte Carlo on a log-density."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxgen.core.errors import FitError
from jaxgen.core.files import loadable
from jaxgen.ops.samplers.steps import (
    check_options,
    decided,
    first_state,
    free_part,
    value_and_gradient,
)


@loadable
@dataclasses.dataclass(frozen=True)
class HMC:
    """Hamiltonian Monte Carlo: a fresh momentum, L leapfrog steps of size e, accepted so that p is exactly invariant.

    `r ~ N(0, I)`; L times `r += (e / 2) grad log p(x) / T`, `x += e r`, `r += (e / 2) grad log p(x) / T`; accepted with
    probability `min(1, exp(H(x, r) - H(x', r')))`, `H(x, r) = -log p(x) / T + r^2 / 2`. One leapfrog step is `MALA`
    with eta = e^2 / 2 at T = 1.

    Args:
        step_size: e, positive, in the units of x.
        leapfrogs: L, 1 or more, each one gradient; `e L` about a quarter of a period, on N(0, s^2) `s pi / 2`.
        temperature: T, positive.

    Raises:
        FitError: options out of range.

    Source: Duane, Kennedy, Pendleton and Roweth (1987), Hybrid Monte Carlo; Neal (2011), MCMC using Hamiltonian
    dynamics.

    Example:
        >>> from jaxgen.ops.samplers import sample_chain
        >>> chain = HMC(0.3, leapfrogs=5)
        >>> draws, info = sample_chain(jax.random.key(0), chain, lambda x: -x**2 / 2, jnp.float32(0), draws=5_000)
        >>> abs(float(draws.var()) - 1) < 0.1, float(info.acceptance.mean()) > 0.98
        (True, True)
    """

    step_size: float
    leapfrogs: int = 10
    temperature: float = 1.0

    def __post_init__(self):
        check_options(self, adjusted=True)
        if isinstance(self.leapfrogs, bool) or not isinstance(self.leapfrogs, int) or self.leapfrogs < 1:
            raise FitError(
                "a trajectory needs leapfrog steps", called="HMC(step_size, leapfrogs)", got=repr(self.leapfrogs),
                expected="an int, 1 or more",
            )  # fmt: skip

    def init(self, log_density, x):
        """The state before the first step."""
        return first_state(log_density, x)

    def step(self, key, log_density, state, observed=None):
        """One trajectory."""
        first, second = jax.random.split(key)
        x, rest = ravel_pytree(state.x)
        free, kick = free_part(observed), 0.5 * self.step_size / self.temperature

        def leapfrog(_, place):
            x, r, gradient, _ = place
            r = r + kick * gradient
            x = x + self.step_size * r
            value, gradient = value_and_gradient(log_density, rest, x, free)
            return x, r + kick * gradient, gradient, value

        r = free(jax.random.normal(first, x.shape, x.dtype))
        state = state._replace(gradient=free(state.gradient))
        start = x, r, state.gradient, state.log_density
        new, end, gradient, value = jax.lax.fori_loop(0, self.leapfrogs, leapfrog, start)
        log_ratio = (value - state.log_density) / self.temperature + 0.5 * (jnp.sum(r**2) - jnp.sum(end**2))
        return decided(second, state, rest, new, value, gradient, log_ratio)
