"""Models as immutable pytrees: the `@model` decorator, its field kinds, and what can be read off a model."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import weakref
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import markup
from jaxgen.core.protocols import INTERNAL, Valued, has, members

T = TypeVar("T")

#: where the package's public names are; those of all its other files are names of `jaxgen` itself
NAMESPACES = ("bijections", "likelihoods", "metrics", "nn", "posteriors", "samplers", "tasks", "units")
#: the field that a property reads as plain values, by the property's name, where log_, logit_ or _logits do not tell
PLAIN = {
    "mean": "offset", "location": "offset", "covariance": "raw", "scale_matrix": "raw", "probs": "logits",
    "weights": "logits",
}  # fmt: skip
#: how many numbers of an array are shown as such, and how long the representation of what a field holds may be
SHOWN, LONG = 16, 300
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
        Line(slope=2)
    """
    inherited = any("__post_init__" in base.__dict__ for base in cls.__mro__)
    if "__init__" in cls.__dict__ or inherited:
        hook = "__post_init__" if inherited else "__init__"
        raise TypeError(f"@model {cls.__name__} defines {hook}; write a classmethod from_* instead")
    cls = registered(dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls))
    cls.__repr__ = _repr  # type: ignore[assignment, method-assign]
    cls.__dir__ = _dir  # type: ignore[assignment, method-assign]
    cls._repr_html_ = _repr_html  # type: ignore[attr-defined]
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


def field_of(model: Any, name: str) -> str | None:
    """Return the field that a public name of a model stands for: its own, or that which a property reads.

    Example:
        >>> import jaxgen as jg
        >>> field_of(jg.Poisson.from_values([1.0]), "rate"), field_of(jg.Poisson.from_values([1.0]), "missing")
        ('log_rate', None)
    """
    fields = {field for field, kind, _ in model_fields(model) if kind != "static"}
    read = (f"log_{name}", f"logit_{name}", f"{name}_logits", PLAIN.get(name, ""))
    return next((field for field in (name, *(read if name in dir(type(model)) else ())) if field in fields), None)


def plain_values(model: Any) -> dict[str, str]:
    """Return the properties that read one field each as plain values, with that field.

    Example:
        >>> import jaxgen as jg
        >>> plain_values(jg.Gamma.from_values(1.0, 2.0))
        {'mean': 'log_mean', 'shape': 'log_shape'}
    """
    properties = (name for name, held in vars(type(model)).items() if isinstance(held, property))
    return {name: field for name in properties if (field := field_of(model, name)) not in (None, name)}  # type: ignore[misc]


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


def shown(model: Any) -> list[tuple[str, Any]]:
    """Return what a model shows of itself, `(name, value)`: plain values by the names of `from_values`, or its fields.

    A trained field stands under the name of the property that reads it; options that are as by default are left out. Of
    a model in the abstract, as inside of `jit`, the fields.

    Example:
        >>> import jaxgen as jg
        >>> [name for name, _ in shown(jg.Gaussian.from_values([0.0], [[1.0]], missing=True))]
        ['mean', 'covariance', 'missing']
    """
    fields = model_fields(model)
    if not all(map(_known, jax.tree.leaves(model))):
        return [(name, value) for name, _, value in fields]
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    options = [(name, v) for name, kind, v in fields if kind == "static" and not _same(v, defaults[name])]
    names = _arguments(model)
    if names and not any(is_model(v) and name not in names for name, kind, v in fields if kind != "fixed"):
        return [*((name, _read(model, name)) for name in names), *(o for o in options if o[0] not in names)]
    public = {field: name for name, field in reversed(plain_values(model).items())}
    held = [(name, v) for name, kind, v in fields if kind != "static" and v is not None]
    return [*((public.get(name, name), _read(model, public.get(name, name))) for name, _ in held), *options]


def _arguments(model: Any) -> list[str]:
    """The names of the plain values of a model, those that `from_values` takes by position; none where it has none."""
    if not has(model, Valued):
        return []
    arguments = inspect.signature(model.from_values).parameters.values()
    return [a.name for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD]


def _known(leaf: Any) -> bool:
    """True for numbers that can be read now: no tracer, no shape alone, no key, nothing that was given away."""
    if isinstance(leaf, jax.Array):
        traced = isinstance(leaf, jax.core.Tracer)
        return not traced and not _is_key(leaf) and not leaf.is_deleted() and leaf.is_fully_addressable
    return isinstance(leaf, (np.ndarray, np.generic, bool, int, float))


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _read(model: Any, name: str) -> Any:
    """Return a public value of a model; of a large one its shape alone, which costs no arithmetic."""
    value = jax.eval_shape(lambda model: getattr(model, name), model) if name not in vars(model) else vars(model)[name]
    small = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(value) if hasattr(leaf, "shape")) <= SHOWN
    return getattr(model, name) if small else value


def _value(value: Any) -> str:
    """A value in a line: few numbers as such, to four digits, many as dtype and shape."""
    if is_model(value):
        text = repr(value)
        return text if len(text) <= LONG else f"{type(value).__name__}(...)"
    if isinstance(value, (jax.Array, np.ndarray)) and _known(value) and value.size <= SHOWN and value.size:
        return _numbers(np.asarray(value).tolist())
    return _short(value)


def _numbers(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_numbers, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _repr(self: Any) -> str:
    return f"{type(self).__name__}({', '.join(f'{name}={_value(value)}' for name, value in shown(self))})"


def _repr_html(self: Any) -> str:
    """The model as a table of names and values, of the models in it too."""
    rows = [(name, markup.Raw(_repr_html(value)) if is_model(value) else _value(value)) for name, value in shown(self)]
    return markup.table(rows, type(self).__name__)


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
    tail = f"{parameter_count(tree)} trained of {total} scalars, {size} bytes"
    lines = textwrap.indent(markup.aligned(rows), "  ").splitlines()
    return "\n".join([type(tree).__name__, *lines, tail])
