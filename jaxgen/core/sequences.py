"""Sequences of different lengths as one event array: what is not there is padded, and marked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.gate import as_array, concrete, widened
from jaxgen.core.pytree import registered

#: the shortest length that sequences are padded to; longer ones go by doubling, so that few programs serve all
SHORTEST = 64


@registered
@dataclasses.dataclass(frozen=True)
class Sequences:
    """A batch of sequences that differ in length or have steps that were not seen: stands wherever their array would.

    `Sequences.pack([first, second, ...])` makes one of a list.

    Args:
        x: `[*batch, T, *event]`; what a step beyond the length or one that was not seen holds does not matter.
        length: `[*batch]` int32, 1 to T.
        observed: `[*batch, T]` bool, False for a step that was not seen; None where all were.

    Example:
        >>> import jaxgen as jg
        >>> data = jg.Sequences.pack([[0, 1, 1], [1, 0]])
        >>> data.x.shape, data.length.tolist()
        ((2, 64), [3, 2])
        >>> coin = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], jg.Bernoulli.from_probs([0.5, 0.5]))
        >>> (coin.log_prob(data) / jnp.log(0.5)).round(2).astype(int).tolist()
        [3, 2]
    """

    x: Any
    length: Any
    observed: Any = None

    @classmethod
    def pack(cls, sequences: Iterable[Any], observed: Iterable[Any] | None = None, *, steps: int | None = None):
        """From arrays `[T_n, *event]` and, if given, flags `[T_n]` of what was seen.

        Args:
            sequences: a list of arrays.
            observed: as many arrays of bools.
            steps: T, at least the greatest length; None takes 64, 128, 256, ..., so that data of many lengths share
                few compiled programs.

        Raises:
            DataError: no sequence, an empty one, or values that are no data. ShapeError: events of several shapes, or
            more steps than T.
        """
        called = "Sequences.pack(sequences)"
        rows = [np.asarray(as_array(s, name=f"sequences[{i}]", called=called, allow_nan=True))
                for i, s in enumerate(sequences)]  # fmt: skip
        if not rows:
            raise DataError("there is no sequence", called=called, expected="one array or more", got="none")
        events = {row.shape[1:] for row in rows}
        if len(events) > 1 or rows[0].ndim == 0:
            raise ShapeError(
                "sequences of several kinds of events", called=called, expected="arrays [T_n, *event], one event shape",
                got=", ".join(sorted(str(list(row.shape)) for row in rows)[:4]), fix="x[..., None] for single numbers",
            )  # fmt: skip
        length = np.array([len(row) for row in rows], np.int32)
        longest = int(length.max())
        steps = SHORTEST << max(0, -(-longest // SHORTEST) - 1).bit_length() if steps is None else steps
        if steps < longest:
            raise ShapeError("too few steps", called=called, expected=f"steps={longest} or more", got=f"steps={steps}")
        # the last row again: inside any support
        x = np.stack([np.concatenate([row, np.repeat(row[-1:], steps - len(row), axis=0)]) for row in rows])
        if observed is None:
            return cls(x, length)
        flags = [np.asarray(flag, bool) for flag in observed]
        if [flag.shape for flag in flags] != [(n,) for n in length]:
            raise ShapeError(
                "flags do not fit the sequences", called=called, expected=f"bools of shapes {length[:4].tolist()}",
                got=f"{len(flags)} of shapes {[flag.shape for flag in flags[:4]]}",
            )  # fmt: skip
        return cls(x, length, np.stack([np.pad(flag, (0, steps - len(flag))) for flag in flags]))

    @property
    def shape(self) -> tuple[int, ...]:
        """That of x."""
        return tuple(np.shape(self.x))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        return self.x.dtype

    @property
    def valid(self) -> jax.Array:
        """`[*batch, T]` bool: the steps that are there and were seen."""
        return self._valid(jnp)

    def _valid(self, xp: Any) -> Any:
        steps = np.arange(self.shape[np.ndim(self.length)])
        there = steps < xp.asarray(self.length)[..., None]
        return there if self.observed is None else there & xp.asarray(self.observed, bool)

    def __len__(self) -> int:
        return self.shape[0]

    def checked(self, *, name: str, called: str, allow_nan: bool) -> Sequences:
        """The same with its parts looked at, or an error that names what is wrong."""
        length = np.asarray(self.length) if concrete(self.length) else self.length
        axes = np.ndim(length)
        fits = np.shape(length) == self.shape[:axes] and self.ndim > axes and self.shape[axes] > 0
        if not fits or (self.observed is not None and np.shape(self.observed) != self.shape[: axes + 1]):
            seen = "" if self.observed is None else f", observed {list(np.shape(self.observed))}"
            raise ShapeError(
                f"the parts of {name} do not belong together", called=called,
                expected="x [*batch, T, *event], length [*batch], observed [*batch, T]",
                got=f"x {list(self.shape)}, length {list(np.shape(length))}{seen}", fix="Sequences.pack(arrays)",
            )  # fmt: skip
        if isinstance(length, np.ndarray) and (
            length.dtype.kind not in "iu" or (length < 1).any() or (length > self.shape[axes]).any()
        ):
            raise DataError(
                f"lengths of {name} that cannot be", called=called, expected=f"integers from 1 to {self.shape[axes]}",
                got=f"{length.dtype} from {length.min()} to {length.max()}",
            )  # fmt: skip
        x = self.x
        if concrete(self):
            # what is not there may be anything, what is there may not
            inside = self._valid(np)
            host = np.asarray(x)
            good = host[inside] if inside.any() else host.reshape((-1, *host.shape[axes + 1 :]))[:1]
            as_array(good, name=name, called=called, allow_nan=allow_nan)
            if host.dtype.kind == "f" and not np.isfinite(host).all():
                shape = inside.shape + (1,) * (host.ndim - inside.ndim)
                x = np.where(inside.reshape(shape), host, good.reshape((-1, *host.shape[axes + 1 :]))[0])
        length = length.astype(np.int32) if isinstance(length, np.ndarray) else length
        return Sequences(widened(x), length, self.observed)


def padded(x: Any) -> Any:
    """The padded array of `Sequences`, or an array as it is."""
    return x.x if isinstance(x, Sequences) else x
