"""Likelihoods of events given what a decoder says of them: the public names of `jaxgen.ops.likelihoods`."""

from jaxgen.ops.likelihoods import Bits, GaussianOfScale, Normals, bernoulli, gaussian

__all__ = ["Bits", "GaussianOfScale", "Normals", "bernoulli", "gaussian"]


def __dir__() -> list[str]:
    return __all__
