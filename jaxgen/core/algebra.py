"""Many models at once: K models are one model whose leaves carry a leading axis K.

The defaults map over that axis. A family overrides them where it knows better (one matmul for Gaussians, a gather for
categoricals) by a method of the name given here; a law in the suite holds every override to its default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import concrete
from jaxgen.core.pytree import difference, float_type, parameter_count, registered
from jaxgen.core.sequences import Joined, Sequences, padded


def count(models: Any) -> int:
    """The length of the leading axis of a batch of models.

    Example:
        >>> count({"mean": jnp.zeros((3, 2))})
        3
    """
    return int(np.shape(jax.tree.leaves(models)[0])[0])


def take(models: Any, index: Any) -> Any:
    """The model at `index` of a batch of models.

    Example:
        >>> take({"mean": jnp.arange(6.0).reshape(3, 2)}, 1)["mean"].shape
        (2,)
    """
    return jax.tree.map(lambda leaf: leaf[index], models)


def stack(models: Any) -> Any:
    """A batch of models from a sequence of models of one structure.

    Raises:
        ModelError: no models, or models of several kinds, structures or shapes.

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
                fix="[jaxgen.Poisson.from_rate(1.0), jaxgen.Poisson.from_rate(5.0)]",
            )  # fmt: skip
        for i, other in enumerate(models):
            if found := difference(models[0], other):
                raise ModelError(
                    "the models are of several kinds or shapes", called=called,
                    expected="models of one class, one structure and one shape, which differ in their numbers",
                    got=f"in models 0 and {i}: {found}"[:300], fix=_of_one_kind(models[0], other),
                )  # fmt: skip
        models = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    axes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(models)}
    if len(axes) != 1 or () in axes:
        raise ModelError(
            "that is no batch of models", called=called, got=repr(models)[:300],
            expected="a list of models, or one whose arrays all have a leading axis with an entry for each",
            fix="a list of one model" if axes else "models with parameters, such as DiagonalGaussian",
        )  # fmt: skip
    return models


def _of_one_kind(first: Any, other: Any) -> str:
    """How to make one kind of two."""
    if type(first) is not type(other):
        return f"[m for m in models if isinstance(m, {type(first).__name__})], all of one class"
    return f"make each by the same call, with the same options: {type(first).__name__}.init(key, x, ...)"


@registered
@dataclasses.dataclass(frozen=True)
class Events:
    """Events made ready for many E-steps: what a family computes of them again and again, once.

    Args:
        x: `[N, *event]`, or `Sequences`.
        columns: `[F, N]`, functions of the events in which the likelihoods are linear, or of steps of events, `[F, N,
            T]`; None makes those of a chunk when it is its turn.
        center: the point that the columns are taken around, of the shape of what they are functions of.
        make: `x - center [M, *center] -> columns [F, M]`, static.
    """

    x: Any
    columns: jax.Array | None
    center: jax.Array
    make: Callable[[jax.Array], jax.Array] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    def cut(self, rows: Callable[..., jax.Array]) -> Events:
        """The rows of a chunk, with their columns: `rows(array, axis)` cuts them out of an array."""
        x = jax.tree.map(lambda array: rows(array, 0), self.x)
        columns = make_columns(self.make, x, self.center) if self.columns is None else rows(self.columns, 1)
        return Events(x, columns, self.center, self.make)

    def steps(self) -> Events:
        """Steps of events as events of their own, `[N, T, ...] -> [N T, ...]`; of `Sequences` all that are padded."""
        values = padded(self.x)
        columns = None if self.columns is None else self.columns.reshape((len(self.columns), -1))
        return Events(values.reshape((-1, *self.center.shape)), columns, self.center, self.make)

    def along(self, axis: Any, none: Any) -> Events:
        """In the place of each array `axis`, as the first or the second of two, where events run; else `none`."""
        return dataclasses.replace(self, x=axis(0), columns=None if self.columns is None else axis(1), center=none)


def make_columns(make: Callable[[jax.Array], jax.Array], x: Any, center: jax.Array) -> jax.Array:
    """Columns `[F, *lead]` of events `[*lead, *center]`."""
    values = padded(x)
    lead = values.shape[: values.ndim - center.ndim]
    return make(values.reshape((-1, *center.shape)) - center).reshape((-1, *lead))


def with_columns(components: Any, x: Any, limit: int) -> Events:
    """`Events` for K components that have columns, around their mean, and kept where they fit into `limit` bytes.

    Args:
        components: K components, whose events are those of x or steps of them.
        x: `[N, *event]` or `[N, T, *event]`, or `Sequences`.
        limit: bytes.
    """
    make, values = type(components).columns, padded(x)
    values = values.astype(jnp.result_type(values, float_type(components)))
    x = dataclasses.replace(x, x=values) if isinstance(x, Sequences) else values
    center = _center(x, len(element(components).event_shape))
    columns = jax.eval_shape(lambda x, center: make_columns(make, x, center), x, center)
    keep = columns.size * columns.dtype.itemsize <= limit
    return Events(x, make_columns(make, x, center) if keep else None, center, make)


def _center(x: Any, axes: int) -> jax.Array:
    """The mean of events of so many axes, of `Sequences` that of the steps that were seen."""
    values = padded(x)
    values = values.reshape((-1, *values.shape[values.ndim - axes :]))
    if not isinstance(x, Sequences):
        # around one of them: the mean of large numbers is only as exact as they are
        return values[0] + jnp.mean(values - values[0], axis=0)
    seen = x.valid.reshape(-1)
    first = values[jnp.argmax(seen)]
    away = jnp.where(seen.reshape((-1,) + (1,) * axes), values - first, 0)
    return first + jnp.sum(away, axis=0) / jnp.maximum(jnp.sum(seen), 1).astype(values.dtype)


def has_columns(components: Any) -> bool:
    """Whether K components have a faster form, with the methods `columns` and `ready(center, events)`."""
    return hasattr(type(components), "columns") and not accepts_missing(components)


def prepare(model: Any, x: Any, limit: int = 0) -> Any:
    """Events as the E-steps of a model like best to see them: `Events`, or x as it is.

    A model that has a faster form has the methods `prepare(x, limit)` and `ready(events)`, which gives the same model
    in that form; both are exact. Of the latter `finish(statistics)` makes the model's own statistics of sums.

    Args:
        model: a model, or one in the abstract: only its structure counts.
        x: `[N, *event]`.
        limit: bytes that may be spent on columns that are kept.
    """
    method = getattr(type(model), "prepare", None)
    return x if method is None or isinstance(x, Events) else method(model, x, limit)


def joins(model: Any) -> bool:
    """True where the E-step of a model takes rows of several sequences, and is faster for it: the model's `joins`."""
    return bool(getattr(model, "joins", False))


def counted(x: Any) -> Any:
    """How many events there are in each row of x: one, but for sequences that were joined."""
    x = x.x if isinstance(x, Events) else x
    return x.count if isinstance(x, Joined) else 1


def ready(model: Any, x: Any) -> Any:
    """A model in the form that goes with prepared events; any other as it is."""
    return type(model).ready(model, x) if isinstance(x, Events) else model


def narrow(model: Any, x: Any) -> jax.Array:
    """Whether a model's likelihood loses digits to the columns of prepared events; one answer for all of a `vmap`."""
    return ready(model, x).precise


def component_log_prob(components: Any, x: Any, context: Any = None) -> jax.Array:
    """`log p_k(x_n)` of K models on N events, `[K, N]`. Override: `log_prob_components(x)`."""
    override = getattr(type(components), "log_prob_components", None)
    if override is not None and context is None:
        return override(components, x)
    return default_log_prob(components, x, context)


#: events scored at once by `each_log_prob`: what K components make of them stays in a core's cache
BLOCK = 4096


def each_log_prob(components: Any, x: Any, context: Any = None, score: Any = None) -> Any:
    """`log p_k(x_n)` of K models on many events, events first, `[N, K]`: block by block, so that no block leaves the
    cache.

    Args:
        components: K models.
        x: `[N, *event]`, or `Events` where the components are ready for them.
        context: `[N, *context]` or None.
        score: `component_log_prob`, which is the default, or `component_step_log_prob`.
    """
    score, n = score or component_log_prob, x.shape[0]
    one = lambda events, given: score(components, events, given).T  # noqa: E731
    if n <= BLOCK:
        return one(x.cut(lambda array, _: array) if isinstance(x, Events) else x, context)
    size = next((size for size in range(BLOCK, BLOCK // 2, -1) if n % size == 0), BLOCK)
    starts = np.minimum(np.arange(0, n, size), n - size)  # the last block is moved back to end at n

    def block(start: Any) -> jax.Array:
        rows = lambda array, axis=0: jax.lax.dynamic_slice_in_dim(array, start, size, axis)  # noqa: E731
        return one(x.cut(rows) if isinstance(x, Events) else rows(x), None if context is None else rows(context))

    scored = jax.lax.map(block, jnp.asarray(starts))
    if n % size == 0:
        return scored.reshape((n, -1))
    rest = n - (len(starts) - 1) * size
    return jnp.concatenate([scored[:-1].reshape((n - rest, -1)), scored[-1, size - rest :]])


def default_log_prob(components: Any, x: Any, context: Any = None) -> jax.Array:
    """What `component_log_prob` is without an override."""
    return jax.vmap(lambda component: component.log_prob(x, context=context))(components)


def step_log_prob(model: Any, x: Any) -> jax.Array:
    """What `e_step` returns beside the statistics, `[N]` nats: `log_prob`, or the model's own `step_log_prob(x)`.

    A model with a posterior over its parameters has one: its `log_prob` is the predictive density, its E-step bounds
    the evidence from below, by these terms and by `log_prior`.
    """
    method = getattr(type(model), "step_log_prob", None)
    return model.log_prob(x) if method is None else method(model, x)


def component_step_log_prob(components: Any, x: Any, context: Any = None) -> jax.Array:
    """`step_log_prob` of K models on N events, `[K, N]`. Override: `step_log_prob_components(x)`."""
    if context is not None or not hasattr(type(components), "step_log_prob"):
        return component_log_prob(components, x, context)
    if override := getattr(type(components), "step_log_prob_components", None):
        return override(components, x)
    return jax.vmap(lambda component: component.step_log_prob(x))(components)


def component_e_step(components: Any, x: Any, weight: Any, context: Any = None) -> Any:
    """The statistics of K models on N events with weights `[K, N]`. Override: `e_step_components(x, weight)`."""
    override = getattr(type(components), "e_step_components", None)
    if override is not None and context is None:
        return override(components, x, weight)
    return default_e_step(components, x, weight, context)


def default_e_step(components: Any, x: Any, weight: Any, context: Any = None) -> Any:
    """What `component_e_step` is without an override."""
    given = {} if context is None else {"context": context}
    return jax.vmap(lambda component, w: component.e_step(x, w, **given)[0])(components, weight)


def maximize(model: Any, statistics: Any) -> tuple[Any, jax.Array]:
    """`m_step`, and how many dead or singular parts it repaired by its stated rule.

    A model that repairs has a method `maximize` which returns both, and `m_step` is its first half. A part of a model
    that got no mass is the business of the model that it is a part of: `component_maximize`.
    """
    method = getattr(type(model), "maximize", None)
    return (model.m_step(statistics), jnp.zeros((), jnp.int32)) if method is None else method(model, statistics)


def component_maximize(components: Any, statistics: Any, mass: Any = None) -> tuple[Any, jax.Array]:
    """`maximize` of each of K models, repairs summed. Override: `maximize_components(statistics, mass)`, for parameters
    that are tied, or parts with mass of their own.

    Args:
        components: K models.
        statistics: of their E-steps, leading axis K.
        mass: `[K]`, the total weight that each of them got, or None where nobody knows. One that got none keeps its
            parameters, whatever its M-step makes of sums of zeros, and counts as repaired; an override sees to that
            itself.
    """
    if override := getattr(type(components), "maximize_components", None):
        return override(components, statistics, mass)
    models, repaired = jax.vmap(maximize)(components, statistics)
    if mass is None:
        return models, jnp.sum(repaired)
    alive = mass > float(jnp.finfo(mass.dtype).tiny) ** 0.5  # as `ops.stable.has_mass`
    models = jax.tree.map(lambda new, old: jnp.where(_per_model(alive, old), new, old), models, components)
    return models, jnp.sum(jnp.where(alive, repaired, 1))


def _per_model(flag: jax.Array, leaf: jax.Array) -> jax.Array:
    """`[K]` in the shape that broadcasts against a leaf `[K, ...]`."""
    return flag.reshape(flag.shape + (1,) * (leaf.ndim - 1))


def accepts_missing(model: Any) -> bool:
    """True where NaN in an event means an entry that was not seen, and is marginalised: the model's own `missing`."""
    return bool(getattr(model, "missing", False))


def unseen(model: Any, name: str = "model") -> str:
    """Code for a model like this one that takes NaN as not seen; empty where there is none."""
    fields = {f.name for f in dataclasses.fields(model)} if dataclasses.is_dataclass(model) else set()
    if "missing" in fields:
        return f"dataclasses.replace({name}, missing=True)"
    for part in fields & {"components", "emissions"}:
        if inner := unseen(getattr(model, part), f"{name}.{part}"):
            return f"dataclasses.replace({name}, {part}={inner})"
    return ""


def accepts_label(model: Any) -> bool:
    """True where events may come with a label, the latent class that is known of them: models with `check_label`."""
    return hasattr(type(model), "check_label")


def hold(model: Any, statistics: Any, held: Any) -> Any:
    """The statistics as an M-step has to see them when some parameters are held at their values.

    Args:
        model: the model that made the statistics.
        statistics: of its E-step.
        held: a model of bools, one for each number of each leaf; True is held.

    The caller puts the held numbers back after the M-step. That alone is the constrained maximum where the M-step finds
    its parameters apart from each other; a family in which one depends on another (a covariance on the mean it is taken
    around) has a method `hold(statistics, held)`, which makes the others see the held value.
    """
    method = getattr(type(model), "hold", None)
    return statistics if method is None else method(model, statistics, held)


def component_hold(components: Any, statistics: Any, held: Any) -> Any:
    """`hold` of each of K models."""
    return jax.vmap(hold)(components, statistics, held)


def rebase(model: Any, old: Any, statistics: Any) -> Any:
    """Statistics that `old` made, as `model` would write them, so that sums over both can go on.

    Only families whose statistics refer to their own parameters (moments around the mean) have a method
    `rebase(old, statistics)`; for all others they are the same.
    """
    method = getattr(type(model), "rebase", None)
    return statistics if method is None else method(model, old, statistics)


def component_rebase(components: Any, old: Any, statistics: Any) -> Any:
    """`rebase` of each of K models."""
    return jax.vmap(rebase)(components, old, statistics)


def log_prior(model: Any) -> jax.Array:
    """What an M-step maximises beside the expected log-likelihood, in nats: the log density of its priors, up to a
    constant; zero for a model without `log_prior()`.
    """
    method = getattr(type(model), "log_prior", None)
    return jnp.zeros((), float_type(model)) if method is None else method(model)


def component_log_prior(components: Any) -> jax.Array:
    """`log_prior` of K models, summed. Override: `log_prior_components()` (tied parameters count once)."""
    if override := getattr(type(components), "log_prior_components", None):
        return override(components)
    return jnp.sum(jax.vmap(log_prior)(components))


def free_parameters(model: Any) -> int:
    """The number of free parameters, for information criteria: the model's own `free_parameters`, or all it trains."""
    own = getattr(model, "free_parameters", None)
    return parameter_count(model) if own is None else int(own)


def component_free_parameters(components: Any) -> int:
    """`free_parameters` of K models. Override: `free_parameters_components` (tied parameters count once)."""
    own = getattr(components, "free_parameters_components", None)
    if own is not None:
        return int(own)
    abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(components))
    if abstract or not concrete(components):
        return count(components) * free_parameters(element(components))
    # one after the other: what is held at zero may differ between them
    host = jax.tree.map(np.asarray, components)
    return sum(free_parameters(take(host, i)) for i in range(count(components)))


def sample_component(key: Any, components: Any, index: Any, **options: Any) -> jax.Array:
    """One event from the component at `index`, written so that it stays small under `vmap` over events.

    Small components are gathered; large ones (networks) would be copied once per event, so there each component draws
    and one draw is kept: K draws instead of one copy of K-th of the parameters.
    """
    leaves = jax.tree.leaves(components)
    scalars = sum(int(np.prod(leaf.shape[1:])) for leaf in leaves)
    if scalars <= 4096:
        return take(components, index).sample(key, **options)
    draws = jax.vmap(lambda component: component.sample(key, **options))(components)
    return draws[index]


def sample_and_log_prob(model: Any, key: Any, context: Any = None, **options: Any) -> tuple[Any, jax.Array]:
    """One event of a density and its log-density, in one pass where the model knows how, as a flow does."""
    if hasattr(model, "sample_and_log_prob"):
        return model.sample_and_log_prob(key, context=context, **options)
    x = model.sample(key, context=context, **options)
    return x, model.log_prob(x, context=context)


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


def has_features(model: Any) -> bool:
    """True for a model with `features(x)` of its own, vectors whose distances have no units."""
    return hasattr(type(model), "features")


def features(model: Any, x: Any) -> jax.Array:
    """Events as vectors for clustering, `[N, F]`: the model's own `features(x)`, or the flat events as floats."""
    method = getattr(type(model), "features", None)
    flat = method(model, x) if method else x.reshape((x.shape[0], -1))
    return flat if jnp.issubdtype(flat.dtype, jnp.floating) else flat.astype(jnp.result_type(float))


def supports_em(model: Any) -> bool:
    """True where a model and all its parts have `e_step` and `m_step`.

    A model made of models names them in a property `latent_parts`.
    """
    own = hasattr(model, "e_step") and hasattr(model, "m_step")
    return own and all(supports_em(part) for part in getattr(model, "latent_parts", ()))


def check_data(model: Any, x: Any) -> None:
    """Lets a model refuse data outside its support, which their shape does not tell, by its own `check_data(x)`."""
    method = getattr(type(model), "check_data", None)
    if method is not None:
        method(model, x)
