"""Mixtures and hidden Markov models, fitted by EM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxgen.fit.em import EM
from jaxgen.models.chains.hmm import HMM
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.latent.mixture import Mixture


def gaussian_mixture(
    key: Any, x: Any, k: int = 3, *, leaf: Callable[..., Any] = Gaussian.init, weight: Any = None, label: Any = None,
    context: Any = None,
) -> tuple[Mixture, EM]:  # fmt: skip
    """A mixture of K Gaussians that starts from k-means, and EM.

    Args:
        key: typed key.
        x: events `[N, D]`.
        k: number of components, 1 to N.
        leaf: `(key, x) -> model`: `DiagonalGaussian.init` for independent coordinates; with a context
            `(key, x, context) -> model`, such as `LinearRegression.init`.
        weight: `[N]`, of the events; label: `[N]`, their components, -1 where not known; context: `[N, *context]`, of
            components that take one. All three start the mixture, and go into the data of the fit too.

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
    return Mixture.init(key, x, k, leaf, weight=weight, label=label, context=context), EM()


def hidden_markov(
    key: Any, x: Any, k: int = 3, *, leaf: Callable[..., Any] = Gaussian.init, stickiness: float = 0.9,
    context: Any = None,
) -> tuple[HMM, EM]:  # fmt: skip
    """A hidden Markov model of K states whose emissions start from k-means, and EM, which on it is Baum-Welch.

    Args:
        key: typed key.
        x: sequences `[N, T, *event]`.
        k: number of states.
        leaf: `(key, x [M, *event]) -> model` of one time step: `Poisson.init` for counts.
        stickiness: probability of staying in a state at the start.
        context: `[N, T, *context]`, of emissions that take one; it goes into the data of the fit too.

    Raises:
        ModelError: k or stickiness out of range. ShapeError: one sequence without a batch axis.

    Example:
        >>> import jax, jaxgen as jg
        >>> from jaxgen.models.densities.poisson import Poisson
        >>> counts = jg.data.earthquakes().counts
        >>> model, algorithm = hidden_markov(jax.random.key(0), counts[None], 3, leaf=Poisson.init)
        >>> model.transition.shape
        (3, 3)
    """
    return HMM.init(key, x, k, leaf, stickiness=stickiness, context=context), EM()
