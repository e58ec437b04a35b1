"""Features by capability, and what judges them, against scikit-learn and the models' own methods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import jaxgen as jg
from jaxgen.nn import MLP, ProjectionCritic, Spectral
from jaxgen.tasks import agreement, features, linear_probe, neighbour_accuracy

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (60, 4))
BITS = (X > 0).astype(jnp.float32)
PLANES = jg.Mixture.init(KEY, X, 3, functools.partial(jg.LowRankGaussian.init, rank=2))


def test_features_are_the_models_own():
    vae = jg.VAE.init(KEY, X, jg.StandardNormal((2,)), hidden=(8,), likelihood=jg.likelihoods.gaussian)
    rbm, hmm = jg.RBM.init(KEY, BITS, 5), jg.HMM.init(KEY, X.reshape(6, 10, 4), 3, jg.DiagonalGaussian.init)
    flow, _ = jg.recipes.realnvp(KEY, X, layers=1, features=(8,))
    codes = jg.VQVAE.init(KEY, X, 8, grid=(2,), features=3, hidden=(8,), likelihood=jg.likelihoods.gaussian)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)  # compiled in another program
    same(features(vae, X), vae.encode(X))
    same(features(rbm, BITS), rbm.encode(BITS))
    same(features(flow, X), flow.encode(X))
    same(features(PLANES, X), PLANES.responsibilities(X))
    same(features(hmm, X.reshape(6, 10, 4)), hmm.smooth(X.reshape(6, 10, 4)))
    same(features(codes, X), codes.quantize(X).reshape(60, -1))
    assert features(vae, X).dtype == np.float32
    conditional = jg.VAE.init(KEY, X, jg.StandardNormal((2,)), hidden=(8,), context_shape=(1,),
                              likelihood=jg.likelihoods.gaussian)  # fmt: skip
    same(features(conditional, {"x": X, "context": X[:, :1]}), conditional.encode(X, context=X[:, :1]))


def test_local_latents_are_the_components_places():
    share = np.asarray(PLANES.responsibilities(X))
    within = [np.asarray(jax.tree.map(lambda a, k=k: a[k], PLANES.components).encode(X)) for k in range(3)]
    expected = np.concatenate([share[:, [k]] * within[k] for k in range(3)], axis=1)
    np.testing.assert_allclose(features(PLANES, X, which="local latents"), expected, rtol=1e-4, atol=1e-5)


def test_features_of_a_critic_are_what_its_last_layer_sees():
    body = MLP((16, 6))
    net = jg.Net.init(KEY, ProjectionCritic(body), (4,))
    last = net.params["Dense_0"]
    found = features(net, X)
    assert found.shape == (60, 6)
    np.testing.assert_allclose(found @ last["kernel"][:, 0] + last["bias"][0], net(X), rtol=1e-4, atol=1e-5)
    assert features(Spectral.init(KEY, MLP((7, 1)), (4,)), X).shape == (60, 7)
    pair = (lambda key, x: {"a": jnp.ones(x.shape)}, lambda params, x: params["a"] * x)
    with pytest.raises(jg.ModelError, match="no last linear layer"):
        features(jg.Net.init(KEY, pair, (4,)), X)


def test_what_has_no_features_is_named():
    with pytest.raises(jg.ModelError, match=r"(?s)no features.*Gaussian, which has none of them"):
        features(jg.Gaussian.init(KEY, X), X)
    with pytest.raises(jg.ModelError, match=r"(?s)called 'latents'.*encode\(x\).*which='responsibilities'"):
        features(PLANES, X, which="latents")
    with pytest.raises(jg.ModelError, match=r"(?s)no such features.*'critic'.*which='hidden'"):
        features(PLANES, X, which="hidden")
    with pytest.raises(jg.ShapeError, match="event"):
        features(PLANES, X[:, :3])


@pytest.fixture(scope="module")
def classes():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 300)
    z = rng.normal(size=(300, 5)) * [1, 100, 0.01, 3, 1] + np.eye(3, 5)[label] * [2, 100, 0.01, 1, 1]
    return z.astype(np.float32), 2 * label  # labels 0, 2, 4


def test_the_probe_is_logistic_regression(classes):
    z, label = classes
    for ridge in (1e-1, 1e-3):
        probe = linear_probe(KEY, z, label, ridge=ridge)
        unit = (z - z.mean(0)) / z.std(0)
        theirs = LogisticRegression(C=1 / (ridge * len(z)), tol=1e-8, max_iter=2000).fit(unit, label)
        # float32 sees slopes of 1e-5, which the ridge turns into coefficients
        np.testing.assert_allclose(np.exp(probe.log_probs(z)), theirs.predict_proba(unit), atol=2e-3)
        assert probe.accuracy(z, label) == pytest.approx(theirs.score(unit, label), abs=0.004)
    assert set(probe.predict(z)) == {0, 2, 4}
    units = np.array([1e6, 1e-6, 1.0, 1e3, 1.0], np.float32)
    np.testing.assert_allclose(linear_probe(KEY, z * units, label, ridge=1e-3).log_probs(z * units),
                               probe.log_probs(z), atol=5e-3)  # fmt: skip


def test_the_ridge_is_the_best_on_held_out_rows(classes):
    z, label = classes
    noise = np.random.default_rng(1).normal(size=(300, 5)).astype(np.float32)
    probe = linear_probe(KEY, noise[:60], label[:60], ridge=(1e-5, 1e-1, 10.0), validation=(noise[60:], label[60:]))
    assert probe.ridge == 10.0 and [h.ridge for h in probe.held] == [10.0, 1e-1, 1e-5]
    share = linear_probe(KEY, z, label, ridge=(1e-5, 1e-1, 10.0), validation=0.25)
    assert share.ridge < 10.0


def test_bad_input_of_the_probe(classes):
    z, label = classes
    with pytest.raises(jg.DataError, match="only one class"):
        linear_probe(KEY, z, np.zeros(300))
    with pytest.raises(jg.DataError, match="no label is known"):
        linear_probe(KEY, z, np.full(300, -1))
    with pytest.raises(jg.DataError, match="label is not numeric"):
        linear_probe(KEY, z, np.full(300, "a"))
    with pytest.raises(jg.ShapeError, match="a label for each"):
        linear_probe(KEY, z, label[:-1])
    with pytest.raises(jg.DataError, match="NaN"):
        linear_probe(KEY, np.where(z == z[0, 0], np.nan, z), label)
    with pytest.raises(jg.FitError, match="no such ridge"):
        linear_probe(KEY, z, label, ridge=-1.0)
    with pytest.raises(jg.FitError, match="no such rows"):
        linear_probe(KEY, z, label, validation=1.5)
    with pytest.raises(jg.DataError, match="classes that the fit has not"):
        linear_probe(KEY, z, label, validation=(z[:5], [1] * 5))
    probe = linear_probe(KEY, np.hstack([z, np.ones((300, 1))]), label, ridge=1e-3)  # a constant column decides nothing
    assert float(jnp.abs(probe.coefficients[5]).max()) == 0
    with pytest.raises(jg.ShapeError, match=r"(?s)rows of one length.*\[N, 6\]"):
        probe.predict(z)


def test_agreement_is_scikit_learns():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 200)
    cluster = np.where(rng.random(200) < 0.6, (label + 1) % 4, rng.integers(0, 6, 200))
    found = agreement(label, cluster)
    assert found.adjusted_rand == pytest.approx(metrics.adjusted_rand_score(label, cluster))
    assert found.mutual_information == pytest.approx(metrics.normalized_mutual_info_score(label, cluster))
    named = {c: (c - 1) % 4 for c in range(4)}  # the best naming, by construction
    assert found.accuracy == pytest.approx(
        np.mean([named.get(c, -1) == y for c, y in zip(cluster, label, strict=True)])
    )
    assert agreement([0, 0, 1], [5, 5, 2]) == (1, 1, 1) == agreement([0, 0], [1, 1])
    assert agreement([0, 0, 1, -1], [5, 5, 2, 2]) == (1, 1, 1)  # what is not known counts neither way
    with pytest.raises(jg.ShapeError, match="a label for each"):
        agreement([0, 1], [0])


def test_neighbours_are_scikit_learns(classes):
    z, label = classes
    for k in (1, 5):
        theirs = KNeighborsClassifier(k).fit(z[:200], label[:200]).score(z[200:], label[200:])
        assert neighbour_accuracy(z[:200], label[:200], z[200:], label[200:], k=k) == pytest.approx(theirs)
    with pytest.raises(jg.FitError, match="1 to 200"):
        neighbour_accuracy(z[:200], label[:200], z[200:], label[200:], k=201)
    with pytest.raises(jg.ShapeError, match="same features"):
        neighbour_accuracy(z[:200], label[:200], z[200:, :2], label[200:])
