"""The contract of a loss: what it is called with, what it returns, and what it may ask of a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch, widened
from jaxgen.core.protocols import has
from jaxgen.core.pytree import difference, name_of


class Loss(NamedTuple):
    """The result of a loss that has more to say than one number.

    Args:
        value: a scalar, which is descended.
        metrics: scalars by name, for the history of the fit.
        moved: the model with other numbers in the fields that do not train: running means, codebooks, spectral vectors.
            They are carried to the next step. Its trained fields are ignored, since those follow the gradient. None
            moves nothing.

    Example:
        >>> Loss(jnp.float32(2.0), {"bits": jnp.float32(2.9)}).moved is None
        True
    """

    value: Any
    metrics: dict[str, Any] = {}  # noqa: RUF012
    moved: Any = None


#: `loss(key, model, batch, step)`: a scalar or a `Loss`. The key is fresh in every step, the batch is a `Batch`, and
#: `step` is an int32 scalar, the number of steps made before this one.
LossFunction = Callable[[Any, Any, Batch, Any], Any]


@runtime_checkable
class Dataless(Protocol):
    """A loss that says whether it looks at data."""

    @property
    def data(self) -> bool:
        """False where it looks at none: `fit(key, model, None, Gradient(loss))` then makes sense."""
        ...


class HasLogProb(Protocol):
    """A model with `log_prob`, which may have no samples."""

    def log_prob(self, x: Any, *, context: Any = None) -> jax.Array: ...


class HasElbo(Protocol):
    """A model with `elbo`."""

    def elbo(self, key: Any, x: Any, *, context: Any = None) -> jax.Array: ...


class HasEnergy(Protocol):
    """A model with `energy`, which may have no kernel."""

    def energy(self, x: Any) -> jax.Array: ...


def weighted_mean(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Return `sum(w v) / sum(w)`; the mean without weights. An event of weight 0 does not count, whatever its value.

    Example:
        >>> float(weighted_mean(jnp.array([1.0, jnp.inf]), jnp.array([2.0, 0.0])))
        1.0
    """
    values, weight = widened((values, weight))
    if weight is None:
        return jnp.mean(values)
    return jnp.sum(jnp.where(weight > 0, weight * jnp.where(weight > 0, values, 0), 0)) / jnp.sum(weight)


def mean_of_events(values: Any, batch: Batch, method: str) -> jax.Array:
    """Return the weighted mean of what a model says of each event.

    Raises:
        FitError: another number of values than events: a sum over the batch would be taken for a mean.
    """
    if jnp.shape(values) != (batch.events,):
        raise FitError(
            f"{method} does not give a number for each event", called=f"losses of {method}",
            expected=f"shape [{batch.events}]", got=f"shape {list(jnp.shape(values))}",
            fix="write the method for one event and decorate it with jaxgen's per_event",
        )  # fmt: skip
    return weighted_mean(values, batch.weight)


def companions(batch: Batch) -> dict[str, Any]:
    """Return what comes with the events, for a method: the context, and labels where there are any."""
    return {"context": batch.context} | ({} if batch.label is None else {"label": batch.label})


def check_unlabelled(loss: str, batch: Batch) -> None:
    """Refuses labels, for a loss that would not look at them."""
    if batch.label is not None:
        raise FitError(
            "labels would not be looked at", called=f"losses.{loss}(key, model, batch)", got="a label",
            expected="data without labels, or the loss nll or negative_elbo", fix="leave the label out",
        )  # fmt: skip


def check_model(loss: str, model: Any, protocol: Any, method: str, fix: str) -> None:
    """Refuses a model that lacks the method a loss is made of."""
    if not has(model, protocol):
        raise FitError(
            f"losses.{loss} needs a model with {method}", called=f"losses.{loss}(key, {type(model).__name__}, batch)",
            expected=f"a method {method}", got=repr(model)[:200], fix=fix,
        )  # fmt: skip


def check_loss(loss: Any, called: str) -> None:
    """Refuses what cannot be called as `loss(key, model, batch, step)`.

    Raises:
        FitError: no function, or one of other arguments.

    Example:
        >>> check_loss(lambda key, model, batch, step: 0.0, "demo")
    """
    if not callable(loss):
        raise FitError(
            "that is no loss", called=called, expected="a function (key, model, batch, step)", got=repr(loss)[:80],
            fix="jaxgen.Gradient(jaxgen.losses.nll)",
        )  # fmt: skip
    try:
        arguments = inspect.signature(loss)
    except (TypeError, ValueError):  # of a builtin, which will say so itself
        return
    try:
        arguments.bind(None, None, None, None)
    except TypeError:
        raise FitError(
            "a loss takes four arguments", called=called, expected="loss(key, model, batch, step)",
            got=f"{name_of(loss)}{arguments}",
            fix="write a last parameter named step, the number of steps made so far, which a loss may leave unused",
        ) from None  # fmt: skip


def measured(loss: LossFunction, key: Any, model: Any, batch: Batch, step: Any) -> Loss:
    """Return what a loss says as a `Loss` of checked parts, inside a compiled program.

    Raises:
        FitError: a value or a metric that is no scalar, or a moved model of another structure.

    Example:
        >>> float(measured(lambda key, model, batch, step: 2.0, None, None, None, 0).value)
        2.0
    """
    out = loss(key, model, batch, step)
    out = out if isinstance(out, Loss) else Loss(out)
    name = f"{name_of(loss)}(key, model, batch, step)"
    for what, value in {"value": out.value, **out.metrics}.items():
        shape = getattr(value, "shape", () if isinstance(value, (bool, int, float)) else None)
        if shape != ():
            raise FitError(
                f"the {what} of a loss is no scalar", called=name, expected="a number, or an array of shape []",
                got=type(value).__name__ if shape is None else f"shape {list(shape)}",
                fix="take the mean over events, the weighted one where they have weights",
            )  # fmt: skip
    if out.moved is not None and (apart := difference(out.moved, model)):
        raise FitError(
            "the moved model is another than the one that was given", called=name, got=apart,
            expected="the same model with other numbers", fix="give its fields arrays of the shapes that they had",
        )  # fmt: skip
    return out._replace(metrics={name: jnp.asarray(value) for name, value in out.metrics.items()})
