"""Contexts that may be absent, None for all events or a row of NaN for one, in every container whose parts allow it.

The leaf is trained as classifier-free guidance trains: with the context of some events, and without that of others.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

import jaxgen as jg
from jaxgen import bijections
from jaxgen.core.algebra import context_optional

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
CONTEXT = np.array([[0, 1], [np.nan, np.nan], [2, -1], [np.nan, np.nan], [1, 1], [0, 0]], np.float32)


@jg.model
class Guided:
    """A normal density of scale 1 around its context, or around a point of its own where there is none."""

    rest: jax.Array
    event_shape = (2,)
    context_shape = (2,)
    context_optional = True

    def _mean(self, context):
        return jnp.where(jnp.isnan(context), self.rest, context)

    @jg.per_event
    def log_prob(self, x, *, context=None):
        return jnp.sum(-0.5 * (x - self._mean(context)) ** 2 - 0.5 * jnp.log(2 * jnp.pi))

    @jg.per_sample
    def sample(self, key, shape=(), *, context=None):
        return self._mean(context) + jax.random.normal(key, (2,))

    @jg.weighted_events
    def e_step(self, x, weight=None, *, context=None):
        alone = weight * jnp.isnan(context).any(axis=1)
        return (alone.sum(), alone @ x), self.log_prob(x, context=context)

    def m_step(self, statistics):
        return Guided(statistics[1] / jnp.maximum(statistics[0], 1e-6))


@jg.model
class Needing(Guided):
    """The same, which needs its context."""

    context_optional = False


def guided(rest, cls=Guided):
    return cls(jnp.array(rest, jnp.float32))


def score(x, rest, context):
    """`log N(x; context or rest, 1)` by scipy, `[N]`."""
    return scipy.stats.norm.logpdf(x, np.where(np.isnan(context), rest, context)).sum(axis=-1)


A, B = [1.0, -1.0], [-2.0, 0.5]
SCALE = np.array([2.0, 3.0], np.float32)


def halved(context):
    """Two normal densities in equal shares."""
    return scipy.special.logsumexp([score(X, A, context), score(X, B, context)], axis=0) - np.log(2)


def product():
    return jg.Product.from_blocks({(0, 1): guided(A), (2,): jg.DiagonalGaussian.from_values([0.0], [1.0])})


def moved(flow_of):
    """A flow that multiplies by SCALE, in several nestings."""
    affine = bijections.Affine(jnp.zeros(2), jnp.log(SCALE))
    return jg.Flow(guided(A), flow_of(affine))


#: `(model, x -> its events, context -> expected log-density of X)`
CONTAINERS = {
    "mixture": (jg.Mixture.from_components([guided(A), guided(B)]), lambda x: x, halved),
    "several kinds": (
        jg.Mixture.from_components([guided(A), jg.DiagonalGaussian.from_values([0.0, 0.0], [1.0, 1.0])]),
        lambda x: x,
        lambda c: scipy.special.logsumexp([score(X, A, c), score(X, [0, 0], np.full_like(X, np.nan))], 0) - np.log(2),
    ),
    "product": (
        product(), lambda x: np.concatenate([x, x[:, :1]], axis=1),
        lambda c: score(X, A, c) + scipy.stats.norm.logpdf(X[:, 0]),
    ),
    "flow": (
        moved(lambda layer: bijections.Chain((layer, bijections.Inverse(bijections.Inverse(layer))))),
        lambda x: x * SCALE**2, lambda c: score(X, A, c) - 2 * np.log(SCALE).sum(),
    ),
    "punctured": (jg.Punctured.from_density(guided(A), [9.0, 9.0]), lambda x: x, lambda c: score(X, A, c)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_lacks_a_context_as_its_parts_do(name):
    model, events, expected = CONTAINERS[name]
    x = events(X)
    assert context_optional(model)
    for context in (CONTEXT, None):
        known = np.full_like(X, np.nan) if context is None else context
        np.testing.assert_allclose(model.log_prob(x, context=context), expected(known), rtol=1e-5, atol=1e-5)
    assert model.sample(KEY, (6,), context=CONTEXT).shape == x.shape == model.sample(KEY, (6,)).shape
    assert jg.check(model, x, context=CONTEXT).ok


def test_a_chain_lacks_a_context_at_some_steps():
    """With equal rows the states of each step are drawn anew: a mixture at each step."""
    hmm = jg.HMM.from_values([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]], [guided(A), guided(B)])
    for context in (CONTEXT, None):
        known = np.full_like(X, np.nan) if context is None else context
        np.testing.assert_allclose(hmm.log_prob(X, context=context), halved(known).sum(), rtol=1e-5)
    assert hmm.sample(KEY, length=4).shape == (4, 2)


def test_what_needs_its_context_says_so():
    for model in (
        jg.Mixture.from_components([guided(A, Needing)]),
        jg.Mixture.from_components([guided(A), guided(B, Needing)]),
        jg.Flow(guided(A), bijections.Coupling.init(KEY, X, context_shape=(2,))),
        jg.HMM.from_chain(
            jg.InputChain.from_values([0.5, 0.5], np.full((2, 2), 0.5), 2), [guided(A), guided(B)]
        ),
    ):  # fmt: skip
        assert not context_optional(model)
        with pytest.raises(jg.ShapeError, match="context"):
            model.log_prob(X)
    with pytest.raises(jg.ModelError, match="cannot be absent"):
        jg.VAE.init(KEY, X, guided(A, Needing), context_shape=(2,), context_optional=True)


def test_em_and_gradient_use_events_without_a_context():
    """The point of its own is the mean of the events without, whatever those with a context are."""
    alone = X[np.isnan(CONTEXT).any(axis=1)].mean(axis=0)
    mixture = jg.Mixture.from_components([guided(A)])
    by_em = jg.fit(KEY, mixture, {"x": X, "context": CONTEXT}, steps=2).model
    np.testing.assert_allclose(by_em.components.rest[0], alone, rtol=1e-5)
    gradient = jg.Gradient(optimizer=optax.sgd(1.0))  # the loss is half a square in a third of the events
    fitted = jg.fit(KEY, mixture, {"x": X, "context": CONTEXT}, gradient, steps=40, batch_size=6).model
    np.testing.assert_allclose(fitted.components.rest[0], alone, atol=1e-3)


def test_networks_of_an_autoencoder_know_what_is_absent():
    """An event without a context is scored by networks that see zeros and no flag; both sorts are learned."""
    rows = np.arange(400)[:, None]
    context = np.where(rows % 2, np.nan, np.sign(rows % 4 - 0.5)).astype(np.float32)
    rng = np.random.default_rng(0)
    middle = np.where(np.isnan(context), 0.0, 3 * context)
    x = (middle + 0.3 * rng.normal(size=(400, 2))).astype(np.float32)
    start = jg.VAE.init(
        KEY, x, jg.StandardNormal((1,)), hidden=(16,), likelihood=jg.likelihoods.gaussian, context_shape=(1,),
        context_optional=True,
    )  # fmt: skip
    assert context_optional(start)
    np.testing.assert_array_equal(start.elbo(KEY, x), start.elbo(KEY, x, context=np.full((400, 1), np.nan)))
    z = jnp.ones(1)
    raw = start.decoder(z, jnp.zeros(2))[0]
    np.testing.assert_allclose(start.decode(z), start.scaling[0] + start.scaling[1] * raw, rtol=1e-5)
    fitted = jg.fit(KEY, start, {"x": x, "context": context}, jg.Gradient(jg.losses.negative_elbo, optax.adam(1e-2)),
                    steps=600, batch_size=400).model  # fmt: skip
    for given, wanted in ((None, 0.0), (jnp.array([1.0]), 3.0), (jnp.array([-1.0]), -3.0)):
        drawn = fitted.sample(jax.random.key(1), (300,), context=given)
        np.testing.assert_allclose(drawn.mean(axis=0), [wanted] * 2, atol=0.4)
    prior = jg.VAE.init(KEY, x, guided(A), hidden=(4,), likelihood=jg.likelihoods.gaussian, context_shape=(2,),
                        context_optional=True)  # fmt: skip
    assert np.isfinite(prior.elbo(KEY, X, context=CONTEXT)).all()


def test_steps_without_a_context_train_a_chain():
    """All states alike, so that each has the mean of the steps without a context; half a context is refused."""
    hmm = jg.HMM.from_values([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]], [guided(A), guided(A)])
    fitted = jg.fit(KEY, hmm, {"x": X[None], "context": CONTEXT[None]}, steps=2).model
    alone = X[np.isnan(CONTEXT).any(axis=1)].mean(axis=0)
    np.testing.assert_allclose(fitted.emissions.rest, [alone, alone], rtol=1e-5)
    half = np.where([[True, False]], np.nan, CONTEXT)
    with pytest.raises(jg.DataError, match="a part is NaN"):
        jg.fit(KEY, hmm, {"x": X[None], "context": half[None]}, steps=2)


def test_a_flow_of_optional_layers_has_both_densities():
    """At a context one of two clouds, without one both of them."""
    rng = np.random.default_rng(0)
    side = np.sign(rng.normal(size=(400, 1))).astype(np.float32)
    x = (3 * side + 0.5 * rng.normal(size=(400, 2))).astype(np.float32)
    context = np.where(np.arange(400)[:, None] % 2, np.nan, side).astype(np.float32)

    def layer(key, x):
        coupling = bijections.Coupling.init(key, x, features=(32,), context_shape=(2,),
                                            transform=bijections.SplineTransform())  # fmt: skip
        return bijections.OptionalContext(coupling)

    start = jg.Flow.init(KEY, x, jg.StandardNormal((2,)), layer, layers=4)
    assert context_optional(start) and start.context_shape == (1,)
    gradient = jg.Gradient(optimizer=optax.adam(5e-3))
    model = jg.fit(KEY, start, {"x": x, "context": context}, gradient, steps=600, batch_size=400).model
    for given in (-1.0, 1.0):
        drawn = model.sample(KEY, (500,), context=jnp.array([given]))
        np.testing.assert_allclose(drawn.mean(axis=0), [3 * given] * 2, atol=0.3)
    free = np.asarray(model.sample(KEY, (500,)))
    assert 0.35 < (free[:, 0] > 0).mean() < 0.65
    # knowing the side is worth log 2 of an event, up to what 400 events teach
    gain = np.mean(model.log_prob(x, context=side) - model.log_prob(x))
    assert abs(gain - np.log(2)) < 0.25
    with pytest.raises(jg.ModelError, match="no room"):
        _ = bijections.OptionalContext(bijections.Affine(jnp.zeros(2), jnp.zeros(2))).context_shape
