"""Flows of couplings and splines, and affine autoregressive ones, fitted by the exact likelihood."""

from __future__ import annotations

import functools
from typing import Any

from jaxgen.bijections import Autoregressive, CircularSplineTransform, Coupling, SplineTransform
from jaxgen.bijections.basics import is_periodic
from jaxgen.bijections.supports import Support, real
from jaxgen.bijections.transforms import Transform
from jaxgen.fit.gradient import Gradient
from jaxgen.models.neural.flow import Flow
from jaxgen.recipes.flows import flow_and_adam, inverse_layer


def realnvp(
    key: Any, x: Any, *, base: Any = None, layers: int = 12, features: tuple[int, ...] = (64, 64),
    context_shape: tuple[int, ...] | None = None, support: Support = real, step_size: float = 4e-3,
    steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A RealNVP flow, and Adam on the exact likelihood.

    Gradients are clipped to a norm of 1; the fitted model averages the iterates.

    Args:
        key: typed key.
        x: events `[N, D]`, D at least 2.
        base: any density of events `[D]`, in units of the data's scale; None is the standard normal.
        layers: number of coupling layers.
        features: hidden widths of each layer's network.
        context_shape: shape of one context for a conditional density; None for none.
        support: what values x can take, as in `Flow.init`.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        ModelError, ShapeError: events that are no vectors of two or more coordinates. DataError: data outside of the
            support.

    Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = realnvp(jax.random.key(0), x, layers=2)
        >>> model.event_shape
        (2,)
    """
    layer = functools.partial(Coupling.init, features=tuple(features), context_shape=context_shape)
    return flow_and_adam(key, x, base, layer, layers, support, step_size, steps)


def neural_spline_flow(
    key: Any, x: Any, *, base: Any = None, layers: int = 8, features: tuple[int, ...] = (64, 64), bins: int = 16,
    bound: float = 5.0, autoregressive: bool = False, context_shape: tuple[int, ...] | None = None,
    support: Support = real, step_size: float = 4e-3, steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A flow of rational-quadratic splines, and Adam on the exact likelihood.

    The most accurate of the flows here, and about twice the cost of `realnvp`, with whose arguments it shares the
    meaning of its own.

    Args:
        key: typed key.
        x: events `[N, D]`, D at least 2, or any D where autoregressive.
        base: any density of events `[D]`; None is the standard normal, of angles the uniform density.
        layers: number of layers.
        features: hidden widths of each layer's network.
        bins: pieces of a spline.
        bound: splines act on the interval `[-bound, bound]`, in units of the data's scale and around where each network
            puts it; outside of it they are straight.
        autoregressive: False for couplings, which sample as fast as they score; True for autoregressive layers, more
            flexible, whose samples take several passes.
        context_shape: shape of one context for a conditional density; None for none.
        support: what values x can take, as in `Flow.init`; for angles `circle`, with circular splines.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        ModelError, ShapeError: events that are no such vectors. DataError: data outside of the support.

    Source: Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = neural_spline_flow(jax.random.key(0), x, layers=2, features=(8,))
        >>> model.log_prob(x).shape
        (100,)
    """
    periodic = is_periodic(support)
    transform: Transform = CircularSplineTransform(bins) if periodic else SplineTransform(bins, bound)
    layer = functools.partial(
        Autoregressive.init if autoregressive else Coupling.init, transform=transform, features=tuple(features),
        context_shape=context_shape,
    )  # fmt: skip
    return flow_and_adam(key, x, base, layer, layers, support, step_size, steps)


def maf(
    key: Any, x: Any, *, base: Any = None, layers: int = 8, features: tuple[int, ...] = (64, 64),
    context_shape: tuple[int, ...] | None = None, support: Support = real, step_size: float = 4e-3,
    steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A masked autoregressive flow of affine maps, and Adam on the exact likelihood.

    Densities take one pass of each network, samples several. Arguments as of `realnvp`; D may be 1.

    Raises:
        ModelError, ShapeError: events that are no vectors. DataError: data outside of the support.

    Source: Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow for density estimation.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = maf(jax.random.key(0), x, layers=2, features=(8,))
        >>> model.sample(jax.random.key(1), (5,)).shape
        (5, 2)
    """
    layer = functools.partial(Autoregressive.init, features=tuple(features), context_shape=context_shape)
    return flow_and_adam(key, x, base, layer, layers, support, step_size, steps)


def iaf(
    key: Any, x: Any, *, base: Any = None, layers: int = 8, features: tuple[int, ...] = (64, 64),
    context_shape: tuple[int, ...] | None = None, support: Support = real, step_size: float = 4e-3,
    steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """An inverse autoregressive flow of affine maps, and Adam on the exact likelihood.

    Samples and their densities take one pass of each network, which makes it the one for `losses.reverse_kl`; the
    density of given events takes several. Arguments as of `realnvp`; D may be 1.

    Raises:
        ModelError, ShapeError: events that are no vectors. DataError: data outside of the support.

    Source: Kingma et al. (2016), Improving variational inference with inverse autoregressive flow.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = iaf(jax.random.key(0), x, layers=2, features=(8,))
        >>> model.sample(jax.random.key(1), (5,)).shape
        (5, 2)
    """
    layer = functools.partial(Autoregressive.init, features=tuple(features), context_shape=context_shape)
    return flow_and_adam(key, x, base, functools.partial(inverse_layer, layer), layers, support, step_size, steps)
