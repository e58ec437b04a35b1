"""The loop of steps, pure: what a step hands on, its guard, and the one loop of `fit`, `scan_fit` and `select`."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled_once
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.mesh import local_rows, spread, together
from jaxgen.core.pytree import registered
from jaxgen.core.rare import rare_paths_left_out, without_rare_paths

#: streams of random keys apart from those of the steps, which are `fold_in(key, step + 1)`
SHUFFLES, VALIDATIONS, STARTS = 2**31 - 1, 2**31 - 2, 2**31 - 3


class Status(enum.IntEnum):
    """The status of a fit: under way, or the reason it ended. Every member carries its message.

    Example:
        >>> Status(2).name, Status.CONVERGED.message
        ('CONVERGED', 'the monitored metric changed by less than the tolerance')
        >>> print(Status.FINISHED)
        FINISHED: all steps were made
    """

    message: str

    def __new__(cls, value: int, message: str = "") -> Status:
        member = int.__new__(cls, value)
        member._value_ = value
        member.message = message
        return member

    def __repr__(self) -> str:
        return f"{self.name}: {self.message}"

    __str__ = __repr__

    RUNNING = 0, "the fit is under way"
    FINISHED = 1, "all steps were made"
    CONVERGED = 2, "the monitored metric changed by less than the tolerance"
    PATIENCE = 3, "the validation score stopped improving"
    EXHAUSTED = 4, "the iterator of batches ended"
    INTERRUPTED = 5, "interrupted from the keyboard; the model is that of the last finished chunk of steps"
    NON_FINITE = 6, "a metric or a parameter was not finite; the model is that before the failing step"
    STOPPED = 7, "a watcher ended the fit"
    DIVERGED = 8, "the algorithm found that its numbers leave all bounds; the model is that after the last step"


class Carry(NamedTuple):
    """The values that one step of a fit hands to the next.

    Args:
        step: steps made, int32.
        state: the algorithm's state.
        order: the events' order in this epoch, `[N]` int32, or None without minibatches.
        status: a `Status`, int32.
        metrics: of the last good step.
        rare: whether a step has needed a rare path (`core.rare`), bool: a program without them makes no more steps.
    """

    step: jax.Array
    state: Any
    order: Any
    status: jax.Array
    metrics: dict[str, jax.Array]
    rare: jax.Array


def strong(tree: Any) -> Any:
    """Every leaf as an array of its own dtype: no weak types, which would make a loop compile twice."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf)), tree)


def _finite(model: Any, metrics: dict[str, jax.Array]) -> jax.Array:
    # minus infinity is a fair parameter (the logarithm of a transition that cannot be), NaN and infinity are not
    leaves = [jnp.all(leaf < jnp.inf) for leaf in jax.tree.leaves(model) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([*leaves, *(jnp.all(jnp.isfinite(m)) for m in metrics.values())]))


def guarded_step(
    move: Callable[..., Any], monitor: str, key: Any, step: Any, state: Any, status: Any, metrics: Any, batch: Any,
    tolerance: Any,
) -> tuple[Any, jax.Array, dict[str, jax.Array]]:  # fmt: skip
    """One step of one fit, by `move(key, state, batch)`.

    A step that is not finite, and every step after the end, leaves the state as it was. One whose metrics have a
    `diverged` that is true is the last.

    The metrics of a step that is not finite, and of those after it, are NaN: what was not measured is no number.
    """
    new_state, new_metrics = move(jax.random.fold_in(key, step + 1), state, batch)
    running = status == Status.RUNNING
    good = _finite(new_state.model, new_metrics)
    watched = new_metrics[monitor]
    change = jnp.abs(watched - metrics[monitor])
    # a last digit that goes to and fro is no change; a tolerance of zero asks for all steps
    rounding = jnp.where(tolerance > 0, 2 * jnp.finfo(watched.dtype).eps * jnp.abs(watched), 0)
    outcome = jnp.where((change < tolerance) | (change < rounding), Status.CONVERGED, Status.RUNNING)
    outcome = jnp.where(new_metrics.get("diverged", False), Status.DIVERGED, outcome)
    outcome = jnp.where(good, outcome, Status.NON_FINITE).astype(jnp.int32)

    def keep(new: jax.Array, old: jax.Array) -> jax.Array:
        chosen = jnp.where(running & good, new, old)
        # 64-bit data do not turn a 32-bit model into another
        return chosen if chosen.dtype == old.dtype else chosen.astype(old.dtype)

    def record(new: jax.Array, old: jax.Array) -> jax.Array:
        kept = keep(new, old)
        return jnp.where(running & ~good, jnp.nan, kept) if jnp.issubdtype(old.dtype, jnp.inexact) else kept

    return (
        jax.tree.map(keep, new_state, state),
        jnp.where(running, outcome, status),
        jax.tree.map(record, new_metrics, metrics),
    )


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _step(algorithm: Any, key: Any, state: Any, batch: Batch) -> Any:
    """A step, traced once for its shapes: the start of a fit asks what it reports, the loop makes it."""
    return algorithm.step(key, state, batch)


def next_batch(
    key: Any, step: Any, order: Any, data: Batch, batch_size: int | None, pieces: bool = True
) -> tuple[Batch, Any]:
    """The batch of a step: all events, or the next ones of this epoch's random order (a short rest is left out)."""
    if batch_size is None:
        return data, order
    n = order.shape[0]
    per_epoch = n // batch_size
    epoch, place = step // per_epoch, step % per_epoch
    shuffle = jax.random.fold_in(jax.random.fold_in(key, SHUFFLES), epoch)
    order = jax.lax.cond(place == 0, lambda: jax.random.permutation(shuffle, n).astype(jnp.int32), lambda: order)
    order = together(order)
    rows = spread(jax.lax.dynamic_slice_in_dim(order, place * batch_size, batch_size))
    # where every device has all data, each takes its own rows
    return spread(jax.tree.map(lambda a: jnp.asarray(a)[rows], data) if pieces else local_rows(data, rows)), order


@registered
@dataclass(frozen=True)
class Loop:
    """The settings that all steps of a fit share.

    Args:
        algorithm: whose steps they are.
        lanes: how many fits run side by side, their states along a leading axis; None for one without that axis.
        key: of all steps.
        tolerance: change of the monitored metric below which a fit has converged.
    """

    algorithm: Any = field(metadata={"static": True})
    lanes: int | None = field(metadata={"static": True})
    key: jax.Array
    tolerance: Any = 0.0

    def __post_init__(self) -> None:
        # structures of trees are compared, not hashed: what the algorithm means is settled now, not when a later one
        # is compared with it and the globals of a loss are others
        hash(self.algorithm)

    def start(self, model: Any, batch: Batch, batch_size: int | None) -> Carry:
        """The carry before the first step. The order of events is drawn by the first step of each epoch."""
        algorithm, monitor = self.algorithm, self.algorithm.traits.monitor
        sample = jax.tree.map(lambda a: a[:batch_size], batch) if batch_size else batch

        def one(key: Any, model: Any) -> Carry:
            state = strong(algorithm.init(jax.random.fold_in(key, 0), strong(model)))
            # without the rare paths, which the first program of steps has not: it finds this trace again
            with without_rare_paths():
                shapes = jax.eval_shape(functools.partial(_step, algorithm), key, state, sample)[1]
            if monitor not in shapes:
                raise FitError("the algorithm does not report what it monitors", expected=monitor, got=str([*shapes]))
            metrics = {name: jnp.full(s.shape, jnp.inf if jnp.issubdtype(s.dtype, jnp.floating) else 0, s.dtype)
                       for name, s in shapes.items()}  # fmt: skip
            order = jnp.arange(batch.events, dtype=jnp.int32) if batch_size else None
            none, usual = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
            return Carry(none, state, order, none, metrics, usual)

        if self.lanes is None:
            return together(one(self.key, model))
        axes = Carry(None, 0, None, 0, 0, None)  # type: ignore[arg-type]
        return together(jax.vmap(one, out_axes=axes)(jax.random.split(self.key, self.lanes), model))

    def advance(self, carry: Carry, seen: Any, order: Any, by_sums: bool = False) -> Carry:
        """One step of every lane, after which the events have this order.

        Args:
            carry: before the step.
            seen: the batch, the same for all lanes; or each lane's own sums over all events.
            order: of the events.
            by_sums: whether it is sums, of an algorithm that is `Summed`.
        """
        algorithm = self.algorithm
        by_step = functools.partial(_step, algorithm)
        move = (lambda key, state, sums: algorithm.advance(key, state, *sums)) if by_sums else by_step
        step, keys = functools.partial(guarded_step, move, algorithm.traits.monitor), self.key
        if self.lanes is not None:
            keys = jax.random.split(keys, self.lanes)
            step = jax.vmap(step, (0, None, 0, 0, 0, 0 if by_sums else None, None))
        moved = step(keys, carry.step, carry.state, carry.status, carry.metrics, seen, self.tolerance)
        new = Carry(carry.step + 1, moved[0], order, *moved[1:], carry.rare)
        if not rare_paths_left_out():
            return new
        # all lanes make the step that failed again, by the program that has rare paths
        rare = jnp.any(new.status == Status.NON_FINITE)
        return jax.tree.map(lambda new, old: jnp.where(rare, old, new), new, carry)._replace(rare=rare)

    def steps(
        self, carry: Carry, take: Callable[[Any, Any], tuple[Any, Any]], length: int, limit: Any = None
    ) -> tuple[Carry, dict[str, jax.Array]]:
        """Steps until the end of the fit: the one loop of steps of the library.

        Args:
            carry: before the first of them.
            take: `(step, order) -> (batch, order)`, what a step sees.
            length: how many at most, and the length of the history.
            limit: the number of all steps to end at, traced, so that one program serves every number: a loop that ends
                early. Metrics of steps that were made then come first in the history. None repeats the last metrics
                after the end, in a scan that can be differentiated.

        Returns:
            the carry, and the metrics `[length]` (`[length, lanes]`) of the steps; of a length of 0 there are none, and
            the limit alone ends the loop.
        """

        def advance(carry: Carry) -> Carry:
            return self.advance(carry, *take(carry.step, carry.order))

        def running(carry: Carry) -> jax.Array:
            going = jnp.any(carry.status == Status.RUNNING)
            return going & ~carry.rare if rare_paths_left_out() else going

        if limit is None:

            def record(carry: Carry, _: None) -> tuple[Carry, dict[str, jax.Array]]:
                carry = jax.lax.cond(running(carry), advance, lambda same: same, carry)
                return carry, carry.metrics

            return jax.lax.scan(record, carry, None, length=length)

        def body(state: tuple[Carry, Any, Any]) -> tuple[Carry, Any, Any]:
            carry, history, i = state
            carry = advance(carry)
            return carry, {name: rows.at[i].set(carry.metrics[name]) for name, rows in history.items()}, i + 1

        def go_on(state: tuple[Carry, Any, Any]) -> jax.Array:
            carry, history, i = state
            return ((i < length) if history else True) & (carry.step < limit) & running(carry)

        metrics = carry.metrics if length else {}
        history = {name: jnp.zeros((length, *m.shape), m.dtype) for name, m in metrics.items()}
        carry, history, _ = jax.lax.while_loop(go_on, body, (carry, history, jnp.zeros((), jnp.int32)))
        return together((carry, history))


#: `Loop.start(loop, model, batch, batch_size)`, compiled
begin = compiled_once(static_argnames=("batch_size",))(Loop.start)


@functools.partial(jax.jit, static_argnames=("batch_size", "length", "pieces"))
def advance_chunk(
    batch_size: int | None, length: int, pieces: bool, loop: Loop, carry: Carry, batch: Batch, limit: Any
) -> tuple[Carry, dict[str, jax.Array]]:
    """Steps until `limit`, the end of the buffer or the end of the fit; the metrics of the steps made come first."""
    if batch_size is None:
        return loop.steps(carry, lambda step, order: (batch, order), length, limit)
    take = functools.partial(next_batch, loop.key, data=batch, batch_size=batch_size, pieces=pieces)
    return loop.steps(carry, take, length, limit)
