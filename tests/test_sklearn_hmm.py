"""Hidden Markov models with the face of hmmlearn's, against hmmlearn. `benchmarks/drop_in.py` runs its own tests."""

import logging
import pickle

import numpy as np
import pytest
from hmmlearn import hmm as peer
from sklearn.base import clone

from jaxgen.sklearn import CategoricalHMM, GaussianHMM, PoissonHMM

LENGTHS = [50, 30, 40]
RANDOM = np.random.default_rng(0)
BLOCKS = [RANDOM.normal(size=(20, 2)) + c for c in ([0, 0], [3, 3], [0, 5])]
X = np.concatenate(BLOCKS * 2)
PRIORS = {"means_prior": 1.0, "means_weight": 2.0, "covars_weight": 5, "covars_prior": 0.5, "transmat_prior": 2.0}


@pytest.mark.parametrize(("kind", "more"), [("full", {}), ("tied", PRIORS), ("diag", PRIORS), ("spherical", {})])
def test_gaussian_hmm_is_a_drop_in(kind, more):
    """The same starts and steps; what is left are roundings of float64."""
    options = {"n_components": 3, "covariance_type": kind, "random_state": 0, "n_iter": 6, "tol": 1e-9, **more}
    ours, theirs = (library(**options).fit(X, LENGTHS) for library in (GaussianHMM, peer.GaussianHMM))
    for name in ("startprob_", "transmat_", "means_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-12)
    spread = theirs._covars_[:, :1] * np.ones((1, 2)) if kind == "spherical" else None  # theirs has a fault there
    wanted = theirs.covars_ if spread is None else spread[:, :, None] * np.eye(2)
    np.testing.assert_allclose(ours.covars_, wanted, rtol=1e-9, atol=1e-12)
    _agree(ours, theirs, X)
    if kind != "spherical":
        np.testing.assert_allclose(ours.sample(9, random_state=3)[0], theirs.sample(9, random_state=3)[0], rtol=1e-9)
        np.testing.assert_allclose(ours.bic(X, LENGTHS), theirs.bic(X, LENGTHS), rtol=1e-9)


@pytest.mark.parametrize(("ours", "theirs", "data"), [
    (CategoricalHMM, peer.CategoricalHMM, RANDOM.integers(0, 4, size=(120, 1))),
    (PoissonHMM, peer.PoissonHMM, RANDOM.poisson(4, size=(120, 2))),
])  # fmt: skip
def test_discrete_hmms_are_drop_ins(ours, theirs, data):
    ours, theirs = (library(3, random_state=0, n_iter=6).fit(data, LENGTHS) for library in (ours, theirs))
    np.testing.assert_allclose(ours.transmat_, theirs.transmat_, rtol=1e-9, atol=1e-12)
    _agree(ours, theirs, data)


def _agree(ours, theirs, data):
    np.testing.assert_allclose(list(ours.monitor_.history), list(theirs.monitor_.history), rtol=1e-10)
    np.testing.assert_allclose(ours.score(data, LENGTHS), theirs.score(data, LENGTHS), rtol=1e-10)
    np.testing.assert_allclose(ours.predict_proba(data, LENGTHS), theirs.predict_proba(data, LENGTHS), atol=1e-9)
    for how in ("viterbi", "map"):
        (score, path), (wanted, best) = (one.decode(data, LENGTHS, how) for one in (ours, theirs))
        np.testing.assert_allclose(score, wanted, rtol=1e-10)
        np.testing.assert_array_equal(path, best)


def test_float32_stays_and_a_model_comes_out():
    ours = GaussianHMM(2, random_state=0).fit(X.astype(np.float32), LENGTHS)
    np.testing.assert_allclose(ours.to_model().log_prob(X), ours.score(X), rtol=1e-5)  # float32 sums of 120 steps
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again.predict(X), ours.predict(X))
    assert clone(ours).get_params() == ours.get_params()


def test_letters_keep_and_start_parameters(caplog):
    model = GaussianHMM(2, params="st", init_params="st", random_state=0)
    model.means_, model.covars_ = X[[0, 25]], np.ones((2, 2))
    model.startprob_ = [1.0, 0.0]
    with caplog.at_level(logging.WARNING):
        model.fit(X)
    assert "will be overwritten" in caplog.text
    np.testing.assert_array_equal(model.means_, X[[0, 25]])
    np.testing.assert_array_equal(model._covars_, np.ones((2, 2)))
    left = GaussianHMM(3, init_params="mc", random_state=0)
    left.startprob_, left.transmat_ = [1, 0, 0], [[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]]
    moves = left.fit(X).transmat_
    np.testing.assert_array_equal(moves[[1, 2, 2], [0, 0, 1]], 0)


def test_bad_input():
    with pytest.raises(ValueError, match="sum to the 120 samples"):
        GaussianHMM(2).fit(X, [50, 30])
    with pytest.raises(ValueError, match="'covariance_type' parameter of GaussianHMM must be one of"):
        GaussianHMM(2, covariance_type="round").fit(X)
    with pytest.raises(ValueError, match="NaN"):
        GaussianHMM(2).fit(np.full((9, 2), np.nan))
    with pytest.raises(ValueError, match="expected 2"):
        GaussianHMM(2, random_state=0).fit(X).score(X[:, :1])
    with pytest.raises(ValueError, match="Symbols should be integers"):
        CategoricalHMM(2).fit(np.ones((5, 1)) / 2)
    with pytest.raises(ValueError, match="Largest symbol is 7"):
        CategoricalHMM(2, n_features=3).fit(np.array([[0], [7]]))
    with pytest.raises(ValueError, match="whole numbers"):
        PoissonHMM(2).fit(np.ones((5, 1)) / 2)
    with pytest.raises(ValueError, match="Unknown decoder"):
        PoissonHMM(1).fit(np.ones((9, 1))).decode(np.ones((9, 1)), algorithm="best")
