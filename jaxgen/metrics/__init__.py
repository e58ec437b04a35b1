"""Measures of models: likelihoods that say their kind, information criteria, entropy, partition functions, units."""

from jaxgen.metrics import laws, monitors
from jaxgen.metrics.align import Aligned, align
from jaxgen.metrics.bounds import Bounds, Simulated, bounds, simulated
from jaxgen.metrics.bridge import Bracket, Bridged, acceptance_ratio, bar, bracket, replica_exchange
from jaxgen.metrics.errors import standard_errors
from jaxgen.metrics.importance import Importance, importance, pareto_k
from jaxgen.metrics.information import Evidence, aic, bic, entropy, evidence, icl
from jaxgen.metrics.laws import Check, check
from jaxgen.metrics.likelihood import bits_per_dim, perplexity, score
from jaxgen.metrics.partition import PartitionEstimate, ais, energy_gap, log_likelihood, reverse_ais, smc

__all__ = [
    "Aligned",
    "Bounds",
    "Bracket",
    "Bridged",
    "Check",
    "Evidence",
    "Importance",
    "PartitionEstimate",
    "Simulated",
    "acceptance_ratio",
    "aic",
    "ais",
    "align",
    "bar",
    "bic",
    "bits_per_dim",
    "bounds",
    "bracket",
    "check",
    "energy_gap",
    "entropy",
    "evidence",
    "icl",
    "importance",
    "laws",
    "log_likelihood",
    "monitors",
    "pareto_k",
    "perplexity",
    "replica_exchange",
    "reverse_ais",
    "score",
    "simulated",
    "smc",
    "standard_errors",
]


def __dir__() -> list[str]:
    return __all__
