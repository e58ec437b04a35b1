"""Likelihoods of events given what a decoder says of them: the public names of `jaxgen.ops.likelihoods`."""

from jaxgen.ops.likelihoods import (
    Betas,
    Bits,
    CategoricalLevels,
    ContinuousBits,
    GaussianOfScale,
    Levels,
    LogisticLevels,
    LogisticMixtureLevels,
    Logistics,
    NegativeBinomials,
    Normals,
    Poissons,
    Support,
    bernoulli,
    beta,
    continuous_bernoulli,
    gaussian,
    gaussian_of_one_scale,
    negative_binomial,
    poisson,
)

__all__ = [
    "Betas", "Bits", "CategoricalLevels", "ContinuousBits", "GaussianOfScale", "Levels", "LogisticLevels",
    "LogisticMixtureLevels", "Logistics", "NegativeBinomials", "Normals", "Poissons", "Support", "bernoulli", "beta",
    "continuous_bernoulli", "gaussian", "gaussian_of_one_scale", "negative_binomial", "poisson",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
