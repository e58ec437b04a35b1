"""Gradient descent on any loss with any optax transformation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen import losses
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Traits
from jaxgen.core.pytree import combine, frozen_leaves, keep_frozen, partition
from jaxgen.core.value import algorithm

#: steps of a fit by gradients, unless it is told
STEPS = 2000


class GradientState(NamedTuple):
    """The state of `Gradient`: the iterate, the optimiser's state, the step count and the average of iterates."""

    iterate: Any
    moments: Any
    steps: jax.Array
    average: Any

    @property
    def model(self) -> Any:
        """The average of the iterates where one is kept, else the iterate."""
        return averaged(self.iterate, self.average)


def default_optimizer() -> Any:
    """Adam with step size 1e-3 and gradients clipped to a global norm of 10."""
    import optax

    return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(1e-3))


def global_norm(tree: Any) -> jax.Array:
    """The Euclidean norm of all leaves together.

    Example:
        >>> float(global_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
        5.0
    """
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def apply_updates(trained: Any, updates: Any) -> Any:
    """Parameters plus updates, in the parameters' dtype."""
    return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), trained, updates)


def moving_average(average: Any, new: Any, decay: float, count: Any) -> Any:
    """One step of an exponential moving average whose decay warms up as `(1 + t) / (10 + t)`.

    Source: the warm-up is the customary one of TensorFlow's ExponentialMovingAverage(num_updates=t).
    """
    rate = 1 - jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    return jax.tree.map(lambda a, p: (a + rate * (p - a)).astype(a.dtype), average, new)


def averaged(iterate: Any, average: Any) -> Any:
    """The iterate with its trained leaves from the average, where one is kept."""
    return iterate if average is None else combine(average, partition(iterate)[1])


def descend(
    optimizer: Any, gradient: Any, moments: Any, trained: Any, average: Any = None, decay: float | None = None,
    steps: Any = 0, held: Any = None,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """One update of parameters, of the optimiser's state, and of the average of iterates where one is kept."""
    updates, moments = optimizer.update(gradient, moments, trained)
    trained = keep_frozen(apply_updates(trained, updates), trained, held)
    return trained, moments, None if decay is None else moving_average(average, trained, decay, steps)


@algorithm
class Gradient:
    """Stochastic gradient descent: `theta' = theta + update(grad loss(key, model, batch))`.

    Args:
        loss: `(key, model, batch) -> scalar`, for example `losses.nll`.
        optimizer: any optax transformation; None is Adam with step 1e-3 behind a clip of the global norm at 10.
        average: decay of an exponential moving average of the parameters, which is then the fitted model; None keeps
            none.
        frozen: what stays as it is, `{path: True}` or `{path: bools}`, as in `EM`.
        validate: the loss of validation data and of restarts; None is `loss`. For a loss with noise or penalties in it,
            which say nothing about other data: `validate=losses.nll`.

    Fields marked `fixed()` and integer leaves are no parameters: they stay bit-identical. Metrics: `loss`, and
    `gradient_norm` before any clipping.

    Example:
        >>> import optax, jaxgen as jg
        >>> x = jnp.linspace(-1, 3, 64)[:, None]
        >>> model = jg.DiagonalGaussian.from_scale([0.0], [1.0])
        >>> fitted = jg.fit(jax.random.key(0), model, x, jg.Gradient(jg.losses.nll, optax.adam(0.1)), steps=200)
        >>> fitted.model.mean.round(1).tolist()
        [1.0]
    """

    loss: Callable[[Any, Any, Batch], jax.Array] = losses.nll
    optimizer: Any = None
    average: float | None = None
    frozen: Any = None
    validate: Callable[[Any, Any, Batch], jax.Array] | None = None

    @property
    def traits(self) -> Traits:
        """What `fit` needs to know: whether the loss looks at data."""
        return Traits("loss", data=not getattr(self.loss, "data_free", False), steps=STEPS)

    def _optimizer(self) -> Any:
        return default_optimizer() if self.optimizer is None else self.optimizer

    def init(self, key: Any, model: Any) -> GradientState:
        """The state before the first step.

        Raises:
            FitError: the model has nothing to train, or the options are none.
        """
        self._check(model)
        trained, _ = partition(model)
        frozen_leaves(trained, self.frozen or {})
        average = None if self.average is None else trained
        return GradientState(model, self._optimizer().init(trained), jnp.zeros((), jnp.int32), average)

    def _check(self, model: Any) -> None:
        optimizer = self._optimizer()
        if not (callable(self.loss) and (self.validate is None or callable(self.validate))):
            raise FitError(
                "that is no loss", called="Gradient(loss, optimizer)", expected="a function (key, model, batch)",
                got=repr(self.loss)[:80], fix="jaxgen.Gradient(jaxgen.losses.nll)",
            )  # fmt: skip
        if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
            raise FitError(
                "that is no optimiser", called="Gradient(loss, optimizer)", expected="an optax transformation",
                got=repr(optimizer)[:80], fix="jaxgen.Gradient(jaxgen.losses.nll, optax.adam(1e-3))",
            )  # fmt: skip
        if self.average is not None and not 0 <= self.average < 1:
            raise FitError(
                "average is the decay of a moving average", called=f"Gradient(average={self.average!r})",
                expected="a number from 0 to 1, 1 excluded, such as 0.999, or None", got=repr(self.average),
            )  # fmt: skip
        if not jax.tree.leaves(partition(model)[0]):
            raise FitError(
                "the model has nothing to train", called=f"Gradient().init(key, {type(model).__name__})",
                expected="floating-point fields that are not fixed()", got=repr(model)[:300],
            )  # fmt: skip

    def step(self, key: Any, state: GradientState, batch: Batch) -> tuple[GradientState, dict[str, jax.Array]]:
        """One gradient on the batch and one update."""
        trained, rest = partition(state.iterate)
        loss, gradient = jax.value_and_grad(lambda t: self.loss(key, combine(t, rest), batch))(trained)
        trained, moments, average = descend(
            self._optimizer(), gradient, state.moments, trained, state.average, self.average, state.steps,
            frozen_leaves(trained, self.frozen) if self.frozen else None,
        )  # fmt: skip
        new = GradientState(combine(trained, rest), moments, state.steps + 1, average)
        return new, {"loss": loss, "gradient_norm": global_norm(gradient)}

    def evaluate(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        """Minus the loss that validates: higher is better."""
        return -(self.loss if self.validate is None else self.validate)(key, model, batch)
