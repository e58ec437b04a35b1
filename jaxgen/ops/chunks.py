"""Sums over many events in chunks that fit the cache: one compiled body, no padded copy, no digits lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.ops.stable import compensated_add

#: chunks from which on two are summed at a time: fewer do not repay the larger program
FEWEST_FOR_PAIRS = 8


def sum_over_chunks(part: Callable[[Any, Any], Any], n: int, largest: int) -> Any:
    """The sum over n events of what `part` sums over one chunk.

    Args:
        part: `(rows, fresh) -> pytree`, additive over events: `rows(array, axis=0)` cuts the chunk's rows out of an
            array with n of them along an axis; `fresh` is `[size]` bool, False for events that an earlier chunk counted
            already, to be given weight zero.
        n: number of events.
        largest: events in a chunk, at most; chunks are of equal size.

    Returns:
        The pytree, added with compensation: as exact as one sum in twice the precision.

    Example:
        >>> x = jnp.arange(10.0)
        >>> float(sum_over_chunks(lambda rows, fresh: jnp.sum(rows(x) * fresh), 10, 4))
        45.0
    """
    chunks = -(-n // largest)
    # two at a time: what a core does alone in one (exponentials, sums) goes on beside the other's
    pairs = 2 if chunks >= FEWEST_FOR_PAIRS else 1
    chunks = -(-chunks // pairs) * pairs
    size = -(-n // chunks)

    def chunk(start: Any, first: Any) -> Any:
        rows = lambda array, axis=0: jax.lax.dynamic_slice_in_dim(array, start, size, axis)  # noqa: E731
        return part(rows, start + jnp.arange(size) >= first)

    if chunks == 1:
        return chunk(0, 0)
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(lambda: chunk(0, 0)))

    def add(carry: Any, i: Any) -> Any:
        # the last chunk is moved back to end at n: one program serves all
        parts = [chunk(jnp.minimum(j * size, n - size), j * size) for j in (pairs * i + k for k in range(pairs))]
        total, error = carry
        return compensated_add(total, error, jax.tree.map(lambda *terms: sum(terms), *parts)), None

    (total, _), _ = jax.lax.scan(add, (zero, zero), jnp.arange(chunks // pairs))
    return total
