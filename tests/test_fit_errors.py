"""Options, data, models and algorithms that `fit` and `scan_fit` refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fits import KEY, N, Walker, X, adam, gaussian, mixture, refused

import jaxgen as jg
from jaxgen.core.methods import per_sample
from jaxgen.core.pytree import model

BAD = {
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
        how = jg.Gradient(jg.losses.nll, optax.sgd(0.1), average=jg.Average(average))
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
