"""Flax linen networks behind `Net`, bijections, and the units of Boltzmann machines."""

from jaxgen.nn import bijections, units
from jaxgen.nn.bijections import (
    Affine,
    AffineTransform,
    Autoregressive,
    Chain,
    CircularSplineTransform,
    Coupling,
    DistraxBijector,
    Inverse,
    LogisticMixtureTransform,
    Permute,
    Scan,
    SplineTransform,
    Standardize,
)
from jaxgen.nn.conv import ConvCritic, ConvGenerator
from jaxgen.nn.made import MADE
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net

__all__ = [
    "MADE",
    "MLP",
    "Affine",
    "AffineTransform",
    "Autoregressive",
    "Chain",
    "CircularSplineTransform",
    "ConvCritic",
    "ConvGenerator",
    "Coupling",
    "DistraxBijector",
    "Inverse",
    "LogisticMixtureTransform",
    "Net",
    "Permute",
    "Scan",
    "SplineTransform",
    "Standardize",
    "bijections",
    "units",
]
