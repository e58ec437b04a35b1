"""Scores of a fit on data that it does not see, and the best model by them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.inputs import Batch
from jaxgen.fit.loop import VALIDATIONS, Loop, Status
from jaxgen.fit.watch import Progress


class Validation:
    """A watcher that scores the model, keeps the best one, and ends a fit that stopped getting better.

    Args:
        loop: of the fit.
        held: the data, with a `mean(score)`.
        every: steps between two scores.
        patience: scores without a better one that end the fit, or None.
        start: the model, or the models of all restarts, before the first score.
    """

    def __init__(self, loop: Loop, held: Any, every: int, patience: int | None, start: Any):
        self.every, self._loop, self._held, self._patience = every, loop, held, patience
        lanes = () if loop.lanes is None else (loop.lanes,)
        self.scores, self.steps = np.zeros((0, *lanes)), np.zeros(0, np.int64)
        # nothing is better than a score that was not measured
        self.best = jnp.full(lanes, -jnp.inf), start

    def __call__(self, progress: Progress[Any]) -> Status | None:
        """Score the model, once a step."""
        if len(self.steps) and self.steps[-1] == progress.step:
            return None
        score = score_of(self._loop, progress.model, self._held)
        self.best = _better(score, progress.model, *self.best)
        self.scores = np.concatenate([self.scores, np.asarray(score, np.float64)[None]])
        self.steps = np.append(self.steps, progress.step)
        top = np.where(np.isnan(self.scores), -np.inf, self.scores).reshape(len(self.scores), -1).max(axis=1)
        stale = len(top) - 1 - int(np.argmax(top))
        return Status.PATIENCE if self._patience is not None and stale >= self._patience else None

    @property
    def history(self) -> dict[str, np.ndarray]:
        """Scores and when they were made; nothing before the first."""
        if not len(self.scores):
            return {}
        return {"validation": np.moveaxis(self.scores, 0, -1), "validation_step": self.steps}


def score_of(loop: Loop, model: Any, data: Any) -> Any:
    """The algorithm's score of a model (of each restart), its mean over data."""
    # one key for all validations: the same noise, so that scores differ by the model only
    key = jax.random.fold_in(loop.key, VALIDATIONS)
    return data.mean(functools.partial(_evaluate, loop.algorithm, loop.lanes, key, model))


@functools.partial(jax.jit, static_argnames=("algorithm", "lanes"))
def _evaluate(algorithm: Any, lanes: int | None, key: Any, model: Any, batch: Batch) -> jax.Array:
    score = jax.vmap(algorithm.evaluate, in_axes=(None, 0, None)) if lanes else algorithm.evaluate
    return score(key, model, batch)


@jax.jit
def _better(score: Any, model: Any, best_score: Any, best_model: Any) -> tuple[Any, Any]:
    """The better of two models, of each restart; a score that is NaN is never better, and beaten by any other."""
    higher = score > best_score
    # as long as no model has a score, the last one is the best guess
    better = higher | jnp.isneginf(best_score)

    def choose(new: Any, old: Any) -> Any:
        return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - better.ndim)), new, old)

    return jnp.where(higher, score, best_score), jax.tree.map(choose, model, best_model)
