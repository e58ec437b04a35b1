"""Ways to compile only once: eager calls with a loop, which otherwise compile every time, and whole processes."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from jaxgen.core.inputs import concrete

F = TypeVar("F", bound=Callable[..., Any])

#: a method or function of arrays and models as one program for each of their shapes, which is part of a larger program
#: where it is called inside of one; a property goes on top: `@property` over `@compiled`
compiled: Callable[[F], F] = functools.partial(jax.jit, inline=True)  # type: ignore[assignment]

#: for XLA on a CPU: kernels of a plainer make, of which half the time goes to compile them, and nearly as fast
PLAIN = {"xla_cpu_use_fusion_emitters": False}
#: and without optimising them, a third of the time, and a few times as slow
AS_IT_STANDS = {**PLAIN, "xla_backend_optimization_level": 0}
#: what is said where an option is unknown, and where a function closes over a differentiated value
UNKNOWN = re.compile(r"No such compile option: '(\w+)'")
CLOSED = "`compiler_options` can only be passed to top-level"
# those of the options that this XLA was found not to know: asked once a process, not once a call
_UNKNOWN: set[str] = set()
#: numbers in the arguments of a program up to which it runs once in less time than its fastest form costs to find
FEW_NUMBERS = 2**17

#: programs of `compiled_by_trace` that are kept, those used last
KEPT = 256
_PROGRAMS: OrderedDict[Any, Callable[..., Any]] = OrderedDict()


def compiled_once(*, static_argnames: Sequence[str] = (), rounds: bool = False) -> Callable[[F], F]:
    """Compile a function that is called once for its shapes, such as a start from data, with less to wait for.

    What XLA's optimiser would save in one call on a few numbers is less than it costs: there a CPU gets a program with
    less of it, which may round the last digit in another way. On other devices, on many numbers, and inside of larger
    programs, `vmap` and `grad` it is `jax.jit`.

    Args:
        static_argnames: as in `jax.jit`.
        rounds: whether it works in up to thousands of rounds, which pay for optimised kernels, of a plainer make.

    Example:
        >>> import jax.numpy as jnp
        >>> start = compiled_once(static_argnames=("k",))(lambda x, k: jnp.linspace(x.min(), x.max(), k))
        >>> start(jnp.arange(3.0), k=3).tolist(), jax.jit(lambda x: start(x, k=2))(jnp.arange(3.0)).tolist()
        ([0.0, 1.0, 2.0], [0.0, 2.0])
    """

    def decorate(function: F) -> F:
        jit = functools.partial(jax.jit, static_argnames=static_argnames)
        wanted, fastest = PLAIN if rounds else AS_IT_STANDS, jit(function)
        quick = functools.cache(lambda names: jit(function, compiler_options={name: wanted[name] for name in names}))

        @functools.wraps(function)
        def public(*args: Any, **options: Any) -> Any:
            given = [leaf for leaf in jax.tree.leaves((args, options)) if isinstance(leaf, (jax.Array, np.ndarray))]
            few = sum(leaf.size for leaf in given) <= FEW_NUMBERS
            if few and concrete(given) and jax.default_backend() == "cpu" and not _inside_a_program():
                while names := tuple(name for name in wanted if name not in _UNKNOWN):
                    try:
                        return quick(names)(*args, **options)
                    except (jax.errors.JaxRuntimeError, ValueError) as error:
                        if unknown := UNKNOWN.search(str(error)):  # another XLA has other options
                            _UNKNOWN.add(unknown[1])
                        elif CLOSED in str(error):
                            break
                        else:
                            raise
            return fastest(*args, **options)

        return public  # type: ignore[return-value]

    return decorate


def _inside_a_program() -> bool:
    """True while a larger program is traced, whose compiler options are its own."""
    return isinstance(jax.device_put(np.zeros(())), jax.core.Tracer)


def compiled_by_trace(function: F) -> F:
    """Opens a function of functions, or of options of any kind, to eager calls: traced in each, compiled once.

    What a lambda does cannot be seen in it, since it closes over arrays that differ from call to call; but it can in a
    trace, where they are arguments. In an eager call values are known while it is traced: they can be checked, as long
    as nothing was computed of them by jax.

    Example:
        >>> import jax.numpy as jnp
        >>> @compiled_by_trace
        ... def twice(function, x):
        ...     return jax.lax.fori_loop(0, 2, lambda _, x: function(x), x)
        >>> [float(twice(lambda x: x + a, 1.0)) for a in (jnp.ones(()), jnp.zeros(()))]
        [3.0, 1.0]
    """

    @functools.wraps(function)
    def public(*args: Any, **options: Any) -> Any:
        if not concrete(args, options):
            return function(*args, **options)
        closed, shape = jax.make_jaxpr(lambda: function(*args, **options), return_shape=True)()
        if not concrete(closed.consts):
            return function(*args, **options)  # it closes over what a larger program traces
        # a number in the text has all its digits, an array inside of an inner program is seen apart
        key = str(closed.jaxpr), *_inner_arrays(closed.jaxpr), *(c.dtype for c in closed.consts)
        program = _PROGRAMS.setdefault(key, jax.jit(lambda consts: jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, consts))()))
        _PROGRAMS.move_to_end(key)
        if len(_PROGRAMS) > KEPT:
            _PROGRAMS.popitem(last=False)
        return jax.tree.unflatten(jax.tree.structure(shape), program(closed.consts))

    return public  # type: ignore[return-value]


def _inner_arrays(jaxpr: Any) -> Iterator[Any]:
    """The arrays that stand inside of a program without being written in its text."""
    for equation in jaxpr.eqns:
        for variable in equation.invars:
            if isinstance(variable, Literal) and np.ndim(variable.val):
                yield _content(variable.val)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            for constant in getattr(value, "consts", ()):
                yield _content(constant)
            if hasattr(value, "eqns"):
                yield from _inner_arrays(getattr(value, "jaxpr", value))


def _content(array: Any) -> Any:
    raw = jax.random.key_data(array) if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key) else array
    return str(array.dtype), np.shape(array), np.asarray(raw).tobytes()


def keep_programs() -> Path | None:
    """Lets JAX keep this process's compiled programs for the next ones, in a folder of this user alone.

    The folder is `jaxgen/programs` where the platform keeps caches: it may be deleted at any time. A cache that was
    chosen by `JAX_COMPILATION_CACHE_DIR` or `jax.config` stays, also none (an empty name).

    Returns:
        The folder; None where another choice was made or there can be no private folder: nothing is kept then. What
        others may write there would run here.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return None
    folder = _cache_home() / "jaxgen" / "programs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix" and (folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077):
            return None
    except (OSError, RuntimeError):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # most programs of a first fit take less than the second from which JAX keeps them
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def _cache_home() -> Path:
    """Return the folder in which the platform keeps caches."""
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
