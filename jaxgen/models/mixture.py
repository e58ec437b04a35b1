"""Finite mixtures of any density, trained by EM wherever the components have one."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.door import context_shape, per_batch, per_sample, weighted_events
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.gate import as_array, concrete
from jaxgen.core.pytree import model
from jaxgen.core.value import ByValue
from jaxgen.ops.kmeans import kmeans
from jaxgen.ops.stable import logsumexp


class MixtureStatistics(NamedTuple):
    """Expected counts `[K]` and the components' statistics, leading axis K."""

    weight: jax.Array
    components: Any


@model
class Mixture:
    """A mixture of K densities of one kind, anything that has `log_prob`: Gaussians, flows, hidden Markov models.

    `log p(x) = logsumexp_k (log w_k + log p_k(x))`

    Args:
        logits: `[K]`, the weights up to a constant: `w = softmax(logits)`.
        components: one model whose leaves carry a leading axis K.

    The M-step gives a component of no mass a weight of rounding size and leaves its parameters to the component's own
    rule; `EM` counts such repairs in its metrics.

    Source: Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> mixture = jg.Mixture.init(jax.random.key(0), x, 2, jg.Gaussian.init)
        >>> sorted(mixture.components.mean[:, 0].round(3).tolist())
        [0.25, 9.75]
        >>> mixture.responsibilities(x).shape
        (100, 2)
    """

    logits: jax.Array
    components: Any

    @classmethod
    def init(cls, key, x, k: int, leaf: Any) -> Mixture:
        """A start from data: k-means splits the events, each component takes one cluster.

        Args:
            key: typed key.
            x: events `[N, *event]`.
            k: number of components, 1 to N.
            leaf: `(key, x) -> model` with an M-step, such as `Gaussian.init`; called once, on all events.

        Raises:
            ModelError: k below 1 or above N.
            DataError: data that are not data.
        """
        x = jnp.asarray(as_array(x))
        if not 1 <= k <= len(x):
            raise ModelError(
                "the number of components does not fit the data", called=f"Mixture.init(key, x, {k})",
                expected=f"1 to {len(x)}, the number of events", got=str(k),
            )  # fmt: skip
        start = _init(key, x, k, ByValue(leaf))
        start.check_data(x)
        return start

    @classmethod
    def from_components(cls, components, weights=None) -> Mixture:
        """From components, batched or a sequence, and weights `[K]` (default: equal).

        Raises:
            ModelError: weights that are negative or of another number than the components.
        """
        components = algebra.stack(components) if isinstance(components, (list, tuple)) else components
        k = algebra.count(components)
        weights = jnp.ones(k) if weights is None else jnp.asarray(as_array(weights, name="weights"))
        if weights.shape != (k,) or (concrete(weights) and not ((weights >= 0).all() and weights.sum() > 0)):
            raise ModelError(
                "weights do not fit the components", called="Mixture.from_components(components, weights)",
                expected=f"{k} non-negative numbers", got=f"shape {list(weights.shape)}, {weights}",
            )  # fmt: skip
        return cls(jnp.log(weights), components)

    @property
    def event_shape(self):
        return algebra.element(self.components).event_shape

    @property
    def context_shape(self):
        return context_shape(algebra.element(self.components))

    @property
    def latent_parts(self):
        return (self.components,)

    def check_data(self, x) -> None:
        """Refuses data outside the support of the components with a DataError."""
        algebra.check_data(algebra.element(self.components), x)

    @property
    def log_weights(self) -> jax.Array:
        """`log w`, `[K]`."""
        return jax.nn.log_softmax(self.logits)

    @property
    def weights(self) -> jax.Array:
        """`w`, `[K]`, summing to one."""
        return jax.nn.softmax(self.logits)

    def _joint(self, x, context=None):
        return self.log_weights[:, None] + algebra.component_log_prob(self.components, x, context)

    @per_batch
    def log_prob(self, x, context):
        """Nats, `[*batch, *event] -> [*batch]`."""
        return logsumexp(self._joint(x, context), axis=0)

    @per_batch
    def responsibilities(self, x, context):
        """`p(k | x)`, `[*batch, *event] -> [*batch, K]`."""
        return jax.nn.softmax(self._joint(x, context), axis=0).T

    @per_batch
    def predict(self, x, context):
        """The likeliest component, `[*batch, *event] -> [*batch]` int32."""
        return jnp.argmax(self._joint(x, context), axis=0).astype(jnp.int32)

    @per_sample
    def sample(self, key, context, length):
        """Draws `[*shape, *event]`."""
        which, within = jax.random.split(key)
        index = jax.random.categorical(which, self.logits)
        return algebra.sample_component(within, self.components, index, context=context, length=length)

    @weighted_events
    def e_step(self, x, weight):
        """`MixtureStatistics` and `log_prob [N]`."""
        joint = self._joint(x)
        log_prob = logsumexp(joint, axis=0)
        # an impossible event (-inf) belongs to no component
        share = jnp.exp(joint - jnp.where(jnp.isneginf(log_prob), 0, log_prob)) * weight
        statistics = algebra.component_e_step(self.components, x, share)
        return MixtureStatistics(jnp.sum(share, axis=1), statistics), log_prob

    def m_step(self, statistics) -> Mixture:
        """Weighted maximum likelihood of weights and components."""
        return self.maximize(statistics)[0]

    def maximize(self, statistics):
        """`m_step`, and the number of components that had to be repaired."""
        floor = 10 * jnp.finfo(statistics.weight.dtype).eps
        logits = jnp.log(statistics.weight + floor)
        components, repaired = algebra.component_maximize(self.components, statistics.components)
        return Mixture((logits - logsumexp(logits, axis=0)).astype(self.logits.dtype), components), repaired

    def distribution(self):
        """The distrax distribution."""
        return as_distribution(self)


@functools.partial(jax.jit, static_argnames=("k", "leaf"))
def _init(key, x, k, leaf):
    cluster, whole = jax.random.split(key)
    template = leaf(whole, x)
    features = algebra.features(template, x)
    _, label = kmeans(cluster, features, k)
    share = jax.nn.one_hot(label, k, axis=0, dtype=features.dtype)
    # every cluster keeps a little of all the data, so that a cluster of one event is no point mass
    share = 0.95 * share + 0.05 / k
    components = algebra.repeat(template, k)
    statistics = algebra.component_e_step(components, x, share)
    return Mixture(jnp.zeros(k, features.dtype), components).m_step(
        MixtureStatistics(jnp.sum(share, axis=1), statistics)
    )
