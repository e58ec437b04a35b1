"""What a model is worth: likelihoods that say their kind, information criteria, entropy, partition functions, units."""

from jaxgen.metrics.information import aic, bic, entropy, icl
from jaxgen.metrics.likelihood import bits_per_dim, perplexity, score
from jaxgen.metrics.partition import PartitionEstimate, ais, log_likelihood

__all__ = [
    "PartitionEstimate", "aic", "ais", "bic", "bits_per_dim", "entropy", "icl", "log_likelihood", "perplexity", "score",
]  # fmt: skip
