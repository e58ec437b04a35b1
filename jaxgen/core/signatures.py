"""Signatures of checked methods, read once, when their class is made, and refused where they cannot be called.

A method is written with the signature that its callers see: what accompanies the events (`context`, `label`,
`observed`) and all options are keywords. What is written is therefore what `help`, editors and type checkers show.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

#: names that others give to what is called otherwise here: as options they would be read as something else in silence
_OTHER_NAMES = {
    "condition": "context", "conditioning": "context", "cond": "context", "contexts": "context", "ctx": "context",
    "labels": "label", "weights": "weight", "rng": "key", "prng_key": "key", "rng_key": "key",
}  # fmt: skip
#: what callers need not give by position
_DEFAULTS: dict[str, Any] = {"shape": (), "weight": None}


@dataclasses.dataclass(frozen=True)
class Signature:
    """The signature of a decorated method, as read from its code.

    Args:
        public: what can be called.
        positional: names that may be given by position, self aside.
        required: names that must be given.
        companions: what the method takes beside the events, of `context`, `label`, `observed`.
        options: static keywords.
        known: all names that a call may use: also companions of the model that this method does not look at.
        complete: what may be given by position is all that must be given.
    """

    public: inspect.Signature
    positional: tuple[str, ...]
    required: frozenset[str]
    companions: tuple[str, ...]
    options: tuple[str, ...]
    known: frozenset[str]
    complete: bool

    def bound(self, model: Any, called: str, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by their names; a call that does not fit is Python's TypeError."""
        named = dict(zip(self.positional, args))  # noqa: B905  # what is too much is found below
        if len(named) == len(args):
            if not given and len(named) == len(self.positional) and self.complete:
                return named
            if named.keys().isdisjoint(given):
                named.update(given)
                if self.required <= named.keys() <= self.known:
                    return named
        try:
            self.public.bind(model, *args, **given)
        except TypeError as error:
            raise TypeError(f"{called}{self.public}: {error}") from None
        raise AssertionError(called)


def read(
    method: Callable[..., Any], *, decorator: str, positional: tuple[str, ...], companions: tuple[str, ...],
    unused: tuple[str, ...] = (),
) -> Signature:  # fmt: skip
    """Read the signature of a method where its class is made.

    Args:
        method: as it is written, self first.
        decorator: what opens it, for errors.
        positional: what such a method takes by position, in order. It may leave out `key`, which it has no use for
            then, and `shape`, which is that of the batch and not the method's business.
        companions: what it may take by keyword, `None` where it is not given.
        unused: companions that a call may name although the method does not take them.

    Raises:
        TypeError: a parameter that is neither of these nor an option, which has a default or comes after a `*`.

    Example:
        >>> def log_prob(self, x, *, context=None, draws=1): ...
        >>> read(log_prob, decorator="per_event", positional=("key", "x"), companions=("context",)).options
        ('draws',)
        >>> def log_prob(self, x, condition): ...
        >>> read(log_prob, decorator="per_event", positional=("key", "x"), companions=("context",))
        Traceback (most recent call last):
        TypeError: @per_event log_prob(self, x, condition): what is called `condition` there is called `context` here
    """
    signature = inspect.signature(method)
    own, *parameters = signature.parameters.values()
    given = {p.name: p for p in parameters}
    front = [name for name in positional if name in given or name == "shape"]
    if [name for name in given if name in front] != [name for name in front if name in given] or not (
        given.keys() >= set(positional) - {"key", "shape"}
    ):
        raise TypeError(f"@{decorator} {method.__name__}{signature}: it begins with self, {', '.join(positional)}")
    options = [p for p in parameters if p.name not in (*positional, *companions)]
    for option in options:
        if wrong := _no_option(option, (*positional, *companions)):
            raise TypeError(f"@{decorator} {method.__name__}{signature}: {wrong}")
    absent = dict.fromkeys(companions)
    public = [_seen(given.get(name), name, Parameter.POSITIONAL_OR_KEYWORD, _DEFAULTS) for name in front]
    public += [_seen(p, p.name, Parameter.KEYWORD_ONLY, absent) for p in parameters if p.name not in front]
    return Signature(
        public=signature.replace(parameters=[own, *public]),
        positional=tuple(front),
        required=frozenset(p.name for p in public if p.default is Parameter.empty),
        companions=tuple(name for name in given if name in companions),
        options=tuple(p.name for p in options),
        known=frozenset({*front, *given, *unused}),
        complete=all(p.default is not Parameter.empty for p in public[len(front) :]),
    )


def _no_option(parameter: Parameter, names: tuple[str, ...]) -> str:
    """Why a parameter cannot be an option, in words; empty where it can."""
    if parameter.name in _OTHER_NAMES:
        return f"what is called `{parameter.name}` there is called `{_OTHER_NAMES[parameter.name]}` here"
    stars = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    if stars or (parameter.default is Parameter.empty and parameter.kind != Parameter.KEYWORD_ONLY):
        return (
            f"there is no `{parameter}` to take, but {', '.join(names)}, and options, which have a default or come "
            "after a `*`"
        )
    return ""


def _seen(written: Parameter | None, name: str, kind: Any, defaults: dict[str, Any]) -> Parameter:
    """The parameter that callers see: with its default, where the method's code needs none."""
    made = Parameter(name, kind) if written is None else written.replace(kind=kind)
    return made.replace(default=defaults[name]) if name in defaults and made.default is Parameter.empty else made
