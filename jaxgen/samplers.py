"""Markov chains on any log-density with a gradient: the public names of `jaxgen.ops.samplers`."""

from jaxgen.ops.samplers import HMC, MALA, SGLD, ULA, ChainInfo, ChainState, Sampler, Spread, minibatch, sample_chain

__all__ = ["HMC", "MALA", "SGLD", "ULA", "ChainInfo", "ChainState", "Sampler", "Spread", "minibatch", "sample_chain"]


def __dir__() -> list[str]:
    return __all__
