"""Semi-Markov chains: states that last as long as a distribution of durations says, for hidden Markov models."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import concrete, floating, probabilities
from jaxgen.core.pytree import fixed, model
from jaxgen.ops import chains
from jaxgen.ops.chains import transitions
from jaxgen.ops.stable import has_mass, log_normalize, softmax


class SemiMarkovStatistics(NamedTuple):
    """Expected counts of first states `[S]`, of changes of state `[S, S]`, and of durations that began `[S, M]`."""

    initial: jax.Array
    transition: jax.Array
    duration: jax.Array


@model
class SemiMarkovChain:
    """A chain on S states that stay for an explicit duration, 1 to M steps: a segment draws its length as it begins.

    `log p(segments) = log pi[s_1] + sum_i log A[s_(i-1), s_i] + sum_i log dur[s_i, d_i]`

    Each segment is of another state than the one before. A sequence begins with a segment, and may end inside one: the
    last is as long as it is or longer (censored).

    It is a Markov chain on S M states (s, r), s with r steps to go, this one included, numbered `s * M + r - 1`; an
    `HMM` with it takes `tie=chain.tie`, so that each of the S emissions serves all r. `chain.segment(path)` reads
    paths of the S M states as those of S. A pass over T steps costs T (S M)^2 operations.

    Args:
        initial_logits: `[S]`, up to a constant.
        transition_logits: `[S, S]`, rows (the state left) up to a constant, -inf on the diagonal.
        duration_logits: `[S, M]`, rows up to a constant; column m - 1 is of m steps.
        initial_prior, transition_prior, duration_prior: Dirichlet concentrations of `pi` and of the rows of `A` and
            `dur`, or None for flat ones; never trained.

    A logit of -inf is a start, change or duration that cannot be; training leaves it exactly so. The M-step counts, in
    closed form. It repairs: rows of a state that is never left, or never entered, stay as they were.

    Source: Yu (2010), Hidden semi-Markov models, section 3.1 (explicit duration); Ferguson (1980), Variable duration
    models for speech, for the expanded chain.

    Example:
        >>> import jaxgen as jg
        >>> chain = SemiMarkovChain.from_values([1.0, 0.0], [[0, 1], [1, 0]], [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
        >>> chain.segment(chain.sample_states(jax.random.key(0), 5)).tolist()[:4]
        [0, 0, 0, 1]
        >>> hmm = jg.HMM.from_chain(chain, jg.Bernoulli.from_values([0.1, 0.8]), tie=chain.tie)
        >>> x = jnp.array([0, 0, 1, 1, 1])
        >>> chain.segment(hmm.viterbi(x).path).tolist()  # the first three belong together, whatever was seen
        [0, 0, 0, 1, 1]
    """

    initial_logits: jax.Array
    transition_logits: jax.Array
    duration_logits: jax.Array
    initial_prior: Any = fixed(default=None)
    transition_prior: Any = fixed(default=None)
    duration_prior: Any = fixed(default=None)

    @classmethod
    def from_values(
        cls, initial, transition, durations, *, initial_prior=None, transition_prior=None, duration_prior=None
    ) -> SemiMarkovChain:
        """From probabilities `[S]`, `[S, S]` with zeros on the diagonal, and `[S, M]`, exact zeros included.

        Args:
            initial: None is uniform.
            transition: None is uniform over the other states.
            initial_prior, transition_prior, duration_prior: broadcast to the shape of what they are of.

        Raises:
            ModelError: rows that are no probabilities, one state only, a change of a state to itself, priors that are
                not positive, shapes that do not belong together.
        """
        s = np.shape(durations)[0] if np.ndim(durations) == 2 else 0
        if s < 2:
            raise ModelError(
                "a semi-Markov chain changes between states", called=_CALLED,
                expected="durations [S, M] of two states or more", got=f"shape {list(np.shape(durations))}",
            )  # fmt: skip
        initial = np.full(s, 1 / s) if initial is None else initial
        transition = (1 - np.eye(s)) / (s - 1) if transition is None else transition
        logits = (
            _log_rows("initial", initial, (s,)), _log_rows("transition", transition, (s, s)),
            _log_rows("durations", durations, np.shape(durations)),
        )  # fmt: skip
        if concrete(logits[1]) and not np.isneginf(np.diagonal(logits[1])).all():
            raise ModelError(
                "a segment is followed by another state", called=_CALLED, expected="a diagonal of zeros in transition",
                got=f"diagonal {np.diagonal(transition)}", fix="durations say how long a state stays",
            )  # fmt: skip
        priors = (initial_prior, transition_prior, duration_prior)
        return cls(*logits, *(_prior(p, log) for p, log in zip(priors, logits, strict=True)))

    @property
    def states(self) -> int:
        """Those of the expanded chain, S M."""
        return self.duration_logits.shape[-2] * self.duration_logits.shape[-1]

    @property
    def tie(self) -> tuple[int, ...]:
        """Which of the S emissions each of the S M states has: `HMM.from_chain(chain, emissions, tie=chain.tie)`."""
        s, m = self.duration_logits.shape
        return tuple(int(i) for i in np.repeat(np.arange(s), m))

    @property
    def initial(self) -> jax.Array:
        """`pi`, `[S]`."""
        return softmax(self.initial_logits)

    @property
    def transition(self) -> jax.Array:
        """`A`, `[S, S]`, zeros on the diagonal."""
        return softmax(self.transition_logits)

    @property
    def durations(self) -> jax.Array:
        """`dur`, `[S, M]`: the probability of m steps in column m - 1."""
        return softmax(self.duration_logits)

    @property
    def free_parameters(self) -> int:
        """Those that are not hard zeros; a row of n has n - 1."""
        s, m = self.duration_logits.shape
        if not concrete(self):
            return (s - 1) + s * (s - 2) + s * (m - 1)
        rows = (self.initial_logits, self.transition_logits, self.duration_logits)
        return sum(int(np.sum(np.maximum(np.sum(np.asarray(a) > -np.inf, axis=-1) - 1, 0))) for a in rows)

    @property
    def log_initial(self) -> jax.Array:
        """The log-probabilities of the first state of the expanded chain, `[S M]`."""
        return self.log_chain()[0]

    @property
    def log_transition(self) -> jax.Array:
        """The log-probabilities of the transitions of the expanded chain, `[S M, S M]`."""
        return self.log_chain()[1]

    def segment(self, path) -> jax.Array:
        """States `[...]` of the expanded chain as the S states they belong to; -1 (padding, no path) stays."""
        return jnp.asarray(path) // self.duration_logits.shape[-1]

    def remaining(self, path) -> jax.Array:
        """Return the steps left in the segment at each step `[...]` of a path, this one included; 0 where it is -1."""
        path = jnp.asarray(path)
        return jnp.where(path < 0, 0, path % self.duration_logits.shape[-1] + 1)

    def log_chain(self, context=None):
        """`log pi [S M]` and `log A [S M, S M]`, as `ops.chains` takes them."""
        s, m = self.duration_logits.shape
        first, move, last = (log_normalize(a)[0] for a in _logits(self))
        start = (first[:, None] + last).reshape(-1)
        enter = move[:, None, :, None] + last  # [S, 1, S, M], from r = 1 only
        step = np.where(np.kron(np.eye(s), np.eye(m, k=-1)) > 0, 0.0, -np.inf).reshape(s, m, s, m)
        ends = np.arange(m)[None, :, None, None] == 0
        return start, jnp.where(ends, enter, jnp.asarray(step, move.dtype)).reshape(s * m, s * m)

    def chain_statistics(self, initial, counts, weight, context=None):
        """Return the statistics of segments from expected first states `[N, S M]` and transitions `[N, S M, S M]`."""
        s, m = self.duration_logits.shape
        first = jnp.matmul(weight, initial, precision="highest").reshape(s, m)
        total = jnp.tensordot(weight, counts.reshape(len(weight), -1), 1, precision="highest")
        enter = total.reshape(s, m, s, m)[:, 0]
        return SemiMarkovStatistics(
            jnp.sum(first, axis=1), jnp.sum(enter, axis=2), first + jnp.sum(enter, axis=0)
        )

    def m_step(self, statistics) -> SemiMarkovChain:
        """Weighted maximum likelihood, or the mode under the priors."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and the number of rows of `A` and `dur` that were never used."""
        priors = (self.initial_prior, self.transition_prior, self.duration_prior)
        rows = zip(statistics, _logits(self), priors, strict=True)
        first, move, stay = (transitions.log_shares(*row) for row in rows)
        unused = [jnp.sum(~has_mass(jnp.sum(counts, axis=-1))) for counts in statistics[1:]]
        return SemiMarkovChain(first, move, stay, *priors), (unused[0] + unused[1]).astype(jnp.int32)

    def freeze(self, statistics, frozen):
        """Held probabilities stay; the others of their row divide what is left."""
        rows = zip(statistics, _logits(self), _logits(frozen), strict=True)
        return SemiMarkovStatistics(*(transitions.freeze_shares(*row) for row in rows))

    def log_prior(self):
        """Log density of the Dirichlet priors, nats up to a constant."""
        total = jnp.zeros((), self.duration_logits.dtype)
        priors = (self.initial_prior, self.transition_prior, self.duration_prior)
        for prior, logits in zip(priors, _logits(self), strict=True):
            if prior is not None:
                log = log_normalize(logits)[0]
                total += jnp.sum(jnp.where(jnp.isneginf(log), 0, (prior - 1) * jnp.where(jnp.isneginf(log), 0, log)))
        return total

    def permute(self, order):
        """Not of the expanded states: a ModelError."""
        raise ModelError(
            "the expanded states of a SemiMarkovChain have one order", called="SemiMarkovChain.permute(order)",
            expected="no permutation", got=f"{order}", fix="make the chain from values in that order",
        )  # fmt: skip

    def sample_states(self, key, length, context=None):
        """One path `[length]` of the expanded chain."""
        start, move = self.log_chain()
        return chains.sample_path(key, start, move, length)


_CALLED = "SemiMarkovChain.from_values(initial, transition, durations)"


def _logits(chain):
    return chain.initial_logits, chain.transition_logits, chain.duration_logits


def _log_rows(name, value, shape):
    """Logarithms of probabilities of the given shape, which are checked."""
    return jnp.log(probabilities(value, name=name, called=_CALLED, shape=shape))


def _prior(value, like):
    """Dirichlet concentrations in the shape of what they are of, or None."""
    if value is None:
        return None
    value = floating(value, name="prior").astype(like.dtype)
    if value.ndim > like.ndim or (concrete(value) and not (value > 0).all()):
        raise ModelError(
            "that is no Dirichlet prior", called=_CALLED, got=f"shape {list(value.shape)}",
            expected=f"positive concentrations that broadcast to {list(like.shape)}",
        )  # fmt: skip
    return jnp.broadcast_to(value, like.shape)
