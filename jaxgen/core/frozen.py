"""Parameters that stay at their values in training, named by paths of fields."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.algebra import Several
from jaxgen.core.errors import ModelError
from jaxgen.core.pytree import field_of, is_model, model_fields, plain_values

T = TypeVar("T")

#: matrices that are read from a factor, none of whose entries is one of theirs
WHOLE = ("covariance", "scale_matrix")


def frozen_leaves(tree: T, frozen: Any) -> T:
    """The same tree with bools in place of numbers: True for those that training has to leave as they are.

    Args:
        tree: a model.
        frozen: `{path: True}`, a path of names such as `"components.mean"` with all that is under it; or
            `{path: bools}` with one for each index of the leading axis, such as the components of a mixture, or one
            for each number. A list of paths is `True` for each. The last name is a field's, or that of a property that
            reads one as plain values: `mean`, `scale`, `rate`, `probs`, `initial`; a covariance is frozen as a whole.
            An index goes to one of many models, `"components[1]"` or `"components[1].rate"`, of several kinds too;
            without one, `"components.rate"` is of all that have it.

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
        >>> import jaxgen as jg
        >>> frozen_leaves(jg.Gamma.from_values([1.0], [2.0]), ["mean"]).log_mean.tolist()
        [True]
    """
    frozen = by_path(frozen)
    masks = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), bool), tree)
    for path, which in frozen.items():
        under = list(_under(masks, path if path[:1] in (".", "[") else f".{path}", "", 0))
        if not under:
            names = [*dict.fromkeys(_names(masks, ""))]
            near = difflib.get_close_matches(path, names, 1)
            meant = f"; did you mean {near[0]!r}" if near else ""
            raise ModelError(
                f"there is no such field to freeze{meant}", called=f"frozen={frozen!r}", got=repr(path),
                expected="the path of a field: " + ", ".join(names),
                fix=f"{dict.fromkeys(near, True)!r}" if near else "jaxgen.summary(model) lists them",
            )  # fmt: skip
        for name, mask, rows in under:
            whole = re.split(r"[.\[]", path)[-1] in WHOLE
            _mark(name, mask, rows, np.asarray(which, bool), frozen, whole)
    return jax.tree.map(jnp.asarray, masks)


def by_path(frozen: Any) -> dict[str, Any]:
    """Return what is frozen as `{path: which}`: a mapping as it is, a path or a list of paths with all under them.

    Example:
        >>> by_path(["chain", "emissions.mean"])
        {'chain': True, 'emissions.mean': True}
    """
    if isinstance(frozen, Mapping):
        return dict(frozen)
    return dict.fromkeys([frozen] if isinstance(frozen, str) else frozen, True)


def _names(masks: Any, name: str) -> Iterator[str]:
    """Paths that can be frozen, those of plain values first."""
    if isinstance(masks, Several):
        for batch in masks.members:
            yield from _names(batch, name)
    elif is_model(masks):
        yield from (f"{name}.{plain}".lstrip(".") for plain in plain_values(masks))
        for field, kind, held in model_fields(masks):
            if kind != "static":
                yield from _names(held, f"{name}.{field}")
    else:
        yield from (f"{name}{leaf}".lstrip(".") for leaf, _ in _leaves(masks, ""))


def _mark(name: str, mask: Any, rows: Any, which: Any, frozen: Any, whole: bool) -> None:
    """Sets what of a mask, in place, is to be frozen; `rows` are the indices of `which` that are the mask's."""
    lead = mask.shape[: mask.ndim - 2] if whole else mask.shape[:1]
    each = lead if whole else mask.shape
    if rows is not None and which.ndim:
        fits = which.shape == (sum(map(len, rows)),)
        own = which[rows[0]] if fits else which
    else:
        own, fits = which, which.shape in ((), lead, each)
    if not fits:
        lead = lead if rows is None else (sum(map(len, rows)),)
        shapes = [shape for shape in (lead, each if rows is None else ()) if shape]
        raise ModelError(
            f"frozen does not fit {name}", called=f"frozen={frozen!r}", got=f"shape {which.shape}",
            expected=", or bools of shape ".join(["True", *map(str, dict.fromkeys(shapes))]),
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
    first = re.match(r"\.(\w+)", path)
    own = field_of(masks, first[1]) if first else None
    path = f".{own}{path[first.end():]}" if first and own else path
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
