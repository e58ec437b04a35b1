"""Hidden Markov models with emissions of any kind; EM on them is Baum-Welch."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, fast, latent
from jaxgen.core.compiled import compiled
from jaxgen.core.errors import JaxgenError, ModelError, ShapeError
from jaxgen.core.inputs import as_events, concrete
from jaxgen.core.methods import context_shape, per_batch, per_event, per_sample, weighted_events
from jaxgen.core.pytree import model, part, parts, static
from jaxgen.core.sequences import Joined, Sequences, opened, shown_to
from jaxgen.models.chains.emissions import (
    as_rows,
    contexts_of_steps,
    emission_statistics,
    refuse_leaf,
    start_emissions,
    steps_of,
    valid_steps,
)
from jaxgen.models.chains.forecasts import Forecast, Paths, draw_paths, forecast_steps
from jaxgen.models.chains.markov import MarkovChain
from jaxgen.models.latent.product import Product
from jaxgen.ops import chains
from jaxgen.ops.stable import log_normalize, softmax


class HMMStatistics(NamedTuple):
    """The statistics of the chain, those of the emissions with a leading axis E, and the time spent in each, `[E]`."""

    chain: Any
    emissions: Any
    mass: jax.Array


@model
class HMM:
    """A hidden Markov model: a chain of K states, each with its own density of what is seen.

    `log p(x) = log sum_z pi[z_1] p(x_1 | z_1) prod_t A[z_(t-1), z_t] p(x_t | z_t)`

    Args:
        chain: `MarkovChain`, or another with `log_chain`: `SemiMarkovChain`, `InputChain`.
        emissions: one model whose leaves carry a leading axis K, or `Several` kinds of them, anything that has
            `log_prob`, or an unbiased estimate of it (`iwae`).
        tie: which emission each state has, a tuple of K ints, where states share them; None is one for each.
        backend: how `ops.chains` works, `chains.Sequential()`, `chains.Blocked()` or `chains.Associative()`; None
            chooses by shape and device.

    An event is a sequence `[T, *emission event]` of any length T; `Sequences` holds several of different lengths, and
    steps that were not seen. Likelihoods are exact; of a sequence that no path explains, -inf. Emissions and chains
    that take a context get it step by step, `[T, *context]`.

    With labels `[N, T]`, -1 where unknown, `EM` and `Gradient` know the states of some steps. A state of no mass is
    left to the emission's own rule of repair. The length of an event is free, so there is no `distribution()`: distrax
    has fixed event shapes only.

    Source: Baum, Petrie, Soules and Weiss (1970); Rabiner (1989), A tutorial on hidden Markov models.

    Example:
        >>> import jaxgen as jg
        >>> weather = jg.HMM.from_values([0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]], jg.Bernoulli.from_values([0.1, 0.8]))
        >>> x = jnp.array([0, 0, 1, 0, 0])
        >>> round(float(weather.log_prob(x)), 4)
        -3.3725
        >>> weather.viterbi(x).path.tolist()
        [0, 0, 1, 0, 0]
        >>> weather.sample(jax.random.key(0), (3,), length=7).shape
        (3, 7)
    """

    chain: Any = part()
    emissions: Any = parts()
    tie: tuple[int, ...] | None = static(default=None)
    backend: Any = static(default=None)

    @classmethod
    def init(
        cls, key, x, k: int, leaf: Any = Product.init, *, stickiness: float = 0.9, initial=None, transition=None,
        initial_prior=None, transition_prior=None, stationary: bool = False, context=None,
    ) -> HMM:  # fmt: skip
        """A start from data: k-means splits the time steps of all sequences, each state emits one cluster.

        Args:
            key: typed key.
            x: sequences `[N, T, *event]`, or `Sequences`; those of a table are its `series()`.
            k: number of states, 1 to the number of time steps.
            leaf: `(key, x [M, *event]) -> model` with an M-step, such as `Gaussian.init`; called once, on all steps;
                with a context `(key, x, context [M, *context]) -> model`. Or a list of K such, a kind for each state,
                given the context where they have that parameter. `Product.init` has a density for each kind of column.
            stickiness: the probability of staying in a state; the rest is shared by the other states.
            initial, transition: probabilities `[K]` and `[K, K]` to start from instead; zeros in them stay.
            initial_prior, transition_prior, stationary: as in `MarkovChain`.
            context: `[N, T, *context]`, of emissions that take one.

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
        called = f"HMM.init(key, x, {k}, leaf, stickiness={stickiness})"
        x, known = opened(x)
        leaf = shown_to(leaf, known)
        x = jax.tree.map(jnp.asarray, as_events(x, name="x", called=called, allow_nan=True))
        if len(x.shape) < 2:
            raise ShapeError(
                "HMM.init takes a batch of sequences", called=called, expected="x [N, T, *event]",
                got=f"shape {list(x.shape)}", fix="np.asarray(x)[None] for one sequence",
            )  # fmt: skip
        values, valid = steps_of(x), valid_steps(x)
        steps = len(values) if valid is None or not concrete(valid) else int(valid.sum())
        if not 1 <= k <= steps or not 0 <= stickiness <= 1:
            raise ModelError(
                "these states do not fit the data", called=called, got=f"k={k}, stickiness={stickiness}",
                expected=f"1 to {steps} states, the number of time steps, and a stickiness from 0 to 1",
            )  # fmt: skip
        given = None if context is None else contexts_of_steps(context, x.shape[:2], called)
        if valid is not None and concrete(valid):
            seen = np.asarray(valid).reshape(-1)
            values, given = values[seen], None if given is None else given[seen]
        if transition is None:
            leave = (1 - stickiness) / max(k - 1, 1)
            transition = np.where(np.eye(k, dtype=bool), stickiness if k > 1 else 1.0, leave)
        chain = MarkovChain.from_values(
            initial, transition, initial_prior=initial_prior, transition_prior=transition_prior, stationary=stationary
        )
        try:
            start = cls(chain, start_emissions(key, values, given, k, leaf, called), None, None)
            latent.check_data(start, x)
            return start
        except (TypeError, ValueError) as error:
            if isinstance(error, JaxgenError) and not isinstance(error, ShapeError):
                raise
            refuse_leaf(x, error, called)

    @classmethod
    def from_values(
        cls, initial, transition, emissions, *, tie=None, backend=None, initial_prior=None, transition_prior=None,
        stationary: bool = False,
    ) -> HMM:  # fmt: skip
        """From probabilities `[K]` and `[K, K]`, exact zeros included, and emissions: one batch, or a sequence of K.

        Args:
            initial: None is uniform.
            tie, backend: as in the class; the others as in `MarkovChain`.

        Raises:
            ModelError: rows that are no probabilities, or shapes that do not belong together.
        """
        own = MarkovChain.from_values(initial, transition, initial_prior=initial_prior,
                                      transition_prior=transition_prior, stationary=stationary)  # fmt: skip
        return cls.from_chain(own, emissions, tie=tie, backend=backend)

    @classmethod
    def from_chain(cls, chain, emissions, *, tie=None, backend=None) -> HMM:
        """From a chain and emissions: one batch, or a sequence.

        Raises:
            ModelError: another number of emissions than the states, or than `tie` names; contexts of two shapes.
        """
        called = "HMM.from_chain(chain, emissions, tie=tie)"
        emissions = algebra.batch_of(emissions, called)
        latent.check_parts(emissions, called)
        tie, count = None if tie is None else tuple(int(i) for i in tie), algebra.count(emissions)
        fits = count == chain.states if tie is None else len(tie) == chain.states and set(tie) == set(range(count))
        if not fits:
            raise ModelError(
                "the emissions do not fit the states", called=called, got=f"{count} emissions, tie={tie}",
                expected=f"{chain.states} emissions, or a tie of {chain.states} numbers that names each emission",
            )  # fmt: skip
        given = (context_shape(chain), context_shape(algebra.element(emissions)))
        if None not in given and given[0] != given[1]:
            raise ModelError(
                "chain and emissions take different contexts", called=called, got=f"{given[0]} and {given[1]}",
                expected="one context of each step, for both", fix="give both all inputs, with weights of zero",
            )  # fmt: skip
        return cls(chain, emissions, tie, backend)

    @classmethod
    def from_mixture(cls, mixture, *, stickiness=0.9, initial_prior=None, transition_prior=None, stationary=False):
        """A start from a fitted mixture: its components emit, its weights are where the chain starts and goes to.

        Example:
            >>> import jaxgen as jg
            >>> mixture = jg.Mixture.from_components(jg.Bernoulli.from_values([0.1, 0.8]), [0.25, 0.75])
            >>> HMM.from_mixture(mixture, stickiness=0.5).transition.round(4).tolist()
            [[0.625, 0.375], [0.125, 0.875]]
        """
        weight = jnp.exp(log_normalize(mixture.logits)[0])
        transition = stickiness * jnp.eye(len(weight), dtype=weight.dtype) + (1 - stickiness) * weight
        return cls.from_values(weight, transition, mixture.components, initial_prior=initial_prior,
                               transition_prior=transition_prior, stationary=stationary)  # fmt: skip

    event_shape = property(lambda self: (None, *algebra.element(self.emissions).event_shape))
    initial_prior = property(lambda self: self.chain.initial_prior, doc="That of the chain, `[K]`, or None.")
    transition_prior = property(lambda self: self.chain.transition_prior, doc="That of the chain, `[K, K]`, or None.")
    stationary = property(lambda self: self.chain.stationary, doc="True if the chain starts in its stationary state.")
    _emission_context = property(lambda self: context_shape(algebra.element(self.emissions)))

    @property
    def context_shape(self):
        own = [shape for shape in (context_shape(self.chain), self._emission_context) if shape is not None]
        return (None, *own[0]) if own else None

    @property
    def joins(self) -> bool:
        """True if an E-step is faster on rows of many sequences, `Joined`: on a CPU, unless the backend is a tree."""
        return jax.default_backend() == "cpu" and not isinstance(self.backend, chains.Associative)

    def check_data(self, x) -> None:
        """Refuses data outside the support of the emissions with a DataError."""
        values, valid = steps_of(x), valid_steps(x)
        if valid is not None and concrete(valid):
            values = values[np.asarray(valid).reshape(-1)]
        latent.check_data(algebra.element(self.emissions), values)

    def check_label(self, label) -> None:
        """Refuses labels of states that are not there with a ModelError."""
        if np.ndim(label) != 2 or (concrete(label) and np.max(label) >= self.chain.states):
            raise ModelError(
                "labels do not fit the states", called="HMM.check_label(label)", got=f"shape {list(np.shape(label))}, "
                f"largest {np.max(label)}", expected=f"[N, T], -1 or 0 to {self.chain.states - 1}",
            )  # fmt: skip

    @property
    def log_initial(self) -> jax.Array:
        """`log pi`, `[K]`."""
        return self.chain.log_initial

    @property
    def log_transition(self) -> jax.Array:
        """`log A`, `[K, K]`, rows normalised."""
        return self.chain.log_transition

    @property
    def initial(self) -> jax.Array:
        """`pi`, `[K]`, summing to one."""
        return softmax(self.log_initial)

    @property
    def transition(self) -> jax.Array:
        """`A`, `[K, K]`: the probability of going from the row's to the column's state."""
        return softmax(self.log_transition)

    @property
    def classes(self):
        """The emission of each state, which several may share."""
        return self.emissions if self.tie is None else algebra.take(self.emissions, np.array(self.tie))

    def permute(self, order) -> HMM:
        """The same model with its states in another order, `order[new] = old`."""
        chain = self.chain.permute(order)
        if self.tie is not None:
            return HMM(chain, self.emissions, tuple(self.tie[int(i)] for i in order), self.backend)
        return HMM(chain, algebra.take(self.emissions, jnp.asarray(order)), None, self.backend)

    def _emitted(self, x, context, score=None):
        """Log-likelihoods `[N, T, K]` of every step in every state."""
        given = None if self._emission_context is None else as_rows(context)
        return self._by_state(fast.each_log_prob(self.emissions, steps_of(x), given, score), x)

    def _by_state(self, seen, x):
        """Return the scores of steps under each emission, `[N T, E]`, as scores in each state, `[N, T, K]`."""
        seen = seen.reshape((*x.shape[:2], -1))
        return seen if self.tie is None else seen[..., np.array(self.tie)]

    def _arrays(self, x, context, score=None, label=None):
        """Return the arguments of the functions of `ops.chains`: arrays, and options."""
        return self._on_states(_labelled(self._emitted(x, context, score), label), x, context)

    def _on_states(self, seen, x, context):
        x = fast.plain(x)
        options = {"length": x.length, "observed": x.observed} if isinstance(x, Sequences) else {}
        if isinstance(x, Joined):
            options["starts"] = x.starts
        return (*self.chain.log_chain(context), seen), options

    def _on_chain(self, function, x, context, *, backed=True, label=None, **options):
        """A function of `ops.chains` on sequences `[N, T, *event]`."""
        arrays, given = self._arrays(x, context, label=label)
        backend = {"backend": self.backend} if backed else {}
        return function(*arrays, **given, **backend, **options)

    @per_batch
    def log_prob(self, x, *, context=None, label=None) -> jax.Array:
        """Nats, `[*batch, T, *event] -> [*batch]`; its gradients are posterior expectations, finite at hard zeros.

        With labels `[*batch, T]` it is `log p(x, states)`, where they are not -1.
        """
        return self._on_chain(chains.log_normalizer, x, context, label=label)

    @per_batch
    def elbo(self, key, x, *, context=None, label=None) -> jax.Array:
        """A lower bound in the mean, of emissions that have one: `iwae` of one draw, nats, `[*batch]`."""
        return self._estimate(key, x, context, 1, label)

    @per_batch
    def iwae(self, key, x, *, context=None, label=None, samples=50) -> jax.Array:
        """The logarithm of an unbiased estimate of p(x), nats, `[*batch, T, *event] -> [*batch]`.

        Each step's emission densities are estimated by draws of their own, so that the sum over paths of their products
        has the mean p(x).
        """
        return self._estimate(key, x, context, samples, label)

    def _estimate(self, key, x, context, samples, label):
        # all steps at once: one key for several blocks would make their draws depend on each other
        given = None if self._emission_context is None else as_rows(context)
        seen = latent.component_estimate(self.emissions, key, steps_of(x), given, samples)
        arrays, options = self._on_states(_labelled(self._by_state(seen.T, x), label), x, context)
        return chains.log_normalizer(*arrays, **options, backend=self.backend)

    @per_batch
    def filter(self, x, *, context=None) -> chains.Filtered:
        """Return the state probabilities given the data up to each time, `chains.Filtered`.

        Returns:
            `log_normalizer [*batch]`, `log_filtered [*batch, T, K]` (`log p(z_t | x_1..t)`) and
            `log_evidence [*batch, T]` (`log p(x_t | x_1..t-1)`), nats.
        """
        return self._on_chain(chains.forward_filter, x, context)

    @per_batch
    def smooth(self, x, *, context=None) -> jax.Array:
        """Return `p(z_t | x)` given all data, `[*batch, T, *event] -> [*batch, T, K]`; zeros for impossible data."""
        return self._on_chain(chains.smoother, x, context).marginals

    @per_batch
    def pairwise(self, x, *, context=None) -> jax.Array:
        """`p(z_t, z_(t+1) | x)` of every step, `[*batch, T, *event] -> [*batch, T - 1, K, K]`."""
        return self._on_chain(chains.pair_posteriors, x, context)

    @per_batch
    def smooth_lag(self, x, *, lag, context=None) -> jax.Array:
        """`p(z_t | x_1..t+lag)`, `[*batch, T, *event] -> [*batch, T, K]`: what can be said `lag` steps later."""
        return self._on_chain(chains.fixed_lag, x, context, lag=lag)

    @per_batch
    def viterbi(self, x, *, context=None, best=None) -> chains.Decoded:
        """The most probable path, `chains.Decoded`.

        Args:
            best: so many of the most probable paths instead; the results get an axis of that length after `*batch`.

        Returns:
            `path [*batch, T]` int32 (-1 throughout for impossible data) and `log_prob [*batch]`, `log p(path, x)`.
        """
        if best is None:
            return self._on_chain(chains.viterbi, x, context, backed=False)
        return self._on_chain(chains.viterbi_best, x, context, backed=False, best=best)

    @per_batch
    def predict(self, x, *, context=None) -> jax.Array:
        """The most probable state of each step by itself, `[*batch, T, *event] -> [*batch, T]` int32."""
        return self._on_chain(chains.decode_posterior, x, context)

    @per_batch
    def path_entropy(self, x, *, context=None) -> jax.Array:
        """`H(z | x)`, the entropy of the posterior over paths, nats, `[*batch, T, *event] -> [*batch]`.

        `H = log p(x) - E[log p(x, z)]`, whose expectation is one of marginals and counts.
        """
        (start, move, seen), given = self._arrays(x, context)
        posterior = chains.smoother(start, move, seen, **given, backend=self.backend)
        valid = valid_steps(x)
        marginals = posterior.marginals if valid is None else posterior.marginals * valid[..., None]
        weigh = lambda share, log: jnp.where(share > 0, share * jnp.where(share > 0, log, 0), 0)  # noqa: E731
        inner = jnp.sum(weigh(marginals, seen), axis=(1, 2)) + jnp.sum(weigh(posterior.marginals[:, 0], start), axis=-1)
        counts = weigh(posterior.transition_counts, move)
        return posterior.log_normalizer - inner - jnp.sum(counts.reshape(len(inner), -1), axis=-1)

    @per_event
    def sample_posterior(self, key, x, *, context=None) -> jax.Array:
        """A path drawn from `p(z | x)`, `[*batch, T, *event] -> [*batch, T]` int32; -1 for impossible data."""
        one = jax.tree.map(lambda leaf: leaf[None], x)
        arrays, given = self._arrays(one, None if context is None else context[None])
        start, move, seen = arrays
        given = {name: None if value is None else value[0] for name, value in given.items()}
        move = move[0] if move.ndim == 4 else move
        return chains.sample_posterior(key, start, move, seen[0], **given)

    @per_sample
    def sample(self, key, shape=(), *, context=None, length=None) -> jax.Array:
        """Draws `[*shape, length, *event]`; with a context `[length, *context]`."""
        walk, within = jax.random.split(key)
        path = self.chain.sample_states(walk, length, context)
        path = path if self.tie is None else jnp.asarray(self.tie)[path]
        given = None if self._emission_context is None else context

        def draw(key, state, context):
            return algebra.sample_component(key, self.emissions, state, context=context)

        axes = (0, 0, None if given is None else 0)
        return jax.vmap(draw, in_axes=axes)(jax.random.split(within, length), path, given)

    @jax.jit
    def filter_step(self, state, y, context=None):
        """The state after one more step `y [*event]` was seen: `log_filtered [K]`, `log_normalizer []`.

        Before the first step the state is None. A model with a context gets that of the step.

        Example:
            >>> import jaxgen as jg
            >>> coin = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], jg.Bernoulli.from_values([0.1, 0.8]))
            >>> state = None
            >>> for y in (0, 0, 1):
            ...     state = coin.filter_step(state, y)
            >>> round(float(state.log_normalizer - coin.log_prob(jnp.array([0, 0, 1]))), 5)
            0.0
        """
        given = None if context is None else jnp.asarray(context)[None, None]
        seen = self._emitted(jnp.asarray(y)[None, None], given)[0, 0]
        # of two equal steps, so that a chain with inputs has one transition
        start, move = self.chain.log_chain(None if given is None else jnp.repeat(given, 2, axis=1))
        if state is None:
            return chains.start_filter(start, seen)
        return chains.filter_step(state, seen, move if move.ndim == 2 else move[0, 0])

    def forecast(self, state, horizon: int, *, context=None) -> Forecast:
        """Return the densities of the `horizon` steps after a state, with quantiles, intervals and means.

        From `filter(x)` of one sequence, what `filter_step` returned, or `log_filtered [K]`; the context is that of the
        steps to come, `[horizon, *context]`.
        """
        return forecast_steps(self, state, horizon, context)

    def sample_paths(self, key, state, horizon: int, shape=(), *, context=None, past=None) -> Paths:
        """Draw the `horizon` steps after a state jointly: `states [*shape, horizon]`, `x [*shape, horizon, *event]`.

        Where the context of the emissions is what was seen before (`jaxgen.lagged`), `past [lags, D]` are the last
        steps, the latest last, and a path goes on from its own draws.
        """
        return draw_paths(self, key, state, horizon, shape, context, past)

    @compiled
    def step_log_prob(self, x):
        """Return the `[N]` nats that `e_step` gives beside the statistics: `log_prob`, or the emissions' bound."""
        arrays, given = self._arrays(x, None, algebra.component_step_log_prob)
        return chains.log_normalizer(*arrays, **given, backend=self.backend)

    @weighted_events
    def e_step(self, x, weight=None, *, label=None, context=None):
        """`HMMStatistics` of sequences `[N, T, *event]`, and `log_prob [N]`; with labels `[N, T]`, of those paths."""
        arrays, given = self._arrays(x, context, algebra.component_step_log_prob, label)
        posterior = chains.smoother(*arrays, **given, backend=self.backend)
        weight = weight.astype(posterior.marginals.dtype)
        share = posterior.marginals * weight[:, None, None]
        first, rows = posterior.marginals[:, 0], fast.plain(x)
        if isinstance(rows, Joined):
            first = jnp.sum(jnp.where(rows.starts[..., None], posterior.marginals, 0), axis=1)
        chain = self.chain.chain_statistics(first, posterior.transition_counts, weight, context)
        valid = valid_steps(x)
        share = share if valid is None else jnp.where(valid[..., None], share, 0)
        if self.tie is not None:
            member = jax.nn.one_hot(np.array(self.tie), algebra.count(self.emissions), dtype=share.dtype)
            share = jnp.matmul(share, member, precision="highest")
        given = None if self._emission_context is None else as_rows(context)
        emissions = emission_statistics(self.emissions, steps_of(x), as_rows(share), given)
        return HMMStatistics(chain, emissions, jnp.sum(share, axis=(0, 1))), posterior.log_normalizer

    def m_step(self, statistics) -> HMM:
        """Weighted maximum likelihood of start, transitions and emissions."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and the number of states that are never left and of emissions that had to be repaired."""
        chain, never_left = latent.maximize(self.chain, statistics.chain)
        emissions, repaired = latent.component_maximize(self.emissions, statistics.emissions, statistics.mass)
        return HMM(chain, emissions, self.tie, self.backend), never_left + repaired

    @compiled
    def features(self, x):
        """Sequences `[N, T, *event]` as the share of time in each state and each transition, `[N, K + K K]`.

        Lengths and phases do not matter to it: this is what clusters sequences for a mixture of hidden Markov models.
        """
        posterior = self._on_chain(chains.smoother, x, None)
        time = jnp.sum(posterior.marginals, axis=(1, 2))[:, None]
        moves = posterior.transition_counts.reshape((len(time), -1)) / jnp.maximum(time - 1, 1)
        return jnp.concatenate([jnp.sum(posterior.marginals, axis=1) / jnp.maximum(time, 1), moves], axis=1)


def _labelled(seen, label):
    """Scores of steps in each state `[N, T, K]`, -inf in all others where a step's state is known, `[N, T]`."""
    return seen if label is None else jnp.moveaxis(algebra.labelled(jnp.moveaxis(seen, -1, 0), label), 0, -1)
