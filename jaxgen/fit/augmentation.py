"""Changes of images whose probability adapts to how well a critic knows its data by heart."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.value import algorithm
from jaxgen.ops.augment import USUAL, Change, augmented


@algorithm
class Adaptive:
    """Changes of what a critic sees, each with a probability that rises while it overfits and falls while it does not.

    `p' = p + sign(r - target) N / pace`, between 0 and 1, where r is the mean sign of the critic's outputs on the N
    events of a step (of pairs, in a game of differences): 0 of one that does not tell, 1 of one that knows every event.

    Args:
        changes: functions `(key, x) -> x`, such as those of `ops.augment`.
        target: of r.
        pace: events after which p may have gone from 0 to 1.

    Metrics of a game: `augmentation`, p, and `overfitting`, r.

    Source: Karras, Aittala, Hellsten, Laine, Lehtinen and Aila (2020), Training generative adversarial networks with
    limited data, section 3 and equation 1.

    Example:
        >>> round(float(Adaptive(pace=1000.0).adapted(0.5, 0.9, 100)), 2)
        0.6
    """

    changes: tuple[Change, ...] = USUAL
    target: float = 0.6
    pace: float = 500_000.0

    def __call__(self, key: Any, x: jax.Array, probability: Any) -> jax.Array:
        """Return changed images."""
        return augmented(key, x, self.changes, probability)

    def adapted(self, probability: Any, overfitting: Any, events: int) -> jax.Array:
        """Return the probability after a step on so many events."""
        return jnp.clip(probability + jnp.sign(overfitting - self.target) * (events / self.pace), 0, 1)
