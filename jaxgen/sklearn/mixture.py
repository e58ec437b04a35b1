"""Gaussian mixtures with the face of scikit-learn's, fitted by the EM of this library."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

import jaxgen as jg
from jaxgen.core.value import algorithm
from jaxgen.sklearn import gaussians
from jaxgen.sklearn.gaussians import Parameters
from jaxgen.sklearn.mixtures import MixtureEstimator, shaped, shares


@algorithm
class Ridge:
    """A variance that is added to each of a mixture's Gaussians in every M-step: `cov = S / n + variance I`.

    Example:
        >>> import jax
        >>> start = jg.Mixture.from_components([jg.Gaussian.from_values([1.0], [[1.0]])])
        >>> fitted = jg.fit(jax.random.key(0), start, np.array([[0.0], [2.0]]), jg.EM(amend=Ridge(0.5)), steps=1)
        >>> fitted.model.components.covariance.round(4).tolist()
        [[[1.5]]]
    """

    variance: float

    def __call__(self, key: Any, model: Any, statistics: Any) -> Any:
        return statistics._replace(components=gaussians.add_ridge(self.variance, statistics.components))


class GaussianMixture(MixtureEstimator):
    """A Gaussian mixture, a drop-in for `sklearn.mixture.GaussianMixture` that is several times as fast.

    Arguments, attributes, starts and errors are scikit-learn's: the same `random_state` starts from the same clusters
    and ends in the same optimum up to rounding. float32 in is float32 out. `fit` takes a `sample_weight` too.

    Args:
        n_components: number of components.
        covariance_type: "full", "tied", "diag" or "spherical".
        tol: EM ends when the mean log-likelihood changes by less, nats per event.
        reg_covar: variance that is added to all of each component's, units of X squared.
        max_iter: EM steps at most; 0 keeps the start.
        n_init: number of starts, of which the best is kept.
        init_params: "kmeans", "k-means++", "random" or "random_from_data".
        weights_init, means_init, precisions_init: of the start, in the shapes of `weights_`, `means_`, `precisions_`.
        random_state: None, an int or a `RandomState`, of starts and samples.
        warm_start: go on from the last fit.
        verbose: 1 prints each start and every `verbose_interval`-th step, 2 the change too.
        verbose_interval: steps between two lines.

    Attributes:
        weights_, means_, covariances_, precisions_, precisions_cholesky_: the parameters; a precision is `P P^T`, P
            upper triangular.
        converged_, n_iter_, lower_bound_, lower_bounds_: of the best start; bounds are the mean log-likelihood before
            each step, nats.
        n_features_in_, feature_names_in_: of the data.

    Example:
        >>> X = np.concatenate([np.linspace(-1, 1, 50), np.linspace(9, 11, 50)])[:, None]
        >>> mixture = GaussianMixture(2, random_state=0).fit(X)
        >>> np.abs(np.sort(mixture.means_.ravel())).round(3).tolist()
        [0.0, 10.0]
    """

    def __init__(
        self, n_components=1, *, covariance_type="full", tol=1e-3, reg_covar=1e-6, max_iter=100, n_init=1,
        init_params="kmeans", weights_init=None, means_init=None, precisions_init=None, random_state=None,
        warm_start=False, verbose=0, verbose_interval=10,
    ):  # fmt: skip
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def bic(self, X) -> float:
        """Return the Bayesian information criterion: lower is better."""
        return float(-2 * self.score(X) * len(X) + self._free() * math.log(len(X)))

    def aic(self, X) -> float:
        """Return Akaike's information criterion: lower is better."""
        return float(-2 * self.score(X) * len(X) + 2 * self._free())

    def to_model(self) -> jg.Mixture:
        """Return the fitted mixture as a model of this library.

        Example:
            >>> X = np.linspace(-1, 1, 50)[:, None]
            >>> round(float(GaussianMixture().fit(X).to_model().components.variance[0, 0]), 3)
            0.347
        """
        check_is_fitted(self)
        return self._current()

    @property
    def _scoring(self) -> tuple[jg.Mixture, float]:  # type: ignore[override]
        return self._current(), 0.0

    def _current(self) -> jg.Mixture:
        parameters = Parameters(self.weights_, self.means_, self.precisions_cholesky_)
        return gaussians.mixture_of(parameters, self.covariance_type)

    def _free(self) -> int:
        k, d = self.means_.shape
        spread = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}
        return k - 1 + k * d + spread[self.covariance_type]

    def _checked_start(self, X: np.ndarray) -> Given:
        return given_start(self, X)

    def _start(self, X: np.ndarray, weight: Any, given: Given, random: Any) -> jg.Mixture:
        return gaussians.mixture_of(started(self, X, weight, given, random), self.covariance_type)

    def _algorithm(self) -> jg.EM:
        return jg.EM(amend=Ridge(float(self.reg_covar)))

    def _keep(self, model: jg.Mixture) -> None:
        kind = self.covariance_type
        self.weights_, self.means_, self.precisions_cholesky_ = gaussians.parameters_of(model, kind)
        self.precisions_ = gaussians.precisions(self.precisions_cholesky_, kind)
        self.covariances_ = gaussians.covariances(self.precisions_cholesky_, kind)


class Given(NamedTuple):
    """The parameters of a start that were given, None for the others."""

    weights: np.ndarray | None
    means: np.ndarray | None
    cholesky: np.ndarray | None


def given_start(mixture: GaussianMixture, X: np.ndarray) -> Given:
    """Return what was given of a start, checked.

    Raises:
        ValueError: shapes that do not fit, weights that are no shares, precisions that are none.
    """
    k, d, kind = mixture.n_components, X.shape[1], mixture.covariance_type
    weights, means, precisions = mixture.weights_init, mixture.means_init, mixture.precisions_init
    if weights is not None:
        weights = shaped(weights, (k,), "weights", X.dtype)
        if not (weights >= 0).all() or not (weights <= 1).all():
            raise ValueError(
                "The parameter 'weights' should be in the range [0, 1], but got max value "
                f"{np.min(weights):.5f}, min value {np.max(weights):.5f}"
            )
        if not abs(1 - weights.sum()) <= (1e-6 if weights.dtype == np.float32 else 1e-8):
            raise ValueError(
                f"The parameter 'weights' should be normalized, but got sum(weights) = {np.sum(weights):.5f}"
            )
    if means is not None:
        means = shaped(means, (k, d), "means", X.dtype)
    if precisions is None:
        return Given(weights, means, None)
    shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[kind]
    precisions = shaped(precisions, shape, f"{kind} precision", X.dtype)
    gaussians.check_positive(precisions, kind)
    return Given(weights, means, gaussians.precision_cholesky(precisions, kind))


def started(mixture: GaussianMixture, X: np.ndarray, weight: Any, given: Given, random: Any) -> Parameters:
    """Return the parameters of one start: those that are given, and the others from a split of the data."""
    if all(one is not None for one in given):
        return Parameters(*given)  # type: ignore[arg-type]
    share = shares(X, weight, mixture.n_components, mixture.init_params, random)
    mass, means = gaussians.moments(X, share)
    weights = mass / mass.sum()
    weights = weights if given.weights is None else given.weights
    if given.cholesky is not None:
        return Parameters(weights, means if given.means is None else given.means, given.cholesky)
    spread = gaussians.covariances_of(X, share, mass, means, mixture.reg_covar, mixture.covariance_type)
    cholesky = gaussians.cholesky_of(spread, mixture.covariance_type)
    return Parameters(weights, means if given.means is None else given.means, cholesky)
