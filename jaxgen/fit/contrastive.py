"""Contrastive divergence for any energy model: the likelihood's gradient, with samples in place of log Z."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.gate import Batch
from jaxgen.core.protocols import Energy
from jaxgen.core.pytree import combine, float_type, partition
from jaxgen.core.value import algorithm
from jaxgen.fit.gradient import averaged, descend, global_norm

#: kernel steps that carry the persistent chains from zeros to their start
BURN_IN = 100


class ContrastiveState(NamedTuple):
    """The state of `ContrastiveDivergence`: iterate, optimiser's state, chains, steps made and average of iterates.

    `chains` is `[chains, *event]`, or None where chains start anew at the data.
    """

    iterate: Any
    moments: Any
    chains: jax.Array | None
    steps: jax.Array
    average: Any

    @property
    def model(self) -> Any:
        """The average of the iterates where one is kept, else the iterate."""
        return averaged(self.iterate, self.average)


def default_optimizer() -> Any:
    """Stochastic gradient descent with step size 0.1."""
    import optax

    return optax.sgd(0.1)


@algorithm
class ContrastiveDivergence:
    """Descends the energy of data and ascends that of the model's samples.

    `grad = mean_data grad E(x) - mean_samples grad E(x')`, with `x'` after k kernel steps from persistent chains
    (PCD-k) or, with `chains=None`, from the data of the batch (CD-k).

    Persistent chains are the default: they follow the model from step to step, so that the gradient tends to that of
    the likelihood. CD's does not: on data whose modes are far apart it can lower the likelihood for as long as it
    trains. The chains' noise does not shrink, hence the average of the iterates.

    Args:
        optimizer: any optax transformation; None is gradient descent with step size 0.1.
        k: kernel steps per update, at least 1; more where chains mix slowly.
        chains: number of persistent chains; None starts at the data instead. They start at zeros, carried by 100
            kernel steps.
        average: decay of an exponential moving average of the parameters, which is then the fitted model; None keeps
            none.

    Fields marked `fixed()` and integer leaves stay bit-identical; events may have weights. Metrics: `loss`, the energy
    of the data minus that of the samples (zero at the optimum, and no likelihood: it can rise while the model gets
    better); `gradient_norm`; with `chains=None` also `reconstruction_error`, the mean squared change of a coordinate
    in k steps from the data.

    Source: Hinton (2002), Training products of experts by minimizing contrastive divergence; Tieleman (2008), Training
    restricted Boltzmann machines using approximations to the likelihood gradient (persistent chains); Polyak & Juditsky
    (1992) for averaging.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.array([[1, 1, 0, 0], [0, 0, 1, 1]] * 8)
        >>> start = jg.RBM.init(jax.random.key(0), x, 2, scale=0.1)
        >>> fitted = jg.fit(jax.random.key(1), start, x, jg.ContrastiveDivergence(), steps=1000)
        >>> before, after = (-m.energy(x).mean() - m.log_partition() for m in (start, fitted.model))
        >>> bool(after > before + 0.5)
        True
    """

    optimizer: Any = None
    k: int = 1
    chains: int | None = 100
    average: float | None = 0.999
    monitor: ClassVar[str] = "loss"
    default_steps: ClassVar[int] = 5000
    default_tolerance: ClassVar[float | None] = None
    full_batch: ClassVar[bool] = False

    def _optimizer(self) -> Any:
        return default_optimizer() if self.optimizer is None else self.optimizer

    def init(self, key: Any, model: Any) -> ContrastiveState:
        """The state before the first step.

        Raises:
            FitError: a model without energy and kernel, or with events of free length; k or chains below 1.
        """
        self._check(model)
        trained, _ = partition(model)
        chains = None
        if self.chains is not None:
            zeros = jnp.zeros((self.chains, *model.event_shape), float_type(model))
            chains = _advance(key, model, zeros, BURN_IN)
        average = None if self.average is None else trained
        return ContrastiveState(model, self._optimizer().init(trained), chains, jnp.zeros((), jnp.int32), average)

    def step(self, key: Any, state: ContrastiveState, batch: Batch) -> tuple[ContrastiveState, dict[str, jax.Array]]:
        """Samples from k kernel steps, the gradient of the energy gap, and one update."""
        _no_context(batch)
        x, start = batch.x, batch.x if state.chains is None else state.chains
        samples = _advance(key, state.iterate, start, self.k)
        share = _share(batch, float_type(state.iterate))
        # a reconstruction weighs as much as the event it started at, a persistent chain as much as any other
        against = share if state.chains is None else jnp.full(len(samples), 1 / len(samples), share.dtype)
        trained, rest = partition(state.iterate)
        # both phases in one call of the energy: one matrix product forward and one back, of twice the rows
        both, sign = jnp.concatenate([x, samples]), jnp.concatenate([share, -against])
        loss, gradient = jax.value_and_grad(lambda t: jnp.dot(sign, combine(t, rest).energy(both)))(trained)
        trained, moments, average = descend(
            self._optimizer(), gradient, state.moments, trained, state.average, self.average, state.steps
        )
        chains = None if state.chains is None else samples
        metrics = {"loss": loss, "gradient_norm": global_norm(gradient)}
        if state.chains is None:
            change = (samples.astype(share.dtype) - x.astype(share.dtype)).reshape((len(x), -1))
            metrics["reconstruction_error"] = jnp.dot(share, jnp.mean(change**2, axis=1))
        return ContrastiveState(combine(trained, rest), moments, chains, state.steps + 1, average), metrics

    def evaluate(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        """Mean pseudo-log-likelihood, nats per event: higher is better, and it needs no log Z.

        Raises:
            FitError: the model offers no `pseudo_log_likelihood`.
        """
        _no_context(batch)
        if not hasattr(model, "pseudo_log_likelihood"):
            raise FitError(
                "the model cannot be compared on held-out data", called="ContrastiveDivergence().evaluate",
                expected="a model with pseudo_log_likelihood(x)", got=type(model).__name__,
                fix="fit without validation and restarts",
            )  # fmt: skip
        return jnp.dot(_share(batch, float_type(model)), model.pseudo_log_likelihood(batch.x))

    def _check(self, model: Any) -> None:
        called = f"ContrastiveDivergence(k={self.k}, chains={self.chains}).init(key, {type(model).__name__})"
        if not isinstance(model, Energy):
            raise FitError(
                "contrastive divergence does not apply to this model", called=called, got=repr(model)[:300],
                expected="energy and kernel in the model", fix="jaxgen.fit(key, model, data) chooses what applies",
            )  # fmt: skip
        if self.k < 1 or (self.chains is not None and self.chains < 1):
            raise FitError(
                "contrastive divergence needs kernel steps", called=called, got=f"k={self.k}, chains={self.chains}",
                expected="k of 1 or more; chains of 1 or more, or None to start at the data",
            )  # fmt: skip
        if self.chains is not None and None in model.event_shape:
            raise FitError(
                "persistent chains need events of one shape", called=called, expected="an event_shape of ints",
                got=str(model.event_shape), fix="ContrastiveDivergence(chains=None)",
            )  # fmt: skip


def _advance(key: Any, model: Any, x: jax.Array, steps: int) -> jax.Array:
    """`steps` of the model's kernel from x."""
    return jax.lax.fori_loop(0, steps, lambda t, x: model.kernel(jax.random.fold_in(key, t), x), x)


def _share(batch: Batch, dtype: Any) -> jax.Array:
    """Each event's share of the total weight, `[N]`."""
    weight = jnp.ones(len(batch.x), dtype) if batch.weight is None else batch.weight.astype(dtype)
    return weight / jnp.sum(weight)


def _no_context(batch: Batch) -> None:
    if batch.context is not None:
        raise FitError(
            "contrastive divergence takes no context", called="ContrastiveDivergence().step",
            expected="data without context", got="a context",
        )  # fmt: skip
