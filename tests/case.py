"""What a case of the laws is, and what cases are made with: noise on every leaf, grids, enumerations."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.pytree import combine, partition


def moved(key, model, scale=0.3):
    """The model with noise added to every trained leaf."""
    trained, rest = partition(model)
    return combine(_noisy(key, trained, scale), rest)


@jax.jit
def _noisy(key, trained, scale):
    leaves, tree = jax.tree.flatten(trained)
    noise = [scale * jax.random.normal(k, leaf.shape, leaf.dtype)
             for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)]  # fmt: skip
    moved = [jnp.where(jnp.isfinite(leaf), leaf + n, leaf) for leaf, n in zip(leaves, noise, strict=True)]
    return jax.tree.unflatten(tree, moved)


def as_dtype(model, dtype):
    """The model with its floating leaves in another precision."""
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, model)


def grid(low, high, n, dims=2):
    """A midpoint grid over a box: points and the volume of a cell, for integrals of densities that fall to zero."""
    step = (high - low) / n
    axis = low + step * (np.arange(n) + 0.5)
    return np.stack(np.meshgrid(*[axis] * dims, indexing="ij"), -1).reshape(-1, dims), step**dims


def every(values, shape):
    """All arrays of a shape with entries of a finite set, and the volume 1 of each."""
    size = int(np.prod(shape))
    return np.array(list(itertools.product(values, repeat=size))).reshape(-1, *shape), 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One model under the laws.

    Args:
        name: of the test.
        make: `key -> model`.
        space: the whole space as `(points, cell volume)`, for sums and integrals; None where it is too large.
        length: the free length of its events.
        context: shape of the context, or None.
        draw: `(key, shape) -> contexts`; None draws normal ones.
        algorithm: what trains it; None is the default of its protocol.
        tolerance: of integrals over `space`, nats; of quadrature, not of arithmetic.
    """

    name: str
    make: Callable[[Any], Any]
    space: tuple[np.ndarray, float] | None = None
    length: int | None = None
    context: tuple[int, ...] | None = None
    draw: Callable[[Any, tuple[int, ...]], Any] | None = None
    algorithm: Any = None
    tolerance: float = 1e-4

    def contexts(self, key, n):
        return None if self.context is None else (self.draw or jax.random.normal)(key, (n, *self.context))

    def events(self, key, model, n):
        """`n` events of the model's own, and their contexts."""
        first, second = jax.random.split(key)
        context = self.contexts(first, n)
        options = {} if self.length is None else {"length": self.length}
        return model.sample(second, (n,), context=context, **options), context
