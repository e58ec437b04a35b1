"""What `fit` makes of its data: batches, weights, forms, contexts and iterators."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fits import KEY, SCAN, WALK, N, Walker, X, adam, gaussian, mixture, refused, same

import jaxgen as jg
from jaxgen.core.algorithms import Traits
from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.pytree import model, static
from jaxgen.core.value import algorithm
from jaxgen.fit import plan

RNG = np.random.default_rng(0)


class Seen(NamedTuple):
    model: object
    times: jax.Array
    last: jax.Array


@algorithm
class Recorder:
    """The least that an algorithm can be: counts how often it sees each event, which is its own number."""

    traits = Traits("rows", steps=None)

    def init(self, key, model):
        return Seen(model, jnp.zeros(N, jnp.int32), jnp.zeros(8, jnp.int32))

    def step(self, key, state, batch):
        rows = batch.x[:, 0].astype(jnp.int32)
        return Seen(state.model, state.times.at[rows].add(1), rows[:8]), {"rows": jnp.float32(rows.size)}


NUMBERED = np.stack([np.arange(N), np.zeros(N)], axis=1).astype(np.float32)


def test_an_epoch_shows_each_event_once():
    orders = []
    for epochs in (1, 2, 3):
        fitted = jg.fit(KEY, gaussian(), NUMBERED, Recorder(), steps=epochs * N // 8, batch_size=8)
        np.testing.assert_array_equal(fitted.state.times, np.full(N, epochs))
        orders.append(tuple(fitted.state.last.tolist()))
    assert len(set(orders)) == 3, "each epoch has an order of its own"
    short = jg.fit(KEY, gaussian(), NUMBERED, Recorder(), steps=2, batch_size=20)
    assert sorted(set(np.asarray(short.state.times))) == [0, 1]  # 40 of 48, none twice
    assert short.state.times.sum() == 40


def test_an_algorithm_of_ones_own_needs_the_protocol_only():
    fitted = jg.fit(KEY, gaussian(), NUMBERED, Recorder(), steps=2)
    assert fitted.history["rows"].tolist() == [N, N]
    refused("no default number of steps", KEY, gaussian(), NUMBERED, Recorder())
    refused("no score to choose by", KEY, gaussian(), NUMBERED, Recorder(), steps=2, validation=X)


@pytest.mark.parametrize(("make", "how"), [(mixture, jg.EM()), (gaussian, adam())])
def test_a_weight_is_a_number_of_rows(make, how):
    weight = RNG.integers(0, 3, N).astype(np.float32)
    repeated = np.repeat(X, weight.astype(int), axis=0)
    weighted = jg.fit(KEY, make(), (X, None, weight), how, steps=5, tolerance=0)
    plain = jg.fit(KEY, make(), repeated, how, steps=5, tolerance=0)
    for a, b in zip(jax.tree.leaves(weighted.model), jax.tree.leaves(plain.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # sums in another order
    np.testing.assert_allclose(
        weighted.history[how.traits.monitor], plain.history[how.traits.monitor], rtol=1e-5
    )


def test_an_event_of_weight_zero_may_be_impossible():
    x = X.copy()
    x[0] = 1e30
    weight = np.ones(N)
    weight[0] = 0
    for make, how in ((mixture, jg.EM()), (gaussian, adam())):
        clean = jg.fit(KEY, make(), (X[1:], None, weight[1:]), how, steps=5, tolerance=0)
        fitted = jg.fit(KEY, make(), (x, None, weight), how, steps=5, tolerance=0)
        assert fitted.status is jg.Status.FINISHED
        np.testing.assert_allclose(fitted.history[how.traits.monitor], clean.history[how.traits.monitor], rtol=1e-5)


def test_forms_of_data_are_alike():
    weight = np.arange(1, N + 1)
    forms = [(X, None, weight), {"x": X, "weight": weight}, {"weight": weight.tolist(), "x": jnp.asarray(X)},
             (X.astype(np.float64), None, weight.astype(np.float32))]  # fmt: skip
    fits = [jg.fit(KEY, mixture(), form, steps=5, tolerance=0) for form in forms]
    for other in fits[1:]:
        same(fits[0].model, other.model)
    bools = jg.fit(KEY, mixture(), (X, None, weight > 3), steps=5, tolerance=0)
    same(bools.model, jg.fit(KEY, mixture(), (X, None, (weight > 3) * 1.0), steps=5, tolerance=0).model)


def test_chunks_change_nothing_but_rounding():
    whole = SCAN(KEY, mixture(), X, jg.EM(), steps=10)
    for chunk in (7, 1):
        parts = SCAN(KEY, mixture(), X, jg.EM(chunk=chunk), steps=10)
        np.testing.assert_allclose(parts.history["log_likelihood"], whole.history["log_likelihood"], rtol=1e-6)
        for a, b in zip(jax.tree.leaves(parts.model), jax.tree.leaves(whole.model), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@model
class Regression:
    """Events are numbers around `weight @ context`."""

    weight: jax.Array
    noise: float = static(default=1.0)
    event_shape = ()
    context_shape = (2,)

    @per_event
    def log_prob(self, x, context):
        return -0.5 * (x - self.weight @ context) ** 2

    @per_sample
    def sample(self, key, context):
        return self.weight @ context + jax.random.normal(key)


def test_context():
    target = X @ np.float32([2.0, -1.0])
    how = jg.Gradient(jg.losses.nll, optax.adam(0.2))
    fitted = jg.fit(KEY, Regression(jnp.zeros(2)), (target, X), how, steps=300, batch_size=8)
    np.testing.assert_allclose(fitted.model.weight, [2.0, -1.0], atol=0.05)
    for data in (target, (target, X[:, :1]), (target, X[:, 0])):
        refused("context", KEY, Regression(jnp.zeros(2)), data, how, steps=3)
    refused("context", KEY, gaussian(), (X, X), adam(), steps=3)
    jitted = jax.jit(lambda x, c, w: jg.scan_fit(KEY, Regression(jnp.zeros(2)), (x, c, w), how, steps=3).model.weight)
    assert jitted(target, X, np.ones(N)).shape == (2,)


# streams


def test_a_stream_of_one_batch_is_that_batch():
    stream = (X for _ in range(100))
    fitted = jg.fit(KEY, gaussian(), stream, adam(), steps=20)
    whole = jg.fit(KEY, gaussian(), X, adam(), steps=20)
    same(fitted.model, whole.model)
    np.testing.assert_array_equal(fitted.history["loss"], whole.history["loss"])
    assert fitted.status is jg.Status.FINISHED
    assert sum(1 for _ in stream) == 80, "it takes what it needs"


def test_a_stream_that_ends():
    for steps in (6, 100):
        fitted = jg.fit(KEY, gaussian(), iter([X] * 6), adam(), steps=steps)
        assert fitted.status is (jg.Status.FINISHED if steps == 6 else jg.Status.EXHAUSTED)
        assert fitted.steps == len(fitted.history["loss"]) == 6
    assert jg.Status.EXHAUSTED.message == "the iterator of batches ended"
    refused("iterator of batches is empty", KEY, gaussian(), iter([]), adam())


def test_batches_of_a_stream_may_differ():
    batches = [X[:8], (X[8:16], None, np.arange(8)), {"x": X[16:24]}, X[:5], X[:5]]
    fitted = jg.fit(KEY, gaussian(), iter(batches), adam(), steps=9)
    assert fitted.steps == 5
    one = jg.fit(KEY, gaussian(), X[:8], adam(), steps=1)
    np.testing.assert_array_equal(fitted.history["loss"][0], one.history["loss"][0])
    with pytest.raises(jg.ShapeError, match="data does not end in the shape of one event"):
        jg.fit(KEY, gaussian(), iter([X[:8], X[:8, :1]]), adam(), steps=9)
    with pytest.raises(jg.DataError, match="NaN"):
        jg.fit(KEY, gaussian(), iter([X[:8], X[:8] * np.nan]), adam(), steps=9)


def test_a_stream_with_validation_restarts_and_failure():
    stream = (X[:8] for _ in range(100))
    fitted = jg.fit(KEY, gaussian(), stream, adam(), steps=9, validation=X[:5], every=4)
    assert fitted.history["validation_step"].tolist() == [4, 8, 9]
    start = lambda key: dataclasses.replace(gaussian(), offset=jax.random.normal(key, (2,)))  # noqa: E731
    fitted = jg.fit(KEY, start, (X[:8] for _ in range(100)), adam(), steps=9, restarts=2)
    assert fitted.history["loss"].shape == (2, 9)
    with pytest.warns(jg.JaxgenWarning, match="step 5"):
        fitted = jg.fit(KEY, Walker(jnp.float32(0.0)), (X for _ in range(100)), WALK, steps=20)
    assert fitted.steps == 5
    np.testing.assert_allclose(fitted.history["loss"], [0.0, -0.1, -0.2, -0.3, np.nan], atol=1e-6)


def test_a_map_that_is_large_is_not_read_without_a_word(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    same(jg.fit(KEY, gaussian(), mapped, adam(), steps=2).model, jg.fit(KEY, gaussian(), X, adam(), steps=2).model)
    monkeypatch.setattr(plan, "LARGE_MAP", X.nbytes)
    for data in (mapped, (mapped,), {"x": mapped}):
        with pytest.warns(jg.JaxgenWarning, match="Stream"):
            jg.fit(KEY, gaussian(), data, adam(), steps=2)
