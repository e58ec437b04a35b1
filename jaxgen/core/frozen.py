"""Parameters that stay at their values in training, named by paths of fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.algebra import Several
from jaxgen.core.errors import ModelError
from jaxgen.core.pytree import is_model, model_fields

T = TypeVar("T")


def frozen_leaves(tree: T, frozen: Any) -> T:
    """The same tree with bools in place of numbers: True for those that training has to leave as they are.

    Args:
        tree: a model.
        frozen: `{path: True}`, a path of field names such as `"components.offset"` with all that is under it; or
            `{path: bools}` with one for each index of the leading axis, such as the components of a mixture, or one
            for each number of the field. An index goes to one of many models, `"components[1]"` or
            `"components[1].rate"`, of several kinds too; without one, `"components.rate"` is of all that have it.

    Raises:
        ModelError: a path that leads nowhere, or bools of another shape.

    Example:
        >>> from jaxgen.core.pytree import model
        >>> @model
        ... class M:
        ...     a: jax.Array
        ...     b: jax.Array
        >>> frozen_leaves(M(jnp.zeros(2), jnp.zeros(2)), {"a": True, "b": (False, True)}).b.tolist()
        [False, True]
    """
    masks = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), bool), tree)
    for path, which in frozen.items():
        under = list(_under(masks, path if path[:1] in (".", "[") else f".{path}", "", 0))
        if not under:
            raise ModelError(
                "there is no such field to freeze", called=f"frozen={dict(frozen)!r}", got=repr(path),
                expected="the path of a field: " + ", ".join(name for name, _ in _leaves(masks, "")),
                fix="jaxgen.summary(model) lists them",
            )  # fmt: skip
        for name, mask, rows in under:
            _mark(name, mask, rows, np.asarray(which, bool), frozen)
    return jax.tree.map(jnp.asarray, masks)


def _mark(name: str, mask: Any, rows: Any, which: Any, frozen: Any) -> None:
    """Sets what of a mask, in place, is to be frozen; `rows` are the indices of `which` that are the mask's."""
    if rows is not None and which.ndim:
        fits = which.shape == (sum(map(len, rows)),)
        own = which[rows[0]] if fits else which
    else:
        own, fits = which, which.shape in ((), mask.shape[:1], mask.shape)
    if not fits:
        lead = mask.shape[:1] if rows is None else (sum(map(len, rows)),)
        raise ModelError(
            f"frozen does not fit {name}", called=f"frozen={dict(frozen)!r}", got=f"shape {which.shape}",
            expected=f"True, or bools of shape {lead}" + (f" or {mask.shape}" if rows is None else ""),
        )  # fmt: skip
    mask |= own.reshape(own.shape + (1,) * (mask.ndim - own.ndim))


def _leaves(masks: Any, name: str) -> list[tuple[str, Any]]:
    paths, _ = jax.tree_util.tree_flatten_with_path(masks)
    return [((name + jax.tree_util.keystr(path)).lstrip("."), mask) for path, mask in paths]


def _under(masks: Any, path: str, name: str, axis: int, rows: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """`(name, mask, rows)` of all leaves at a path, masks as views.

    Args:
        masks: a tree of bools.
        path: what of the path is left.
        name: the path to this tree.
        axis: how many leading axes the arrays have, where these are batches of models in batches of models.
        rows: `(own, others...)` for a kind of `Several`: which of the models it holds, and which the others do.
    """
    if isinstance(masks, Several) and not path.startswith(".members"):
        places = masks.rows(np.arange(len(masks.order)))
        for i, batch in enumerate(masks.members):
            split = (places[i], *(p for j, p in enumerate(places) if j != i)) if axis == 1 and rows is None else None
            yield from _under(batch, path, f"{name}.members[{i}]", axis, split)
    elif not path or not is_model(masks):
        for leaf, mask in _leaves(masks, ""):
            whole = f"{'' if leaf.startswith('[') or not leaf else '.'}{leaf}"
            if not path or whole == path or (whole.startswith(path) and whole[len(path)] in ".["):
                yield (name + whole).lstrip("."), mask, rows
    else:
        yield from _in_fields(masks, path, name, axis, rows)


def _in_fields(masks: Any, path: str, name: str, axis: int, rows: Any) -> Iterator[tuple[str, Any, Any]]:
    for field, kind, held in model_fields(masks):
        rest = path[len(field) + 1 :]
        if kind == "static" or not path.startswith(f".{field}") or (rest and rest[0] not in ".["):
            continue
        index = re.match(r"\[(\d+)\]", rest)
        if kind == "parts" and index:
            one = _at(held, int(index[1]), axis)
            if one is not None:
                yield from _under(one, rest[index.end() :], f"{name}.{field}{index[0]}", axis)
        elif kind == "part" and index and isinstance(held, (tuple, list)):
            for i, each in enumerate(held):
                if i == int(index[1]):
                    yield from _under(each, rest[index.end() :], f"{name}.{field}{index[0]}", axis, rows)
        else:
            yield from _under(held, rest, f"{name}.{field}", axis + (kind == "parts"), rows)


def _at(batch: Any, index: int, axis: int) -> Any:
    """Views of the masks of one of many models, or None."""
    if isinstance(batch, Several):
        for members, places in zip(batch.members, batch.rows(np.arange(len(batch.order))), strict=True):
            if index in places:
                return _at(members, places.tolist().index(index), axis)
        return None
    if any(index >= mask.shape[axis] for mask in jax.tree.leaves(batch)):
        return None
    return jax.tree.map(lambda mask: mask[(slice(None),) * axis + (index, ...)], batch)


def keep_frozen(new: T, old: T, frozen: Any) -> T:
    """Return the new model with the frozen numbers of the old one; as it is where `frozen` is None."""
    if frozen is None:
        return new
    return jax.tree.map(lambda stays, n, o: jnp.where(stays, o, n).astype(n.dtype), frozen, new, old)
