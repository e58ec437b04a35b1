"""What a model is worth: likelihoods that say their kind, information criteria, entropy, partition functions, units."""

from jaxgen.metrics.align import Aligned, align
from jaxgen.metrics.errors import standard_errors
from jaxgen.metrics.information import Evidence, aic, bic, entropy, evidence, icl
from jaxgen.metrics.likelihood import bits_per_dim, perplexity, score
from jaxgen.metrics.partition import PartitionEstimate, ais, log_likelihood

__all__ = [
    "Aligned", "Evidence", "PartitionEstimate", "aic", "ais", "align", "bic", "bits_per_dim", "entropy", "evidence",
    "icl", "log_likelihood", "perplexity", "score", "standard_errors",
]  # fmt: skip
