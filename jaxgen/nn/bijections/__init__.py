"""Bijections: the layers of normalizing flows, maps without a density of their own.

A bijection is a small model with `event_shape` and two methods for one event, `forward(x, context)` from the base to
the data and `inverse(y, context)` back. Each returns the image and the log-determinant of its own direction. Anything
with these methods is a layer. `Coupling` and `Autoregressive` take any transform of one number: `AffineTransform`,
`SplineTransform` and others.
"""

from jaxgen.nn.bijections.autoregressive import Autoregressive
from jaxgen.nn.bijections.basics import Bijection
from jaxgen.nn.bijections.blocks import BlockAutoregressive
from jaxgen.nn.bijections.compose import Chain, DistraxBijector, Each, Inverse, Scan
from jaxgen.nn.bijections.conditional import Conditional
from jaxgen.nn.bijections.coupling import Coupling
from jaxgen.nn.bijections.elementwise import Affine, Exp, Sigmoid, Softplus, Standardize, Tanh
from jaxgen.nn.bijections.glow import glow
from jaxgen.nn.bijections.images import MultiScale, Reshape, Squeeze, conv1x1
from jaxgen.nn.bijections.linear import Householder, LULinear, Permute
from jaxgen.nn.bijections.planar import Planar, Radial, Sylvester
from jaxgen.nn.bijections.residual import Residual
from jaxgen.nn.bijections.starts import initialize
from jaxgen.nn.bijections.supports import Bounded, Interval, Simplex, Wrap, circle, positive, real, simplex
from jaxgen.nn.bijections.transforms import (
    AffineTransform,
    CircularSplineTransform,
    LogisticMixtureTransform,
    SplineTransform,
    Transform,
)

__all__ = [
    "Affine",
    "AffineTransform",
    "Autoregressive",
    "Bijection",
    "BlockAutoregressive",
    "Bounded",
    "Chain",
    "CircularSplineTransform",
    "Conditional",
    "Coupling",
    "DistraxBijector",
    "Each",
    "Exp",
    "Householder",
    "Interval",
    "Inverse",
    "LULinear",
    "LogisticMixtureTransform",
    "MultiScale",
    "Permute",
    "Planar",
    "Radial",
    "Reshape",
    "Residual",
    "Scan",
    "Sigmoid",
    "Simplex",
    "Softplus",
    "SplineTransform",
    "Squeeze",
    "Standardize",
    "Sylvester",
    "Tanh",
    "Transform",
    "Wrap",
    "circle",
    "conv1x1",
    "glow",
    "initialize",
    "positive",
    "real",
    "simplex",
]
