"""Hidden Markov models with emissions of any kind; EM on them is Baum-Welch."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.compiled import compiled
from jaxgen.core.errors import JaxgenError, ModelError, ShapeError
from jaxgen.core.inputs import as_events, concrete, floating, probabilities
from jaxgen.core.methods import context_shape, per_batch, per_event, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.core.sequences import Joined, Sequences, padded
from jaxgen.core.value import ByValue
from jaxgen.ops import chains
from jaxgen.ops.chains import transitions
from jaxgen.ops.chunks import sum_over_chunks
from jaxgen.ops.stable import has_mass, log_normalize, softmax
from jaxgen.ops.starts import START_STEPS, cluster_shares

#: time steps whose emission statistics are summed at once: they stay in the cache, and a float32 sum keeps its digits
BLOCK = 4096
#: how far the M-step of a stationary chain goes from the old matrix to a better one: the best of these, of which the
#: last changes nothing, so that the objective never falls
LADDER = tuple(0.5**i for i in range(11)) + (0.0,)


class ChainStatistics(NamedTuple):
    """Expected counts of first states `[K]` and of transitions `[K, K]`."""

    initial: jax.Array
    transition: jax.Array


class HMMStatistics(NamedTuple):
    """The statistics of the chain, those of the emissions with a leading axis E, and the time spent in each, `[E]`."""

    chain: Any
    emissions: Any
    mass: jax.Array


class Forecast(NamedTuple):
    """What is to come: `log_states [horizon, K]`, `log p(z_(t+h) | x_1..t)` in nats."""

    log_states: jax.Array


@model
class MarkovChain:
    """A homogeneous Markov chain on K states, the default chain of a hidden Markov model.

    `log p(z) = log pi[z_1] + sum_t log A[z_(t-1), z_t]`

    It is a density of its own, of paths `[T]` of integers: `fit` on known paths counts.

    Args:
        initial_logits: `[K]`, up to a constant: `pi = softmax(initial_logits)`. Not looked at if `stationary`.
        transition_logits: `[K, K]`, rows (the state left) up to a constant.
        initial_prior, transition_prior: Dirichlet concentrations of `pi` and of the rows of `A`, or None for flat ones.
        stationary: the chain starts in its stationary distribution, `pi A = pi`.

    A logit of -inf is a start or transition that cannot be; training leaves it exactly so.

    The M-step repairs: the row of a state that is never left stays as it was; an entry that training drives to zero
    stops at the smallest normal number. A stationary chain has no closed M-step: the best of `LADDER` points
    between the old matrix and one uphill is taken, which never decreases the objective.

    Example:
        >>> chain = MarkovChain.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]])
        >>> round(float(chain.log_prob(jnp.array([0, 0, 1]))), 4)
        -3.1011
        >>> chain.sample(jax.random.key(0), (2,), length=5).shape
        (2, 5)
    """

    initial_logits: jax.Array
    transition_logits: jax.Array
    initial_prior: Any = fixed(None)
    transition_prior: Any = fixed(None)
    stationary: bool = static(False)

    event_shape = (None,)
    context_shape = None

    @classmethod
    def from_values(
        cls, initial, transition, *, initial_prior=None, transition_prior=None, stationary=False
    ) -> MarkovChain:
        """From probabilities `[K]` and `[K, K]`, exact zeros included; `initial` None is uniform.

        Raises:
            ModelError: rows that are no probabilities, or shapes that do not belong together.
        """
        k = np.shape(transition)[0] if np.ndim(transition) else 0
        initial = np.full(k, 1 / max(k, 1)) if initial is None else initial
        start, move = _log_rows("initial", initial, (k,)), _log_rows("transition", transition, (k, k))
        priors = (_prior("initial_prior", initial_prior, start), _prior("transition_prior", transition_prior, move))
        return cls(start, move, *priors, bool(stationary))

    @property
    def states(self) -> int:
        return self.transition_logits.shape[-1]

    @property
    def free_parameters(self) -> int:
        """Those that are not hard zeros; a row of n has n - 1."""
        free = lambda logits: int(np.sum(np.maximum(np.sum(np.asarray(logits) > -np.inf, axis=-1) - 1, 0)))  # noqa: E731
        if not concrete(self):
            return (0 if self.stationary else self.states - 1) + self.states * (self.states - 1)
        return free(self.transition_logits) + (0 if self.stationary else free(self.initial_logits))

    @property
    def log_transition(self) -> jax.Array:
        """`log A`, `[K, K]`, rows normalised."""
        return log_normalize(self.transition_logits)[0]

    @property
    def log_initial(self) -> jax.Array:
        """`log pi`, `[K]`."""
        return self._log_initial(self.log_transition)

    def _log_initial(self, log_transition):
        if not self.stationary:
            return log_normalize(self.initial_logits)[0]
        share = transitions.stationary(jnp.exp(log_transition))
        return jnp.where(share > 0, jnp.log(jnp.where(share > 0, share, 1)), -jnp.inf)

    def log_chain(self, context=None):
        """`log pi [K]` and `log A [K, K]`, as `ops.chains` takes them."""
        move = self.log_transition
        return self._log_initial(move), move

    def chain_statistics(self, initial, counts, weight, context=None):
        """Of sequences `[N]`: expected first states `[N, K]` and transitions `[N, K, K]`, weighted and summed."""
        total = jnp.tensordot(weight, counts.reshape(len(weight), -1), 1, precision="highest")
        first = jnp.matmul(weight, initial, precision="highest")
        return ChainStatistics(first, total.reshape(counts.shape[1:]))

    @per_batch
    def log_prob(self, x, context):
        """Nats, `[*batch, T] -> [*batch]`."""
        start, move = self.log_chain()
        first, moves = self._seen(x)
        seen = lambda count, log: jnp.sum(jnp.where(count > 0, count * jnp.where(count > 0, log, 0), 0), axis=-1)  # noqa: E731
        return seen(first, start) + seen(moves.reshape(len(first), -1), move.reshape(-1))

    def _seen(self, x):
        """Of paths: the first states as one-hot rows `[N, K]`, and the number of uses of each transition."""
        path, there = (x.x, x.valid) if isinstance(x, Sequences) else (x, jnp.ones(x.shape, bool))
        state = (path[..., None] == jnp.arange(self.states)) & there[..., None]
        state = state.astype(self.transition_logits.dtype)
        return state[:, 0], jnp.einsum("nti,ntj->nij", state[:, :-1], state[:, 1:], precision="highest")

    @per_sample
    def sample(self, key, length):
        """Paths `[*shape, length]`, int32."""
        start, move = self.log_chain()
        return chains.sample_path(key, start, move, length)

    def sample_states(self, key, length, context=None):
        """One path `[length]`."""
        start, move = self.log_chain()
        return chains.sample_path(key, start, move, length)

    @weighted_events
    def e_step(self, x, weight):
        """`ChainStatistics` of known paths, and `log_prob [N]`."""
        first, moves = self._seen(x)
        return self.chain_statistics(first, moves, weight), self.log_prob(x)

    def m_step(self, statistics) -> MarkovChain:
        """Weighted maximum likelihood, or the mode under the priors."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and the number of states that are never left."""
        counts, prior = statistics.transition, self.transition_prior
        move = transitions.log_shares(counts, self.transition_logits, prior)
        start = transitions.log_shares(statistics.initial, self.initial_logits, self.initial_prior)
        if self.stationary:
            start, move = self.initial_logits, self._climb(statistics)
        never_left = jnp.sum(~has_mass(jnp.sum(counts, axis=-1)))
        new = MarkovChain(start, move, self.initial_prior, prior, self.stationary)
        return new, never_left.astype(jnp.int32)

    def _climb(self, statistics):
        """The best of a ladder of matrices from a better one to the old, `[K, K]` logits.

        The objective is `sum_ij n_ij log A_ij + sum_i n_i log pi_i(A)`. With d the gradient of its second term in A,
        the shares of `n_ij + A_ij (d_ij - sum_j A_ij d_ij)` lie uphill of A, and are A itself at the maximum.
        """
        old, counts, prior = self.log_transition, statistics.transition, self.transition_prior

        def first(log):
            seen = statistics.initial > 0
            return jnp.sum(jnp.where(seen, statistics.initial * jnp.where(seen, self._log_initial(log), 0), 0))

        # in logits the gradient is A_ij (d_ij - sum_j A_ij d_ij) already
        slope = jax.grad(lambda logits: first(log_normalize(logits)[0]))(old)
        better = jnp.maximum(counts + jnp.where(jnp.isneginf(old), 0, slope), 0.05 * counts)
        new = log_normalize(transitions.log_shares(better, self.transition_logits, prior))[0]
        weight = counts if prior is None else counts + prior.astype(counts.dtype) - 1

        def at(share):
            mixed = (1 - share) * jnp.exp(old) + share * jnp.exp(new)
            log = jnp.where(jnp.isneginf(old), -jnp.inf, jnp.log(jnp.maximum(mixed, jnp.finfo(mixed.dtype).tiny)))
            terms = jnp.where(jnp.isneginf(log), 0, weight * jnp.where(jnp.isneginf(log), 0, log))
            return jnp.sum(terms) + first(log), log

        value, ladder = jax.vmap(at)(jnp.asarray(LADDER, old.dtype))
        return ladder[jnp.argmax(value)]

    def hold(self, statistics, held):
        """Held probabilities stay; the others of their row divide what is left."""
        return ChainStatistics(
            transitions.hold_shares(statistics.initial, self.initial_logits, held.initial_logits),
            transitions.hold_shares(statistics.transition, self.transition_logits, held.transition_logits),
        )

    def log_prior(self):
        """Log density of the Dirichlet priors, nats up to a constant."""
        start, move = self.log_chain()
        pairs = ((self.initial_prior, start), (self.transition_prior, move))
        terms = [jnp.sum(jnp.where(jnp.isneginf(log), 0, (p - 1) * jnp.where(jnp.isneginf(log), 0, log)))
                 for p, log in pairs if p is not None]  # fmt: skip
        return sum(terms, jnp.zeros((), move.dtype))

    def check_data(self, x) -> None:
        """Refuses paths through states that are not there with a ModelError."""
        path = padded(x)
        if concrete(path) and (np.min(path) < 0 or np.max(path) >= self.states):
            raise ModelError(
                "a path through states that are not there", called="MarkovChain.check_data(x)",
                expected=f"integers from 0 to {self.states - 1}", got=f"{np.min(path)} to {np.max(path)}",
            )  # fmt: skip


@model
class HMM:
    """A hidden Markov model: a chain of K states, each with its own density of what is seen.

    `log p(x) = log sum_z pi[z_1] p(x_1 | z_1) prod_t A[z_(t-1), z_t] p(x_t | z_t)`

    Args:
        chain: `MarkovChain`, or another with `log_chain`: `SemiMarkovChain`, `InputChain`.
        emissions: one model whose leaves carry a leading axis K, anything that has `log_prob`.
        tie: which emission each state has, a tuple of K ints, where states share them; None is one for each.
        backend: how `ops.chains` works, `chains.Sequential()`, `chains.Blocked()` or `chains.Associative()`; None
            chooses by shape and device.

    An event is a sequence `[T, *emission event]` of any length T; `Sequences` holds several of different lengths, and
    steps that were not seen. Likelihoods are exact; of a sequence that no path explains, -inf. Emissions and chains
    that take a context get it step by step, `[T, *context]`.

    With labels `[N, T]`, -1 where unknown, `EM` knows the states of some steps. A state of no mass is left to the
    emission's own rule of repair. The length of an event is free, so there is no `distribution()`: distrax has fixed
    event shapes only.

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

    chain: Any
    emissions: Any
    tie: tuple[int, ...] | None = static(None)
    backend: Any = static(None)

    @classmethod
    def init(
        cls, key, x, k: int, leaf: Any, *, stickiness: float = 0.9, initial=None, transition=None, initial_prior=None,
        transition_prior=None, stationary: bool = False, context=None,
    ) -> HMM:  # fmt: skip
        """A start from data: k-means splits the time steps of all sequences, each state emits one cluster.

        Args:
            key: typed key.
            x: sequences `[N, T, *event]`, or `Sequences`.
            k: number of states, 1 to the number of time steps.
            leaf: `(key, x [M, *event]) -> model` with an M-step, such as `Gaussian.init`; called once, on all steps;
                with a context `(key, x, context [M, *context]) -> model`.
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
        x = jax.tree.map(jnp.asarray, as_events(x, name="x", called=called, allow_nan=True))
        if len(x.shape) < 2:
            raise ShapeError(
                "HMM.init takes a batch of sequences", called=called, expected="x [N, T, *event]",
                got=f"shape {list(x.shape)}", fix="np.asarray(x)[None] for one sequence",
            )  # fmt: skip
        values, valid = _steps(x), _valid(x)
        steps = len(values) if valid is None or not concrete(valid) else int(valid.sum())
        if not 1 <= k <= steps or not 0 <= stickiness <= 1:
            raise ModelError(
                "these states do not fit the data", called=called, got=f"k={k}, stickiness={stickiness}",
                expected=f"1 to {steps} states, the number of time steps, and a stickiness from 0 to 1",
            )  # fmt: skip
        given = None if context is None else _init_context(context, x.shape[:2], called)
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
            start = cls(chain, _init_emissions(key, values, given, k, ByValue(leaf)), None, None)
            start.check_data(x)
            return start
        except (TypeError, ValueError) as error:
            if isinstance(error, JaxgenError) and not isinstance(error, ShapeError):
                raise
            # a table with more rows than columns is one sequence rather than sequences of numbers
            tall = len(x.shape) == 2 and x.shape[0] > x.shape[1]
            raise ShapeError(
                "the leaf makes no model of these events", called=called,
                got=f"x of shape {list(x.shape)}, and {type(error).__name__}: {getattr(error, 'message', error)}",
                expected=f"a leaf for events of shape {list(x.shape[2:])}, the axes after [N, T]",
                fix="np.asarray(x)[None] for one sequence" if tall else
                "np.asarray(x)[..., None] for events of one number, or a leaf for these events",
            ) from error  # fmt: skip

    @classmethod
    def from_values(cls, initial, transition, emissions, *, tie=None, backend=None, **chain: Any) -> HMM:
        """From probabilities `[K]` and `[K, K]`, exact zeros included, and emissions: one batch, or a sequence of K.

        Args:
            initial: None is uniform.
            tie, backend: as in the class.
            chain: `initial_prior`, `transition_prior`, `stationary`, as in `MarkovChain`.

        Raises:
            ModelError: rows that are no probabilities, or shapes that do not belong together.
        """
        walk = MarkovChain.from_values(initial, transition, **chain)
        return cls.from_chain(walk, emissions, tie=tie, backend=backend)

    @classmethod
    def from_chain(cls, chain, emissions, *, tie=None, backend=None) -> HMM:
        """From a chain and emissions: one batch, or a sequence.

        Raises:
            ModelError: another number of emissions than the states, or than `tie` names; contexts of two shapes.
        """
        called = "HMM.from_chain(chain, emissions, tie=tie)"
        emissions = algebra.batch_of(emissions, called)
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
    def from_mixture(cls, mixture, *, stickiness: float = 0.9, **chain: Any) -> HMM:
        """A start from a fitted mixture: its components emit, its weights are where the chain starts and goes to.

        Example:
            >>> import jaxgen as jg
            >>> mixture = jg.Mixture.from_components(jg.Bernoulli.from_probs([0.1, 0.8]), [0.25, 0.75])
            >>> HMM.from_mixture(mixture, stickiness=0.5).transition.round(4).tolist()
            [[0.625, 0.375], [0.125, 0.875]]
        """
        weight = jnp.exp(log_normalize(mixture.logits)[0])
        transition = stickiness * jnp.eye(len(weight), dtype=weight.dtype) + (1 - stickiness) * weight
        return cls(MarkovChain.from_values(weight, transition, **chain), mixture.components, None, None)

    @property
    def event_shape(self):
        return (None, *algebra.element(self.emissions).event_shape)

    @property
    def context_shape(self):
        own = [shape for shape in (context_shape(self.chain), self._emission_context) if shape is not None]
        return (None, *own[0]) if own else None

    @property
    def _emission_context(self):
        return context_shape(algebra.element(self.emissions))

    @property
    def latent_parts(self):
        return (self.emissions,)

    @property
    def missing(self) -> bool:
        """Whether NaN is an entry that was not seen: what the emissions say."""
        return algebra.accepts_missing(self.emissions)

    @property
    def joins(self) -> bool:
        """Whether an E-step takes rows of several sequences, `Joined`, and is faster for it: not as a tree."""
        return jax.default_backend() == "cpu" and not isinstance(self.backend, chains.Associative)

    @property
    def free_parameters(self) -> int:
        """Of the chain and of the emissions."""
        return algebra.free_parameters(self.chain) + algebra.component_free_parameters(self.emissions)

    def check_data(self, x) -> None:
        """Refuses data outside the support of the emissions with a DataError."""
        values, valid = _steps(x), _valid(x)
        if valid is not None and concrete(valid):
            values = values[np.asarray(valid).reshape(-1)]
        algebra.check_data(algebra.element(self.emissions), values)

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

    def permute(self, order) -> HMM:
        """The same model with its states in another order, `order[new] = old`; for chains that can be permuted."""
        own = getattr(type(self.chain), "permute", None)
        if own is not None:
            chain, order = own(self.chain, order), jnp.asarray(order)
        else:
            order = jnp.asarray(order)
            chain = jax.tree.map(lambda leaf: leaf[order][:, order] if leaf.ndim == 2 else leaf[order], self.chain)
        if self.tie is not None:
            return HMM(chain, self.emissions, tuple(self.tie[int(i)] for i in order), self.backend)
        return HMM(chain, algebra.take(self.emissions, order), None, self.backend)

    def _emitted(self, x, context, score=None):
        """Log-likelihoods `[N, T, K]` of every step in every state."""
        given = None if self._emission_context is None else _rows(context)
        seen = algebra.each_log_prob(self.emissions, _steps(x), given, score)
        seen = seen.reshape((*x.shape[:2], -1))
        return seen if self.tie is None else seen[..., np.array(self.tie)]

    def _arrays(self, x, context, score=None, label=None):
        """What `ops.chains` takes: arrays, and options."""
        seen = self._emitted(x, context, score)
        x = _sequences(x)
        if label is not None:
            other = (label >= 0)[..., None] & (label[..., None] != jnp.arange(seen.shape[-1]))
            seen = jnp.where(other, -jnp.inf, seen)
        options = {"length": x.length, "observed": x.observed} if isinstance(x, Sequences) else {}
        if isinstance(x, Joined):
            options["starts"] = x.starts
        return (*self.chain.log_chain(context), seen), options

    def _on_chain(self, function, x, context, *, backed=True, **options):
        """A function of `ops.chains` on sequences `[N, T, *event]`."""
        arrays, given = self._arrays(x, context)
        backend = {"backend": self.backend} if backed else {}
        return function(*arrays, **given, **backend, **options)

    @per_batch
    def log_prob(self, x, context):
        """Nats, `[*batch, T, *event] -> [*batch]`; its gradients are posterior expectations, finite at hard zeros."""
        return self._on_chain(chains.log_normalizer, x, context)

    @per_batch
    def filter(self, x, context):
        """What the past says, `chains.Filtered`.

        Returns:
            `log_normalizer [*batch]`, `log_filtered [*batch, T, K]` (`log p(z_t | x_1..t)`) and
            `log_evidence [*batch, T]` (`log p(x_t | x_1..t-1)`), nats.
        """
        return self._on_chain(chains.forward_filter, x, context)

    @per_batch
    def smooth(self, x, context):
        """What all the data says: `p(z_t | x)`, `[*batch, T, *event] -> [*batch, T, K]`; zeros for impossible data."""
        return self._on_chain(chains.smoother, x, context).marginals

    @per_batch
    def pairwise(self, x, context):
        """`p(z_t, z_(t+1) | x)` of every step, `[*batch, T, *event] -> [*batch, T - 1, K, K]`."""
        return self._on_chain(chains.pair_posteriors, x, context)

    @per_batch
    def smooth_lag(self, x, context, *, lag):
        """`p(z_t | x_1..t+lag)`, `[*batch, T, *event] -> [*batch, T, K]`: what can be said `lag` steps later."""
        return self._on_chain(chains.fixed_lag, x, context, lag=lag)

    @per_batch
    def viterbi(self, x, context, *, best=None):
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
    def predict(self, x, context):
        """The most probable state of each step by itself, `[*batch, T, *event] -> [*batch, T]` int32."""
        return self._on_chain(chains.decode_posterior, x, context)

    @per_batch
    def path_entropy(self, x, context):
        """`H(z | x)`, the entropy of the posterior over paths, nats, `[*batch, T, *event] -> [*batch]`.

        `H = log p(x) - E[log p(x, z)]`, whose expectation is one of marginals and counts.
        """
        (start, move, seen), given = self._arrays(x, context)
        posterior = chains.smoother(start, move, seen, **given, backend=self.backend)
        valid = _valid(x)
        marginals = posterior.marginals if valid is None else posterior.marginals * valid[..., None]
        weigh = lambda share, log: jnp.where(share > 0, share * jnp.where(share > 0, log, 0), 0)  # noqa: E731
        inner = jnp.sum(weigh(marginals, seen), axis=(1, 2)) + jnp.sum(weigh(posterior.marginals[:, 0], start), axis=-1)
        counts = weigh(posterior.transition_counts, move)
        return posterior.log_normalizer - inner - jnp.sum(counts.reshape(len(inner), -1), axis=-1)

    @per_event
    def sample_posterior(self, key, x, context):
        """A path drawn from `p(z | x)`, `[*batch, T, *event] -> [*batch, T]` int32; -1 for impossible data."""
        one = jax.tree.map(lambda leaf: leaf[None], x)
        arrays, given = self._arrays(one, None if context is None else context[None])
        start, move, seen = arrays
        given = {name: None if value is None else value[0] for name, value in given.items()}
        move = move[0] if move.ndim == 4 else move
        return chains.sample_posterior(key, start, move, seen[0], **given)

    @per_sample
    def sample(self, key, context, length):
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
            >>> coin = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], jg.Bernoulli.from_probs([0.1, 0.8]))
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

    def forecast(self, state, horizon: int) -> Forecast:
        """Where the chain will be 1 to `horizon` steps after a state of `filter_step`, or `log_filtered [K]`.

        What will be seen h steps ahead has the density `Mixture(forecast.log_states[h - 1], hmm.emissions)`.
        """
        log_filtered = getattr(state, "log_filtered", state)
        return Forecast(chains.forecast(log_filtered, self.log_transition, horizon))

    @compiled
    def step_log_prob(self, x):
        """What `e_step` returns beside the statistics, `[N]`: `log_prob`, but for emissions that bound theirs."""
        arrays, given = self._arrays(x, None, algebra.component_step_log_prob)
        return chains.log_normalizer(*arrays, **given, backend=self.backend)

    def prepare(self, x, limit):
        """`algebra.Events` with the columns of Gaussian emissions, kept where they fit into `limit` bytes."""
        fast = algebra.has_columns(self.emissions) and self._emission_context is None
        return algebra.with_columns(self.emissions, x, limit) if fast else x

    def ready(self, events) -> HMM:
        """The same model for prepared events."""
        steps = math.prod(events.shape[:2])
        return HMM(self.chain, self.emissions.ready(events.center, steps), self.tie, self.backend)

    @property
    def precise(self) -> jax.Array:
        """Of a model that is ready: whether it works without columns, which would lose digits."""
        return self.emissions.precise

    def precisely(self, precise) -> HMM:
        """A model that is ready, told to do so or not."""
        emissions = dataclasses.replace(self.emissions, precise=precise)
        return HMM(self.chain, emissions, self.tie, self.backend)

    def finish(self, statistics):
        """Of a model that is ready: its statistics, summed over chunks, as those of the model that it was."""
        return statistics._replace(emissions=self.emissions.finish(statistics.emissions))

    @weighted_events
    def e_step(self, x, weight, label, context):
        """`HMMStatistics` of sequences `[N, T, *event]`, and `log_prob [N]`; with labels `[N, T]`, of those paths."""
        arrays, given = self._arrays(x, context, algebra.component_step_log_prob, label)
        posterior = chains.smoother(*arrays, **given, backend=self.backend)
        weight = weight.astype(posterior.marginals.dtype)
        share = posterior.marginals * weight[:, None, None]
        first, rows = posterior.marginals[:, 0], _sequences(x)
        if isinstance(rows, Joined):
            first = jnp.sum(jnp.where(rows.starts[..., None], posterior.marginals, 0), axis=1)
        chain = self.chain.chain_statistics(first, posterior.transition_counts, weight, context)
        valid = _valid(x)
        share = share if valid is None else jnp.where(valid[..., None], share, 0)
        if self.tie is not None:
            member = jax.nn.one_hot(np.array(self.tie), algebra.count(self.emissions), dtype=share.dtype)
            share = jnp.matmul(share, member, precision="highest")
        given = None if self._emission_context is None else _rows(context)
        emissions = _emission_statistics(self.emissions, _steps(x), _rows(share), given)
        return HMMStatistics(chain, emissions, jnp.sum(share, axis=(0, 1))), posterior.log_normalizer

    def m_step(self, statistics) -> HMM:
        """Weighted maximum likelihood of start, transitions and emissions."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and the number of states that are never left and of emissions that had to be repaired."""
        chain, never_left = algebra.maximize(self.chain, statistics.chain)
        emissions, repaired = algebra.component_maximize(self.emissions, statistics.emissions, statistics.mass)
        return HMM(chain, emissions, self.tie, self.backend), never_left + repaired

    def hold(self, statistics, held):
        """Held parameters of the chain and of the emissions."""
        return HMMStatistics(
            algebra.hold(self.chain, statistics.chain, held.chain),
            algebra.component_hold(self.emissions, statistics.emissions, held.emissions),
            statistics.mass,
        )

    def rebase(self, old, statistics):
        """The statistics as those of this model."""
        return HMMStatistics(
            algebra.rebase(self.chain, old.chain, statistics.chain),
            algebra.component_rebase(self.emissions, old.emissions, statistics.emissions),
            statistics.mass,
        )

    def log_prior(self):
        """Log density of the priors of chain and emissions, nats up to a constant."""
        return algebra.log_prior(self.chain) + algebra.component_log_prior(self.emissions)

    @compiled
    def features(self, x):
        """Sequences `[N, T, *event]` as the share of time in each state and each transition, `[N, K + K K]`.

        Lengths and phases do not matter to it: this is what clusters sequences for a mixture of hidden Markov models.
        """
        posterior = self._on_chain(chains.smoother, x, None)
        time = jnp.sum(posterior.marginals, axis=(1, 2))[:, None]
        moves = posterior.transition_counts.reshape((len(time), -1)) / jnp.maximum(time - 1, 1)
        return jnp.concatenate([jnp.sum(posterior.marginals, axis=1) / jnp.maximum(time, 1), moves], axis=1)


def _sequences(x):
    """Sequences, also of prepared ones."""
    return x.x if isinstance(x, algebra.Events) else x


def _valid(x):
    """`[N, T]` bool, the steps that are there and were seen; None for all."""
    x = _sequences(x)
    return x.valid if isinstance(x, Sequences) else None


def _rows(x):
    """`[N, T, ...] -> [N T, ...]`."""
    return x.reshape((x.shape[0] * x.shape[1], *x.shape[2:]))


def _steps(x):
    """The steps of sequences, or of prepared ones, as events."""
    return x.steps() if isinstance(x, algebra.Events) else _rows(padded(x))


def _log_rows(name, value, shape):
    """Logarithms of probabilities of the given shape, which are checked."""
    called = "HMM.from_values(initial, transition, emissions)"
    return jnp.log(probabilities(value, name=name, called=called, shape=shape))


def _prior(name, value, like):
    """Dirichlet concentrations in the shape of what they are of, or None."""
    if value is None:
        return None
    value = floating(value, name=name).astype(like.dtype)
    if value.ndim > like.ndim or (concrete(value) and not (value > 0).all()):
        raise ModelError(
            f"{name} is no Dirichlet prior", called="MarkovChain.from_values(initial, transition)",
            expected=f"positive concentrations that broadcast to {list(like.shape)}", got=f"shape {list(value.shape)}",
        )  # fmt: skip
    return jnp.broadcast_to(value, like.shape)


def _emission_statistics(emissions, x, weight, context=None):
    """The emissions' statistics from time steps `[M, *event]` and weights `[M, K]`, summed block by block."""

    def part(rows, fresh):
        given = None if context is None else rows(context)
        weights = jnp.where(fresh[:, None], rows(weight), 0).T
        events = x.cut(rows) if isinstance(x, algebra.Events) else rows(x)
        return algebra.component_e_step(emissions, events, weights, given)

    return sum_over_chunks(part, x.shape[0], BLOCK)


def _init_context(context, axes, called):
    """Contexts of sequences `[N, T]` as those of their steps `[N T, *context]`."""
    context = jnp.asarray(as_events(context, name="context", called=called))
    if context.shape[:2] != axes:
        raise ShapeError(
            "the context does not fit the sequences", called=called, expected=f"[{axes[0]}, {axes[1]}, *context]",
            got=f"shape {list(context.shape)}",
        )  # fmt: skip
    return _rows(context)


@functools.partial(jax.jit, static_argnames=("k", "leaf"))
def _init_emissions(key, steps, context, k, leaf):
    cluster, whole = jax.random.split(key)
    template = leaf(whole, steps) if context is None else leaf(whole, steps, context)
    share = cluster_shares(cluster, template, steps, k).T
    mass = jnp.sum(share, axis=0)

    def step(_, emissions):
        statistics = _emission_statistics(emissions, steps, share, context)
        return algebra.component_maximize(emissions, statistics, mass)[0]

    return jax.lax.fori_loop(0, START_STEPS, step, algebra.repeat(template, k))
