"""Flax networks behind `Net`: maps of arrays, without probability."""

from jaxgen.nn.conv import ConvCritic, ConvGenerator
from jaxgen.nn.made import MADE
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.nn.resnet import GridToImage, ImageToGrid, ResNetDecoder, ResNetEncoder
from jaxgen.nn.spectral import Spectral

__all__ = [
    "MADE", "MLP", "ConvCritic", "ConvGenerator", "GridToImage", "ImageToGrid", "Net", "ResNetDecoder", "ResNetEncoder",
    "Spectral",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
