"""Penalties that are added to a training objective: weight decay, and a target for hidden units."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Encoder, has
from jaxgen.core.pytree import partition
from jaxgen.core.value import algorithm
from jaxgen.losses import weighted_mean


@algorithm
class Decay:
    """Weight decay: `(strength / 2) sum W^2` over trained leaves of two axes and more; biases are left alone.

    Args:
        strength: 0 or more; 1e-5 to 1e-2 are usual.

    Source: Hinton (2012), A practical guide to training restricted Boltzmann machines, section 10.

    Example:
        >>> round(float(Decay(0.1)({"weights": jnp.full((2, 2), 3.0), "bias": jnp.ones(2)}, None)), 4)
        1.8
    """

    strength: float

    def __call__(self, model: Any, batch: Batch | None) -> jax.Array:
        squares = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(partition(model)[0]) if jnp.ndim(leaf) >= 2]
        return 0.5 * self.strength * sum(squares, jnp.zeros(()))


@algorithm
class Sparsity:
    """A target for the mean of each hidden unit: `(strength / 2) sum_j (target - mean_n encode(x_n)_j)^2`.

    The mean is that of the batch. Of bits it keeps units from being always on or always off.

    Args:
        target: of each unit, such as 0.1.
        strength: 0 or more.

    Source: Lee, Ekanadham and Ng (2008), Sparse deep belief net model for visual area V2, equation 3.

    Example:
        >>> import jaxgen as jg
        >>> rbm = jg.RBM.from_values(jnp.zeros(3), jnp.zeros(2), jnp.zeros((3, 2)))
        >>> round(float(Sparsity(0.1, 1.0)(rbm, Batch(jnp.ones((5, 3))))), 4)  # two units at 1/2
        0.16
    """

    target: float
    strength: float

    def __call__(self, model: Any, batch: Batch) -> jax.Array:
        if not has(model, Encoder):
            raise FitError(
                "there are no hidden units to be sparse", called=repr(self), expected="a model with encode(x)",
                got=type(model).__name__,
            )  # fmt: skip
        weight = None if batch.weight is None else batch.weight
        mean = jax.vmap(lambda column: weighted_mean(column, weight), in_axes=1)(model.encode(batch.x))
        return 0.5 * self.strength * jnp.sum((mean - self.target) ** 2)
