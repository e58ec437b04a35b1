"""Linear bijections of vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.bijections.basics import as_floating, check, vectors
from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_bijector
from jaxgen.core.inputs import as_array, concrete, floating
from jaxgen.core.methods import check_key
from jaxgen.core.pytree import fixed, model
from jaxgen.ops.linalg import tril_inverse


@model
class Permute:
    """The coordinates of a vector in another order; never trained.

    `y_i = x_order(i)`, `log |det| = 0`

    Args:
        order: `[D]` int32, each of 0 to D-1 once.

    Example:
        >>> Permute.from_values([2, 0, 1]).forward_and_log_det(jnp.array([1.0, 2.0, 3.0]))[0].tolist()
        [3.0, 1.0, 2.0]
    """

    order: jax.Array = fixed()

    @classmethod
    def from_values(cls, order) -> Permute:
        """From integers `[D]`.

        Raises:
            ModelError: a number of 0 to D-1 is missing.
        """
        order = np.asarray(as_array(order, name="order"))
        if order.ndim != 1 or sorted(order.tolist()) != list(range(order.size)):
            raise ModelError(
                "not an order of the coordinates", called="Permute.from_values(order)", got=str(order.tolist())[:80],
                expected=f"each of 0 to {order.size - 1} once", fix=f"jax.random.permutation(key, {order.size})",
            )  # fmt: skip
        return cls(jnp.asarray(order, jnp.int32))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.order.shape

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        return _take(x, self.order), jnp.zeros((), x.dtype)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        return _take(y, jnp.argsort(self.order)), jnp.zeros((), y.dtype)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


def _take(x, order):
    # both promises hold for every order, and spare the bounds check and the sort in the gradient
    return x.at[order].get(mode="promise_in_bounds", unique_indices=True)


@model
class LULinear:
    """A matrix in its triangular factors.

    `y = P L U x`, `log |det| = sum log_diagonal`; L has ones on its diagonal, U `exp(log_diagonal)`, and P is a fixed
    permutation.

    Args:
        lower: `[D, D]`, read below the diagonal.
        upper: `[D, D]`, read above the diagonal.
        log_diagonal: `[D]`.
        order: `[D]` int32, the permutation: `y_i = (L U x)_order(i)`; never trained.

    Every matrix that can be inverted and has a positive determinant up to the permutation's sign is one of these, for
    some P. Both directions are products with matrices; the factors are inverted once for all events of a batch.

    Source: Kingma and Dhariwal (2018), Glow: generative flow with invertible 1x1 convolutions, section 3.2.

    Example:
        >>> layer = LULinear.from_values(jnp.eye(2), jnp.array([[0.0, 3.0], [0.0, 0.0]]), [1.0, 1.0])
        >>> layer.forward_and_log_det(jnp.array([1.0, 2.0]))[0].tolist()
        [7.0, 2.0]
    """

    lower: jax.Array
    upper: jax.Array
    log_diagonal: jax.Array
    order: jax.Array = fixed()

    @classmethod
    def init(cls, key, x) -> LULinear:
        """A random permutation, with L = U = I, for events like x, `[N, D]` or the shape `(D,)` of one.

        Raises:
            ShapeError: events that are no vectors.
        """
        check_key(key, "LULinear.init")
        size, dtype = vectors(x, "LULinear.init(key, x)")
        zeros = jnp.zeros((size, size), dtype)
        return cls(zeros, zeros, zeros[0], jax.random.permutation(key, size).astype(jnp.int32))

    @classmethod
    def from_values(cls, lower, upper, diagonal, order=None) -> LULinear:
        """From the factors `[D, D]`, of which the triangles count, the diagonal `[D]` of U, and P.

        Args:
            lower, upper: read below and above the diagonal.
            diagonal: of U, positive; that of L is ones.
            order: `[D]`, each number from 0 to D - 1 once; None leaves the coordinates in their order.

        Raises:
            ModelError: shapes that do not fit, a diagonal that is not positive, an order that is none.
        """
        called = "LULinear.from_values(lower, upper, diagonal)"
        lower, upper, diagonal = (floating(v, name=n) for v, n in
                                  ((lower, "lower"), (upper, "upper"), (diagonal, "diagonal")))  # fmt: skip
        size = diagonal.shape[-1] if diagonal.ndim else 0
        order = jnp.arange(size) if order is None else jnp.asarray(order)
        shapes = (lower.shape, upper.shape, diagonal.shape, order.shape)
        if shapes != ((size, size), (size, size), (size,), (size,)):
            raise ModelError(
                "the factors do not fit each other", called=called, got=", ".join(str(list(s)) for s in shapes),
                expected="lower [D, D], upper [D, D], diagonal [D], order [D]",
            )  # fmt: skip
        if concrete(diagonal, order) and not (
            (diagonal > 0).all() and (np.sort(np.asarray(order)) == np.arange(size)).all()
        ):
            raise ModelError("the factors make no such matrix", called=called, got=f"{diagonal}, {order}"[:120],
                             expected=f"a positive diagonal, and an order of 0 to {size - 1}")  # fmt: skip
        return cls(lower, upper, jnp.log(diagonal), order.astype(jnp.int32))

    @property
    def diagonal(self) -> jax.Array:
        """The diagonal of U, `[D]`, positive."""
        return jnp.exp(self.log_diagonal)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.log_diagonal.shape

    @property
    def matrix(self) -> jax.Array:
        """`P L U`, `[D, D]`."""
        lower, upper = self._factors()
        return matmul(lower, upper)[self.order]

    def _factors(self):
        one = jnp.eye(self.log_diagonal.shape[0], dtype=self.log_diagonal.dtype)
        return jnp.tril(self.lower, -1) + one, jnp.triu(self.upper, 1) + one * jnp.exp(self.log_diagonal)

    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        check(self, "forward_and_log_det", x, context)
        lower, upper = self._factors()
        return _take(matmul(lower, matmul(upper, x)), self.order), jnp.sum(self.log_diagonal)

    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        check(self, "inverse_and_log_det", y, context)
        lower, upper = self._factors()
        # the transpose of the upper factor is a lower one
        x = matmul(tril_inverse(lower), _take(y, jnp.argsort(self.order)))
        return matmul(tril_inverse(upper.T).T, x), -jnp.sum(self.log_diagonal)

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


@model
class Householder:
    """A rotation as a product of K reflections.

    `y = H_K ... H_1 x`, `H_k = I - 2 v_k v_k^T / |v_k|^2`, `log |det| = 0`

    Args:
        vectors: `[K, D]`, the directions `v_k`, of any length; a zero vector leaves things as they are.

    K = D reflections make every orthogonal matrix whose determinant is `(-1)^D`, fewer a part of them.

    Source: Tomczak and Welling (2016), Improving variational auto-encoders using Householder flow, equation 8.

    Example:
        >>> Householder(jnp.array([[1.0, 0.0]])).forward_and_log_det(jnp.array([1.0, 2.0]))[0].tolist()
        [-1.0, 2.0]
    """

    vectors: jax.Array

    @classmethod
    def init(cls, key, x, *, reflections: int | None = None) -> Householder:
        """Random directions for events like x, `[N, D]` or the shape `(D,)` of one; None is D reflections.

        Raises:
            ShapeError: events that are no vectors. ModelError: no reflections.
        """
        check_key(key, "Householder.init")
        size, dtype = vectors(x, "Householder.init(key, x)")
        count = size if reflections is None else reflections
        if count < 1:
            raise ModelError(
                "a rotation without reflections", called=f"Householder.init(key, x, reflections={reflections})",
                expected="1 or more", got=str(count),
            )  # fmt: skip
        return cls(jax.random.normal(key, (count, size), dtype))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.vectors.shape[1:]

    def _reflect(self, x, context, method):
        check(self, method, x, context)
        squares = jnp.sum(self.vectors**2, axis=-1, keepdims=True)
        # normalised first: the square of what is left of rounding then cannot matter
        units = self.vectors * jnp.where(squares > 0, squares, 1) ** -0.5

        def one(x, unit):
            return x - 2 * unit * jnp.sum(unit * x), None

        x = as_floating(x, x, units)
        return jax.lax.scan(one, x, units, reverse=method == "inverse_and_log_det")[0], jnp.zeros((), x.dtype)

    @compiled
    def forward_and_log_det(self, x, context=None):
        """`y` and `log |det dy/dx|`."""
        return self._reflect(x, context, "forward_and_log_det")

    @compiled
    def inverse_and_log_det(self, y, context=None):
        """`x` and `log |det dx/dy|`."""
        return self._reflect(y, context, "inverse_and_log_det")

    def bijector(self):
        """The distrax bijector."""
        return as_bijector(self)


def matmul(a, b):
    # GPUs round the factors of a default float32 product to 10 bits
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
