"""Distribution functions and quantiles of mixtures, from weights and components; and who has any."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.errors import ModelError
from jaxgen.core.protocols import Quantiled, has
from jaxgen.ops.roots import reach


def has_quantiles(model: Any) -> bool:
    """True where the coordinates of a model, and of those it is made of, have distribution functions (`Quantiled`)."""
    if not has(model, Quantiled):
        return False
    shape = algebra.context_shape(model)
    context = None if shape is None else jnp.zeros(shape)
    try:
        jax.eval_shape(lambda model, context: model.quantile(0.5, context=context), model, context)
    except ModelError:  # what a model says of parts that have none
        return False
    return True


def mixed_cdf(weights: jax.Array, components: Any, x: Any, context: Any, called: str) -> jax.Array:
    """Return `P(X <= x)` of each coordinate of a mixture, `[*event]`.

    Args:
        weights: `[K]`, summing to one.
        components: K models with `cdf`.
        x: one event.
        context: of those that take one.
        called: what the user called, for the ModelError of components without.
    """
    shares = _of_each(lambda part, given: part.cdf(x, context=given), components, context, called)
    weights = weights.astype(shares.dtype)
    return jnp.minimum(jnp.tensordot(weights, shares, 1, precision="highest") / jnp.sum(weights), 1)


def mixed_quantile(weights: jax.Array, components: Any, level: jax.Array, context: Any, called: str) -> jax.Array:
    """Return a quantile of each coordinate of a mixture, `[*event]`: what `mixed_cdf` reaches the level at."""
    ends = _of_each(lambda part, given: part.quantile(level, context=given), components, context, called)
    # the mixture's is between theirs; one beyond the range of floats is no end
    ends = jnp.where(jnp.isfinite(ends), ends, jnp.mean(ends, axis=0, where=jnp.isfinite(ends)))
    share = functools.partial(mixed_cdf, weights, components, context=context, called=called)
    level = jnp.broadcast_to(level, ends.shape[1:]).astype(ends.dtype)
    low, high = jnp.min(ends, axis=0), jnp.max(ends, axis=0)
    found = reach(lambda x: share(x=x), level, low, high)
    # weights sum to one up to rounding: the highest levels may be out of the reach of their sum
    return jnp.where(found > high, high, jnp.where(found < low, low, found))


def _of_each(ask: Callable[[Any, Any], jax.Array], components: Any, context: Any, called: str) -> Any:
    """Return what each component answers, `[K, *event]`, each with the context that it takes."""
    algebra.needed(components, Quantiled, called)
    of = lambda batch: jax.vmap(lambda part: ask(part, algebra.taken(batch, context)))(batch)  # noqa: E731
    return algebra.joined(components, algebra.per_kind(of, components))
