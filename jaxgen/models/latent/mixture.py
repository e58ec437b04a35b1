"""Finite mixtures of any density, trained by EM wherever the components have one."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, expectations, latent
from jaxgen.core.compiled import compiled, compiled_by_trace, compiled_once
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import as_batch, as_events, concrete, floating, probabilities
from jaxgen.core.methods import context_shape, per_batch, per_event, per_level, per_sample, weighted_events
from jaxgen.core.protocols import Located, LocatedGiven, Marginal
from jaxgen.core.pytree import fixed, float_type, model, parts
from jaxgen.core.sequences import opened, shown_to
from jaxgen.core.value import ByValue
from jaxgen.models.latent.product import Product
from jaxgen.ops.chains import transitions
from jaxgen.ops.mixing import mixed_cdf, mixed_quantile
from jaxgen.ops.stable import logsumexp, shares, softmax
from jaxgen.ops.starts import START_STEPS, check_trains_by_em, cluster_shares, start_of_kinds


class MixtureStatistics(NamedTuple):
    """Expected counts `[K]` and the components' statistics, leading axis K."""

    weight: jax.Array
    components: Any


@model
class Mixture:
    """A mixture of K densities: Gaussians, flows, hidden Markov models, of one kind or of several.

    `log p(x) = logsumexp_k (log w_k + log p_k(x))`

    Args:
        logits: `[K]`, the weights up to a constant: `w = softmax(logits)`.
        components: one model whose leaves carry a leading axis K, or `Several` kinds of them; `from_components` makes
            either of a list. Models with a bound in place of a likelihood, such as `VAE`, make it a mixture with one.
        prior: `[K]`, concentrations of a Dirichlet prior of the weights; never trained. None is flat.

    Events may have labels in `EM` and `Gradient`: the component that an event is known to come from, else -1. Where
    the components allow missing entries, so does the mixture.

    A component of no mass keeps its parameters in the M-step, and `EM` counts it among the repairs in its metrics. A
    weight that is exactly zero stays zero; one that training drives to zero stops at the smallest normal number.

    Source: Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> mixture = jg.Mixture.init(jax.random.key(0), x, 2, jg.Gaussian.init)
        >>> [round(m, 3) for m in sorted(mixture.components.mean[:, 0].tolist())]
        [0.005, 9.995]
        >>> mixture.responsibilities(x).shape
        (100, 2)
    """

    logits: jax.Array
    components: Any = parts()
    prior: jax.Array | None = fixed(default=None)

    @classmethod
    def init(
        cls, key, x, k: int, leaf: Any = Product.init, *, weight=None, label=None, means=None, responsibilities=None,
        prior=None, context=None,
    ) -> Mixture:  # fmt: skip
        """A start from data: k-means++ and Lloyd's iterations split the events, each component takes one cluster.

        A start from a fitted model needs none of this: it is a start itself.

        Args:
            key: typed key.
            x: events `[N, *event]`, or a frame or `data.Table`, whose rows are events.
            k: number of components, 1 to N.
            leaf: `(key, x) -> model` with an M-step, such as `Gaussian.init`; called once, on all events;
                with a context `(key, x, context) -> model`. Or a list of K such, for components of several kinds:
                `[Delta.init, Gamma.init]`, each of which starts from all events that it takes, with their context where
                it has a parameter of that name. `Product.init` has a density for each kind of column of a table.
            weight: `[N]`, non-negative; None is ones.
            label: `[N]`, the component of events where it is known, else -1: they start in it.
            means: `[K, *event]`, each event starts in the component of the nearest of them, in place of k-means.
            responsibilities: `[N, K]`, non-negative, the shares of each event to start from, in place of k-means.
            prior: concentrations of a Dirichlet prior of the weights, broadcast to `[K]`.
            context: `[N, *context]`, of components that take one.

        Raises:
            ModelError: k below 1 or above N; a label above K - 1; both means and responsibilities.
            DataError: data that are not data. ShapeError: starts of another shape than data and k ask for.
        """
        called = f"Mixture.init(key, x, {k})"
        x, known = opened(x)
        leaf = shown_to(leaf, known)
        parts = {"x": x, "context": context, "weight": weight, "label": label}
        batch = as_batch(parts, name="x", called=called, missing=True, schema=known)
        x = jax.tree.map(jnp.asarray, batch.x)
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= len(x):
            raise ModelError(
                "the number of components does not fit the data", called=called,
                expected=f"1 to {len(x)}, the number of events", got=str(k),
            )  # fmt: skip
        if batch.label is not None:
            algebra.check_label(batch.label, k, called)
        start = _given(means, responsibilities, x, k, called)
        prior = None if prior is None else jnp.broadcast_to(jnp.asarray(prior, jnp.result_type(float)), (k,))
        if isinstance(leaf, (list, tuple)):
            alone = start is None and batch.weight is None and batch.label is None
            return _of_kinds(key, x, batch.context, k, leaf, prior, alone, called)
        made = _init(key, x, batch.context, batch.weight, batch.label, start, prior, k, ByValue(leaf))
        if not latent.accepts_missing(made):
            as_events(x, name="x", called=called, missing=latent.unseen(made), schema=latent.schema(made))
        latent.check_data(made, x)
        return made

    @classmethod
    def from_components(cls, components, weights=None, *, prior=None) -> Mixture:
        """From components, batched or a sequence, and weights `[K]` (default: equal); `prior` is broadcast to `[K]`.

        Raises:
            ModelError: components of events of several shapes; weights that are negative, do not sum to one but for
                rounding, or are of another number than the components.
        """
        called = "Mixture.from_components(components, weights)"
        components = algebra.batch_of(components, called)
        latent.check_parts(components, called)
        k = algebra.count(components)
        weights = np.full(k, 1 / k) if weights is None else weights
        weights = probabilities(weights, name="weights", called=called, shape=(k,))
        prior = None if prior is None else jnp.broadcast_to(jnp.asarray(prior, jnp.result_type(float)), (k,))
        return cls(jnp.log(weights), components, prior)

    @property
    def event_shape(self):
        return algebra.element(self.components).event_shape

    @property
    def context_shape(self):
        return context_shape(algebra.element(self.components))

    @property
    def free_parameters(self) -> int:
        """K - 1 weights; `core.latent.free_parameters` adds the components'."""
        return self.logits.shape[-1] - 1

    def check_label(self, label) -> None:
        """Refuses labels of components that are not there with a ModelError."""
        algebra.check_label(label, self.logits.shape[-1], "Mixture.check_label(label)")

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

    def _step_joint(self, x, context=None):
        return self.log_weights[:, None] + algebra.component_step_log_prob(self.components, x, context)

    @compiled
    def step_log_prob(self, x):
        """Return the `[N]` nats that `e_step` gives beside the statistics: `log_prob`, or the components' bound."""
        return logsumexp(self._step_joint(x), axis=0)

    @per_batch
    def log_prob(self, x, *, context=None, label=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`; with labels `[*batch]` `log p(x, label)`, where they are not -1."""
        return logsumexp(algebra.labelled(self._joint(x, context), label), axis=0)

    @per_batch
    def elbo(self, key, x, *, context=None, label=None) -> jax.Array:
        """A lower bound in the mean, of components that have one: `iwae` of one draw, nats, `[*batch]`."""
        return self._estimate(key, x, context, 1, label)

    @per_batch
    def iwae(self, key, x, *, context=None, label=None, samples=50) -> jax.Array:
        """The logarithm of an unbiased estimate of p(x), nats, `[*batch, *event] -> [*batch]`; labels as in `log_prob`.

        `log sum_k w_k exp(e_k)`, with `exp(e_k)` an unbiased estimate of `p_k(x)` from draws of its own.
        """
        return self._estimate(key, x, context, samples, label)

    def _estimated_joint(self, key, x, context, samples):
        return self.log_weights[:, None] + latent.component_estimate(self.components, key, x, context, samples)

    def _estimate(self, key, x, context, samples, label):
        return logsumexp(algebra.labelled(self._estimated_joint(key, x, context, samples), label), axis=0)

    @per_batch
    def responsibilities(self, x, *, context=None) -> jax.Array:
        """`p(k | x)`, `[*batch, *event] -> [*batch, K]`; zeros for an event that no component makes."""
        return softmax(self._joint(x, context), axis=0).T

    @per_batch
    def estimate_responsibilities(self, key, x, *, context=None, samples=50) -> jax.Array:
        """`p(k | x)` of components that have a bound in place of a density, `[*batch, *event] -> [*batch, K]`.

        Shares of `w_k exp(e_k)`, with `exp(e_k)` an unbiased estimate of `p_k(x)` from `samples` draws of its own: they
        tend to `p(k | x)` as these grow. Exact ones, as `responsibilities`, where all components have a density.
        """
        return softmax(self._estimated_joint(key, x, context, samples), axis=0).T

    @per_batch
    def predict(self, x, *, context=None) -> jax.Array:
        """The likeliest component, `[*batch, *event] -> [*batch]` int32."""
        return jnp.argmax(self._joint(x, context), axis=0).astype(jnp.int32)

    @per_batch
    def impute(self, x, *, context=None) -> jax.Array:
        """Events with what is missing (NaN) at its posterior mean given the rest, `[*batch, *event]`.

        `E[x_M | x_O] = sum_k p(k | x_O) E_k[x_M | x_O]`, of components that have `impute`, such as Gaussians with
        `missing=True`; labels and bits at their likeliest, by `p(x_M | x_O)`.

        Raises:
            ModelError: components without.
        """
        return self.completed(x, self.expected(x, context))

    def expected(self, x, context=None):
        """The components' expectations of what is missing of events `[N, *event]`, averaged."""
        share = softmax(self._joint(x, context), axis=0)
        return expectations.mean_of(self.components, share, x, "Mixture.impute(x)")

    def completed(self, x, expected):
        """Events with what is missing as was expected."""
        return expectations.completed(algebra.element(self.components), x, expected)

    @property
    def classes(self):
        """The components."""
        return self.components

    def permute(self, order) -> Mixture:
        """The same mixture with its components in another order, `order[new] = old`."""
        order = jnp.asarray(order)
        prior = None if self.prior is None else self.prior[order]
        return Mixture(self.logits[order], algebra.take(self.components, order), prior)

    @compiled_by_trace
    def marginal(self, indices) -> Mixture:
        """The mixture of the components' marginals of the coordinates at `indices` (static)."""
        return Mixture(self.logits, self._marginals(indices, "Mixture.marginal(indices)"), self.prior)

    def _marginals(self, indices, called):
        return algebra.of_kinds(lambda batch: batch.marginal(indices), self.components, Marginal, called)

    @compiled_by_trace
    def condition(self, indices, values) -> Mixture:
        """The density of the other coordinates given those at `indices` (static): a mixture again.

        `p(a | b) = sum_k p(k | b) p_k(a | b)`; `jax.vmap` over values makes a regression of it.

        Args:
            indices: coordinates that are known, a tuple of ints.
            values: `[len(indices)]`, their values.
        """
        known = self._marginals(indices, "Mixture.condition(indices, values)")
        logits = self.log_weights + algebra.component_log_prob(known, jnp.asarray(values)[None])[:, 0]
        rest = algebra.of_kinds(lambda batch: batch.condition(indices, values), self.components, Marginal, "condition")
        return Mixture(logits - logsumexp(logits), rest, None)

    @property
    def mean(self) -> jax.Array:
        """`E[x]`, `[*event]`, of components that have a `mean`."""
        algebra.needed(self.components, Located, "Mixture.mean")
        means = algebra.joined(self.components, algebra.per_kind(lambda batch: batch.mean, self.components))
        return jnp.tensordot(self.weights, means, 1, precision="highest")

    def conditional_mean(self, context) -> jax.Array:
        """Return `E[x | u]`, `[*batch, *context] -> [*batch, *event]`, of components that have one: regressions."""
        algebra.needed(self.components, LocatedGiven, "Mixture.conditional_mean(context)")
        means = algebra.each(lambda one: one.conditional_mean(context), self.components)
        return jnp.tensordot(self.weights, means, 1, precision="highest")

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate alone, `[*batch, *event]` both, where components have one."""
        return mixed_cdf(self.weights, self.components, x, context, "Mixture.cdf(x)")

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate alone, levels `[*batch] -> [*batch, *event]`."""
        return mixed_quantile(self.weights, self.components, level, context, "Mixture.quantile(level)")

    @per_sample
    def sample(self, key, shape=(), *, context=None, length=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        which, within = jax.random.split(key)
        index = jax.random.categorical(which, self.logits)
        return algebra.sample_component(within, self.components, index, context=context, length=length)

    @weighted_events
    def e_step(self, x, weight=None, *, label=None, context=None):
        """`MixtureStatistics` and `log_prob [N]`; with labels `[N]` the latter is `log p(x, label)`."""
        joint = algebra.labelled(self._step_joint(x, context), label)
        share, log_prob = shares(joint)
        share = share * weight
        statistics = algebra.component_e_step(self.components, x, share, context)
        return MixtureStatistics(jnp.sum(share, axis=1), statistics), log_prob

    def m_step(self, statistics) -> Mixture:
        """Weighted maximum likelihood of weights and components."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and the number of components that had to be repaired."""
        mass = statistics.weight
        components, repaired = latent.component_maximize(self.components, statistics.components, mass)
        logits = transitions.log_shares(mass, self.logits, self.prior)
        return Mixture(logits, components, self.prior), repaired

    def log_prior(self):
        """Log density of the prior of the weights, nats up to a constant; `core.latent.log_prior` adds the rest."""
        return 0.0 if self.prior is None else jnp.sum((self.prior - 1) * self.log_weights)

    def distribution(self):
        """The distrax distribution."""
        return as_distribution(self)


def _given(means, responsibilities, x, k, called):
    """The start that was given, checked: `("means", [K, *event])`, `("responsibilities", [N, K])`, or None."""
    if means is not None and responsibilities is not None:
        raise ModelError("two starts were given", called=called, expected="means or responsibilities", got="both")
    if means is None and responsibilities is None:
        return None
    name = "means" if responsibilities is None else "responsibilities"
    value = floating(means if responsibilities is None else responsibilities, name=name)
    wanted = (k, *x.shape[1:]) if responsibilities is None else (len(x), k)
    if value.shape != wanted:
        raise ShapeError(
            f"{name} do not fit the data", called=called, expected=f"shape {list(wanted)}",
            got=f"shape {list(value.shape)}",
        )  # fmt: skip
    if responsibilities is not None and concrete(value) and not ((value >= 0).all() and (value.sum(1) > 0).all()):
        raise ModelError("responsibilities are no shares", called=called, expected="non-negative rows, none all zero",
                         got=f"smallest {value.min()}, row sums from {value.sum(1).min()}")  # fmt: skip
    return {name: value}


def _of_kinds(key, x, context, k, leaves, prior, alone, called):
    """A start with a leaf for each component."""
    if len(leaves) != k or not alone:
        raise ModelError(
            "leaves of several kinds start from all events", called=called, got=f"{len(leaves)} leaves",
            expected=f"{k} leaves, and no weight, label, means or responsibilities",
            fix="jaxgen.Mixture.from_components([model, other]) from models of your own, and fit with weight or label",
        )  # fmt: skip
    components = start_of_kinds(key, x, leaves, context)
    latent.check_parts(components, called)
    made = Mixture(jnp.zeros(k, float_type(components)), components, prior)
    latent.check_data(made, x)
    return made


@compiled_once(static_argnames=("k", "leaf"))
def _init(key, x, context, weight, label, start, prior, k, leaf):
    cluster, whole = jax.random.split(key)
    template = leaf(whole, x) if context is None else leaf(whole, x, context)
    check_trains_by_em(template, f"Mixture.init(key, x, {k}, leaf)",
                       "jaxgen.Mixture.from_components([leaf(key, part) for part in np.array_split(x, "
                       f"{k})]), and fit it with Gradient")  # fmt: skip
    share = _shares(cluster, template, x, label, start, k)
    share = share if weight is None else share * weight.astype(share.dtype)
    mass = jnp.sum(share, axis=1)

    def step(_, mixture):
        return mixture.m_step(MixtureStatistics(mass, algebra.component_e_step(mixture.components, x, share, context)))

    start = Mixture(jnp.zeros(k, share.dtype), algebra.repeat(template, k), prior)
    return jax.lax.fori_loop(0, START_STEPS, step, start)


def _shares(key, template, x, label, start, k):
    """Return the share of each event that each component starts with, `[K, N]`."""
    if start is not None and "responsibilities" in start:
        share = start["responsibilities"]
        return (share / jnp.sum(share, axis=1, keepdims=True)).T
    return cluster_shares(key, template, x, k, label=label, means=None if start is None else start["means"])
