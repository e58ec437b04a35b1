"""Posteriors of hidden variables: densities whose context is what a network says of an event.

Any density of the latent's shape that takes a context is one. Here stand the families without parameters of their own,
whose context is all of their parameters, and flows whose layers see the context as features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections import (
    Affine,
    AffineTransform,
    Autoregressive,
    Chain,
    Conditional,
    Coupling,
    Inverse,
    Permute,
    Planar,
    SplineTransform,
    Transform,
)
from jaxgen.core.errors import ModelError
from jaxgen.core.methods import is_count
from jaxgen.models.densities.conditional_normal import ConditionalNormal
from jaxgen.models.densities.enumerated import EnumeratedBernoulli, EnumeratedCategorical
from jaxgen.models.densities.full_normal import FullNormal
from jaxgen.models.densities.relaxed import RelaxedBernoulli, RelaxedCategorical
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.densities.von_mises_fisher import UniformSphere, VonMisesFisher
from jaxgen.models.neural.flow import Flow

__all__ = [
    "ConditionalNormal",
    "EnumeratedBernoulli",
    "EnumeratedCategorical",
    "FullNormal",
    "RelaxedBernoulli",
    "RelaxedCategorical",
    "UniformSphere",
    "VonMisesFisher",
    "iaf",
    "planar",
    "spline",
]


def __dir__() -> list[str]:
    return __all__


def planar(key: Any, size: int, features: int, *, layers: int = 8, hidden: tuple[int, ...] = ()) -> Flow:
    """A standard normal pushed about planes that the context chooses, then in the context's location and scale.

    Args:
        key: typed key.
        size: L, the length of z.
        features: F, the length of a context.
        layers: planar layers, each one hidden unit; in many dimensions they bend little.
        hidden: widths of the networks from the context to a layer's parameters; () is linear.

    Returns:
        A `Flow` of events `[L]` and contexts `[F]`, which starts as the standard normal. Draws with their densities are
        one pass; the density of other points is a search, layer by layer.

    Raises:
        ModelError: sizes or layers below 1.

    Source: Rezende and Mohamed (2015), Variational inference with normalizing flows.

    Example:
        >>> q = planar(jax.random.key(0), 2, 5, layers=2)
        >>> z, log_q = q.sample_and_log_prob(jax.random.key(1), (3,), context=jnp.zeros(5))
        >>> z.shape, log_q.shape
        ((3, 2), (3,))
    """
    _check("planar", size, features, layers)
    keys = jax.random.split(key, 2 * layers + 1)

    def layer(i: int) -> Any:
        return Conditional.init(keys[2 * i], Planar.init(keys[2 * i + 1], (size,)), (features,), features=hidden)

    return _flow(keys[-1], size, features, [layer(i) for i in range(layers)])


def iaf(
    key: Any, size: int, features: int, *, layers: int = 2, hidden: tuple[int, ...] = (64,),
    transform: Transform | None = None, activation: Callable[[Any], Any] = jax.nn.silu,
) -> Flow:  # fmt: skip
    """Inverse autoregressive layers on a standard normal, which see the context, then its location and scale.

    Args:
        key: typed key.
        size: L, the length of z.
        features: F, the length of a context.
        layers: autoregressive layers, with the order of coordinates reversed between them.
        hidden: widths of their masked networks.
        transform: what moves a coordinate, given those before it; None is `AffineTransform()`.
        activation: of the networks, a module-level function.

    Returns:
        A `Flow` of events `[L]` and contexts `[F]`, which starts as the standard normal. Draws with their densities are
        one pass; the density of other points takes up to L passes a layer.

    Raises:
        ModelError: sizes or layers below 1.

    Source: Kingma et al. (2016), Improving variational inference with inverse autoregressive flow.

    Example:
        >>> q = iaf(jax.random.key(0), 2, 5, hidden=(8,))
        >>> round(float(q.log_prob(jnp.zeros(2), context=jnp.ones(5))), 4)
        -1.8379
    """
    _check("iaf", size, features, layers)
    keys = jax.random.split(key, layers + 1)
    stack: list[Any] = []
    for k in keys[:-1]:
        layer = Autoregressive.init(
            k, (size,), transform or AffineTransform(), features=hidden, activation=activation,
            context_shape=(features,),
        )  # fmt: skip
        stack += [Inverse(layer), Permute.from_values(range(size)[::-1])]
    return _flow(keys[-1], size, features, stack)


def spline(
    key: Any, size: int, features: int, *, layers: int = 2, hidden: tuple[int, ...] = (64,),
    transform: Transform | None = None, activation: Callable[[Any], Any] = jax.nn.silu,
) -> Flow:  # fmt: skip
    """Couplings by splines on a standard normal, which see the context, then its location and scale.

    Args:
        key: typed key.
        size: L, the length of z, 2 or more.
        features: F, the length of a context.
        layers: couplings, with the order of coordinates reversed between them; two move every coordinate.
        hidden: widths of their networks.
        transform: what moves a coordinate; None is `SplineTransform()`.
        activation: of the networks, a module-level function.

    Returns:
        A `Flow` of events `[L]` and contexts `[F]`, which starts as the standard normal. Draws and densities of any
        points are one pass each.

    Raises:
        ModelError: sizes or layers below 1, or a z of one number, which leaves nothing to see.

    Source: Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows, section 5.2.

    Example:
        >>> q = spline(jax.random.key(0), 2, 5, hidden=(8,))
        >>> round(float(q.log_prob(jnp.zeros(2), context=jnp.ones(5))), 4)
        -1.8379
    """
    _check("spline", size, features, layers)
    keys = jax.random.split(key, layers + 1)
    stack: list[Any] = []
    for k in keys[:-1]:
        layer = Coupling.init(
            k, (size,), transform=transform or SplineTransform(), features=hidden, activation=activation,
            context_shape=(features,),
        )  # fmt: skip
        stack += [layer, Permute.from_values(range(size)[::-1])]
    return _flow(keys[-1], size, features, stack)


def _flow(key: Any, size: int, features: int, layers: list[Any]) -> Flow:
    """The layers, which work in units of the base, and the context's location and scale."""
    place = Conditional.init(key, Affine(jnp.zeros(size), jnp.zeros(size)), (features,), features=())
    return Flow(StandardNormal((size,)), Chain((*layers, place)))


def _check(name: str, size: int, features: int, layers: int) -> None:
    if not all(is_count(n, 1) for n in (size, features, layers)):
        raise ModelError(
            "a posterior needs coordinates, features and layers", called=f"posteriors.{name}(key, size, features)",
            expected="whole numbers of 1 or more", got=f"size {size}, features {features}, layers {layers}",
        )  # fmt: skip
