"""Networks whose kernels are divided by their spectral norms."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.pytree import fixed, model
from jaxgen.nn.net import Net

#: iterations of the power method at the start, from random vectors
WARM = 15


@model
class Spectral:
    """A network with every kernel divided by its largest singular value, for critics of bounded slope.

    `W / s`, `s = |W u|`, with one step of the power method, `u' = W^T W u / |W^T W u|`, in every update of the critic.
    Of activations of slope 1 at most (a rectifier, also a leaky one) each layer has a slope of 1 at most. The gradient
    of s goes through W alone.

    Kernels are the parameters named `kernel` with two axes or more: those of dense layers `[in, out]`, and of
    convolutions `[height, width, in, out]`, which count as the matrix `[height width in, out]`.

    Args:
        net: the network; its numbers train.
        vectors: right singular vectors by the path of their kernel, `[out]` each, which never train.

    Source: Miyato, Kataoka, Koyama and Yoshida (2018), Spectral normalization for generative adversarial networks,
    algorithm 1.

    Example:
        >>> from jaxgen.nn.mlp import MLP
        >>> critic = Spectral.init(jax.random.key(0), MLP((16, 1), jax.nn.leaky_relu), (2,))
        >>> critic(jnp.ones((5, 2))).shape, sorted(critic.vectors)
        ((5, 1), ['Dense_0/kernel', 'Dense_1/kernel'])
    """

    net: Any
    vectors: Any = fixed()

    @classmethod
    def init(cls, key, module: Any, *examples: Any) -> Spectral:
        """Draws parameters and vectors.

        Args:
            key: typed key.
            module: a network, as `Net.init` takes it.
            examples: for each of its inputs an array or a shape, as for `Net.init`.

        Raises:
            ModelError: no network, or one without kernels.
        """
        net_key, key = jax.random.split(key)
        net = Net.init(net_key, module, *examples)
        kernels = _kernels(net.params)
        if not kernels:
            raise ModelError(
                "the network has no kernels", called="nn.Spectral.init(key, module, ...)",
                expected="parameters named kernel with two axes or more", got=f"{type(module).__name__} without",
                fix="jaxgen.nn.mlp.MLP((64, 1))",
            )  # fmt: skip
        keys = jax.random.split(key, len(kernels))
        vectors = {
            name: _unit(jax.random.normal(one, matrix.shape[1:], matrix.dtype))
            for one, (name, matrix) in zip(keys, kernels.items(), strict=True)
        }
        return cls(net, jax.lax.fori_loop(0, WARM, lambda _, vectors: _iterated(kernels, vectors), vectors))

    def norms(self) -> dict[str, jax.Array]:
        """Return the estimate of each kernel's largest singular value, by its path."""
        return {name: _norm(matrix, self.vectors[name]) for name, matrix in _kernels(self.net.params).items()}

    def __call__(self, *inputs: Any, key: Any = None) -> Any:
        """The output of the network with divided kernels."""
        norms = self.norms()

        def divided(path: Any, leaf: Any) -> Any:
            name = _name(path)
            if name not in norms:
                return leaf
            norm = norms[name]
            return leaf / jnp.where(norm > 0, norm, 1)  # a kernel that starts at zero is zero

        params = jax.tree_util.tree_map_with_path(divided, self.net.params)
        return dataclasses.replace(self.net, params=params)(*inputs, key=key)

    def moved(self, *inputs: Any) -> Spectral:
        """Return the network with vectors one step of the power method further."""
        return dataclasses.replace(self, vectors=_iterated(_kernels(self.net.params), self.vectors))


def _kernels(params: Any) -> dict[str, jax.Array]:
    """The kernels as matrices, by their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    named = {_name(path): leaf for path, leaf in leaves if jnp.ndim(leaf) >= 2}
    kernels = {name: leaf for name, leaf in named.items() if name.replace(".", "/").split("/")[-1] == "kernel"}
    return {name: leaf.reshape((-1, leaf.shape[-1])) for name, leaf in kernels.items()}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _norm(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    right = jax.lax.stop_gradient(vector)
    left = jax.lax.stop_gradient(_unit(matrix @ right))
    return left @ (matrix @ right)


def _iterated(kernels: dict[str, jax.Array], vectors: dict[str, jax.Array]) -> dict[str, jax.Array]:
    after = {name: matrix.T @ _unit(matrix @ vectors[name]) for name, matrix in kernels.items()}
    # a kernel of zeros has no direction: its vector stays, to find one once there is any
    return {name: jnp.where(jnp.any(new != 0), _unit(new), vectors[name]) for name, new in after.items()}


def _unit(vector: jax.Array) -> jax.Array:
    norm = jnp.linalg.norm(vector)
    return vector / jnp.where(norm > 0, norm, 1)
