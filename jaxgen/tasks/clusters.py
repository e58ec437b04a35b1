"""Measures of how well clusters and neighbours in features agree with classes."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import FitError, ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.core.labels import checked_labels
from jaxgen.core.methods import is_count
from jaxgen.ops.distances import over_rows, squared_distances
from jaxgen.ops.scales import seen_numbers


class Agreement(NamedTuple):
    """The agreement of two partitions of the same events; `agreement` makes it. All are 1 for the same one.

    Args:
        accuracy: the share of events in the class that their cluster stands for, each cluster for another one.
        adjusted_rand: of pairs that are together in both or apart in both, less what chance would do.
        mutual_information: over the mean of both entropies, 0 to 1.
    """

    accuracy: float
    adjusted_rand: float
    mutual_information: float


def agreement(label: Any, cluster: Any) -> Agreement:
    """Return how well clusters agree with classes, whatever their numbers are.

    Args:
        label: `[N]`, whole numbers from 0; events whose class is not known, -1, are left out.
        cluster: `[N]`, such as `mixture.predict(x)`.

    Raises:
        DataError: no whole numbers, or no label that is known. ShapeError: another number of them.

    Source: Kuhn (1955), The Hungarian method; Hubert and Arabie (1985), Comparing partitions; Strehl and Ghosh (2002),
    Cluster ensembles.

    Example:
        >>> [round(number, 3) for number in agreement([0, 0, 1, 1], [1, 1, 0, 2])]
        [0.75, 0.571, 0.8]
    """
    # imported here: scipy's optimisers take a while, and nothing else needs them
    from scipy.optimize import linear_sum_assignment

    called = "agreement(label, cluster)"
    cluster = np.asarray(as_array(cluster, name="cluster", called=called))
    label = checked_labels(label, len(cluster), called, unknown=True)
    cluster = checked_labels(cluster, len(label), called, unknown=True)[label >= 0]
    # -1 is a cluster like others
    classes, label = np.unique(label[label >= 0], return_inverse=True)
    clusters, cluster = np.unique(cluster, return_inverse=True)
    table = np.zeros((len(classes), len(clusters)))
    np.add.at(table, (label, cluster), 1)
    n = float(table.sum())
    rows, columns = linear_sum_assignment(table, maximize=True)
    return Agreement(float(table[rows, columns].sum() / n), _adjusted_rand(table, n), _shared(table / n))


def _adjusted_rand(table: np.ndarray, n: float) -> float:
    pairs = lambda counts: float((counts * (counts - 1) / 2).sum())  # noqa: E731
    both, first, second = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    chance = first * second / max(float(n * (n - 1)) / 2, 1)
    possible = (first + second) / 2 - chance
    return 1.0 if possible == 0 else (both - chance) / possible


def _shared(joint: np.ndarray) -> float:
    entropy = lambda p: -float(np.sum(p[p > 0] * np.log(p[p > 0])))  # noqa: E731
    first, second = entropy(joint.sum(axis=1)), entropy(joint.sum(axis=0))
    if first + second == 0:
        return 1.0
    return max(0.0, 2 * (first + second - entropy(joint)) / (first + second))


def neighbour_accuracy(z: Any, label: Any, others: Any, others_label: Any, *, k: int = 1) -> float:
    """Return the share of events that most of their k nearest others name right.

    Distances are Euclidean in the features as they are; of classes with as many votes the smallest label has it.

    Args:
        z: features of the events that know their class, `[N, F]`.
        label: theirs, `[N]`, whole numbers from 0.
        others, others_label: the events that are named, `[M, F]` and `[M]`.
        k: neighbours that vote, 1 to N.

    Raises:
        ShapeError: other features, or another number of labels. FitError: no such k. DataError: NaN, no labels.

    Example:
        >>> neighbour_accuracy([[0.0], [1.0], [9.0]], [0, 0, 1], [[0.4], [8.0], [7.0]], [0, 1, 0])
        0.6666666666666666
    """
    called = "neighbour_accuracy(z, label, others, others_label)"
    z, others = (jnp.asarray(seen_numbers(rows, called, name="z"), jnp.result_type(float)) for rows in (z, others))
    if z.ndim != 2 or z.shape[1:] != others.shape[1:]:
        raise ShapeError("both sets have the same features", called=called, expected="[N, F] and [M, F]",
                         got=f"{list(z.shape)} and {list(others.shape)}")  # fmt: skip
    if not (is_count(k, 1) and k <= len(z)):
        raise FitError("there are no such neighbours", called=called, expected=f"k from 1 to {len(z)}", got=f"k={k!r}")
    label = checked_labels(label, len(z), called)
    wanted = checked_labels(others_label, len(others), called)
    classes, label = np.unique(label, return_inverse=True)
    found = _votes(z, jnp.asarray(label), others, k, len(classes))
    return float(np.mean(classes[np.asarray(found)] == wanted))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _votes(z: Any, label: Any, others: Any, k: int, classes: int) -> jax.Array:
    def one(rows: Any, index: Any) -> jax.Array:
        near = jax.lax.top_k(-squared_distances(rows, z), k)[1]
        return jnp.argmax(jnp.sum(jax.nn.one_hot(label[near], classes), axis=1), axis=1)

    return over_rows(one, others, len(others))
