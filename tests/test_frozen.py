"""Paths of what stays in training: fields, plain values, one of many models, and what is said of no such path."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from case import as_dtype
from cases import CASES

import jaxgen as jg
from jaxgen.core.frozen import WHOLE, field_of, frozen_leaves
from jaxgen.core.pytree import is_model, model_fields

KEY = jax.random.key(0)


def models_in(value):
    """All models that a value holds, itself first."""
    if is_model(value):
        yield value
        value = tuple(vars(value).values())
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ():
        yield from models_in(one)


def plain_values(model):
    """`(property, field)` of the plain values of a model that its fields do not have the names of."""
    found = ((name, field_of(model, name)) for name, held in vars(type(model)).items() if isinstance(held, property))
    return [(name, field) for name, field in found if field is not None]


def one_of_each_class():
    found = {}
    for case in CASES:
        kinds = {type(one) for one in models_in(jax.eval_shape(case.make, KEY)) if plain_values(one)}
        if kinds - found.keys():
            found |= {type(one): one for one in models_in(case.make(KEY)) if type(one) in kinds - found.keys()}
    return found.values()


def test_a_plain_value_reads_the_field_that_it_freezes():
    """Of all trained fields a property depends on the one that its name freezes, and on no other."""
    seen = set()
    for model in one_of_each_class():
        name, model = type(model).__name__, as_dtype(model, jnp.float32)
        trained = [field for field, kind, held in model_fields(model) if kind == "trained" and held is not None]
        for plain, own in plain_values(model):
            seen.add((name, plain))
            value = np.asarray(getattr(model, plain))
            for field in trained:
                other = jax.tree.map(lambda a: a - 0.125 * (1 + a * a), getattr(model, field))
                moved = getattr(dataclasses.replace(model, **{field: other}), plain)
                assert np.array_equal(moved, value) == (field != own), f"{name}.{plain}, {field}"
    assert {("Gaussian", "mean"), ("Gaussian", "covariance"), ("Mixture", "weights"), ("Beta", "mean"),
            ("MarkovChain", "transition"), ("Categorical", "probs"), ("StudentT", "df")} <= seen  # fmt: skip
    assert not {("Beta", "a"), ("LinearRegression", "intercept"), ("NormalWishart", "df")} & seen


def two():
    parts = jg.Gaussian.from_values([[0.0, 0.0], [3.0, 3.0]], [np.eye(2), np.eye(2)])
    return jg.Mixture.from_components(parts, [0.5, 0.5])


@pytest.mark.parametrize("frozen", [{"components.mean": True}, ["components.mean"], "components.mean"])
def test_means_by_their_name(frozen):
    x = np.random.default_rng(0).normal(1.0, 2.0, (50, 2)).astype(np.float32)
    by_field = jg.fit(KEY, two(), x, jg.EM(frozen={"components.offset": True}), steps=3).model
    model = jg.fit(KEY, two(), x, jg.EM(frozen=frozen), steps=3).model
    np.testing.assert_array_equal(model.components.mean, two().components.mean)
    np.testing.assert_array_equal(model.components.covariance, by_field.components.covariance)
    assert np.abs(np.asarray(model.components.covariance) - np.eye(2)).max() > 0.1
    how = jg.Gradient(jg.losses.nll, optax.sgd(0.1), frozen=frozen)
    model = jg.fit(KEY, two(), x, how, steps=2).model
    np.testing.assert_array_equal(model.components.mean, two().components.mean)
    assert np.abs(np.asarray(model.components.covariance) - np.eye(2)).max() > 1e-3


def test_a_covariance_is_frozen_as_a_whole():
    assert set(WHOLE) <= {"covariance", "scale_matrix"}
    held = frozen_leaves(two(), {"components.covariance": (True, False), "weights": True})
    assert held.components.raw.all(axis=(1, 2)).tolist() == [True, False] and held.logits.all()
    assert not held.components.offset.any()
    for frozen in (np.eye(2, dtype=bool), [True, False]):  # an entry, a row: of the factor, not of the covariance
        with pytest.raises(jg.ModelError, match="expected: True$|expected: True\n"):
            frozen_leaves(jg.Gaussian.from_values([0.0, 0.0], np.eye(2)), {"covariance": frozen})


def test_a_path_that_is_none_says_which_was_meant():
    for wrong, meant in (("components.means", "components.mean"), ("component.covarianc", "components.covariance"),
                         ("weight", "weights")):  # fmt: skip
        with pytest.raises(jg.ModelError, match="no such field") as error:
            frozen_leaves(two(), [wrong])
        assert f"did you mean '{meant}'" in str(error.value) and error.value.fix == f"{{'{meant}': True}}"
        frozen_leaves(two(), {meant: True})
    with pytest.raises(jg.ModelError, match="summary"):
        frozen_leaves(two(), {"xyz": True})
    # two fields make one value: neither is it alone
    with pytest.raises(jg.ModelError, match="no such field"):
        frozen_leaves(jg.Beta.from_values([2.0], [1.0]), {"a": True})
