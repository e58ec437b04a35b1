"""Markov chains whose transitions depend on inputs: input-output hidden Markov models."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.inputs import as_array, concrete, floating, probabilities
from jaxgen.core.pytree import fixed, model
from jaxgen.ops import chains, linalg
from jaxgen.ops.chains import transitions
from jaxgen.ops.gaussians import matmul
from jaxgen.ops.stable import has_mass, log_normalize, softmax


class InputStatistics(NamedTuple):
    """The statistics that the M-step of an `InputChain` takes, with `v = [u - center, 1]`.

    Args:
        initial: expected first states, `[K]`.
        gradient: `sum_t w (counts_t[i, j] - n_t[i] A_t[i, j]) v_t`, `[K, K, C + 1]`, of the expected log-likelihood.
        inputs: `sum_t w n_t[i] v_t v_t^T`, `[K, C + 1, C + 1]`, n the expected visits; the last entry of each is
            their sum.
    """

    initial: jax.Array
    gradient: jax.Array
    inputs: jax.Array


@model
class InputChain:
    """A Markov chain on K states whose transitions are a multinomial logistic regression on inputs.

    `log A_t[i, :] = log_softmax(transition_logits[i] + coefficients[i] (u_t - center))`

    `u_t` drives the move into step t; the first input of a sequence is not looked at. It is the chain of an `HMM`, by
    `HMM.from_chain`, whose contexts `[*batch, T, C]` are the inputs.

    Args:
        initial_logits: `[K]`, up to a constant.
        transition_logits: `[K, K]`, rows (the state left) up to a constant.
        coefficients: `[K, K, C]`, per unit of u; of a row up to a constant vector.
        center: `[C]`, a point amid the inputs, never trained: inputs far from zero lose no digits to float32.
        spread: `[C]`, scales of the inputs, in whose inverse a gradient moves coefficients; never trained.

    A logit of -inf is a start or transition that cannot be; training leaves it exactly so.

    Each M-step takes one step, on a quadratic that touches the expected log-likelihood and is nowhere above it; it
    therefore never decreases the likelihood, and takes more steps than EM with a closed M-step. It repairs: the row of
    a state that is never left stays as it was; in directions in which the inputs that were seen in a state do not vary,
    its coefficients stay. Both count as repaired. Inputs that separate two transitions perfectly let them grow without
    end, ever slower.

    Source: Bengio and Frasconi (1995), An input output HMM architecture; Boehning (1992), Multinomial logistic
    regression algorithm, theorem 2: `diag(p) - p p^T <= (I - 1 1^T / m) / 2`, for m possible transitions.

    Example:
        >>> import jaxgen as jg
        >>> chain = InputChain.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], [[[0.0], [3.0]], [[0.0], [0.0]]])
        >>> (100 * chain.transition_given(jnp.array([[0.0], [1.0]]))).round()[:, 0].tolist()
        [[90.0, 10.0], [31.0, 69.0]]
        >>> hmm = jg.HMM.from_chain(chain, jg.Bernoulli.from_values([0.1, 0.8]))
        >>> hmm.sample(jax.random.key(0), (4,), context=jnp.zeros((6, 1)), length=6).shape
        (4, 6)
    """

    initial_logits: jax.Array
    transition_logits: jax.Array
    coefficients: jax.Array
    center: jax.Array = fixed()
    spread: jax.Array = fixed(default=1.0)

    @classmethod
    def from_values(cls, initial, transition_at_center, coefficients, *, center=None, spread=1.0) -> InputChain:
        """From probabilities `[K]` and, for inputs at the center, `[K, K]`, exact zeros included.

        Args:
            initial: None is uniform.
            coefficients: `[K, K, C]`; an int C is that many inputs with coefficients of zero.
            center: `[C]`; None is zero.
            spread: `[C]` or one number, scales of the inputs, for steps of a gradient.

        Raises:
            ModelError: rows that are no probabilities, or shapes that do not belong together.
        """
        k = np.shape(transition_at_center)[0] if np.ndim(transition_at_center) else 0
        initial = np.full(k, 1 / max(k, 1)) if initial is None else initial
        start = _log_rows("initial", initial, (k,))
        move = _log_rows("transition_at_center", transition_at_center, (k, k))
        if isinstance(coefficients, int) and coefficients > 0:
            coefficients = np.zeros((k, k, coefficients))
        coefficients = floating(coefficients, name="coefficients").astype(move.dtype)
        center = np.zeros(coefficients.shape[-1:]) if center is None else center
        center = floating(center, name="center").astype(move.dtype)
        if coefficients.shape != (k, k, *center.shape) or center.ndim != 1:
            raise ModelError(
                f"the coefficients do not fit the {k} states",
                called="InputChain.from_values(initial, transition_at_center, coefficients)",
                expected=f"coefficients [{k}, {k}, C] and center [C]",
                got=f"shapes {list(coefficients.shape)} and {list(center.shape)}",
                fix="coefficients = 1, for one input that is not used yet",
            )  # fmt: skip
        spread = jnp.broadcast_to(jnp.asarray(spread, move.dtype), center.shape)
        return cls(start, move, coefficients, center, spread)

    @property
    def states(self) -> int:
        return self.transition_logits.shape[-1]

    @property
    def context_shape(self) -> tuple[int, ...]:
        return self.coefficients.shape[-1:]

    @property
    def free_parameters(self) -> int:
        """Those that are not hard zeros; a row of m possible transitions has `(m - 1)(C + 1)`."""
        rows = lambda logits: np.maximum(np.sum(np.asarray(logits) > -np.inf, axis=-1) - 1, 0)  # noqa: E731
        first, moves = np.full(1, self.states - 1), np.full(self.states, self.states - 1)
        if concrete(self):
            first, moves = rows(self.initial_logits), rows(self.transition_logits)
        return int(np.sum(first) + np.sum(moves) * (self.coefficients.shape[-1] + 1))

    @property
    def log_initial(self) -> jax.Array:
        """`log pi`, `[K]`."""
        return log_normalize(self.initial_logits)[0]

    @property
    def initial(self) -> jax.Array:
        """`pi`, `[K]`, summing to one."""
        return softmax(self.initial_logits)

    @property
    def transition_at_center(self) -> jax.Array:
        """`A` for inputs at the center, `[K, K]`; for others `transition_given(u)`."""
        return softmax(self.transition_logits)

    @property
    def log_transition(self):
        """There is none without an input: a ModelError."""
        raise ModelError(
            "the transitions of an InputChain depend on its inputs", called="InputChain.log_transition",
            expected="an input", got="none", fix="chain.transition_given(u), for inputs u",
        )  # fmt: skip

    def transition_given(self, context) -> jax.Array:
        """`A`, `[*batch, K, K]`, for inputs `[*batch, C]`.

        Raises:
            ShapeError: inputs that do not end in C.
        """
        context = jnp.asarray(as_array(context, name="context", called="InputChain.transition_given(context)"))
        if context.shape[-1:] != self.context_shape:
            raise ShapeError(
                "these are no inputs of this chain", called="InputChain.transition_given(context)",
                expected=f"[*batch, {self.context_shape[0]}]", got=f"shape {list(context.shape)}",
            )  # fmt: skip
        return jnp.exp(self._log_transition(context))

    def _log_transition(self, context):
        """`[..., C] -> [..., K, K]`."""
        k, c = self.coefficients.shape[1:]
        pull = matmul(context - self.center, self.coefficients.reshape(-1, c).T)
        return log_normalize(self.transition_logits + pull.reshape(*context.shape[:-1], k, k))[0]

    def log_chain(self, context):
        """`log pi [K]` and `log A [..., T - 1, K, K]` for inputs `[..., T, C]`, as `ops.chains` takes them."""
        return self.log_initial, self._log_transition(context[..., 1:, :])

    def chain_statistics(self, initial, counts, weight, context):
        """`InputStatistics` of sequences `[N]`.

        Args:
            initial: expected first states, `[N, K]`.
            counts: expected transitions at each step, `[N, T - 1, K, K]`; zero where there is no step.
            weight: `[N]`.
            context: `[N, T, C]`.
        """
        k = self.states
        move = self._log_transition(context[:, 1:])
        counts = (counts * weight[:, None, None, None]).reshape(-1, k, k)
        visits = jnp.sum(counts, axis=-1)
        surprise = (counts - visits[..., None] * jnp.exp(move).reshape(-1, k, k)).reshape(-1, k * k)
        v = (context[:, 1:] - self.center).reshape(-1, self.coefficients.shape[-1])
        v = jnp.concatenate([v, jnp.ones((len(v), 1), v.dtype)], axis=1)
        gradient = matmul(surprise.T, v).reshape(k, k, -1)
        inputs = jax.lax.map(lambda n: matmul((v * n[:, None]).T, v), visits.T)
        return InputStatistics(matmul(weight, initial), gradient, inputs)

    def m_step(self, statistics) -> InputChain:
        """A step up the bound, and the shares of first states."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and the number of states that are never left, or whose inputs do not vary in some direction."""
        initial, gradient, inputs = statistics
        start = transitions.log_shares(initial, self.initial_logits)
        turn, known = jax.vmap(_climb)(gradient, inputs)
        alive = has_mass(inputs[:, -1, -1])
        turn = jnp.where(alive[:, None, None] & (self.transition_logits > -jnp.inf)[..., None], turn, 0)
        move = (self.transition_logits + turn[..., -1]).astype(self.transition_logits.dtype)
        coefficients = (self.coefficients + turn[..., :-1]).astype(self.coefficients.dtype)
        new = InputChain(start, move, coefficients, self.center, self.spread)
        return new, jnp.sum(~alive | ~known).astype(jnp.int32)

    def parameter_scales(self):
        """Coefficients move by one over the scale of their input."""
        return {"coefficients": 1 / self.spread[..., None, None, :]}

    def freeze(self, statistics, frozen):
        """Statistics whose M-step moves only what is free, to the best of the bound without its coupling of columns,
        `I / 2` in place of `(I - 1 1^T / m) / 2`: lower still, so that no step decreases the likelihood.
        """
        initial, gradient, inputs = statistics
        initial = transitions.freeze_shares(initial, self.initial_logits, frozen.initial_logits)
        free = ~jnp.concatenate([frozen.coefficients, frozen.transition_logits[..., None]], axis=-1)

        def one(gradient, inputs, free):
            system = jnp.where(free[:, None] & free, inputs, 0)
            solve, _ = linalg.inverse_of_sums(system, jnp.diagonal(system))
            return matmul(inputs, jnp.where(free, matmul(solve, gradient), 0))

        pulled = jax.vmap(jax.vmap(one, in_axes=(0, None, 0)))(gradient, inputs, free)
        touched = jnp.any(~free, axis=(1, 2), keepdims=True)
        return InputStatistics(initial, jnp.where(touched, pulled, gradient), inputs)

    def recentre(self, old, statistics):
        """The bound that `old` made, seen from this chain: its gradient here.

        Source: Mairal (2013), Stochastic majorization-minimization algorithms, for why to add bounds.
        """
        initial, gradient, inputs = statistics
        step = lambda new, old: jnp.where(jnp.isneginf(old), 0, new - jnp.where(jnp.isneginf(old), 0, old))  # noqa: E731
        moved = step(self.transition_logits, old.transition_logits)
        turn = jnp.concatenate([self.coefficients - old.coefficients, moved[..., None]], axis=-1)
        possible = (old.transition_logits > -jnp.inf)[..., None]
        mean = jnp.sum(jnp.where(possible, turn, 0), axis=1, keepdims=True) / jnp.sum(possible, axis=1, keepdims=True)
        turn = jnp.where(possible, turn - mean, 0)
        return InputStatistics(initial, gradient - 0.5 * jax.vmap(matmul)(turn, inputs), inputs)

    def permute(self, order) -> InputChain:
        """The same chain with its states in another order, `order[new] = old`."""
        order = jnp.asarray(order)
        turned = lambda a: a[order][:, order]  # noqa: E731
        moves = turned(self.transition_logits)
        return InputChain(self.initial_logits[order], moves, turned(self.coefficients), self.center, self.spread)

    def sample_states(self, key, length, context):
        """One path `[length]`, for inputs `[length, C]`."""
        start, move = self.log_chain(context)
        return chains.sample_path(key, start, move, length)


def _climb(gradient, inputs):
    """Return the change of one row's coefficients, `2 inputs^-1 gradient`, `[K, C + 1]`, and whether they are known."""
    total = inputs[-1, -1]
    total = jnp.where(has_mass(total), total, 1)
    mean = inputs[:-1, -1] / total
    spread = inputs[:-1, :-1] - total * jnp.outer(mean, mean)
    solve, known = linalg.inverse_of_sums(spread, jnp.diagonal(inputs)[:-1])
    level = gradient[:, -1]
    turn = matmul(gradient[:, :-1] - level[:, None] * mean, solve)
    at_center = level / total - matmul(turn, mean)
    return 2 * jnp.concatenate([turn, at_center[:, None]], axis=1), known


def _log_rows(name, value, shape):
    """Logarithms of probabilities of the given shape, which are checked."""
    called = "InputChain.from_values(initial, transition_at_center, coefficients)"
    return jnp.log(probabilities(value, name=name, called=called, shape=shape))
