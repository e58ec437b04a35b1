"""Expectation maximisation for any `Latent` model: Baum-Welch is this on a hidden Markov model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import fast, latent
from jaxgen.core.algorithms import Traits
from jaxgen.core.errors import FitError
from jaxgen.core.frozen import frozen_leaves, keep_frozen
from jaxgen.core.inputs import Batch, widened
from jaxgen.core.mesh import even, per_shard
from jaxgen.core.pytree import float_type
from jaxgen.core.rare import rare_paths_left_out, spoilt
from jaxgen.core.sequences import Sequences, join
from jaxgen.core.value import algorithm
from jaxgen.ops.chunks import sum_over_chunks

#: scalars of data in a chunk, so that what K components make of them stays in a core's cache, and the fewest events;
#: other devices have no use for small pieces
CHUNK_SCALARS = {"cpu": 2**14}
CHUNK_SCALARS_ELSEWHERE = 2**20
CHUNK_EVENTS = 64
#: bytes of prepared columns in a chunk on a CPU (measured: half and twice of it are slower), and the most events
CHUNK_COLUMN_BYTES, CHUNK_COLUMN_EVENTS = 5 * 2**19, 8192
#: bytes that columns kept for the whole fit may take; beyond, each chunk makes its own
COLUMNS_LIMIT = 2**29
#: roundings of the objective, or of 1, that a step may seem to lose without having lost
ROUNDINGS = 100


class EMState(NamedTuple):
    """The state of `EM`.

    Args:
        model: after the last M-step.
        before: the model that it was made from.
        metrics: of the last step, which are about `before`.
        stalled: whether a step was taken back: the model stays from then on.
    """

    model: Any
    before: Any
    metrics: dict[str, jax.Array]
    stalled: jax.Array


@algorithm
class EM:
    """Expectation maximisation: `theta' = argmax E_{p(z | x, theta)} log p(x, z | theta')`.

    The E-step runs over chunks of events that fit the cache and adds their statistics with compensation. No step loses:
    one after which the objective is lower by more than rounding (of singular covariances in float32) is taken back, and
    ends the ascent.

    Args:
        chunk: events per chunk; None chooses by the size of an event.
        frozen: what stays as it is, `{path: True}` or `{path: bools}`: `{"components.mean": True}` keeps the means of a
            mixture of Gaussians, `{"components": (True, False)}` all of its first component; `["chain", "emissions"]`
            is `True` for each. The other parameters take their maximum given those.
        amend: `(key, model, statistics) -> statistics`, what the M-step gets in place of the sums over all events, a
            frozen value: a ridge, or noise for privacy. The objective may then fall, and no step is taken back.

    Data may have labels, `dict(x=x, label=y)`: of an event whose component is known, -1 of others. Its likelihood is
    then that of event and label.

    Metrics: `log_likelihood`, nats per event of the model *before* the step; `objective`, what the step increases: the
    same plus the log density of the model's priors per event; `repaired`, the number of dead or singular parts that the
    M-step repaired.

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
    frozen: Any = None
    amend: Any = None
    traits = Traits("objective", full_batch=True, labels=True, steps=200, tolerance=1e-6, summed=True)

    def init(self, key: Any, model: Any) -> EMState:
        """The state before the first step.

        Raises:
            FitError: the model, or a part of it, has no E- and M-step. ModelError: nothing to freeze by that name.
        """
        if not latent.supports_em(model):
            raise FitError(
                "EM does not apply to this model", called=f"EM().init(key, {type(model).__name__})",
                expected="e_step and m_step in the model and in all its parts", got=repr(model)[:300],
                fix="jaxgen.Gradient(jaxgen.losses.negative_elbo)" if latent.has_bound(model) else
                "jaxgen.Gradient(jaxgen.losses.nll), which needs log_prob only",
            )  # fmt: skip
        if self.chunk is not None and (not isinstance(self.chunk, int) or self.chunk < 1):
            raise FitError(
                "a chunk is a number of events", called=f"EM(chunk={self.chunk!r})", expected="a positive int or None",
                got=repr(self.chunk),
            )  # fmt: skip
        self._held(model)
        lowest = jnp.full((), -jnp.inf, float_type(model))
        metrics = {"log_likelihood": lowest, "objective": lowest, "repaired": jnp.zeros((), jnp.int32)}
        return EMState(model, model, metrics, jnp.zeros((), bool))

    def arrange(self, model: Any, batch: Batch) -> Batch:
        """The batch with sequences of many lengths joined to rows of one; on the host, before anything is compiled."""
        plain = batch.weight is None and batch.context is None
        if not (plain and isinstance(batch.x, Sequences) and np.ndim(batch.x.length) == 1 and latent.joins(model)):
            return batch
        rows = join(batch.x, batch.label)
        return batch if rows is None else batch._replace(x=rows[0], label=rows[1])

    def prepare(self, model: Any, batch: Batch) -> Batch:
        """The batch as the E-steps like best to see it: what they need of the data in every step is made once."""
        return self._prepared(model, batch, COLUMNS_LIMIT)

    def step(self, key: Any, state: EMState, batch: Batch) -> tuple[EMState, dict[str, jax.Array]]:
        """One E-step over all events and one M-step."""
        model, batch = state.model, self._prepared(state.model, batch)
        form, x = fast.ready(model, batch.x)
        if not isinstance(x, fast.Events):
            return self._accepted(state, *self.maximize(key, model, *self._expect(model, form, batch)))

        def attempt(precise: Any) -> tuple[Any, dict[str, jax.Array], jax.Array]:
            given = batch._replace(x=dataclasses.replace(x, precise=precise))
            new, metrics = self.maximize(key, model, *self._expect(model, form, given))
            # sums by columns are too coarse for components that turn out narrow: then they are made again without
            return new, metrics, fast.ready(new, x)[1].precise & ~precise

        return self._accepted(state, *_until_fine(attempt, x.precise))

    def advance(
        self, key: Any, state: EMState, statistics: Any, total: Any, weight: Any
    ) -> tuple[EMState, dict[str, jax.Array]]:
        """One step, from statistics, log-likelihood and weight of all events."""
        return self._accepted(state, *self.maximize(key, state.model, statistics, total, weight))

    def _accepted(self, state: EMState, new: Any, metrics: Any) -> tuple[EMState, dict[str, jax.Array]]:
        """The state after a step, or that before the last one where the last one lost."""
        if self.amend is not None:
            return EMState(new, state.model, metrics, state.stalled), metrics
        value, last = metrics["objective"], state.metrics["objective"]
        slack = ROUNDINGS * jnp.finfo(value.dtype).eps * jnp.maximum(1, jnp.abs(last))
        lost = jnp.isfinite(value) & (value < last - slack)  # what is not finite ends the fit, with a word
        choose = lambda flag, a, b: jax.tree.map(lambda a, b: jnp.where(flag, a, b.astype(a.dtype)), a, b)  # noqa: E731
        kept = choose(lost, state.before, choose(state.stalled, state.model, new))
        metrics = choose(lost, state.metrics, metrics)
        return EMState(kept, choose(lost, state.before, state.model), metrics, state.stalled | lost), metrics

    def maximize(
        self, key: Any, model: Any, statistics: Any, total: Any, weight: Any
    ) -> tuple[Any, dict[str, jax.Array]]:
        """The M-step, on statistics, log-likelihood and weight of all events: the model, and metrics."""
        held = self._held(model)
        statistics = statistics if self.amend is None else self.amend(key, model, statistics)
        seen = statistics if held is None else latent.freeze(model, statistics, held)
        new, repaired = latent.maximize(model, seen)
        objective = (total + latent.log_prior(model)) / weight
        metrics = {"log_likelihood": total / weight, "objective": objective, "repaired": repaired}
        return keep_frozen(new, model, held), metrics

    def evaluate(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        """Mean log-likelihood, nats per event."""
        _, total, weight = self.expect(model, batch)
        return total / weight

    def expect(self, model: Any, batch: Batch) -> tuple[Any, jax.Array, jax.Array]:
        """Statistics over all events, their weighted log-likelihood in nats, and their total weight."""
        # each device prepares its own events, around a point amid them: they are looked at in this one step only
        return per_shard(self._prepared_sums)(model, _weighted(even(batch), model))

    def _prepared_sums(self, model: Any, batch: Batch) -> tuple[Any, jax.Array, jax.Array]:
        batch = self._prepared(model, batch)
        form, x = fast.ready(model, batch.x)
        statistics, total, weight = self._sums(form, batch._replace(x=x))
        return fast.finish(model, form, statistics, x), total, weight

    def _prepared(self, model: Any, batch: Batch, limit: int = 0) -> Batch:
        if isinstance(batch.x, fast.Events):
            return batch
        batch = even(batch)
        return batch._replace(x=fast.prepare(model, batch.x, limit))

    def _held(self, model: Any) -> Any:
        return frozen_leaves(model, self.frozen) if self.frozen else None

    def _largest(self, x: Any) -> int:
        """Events in a chunk, at most."""
        if self.chunk:
            return self.chunk
        scalars = CHUNK_SCALARS.get(jax.default_backend(), CHUNK_SCALARS_ELSEWHERE)
        per_event = max(1, math.prod(x.shape[1:]))
        prepared = isinstance(x, fast.Events) and x.center.shape == x.shape[1:]
        if prepared and jax.default_backend() in CHUNK_SCALARS:
            width = jax.eval_shape(x.make, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.center.dtype)).shape[0]
            return max(CHUNK_EVENTS, min(CHUNK_COLUMN_EVENTS, CHUNK_COLUMN_BYTES // (width * x.center.dtype.itemsize)))
        return max(CHUNK_EVENTS, scalars // per_event)

    def _expect(self, model: Any, ready: Any, batch: Batch) -> tuple[Any, jax.Array, jax.Array]:
        batch = _weighted(batch, ready)
        statistics, total, weight = per_shard(self._sums)(ready, batch)
        return fast.finish(model, ready, statistics, batch.x), total, weight

    def _sums(self, ready: Any, batch: Batch) -> tuple[Any, jax.Array, jax.Array]:
        """Statistics, log-likelihood and weight, summed over the events."""
        x = batch.x

        def expect(rows: Any, fresh: Any) -> Any:
            part = jnp.where(fresh, rows(batch.weight), 0)
            further = {"label": batch.label, "context": batch.context}
            further = {name: rows(value) for name, value in further.items() if value is not None}
            events = x.cut(rows) if isinstance(x, fast.Events) else jax.tree.map(rows, x)
            statistics, log_prob = ready.e_step(events, part, **further)
            # weight 0 silences even an impossible event
            return statistics, jnp.sum(jnp.where(part > 0, part * jnp.where(part > 0, log_prob, 0), 0))

        sums = sum_over_chunks(expect, x.shape[0], self._largest(x))
        return *sums, jnp.sum(batch.weight * fast.counted(x))


def _weighted(batch: Batch, model: Any) -> Batch:
    weight = jnp.ones(batch.events, float_type(model)) if batch.weight is None else widened(batch.weight)
    return batch._replace(weight=weight)


def _until_fine(attempt: Callable[[Any], Any], precise: Any) -> Any:
    """`attempt(precise)`, and where its last result says so a second one that is precise: one program for both."""
    if rare_paths_left_out():
        *outcome, wanted = attempt(precise)
        return tuple(spoilt(wanted, outcome))
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(attempt, precise))

    def go_on(carry: Any, _: None) -> Any:
        outcome, precise, wanted = carry
        outcome = jax.lax.cond(wanted, attempt, lambda _: outcome, precise)
        return (outcome, jnp.ones_like(precise), wanted & outcome[-1]), None

    ((*outcome, _), _, _), _ = jax.lax.scan(go_on, (nothing, precise, jnp.ones((), bool)), None, length=2)
    return tuple(outcome)
