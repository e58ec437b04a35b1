"""Semi-supervised models against a mixture whose label, likelihood and bounds are closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops import likelihoods

KEY = jax.random.key(0)
X = np.ones((4000, 1), np.float32)


def linear(kernel, bias, module):
    return Net({"Dense_0": {"kernel": jnp.asarray(kernel, float), "bias": jnp.asarray(bias, float)}}, module)


@pytest.fixture(scope="module")
def toy():
    """p(y) = 1/2, z ~ N(0, 1), x | y, z ~ N(z + b_y, .25), b = (-1, 2); its encoder is the exact posterior."""
    # q(z | x, y) = N(.8 (x - b_y), .2)
    raw = 6 * np.arctanh(0.5 * np.log(0.2) / 6)
    encoder = linear([[0.8, 0.0], [0.8, 0.0], [-1.6, 0.0]], [0.0, raw], MLP((2,), in_shape=(1,), out_shape=(2, 1)))
    decoder = linear([[1.0], [-1.0], [2.0]], [0.0], MLP((1,), out_shape=(1, 1)))
    vae = jg.VAE(jg.StandardNormal((1,)), encoder, decoder, likelihoods.GaussianOfScale(0.5), (1,), (2,))
    return jg.SemiSupervised(vae, linear([[0.0, 0.0]], [0.0, 0.0], MLP((2,))), jnp.zeros(2))


def test_toy(toy):
    # log p(x) at x = 1, and the labels given it; every draw of an exact posterior gives the same weight
    np.testing.assert_allclose(toy.iwae(KEY, X[:3], samples=2), -1.860375022084, atol=1e-5)
    np.testing.assert_allclose(toy.label_probs(KEY, X[:2], samples=2), [[0.23147522, 0.76852478]] * 2, atol=1e-5)
    draws = np.asarray(toy.elbo(KEY, X), np.float64)
    assert draws.mean() == pytest.approx(-2.030510308862, abs=4 * draws.std() / np.sqrt(len(X)))
    # with its label, -1 where not known: log p(x, y)
    label = np.array([0, 1, -1])
    joint = np.log([0.23147522, 0.76852478, 1.0]) - 1.860375022084
    np.testing.assert_allclose(toy.iwae(KEY, X[:3], label=label, samples=2), joint, atol=1e-5)
    many = np.asarray(toy.elbo(KEY, X, label=np.arange(4000) % 2), np.float64)
    np.testing.assert_allclose(many.reshape(-1, 2).mean(0), joint[:2], atol=4 * many.std() / np.sqrt(2000))


def test_loss_teaches_the_classifier(toy):
    label = jnp.array([0, -1])
    plain, taught = (np.asarray(m.loss(KEY, X[:2], label=label)) for m in (toy, dataclasses.replace(toy, alpha=3.0)))
    np.testing.assert_allclose(taught - plain, [2 * np.log(2), 0.0], atol=1e-5)
    np.testing.assert_allclose(-plain, toy.elbo(KEY, X[:2], label=label) + np.array([-np.log(2), 0.0]), atol=1e-5)


def test_samples_of_a_label(toy):
    for label, middle in ((0, -1.0), (1, 2.0)):
        draws = np.asarray(toy.sample(KEY, (4000,), label=label))
        assert draws.mean() == pytest.approx(middle, abs=4 * np.sqrt(1.25 / 4000))
    assert toy.sample(KEY, (4000,)).mean() == pytest.approx(0.5, abs=4 * np.sqrt((1.25 + 2.25) / 4000))


def test_few_labels_and_many_events():
    """Three clusters in columns of units far apart: three labels of each are enough."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=900)
    x = (np.array([[0, 0], [4, 0], [0, 4]])[y] + 0.7 * rng.normal(size=(900, 2))) * [1e-3, 1e4]
    label = np.where(np.arange(900) < 12, y, -1)
    prior, likelihood = jg.StandardNormal((2,)), likelihoods.gaussian
    vae = jg.VAE.init(KEY, x, prior, hidden=(16,), context_shape=(3,), likelihood=likelihood)
    start = jg.SemiSupervised.init(KEY, x, vae, hidden=(16,), alpha=75.0)
    algorithm = jg.Gradient(jg.losses.own, optax.adam(5e-3))
    fitted = jg.fit(KEY, start, {"x": x, "label": label}, algorithm, steps=600, batch_size=300).model
    right = (np.asarray(fitted.classify(x)).argmax(1) == y).mean()
    own = (np.asarray(fitted.label_probs(KEY, x[:200], samples=10)).argmax(1) == y[:200]).mean()
    assert right > 0.95, right
    assert own > 0.95, own


def test_the_recipe_weighs_labels():
    """As all events, shared by those with a label; what it makes is fitted to both kinds."""
    x = np.concatenate([np.zeros((30, 2)), np.full((30, 2), 6.0)]) + np.random.default_rng(1).normal(size=(60, 2))
    label = np.where(np.arange(60) % 10 == 0, np.arange(60) // 30, -1)
    model, algorithm = jg.recipes.semi_supervised(KEY, x, label, 1, hidden=(8,), likelihood=likelihoods.gaussian)
    assert model.alpha == 60 / 6
    fitted = jg.fit(KEY, model, {"x": x, "label": label}, algorithm, steps=300).model
    assert (np.asarray(fitted.classify(x)).argmax(1) == np.arange(60) // 30).mean() > 0.95
    with pytest.raises(jg.DataError, match="no label is known"):
        jg.recipes.semi_supervised(KEY, x, np.full(60, -1))


def start(**options):
    vae = jg.VAE.init(KEY, X[:4], jg.StandardNormal((1,)), hidden=(4,), context_shape=(2,),
                      likelihood=likelihoods.gaussian)  # fmt: skip
    return jg.SemiSupervised.init(KEY, X[:4], vae, hidden=(4,), **options)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: jg.SemiSupervised.init(KEY, X[:4], jg.StandardNormal((1,))), jg.ModelError, "given a label"),
        (lambda: start(probs=[0.5, 0.6]), jg.DataError, "no probabilities"),
        (lambda: start(alpha=-1.0), jg.DataError, "below zero"),
        (lambda: start(classifier=MLP((3,))), jg.ModelError, "classifier's output"),
        (lambda: jg.fit(KEY, start(), {"x": X[:4], "label": [0, 1, 2, 5]}, steps=1), jg.ModelError, "no class"),
    ],
)  # fmt: skip
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_no_label_at_all():
    model = jg.fit(KEY, start(), {"x": X[:8], "label": np.full(8, -1)}, jg.Gradient(jg.losses.own), steps=2).model
    assert np.isfinite(model.elbo(KEY, X[:8])).all()
