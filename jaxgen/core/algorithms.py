"""The page of algorithms: what `fit` asks of one, required or optional.

Structural, as `core.protocols`: an algorithm has a protocol by having its members.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax

Key = jax.Array


@dataclasses.dataclass(frozen=True)
class Traits:
    """The facts about an algorithm that `fit` needs before the first step.

    Args:
        monitor: the metric whose change a tolerance looks at, and which the progress shows.
        full_batch: True where every step needs all events.
        labels: True where the algorithm looks at labels of events.
        data: False where it looks at no data, so that `fit(key, model, None, algorithm)` makes sense.
        steps: how many steps `fit` makes at most unless it is told; None where there is no good default.
        tolerance: the default change of the monitored metric, nats per event, that ends a fit on all events; None for
            no end before all steps are made.
        summed: True where a step is a function of sums over events, so that it can be made chunk by chunk: `Summed`.

    Example:
        >>> Traits(monitor="objective", full_batch=True).steps
        2000
    """

    monitor: str = "loss"
    full_batch: bool = False
    labels: bool = False
    data: bool = True
    steps: int | None = 2000
    tolerance: float | None = None
    summed: bool = False


@runtime_checkable
class Algorithm(Protocol):
    """A pair of pure functions, held in a frozen dataclass that hashes by value.

    A state has a field or property `model`. A metric `diverged` that is true ends the fit.

    What else an algorithm can do it says by having the methods of `Evaluated`, `Scheduled`, `Prepared`, `Arranged`,
    `Reviewed` and `Summed`.
    """

    @property
    def traits(self) -> Traits:
        """The facts about this algorithm that `fit` needs before the first step."""

    def init(self, key: Key, model: Any) -> Any:
        """The state before the first step."""

    def step(self, key: Key, state: Any, batch: Any) -> tuple[Any, dict[str, jax.Array]]:
        """One step on a `Batch`: the next state, and scalar metrics."""


@runtime_checkable
class Evaluated(Protocol):
    """An algorithm that can score a model on other data, which validation and restarts need."""

    def evaluate(self, key: Key, model: Any, batch: Any) -> jax.Array:
        """Return the score of the model on a `Batch`, a scalar mean over its events: higher is better."""


@runtime_checkable
class Scheduled(Protocol):
    """An algorithm that depends on the number of steps: its step sizes fall to the last of them."""

    def for_steps(self, steps: int) -> Any:
        """Return the algorithm for a fit of at most so many steps."""


@runtime_checkable
class Prepared(Protocol):
    """An algorithm that likes to see its data in another form, made once where a step sees all events."""

    def prepare(self, model: Any, batch: Any) -> Any:
        """Return the `Batch` in the form that the steps work on; inside a compiled program."""


@runtime_checkable
class Arranged(Protocol):
    """An algorithm that likes its events in another order or grouping, made once on the host."""

    def arrange(self, model: Any, batch: Any) -> Any:
        """Return the `Batch` of the same events, rearranged before anything is compiled."""


@runtime_checkable
class Reviewed(Protocol):
    """An algorithm that can tell from the history of a fit that it went wrong, of which `fit` warns."""

    def review(self, history: Any) -> str:
        """Return what went wrong, in words; empty where nothing did. Metrics are numpy arrays of steps, one or more."""


@runtime_checkable
class Summed(Protocol):
    """An algorithm whose step is made of sums over events: `advance(key, state, *sum_n expect(model, batch_n))`."""

    def expect(self, model: Any, batch: Any) -> tuple[Any, jax.Array, jax.Array]:
        """Return statistics, their log-likelihood in nats and their weight, all three additive over events."""

    def advance(
        self, key: Key, state: Any, statistics: Any, total: Any, weight: Any
    ) -> tuple[Any, dict[str, jax.Array]]:
        """Return the state after one step from the sums over all events, and scalar metrics."""
