"""Maps without probability: flax linen networks behind `Net`, and bijections."""

from jaxgen.nn.bijections import (
    Affine,
    AffineTransform,
    Chain,
    Coupling,
    DistraxBijector,
    Inverse,
    Permute,
    Scan,
    Standardize,
)
from jaxgen.nn.conv import ConvCritic, ConvGenerator
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net

__all__ = [
    "MLP",
    "Affine",
    "AffineTransform",
    "Chain",
    "ConvCritic",
    "ConvGenerator",
    "Coupling",
    "DistraxBijector",
    "Inverse",
    "Net",
    "Permute",
    "Scan",
    "Standardize",
]
