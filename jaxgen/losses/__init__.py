"""Losses for `Gradient`, through the protocols only: `loss(key, model, batch, step)` in nats per event.

A loss returns a scalar, or a `Loss` where it has metrics to report or fields of the model to move.
"""

from jaxgen.losses import critics, games
from jaxgen.losses.aggregate import mmd, total_correlation
from jaxgen.losses.base import Loss, weighted_mean
from jaxgen.losses.bounds import cyclical, elbo, iwae
from jaxgen.losses.denoising import denoising_score_matching
from jaxgen.losses.likelihood import negative_elbo, nll, own
from jaxgen.losses.recognition import recognition
from jaxgen.losses.variational import reverse_kl

__all__ = [
    "Loss",
    "critics",
    "cyclical",
    "denoising_score_matching",
    "elbo",
    "games",
    "iwae",
    "mmd",
    "negative_elbo",
    "nll",
    "own",
    "recognition",
    "reverse_kl",
    "total_correlation",
    "weighted_mean",
]


def __dir__() -> list[str]:
    return __all__
