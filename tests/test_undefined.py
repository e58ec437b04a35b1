"""Events with NaN in them that a model does not take for not seen: said in words, once the result shows it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg


def test_a_result_that_is_nan_says_why():
    """Outside of `jit` the events are looked at where a result is NaN, and only there."""
    whole = jg.DiagonalGaussian.from_values([0.0, 1.0], [1.0, 2.0])
    x = np.array([[0.0, 1.0], [np.nan, 1.0]], np.float32)
    with pytest.raises(jg.DataError, match="1 of 4 values NaN") as error:
        whole.log_prob(x)
    assert "DiagonalGaussian.log_prob" in str(error.value) and "missing=True" in str(error.value)
    found = eval("dataclasses.replace(model, missing=True)", {"dataclasses": dataclasses, "model": whole}).log_prob(x)
    assert np.isfinite(found).all()
    # inside of jit, grad and vmap NaN stays NaN
    assert np.isnan(jax.jit(whole.log_prob)(x)).tolist() == [False, True]
    assert np.isnan(jax.vmap(whole.log_prob)(x)).tolist() == [False, True]
    # a class is no number that could be NaN: there the events decide
    mixture = jg.Mixture.from_components([whole, whole])
    for method in (mixture.log_prob, mixture.responsibilities, mixture.predict):
        with pytest.raises(jg.DataError, match="NaN"):
            method(x)
    # NaN of another origin is none of the events
    broken = dataclasses.replace(whole, offset=jnp.full(2, jnp.nan))
    assert np.isnan(broken.log_prob(x[0])).all()
    machine = jg.RBM.from_values(np.zeros(2), np.zeros(1), np.zeros((2, 1)))
    with pytest.raises(jg.DataError, match="NaN"):
        machine.energy(x)
    line = jg.LinearRegression.from_values([[1.0]], [0.0], [[1.0]])
    for call in (lambda c: line.log_prob([1.0], context=c), lambda c: line.sample(jax.random.key(0), context=c)):
        with pytest.raises(jg.DataError, match="context"):
            call([np.nan])
