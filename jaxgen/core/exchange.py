"""The one way to distrax, the exchange format for distributions and bijectors.

distrax is imported on first use: it brings TensorFlow Probability, which costs half a second, and warns at import.
"""

from __future__ import annotations

import functools
import math
import warnings
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.methods import batch_axes, latent_shape


def distrax() -> ModuleType:
    """The distrax module.

    Raises:
        ImportError: distrax is not installed; models train and score without it, only the exchange needs it.

    Example:
        >>> distrax().Normal(0.0, 1.0).event_shape
        ()
    """
    with warnings.catch_warnings():
        # its TensorFlow Probability nightly trips over deprecations of JAX that are not the caller's concern
        warnings.simplefilter("ignore")
        import distrax as module
    return module


def as_distribution(model: Any) -> Any:
    """Any `Density` as a distrax distribution: `sample`, `log_prob` and `event_shape` of the model.

    Args:
        model: has `log_prob`, `sample` and a fixed `event_shape`.

    Example:
        >>> import jax, jaxgen as jg
        >>> d = as_distribution(jg.StandardNormal((2,)))
        >>> d.sample(seed=jax.random.key(0), sample_shape=(3,)).shape, d.event_shape
        ((3, 2), (2,))
    """

    class Model(distrax().Distribution):  # type: ignore[misc, name-defined]
        def _sample_n(self, key: Any, n: int) -> Any:
            return model.sample(key, (n,))

        def log_prob(self, value: Any) -> Any:
            return model.log_prob(value)

        @property
        def event_shape(self) -> tuple[int, ...]:
            return tuple(model.event_shape)

        @property
        def batch_shape(self) -> tuple[int, ...]:
            return ()

    return Model()


def as_bijector(bijection: Any, context: Any = None) -> Any:
    """Any bijection as a distrax bijector, built anew at each call.

    Args:
        bijection: has `event_shape` (and `latent_shape` where the side of the base differs) and, for one event,
            `forward_and_log_det(x, context)` and `inverse_and_log_det(y, context)`, each returning the image and the
            log-determinant of that direction.
        context: `[*context]`, shared by all events; None for a bijection without context.

    Example:
        >>> from jaxgen.bijections import Affine
        >>> bijector = as_bijector(Affine(jnp.array([1.0, 0.0]), jnp.zeros(2)))
        >>> bijector.forward(jnp.zeros((3, 2)))[0].tolist()
        [1.0, 0.0]
    """
    return _bijector_class()(bijection, context)


@functools.cache
def _bijector_class() -> type:
    class Bijection(distrax().Bijector):  # type: ignore[misc, name-defined]
        def __init__(self, bijection: Any, context: Any):
            super().__init__(len(latent_shape(bijection)), len(bijection.event_shape))
            # attributes are what distrax flattens into a pytree: the bijection's arrays stay arrays under jit
            self.bijection, self.context = bijection, context

        def _map(self, name: str, x: Any) -> Any:
            x = jnp.asarray(x)
            side = latent_shape(self.bijection) if name == "forward_and_log_det" else self.bijection.event_shape
            batch = batch_axes(x.shape, side, f"bijector.{name}")
            flat = x.reshape((math.prod(batch), *x.shape[len(batch) :]))
            y, log_det = jax.vmap(lambda event: getattr(self.bijection, name)(event, self.context))(flat)
            return y.reshape((*batch, *y.shape[1:])), log_det.reshape(batch)

        def forward_and_log_det(self, x: Any) -> Any:
            return self._map("forward_and_log_det", x)

        def inverse_and_log_det(self, y: Any) -> Any:
            return self._map("inverse_and_log_det", y)

    return Bijection
