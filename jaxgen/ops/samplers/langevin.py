"""Langevin dynamics on a log-density, unadjusted and adjusted."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxgen.core.files import loadable
from jaxgen.ops.samplers.steps import (
    check_options,
    decided,
    first_state,
    free_part,
    unadjusted,
    value_and_gradient,
)


@loadable
@dataclasses.dataclass(frozen=True)
class ULA:
    """The unadjusted Langevin algorithm: `x' = x + eta grad log p(x) + sqrt(2 eta T) xi`, every step accepted.

    Its stationary distribution is not p but near it for small steps: on N(0, s^2), with T = 1, it is normal of variance
    `s^2 / (1 - eta / (2 s^2))`. The chain runs away where eta exceeds twice the variance of the narrowest direction.

    Args:
        step_size: eta, positive.
        temperature: T, 0 or more; 0 is gradient ascent.

    Raises:
        FitError: options out of range.

    Source: Roberts and Tweedie (1996), Exponential convergence of Langevin distributions and their discrete
    approximations.

    Example:
        >>> from jaxgen.ops.samplers import sample_chain
        >>> draws, _ = sample_chain(jax.random.key(0), ULA(1.0), lambda x: -x**2 / 2, jnp.float32(0), draws=20_000)
        >>> abs(float(draws.var()) - 2) < 0.2  # and not 1
        True
    """

    step_size: float
    temperature: float = 1.0

    def __post_init__(self):
        check_options(self)

    def init(self, log_density, x):
        """The state before the first step."""
        return first_state(log_density, x)

    def step(self, key, log_density, state, observed=None):
        """One step."""
        x, rest = ravel_pytree(state.x)
        free = free_part(observed)
        noise = free(jax.random.normal(key, x.shape, x.dtype))
        spread = jnp.sqrt(jnp.asarray(2 * self.step_size * self.temperature, x.dtype))
        new = x + self.step_size * free(state.gradient) + spread * noise
        value, gradient = value_and_gradient(log_density, rest, new, free)
        return unadjusted(state, rest(new), value, gradient)


@loadable
@dataclasses.dataclass(frozen=True)
class MALA:
    """The Metropolis-adjusted Langevin algorithm: the step of `ULA`, accepted so that p is exactly invariant.

    Accepted with probability `min(1, p(x') q(x | x') / (p(x) q(x' | x)))`, q the density of the step. On N(0, 1), at
    eta = 0.5, that is 0.9208 in the mean. Where about 0.57 are accepted the chain of a large problem moves fastest.

    Args:
        step_size: eta, positive.
        temperature: T, positive.

    Raises:
        FitError: options out of range.

    Source: Besag (1994), discussion of Grenander and Miller; Roberts and Rosenthal (1998), Optimal scaling of discrete
    approximations to Langevin diffusions.

    Example:
        >>> from jaxgen.ops.samplers import sample_chain
        >>> draws, info = sample_chain(jax.random.key(0), MALA(0.5), lambda x: -x**2 / 2, jnp.float32(0), draws=20_000)
        >>> abs(float(draws.var()) - 1) < 0.1, bool(info.finite.all())
        (True, True)
    """

    step_size: float
    temperature: float = 1.0

    def __post_init__(self):
        check_options(self, adjusted=True)

    def init(self, log_density, x):
        """The state before the first step."""
        return first_state(log_density, x)

    def step(self, key, log_density, state, observed=None):
        """One step."""
        eta, temperature = self.step_size, self.temperature
        first, second = jax.random.split(key)
        x, rest = ravel_pytree(state.x)
        free = free_part(observed)
        spread = jnp.sqrt(jnp.asarray(2 * eta * temperature, x.dtype))
        noise, slope = free(jax.random.normal(first, x.shape, x.dtype)), free(state.gradient)
        state = state._replace(gradient=slope)
        new = x + eta * slope + spread * noise
        value, gradient = value_and_gradient(log_density, rest, new, free)
        # the noise of the way back, without a difference of large numbers: (x - x' - eta g') / spread
        back = noise + eta * (slope + gradient) / spread
        log_ratio = (value - state.log_density) / temperature + 0.5 * (jnp.sum(noise**2) - jnp.sum(back**2))
        return decided(second, state, rest, new, value, gradient, log_ratio)
