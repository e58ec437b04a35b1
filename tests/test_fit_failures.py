"""Fits whose numbers are not finite: the status, the last good model, and what is said of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fits import KEY, SCAN, WALK, Walker, X, gaussian, mixture, same

import jaxgen as jg
from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.pytree import model, static
from jaxgen.data import Stream


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
    slope: bool = static(default=False)
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
