"""Checks of a bijection in the arithmetic that it runs in: that it inverts, and that its log-det is right."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.bijections.autoregressive import Autoregressive
from jaxgen.bijections.coupling import Coupling
from jaxgen.bijections.transforms import SplineTransform


@jax.jit
def _there_and_back(layer: Any, x: Any, z: Any, context: Any) -> tuple[jax.Array, jax.Array]:
    axes = (0, None if context is None else 0)
    from_x, from_z = (
        jax.vmap(lambda a, c, f=f, g=g: g(f(a, c)[0], c)[0], in_axes=axes)(points, context)
        for f, g, points in (
            (layer.inverse_and_log_det, layer.forward_and_log_det, x),
            (layer.forward_and_log_det, layer.inverse_and_log_det, z),
        )
    )
    return jnp.abs(from_x - x), jnp.abs(from_z - z)


def round_trip(layer: Any, x: Any, z: Any, context: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the round-trip errors of a bijection, from data to the base and back, and from the base to data and back.

    Args:
        layer: any bijection.
        x: events `[N, *event]`.
        z: points on the side of the base, `[N, *latent]`.
        context: `[N, *context]` or None.

    Returns:
        `|x' - x|` and `|z' - z|`, of their shapes.

    Example:
        >>> from jaxgen.bijections import Affine
        >>> layer = Affine(jnp.full(1, 1e6), jnp.zeros(1))  # float32 has steps of 1/16 at a million
        >>> there, back = round_trip(layer, jnp.array([[1e6]]), jnp.array([[0.01]]))
        >>> float(there.max()), round(float(back.max()), 3)
        (0.0, 0.01)
    """
    there, back = _there_and_back(layer, x, z, context)
    return np.asarray(there), np.asarray(back)


@jax.jit
def _log_dets(layer: Any, x: Any, context: Any) -> Any:
    def one(x: Any, context: Any) -> Any:
        z, inverse_log_det = layer.inverse_and_log_det(x, context)
        y, log_det = layer.forward_and_log_det(z, context)
        jacobian = jax.jacobian(lambda z: layer.forward_and_log_det(z, context)[0].ravel())(z)
        # where the data have more coordinates, their density is that of the first ones
        return jacobian.reshape(y.size, z.size)[: z.size], log_det, inverse_log_det

    return jax.vmap(one, in_axes=(0, None if context is None else 0))(x, context)


def log_det_error(layer: Any, x: Any, context: Any = None) -> np.ndarray:
    """Return the larger error of both directions' log-determinants against autodiff's Jacobian, nats `[N]`.

    The Jacobian is that of the way forward, D columns an event: meant for a few events.

    Args:
        layer: any bijection.
        x: events `[N, *event]`.
        context: `[N, *context]` or None.

    Example:
        >>> from jaxgen.bijections import Affine
        >>> float(log_det_error(Affine(jnp.zeros(2), jnp.ones(2)), jnp.ones((1, 2))).max().round(5))
        0.0
    """
    jacobian, log_det, inverse_log_det = (np.asarray(a, np.float64) for a in _log_dets(layer, x, context))
    exact = np.linalg.slogdet(jacobian)[1]
    return np.maximum(np.abs(log_det - exact), np.abs(inverse_log_det + exact))


@dataclasses.dataclass(frozen=True)
class _Counting:
    """A spline whose log-derivatives are larger by one outside of its interval."""

    spline: SplineTransform
    size = property(lambda self: self.spline.size)
    features = property(lambda self: self.spline.features)

    def seen(self, x):
        return self.spline.seen(x)

    def forward(self, params, x):
        y, log_slope = self.spline.forward(params, x)
        return y, log_slope + (jnp.abs(x) > self.spline.bound)

    def inverse(self, params, y):
        x, log_slope = self.spline.inverse(params, y)
        return x, log_slope + (jnp.abs(x) > self.spline.bound)


def outside(layer: Any, x: Any, context: Any = None) -> np.ndarray:
    """True for each event that meets a spline outside its interval, in the linear tails, on the way to the base.

    Args:
        layer: any bijection; one without splines has no outside.
        x: events `[N, *event]`.
        context: `[N, *context]` or None.

    Returns:
        bools `[N]`.

    Example:
        >>> layer = Coupling.init(jax.random.key(0), jnp.zeros((1, 2)), SplineTransform(4, bound=3.0), features=(8,))
        >>> outside(layer, jnp.array([[0.0, 2.0], [0.0, 4.0]])).tolist()
        [False, True]
    """
    has_splines = lambda a: (  # noqa: E731
        isinstance(a, Coupling | Autoregressive) and isinstance(a.transform, SplineTransform)
    )
    # the same layers, counting: whatever they are parts of adds up their log-determinants
    counting = jax.tree.map(
        lambda a: dataclasses.replace(a, transform=_Counting(a.transform)) if has_splines(a) else a, layer,
        is_leaf=has_splines,
    )  # fmt: skip
    return np.asarray(_counts(counting, layer, x, context)) > 0.5


@jax.jit
def _counts(counting: Any, layer: Any, x: Any, context: Any) -> jax.Array:
    def one(x: Any, context: Any) -> jax.Array:
        return counting.inverse_and_log_det(x, context)[1] - layer.inverse_and_log_det(x, context)[1]

    return jax.vmap(one, in_axes=(0, None if context is None else 0))(x, context)
