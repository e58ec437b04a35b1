"""Powers that make columns look normal: the transformation of Yeo and Johnson, and its best power."""

from __future__ import annotations

import jax
import jax.numpy as jnp

#: powers that are looked at, and halvings of the bracket by the golden section
RANGE, ROUNDS = (-5.0, 5.0), 40
GOLDEN = (5**0.5 - 1) / 2
#: a power so near to 0 or 2 is taken for it: there the formula is a logarithm
NEAR = 1e-4


def yeo_johnson(x: jax.Array, power: jax.Array) -> jax.Array:
    """`((1 + x)^p - 1) / p` from 0 on and `-((1 - x)^(2 - p) - 1) / (2 - p)` below, with logarithms as limits.

    Args:
        x: `[..., D]`; power: `[D]`, 1 for the identity.

    Example:
        >>> yeo_johnson(jnp.array([[3.0, -3.0]]), jnp.array([0.5, 1.0])).tolist()
        [[2.0, -3.0]]
    """
    raised = lambda size, p: jnp.where(  # noqa: E731
        jnp.abs(p) < NEAR, jnp.log1p(size), jnp.expm1(p * jnp.log1p(size)) / jnp.where(jnp.abs(p) < NEAR, 1, p))
    return jnp.where(x >= 0, raised(jnp.maximum(x, 0), power), -raised(jnp.maximum(-x, 0), 2 - power))


def best_power(x: jax.Array) -> jax.Array:
    """Return the power by which each column is likeliest to be normal, `[N, D] -> [D]`, by the golden section.

    `max_p -log(var(y)) / 2 + (p - 1) mean(sign(x) log(1 + |x|))`

    Source: Yeo and Johnson (2000), A new family of power transformations to improve normality or symmetry.

    Example:
        >>> x = jnp.expm1(2 + jax.random.normal(jax.random.key(0), (2000, 1)) / 2)
        >>> abs(float(best_power(x)[0])) < 0.1  # a logarithm
        True
    """
    slope = jnp.mean(jnp.sign(x) * jnp.log1p(jnp.abs(x)), axis=0)

    def loss(power: jax.Array) -> jax.Array:
        variance = jnp.var(yeo_johnson(x, power), axis=0)
        return 0.5 * jnp.log(jnp.maximum(variance, jnp.finfo(x.dtype).tiny)) - (power - 1) * slope

    def narrow(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        inner = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        left = loss(inner[0]) < loss(inner[1])
        return jnp.where(left, low, inner[0]), jnp.where(left, inner[1], high)

    ends = tuple(jnp.full(x.shape[1], end, x.dtype) for end in RANGE)
    low, high = jax.lax.fori_loop(0, ROUNDS, narrow, ends)
    return (low + high) / 2
