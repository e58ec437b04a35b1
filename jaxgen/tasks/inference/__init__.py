"""Simulation-based inference: posteriors of a simulator's parameters, by what was simulated alone."""

from jaxgen.tasks.inference.chains import Chains
from jaxgen.tasks.inference.checks import Calibrated, Predictive, calibrate, predictive
from jaxgen.tasks.inference.estimators import nle, npe, nre
from jaxgen.tasks.inference.posteriors import ChainPosterior, NeuralPosterior
from jaxgen.tasks.inference.simulations import Simulations

__all__ = [
    "Calibrated", "ChainPosterior", "Chains", "NeuralPosterior", "Predictive", "Simulations", "calibrate", "nle", "npe",
    "nre", "predictive",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
