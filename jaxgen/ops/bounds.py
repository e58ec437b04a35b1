"""Bounds of a log-likelihood from weighted draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.ops.stable import logsumexp

#: draws weighed at once for each event; memory does not grow with the number of draws beyond it
CHUNK_DRAWS = 25


def free_bits(rate: jax.Array, floor: Any) -> jax.Array:
    """The rate with a floor for each coordinate, `sum_d max(rate_d, floor)`, nats, `[...] -> []`.

    Source: Kingma et al. (2016), Improved variational inference with inverse autoregressive flow, section C.8.

    Example:
        >>> round(float(free_bits(jnp.array([0.1, 0.6]), 0.25)), 4)
        0.85
    """
    return jnp.sum(jnp.maximum(rate, floor))


def importance_bound(key: Any, log_weight: Callable[[Any], jax.Array], samples: int, called: str) -> jax.Array:
    """The importance weighted bound of one event, nats: `log 1/S sum_s w_s`, `E[w] = p(x)`.

    It is a lower bound in the mean, tighter with more samples, and tends to `log p(x)`. Draws are weighed in chunks:
    memory is that of 25 however many there are, except under a gradient.

    Args:
        key: typed key.
        log_weight: `key -> log w` of one draw, a scalar.
        samples: S, the number of draws.
        called: what the user called, for errors.

    Raises:
        FitError: no draws.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, equation 8.

    Example:
        >>> bound = importance_bound(jax.random.key(0), lambda key: jax.random.normal(key) - 0.5, 10_000, "demo")
        >>> abs(float(bound)) < 0.05  # the weights are lognormal of mean one
        True
    """
    if samples < 1:
        raise FitError(
            "a bound needs draws", called=f"{called}(key, x, samples={samples})", expected="samples=1 or more",
            got=str(samples),
        )  # fmt: skip
    weights = jax.lax.map(log_weight, jax.random.split(key, samples), batch_size=min(samples, CHUNK_DRAWS))
    return logsumexp(weights) - math.log(samples)
