"""Starts for models of several parts: the share of each event that each part gets before the first M-step."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.protocols import Clusterable, has
from jaxgen.ops.kmeans import kmeans, squared_distances
from jaxgen.ops.scales import standardized

#: the share of its events that a cluster gives to all clusters, so that one of a single event is no point mass
BLEND = 0.05
#: M-steps of a start: the first is around the middle of all events, whose rounding may hide a cluster, the second
#: around the cluster's own
START_STEPS = 2


def cluster_features(template: Any, x: jax.Array) -> jax.Array:
    """Events as vectors whose Euclidean distances have no units, `[N, F]`, without NaN.

    A family's own `features(x)`, else the flat events, each coordinate in units of its own scale; events of more axes
    than one, as images, have one unit, and one scale. An entry that was not seen is at the mean of those that were.
    """
    features = algebra.features(template, x)
    if not has(template, Clusterable):
        features = standardized(features, together=x.ndim > 2)
    mean = jnp.nanmean(features, axis=0)
    return jnp.where(jnp.isnan(features), jnp.where(jnp.isnan(mean), 0, mean), features)


def cluster_shares(
    key: Any, template: Any, x: jax.Array, k: int, *, label: Any = None, means: Any = None, blend: float = BLEND
) -> jax.Array:
    """Return the share of each event that each of K parts starts with, `[K, N]`, columns summing to about one.

    k-means on `cluster_features`, or the nearest of given means. Of an event at squared distance `d^2` each cluster
    then gets `blend / K / (1 + d^2 / F)` as well: a cluster of one event gets a width from those around it, and no
    event is far enough out to move a cluster that is not its own.

    Args:
        key: typed key.
        template: a model of all events, which knows the features of its family.
        x: `[N, *event]`.
        k: the number of parts.
        label: `[N]` int32, the part that is known of an event, else -1.
        means: `[K, *event]`, in place of k-means.
        blend: the share that is given away.
    """
    # given means get their features beside the events, since features may be scaled by what is seen
    seen = x if means is None else jnp.concatenate([x, means.astype(x.dtype)])
    features = cluster_features(template, seen)
    features, centers = features[: x.shape[0]], features[x.shape[0] :]
    if means is None:
        centers, _ = kmeans(key, features, k, label=label)
    distance = squared_distances(features, centers)
    chosen = jnp.argmin(distance, axis=0)
    chosen = chosen if label is None else jnp.where(label >= 0, label, chosen)
    return blended(jax.nn.one_hot(chosen, k, axis=0, dtype=features.dtype), distance / features.shape[1], k, blend)


def check_trains_by_em(template: Any, called: str, fix: str) -> None:
    """Refuse a leaf whose models have no M-step, by which a part starts from its share of the events.

    Raises:
        ModelError: a density that only a gradient trains, such as a flow, or one of one's own without an `e_step`.
    """
    if not latent.supports_em(template):
        raise ModelError(
            "the leaf makes a model without an M-step, by which parts start from clusters of the events", called=called,
            expected="e_step(x, weight) and m_step(statistics)", got=type(template).__name__, fix=fix,
        )  # fmt: skip


def blended(member: jax.Array, distance: jax.Array, k: int | jax.Array, blend: float = BLEND) -> jax.Array:
    """Shares `[K, N]` from the cluster of each event, ones and zeros, and its squared distance to each, a feature."""
    return (1 - blend) * member + blend / k / (1 + distance)


def start_of_kinds(key: Any, x: jax.Array, leaves: Any, context: Any = None) -> Any:
    """A start of K models of several kinds from data: `algebra.Several`, or a batch where all are of one kind.

    A kind that is there once starts from all events: what distinguishes the parts is their kind. Several of one kind
    share the events out by k-means. A leaf that refuses some events, as a gamma refuses zeros, starts from those that
    one of the others does not take (`Delta` gives all but its value no probability), whatever their order.

    Args:
        key: typed key.
        x: `[N, *event]`, concrete.
        leaves: K functions `(key, x) -> model`; one that has a parameter `context` is given that too.
        context: `[N, *context]`, or None.

    Raises:
        DataError: by a leaf, of events that no other leaf takes.
    """
    made: dict[int, Any] = {}
    refused: dict[int, DataError] = {}
    keys = jax.random.split(key, len(leaves))
    for i, leaf in enumerate(leaves):
        try:
            made[i] = _started(leaf, keys[i], x, context)
        except DataError as error:
            refused[i] = error
    others = list(made.values())
    for i, refusal in refused.items():
        made[i] = _of_the_rest(keys[i], leaves[i], x, context, others, refusal)
    models = algebra.stack([made[i] for i in range(len(leaves))])
    shared = [_shared_out(key, batch, x, context) for batch in algebra.kinds(models)]
    return algebra.Several(tuple(shared), models.order) if isinstance(models, algebra.Several) else shared[0]


def _started(leaf: Any, key: Any, x: jax.Array, context: Any) -> Any:
    """A leaf's model, of the events and of their context where it takes one."""
    takes = context is not None and "context" in inspect.signature(leaf).parameters
    return leaf(key, x, context=context) if takes else leaf(key, x)


def _of_the_rest(key: Any, leaf: Any, x: jax.Array, context: Any, others: list[Any], refused: DataError) -> Any:
    """A leaf's model of the events that one of the others does not take."""
    for one in others:
        given = None if algebra.context_shape(one) is None else context
        free = np.isneginf(np.asarray(one.log_prob(x, context=given)))
        if free.any() and not free.all():
            with contextlib.suppress(DataError):
                return _started(leaf, key, x[free], None if context is None else context[free])
    raise refused


def _shared_out(key: Any, batch: Any, x: jax.Array, context: Any) -> Any:
    """K models of one kind, each with a cluster of the events; one as it is."""
    count = algebra.count(batch)
    if count == 1:
        return batch
    template, context = algebra.take(batch, 0), algebra.taken(batch, context)
    inside = ~np.isneginf(np.asarray(template.log_prob(x, context=context)))
    x, context = x[inside], None if context is None else context[inside]
    share = cluster_shares(key, template, x, count)
    for _ in range(START_STEPS):
        statistics = algebra.component_e_step(batch, x, share, context)
        batch = latent.component_maximize(batch, statistics, jnp.sum(share, axis=1))[0]
    return batch
