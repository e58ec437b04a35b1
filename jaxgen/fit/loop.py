"""The pure core of fitting: one step with its guard, and `scan_fit`, which is `jit`- and `vmap`-able."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import latent
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch, as_batch, widened
from jaxgen.core.methods import context_shape
from jaxgen.core.protocols import Algorithm, Prepared, Traits
from jaxgen.core.pytree import float_type
from jaxgen.fit.em import EM

#: streams of random keys apart from those of the steps, which are `fold_in(key, step + 1)`
SHUFFLES, VALIDATIONS, STARTS = 2**31 - 1, 2**31 - 2, 2**31 - 3


class Status(enum.IntEnum):
    """How a fit stands or why it ended; every member carries its message.

    Example:
        >>> Status(2).name, Status.CONVERGED.message
        ('CONVERGED', 'the monitored metric changed by less than the tolerance')
    """

    message: str

    def __new__(cls, value: int, message: str = "") -> Status:
        member = int.__new__(cls, value)
        member._value_ = value
        member.message = message
        return member

    RUNNING = 0, "the fit is under way"
    FINISHED = 1, "all steps were made"
    CONVERGED = 2, "the monitored metric changed by less than the tolerance"
    PATIENCE = 3, "the validation score stopped improving"
    EXHAUSTED = 4, "the iterator of batches ended"
    INTERRUPTED = 5, "interrupted from the keyboard; the model is that of the last finished chunk of steps"
    NON_FINITE = 6, (
        "a metric or a parameter was not finite; the model is that before the failing step"
    )


class Carry(NamedTuple):
    """What one step hands to the next.

    Args:
        step: steps made, int32.
        state: the algorithm's state.
        order: the events' order in this epoch, `[N]` int32, or None without minibatches.
        status: a `Status`, int32.
        metrics: of the last good step.
    """

    step: jax.Array
    state: Any
    order: Any
    status: jax.Array
    metrics: dict[str, jax.Array]


class ScanFit(NamedTuple):
    """The result of `scan_fit`, a pytree.

    Args:
        model: the fitted model.
        state: the algorithm's last state.
        history: metrics, `[steps]` each; after an early end the last value repeats.
        status: a `Status`, int32: `Status(int(status)).message`.
        steps: steps made.
    """

    model: Any
    state: Any
    history: dict[str, jax.Array]
    status: jax.Array
    steps: jax.Array


def strong(tree: Any) -> Any:
    """Every leaf as an array of its own dtype: no weak types, which would make a loop compile twice."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf)), tree)


def _finite(model: Any, metrics: dict[str, jax.Array]) -> jax.Array:
    # minus infinity is a fair parameter (the logarithm of a transition that cannot be), NaN and infinity are not
    leaves = [jnp.all(leaf < jnp.inf) for leaf in jax.tree.leaves(model) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([*leaves, *(jnp.all(jnp.isfinite(m)) for m in metrics.values())]))


def start(algorithm: Any, key: Any, model: Any, batch: Batch, batch_size: int | None) -> Carry:
    """The carry before the first step. The order of events is drawn by the first step of each epoch."""
    state = strong(algorithm.init(jax.random.fold_in(key, 0), strong(model)))
    sample = jax.tree.map(lambda a: a[:batch_size], batch) if batch_size else batch
    shapes = jax.eval_shape(lambda k, s, b: algorithm.step(k, s, b)[1], key, state, sample)
    monitor = algorithm.traits.monitor
    if monitor not in shapes:
        raise FitError("the algorithm does not report what it monitors", expected=monitor, got=str([*shapes]))
    metrics = {name: jnp.full(s.shape, jnp.inf if jnp.issubdtype(s.dtype, jnp.floating) else 0, s.dtype)
               for name, s in shapes.items()}  # fmt: skip
    order = jnp.arange(batch.events, dtype=jnp.int32) if batch_size else None
    return Carry(jnp.zeros((), jnp.int32), state, order, jnp.zeros((), jnp.int32), metrics)


def guarded_step(
    algorithm: Any, key: Any, step: Any, state: Any, status: Any, metrics: Any, batch: Batch, tolerance: Any
) -> tuple[Any, jax.Array, dict[str, jax.Array]]:
    """One step of one fit. A step that is not finite, and every step after the end, leaves the state as it was.

    The metrics of a step that is not finite, and of those after it, are NaN: what was not measured is no number.
    """
    new_state, new_metrics = algorithm.step(jax.random.fold_in(key, step + 1), state, batch)
    running = status == Status.RUNNING
    good = _finite(new_state.model, new_metrics)
    monitor = algorithm.traits.monitor
    watched = new_metrics[monitor]
    change = jnp.abs(watched - metrics[monitor])
    # a last digit that goes to and fro is no change; a tolerance of zero asks for all steps
    rounding = jnp.where(tolerance > 0, 2 * jnp.finfo(watched.dtype).eps * jnp.abs(watched), 0)
    outcome = jnp.where((change < tolerance) | (change < rounding), Status.CONVERGED, Status.RUNNING)
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


def next_batch(key: Any, step: Any, order: Any, data: Batch, batch_size: int | None) -> tuple[Batch, Any]:
    """The batch of a step: all events, or the next ones of this epoch's random order (a short rest is left out)."""
    if batch_size is None:
        return data, order
    n = order.shape[0]
    per_epoch = n // batch_size
    epoch, place = step // per_epoch, step % per_epoch
    shuffle = jax.random.fold_in(jax.random.fold_in(key, SHUFFLES), epoch)
    order = jax.lax.cond(place == 0, lambda: jax.random.permutation(shuffle, n).astype(jnp.int32), lambda: order)
    rows = jax.lax.dynamic_slice_in_dim(order, place * batch_size, batch_size)
    return jax.tree.map(lambda a: jnp.asarray(a)[rows], data), order


def check_counts(called: str, counts: dict[str, Any]) -> None:
    """Refuses options that are no positive integers; None passes."""
    for name, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
            raise FitError(
                f"{name} must be a positive int", called=called, expected=f"{name} of 1 or more", got=repr(value)[:80]
            )


def check_algorithm(algorithm: Any, called: str) -> None:
    """Refuses what is no `Algorithm`."""
    known = isinstance(algorithm, Algorithm) and isinstance(algorithm.traits, Traits)  # of a class it is a property
    if isinstance(algorithm, type) or not known:
        raise FitError(
            "that is no algorithm", called=called, expected="an instance with init, step and traits",
            got=repr(algorithm)[:80], fix="jaxgen.EM(), or jaxgen.Gradient(jaxgen.losses.nll, optax.adam(1e-3))",
        )  # fmt: skip


def no_data(algorithm: Any, model: Any, called: str) -> Any:
    """What stands for the data of an algorithm that looks at none: one event of zeros.

    Raises:
        FitError: an algorithm that needs data.
    """
    shape = getattr(model, "event_shape", (None,))
    if algorithm.traits.data or None in shape or context_shape(model) is not None:
        raise FitError(
            "there are no data", called=called, expected="data, or a loss that needs none and a model without context",
            got=f"None, {str(algorithm)[:80]}", fix="jaxgen.Gradient(jaxgen.losses.reverse_kl(log_density))",
        )  # fmt: skip
    return jnp.zeros((1, *shape), float_type(model))


def prepare(algorithm: Any, model: Any, batch: Batch, batch_size: int | None) -> Batch:
    """All events in the form that the algorithm's steps like best, where it has one and sees all of them in a step."""
    whole = batch_size is None and isinstance(algorithm, Prepared)
    return algorithm.prepare(model, batch) if whole else batch


def check_label(algorithm: Any, model: Any, batch: Batch, called: str) -> None:
    """Refuses labels that nobody would look at, or that the model has no class for."""
    if batch.label is None:
        return
    if not (algorithm.traits.labels and latent.accepts_label(model)):
        raise FitError(
            "labels would not be looked at", called=called, expected="EM on a mixture, or data without label",
            got=f"{type(algorithm).__name__} on {type(model).__name__}",
            fix="leave the label out, or fit a mixture by EM",
        )  # fmt: skip
    model.check_label(batch.label)


def check_batch_size(algorithm: Any, batch_size: int | None, n: int) -> None:
    """Refuses a batch size that the algorithm or the data cannot serve."""
    if batch_size is None:
        return
    if algorithm.traits.full_batch:
        raise FitError(
            f"{type(algorithm).__name__} needs all events in every step", called=f"fit(..., batch_size={batch_size})",
            expected="batch_size=None", got=str(batch_size), fix="leave batch_size out, or use jaxgen.Gradient",
        )  # fmt: skip
    if not 1 <= batch_size <= n:
        raise FitError(
            "the batch size does not fit the data", called=f"fit(..., batch_size={batch_size})",
            expected=f"1 to {n}, the number of events", got=str(batch_size),
        )  # fmt: skip


def scan_fit(
    key: Any,
    model: Any,
    data: Any,
    algorithm: Any = None,
    *,
    steps: int,
    batch_size: int | None = None,
    tolerance: float = 0.0,
) -> ScanFit:
    """Fits a model in one `lax.scan`: a pure function, to be jitted, vmapped over keys or models, or differentiated.

    Args:
        key: typed key.
        model: the start.
        data: an array `[N, *event]`, a tuple `(x, context, weight)` or a dict of them; None for a loss of no data.
        algorithm: for example `EM()`, which is the default.
        steps: how many steps, static.
        batch_size: events per step, in a new random order every epoch; None takes all.
        tolerance: the fit is over when the monitored metric changes by less, in nats per event.

    Returns:
        `ScanFit`. A step that is not finite ends the fit with `Status.NON_FINITE` and the last good model.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> def restart(key):
        ...     start = jg.Mixture.init(key, x, 2, jg.Gaussian.init)
        ...     return jg.scan_fit(key, start, x, jg.EM(), steps=10)
        >>> jax.vmap(restart)(jax.random.split(jax.random.key(0), 3)).history["log_likelihood"].shape
        (3, 10)
    """
    check_counts("scan_fit(...)", {"steps": steps, "batch_size": batch_size})
    algorithm = EM() if algorithm is None else algorithm
    check_algorithm(algorithm, "scan_fit(key, model, data, algorithm)")
    data = no_data(algorithm, model, "scan_fit(key, model, None)") if data is None else data
    model = widened(model)
    batch = as_batch(data, called="scan_fit(key, model, data)", missing=latent.accepts_missing(model),
                     unseen=latent.unseen(model))  # fmt: skip
    batch = jax.tree.map(jnp.asarray, batch)
    check_batch_size(algorithm, batch_size, batch.events)
    check_label(algorithm, model, batch, "scan_fit(key, model, data)")
    batch = prepare(algorithm, model, batch, batch_size)

    def advance(carry: Carry) -> Carry:
        rows, order = next_batch(key, carry.step, carry.order, batch, batch_size)
        state, status, metrics = guarded_step(
            algorithm, key, carry.step, carry.state, carry.status, carry.metrics, rows, tolerance
        )
        return Carry(carry.step + 1, state, order, status, metrics)

    def body(carry: Carry, _: None) -> tuple[Carry, dict[str, jax.Array]]:
        carry = jax.lax.cond(carry.status == Status.RUNNING, advance, lambda c: c, carry)
        return carry, carry.metrics

    carry = start(algorithm, key, model, batch, batch_size)
    carry, history = jax.lax.scan(body, carry, None, length=steps)
    status = jnp.where(carry.status == Status.RUNNING, Status.FINISHED, carry.status)
    return ScanFit(carry.state.model, carry.state, history, status, carry.step)
