"""What the tests of `fit` share: small data, small models, and a way to count compilations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.pytree import fixed, model

KEY = jax.random.key(3)
DRAW = np.random.default_rng(0)
X = np.concatenate([DRAW.normal(-3, 1, (24, 2)), DRAW.normal(3, 0.5, (24, 2))]).astype(np.float32)
N = len(X)


def mixture(shift=0.0):
    means = jnp.float32([[-1.0, 0.0], [1.0, 0.0]]) + jnp.float32(shift)
    return jg.Mixture.from_components(jg.DiagonalGaussian.from_values(means, np.ones((2, 2), np.float32)))


def gaussian(mean=1.5):
    return jg.DiagonalGaussian.from_values(np.float32([mean, -mean]), np.float32([1.0, 2.0]))


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


def heard():
    """The number of compilations of this process, from the first call on."""
    _listen()
    return len(COMPILED)


def compilations(call):
    _listen()
    before = len(COMPILED)
    result = call()
    return len(COMPILED) - before, result


SCAN = jax.jit(jg.scan_fit, static_argnames=("algorithm", "steps", "batch_size"))


def random_start(key):
    return mixture(shift=jax.random.normal(key))


@model
class Walker:
    """Walks by .1 a step until its loss is no number."""

    place: jax.Array
    limit: jax.Array = fixed(default=0.35)
    event_shape = (2,)

    @per_event
    def log_prob(self, x):
        return jnp.where(self.place > self.limit, jnp.nan, self.place)

    @per_sample
    def sample(self, key):
        return jax.random.normal(key, (2,))


WALK = jg.Gradient(jg.losses.nll, optax.sgd(0.1))


def refused(message, key, model, data, algorithm=None, kind=ValueError, **options):
    with pytest.raises(jg.JaxgenError) as caught:
        jg.fit(key, model, data, algorithm, **options)
    text = str(caught.value)
    assert message in text, text
    assert isinstance(caught.value, kind)
    for row in ("called:", "expected:"):
        assert row in text, text
    return text
