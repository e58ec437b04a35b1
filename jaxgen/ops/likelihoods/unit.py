"""Likelihoods of numbers between 0 and 1: bits, the continuous Bernoulli and the Beta."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxgen.core.exchange import distrax
from jaxgen.core.files import loadable
from jaxgen.ops.entries import clean, scored
from jaxgen.ops.likelihoods.contract import Support, bounded
from jaxgen.ops.special import beta_log_density, tilted_log_density


@dataclasses.dataclass(frozen=True, eq=False)
class Bits:
    """Independent bits of one event.

    `log p(x) = sum_i x_i l_i - log(1 + exp(l_i))`

    Args:
        logits: `[*event]`, l.

    An x between 0 and 1 is scored as the mean over bits that are one with that probability.
    """

    logits: jax.Array
    support: ClassVar[Support] = Support(0.0, 1.0)

    def log_prob(self, x):
        """Return the log-probability of an event, nats, a scalar."""
        return jnp.sum(self.entries(x))

    def entries(self, x):
        """Return the log-probability of each bit by itself, nats, `[*event]`."""
        return x * self.logits - jax.nn.softplus(self.logits)

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
class ContinuousBits:
    """Independent numbers from 0 to 1 of one event, each with a density `p(x)` proportional to `exp(l x)`.

    `log p(x) = sum_i x_i l_i - log((exp(l_i) - 1) / l_i)`

    Args:
        logits: `[*event]`, l.

    What `Bits` gives numbers between 0 and 1 is no density: its integral over them is less than one. distrax has no
    such distribution.

    Source: Loaiza-Ganem and Cunningham (2019), The continuous Bernoulli: fixing a pervasive error in variational
    autoencoders.
    """

    logits: jax.Array
    support: ClassVar[Support] = Support(0.0, 1.0)

    def log_prob(self, x):
        """Return the log-density of an event, nats, a scalar."""
        return jnp.sum(self.entries(x))

    def entries(self, x):
        """Return the log-density of each number by itself, nats, `[*event]`."""
        return tilted_log_density(x, self.logits)

    def mean(self):
        """`1 / (1 - exp(-l)) - 1 / l`, the slope of the normaliser, `[*event]`."""
        normaliser = lambda logits: -tilted_log_density(0.0, logits)  # noqa: E731
        return jax.jvp(normaliser, (self.logits,), (jnp.ones_like(self.logits),))[1]

    def sample(self, *, seed):
        """Draws one event, `[*event]`, of the logits' dtype, differentiable in them away from 0."""
        u = jax.random.uniform(seed, jnp.shape(self.logits), self.logits.dtype)
        flat = jnp.abs(self.logits) < float(jnp.finfo(u.dtype).eps)
        size = jnp.abs(jnp.where(flat, 1, self.logits))
        # the inverse of the distribution function for a falling density; a rising one is its mirror image
        fallen = jnp.where(flat, u, -jnp.log1p(u * jnp.expm1(-size)) / size)
        return jnp.clip(jnp.where(self.logits > 0, 1 - fallen, fallen), 0, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Betas:
    """Independent numbers between 0 and 1 of one event, the ends left out.

    `log p(x) = sum_i (a_i - 1) log x_i + (b_i - 1) log(1 - x_i) - log B(a_i, b_i)`

    Args:
        log_a: `[*event]`, log a.
        log_b: `[*event]`, log b.
    """

    log_a: jax.Array
    log_b: jax.Array
    support: ClassVar[Support] = Support(0.0, 1.0, inside=True)

    def log_prob(self, x):
        """Return the log-density of an event, nats, a scalar."""
        return jnp.sum(self.entries(x))

    def entries(self, x):
        """Return the log-density of each number by itself, nats, `[*event]`; -inf at the ends and outside."""
        inner, inside = clean(x, lambda x: (x > 0) & (x < 1), 0.5, self.log_a.dtype)
        value = beta_log_density(inner, self.log_a - self.log_b, jnp.logaddexp(self.log_a, self.log_b))
        return scored(value, inside, x, False)

    def mean(self):
        """`a / (a + b)`, `[*event]`."""
        return jax.nn.sigmoid(self.log_a - self.log_b)

    def sample(self, *, seed):
        """Draws one event, `[*event]`; a draw that rounds to an end becomes the number next to it."""
        kind = jnp.finfo(self.log_a.dtype)
        draw = jax.random.beta(seed, jnp.exp(self.log_a), jnp.exp(self.log_b), dtype=kind.dtype)
        return jnp.clip(draw, float(kind.tiny), 1 - float(kind.epsneg))

    def distribution(self):
        """The distrax distribution."""
        dx = distrax()
        return dx.Independent(dx.Beta(jnp.exp(self.log_a), jnp.exp(self.log_b)), jnp.ndim(self.log_a))


@loadable
def bernoulli(logits: jax.Array) -> Bits:
    """Bits with logits from the network; for data in [0, 1].

    Example:
        >>> round(float(bernoulli(jnp.zeros(3)).log_prob(jnp.array([0.0, 1.0, 1.0]))), 4)
        -2.0794
    """
    return Bits(logits)


@loadable
def continuous_bernoulli(logits: jax.Array) -> ContinuousBits:
    """Numbers from 0 to 1, such as grey pixels, by a density that is exponential in them; logits from the network.

    Example:
        >>> round(float(continuous_bernoulli(jnp.zeros(3)).log_prob(jnp.array([0.0, 0.3, 1.0]))), 4)
        0.0
    """
    return ContinuousBits(logits)


@loadable
def beta(raw_a: jax.Array, raw_b: jax.Array) -> Betas:
    """Numbers between 0 and 1 by a Beta density whose powers come from the network, `log a = 6 tanh(raw_a / 6)`.

    At the start, where a network gives zeros, it is uniform.

    Example:
        >>> bool(abs(beta(jnp.zeros(2), jnp.zeros(2)).log_prob(jnp.array([0.2, 0.9]))) < 1e-5)  # uniform
        True
    """
    return Betas(bounded(raw_a), bounded(raw_b))
