"""Measures of samples beside data, for any model that can be sampled: distances, neighbours, tests, memorisation.

All take a key, a model that can be sampled (or samples as an array, or a stream), data, and a feature: any function of
a batch of events. By default events are vectors, and grey images 28 by 28 what the package's classifier makes of them
(`metrics.features.grey_features`): black 0 and white 1, or 255 of whole numbers that pass 1; `samples.flat` has
their pixels. All say their error bar, and the floor: the same measure of one random half of the data beside the other.
"""

from jaxgen.metrics.samples.frechet import (
    Extrapolated,
    FeatureMoments,
    Frechet,
    Moments,
    distance,
    extrapolated_frechet,
    frechet,
    moments,
)
from jaxgen.metrics.samples.kernel import cubic, gaussian, kid, mmd
from jaxgen.metrics.samples.memorisation import Likelihood, Memorised, feature_likelihood, memorised
from jaxgen.metrics.samples.neighbours import Neighbours, neighbours
from jaxgen.metrics.samples.scores import inception_score, parzen
from jaxgen.metrics.samples.sliced import sliced_wasserstein
from jaxgen.metrics.samples.source import Estimate, Feature, flat
from jaxgen.metrics.samples.two_sample import C2ST, c2st

__all__ = [
    "C2ST", "Estimate", "Extrapolated", "Feature", "FeatureMoments", "Frechet", "Likelihood", "Memorised", "Moments",
    "Neighbours", "c2st", "cubic", "distance", "extrapolated_frechet", "feature_likelihood", "flat", "frechet",
    "gaussian", "inception_score", "kid", "memorised", "mmd", "moments", "neighbours", "parzen", "sliced_wasserstein",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
