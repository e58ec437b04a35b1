"""Many models at once: K models are one model whose leaves carry a leading axis K.

The defaults map over that axis. A family overrides them where it knows better (one matmul for Gaussians, a gather for
categoricals) by a method of the name given here; a law in the suite holds every override to its default.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def count(models: Any) -> int:
    """The length of the leading axis of a batch of models.

    Example:
        >>> count({"mean": jnp.zeros((3, 2))})
        3
    """
    return int(np.shape(jax.tree.leaves(models)[0])[0])


def take(models: Any, index: Any) -> Any:
    """The model at `index` of a batch of models.

    Example:
        >>> take({"mean": jnp.arange(6.0).reshape(3, 2)}, 1)["mean"].shape
        (2,)
    """
    return jax.tree.map(lambda leaf: leaf[index], models)


def stack(models: Any) -> Any:
    """A batch of models from a sequence of models of one structure.

    Example:
        >>> stack([{"mean": jnp.zeros(2)}, {"mean": jnp.ones(2)}])["mean"].shape
        (2, 2)
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)


def component_log_prob(components: Any, x: Any, context: Any = None) -> jax.Array:
    """`log p_k(x_n)` of K models on N events, `[K, N]`. Override: `log_prob_components(x)`."""
    override = getattr(type(components), "log_prob_components", None)
    if override is not None and context is None:
        return override(components, x)
    return default_log_prob(components, x, context)


def default_log_prob(components: Any, x: Any, context: Any = None) -> jax.Array:
    """What `component_log_prob` is without an override."""
    return jax.vmap(lambda component: component.log_prob(x, context=context))(components)


def component_e_step(components: Any, x: Any, weight: Any) -> Any:
    """The statistics of K models on N events with weights `[K, N]`. Override: `e_step_components(x, weight)`."""
    override = getattr(type(components), "e_step_components", None)
    return (override or default_e_step)(components, x, weight)


def default_e_step(components: Any, x: Any, weight: Any) -> Any:
    """What `component_e_step` is without an override."""
    return jax.vmap(lambda component, w: component.e_step(x, w)[0])(components, weight)


def maximize(model: Any, statistics: Any) -> tuple[Any, jax.Array]:
    """`m_step`, and how many dead or singular parts it repaired by its stated rule.

    A model that repairs has a method `maximize` which returns both, and `m_step` is its first half.
    """
    method = getattr(type(model), "maximize", None)
    return (model.m_step(statistics), jnp.zeros((), jnp.int32)) if method is None else method(model, statistics)


def component_maximize(components: Any, statistics: Any) -> tuple[Any, jax.Array]:
    """`maximize` of each of K models, repairs summed. Override: `maximize_components(statistics)` (tied parameters)."""
    if override := getattr(type(components), "maximize_components", None):
        return override(components, statistics)
    models, repaired = jax.vmap(maximize)(components, statistics)
    return models, jnp.sum(repaired)


def sample_component(key: Any, components: Any, index: Any, **options: Any) -> jax.Array:
    """One event from the component at `index`, written so that it stays small under `vmap` over events.

    Small components are gathered; large ones (networks) would be copied once per event, so there each component draws
    and one draw is kept: K draws instead of one copy of K-th of the parameters.
    """
    leaves = jax.tree.leaves(components)
    scalars = sum(int(np.prod(leaf.shape[1:])) for leaf in leaves)
    if scalars <= 4096:
        return take(components, index).sample(key, **options)
    draws = jax.vmap(lambda component: component.sample(key, **options))(components)
    return draws[index]


def element(models: Any) -> Any:
    """One of a batch of models, in the abstract: shapes without values, for `event_shape` and its kin.

    Example:
        >>> element({"mean": jnp.zeros((3, 2))})["mean"].shape
        (2,)
    """
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf)[1:], jnp.result_type(leaf)), models)


def repeat(model: Any, k: int) -> Any:
    """A batch of K copies of a model."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (k, *np.shape(leaf))), model)


def features(model: Any, x: Any) -> jax.Array:
    """Events as vectors for clustering, `[N, F]`: the model's own `features(x)`, or the flat events as floats."""
    method = getattr(type(model), "features", None)
    flat = method(model, x) if method else x.reshape((x.shape[0], -1))
    return flat if jnp.issubdtype(flat.dtype, jnp.floating) else flat.astype(jnp.result_type(float))


def supports_em(model: Any) -> bool:
    """True where a model and all its parts have `e_step` and `m_step`.

    A model made of models names them in a property `latent_parts`.
    """
    own = hasattr(model, "e_step") and hasattr(model, "m_step")
    return own and all(supports_em(part) for part in getattr(model, "latent_parts", ()))


def check_data(model: Any, x: Any) -> None:
    """Lets a model refuse data outside its support, which their shape does not tell, by its own `check_data(x)`."""
    method = getattr(type(model), "check_data", None)
    if method is not None:
        method(model, x)
