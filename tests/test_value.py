"""Hashing by value: a rebuilt algorithm finds its twin's program, and never that of another."""

import dataclasses
import enum
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.core.inputs import Batch
from jaxgen.core.pytree import fixed, model
from jaxgen.core.value import ByValue, algorithm, describe, value_key

RATE = 1.0
TABLE = {"rate": 1.0}
NOTE = types.SimpleNamespace(rate=1.0)
VALUES = np.ones(2)


def equal(make):
    """Two makings have one key, one hash, one description."""
    a, b = value_key(make()), value_key(make())
    assert (a == b) == (b == a)
    return a == b and hash(a) == hash(b) and describe(a) == describe(b)


def schedule():
    return optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)


OPTIMISERS = {
    "sgd": lambda: optax.sgd(0.1, momentum=0.9),
    "adam": lambda: optax.adam(1e-3),
    "adamw with a schedule": lambda: optax.adamw(schedule(), weight_decay=1e-2),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.clip(0.5), optax.adam(0.1)),
    "joined schedules": lambda: optax.sgd(optax.join_schedules([schedule(), optax.constant_schedule(0.1)], [50])),
    "piecewise": lambda: optax.sgd(optax.piecewise_constant_schedule(1.0, {10: 0.1, 20: 0.5})),
    "lion": lambda: optax.lion(1e-3),
    "lamb": lambda: optax.lamb(1e-3),
    "rmsprop": lambda: optax.rmsprop(1e-3),
    "adafactor": lambda: optax.adafactor(1e-3),
    "masked": lambda: optax.masked(optax.adam(1e-3), lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)),
    "partition": lambda: optax.partition({"a": optax.adam(1.0), "b": optax.sgd(0.1)}, {"x": "a", "y": "b"}),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=schedule()),
    "apply if finite": lambda: optax.apply_if_finite(optax.sgd(0.1), 3),
    "many steps": lambda: optax.MultiSteps(optax.sgd(0.1), 3),
    "many steps, transformed": lambda: optax.MultiSteps(optax.sgd(0.1), 3).gradient_transformation(),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_rebuilt_optimisers_are_equal(name):
    assert equal(OPTIMISERS[name])


def test_no_two_optimisers_are_equal():
    makers = [*OPTIMISERS.values(), lambda: optax.adam(1e-2), lambda: optax.adam(1e-3, b1=0.8), lambda: optax.sgd(0.1),
              lambda: optax.sgd(optax.piecewise_constant_schedule(1.0, {10: 0.1, 20: 0.4})),
              lambda: optax.chain(optax.clip(0.5), optax.clip_by_global_norm(1.0))]  # fmt: skip
    assert len({value_key(make()) for make in makers}) == len(makers)
    assert len({describe(value_key(make())) for make in makers}) == len(makers)


def test_lambdas_in_a_loop():
    rates = [1, 1.0, True, 2, 1 + 0j, -0.0, 0.0, 0, False, None, "1", b"1"]
    rates += [(1,), [1], (1.0,), {1}, frozenset({1}), {"a": 1}, {1: "a"}]
    made = [lambda x: x * scale for scale in rates]  # noqa: B023
    assert len({value_key(f) for f in made}) == 1, "all of them close over the loop's last value"
    made = [(lambda scale: lambda x: x * scale)(rate) for rate in rates]
    again = [(lambda scale: lambda x: x * scale)(rate) for rate in rates]
    assert len({value_key(f) for f in made}) == len(rates)
    defaults = [lambda x, rate=rate: x * rate for rate in rates]
    assert len({value_key(f) for f in defaults}) == len(rates)
    keywords = [lambda x, *, rate=rate: x * rate for rate in rates]
    assert len({value_key(f) for f in keywords}) == len(rates)
    # another line is another function: what is equal is a function made again
    assert [value_key(f) for f in made] != [value_key(f) for f in again]
    assert all(equal(lambda rate=rate: (lambda scale: lambda x: x * scale)(rate)) for rate in rates)


def test_plain_values():
    for value in (1, 1.5, "a", None, True, float("nan"), (1, (2, "b")), np.float32(1), np.int64(3), np.dtype("f4")):
        assert equal(lambda value=value: value)
    assert equal(lambda: float("nan"))
    assert len({value_key(v) for v in (1.0, np.float32(1), np.float64(1), 1, True, np.int32(1), np.bool_(True))}) == 7
    assert value_key(0.0) != value_key(-0.0)


def test_functions_differ_by_code_closure_and_defaults():
    def outer(a, b=1):
        def inner(x, y=a):
            return x + y + b

        return inner

    assert equal(lambda: outer(1))
    assert value_key(outer(1)) != value_key(outer(2))
    assert value_key(outer(1)) != value_key(outer(1, 2))
    assert value_key(lambda x: x + 1) != value_key(lambda x: x + 2)
    assert value_key(lambda x: x.sum()) != value_key(lambda x: x.mean())


def test_a_changed_global_is_another_function(monkeypatch):
    makers = {
        "RATE": lambda: lambda x: x * RATE,
        "inner function": lambda: lambda x: (lambda y: y * RATE)(x),
        "helper": lambda: lambda x: helper(x),
        "helper of a helper": lambda: lambda x: other(x),
        "table": lambda: lambda x: x * TABLE["rate"],
        "note": lambda: lambda x: x * NOTE.rate,
    }
    assert all(map(equal, makers.values()))
    before = {name: value_key(make()) for name, make in makers.items()}
    monkeypatch.setitem(globals(), "RATE", 2.0)
    monkeypatch.setitem(TABLE, "rate", 2.0)
    monkeypatch.setattr(NOTE, "rate", 2.0)
    for name, make in makers.items():
        assert value_key(make()) != before[name], name
    monkeypatch.undo()
    for name, make in makers.items():
        assert value_key(make()) == before[name], name


def helper(x):
    return x * RATE


def other(x):
    return helper(x) + len(TABLE)


def test_names_that_are_attributes_are_no_globals():
    # `VALUES` is a numpy array of this module, `.VALUES` has nothing to do with it
    assert equal(lambda: lambda batch: batch.VALUES + batch.NOTE)


def test_what_may_change_unnoticed_makes_a_function_itself_alone():
    class Slotted:
        __slots__ = ("rate",)

    class Array(np.ndarray):
        pass

    slotted, generator, array = Slotted(), np.random.default_rng(0), np.ones(2).view(Array)
    makers = [lambda v=v: lambda x: (x, v) for v in (slotted, generator, array, object(), iter([1]))]
    makers += [lambda: lambda x: x + VALUES, lambda: lambda x: len(VALUES)]
    makers += [lambda: functools.partial(jnp.add, np.ones(2)), lambda: (optax.sgd(0.1), lambda x: slotted)]
    for make in makers:
        assert not equal(make)
        one = make()
        assert value_key(one) == value_key(one)


def test_arrays_go_by_identity():
    a, b = jnp.ones(2), jnp.ones(2)
    assert equal(lambda: lambda x: x + a)
    assert value_key(a) == value_key(a)
    assert value_key(a) != value_key(b)
    assert value_key((lambda c: lambda x: x + c)(a)) != value_key((lambda c: lambda x: x + c)(b))


def test_an_address_is_not_given_away():
    keys = {value_key((lambda c: lambda x: x + c)(jnp.full(2, i))) for i in range(20)}
    assert len(keys) == 20


def test_partials():
    assert equal(lambda: functools.partial(jnp.sum, axis=0))
    assert value_key(functools.partial(jnp.sum, axis=0)) != value_key(functools.partial(jnp.sum, axis=1))
    assert value_key(functools.partial(jnp.sum, axis=0)) != value_key(functools.partial(jnp.mean, axis=0))
    assert value_key(functools.partial(helper, 1)) != value_key(functools.partial(helper, 1.0))
    assert equal(lambda: functools.partial(lambda x, k: x * k, k=2))


@dataclasses.dataclass(frozen=True)
class Frozen:
    rate: object = 1

    def loss(self, x):
        return x * self.rate

    @classmethod
    def make(cls):
        return cls()


@dataclasses.dataclass
class Mutable:
    rate: object = 1


class Counting:
    def __init__(self):
        self.rate = 1

    def loss(self, x):
        return x * self.rate


def test_methods():
    assert equal(lambda: Frozen(2).loss)
    assert value_key(Frozen(2).loss) != value_key(Frozen(3).loss)
    assert equal(lambda: Frozen.make)
    assert equal(lambda: jg.Gaussian.init)
    assert value_key(jg.Gaussian.init) != value_key(jg.DiagonalGaussian.init)
    counting = Counting()
    assert equal(lambda: counting.loss)
    assert equal(lambda: Counting().loss)
    before = value_key(counting.loss)
    counting.rate = 2
    assert value_key(counting.loss) != before, "the same method of the same object, and yet another function"


def test_dataclasses_compare_by_fields_and_types():
    assert equal(lambda: Frozen((1, "a")))
    assert len({value_key(Frozen(v)) for v in (1, 1.0, True)}) == 3, "though these are equal to Python"
    assert equal(lambda: Frozen(lambda x: x))
    assert equal(lambda: Mutable())
    mutable = Mutable()
    before = value_key(lambda x: mutable.rate)
    mutable.rate = 2
    assert value_key(lambda x: mutable.rate) != before

    @model
    class Leaf:
        a: jax.Array
        b: jax.Array = fixed(default=0.0)

    a = jnp.ones(2)
    assert equal(lambda: Leaf(a))
    assert value_key(Leaf(a)) != value_key(Leaf(jnp.ones(2)))
    assert not equal(lambda: Leaf(np.ones(2)))


class Colour(enum.Enum):
    RED = 1
    BLUE = 1.5


def test_enums_modules_and_classes():
    for value in (Colour.RED, jnp, jnp.tanh, jax.nn.relu, jnp.float32, np.add, len, Frozen, list[int]):
        assert equal(lambda value=value: lambda x: (x, value))
    assert value_key(Colour.RED) != value_key(Colour.BLUE)


def test_recursion_ends():
    def make(depth):
        def descend(n):
            return 0 if n == depth else descend(n + 1)

        return descend

    def pair():
        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        return even, odd

    assert equal(lambda: make(3))
    assert value_key(make(3)) != value_key(make(4))
    assert equal(pair)
    assert value_key(pair()[0]) != value_key(pair()[1])
    loop = [1]
    loop.append(loop)
    hash(value_key(loop))
    hash(value_key(test_recursion_ends))


def test_by_value():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def apply(function, x):
        traces.append(1)
        return function(x)

    def times(rate):
        return lambda x: x * rate

    results = [float(apply(ByValue(times(rate)), 3.0)) for rate in (1.0, 2.0, 1.0, 2.0)]
    assert results == [3.0, 6.0, 3.0, 6.0]
    assert len(traces) == 2
    assert ByValue(len) != len


@algorithm
class Options:
    function: object = None
    rate: float = 1.0
    tags: object = ()


def test_algorithms_are_frozen_values():
    assert Options() == Options()
    assert hash(Options(len)) == hash(Options(len))
    assert Options() != Options(rate=2.0)
    assert Options(rate=1) != Options(rate=1.0)
    assert Options() != jg.EM()
    assert dataclasses.replace(Options(), rate=2.0) == Options(rate=2.0)
    assert "rate=1.0" in repr(Options())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().rate = 3.0
    assert jg.EM() == jg.EM()
    assert jg.EM() != jg.EM(chunk=7)
    assert jg.Gradient(jg.losses.nll, optax.adam(0.1)) == jg.Gradient(jg.losses.nll, optax.adam(0.1))
    assert jg.Gradient(jg.losses.nll, optax.adam(0.1)) != jg.Gradient(jg.losses.nll, optax.adam(0.2))


def test_an_algorithm_keeps_the_key_it_was_first_used_under():
    tags = [1]
    first = Options(tags=tags)
    before = hash(first)
    tags.append(2)
    assert hash(first) == before, "a compiled program must be found again"
    assert Options(tags=tags) != first, "and is not taken for another's"


def test_rebuilt_algorithms_find_the_compiled_program():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def step(algorithm, model, x):
        traces.append(1)
        state = algorithm.init(jax.random.key(0), model)
        return algorithm.step(jax.random.key(1), state, Batch(x))[1]

    m, x = jg.DiagonalGaussian.from_values([0.0], [1.0]), jnp.ones((8, 1))
    for _ in range(3):
        step(jg.EM(), m, x)
        step(jg.Gradient(jg.losses.nll, optax.adam(1e-2)), m, x)
        step(jg.Gradient(lambda key, model, batch, step: -jnp.mean(model.log_prob(batch.x)), optax.sgd(0.1)), m, x)
    assert len(traces) == 3


def test_a_loss_over_a_changed_global_is_traced_again(monkeypatch):
    m, x = jg.DiagonalGaussian.from_values([0.0], [1.0]), jnp.ones((8, 1))
    found = []
    for rate in (1.0, 3.0):
        monkeypatch.setitem(globals(), "RATE", rate)
        gradient = jg.Gradient(lambda key, model, batch, step: RATE * jg.losses.nll(key, model, batch), optax.sgd(0.1))
        found.append(jg.fit(jax.random.key(0), m, x, gradient, steps=1).history["loss"][0])
    np.testing.assert_allclose(found[1], 3 * found[0], rtol=1e-6)
