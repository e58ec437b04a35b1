"""Hashing by value: what makes a rebuilt algorithm find the program that its twin compiled.

optax transformations and lambdas hash by identity, so `optax.adam(1e-3)` written twice would compile twice. Two
functions with the same code and the same closures, defaults and globals do the same thing; `value_key` compares those.
Where a function can see something that may change unnoticed (a numpy array, a random generator), it is itself alone:
one compilation too many is slow, one too few is wrong.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import types
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

T = TypeVar("T")

#: kinds of things that do not change while they live
_CONSTANT = (
    jax.Array, types.ModuleType, type, types.BuiltinFunctionType, types.GenericAlias, enum.Enum, np.ufunc, np.dtype,
    type(functools.cache(len)),
)  # fmt: skip


class _Same:
    """Equal to itself alone; holds the object, so that its address is not given to another while the key lives."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class _MayChange(Exception):
    """Met a value whose contents cannot be seen, and may change."""


class _Plain:
    """An instance of an ordinary class: all it holds is its attributes."""


def value_key(value: Any) -> Any:
    """A hashable key that is equal for values which behave alike.

    Plain values, containers and instances compare by their contents as they are now; functions by code, closure,
    defaults and the globals that they name; arrays, modules and classes by identity; anything else (a numpy array, an
    object of C), and whatever holds it, by identity too.

    Example:
        >>> import optax
        >>> value_key(optax.adam(1e-3)) == value_key(optax.adam(1e-3))
        True
        >>> value_key(optax.adam(1e-3)) == value_key(optax.adam(1e-2))
        False
    """
    try:
        return _key(value, ())
    except (_MayChange, RecursionError):
        return _Same(value)


def _key(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return (type(value), value)
    if isinstance(value, (float, complex, np.generic)):
        return (type(value), repr(value))  # which tells 0.0 from -0.0, and finds NaN equal to itself
    if isinstance(value, _CONSTANT) or type(value).__module__.partition(".")[0] in ("jax", "jaxlib"):
        return _Same(value)
    if id(value) in above:  # a function that closes over itself
        return ("above", above.index(id(value)))
    above = (*above, id(value))
    if isinstance(value, tuple) or type(value) is list:
        return (type(value), *(_key(v, above) for v in value))
    if type(value) is dict:
        return (type(value), *((_key(k, above), _key(v, above)) for k, v in value.items()))
    if type(value) in (set, frozenset):
        return (type(value), frozenset(_key(v, above) for v in value))
    if isinstance(value, types.FunctionType):
        # the library's own functions stay as they are; those made anew in each call are alike by what they do
        own = (value.__module__ or "").partition(".")[0] == "jaxgen" and "<locals>" not in value.__qualname__
        return _Same(value) if own else _function_key(value, above)
    if isinstance(value, functools.partial):
        return (type(value), *(_key(v, above) for v in (value.func, value.args, value.keywords)))
    if isinstance(value, types.MethodType):
        return (types.MethodType, _key(value.__func__, above), _key(value.__self__, above))
    if dataclasses.is_dataclass(value) and _is_value(type(value)):
        return (type(value), *(_key(getattr(value, f.name, None), above) for f in dataclasses.fields(value)))
    ordinary = type(value).__basicsize__ == _Plain.__basicsize__ and hasattr(value, "__dict__")
    if ordinary or type(value) is types.SimpleNamespace:
        return (type(value), _key(vars(value), above))
    raise _MayChange


def _is_value(cls: Any) -> bool:
    """True for dataclasses that promise not to change: frozen, or hashed by their fields."""
    return cls.__dataclass_params__.frozen or cls.__hash__ not in (None, object.__hash__)


def _function_key(function: types.FunctionType, above: tuple[int, ...]) -> Any:
    cells = tuple(_key(_content(cell), above) for cell in function.__closure__ or ())
    defaults = _key((function.__defaults__, function.__kwdefaults__), above)
    scope, named = function.__globals__, []
    for name in _global_names(function.__code__):
        if name in scope:
            seen = scope[name]
            # what was imported is taken to stay as it is; what stands beside the function may be edited and run again
            foreign = isinstance(seen, types.FunctionType) and seen.__globals__ is not scope
            named.append((name, _Same(seen) if foreign else _key(seen, above)))
    return (types.FunctionType, function.__code__, _Same(scope), cells, defaults, tuple(named))


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """The global names that a function reads, those of the functions inside it included."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return tuple(sorted(names.union(*map(_global_names, inner))))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def describe(key: Any) -> str:
    """A `value_key` as a text that is the same in another process: names for what goes by identity.

    A whole number is one text as an int and as a float: optax's schedules turn one into the other when first called.

    Example:
        >>> describe(value_key((1e-3, len))), describe(value_key(400)) == describe(value_key(400.0))
        ('(tuple, 0.001, len)', True)
    """
    if isinstance(key, tuple) and len(key) == 2 and key[0] in (int, float):
        number = float(key[1])
        return repr(int(key[1] if key[0] is int else number) if number.is_integer() else number)
    if isinstance(key, (tuple, frozenset)):
        parts = [describe(part) for part in key]
        return f"({', '.join(parts if isinstance(key, tuple) else sorted(parts))})"
    value = key.value if isinstance(key, _Same) else key
    if isinstance(value, types.CodeType):
        return value.co_qualname
    if isinstance(value, (int, str, bytes, types.NoneType)):
        return repr(value)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    return name if isinstance(name, str) else type(value).__qualname__


@dataclass_transform(frozen_default=True)
def algorithm(cls: type[T]) -> type[T]:
    """Turns a class into a frozen dataclass of options that hashes by value, functions and optimisers included.

    Values are compared as they were when the algorithm was first used.

    Example:
        >>> @algorithm
        ... class Repeat:
        ...     times: int = 3
        ...     function: object = None
        >>> Repeat(2, lambda x: x) == Repeat(2, None)
        False
        >>> make = lambda: Repeat(2, lambda x: x)
        >>> make() == make(), hash(make()) == hash(make())
        (True, True)
    """
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)

    def key(self: Any) -> Any:
        if "_key" not in self.__dict__:  # once: a program that was compiled for it must be found under the same key
            values = (value_key(getattr(self, f.name)) for f in dataclasses.fields(self))
            object.__setattr__(self, "_key", (type(self), *values))
        return self._key

    cls.__hash__ = lambda self: hash(key(self))  # type: ignore[assignment, method-assign]
    cls.__eq__ = lambda self, other: type(self) is type(other) and key(self) == key(other)  # type: ignore[assignment, method-assign]
    return cls


class ByValue:
    """A function that hashes by value, to be a static argument of `jax.jit`.

    Example:
        >>> make = lambda: ByValue(lambda x: x + 1)
        >>> make() == make(), make()(1)
        (True, 2)
    """

    def __init__(self, function: Any):
        self.function = function
        self._key = value_key(function)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByValue) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)
