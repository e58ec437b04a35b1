"""Hidden Markov models with emissions of any kind; EM on them is Baum-Welch."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.door import per_batch, per_event, per_sample, weighted_events
from jaxgen.core.errors import JaxgenError, ModelError, ShapeError
from jaxgen.core.gate import as_array, concrete, floating
from jaxgen.core.pytree import model
from jaxgen.core.value import ByValue
from jaxgen.ops import chains
from jaxgen.ops.chunks import sum_over_chunks
from jaxgen.ops.kmeans import kmeans
from jaxgen.ops.stable import log_normalize, softmax

#: time steps whose emission statistics are summed at once: they stay in the cache, and a float32 sum keeps its digits
BLOCK = 4096


class HMMStatistics(NamedTuple):
    """Expected counts of first states `[K]` and of transitions `[K, K]`; the emissions' statistics, leading axis K."""

    initial: jax.Array
    transition: jax.Array
    emissions: Any


@model
class HMM:
    """A hidden Markov model: a chain of K states, each with its own density of what is seen.

    `log p(x) = log sum_z pi[z_1] p(x_1 | z_1) prod_t A[z_(t-1), z_t] p(x_t | z_t)`

    Args:
        initial_logits: `[K]`, up to a constant: `pi = softmax(initial_logits)`.
        transition_logits: `[K, K]`, rows (the state left) up to a constant.
        emissions: one model whose leaves carry a leading axis K, anything that has `log_prob`.

    An event is a sequence `[T, *emission event]` of any length T. A logit of -inf is a start or transition that cannot
    be; training leaves it exactly so. Likelihoods are exact and in log space; of a sequence that no path explains,
    -inf.

    The M-step repairs: the row of a state that is never left stays as it was, a state of no mass is left to the
    emission's own rule; an entry that training drives to zero stops at the smallest normal number. `EM` counts repairs.

    The length of an event is free, so there is no `distribution()`: distrax has fixed event shapes only.

    Source: Baum, Petrie, Soules and Weiss (1970); Rabiner (1989), A tutorial on hidden Markov models.

    Example:
        >>> import jaxgen as jg
        >>> weather = jg.HMM.from_values([0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]], jg.Bernoulli.from_probs([0.1, 0.8]))
        >>> x = jnp.array([0, 0, 1, 0, 0])
        >>> round(float(weather.log_prob(x)), 4)
        -3.3725
        >>> weather.viterbi(x).path.tolist()
        [0, 0, 1, 0, 0]
        >>> weather.sample(jax.random.key(0), (3,), length=7).shape
        (3, 7)
    """

    initial_logits: jax.Array
    transition_logits: jax.Array
    emissions: Any

    @classmethod
    def init(cls, key, x, k: int, leaf: Any, *, stickiness: float = 0.9) -> HMM:
        """A start from data: k-means splits the time steps of all sequences, each state emits one cluster.

        Args:
            key: typed key.
            x: sequences `[N, T, *event]`.
            k: number of states, 1 to N T.
            leaf: `(key, x [M, *event]) -> model` with an M-step, such as `Gaussian.init`; called once, on all steps.
            stickiness: the probability of staying in a state; the rest is shared by the other states.

        Raises:
            ModelError: k or the stickiness out of range. ShapeError: one sequence without a batch axis.
            DataError: data that are not data.

        Example:
            >>> import jaxgen as jg
            >>> x = jnp.concatenate([jnp.zeros(20), jnp.ones(20)]).reshape(1, 40, 1)
            >>> start = jg.HMM.init(jax.random.key(0), x, 2, jg.Gaussian.init)
            >>> sorted(start.emissions.mean[:, 0].round().tolist()), start.transition.shape
            ([0.0, 1.0], (2, 2))
        """
        x, called = jnp.asarray(as_array(x)), f"HMM.init(key, x, {k}, leaf, stickiness={stickiness})"
        if x.ndim < 2:
            raise ShapeError(
                "HMM.init takes a batch of sequences", called=called, expected="x [N, T, *event]",
                got=f"shape {list(x.shape)}", fix="x[None] for one sequence",
            )  # fmt: skip
        steps = x.shape[0] * x.shape[1]
        if not 1 <= k <= steps or not 0 <= stickiness <= 1:
            raise ModelError(
                "these states do not fit the data", called=called, got=f"k={k}, stickiness={stickiness}",
                expected=f"1 to {steps} states, the number of time steps, and a stickiness from 0 to 1",
            )  # fmt: skip
        try:
            start = _init(key, x, jnp.asarray(stickiness, jnp.result_type(float)), k, ByValue(leaf))
            start.check_data(x)
            return start
        except (TypeError, ValueError) as error:
            if isinstance(error, JaxgenError) and not isinstance(error, ShapeError):
                raise
            raise ShapeError(
                "the leaf makes no model of these events", called=called,
                got=f"x of shape {list(x.shape)}, and {type(error).__name__}: {error}",
                expected=f"a leaf for events of shape {list(x.shape[2:])}, the axes after [N, T]",
                fix="x[None] for one sequence, x[..., None] for events of one number",
            ) from error  # fmt: skip

    @classmethod
    def from_values(cls, initial, transition, emissions) -> HMM:
        """From probabilities `[K]` and `[K, K]`, exact zeros included, and emissions: one batch, or a sequence of K.

        Raises:
            ModelError: rows that are no probabilities, or shapes that do not belong together.
        """
        emissions = algebra.stack(emissions) if isinstance(emissions, (list, tuple)) else emissions
        k = algebra.count(emissions)
        return cls(_log_rows("initial", initial, (k,)), _log_rows("transition", transition, (k, k)), emissions)

    @property
    def event_shape(self):
        return (None, *algebra.element(self.emissions).event_shape)

    @property
    def latent_parts(self):
        return (self.emissions,)

    def check_data(self, x) -> None:
        """Refuses data outside the support of the emissions with a DataError."""
        algebra.check_data(algebra.element(self.emissions), _steps(x))

    @property
    def log_initial(self) -> jax.Array:
        """`log pi`, `[K]`."""
        return log_normalize(self.initial_logits)[0]

    @property
    def log_transition(self) -> jax.Array:
        """`log A`, `[K, K]`, rows normalised."""
        return log_normalize(self.transition_logits)[0]

    @property
    def initial(self) -> jax.Array:
        """`pi`, `[K]`, summing to one."""
        return softmax(self.initial_logits)

    @property
    def transition(self) -> jax.Array:
        """`A`, `[K, K]`: the probability of going from the row's to the column's state."""
        return softmax(self.transition_logits)

    def _on_chain(self, function, x, score=algebra.component_log_prob):
        """A function of `ops.chains` on each of the sequences `[N, T, *event]`; emissions are scored all at once."""
        seen = score(self.emissions, _steps(x)).T.reshape((*x.shape[:2], -1))
        start, move = self.log_initial, self.log_transition
        return jax.vmap(lambda log_likelihood: function(start, move, log_likelihood))(seen)

    @per_batch
    def log_prob(self, x, context):
        """Nats, `[*batch, T, *event] -> [*batch]`; its gradients are posterior expectations, finite at hard zeros."""
        return self._on_chain(chains.log_normalizer, x)

    @per_batch
    def filter(self, x, context):
        """What the past says, `chains.Filtered`.

        Returns:
            `log_normalizer [*batch]`, `log_filtered [*batch, T, K]` (`log p(z_t | x_1..t)`) and
            `log_evidence [*batch, T]` (`log p(x_t | x_1..t-1)`), nats.
        """
        return self._on_chain(chains.forward_filter, x)

    @per_batch
    def smooth(self, x, context):
        """What all the data says: `p(z_t | x)`, `[*batch, T, *event] -> [*batch, T, K]`; zeros for impossible data."""
        return self._on_chain(chains.smoother, x).marginals

    @per_batch
    def viterbi(self, x, context):
        """The most probable path, `chains.Decoded`.

        Returns:
            `path [*batch, T]` int32 (-1 throughout for impossible data) and `log_prob [*batch]`, `log p(path, x)`.
        """
        return self._on_chain(chains.viterbi, x)

    @per_event
    def sample_posterior(self, key, x):
        """A path drawn from `p(z | x)`, `[*batch, T, *event] -> [*batch, T]` int32; -1 for impossible data."""
        return self._on_chain(functools.partial(chains.sample_posterior, key), x[None])[0]

    @per_sample
    def sample(self, key, length):
        """Draws `[*shape, length, *event]`."""
        walk, within = jax.random.split(key)
        path = chains.sample_path(walk, self.log_initial, self.log_transition, length)
        draw = functools.partial(algebra.sample_component, components=self.emissions)
        return jax.vmap(lambda key, state: draw(key, index=state))(jax.random.split(within, length), path)

    def step_log_prob(self, x):
        """What `e_step` returns beside the statistics, `[N]`: `log_prob`, but for emissions that bound theirs."""
        return self._on_chain(chains.log_normalizer, x, algebra.component_step_log_prob)

    @weighted_events
    def e_step(self, x, weight):
        """`HMMStatistics` of sequences `[N, T, *event]`, and `log_prob [N]`."""
        posterior = self._on_chain(chains.smoother, x, algebra.component_step_log_prob)
        weight = weight.astype(posterior.marginals.dtype)
        share = posterior.marginals * weight[:, None, None]
        transition = jnp.sum(weight[:, None, None] * posterior.transition_counts, axis=0)
        emissions = _emission_statistics(self.emissions, _steps(x), _steps(share))
        return HMMStatistics(jnp.sum(share[:, 0], axis=0), transition, emissions), posterior.log_normalizer

    def m_step(self, statistics) -> HMM:
        """Weighted maximum likelihood of start, transitions and emissions."""
        return self.maximize(statistics)[0]

    def maximize(self, statistics):
        """`m_step`, and the number of states that are never left and of emissions that had to be repaired."""
        initial = _log_shares(statistics.initial, self.initial_logits)
        transition = _log_shares(statistics.transition, self.transition_logits)
        emissions, repaired = algebra.component_maximize(self.emissions, statistics.emissions)
        never_left = jnp.sum(~_alive(jnp.sum(statistics.transition, axis=-1)))
        return HMM(initial, transition, emissions), never_left.astype(jnp.int32) + repaired

    def features(self, x):
        """Sequences `[N, T, *event]` as the share of time in each state and each transition, `[N, K + K K]`.

        Lengths and phases do not matter to it: this is what clusters sequences for a mixture of hidden Markov models.
        """
        posterior = self._on_chain(chains.smoother, x)
        moves = posterior.transition_counts.reshape((x.shape[0], -1)) / max(x.shape[1] - 1, 1)
        return jnp.concatenate([jnp.mean(posterior.marginals, axis=1), moves], axis=1)


def _steps(x):
    """`[N, T, ...] -> [N T, ...]`."""
    return x.reshape((x.shape[0] * x.shape[1], *x.shape[2:]))


def _log_rows(name, value, shape):
    """Logarithms of probabilities of the given shape, which are checked."""
    called = "HMM.from_values(initial, transition, emissions)"
    value = floating(value, name=name)
    if value.shape != shape:
        raise ModelError(
            f"{name} does not fit the {shape[0]} emissions", called=called, expected=f"shape {list(shape)}",
            got=f"shape {list(value.shape)}", fix="one row, and one emission, per state",
        )  # fmt: skip
    total = value.sum(-1, keepdims=True)
    if concrete(total) and not ((value >= 0).all() and (jnp.abs(total - 1) < 1e-4).all()):
        raise ModelError(
            f"{name} holds no probabilities", called=called, expected="values from 0 to 1, rows that sum to one",
            got=f"smallest {value.min()}, sums from {total.min()} to {total.max()}",
            fix=f"{name} / {name}.sum(-1, keepdims=True)",
        )  # fmt: skip
    return jnp.log(value / total)


def _alive(weight):
    # below this total weight a ratio of counts is rounding noise
    return weight > 10 * jnp.finfo(weight.dtype).eps


def _log_shares(counts, logits):
    """Logarithms of shares of the counts along the last axis; -inf stays -inf, and a row of no mass stays as it is."""
    total = jnp.sum(counts, axis=-1, keepdims=True)
    shares = counts / jnp.where(_alive(total), total, 1)
    new = jnp.log(jnp.maximum(shares, jnp.finfo(counts.dtype).tiny)).astype(logits.dtype)
    return jnp.where(_alive(total) & (logits > -jnp.inf), new, logits)


def _emission_statistics(emissions, x, weight):
    """The emissions' statistics from time steps `[M, *event]` and weights `[M, K]`, summed block by block."""

    def part(rows, fresh):
        return algebra.component_e_step(emissions, rows(x), jnp.where(fresh[:, None], rows(weight), 0).T)

    return sum_over_chunks(part, x.shape[0], BLOCK)


@functools.partial(jax.jit, static_argnames=("k", "leaf"))
def _init(key, x, stickiness, k, leaf):
    cluster, whole = jax.random.split(key)
    steps = _steps(x)
    template = leaf(whole, steps)
    features = algebra.features(template, steps)
    _, label = kmeans(cluster, features, k)
    share = jax.nn.one_hot(label, k, dtype=features.dtype)
    # every cluster keeps a little of all the data, so that a cluster of one step is no point mass
    share = 0.95 * share + 0.05 / k
    emissions = algebra.repeat(template, k)
    emissions, _ = algebra.component_maximize(emissions, _emission_statistics(emissions, steps, share))
    leave = (1 - stickiness) / max(k - 1, 1)
    transition = jnp.where(jnp.eye(k, dtype=bool), stickiness if k > 1 else 1.0, leave)
    return HMM(jnp.zeros(k, features.dtype), jnp.log(transition).astype(features.dtype), emissions)
