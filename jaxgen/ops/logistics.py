"""Mixtures of logistic distributions: an increasing map of the line onto itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["logistic_mixture_logit"]


def logistic_mixture_logit(x: Any, log_weight: Any, mean: Any, log_scale: Any) -> tuple[jax.Array, jax.Array]:
    """The logit of the distribution function of a mixture of logistics, and the logarithm of its derivative.

    `logit F(x)`, `F(x) = sum_k w_k sigmoid((x - m_k) / d_k)`; for one component `(x - m) / d`. In logarithms, so that
    it is exact in both tails.

    Args:
        x: `[*shape]`.
        log_weight: `[K, *shape]`, of weights that sum to one.
        mean: `[K, *shape]`.
        log_scale: `[K, *shape]`.

    Returns:
        two arrays `[*shape]`.

    Source: Ho et al. (2019), Flow++, section 3.2.

    Example:
        >>> y, log_slope = logistic_mixture_logit(jnp.float32(3.0), jnp.zeros(1), jnp.ones(1), jnp.zeros(1))
        >>> round(float(y), 5), round(abs(float(log_slope)), 5)
        (2.0, 0.0)
    """
    z = (x - mean) * jnp.exp(-log_scale)
    below, above = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    log_lower = jax.nn.logsumexp(log_weight + below, axis=0)
    log_upper = jax.nn.logsumexp(log_weight + above, axis=0)
    log_density = jax.nn.logsumexp(log_weight + below + above - log_scale, axis=0)
    return log_lower - log_upper, log_density - log_lower - log_upper
