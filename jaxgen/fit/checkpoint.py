"""Checkpoints of a fit: one file, replaced in one move, that resumes bit for bit."""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import files
from jaxgen.core.errors import FileError
from jaxgen.core.value import describe, value_key
from jaxgen.fit.loop import Status
from jaxgen.fit.watch import Progress

FILE = "checkpoint.safetensors"


def _raw(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def checksum(tree: Any) -> str:
    """A checksum over the bytes, shapes and dtypes of all leaves.

    Example:
        >>> checksum(np.zeros(3)) == checksum(np.zeros(3)), checksum(np.zeros(3)) == checksum(np.zeros(4))
        (True, False)
    """
    return files.checksum({f"{i:06d}": _raw(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))})


def fingerprint(
    key: Any, model: Any, data: Any, validation: Any, algorithm: Any, batch_size: int | None, restarts: int | None
) -> dict:
    """Return the facts that must agree for a resumed fit to be the same fit."""
    fields = dataclasses.fields(algorithm) if dataclasses.is_dataclass(algorithm) else ()
    plain = {f.name: v for f in fields if isinstance(v := getattr(algorithm, f.name), (int, float, str, type(None)))}
    return {
        "model": _without_addresses(repr(jax.eval_shape(lambda: model))),  # its shapes; its numbers are the start
        "start": checksum(model),
        "algorithm": f"{type(algorithm).__name__} {plain}",
        "algorithm's functions": f"{zlib.crc32(describe(value_key(algorithm)).encode()):08x}",
        "key": checksum(key),
        "data": "an iterator" if data is None else checksum(data),
        "validation": "none" if validation is None else checksum(validation),
        "batch_size": repr(batch_size),
        "restarts": repr(restarts),
    }


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _structure(tree: Any) -> str:
    return _without_addresses(str(jax.tree.structure(tree)))


def _made(folder: str | Path) -> Path:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            "the checkpoint's folder cannot be made", called=f"fit(..., checkpoint={str(folder)!r})",
            expected="a folder, there or to be made", got=str(error),
        ) from None  # fmt: skip
    return Path(folder)


def write(folder: str | Path, mark: dict, snapshot: Any) -> None:
    """Writes a snapshot, any pytree, with the fingerprint of its fit."""
    arrays = {f"{i:06d}": _raw(leaf) for i, leaf in enumerate(jax.tree.leaves(snapshot))}
    files.write_arrays(_made(folder) / FILE, arrays, {"fit": mark, "tree": _structure(snapshot)})


def read(folder: str | Path, mark: dict, like: Any) -> Any:
    """The snapshot in a folder, or None where there is none.

    Args:
        folder: where `write` wrote.
        mark: the fingerprint of the fit that resumes.
        like: a snapshot of the same structure; only the first axis of its plain numpy leaves may differ.

    Raises:
        FileError: the checkpoint is damaged, or is of another model, algorithm, key or data.
    """
    path = _made(folder) / FILE  # made now: a fit should not learn at its first checkpoint that it cannot be
    if not path.exists():
        return None
    arrays, description = files.read_arrays(path)
    called = f"fit(..., checkpoint={str(folder)!r})"
    description = description if isinstance(description, dict) else {}
    theirs = description.get("fit")
    theirs = theirs if isinstance(theirs, dict) else {}
    for name, mine in mark.items():
        if theirs.get(name) != mine:
            raise FileError(
                f"the checkpoint is of another fit: its {name} differs", called=called, expected=str(mine)[:300],
                got=str(theirs.get(name))[:300], fix="give each fit a folder of its own, or delete this one",
            )  # fmt: skip
    leaves, structure = jax.tree.flatten(like)
    if description.get("tree") != _structure(like) or sorted(arrays) != [f"{i:06d}" for i in range(len(leaves))]:
        raise FileError("the checkpoint has another structure", called=called, expected=_structure(like)[:300],
                        got=str(description.get("tree"))[:300], fix="delete the folder to start anew")  # fmt: skip
    return jax.tree.unflatten(
        structure, [_restore(arrays[f"{i:06d}"], leaf, called) for i, leaf in enumerate(leaves)]
    )


def _restore(array: np.ndarray, like: Any, called: str) -> Any:
    raw = _raw(like)
    free = 1 if isinstance(like, np.ndarray) and raw.ndim else 0  # a history is as long as it is
    same = array.dtype == raw.dtype and array.ndim == raw.ndim and array.shape[free:] == raw.shape[free:]
    if not same:
        raise FileError(
            "the checkpoint holds an array of another shape", called=called, expected=f"{raw.dtype}{list(raw.shape)}",
            got=f"{array.dtype}{list(array.shape)}", fix="delete the folder to start anew",
        )  # fmt: skip
    if isinstance(like, np.ndarray):
        return array
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    return jnp.asarray(array)


class Checkpoint:
    """A watcher that saves a fit, after every so many steps and at its end.

    Args:
        folder: where.
        mark: the fingerprint of the fit.
        every: steps between two saves.
        snapshot: what to save, any pytree, as it is when it is called.
    """

    def __init__(self, folder: str | Path, mark: dict, every: int, snapshot: Callable[[], Any]):
        self.every, self._save = every, lambda: write(folder, mark, snapshot())

    def __call__(self, progress: Progress[Any]) -> None:
        """Save, but at the end, which `close` does."""
        if progress.status == Status.RUNNING:
            self._save()

    def close(self, progress: Progress[Any]) -> None:
        """Save the end; a fit that was interrupted goes on from where it was saved last."""
        if progress.status != Status.INTERRUPTED:
            self._save()
