from . import data, losses, metrics, nn, ops, plot, recipes
from .core.door import per_batch, per_event, per_sample, weighted_events
from .core.errors import (
    DataError,
    FileError,
    FitError,
    JaxgenError,
    JaxgenWarning,
    ModelError,
    ShapeError,
)
from .core.files import load, save
from .core.pytree import fixed, model, static, summary
from .models.gaussian import DiagonalGaussian, Gaussian, StandardNormal
from .models.mixture import Mixture
from .fit.driver import Fitted, fit
from .fit.em import EM
from .fit.gradient import Gradient
from .fit.loop import ScanFit, Status, scan_fit
