"""Densities of labels, one or a row of independent ones, with closed-form maximum likelihood.

What is outside of the support, and what was not seen, is scored as `ops.entries` says. A probability that training
drives to zero stops at the smallest normal number: see `ops.entries.smallest`.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import distrax
from jaxgen.core.inputs import concrete, probabilities
from jaxgen.core.methods import per_batch, per_event, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops import entries
from jaxgen.ops.chunks import sum_over_chunks
from jaxgen.ops.coordinates import chosen_and_rest
from jaxgen.ops.stable import has_mass, log_normalize, softmax

#: events counted one after the other: a float32 counter stops at 2^24, and rounds fractions long before
COUNTED = 2**16


@model
class Categorical:
    """Labels 0 to V - 1, or a row of independent ones.

    `log p(x) = sum_c log softmax(logits_c)[x_c]`

    Args:
        logits: `[*columns, V]`, each row up to a constant; -inf is a label that cannot be, and stays so in the M-step.
        prior: `[*columns, V]`, concentrations of a Dirichlet prior; never trained. None is flat: maximum likelihood.
        missing: True takes a NaN for an entry that was not seen, and marginalises it.

    An event is an array of whole numbers `[*columns]`, a scalar for logits `[V]`. The M-step repairs: a column of no
    mass keeps its logits.

    Example:
        >>> die = Categorical.from_values([0.5, 0.25, 0.25, 0.0])
        >>> jnp.exp(die.log_prob(jnp.array([0, 2, 3, 7, -1]))).round(3).tolist()
        [0.5, 0.25, 0.0, 0.0, 0.0]
        >>> die.sample(jax.random.key(0), (5,)).shape
        (5,)
    """

    logits: jax.Array
    prior: jax.Array | None = fixed(default=None)
    missing: bool = static(default=False)

    @classmethod
    def init(cls, key, x, *, size=None, prior=None, missing=False) -> Categorical:
        """The frequencies of labels `[N, *columns]`.

        Args:
            key: not used.
            x: whole numbers from 0.
            size: V, the number of labels; None counts them, which needs data that can be seen: inside `jit`, and so
                as the leaf of a mixture, it has to be given.
            prior: concentrations, broadcast to `[*columns, V]`.
            missing: whether NaN means an entry that was not seen.

        Raises:
            ModelError: no size where it cannot be counted. DataError: values that are no label.

        Example:
            >>> Categorical.init(jax.random.key(0), [0, 1, 1, 1]).probs.tolist()
            [0.25, 0.75]
        """
        called = f"Categorical.init(key, x, size={size})"
        x = _labels(x, size, called, missing)
        if size is None and not concrete(x):
            raise ModelError(
                "the number of labels cannot be counted inside jit", called=called, expected="size=, an int",
                got="x without values (traced)",
                fix="functools.partial(jaxgen.Categorical.init, size=n) as the leaf, n the number of labels",
            )  # fmt: skip
        size = int(jnp.nanmax(x)) + 1 if size is None else size
        dtype = entries.float_dtype(x)
        shape = (*x.shape[1:], size)
        start = cls(jnp.full(shape, -math.log(size), dtype), entries.broadcast(prior, shape, dtype), missing)
        return entries.one_step(start, x)

    @classmethod
    def from_values(cls, probs, *, prior=None, missing=False) -> Categorical:
        """From probabilities `[*columns, V]` (with leading axes: a batch of models), exact zeros included.

        Raises:
            ModelError: negative values, or rows that do not sum to one.
        """
        probs = probabilities(probs, name="probs", called="Categorical.from_values(probs)")
        return cls(jnp.log(probs), entries.broadcast(prior, probs.shape, probs.dtype), missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.logits.shape[:-1]

    @property
    def log_probs(self) -> jax.Array:
        """Normalised, `[*K, *columns, V]` nats."""
        return log_normalize(self.logits)[0]

    @property
    def probs(self) -> jax.Array:
        """`[*K, *columns, V]`, rows sum to one."""
        return softmax(self.logits)

    @property
    def mode(self) -> jax.Array:
        """The likeliest label, `[*K, *columns]` int32."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    @property
    def free_parameters(self) -> int:
        """One less than labels, for each column."""
        return math.prod(self.logits.shape[:-1]) * (self.logits.shape[-1] - 1)

    def _supported(self, x):
        return entries.whole(x, self.logits.shape[-1])

    def check_data(self, x) -> None:
        """Refuses data outside the support with a DataError."""
        _labels(x, self.logits.shape[-1], "Categorical.check_data(x)", self.missing)

    def _index(self, x):
        """Labels as rows of a table `[columns * V, ...]`; what is no label points past its end."""
        size = self.logits.shape[-1]
        supported = self._supported(x)
        columns = x.reshape((x.shape[0], -1)).shape[1]
        label = jnp.where(supported, x, 0).astype(jnp.int32).reshape((x.shape[0], columns))
        return jnp.where(supported.reshape(label.shape), label + size * jnp.arange(columns), columns * size)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *columns] -> [*batch]`."""
        supported = self._supported(x)
        label = jnp.where(supported, x, 0).astype(jnp.int32)
        value = jnp.take_along_axis(self.log_probs, label[..., None], axis=-1)
        return jnp.sum(entries.scored(value[..., 0], supported, x, self.missing))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *columns]` int32."""
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    @per_batch
    def impute(self, x) -> jax.Array:
        """Labels with those that were not seen (NaN) at the likeliest, `[*batch, *columns]`."""
        return self.completed(x, self.expected(x))

    def expected(self, x):
        """The probabilities of labels `[N, *columns]`, `[N, *columns, V]`."""
        return jnp.broadcast_to(self.probs, (len(x), *self.logits.shape))

    def completed(self, x, expected):
        """Labels with those that were not seen at the likeliest of what was expected."""
        return jnp.where(jnp.isnan(x), jnp.argmax(expected, axis=-1).astype(x.dtype), x)

    def label_log_probs(self):
        """`log p(x_d = v)`, nats, `[*event, V]`."""
        return self.log_probs

    def marginal(self, indices) -> Categorical:
        """The density of some columns, those at `indices` (static), in their order."""
        return self._columns(chosen_and_rest(indices, self._count(), "Categorical.marginal(indices)")[0])

    def condition(self, indices, values) -> Categorical:
        """The density of the other columns; those at `indices` say nothing of them."""
        return self._columns(chosen_and_rest(indices, self._count(), "Categorical.condition(indices, values)")[1])

    def _count(self):
        """Columns of an event, 0 where it is one value; also of K models."""
        return sum(self.logits.shape[:-1][-1:])

    def _columns(self, chosen):
        prior = None if self.prior is None else self.prior[..., chosen, :]
        return dataclasses.replace(self, logits=self.logits[..., chosen, :], prior=prior)

    @weighted_events
    def e_step(self, x, weight=None):
        """Weighted counts `[*columns, V]`, and `log_prob [N]`."""
        return self._counts(x, weight[None], self.logits.shape)[0], self.log_prob(x)

    def _counts(self, x, weight, shape):
        """`[K, *shape]` from weights `[K, N]`; events outside the support count nowhere."""
        index = self._index(x)
        weight = weight.astype(self.logits.dtype)
        table = jnp.zeros((math.prod(shape), len(weight)), weight.dtype)

        def part(rows, fresh):
            counted = jnp.repeat(jnp.where(fresh, rows(weight, 1), 0).T, index.shape[1], axis=0)
            return table.at[rows(index).reshape(-1)].add(counted, mode="drop")

        return sum_over_chunks(part, len(index), COUNTED).T.reshape((len(weight), *shape))

    def m_step(self, statistics) -> Categorical:
        """Weighted maximum likelihood; with a prior, the posterior mode."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where a column has no mass, else 0."""
        total = jnp.sum(statistics, axis=-1, keepdims=True)
        counts = statistics if self.prior is None else jnp.maximum(statistics + self.prior - 1, 0)
        share = counts / jnp.where(has_mass(total), jnp.sum(counts, axis=-1, keepdims=True), 1)
        logits = jnp.log(jnp.maximum(share, entries.smallest(share.dtype)))
        logits = jnp.where(has_mass(total) & (self.logits > -jnp.inf), logits, self.logits)
        return dataclasses.replace(self, logits=logits), jnp.any(~has_mass(total)).astype(jnp.int32)

    def log_prior(self):
        """Return the log density of the Dirichlet prior, nats up to a constant; impossible labels are left out."""
        if self.prior is None:
            return jnp.zeros((), self.logits.dtype)
        return jnp.sum(entries.times_log(self.prior - 1, self.log_probs))

    def log_prob_components(self, x):
        """`[K, N]`: one gather of rows from a table `[columns * V, K]`."""
        log_probs = self.log_probs
        columns = math.prod(log_probs.shape[1:-1])
        table = jnp.moveaxis(log_probs, 0, -1).reshape((-1, len(log_probs)))
        value = table.at[self._index(x)].get(mode="clip")
        x = x.reshape((x.shape[0], columns, 1))
        return jnp.sum(entries.scored(value, self._supported(x), x, self.missing), axis=1).T

    def e_step_components(self, x, weight):
        """Counts of K components, `[K, *columns, V]`, from weights `[K, N]`."""
        return self._counts(x, weight, self.logits.shape[1:])

    def features(self, x):
        """One-hot labels, `[N, columns * V]`, for clustering; NaN for a label that was not seen."""
        x = x.reshape((x.shape[0], -1))
        labels = (x[..., None] == jnp.arange(self.logits.shape[-1])).astype(self.logits.dtype)
        labels = jnp.where((x != x)[..., None], jnp.nan, labels)
        return labels.reshape((x.shape[0], -1))

    def distribution(self):
        """The distrax distribution."""
        dx = distrax()
        return dx.Independent(dx.Categorical(self.logits), len(self.event_shape))


def _labels(x, size, called, missing):
    """Return data as an array, all of them labels from 0, and below `size` where it is known."""
    return entries.supported(
        x, lambda x: entries.whole(x, size), called=called, missing=missing,
        expected="whole numbers from 0" if size is None else f"labels from 0 to {size - 1}",
        fix="np.unique(x, return_inverse=True)[1] numbers them from 0" if size is None else "",
    )  # fmt: skip
