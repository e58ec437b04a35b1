"""Contrastive divergence for any energy model: the gradient of the likelihood with samples in place of log Z."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.gate import Batch
from jaxgen.core.protocols import Energy
from jaxgen.core.pytree import combine, partition
from jaxgen.core.value import algorithm
from jaxgen.fit.gradient import apply_updates, global_norm, moving_average

#: kernel steps that carry the persistent chains from zeros to the start: enough for a model that is not trained yet
BURN_IN = 100


class ContrastiveState(NamedTuple):
    """The state of `ContrastiveDivergence`: iterate, optimiser's state, chains, step count and average of iterates."""

    iterate: Any
    moments: Any
    chains: jax.Array | None
    count: jax.Array
    average: Any

    @property
    def model(self) -> Any:
        """The average of the iterates where one is kept, else the iterate."""
        return self.iterate if self.average is None else combine(self.average, partition(self.iterate)[1])


def default_optimizer() -> Any:
    """Stochastic gradient descent with step size 0.1."""
    import optax

    return optax.sgd(0.1)


@algorithm
class ContrastiveDivergence:
    optimizer: Any = None
    k: int = 1
    chains: int | None = None
    average: float | None = None
    monitor: ClassVar[str] = "loss"
    default_steps: ClassVar[int] = 5000
    default_tolerance: ClassVar[float | None] = None
    full_batch: ClassVar[bool] = False

    def _optimizer(self) -> Any:
        return default_optimizer() if self.optimizer is None else self.optimizer

    def init(self, key: Any, model: Any) -> ContrastiveState:
        trained, _ = partition(model)
        chains = None
        if self.chains is not None:
            zeros = jnp.zeros((self.chains, *model.event_shape), _float_type(model))
            chains = _advance(model, key, zeros, BURN_IN)
        average = None if self.average is None else trained
        return ContrastiveState(model, self._optimizer().init(trained), chains, jnp.zeros((), jnp.int32), average)

    def step(self, key: Any, state: ContrastiveState, batch: Batch) -> tuple[ContrastiveState, dict[str, jax.Array]]:
        x = batch.x.astype(_float_type(state.iterate))
        n = x.shape[0]
        share = jnp.full(n, 1 / n, x.dtype) if batch.weight is None else batch.weight.astype(x.dtype) / jnp.sum(batch.weight)
        start = x if state.chains is None else state.chains
        fantasy = jax.lax.stop_gradient(_advance(state.iterate, key, start, self.k))
        against = share if state.chains is None else jnp.full(start.shape[0], 1 / start.shape[0], x.dtype)
        trained, rest = partition(state.iterate)
        both = jnp.concatenate([x, fantasy])
        signs = jnp.concatenate([share, -against])

        def gap(trained: Any) -> jax.Array:
            return jnp.dot(signs, combine(trained, rest).energy(both))

        loss, gradient = jax.value_and_grad(gap)(trained)
        updates, moments = self._optimizer().update(gradient, state.moments, trained)
        trained = apply_updates(trained, updates)
        average = state.average
        if self.average is not None:
            average = moving_average(average, trained, self.average, state.count)
        chains = None if state.chains is None else fantasy
        new = ContrastiveState(combine(trained, rest), moments, chains, state.count + 1, average)
        return new, {"loss": loss, "gradient_norm": global_norm(gradient)}

def _advance(model, key, x, steps):
    return jax.lax.fori_loop(0, steps, lambda t, x: model.kernel(jax.random.fold_in(key, t), x), x)

def _float_type(model: Any) -> Any:
    return jnp.result_type(*(leaf for leaf in jax.tree.leaves(model) if jnp.issubdtype(leaf.dtype, jnp.floating)))
