"""The filter and the smoother of a batch of chains: probability space where it is right, log space where not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxgen.ops.chain_backends import Associative, Backend, Sequential, choose, unless
from jaxgen.ops.chain_inputs import Chain, Filtered, Posterior
from jaxgen.ops.chain_logs import filter_logs, smooth_logs
from jaxgen.ops.chain_scaled import filter_scaled, smooth_scaled


def _chain(parameters: Any, length: Array | None) -> Chain:
    return Chain(parameters[0], parameters[1], parameters[2], length)


def choose_for(chain: Chain, backend: Backend | None) -> Backend:
    """`choose` by the chain's shape."""
    return choose(backend, *chain.log_likelihood.shape)


def _pick(chain: Chain, fast: tuple[Any, Array], exact: Callable[[], Any]) -> Any:
    """Sequence by sequence, so that no sequence's result depends on the others of its batch."""
    results, sound = fast

    def mixed() -> Any:
        def one(x: Array, y: Array) -> Array:
            return jnp.where(sound.reshape(-1, *(1,) * (x.ndim - 1)), x, y)

        return jax.tree.map(one, results, exact())

    return unless(jnp.any(~sound), results, mixed)


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
    return _pick(chain, filter_scaled(chain, backend), lambda: filter_logs(chain, backend)[0])


@filter_chain.defjvp
def _filter_chain_jvp(backend: Backend, primals: Any, tangents: Any) -> Any:
    parameters, length = primals
    reference = lambda *p: filter_logs(Chain(p[0], p[1], p[2], length), Sequential())[0]  # noqa: E731
    return filter_chain(backend, parameters, length), jax.jvp(reference, parameters, tangents[0])[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def smooth_chain(backend: Backend, parameters: Any, length: Array | None) -> Posterior:
    """`Posterior` of `(log_initial, log_transition, log_likelihood [B, T, K])`."""
    return _smooth(backend, parameters, length)


@functools.partial(jax.jit, static_argnums=0)
def _smooth(backend: Backend, parameters: Any, length: Array | None) -> Posterior:
    chain = _chain(parameters, length)
    if isinstance(backend, Associative):
        return smooth_logs(chain, backend)
    return _pick(chain, smooth_scaled(chain, backend), lambda: smooth_logs(chain, backend))


@smooth_chain.defjvp
def _smooth_chain_jvp(backend: Backend, primals: Any, tangents: Any) -> Any:
    parameters, length = primals
    reference = lambda *p: smooth_logs(Chain(p[0], p[1], p[2], length), Sequential())  # noqa: E731
    return smooth_chain(backend, parameters, length), jax.jvp(reference, parameters, tangents[0])[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def normalize_chain(backend: Backend, parameters: Any, length: Array | None) -> Array:
    """The log-normalisers `[B]`."""
    return filter_chain(backend, parameters, length).log_normalizer


@normalize_chain.defjvp
def _normalize_chain_jvp(backend: Backend, primals: Any, tangents: Any) -> Any:
    # Fisher's identity: the derivative along any direction is its posterior expectation. It is finite at hard zeros,
    # costs no stored [T, K, K], and is linear in the tangents, so reverse mode is its transpose.
    posterior = smooth_chain(backend, *primals)
    weights = (posterior.marginals[:, 0], posterior.transition_counts, posterior.marginals)
    along = [w * d for w, d in zip(weights, tangents[0], strict=True)]
    return posterior.log_normalizer, sum(jnp.sum(x.reshape(x.shape[0], -1), axis=1) for x in along)
