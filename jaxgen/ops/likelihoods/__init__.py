"""Likelihoods for networks: what a decoder's outputs mean as a distribution of one event.

A likelihood is a static callable from parameters, each of the event's shape, to a distribution of one event with the
methods `log_prob(x)`, `sample(seed=key)` and `mean()` of a distrax distribution. Its signature says how many parameters
it takes. Any function that returns a distrax distribution is one:

    def laplace(mean, raw):
        return distrax.Laplace(mean, jnp.exp(bounded(raw)))

Keyword-only arguments without a default are numbers that all entries of all events share, which the model trains:
`def gaussian_of_one_scale(mean, *, raw)`. One with an attribute `parameters`, P, is called with one array `[P, *event]`
instead of P arrays. The distribution may say its `support`, and with `entries(x)` the log-probability of each entry.

The ones here have their densities in closed form, at half the time of distrax's and without its import; their
`distribution()` is the distrax one, where distrax has it.
"""

from jaxgen.ops.likelihoods.contract import (
    BOUND,
    REAL,
    Support,
    apart,
    bounded,
    check_support,
    observe,
    parameter_count,
    seen_entries,
    shared_names,
    support,
)
from jaxgen.ops.likelihoods.counts import NegativeBinomials, Poissons, negative_binomial, poisson
from jaxgen.ops.likelihoods.levels import (
    CategoricalLevels,
    Levels,
    LogisticLevels,
    LogisticMixtureLevels,
    Logistics,
)
from jaxgen.ops.likelihoods.real import LOG_2PI, GaussianOfScale, Normals, gaussian, gaussian_of_one_scale
from jaxgen.ops.likelihoods.unit import Betas, Bits, ContinuousBits, bernoulli, beta, continuous_bernoulli

__all__ = [
    "BOUND", "LOG_2PI", "REAL", "Betas", "Bits", "CategoricalLevels", "ContinuousBits", "GaussianOfScale", "Levels",
    "LogisticLevels", "LogisticMixtureLevels", "Logistics", "NegativeBinomials", "Normals", "Poissons", "Support",
    "apart", "bernoulli", "beta", "bounded", "check_support", "continuous_bernoulli", "gaussian",
    "gaussian_of_one_scale", "negative_binomial", "observe", "parameter_count", "poisson", "seen_entries",
    "shared_names", "support",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
