"""Steps over data that come in chunks: sums over a pass, and scores.

The device works on one chunk while the host reads and checks the next; never more than two are on their way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.inputs import Batch
from jaxgen.core.mesh import together
from jaxgen.fit.loop import Carry, Loop
from jaxgen.ops.stable import compensated_add


def cycle(data: Iterable[Batch], skip: int = 0) -> Iterator[Batch]:
    """The chunks of pass after pass, without the first `skip`.

    Example:
        >>> chunks = cycle("abc", skip=7)
        >>> next(chunks), next(chunks), next(chunks)
        ('b', 'c', 'a')
    """
    while True:
        seen = 0
        for seen, item in enumerate(data, 1):  # noqa: B007
            if seen > skip:
                yield item
        skip = max(skip - seen, 0) % seen if seen else 0


def fold_pass(batches: Iterable[Any], work: Callable[[Any, Any], Any], first: Any) -> Any:
    """`work(result, batch)` over a pass, dispatched while the one before may still be at work."""
    result = first
    for batch in batches:
        before, result = result, work(result, batch)
        jax.block_until_ready(before)
    return result


def zero_sums(algorithm: Any, restarts: int | None, model: Any, batch: Batch) -> Any:
    """Sums over no events, in two numbers each: the total and what it lacks."""
    shapes = jax.eval_shape(lambda m: _expect(algorithm, restarts, m, batch), model)
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return zero, zero


def _expect(algorithm: Any, restarts: int | None, model: Any, batch: Batch) -> Any:
    one = functools.partial(algorithm.expect, batch=batch)
    return jax.vmap(one)(model) if restarts else one(model)


@functools.partial(jax.jit, static_argnames=("algorithm", "restarts"))
def add_chunk(algorithm: Any, restarts: int | None, model: Any, sums: Any, batch: Batch) -> Any:
    """The sums with one more chunk."""
    total, error = sums
    return compensated_add(total, error, _expect(algorithm, restarts, model, batch))


@jax.jit
def finish_pass(loop: Loop, carry: Carry, sums: Any) -> tuple[Carry, dict[str, jax.Array]]:
    """One step from the sums over a pass; the metrics have a leading axis of one step."""
    carry = together(loop.advance(carry, sums[0], carry.order, by_sums=True))
    return carry, {name: metric[None] for name, metric in carry.metrics.items()}


def mean_score(score: Callable[[Batch], jax.Array], batches: Iterable[Batch]) -> np.ndarray:
    """The weighted mean over a pass of a mean over a batch, in float64."""
    total, weight, waiting = np.zeros(()), 0.0, None
    for batch in batches:
        mass = float(np.sum(np.asarray(batch.weight, np.float64)))
        before, waiting = waiting, (score(batch), mass)
        if before is not None:
            total, weight = total + np.asarray(before[0], np.float64) * before[1], weight + before[1]
    assert waiting is not None, "a source without events is refused as it is read"
    return (total + np.asarray(waiting[0], np.float64) * waiting[1]) / (weight + waiting[1])
