"""Mixtures with the face of scikit-learn's, against scikit-learn's own.

`benchmarks/drop_in.py` runs the tests that scikit-learn has for its own classes, and `check_estimator`, on these.
"""

import pickle

import numpy as np
import pytest
import sklearn.mixture as peer
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV

from jaxgen.sklearn import BayesianGaussianMixture, GaussianMixture

KINDS = ["full", "tied", "diag", "spherical"]


@pytest.fixture(scope="module")
def blobs():
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(size=(80, 2)) * [1, 0.2] + c for c in ([0, 0], [3, 3], [0, 5])])
    return random.permutation(x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "digits"), [(np.float64, 1e-9), (np.float32, 1e-3)])
def test_gaussian_mixture_is_a_drop_in(blobs, kind, dtype, digits):
    """The same seed starts from the same clusters and makes the same steps; float32 sums differ by their order."""
    X = blobs.astype(dtype)
    options = {"covariance_type": kind, "random_state": 3, "reg_covar": 0.01, "tol": 1e-2}
    ours, theirs = (library(3, **options).fit(X) for library in (GaussianMixture, peer.GaussianMixture))
    assert ours.n_iter_ == theirs.n_iter_ and ours.converged_
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "lower_bounds_"):
        found, wanted = np.asarray(getattr(ours, name)), np.asarray(getattr(theirs, name))
        np.testing.assert_allclose(found, wanted, rtol=digits, atol=digits, err_msg=name)
        assert name == "lower_bounds_" or found.dtype == dtype
    for name in ("score_samples", "predict_proba", "predict"):
        np.testing.assert_allclose(getattr(ours, name)(X), getattr(theirs, name)(X), rtol=digits, atol=digits)
    np.testing.assert_allclose([ours.aic(X), ours.bic(X)], [theirs.aic(X), theirs.bic(X)], rtol=digits)
    np.testing.assert_allclose(ours.to_model().components.mean, ours.means_, rtol=1e-6)  # a model is float32 by default
    drawn, of = ours.sample(50)
    assert drawn.shape == (50, 2) and (np.diff(of) >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_bayesian_mixture_is_a_drop_in(blobs, kind):
    """Posterior, bound and steps of scikit-learn; digits are those of float64 after a dozen steps."""
    weights = "dirichlet_process" if kind in ("full", "diag") else "dirichlet_distribution"
    options = {"covariance_type": kind, "random_state": 0, "n_components": 4, "max_iter": 12, "tol": 1e-9,
               "weight_concentration_prior_type": weights}  # fmt: skip
    with pytest.warns(ConvergenceWarning):
        ours, theirs = (one(**options).fit(blobs) for one in (BayesianGaussianMixture, peer.BayesianGaussianMixture))
    for name in (
        "weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bound_", "degrees_of_freedom_",
        "mean_precision_", "weight_concentration_", "covariance_prior_",
    ):  # fmt: skip
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(ours.score_samples(blobs), theirs.score_samples(blobs), rtol=1e-8)


@pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")
def test_weights_are_repetitions(blobs):
    X, weight = blobs[:40], np.arange(40) % 3
    start = {"means_init": X[[0, 20]], "weights_init": [0.5, 0.5], "precisions_init": np.stack([np.eye(2)] * 2)}
    weighted = GaussianMixture(2, max_iter=5, tol=0, **start).fit(X, sample_weight=weight)
    repeated = GaussianMixture(2, max_iter=5, tol=0, **start).fit(np.repeat(X, weight, axis=0))
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-9)
    np.testing.assert_allclose(weighted.lower_bounds_, repeated.lower_bounds_, rtol=1e-9)


def test_state_is_plain_and_travels(blobs):
    fitted = GaussianMixture(2, random_state=0).fit(blobs)
    plain = (int, float, str, bool, list, np.ndarray, type(None))
    assert all(isinstance(value, plain) for name, value in fitted.__getstate__().items() if name[0] != "_")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(blobs), fitted.predict(blobs))
    search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1, 3]}, cv=2).fit(blobs)
    assert search.best_params_ == {"n_components": 3}


def test_frames_keep_their_names(blobs):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(blobs, columns=["a", "b"])
    fitted = GaussianMixture(2, random_state=0).fit(frame)
    assert fitted.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[["b", "a"]])


def test_bad_input(blobs):
    with pytest.raises(NotFittedError):
        GaussianMixture().predict(blobs)
    with pytest.raises(ValueError, match="'n_components' parameter of GaussianMixture must be an int"):
        GaussianMixture(0).fit(blobs)
    with pytest.raises(ValueError, match="'covariance_type'"):
        GaussianMixture(covariance_type="round").fit(blobs)
    with pytest.raises(ValueError, match="NaN"):
        GaussianMixture().fit(np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match="Expected n_samples >= n_components"):
        GaussianMixture(6).fit(blobs[:5])
    with pytest.raises(ValueError, match="total of zero|at least one non-zero"):
        GaussianMixture().fit(blobs, sample_weight=np.zeros(len(blobs)))
    with pytest.raises(ValueError, match="ill-defined empirical covariance"):
        GaussianMixture(2, reg_covar=0).fit(np.zeros((9, 2)))
    with pytest.raises(ValueError, match="degrees_of_freedom_prior"):
        BayesianGaussianMixture(degrees_of_freedom_prior=0.5).fit(blobs)
