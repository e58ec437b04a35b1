"""Pictures of data, densities, states, weights and training: each function draws on one matplotlib axis and returns it.

Nothing here chooses a backend or shows a window: the caller's figure stays the caller's.
"""

from jaxgen.plot.components import ellipses, information, responsibilities
from jaxgen.plot.pictures import SIGNED, filters, images
from jaxgen.plot.plane import DENSITY, data_and_samples, density, points
from jaxgen.plot.series import decoded, states
from jaxgen.plot.style import DATA, GRID, INK, MARKERS, MODEL, PALETTE
from jaxgen.plot.training import history

__all__ = [
    "DATA", "DENSITY", "GRID", "INK", "MARKERS", "MODEL", "PALETTE", "SIGNED", "data_and_samples", "decoded", "density",
    "ellipses", "filters", "history", "images", "information", "points", "responsibilities", "states",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
