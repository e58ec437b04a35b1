"""Laws: what holds for every model, as functions; `check` runs those that apply to yours.

A law takes a model, events of it and their contexts, and raises an AssertionError that says what is broken. The suite
runs them on every family of the library.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, energies, latent, protocols
from jaxgen.core.compiled import compiled
from jaxgen.core.errors import DataError, ModelError, ShapeError
from jaxgen.core.files import load, save
from jaxgen.core.inputs import as_batch
from jaxgen.core.methods import batch_axes, check_key
from jaxgen.core.protocols import (
    Classifier,
    ComponentScores,
    ComponentSteps,
    Density,
    Energy,
    Evidence,
    Implicit,
    Labelled,
    Latent,
    Paired,
    Quantiled,
    Recentred,
    Repairs,
    Sequential,
    Valued,
    has,
)
from jaxgen.core.pytree import combine, partition, parts_of
from jaxgen.models.latent.mixture import Mixture
from jaxgen.ops.mixing import has_quantiles

#: what two float32 programs of one computation may differ by: a handful of roundings
ROUNDING: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-5}
#: sums of some events in another order
SUMS: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
#: draws for a law about means, and the normal bound on one of them: only errors reach it
DRAWS, FAR = 2000, 7.0


def answers(model: Any) -> bool:
    """Return whether a model has a number for an event."""
    return latent.has_density(model) or latent.has_bound(model) or has(model, Energy)


def answer(model: Any, x: Any, context: Any = None, key: Any = None) -> jax.Array:
    """Return the number per event that a model is about: `log_prob`, one draw of its bound, or its energy."""
    if latent.has_density(model):
        return model.log_prob(x, context=context)
    if latent.has_bound(model):
        return model.elbo(jax.random.key(1) if key is None else key, x, context=context)
    return model.energy(x)


def same_leaves(a: Any, b: Any) -> None:
    """Assert that two trees are equal to the last bit."""
    kinds: list[Any] = [jax.tree.structure(tree) for tree in (a, b)]
    assert kinds[0] == kinds[1], "another structure"
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype, f"dtype {x.dtype} and {y.dtype}"
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def _half(tree: Any, first: bool) -> Any:
    return jax.tree.map(lambda a: a[: len(a) // 2] if first else a[len(a) // 2 :], tree)


def draws_are_events(model: Any, x: Any, context: Any = None) -> None:
    """Draws have the shape of an event."""
    free = {"length": x.shape[1]} if None in model.event_shape else {}
    drawn = model.sample(jax.random.key(2), (len(x),), context=context, **free)
    assert drawn.shape == x.shape, f"draws {drawn.shape} for events {x.shape}"


def batches_are_one_by_one(model: Any, x: Any, context: Any = None) -> None:
    """Events in a batch get the numbers that they get alone, each with its context; a bound draws for each."""
    if latent.has_bound(model):
        return
    whole = answer(model, x, context)
    assert whole.shape == (len(x),), f"{whole.shape} numbers for {len(x)} events"
    for i in range(min(3, len(x))):
        alone = answer(model, x[i], None if context is None else context[i])
        np.testing.assert_allclose(alone, whole[i], **ROUNDING)


def jit_is_eager(model: Any, x: Any, context: Any = None) -> None:
    """Inside of `jit` a model says what it says outside."""
    np.testing.assert_allclose(jax.jit(answer)(model, x, context), answer(model, x, context), **ROUNDING)


def vmap_is_a_loop(model: Any, x: Any, context: Any = None, others: tuple[Any, ...] = ()) -> None:
    """A batch of models under `vmap` says what each of them says."""
    models = [model, *(others or (model,))]
    if not jax.tree.leaves(model):
        return
    together = jax.vmap(answer, in_axes=(0, None, None))(algebra.stack(models), x, context)
    for one, row in zip(models, together, strict=True):
        np.testing.assert_allclose(row, answer(one, x, context), **ROUNDING)


def wrong_shapes_are_refused(model: Any, x: Any, context: Any = None) -> None:
    """Events of another shape are an error that says what was expected; of single numbers every shape is a batch."""
    if not model.event_shape:
        return
    wrong = () if model.event_shape[-1:] == (None,) else (*x.shape[:-1], x.shape[-1] + 1)
    try:
        answer(model, jnp.zeros(wrong, x.dtype), context)
    except ShapeError:
        return
    raise AssertionError(f"events of shape {wrong} were taken for {model.event_shape}")


def nan_is_never_silent(model: Any, x: Any, context: Any = None) -> None:
    """An event with NaN in it is an error, and inside of `jit` no finite number, unless it is taken for not seen."""
    if not jnp.issubdtype(x.dtype, jnp.floating) or latent.accepts_missing(model):
        return
    bad = jnp.asarray(x).at[(0,) * x.ndim].set(jnp.nan)
    assert not jnp.isfinite(jax.jit(answer)(model, bad, context)[0]), "a finite number for an event with NaN in it"
    try:
        found = answer(model, bad, context)[0]
    except DataError:
        return
    assert found == -jnp.inf, "no word of an event with NaN in it"


def files_keep_models(model: Any, x: Any, context: Any = None) -> None:
    """Saved and loaded, a model is the same to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save(model, path)
        loaded = load(path)
    same_leaves(model, loaded)
    if answers(model):
        np.testing.assert_array_equal(answer(model, x, context), answer(loaded, x, context))


def values_make_models(model: Any, x: Any, context: Any = None) -> None:
    """A model, or the parts of one, made anew from its plain values by `from_values` gives the same numbers."""
    is_leaf = lambda one: has(one, Valued) and has(one, Density) and not parts_of(one)  # noqa: E731
    below = jax.tree.map(lambda one: _remade(one) if is_leaf(one) else one, model, is_leaf=is_leaf)
    for new in (_remade(model) if has(model, Valued) else model, below):
        np.testing.assert_allclose(answer(new, x, context), answer(model, x, context), **ROUNDING)


def _remade(one: Any) -> Any:
    """Return what `from_values` makes of the values of a model's properties; itself where there is none of them."""
    arguments = inspect.signature(one.from_values).parameters.values()
    try:
        values = {a.name: getattr(one, a.name) for a in arguments if a.kind is not a.VAR_KEYWORD}
    except ModelError:  # there is no transition without an input
        return one
    return type(one).from_values(**values)


def scores_have_mean_zero(model: Any, x: Any, context: Any = None) -> None:
    """Fisher's identity: the gradient of `log p` has mean zero under p. x are draws of the model, many."""
    trained, rest = partition(model)
    if not jax.tree.leaves(trained):
        return
    n = len(x)

    def score(x: Any, context: Any) -> Any:
        return jax.grad(lambda t: combine(t, rest).log_prob(x, context=context))(trained)

    scores = jax.jit(jax.vmap(score, in_axes=(0, None if context is None else 0)))(x, context)
    flat = np.concatenate([np.asarray(leaf, np.float64).reshape(n, -1) for leaf in jax.tree.leaves(scores)], axis=1)
    spread = flat.std(axis=0)
    live = spread > 1e-6 * spread.max()
    z = np.abs(flat.mean(axis=0)[live]) / (spread[live] / np.sqrt(n))
    assert (z < FAR).all(), f"the mean gradient is {z.max():.1f} standard errors from zero"


def e_steps_add_up(model: Any, x: Any, context: Any = None) -> None:
    """Statistics are linear in the weights and additive over events; with them comes `log_prob`."""
    weight = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2, len(x)), jnp.float32)
    step = model.e_step
    whole, log_prob = step(x, weight, context=context)
    expected = algebra.step_log_prob(model, x) if context is None else model.log_prob(x, context=context)
    np.testing.assert_allclose(log_prob, expected, **ROUNDING)
    double, _ = step(x, 2 * weight, context=context)
    first, second = (
        step(*(_half(a, half) for a in (x, weight)), context=None if context is None else _half(context, half))[0]
        for half in (True, False)
    )
    for w, d, a, b in zip(*map(jax.tree.leaves, (whole, double, first, second)), strict=True):
        np.testing.assert_allclose(d, 2 * np.asarray(w), **SUMS)
        np.testing.assert_allclose(np.asarray(a) + np.asarray(b), w, **SUMS)


def m_steps_keep_the_kind(model: Any, x: Any, context: Any = None) -> None:
    """An M-step gives a model of the same structure, and `maximize` the same one; its own statistics stay its own."""
    statistics, _ = model.e_step(x, context=context)
    new, _ = latent.maximize(model, statistics)
    kinds: list[Any] = [jax.tree.structure(one) for one in (new, model)]
    assert kinds[0] == kinds[1], f"{new} of {model}"
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(one)] for one in (new, model)]
    assert shapes[0] == shapes[1], f"parameters of shapes {shapes[0]} in place of {shapes[1]}"
    if has(model, Repairs):
        same_leaves(new, model.m_step(statistics))
    if has(model, Recentred):
        for a, b in zip(*map(jax.tree.leaves, (latent.recentre(model, model, statistics), statistics)), strict=True):
            np.testing.assert_allclose(a, b, **SUMS)


@compiled
def _em_step(model: Any, x: Any, context: Any) -> tuple[Any, jax.Array]:
    statistics, log_prob = model.e_step(x, context=context)
    return latent.maximize(model, statistics)[0], jnp.sum(log_prob) + latent.log_prior(model)


def em_never_loses(model: Any, x: Any, context: Any = None) -> None:
    """No step of EM lowers the log-likelihood plus the log density of the priors."""
    values = []
    for _ in range(10):
        model, value = _em_step(model, x, context)
        values.append(float(value) / len(x))
    slack = 2e-5 * max(1.0, float(np.abs(values).max()))  # float32, and floors, which are priors in all but name
    assert np.diff(values).min() >= -slack, f"objectives {np.round(values, 5).tolist()}"


def no_mass_is_no_change(model: Any, x: Any, context: Any = None, other: Any = None) -> None:
    """In a mixture, a part without mass keeps its parameters and is counted; a weight of zero stays zero."""


    parts = algebra.stack([model, model if other is None else other])
    both = Mixture(jnp.array([0.0, -jnp.inf]), parts, None)
    statistics, _ = both.e_step(x, jnp.ones(len(x)), context=context)
    new, repaired = both.maximize(statistics)
    assert new.logits[1] == -jnp.inf, "a weight of zero came back"
    assert int(repaired) >= 1, "a part without mass was not counted as repaired"
    same_leaves(algebra.take(new.components, 1), algebra.take(parts, 1))


def fast_is_the_default(model: Any, x: Any, context: Any = None, others: tuple[Any, ...] = ()) -> None:
    """A faster form of K models says what each of them says."""
    if context is not None or not jax.tree.leaves(model):
        return  # the default
    models = algebra.stack([model, *(others or (model,))])
    if has(models, ComponentScores):
        fast, slow = (jax.jit(f)(models, x) for f in (algebra.component_log_prob, algebra.default_log_prob))
        np.testing.assert_allclose(fast, slow, **ROUNDING)
    if has(models, ComponentSteps):
        uniform = np.random.default_rng(0).uniform(0, 1, (algebra.count(models), len(x)))
        weight = jnp.asarray(uniform, jnp.float32)
        fast, slow = (jax.jit(f)(models, x, weight) for f in (algebra.component_e_step, algebra.default_e_step))
        for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
            np.testing.assert_allclose(a, b, **SUMS)


#: the levels at which a distribution function is looked at
LEVELS = (1e-3, 0.05, 0.3, 0.5, 0.8, 0.99)


def quantiles_invert_the_cdf(model: Any, x: Any, context: Any = None) -> None:
    """The distribution function never falls, is a level at its quantile, and shares of draws are what it says."""
    one = None if context is None else context[0]
    levels = jnp.asarray(LEVELS)
    at = model.quantile(levels, context=one)
    assert at.shape == (len(LEVELS), *model.event_shape), f"quantiles {at.shape} of {len(LEVELS)} levels"
    shared = None if one is None else jnp.broadcast_to(one, (len(LEVELS), *one.shape))
    above, below = (np.asarray(model.cdf(q, context=shared)) for q in (at, _below(at)))
    wanted = np.asarray(levels).reshape((-1,) + (1,) * (at.ndim - 1))
    assert (above >= wanted - 1e-5).all(), f"below the levels {LEVELS} at their quantiles: {above.tolist()}"
    assert (below <= wanted + 1e-5).all(), f"above the levels {LEVELS} just below their quantiles: {below.tolist()}"
    assert (np.diff(above, axis=0) >= -1e-6).all(), f"a distribution function that falls: {above.tolist()}"
    drawn = np.asarray(model.sample(jax.random.key(3), (DRAWS,), context=one), np.float64)
    for q, p in zip(np.asarray(at, np.float64), above, strict=True):
        z = np.abs((drawn <= q).mean(axis=0) - p) / np.sqrt(np.maximum(p * (1 - p), 1 / DRAWS) / DRAWS)
        assert (z < FAR).all(), f"the share of draws up to a quantile is {z.max():.1f} standard errors from its level"


def _below(x: Any) -> Any:
    """Numbers a little below, by some roundings of themselves."""
    return x - jnp.maximum(4 * jnp.finfo(x.dtype).eps * jnp.abs(x), jnp.finfo(x.dtype).tiny)


#: `(law, whom it applies to)`, in the order of `check`
LAWS: tuple[tuple[Callable[..., None], Callable[[Any], bool]], ...] = (
    (draws_are_events, lambda model: has(model, Implicit)),
    (batches_are_one_by_one, answers),
    (jit_is_eager, answers),
    (vmap_is_a_loop, answers),
    (wrong_shapes_are_refused, answers),
    (nan_is_never_silent, answers),
    (files_keep_models, lambda model: True),
    (values_make_models, latent.has_density),
    (scores_have_mean_zero, latent.has_density),
    (e_steps_add_up, latent.supports_em),
    (m_steps_keep_the_kind, latent.supports_em),
    (em_never_loses, latent.supports_em),
    (no_mass_is_no_change, latent.supports_em),
    (quantiles_invert_the_cdf, has_quantiles),
    (fast_is_the_default, lambda model: has(model, ComponentScores) or has(model, ComponentSteps)),
)


def capabilities() -> dict[str, Any]:
    """Return the protocols of models on the page, by name."""
    page = sorted(vars(protocols).items(), key=lambda item: item[1] in vars(energies).values())  # those stand last
    return {n: p for n, p in page if inspect.isclass(p) and p.__module__ in (protocols.__name__, energies.__name__)
            and getattr(p, "_is_protocol", False)}  # fmt: skip


class Law(NamedTuple):
    """One law: its name, whether it holds, and what was found where it does not."""

    name: str
    holds: bool
    found: str


class Check(NamedTuple):
    """The report of `check`; `print` it.

    Args:
        model: the class.
        kind: what the model's number means.
        can, cannot: names of capabilities, `jaxgen.core.protocols`.
        laws: those that apply.
    """

    model: str
    kind: str
    can: tuple[str, ...]
    cannot: tuple[str, ...]
    laws: tuple[Law, ...]

    @property
    def ok(self) -> bool:
        """True if all laws that apply hold."""
        return all(law.holds for law in self.laws)

    def __str__(self) -> str:
        lines = [f"{self.model}: likelihood {self.kind}", f"  can     {', '.join(self.can)}"]
        lines += [f"  cannot  {', '.join(self.cannot)}"]
        return "\n".join([*lines, *(f"  {'holds ' if w.holds else 'BROKEN'}  {w.name}{w.found}" for w in self.laws)])


def check(model: Any, x: Any, *, context: Any = None, key: Any = None) -> Check:
    """Tell what a model can do, and run the laws of the library on it.

    Args:
        model: any, for example an instance of a family of your own.
        x: events `[N, *event]`, six or more, of the model's support.
        context: `[N, *context]`, of a model that takes one.
        key: typed key of the draws; None is `jax.random.key(0)`.

    Returns:
        `Check`: `print(check(model, x))`; `.ok` says whether all laws hold.

    Raises:
        DataError, ShapeError: events that do not fit the model, or too few. ModelError: what is no model.

    Example:
        >>> import jaxgen as jg
        >>> found = check(jg.Poisson.from_values(2.0), [0, 1, 2, 3, 4, 5])
        >>> found.ok, found.kind, "Latent" in found.can, "Energy" in found.cannot
        (True, 'exact', True, True)
    """
    called = f"check({type(model).__name__}, x)"
    key = jax.random.key(0) if key is None else key
    check_key(key, called)
    if not has(model, Implicit) and not has(model, Energy):
        raise ModelError(
            "that is no model", called=called, expected="event_shape and sample, or energy and kernel",
            got=f"{type(model).__name__}", fix="see jaxgen.core.protocols: Implicit, Density, Latent, Bound, Energy",
        )  # fmt: skip
    batch = as_batch({"x": x, "context": context}, name="x", called=called, missing=latent.accepts_missing(model),
                     schema=latent.schema(model), absent=algebra.absent_axes(model))  # fmt: skip
    batch = jax.tree.map(jnp.asarray, batch)
    axes = batch_axes(np.shape(batch.x), tuple(model.event_shape), called)
    if len(axes) != 1 or axes[0] < 6:
        raise DataError("a check needs some events", called=called, expected="[N, *event], N of 6 or more",
                        got=f"leading axes {list(axes)}")  # fmt: skip
    latent.check_data(model, batch.x)
    shape = algebra.context_shape(model)
    if shape is not None and batch.context is None and not algebra.context_optional(model):
        wanted = f"context= [N, *{list(shape)}]"
        raise ShapeError("the model takes a context", called=called, expected=wanted, got="none")
    page = capabilities()
    can = tuple(name for name, asked in page.items() if has(model, asked) and _offered(asked, model))
    laws = tuple(_hold(law, model, batch, key) for law, applies in LAWS if applies(model))
    rest = tuple(name for name in page if name not in can)
    return Check(type(model).__name__, str(latent.likelihood_kind(model)), can, rest, laws)


#: what a model of parts has the methods of, and can do where its parts have a density
_OF_DENSITIES = (Density, Labelled, Classifier, Evidence, Sequential, Paired)


def _offered(asked: Any, model: Any) -> bool:
    """True if a model, whose class has the members of a protocol, has parts that let it do what they promise."""
    if asked is Latent:
        return latent.supports_em(model)
    if asked is Quantiled:
        return has_quantiles(model)
    return asked not in _OF_DENSITIES or latent.has_density(model)


def _hold(law: Callable[..., None], model: Any, batch: Any, key: Any) -> Law:
    name, x, context = law.__name__.replace("_", " "), batch.x, batch.context
    try:
        if law is scores_have_mean_zero:
            free = {"length": x.shape[1]} if None in model.event_shape else {}
            rows = np.arange(DRAWS) % len(x)
            context = None if context is None else context[rows]
            x = model.sample(key, (DRAWS,), context=context, **free)
        law(model, x, context)
    except Exception as error:  # whatever a model of yours raises is what was found
        what = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return Law(name, False, f": {what}{' '.join(str(error).split())[:200]}")
    return Law(name, True, "")
