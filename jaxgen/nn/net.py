"""`Net`: a network as a part of a model, whatever library wrote it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array, widened
from jaxgen.core.methods import check_key
from jaxgen.core.pytree import model, static


@model
class Net:
    """A flax linen module and its parameters: a pure map, with no probability in it.

    `net(x) = module.apply({"params": params}, x)`

    Args:
        params: nested dict of arrays, all trained.
        module: the linen module; it hashes by its options, so an equal network compiles nothing anew.

    The module takes one event or any leading axes, as the layers of linen do. It has parameters only: no batch
    statistics and no dropout, which would make a density depend on more than its event. It may work in bfloat16, by its
    own option, such as linen's `Dense(n, dtype=jnp.bfloat16)`; what is made of its output is float32.

    Example:
        >>> from jaxgen.nn.mlp import MLP
        >>> net = Net.init(jax.random.key(0), MLP((16, 3)), (2,))
        >>> net(jnp.ones(2)).shape, net(jnp.ones((5, 4, 2))).shape
        ((3,), (5, 4, 3))
    """

    params: Any
    module: Any = static()

    @classmethod
    def init(cls, key, module: Any, *examples: Any) -> Net:
        """Draws the parameters.

        Args:
            key: typed key.
            module: a linen module.
            examples: for each input of the module an array, or the shape of one as a tuple of ints. The parameters
                take the arrays' floating dtype, float32 where only shapes are given.

        Raises:
            ModelError: not a linen module, options that do not hash, or state other than parameters.
        """
        check_key(key, "Net.init")
        _check_module(module)
        shapes, dtypes = [], []
        for example in examples:
            if isinstance(example, tuple) and all(isinstance(n, int) for n in example):
                shapes.append((example, jnp.dtype(jnp.float32)))
            else:
                array = jnp.asarray(as_array(example, name="example"))
                shapes.append((array.shape, array.dtype))
                dtypes += [array.dtype] if jnp.issubdtype(array.dtype, jnp.floating) else []
        variables = _variables(key, module, tuple(shapes), jnp.result_type(*dtypes) if dtypes else jnp.float32)
        if state := sorted(set(variables) - {"params"}):
            raise ModelError(
                "the network keeps state besides its parameters", called=f"Net.init(key, {type(module).__name__}(...))",
                expected="parameters only", got=", ".join(state), fix="use LayerNorm or GroupNorm for BatchNorm",
            )  # fmt: skip
        return cls(variables.get("params", {}), module)

    def __call__(self, *inputs: Any) -> Any:
        """The module's output for its inputs; that of a module which works in 16 bits as float32."""
        return widened(self.module.apply({"params": self.params}, *inputs))


def _check_module(module: Any) -> None:
    called = "Net.init(key, module, ...)"
    if isinstance(module, type) or not all(hasattr(module, name) for name in ("init", "apply")):
        raise ModelError(
            "a network is a flax linen module", called=called, expected="an instance of flax.linen.Module",
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


@functools.partial(jax.jit, static_argnames=("module", "shapes", "dtype"))
def _variables(key: Any, module: Any, shapes: Any, dtype: Any) -> Any:
    variables = module.init(key, *(jnp.zeros(shape, kind) for shape, kind in shapes))

    # linen draws in float32 whatever the data are
    def cast(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, dict(variables))
