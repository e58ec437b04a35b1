"""Flax networks behind `Net`: maps of arrays, without probability."""

from jaxgen.nn.conv import ConvCritic, ConvGenerator
from jaxgen.nn.critics import ClassifierCritic, ProjectionCritic, ResNetCritic, ResNetGenerator
from jaxgen.nn.made import MADE
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.nn.resnet import GridToImage, ImageToGrid, ResNetDecoder, ResNetEncoder
from jaxgen.nn.spectral import Spectral
from jaxgen.nn.style import StyleCritic, StyleGenerator

__all__ = [
    "MADE", "MLP", "ClassifierCritic", "ConvCritic", "ConvGenerator", "GridToImage", "ImageToGrid", "Net",
    "ProjectionCritic", "ResNetCritic", "ResNetDecoder", "ResNetEncoder", "ResNetGenerator", "Spectral", "StyleCritic",
    "StyleGenerator",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
