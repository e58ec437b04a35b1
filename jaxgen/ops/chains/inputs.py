"""Inputs and outputs of chains: checked shapes, one batch axis, sums that padding does not change."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import concrete, widened
from jaxgen.ops.stable import compensated_add, finite_max

#: sums over time are made of this many running sums, however long the sequence; then added up in two stages
LANES = 2048
STAGE = 32


class Filtered(NamedTuple):
    """State probabilities given the data up to each time: the results of `forward_filter`."""

    log_normalizer: Array
    """`[*batch]` log-probability of the data, the sum of `log_evidence`."""
    log_filtered: Array
    """`[*batch, T, K]`, `log p(z[t] | y[..t])`; -inf beyond the length."""
    log_evidence: Array
    """`[*batch, T]`, `log p(y[t] | y[..t-1])`; zero beyond the length."""


class Posterior(NamedTuple):
    """State probabilities given all data: the results of `smoother`. The last two are the gradients of the first."""

    log_normalizer: Array
    """`[*batch]` log-probability of the data."""
    marginals: Array
    """`[*batch, T, K]`, `p(z[t] | y)`; the first row is the posterior of the initial state; zero beyond the length."""
    transition_counts: Array
    """Expected number of uses of each entry of `log_transition`: `[*batch, K, K]` summed over time, or per step,
    `[*batch, T - 1, K, K]`, where the transition changes with time."""


class Chain(NamedTuple):
    """A batch of chains with one batch axis B."""

    log_initial: Array
    """`[K]`."""
    log_transition: Array
    """`[K, K]`, `[T - 1, K, K]` or `[B, T - 1, K, K]`."""
    log_likelihood: Array
    """`[B, T, K]`, zero at steps that were not seen."""
    length: Array | None
    """`[B]` int32, or None where all steps are there."""
    starts: Array | None = None
    """`[B, T]` bool, the steps at which a sequence begins, or None where that is the first one only."""

    @property
    def present(self) -> Array:
        """`[B, T]`, or `[1, T]` where all steps are there: whether a step is within the length."""
        steps = jnp.arange(self.log_likelihood.shape[1])[None]
        return steps < (self.log_likelihood.shape[1] if self.length is None else self.length[:, None])

    @property
    def moves(self) -> Array:
        """`[B, T - 1]`, or `[1, T - 1]`: whether the transition from this step to the next is made."""
        return self.present[:, 1:] if self.starts is None else self.present[:, 1:] & ~self.starts[:, 1:]

    @property
    def leads(self) -> Array:
        """`[B, T]` or `[1, T]`: whether a step is followed by another of its sequence."""
        return jnp.pad(self.moves, ((0, 0), (0, 1)))


def make_chain(
    name: str, log_initial: Any, log_transition: Any, log_likelihood: Any, length: Any = None, observed: Any = None,
    starts: Any = None,
) -> tuple[Chain, tuple[int, ...]]:  # fmt: skip
    """The checked chain, and the batch shape to give back to results."""
    pi, a, b = widened(tuple(map(jnp.asarray, (log_initial, log_transition, log_likelihood))))
    called = f"{name}(log_initial, log_transition, log_likelihood)"
    if b.ndim < 2 or b.shape[-2] == 0 or pi.ndim != 1 or b.shape[-1:] != pi.shape:
        raise ShapeError(
            "log-likelihoods that do not fit the chain", called=called,
            expected="log_likelihood [*batch, T, K] with T >= 1 and the K of log_initial [K]",
            got=f"log_likelihood {b.shape} and log_initial {pi.shape}",
            fix="put time before states, and map over a batch of chains with jax.vmap",
        )  # fmt: skip
    *batch, steps, states = b.shape
    check_transition(called, pi, a, steps, tuple(batch))
    dtype = jnp.result_type(pi, a, b, float)
    b = b.astype(dtype)
    if observed is not None:
        b = jnp.where(_fit(called, "observed", observed, (*batch, steps))[..., None], b, 0)
    if length is not None:
        length = _lengths(called, length, tuple(batch), steps).reshape(-1)
    b = b.reshape(-1, steps, states)
    a = a.astype(dtype)
    chain = Chain(pi.astype(dtype), a.reshape(len(b), *a.shape[-3:]) if a.ndim > 3 else a, b, length)
    if starts is not None:
        chain = chain._replace(starts=_fit(called, "starts", starts, (*batch, steps)).reshape(-1, steps))
    if length is not None:
        chain = chain._replace(log_likelihood=jnp.where(chain.present[..., None], b, 0))
    return chain, tuple(batch)


def unbatch(results: Any, batch: tuple[int, ...]) -> Any:
    """Results `[B, ...]` as `[*batch, ...]`."""
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), results)


def check_transition(called: str, pi: Array, a: Array, steps: int, batch: tuple[int, ...] = ()) -> None:
    """Refuses transitions of the wrong shape."""
    states = pi.shape[-1] if pi.ndim == 1 else None
    fits = [(states, states), (steps - 1, states, states), (*batch, steps - 1, states, states)]
    if states is None or a.shape not in fits:
        raise ShapeError(
            "arrays that make no chain", called=called,
            expected=f"log_initial [K] and log_transition [K, K], or [T - 1, K, K] with T = {steps}",
            got=f"log_initial {pi.shape} and log_transition {a.shape}",
            fix="map over a batch of chains with jax.vmap",
        )  # fmt: skip


def _fit(called: str, name: str, x: Any, shape: tuple[int, ...]) -> Array:
    x = jnp.asarray(x)
    try:
        return jnp.broadcast_to(x, shape)
    except ValueError:
        raise ShapeError(
            f"{name} does not fit the data", called=called, expected=f"shape {list(shape)}",
            got=f"shape {list(x.shape)}", fix=f"one entry of {name} for each",
        ) from None  # fmt: skip


def _lengths(called: str, length: Any, batch: tuple[int, ...], steps: int) -> Array:
    given = np.asarray(length) if concrete(length) else None  # numpy, since inside jit jax would trace it
    length = _fit(called, "length", length, batch)
    if not jnp.issubdtype(length.dtype, jnp.integer):
        raise DataError(
            "lengths are whole numbers", called=called, expected="an integer array", got=str(length.dtype),
            fix="np.asarray(length).astype(int)",
        )  # fmt: skip
    if given is not None and given.size and not (given.min() >= 0 and given.max() <= steps):
        raise DataError(
            "lengths that the data do not have", called=called, expected=f"from 0 to T = {steps}",
            got=f"from {given.min()} to {given.max()}", fix="pad the data to the longest sequence",
        )  # fmt: skip
    return jnp.clip(length, 0, steps).astype(jnp.int32)


def shift_rows(log_likelihood: Array) -> tuple[Array, Array]:
    """Rows with the maximum 0, and what was taken out: large common terms would cost the messages their digits."""
    shift = finite_max(log_likelihood, axis=-1)
    return log_likelihood - shift[..., None], shift


def sum_over_time(x: Array) -> Array:
    """`[B, T] -> [B]`, rounded about once; zeros at the end change no bit.

    Example:
        >>> sum_over_time(jnp.full((1, 1_000_000), 0.125, jnp.float32)).tolist()
        [125000.0]
    """
    steps = -(-x.shape[1] // LANES)
    rows = jnp.pad(x, ((0, 0), (0, steps * LANES - x.shape[1])))
    rows = jnp.moveaxis(rows.reshape(x.shape[0], steps, LANES), 1, 0)

    def add(state: Any, term: Array) -> tuple[Any, None]:
        return compensated_add(state[0], state[1], term), None

    def down(rows: Array) -> Any:
        zeros = jnp.zeros(rows.shape[1:], rows.dtype)
        return lax.scan(add, (zeros, zeros), rows)[0]

    totals, lost = down(rows)
    totals, lost_again = down(jnp.moveaxis(totals.reshape(x.shape[0], STAGE, -1), 1, 0))
    total, carry = down(totals.T)
    return total + (carry + (jnp.sum(lost_again, axis=1) + jnp.sum(lost, axis=1)))


def in_order(chunks: Array) -> Array:
    """`[N, ...] -> [...]`: a sum in order, so that chunks of zeros at the end change no bit."""
    return lax.scan(lambda total, x: (total + x, None), jnp.zeros(chunks.shape[1:], chunks.dtype), chunks)[0]


def chunk_steps(x: Array, size: int) -> Array:
    """`[B, T, ...] -> [N, B, size, ...]`, zeros at the end."""
    count = max(1, math.ceil(x.shape[1] / size))
    fill = [(0, 0, 0), (0, count * size - x.shape[1], 0), *[(0, 0, 0)] * (x.ndim - 2)]
    x = lax.pad(x, jnp.zeros((), x.dtype), fill)
    return jnp.moveaxis(x.reshape(x.shape[0], count, size, *x.shape[2:]), 1, 0)


def matrices(a: Array, reverse: bool) -> tuple[Array | None, Array | None]:
    """The matrix of every step `[K, K]`, rows to columns as it travels, or one per step `[.., T, K, K]`.

    Along the chain step t leads to t + 1, against it to t - 1; the one step too many at the end leads nowhere.
    """
    turned = jnp.swapaxes(a, -1, -2) if reverse else a
    if a.ndim == 2:
        return turned, None
    ends = [(0, 0)] * a.ndim
    ends[-3] = (1, 0) if reverse else (0, 1)
    return None, jnp.pad(turned, ends)
