"""The model decorator: what a model is, what trains, and what can be read off it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.core.pytree import combine, fixed, is_model, model, parameter_count, partition, static, summary, trainable


@model
class Leaf:
    weight: jax.Array
    center: jax.Array = fixed(default=0.0)
    power: int = static(default=2)

    def __call__(self, x):
        return self.weight * (x - self.center) ** self.power


@model
class Tree:
    leaf: Leaf
    parts: object
    mask: object = fixed()
    name: str = static(default="tree")


def leaf(value=1.0, power=2):
    return Leaf(jnp.full(2, value), jnp.zeros(2), power)


def tree():
    parts = {"pair": (leaf(2.0), [jnp.ones((2, 3)), None]), "count": jnp.arange(3)}
    return Tree(leaf(), parts, {"inner": leaf(5.0), "bits": jnp.array([True, False])})


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        leaf().weight = 3.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        del leaf().weight


def test_children_are_data_and_statics_are_structure():
    assert [x.shape for x in jax.tree.leaves(leaf())] == [(2,), (2,)]
    assert jax.tree.structure(leaf(1.0)) == jax.tree.structure(leaf(9.0))
    assert jax.tree.structure(leaf(power=2)) != jax.tree.structure(leaf(power=3))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree())[0]]
    assert ".parts['pair'][0].weight" in paths
    assert len(paths) == len(set(paths)) == 9
    same(jax.tree.unflatten(jax.tree.structure(tree()), jax.tree.leaves(tree())), tree())


def test_defaults_and_keywords():
    made = Leaf(weight=jnp.ones(1))
    assert made.center == 0.0
    assert made.power == 2
    with pytest.raises(TypeError):
        Leaf()
    with pytest.raises(TypeError):
        Leaf(1.0, 2.0, 3, 4)


def test_replace_makes_a_changed_copy():
    first = leaf()
    second = dataclasses.replace(first, weight=jnp.zeros(2), power=3)
    assert second.power == 3
    assert second.center is first.center
    np.testing.assert_array_equal(first.weight, np.ones(2))


def test_gradient_flows_through_nested_models():
    @jax.grad
    def slope(model):
        return jnp.sum(model.leaf(3.0)) + jnp.sum(model.parts["pair"][1][0])

    m = dataclasses.replace(tree(), parts={"pair": (leaf(2.0), [jnp.ones((2, 3)), None])}, mask=None)
    gradient = slope(m)
    np.testing.assert_allclose(gradient.leaf.weight, [9.0, 9.0])  # (3 - 0)^2
    np.testing.assert_allclose(gradient.leaf.center, [-6.0, -6.0])
    np.testing.assert_allclose(gradient.parts["pair"][1][0], np.ones((2, 3)))


def test_what_trains():
    mask = trainable(tree())
    assert jax.tree.leaves(mask.leaf) == [True, False]
    assert jax.tree.leaves(mask.parts["pair"][0]) == [True, False]
    assert mask.parts["pair"][1] == [True, None]
    assert mask.parts["count"] is False  # integers do not train
    assert not any(jax.tree.leaves(mask.mask)), "all of a fixed field is fixed, the parameters of its models too"
    assert jax.tree.structure(mask) == jax.tree.structure(tree())


def test_keys_and_plain_numbers():
    assert trainable((jax.random.key(0), 1, 1.5, np.float64(2), True)) == (False, False, True, True, False)
    assert trainable(jnp.ones(2, jnp.bfloat16)) is True
    assert trainable(jnp.ones(2, jnp.complex64)) is True
    assert trainable(None) is None


@pytest.mark.parametrize("make", [tree, leaf, lambda: (leaf(), None, {"a": leaf()}), lambda: Tree(leaf(), None, None)])
def test_partition_and_combine_undo_each_other(make):
    trained, rest = partition(make())
    same(combine(trained, rest), make())
    assert parameter_count(make()) == sum(x.size for x in jax.tree.leaves(trained))
    assert len(jax.tree.leaves(trained)) + len(jax.tree.leaves(rest)) == len(jax.tree.leaves(make()))


def test_partition_works_under_jit_and_vmap():
    def halves(m):
        trained, rest = partition(m)
        return combine(jax.tree.map(lambda a: a / 2, trained), rest)

    np.testing.assert_array_equal(jax.jit(halves)(tree()).leaf.weight, [0.5, 0.5])
    many = jax.vmap(lambda w: halves(Leaf(w, w)))(jnp.ones((3, 2)))
    assert many.weight.shape == many.center.shape == (3, 2)
    np.testing.assert_array_equal(many.center, np.ones((3, 2)))


def test_weight_decay_reaches_no_fixed_field():
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    m = tree()
    trained, rest = partition(m)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, trained), optimizer.init(trained), trained)
    new = combine(optax.apply_updates(trained, updates), rest)
    same(new.mask, m.mask)
    same(new.parts["count"], m.parts["count"])
    assert not np.array_equal(new.leaf.weight, m.leaf.weight)


def test_a_batch_of_models_is_made_by_vmap():
    keys = jax.random.split(jax.random.key(0), 4)
    batch = jax.vmap(lambda key: Leaf(jax.random.normal(key, (2,)), jnp.zeros(2), 3))(keys)
    assert isinstance(batch, Leaf)
    assert batch.weight.shape == (4, 2)
    assert batch.power == 3
    assert jax.vmap(lambda m: m(2.0))(batch).shape == (4, 2)


def test_equal_structure_compiles_once():
    traces = []

    @jax.jit
    def f(m):
        traces.append(1)
        return m(2.0)

    f(leaf(1.0))
    f(leaf(2.0))
    f(dataclasses.replace(leaf(3.0), center=jnp.ones(2)))
    assert len(traces) == 1
    f(leaf(1.0, power=3))
    assert len(traces) == 2


def test_repr_shows_few_numbers_and_shapes_of_many():
    assert repr(leaf()) == "Leaf(weight=[1, 1], center=[0, 0])"  # an option as by default is left out
    assert repr(Leaf(jnp.linspace(0.0, 1.0, 4), jnp.zeros(17), 3)) == (
        "Leaf(weight=[0, 0.3333, 0.6667, 1], center=float32[17], power=3)"
    )
    text = repr(tree())
    assert "bits: bool[2]" in text
    assert "[float32[2,3], None]" in text
    assert "count: int32[3]" in text
    assert "\n" not in text
    assert repr(Leaf(1.5, None)) == "Leaf(weight=1.5)"
    given_away = leaf()
    given_away.weight.delete()
    assert "float32[2]" in repr(given_away)
    assert "float32[4,2]" in repr(jax.eval_shape(lambda: Leaf(jnp.ones((4, 2)))))
    assert "tanh" in repr(Leaf(1.0, power=jnp.tanh))


def test_repr_is_safe_inside_a_trace():
    seen = []
    jax.jit(lambda m: seen.append(repr(m)) or m.weight)(leaf())
    assert seen == ["Leaf(weight=float32[2], center=float32[2], power=2)"]


def test_summary_lists_every_leaf():
    lines = summary(tree()).splitlines()
    assert lines[0] == "Tree"
    assert lines[1].split() == ["leaf.weight", "float32[2]", "trained", "2"]
    assert lines[-1] == "10 trained of 23 scalars, 86 bytes"
    assert len(lines) == 2 + len(jax.tree.leaves(tree()))
    assert "mask['inner'].weight" in summary(tree())
    assert summary(Leaf(jax.random.key(0), None)).splitlines()[1].split()[2] == "fixed"


@pytest.mark.parametrize("hook", ["__init__", "__post_init__"])
def test_no_logic_at_construction(hook):
    namespace = {"__annotations__": {"a": int}, hook: lambda self, *a: None}
    with pytest.raises(TypeError, match=rf"Bad defines {hook}.*from_\*"):
        model(type("Bad", (), namespace))


def test_no_logic_inherited_either():
    class Base:
        def __post_init__(self):
            pass

    with pytest.raises(TypeError, match="__post_init__"):

        @model
        class Bad(Base):
            a: jax.Array


def test_a_subclass_is_a_model_once_it_is_decorated():
    class Plain(Leaf):
        pass

    assert not is_model(Plain(1.0))

    @model
    class Child(Leaf):
        extra: jax.Array = fixed(default=1.0)

    child = Child(jnp.ones(2))
    assert is_model(child)
    assert jax.tree.leaves(trainable(child)) == [True, False, False]
    assert child(2.0).shape == (2,)


def test_a_class_that_is_defined_again_leaves_its_old_instances_models():
    def define():
        @model
        class Cell:
            a: jax.Array

        return Cell

    old, new = define()(jnp.ones(2)), define()(jnp.ones(2))
    assert is_model(old)
    assert is_model(new)
    assert parameter_count((old, new)) == 4


def test_only_instances_are_models():
    assert not any(map(is_model, (Leaf, None, 3, {"a": leaf()}, (leaf(),), jnp.ones(2))))


def test_mutable_defaults_are_refused():
    with pytest.raises(ValueError, match="mutable default"):

        @model
        class Bad:
            options: list = static(default=[])


def test_classes_of_the_same_fields_are_told_apart():
    """Equal treedefs of two classes would let a compiled function run the one's code on the other, now and then."""

    def build(number):
        @model
        class Numbered:
            bias: jax.Array

            def answer(self):
                return 0 * self.bias + number

        return Numbered(jnp.zeros(()))

    models = [build(number) for number in range(60)]
    assert len(set(map(jax.tree.structure, models))) == 60
    answer = jax.jit(lambda model: model.answer())
    assert [float(answer(m)) for m in models] == list(range(60))
