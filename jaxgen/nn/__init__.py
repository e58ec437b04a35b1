"""Networks: maps without probability, flax linen modules behind `Net`."""

from jaxgen.nn.conv import ConvCritic, ConvGenerator
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net

__all__ = ["MLP", "ConvCritic", "ConvGenerator", "Net"]
