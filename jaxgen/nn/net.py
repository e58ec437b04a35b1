"""`Net`: a network as a part of a model, whatever library wrote it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled_once
from jaxgen.core.errors import ModelError
from jaxgen.core.files import loadable
from jaxgen.core.inputs import as_array, widened
from jaxgen.core.methods import check_key
from jaxgen.core.pytree import is_named_tuple, model, static
from jaxgen.core.value import algorithm, describe, value_key

#: in place of the names of a function that takes any
ANY = "**"


@loadable
@algorithm
class Applied:
    """A function `apply(params, *inputs)`, with `key=` where it is random, in the place of a module; equal by value."""

    apply: Any

    def __call__(self, params: Any, inputs: Any, key: Any) -> Any:
        return self.apply(params, *inputs, **_random(self.apply, key))


@dataclasses.dataclass(frozen=True)
class Graph:
    """The structure of a flax nnx module, without its numbers; equal by value.

    Args:
        text: the structure in words: what files say of it.
        paths: where its parameters are: of `("layers", 0, "kernel")` the name is `layers.0.kernel`.
        graph: the structure.
    """

    text: str
    paths: tuple[tuple[Any, ...], ...]
    graph: Any = dataclasses.field(repr=False, metadata={"described": True})

    def __call__(self, params: Any, inputs: Any, key: Any) -> Any:
        from flax import nnx

        nested: dict[Any, Any] = {}
        for path in self.paths:
            at = nested
            for step in path[:-1]:
                at = at.setdefault(step, {})
            at[path[-1]] = params[_joined(path)]
        module = nnx.merge(self.graph, nnx.State(nested))
        if key is None:
            module.eval()
            return module(*inputs)
        module.train()
        # what takes any names, as a Sequential does, hands on those that its layers take
        takes = _takes(module, "rngs") or _takes(module, ANY)
        return module(*inputs, **({"rngs": nnx.Rngs(key)} if takes else {}))


@model
class Net:
    """A network and its parameters: a pure map, with no probability in it.

    `net(x) = module.apply({"params": params}, x)`

    Args:
        params: a tree of arrays, all trained.
        module: a flax linen module, or what `init` made of another kind; it hashes by its options, so that an equal
            network compiles nothing anew.

    The module takes one event or any leading axes, as the layers of linen do. It has parameters only: no batch
    statistics, which would make a density depend on more than its event. What is random in it, such as dropout, takes
    the key of `net(x, key=key)`, and is left out without one. It may work in bfloat16, by its own option, such as
    linen's `Dense(n, dtype=jnp.bfloat16)`; what is made of its output is float32.

    Example:
        >>> from jaxgen.nn.mlp import MLP
        >>> net = Net.init(jax.random.key(0), MLP((16, 3)), (2,))
        >>> net(jnp.ones(2)).shape, net(jnp.ones((5, 4, 2))).shape
        ((3,), (5, 4, 3))
        >>> pair = (lambda key, x: {"scale": jnp.ones(x.shape)}, lambda params, x: params["scale"] * x)
        >>> Net.init(jax.random.key(0), pair, (2,))(jnp.ones(2)).tolist()
        [1.0, 1.0]
    """

    params: Any
    module: Any = static()

    @classmethod
    def init(cls, key, module: Any, *examples: Any) -> Net:
        """Draws the parameters.

        Args:
            key: typed key.
            module: a flax linen module; or a pair of functions `init(key, *inputs) -> params` and
                `apply(params, *inputs)` (with `key=` where it is random), of any library; or a flax nnx module, which
                has its numbers already and keeps them.
            examples: for each input of the module an array, or the shape of one as a tuple of ints. The parameters
                take the arrays' floating dtype, float32 where only shapes are given.

        Raises:
            ModelError: no network, options that do not hash, or state other than parameters.
        """
        check_key(key, "Net.init")
        if _is_of(module, "flax.nnx"):
            return cls(*_split(module))
        shapes, dtypes = [], []
        for example in examples:
            if isinstance(example, tuple) and all(isinstance(n, int) for n in example):
                shapes.append((example, jnp.dtype(jnp.float32)))
            else:
                array = jnp.asarray(as_array(example, name="example"))
                shapes.append((array.shape, array.dtype))
                dtypes += [array.dtype] if jnp.issubdtype(array.dtype, jnp.floating) else []
        dtype = jnp.result_type(*dtypes) if dtypes else jnp.float32
        if isinstance(module, tuple) and len(module) == 2 and all(map(callable, module)):
            draw, apply = (Applied(function) for function in module)
            return cls(_drawn(key, draw, tuple(shapes), dtype), apply)
        module = _hashable(module)
        _check_module(module)
        variables = _variables(key, module, tuple(shapes), dtype)
        if state := sorted(set(variables) - {"params"}):
            raise _has_state(module, ", ".join(state))
        return cls(variables.get("params", {}), module)

    def __call__(self, *inputs: Any, key: Any = None) -> Any:
        """The network's output for its inputs; that of one which works in 16 bits as float32.

        Args:
            inputs: arrays.
            key: typed key of what is random in the network; None leaves it out.

        Raises:
            ModelError: a network that is random whatever it is told, without a key.
        """
        if isinstance(self.module, (Applied, Graph)):
            return widened(self.module(self.params, inputs, key))
        further: dict[str, Any] = {}
        for name, value in (("deterministic", key is None), ("train", key is not None), ("training", key is not None)):
            if _takes(self.module, name):
                further[name] = value
        if key is not None:
            further["rngs"] = {"dropout": key}
        try:
            return widened(self.module.apply({"params": self.params}, *inputs, **further))
        except Exception as error:
            if type(error).__name__ != "InvalidRngError":
                raise
            raise ModelError(
                "the network is random", called=f"{type(self.module).__name__}(...)", expected="net(x, key=key)",
                got="no key", fix="a typed key at each call, or a Dropout that is deterministic",
            ) from None  # fmt: skip


def _takes(module: Any, name: str) -> bool:
    return name in _parameters(type(module))  # type: ignore[arg-type]


@functools.cache
def _parameters(kind: type) -> frozenset[str]:
    """The names that a call of a module takes, `ANY` where it takes any: read once for each class."""
    given = inspect.signature(kind.__call__).parameters.values()
    return frozenset(ANY if one.kind is inspect.Parameter.VAR_KEYWORD else one.name for one in given)


def _random(function: Any, key: Any) -> dict[str, Any]:
    """The key under the name by which a function takes it; of one that takes none, none."""
    names = inspect.signature(function).parameters
    return next(({name: key} for name in ("key", "rng") if name in names), {})


def _is_of(module: Any, library: str) -> bool:
    """True for a module of `flax.linen` or `flax.nnx`, without importing either for any other."""
    found = sys.modules.get(library)
    return found is not None and isinstance(module, found.Module)


def _split(module: Any) -> tuple[Any, Graph]:
    """The parameters of an nnx module as a dict, and its structure."""
    from flax import nnx

    split: Any = nnx.split(module, nnx.Param, ...)
    graph, params, rest = split
    if state := jax.tree.leaves(rest):
        raise _has_state(module, f"{len(state)} arrays that are no Param")
    leaves = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(params))[0]
    named = {tuple(step.key for step in path): leaf for path, leaf in leaves}
    return {_joined(path): leaf for path, leaf in named.items()}, Graph(describe(value_key(graph)), tuple(named), graph)


def _joined(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _has_state(module: Any, got: str) -> ModelError:
    return ModelError(
        "the network keeps state besides its parameters", called=f"Net.init(key, {type(module).__name__}(...))",
        expected="parameters only", got=got,
        fix="use LayerNorm or GroupNorm for BatchNorm, and Dropout without rngs: its key comes with the call",
    )  # fmt: skip


def _hashable(value: Any) -> Any:
    """A linen module whose lists are tuples, as those of `Sequential`: they hash, and layers take them as well."""
    if isinstance(value, (list, tuple)) and not is_named_tuple(value):
        return tuple(map(_hashable, value))
    if _is_of(value, "flax.linen"):
        names = [f.name for f in dataclasses.fields(value) if f.init and f.name != "parent"]
        fields = {name: getattr(value, name, None) for name in names}
        new = {name: _hashable(v) for name, v in fields.items()}
        changed = {name: v for name, v in new.items() if v is not fields[name] and v != fields[name]}
        return value.clone(**changed) if changed else value
    return value


def _check_module(module: Any) -> None:
    called = "Net.init(key, module, ...)"
    if isinstance(module, type) or not all(hasattr(module, name) for name in ("init", "apply")):
        raise ModelError(
            "that is no network", called=called,
            expected="an instance of flax.linen.Module or flax.nnx.Module, or a pair (init, apply)",
            got=f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__,
            fix="jaxgen.Net.init(key, jaxgen.nn.mlp.MLP(features=(64, 2)), (3,)), for example",
        )  # fmt: skip
    try:
        hash(module)
    except TypeError as error:
        raise ModelError(
            "the network's options must hash, since they are part of what is compiled", called=called,
            expected="tuples, numbers, functions", got=str(error), fix="write tuples where there are lists or arrays",
        ) from None  # fmt: skip


@compiled_once(static_argnames=("module", "shapes", "dtype"))
def _variables(key: Any, module: Any, shapes: Any, dtype: Any) -> Any:
    keys = {"params": key, "dropout": jax.random.fold_in(key, 1)}
    variables = module.init(keys, *(jnp.zeros(shape, kind) for shape, kind in shapes))
    return _cast(dict(variables), dtype)


@compiled_once(static_argnames=("draw", "shapes", "dtype"))
def _drawn(key: Any, draw: Applied, shapes: Any, dtype: Any) -> Any:
    return _cast(draw.apply(key, *(jnp.zeros(shape, kind) for shape, kind in shapes)), dtype)


def _cast(tree: Any, dtype: Any) -> Any:
    """Parameters in one floating dtype: libraries draw in float32 whatever the data are."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
