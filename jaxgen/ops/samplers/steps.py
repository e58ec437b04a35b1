"""The parts that the steps of all samplers share: the state of a chain, and its move to a proposal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxgen.core.errors import FitError, ShapeError
from jaxgen.core.inputs import concrete


class ChainState(NamedTuple):
    """The state of a Markov chain.

    Args:
        x: the event.
        log_density: of x, nats; of SGLD the estimate of one minibatch.
        gradient: of the log-density at x, as one vector.
        steps: made so far.
    """

    x: Any
    log_density: jax.Array
    gradient: jax.Array
    steps: jax.Array


class ChainInfo(NamedTuple):
    """The outcome of one step of a Markov chain.

    Args:
        acceptance: the probability with which the proposal was accepted; 1 for samplers that accept all.
        accepted: whether it was.
        finite: False where the log-density of the proposal was NaN or plus infinity, or its gradient not finite; and
            where the chain itself has no finite log-density and gradient. An adjusted sampler stays where it is then;
            an unadjusted one goes there, and its x is NaN from then on.
    """

    acceptance: jax.Array
    accepted: jax.Array
    finite: jax.Array


class Sampler(Protocol):
    """A Markov kernel on log-densities."""

    def init(self, log_density: Callable[..., Any], x: Any) -> ChainState:
        """The state before the first step."""
        ...

    def step(
        self, key: Any, log_density: Callable[..., Any], state: ChainState, observed: Any = None
    ) -> tuple[ChainState, ChainInfo]:
        """One step; coordinates of x that are `observed`, bools like x, stay."""
        ...


def check_options(sampler: Any, adjusted: bool = False) -> None:
    """Refuse a step size or a temperature out of range; traced ones are trusted."""
    step, heat = sampler.step_size, sampler.temperature
    if not (concrete(step) and concrete(heat)):
        return
    if not 0 < step < float("inf") or not 0 <= heat < float("inf") or (adjusted and heat == 0):
        raise FitError(
            "a step has a size, and a temperature", called=f"{type(sampler).__name__}(step_size={step}, "
            f"temperature={heat})", expected=f"step_size > 0, temperature {'> 0' if adjusted else '>= 0'}",
            got=f"{step}, {heat}",
        )  # fmt: skip


def value_and_gradient(log_density: Callable[..., Any], rest: Callable[..., Any], x: jax.Array, free: Any) -> Any:
    """Return log-density and gradient at a vector x, which `rest` makes an event of; `free` is what may move."""

    def flat(x: jax.Array) -> jax.Array:
        value = jnp.asarray(log_density(rest(x)))
        if value.shape != ():
            raise ShapeError(
                "a log-density is one number for one event", called="log_density(x)", expected="a scalar",
                got=f"shape {list(value.shape)}", fix="map over chains by vmap, or sum over independent coordinates",
            )  # fmt: skip
        return value.astype(x.dtype)

    value, gradient = jax.value_and_grad(flat)(x)
    return value, free(gradient)


def rooted(state: ChainState, observed: Any = None) -> jax.Array:
    """Return where a chain can move: log-density and gradient, but for that of observed coordinates, are finite."""
    return jnp.isfinite(state.log_density) & jnp.all(jnp.isfinite(free_part(observed)(state.gradient)))


def first_state(log_density: Callable[..., Any], x: Any) -> ChainState:
    """Return the state of a chain before its first step."""
    flat, rest = ravel_pytree(x)
    value, gradient = value_and_gradient(log_density, rest, flat, free_part(None))
    return ChainState(x, value, gradient, jnp.zeros((), jnp.int32))


def free_part(observed: Any) -> Callable[[jax.Array], jax.Array]:
    """Return a function that makes a vector zero at observed coordinates, which do not move, whatever it is there."""
    if observed is None:
        return lambda vector: vector
    held = ravel_pytree(observed)[0].astype(bool)
    return lambda vector: jnp.where(held, 0, vector)


def is_sound(value: jax.Array, gradient: jax.Array) -> jax.Array:
    """Return whether a log-density, finite or -inf, has a finite gradient."""
    return ~jnp.isnan(value) & (value < jnp.inf) & jnp.all(jnp.isfinite(gradient))


def unadjusted(state: ChainState, x: Any, value: jax.Array, gradient: jax.Array) -> tuple[ChainState, ChainInfo]:
    """Return the next place, whatever it is; a chain that is where there is no density is lost, and shows it."""
    sound, one = is_sound(value, gradient) & (value > -jnp.inf), jnp.ones((), gradient.dtype)
    next_state = ChainState(x, value, jnp.where(sound, gradient, jnp.nan), state.steps + 1)
    return next_state, ChainInfo(one, jnp.ones((), bool), sound)


def decided(
    key: Any, state: ChainState, rest: Any, new: jax.Array, value: jax.Array, gradient: jax.Array, log_ratio: jax.Array
) -> tuple[ChainState, ChainInfo]:
    """Return the proposal or the place before. One without a finite density is not taken."""
    # outside of the support, log p = -inf, the gradient may be anything: that is no fault, and no move either
    sound = is_sound(value, gradient) | (value == -jnp.inf)
    acceptance = jnp.where(sound & (value > -jnp.inf), jnp.exp(jnp.minimum(log_ratio, 0)), 0)
    acceptance = jnp.where(jnp.isnan(acceptance), 0, acceptance)
    # u from [0, 1): what is impossible is not accepted, what is certain is
    accepted = jax.random.uniform(key, (), acceptance.dtype) < acceptance
    moved = ChainState(rest(new), value, gradient, state.steps)
    kept = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), moved, state)
    return kept._replace(steps=state.steps + 1), ChainInfo(acceptance, accepted, sound & rooted(kept))
