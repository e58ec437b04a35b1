"""Densities of independent entries: supports, scores and weighted sums.

Data outside of a support are refused where their values can be seen; else they score -inf and count nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.inputs import as_array, concrete, floating
from jaxgen.core.remedies import unseen


def supported(
    x: Any, inside: Callable[[Any], Any], *, called: str, expected: str, fix: str, missing: bool | None = False
) -> jax.Array:
    """Return data as an array, all of them in a support.

    Args:
        x: data of any shape; inside of `jit`, where values cannot be seen, they pass.
        inside: `x -> bools`, element by element, on a numpy array; False for NaN.
        called: what the user called, for errors.
        expected: the support in words, for errors.
        fix: what to do about values outside, for errors.
        missing: NaN is an entry that was not seen, and passes; None of a model that has no such option.

    Raises:
        DataError: values outside the support, or what `core.inputs.as_array` refuses.

    Example:
        >>> supported([1.0, 2.0], lambda x: x > 0, called="f(x)", expected="positive numbers", fix="").tolist()
        [1.0, 2.0]
    """
    advice = "" if missing is None else unseen(called)
    x = as_array(x, name="x", called=called, allow_nan=bool(missing), missing=advice)
    if concrete(x):
        host = np.asarray(x)
        bad = ~(inside(host) | (bool(missing) & (host != host)))
        if bad.any():
            raise DataError(
                "x has values outside the support", called=called, expected=expected,
                got=f"{bad.sum()} of {bad.size} outside, such as {host[bad][0]}", fix=fix,
            )  # fmt: skip
    return jnp.asarray(x)


def whole(x: Any, below: int | None = None) -> Any:
    """Return where x, of numpy or jax, is a whole number from 0, and less than `below` where that is given.

    Example:
        >>> whole(np.array([0.0, 1.5, 2.0, -1.0, np.nan])).tolist()
        [True, False, True, False, False]
        >>> whole(np.array([1, 2], np.int8), 200).tolist()
        [True, True]
    """
    # a bare number would take the type of x, and 200 is -56 in int8
    limit = np.float32(np.inf) if below is None else np.uint32(below)
    return (x >= 0) & (x < limit) & (x == (jnp if isinstance(x, jax.Array) else np).floor(x))


def clean(x: jax.Array, inside: Callable[[Any], Any], instead: float, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Return entries in a dtype, with another value in place of those outside a support, and which are inside.

    Example:
        >>> clean(jnp.array([2, -1]), lambda x: x >= 0, 1.0, jnp.float32)[0].tolist()
        [2.0, 1.0]
    """
    kept = inside(x)
    return jnp.where(kept, x, jnp.asarray(instead, x.dtype)).astype(dtype), kept


def scored(value: jax.Array, inside: jax.Array, x: jax.Array, missing: bool) -> jax.Array:
    """Return log-densities of entries: `value` inside the support, -inf outside; of NaN NaN, or 0 where `missing`.

    Example:
        >>> x = jnp.array([1.0, -1.0, jnp.nan])
        >>> scored(jnp.zeros(3), x > 0, x, True).tolist()
        [0.0, -inf, 0.0]
    """
    # integers may be compared with themselves too
    rest = jnp.where(x != x, 0.0 if missing else jnp.nan, -jnp.inf).astype(value.dtype)
    return jnp.where(inside, value, rest)


def cumulated(x: jax.Array, inside: jax.Array, share: jax.Array) -> jax.Array:
    """Return probabilities of no more than x: `share` inside an interval around zero or above it, 0 below and 1 above.

    Example:
        >>> x = jnp.array([-1.0, 2.0, jnp.inf, jnp.nan])
        >>> cumulated(x, (x > 0) & (x < jnp.inf), jnp.full(4, 0.5)).tolist()
        [0.0, 0.5, 1.0, nan]
    """
    outside = jnp.where(x != x, jnp.nan, jnp.where(x > 0, 1.0, 0.0)).astype(share.dtype)
    return jnp.where(inside, share, outside)


def of_counts(x: jax.Array, dtype: Any, share: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Return probabilities of no more than x, which may be any number, from `share(k)` of whole ones k from 0.

    Example:
        >>> of_counts(jnp.array([-0.5, 1.5]), jnp.float32, lambda k: k / 4).tolist()
        [0.0, 0.25]
    """
    inside = (x >= 0) & (x < jnp.inf)
    return cumulated(x, inside, share(jnp.floor(jnp.where(inside, x, 0).astype(dtype))))


def smallest(dtype: Any) -> float:
    """Return the smallest normal number of a dtype: where a probability stops that training drives to zero.

    Parameters, its logarithms, stay finite then, and the likelihood is that of the exact maximum to the last digit; a
    prior is the way to say more about what was never seen.

    Example:
        >>> smallest(jnp.float32)
        1.1754943508222875e-38
    """
    return float(jnp.finfo(dtype).tiny)


def times_log(power: jax.Array, log: jax.Array) -> jax.Array:
    """Return `power log`, as in the log-density of a prior: 0 where the power is, and where -inf stands for a label
    that cannot be.

    Example:
        >>> times_log(jnp.array([2.0, 0.0, 2.0]), jnp.array([-1.0, -1.0, -jnp.inf])).tolist()
        [-2.0, 0.0, 0.0]
    """
    live = (power != 0) & (log > -jnp.inf)
    return jnp.where(live, power * jnp.where(live, log, 0), 0)


def float_dtype(x: jax.Array) -> Any:
    """Return the dtype of a model of such data: their own where they are floats, else the default one.

    Example:
        >>> float_dtype(jnp.arange(3))
        dtype('float32')
    """
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)


def positive(value: Any, *, name: str, called: str) -> jax.Array:
    """Return parameters as floats, or refuse them unless all are positive.

    Raises:
        ModelError: values that are not positive.

    Example:
        >>> positive([1, 2], name="mean", called="f(mean)").dtype
        dtype('float32')
    """
    value = floating(value, name=name)
    if concrete(value) and not (value > 0).all():
        raise ModelError(
            f"{name} must be positive", called=called, expected="above 0", got=f"smallest {value.min()}",
            fix="leave others out; the constructor takes logarithms",
        )  # fmt: skip
    return value


def broadcast(value: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array | None:
    """Return an option, such as a floor or a prior, broadcast to the shape of the parameters; None stays.

    Example:
        >>> broadcast(0.5, (2,), jnp.float32).tolist(), broadcast(None, (2,), jnp.float32)
        ([0.5, 0.5], None)
    """
    return None if value is None else jnp.broadcast_to(jnp.asarray(value, dtype), shape)


def sums(weight: jax.Array, *parts: jax.Array) -> tuple[jax.Array, ...]:
    """Return weighted sums over events, `sum_n w_n part_n`, of each part `[N, *event]` in its dtype.

    Example:
        >>> [part.tolist() for part in sums(jnp.array([1.0, 2.0]), jnp.ones((2, 1)), jnp.array([[3.0], [4.0]]))]
        [[3.0], [11.0]]
    """
    return tuple(jnp.tensordot(weight.astype(part.dtype), part, axes=1, precision="highest") for part in parts)


def filled(x: jax.Array, mean: jax.Array) -> jax.Array:
    """Return events with what is missing (NaN) at its mean: of independent entries, the others say nothing of it.

    Example:
        >>> filled(jnp.array([1.0, jnp.nan]), jnp.array([5.0, 7.0])).tolist()
        [1.0, 7.0]
    """
    return jnp.where(jnp.isnan(x), mean, x)


def one_step(start: Any, x: jax.Array) -> Any:
    """Return the M-step of a model on events that all have weight one: where its EM is exact, its maximum likelihood.

    Example:
        >>> import jaxgen as jg
        >>> one_step(jg.Poisson.from_values([1.0]), jnp.array([[2.0], [4.0]])).rate.round(4).tolist()
        [3.0]
    """
    return start.m_step(start.e_step(x, jnp.ones(len(x), float_dtype(x)))[0])


def flagged(context: jax.Array) -> jax.Array:
    """The flat context of one event, which may be absent (NaN), as a network sees it, `[*context] -> [C + 1]`.

    Zeros in place of one that is absent; the last number is 1 where there is one, else 0.

    Example:
        >>> flagged(jnp.array([2.0, 3.0])).tolist(), flagged(jnp.array([jnp.nan, jnp.nan])).tolist()
        ([2.0, 3.0, 1.0], [0.0, 0.0, 0.0])
    """
    flat = jnp.ravel(context)
    there = ~jnp.isnan(flat).any()
    return jnp.append(jnp.where(there, flat, 0), there.astype(flat.dtype))


def above_zero(like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The ends of the positive numbers, 0 and infinity, both of the shape and dtype of `like`.

    Example:
        >>> [end.tolist() for end in above_zero(jnp.ones(2))]
        [[0.0, 0.0], [inf, inf]]
    """
    return jnp.zeros_like(like), jnp.full_like(like, jnp.inf)
