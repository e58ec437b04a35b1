"""Expectation maximisation for any `Latent` model: Baum-Welch is this on a hidden Markov model."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.errors import FitError
from jaxgen.core.gate import Batch
from jaxgen.core.pytree import float_type
from jaxgen.core.value import algorithm
from jaxgen.ops.chunks import sum_over_chunks

#: scalars of data in a chunk, so that what K components make of them stays in a core's cache, and the fewest events
CHUNK_SCALARS = 2**14
CHUNK_EVENTS = 64


class EMState(NamedTuple):
    """The state of `EM`: the model is all there is."""

    model: Any


@algorithm
class EM:
    """Expectation maximisation: `theta' = argmax E_{p(z | x, theta)} log p(x, z | theta')`.

    The E-step runs over chunks of events that fit the cache and adds their statistics with compensation.

    Args:
        chunk: events per chunk; None chooses by the size of an event.

    Metrics: `log_likelihood`, nats per event of the model *before* the step; `repaired`, the number of dead or
    singular parts that the M-step repaired.

    Source: Dempster, Laird and Rubin (1977).

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> start = jg.Mixture.init(jax.random.key(0), x, 2, jg.Gaussian.init)
        >>> fitted = jg.fit(jax.random.key(1), start, x, jg.EM(), steps=20)
        >>> fitted.status.name, fitted.history["log_likelihood"].shape == (fitted.steps,)
        ('CONVERGED', True)
    """

    chunk: int | None = None
    monitor: ClassVar[str] = "log_likelihood"
    default_steps: ClassVar[int] = 200
    default_tolerance: ClassVar[float] = 1e-6
    full_batch: ClassVar[bool] = True

    def init(self, key: Any, model: Any) -> EMState:
        """The state before the first step.

        Raises:
            FitError: the model, or a part of it, has no E- and M-step.
        """
        if not algebra.supports_em(model):
            raise FitError(
                "EM does not apply to this model", called=f"EM().init(key, {type(model).__name__})",
                expected="e_step and m_step in the model and in all its parts", got=repr(model)[:300],
                fix="jaxgen.Gradient(jaxgen.losses.nll), which needs log_prob only",
            )  # fmt: skip
        if self.chunk is not None and (not isinstance(self.chunk, int) or self.chunk < 1):
            raise FitError(
                "a chunk is a number of events", called=f"EM(chunk={self.chunk!r})", expected="a positive int or None",
                got=repr(self.chunk),
            )  # fmt: skip
        return EMState(model)

    def step(self, key: Any, state: EMState, batch: Batch) -> tuple[EMState, dict[str, jax.Array]]:
        """One E-step over all events and one M-step."""
        statistics, mean = self._expect(state.model, batch)
        model, repaired = algebra.maximize(state.model, statistics)
        return EMState(model), {"log_likelihood": mean, "repaired": repaired}

    def evaluate(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        """Mean log-likelihood, nats per event."""
        return self._expect(model, batch)[1]

    def _expect(self, model: Any, batch: Batch) -> tuple[Any, jax.Array]:
        """Statistics over all events, and the weighted mean log-likelihood."""
        if batch.context is not None:
            raise FitError(
                "EM takes no context", called="EM().step", expected="data without context", got="a context",
                fix="jaxgen.Gradient(jaxgen.losses.nll)",
            )  # fmt: skip
        x = batch.x
        weight = jnp.ones(x.shape[0], float_type(model)) if batch.weight is None else batch.weight
        n = x.shape[0]
        largest = self.chunk or max(CHUNK_EVENTS, CHUNK_SCALARS // max(1, math.prod(x.shape[1:])))

        def expect(rows: Any, fresh: Any) -> Any:
            part = jnp.where(fresh, rows(weight), 0)
            statistics, log_prob = model.e_step(rows(x), part)
            # weight 0 silences even an impossible event
            return statistics, jnp.sum(jnp.where(part > 0, part * jnp.where(part > 0, log_prob, 0), 0))

        statistics, total = sum_over_chunks(expect, n, largest)
        return statistics, total / jnp.sum(weight)
