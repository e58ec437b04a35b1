"""Unseen coordinates drawn from what an energy model says of them given the seen ones."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError, ModelError
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.methods import batch_axes, check_key, check_observed
from jaxgen.core.protocols import Energy, has


def impute(key: Any, model: Any, x: Any, observed: Any = None, *, sweeps: int = 1000) -> jax.Array:
    """Draws of the unobserved coordinates given the observed ones, by the model's clamped kernel.

    Each event is a chain of `sweeps` steps of `kernel(key, x, observed=)`, which tends to `p(rest | observed)`: the
    rest of a picture, the label of a picture, pictures of a label. Events that are repeated give independent draws,
    whose mean is the conditional mean.

    Args:
        key: typed key.
        model: an `Energy` whose kernel takes `observed`.
        x: events `[*batch, *event]`; what is not observed is where the chain starts, or NaN, where it starts at a
            sample of the model.
        observed: bools, `[*batch, *event]` or `[*event]`, True where x is to stay; None is where x is not NaN.
        sweeps: steps of the kernel, 1 or more.

    Returns:
        `[*batch, *event]`.

    Raises:
        ModelError: a model without such a kernel. FitError: no sweeps. ShapeError: events or a mask that do not fit.

    Example:
        >>> import jaxgen as jg
        >>> rbm = jg.RBM.from_values(jnp.zeros(2), jnp.full(1, -9.0), jnp.full((2, 1), 9.0))  # two bits that agree
        >>> impute(jax.random.key(0), rbm, jnp.array([[1.0, jnp.nan], [0.0, jnp.nan]]), sweeps=50).tolist()[0]
        [1.0, 1.0]
    """
    called = f"impute(key, {type(model).__name__}, x)"
    check_key(key, called)
    kernel = type(model).kernel if has(model, Energy) else None
    if kernel is None or "observed" not in inspect.signature(kernel).parameters:
        raise ModelError(
            "the model cannot hold coordinates", called=called, expected="a kernel(key, x, observed=mask)",
            got="no kernel" if kernel is None else f"kernel{inspect.signature(kernel)}",
        )  # fmt: skip
    if sweeps < 1:
        raise FitError("a chain needs sweeps", called=called, expected="sweeps=1 or more", got=f"sweeps={sweeps}")
    x = jnp.asarray(as_array(x, name="x", called=called, allow_nan=True))
    batch = batch_axes(x.shape, model.event_shape, called)
    start, chain = jax.random.split(key)
    if jnp.issubdtype(x.dtype, jnp.floating):
        unseen = jnp.isnan(x)
        mask = check_observed(observed, x, model.event_shape, called)
        observed = ~unseen if mask is None else mask & ~unseen
        if not concrete(x) or bool(unseen.any()):
            x = jnp.where(unseen, model.sample(start, batch).astype(x.dtype), x)
    return _swept(chain, model, x, observed, sweeps)


@functools.partial(jax.jit, static_argnames="sweeps")
def _swept(key: Any, model: Any, x: jax.Array, observed: Any, sweeps: int) -> jax.Array:
    step = lambda t, x: model.kernel(jax.random.fold_in(key, t), x, observed=observed)  # noqa: E731
    return jax.lax.fori_loop(0, sweeps, step, x)
