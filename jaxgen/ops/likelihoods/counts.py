"""Likelihoods of counts: whole numbers from 0 without a largest one."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxgen.core.files import loadable
from jaxgen.ops.entries import clean, scored, whole
from jaxgen.ops.likelihoods.contract import Support, bounded
from jaxgen.ops.special import negative_binomial_log_mass, poisson_log_mass

#: largest |log| of an expected count that a network can ask for, up to 8.9 million: float32 knows whole numbers to 16
RATES = 16.0
#: and of a dispersion: beyond, counts of a thousand are Poisson's
DISPERSIONS = 10.0
#: any count in the place of what is none
SOME = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Poissons:
    """Independent Poisson counts of one event.

    `log p(x) = sum_i x_i log r_i - r_i - log x_i!`, as a deviance, so that large counts keep their digits.

    Args:
        log_rate: `[*event]`, logarithm of the expected counts r.

    distrax has no such distribution.
    """

    log_rate: jax.Array
    support: ClassVar[Support] = Support(0.0, whole=True)

    def log_prob(self, x):
        """Return the log-probability of an event, nats, a scalar."""
        return jnp.sum(self.entries(x))

    def entries(self, x):
        """Return the log-probability of each count by itself, nats, `[*event]`; -inf of what is no count."""
        counts, inside = clean(x, whole, SOME, self.log_rate.dtype)
        return scored(poisson_log_mass(counts, jnp.exp(self.log_rate), self.log_rate), inside, x, False)

    def mean(self):
        """The rate, `[*event]`."""
        return jnp.exp(self.log_rate)

    def sample(self, *, seed):
        """Draws one event, `[*event]`, whole numbers in the rates' dtype."""
        return jax.random.poisson(seed, jnp.exp(self.log_rate)).astype(self.log_rate.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class NegativeBinomials:
    """Independent counts of one event with mean m and variance `m + m^2 / r`: Poisson's with rates that are spread.

    `log p(x) = sum_i log (Gamma(x_i + r_i) / (Gamma(r_i) x_i!)) + r_i log (r_i / (r_i + m_i))
    + x_i log (m_i / (r_i + m_i))`

    Args:
        log_mean: `[*event]`, log m.
        log_dispersion: `[*event]`, log r.

    distrax has no such distribution; in other words it is `scipy.stats.nbinom(n=r, p=r / (r + m))`.
    """

    log_mean: jax.Array
    log_dispersion: jax.Array
    support: ClassVar[Support] = Support(0.0, whole=True)

    def log_prob(self, x):
        """Return the log-probability of an event, nats, a scalar."""
        return jnp.sum(self.entries(x))

    def entries(self, x):
        """Return the log-probability of each count by itself, nats, `[*event]`; -inf of what is no count."""
        counts, inside = clean(x, whole, SOME, self.log_mean.dtype)
        value = negative_binomial_log_mass(counts, jnp.exp(self.log_mean), jnp.exp(self.log_dispersion))
        return scored(value, inside, x, False)

    def mean(self):
        """m, `[*event]`."""
        return jnp.exp(self.log_mean)

    def sample(self, *, seed):
        """Draws one event, `[*event]`, whole numbers in the means' dtype."""
        first, second = jax.random.split(seed)
        # in logarithms: a small r draws rates that underflow
        log_rate = jax.random.loggamma(first, jnp.exp(self.log_dispersion)) + self.log_mean - self.log_dispersion
        return jax.random.poisson(second, jnp.exp(log_rate)).astype(self.log_mean.dtype)


@loadable
def poisson(raw: jax.Array) -> Poissons:
    """Counts with rates from the network, `log r = 16 tanh(raw / 16)`.

    Example:
        >>> round(float(poisson(jnp.zeros(2)).log_prob(jnp.array([0.0, 2.0]))), 4)
        -2.6931
    """
    return Poissons(bounded(raw, RATES))


@loadable
def negative_binomial(raw_mean: jax.Array, raw_dispersion: jax.Array) -> NegativeBinomials:
    """Counts with means and dispersions from the network, `log m = 16 tanh(raw / 16)`, `log r = 10 tanh(raw / 10)`.

    Example:
        >>> round(float(negative_binomial(jnp.zeros(2), jnp.zeros(2)).log_prob(jnp.array([0.0, 2.0]))), 4)
        -2.7726
    """
    return NegativeBinomials(bounded(raw_mean, RATES), bounded(raw_dispersion, DISPERSIONS))
