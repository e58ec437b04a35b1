"""Many models at once: K models are one model whose leaves carry a leading axis K, or `Several` of such.

The defaults map over that axis. A family overrides them where it knows better (one matmul for Gaussians, a gather for
categoricals) by a capability of `core.protocols`; a law in the suite holds every override to its default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import concrete
from jaxgen.core.protocols import (
    Clusterable,
    ComponentEvidence,
    ComponentScores,
    ComponentSteps,
    Conditional,
    Density,
    Evidence,
    Paired,
    Ranged,
    Unconditioned,
    Weighted,
    has,
    members,
)
from jaxgen.core.pytree import difference, model, models_in, part, parts_of, static


@model
class Several:
    """K models of several kinds, each kind a batch: it stands where K models of one kind would.

    Args:
        members: tuple of batches of models, each of one kind, with leading axes of any lengths.
        order: `[K]` ints, static: where model k stands among the members, put one after another.
    """

    members: Any = part()
    order: tuple[int, ...] = static()

    @property
    def event_shape(self):
        return self.members[0].event_shape

    @property
    def context_shape(self):
        """Shape of the context of those that take one; of K models in the abstract (`element`)."""
        return next((shape for shape in map(context_shape, self.members) if shape is not None), None)

    def __getitem__(self, k: Any) -> Any:
        return take(self, k)

    def rows(self, array: Any) -> list[Any]:
        """Return the rows of an array `[K, ...]` that belong to each kind, one array per kind."""
        ends = np.cumsum([count(batch) for batch in self.members])
        place = np.argsort(np.asarray(self.order))
        return [array[place[end - count(batch) : end]] for batch, end in zip(self.members, ends, strict=True)]


def context_shape(model: Any) -> tuple[int, ...] | None:
    """The shape of one context that a model takes, or None for a model without context."""
    return model.context_shape if has(model, Conditional) else None


def context_optional(model: Any) -> bool:
    """Tell whether a context may be absent, which is a row of NaN: the model says so of itself (`Unconditioned`), and
    all of its parts that take a context say so; at least one of them has to.
    """
    own = [bool(model.context_optional)] if has(model, Unconditioned) else []
    held = (one for _, kind, value in parts_of(model) for one in models_in(value))
    answers = own + [context_optional(one) for one in held if context_shape(one) is not None]
    return bool(answers) and all(answers)


def absent_axes(model: Any) -> int:
    """Return the number of leading axes of contexts `[N, *context]` along which each may be absent: of events,
    and of steps where their number is free; 0 where none may be absent."""
    shape = context_shape(model) if context_optional(model) else None
    return 0 if shape is None else 1 + shape.count(None)


class CheckedContext(Conditional, Protocol):
    """Refuses contexts that mean nothing, which their shape does not tell. Default: those that its parts refuse."""

    def check_context(self, context: Any) -> None:
        """Raises DataError; the context is `[*batch, *context]`, NaN where one is absent."""


def check_context(model: Any, context: Any) -> None:
    """Lets a model, and those of its parts that take a context, refuse it with a DataError; abstract ones pass."""
    if context is None or not concrete(context):
        return
    if has(model, CheckedContext):
        model.check_context(context)
    for one in (one for _, _, value in parts_of(model) for one in models_in(value)):
        if context_shape(one) is not None:
            check_context(one, context)


def kinds(models: Any) -> tuple[Any, ...]:
    """The batches of one kind that a batch of models is made of: itself, or the members of `Several`."""
    return models.members if isinstance(models, Several) else (models,)


def per_kind(function: Callable[..., Any], models: Any, *rows: Any) -> list[Any]:
    """`function(batch, *rows)` of each batch of one kind, with its rows of arrays `[K, ...]` (None stays None)."""
    if not isinstance(models, Several):
        return [function(models, *rows)]
    split = [[None] * len(models.members) if array is None else models.rows(array) for array in rows]
    return [function(batch, *(row[i] for row in split)) for i, batch in enumerate(models.members)]


def joined(models: Any, results: list[Any]) -> Any:
    """Join the results of `per_kind`, leading axes K_1, K_2, ..., into one tree with a leading axis K."""
    if not isinstance(models, Several):
        return results[0]
    order = np.asarray(models.order)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *results)


def each(function: Callable[..., Any], models: Any, *rows: Any) -> Any:
    """`function(model, *row)` of each of K models, as one tree with a leading axis K."""
    return joined(models, per_kind(lambda batch, *row: jax.vmap(function)(batch, *row), models, *rows))


def of_kinds(function: Callable[..., Any], models: Any, capability: type, called: str) -> Any:
    """`function(batch)`, which is a batch of models again, of each batch of one kind that has a capability.

    Raises:
        ModelError: models that have not.
    """
    needed(models, capability, called)
    made = per_kind(function, models)
    return Several(tuple(made), models.order) if isinstance(models, Several) else made[0]


def needed(models: Any, capability: type, called: str) -> None:
    """Refuses a batch with models that lack a capability with a ModelError."""
    lacking = [type(batch).__name__ for batch in kinds(models) if not has(batch, capability)]
    if lacking:
        raise ModelError(
            "not all of the models can do this", called=called, got=" and ".join(lacking) + " without",
            expected="models that all have " + " and ".join(sorted(members(capability))),
        )  # fmt: skip


def bounds(one: Any) -> tuple[Any, Any]:
    """The ends of the values that a model's events can take, `[*event]` both: infinite where it names none (`Ranged`).

    Example:
        >>> import jaxgen as jg
        >>> [end.tolist() for end in bounds(jg.StandardNormal((2,)))]
        [[-inf, -inf], [inf, inf]]
    """
    infinite = np.full(one.event_shape, np.inf)
    return one.bounds if has(one, Ranged) else (-infinite, infinite)


def count(models: Any) -> int:
    """The number of models in a batch.

    Example:
        >>> count({"mean": jnp.zeros((3, 2))})
        3
    """
    if isinstance(models, Several):
        return len(models.order)
    return int(np.shape(jax.tree.leaves(models)[0])[0])


def take(models: Any, index: Any) -> Any:
    """The model at `index` of a batch of models, or a batch of those at several indices.

    Example:
        >>> take({"mean": jnp.arange(6.0).reshape(3, 2)}, 1)["mean"].shape
        (2,)
    """
    if not isinstance(models, Several):
        return jax.tree.map(lambda leaf: leaf[index], models)
    if not concrete(index):
        raise ModelError(
            "one of models of several kinds is chosen by a number that is not known yet", called="take(models, index)",
            expected="an int, outside of jit and vmap", got=str(index),
        )  # fmt: skip
    if np.ndim(index):
        return stack([take(models, int(i)) for i in index])
    place = models.order[int(index)]
    for batch in models.members:
        if place < count(batch):
            return take(batch, place)
        place -= count(batch)
    raise IndexError(index)


def stack(models: Any) -> Any:
    """A batch of models from a sequence of models: of one structure, or `Several`.

    Raises:
        ModelError: no models, or models of different events.

    Example:
        >>> stack([{"mean": jnp.zeros(2)}, {"mean": jnp.ones(2)}])["mean"].shape
        (2, 2)
    """
    return batch_of(list(models), "stack(models)")


def batch_of(models: Any, called: str) -> Any:
    """A batch of models as it is, or one from a list of them, looked at.

    Raises:
        ModelError: as `stack`; and a batch whose leaves do not all carry a leading axis of one length.
    """
    if isinstance(models, (list, tuple)):
        if not models:
            raise ModelError(
                "there are no models", called=called, expected="one model or more", got=repr(models),
                fix="[jaxgen.Poisson.from_values(1.0), jaxgen.Poisson.from_values(5.0)]",
            )  # fmt: skip
        models = _stacked(models, called)
    for batch in kinds(models):
        axes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
        if len(axes) != 1 or () in axes:
            raise ModelError(
                "that is no batch of models", called=called, got=repr(models)[:300],
                expected="a list of models, or one whose arrays all have a leading axis with an entry for each",
                fix="a list of one model" if axes else "models with parameters, such as DiagonalGaussian",
            )  # fmt: skip
    return models


def _stacked(models: Any, called: str) -> Any:
    groups: list[list[int]] = []
    for i, one in enumerate(models):
        same = next((group for group in groups if not difference(models[group[0]], one)), None)
        groups.append([i]) if same is None else same.append(i)
    batches = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *(models[i] for i in group)) for group in groups]
    if len(batches) == 1:
        return batches[0]
    shapes = {tuple(one.event_shape): i for i, one in enumerate(models)}
    contexts = {shape: i for i, one in enumerate(models) if (shape := context_shape(one)) is not None}
    for what, found in (("events", shapes), ("contexts", contexts)):
        if len(found) > 1:
            raise ModelError(
                f"the models are of different {what}", called=called, expected=f"models whose {what} have one shape",
                got=", ".join(f"{list(shape)} (model {i})" for shape, i in found.items())[:300],
                fix="[m for m in models if m.event_shape == models[0].event_shape]" if what == "events" else "",
            )  # fmt: skip
    places = np.argsort(np.concatenate([np.asarray(group) for group in groups]))
    return Several(tuple(batches), tuple(int(place) for place in places))


def element(models: Any) -> Any:
    """One of a batch of models, in the abstract: shapes without values, for `event_shape` and its kin.

    Example:
        >>> element({"mean": jnp.zeros((3, 2))})["mean"].shape
        (2,)
    """
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf)[1:], jnp.result_type(leaf)), models)


def repeat(model: Any, k: int) -> Any:
    """A batch of K copies of a model."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (k, *np.shape(leaf))), model)


def taken(batch: Any, context: Any) -> Any:
    """The context, for models that take one."""
    return None if context is None or context_shape(element(batch)) is None else context


def _where(flag: jax.Array, events: Any, other: Any) -> Any:
    """Events `[N, ...]` where a flag `[N]` is set, elsewhere the event at an index."""
    return jnp.where(flag.reshape(flag.shape + (1,) * (events.ndim - 1)), events, events[other])


def inside(score: Callable[[Any], jax.Array], x: Any) -> jax.Array:
    """`score(x) [K, N]` where an event outside of a kind's support, which is inside another's, leaves no trace.

    It is -inf, and an event of the support takes its place in the gradient, which would be NaN.
    """
    seen = jax.lax.stop_gradient(jnp.max(score(x), axis=0))
    within = ~jnp.isneginf(seen)
    return jnp.where(within, score(_where(within, x, jnp.argmax(seen))), -jnp.inf)


def component_log_prob(components: Any, x: Any, context: Any = None) -> jax.Array:
    """`log p_k(x_n)` of K models on N events, `[K, N]`. Override: `ComponentScores`."""

    def of(batch: Any) -> jax.Array:
        given = taken(batch, context)
        score = lambda x: _log_prob(batch, x, given)  # noqa: E731
        return inside(score, x) if isinstance(components, Several) and isinstance(x, jax.Array) else score(x)

    return joined(components, per_kind(of, components))


def _log_prob(batch: Any, x: Any, context: Any) -> jax.Array:
    if context is None and has(batch, ComponentScores):
        return batch.log_prob_components(x)
    return default_log_prob(batch, x, context)


def default_log_prob(components: Any, x: Any, context: Any = None) -> jax.Array:
    """Return the `log_prob` of each component, `[K, N]` nats: the default for `component_log_prob`."""
    if not has(components, Density):
        raise ModelError(
            "the parts have no log_prob", called=f"log_prob of a model of {type(components).__name__}",
            expected="parts with an exact density", got=type(components).__name__,
            fix="" if not has(components, Weighted) else
            "model.elbo(key, x), or estimate_responsibilities of a mixture",
        )  # fmt: skip
    return jax.vmap(lambda component: component.log_prob(x, context=context))(components)


def step_log_prob(model: Any, x: Any) -> jax.Array:
    """Return the `[N]` nats that `e_step` gives beside the statistics: `log_prob`, or the model's own (`Evidence`).

    A model with a posterior over its parameters has one: its `log_prob` is the predictive density, its E-step bounds
    the evidence from below, by these terms and by `log_prior`.
    """
    return model.step_log_prob(x) if has(model, Evidence) else model.log_prob(x)


def component_step_log_prob(components: Any, x: Any, context: Any = None) -> jax.Array:
    """`step_log_prob` of K models on N events, `[K, N]`. Override: `ComponentEvidence`."""

    def of(batch: Any) -> jax.Array:
        if not has(batch, Evidence) or taken(batch, context) is not None:
            return component_log_prob(batch, x, context)
        if has(batch, ComponentEvidence):
            return batch.step_log_prob_components(x)
        return jax.vmap(lambda component: component.step_log_prob(x))(batch)

    if isinstance(components, Several) and not any(has(batch, Evidence) for batch in components.members):
        return component_log_prob(components, x, context)
    return joined(components, per_kind(of, components))


def component_e_step(components: Any, x: Any, weight: Any, context: Any = None) -> Any:
    """The statistics of K models on N events with weights `[K, N]`. Override: `ComponentSteps`.

    Of `Several` a tuple, one for each kind.
    """

    def of(batch: Any, weight: jax.Array) -> Any:
        given = taken(batch, context)
        if not isinstance(components, Several):
            return _e_step(batch, x, weight, given)
        # an event of no weight may be outside of this kind's support, where a statistic is infinite
        mass = jnp.sum(weight, axis=0)
        inside = x if not isinstance(x, jax.Array) else _where(mass > 0, x, jnp.argmax(mass))
        statistics = _e_step(batch, inside, weight, given)
        return jax.tree.map(lambda s: jnp.where(jnp.any(mass > 0), s, jnp.zeros_like(s)), statistics)

    found = per_kind(of, components, weight)
    return tuple(found) if isinstance(components, Several) else found[0]


def _e_step(batch: Any, x: Any, weight: Any, context: Any) -> Any:
    if context is None and has(batch, ComponentSteps):
        return batch.e_step_components(x, weight)
    return default_e_step(batch, x, weight, context)


def default_e_step(components: Any, x: Any, weight: Any, context: Any = None) -> Any:
    """Return the E-step statistics of each component, leading axis K: the default for `component_e_step`."""
    given = {} if context is None else {"context": context}
    return jax.vmap(lambda component, w: component.e_step(x, w, **given)[0])(components, weight)


def labelled(joint: jax.Array, label: Any) -> jax.Array:
    """`log p(x, k)` `[K, *N]` where an event's class may be known: -inf in all others; labels `[*N]`, -1 unknown."""
    if label is None:
        return joint
    other = (label >= 0) & (label != jnp.arange(joint.shape[0]).reshape((-1,) + (1,) * label.ndim))
    return jnp.where(other, -jnp.inf, joint)


def check_label(label: Any, k: int, called: str) -> None:
    """Refuses labels of components that are not there with a ModelError."""
    if concrete(label) and np.max(label) >= k:
        raise ModelError(
            "a label names a component that is not there", called=called, expected=f"-1 or 0 to {k - 1}",
            got=f"{np.max(label)}", fix="np.unique(label, return_inverse=True)[1] numbers them from 0",
        )  # fmt: skip


def sample_component(key: Any, components: Any, index: Any, *, context: Any = None, length: int | None = None) -> Any:
    """One event from the component at `index`, written so that it stays small under `vmap` over events.

    Small components are gathered; large ones (networks) would be copied once per event, so there each component draws
    and one draw is kept: K draws instead of one copy of K-th of the parameters. Of `Several` each kind draws.
    """
    if not isinstance(components, Several):
        options = {name: value for name, value in (("context", taken(components, context)), ("length", length))
                   if value is not None}  # fmt: skip
        scalars = sum(int(np.prod(leaf.shape[1:])) for leaf in jax.tree.leaves(components))
        if scalars <= 4096:
            return take(components, index).sample(key, **options)
        return jax.vmap(lambda component: component.sample(key, **options))(components)[index]
    place, drawn = jnp.asarray(components.order)[index], None
    for batch in components.members:
        k = count(batch)
        draw = sample_component(key, batch, jnp.clip(place, 0, k - 1), context=context, length=length)
        drawn = draw if drawn is None else jnp.where(place >= 0, draw, drawn)
        place = place - k
    return drawn


def sample_and_log_prob(
    model: Any, key: Any, context: Any = None, *, length: int | None = None
) -> tuple[Any, jax.Array]:
    """One event of a density and its log-density, in one pass where the model knows how, as a flow does."""
    free = {} if length is None else {"length": length}
    if has(model, Paired):
        return model.sample_and_log_prob(key, context=context, **free)
    x = model.sample(key, context=context, **free)
    return x, model.log_prob(x, context=context)


def features(model: Any, x: Any) -> jax.Array:
    """Events as vectors for clustering, `[N, F]`: the model's own (`Clusterable`), or the flat events as floats."""
    flat = model.features(x) if has(model, Clusterable) else x.reshape((x.shape[0], -1))
    return flat if jnp.issubdtype(flat.dtype, jnp.floating) else flat.astype(jnp.result_type(float))
