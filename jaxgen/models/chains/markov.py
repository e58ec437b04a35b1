"""Markov chains on K states: the chain of a hidden Markov model, and a density of paths."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import concrete, floating, probabilities
from jaxgen.core.methods import per_batch, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.core.sequences import Sequences, padded
from jaxgen.ops import chains
from jaxgen.ops.chains import transitions
from jaxgen.ops.stable import has_mass, log_normalize, softmax

#: how far the M-step of a stationary chain goes from the old matrix to a better one: the best of these, of which the
#: last changes nothing, so that the objective never falls
LADDER = tuple(0.5**i for i in range(11)) + (0.0,)


class ChainStatistics(NamedTuple):
    """Expected counts of first states `[K]` and of transitions `[K, K]`."""

    initial: jax.Array
    transition: jax.Array


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
    initial_prior: Any = fixed(default=None)
    transition_prior: Any = fixed(default=None)
    stationary: bool = static(default=False)

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

    @property
    def initial(self) -> jax.Array:
        """`pi`, `[K]`, summing to one."""
        return softmax(self.log_initial)

    @property
    def transition(self) -> jax.Array:
        """`A`, `[K, K]`: the probability of going from the row's to the column's state."""
        return softmax(self.transition_logits)

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
        """Return the weighted sums over N sequences of expected first states `[N, K]` and transitions `[N, K, K]`."""
        total = jnp.tensordot(weight, counts.reshape(len(weight), -1), 1, precision="highest")
        first = jnp.matmul(weight, initial, precision="highest")
        return ChainStatistics(first, total.reshape(counts.shape[1:]))

    @per_batch
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, T] -> [*batch]`."""
        start, move = self.log_chain()
        first, moves = self._seen(x)
        seen = lambda count, log: jnp.sum(jnp.where(count > 0, count * jnp.where(count > 0, log, 0), 0), axis=-1)  # noqa: E731
        return seen(first, start) + seen(moves.reshape(len(first), -1), move.reshape(-1))

    def _seen(self, x):
        """Return the first states of paths as one-hot rows, `[N, K]`, and the uses of each transition, `[N, K, K]`."""
        path, there = (x.x, x.valid) if isinstance(x, Sequences) else (x, jnp.ones(x.shape, bool))
        state = (path[..., None] == jnp.arange(self.states)) & there[..., None]
        state = state.astype(self.transition_logits.dtype)
        return state[:, 0], jnp.einsum("nti,ntj->nij", state[:, :-1], state[:, 1:], precision="highest")

    @per_sample
    def sample(self, key, shape=(), *, context=None, length=None) -> jax.Array:
        """Paths `[*shape, length]`, int32."""
        start, move = self.log_chain()
        return chains.sample_path(key, start, move, length)

    def sample_states(self, key, length, context=None):
        """One path `[length]`."""
        start, move = self.log_chain()
        return chains.sample_path(key, start, move, length)

    def permute(self, order) -> MarkovChain:
        """The same chain with its states in another order, `order[new] = old`."""
        order = jnp.asarray(order)
        return jax.tree.map(lambda leaf: leaf[order][:, order] if leaf.ndim == 2 else leaf[order], self)

    @weighted_events
    def e_step(self, x, weight=None):
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

    def freeze(self, statistics, frozen):
        """Held probabilities stay; the others of their row divide what is left."""
        return ChainStatistics(
            transitions.freeze_shares(statistics.initial, self.initial_logits, frozen.initial_logits),
            transitions.freeze_shares(statistics.transition, self.transition_logits, frozen.transition_logits),
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


def _log_rows(name, value, shape):
    """Logarithms of probabilities of the given shape, which are checked."""
    called = "MarkovChain.from_values(initial, transition)"
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
