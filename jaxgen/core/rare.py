"""Rare paths: what a computation does where its usual way is not good enough.

A program that holds both ways compiles both, and the rare one, which repairs, iterates or works in log space, is often
the longer. So a program may be traced without rare paths: what would have taken one is then NaN, which no step of a fit
accepts, and whoever runs the program makes that step again by the whole one. Which of the two is traced is part of
JAX's key of compiled programs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")

_left_out = jax.make_user_context(False)


def without_rare_paths() -> AbstractContextManager[None]:
    """Leave rare paths out of the programs that are traced, and called, inside of this context.

    Example:
        >>> @jax.jit
        ... def root(x):
        ...     return rarely(x < 0, lambda: 0.0 * x, lambda: jnp.sqrt(x))
        >>> float(root(4.0)), float(root(-4.0))
        (2.0, -0.0)
        >>> with without_rare_paths():
        ...     print(float(root(4.0)), float(root(-4.0)))
        2.0 nan
    """
    return _left_out(True)


def with_rare_paths() -> AbstractContextManager[None]:
    """Keep rare paths, inside of a context without them."""
    return _left_out(False)


def rare_paths_left_out() -> bool:
    """True while a program without rare paths is traced."""
    return bool(_left_out.value)


@jax.custom_batching.custom_vmap
def any_lane(flag: jax.Array) -> jax.Array:
    """A flag that is raised for all models of a batch where it is for one of them.

    Under `vmap` it stays one bool, so that `lax.cond` on it runs one branch only.

    Example:
        >>> jax.vmap(any_lane, out_axes=None)(jnp.array([False, True])).item()
        True
    """
    return flag


@any_lane.def_vmap
def _any_lane(size: int, batched: Any, flag: jax.Array) -> tuple[jax.Array, bool]:
    return (any_lane(jnp.any(flag)) if batched[0] else any_lane(flag)), False


def rarely(needed: jax.Array, rare: Callable[[], T], usual: Callable[[], T]) -> T:
    """Return `usual()`, or `rare()` for all models of a batch where one of some flags says so.

    Args:
        needed: bool, of the first axes of what is computed: each flag says which results the usual way has wrong.
        rare, usual: functions that compute the same.
    """
    if rare_paths_left_out():
        return spoilt(needed, usual())
    return jax.lax.cond(any_lane(jnp.any(needed)), rare, usual)


def rarely_kept(needed: jax.Array, rare: Callable[[], T], results: T) -> T:
    """Return what `rarely` does, from usual results that are there already and then are not copied.

    A loop of at most one round: a `lax.cond` would copy large results through the branch that returns them as they are.
    """
    if rare_paths_left_out():
        return spoilt(needed, results)

    def once(state: tuple[jax.Array, T]) -> tuple[jax.Array, T]:
        return jnp.zeros_like(state[0]), rare()

    return jax.lax.while_loop(lambda state: state[0], once, (any_lane(needed), results))[1]


def spoilt(where: jax.Array, tree: T) -> T:
    """Return a tree with NaN where a flag says so, along the first axes of each array; bools and integers stay.

    They stay in memory, as what a branch hands on does: else XLA may round what follows in another way.

    Example:
        >>> spoilt(jnp.array([True, False]), (jnp.ones((2, 2)), jnp.ones(2, int)))[0].tolist()
        [[nan, nan], [1.0, 1.0]]
    """

    def one(x: jax.Array) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return jnp.where(where.reshape(where.shape + (1,) * (x.ndim - where.ndim)), jnp.nan, x)

    return jax.lax.optimization_barrier(jax.tree.map(one, tree))
