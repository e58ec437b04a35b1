"""Flows of layers whose inverse is a search, fitted by the exact likelihood."""

from __future__ import annotations

import functools
from typing import Any

from jaxgen.bijections import BlockAutoregressive, Residual
from jaxgen.bijections.supports import Support, real
from jaxgen.fit.gradient import Gradient
from jaxgen.models.neural.flow import Flow
from jaxgen.recipes.flows import flow_and_adam, inverse_layer


def residual_flow(
    key: Any, x: Any, *, base: Any = None, layers: int = 16, features: tuple[int, ...] = (32, 32), bound: float = 0.9,
    context_shape: tuple[int, ...] | None = None, support: Support = real, step_size: float = 1e-2,
    steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A flow of invertible residual blocks, and Adam on the exact likelihood.

    The log-determinant of each block is exact, by its Jacobian: made for up to a hundred coordinates. `log_prob` takes
    the direct way, samples a fixed point in each block.

    Args:
        key: typed key.
        x: events `[N, D]`.
        base: any density of events `[D]`, in units of the data's scale; None is the standard normal.
        layers: number of blocks.
        features: hidden widths of each block's network.
        bound: of each network's Lipschitz constant, between 0 and 1.
        context_shape: shape of one context for a conditional density; None for none.
        support: what values x can take, as in `Flow.init`.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        ModelError, ShapeError: events that are no vectors, a bound out of range. DataError: data outside of the
            support.

    Source: Behrmann et al. (2019), Invertible residual networks; Chen et al. (2019), Residual flows for invertible
    generative modeling.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = residual_flow(jax.random.key(0), x, layers=2)
        >>> model.event_shape
        (2,)
    """
    layer = functools.partial(Residual.init, features=tuple(features), bound=bound, context_shape=context_shape)
    return flow_and_adam(key, x, base, functools.partial(inverse_layer, layer), layers, support, step_size, steps)


def bnaf(
    key: Any, x: Any, *, base: Any = None, layers: int = 6, hidden: int = 16, depth: int = 1,
    context_shape: tuple[int, ...] | None = None, support: Support = real, step_size: float = 2e-2,
    steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A block neural autoregressive flow, and Adam on the exact likelihood.

    `log_prob` takes the direct way, samples a search in each layer.

    Args:
        key: typed key.
        x: events `[N, D]`.
        base: any density of events `[D]`, in units of the data's scale; None is the standard normal.
        layers: number of layers, with permutations between them.
        hidden: hidden units of each coordinate in each layer.
        depth: hidden layers of each layer's network.
        context_shape: shape of one context for a conditional density; None for none.
        support: what values x can take, as in `Flow.init`.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        ModelError, ShapeError: events that are no vectors, no hidden units. DataError: data outside of the support.

    Source: De Cao, Titov and Aziz (2019), Block neural autoregressive flow.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = bnaf(jax.random.key(0), x, layers=2, hidden=4)
        >>> model.event_shape
        (2,)
    """
    layer = functools.partial(BlockAutoregressive.init, hidden=hidden, layers=depth, context_shape=context_shape)
    return flow_and_adam(key, x, base, functools.partial(inverse_layer, layer), layers, support, step_size, steps)
