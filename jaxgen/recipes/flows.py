"""Helpers that the recipes of flows share: the base, the layers and the optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxgen import losses
from jaxgen.bijections import Inverse
from jaxgen.bijections.basics import is_periodic
from jaxgen.bijections.supports import Support, layer_of
from jaxgen.core.inputs import as_array, floating
from jaxgen.core.methods import latent_shape
from jaxgen.fit.averages import Average
from jaxgen.fit.gradient import Gradient
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.densities.von_mises import VonMises
from jaxgen.models.neural.flow import Flow
from jaxgen.recipes.optimizers import adam


def inverse_layer(make: Callable[[Any, Any], Any], key: Any, x: Any) -> Inverse:
    """Return the inverse of a layer: for one whose fast way should be the other one."""
    return Inverse(make(key, x))


def flow_and_adam(
    key: Any, x: Any, base: Any, layer: Callable[[Any, Any], Any], layers: int, support: Support, step_size: float,
    steps: int | None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """Return a flow of such layers on a base, None for the standard normal, and Adam on the exact likelihood."""
    x = jnp.asarray(as_array(x))
    base = _normal(x, support) if base is None else base
    model = Flow.init(key, x, base, layer, layers=layers, support=support)
    return model, Gradient(losses.nll, adam(step_size, clip=1.0), average=Average(0.99), steps=steps)


def _normal(x: Any, support: Support) -> Any:
    """Return the standard normal of the unbounded numbers of a support; of angles, the uniform density."""
    if is_periodic(support):
        return VonMises.from_values(jnp.zeros_like(floating(x)[0]), 0.0)
    layer = layer_of(support, x, "recipe(key, x, support=support)")
    shape: Any = x.shape[1:] if layer is None else latent_shape(layer)
    return StandardNormal(shape)
