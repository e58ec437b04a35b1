"""`fit` and `scan_fit`: what they promise of keys, steps, ends, restarts, interrupts and compilations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fits import KEY, SCAN, WALK, N, Walker, X, adam, compilations, gaussian, mixture, random_start, same

import jaxgen as jg
from jaxgen.fit import driver, feeds


@pytest.fixture(autouse=True)
def no_interrupt_before(monkeypatch):
    monkeypatch.setattr(driver, "_interrupted", -driver.TWICE)


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
    scale = start.scale  # means are descended in standard deviations of the start
    parameters = (start.offset / scale, start.log_scale)
    state = optimiser.init(parameters)

    def loss(parameters):
        moved = dataclasses.replace(start, offset=scale * parameters[0], log_scale=parameters[1])
        return -jnp.mean(moved.log_prob(X))

    for _ in range(5):
        updates, state = optimiser.update(jax.grad(loss)(parameters), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    fitted = jg.fit(KEY, start, X, adam(), steps=5).model
    # the two programs sum in another order
    np.testing.assert_allclose(fitted.offset, scale * parameters[0], rtol=1e-5)
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
    def hopeless(key, model, batch, step):
        return jnp.where(batch.x.shape[0] == 5, jnp.nan, jg.losses.nll(key, model, batch))

    fitted = jg.fit(KEY, gaussian(), X, jg.Gradient(hopeless, optax.adam(0.05)), **VALIDATED)
    assert np.isnan(fitted.history["validation"]).all()
    same(fitted.model, fitted.state.model)


def test_validation_is_no_training():
    drawn = []

    def loss(key, model, batch, step):
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


# restarts


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
    for how in (jg.Gradient(jg.losses.nll, decay), jg.Gradient(jg.losses.nll, decay, average=jg.Average(0.9))):
        fitted = SCAN(KEY, start, X, how, steps=20).model
        assert np.asarray(fitted.origin).tobytes() == np.asarray(start.origin).tobytes()
        assert np.asarray(fitted.floor).tobytes() == np.asarray(start.floor).tobytes()
        assert not np.array_equal(fitted.offset, start.offset)


def test_the_average_of_iterates():
    how = jg.Gradient(jg.losses.nll, optax.adam(0.05), average=jg.Average(0.15))
    batch = jg.Batch(jnp.asarray(X))
    state = how.init(KEY, gaussian())
    step = jax.jit(how.step)
    expected = np.asarray(gaussian().offset, np.float64)
    for t in range(12):
        state, _ = step(KEY, state, batch)
        decay = min(0.15, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * np.asarray(state.player.iterate.offset, np.float64)
    np.testing.assert_allclose(state.model.offset, expected, rtol=1e-5, atol=1e-7)
    same(state.model.origin, gaussian().origin)
    assert not np.array_equal(state.model.offset, state.player.iterate.offset)


def test_64_bit_data_do_not_change_a_32_bit_model():
    with jax.enable_x64(True):
        for make, how in ((mixture, jg.EM()), (gaussian, adam())):
            start = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), make())
            fitted = jg.fit(KEY, start, X.astype(np.float64), how, steps=2)
            assert {leaf.dtype for leaf in jax.tree.leaves(fitted.model)} == {np.dtype("float32")}


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
    advance, calls = feeds.advance_chunk, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return advance(*args)

    monkeypatch.setattr(feeds, "advance_chunk", interrupted)
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
        how = jg.Gradient(lambda key, model, batch, step: jg.losses.nll(key, model, batch), optimiser)
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


def test_repr_is_one_line():
    text = repr(jg.fit(KEY, mixture(), X, steps=20))
    assert "\n" not in text
    assert text.startswith("Fitted(")
    assert "log_likelihood=" in text
    assert "Mixture(" in text


def test_validation_by_another_loss():
    """A training loss with a penalty in it, and the likelihood for what it is worth."""
    x = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    penalised = lambda key, model, batch, step: jg.losses.nll(key, model, batch) + 100.0  # noqa: E731
    model = jg.DiagonalGaussian.from_values([0.5], [1.0])
    algorithm = jg.Gradient(penalised, validate=jg.losses.nll)
    fitted = jg.fit(jax.random.key(0), model, x, algorithm, steps=2, validation=x, every=1)
    assert fitted.history["loss"][0] > 100
    np.testing.assert_allclose(fitted.history["validation"].max(), fitted.model.log_prob(x).mean(), rtol=1e-5)
    with pytest.raises(jg.FitError, match="no loss"):
        jg.Gradient(validate=3).init(jax.random.key(0), model)
