"""Ways to run a recursion along a chain: step by step, in blocks side by side, or as a tree of matrix products.

A recursion is a step `(carry, x[t]) -> (carry, out[t])`. Its carry has the batch as its *last* axis, so that a step on
many sequences, or on many blocks of one, is one matrix product with contiguous rows.

*Blocks* are exact, not approximate. All blocks of a sequence run together, each from a guess of what enters it; what
leaves a block is compared with what was taken to enter the next. Let `gap[n]` be that distance, in the metric of
`Recursion.gap`, under which no step moves two carries apart (for positive matrices Hilbert's projective metric, the
range of `log(x / y)`; for integers equality). The first block enters exactly, so by the triangle inequality the error
at block n is at most `gap[1] + ... + gap[n]`: if the sum over all blocks is below the tolerance, so is the error
everywhere. Chains forget, so that this sum is mostly exactly zero after two passes, and the blocks then hold, bit for
bit, what the sequential recursion would have computed. A chain that forgets too slowly is run again a few times and
then sequentially, inside the same program.

Blocks have a fixed number of steps, start at step 0, and skip steps beyond the length, so padding changes no bit.

Source: Hilbert's metric and contraction: Birkhoff (1957), Extensions of Jentzsch's theorem; Bushell (1973), Hilbert's
metric and positive contraction mappings. Trees: Sarkka & Garcia-Fernandez (2021), Temporal parallelization of Bayesian
smoothers; Hassan, Sarkka & Garcia-Fernandez (2021), Temporal parallelization of inference in hidden Markov models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgen.core.rare import any_lane, rarely_kept

#: memory of a tree of [K, K] matrices, bytes, beyond which `choose` does not grow one
TREE_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class Sequential:
    """One step after the other: least work, and the least compilation.

    Example:
        >>> Sequential() == Sequential()
        True
    """


@dataclasses.dataclass(frozen=True)
class Blocked:
    """Blocks of `size` steps side by side, iterated until they fit together; sequential if they do not.

    Args:
        size: steps in a block. Chains that forget within this many steps take two passes.
        sweeps: further passes to try before the sequential recursion.

    Example:
        >>> Blocked(size=64).sweeps
        3
    """

    size: int = 256
    sweeps: int = 3


@dataclasses.dataclass(frozen=True)
class Associative:
    """A tree of matrix products in log space, log2(T) levels of K^3 work: for devices with many cores."""


Backend = Sequential | Blocked | Associative


class Recursion(NamedTuple):
    """A step along a chain, and what its carries are made of."""

    step: Callable[[Any, Any], tuple[Any, Any]]
    """`(carry, (weight, matrix)) -> (carry, out)`, batch last."""
    start: Any
    """What enters at the first step, the same for the whole batch."""
    guess: Any
    """What is taken to enter the other blocks at first."""
    gap: Callable[[Any, Any], Array]
    """Distance of two carries, one number per entry of the last axis."""
    tolerance: float
    """What the distances of a sequence may add up to."""


class Layout(NamedTuple):
    """The layout of `[B, T, ...]` for a backend, `[S, ..., R]`: S steps one after the other, in R rows at once."""

    batch: int
    steps: int
    size: int | None
    """Steps of a block, None where sequential."""

    @property
    def blocks(self) -> int:
        return 1 if self.size is None else -(-self.steps // self.size)

    @property
    def alone(self) -> bool:
        """One sequential chain has no last axis: the loop is then small enough for XLA's CPU compiler to make it one
        native function."""
        return self.size is None and self.batch == 1

    def cut(self, x: Array) -> Array:
        """`[B, T, ...] -> [S, ..., R]`, blocks beside each other and zeros at the end."""
        if self.alone:
            return x[0]
        size, rest = self.size or self.steps, x.shape[2:]
        fill = self.blocks * size - self.steps
        # from memory, and in two axes: XLA's CPU compiler then transposes two to three times as fast
        x = lax.optimization_barrier(x)
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, fill, 0)] + [(0, 0, 0)] * len(rest))
        return x.reshape(self.batch * self.blocks, -1).T.reshape(size, *rest, -1)

    def join(self, x: Array) -> Array:
        """`[S, ..., R] -> [B, T, ...]`."""
        return self.join_whole(x)[:, : self.steps]

    def join_whole(self, x: Array) -> Array:
        """`join` with the steps that fill the last block."""
        if self.alone:
            return x[None]
        flat = lax.optimization_barrier(x).reshape(-1, x.shape[-1]).T
        return flat.reshape(self.batch, -1, *x.shape[1:-1])

    def at(self, x: Array, time: Array) -> Array:
        """`[S, ..., R] -> [B, ...]` at one time of each sequence, `[B]`."""
        if self.alone:
            return x[time]
        size = self.size or self.steps
        return x[time % size, ..., jnp.arange(self.batch) * self.blocks + time // size]

    def each(self, flags: Array) -> Array:
        """`[S, R] -> [B]`, whether all flags of a sequence are up."""
        if self.alone:
            return jnp.all(flags)[None]
        return jnp.all(jnp.all(flags, axis=0).reshape(self.batch, self.blocks), axis=1)


def layout(backend: Backend, batch: int, steps: int) -> Layout:
    """The layout of a backend. `Associative` has one for what cannot be a tree: blocks."""
    if isinstance(backend, Sequential):
        return Layout(batch, steps, None)
    return Layout(batch, steps, (backend if isinstance(backend, Blocked) else Blocked()).size)


def choose(backend: Backend | None, batch: int, steps: int, states: int) -> Backend:
    """The backend that was asked for; of None, the one that suits the shape and the device.

    Args:
        backend: what was asked for.
        batch: number of sequences.
        steps: T.
        states: K.

    Example:
        >>> choose(None, 1, 100, 3), choose(Sequential(), 1, 100_000, 8)
        (Sequential(), Sequential())
    """
    if backend is not None:
        return backend
    if jax.default_backend() == "cpu":
        # measured on 2 cores: a loop over one chain is one native function, and a step of many is work enough; blocks
        # pay a second pass, two changes of layout and more compilation, for a tenth or two of the time at most (K = 8,
        # float64) and for none elsewhere
        return Sequential()
    return Associative() if batch * steps * states**2 * 8 <= TREE_BYTES else Sequential()


def ratio_gap(new: Array, old: Array) -> Array:
    """The largest logarithm of a ratio of columns of non-negative numbers, and the distance of two of them.

    The direction of what enters a block decides what leaves it, and its size is part of the block's first normaliser.

    Example:
        >>> ratio_gap(jnp.array([[2.0], [8.0], [0.0]]), jnp.array([[2.0], [8.0], [0.0]])).tolist()
        [0.0]
        >>> round(float(ratio_gap(jnp.array([[2.0], [8.0], [0.0]]), jnp.array([[1.0], [4.0], [0.0]]))[0]), 4)
        0.6931
    """
    return _spread(jnp.log(new) - jnp.log(old), new, old)


def log_gap(new: Array, old: Array) -> Array:
    """`ratio_gap` of columns of logarithms, which serves max-plus recursions too."""
    return _spread(new - old, new, old)


def exact_gap(new: Array, old: Array) -> Array:
    """Zero where equal, infinite where not."""
    return jnp.where(_same(new, old), 0.0, jnp.inf)


def _same(new: Array, old: Array) -> Array:
    return (new == old) | ((new != new) & (old != old))


def _spread(difference: Array, new: Array, old: Array) -> Array:
    same = _same(new, old)
    zero = same & (difference != 0)  # zeros on both sides, whose difference of logarithms is NaN, have no ratio
    highest = jnp.max(jnp.where(zero, -jnp.inf, difference), axis=0)
    lowest = jnp.min(jnp.where(zero, jnp.inf, difference), axis=0)
    apart = jnp.maximum(highest - lowest, jnp.maximum(jnp.abs(highest), jnp.abs(lowest)))
    return jnp.where(jnp.all(same, axis=0), 0, apart)


def run(
    backend: Backend, recursion: Recursion, shape: Layout, weights: Any, matrices: Array | None,
    present: Array | None, reverse: bool, starts: Array | None = None,
) -> Any:  # fmt: skip
    """The outs of a recursion, in the layout.

    Args:
        backend: `Sequential` or `Blocked`; what else there is runs in blocks.
        recursion: what to run.
        shape: the layout.
        weights: pytree of `[S, ..., R]`, one item a step.
        matrices: `[T, K, K]`, `[B, T, K, K]`, or None if the step knows them.
        present: `[B, T]` bool, or None where all steps are there. Other steps are run on whatever is there, so their
            outs mean nothing; against time (`reverse`) the last step that is there starts anew.
        reverse: from the last step to the first.
        starts: `[B, T]` bool, the steps at which it starts anew; against time it does at the steps before them.
    """
    # whether a step hands anything on; what only fills the last block does not
    hands_on = None if starts is None or reverse else shape.cut(~jnp.pad(starts[:, 1:], ((0, 0), (0, 1))))
    if reverse and (present is not None or shape.size is not None or starts is not None):
        there = jnp.ones((shape.batch, shape.steps), bool) if present is None else present
        hands_on = shape.cut(there if starts is None else there & ~starts)
    body = _starting(recursion, hands_on is not None and not shape.alone)
    if matrices is not None and (matrices.ndim == 4 or shape.size is not None):
        matrices = shape.cut(jnp.broadcast_to(matrices, (shape.batch, *matrices.shape[-3:])))
    pieces = (weights, matrices, hands_on)
    if shape.size is None:
        start = recursion.start if shape.alone else _spread_out(recursion.start, shape.batch)
        return lax.scan(body, start, pieces, reverse=reverse)[1]
    sweeps = backend.sweeps if isinstance(backend, Blocked) else Blocked().sweeps
    return _blocked(sweeps, recursion, body, shape, pieces, present, reverse)


def _spread_out(tree: Any, *sizes: int) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(x.reshape(x.shape + (1,) * len(sizes)), x.shape + sizes), tree)


def _starting(recursion: Recursion, rows: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The step, but what it hands on is the start where its inputs say so."""
    start = _spread_out(recursion.start, 1) if rows else recursion.start

    def body(carry: Any, x: Any) -> tuple[Any, Any]:
        weight, matrix, hands_on = x
        carry, out = recursion.step(carry, (weight, matrix))
        if hands_on is not None:
            # at the end of a step it is part of what makes the carry; at its beginning it would be a pass of its own
            carry = jax.tree.map(lambda s, c: jnp.where(hands_on, c, s), start, carry)
        return carry, out

    return body


def _blocked(
    sweeps: int, recursion: Recursion, body: Callable[[Any, Any], tuple[Any, Any]], shape: Layout, pieces: Any,
    present: Array | None, reverse: bool,
) -> Any:  # fmt: skip
    count, batch = shape.blocks, shape.batch
    first = _spread_out(recursion.start, batch, 1)

    def entering_after(leaving: Any) -> Any:
        """Return the carries that enter the blocks, from those that leave their neighbours."""

        def one(x: Array, start: Array) -> Array:
            blocks = x.reshape(*x.shape[:-1], batch, count)
            parts = [blocks[..., 1:], start] if reverse else [start, blocks[..., :-1]]
            return jnp.concatenate(parts, axis=-1).reshape(x.shape)

        return jax.tree.map(one, leaving, first)

    def error(new: Any, old: Any) -> Array:
        gaps = recursion.gap(new, old).reshape(batch, count)
        if present is not None:
            gaps = jnp.where(present[:, :: shape.size], gaps, 0)
        return jnp.max(jnp.sum(gaps, axis=1))

    def full(entering: Any) -> tuple[Any, Any]:
        return lax.scan(body, entering, pieces, reverse=reverse)

    def sweep(entering: Any) -> Any:
        return entering_after(lax.scan(lambda c, x: (body(c, x)[0], None), entering, pieces, reverse=reverse)[0])

    def slow(_: Any) -> Any:
        """One block after the other."""

        def block(carry: Any, n: Array) -> tuple[Any, Any]:
            take = lambda x: x.reshape(*x.shape[:-1], batch, count)[..., n]  # noqa: E731
            return lax.scan(body, carry, jax.tree.map(take, pieces), reverse=reverse)

        outs = lax.scan(block, _spread_out(recursion.start, batch), jnp.arange(count), reverse=reverse)[1]
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1).reshape(*x.shape[1:-1], -1), outs)

    def repair(entering: Any) -> Any:
        def again(state: Any) -> Any:
            entering, last, tries = state
            new = sweep(entering)
            return new, error(new, entering).astype(last.dtype), tries + 1

        def unsettled(state: Any) -> Array:
            return ~(state[1] <= recursion.tolerance) & (state[2] < sweeps)

        state = (entering, jnp.full((), jnp.inf, jnp.result_type(float)), jnp.int32(0))
        entering, last, _ = lax.while_loop(unsettled, again, state)
        return lax.cond(any_lane(~(last <= recursion.tolerance)), slow, lambda e: full(e)[1], entering)

    entering = entering_after(_spread_out(recursion.guess, count * batch))
    if count == 1:
        return full(entering)[1]
    entering = sweep(entering)
    leaving, out = full(entering)
    after = entering_after(leaving)
    return rarely_kept(~(error(after, entering) <= recursion.tolerance), lambda: repair(after), out)
