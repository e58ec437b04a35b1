"""What a model is worth: likelihoods that say their kind, partition functions, perplexity, bits per dimension."""

from jaxgen.metrics.likelihood import bits_per_dim, perplexity, score
from jaxgen.metrics.partition import PartitionEstimate, ais, log_likelihood

__all__ = ["PartitionEstimate", "ais", "bits_per_dim", "log_likelihood", "perplexity", "score"]
