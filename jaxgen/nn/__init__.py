"""Flax networks behind `Net`: maps of arrays, without probability."""

from jaxgen.nn.conv import ConvCritic, ConvGenerator
from jaxgen.nn.made import MADE
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net

__all__ = ["MADE", "MLP", "ConvCritic", "ConvGenerator", "Net"]


def __dir__() -> list[str]:
    return __all__
