"""Where models of several parts start: how much of each event each part gets before the first M-step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
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
    """How much of each event each of K parts starts with, `[K, N]`, columns summing to about one.

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


def blended(member: jax.Array, distance: jax.Array, k: int | jax.Array, blend: float = BLEND) -> jax.Array:
    """Shares `[K, N]` from the cluster of each event, ones and zeros, and its squared distance to each, a feature."""
    return (1 - blend) * member + blend / k / (1 + distance)
