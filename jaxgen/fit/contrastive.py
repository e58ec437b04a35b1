"""Contrastive divergence for any energy model: the likelihood's gradient, with samples in place of log Z."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core import latent
from jaxgen.core.algebra import context_shape
from jaxgen.core.algorithms import Traits
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.mesh import apart, beside, spread
from jaxgen.core.protocols import Completing, Energy, PseudoLikelihood, has
from jaxgen.core.pytree import combine, float_type, partition
from jaxgen.core.value import algorithm
from jaxgen.fit.averages import Average
from jaxgen.fit.descent import Descent, Player, for_steps, global_norm, resolved
from jaxgen.fit.negative import AtEvents, FromData, Negative, Persistent, Reusing

#: of the default optimiser: the first step size, and after how many steps it is half of that
STEP_SIZE, HALVED = 0.1, 3000
#: steps of a fit, unless it is told
STEPS = 10_000


class ContrastiveState(NamedTuple):
    """The state of `ContrastiveDivergence`: the model in training, chains, and the number of steps made.

    `chains` is what the source of samples keeps: `[chains, *event]`, `[replicas, chains, *event]` of tempered ones,
    None where chains start anew at the data.
    """

    player: Player
    chains: Any
    steps: jax.Array

    @property
    def model(self) -> Any:
        """The first average of the iterates where one is kept, else the iterate."""
        return self.player.model


def default_optimizer(step_size: float = STEP_SIZE) -> Any:
    """Gradient descent with the step size `step_size / (1 + t / 3000)`: it falls to zero, so that the chains catch up.

    It does not depend on the number of steps: a fit that goes on is the longer fit.

    Source: Robbins and Monro (1951), A stochastic approximation method, for the conditions that 1 / t meets; the two
    numbers are this library's, tried on digits and on bars and stripes.
    """
    import optax

    return optax.sgd(lambda count: step_size / (1 + count / HALVED))


@algorithm
class ContrastiveDivergence:
    """Descends the energy of data and ascends that of the model's samples.

    `grad = mean_data grad E(x) - mean_samples grad E(x')`, with `x'` after k kernel steps from persistent chains
    (PCD-k) or, with `chains=None`, from the data of the batch (CD-k), or from another source.

    Persistent chains are the default: they follow the model from step to step, so that the gradient tends to that of
    the likelihood, which CD's does not. Their noise does not shrink, hence the average of the iterates, and a step size
    that falls to zero.

    Args:
        optimizer: any optax transformation; None is `default_optimizer()`. Or a function of `steps`, as in `Gradient`.
        k: kernel steps per update, at least 1; more where chains mix slowly.
        chains: number of persistent chains; None starts at the data instead. They start at zeros, carried by 100
            kernel steps.
        average: an average of the iterates, which is then the fitted model, or a dict of several, as in `Gradient`;
            None keeps none.
        negative: another source of samples in place of `k` and `chains`: `Tempered`, `Replay`, or `Persistent` with
            `reuse`.
        penalty: what is added to the objective, a function `(model, batch) -> scalar` or a tuple of them, such as
            `Decay` and `Sparsity`.
        score: of validation data and restarts, `(key, model, batch) -> nats per event`, higher is better; None is the
            mean pseudo-log-likelihood. `metrics.monitors` has the exact and the annealed log-likelihood.
        steps: how many `fit` makes at most unless it is told; None is 10,000.

    A model whose `energy` and `kernel` take a context has it with chains that start at the data.

    Fields marked `fixed()` and integer leaves stay bit-identical; events may have weights. Metrics: `loss`, the energy
    of the data minus that of the samples (zero at the optimum, and no likelihood: it can rise while the model gets
    better); both of them, `data_energy` and `chain_energy`, known up to log Z; `gradient_norm`; `penalty` where there
    is one; and those of the source.

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
    average: Any = Average(0.999)
    negative: Any = None
    penalty: Any = None
    score: Callable[[Any, Any, Batch], jax.Array] | None = None
    steps: int | None = None

    @property
    def traits(self) -> Traits:
        """The facts about this algorithm that `fit` needs before the first step."""
        return Traits("loss", steps=STEPS if self.steps is None else self.steps)

    def for_steps(self, steps: int) -> ContrastiveDivergence:
        """Return the algorithm for that number of steps: with an optimiser that was a function of it."""
        return for_steps(self, steps, "optimizer")

    def _descent(self) -> Descent:
        optimizer = resolved(self.optimizer, STEPS if self.steps is None else self.steps)
        return Descent(default_optimizer() if optimizer is None else optimizer, self.average)

    def _negative(self) -> Any:
        if self.negative is not None:
            return self.negative
        return FromData(self.k) if self.chains is None else Persistent(self.chains, self.k)

    def _penalties(self) -> tuple[Any, ...]:
        if self.penalty is None:
            return ()
        return self.penalty if isinstance(self.penalty, tuple) else (self.penalty,)

    def init(self, key: Any, model: Any) -> ContrastiveState:
        """The state before the first step.

        Raises:
            FitError: a model without energy and kernel, or with events of free length; options out of range.
            ModelError: tempered chains of a model without an annealing path.
        """
        self._check(model)
        called = f"ContrastiveDivergence(k={self.k}, chains={self.chains}).init(key, {type(model).__name__})"
        player = self._descent().start(model, called)
        return ContrastiveState(player, self._negative().init(key, model), jnp.zeros((), jnp.int32))

    def step(self, key: Any, state: ContrastiveState, batch: Batch) -> tuple[ContrastiveState, dict[str, jax.Array]]:
        """Samples of the model, the gradient of the energy gap, and one update."""
        iterate = state.player.iterate
        given = {} if batch.context is None else {"context": batch.context}
        share = _share(batch, float_type(iterate))
        if has(iterate, Completing) and latent.accepts_missing(iterate):
            # what is not seen, as the hidden layers of a deep machine, drawn given the rest: a gradient of log p(seen)
            key, fill = jax.random.split(key)
            batch = batch._replace(x=iterate.complete(fill, batch.x, **given))
        source = self._negative()
        samples, against, chains, report = source.draw(key, iterate, state.chains, batch, share, state.steps)
        reuse = isinstance(source, Reusing) and source.reuse
        trained, rest = partition(iterate)
        # both phases in one call of the energy: one matrix product forward and one back, of twice the rows
        n, chains = len(share), spread(chains)
        both, sign = beside(batch.x, samples), beside(share, -against)
        given = {name: beside(context, context) for name, context in given.items()}  # samples are at the events' own

        def objective(trained: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array | None]]:
            model = combine(trained, rest)
            energy, field = model.energy_and_field(both) if reuse else (model.energy(both, **given), None)
            penalty = sum((p(model, batch) for p in self._penalties()), jnp.zeros((), energy.dtype))
            return jnp.dot(sign, energy) + penalty, (energy, penalty, field)

        gradient, (energy, penalty, field) = jax.grad(objective, has_aux=True)(trained)
        player = self._descent().descend(state.player, gradient, state.steps)
        energies = apart(energy, n)
        of_data, of_chains = jnp.dot(share, energies[0]), jnp.dot(against, energies[1])
        metrics = {
            "loss": of_data - of_chains, "data_energy": of_data, "chain_energy": of_chains,
            "gradient_norm": global_norm(state.player.per_scale(gradient)), **report,
        }  # fmt: skip
        chains = apart(field, n)[1] if reuse else chains
        metrics |= {"penalty": penalty} if self._penalties() else {}
        return ContrastiveState(player, chains, state.steps + 1), metrics

    def evaluate(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        """The score of validation data, nats per event: higher is better.

        Raises:
            FitError: no `score`, and the model offers no `pseudo_log_likelihood`.
        """
        if self.score is not None:
            return self.score(key, model, batch)
        if not has(model, PseudoLikelihood):
            raise FitError(
                "the model cannot be compared on held-out data", called="ContrastiveDivergence().evaluate",
                expected="score=, or a model with pseudo_log_likelihood(x)", got=type(model).__name__,
                fix="give it a score, such as jaxgen.metrics.monitors.Annealed",
            )  # fmt: skip
        given = {} if batch.context is None else {"context": batch.context}
        return jnp.dot(_share(batch, float_type(model)), model.pseudo_log_likelihood(batch.x, **given))

    def _check(self, model: Any) -> None:
        called = f"ContrastiveDivergence(k={self.k}, chains={self.chains}).init(key, {type(model).__name__})"
        if not isinstance(model, Energy):
            raise FitError(
                "contrastive divergence does not apply to this model", called=called, got=repr(model)[:300],
                expected="energy and kernel in the model", fix="jaxgen.fit(key, model, data) chooses what applies",
            )  # fmt: skip
        if not all(map(callable, self._penalties())) or not (self.score is None or callable(self.score)):
            raise FitError(
                "penalties and scores are functions", called=called, got=f"{self.penalty!r}, {self.score!r}"[:200],
                expected="(model, batch) -> scalar, and (key, model, batch) -> scalar",
                fix="jaxgen.ContrastiveDivergence(penalty=jaxgen.Decay(1e-4))",
            )  # fmt: skip
        if isinstance(self.negative, type) or not (self.negative is None or isinstance(self.negative, Negative)):
            raise FitError(
                "that is no source of samples", called=called, got=repr(self.negative)[:200],
                expected="init and draw", fix="jaxgen.ContrastiveDivergence(negative=jaxgen.Tempered())",
            )  # fmt: skip
        source, shape = self._negative(), context_shape(model)
        if shape is not None and not (isinstance(source, AtEvents) and source.at_events):
            raise FitError(
                "chains of their own are at no context", called=called, got=f"{type(source).__name__} for a model of "
                f"contexts {list(shape)}", expected="chains that start at the events of the batch",
                fix="start the chains at the data",
            )  # fmt: skip


def _share(batch: Batch, dtype: Any) -> jax.Array:
    """Each event's share of the total weight, `[N]`."""
    weight = jnp.ones(len(batch.x), dtype) if batch.weight is None else batch.weight.astype(dtype)
    return weight / jnp.sum(weight)
