"""Bits and labels that are few enough to be summed over: posteriors whose bounds are exact sums."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError
from jaxgen.core.methods import context_shape, per_event, per_sample
from jaxgen.core.protocols import Density, has
from jaxgen.core.pytree import model, static
from jaxgen.ops.entries import scored

#: the most outcomes that are summed over for every event
MOST = 2**12


@model
class EnumeratedBernoulli:
    """Independent bits of given logits, few enough that a bound sums over all of their values.

    `log p(z) = sum_i z_i a_i - log(1 + exp(a_i))`

    Args:
        event_shape: of z, of at most 12 bits in all.
        logits: a, `[*event]`, those of a prior (`Bernoulli` is one that EM fits); None takes them as the context, of
            the same shape.

    No gradient passes through a draw: as the posterior of a `VAE` it trains by `elbo`, which is then the exact sum
    `sum_z q(z | x) (log p(x, z) - log q(z | x))`, without noise. More bits are a `RelaxedBernoulli`.

    Example:
        >>> q = EnumeratedBernoulli((2,))
        >>> q.outcomes().tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
        >>> jnp.exp(q.log_prob(q.outcomes(), context=jnp.zeros(2))).round(3).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    event_shape: tuple[int, ...] = static()
    logits: Any = None

    @property
    def context_shape(self):
        return self.event_shape if self.logits is None else None

    def outcomes(self):
        """All values, `[S, *event]`.

        Raises:
            ModelError: more than 4096 of them.
        """
        bits = math.prod(self.event_shape)
        _check_few(self, "2", bits, 2, "RelaxedBernoulli")
        table = np.array(list(itertools.product((0.0, 1.0), repeat=bits)))
        return jnp.asarray(table.reshape(-1, *self.event_shape), jnp.result_type(float))

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        logits = self._logits(context)
        value = x * logits - jax.nn.softplus(logits)
        return jnp.sum(scored(value, (x == 0) | (x == 1), x, False))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`, zeros and ones of the logits' dtype."""
        logits = self._logits(context)
        return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(logits.dtype)

    def center(self, context=None):
        """The likeliest bits, `[*batch, *event]`, of contexts `[*batch, *event]`."""
        logits = self._logits(context)
        return (logits > 0).astype(logits.dtype)

    def has_divergence(self, prior) -> bool:
        """True for a density without a context."""
        return _is_summed(prior)

    def divergence(self, prior, context):
        """`KL(q || prior)`, nats, a scalar, of one context: a sum over all outcomes."""
        return _summed(self, prior, context)

    def _logits(self, context):
        return context if self.logits is None else self.logits


@model
class EnumeratedCategorical:
    """A label, or independent ones, of given logits, few enough that a bound sums over all of their values.

    `log p(z) = sum_c sum_k z_ck log softmax(a_c)_k`, z with a single one in each column's V entries

    Args:
        event_shape: of z, `(*columns, V)`: labels as ones and zeros, for a network; `V^columns` is at most 4096.
        logits: a, `[*columns, V]`, those of a prior (`Multinomial` of one trial is one that EM fits); None takes them
            as the context, of the same shape.

    As a posterior it trains by `elbo`, an exact sum, as `EnumeratedBernoulli` does. More are a `RelaxedCategorical`.

    Example:
        >>> q = EnumeratedCategorical((3,))
        >>> q.outcomes().tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        >>> jnp.exp(q.log_prob(q.outcomes(), context=jnp.log(jnp.array([1.0, 1.0, 2.0])))).tolist()
        [0.25, 0.25, 0.5]
    """

    event_shape: tuple[int, ...] = static()
    logits: Any = None

    @property
    def context_shape(self):
        return self.event_shape if self.logits is None else None

    def outcomes(self):
        """All values, `[S, *event]`.

        Raises:
            ModelError: more than 4096 of them.
        """
        *columns, size = self.event_shape
        _check_few(self, str(size), math.prod(columns), size, "RelaxedCategorical")
        labels = np.array(list(itertools.product(range(size), repeat=math.prod(columns))))
        return jnp.asarray(np.eye(size)[labels].reshape(-1, *self.event_shape), jnp.result_type(float))

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        value = x * jax.nn.log_softmax(self._logits(context))
        single = jnp.sum(x, axis=-1, keepdims=True) == 1
        return jnp.sum(scored(value, ((x == 0) | (x == 1)) & single, x, False))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`, zeros and ones of the logits' dtype."""
        logits = self._logits(context)
        # rare labels need noise beyond 16
        label = jax.random.categorical(key, logits, mode="high")
        return jax.nn.one_hot(label, self.event_shape[-1], dtype=logits.dtype)

    def center(self, context=None):
        """The likeliest labels, `[*batch, *event]`, of contexts `[*batch, *event]`."""
        logits = self._logits(context)
        return jax.nn.one_hot(jnp.argmax(logits, axis=-1), self.event_shape[-1], dtype=logits.dtype)

    def has_divergence(self, prior) -> bool:
        """True for a density without a context."""
        return _is_summed(prior)

    def divergence(self, prior, context):
        """`KL(q || prior)`, nats, a scalar, of one context: a sum over all outcomes."""
        return _summed(self, prior, context)

    def _logits(self, context):
        return context if self.logits is None else self.logits


def _check_few(density, base, columns, size, other):
    if columns * math.log(size) > math.log(MOST) + 1e-9:
        raise ModelError(
            "there are too many outcomes to sum over", called=f"{type(density).__name__}({density.event_shape})",
            expected=f"at most {MOST}", got=f"{base}^{columns}", fix=f"jaxgen.{other}({density.event_shape})",
        )  # fmt: skip


def _is_summed(prior):
    return has(prior, Density) and context_shape(prior) is None


def _summed(density, prior, context):
    """`sum_z q(z) (log q(z) - log p(z))`."""
    z = density.outcomes()
    log_q = density.log_prob(z, context=context)
    mass = jnp.exp(log_q)
    # an outcome of no mass is nothing, also where the prior has none
    return jnp.sum(jnp.where(mass > 0, mass * (log_q - prior.log_prob(z)), 0))
