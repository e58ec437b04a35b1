"""Maps without probability: flax linen networks behind `Net`, and bijections."""

from jaxgen.nn.bijections import (
    Affine,
    AffineCoupling,
    Chain,
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
    "AffineCoupling",
    "Chain",
    "ConvCritic",
    "ConvGenerator",
    "DistraxBijector",
    "Inverse",
    "Net",
    "Permute",
    "Scan",
    "Standardize",
]
