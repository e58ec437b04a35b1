"""The filter and the smoother of a batch of chains: probability space where it is right, log space where not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxgen.core.rare import any_lane, rare_paths_left_out, spoilt
from jaxgen.ops.chains.backends import Associative, Backend, Sequential, choose
from jaxgen.ops.chains.inputs import Chain, Filtered, Posterior
from jaxgen.ops.chains.logs import filter_logs, smooth_logs
from jaxgen.ops.chains.scaled import filter_scaled, normalize_scaled, smooth_scaled

#: sequences of a batch that are computed again at once; other devices have no use for small pieces
GROUP = {"cpu": 8}


def _chain(parameters: Any, length: Array | None, starts: Array | None = None) -> Chain:
    return Chain(parameters[0], parameters[1], parameters[2], length, starts)


def choose_for(chain: Chain, backend: Backend | None) -> Backend:
    """`choose` by the chain's shape."""
    return choose(backend, *chain.log_likelihood.shape)


def _mend(chain: Chain, fast: tuple[Any, Array], exact: Callable[[Chain], Any]) -> Any:
    """Results of sequences, of which those that are not right are computed again, `GROUP` neighbours at a time.

    Sequence by sequence, so that no sequence's result depends on the others of its batch.
    """
    results, sound = fast
    if rare_paths_left_out():
        return spoilt(~sound, results)
    group = min(GROUP.get(jax.default_backend(), len(sound)), len(sound))

    def again(state: tuple[Array, Any]) -> tuple[Array, Any]:
        wrong, results = state
        first = jnp.minimum(jnp.argmax(wrong), len(sound) - group)
        cut = lambda x: lax.dynamic_slice_in_dim(x, first, group)  # noqa: E731
        a = cut(chain.log_transition) if chain.log_transition.ndim == 4 else chain.log_transition
        length, starts = (None if x is None else cut(x) for x in (chain.length, chain.starts))
        new = exact(Chain(chain.log_initial, a, cut(chain.log_likelihood), length, starts))

        def put(x: Array, y: Array) -> Array:
            y = jnp.where(cut(wrong).reshape(-1, *(1,) * (x.ndim - 1)), y, cut(x))
            return lax.dynamic_update_slice_in_dim(x, y, first, 0)

        left = lax.dynamic_update_slice_in_dim(wrong, jnp.zeros((group,), bool), first, 0)
        return left, jax.tree.map(put, results, new)

    # a loop of no round where all is right: a `lax.cond` would copy large results through the branch that returns them
    return lax.while_loop(lambda state: any_lane(jnp.any(state[0])), again, (~sound, results))[1]


# Derivatives of filtered and smoothed probabilities are those of the sequential recursion in log space: it is made of
# differentiable steps only, and finite at hard zeros.


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def filter_chain(backend: Backend, parameters: Any, length: Array | None) -> Filtered:
    """`Filtered` of `(log_initial, log_transition, log_likelihood [B, T, K])`."""
    return _filter(backend, parameters, length)


@functools.partial(jax.jit, static_argnums=0)  # one program where the caller has none
def _filter(backend: Backend, parameters: Any, length: Array | None) -> Filtered:
    chain = _chain(parameters, length)
    if isinstance(backend, Associative):
        return filter_logs(chain, backend)[0]
    return _mend(chain, filter_scaled(chain, backend), lambda c: filter_logs(c, backend)[0])


@filter_chain.defjvp
def _filter_chain_jvp(backend: Backend, primals: Any, tangents: Any) -> Any:
    parameters, length = primals
    reference = lambda *p: filter_logs(Chain(p[0], p[1], p[2], length), Sequential())[0]  # noqa: E731
    return filter_chain(backend, parameters, length), jax.jvp(reference, parameters, tangents[0])[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def smooth_chain(
    backend: Backend, parameters: Any, length: Array | None, starts: Array | None = None
) -> Posterior:
    """`Posterior` of `(log_initial, log_transition, log_likelihood [B, T, K])`."""
    return _smooth(backend, parameters, length, starts)


@functools.partial(jax.jit, static_argnums=0)
def _smooth(backend: Backend, parameters: Any, length: Array | None, starts: Array | None) -> Posterior:
    chain = _chain(parameters, length, starts)
    if isinstance(backend, Associative):
        return smooth_logs(chain, backend)
    return _mend(chain, smooth_scaled(chain, backend), lambda c: smooth_logs(c, backend))


@smooth_chain.defjvp
def _smooth_chain_jvp(backend: Backend, primals: Any, tangents: Any) -> Any:
    parameters, *where = primals
    reference = lambda *p: smooth_logs(_chain(p, *where), Sequential())  # noqa: E731
    return smooth_chain(backend, parameters, *where), jax.jvp(reference, parameters, tangents[0])[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def normalize_chain(backend: Backend, parameters: Any, length: Array | None) -> Array:
    """The log-normalisers `[B]`."""
    return _normalize(backend, parameters, length)


@functools.partial(jax.jit, static_argnums=0)
def _normalize(backend: Backend, parameters: Any, length: Array | None) -> Array:
    chain = _chain(parameters, length)
    exact = lambda c: filter_logs(c, backend)[0].log_normalizer  # noqa: E731
    return exact(chain) if isinstance(backend, Associative) else _mend(chain, normalize_scaled(chain, backend), exact)


@normalize_chain.defjvp
def _normalize_chain_jvp(backend: Backend, primals: Any, tangents: Any) -> Any:
    # Fisher's identity: the derivative along any direction is its posterior expectation. It is finite at hard zeros,
    # costs no stored [T, K, K], and is linear in the tangents, so reverse mode is its transpose.
    posterior = smooth_chain(backend, *primals)
    weights = (posterior.marginals[:, 0], posterior.transition_counts, posterior.marginals)
    along = [w * d for w, d in zip(weights, tangents[0], strict=True)]
    return posterior.log_normalizer, sum(jnp.sum(x.reshape(x.shape[0], -1), axis=1) for x in along)
