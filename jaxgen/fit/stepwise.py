"""Online expectation maximisation: an M-step after each batch, on a running average of the statistics."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core import latent
from jaxgen.core.algorithms import Traits
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.methods import context_shape
from jaxgen.core.pytree import float_type
from jaxgen.core.value import algorithm
from jaxgen.fit.em import EM


class StepwiseState(NamedTuple):
    """The state of `StepwiseEM`.

    Args:
        model: after the last M-step.
        statistics: the running average, per unit of weight, as the model would write it.
        steps: steps made, int32.
        events: how many events the average is worth.
    """

    model: Any
    statistics: Any
    steps: jax.Array
    events: jax.Array


@algorithm
class StepwiseEM:
    """Expectation maximisation on batches: `s' = (1 - g_t) s + g_t s(batch)`, `theta' = argmax Q(theta' | n s')`.

    `s(batch)` are the batch's expected statistics per unit of weight, `g_0 = 1` and `g_t = (t + offset)^-decay`. It
    sees a large set's structure in a fraction of a pass and then hovers around EM's optimum, closer with a larger
    batch and decay; a few steps of `EM` finish it. A batch should hold some tens of events per component: the first
    step trusts its own alone.

    Args:
        decay: above 0.5, up to 1; the smaller, the sooner the start is forgotten and the more noise stays.
        offset: 1 or more; larger steps less at first. `decay=1, offset=1` is the plain average over all batches.
        events: n, the number of events that the statistics stand for in an M-step, which is what a prior and the
            thresholds of repairs are weighed against: for the posterior mode that `EM` finds, the size of the data.
            None takes what the running average is worth: `n' = 1 / ((1 - g)^2 / n + g^2 / weight of the batch)`, which
            starts as one batch and grows without end, so that a prior fades as it should on an endless stream.
        chunk: events per chunk of the E-step; None chooses by the size of an event.
        frozen: what stays as it is, as in `EM`.

    Metrics: `log_likelihood` of the batch, nats per event of the model *before* the step; `objective`, the same plus
    the log density of the model's priors per event; `repaired`, the number of dead or singular parts that the M-step
    repaired.

    Source: Cappe and Moulines (2009), On-line expectation-maximization algorithm for latent data models; Liang and
    Klein (2009), Online EM for unsupervised models, for the steps and the default decay. The worth of a weighted
    average is that of Kish (1965), Survey sampling.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 500), jnp.linspace(9, 11, 500)])[:, None]
        >>> start = jg.Mixture.init(jax.random.key(0), x, 2, jg.Gaussian.init)
        >>> fitted = jg.fit(jax.random.key(1), start, x, jg.StepwiseEM(), steps=40, batch_size=100)
        >>> [abs(m - c) < 0.1 for m, c in zip(sorted(fitted.model.components.mean[:, 0].tolist()), [0, 10])]
        [True, True]
    """

    decay: float = 0.7
    offset: float = 2.0
    events: float | None = None
    chunk: int | None = None
    frozen: Any = None
    traits = Traits("log_likelihood", labels=True, steps=1000)

    def _em(self) -> EM:
        return EM(self.chunk, self.frozen)

    def init(self, key: Any, model: Any) -> StepwiseState:
        """The state before the first step.

        Raises:
            FitError: options out of range; the model, or a part of it, has no E- and M-step.
        """
        self._check()
        self._em().init(key, model)
        dtype = float_type(model)
        # the statistics' shapes do not depend on a free length, which is None here
        event = tuple(2 if length is None else length for length in model.event_shape)
        shape = context_shape(model)
        given = None if shape is None else jnp.zeros((1, *(2 if length is None else length for length in shape)), dtype)
        probe = Batch(jnp.zeros((1, *event), dtype), given, jnp.ones(1, dtype))
        shapes = jax.eval_shape(lambda model: self._em().expect(model, probe)[0], model)
        statistics = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return StepwiseState(model, statistics, jnp.zeros((), jnp.int32), jnp.ones((), dtype))

    def _check(self) -> None:
        def number(value: Any) -> bool:
            return isinstance(value, (int, float)) and not isinstance(value, bool)

        allowed = number(self.decay) and number(self.offset) and 0.5 < self.decay <= 1 and self.offset >= 1
        if not allowed or not (self.events is None or (number(self.events) and 0 < self.events < float("inf"))):
            raise FitError(
                "an option of stepwise EM is out of range", called="StepwiseEM(...)", fix="jaxgen.StepwiseEM()",
                expected="decay above 0.5 and up to 1, offset of 1 or more, events above 0 or None",
                got=f"decay={self.decay!r}, offset={self.offset!r}, events={self.events!r}",
            )  # fmt: skip

    def step(self, key: Any, state: StepwiseState, batch: Batch) -> tuple[StepwiseState, dict[str, jax.Array]]:
        """One E-step over the batch, its share in the running average, and one M-step."""
        em = self._em()
        statistics, total, weight = em.expect(state.model, batch)
        rate = (state.steps.astype(state.events.dtype) + self.offset) ** -self.decay
        rate = jnp.where(state.steps == 0, 1, rate)

        def blend(old: jax.Array, new: jax.Array) -> jax.Array:
            return ((1 - rate) * old + rate * (new / weight)).astype(old.dtype)

        average = jax.tree.map(blend, state.statistics, statistics)
        events = (1 / ((1 - rate) ** 2 / state.events + rate**2 / weight)).astype(state.events.dtype)
        scale = events if self.events is None else jnp.asarray(self.events, events.dtype)
        scaled = jax.tree.map(lambda s: (s * scale).astype(s.dtype), average)
        model, metrics = em.maximize(key, state.model, scaled, total / weight * scale, scale)
        # what was counted around the old means goes on being added to
        average = latent.recentre(model, state.model, average)
        return StepwiseState(model, average, state.steps + 1, events), metrics

    def evaluate(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        """Mean log-likelihood, nats per event."""
        return self._em().evaluate(key, model, batch)
