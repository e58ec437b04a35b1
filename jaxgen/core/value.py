"""Hashing by value: what makes a rebuilt algorithm find the program that its twin compiled.

optax transformations and lambdas hash by identity, so `optax.adam(1e-3)` written twice would compile twice. Two
functions with the same code and equal closures, defaults and globals do the same thing; `value_key` compares those.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


class _Same:
    """Equal to itself alone; holds the object, so that its address is not given to another while the key lives."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def value_key(value: Any) -> Any:
    """A hashable key that is equal for values which behave alike.

    Plain values, tuples and frozen dataclasses compare by value, functions by code and closure, anything else
    (arrays, mutable containers, instances) by identity.

    Example:
        >>> import optax
        >>> value_key(optax.adam(1e-3)) == value_key(optax.adam(1e-3))
        True
        >>> value_key(optax.adam(1e-3)) == value_key(optax.adam(1e-2))
        False
    """
    return _key(value, frozenset())


def _key(value: Any, seen: frozenset[int]) -> Any:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return (type(value), value)
    if id(value) in seen:  # a function that closes over itself
        return _Same(value)
    seen = seen | {id(value)}
    if isinstance(value, tuple):
        return (type(value), *(_key(v, seen) for v in value))
    if isinstance(value, types.FunctionType):
        cells = tuple(_key(_content(c), seen) for c in value.__closure__ or ())
        defaults = _key(value.__defaults__, seen)
        keywords = tuple((k, _key(v, seen)) for k, v in sorted((value.__kwdefaults__ or {}).items()))
        return (value.__code__, _Same(value.__globals__), cells, defaults, keywords)
    if isinstance(value, functools.partial):
        keywords = tuple((k, _key(v, seen)) for k, v in sorted(value.keywords.items()))
        return (functools.partial, _key(value.func, seen), _key(value.args, seen), keywords)
    if isinstance(value, types.MethodType):
        return (types.MethodType, _key(value.__func__, seen), _key(value.__self__, seen))
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and type(value).__hash__ is not None:
        try:
            hash(value)
        except TypeError:
            return _Same(value)
        return value
    return _Same(value)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


@dataclass_transform(frozen_default=True)
def algorithm(cls: type[T]) -> type[T]:
    """Turns a class into a frozen dataclass of options that hashes by value, functions and optimisers included.

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
        return (type(self), *(value_key(getattr(self, f.name)) for f in dataclasses.fields(self)))

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
