"""Named pairs of a model and the algorithm that trains it: `model, algorithm = recipe(key, x)`, then `fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxgen import losses
from jaxgen.core.gate import as_array
from jaxgen.fit.contrastive import ContrastiveDivergence
from jaxgen.fit.em import EM
from jaxgen.fit.gradient import Gradient
from jaxgen.models.flow import Flow
from jaxgen.models.gaussian import Gaussian, StandardNormal
from jaxgen.models.mixture import Mixture
from jaxgen.models.rbm import RBM


def gaussian_mixture(
    key: Any, x: Any, k: int = 3, *, leaf: Callable[[Any, Any], Any] = Gaussian.init
) -> tuple[Mixture, EM]:
    """A mixture of K Gaussians that starts from k-means, and EM.

    Args:
        key: typed key.
        x: events `[N, D]`.
        k: number of components, 1 to N.
        leaf: `(key, x) -> model`: `DiagonalGaussian.init` for independent coordinates.

    Raises:
        ModelError: k below 1 or above N. DataError: data that are not data.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.old_faithful().values
        >>> model, algorithm = gaussian_mixture(jax.random.key(0), x, 2)
        >>> fitted = jg.fit(jax.random.key(1), model, x, algorithm)
        >>> fitted.status.name, fitted.model.components.mean[:, 0].sort().round(1).tolist()
        ('CONVERGED', [2.0, 4.300000190734863])
    """
    return Mixture.init(key, as_array(x), k, leaf), EM()


def rbm(key: Any, x: Any, hidden: int = 16, *, step_size: float = 0.1) -> tuple[RBM, ContrastiveDivergence]:
    """A restricted Boltzmann machine, and persistent contrastive divergence with averaged iterates.

    Args:
        key: typed key.
        x: bits `[N, V]`.
        hidden: number of hidden units; up to 22 leave the likelihood exact.
        step_size: of the gradient descent.

    Raises:
        DataError: data that are not zeros and ones. ModelError: no hidden units.

    Source: Tieleman (2008), Training restricted Boltzmann machines using approximations to the likelihood gradient.

    Example:
        >>> import jax
        >>> model, algorithm = rbm(jax.random.key(0), [[0, 1, 1], [1, 0, 0]], 4)
        >>> model.weights.shape, algorithm.chains
        ((3, 4), 100)
    """
    import optax

    return RBM.init(key, as_array(x), hidden), ContrastiveDivergence(optax.sgd(step_size))


def realnvp(
    key: Any, x: Any, *, layers: int = 8, features: tuple[int, ...] = (64, 64), step_size: float = 4e-3,
    steps: int = Gradient.default_steps,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A RealNVP flow on a standard normal base, and Adam on the exact likelihood.

    Gradients are clipped to a norm of 1; the fitted model averages the iterates.

    Args:
        key: typed key.
        x: events `[N, D]`, D at least 2.
        layers: number of coupling layers.
        features: hidden widths of each layer's network.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; `fit(..., steps=)` takes the same number.

    Raises:
        ModelError, ShapeError: events that are no vectors of two or more coordinates.

    Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP.

    Example:
        >>> import jax, jaxgen as jg
        >>> model, algorithm = realnvp(jax.random.key(0), jg.data.two_moons(jax.random.key(1), 100), layers=2)
        >>> model.event_shape
        (2,)
    """
    x = jnp.asarray(as_array(x))
    model = Flow.realnvp(key, x, StandardNormal(x.shape[1:]), layers=layers, features=features)
    return model, Gradient(losses.nll, _adam(step_size, steps), average=0.99)


def _adam(step_size: float, steps: int) -> Any:
    import optax

    # half a cosine to a hundredth (Loshchilov and Hutter 2017, SGDR), so that a longer fit still moves
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(step_size, steps, alpha=0.01))
    )
