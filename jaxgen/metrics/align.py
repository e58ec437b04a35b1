"""One order for the components or states of several fits: their numbers are arbitrary, and differ between fits."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.inputs import Batch, as_batch
from jaxgen.core.methods import batch_axes
from jaxgen.core.protocols import Classifier, Permutable, Sequential, has
from jaxgen.core.pytree import trainable
from jaxgen.core.sequences import Sequences

#: what stands for a logarithm of zero where distances are taken
LOG_ZERO = -100.0


class Aligned(NamedTuple):
    """A model whose components are in the order of a reference's; `align` makes it.

    Args:
        model: the same model with its components in the order of the reference's.
        order: `[K]` ints, `order[new] = old`, as `permute` takes them.
        overlap: the share of the events on which the two agree, 0 to 1; None without data.
    """

    model: Any
    order: np.ndarray
    overlap: float | None


def align(model: Any, reference: Any, x: Any = None) -> Aligned:
    """Puts the components of a mixture, or the states of a hidden Markov model, in the order of another one's.

    With data, the order of the largest overlap of what the two say of each event (of each time step):
    `max over orders of sum_n sum_k min(p(order_k | x_n), p_reference(k | x_n)) / N`

    which is one minus the total variation distance, and 1 for a model and its permuted copy. Without data, the order
    of the smallest distance between the parameters of components, each scaled by its spread over all components.

    Args:
        model: a `Mixture`, an `HMM`, or another with `permute` and `responsibilities` or `smooth`.
        reference: one with as many components; with data they may be of another kind.
        x: events as for `score`: an array `[N, *event]`, `Sequences`, `(x, context, weight)` or a dict of them. The
            surer choice: without it components that differ in nothing but the transitions cannot be told apart.
            An event that one of the models thinks impossible counts as one on which they differ.

    Returns:
        `Aligned`. The best of all K! orders, found in O(K^3).

    Raises:
        ModelError: a model without components that can be permuted, another number of them, or parameters that
            cannot be compared. DataError, ShapeError: data that do not fit the models.

    Source: Kuhn (1955), The Hungarian method for the assignment problem; Stephens (2000), Dealing with label switching
    in mixture models.

    Example:
        >>> import jaxgen as jg
        >>> mixture = jg.Mixture.from_components(jg.Poisson.from_values([1.0, 9.0, 30.0]), [0.2, 0.3, 0.5])
        >>> found = align(mixture.permute([2, 0, 1]), mixture, jnp.arange(40))
        >>> found.order.tolist(), round(found.overlap, 4), [f"{w:.1f}" for w in found.model.weights]
        ([1, 2, 0], 1.0, ['0.2', '0.3', '0.5'])
    """
    # imported here: scipy's optimisers take a while, and nothing else needs them
    from scipy.optimize import linear_sum_assignment

    called = "align(model, reference, x)"
    k, other = (_count(m, called) for m in (model, reference))
    if k != other:
        raise ModelError(
            "the models have different numbers of components", called=called, expected=f"{other}, as the reference has",
            got=str(k),
        )  # fmt: skip
    if x is None:
        order = linear_sum_assignment(_distances(model, reference, called))[1]
        overlap = None
        _check_fixed(model, reference, order, called)
    else:
        masses, total = _overlaps(model, reference, x, called)
        rows, order = linear_sum_assignment(masses, maximize=True)
        overlap = min(float(masses[rows, order].sum() / total), 1.0)
    return Aligned(model.permute(order), order, overlap)


def _count(model: Any, called: str) -> int:
    if not has(model, Permutable) or not (has(model, Classifier) or has(model, Sequential)):
        raise ModelError(
            "the model has no components that could be put in order", called=called, got=type(model).__name__,
            expected="a mixture or a hidden Markov model: permute, and responsibilities or smooth",
        )  # fmt: skip
    return algebra.count(model.classes)


def _distances(model: Any, reference: Any, called: str) -> np.ndarray:
    """Squared distances of the parameters of components, `[K of the reference, K]`."""
    both = [m.classes for m in (reference, model)]
    kinds = [(jax.tree.structure(p), [np.shape(leaf) for leaf in jax.tree.leaves(p)]) for p in both]
    if kinds[0] != kinds[1] or isinstance(both[0], algebra.Several):
        raise ModelError(
            "components of different kinds have no parameters in common", called=called, expected=repr(both[0])[:200],
            got=repr(both[1])[:200], fix="jaxgen.metrics.align(model, reference, x) compares them on data",
        )  # fmt: skip
    total = np.zeros((algebra.count(both[0]), algebra.count(both[1])))
    for pair in zip(*map(jax.tree.leaves, both), strict=True):
        first, second = (np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in pair)
        first, second = (np.where(np.isneginf(leaf), LOG_ZERO, leaf) for leaf in (first, second))
        spread = np.concatenate([first, second]).std(axis=0)
        first, second = (leaf / np.where(spread > 0, spread, 1) for leaf in (first, second))
        total += ((first[:, None] - second[None]) ** 2).sum(axis=-1)
    return total


def _check_fixed(model: Any, reference: Any, order: np.ndarray, called: str) -> None:
    """Refuses parameters that are relative to different things, such as means to different origins."""
    first, second = reference.classes, algebra.take(model.classes, order)
    for trained, a, b in zip(*map(jax.tree.leaves, (trainable(first), first, second)), strict=True):
        rounding = 1e-6 * float(np.nanmax(np.abs(np.asarray(a, np.float64)), initial=0))
        if not trained and not np.allclose(a, b, rtol=1e-5, atol=rounding, equal_nan=True):
            raise ModelError(
                "the parameters cannot be compared: those that never train differ too", called=called,
                expected="fits of the same data", got=f"{a} and {b}"[:200],
                fix="jaxgen.metrics.align(model, reference, x)",
            )  # fmt: skip


def _overlaps(model: Any, reference: Any, x: Any, called: str) -> tuple[np.ndarray, float]:
    """The common mass of each pair of components, `[K of the reference, K]`, and the mass of all events."""
    missing = all(latent.accepts_missing(m) for m in (model, reference))
    batch = as_batch(x, name="x", called=called, missing=missing, schema=latent.schema(reference))
    for m in (model, reference):
        if len(batch_axes(np.shape(batch.x), m.event_shape, called)) != 1:
            raise DataError(
                "data need one leading axis of events", called=called, expected=f"[N, {m.event_shape}]",
                got=f"shape {list(np.shape(batch.x))}", fix="np.asarray(x)[None] for one sequence",
            )  # fmt: skip
        latent.check_data(m, batch.x)
    first, second = (_posterior(m, batch) for m in (reference, model))
    if first.shape != second.shape:
        raise ModelError(
            "one model speaks of events, the other of their steps", called=called,
            expected="two mixtures, or two hidden Markov models", got=f"{first.shape} and {second.shape}",
        )  # fmt: skip
    weight = jnp.ones(batch.events) if batch.weight is None else jnp.asarray(batch.weight)
    weight = jnp.broadcast_to(weight.reshape((-1,) + (1,) * (first.ndim - 2)), first.shape[:-1])
    if isinstance(batch.x, Sequences) and weight.ndim == 2:
        weight = weight * jnp.asarray(batch.x.valid)
    flat = lambda share: share.reshape(-1, share.shape[-1])  # noqa: E731
    masses = _common(flat(first), flat(second), weight.reshape(-1))
    return np.asarray(masses, np.float64), float(jnp.sum(weight))


def _posterior(model: Any, batch: Batch) -> jax.Array:
    """`[N, K]`, or of each step `[N, T, K]`; zeros for an event that cannot be."""
    method = model.smooth if has(model, Sequential) else model.responsibilities
    share = method(batch.x, context=batch.context)
    return jnp.where(jnp.isnan(share), 0, share)


@jax.jit
def _common(first: jax.Array, second: jax.Array, weight: jax.Array) -> jax.Array:
    """`sum_n w_n min(first_ni, second_nj)`, `[K, K]`, one row after the other."""
    return jax.lax.map(lambda one: jnp.matmul(weight, jnp.minimum(one[:, None], second), precision="highest"), first.T)
