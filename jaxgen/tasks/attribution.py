"""Which columns of an event are strange, given the others."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import latent
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.protocols import Density, Marginal, has
from jaxgen.core.pytree import models_in, parts_of
from jaxgen.metrics.events import events_of
from jaxgen.ops import scales


class Attribution(NamedTuple):
    """The share that each entry of an event has in its being strange.

    Args:
        values: `[M, D]`; high is strange.
        exact: True for `-log p(x_d | x_rest)`, nats; False for the gradient of the surprise, nats per unit.
    """

    values: np.ndarray
    exact: bool


def attribution(model: Any, x: Any, *, unit: Any = None) -> Attribution:
    """Say of each column of each event how strange it is given the others.

    `a_d = -log p(x_d | x_rest) = log p(x_rest) - log p(x)`, exactly, where the model sums columns out: one with
    `missing=True`, or with `marginal`, such as Gaussians and their mixtures. Else, of any density,
    `a_d = |d log p / d x_d| unit_d`.

    Args:
        model: a density of vectors `[D]`.
        x: events `[M, D]`.
        unit: `[D]` or a number, for gradients: how far a column is usually off; None takes the scale of the columns
            of x.

    Returns:
        `Attribution`.

    Raises:
        ModelError: a model without a density, or with another event than a vector.
        DataError, ShapeError: events that do not fit the model.

    Example:
        >>> import jaxgen as jg
        >>> pair = jg.Gaussian.from_values(jnp.zeros(2), jnp.array([[1.0, 0.9], [0.9, 1.0]]))
        >>> attribution(pair, [[1.0, 1.0], [1.0, -1.0]]).values.round(2).tolist()  # each alone is usual
        [[0.11, 0.11], [9.59, 9.59]]
    """
    called = f"attribution({type(model).__name__}, x)"
    if not has(model, Density) or not latent.has_density(model):
        raise ModelError("an attribution needs a density", called=called, expected="a model with log_prob",
                         got=type(model).__name__)  # fmt: skip
    if len(model.event_shape) != 1 or model.event_shape[0] is None:
        raise ModelError("columns are those of vectors", called=called, expected="events [D]",
                         got=f"event_shape {model.event_shape}")  # fmt: skip
    x = jnp.asarray(events_of(model, x, called).x)
    columns = range(x.shape[1])
    if latent.accepts_missing(model):
        holed = x.astype(jnp.result_type(x, float))  # whole numbers have no NaN
        rest = [model.log_prob(holed.at[:, d].set(jnp.nan)) for d in columns]
    elif knows_marginals(model) and len(columns) > 1:
        rest = [_rest(model, x, d) for d in columns]
    else:
        return Attribution(_sensitivity(model, x, unit, called), False)
    return Attribution(np.asarray(jnp.stack(rest, axis=1) - model.log_prob(x)[:, None], np.float64), True)


def knows_marginals(model: Any) -> bool:
    """True where a model, and all that it is made of, have `marginal` and `condition`."""
    held = (one for _, _, value in parts_of(model) for one in models_in(value))
    return has(model, Marginal) and all(map(knows_marginals, held))


def _rest(model: Any, x: jax.Array, d: int) -> jax.Array:
    """`log p(x_rest)` of events, all but column d."""
    others = tuple(i for i in range(x.shape[1]) if i != d)
    return model.marginal(others).log_prob(x[:, list(others)])


def _sensitivity(model: Any, x: jax.Array, unit: Any, called: str) -> np.ndarray:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ModelError(
            "whole numbers have no gradient", called=called, got=f"x of {x.dtype}",
            expected="a model with missing=True, or with marginal", fix=latent.unseen(model),
        )  # fmt: skip
    unit = scales.columns(x).scale if unit is None else jnp.asarray(unit, x.dtype)
    if unit.shape not in ((), x.shape[1:]):
        raise ShapeError("a unit for each column", called=called, expected=f"unit [{x.shape[1]}] or one number",
                         got=f"shape {list(unit.shape)}")  # fmt: skip
    return np.asarray(jnp.abs(_gradient(model, x)) * unit, np.float64)


@jax.jit
def _gradient(model: Any, x: jax.Array) -> jax.Array:
    return jax.grad(lambda x: jnp.sum(model.log_prob(x)))(x)
