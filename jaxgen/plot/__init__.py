"""Pictures of data, densities, states, weights and training: each function draws on one matplotlib axis and returns it.

Nothing here chooses a backend or shows a window: the caller's figure stays the caller's.
"""

from jaxgen.plot.comparison import comparison
from jaxgen.plot.components import ellipses, information, responsibilities
from jaxgen.plot.distributions import corner, histogram
from jaxgen.plot.fidelity import fidelity
from jaxgen.plot.forecasts import forecast
from jaxgen.plot.latents import interpolation, latent_map, reconstructions, traversals
from jaxgen.plot.pictures import SIGNED, filters, images
from jaxgen.plot.plane import DENSITY, data_and_samples, density, points
from jaxgen.plot.samples import calibration, samples_side_by_side
from jaxgen.plot.series import decoded, states
from jaxgen.plot.style import DATA, GRID, INK, MARKERS, MODEL, PALETTE, component_colour
from jaxgen.plot.training import history, metrics

__all__ = [
    "DATA", "DENSITY", "GRID", "INK", "MARKERS", "MODEL", "PALETTE", "SIGNED", "calibration", "comparison",
    "component_colour", "corner", "data_and_samples", "decoded", "density", "ellipses", "fidelity", "filters",
    "forecast", "histogram", "history", "images", "information", "interpolation", "latent_map", "metrics", "points",
    "reconstructions", "responsibilities", "samples_side_by_side", "states", "traversals",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
