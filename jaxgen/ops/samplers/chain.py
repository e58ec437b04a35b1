"""A chain of any sampler, in one compiled loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled_by_trace
from jaxgen.core.errors import DataError, FitError, JaxgenWarning, ShapeError
from jaxgen.core.inputs import concrete, widened
from jaxgen.core.methods import check_key
from jaxgen.ops.samplers.steps import (
    ChainInfo,
    ChainState,
    free_part,
    rooted,
)


def sample_chain(
    key: Any, sampler: Any, log_density: Callable[..., Any], x: Any, *, draws: int = 1000, burn_in: int = 0,
    thin: int = 1, observed: Any = None,
) -> tuple[Any, ChainInfo]:  # fmt: skip
    """A chain from x, in one compiled loop.

    For many chains map it: `jax.vmap(lambda k, x: sample_chain(k, sampler, log_density, x))(keys, starts)`. Outside
    of a `jax.jit` every call traces anew, and only the first one compiles.

    Args:
        key: typed key.
        sampler: `ULA`, `MALA`, `HMC`, `SGLD`, or any `Sampler`.
        log_density: of one event; a model's is `lambda x: -model.energy(x)` or `model.log_prob`.
        x: one event, an array of floats or a pytree of such.
        draws: how many to keep, 1 or more.
        burn_in: steps before the first.
        thin: steps for each draw, 1 or more.
        observed: bools like x, True where x is to stay: the chain is then one of `p(rest | observed)`.

    Returns:
        draws, with a leading axis; and `ChainInfo` of each, of the `thin` steps that led to it the mean acceptance,
        whether any was accepted, and whether all were finite.

    Raises:
        FitError: counts that are too small. DataError: a start that is not of floats, or where log-density or gradient
        is not finite. ShapeError: a log-density of more than one number, or a mask that does not fit.

    A chain that never moved, or was lost, is a `JaxgenWarning`; inside `jit` and `vmap` only `ChainInfo` says so.

    Example:
        >>> from jaxgen.ops.samplers import MALA
        >>> normal = lambda x: -jnp.sum(x**2) / 2
        >>> draws, info = sample_chain(jax.random.key(0), MALA(0.5), normal, jnp.zeros(3), draws=100, thin=2)
        >>> draws.shape, info.acceptance.shape
        ((100, 3), (100,))
    """
    called = "sample_chain(key, sampler, log_density, x)"
    check_key(key, called)
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in (draws, burn_in, thin))
    if not whole or min(draws, thin, burn_in + 1) < 1:
        raise FitError(
            "a chain needs steps", called=called, expected="ints: draws and thin of 1 or more, burn_in of 0 or more",
            got=f"draws={draws}, burn_in={burn_in}, thin={thin}",
        )  # fmt: skip
    x = widened(jax.tree.map(jnp.asarray, x))
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(x)):
        raise DataError(
            "a chain with gradients moves real numbers", called=called, expected="x of floats",
            got=", ".join(str(leaf.dtype) for leaf in jax.tree.leaves(x)), fix="x.astype(float)",
        )  # fmt: skip
    if observed is not None:
        shapes, masks = ([np.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (x, observed))
        if shapes != masks or any(jnp.result_type(leaf) != jnp.bool_ for leaf in jax.tree.leaves(observed)):
            raise ShapeError(
                "observed is no mask of the event", called=called, expected=f"bools of shapes {shapes}", got=str(masks)
            )
    state = sampler.init(log_density, x)
    state = state._replace(gradient=free_part(observed)(state.gradient))
    if concrete(state) and not rooted(state):
        slope = int(jnp.sum(~jnp.isfinite(state.gradient)))
        raise DataError(
            "the chain starts where no chain can move", called=called,
            expected="a start x where log_density(x) and its gradient are finite",
            got=f"log_density(x) = {state.log_density}, {slope} of {state.gradient.size} slopes not finite",
        )  # fmt: skip
    x, info = _draws(key, sampler, log_density, state, observed, draws, burn_in, thin)
    if concrete(info):
        _tell(info, thin, called)
    return x, info


@compiled_by_trace
def _draws(
    key: Any, sampler: Any, log_density: Any, state: ChainState, observed: Any, draws: int, burn_in: int, thin: int
) -> tuple[Any, ChainInfo]:
    first, second = jax.random.split(key)

    def step(t: Any, carry: Any, key: Any) -> Any:
        return sampler.step(jax.random.fold_in(key, t), log_density, carry, observed)

    state = jax.lax.fori_loop(0, burn_in, lambda t, state: step(t, state, first)[0], state)

    def draw(state: ChainState, t: Any) -> tuple[ChainState, tuple[Any, ChainInfo]]:
        state, info = jax.lax.scan(lambda s, i: step(t * thin + i, s, second), state, jnp.arange(thin))
        info = ChainInfo(jnp.mean(info.acceptance), jnp.any(info.accepted), jnp.all(info.finite))
        return state, (state.x, info)

    return jax.lax.scan(draw, state, jnp.arange(draws))[1]


def _tell(info: ChainInfo, thin: int, called: str) -> None:
    """Warns of a chain whose draws are none."""
    accepted, finite = np.asarray(info.accepted), np.asarray(info.finite)
    if not accepted.any():
        why = "took too large steps, or met no finite density" if finite.any() else "met no finite density"
        text = f"the chain never moved: it {why}; none of {accepted.size * thin} proposals was accepted"
    elif accepted.all() and not finite[-1]:  # an unadjusted one never comes back
        text = f"the chain was lost: from draw {np.argmin(finite)} of {finite.size} on its density is not finite"
    else:
        return
    warnings.warn(f"{called}: {text}; try a smaller step_size", JaxgenWarning, stacklevel=3)
