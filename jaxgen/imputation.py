"""Chains of an energy model's own kernel: draws from one's own start, and unseen coordinates given the seen."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import latent
from jaxgen.core.errors import FitError, ModelError
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.methods import batch_axes, check_key, check_observed, is_count
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
    _check_kernel(model, True, called)
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


def sample_from(
    key: Any, model: Any, x: Any, *, draws: int = 1000, burn_in: int = 0, thin: int = 1, observed: Any = None
) -> jax.Array:
    """Return draws of a machine's own chain from a start of your own: Gibbs sweeps, of an energy model its moves.

    `x_t ~ kernel(x_(t-1))`, which leaves `p(x)` as it is; `model.sample(key, sweeps=)` starts from independent units.

    Args:
        key: typed key.
        model: an `Energy`: `RBM`, `DeepBoltzmann`, `RandomField`, `EnergyModel`.
        x: where the chains start, `[*batch, *event]`, each its own.
        draws: how many to keep of each, 1 or more.
        burn_in: steps before the first.
        thin: steps for each draw, 1 or more.
        observed: bools, `[*batch, *event]` or `[*event]`, True where x is to stay: draws of `p(rest | observed)`.

    Returns:
        `[draws, *batch, *event]`.

    Raises:
        ModelError: a model without a kernel, or with one that holds no coordinates. FitError: counts that are too
            small. ShapeError: a start or a mask that does not fit. DataError: a start outside of the support.

    Example:
        >>> import jaxgen as jg
        >>> rbm = jg.RBM.from_values(jnp.zeros(2), jnp.full(1, -9.0), jnp.full((2, 1), 9.0))  # two bits that agree
        >>> chain = sample_from(jax.random.key(0), rbm, jnp.ones(2), draws=100)
        >>> chain.shape, bool((chain[:, 0] == chain[:, 1]).mean() > 0.9)
        ((100, 2), True)
    """
    called = f"sample_from(key, {type(model).__name__}, x)"
    check_key(key, called)
    _check_kernel(model, observed is not None, called)
    if not (is_count(draws, 1) and is_count(thin, 1) and is_count(burn_in)):
        raise FitError(
            "a chain needs steps", called=called, expected="ints: draws and thin of 1 or more, burn_in of 0 or more",
            got=f"draws={draws}, burn_in={burn_in}, thin={thin}",
        )  # fmt: skip
    x = jnp.asarray(as_array(x, name="x", called=called))
    batch_axes(x.shape, model.event_shape, called)
    latent.check_data(model, x)
    return _chain(key, model, x, check_observed(observed, x, model.event_shape, called), draws, burn_in, thin)


def _check_kernel(model: Any, holds: bool, called: str) -> None:
    """Refuse a model without a kernel, or with one that cannot hold coordinates where it has to."""
    kernel = type(model).kernel if has(model, Energy) else None
    if kernel is None or (holds and "observed" not in inspect.signature(kernel).parameters):
        raise ModelError(
            "the model cannot hold coordinates" if holds else "the model has no chain of its own", called=called,
            expected="a kernel(key, x, observed=mask)" if holds else "an energy and a kernel(key, x)",
            got="no kernel" if kernel is None else f"kernel{inspect.signature(kernel)}",
            fix="model.impute(x), the mean or likeliest value of what is NaN" if latent.accepts_missing(model) else "",
        )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("draws", "burn_in", "thin"))
def _chain(key: Any, model: Any, x: Any, observed: Any, draws: int, burn_in: int, thin: int) -> jax.Array:
    held = {} if observed is None else {"observed": observed}
    # a kernel draws in its model's dtype, whatever that of the start
    first = jax.eval_shape(lambda key, x: model.kernel(key, x, **held), key, x)
    step = lambda t, x: model.kernel(jax.random.fold_in(key, t), x, **held)  # noqa: E731
    x = jax.lax.fori_loop(0, burn_in, step, x.astype(first.dtype))

    def draw(x: Any, i: Any) -> Any:
        x = jax.lax.fori_loop(burn_in + i * thin, burn_in + (i + 1) * thin, step, x)
        return x, x

    return jax.lax.scan(draw, x, jnp.arange(draws))[1]


@functools.partial(jax.jit, static_argnames="sweeps")
def _swept(key: Any, model: Any, x: jax.Array, observed: Any, sweeps: int) -> jax.Array:
    step = lambda t, x: model.kernel(jax.random.fold_in(key, t), x, observed=observed)  # noqa: E731
    return jax.lax.fori_loop(0, sweeps, step, x)
