"""Roots of increasing functions and fixed points of contractions, differentiated by the implicit function theorem.

No derivative passes through an iteration: at a solution of `f(x, theta) = 0` it is `dx = -(df/dx)^-1 df/dtheta`. What
was not found is NaN, never the last guess.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxgen.core.compiled import compiled_by_trace

__all__ = ["bisect", "fixed_point", "reach"]

#: how often the first step of a search may double; 2^64 units away there is nothing to find
DOUBLINGS = 64
#: an iteration has arrived where its change is no more than this many roundings of the numbers themselves
ROUNDINGS = 16


@compiled_by_trace
def bisect(function: Callable[[Any], Any], y: Any, *, guess: Any = None, width: Any = 1.0) -> jax.Array:
    """Return the points at which an increasing function takes given values, element by element.

    `x` with `function(x) = y`. From `guess` the search steps outwards, each step twice the one before, until the root
    is between two points, then it halves that interval: one call of `function` a step, in a program with one copy.

    Args:
        function: `x -> f(x)`, of the shape of `y`, element by element, not decreasing. It may close over traced arrays.
        y: `[...]`, floating.
        guess: `[...]` or one number, where the search begins; None is `y`.
        width: `[...]` or one number, positive: the first step, about the distance of root and guess.

    Returns:
        `[...]`, of the dtype of `y`: between two points with values on both sides of `y`, no further apart than
        `eps max(width, |x|)`, eps the rounding of the dtype (1.2e-7 for float32). So it is exact but for the rounding
        of `function`, which a slope f' magnifies by `1 / f'`. NaN where there is no root within 2^64 widths, or
        `function` gave NaN. Derivatives of every order, forward and reverse, for all that `function` closes over.

    Example:
        >>> bisect(lambda x: x + jnp.exp(x), jnp.array([1 + jnp.e, 2 + jnp.e**2])).round(5).tolist()
        [1.0, 2.0]
        >>> round(float(jax.grad(lambda y: bisect(lambda x: x**3, y))(8.0)), 5)  # 1 / (3 x^2)
        0.08333

    Source: Press et al. (2007), Numerical Recipes, sections 9.1 (bracketing) and 9.1.1 (bisection).
    """
    y = jnp.asarray(y)
    dtype, eps = y.dtype, jnp.finfo(y.dtype).eps
    guess, width = (jnp.broadcast_to(jnp.asarray(a, dtype), y.shape) for a in (y if guess is None else guess, width))
    # search only: the root does not depend on where the search began
    guess, width = lax.stop_gradient((guess, width))

    def solve(difference, start):
        def bracketed(low, high):
            return jnp.isfinite(low) & jnp.isfinite(high)

        def active(state):
            low, high, _, step, sound, _ = state
            near = high - low <= eps * jnp.maximum(width, jnp.maximum(jnp.abs(low), jnp.abs(high)))
            return sound & jnp.where(bracketed(low, high), ~near, step <= width * 2.0**DOUBLINGS)

        def probe(state):
            low, high, point, step, sound, count = state
            value = difference(point)
            below = value < 0
            low_now, high_now = jnp.where(below, point, low), jnp.where(below, high, point)
            between = bracketed(low_now, high_now)
            middle = jnp.where(between, low_now / 2 + high_now / 2, 0)
            outwards = point + jnp.where(below, step, -step)
            new = (
                low_now, high_now, jnp.where(between, middle, outwards), jnp.where(between, step, 2 * step),
                sound & ~jnp.isnan(value),
            )  # fmt: skip
            searching = active(state)
            return (*(jnp.where(searching, n, o) for n, o in zip(new, state[:5], strict=True)), count + 1)

        infinite = jnp.full(y.shape, jnp.inf, dtype)
        state = (-infinite, infinite, start, width, ~(jnp.isnan(y) | jnp.isnan(start)), jnp.zeros((), jnp.int32))
        limit = 2 * DOUBLINGS + 2 * jnp.finfo(dtype).nmant
        state = lax.while_loop(lambda s: jnp.any(active(s)) & (s[-1] < limit), probe, state)
        low, high, point, _, sound, _ = state
        # the bracket is judged, not the loop's reason to stop
        found = sound & ~active(state) & bracketed(low, high)
        return jnp.where(found, point, jnp.nan)

    def tangent_solve(linear, b):
        # the derivative of a function that works element by element is diagonal
        return b / linear(jnp.ones_like(b))

    return lax.custom_root(lambda x: function(x) - y, guess, solve, tangent_solve)


@compiled_by_trace
def reach(function: Callable[[Any], Any], y: Any, low: Any, high: Any) -> jax.Array:
    """Return the least points at which a function that never falls, and may jump, reaches given values.

    `inf {x: function(x) >= y}`, element by element: a quantile, where the function is a distribution function, of
    numbers of any kind. Of a step it is the very number at which the function steps.

    Args:
        function: `x -> f(x)`, of the shape of `y`, element by element. It may close over traced arrays.
        y: `[...]`, floating.
        low, high: `[...]` or one number, around or near the point; where it lies outside the search goes on, each step
            twice the one before.

    Returns:
        `[...]`, of the dtype of `y`: the upper one of two neighbouring floats; -inf or inf where `y` is reached by all
        or by none of them, NaN where it or the function is NaN. Derivatives, forward and reverse, for all that
        `function` closes over; at a jump they are zero.

    Example:
        >>> reach(jnp.floor, jnp.array([0.5, 3.0]), 0.0, 10.0).tolist()
        [1.0, 3.0]
        >>> round(float(jax.grad(lambda y: reach(lambda x: x**3, y, 0.0, 3.0))(8.0)), 5)  # 1 / (3 x^2)
        0.08333

    Source: Embrechts and Hofert (2013), A note on generalized inverses; Press et al. (2007), section 9.1.1 (bisection).
    """
    y = jnp.asarray(y)
    dtype, kind = y.dtype, jnp.finfo(y.dtype)
    low, high = (lax.stop_gradient(jnp.broadcast_to(jnp.asarray(a, dtype), y.shape)) for a in (low, high))
    # two equal ends are a guess, and the first step a rounding of it
    width = jnp.maximum(high - low, jnp.maximum(kind.eps * jnp.abs(high), kind.tiny))

    def solve(difference, start):
        def open_(state):
            low, high, point, *_, sound, _ = state
            inner = (low < point) & (point < high)
            return sound & jnp.where(jnp.isfinite(low) & jnp.isfinite(high), inner, jnp.isfinite(point))

        def probe(state):
            low, high, point, step, sound, count = state
            value = difference(point)
            reached = value >= 0
            low_now, high_now = jnp.where(reached, low, point), jnp.where(reached, point, high)
            between = jnp.isfinite(low_now) & jnp.isfinite(high_now)
            middle = jnp.where(between, low_now / 2 + high_now / 2, 0)
            outwards = point + jnp.where(reached, -step, step)
            new = low_now, high_now, jnp.where(between, middle, outwards), jnp.where(between, step, 2 * step)
            still = ~jnp.isnan(value)
            return (*(jnp.where(open_(state), n, o) for n, o in zip((*new, still), state[:5], strict=True)), count + 1)

        infinite = jnp.full(y.shape, jnp.inf, dtype)
        sound = ~jnp.isnan(y + start + width)
        state = (-infinite, infinite, start, width, sound, jnp.zeros((), jnp.int32))
        limit = 4 * kind.maxexp  # from a width of one to the largest number, and back to the smallest
        low, high, *_, sound, _ = lax.while_loop(lambda s: jnp.any(open_(s)) & (s[-1] < limit), probe, state)
        found = jnp.where(high < jnp.inf, jnp.where(low > -jnp.inf, high, low), high)
        return jnp.where(sound, found, jnp.nan)

    def tangent_solve(linear, b):
        slope = linear(jnp.ones_like(b))
        return jnp.where(slope > 0, b / jnp.where(slope > 0, slope, 1), 0)

    found = lax.custom_root(lambda x: function(x) - y, high, solve, tangent_solve)
    still = lax.stop_gradient(found)
    jump = lax.stop_gradient(function(still) - y) > kind.eps**0.5
    return jnp.where(jump, still, found)


@compiled_by_trace
def fixed_point(
    function: Callable[[Any], Any], start: Any, *, steps: int = 1000, settle: bool = True
) -> jax.Array:
    """Return the fixed point of a contraction.

    `x = function(x)`, by iteration until nothing changes.

    Args:
        function: `x -> f(x)`, both `[...]`, with a Lipschitz constant L below one in some norm. It may close over
            traced arrays.
        start: `[...]`, floating; its value does not matter, its distance costs time.
        steps: at most so many calls; `log(1e-7) / log L` are enough for float32, 153 for L = 0.9.
        settle: go on, once a step changes no more than that, while the next one changes less; False for a caller who
            takes one more step anyway.

    Returns:
        `[...]`: the point at which a further step changes by no more than 16 roundings, so that it is as exact as
        `function` divided by `1 - L`. NaN in all of it where that was not reached. Derivatives of every order for all
        that `function` closes over, from a second iteration, the Neumann series.

    Example:
        >>> round(float(fixed_point(jnp.cos, jnp.float32(1.0))), 6)
        0.739085
        >>> round(float(jax.grad(lambda a: fixed_point(lambda x: a * jnp.cos(x), a))(1.0)), 5)
        0.44161

    Source: Banach's fixed point theorem; Bai, Kolter and Koltun (2019), Deep equilibrium models, theorem 1, for the
    derivative.
    """
    start = jnp.asarray(start)

    def neumann(linear, b):
        # (I - J)^-1 b = b + J b + J^2 b + ..., the fixed point of v = b + J v
        return _iterate(lambda v: b + (v - linear(v)), b, steps, settle)

    def tangent_solve(linear, b):
        return lax.custom_linear_solve(linear, b, neumann, transpose_solve=neumann)

    def solve(_, x):
        # not by the difference: x - (x - f(x)) would round twice
        return _iterate(function, x, steps, settle)

    return lax.custom_root(lambda x: x - function(x), lax.stop_gradient(start), solve, tangent_solve)


def _iterate(function, start, steps, settle):
    """The fixed point from `start`, or NaN."""
    eps = jnp.finfo(start.dtype).eps

    def size(x):
        return jnp.max(jnp.abs(x), initial=0)

    def step(state):
        x, change, _, count = state
        new = function(x)
        return new, size(new - x), change, count + 1

    def arrived(state):
        x, change, _, _ = state
        return jnp.isfinite(change) & (change <= ROUNDINGS * eps * jnp.maximum(1, size(x)))

    def active(state):
        # once it has arrived it goes on while that still makes the change smaller; NaN ends it
        _, change, last, count = state
        still = jnp.where(arrived(state), settle & (change > 0) & (change < last), ~jnp.isnan(change))
        return still & (count < steps)

    infinite = jnp.full((), jnp.inf, start.dtype)
    state = lax.while_loop(active, step, (start, infinite, infinite, jnp.zeros((), jnp.int32)))
    return jnp.where(arrived(state), state[0], jnp.nan)
