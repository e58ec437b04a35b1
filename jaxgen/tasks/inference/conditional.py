"""Densities of one vector given another, learned from pairs: what neural posteriors and likelihoods are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import losses
from jaxgen.bijections import Autoregressive, Chain, Permute, Predicted, Scan, SoftClip, SplineTransform, Standardize
from jaxgen.core.compiled import compiled_once
from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.pytree import fixed, model, part, trainable
from jaxgen.fit.averages import Average
from jaxgen.fit.driver import fit
from jaxgen.fit.fitted import Fitted
from jaxgen.fit.gradient import Gradient
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.latent.mixture import Mixture
from jaxgen.models.neural.flow import Flow

#: layers, hidden widths and pieces of a spline of the one default recipe
LAYERS, FEATURES, BINS = 5, (64, 64), 8
#: pairs in a step, the first step size, the decay of weights that goes with it, and the share of pairs that training
#: does not see
BATCH, STEP_SIZE, DECAY, HELD = 200, 5e-3, 0.1, 0.1
#: scores on what is held out in the course of a training, and how many without a better one end it
LOOKS, PATIENCE = 40, 10
#: flows that are trained beside each other, and mixed
MEMBERS = 2
#: steps of EM for their weights
ROUNDS = 200
#: the width in which a density is bent at an end of its support, as a share of the distance of the ends, and of
#: the scale of the numbers where there is one end only
EDGE = 0.02


@model
class Conditioned:
    """A conditional density whose context has units of its own: it is standardised first, and far values are bent.

    Args:
        density: a density with a context.
        units: a bijection, of which the inverse makes numbers of order one of a context.
    """

    density: Any = part()
    units: Any = fixed()

    @property
    def event_shape(self):
        return self.density.event_shape

    @property
    def context_shape(self):
        return self.units.event_shape

    def _seen(self, context):
        return self.units.inverse_and_log_det(context)[0]

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        return self.density.log_prob(x, context=self._seen(context))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        return self.density.sample(key, context=self._seen(context))


def learned(
    key: Any, events: Any, contexts: Any, low: np.ndarray, high: np.ndarray, *, steps: int, progress: bool | None
) -> tuple[Mixture, Fitted[Any]]:  # fmt: skip
    """Return a mixture of flows of events `[N, D]` between their ends, given contexts `[N, C]`, and their fits.

    The flows differ by their starts and the order of their batches alone: what each has learned by heart differs, and
    weighs less in their mean. Their start, a linear regression, is a member too, and may be all that a task needs: the
    weights are those under which what is held out is likeliest.
    """
    fit_key, split_key = jax.random.split(key)
    held, seen = halves(split_key, len(events))
    build = conditional_flow(events, contexts, low, high)
    size, context = events.shape[1], contexts.shape[1]
    fitted = train(
        fit_key, lambda key: build(_layers(key, size, context)), (events[seen], contexts[seen]),
        (events[held], contexts[held]), losses.nll, steps, progress, MEMBERS,
    )  # fmt: skip
    many: Any = fitted.models
    # layers without parameters leave everything as it is, as those of a start do
    layers = many.density.bijection.layers[0]
    still = jax.tree.map(lambda a, free: jnp.zeros_like(a[0]) if free else a[0], layers, trainable(layers))
    members = jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), many, build(still))
    return Mixture.from_components(members, stacked(members, events[held], contexts[held])), fitted


@jax.jit
def stacked(members: Any, events: Any, contexts: Any) -> jax.Array:
    """Return the weights of densities under which events are likeliest, by EM.

    `w_m = mean_n w_m p_mn / sum_k w_k p_kn`, from equal ones

    Source: Smyth and Wolpert (1999), Linearly combining density estimators via stacking.
    """
    scores = jax.vmap(lambda member: member.log_prob(events, context=contexts))(members)
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    count = len(scores)
    # what no member finds possible says nothing of them
    told = jnp.any(jnp.isfinite(scores), axis=0)
    likely = jnp.where(told, scores - jnp.max(scores, axis=0, where=told, initial=-jnp.inf), 0)

    def step(_: int, weights: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.softmax(jnp.log(weights)[:, None] + likely, axis=0), axis=1)

    return jax.lax.fori_loop(0, ROUNDS, step, jnp.full(count, 1 / count, scores.dtype))


def conditional_flow(
    events: Any, contexts: Any, low: np.ndarray, high: np.ndarray
) -> Callable[[Scan], Conditioned]:  # fmt: skip
    """Return a function that makes the default flow of its layers, behind the normal density of a linear regression."""
    units = Standardize.from_data(contexts)
    given = jax.vmap(units.inverse_and_log_det)(contexts)[0]
    edges = soft_ends(events, low, high)
    free = events if edges is None else jax.vmap(edges.inverse_and_log_det)(events)[0]
    predicted = Predicted.from_data(free, given)

    def build(layers: Scan) -> Conditioned:
        parts = (layers, predicted, edges)
        chain = Chain(tuple(layer for layer in parts if layer is not None))
        return Conditioned(Flow(StandardNormal(events.shape[1:]), chain), units)

    return build


def soft_ends(events: Any, low: np.ndarray, high: np.ndarray) -> SoftClip | None:
    """Return the layer that keeps events between their ends, None where there are none."""
    if not (np.isfinite(low).any() or np.isfinite(high).any()):
        return None
    scale = np.asarray(Standardize.from_data(events).scale, np.float64)
    closed = np.isfinite(low) & np.isfinite(high)
    span = np.where(closed, np.where(closed, high, 0) - np.where(closed, low, 0), scale)
    return SoftClip.from_values(low, high, EDGE * span)


@compiled_once(static_argnames=("size", "context"))
def _layers(key: Any, size: int, context: int) -> Scan:
    def one(key: Any) -> Chain:
        layer = Autoregressive.init(
            key, (size,), SplineTransform(BINS), features=FEATURES, context_shape=(context,)
        )  # fmt: skip
        return Chain((layer, Permute.from_values(range(size)[::-1])))

    return Scan(jax.vmap(one)(jax.random.split(key, LAYERS)))


def halves(key: Any, n: int) -> tuple[Any, Any]:
    """Return the places of what is held out, and of the rest."""
    order = jax.random.permutation(key, n)
    held = max(1, round(HELD * n))
    return order[:held], order[held:]


def train(
    key: Any, start: Any, seen: Any, held: Any, loss: Any, steps: int, progress: bool | None, members: int
) -> Fitted[Any]:  # fmt: skip
    """Return the fits of models to pairs by the default recipe: of each the best on what is held out."""
    algorithm = Gradient(loss, _falling, average=Average(0.995))
    return fit(
        key, start, seen, algorithm, steps=steps, batch_size=min(BATCH, len(seen[0])), validation=held,
        every=max(1, steps // LOOKS), patience=PATIENCE, restarts=members, progress=progress,
    )  # fmt: skip


def _falling(steps: int) -> Any:
    import optax

    schedule = optax.cosine_decay_schedule(STEP_SIZE, steps, alpha=0.01)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=DECAY))
