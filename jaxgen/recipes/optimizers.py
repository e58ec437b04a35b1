"""The optimisers of the recipes: Adam, with steps that fall."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def adam(step_size: float, clip: float) -> Callable[..., Any]:
    """Return `steps -> optimiser`: Adam on clipped gradients, whose step size falls to a hundredth by the last step."""
    return functools.partial(_falling_adam, step_size, clip)


def _falling_adam(step_size: float, clip: float, steps: int) -> Any:
    import optax

    # half a cosine to a hundredth (Loshchilov and Hutter 2017, SGDR), so that a longer fit still moves
    return optax.chain(
        optax.clip_by_global_norm(clip), optax.adam(optax.cosine_decay_schedule(step_size, steps, alpha=0.01))
    )


def of_two_players(step_size: float) -> Callable[..., Any]:
    """Return `steps -> optimiser` for a game: Adam without momentum, whose step size falls to a hundredth by the last
    step, since players circle the solution at a distance that is proportional to it."""
    return functools.partial(_falling_without_momentum, step_size)


def _falling_without_momentum(step_size: float, steps: int) -> Any:
    import optax

    return optax.adam(optax.cosine_decay_schedule(step_size, steps, alpha=0.01), b1=0.0, b2=0.99)
