"""Langevin dynamics on a log-density that is estimated from minibatches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxgen.core.errors import FitError
from jaxgen.core.files import loadable
from jaxgen.ops.samplers.steps import (
    ChainState,
    check_options,
    free_part,
    is_sound,
    unadjusted,
    value_and_gradient,
)


@loadable
@dataclasses.dataclass(frozen=True)
class SGLD:
    """Stochastic gradient Langevin dynamics: `ULA` with the gradient of a minibatch, steps of decreasing size.

    `x' = x + eta_t g + sqrt(2 eta_t T) xi`, g an unbiased estimate of the gradient, `eta_t = eta / (1 + t / delay)^a`.
    The log-density is a function of a key and an event, such as that of `minibatch`. With steps that decrease, a above
    0.5 and up to 1, its time averages tend to those of p; with steps of one size the noise of the minibatches adds to
    that of the dynamics.

    Args:
        step_size: eta, positive.
        decay: a, from 0 (none) to 1.
        delay: steps until the size has fallen to `2^-a`, positive.
        temperature: T, 0 or more; 0 is stochastic gradient ascent.

    Raises:
        FitError: options out of range.

    Source: Welling and Teh (2011), Bayesian learning via stochastic gradient Langevin dynamics.

    Example:
        >>> from jaxgen.ops.samplers import sample_chain
        >>> data = jnp.array([1.0, 2.0, 3.0, 2.0])
        >>> log_density = minibatch(lambda m: 0.0, lambda m, x: -((x - m) ** 2) / 2, data, 2)
        >>> draws, _ = sample_chain(jax.random.key(0), SGLD(0.01), log_density, jnp.float32(0), draws=20_000)
        >>> abs(float(draws.mean()) - 2) < 0.2  # the posterior is N(2, 1/4)
        True
    """

    step_size: float
    decay: float = 0.0
    delay: float = 1000.0
    temperature: float = 1.0

    def __post_init__(self):
        check_options(self)
        if not 0 <= self.decay <= 1 or not self.delay > 0:
            raise FitError(
                "steps decrease by a power of time", called="SGLD(step_size, decay, delay)",
                expected="decay from 0 to 1, delay above 0", got=f"decay={self.decay}, delay={self.delay}",
            )  # fmt: skip

    def init(self, log_density, x):
        """The state before the first step; density and gradient are 0 until a step draws its minibatch."""
        flat, _ = ravel_pytree(x)
        return ChainState(x, jnp.zeros((), flat.dtype), jnp.zeros_like(flat), jnp.zeros((), jnp.int32))

    def step(self, key, log_density, state, observed=None):
        """One step."""
        first, second = jax.random.split(key)
        x, rest = ravel_pytree(state.x)
        free = free_part(observed)
        value, gradient = value_and_gradient(lambda x: log_density(first, x), rest, x, free)
        eta = self.step_size / (1 + state.steps.astype(x.dtype) / self.delay) ** self.decay
        noise = free(jax.random.normal(second, x.shape, x.dtype))
        new = x + eta * gradient + jnp.sqrt(2 * eta * self.temperature) * noise
        new = jnp.where(is_sound(value, gradient), new, jnp.nan)
        return unadjusted(state, rest(new), value, gradient)


def minibatch(
    log_prior: Callable[[Any], Any], log_likelihood: Callable[[Any, Any], Any], data: Any, size: int
) -> Callable[[Any, Any], jax.Array]:
    """An unbiased estimate of a log-posterior from some of the data: `log prior(x) + N / n sum_i log p(data_i | x)`.

    Args:
        log_prior: `x -> nats`.
        log_likelihood: `(x, datum) -> nats`, of one datum.
        data: `[N, ...]`, an array or a pytree of arrays.
        size: n, data in a minibatch, drawn with replacement, 1 or more.

    Returns:
        `(key, x) -> nats`, for `SGLD`.

    Raises:
        FitError: no data in a minibatch.

    Example:
        >>> estimate = minibatch(lambda m: 0.0, lambda m, x: -((x - m) ** 2), jnp.ones(8), 4)
        >>> float(estimate(jax.random.key(0), 0.0))  # all data are alike
        -8.0
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise FitError("a minibatch needs data", called="minibatch(..., size)", expected="1 or more", got=repr(size))
    count = len(jax.tree.leaves(data)[0])

    def estimate(key: Any, x: Any) -> jax.Array:
        index = jax.random.randint(key, (size,), 0, count)
        some = jax.tree.map(lambda a: jnp.asarray(a)[index], data)
        return log_prior(x) + count / size * jnp.sum(jax.vmap(lambda d: log_likelihood(x, d))(some))

    return estimate
