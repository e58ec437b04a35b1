"""Measures of models: likelihoods that say their kind, information criteria, entropy, partition functions, units."""

from jaxgen.metrics import features, laws, monitors, samples
from jaxgen.metrics.across import Across, across
from jaxgen.metrics.align import Aligned, align
from jaxgen.metrics.bounds import Bounds, Simulated, bounds, simulated
from jaxgen.metrics.bridge import Bracket, Bridged, acceptance_ratio, bar, bracket, replica_exchange
from jaxgen.metrics.convergence import effective_size, r_hat
from jaxgen.metrics.disentanglement import DCI, dci, mig, mutual_information, sap
from jaxgen.metrics.errors import standard_errors
from jaxgen.metrics.evaluate import Evaluation, Measure, evaluate
from jaxgen.metrics.games import Calibration, Modes, Spectrum, calibration, modes, spectrum
from jaxgen.metrics.importance import Importance, importance, pareto_k
from jaxgen.metrics.information import Evidence, aic, bic, entropy, evidence, icl
from jaxgen.metrics.latents import Latents, latents, total_correlation
from jaxgen.metrics.laws import Check, check
from jaxgen.metrics.likelihood import bits_per_dim, perplexity, score
from jaxgen.metrics.partition import PartitionEstimate, ais, energy_gap, log_likelihood, reverse_ais, smc
from jaxgen.metrics.predictive import Coverage, Uniform, coverage, expected_coverage, pit, sbc, tarp
from jaxgen.metrics.samples.frechet import FeatureMoments, Moments

__all__ = [
    "DCI",
    "Across",
    "Aligned",
    "Bounds",
    "Bracket",
    "Bridged",
    "Calibration",
    "Check",
    "Coverage",
    "Evaluation",
    "Evidence",
    "FeatureMoments",
    "Importance",
    "Latents",
    "Measure",
    "Modes",
    "Moments",
    "PartitionEstimate",
    "Simulated",
    "Spectrum",
    "Uniform",
    "acceptance_ratio",
    "across",
    "aic",
    "ais",
    "align",
    "bar",
    "bic",
    "bits_per_dim",
    "bounds",
    "bracket",
    "calibration",
    "check",
    "coverage",
    "dci",
    "effective_size",
    "energy_gap",
    "entropy",
    "evaluate",
    "evidence",
    "expected_coverage",
    "features",
    "icl",
    "importance",
    "latents",
    "laws",
    "log_likelihood",
    "mig",
    "modes",
    "monitors",
    "mutual_information",
    "pareto_k",
    "perplexity",
    "pit",
    "r_hat",
    "replica_exchange",
    "reverse_ais",
    "samples",
    "sap",
    "sbc",
    "score",
    "simulated",
    "smc",
    "spectrum",
    "standard_errors",
    "tarp",
    "total_correlation",
]


def __dir__() -> list[str]:
    return __all__
