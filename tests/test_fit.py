"""`fit` and `scan_fit`: what they promise of keys, steps, batches, weights, ends, restarts and errors."""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.protocols import Traits
from jaxgen.core.pytree import fixed, model, static
from jaxgen.core.value import algorithm
from jaxgen.data import Stream
from jaxgen.fit import driver

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(-3, 1, (24, 2)), RNG.normal(3, 0.5, (24, 2))]).astype(np.float32)
N = len(X)


def mixture(shift=0.0):
    means = jnp.float32([[-1.0, 0.0], [1.0, 0.0]]) + jnp.float32(shift)
    return jg.Mixture.from_components(jg.DiagonalGaussian.from_scale(means, np.ones((2, 2), np.float32)))


def gaussian(mean=1.5):
    return jg.DiagonalGaussian.from_scale(np.float32([mean, -mean]), np.float32([1.0, 2.0]))


def adam(rate=0.05):
    return jg.Gradient(jg.losses.nll, optax.adam(rate))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


COMPILED = []


@functools.cache
def _listen():
    def heard(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            COMPILED.append(event)

    jax.monitoring.register_event_duration_secs_listener(heard)


def compilations(call):
    _listen()
    before = len(COMPILED)
    result = call()
    return len(COMPILED) - before, result


SCAN = jax.jit(jg.scan_fit, static_argnames=("algorithm", "steps", "batch_size"))
FITS = {
    "EM": (mixture, jg.EM(), {}),
    "Gradient": (gaussian, adam(), {}),
    "minibatches": (gaussian, adam(), {"batch_size": 8}),
}


@pytest.mark.parametrize("name", FITS)
def test_fit_is_scan_fit(name):
    make, how, options = FITS[name]
    fitted = jg.fit(KEY, make(), X, how, steps=20, tolerance=None if options else 0.0, **options)
    scanned = SCAN(KEY, make(), X, how, steps=20, **options)
    assert jax.tree.structure(fitted.state) == jax.tree.structure(scanned.state)
    for a, b in zip(jax.tree.leaves(fitted.state), jax.tree.leaves(scanned.state), strict=True):
        # the same operations on the same numbers, but in two programs, which a compiler may round in the last place
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        assert a.dtype == b.dtype
    assert fitted.status == jg.Status(int(scanned.status)) == jg.Status.FINISHED
    assert fitted.steps == int(scanned.steps) == 20
    assert set(fitted.history) == set(scanned.history)
    for metric, values in fitted.history.items():
        assert values.shape == (20,)
        assert isinstance(values, np.ndarray)
        np.testing.assert_allclose(values, scanned.history[metric], rtol=1e-5, atol=1e-7)


def test_the_first_metric_is_of_the_start():
    fitted = jg.fit(KEY, gaussian(), X, adam(), steps=3)
    np.testing.assert_allclose(fitted.history["loss"][0], -gaussian().log_prob(X).mean(), rtol=1e-6)
    em = jg.fit(KEY, mixture(), X, steps=3)
    np.testing.assert_allclose(em.history["log_likelihood"][0], mixture().log_prob(X).mean(), rtol=1e-6)


def test_gradient_descent_is_optax_by_hand():
    start, optimiser = gaussian(), optax.adam(0.05)
    parameters = (start.offset, start.log_scale)
    state = optimiser.init(parameters)

    def loss(parameters):
        return -jnp.mean(dataclasses.replace(start, offset=parameters[0], log_scale=parameters[1]).log_prob(X))

    for _ in range(5):
        updates, state = optimiser.update(jax.grad(loss)(parameters), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    fitted = jg.fit(KEY, start, X, adam(), steps=5).model
    # the two programs sum in another order
    np.testing.assert_allclose(fitted.offset, parameters[0], rtol=1e-5)
    np.testing.assert_allclose(fitted.log_scale, parameters[1], rtol=1e-4, atol=1e-6)


def test_the_same_key_is_the_same_fit_and_another_is_not():
    run = lambda seed: jg.fit(jax.random.key(seed), gaussian(), X, adam(), steps=20, batch_size=8)  # noqa: E731
    same(run(0).state, run(0).state)
    assert not np.array_equal(run(0).model.offset, run(1).model.offset)


def test_the_callers_arrays_are_left_alone():
    start, x, key = mixture(), jnp.asarray(X), jax.random.key(3)
    jg.fit(key, start, x, steps=20)
    same(start, mixture())
    assert not x.is_deleted()
    jax.random.normal(key)


def test_number_of_steps_does_not_matter_to_the_way():
    long = jg.fit(KEY, gaussian(), X, adam(), steps=20, batch_size=8)
    short = jg.fit(KEY, gaussian(), X, adam(), steps=7, batch_size=8)
    np.testing.assert_array_equal(long.history["loss"][:7], short.history["loss"])
    one = jg.fit(KEY, gaussian(), X, adam(), steps=1, batch_size=8)
    assert one.history["loss"].shape == (1,)


# tolerance, validation, patience


def test_tolerance():
    fitted = jg.fit(KEY, mixture(), X, steps=300, tolerance=1e-4)
    change = np.abs(np.diff(fitted.history["log_likelihood"]))
    assert fitted.status is jg.Status.CONVERGED
    assert fitted.steps == len(fitted.history["log_likelihood"]) < 300
    assert change[-1] < 1e-4
    assert (change[:-1] >= 1e-4).all()
    assert jg.fit(KEY, mixture(), X, steps=60, tolerance=0).status is jg.Status.FINISHED
    scanned = SCAN(KEY, mixture(), X, jg.EM(), steps=20, tolerance=1e30)
    assert jg.Status(int(scanned.status)) is jg.Status.CONVERGED
    assert int(scanned.steps) == 2
    assert len(set(scanned.history["log_likelihood"].tolist()[1:])) == 1, "the last value repeats"


VALIDATED = {"steps": 60, "validation": X[:5], "every": 3}


def test_patience_ends_and_the_best_model_returns():
    # the validation set is one of two blobs: a model on its way to both gets better on it, then worse
    fitted = jg.fit(KEY, gaussian(-6.0), X, adam(0.2), patience=2, **VALIDATED)
    scores, steps = fitted.history["validation"], fitted.history["validation_step"]
    best = int(scores.argmax())
    assert fitted.status is jg.Status.PATIENCE
    assert 0 < best == len(scores) - 3
    np.testing.assert_array_equal(steps, 3 * np.arange(1, len(scores) + 1))
    assert fitted.steps == steps[-1] == len(fitted.history["loss"])
    np.testing.assert_allclose(fitted.model.log_prob(X[:5]).mean(), scores[best], rtol=1e-6)
    again = jg.fit(KEY, gaussian(-6.0), X, adam(0.2), steps=int(steps[best]))
    same(fitted.model, again.model)
    assert not np.array_equal(fitted.model.offset, fitted.state.model.offset)


def test_validation_without_patience_goes_to_the_end():
    fitted = jg.fit(KEY, gaussian(-6.0), X, adam(0.2), **(VALIDATED | {"steps": 31}))
    assert fitted.status is jg.Status.FINISHED
    assert fitted.steps == 31
    assert fitted.history["validation_step"].tolist() == [*range(3, 31, 3), 31]
    plain = jg.fit(KEY, gaussian(-6.0), X, adam(0.2), steps=31)
    same(fitted.state, plain.state)


def test_a_validation_without_a_score_returns_the_last_model():
    def hopeless(key, model, batch):
        return jnp.where(batch.x.shape[0] == 5, jnp.nan, jg.losses.nll(key, model, batch))

    fitted = jg.fit(KEY, gaussian(), X, jg.Gradient(hopeless, optax.adam(0.05)), **VALIDATED)
    assert np.isnan(fitted.history["validation"]).all()
    same(fitted.model, fitted.state.model)


def test_validation_is_no_training():
    drawn = []

    def loss(key, model, batch):
        noise = jax.random.normal(key)
        jax.debug.callback(lambda rows, noise: drawn.append((int(rows), float(noise))), batch.x.shape[0], noise)
        return jg.losses.nll(key, model, batch)

    jg.fit(KEY, gaussian(), X, jg.Gradient(loss, optax.sgd(0.01)), steps=6, validation=X[:5], every=2)
    jax.effects_barrier()
    training = [noise for rows, noise in drawn if rows == N]
    validation = {noise for rows, noise in drawn if rows == 5}
    assert len(set(training)) == 6, "each step draws anew"
    assert len(validation) == 1, "validations are alike but for the model"
    assert not validation & set(training), "and share no noise with a step"


# guards


@model
class Walker:
    """Walks by .1 a step until its loss is no number."""

    place: jax.Array
    limit: jax.Array = fixed(0.35)
    event_shape = (2,)

    @per_event
    def log_prob(self, x):
        return jnp.where(self.place > self.limit, jnp.nan, self.place)

    @per_sample
    def sample(self, key):
        return jax.random.normal(key, (2,))


WALK = jg.Gradient(jg.losses.nll, optax.sgd(0.1))


def test_not_finite_is_a_status_with_the_last_good_model():
    with pytest.warns(jg.JaxgenWarning, match=r"the fit at step 5: the metric loss was not finite \(nan\)"):
        fitted = jg.fit(KEY, Walker(jnp.float32(0.0)), X, WALK, steps=20)
    assert fitted.status is jg.Status.NON_FINITE
    assert "before the failing step" in fitted.status.message
    assert fitted.steps == 5
    np.testing.assert_allclose(fitted.model.place, 0.4, rtol=1e-6)
    np.testing.assert_allclose(fitted.history["loss"], [0.0, -0.1, -0.2, -0.3, np.nan], atol=1e-6)
    assert int(fitted.state.steps) == 4


@model
class Picky:
    """A walker who minds only one event, whose gradient or number it has none of."""

    place: jax.Array
    slope: bool = static(False)
    event_shape = ()

    @per_event
    def log_prob(self, x):
        minds = (x == 7) & (self.place > 0.25)
        return self.place + jnp.where(minds, jnp.sqrt(0 * self.place) if self.slope else -jnp.inf, 0)

    @per_sample
    def sample(self, key):
        return jax.random.normal(key, ())


def failure(*arguments, **options):
    with pytest.warns(jg.JaxgenWarning, match="not finite") as told:
        fitted = jg.fit(KEY, *arguments, **options)
    assert fitted.failure in str(told[0].message) and fitted.status is jg.Status.NON_FINITE
    return fitted.failure


def test_what_was_not_finite_is_named():
    events, start = np.arange(20.0), Picky(jnp.float32(0))
    named = "at step 4: the metric loss was not finite (inf); under the model before it the log_prob of event 7 is -inf"
    assert failure(start, events, WALK, steps=9) == named
    assert failure(start, Stream(events, chunk=20), WALK, steps=9) == named.replace("7 is", "7 of the last batch is")
    assert failure(lambda key: start, events, WALK, steps=9, restarts=2) == named
    for size in (1, 4):  # batches in an order of their own: it is found where it is met
        assert "log_prob of event 7 is -inf" in failure(start, events, WALK, steps=60, batch_size=size)
    told = failure(Picky(jnp.float32(0.0), True), events, WALK, steps=9)
    assert "the metric gradient_norm was not finite (nan); no single event has a log_prob that is not finite" in told


def test_impossible_events_are_named_but_for_those_that_do_not_count():
    x = np.array([0, 1, 2, 0, 1, 2, 2])
    start = jg.Mixture(jnp.zeros(2), jg.Categorical(jnp.array([[0.0, 0.0, -jnp.inf]] * 2)))
    told = "the metric log_likelihood was not finite (-inf); under the model before it the log_prob of event"
    assert told + "s 2, 5, 6 is -inf" in failure(start, x)
    weight = np.array([1, 1, 1, 1, 1, 0, 0])
    assert told + " 2 is -inf" in failure(start, (x, None, weight))
    assert told + "s 2, 5, 6 is -inf" in failure(start, Stream(x, chunk=4))


def test_not_finite_under_vmap():
    run = jax.vmap(lambda limit: jg.scan_fit(KEY, Walker(jnp.float32(0.0), limit), X, WALK, steps=8))
    fits = run(jnp.array([0.35, 9.0, -1.0]))
    assert fits.status.tolist() == [jg.Status.NON_FINITE, jg.Status.FINISHED, jg.Status.NON_FINITE]
    assert fits.steps.tolist() == [5, 8, 1]
    np.testing.assert_allclose(fits.model.place, [0.4, 0.8, 0.0], atol=1e-6)


def test_not_finite_parameters_are_caught_too():
    broken = jg.Gradient(jg.losses.nll, optax.chain(optax.sgd(0.1), optax.scale(np.inf)))
    scanned = SCAN(KEY, gaussian(), X, broken, steps=3)
    assert int(scanned.status) == jg.Status.NON_FINITE
    same(scanned.model, gaussian())
    assert "the parameter" in failure(gaussian(), X, broken, steps=3)


def test_minus_infinity_is_a_fair_parameter():
    start = dataclasses.replace(mixture(), logits=jnp.array([0.0, -jnp.inf]))
    scanned = SCAN(KEY, start, X, jg.EM(), steps=3)
    assert int(scanned.status) == jg.Status.FINISHED


def test_a_status_carries_its_message():
    assert [s.value for s in jg.Status] == list(range(len(jg.Status)))
    assert all(s.message and s.message[0].islower() for s in jg.Status)
    assert jg.Status(2) is jg.Status.CONVERGED
    assert jg.Status.CONVERGED == 2


# restarts


def random_start(key):
    return mixture(shift=jax.random.normal(key))


def test_restarts_return_the_best_and_all_scores():
    fitted = jg.fit(KEY, random_start, X, restarts=3, steps=20, tolerance=0)
    assert fitted.scores.shape == (3,)
    assert fitted.history["log_likelihood"].shape == (3, 20)
    assert fitted.models.logits.shape == (3, 2)
    each = [float(jax.tree.map(lambda a, i=i: a[i], fitted.models).log_prob(X).mean()) for i in range(3)]
    np.testing.assert_allclose(fitted.scores, each, rtol=1e-5)
    best = int(fitted.scores.argmax())
    same(fitted.model, jax.tree.map(lambda a: a[best], fitted.models))
    # they are what scan_fit does with the keys of the parts
    starts = jax.vmap(random_start)(jax.random.split(jax.random.fold_in(KEY, 2**31 - 3), 3))
    lanes = jax.vmap(lambda k, m: jg.scan_fit(k, m, X, steps=20))(jax.random.split(KEY, 3), starts)
    np.testing.assert_allclose(fitted.history["log_likelihood"], lanes.history["log_likelihood"], rtol=1e-5)


def test_restarts_that_fail_are_counted_and_never_chosen():
    def start(key):
        return Walker(jnp.float32(0.0), jnp.where(jax.random.uniform(key) < 0.5, 0.35, 9.0))

    with pytest.warns(jg.JaxgenWarning, match=r"\d of 9 restarts, the last at step 5: the metric loss") as warned:
        fitted = jg.fit(KEY, start, X, WALK, restarts=9, steps=8)
    failed = np.isneginf(fitted.scores)
    assert 0 < failed.sum() < 9
    assert str(warned[0].message).startswith(f"{failed.sum()} of 9")
    assert fitted.status is jg.Status.FINISHED
    np.testing.assert_allclose(fitted.model.place, 0.8, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(fitted.history["loss"]).any(axis=1), failed)


def test_all_restarts_fail():
    with pytest.warns(jg.JaxgenWarning, match="2 of 2 restarts"):
        fitted = jg.fit(KEY, lambda key: Walker(jnp.float32(0.0)), X, WALK, restarts=2, steps=8)
    assert fitted.status is jg.Status.NON_FINITE
    assert np.isneginf(fitted.scores).all()
    assert fitted.steps == 5


def test_restarts_with_validation_and_minibatches():
    start = lambda key: dataclasses.replace(gaussian(), offset=jax.random.normal(key, (2,)))  # noqa: E731
    fitted = jg.fit(KEY, start, X, adam(), restarts=3, steps=20, validation=X[:5], every=10, batch_size=8)
    assert fitted.history["validation"].shape == (3, 2)
    np.testing.assert_allclose(fitted.scores, fitted.history["validation"].max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(fitted.model.log_prob(X[:5]).mean(), fitted.scores.max(), rtol=1e-5)


def test_one_restart_and_a_function_without_restarts():
    assert jg.fit(KEY, random_start, X, restarts=1, steps=20).scores.shape == (1,)
    fitted = jg.fit(KEY, random_start, X, steps=20)
    assert fitted.scores is None
    assert fitted.model.logits.shape == (2,)


# what trains


def test_fixed_fields_stay_bit_identical_under_weight_decay():
    start = dataclasses.replace(gaussian(), floor=jnp.float32(0.1))
    decay = optax.adamw(0.05, weight_decay=0.9)
    for how in (jg.Gradient(jg.losses.nll, decay), jg.Gradient(jg.losses.nll, decay, average=0.9)):
        fitted = SCAN(KEY, start, X, how, steps=20).model
        assert np.asarray(fitted.origin).tobytes() == np.asarray(start.origin).tobytes()
        assert np.asarray(fitted.floor).tobytes() == np.asarray(start.floor).tobytes()
        assert not np.array_equal(fitted.offset, start.offset)


def test_the_average_of_iterates():
    how = jg.Gradient(jg.losses.nll, optax.adam(0.05), average=0.15)
    batch = jg.fit.__globals__["as_batch"](jnp.asarray(X))
    state = how.init(KEY, gaussian())
    step = jax.jit(how.step)
    expected = np.asarray(gaussian().offset, np.float64)
    for t in range(12):
        state, _ = step(KEY, state, batch)
        decay = min(0.15, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * np.asarray(state.iterate.offset, np.float64)
    np.testing.assert_allclose(state.average.offset, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(state.model.offset, state.average.offset)
    same(state.model.origin, gaussian().origin)
    assert not np.array_equal(state.model.offset, state.iterate.offset)


def test_64_bit_data_do_not_change_a_32_bit_model():
    with jax.enable_x64(True):
        for make, how in ((mixture, jg.EM()), (gaussian, adam())):
            start = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), make())
            fitted = jg.fit(KEY, start, X.astype(np.float64), how, steps=2)
            assert {leaf.dtype for leaf in jax.tree.leaves(fitted.model)} == {np.dtype("float32")}


# batches, weights, forms of data


class Seen(NamedTuple):
    model: object
    times: jax.Array
    last: jax.Array


@algorithm
class Recorder:
    """The least that an algorithm can be: counts how often it sees each event, which is its own number."""

    traits: ClassVar[Traits] = Traits("rows", steps=None)

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
    noise: float = static(1.0)
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


# interrupts, bars, compilations


def test_an_interrupt_returns_what_there_is():
    def stream():
        for _ in range(6):
            yield X
        raise KeyboardInterrupt

    fitted = jg.fit(KEY, gaussian(), stream(), adam(), steps=20)
    assert fitted.status is jg.Status.INTERRUPTED
    assert 0 < fitted.steps == len(fitted.history["loss"]) <= 6
    same(fitted.model, jg.fit(KEY, gaussian(), X, adam(), steps=fitted.steps).model)


@pytest.mark.parametrize("options", [{}, {"validation": X[:5], "every": 1000}])
def test_an_interrupt_between_chunks(options, monkeypatch):
    advance, calls = driver._advance, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return advance(*args)

    monkeypatch.setattr(driver, "_advance", interrupted)
    fitted = jg.fit(KEY, gaussian(), X, adam(), steps=2000, **options)
    assert fitted.status is jg.Status.INTERRUPTED
    assert 0 < fitted.steps == len(fitted.history["loss"]) < 2000
    same(fitted.model, fitted.state.model)  # not the start, though no validation was made yet
    monkeypatch.undo()
    same(fitted.model, jg.fit(KEY, gaussian(), X, adam(), steps=fitted.steps).model)


def test_the_bar_is_silent_but_on_a_terminal(capfd):
    jg.fit(KEY, gaussian(), X, adam(), steps=20)
    jg.fit(KEY, gaussian(), X, adam(), steps=20, progress=False)
    assert capfd.readouterr() == ("", "")
    jg.fit(KEY, gaussian(), X, adam(), steps=20, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "/20" in err


def test_a_second_fit_compiles_nothing():
    def em(steps):
        start, options = mixture(0.1 * steps), {"steps": steps, "tolerance": 1e-3 * steps}
        return jg.fit(jax.random.key(steps), start, X + steps, jg.EM(), **options)

    def gradient(steps):
        optimiser = optax.chain(optax.clip(1.0), optax.adamw(0.05, weight_decay=0.1))
        how = jg.Gradient(lambda key, model, batch: jg.losses.nll(key, model, batch), optimiser)
        options = {"steps": steps, "batch_size": 8, "validation": X[:5], "every": 2}
        return jg.fit(jax.random.key(steps), gaussian(steps), jnp.asarray(X) - steps, how, **options)

    def restarts(steps):
        return jg.fit(jax.random.key(steps), random_start, X, restarts=3, steps=steps)

    for call in (em, gradient, restarts):
        call(3)
        count, fitted = compilations(lambda call=call: call(5))
        assert count == 0, call
        assert fitted.compile_seconds >= 0
    assert compilations(lambda: jax.jit(lambda x: x * 3.25)(1.0))[0] == 1, "and they are counted"


# errors


def refused(message, key, model, data, algorithm=None, kind=ValueError, **options):
    with pytest.raises(jg.JaxgenError) as caught:
        jg.fit(key, model, data, algorithm, **options)
    text = str(caught.value)
    assert message in text, text
    assert isinstance(caught.value, kind)
    for row in ("called:", "expected:"):
        assert row in text, text
    return text


BAD = {
    "steps is zero": ({"steps": 0}, "steps must be a positive int"),
    "steps is negative": ({"steps": -1}, "steps must be"),
    "steps is a float": ({"steps": 10.0}, "steps must be"),
    "steps is a bool": ({"steps": True}, "steps must be"),
    "batch_size is zero": ({"batch_size": 0}, "batch_size must be"),
    "batch_size is a float": ({"batch_size": 8.0}, "batch_size must be"),
    "batch_size is above N": ({"batch_size": N + 1}, f"1 to {N}"),
    "tolerance is negative": ({"tolerance": -1.0}, "tolerance must be"),
    "tolerance is nan": ({"tolerance": float("nan")}, "tolerance must be"),
    "tolerance is text": ({"tolerance": "1e-3"}, "tolerance must be"),
    "tolerance on batches": ({"tolerance": 1e-3, "batch_size": 8}, "batch_size=None"),
    "patience alone": ({"patience": 3}, "validation=data"),
    "every alone": ({"every": 3}, "validation=data"),
    "patience is zero": ({"patience": 0, "validation": X}, "patience must be"),
    "every is zero": ({"every": 0, "validation": X}, "every must be"),
    "restarts is zero": ({"restarts": 0}, "restarts must be"),
    "restarts of a model": ({"restarts": 3}, "a function key -> model"),
    "checkpoint_every is zero": ({"checkpoint_every": 0}, "checkpoint_every must be"),
    "validation of another shape": ({"validation": X[:, :1]}, "validation does not end"),
    "validation is empty": ({"validation": X[:0]}, "empty"),
    "validation has nan": ({"validation": X * np.nan}, "NaN"),
    "validation is one event": ({"validation": X[0]}, "one leading axis"),
}


@pytest.mark.parametrize("name", BAD)
def test_options_that_are_none(name):
    options, message = BAD[name]
    refused(message, KEY, gaussian(), X, adam(), **({"steps": 3} | options))


def test_numpy_numbers_are_numbers():
    fitted = jg.fit(KEY, gaussian(), X, adam(), steps=np.int64(20), batch_size=np.int32(8))
    assert fitted.steps == 20


BAD_DATA = {
    "text": ("hello", "not numeric"),
    "none": (None, "there are no data"),
    "empty": ([], "empty"),
    "nan": (X * np.nan, "NaN"),
    "one event": (X[0], "one leading axis"),
    "too many axes": (X[None], "one leading axis"),
    "another dimension": (X[:, :1], "[*batch, 2]"),
    "a key": (KEY, "PRNG key"),
    "the model": (gaussian(), "DiagonalGaussian"),
    "weights that are negative": ((X, None, -np.ones(N)), "non-negative"),
    "too few weights": ((X, None, np.ones(3)), "weight"),
    "unknown names": ({"x": X, "y": X}, "y"),
    "a list of batches": ([X, X[:5]], "ragged"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_are_none(name):
    data, message = BAD_DATA[name]
    refused(message, KEY, gaussian(), data, adam(), steps=3)


def test_keys():
    for key in (0, None, jax.random.PRNGKey(0), jax.random.split(KEY), gaussian()):
        assert "jax.random.key(seed)" in refused("typed random key", key, gaussian(), X, kind=jg.DataError)


def test_models_that_are_none():
    for other in (3, None, {"a": 1}, X, jg.Gaussian):
        with pytest.raises((jg.JaxgenError, TypeError)):
            jg.fit(KEY, other, X)
    refused("that is no model", KEY, None, X, kind=jg.FitError)
    refused("that is no model", KEY, lambda key: 3, X, kind=jg.FitError)


@model
class OnlySamples:
    scale: jax.Array
    event_shape = (2,)

    @per_sample
    def sample(self, key):
        return self.scale * jax.random.normal(key, (2,))


def test_models_that_an_algorithm_cannot_train():
    samples = OnlySamples(jnp.float32(1.0))
    assert "Adversarial" in refused("no default algorithm", KEY, samples, X, kind=jg.FitError)
    assert "Gradient" in refused("EM does not apply", KEY, samples, X, jg.EM(), kind=jg.FitError)
    refused("EM does not apply", KEY, jg.Mixture(jnp.zeros(2), Walker(jnp.zeros(2))), X, jg.EM(), kind=jg.FitError)
    assert "negative_elbo" in refused("losses.nll needs", KEY, samples, X, adam(), kind=jg.FitError)
    elbo = jg.Gradient(jg.losses.negative_elbo)
    assert "log_prob is nll" in refused("losses.negative_elbo needs", KEY, gaussian(), X, elbo, kind=jg.FitError)
    refused("nothing to train", KEY, jg.StandardNormal((2,)), X, adam(), kind=jg.FitError)


def test_algorithms_with_options_that_are_none():
    for chunk in (0, -1, 2.5):
        refused("a chunk is a number of events", KEY, mixture(), X, jg.EM(chunk=chunk), kind=jg.FitError)
    for average in (1.0, -0.1, 2.0):
        how = jg.Gradient(jg.losses.nll, optax.sgd(0.1), average=average)
        refused("the decay of a moving average", KEY, gaussian(), X, how, kind=jg.FitError)
    for other in (jg.EM, "em", 3, optax.adam(0.1), lambda key: 3):
        refused("that is no algorithm", KEY, gaussian(), X, other, kind=jg.FitError)
    refused("that is no loss", KEY, gaussian(), X, jg.Gradient(optax.adam(0.1)), kind=jg.FitError)
    refused("that is no optimiser", KEY, gaussian(), X, jg.Gradient(jg.losses.nll, optax.adam), kind=jg.FitError)
    refused("needs all events in every step", KEY, mixture(), X, jg.EM(), batch_size=8, kind=jg.FitError)
    refused("an iterator sets its own batches", KEY, mixture(), iter([X]), jg.EM(), kind=jg.FitError)
    refused("an iterator sets its own batches", KEY, gaussian(), iter([X]), adam(), batch_size=4, kind=jg.FitError)


def test_fit_is_for_the_host():
    moved = lambda a: dataclasses.replace(gaussian(), offset=a[0])  # noqa: E731
    for traced in (lambda a: jg.fit(KEY, gaussian(), a), lambda a: jg.fit(KEY, moved(a), X)):
        with pytest.raises(jg.FitError, match=r"jaxgen\.scan_fit"):
            jax.jit(traced)(X)


def test_scan_fit_refuses_likewise():
    with pytest.raises(jg.FitError, match="that is no algorithm"):
        jg.scan_fit(KEY, gaussian(), X, jg.EM, steps=3)
    for options in ({"steps": 0}, {"steps": 2.5}, {"steps": 3, "batch_size": 0}, {"steps": 3, "batch_size": N + 1}):
        with pytest.raises(jg.FitError):
            jg.scan_fit(KEY, gaussian(), X, adam(), **options)
    for data in (3.0, X[:, :1], "a", X * np.nan, (X, None, np.ones(3)), {}):
        with pytest.raises((jg.DataError, jg.ShapeError)):
            jg.scan_fit(KEY, gaussian(), data, adam(), steps=3)


def test_repr_is_one_line():
    text = repr(jg.fit(KEY, mixture(), X, steps=20))
    assert "\n" not in text
    assert text.startswith("Fitted(")
    assert "log_likelihood=" in text
    assert "Mixture(" in text


def test_validation_by_another_loss():
    """A training loss with a penalty in it, and the likelihood for what it is worth."""
    x = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    penalised = lambda key, model, batch: jg.losses.nll(key, model, batch) + 100.0  # noqa: E731
    model = jg.DiagonalGaussian.from_scale([0.5], [1.0])
    algorithm = jg.Gradient(penalised, validate=jg.losses.nll)
    fitted = jg.fit(jax.random.key(0), model, x, algorithm, steps=2, validation=x, every=1)
    assert fitted.history["loss"][0] > 100
    np.testing.assert_allclose(fitted.history["validation"].max(), fitted.model.log_prob(x).mean(), rtol=1e-5)
    with pytest.raises(jg.FitError, match="no loss"):
        jg.Gradient(validate=3).init(jax.random.key(0), model)
