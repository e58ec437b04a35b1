"""Values that games of a generator against a critic are made of, the options of `Adversarial`.

Losses of the two players, penalties of the critic, orders of moves, what is compared, and changes of images that adapt.
"""

from jaxgen.fit.augmentation import Adaptive
from jaxgen.fit.orders import Alternating, Extragradient, Order, Players, Simultaneous, Turns
from jaxgen.fit.sides import Compared, Latents, Pairs, Samples, Sides
from jaxgen.losses.critics import R1, R2, Consistency, Interpolated, Judged, LeCam, Penalty
from jaxgen.losses.games import Game, Hinge, LeastSquares, Minimax, NonSaturating, Relativistic, Wasserstein

__all__ = [
    "R1", "R2", "Adaptive", "Alternating", "Compared", "Consistency", "Extragradient", "Game", "Hinge",
    "Interpolated", "Judged", "Latents", "LeCam", "LeastSquares", "Minimax", "NonSaturating", "Order", "Pairs",
    "Penalty", "Players", "Relativistic", "Samples", "Sides", "Simultaneous", "Turns", "Wasserstein",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
