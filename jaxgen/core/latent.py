"""The rules for a model made of models: its own term plus the sum over its parts, written once.

A model declares its parts (`core.pytree.part`, `parts`) and says what is its own (`core.protocols`); the functions here
add up both, whatever the parts are made of. Statistics of an E-step carry a part's under the name of its field.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.algebra import (
    Several,
    component_log_prob,
    context_shape,
    count,
    each,
    element,
    inside,
    joined,
    kinds,
    per_kind,
    take,
    taken,
)
from jaxgen.core.errors import DataError, JaxgenWarning, ModelError
from jaxgen.core.inputs import concrete
from jaxgen.core.protocols import (
    Atomic,
    Bound,
    Chain,
    Checked,
    ComponentCount,
    ComponentPrior,
    ComponentRepairs,
    Counted,
    Density,
    Energy,
    Freezable,
    Implicit,
    Joining,
    Kind,
    Kinded,
    Latent,
    Missing,
    ParameterScales,
    Prior,
    Recentred,
    Repairs,
    Weighted,
    has,
)
from jaxgen.core.pytree import (
    float_type,
    is_model,
    is_named_tuple,
    model_fields,
    models_in,
    parameter_count,
    parts_of,
    trainable,
)
from jaxgen.core.tables import Tabular


def _densities(model: Any) -> list[Any]:
    """The parts whose events are in the model's: one of each batch, in the abstract. A chain of states is none."""
    found = [
        one for _, kind, held in parts_of(model)
        for one in (models_in(held) if kind == "part" else map(element, kinds(held)))
    ]  # fmt: skip
    return [one for one in found if has(one, Implicit) and not has(one, Chain)]


# ---- what a model is


#: from the best to the worst: a model of parts is as good as the worst of them
_WORSE = (Kind.EXACT, Kind.ESTIMATE, Kind.LOWER_BOUND, Kind.UNNORMALISED, Kind.NONE)


def likelihood_kind(model: Any) -> Kind:
    """Return the kind of a model's likelihood: as it declares (`Kinded`), or as its protocol and parts imply.

    Example:
        >>> import jaxgen as jg
        >>> str(likelihood_kind(jg.StandardNormal((2,))))
        'exact'
    """
    if isinstance(model, Several):
        return max((likelihood_kind(batch) for batch in model.members), key=_WORSE.index)
    if has(model, Kinded):
        return model.kind
    if has(model, Density):
        parts = (likelihood_kind(one) for one in _densities(model))
        return max((Kind.EXACT, *parts), key=_WORSE.index)
    if has(model, Bound):
        return Kind.LOWER_BOUND
    return Kind.UNNORMALISED if has(model, Energy) else Kind.NONE


def has_density(model: Any) -> bool:
    """True where `log_prob` is what the model is scored by: it is exact, or an estimate, or there is no other bound."""
    kind = likelihood_kind(model)
    by_itself = kind in (Kind.EXACT, Kind.ESTIMATE) or (kind is Kind.LOWER_BOUND and not has(model, Bound))
    return by_itself and has(model, Density)


def has_bound(model: Any) -> bool:
    """True where `elbo` is what the model is scored by."""
    return likelihood_kind(model) is Kind.LOWER_BOUND and has(model, Bound)


def supports_em(model: Any) -> bool:
    """True where a model, and all densities that it is made of, have an E- and an M-step."""
    return has(model, Latent) and all(map(supports_em, _densities(model)))


def accepts_missing(model: Any) -> bool:
    """True where NaN in an event means an entry that was not seen, and is summed out (`Missing`).

    A model made of densities by an E-step accepts what they accept.
    """
    if isinstance(model, Several):
        return all(map(accepts_missing, model.members))
    if has(model, Missing):
        return bool(model.missing)
    parts = _densities(model)
    return has(model, Latent) and bool(parts) and all(map(accepts_missing, parts))


def schema(model: Any) -> Any:
    """Return the columns that a model's events are, where it or a part of the same events knows them (`Tabular`).

    Example:
        >>> import jaxgen as jg
        >>> schema(jg.StandardNormal((2,))) is None
        True
    """
    if isinstance(model, Several):
        return next((known for known in map(schema, model.members) if known is not None), None)
    if has(model, Tabular):
        return model.schema
    parts = _densities(model) if has(model, Latent) else []
    return next((known for known in map(schema, parts) if known is not None), None)


def unseen(model: Any, name: str = "model") -> str:
    """Code for a model like this one that takes NaN as not seen; empty where there is none."""
    if any(field == "missing" and kind == "static" for field, kind, _ in _fields(model)):
        return f"dataclasses.replace({name}, missing=True)"
    for part, kind, held in parts_of(model):
        if kind == "parts" and (inner := unseen(held, f"{name}.{part}")):
            return f"dataclasses.replace({name}, {part}={inner})"
    return ""


def _fields(model: Any) -> list[tuple[str, str, Any]]:
    return model_fields(model) if dataclasses.is_dataclass(model) else []


def joins(model: Any) -> bool:
    """True where the E-step of a model takes rows of several sequences, and is faster for it (`Joining`)."""
    return has(model, Joining) and bool(model.joins)


def check_data(model: Any, x: Any) -> None:
    """Lets a model refuse data outside its support, which their shape does not tell: itself (`Checked`), or its
    components, of which one has to take each event.

    Raises:
        DataError: by the model.
    """
    if has(model, Checked):
        model.check_data(x)
        return
    for _, kind, held in parts_of(model):
        if kind == "parts":
            _check_components(held, x)


def _abstract(model: Any) -> bool:
    """Tell whether a model has shapes in place of numbers (`algebra.element`)."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(model))


def _check_components(components: Any, x: Any) -> None:
    if not isinstance(components, Several):
        check_data(element(components), x)
        return
    refused: DataError | None = None
    for batch in components.members:
        try:
            check_data(element(batch), x)
        except DataError as error:
            refused = refused or error
    # nothing is known of models in the abstract, as those are that a batch of models with such parts is made of
    if not concrete(x, components) or _abstract(components):
        return
    _warn_of_atoms(components, x)
    if refused is None or context_shape(element(components)) is not None:
        return  # at contexts that are not at hand nobody knows what a kind takes
    # what one kind refuses another may take
    if np.isneginf(np.max(np.asarray(component_log_prob(components, jnp.asarray(x))), axis=0)).any():
        raise refused


def _warn_of_atoms(components: Several, x: Any) -> None:
    """Says that the probability of a point stands beside a density of real numbers at that point: units are mixed."""
    points = [one for one in components.members if has(one, Atomic)]
    if not points or not isinstance(x, (np.ndarray, jax.Array)) or context_shape(element(components)) is not None:
        return
    on = [np.asarray(each(lambda one: one.atoms(jnp.asarray(x)), batch)) for batch in points]
    at = np.concatenate(on).any(axis=0)
    if not at.any():
        return
    key = jax.random.key(0)
    for batch in components.members:
        dtype = jax.eval_shape(lambda one: one.sample(key), element(batch)).dtype
        if has(batch, Atomic) or not jnp.issubdtype(dtype, jnp.floating):
            continue
        if np.isfinite(np.asarray(component_log_prob(batch, jnp.asarray(x)[at][:1]))).any():
            name = type(batch).__name__
            warnings.warn(
                f"{int(at.sum())} events are at a point mass, where {name} has a density too: if its events are real "
                f"numbers, jaxgen.Punctured.from_density({name.lower()}, value) leaves the point to the point mass",
                JaxgenWarning, stacklevel=4,
            )  # fmt: skip


# ---- the M-step


def has_mass(mass: jax.Array) -> jax.Array:
    """Return whether a total weight is more than nothing: a sum can be divided by it, and by it times a small square.

    No share of an event is too small to count, whatever the weights are measured in.

    Example:
        >>> has_mass(jnp.array([1.0, 1e-12, 0.0, 1e-30])).tolist()
        [True, True, False, False]
    """
    return mass > float(jnp.finfo(mass.dtype).tiny) ** 0.5


def maximize(model: Any, statistics: Any) -> tuple[Any, jax.Array]:
    """`m_step`, and how many dead or singular parts it repaired by its stated rule (`Repairs`).

    A part of a model that got no mass is the business of the model that it is a part of: `component_maximize`.
    """
    if has(model, Repairs):
        return model.maximize(statistics)
    return model.m_step(statistics), jnp.zeros((), jnp.int32)


def component_maximize(components: Any, statistics: Any, mass: Any = None) -> tuple[Any, jax.Array]:
    """`maximize` of each of K models, repairs summed. Override: `ComponentRepairs`.

    Args:
        components: K models.
        statistics: of their E-steps, leading axis K.
        mass: `[K]`, the total weight that each of them got, or None where nobody knows. One that got none keeps its
            parameters, whatever its M-step makes of sums of zeros, and counts as repaired; an override sees to that
            itself.
    """
    if isinstance(components, Several):
        pairs = per_kind(lambda batch, mass: (batch, mass), components, mass)
        done = [component_maximize(batch, s, m) for (batch, m), s in zip(pairs, statistics, strict=True)]
        repaired = sum((repaired for _, repaired in done), jnp.zeros((), jnp.int32))
        return Several(tuple(batch for batch, _ in done), components.order), repaired
    if has(components, ComponentRepairs):
        return components.maximize_components(statistics, mass)
    models, repaired = jax.vmap(maximize)(components, statistics)
    if mass is None:
        return models, jnp.sum(repaired)
    alive = has_mass(mass)
    models = jax.tree.map(lambda new, old: jnp.where(_per_model(alive, old), new, old), models, components)
    return models, jnp.sum(jnp.where(alive, repaired, 1))


def _per_model(flag: jax.Array, leaf: jax.Array) -> jax.Array:
    """`[K]` in the shape that broadcasts against a leaf `[K, ...]`."""
    return flag.reshape(flag.shape + (1,) * (leaf.ndim - 1))


def freeze(model: Any, statistics: Any, frozen: Any) -> Any:
    """The statistics as an M-step has to see them when some parameters are frozen at their values (`Freezable`).

    Args:
        model: the model that made the statistics.
        statistics: of its E-step.
        frozen: a model of bools, one for each number of each leaf.
    """
    own = model.freeze(statistics, frozen) if has(model, Freezable) else statistics
    return _in_parts(model, own, freeze, component_freeze, frozen)


def component_freeze(components: Any, statistics: Any, frozen: Any) -> Any:
    """`freeze` of each of K models."""
    if isinstance(components, Several):
        return tuple(map(component_freeze, components.members, statistics, frozen.members))
    return jax.vmap(freeze)(components, statistics, frozen)


def recentre(model: Any, old: Any, statistics: Any) -> Any:
    """Statistics that `old` made, as `model` would write them, so that sums over both can go on (`Recentred`)."""
    own = model.recentre(old, statistics) if has(model, Recentred) else statistics
    return _in_parts(model, own, lambda m, s, o: recentre(m, o, s), lambda m, s, o: component_recentre(m, o, s), old)


def component_recentre(components: Any, old: Any, statistics: Any) -> Any:
    """`recentre` of each of K models."""
    if isinstance(components, Several):
        return tuple(map(component_recentre, components.members, old.members, statistics))
    return jax.vmap(recentre)(components, old, statistics)


def _in_parts(model: Any, statistics: Any, one: Any, many: Any, other: Any) -> Any:
    """Statistics with those of each part, under its field's name, changed by `one` or `many(part, its, other's)`."""
    new = {}
    for name, kind, held in parts_of(model):
        if not is_named_tuple(statistics) or name not in statistics._fields:
            continue
        given = held, getattr(statistics, name), getattr(other, name)
        several = kind == "part" and isinstance(held, tuple)
        new[name] = tuple(map(one, *given)) if several else (one if kind == "part" else many)(*given)
    return statistics._replace(**new) if new else statistics


# ---- priors and parameters


def log_prior(model: Any) -> jax.Array:
    """Return the log density of all priors (`Prior`), in nats up to a constant; zero without any.

    An M-step maximises the expected log-likelihood plus this.
    """
    own = model.log_prior() if has(model, Prior) else jnp.zeros((), float_type(model))
    for _, kind, held in parts_of(model):
        own = own + (component_log_prior(held) if kind == "parts" else sum(map(log_prior, models_in(held))))
    return own


def component_log_prior(components: Any) -> jax.Array:
    """`log_prior` of K models, summed. Override: `ComponentPrior`, where tied parameters count once."""
    if isinstance(components, Several):
        return sum(map(component_log_prior, components.members))  # type: ignore[return-value]
    if has(components, ComponentPrior):
        total = components.log_prior_components()
    elif has(components, Prior):
        total = jnp.sum(jax.vmap(lambda one: one.log_prior())(components))
    else:
        total = jnp.zeros((), float_type(components))
    for _, kind, held in parts_of(components):
        if kind == "parts":
            total = total + jnp.sum(jax.vmap(component_log_prior)(held))
        else:
            total = total + sum(map(component_log_prior, models_in(held)))
    return total


def free_parameters(model: Any) -> int:
    """The number of free parameters, for information criteria: of the model's own fields (`Counted`, or all that
    train) and of its parts.

    Example:
        >>> import jaxgen as jg
        >>> free_parameters(jg.Mixture.from_components(jg.Poisson.from_values([1.0, 5.0])))
        3
    """
    total = _own_parameters(model)
    for _, kind, held in parts_of(model):
        total += component_free_parameters(held) if kind == "parts" else sum(map(free_parameters, models_in(held)))
    return total


def _own_parameters(model: Any) -> int:
    if has(model, Counted):
        return int(model.free_parameters)
    return parameter_count(model) - sum(parameter_count(held) for _, _, held in parts_of(model))


def component_free_parameters(components: Any) -> int:
    """`free_parameters` of K models. Override: `ComponentCount`, where tied parameters count once."""
    if isinstance(components, Several):
        return sum(map(component_free_parameters, components.members))
    if has(components, ComponentCount):
        return int(components.free_parameters_components)
    if parts := parts_of(components):
        k = count(components)
        total = k * _own_parameters(element(components))
        for _, kind, held in parts:
            inner = [held] if kind == "parts" else models_in(held)
            total += sum(k * component_free_parameters(element(one)) if kind == "parts" else
                         component_free_parameters(one) for one in inner)  # fmt: skip
        return total
    if _abstract(components) or not concrete(components):
        return count(components) * free_parameters(element(components))
    # one after the other: what is frozen at zero may differ between them
    host = jax.tree.map(np.asarray, components)
    return sum(free_parameters(take(host, i)) for i in range(count(components)))


def parameter_scales(model: Any) -> tuple[Any, ...]:
    """The scale of each trained leaf, in the order of the leaves of `partition(model)[0]`: an array that broadcasts to
    it, or None for one whose numbers have no units (`ParameterScales`).

    Example:
        >>> import jaxgen as jg
        >>> scales = parameter_scales(jg.DiagonalGaussian.from_values([0.0, 0.0], [1e-6, 1e3]))
        >>> [None if scale is None else [f"{s:.3g}" for s in scale] for scale in scales]
        [['1e-06', '1e+03'], None]
    """

    def scaled(value: Any) -> Any:
        if not is_model(value):
            return 1.0
        known = value.parameter_scales() if has(value, ParameterScales) else {}
        return dataclasses.replace(value, **{
            name: known[name] if name in known else everywhere(held)
            for name, kind, held in model_fields(value) if kind != "static"
        })  # fmt: skip

    def everywhere(tree: Any) -> Any:
        return jax.tree.map(scaled, tree, is_leaf=is_model)

    trained = trainable(model)
    scales = jax.tree.map(lambda train, scale: scale if train else None, trained, everywhere(model))
    return tuple(None if isinstance(scale, float) else scale for scale in jax.tree.leaves(scales))


# ---- bounds as parts


def check_parts(components: Any, called: str) -> None:
    """Refuses models whose density is known up to a constant only: it would weigh them against each other by nothing.

    Raises:
        ModelError: energies.
    """
    if likelihood_kind(components) is Kind.UNNORMALISED:
        raise ModelError(
            "the density of a part is known up to a constant only", called=called, got=type(components).__name__,
            expected="parts with log_prob, or with an unbiased estimate of it, iwae",
            fix="a Boltzmann machine with one more layer, jaxgen.DeepBoltzmann, in place of a mixture of machines",
        )  # fmt: skip


def estimate(model: Any, key: Any, x: Any, context: Any = None, samples: int = 1) -> jax.Array:
    """The logarithm of an unbiased estimate of p(x), `[*batch]` nats: `log_prob` itself where that is exact.

    `log (1 / S) sum_s p(x, z_s) / q(z_s | x)`, draws with their own weights: the exponential has the mean p(x), which a
    bound with a divergence in closed form has not. So sums of such estimates, as mixtures and chains make them, are
    unbiased again, and their logarithm is a lower bound in the mean (Jensen).

    Raises:
        ModelError: a model that has neither (`Weighted`).
    """
    if likelihood_kind(model) is Kind.EXACT:
        return model.log_prob(x, context=context)
    if has(model, Weighted):
        return model.iwae(key, x, samples=samples, context=context)
    raise ModelError(
        "the likelihood of a part can be neither computed nor estimated", called=f"elbo of a model with a part of "
        f"{type(model).__name__}", expected="parts with log_prob, or with iwae", got=str(likelihood_kind(model)),
    )  # fmt: skip


def bound(model: Any, key: Any, x: Any, context: Any = None) -> jax.Array:
    """The model's lower bound on `log p(x)`, `[*batch]` nats: `log_prob` itself where that is exact.

    Raises:
        ModelError: a model that has neither.
    """
    if likelihood_kind(model) is not Kind.EXACT and has(model, Bound):
        return model.elbo(key, x, context=context)
    return estimate(model, key, x, context)


def component_estimate(components: Any, key: Any, x: Any, context: Any = None, samples: int = 1) -> jax.Array:
    """`estimate` of K models, `[K, N]`, with draws of their own."""

    def of(batch: Any, keys: Any) -> jax.Array:
        given = taken(batch, context)
        if likelihood_kind(batch) is Kind.EXACT:
            score = lambda x: component_log_prob(batch, x, given)  # noqa: E731
            return inside(score, x) if isinstance(components, Several) and isinstance(x, jax.Array) else score(x)
        return jax.vmap(lambda component, key: estimate(component, key, x, given, samples))(batch, keys)

    return joined(components, per_kind(of, components, jax.random.split(key, count(components))))
