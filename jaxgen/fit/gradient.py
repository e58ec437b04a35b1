"""Gradient descent on any loss with any optax transformation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen import losses
from jaxgen.core.algorithms import Traits
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.pytree import combine, partition
from jaxgen.core.value import algorithm
from jaxgen.fit.descent import Descent, Player, for_steps, global_norm, resolved
from jaxgen.losses.base import Dataless, LossFunction, check_loss, measured

#: steps of a fit by gradients, unless it is told
STEPS = 2000
#: the step that validation passes to a loss: after the end of every schedule, so that scores of all times compare
END = 10**9


class GradientState(NamedTuple):
    """The state of `Gradient`: the model in training with its optimiser and averages, and the number of steps made."""

    player: Player
    steps: jax.Array

    @property
    def model(self) -> Any:
        """The first average of the iterates where one is kept, else the iterate."""
        return self.player.model


def default_optimizer() -> Any:
    """Return Adam with step size 1e-3 and gradients clipped to a global norm of 10."""
    import optax

    return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(1e-3))


@algorithm
class Gradient:
    """Stochastic gradient descent: `theta' = theta + update(grad loss(key, model, batch, step))`.

    Args:
        loss: `(key, model, batch, step) -> scalar`, for example `losses.nll`, or `-> losses.Loss` with metrics for the
            history and with fixed fields of the model that move. `step` is the number of steps made, int32: schedules
            such as an annealed KL are functions of it.
        optimizer: any optax transformation; None is Adam with step 1e-3 behind a clip of the global norm at 10. Or a
            function of `steps` that returns one, for step sizes that fall to the end: `lambda steps: optax.adam(
            optax.cosine_decay_schedule(1e-3, steps))`, with the number of steps that are made at most.
        average: an average of the iterates, which is then the fitted model: `Average(0.999)`, `PowerAverage(0.1)`, or a
            dict of several by name, of which the first is the fitted model and all are `state.player.averages`. None
            keeps none.
        frozen: what stays as it is, `{path: True}`, `{path: bools}` or paths, as in `EM`.
        validate: the loss of validation data and of restarts; None is `loss`. For a loss with noise or penalties in it,
            which say nothing about other data: `validate=losses.nll`. Its `step` is past the end of all schedules.
        steps: how many `fit` makes at most unless it is told; None is 2000.

    Fields marked `fixed()` and integer leaves are no parameters: they stay bit-identical unless the loss moves them.
    Metrics: `loss`, `gradient_norm` before any clipping, and those of the loss.

    Example:
        >>> import optax, jaxgen as jg
        >>> x = jnp.linspace(-1, 3, 64)[:, None]
        >>> model = jg.DiagonalGaussian.from_values([0.0], [1.0])
        >>> fitted = jg.fit(jax.random.key(0), model, x, jg.Gradient(jg.losses.nll, optax.adam(0.1), steps=200))
        >>> fitted.model.mean.round(1).tolist()
        [1.0]
    """

    loss: LossFunction = losses.nll
    optimizer: Any = None
    average: Any = None
    frozen: Any = None
    validate: LossFunction | None = None
    steps: int | None = None

    @property
    def traits(self) -> Traits:
        """The facts about this algorithm that `fit` needs before the first step."""
        data = self.loss.data if isinstance(self.loss, Dataless) else True
        return Traits("loss", labels=True, data=data, steps=STEPS if self.steps is None else self.steps)

    def for_steps(self, steps: int) -> Gradient:
        """Return the algorithm for that number of steps: with an optimiser that was a function of it."""
        return for_steps(self, steps, "optimizer")

    def _descent(self) -> Descent:
        optimizer = resolved(self.optimizer, STEPS if self.steps is None else self.steps)
        return Descent(default_optimizer() if optimizer is None else optimizer, self.average, self.frozen)

    def init(self, key: Any, model: Any) -> GradientState:
        """Return the state before the first step.

        Raises:
            FitError: the model has nothing to train, or the options are none. ModelError: nothing to freeze.
        """
        called = f"Gradient(loss, optimizer).init(key, {type(model).__name__})"
        for loss in (self.loss, self.loss if self.validate is None else self.validate):
            check_loss(loss, called)
        return GradientState(self._descent().start(model, called), jnp.zeros((), jnp.int32))

    def step(self, key: Any, state: GradientState, batch: Batch) -> tuple[GradientState, dict[str, jax.Array]]:
        """Return the state after one gradient on the batch and one update, and the metrics.

        Raises:
            FitError: a loss that is no scalar, has a metric of a name that is taken, or moves another model.
        """
        trained, rest = partition(state.player.iterate)

        def objective(trained: Any) -> Any:
            found = measured(self.loss, key, combine(trained, rest), batch, state.steps)
            return found.value, (found.metrics, found.moved)

        (loss, (metrics, moved)), gradient = jax.value_and_grad(objective, has_aux=True)(trained)
        own = {"loss": loss, "gradient_norm": global_norm(state.player.per_scale(gradient))}
        if taken := own.keys() & metrics.keys():
            raise FitError(
                "a metric of the loss has a name of the algorithm's", called="Gradient(loss).step", got=str([*taken]),
                expected=f"other names than {[*own]}", fix="rename it",
            )  # fmt: skip
        player = self._descent().descend(state.player, gradient, state.steps, moved)
        return GradientState(player, state.steps + 1), own | metrics

    def evaluate(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        """Return minus the loss that validates: higher is better."""
        loss = self.loss if self.validate is None else self.validate
        return -measured(loss, key, model, batch, jnp.asarray(END, jnp.int32)).value
