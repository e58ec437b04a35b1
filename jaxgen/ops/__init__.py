"""Free functions on arrays: numerics without models, usable alone."""

from jaxgen.ops import (
    augment,
    chains,
    chunks,
    graphs,
    kmeans,
    likelihoods,
    linalg,
    noise,
    resize,
    roots,
    samplers,
    scaling,
    splines,
    stable,
)

__all__ = [
    "augment", "chains", "chunks", "graphs", "kmeans", "likelihoods", "linalg", "noise", "resize", "roots", "samplers",
    "scaling", "splines", "stable",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
