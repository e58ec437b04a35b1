"""Variational Bayesian mixtures: EM on the posterior of a mixture's parameters.

As a `Mixture` is made of any densities, this is made of any components that EM trains; those that are posteriors
themselves (`NormalWishart`) are integrated over, with the weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core import algebra, latent
from jaxgen.core.compiled import compiled, compiled_once
from jaxgen.core.errors import ModelError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import as_array, concrete, floating
from jaxgen.core.methods import per_batch, per_event, per_level, per_sample, weighted_events
from jaxgen.core.protocols import Located
from jaxgen.core.pytree import fixed, float_type, model, parts
from jaxgen.core.value import ByValue
from jaxgen.ops import wishart
from jaxgen.ops.mixing import mixed_cdf, mixed_quantile
from jaxgen.ops.stable import logsumexp, shares, softmax
from jaxgen.ops.starts import START_STEPS, cluster_shares


class VariationalStatistics(NamedTuple):
    """Expected counts `[K]` and the components' statistics, leading axis K."""

    weight: jax.Array
    components: Any


@model
class VariationalMixture:
    """The variational posterior of a mixture: Beta sticks for the weights, conjugate posteriors for the components.

    `q(v, theta) = prod_k Beta(v_k | a_k, b_k) q(theta_k)`, with the weights `w_k = v_k prod_{j < k} (1 - v_j)`

    With K sticks this is a Dirichlet process, cut after K components. With K - 1, after which the last component takes
    what is left, and priors `a = c, b = (K - k) c`, it is exactly a Dirichlet density with all concentrations c. Both
    are updated by one rule. A component that the data do not need returns to its prior, and its weight to nearly zero.

    Args:
        log_sticks: `[K, 2]` or `[K - 1, 2]`, the logarithms of a and b.
        components: one model whose leaves carry a leading axis K: `NormalWishart`, or any other that has `e_step` and
            `m_step`. Of a maximum-likelihood one, such as `Gaussian`, the parameters are points, and only the weights
            have a posterior.
        prior_sticks: as `log_sticks`, a and b of the prior; never trained.

    `EM` fits it, and its `objective` is the evidence lower bound per event. `log_prob` and `sample` are the posterior
    predictive density: the components' own, mixed by the expected weights.

    Source: Bishop (2006), Pattern Recognition and Machine Learning, section 10.2; Blei and Jordan (2006), Variational
    inference for Dirichlet process mixtures; Connor and Mosimann (1969), for a Dirichlet density as Beta variables.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> start = jg.VariationalMixture.init(jax.random.key(0), x, 5, jg.NormalWishart.init)
        >>> fitted = jg.fit(jax.random.key(1), start, x, steps=100).model
        >>> int((fitted.weights > 0.05).sum())
        2
    """

    log_sticks: jax.Array
    components: Any = parts()
    prior_sticks: jax.Array = fixed()

    @classmethod
    def init(
        cls, key, x, k: int, leaf: Any, *, concentration=None, stick_breaking: bool = True
    ) -> VariationalMixture:
        """A start from data: k-means splits the events, each component takes one cluster.

        Args:
            key: typed key.
            x: events `[N, *event]`.
            k: the most components that may be used, 1 to N.
            leaf: `(key, x) -> model`: `NormalWishart.init`, or `NormalWishart.init_diagonal`; its own options set the
                priors of the components: `functools.partial(NormalWishart.init, strength=0.1)`.
            concentration: of the prior of the weights, positive; small values want few components. None is 1 / k.
            stick_breaking: True for a Dirichlet process, False for a Dirichlet density.

        Raises:
            ModelError: k below 1 or above N, or a concentration that is not positive.
            DataError: data that are not data.
        """
        x = jnp.asarray(as_array(x))
        called = f"VariationalMixture.init(key, x, {k})"
        concentration = _concentration(concentration, k, called)
        if not 1 <= k <= len(x):
            raise ModelError(
                "the number of components does not fit the data", called=called,
                expected=f"1 to {len(x)}, the number of events", got=str(k),
            )  # fmt: skip
        start = _init(key, x, k, ByValue(leaf), concentration, stick_breaking)
        latent.check_data(start, x)
        return start

    @classmethod
    def from_responsibilities(
        cls, key, x, responsibilities, leaf: Any, *, concentration=None, stick_breaking: bool = True
    ) -> VariationalMixture:
        """The posterior given data `[N, *event]` and how much of each event is each component's, `[N, K]`.

        Raises:
            ModelError: negative responsibilities, of another number of events, or a concentration out of range.
        """
        x, share = jnp.asarray(as_array(x)), floating(responsibilities, name="responsibilities")
        called = "VariationalMixture.from_responsibilities(key, x, responsibilities)"
        fits = share.ndim == 2 and share.shape[0] == x.shape[0] and share.shape[1] > 0
        if not fits or (concrete(share) and not (share >= 0).all()):
            raise ModelError(
                "responsibilities do not fit the data", called=called, expected=f"[{x.shape[0]}, K], not negative",
                got=f"shape {list(share.shape)}",
            )  # fmt: skip
        concentration = _concentration(concentration, share.shape[1], called)
        start = _from_responsibilities(key, x, share, ByValue(leaf), concentration, stick_breaking)
        latent.check_data(start, x)
        return start

    @classmethod
    def from_components(cls, components, *, concentration=None, stick_breaking: bool = True) -> VariationalMixture:
        """From components, batched or a sequence, with the weights at their prior.

        Raises:
            ModelError: no components, or a concentration that is not positive.
        """
        called = "VariationalMixture.from_components(components)"
        components = algebra.batch_of(components, called)
        concentration = _concentration(concentration, algebra.count(components), called)
        return _at_prior(components, concentration, stick_breaking)

    @property
    def event_shape(self):
        return algebra.element(self.components).event_shape

    @property
    def free_parameters(self) -> int:
        """Weights of the mixture that the posterior is about."""
        return algebra.count(self.components) - 1

    def check_label(self, label) -> None:
        """Refuses labels of components that are not there with a ModelError."""
        algebra.check_label(label, algebra.count(self.components), "VariationalMixture.check_label(label)")

    def _break(self, log_v, log_rest):
        """`log w` of K components from the logarithms of the sticks and of what they leave."""
        missing = algebra.count(self.components) - log_v.shape[0]
        if missing:  # the last component takes what is left
            log_v = jnp.concatenate([log_v, jnp.zeros_like(log_v, shape=(1,))])
        before = jnp.cumsum(log_rest)[: len(log_v) - 1]
        return log_v + jnp.concatenate([jnp.zeros_like(log_v, shape=(1,)), before])

    @property
    def log_weights(self) -> jax.Array:
        """Logarithms of `weights`, `[K]`."""
        log_odds = self.log_sticks[:, 0] - self.log_sticks[:, 1]
        return jax.nn.log_softmax(self._break(jax.nn.log_sigmoid(log_odds), jax.nn.log_sigmoid(-log_odds)))

    @property
    def weights(self) -> jax.Array:
        """Posterior means of the weights, `[K]`; what the sticks leave over is shared out in proportion."""
        return jnp.exp(self.log_weights)

    @property
    def expected_log_weights(self) -> jax.Array:
        """`E_q log w`, `[K]`."""
        return self._break(*wishart.expected_log_stick(self.log_sticks[:, 0], self.log_sticks[:, 1]))

    @property
    def means(self) -> jax.Array:
        """Posterior means of the components' means, `[K, D]`."""
        return self.components.mean

    @property
    def mean(self) -> jax.Array:
        """`E[x]` of the posterior predictive density, `[*event]`, of components that have a `mean`."""
        algebra.needed(self.components, Located, "VariationalMixture.mean")
        return jnp.tensordot(self.weights, self.means, 1, precision="highest")

    @property
    @compiled
    def covariances(self) -> jax.Array:
        """Inverses of the components' posterior mean precisions, `[K, D, D]`, or `[K, D]` for diagonal ones."""
        return self.components.covariance

    def _joint(self, x):
        """`E log w_k + E log p(x | k)`, `[K, N]`."""
        return self.expected_log_weights[:, None] + algebra.component_step_log_prob(self.components, x)

    @per_batch
    def log_prob(self, x, *, context=None, label=None) -> jax.Array:
        """The posterior predictive density: nats, `[*batch, *event] -> [*batch]`; with labels that of both."""
        joint = self.log_weights[:, None] + algebra.component_log_prob(self.components, x)
        return logsumexp(algebra.labelled(joint, label), axis=0)

    @per_batch
    @compiled
    def step_log_prob(self, x, *, context=None) -> jax.Array:
        """An event's term of the lower bound, `log sum_k exp(E log w_k + E log p(x | k))`: nats, `[*batch]`."""
        return logsumexp(self._joint(x), axis=0)

    @per_batch
    def responsibilities(self, x, *, context=None) -> jax.Array:
        """`q(k | x)`, `[*batch, *event] -> [*batch, K]`."""
        return softmax(self._joint(x), axis=0).T

    @per_batch
    def predict(self, x, *, context=None) -> jax.Array:
        """The likeliest component, `[*batch, *event] -> [*batch]` int32."""
        return jnp.argmax(self._joint(x), axis=0).astype(jnp.int32)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate of the predictive density, `[*batch, *event]` both."""
        return mixed_cdf(self.weights, self.components, x, context, "VariationalMixture.cdf(x)")

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate of the predictive density, levels `[*batch] -> [*batch, *event]`."""
        return mixed_quantile(self.weights, self.components, level, context, "VariationalMixture.quantile(level)")

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws of the posterior predictive density, `[*shape, *event]`."""
        which, within = jax.random.split(key)
        index = jax.random.categorical(which, self.log_weights)
        return algebra.sample_component(within, self.components, index)

    @weighted_events
    def e_step(self, x, weight=None, *, label=None):
        """`VariationalStatistics` and `step_log_prob [N]`; with labels `[N]` that of the event in its component."""
        joint = algebra.labelled(self._joint(x), label)
        share, log_norm = shares(joint)
        share = share * weight
        statistics = algebra.component_e_step(self.components, x, share)
        return VariationalStatistics(jnp.sum(share, axis=1), statistics), log_norm

    def m_step(self, statistics) -> VariationalMixture:
        """The posterior given the statistics: the priors, updated."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and the number of components that had to be repaired."""
        count = statistics.weight
        later = jnp.concatenate([jnp.cumsum(count[::-1])[::-1][1:], jnp.zeros_like(count, shape=(1,))])
        sticks = self.prior_sticks + jnp.stack([count, later], axis=1)[: len(self.prior_sticks)]
        # no mass is the prior, and no repair: components see to it themselves
        components, repaired = latent.component_maximize(self.components, statistics.components)
        log_sticks = jnp.log(sticks).astype(self.log_sticks.dtype)
        return VariationalMixture(log_sticks, components, self.prior_sticks), repaired

    def log_prior(self):
        """`-KL(q || prior)` of the weights, nats. `core.latent.log_prior` adds that of the components, and with it the
        sum of `step_log_prob` over the data is the evidence lower bound."""
        a, b = jnp.exp(self.log_sticks[:, 0]), jnp.exp(self.log_sticks[:, 1])
        weights = jnp.sum(wishart.kl_beta(a, b, self.prior_sticks[:, 0], self.prior_sticks[:, 1]))
        return -weights

    def distribution(self):
        """The posterior predictive density as a distrax distribution."""
        return as_distribution(self)


def _concentration(concentration, k, called):
    value = jnp.asarray(1 / max(k, 1) if concentration is None else as_array(concentration, name="concentration"))
    if value.ndim or (concrete(value) and not (value > 0 and jnp.isfinite(value))):
        raise ModelError(
            "the concentration of the weights is out of range", called=called, expected="one positive number",
            got=f"{concentration}", fix="concentration = 1 / k",
        )  # fmt: skip
    return value


def _at_prior(components, concentration, stick_breaking):
    k, dtype = algebra.count(components), float_type(components)
    concentration = jnp.asarray(concentration, dtype)
    if stick_breaking:
        sticks = jnp.stack([jnp.ones(k, dtype), jnp.broadcast_to(concentration, (k,))], axis=1)
    else:
        ahead = jnp.arange(k - 1, 0, -1, dtype=dtype)
        sticks = concentration * jnp.stack([jnp.ones_like(ahead), ahead], axis=1)
    return VariationalMixture(jnp.log(sticks), components, sticks)


def _updated(template, x, share, concentration, stick_breaking):
    """The posterior of K components like `template` from responsibilities `[N, K]`."""
    components = algebra.repeat(template, share.shape[1])
    share = share.T.astype(float_type(components))
    mass = jnp.sum(share, axis=1)

    def step(_, mixture):
        return mixture.m_step(VariationalStatistics(mass, algebra.component_e_step(mixture.components, x, share)))

    return jax.lax.fori_loop(0, START_STEPS, step, _at_prior(components, concentration, stick_breaking))


@compiled_once(static_argnames=("leaf", "stick_breaking"))
def _from_responsibilities(key, x, share, leaf, concentration, stick_breaking):
    return _updated(leaf(key, x), x, share, concentration, stick_breaking)


@compiled_once(static_argnames=("k", "leaf", "stick_breaking"))
def _init(key, x, k, leaf, concentration, stick_breaking):
    cluster, whole = jax.random.split(key)
    template = leaf(whole, x)
    # the prior gives a cluster of one event a width
    share = cluster_shares(cluster, template, x, k, blend=0.0).T
    return _updated(template, x, share, concentration, stick_breaking)
