"""Bijections: the layers of normalizing flows, maps without a density of their own.

A bijection is a small model with `event_shape` and two methods for one event, `forward_and_log_det(x, context)` from
the base to the data and `inverse_and_log_det(y, context)` back. Each returns the image and the log-determinant of its
own direction. Anything with these methods is a layer. `Coupling` and `Autoregressive` take any transform of one number:
`AffineTransform`, `SplineTransform` and others. `init(key, x)` takes events, or the shape of one: `init(key, (3,))`.
"""

from jaxgen.bijections.autoregressive import Autoregressive
from jaxgen.bijections.basics import Bijection
from jaxgen.bijections.blocks import BlockAutoregressive
from jaxgen.bijections.clipping import SoftClip
from jaxgen.bijections.compose import Chain, DistraxBijector, Inverse, Scan, Vmap
from jaxgen.bijections.conditional import Conditional, OptionalContext
from jaxgen.bijections.coupling import Coupling
from jaxgen.bijections.elementwise import Affine, Exp, Sigmoid, Softplus, Standardize, Tanh
from jaxgen.bijections.glow import glow
from jaxgen.bijections.images import MultiScale, Reshape, Squeeze, conv1x1
from jaxgen.bijections.linear import Householder, LULinear, Permute
from jaxgen.bijections.planar import Planar, Radial, Sylvester
from jaxgen.bijections.predicted import Predicted
from jaxgen.bijections.residual import Contraction, Residual
from jaxgen.bijections.starts import initialize
from jaxgen.bijections.supports import Bounded, Interval, Simplex, Wrap, circle, positive, real, simplex
from jaxgen.bijections.transforms import (
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
    "Contraction",
    "Coupling",
    "DistraxBijector",
    "Exp",
    "Householder",
    "Interval",
    "Inverse",
    "LULinear",
    "LogisticMixtureTransform",
    "MultiScale",
    "OptionalContext",
    "Permute",
    "Planar",
    "Predicted",
    "Radial",
    "Reshape",
    "Residual",
    "Scan",
    "Sigmoid",
    "Simplex",
    "SoftClip",
    "Softplus",
    "SplineTransform",
    "Squeeze",
    "Standardize",
    "Sylvester",
    "Tanh",
    "Transform",
    "Vmap",
    "Wrap",
    "circle",
    "conv1x1",
    "glow",
    "initialize",
    "positive",
    "real",
    "simplex",
]


def __dir__() -> list[str]:
    return __all__
