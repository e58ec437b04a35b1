"""Estimators around models of this library, against scikit-learn's and the models themselves.

`benchmarks/drop_in.py estimators` runs `check_estimator` on all of them.
"""

import pickle

import numpy as np
import pytest
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxgen as jg
from jaxgen.sklearn import FlowDensity, GenerativeClassifier, Imputer

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
    with pytest.raises(ValueError, match="'validation_fraction' parameter of FlowDensity"):
        FlowDensity(validation_fraction=1.0).fit(X)
    with pytest.raises(ValueError, match="features"):
        Imputer().fit(X).transform(X[:, :1])
