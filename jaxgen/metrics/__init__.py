"""What a model is worth: likelihoods that say their kind, information criteria, entropy, partition functions, units."""

from jaxgen.metrics.align import Aligned, align
from jaxgen.metrics.errors import standard_errors
from jaxgen.metrics.importance import Importance, importance, pareto_k
from jaxgen.metrics.information import Evidence, aic, bic, entropy, evidence, icl
from jaxgen.metrics.likelihood import bits_per_dim, perplexity, score
from jaxgen.metrics.partition import PartitionEstimate, ais, log_likelihood

__all__ = [
    "Aligned", "Evidence", "Importance", "PartitionEstimate", "aic", "ais", "align", "bic", "bits_per_dim", "entropy",
    "evidence", "icl", "importance", "log_likelihood", "pareto_k", "perplexity", "score", "standard_errors",
]  # fmt: skip
