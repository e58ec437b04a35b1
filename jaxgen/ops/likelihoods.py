"""Likelihoods for networks: what a decoder's outputs mean as a distribution of one event.

A likelihood is a static callable from parameters, each of the event's shape, to a distribution of one event with the
methods `log_prob(x)`, `sample(seed=key)` and `mean()` of a distrax distribution. Its signature says how many parameters
it takes. Any function that returns a distrax distribution is one:

    def laplace(mean, raw):
        return distrax.Laplace(mean, jnp.exp(bounded(raw)))

The two here have their densities in closed form, at half the time of distrax's and without its import; their
`distribution()` is the distrax one.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import distrax
from jaxgen.core.files import loadable
from jaxgen.core.pytree import name_of

__all__ = [
    "Bits",
    "GaussianOfScale",
    "Normals",
    "bernoulli",
    "gaussian",
]


def __dir__() -> list[str]:
    return __all__

#: largest |log scale| that a network can ask for: from 0.0025 to 400 units, so that no coordinate that repeats itself
#: can drive a density to infinity. Rybkin, Daniilidis and Levine (2021), Simple and effective VAE training with
#: calibrated decoders, soften the same limit of -6.
BOUND = 6.0
LOG_2PI = math.log(2.0 * math.pi)


def bounded(raw: jax.Array, bound: float = BOUND) -> jax.Array:
    """A network's free output as a log-scale within bounds: `bound tanh(raw / bound)`, the identity near zero.

    Example:
        >>> bounded(jnp.array([-1e9, 0.0, 1e9])).tolist()
        [-6.0, 0.0, 6.0]
    """
    return bound * jnp.tanh(raw / bound)


@dataclasses.dataclass(frozen=True, eq=False)
class Bits:
    """Independent bits of one event.

    `log p(x) = sum_i x_i l_i - log(1 + exp(l_i))`

    Args:
        logits: `[*event]`, l.

    An x between 0 and 1 is scored as the mean over bits that are one with that probability.
    """

    logits: jax.Array
    support: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def log_prob(self, x):
        """Nats, a scalar."""
        return jnp.sum(x * self.logits - jax.nn.softplus(self.logits))

    def mean(self):
        """The probability of a one, `[*event]`."""
        return jax.nn.sigmoid(self.logits)

    def sample(self, *, seed):
        """Zeros and ones, `[*event]`, of the logits' dtype."""
        return jax.random.bernoulli(seed, self.mean()).astype(self.logits.dtype)

    def distribution(self):
        """The distrax distribution."""
        return distrax().Independent(distrax().Bernoulli(logits=self.logits), jnp.ndim(self.logits))


@dataclasses.dataclass(frozen=True, eq=False)
class Normals:
    """Independent normal coordinates of one event.

    `log p(x) = -sum_i ((x_i - m_i) / s_i)^2 / 2 + log s_i + (log 2 pi) / 2`

    Args:
        location: `[*event]`, m.
        log_scale: `[*event]` or a scalar, log s.
    """

    location: jax.Array
    log_scale: jax.Array
    support: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    def log_prob(self, x):
        """Nats, a scalar."""
        z = (x - self.location) * jnp.exp(-self.log_scale)
        return -jnp.sum(0.5 * (z * z + LOG_2PI) + self.log_scale)

    def mean(self):
        """`[*event]`."""
        return self.location

    def sample(self, *, seed):
        """Draws one event, `[*event]`."""
        noise = jax.random.normal(seed, jnp.shape(self.location), self.location.dtype)
        return self.location + jnp.exp(self.log_scale) * noise

    def distribution(self):
        """The distrax distribution."""
        scale = jnp.broadcast_to(jnp.exp(self.log_scale), jnp.shape(self.location))
        return distrax().Independent(distrax().Normal(self.location, scale), jnp.ndim(self.location))


@loadable
def bernoulli(logits: jax.Array) -> Bits:
    """Bits with logits from the network; for data in [0, 1].

    Example:
        >>> round(float(bernoulli(jnp.zeros(3)).log_prob(jnp.array([0.0, 1.0, 1.0]))), 4)
        -2.0794
    """
    return Bits(logits)


@loadable
def gaussian(mean: jax.Array, raw: jax.Array) -> Normals:
    """Normal coordinates with means and scales from the network, `log s = 6 tanh(raw / 6)`.

    Example:
        >>> round(float(gaussian(jnp.zeros(2), jnp.zeros(2)).log_prob(jnp.zeros(2))), 4)
        -1.8379
    """
    return Normals(mean, bounded(raw))


@loadable
@dataclasses.dataclass(frozen=True)
class GaussianOfScale:
    """Normal coordinates with means from the network and one scale that is given.

    Args:
        scale: standard deviation, positive; in units of the data's own where the model standardises them.

    Example:
        >>> round(float(GaussianOfScale(0.5)(jnp.zeros(2)).log_prob(jnp.zeros(2))), 4)
        -0.4516
    """

    scale: float = 1.0

    def __call__(self, mean: jax.Array) -> Normals:
        return Normals(mean, jnp.asarray(math.log(self.scale), mean.dtype))


def parameter_count(likelihood: Callable[..., Any]) -> int:
    """Return the number of parameters of the event's shape that a likelihood takes, read off its signature.

    Raises:
        ModelError: not a callable with positional parameters.

    Example:
        >>> parameter_count(bernoulli), parameter_count(gaussian), parameter_count(GaussianOfScale(0.1))
        (1, 2, 1)
    """
    called = f"likelihood={name_of(likelihood)!r:.60}"
    takes = inspect.signature(likelihood).parameters.values() if callable(likelihood) else ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(p.kind in kinds and p.default is p.empty for p in takes)
    if count == 0:
        raise ModelError(
            "that is no likelihood", called=called, expected="a function of arrays that returns a distribution",
            got=type(likelihood).__name__, fix="jaxgen.likelihoods.gaussian",
        )  # fmt: skip
    return count


def support(likelihood: Callable[..., Any], event_shape: tuple[int, ...]) -> tuple[float, float] | None:
    """The smallest and largest value that a likelihood gives a density to; None where it does not say.

    Example:
        >>> support(bernoulli, (3,)), support(gaussian, (3,))
        ((0.0, 1.0), (-inf, inf))
    """
    found: list[Any] = []

    def look(*parameters: Any) -> None:
        found.append(getattr(likelihood(*parameters), "support", None))

    example = jax.ShapeDtypeStruct(event_shape, jnp.float32)
    jax.eval_shape(look, *[example] * parameter_count(likelihood))
    return found[0] if isinstance(found[0], tuple) else None
