"""Linear bijections of vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.gate import as_array
from jaxgen.core.pytree import fixed, model
from jaxgen.nn.bijections.basics import check


@model
class Permute:
    """The coordinates of a vector in another order; never trained.

    `y_i = x_order(i)`, `log |det| = 0`

    Args:
        order: `[D]` int32, each of 0 to D-1 once.

    Example:
        >>> Permute.from_order([2, 0, 1]).forward(jnp.array([1.0, 2.0, 3.0]))[0].tolist()
        [3.0, 1.0, 2.0]
    """

    order: jax.Array = fixed()

    @classmethod
    def from_order(cls, order) -> Permute:
        """From integers `[D]`.

        Raises:
            ModelError: a number of 0 to D-1 is missing.
        """
        order = np.asarray(as_array(order, name="order"))
        if order.ndim != 1 or sorted(order.tolist()) != list(range(order.size)):
            raise ModelError(
                "not an order of the coordinates", called="Permute.from_order(order)", got=str(order.tolist())[:80],
                expected=f"each of 0 to {order.size - 1} once", fix="jax.random.permutation(key, d)",
            )  # fmt: skip
        return cls(jnp.asarray(order, jnp.int32))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.order.shape

    def forward(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward", x, context)
        return _take(x, self.order), jnp.zeros((), x.dtype)

    def inverse(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse", y, context)
        return _take(y, jnp.argsort(self.order)), jnp.zeros((), y.dtype)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


def _take(x, order):
    # both promises hold for every order, and spare the bounds check and the sort in the gradient
    return x.at[order].get(mode="promise_in_bounds", unique_indices=True)
