"""The steps of sequences as events, and the emissions of a hidden Markov model on them."""

from __future__ import annotations

from typing import NoReturn

import jax
import jax.numpy as jnp

from jaxgen.core import algebra, fast, latent
from jaxgen.core.compiled import compiled_once
from jaxgen.core.errors import JaxgenError, ModelError, ShapeError
from jaxgen.core.inputs import as_events, concrete
from jaxgen.core.sequences import Sequences, padded
from jaxgen.core.value import ByValue
from jaxgen.ops.chunks import sum_over_chunks
from jaxgen.ops.stable import logsumexp
from jaxgen.ops.starts import START_STEPS, check_trains_by_em, cluster_shares, start_of_kinds

#: time steps whose emission statistics are summed at once: they stay in the cache, and a float32 sum keeps its digits
BLOCK = 4096
#: what float32 may leave of the logarithm of a sum of probabilities that is one, after thousands of steps
SUMS_TO_ONE = 1e-3


def valid_steps(x):
    """Return `[N, T]` bool, the steps that are there and were seen; None for all."""
    x = fast.plain(x)
    return x.valid if isinstance(x, Sequences) else None


def as_rows(x):
    """Return steps of sequences as rows, `[N, T, ...] -> [N T, ...]`."""
    return x.reshape((x.shape[0] * x.shape[1], *x.shape[2:]))


def steps_of(x):
    """Return the steps of sequences, or of prepared ones, as events."""
    return x.steps() if isinstance(x, fast.Events) else as_rows(padded(x))


def emission_statistics(emissions, x, weight, context=None):
    """Return the emissions' statistics from time steps `[M, *event]` and weights `[M, K]`, summed block by block."""

    def part(rows, fresh):
        given = None if context is None else rows(context)
        weights = jnp.where(fresh[:, None], rows(weight), 0).T
        events = x.cut(rows) if isinstance(x, fast.Events) else rows(x)
        return algebra.component_e_step(emissions, events, weights, given)

    return sum_over_chunks(part, x.shape[0], BLOCK)


def contexts_of_steps(context, axes, called):
    """Return contexts of sequences `[N, T]` as those of their steps `[N T, *context]`."""
    context = jnp.asarray(as_events(context, name="context", called=called))
    if context.shape[:2] != axes:
        raise ShapeError(
            "the context does not fit the sequences", called=called, expected=f"[{axes[0]}, {axes[1]}, *context]",
            got=f"shape {list(context.shape)}",
        )  # fmt: skip
    return as_rows(context)


def start_emissions(key, steps, context, k, leaf, called):
    """Return the emissions of a start: of one kind, or with a leaf for each state."""
    if not isinstance(leaf, (list, tuple)):
        return _init_emissions(key, steps, context, k, ByValue(leaf))
    if len(leaf) != k:
        raise ModelError(
            "leaves of several kinds start from all events", called=called, got=f"{len(leaf)} leaves",
            expected=f"{k} leaves, one for each state",
            fix="jaxgen.HMM.from_values(initial, transition, [model, other]) from models of your own",
        )  # fmt: skip
    return start_of_kinds(key, steps, leaf, context)


def refuse_leaf(x, error, called) -> NoReturn:
    """Raise the error of a leaf that makes no model of the steps of sequences `[N, T, *event]`."""
    # a table with more rows than columns is one sequence rather than sequences of numbers
    tall = len(x.shape) == 2 and x.shape[0] > x.shape[1]
    said = error.message if isinstance(error, JaxgenError) else error
    raise ShapeError(
        "the leaf makes no model of these events", called=called,
        got=f"x of shape {list(x.shape)}, and {type(error).__name__}: {said}",
        expected=f"a leaf for events of shape {list(x.shape[2:])}, the axes after [N, T]",
        fix="np.asarray(x)[None] for one sequence" if tall else
        "np.asarray(x)[..., None] for events of one number, or a leaf for these events",
    ) from error  # fmt: skip


@compiled_once(static_argnames=("k", "leaf"))
def _init_emissions(key, steps, context, k, leaf):
    cluster, whole = jax.random.split(key)
    template = leaf(whole, steps) if context is None else leaf(whole, steps, context)
    check_trains_by_em(template, f"HMM.init(key, x, {k}, leaf)",
                       "jaxgen.HMM.from_values(initial, transition, [model, other]), and Gradient")  # fmt: skip
    share = cluster_shares(cluster, template, steps, k).T
    mass = jnp.sum(share, axis=0)

    def step(_, emissions):
        statistics = emission_statistics(emissions, steps, share, context)
        return latent.component_maximize(emissions, statistics, mass)[0]

    return jax.lax.fori_loop(0, START_STEPS, step, algebra.repeat(template, k))


def log_distribution(log_states, k: int, called: str) -> jax.Array:
    """The logarithms of the probabilities of K states, checked where they are known.

    Raises:
        ModelError: what is none: probabilities in place of their logarithms, or numbers that do not sum to one.
    """
    log_states = jnp.asarray(log_states) + 0.0  # floats; zeros in the distribution are -inf
    total = logsumexp(log_states, axis=-1) if log_states.ndim else log_states
    fits = log_states.shape[-1:] == (k,)
    if not fits or (concrete(total) and not (jnp.abs(total) < SUMS_TO_ONE).all()):
        raise ModelError(
            "the state is no log-distribution", called=f"{called}(state, horizon)",
            expected=f"logarithms of the probabilities of {k} states, or what filter_step returns",
            got=f"shape {list(log_states.shape)}" + (f", log of the sum {total}" if concrete(total) and fits else ""),
            fix="take the logarithm of probabilities that sum to one",
        )  # fmt: skip
    return log_states
