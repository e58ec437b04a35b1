"""The things that generative models are used for: small functions over capabilities, for every family that has them."""

from jaxgen.tasks import conformal
from jaxgen.tasks.anomalies import Anomalies, anomaly
from jaxgen.tasks.attribution import Attribution, attribution
from jaxgen.tasks.classification import ClassDensities, Propagated, class_densities, propagate
from jaxgen.tasks.clusters import Agreement, agreement, neighbour_accuracy
from jaxgen.tasks.comparison import Comparison, compare
from jaxgen.tasks.decisions import Labeller, decide, labeller, temperature
from jaxgen.tasks.detection import Detector, detector
from jaxgen.tasks.fidelity import Fidelity, fidelity
from jaxgen.tasks.inference import (
    Calibrated,
    ChainPosterior,
    Chains,
    NeuralPosterior,
    Predictive,
    Simulations,
    calibrate,
    nle,
    npe,
    nre,
    predictive,
)
from jaxgen.tasks.information import jensen_shannon, kl, multi_information, shared_information
from jaxgen.tasks.private import Private, private_mixture
from jaxgen.tasks.probe import Probe, linear_probe
from jaxgen.tasks.ratio import Ratio, ratio
from jaxgen.tasks.representation import features
from jaxgen.tasks.robust import Trimmed
from jaxgen.tasks.scores import (
    LatentDensity,
    LikelihoodRatio,
    LikelihoodRegret,
    Reconstruction,
    Surprise,
    Typicality,
)
from jaxgen.tasks.spreading import spread_labels
from jaxgen.tasks.streams import Alarm, AlarmInfo, AlarmState, step_surprise
from jaxgen.tasks.synthesis import Drawn, Synthesizer, synthesizer

__all__ = [
    "Agreement", "Alarm", "AlarmInfo", "AlarmState", "Anomalies", "Attribution", "Calibrated", "ChainPosterior",
    "Chains", "ClassDensities", "Comparison", "Detector", "Drawn", "Fidelity", "Labeller", "LatentDensity",
    "LikelihoodRatio", "LikelihoodRegret", "NeuralPosterior", "Predictive", "Private", "Probe", "Propagated", "Ratio",
    "Reconstruction", "Simulations", "Surprise", "Synthesizer", "Trimmed", "Typicality", "agreement", "anomaly",
    "attribution", "calibrate", "class_densities", "compare", "conformal", "decide", "detector", "features",
    "fidelity", "jensen_shannon", "kl", "labeller", "linear_probe", "multi_information", "neighbour_accuracy", "nle",
    "npe", "nre", "predictive", "private_mixture", "propagate", "ratio", "shared_information", "spread_labels",
    "step_surprise", "synthesizer", "temperature",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
