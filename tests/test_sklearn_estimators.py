"""Estimators around models of this library, against scikit-learn's and the models themselves.

`benchmarks/drop_in.py estimators` runs `check_estimator` on all of them.
"""

import pickle

import jax
import numpy as np
import pytest
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import BernoulliRBM as TheirRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxgen as jg
from jaxgen.sklearn import VAE, AnomalyDetector, BernoulliRBM, FlowDensity, GenerativeClassifier, Imputer

RANDOM = np.random.default_rng(0)
X = np.concatenate([RANDOM.normal(size=(60, 2)) @ [[1, 0.5], [0, 1]] + centre for centre in ([0, 0], [3, 0], [0, 4])])
Y = np.repeat(["a", "b", "c"], 60)


def test_a_gaussian_for_each_class_is_quadratic_discriminant_analysis():
    ours = GenerativeClassifier().fit(X, Y)
    theirs = QuadraticDiscriminantAnalysis(priors=[1 / 3] * 3).fit(X, Y)
    np.testing.assert_allclose(ours.priors_, 1 / 3)
    assert ours.classes_.tolist() == ["a", "b", "c"]
    share = ours.predict_proba(X)
    np.testing.assert_allclose(share, theirs.predict_proba(X), atol=0.02)  # theirs divides by one event less
    np.testing.assert_array_equal(ours.predict(X), ours.classes_[share.argmax(1)])
    np.testing.assert_allclose(share.sum(1), 1, rtol=1e-9)
    pipeline = make_pipeline(StandardScaler(), GenerativeClassifier(2, random_state=0))
    assert cross_val_score(pipeline, X, Y, cv=3).mean() > 0.9
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again.predict_proba(X), share)


def test_unsure_events_are_rejected_and_strangers_are_unlikely():
    classifier = GenerativeClassifier(reject=0.99, reject_label="?").fit(X, Y)
    found = classifier.predict([[0.0, 0.0], [1.5, 0.5], [50.0, 50.0]])
    assert found[1] == "?" and found[0] == "a"
    score = classifier.score_samples([[0.0, 0.0], [50.0, 50.0]])
    assert score[1] < score[0] - 100


def test_a_constant_column_decides_nothing():
    """A tenth is no float32: the mean of tenths with weights is off by a rounding, which is no variance."""
    weight = np.random.default_rng(0).uniform(size=len(X))
    more = np.hstack([X, np.full((len(X), 1), 0.1)]).astype(np.float32)
    classifier = GenerativeClassifier(random_state=0)
    with pytest.warns(jg.JaxgenWarning, match="repaired"):
        classifier.fit(more, Y, sample_weight=weight)
    off = more + np.array([0, 0, 1e-7], np.float32)
    np.testing.assert_allclose(classifier.score_samples(off), classifier.score_samples(more), atol=0.1)


def test_imputer_is_the_conditional_mean():
    holes = X.copy()
    holes[::3, 1] = np.nan
    filled = Imputer(tol=1e-12, max_iter=1000).fit(holes).transform(holes)
    np.testing.assert_array_equal(filled[~np.isnan(holes)], holes[~np.isnan(holes)])
    # of one Gaussian with one column of holes the maximum is known: a regression on the rows that were seen
    seen = ~np.isnan(holes[:, 1])
    slope, level = np.polyfit(holes[seen, 0], holes[seen, 1], 1)
    np.testing.assert_allclose(filled[::3, 1], slope * holes[::3, 0] + level, rtol=1e-4, atol=1e-4)
    assert Imputer().fit(holes.astype(np.float32)).transform(holes.astype(np.float32)).dtype == np.float32


def test_flow_density():
    flow = FlowDensity(n_layers=2, hidden=(16,), max_iter=60, random_state=0).fit(X)
    np.testing.assert_allclose(flow.score(X), flow.score_samples(X).sum())
    np.testing.assert_allclose(flow.inverse_transform(flow.transform(X)), X, atol=1e-6)
    again = pickle.loads(pickle.dumps(flow))
    np.testing.assert_array_equal(again.score_samples(X), flow.score_samples(X))
    np.testing.assert_array_equal(flow.sample(4), FlowDensity.sample(again, 4))
    assert flow.to_model().event_shape == (2,) and flow.score_samples(X).dtype == np.float64


def test_bad_input():
    with pytest.raises(ValueError, match="only one class"):
        GenerativeClassifier().fit(X, ["a"] * len(X))
    with pytest.raises(ValueError, match="3 probabilities that sum to 1"):
        GenerativeClassifier(priors=[0.5, 0.5]).fit(X, Y)
    with pytest.raises(ValueError, match=r"columns \[1\] were never seen"):
        Imputer().fit(np.stack([X[:, 0], np.full(len(X), np.nan)], axis=1))
    with pytest.raises(ValueError, match="'n_layers' parameter of FlowDensity"):
        FlowDensity(n_layers=0).fit(X)
    with pytest.raises(ValueError, match="'hidden' parameter of FlowDensity must be a tuple of ints"):
        FlowDensity(hidden=(8, 0)).fit(X)
    with pytest.raises(ValueError, match="'validation_fraction' parameter of FlowDensity"):
        FlowDensity(validation_fraction=1.0).fit(X)
    with pytest.raises(ValueError, match="features"):
        Imputer().fit(X).transform(X[:, :1])


def test_the_machine_is_scikit_learns():
    bits = (X.mean(axis=0) < X).astype(float) @ np.eye(2, 5) + 0.1
    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 1e-4)):  # two roundings of some hundred steps
        ours, theirs = (one(3, batch_size=7, n_iter=4, random_state=0) for one in (BernoulliRBM, TheirRBM))
        found, wanted = (one.fit_transform(bits.astype(dtype)) for one in (ours, theirs))
        np.testing.assert_allclose(found, wanted, atol=tolerance)
        np.testing.assert_allclose(ours.components_, theirs.components_, atol=tolerance)
        np.testing.assert_allclose(ours.h_samples_, theirs.h_samples_)
        np.testing.assert_allclose(ours.score_samples(bits), theirs.score_samples(bits), atol=10 * tolerance)
        np.testing.assert_array_equal(ours.gibbs(bits), theirs.gibbs(bits))
        assert found.dtype == dtype == ours.components_.dtype
    for one in (ours, theirs):
        one.partial_fit(bits[:7])
    np.testing.assert_allclose(ours.intercept_visible_, theirs.intercept_visible_, atol=1e-4)
    np.testing.assert_allclose(ours.to_model().encode(bits.astype(np.float32)), ours.transform(bits), atol=1e-6)


def test_strangers_are_outliers():
    x = X.astype(np.float32)
    strange = np.concatenate([x, [[30.0, -30.0]]]).astype(np.float32)
    found = AnomalyDetector(contamination=0.05, random_state=0).fit(strange)
    assert (found.predict(strange) == -1).sum() == round(0.05 * len(strange)) and found.predict(strange)[-1] == -1
    np.testing.assert_allclose(found.decision_function(x), found.score_samples(x) - found.offset_)
    np.testing.assert_array_equal(found.predict(x), np.where(found.decision_function(x) < 0, -1, 1))
    np.testing.assert_allclose(found.score_samples(x), -np.asarray(found.to_model().strangeness(x)), rtol=1e-4)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.score_samples(x), found.score_samples(x))
    with pytest.raises(ValueError, match="contamination"):
        AnomalyDetector(contamination=0.6).fit(x)
    with pytest.raises(ValueError, match="2 features"):
        found.predict(x[:, :1])


def test_autoencoder():
    x = X.astype(np.float32)
    vae = VAE(1, hidden=(8,), max_iter=30, random_state=0).fit(x)
    with pytest.raises(ValueError, match="X has 2 features, but VAE makes 1"):
        vae.inverse_transform(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="NaN"):
        vae.inverse_transform([[np.nan]])
    model = vae.to_model()
    np.testing.assert_allclose(vae.transform(x), model.encode(x), rtol=1e-5)
    np.testing.assert_allclose(vae.inverse_transform(vae.transform(x)), model.reconstruct(x), rtol=1e-5)
    np.testing.assert_allclose(vae.score_samples(x[3:5]), vae.score_samples(x)[3:5], rtol=1e-6)  # by the same draws
    keys = jax.random.split(jax.random.key(1), 64)
    bound = np.mean([model.elbo(key, x) for key in keys], axis=0).mean()
    assert vae.set_params(n_draws=64).score(x) / len(x) == pytest.approx(bound, abs=0.3)  # of 64 draws each
    again = pickle.loads(pickle.dumps(vae))
    np.testing.assert_array_equal(again.transform(x), vae.transform(x))
    assert vae.sample(4).shape == (4, 2) and vae.get_feature_names_out().tolist() == ["vae0"]
    with pytest.raises(ValueError, match="outside"):
        VAE(likelihood="bernoulli").fit(x)
