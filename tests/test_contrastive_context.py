"""Contrastive divergence at contexts: chains start at the data and stay at the contexts of their events."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg

KEY = jax.random.key(0)


@jg.model
class Tilted:
    """Normal events of scale 1 around a line: `E(x | c) = (x - slope c - level)^2 / 2`, with its exact kernel."""

    slope: jax.Array
    level: jax.Array
    event_shape = ()
    context_shape = (1,)

    def _mean(self, context):
        return self.slope * context[0] + self.level

    @jg.per_event
    def energy(self, x, *, context=None):
        return 0.5 * (x - self._mean(context)) ** 2

    @jg.per_event
    def kernel(self, key, x, *, context=None):
        return self._mean(context) + jax.random.normal(key)

    @jg.per_event
    def pseudo_log_likelihood(self, x, *, context=None):
        return -self.energy(x, context=context)


def test_the_line_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    context = rng.normal(size=(400, 1)).astype(np.float32)
    x = (2 * context[:, 0] - 1 + rng.normal(size=400)).astype(np.float32)
    slope, level = np.polyfit(context[:, 0], x, 1)
    falling = jg.ContrastiveDivergence(lambda steps: optax.sgd(optax.linear_schedule(0.5, 0.0, steps)), chains=None)
    start = Tilted(jnp.zeros(()), jnp.zeros(()))
    fitted = jg.fit(KEY, start, (x, context), falling, steps=400, validation=(x, context), every=200)
    # the kernel forgets where it started, so that samples are the model's own; 400 of them a step leave a hundredth
    np.testing.assert_allclose([fitted.model.slope, fitted.model.level], [slope, level], atol=0.05)


def test_chains_of_their_own_are_refused():
    data = np.zeros(8, np.float32), np.zeros((8, 1), np.float32)
    for algorithm in (jg.ContrastiveDivergence(), jg.ContrastiveDivergence(negative=jg.Tempered())):
        with pytest.raises(jg.FitError, match="at no context"):
            jg.fit(KEY, Tilted(jnp.zeros(()), jnp.zeros(())), data, algorithm, steps=1)


def test_convolutions_take_a_context():
    """The digits 0 and 1 as two contexts, in a game of two convolutional players."""
    module, critic = jg.nn.ConvGenerator((8, 8), width=2), jg.nn.ConvCritic((8, 8), width=2)
    x = jg.data.digits().images[:64].astype(np.float32)
    context = np.eye(2, dtype=np.float32)[np.arange(64) % 2]
    start = jg.Generator.init(KEY, x, jg.StandardNormal((4,)), module=module, context_shape=(2,))
    fitted = jg.fit(KEY, start, (x, context), jg.Adversarial(critic), steps=2, batch_size=16)
    drawn = fitted.model.sample(KEY, (2,), context=context[:2])
    assert drawn.shape == (2, 8, 8) and np.isfinite(drawn).all()
    judge = jg.Net.init(KEY, critic, (8, 8), (2,))
    both = judge(x[:2], context[:2])
    np.testing.assert_allclose(both[1], judge(x[1], context[1]), rtol=1e-4)
    assert abs(float(judge(x[1], context[0]) - both[1])) > 1e-4, "the context reaches no output"
