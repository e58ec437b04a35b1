"""Models as immutable pytrees: the `@model` decorator, its field kinds, and what can be read off a model."""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.protocols import INTERNAL, members

T = TypeVar("T")

#: where the package's public names are; those of all its other files are names of `jaxgen` itself
NAMESPACES = ("bijections", "likelihoods", "nn", "samplers", "units")
#: every `@model` class by its full name; `load` builds nothing that is not in here
REGISTRY: dict[str, type] = {}
# every one, also those whose name was taken over since: a notebook's cell that is run again defines its class again
_CLASSES: weakref.WeakSet[type] = weakref.WeakSet()


def static(*, default: Any = dataclasses.MISSING) -> Any:
    """A field that is structure, not data: ints, strings, module-level functions, flax linen modules.

    It must hash and compare by value, because a change of it means a new compilation.

    Example:
        >>> @model
        ... class Scale:
        ...     factor: jax.Array
        ...     power: int = static(default=2)
        >>> jax.tree.leaves(Scale(1.5))
        [1.5]
    """
    return dataclasses.field(default=default, metadata={"static": True})


def fixed(*, default: Any = dataclasses.MISSING) -> Any:
    """A field of arrays that never train: statistics of the data, permutations, masks.

    `Gradient` leaves them bit-identical.

    Example:
        >>> @model
        ... class Shift:
        ...     by: jax.Array
        ...     center: jax.Array = fixed()
        >>> trained, rest = partition(Shift(jnp.ones(2), jnp.zeros(2)))
        >>> trained.center is None, rest.by is None
        (True, True)
    """
    return dataclasses.field(default=default, metadata={"fixed": True})


def part(*, default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that holds one model, or a tuple of models, which are parts of this one.

    What is "own term plus the sum over parts" (priors, frozen and free parameters, missing entries) is written once, in
    `core.latent`, for all models that declare theirs. Statistics of an E-step carry a part's under the field's name.

    Example:
        >>> @model
        ... class Scaled:
        ...     factor: jax.Array
        ...     base: Any = part()
        >>> [(name, kind) for name, kind, _ in parts_of(Scaled(jnp.ones(1), None))]
        [('base', 'part')]
    """
    return dataclasses.field(default=default, metadata={"part": True})


def parts(*, default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that holds K models as one: a model with a leading axis K, or `core.algebra.Several`.

    Each sees the events that this model sees, or steps of them. See `part`. The functions of `core.algebra` ask all
    K at once, whatever they are; a container of twenty lines is in CONTRIBUTING.

    Example:
        >>> import jaxgen as jg
        >>> @model
        ... class Best:
        ...     members: Any = parts()
        ...     event_shape = ()
        ...     @jg.per_batch
        ...     def log_prob(self, x, *, context=None) -> jax.Array:
        ...         return jnp.max(jax.vmap(lambda one: one.log_prob(x))(self.members), axis=0)
        >>> Best(jg.Poisson.from_values([1.0, 5.0])).log_prob(jnp.arange(4)).shape
        (4,)
    """
    return dataclasses.field(default=default, metadata={"parts": True})


def parts_of(value: Any) -> list[tuple[str, str, Any]]:
    """Return what a model declares as its parts: `(name, kind, value)`, kind `"part"` or `"parts"`."""
    if not is_model(value):
        return []
    return [(name, kind, held) for name, kind, held in model_fields(value) if kind in ("part", "parts")]


def models_in(held: Any) -> tuple[Any, ...]:
    """Return the models in a `part()` field: one, or those of a tuple, or none."""
    return tuple(held) if isinstance(held, (tuple, list)) else () if held is None else (held,)


@dataclass_transform(frozen_default=True, field_specifiers=(static, fixed, part, parts))
def model(cls: type[T]) -> type[T]:
    """Turns a class into a frozen dataclass that is a pytree.

    Annotated fields are children (parameters, nested models), `fixed()` fields are children that never train,
    `static()` fields are part of the tree's structure. Methods are pure functions of the fields. Use
    `dataclasses.replace` for a changed copy; do not write `__init__` or `__post_init__`, since a tree is rebuilt
    with tracers in its fields.

    Example:
        >>> @model
        ... class Line:
        ...     slope: jax.Array
        ...     def __call__(self, x):
        ...         return self.slope * x
        >>> line = Line(jnp.float32(2.0))
        >>> float(jax.grad(lambda line: line(3.0))(line).slope)
        3.0
        >>> line
        Line(slope=float32[])
    """
    inherited = any("__post_init__" in base.__dict__ for base in cls.__mro__)
    if "__init__" in cls.__dict__ or inherited:
        hook = "__post_init__" if inherited else "__init__"
        raise TypeError(f"@model {cls.__name__} defines {hook}; write a classmethod from_* instead")
    cls = registered(dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls))
    cls.__repr__ = _repr  # type: ignore[assignment, method-assign]
    cls.__dir__ = _dir  # type: ignore[assignment, method-assign]
    REGISTRY[public_name(cls)] = cls
    _CLASSES.add(cls)
    return cls


def registered(cls: type[T]) -> type[T]:
    """Makes a pytree of a dataclass; fields with `metadata={"static": True}` are part of its structure.

    Not by `jax.tree_util.register_dataclass`: in jaxlib 0.10.2 two of its classes whose fields have one structure have
    equal treedefs. A compiled function then takes one for the other where their hashes fall into one slot, which is one
    pair in a hundred: the wrong model's code, without an error.
    """
    names: dict[bool, list[str]] = {True: [], False: []}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        names[bool(field.metadata.get("static"))].append(field.name)
    data, meta = names[False], names[True]
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in data)

    def flatten(value: Any) -> Any:
        return tuple(getattr(value, name) for name in data), tuple(getattr(value, name) for name in meta)

    def flatten_with_keys(value: Any) -> Any:
        children, static = flatten(value)
        return tuple(zip(keys, children, strict=True)), static

    def unflatten(static: Any, children: Any) -> Any:
        return cls(**dict(zip(data, children, strict=True)), **dict(zip(meta, static, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def public_name(cls: Any) -> str:
    """Return the name of a class or function in files on disk, `module:qualified name`.

    One of this package has its public name, `jaxgen:Gaussian`, wherever its file stands.
    """
    package, _, rest = cls.__module__.partition(".")
    if package != __name__.partition(".")[0]:
        return f"{cls.__module__}:{cls.__qualname__}"
    room = next((f".{name}" for name in rest.split(".") if name in NAMESPACES), "")
    return f"{package}{room}:{cls.__qualname__}"


def is_model(value: Any) -> bool:
    """True for an instance of an `@model` class."""
    return type(value) in _CLASSES


def model_fields(value: Any) -> list[tuple[str, str, Any]]:
    """The fields of a model as `(name, kind, value)`; a kind is "trained", "fixed", "static", "part" or "parts"."""
    return [(f.name, next(iter(f.metadata), "trained"), getattr(value, f.name)) for f in dataclasses.fields(value)]


def name_of(value: Any) -> str:
    """Return what a function or class calls itself, or else its representation."""
    return str(getattr(value, "__name__", None) or repr(value))


def dtype_of(value: Any) -> Any:
    """Return the dtype of an array, or None for what is none."""
    return getattr(value, "dtype", None)


def is_named_tuple(value: Any) -> bool:
    """True for an instance of a NamedTuple class."""
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _inexact(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) if not _is_key(leaf) else False


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def trainable(tree: T) -> T:
    """The same tree with a bool per leaf: floating, and not inside a `fixed()` field.

    Example:
        >>> @model
        ... class M:
        ...     a: jax.Array
        ...     b: jax.Array = fixed()
        >>> jax.tree.leaves(trainable((M(jnp.ones(1), jnp.ones(1)), jnp.arange(3))))
        [True, False, False]
    """

    def walk(node: Any) -> Any:
        if not is_model(node):
            return _inexact(node)
        changed = {
            name: jax.tree.map(lambda _: False, value) if kind == "fixed" else trainable(value)
            for name, kind, value in model_fields(node)
            if kind != "static"
        }
        return dataclasses.replace(node, **changed)

    return jax.tree.map(walk, tree, is_leaf=is_model)


def partition(tree: T) -> tuple[T, T]:
    """Splits a tree into its trained part and the rest, each with None where the other holds the leaf.

    Undone by `combine`. Differentiate and optimise the first part only: no gradient, moment or decay can then reach
    a fixed field.
    """
    mask = trainable(tree)
    return jax.tree.map(lambda m, x: x if m else None, mask, tree), jax.tree.map(
        lambda m, x: None if m else x, mask, tree
    )


def combine(trained: T, rest: T) -> T:
    """Puts the two parts of `partition` back together."""
    return jax.tree.map(lambda a, b: b if a is None else a, trained, rest, is_leaf=lambda x: x is None)


def parameter_count(tree: Any) -> int:
    """The number of trained scalars in a model.

    Example:
        >>> parameter_count({"w": jnp.ones((3, 2)), "step": jnp.arange(2)})
        6
    """
    return sum(int(np.prod(jnp.shape(leaf))) for leaf in jax.tree.leaves(partition(tree)[0]))


def float_type(tree: Any) -> Any:
    """The floating dtype in which the floating leaves of a tree meet; the default one for a tree without any.

    Example:
        >>> float_type({"a": jnp.ones(2), "b": jnp.arange(2)})
        dtype('float32')
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree) if _inexact(leaf)]
    return jnp.result_type(*leaves) if leaves else jnp.result_type(float)


def difference(a: Any, b: Any, path: str = "") -> str:
    """Describe the first difference of two models in kind, structure or shape; empty where only numbers may differ.

    Example:
        >>> difference({"mean": jnp.ones(2)}, {"mean": jnp.ones(3)})
        'mean: float32[2] and float32[3]'
    """

    def form(tree: Any) -> Any:
        return jax.tree.structure(tree), [np.shape(leaf) for leaf in jax.tree.leaves(tree)]

    if form(a) == form(b):
        return ""
    if type(a) is type(b):
        for name, kind, mine, other in _pairs(a, b):
            under = f"{path}.{name}".lstrip(".")
            if kind != "static" and (found := difference(mine, other, under)):
                return found
            if kind == "static" and mine != other:
                return f"{under}: {_short(mine)} and {_short(other)}"
    names = (type(v).__name__ if is_model(v) else _short(v) for v in (a, b))
    return f"{path}: ".lstrip(": ") + " and ".join(names)


def _pairs(a: Any, b: Any) -> list[tuple[Any, str, Any, Any]]:
    """`(name, kind, value, value)` of what two nodes of one type hold under the same names."""
    if is_model(a):
        return [(*one, other) for one, (_, _, other) in zip(model_fields(a), model_fields(b), strict=True)]
    if isinstance(a, dict):
        return [(key, "trained", a[key], b[key]) for key in a if key in b]
    rows = zip(a, b, strict=False) if isinstance(a, (list, tuple)) else ()
    return [(i, "trained", *row) for i, row in enumerate(rows)]


def _short(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (tuple, list)) and not is_named_tuple(value):
        inner = ", ".join(map(_short, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    text = " ".join(repr(value).split())
    return text if len(text) < 80 else f"{type(value).__name__}(...)"


def _repr(self: Any) -> str:
    return f"{type(self).__name__}({', '.join(f'{name}={_short(v)}' for name, _, v in model_fields(self))})"


def _dir(self: Any) -> list[str]:
    """Return the names that tab completion offers: fields and methods, without those that core alone calls."""
    internal = frozenset().union(*map(members, INTERNAL)) - {f.name for f in dataclasses.fields(self)}
    return sorted(set(object.__dir__(self)) - internal)


def summary(tree: Any) -> str:
    """A table of a model's leaves: path, shape and dtype, role, number of scalars; totals last.

    Example:
        >>> @model
        ... class M:
        ...     a: jax.Array
        ...     b: jax.Array = fixed()
        >>> print(summary(M(jnp.ones((2, 3)), jnp.ones(4))))
        M
          a  float32[2,3]  trained  6
          b  float32[4]    fixed    4
        6 trained of 10 scalars, 40 bytes
    """
    mask = jax.tree.leaves(trainable(tree))
    rows, total, size = [], 0, 0
    for (path, leaf), trained in zip(jax.tree_util.tree_flatten_with_path(tree)[0], mask, strict=True):
        count = int(np.prod(jnp.shape(leaf)))
        name = jax.tree_util.keystr(path).lstrip(".")
        rows.append((name, _short(leaf), "trained" if trained else "fixed", str(count)))
        total, size = total + count, size + count * jnp.result_type(leaf).itemsize
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    lines = [("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))).rstrip() for row in rows]
    tail = f"{parameter_count(tree)} trained of {total} scalars, {size} bytes"
    return "\n".join([type(tree).__name__, *lines, tail])
