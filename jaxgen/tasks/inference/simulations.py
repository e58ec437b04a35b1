"""Pairs of parameters and what was simulated with them, checked: the data of simulation-based inference."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import DataError, FitError, ModelError, ShapeError
from jaxgen.core.inputs import as_array, floating
from jaxgen.core.methods import check_key, context_shape, is_count
from jaxgen.core.protocols import Density, has
from jaxgen.core.pytree import is_model

#: the fewest simulations that anything is learned from
FEWEST = 20


class Simulations(NamedTuple):
    """Parameters, what was simulated with them, and how many simulations came to nothing.

    Args:
        theta: `[N, D]`.
        x: `[N, P]`, all finite.
        failed: simulations with an entry that is not finite, which are left out.
    """

    theta: jax.Array
    x: jax.Array
    failed: int

    def joined(self, other: Simulations) -> Simulations:
        """Both together."""
        theta, x = jnp.concatenate([self.theta, other.theta]), jnp.concatenate([self.x, other.x])
        return Simulations(theta, x, self.failed + other.failed)


def check_prior(key: Any, prior: Any, called: str) -> int:
    """Return the length of parameters, or refuse what is no density of vectors."""
    check_key(key, called)
    shape: Any = tuple(prior.event_shape) if is_model(prior) and has(prior, Density) else None
    if shape is None or len(shape) != 1 or not shape[0] or context_shape(prior) is not None:
        raise ModelError(
            "the prior is no density of parameters", called=called,
            expected="a density of vectors, events [D], without a context",
            got=repr(prior)[:200] if shape is None else f"{type(prior).__name__} of events {list(shape)}",
            fix="a density of vectors, such as a Uniform made of two lists of ends",
        )  # fmt: skip
    return shape[0]


def simulations_of(key: Any, prior: Any, given: Any, count: int, called: str) -> Simulations:
    """Return the pairs that were given, or those of a simulator with draws of the prior.

    Raises:
        FitError: a number of simulations that is none. Else as `checked`.
    """
    if not callable(given):
        if not (isinstance(given, (tuple, list)) and len(given) == 2):
            raise DataError(
                "there are no simulations", called=called, got=repr(type(given).__name__),
                expected="a pair (theta [N, D], x [N, P]), or a simulator (key, theta [N, D]) -> x [N, P]",
            )  # fmt: skip
        theta, x = given
        return checked(prior, theta, x, called)
    if not is_count(count, FEWEST):
        raise FitError("too few simulations", called=called, expected=f"{FEWEST} or more", got=repr(count))
    first, second = jax.random.split(key)
    return simulated(second, prior, given, prior.sample(first, (count,)), called)


def simulated(key: Any, prior: Any, simulator: Any, theta: Any, called: str) -> Simulations:
    """Return what a simulator makes of parameters, as `checked`."""
    return checked(prior, theta, simulator(key, theta), called)


def checked(prior: Any, theta: Any, x: Any, called: str) -> Simulations:
    """Return pairs as float arrays, without those that failed.

    Raises:
        ShapeError: what are no pairs of vectors. DataError: parameters that are not finite or where the prior has no
            density, simulations that nearly all failed, or an x that is always the same.
    """
    if isinstance(x, (np.ndarray, jax.Array)) and jnp.issubdtype(x.dtype, jnp.floating):
        x = jnp.where(jnp.isinf(x), jnp.nan, x)  # as failed as NaN is
    theta = jnp.asarray(as_array(theta, name="theta", called=called))
    x = jnp.asarray(as_array(x, name="x", called=called, allow_nan=True))
    theta, x = (a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in (theta, x))
    size = prior.event_shape[0]
    if theta.ndim != 2 or x.ndim != 2 or len(theta) != len(x) or theta.shape[1] != size or not x.shape[1]:
        column = x.ndim == 1 and len(x) == len(theta)
        raise ShapeError(
            "parameters and simulations are no pairs of vectors", called=called,
            expected=f"theta [N, {size}], x [N, P]", got=f"theta {list(theta.shape)}, x {list(x.shape)}",
            fix="a column for x, also where it is one number" if column else "a row of each for every simulation",
        )  # fmt: skip
    outside = ~np.isfinite(np.asarray(prior.log_prob(theta)))
    if outside.any():
        raise DataError(
            "parameters lie where the prior has no density", called=called, expected="draws of the prior",
            got=f"{outside.sum()} of {len(theta)}, the first theta[{np.argmax(outside)}] = "
            f"{np.asarray(theta[int(np.argmax(outside))])}",
            fix="the prior that theta was drawn of",
        )  # fmt: skip
    good = np.isfinite(np.asarray(x)).all(axis=1)
    found = Simulations(theta[good], x[good], int((~good).sum()))
    if len(found.x) < FEWEST:
        raise DataError(
            "too few simulations", called=called, expected=f"{FEWEST} or more without NaN",
            got=f"{len(found.x)} of {len(x)}; {found.failed} failed",
        )  # fmt: skip
    if not constant_columns(found.x).size < x.shape[1]:
        raise DataError("x is the same in all simulations", called=called, expected="data that vary with something",
                        got=f"{x.shape[1]} constant columns")  # fmt: skip
    return found


def constant_columns(x: Any) -> np.ndarray:
    """Return the columns that are the same in all rows."""
    host = np.asarray(x)
    return np.flatnonzero(host.max(axis=0) == host.min(axis=0))


def observation(x: Any, size: int, called: str) -> jax.Array:
    """Return observations `[..., P]` as floats.

    Raises:
        ShapeError: of another length than the simulations. DataError: entries that are not finite.
    """
    x = floating(jnp.asarray(as_array(x, name="x", called=called)))
    if not x.ndim or x.shape[-1] != size:
        raise ShapeError(
            "the observation is not as the simulations are", called=called, expected=f"x [{size}]",
            got=f"shape {list(x.shape)}", fix="the observation in the columns of the simulator's x",
        )  # fmt: skip
    return x


def ends(prior: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the prior's ends, `[D]` both, as numpy arrays."""
    low, high = (np.asarray(end, np.float64) for end in algebra.bounds(prior))
    return low, high
