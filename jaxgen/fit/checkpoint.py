"""Checkpoints of a fit: one file, replaced in one move, that resumes bit for bit."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import FileError
from jaxgen.core.files import read_arrays, write_arrays

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
    total = 0
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(_raw(leaf))
        total = zlib.crc32(f"{array.dtype}{array.shape}".encode(), total)
        total = zlib.crc32(array.reshape(-1).view(np.uint8).data, total)
    return f"{total:08x}"


def fingerprint(key: Any, model: Any, data: Any, algorithm: Any, batch_size: int | None, restarts: int | None) -> dict:
    """What must be the same for a resumed fit to be the same fit."""
    plain = {f.name: repr(v) for f in dataclasses.fields(algorithm)
             if isinstance(v := getattr(algorithm, f.name), (int, float, str, type(None)))}  # fmt: skip
    return {
        "model": repr(model),
        "start": checksum(model),
        "algorithm": f"{type(algorithm).__name__} {plain}",
        "key": checksum(key),
        "data": "an iterator" if data is None else checksum(data),
        "batch_size": repr(batch_size),
        "restarts": repr(restarts),
    }


def write(folder: str | Path, mark: dict, snapshot: Any) -> None:
    """Writes a snapshot, any pytree, with the fingerprint of its fit."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    leaves = jax.tree.leaves(snapshot)
    arrays = {f"{i:06d}": _raw(leaf) for i, leaf in enumerate(leaves)}
    write_arrays(folder / FILE, arrays, {"fit": mark, "tree": str(jax.tree.structure(snapshot))})


def read(folder: str | Path, mark: dict, like: Any) -> Any:
    """The snapshot in a folder, or None where there is none.

    Args:
        folder: where `write` wrote.
        mark: the fingerprint of the fit that resumes.
        like: a snapshot of the same structure; only the first axis of its plain numpy leaves may differ.

    Raises:
        FileError: the checkpoint is damaged, or is of another model, algorithm, key or data.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return None
    arrays, description = read_arrays(path)
    called = f"fit(..., checkpoint={str(folder)!r})"
    theirs = description.get("fit", {}) if isinstance(description, dict) else {}
    for name, mine in mark.items():
        if theirs.get(name) != mine:
            raise FileError(
                f"the checkpoint is of another fit: its {name} differs", called=called, expected=str(mine)[:300],
                got=str(theirs.get(name))[:300], fix="give each fit a folder of its own, or delete this one",
            )  # fmt: skip
    leaves, structure = jax.tree.flatten(like)
    if description.get("tree") != str(structure) or sorted(arrays) != [f"{i:06d}" for i in range(len(leaves))]:
        raise FileError("the checkpoint has another structure", called=called, expected=str(structure)[:300],
                        got=str(description.get("tree"))[:300], fix="delete the folder to start anew")  # fmt: skip
    return jax.tree.unflatten(
        structure, [_restore(arrays[f"{i:06d}"], leaf, called) for i, leaf in enumerate(leaves)]
    )


def _restore(array: np.ndarray, like: Any, called: str) -> Any:
    raw = _raw(like)
    same = array.dtype == raw.dtype and (isinstance(like, np.ndarray) or array.shape == raw.shape)
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
