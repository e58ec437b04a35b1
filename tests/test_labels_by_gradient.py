"""Labels in training by gradients: log p(x, y) where a label is known and log p(x) elsewhere, as EM has them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SIDE = RNG.integers(0, 2, 200)
COUNTS = RNG.poisson(np.where(SIDE, 5.0, 2.0))
SOME = np.where(RNG.uniform(size=200) < 0.3, SIDE, -1)
STEPS = RNG.integers(0, 2, (8, 12))
BITS = (RNG.uniform(size=(8, 12)) < np.where(STEPS, 0.8, 0.3)).astype(np.int32)
KNOWN = np.where(RNG.uniform(size=(8, 12)) < 0.4, STEPS, -1)


def mixture():
    return jg.Mixture.from_components(jg.Poisson.from_values([2.5, 4.0]), [0.4, 0.6])


def chain():
    return jg.HMM.from_values([0.5, 0.5], [[0.6, 0.4], [0.5, 0.5]], jg.Bernoulli.from_values([0.4, 0.6]))


def variational():
    return jg.VariationalMixture.from_components(jg.Poisson.from_values([2.5, 4.0]), concentration=1.0)


@pytest.mark.parametrize(("model", "x"), [(mixture(), COUNTS[:6]), (variational(), COUNTS[:6]), (chain(), BITS[:3])])
def test_the_classes_sum_to_the_likelihood(model, x):
    """Over all labels of the first class, and with none known."""
    unknown = np.full(x.shape[:2] if x.ndim > 1 else x.shape, -1)
    plain = model.log_prob(x)
    np.testing.assert_allclose(model.log_prob(x, label=unknown), plain, rtol=1e-6)
    joint = []
    for k in range(2):
        label = unknown.copy()
        label[(slice(None), 0) if x.ndim > 1 else slice(None)] = k
        joint.append(model.log_prob(x, label=label))
    np.testing.assert_allclose(np.logaddexp(*joint), plain, rtol=1e-5)
    np.testing.assert_allclose(model.log_prob(x, label=SOME[:6]), np.where(SOME[:6] < 0, plain, np.where(
        SOME[:6] == 1, joint[1], joint[0])), rtol=1e-5) if x.ndim == 1 else None  # fmt: skip
    if model.event_shape == ():
        hand = np.log(model.weights[1]) + jg.Poisson.from_values(4.0).log_prob(x)
        np.testing.assert_allclose(joint[1], hand, rtol=1e-5)


@pytest.mark.parametrize(("start", "x", "label"), [(mixture(), COUNTS, SOME), (chain(), BITS, KNOWN)])
def test_the_optimum_is_that_of_em(start, x, label):
    """Two ways up one hill: the same log p(x, y), up to what 600 falling steps leave, and the same classes."""
    data = {"x": x, "label": label}
    by_em = jg.fit(KEY, start, data, steps=400, tolerance=0.0)
    fast = jg.Gradient(optimizer=lambda steps: optax.adam(optax.cosine_decay_schedule(0.1, steps)))
    run = jg.scan_fit(KEY, start, data, fast, steps=400)
    scores = [float(model.log_prob(x, label=label).mean()) for model in (by_em.model, run.model)]
    assert abs(scores[0] - float(by_em.history["objective"][-1])) < 1e-5
    assert abs(scores[0] - scores[1]) < 1e-4
    without = jg.fit(KEY, start, x, steps=400, tolerance=0.0).model
    assert float(without.log_prob(x, label=label).mean()) < scores[0] - 1e-3, "labels said nothing"
    np.testing.assert_allclose(run.model.log_prob(x), by_em.model.log_prob(x), atol=0.02)


def test_batches_and_bounds_take_labels():
    """A mixture of autoencoders that knows some of its classes; a variational mixture by minibatches."""
    fitted = jg.fit(KEY, variational(), {"x": COUNTS, "label": SOME}, jg.Gradient(), steps=30, batch_size=50)
    assert np.isfinite(fitted.history["loss"]).all()
    x = np.where(SIDE[:, None], 4.0, -4.0) + 0.5 * RNG.normal(size=(200, 2))
    parts = [jg.VAE.init(jax.random.key(i), x, jg.StandardNormal((1,)), hidden=(8,),
                         likelihood=jg.likelihoods.gaussian) for i in range(2)]  # fmt: skip
    both = jg.Mixture.from_components(parts)
    loss = jg.losses.negative_elbo
    only = jg.Batch(jnp.asarray(x, jnp.float32), label=jnp.ones(200, jnp.int32))
    keys = jax.random.split(KEY, 2)
    alone = [np.asarray(loss(key, both, only)) for key in keys]
    assert all(np.isfinite(alone))
    fitted = jg.fit(KEY, both, {"x": x, "label": SIDE}, jg.Gradient(loss, optax.adam(1e-2)), steps=200, batch_size=200)
    share = fitted.model.weights
    np.testing.assert_allclose(share[1], SIDE.mean(), atol=0.05)
    drawn = fitted.model.components
    one = jax.tree.map(lambda leaf: leaf[1], drawn).sample(KEY, (100,))
    np.testing.assert_allclose(one.mean(axis=0), [4.0, 4.0], atol=0.7)


def test_who_looks_at_no_label_says_so():
    data = {"x": COUNTS.astype(np.float32)[:, None], "label": SOME}
    normal = jg.DiagonalGaussian.from_values([0.0], [1.0])
    with pytest.raises(jg.FitError, match="labels would not be looked at"):
        jg.fit(KEY, normal, data, jg.Gradient(), steps=1)
    both = jg.Mixture.from_components([normal, normal])
    with pytest.raises(jg.FitError, match="labels would not be looked at"):
        jg.fit(KEY, both, data, jg.Gradient(jg.losses.denoising_score_matching(1.0)), steps=1)
    with pytest.raises(jg.ModelError, match="not there"):
        jg.fit(KEY, mixture(), {"x": COUNTS, "label": SIDE + 1}, jg.Gradient(), steps=1)
