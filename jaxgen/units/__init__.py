"""Units: the layers that Boltzmann machines are made of, each with its own parameters.

A kind is its log-partition function, mean, sampler, statistic, base energy and carrier; see `Units`. There are
`Bernoulli`, `Spin`, `Categorical`, `Gaussian`, `Rectified`, and any of them side by side in a `Group`.
"""

from jaxgen.units.base import Units, is_discrete, joint_states
from jaxgen.units.discrete import Bernoulli, Categorical, Spin
from jaxgen.units.group import Group, group
from jaxgen.units.real import Gaussian, Rectified

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Group",
    "Rectified",
    "Spin",
    "Units",
    "group",
    "is_discrete",
    "joint_states",
]


def __dir__() -> list[str]:
    return __all__
