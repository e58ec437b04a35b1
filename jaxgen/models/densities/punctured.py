"""A density that leaves one point to a point mass: the slab of a spike-and-slab mixture."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array, concrete, floating
from jaxgen.core.methods import context_shape, per_event, per_level, per_sample, weighted_events
from jaxgen.core.protocols import Located, Quantiled, Spread
from jaxgen.core.pytree import fixed, model, part


class PuncturedStatistics(NamedTuple):
    """The statistics of the density, of events that are not at the value."""

    density: Any


@model
class Punctured:
    """A continuous density of all events but one, which a `Delta` beside it in a mixture makes.

    `log p(x) = log p_density(x)` where `x != value`, else -inf

    Args:
        density: a density of continuous events, which gives a single one of them no probability.
        value: `[*event]`, the event that it does not make; never trained.

    A density may have any value at a single point: this is the same distribution, written so that a mixture counts an
    event at the value as the point mass's. The M-step is that of the density, to which such an event adds nothing.

    Source: Mitchell and Beauchamp (1988), Bayesian variable selection in linear regression (the spike and the slab).

    Example:
        >>> import jaxgen as jg
        >>> slab = Punctured.from_density(jg.DiagonalGaussian.from_values([0.0], [1.0]), [0.0])
        >>> [round(float(v), 4) for v in slab.log_prob(jnp.array([[0.0], [1.0]]))]
        [-inf, -1.4189]
    """

    density: Any = part()
    value: jax.Array = fixed()

    @classmethod
    def init(cls, key, x, leaf, *, value=0.0) -> Punctured:
        """Return a start from data `[N, *event]`: that of the leaf, and the value, broadcast to one event.

        Args:
            key: typed key, for the leaf.
            x: events.
            leaf: `(key, x) -> density`, such as `Gaussian.init`; it sees the events at the value too.
            value: the event that is left out.
        """
        return cls.from_density(leaf(key, x), jnp.broadcast_to(floating(value, name="value"), np.shape(x)[1:]))

    @classmethod
    def from_density(cls, density, value) -> Punctured:
        """Return the density without a value `[*event]`.

        Raises:
            ModelError: a value of another shape than events.
        """
        value = floating(value, name="value")
        if value.shape[value.ndim - len(density.event_shape) :] != density.event_shape:
            raise ModelError(
                "the value is no event of the density", called="Punctured.from_density(density, value)",
                expected=f"shape {list(density.event_shape)}", got=f"shape {list(value.shape)}",
            )  # fmt: skip
        return cls(density, value)

    event_shape = property(lambda self: self.density.event_shape)

    @property
    def mean(self):
        """The density's, which no single point moves, `[*event]`."""
        algebra.needed(self.density, Located, "Punctured.mean")
        return self.density.mean

    @property
    def variance(self):
        """As `mean`, `[*event]`."""
        algebra.needed(self.density, Spread, "Punctured.variance")
        return self.density.variance

    context_shape = property(lambda self: context_shape(self.density))

    def check_data(self, x) -> None:
        """Refuse data that the density refuses, but for events at the value, with a DataError."""
        x = as_array(x, name="x", called="Punctured.check_data(x)", allow_nan=True)
        abstract = isinstance(self.value, jax.ShapeDtypeStruct)  # which events are at the value is not known then
        if not abstract and concrete(x, self.value) and len(kept := np.asarray(x)[~np.asarray(self._at(x))]):
            latent.check_data(self.density, kept)

    def _at(self, x):
        """Return which events `[*batch, *event]` equal the value, as numbers of its dtype, in all that was seen."""
        axes, x = tuple(range(-len(self.value.shape), 0)), jnp.asarray(x, self.value.dtype)
        unseen = jnp.isnan(x)  # where nothing at all was seen, no value was
        return jnp.all((x == self.value) | unseen, axis=axes) & ~jnp.all(unseen, axis=axes)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Return nats, `[*batch, *event] -> [*batch]`."""
        return jnp.where(self._at(x), -jnp.inf, self.density.log_prob(x, context=context))

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event] -> [*batch, *event]`."""
        algebra.needed(self.density, Quantiled, "Punctured.cdf(x)")
        return self.density.cdf(x, context=context)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        algebra.needed(self.density, Quantiled, "Punctured.quantile(level)")
        return self.density.quantile(level, context=context)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Return draws `[*shape, *event]`."""
        return self.density.sample(key, context=context)

    @weighted_events
    def e_step(self, x, weight=None, *, context=None):
        """Return `PuncturedStatistics`, and `log_prob [N]`."""
        at = self._at(x)
        given = {} if context is None else {"context": context}
        statistics, log_prob = self.density.e_step(x, jnp.where(at, 0, weight), **given)
        return PuncturedStatistics(statistics), jnp.where(at, -jnp.inf, log_prob)

    @compiled
    def step_log_prob(self, x):
        """Return what `e_step` does beside the statistics, `[N]`, of a density that bounds its own."""
        return jnp.where(self._at(x), -jnp.inf, algebra.step_log_prob(self.density, x))

    def m_step(self, statistics) -> Punctured:
        """Return the M-step of the density."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """Return `m_step`, and how many parts the density repaired."""
        density, repaired = latent.maximize(self.density, statistics.density)
        return dataclasses.replace(self, density=density), repaired

    def maximize_components(self, statistics, mass):
        """Return `maximize` of K densities, which may share parameters, and their repairs."""
        density, repaired = latent.component_maximize(self.density, statistics.density, mass)
        return dataclasses.replace(self, density=density), repaired
