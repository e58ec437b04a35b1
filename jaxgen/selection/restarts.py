"""One fit of a table: all restarts of EM side by side, and the best of them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.compiled import compiled_once
from jaxgen.core.pytree import float_type
from jaxgen.core.rare import without_rare_paths
from jaxgen.fit.checks import prepare
from jaxgen.fit.em import EM
from jaxgen.fit.loop import Loop, Status
from jaxgen.models.latent.mixture import Mixture
from jaxgen.ops.kmeans import cluster_means, kmeans_plus_plus, squared_distances
from jaxgen.ops.starts import blended, cluster_features

#: events times components up to which one program, for the largest K, fits all K: there compiling costs more than
#: components that do nothing (on two cores a program takes seconds, a fit of that size less)
PAIRS_OF_ONE_PROGRAM = 2**17
LLOYD_STEPS = 10


def padded_width(k: int, largest: int, events: int) -> int:
    """Components in the program that fits k of them: the largest, or for many events no more than twice as many."""
    width = largest
    while events * largest > PAIRS_OF_ONE_PROGRAM and k <= -(-width // 2) < width:
        width = -(-width // 2)
    return width


class Found(NamedTuple):
    """The best restart, and how its fit ended. `padded` is the same model with components of weight zero, if it is."""

    model: Any
    padded: Any
    status: Status
    repaired: int
    failed: int


def fit_mixtures(key, batch, k, width, *, leaf, restarts, steps, tolerance) -> Found:
    """Return the best mixture of k components from a program that is made for `width` of them."""
    models = _starts(key, batch, k, leaf, width, restarts)
    models, status, score, repaired = _climbed(key, models, batch, steps, tolerance, restarts)
    if width > k:  # the components that are not there say that they have no mass
        one = jax.tree.map(lambda leaf: leaf[0, -1:], models.components)
        repaired = np.maximum(repaired - (width - k) * int(_repairs_without_mass(one, batch.x[:1])), 0)
    found = _best(models, status, score, repaired)
    log_weights, components = jax.tree.map(lambda a: a[:k], (found.padded.log_weights, found.padded.components))
    return found._replace(model=Mixture(log_weights, components, None))


def fit_family(key, batch, k, width, *, family, leaf, restarts, steps, tolerance) -> Found:
    """Return the best model of another family, `family(key, x, k, leaf)`; the width is not used."""
    keys = jax.random.split(key, restarts)
    # starts are made where the data can be seen: a start may leave out what is padded
    models = jax.vmap(lambda one: family(one, batch.x, k, leaf.function))(keys)
    return _best(*_climbed(key, models, batch, steps, tolerance, restarts))


def _best(models, status, score, repaired) -> Found:
    status, score, repaired = (np.asarray(a) for a in (status, score, repaired))
    good = (status != Status.NON_FINITE) & np.isfinite(score)
    best = int(np.lexsort((np.where(good, score, -np.inf), good & (repaired == 0), good))[-1])
    ended = Status(int(status[best])) if good[best] else Status.NON_FINITE
    ended = Status.FINISHED if ended == Status.RUNNING else ended
    model = algebra.take(models, best)
    return Found(model, model, ended, int(repaired[best]), int((~good).sum()))


@compiled_once(static_argnames=("leaf", "width", "restarts"))
def _starts(key, batch, k, leaf, width, restarts):
    """The starts of all restarts, leading axis `restarts`."""
    keys = jax.random.split(key, restarts)
    return jax.vmap(lambda one, i: _start(one, batch, k, i % 2 == 1, leaf, width))(keys, jnp.arange(restarts))


def _climbed(key, models, batch, steps, tolerance, restarts):
    """EM from a batch of models, side by side: models, statuses, mean log-likelihoods and repairs."""
    climb = functools.partial(_climb, key, models, batch, steps, tolerance, restarts)
    with without_rare_paths():
        *found, rare = climb()
    return climb()[:-1] if rare else found


@compiled_once(static_argnames=("restarts",), rounds=True)
def _climb(key, models, batch, steps, tolerance, restarts):
    """Return what `_climbed` does, and whether a rare path was needed, without which the rest means nothing."""
    em = EM()
    batch = prepare(em, algebra.element(models), batch, None)
    loop = Loop(em, restarts, key, tolerance)
    carry, _ = loop.steps(loop.start(models, batch, None), lambda step, order: (batch, order), 0, steps)
    return carry.state.model, carry.status, carry.metrics["log_likelihood"], carry.metrics["repaired"], carry.rare


@compiled_once()
def _repairs_without_mass(component, x):
    nothing = jnp.zeros(1, float_type(component))
    statistics = algebra.component_e_step(component, x, nothing[None])
    return latent.component_maximize(component, statistics, nothing)[1]


def _start(key, batch, k, scaled, leaf, width):
    """A mixture of `width` components of which the first k have a cluster each, and the others weight zero."""
    cluster, made = jax.random.split(key)
    x = cluster_features(leaf(made, batch.x), batch.x)
    spread = jnp.std(x, axis=0)
    x = jnp.where(scaled & (spread > 0), x / jnp.where(spread > 0, spread, 1), x)
    there = jnp.arange(width) < k
    member, distance = _clusters(cluster, x, there)
    share = jnp.where(there, blended(member, distance, k).T, 0)
    mixture = Mixture.init(made, batch.x, width, leaf, weight=batch.weight, responsibilities=share)
    return Mixture(jnp.where(there, mixture.logits, -jnp.inf), mixture.components, mixture.prior)


def _clusters(key, x, there):
    """k-means with a number of clusters that a program need not know: ones where an event belongs, `[width, N]`, and
    squared distances, a feature."""

    def assign(centers):
        distances = jnp.where(there[:, None], squared_distances(x, centers), jnp.inf)
        return jnp.argmin(distances, axis=0), distances

    def lloyd(centers, _):
        return cluster_means(x, assign(centers)[0], centers), None

    # the first k of so many centers are k centers
    centers, _ = jax.lax.scan(lloyd, kmeans_plus_plus(key, x, len(there)), None, length=LLOYD_STEPS)
    chosen, distances = assign(centers)
    return jax.nn.one_hot(chosen, len(there), axis=0, dtype=x.dtype), distances / x.shape[1]
