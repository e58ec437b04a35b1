"""Markov chains on any log-density with a gradient: Langevin dynamics, adjusted or not, and Hamiltonian Monte Carlo.

A sampler is a small value with `init(log_density, x)` and `step(key, log_density, state, observed)`; `sample_chain`
runs it in one compiled loop. `log_density` is a function of one event, an array or any pytree of arrays, in nats, and
known up to a constant. What is sampled is `p(x)^(1 / T)`, up to its constant, for a temperature T.

The step size eta is that of `dx = grad log p(x) dt + sqrt(2 T) dW` in one step of Euler's method,
`x' = x + eta grad log p(x) + sqrt(2 eta T) xi`; where others write `x + (e / 2) grad log p + sqrt(e) xi`, e is 2 eta.
"""

from jaxgen.ops.samplers.chain import sample_chain
from jaxgen.ops.samplers.hamiltonian import HMC
from jaxgen.ops.samplers.langevin import MALA, ULA
from jaxgen.ops.samplers.sizes import Spread
from jaxgen.ops.samplers.steps import ChainInfo, ChainState, Sampler, rooted
from jaxgen.ops.samplers.stochastic import SGLD, minibatch

__all__ = [
    "HMC", "MALA", "SGLD", "ULA", "ChainInfo", "ChainState", "Sampler", "Spread", "minibatch", "rooted", "sample_chain",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
