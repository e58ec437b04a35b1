"""Flows for images."""

from __future__ import annotations

import functools
from typing import Any

from jaxgen import bijections, losses
from jaxgen.bijections import Chain, Interval, Reshape
from jaxgen.bijections.supports import Support, real, to_real
from jaxgen.bijections.transforms import AFFINE, Transform
from jaxgen.core.inputs import as_array
from jaxgen.fit.averages import Average
from jaxgen.fit.gradient import Gradient
from jaxgen.models.densities.dequantized import Dequantized
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.neural.flow import Flow
from jaxgen.recipes.optimizers import adam


def glow(
    key: Any, x: Any, *, highest: int | None = None, levels: int = 2, depth: int = 8, width: int = 32,
    transform: Transform = AFFINE, context_shape: tuple[int, ...] | None = None, support: Support = real,
    step_size: float = 5e-3, steps: int | None = None,
) -> tuple[Flow | Dequantized, Gradient]:  # fmt: skip
    """Glow for images, and Adam on the likelihood: exact for real numbers, a bound for pixels of whole numbers.

    Args:
        key: typed key.
        x: images `[N, H, W]` or `[N, H, W, C]`; the first thousand start the units of the layers.
        highest: the highest level of pixels that are whole numbers from 0, such as 255. The model is then `Dequantized`
            with uniform noise, on the support that this takes. None for real numbers.
        levels: scales; `2^levels` divides H and W.
        depth: steps of each level.
        width: hidden channels of each step's network.
        transform: what a coupling does to a number.
        context_shape: shape of one context for a conditional density; None for none.
        support: what real values x can take, as in `Flow.init`.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        ShapeError: events that are no images. ModelError: sides that cannot be halved so often. DataError: data outside
            of the support, pixels that are no levels.

    Source: Kingma and Dhariwal (2018), Glow: generative flow with invertible 1x1 convolutions.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.digits().images[:100]
        >>> model, algorithm = glow(jax.random.key(0), x, highest=16, levels=1, depth=1, width=4)
        >>> model.event_shape
        (8, 8)
    """
    x = as_array(x)[:1000]
    if highest is not None:
        support = Interval(0.0, highest + 1.0)

    def make(key: Any, x: Any) -> Flow:
        z, bounds = to_real(support, x, "glow(key, x)")
        z, shape = (z[..., None], (Reshape.from_values(z.shape[1:], (*z.shape[1:], 1)),)) if z.ndim == 3 else (z, ())
        layers = bijections.glow(
            key, z, transform, levels=levels, steps=depth, width=width, context_shape=context_shape
        )  # fmt: skip
        bijection = Chain((layers, *shape, *(() if bounds is None else (bounds,))))
        return Flow(StandardNormal(layers.latent_shape), bijection)

    algorithm = functools.partial(
        Gradient, optimizer=adam(step_size, clip=1.0), average=Average(0.99), steps=steps
    )  # fmt: skip
    if highest is None:
        return make(key, x), algorithm(losses.nll)
    return Dequantized.init(key, x, make, high=highest), algorithm(losses.negative_elbo)
