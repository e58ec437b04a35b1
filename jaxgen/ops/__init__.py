"""Free functions on arrays: numerics without models, usable alone."""

from jaxgen.ops import chains, chunks, kmeans, likelihoods, linalg, noise, roots, splines, stable, units

__all__ = ["chains", "chunks", "kmeans", "likelihoods", "linalg", "noise", "roots", "splines", "stable", "units"]
