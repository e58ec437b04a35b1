"""Gaussian mixtures with the face of scikit-learn's, fitted by the EM of this library."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

import jaxgen as jg
from jaxgen.core.value import algorithm
from jaxgen.sklearn import gaussians
from jaxgen.sklearn.arrays import by_rows, checked_weight, precision_of
from jaxgen.sklearn.gaussians import Parameters
from jaxgen.sklearn.options import check_options, integer, one_of, real

STARTS = ("kmeans", "k-means++", "random", "random_from_data")


@algorithm
class Ridge:
    """A variance that is added to each of a mixture's Gaussians in every M-step: `cov = S / n + variance I`.

    Example:
        >>> start = jg.Mixture.from_components([jg.Gaussian.from_values([1.0], [[1.0]])])
        >>> fitted = jg.fit(jax.random.key(0), start, np.array([[0.0], [2.0]]), jg.EM(amend=Ridge(0.5)), steps=1)
        >>> fitted.model.components.covariance.tolist()
        [[[1.5]]]
    """

    variance: float

    def __call__(self, key: Any, model: Any, statistics: Any) -> Any:
        return statistics._replace(components=gaussians.add_ridge(self.variance, statistics.components))


class Run(NamedTuple):
    """The end of EM from one start."""

    parameters: Parameters
    bounds: list[float]
    converged: bool

    @property
    def bound(self) -> float:
        """The last mean log-likelihood, minus infinity where no step was made."""
        return self.bounds[-1] if self.bounds else -math.inf


class GaussianMixture(DensityMixin, BaseEstimator):
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

    def fit(self, X, y=None, sample_weight=None) -> GaussianMixture:
        """Fit by EM from `n_init` starts, of which the one with the highest likelihood is kept.

        Args:
            X: `[N, D]`.
            y: not used.
            sample_weight: `[N]`, not negative; None is ones.

        Raises:
            ValueError: data, weights or arguments that are none; components that collapse without a `reg_covar`.
        """
        self._fit(X, sample_weight)
        return self

    def fit_predict(self, X, y=None, sample_weight=None) -> np.ndarray:
        """Fit, and return the likeliest component of each event, `[N]`."""
        return self._predict(self._fit(X, sample_weight))

    def predict(self, X) -> np.ndarray:
        """Return the likeliest component of each event, `[N]`."""
        return self._predict(self._checked(X))

    def predict_proba(self, X) -> np.ndarray:
        """Return the probability of each component given the event, `[N, K]`."""
        return by_rows(self._model.responsibilities, self._checked(X))

    def score_samples(self, X) -> np.ndarray:
        """Return the log-likelihood of each event, `[N]`, nats."""
        return by_rows(self._model.log_prob, self._checked(X))

    def score(self, X, y=None) -> float:
        """Return the mean log-likelihood, nats per event."""
        return self.score_samples(X).mean()

    def bic(self, X) -> float:
        """Return the Bayesian information criterion: lower is better."""
        return float(-2 * self.score(X) * len(X) + self._free() * math.log(len(X)))

    def aic(self, X) -> float:
        """Return Akaike's information criterion: lower is better."""
        return float(-2 * self.score(X) * len(X) + 2 * self._free())

    def sample(self, n_samples=1) -> tuple[np.ndarray, np.ndarray]:
        """Draw events `[n_samples, D]`, sorted by their components, and these, `[n_samples]`."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one sample.")
        random = check_random_state(self.random_state)
        counts = random.multinomial(n_samples, np.asarray(self.weights_, np.float64) / self.weights_.sum(dtype=float))
        k, d = self.means_.shape
        shape = {"full": (k, d, d), "tied": (1, d, d), "diag": (k, d), "spherical": (k, 1)}[self.covariance_type]
        spread = np.broadcast_to(self.covariances_.reshape(shape), (k, *([d] * (len(shape) - 1))))
        one = random.multivariate_normal if len(shape) == 3 else _independent(random)
        drawn = [one(mean, spread[k], count) for k, (mean, count) in enumerate(zip(self.means_, counts, strict=True))]
        return np.vstack(drawn), np.repeat(np.arange(k), counts)

    def to_model(self) -> jg.Mixture:
        """Return the fitted mixture as a model of this library.

        Example:
            >>> X = np.linspace(-1, 1, 50)[:, None]
            >>> round(float(GaussianMixture().fit(X).to_model().components.variance[0, 0]), 3)
            0.347
        """
        check_is_fitted(self)
        return self._model

    @property
    def _model(self) -> jg.Mixture:
        check_is_fitted(self)
        return gaussians.mixture_of(
            Parameters(self.weights_, self.means_, self.precisions_cholesky_), self.covariance_type
        )

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return X.astype(self.means_.dtype, copy=False)

    def _predict(self, X: np.ndarray) -> np.ndarray:
        return by_rows(self._model.predict, X).astype(np.int64)

    def _free(self) -> int:
        k, d = self.means_.shape
        spread = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}
        return k - 1 + k * d + spread[self.covariance_type]

    def _fit(self, X: Any, sample_weight: Any) -> np.ndarray:
        check_options(self, {
            "n_components": integer(1), "covariance_type": one_of(*gaussians.KINDS), "tol": real(0),
            "reg_covar": real(0), "max_iter": integer(0), "n_init": integer(1), "init_params": one_of(*STARTS),
            "verbose_interval": integer(1),
        })  # fmt: skip
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if len(X) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, n_samples = {len(X)}"
            )
        weight, given = checked_weight(sample_weight, X), given_start(self, X)
        going_on = self.warm_start and hasattr(self, "converged_")
        random = check_random_state(self.random_state)
        best: Run | None = None
        for number in range(1 if going_on else self.n_init):
            if self.verbose:
                print(f"Initialization {number}")
            if going_on:
                start = Parameters(self.weights_, self.means_, self.precisions_cholesky_)
            else:
                start = started(self, X, weight, given, random)
            run = self._ascend(X, weight, start, self.lower_bound_ if going_on else -math.inf)
            best = run if best is None or run.bound > best.bound else best
        assert best is not None
        if not best.converged and self.max_iter > 0:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, or increase "
                "max_iter, tol, or check for degenerate data.", ConvergenceWarning, stacklevel=3,
            )  # fmt: skip
        self.weights_, self.means_, self.precisions_cholesky_ = best.parameters
        self.precisions_ = gaussians.precisions(self.precisions_cholesky_, self.covariance_type)
        self.covariances_ = gaussians.covariances(self.precisions_cholesky_, self.covariance_type)
        self.converged_, self.n_iter_ = best.converged, len(best.bounds)
        self.lower_bound_, self.lower_bounds_ = best.bound, best.bounds
        return X

    def _ascend(self, X: np.ndarray, weight: Any, start: Parameters, before: float) -> Run:
        """EM from one start; `before` is the bound of the step before its first."""
        if self.max_iter == 0:
            return Run(start, [], False)
        begin = time.perf_counter()
        with precision_of(X.dtype):
            model = gaussians.mixture_of(start, self.covariance_type)
            data = X if weight is None else (X, None, weight)
            fitted = jg.fit(
                jax.random.key(0), model, data, jg.EM(amend=Ridge(float(self.reg_covar))), steps=self.max_iter,
                tolerance=float(self.tol), progress=False,
            )  # fmt: skip
            bounds = [float(one) for one in fitted.history["log_likelihood"]]
            broken = fitted.status == jg.Status.NON_FINITE
            collapsed = self.reg_covar == 0 and (fitted.history["repaired"] > 0).any()
        if broken or collapsed:
            raise ValueError(gaussians.SINGULAR)
        converged = fitted.status == jg.Status.CONVERGED or abs(bounds[0] - before) < self.tol
        if self.verbose:
            self._print(bounds, before, converged, time.perf_counter() - begin)
        return Run(gaussians.parameters_of(fitted.model, self.covariance_type), bounds, bool(converged))

    def _print(self, bounds: list[float], before: float, converged: bool, seconds: float) -> None:
        changes = np.diff([before, *bounds])
        for step in range(self.verbose_interval, len(bounds) + 1, self.verbose_interval):
            print(f"  Iteration {step}" + (f"\t ll change {changes[step - 1]:.5f}" if self.verbose > 1 else ""))
        print(f"Initialization {'converged' if converged else 'did not converge'}." + (
            f"\t time lapse {seconds:.5f}s\t lower bound {bounds[-1]:.5f}." if self.verbose > 1 else ""
        ))  # fmt: skip


def _independent(random: Any) -> Any:
    return lambda mean, variance, count: mean + random.standard_normal((count, len(mean))) * np.sqrt(variance)


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
        weights = _shaped(weights, (k,), "weights", X.dtype)
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
        means = _shaped(means, (k, d), "means", X.dtype)
    if precisions is None:
        return Given(weights, means, None)
    shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[kind]
    precisions = _shaped(precisions, shape, f"{kind} precision", X.dtype)
    if kind in ("diag", "spherical"):
        if not (precisions > 0).all():
            raise ValueError(f"'{kind} precision' should be positive")
    else:
        same = np.allclose(precisions, np.swapaxes(precisions, -1, -2))
        if not same or not (np.linalg.eigvalsh(precisions) > 0).all():
            raise ValueError(f"'{kind} precision' should be symmetric, positive-definite")
    return Given(weights, means, gaussians.precision_cholesky(precisions, kind))


def _shaped(value: Any, shape: tuple[int, ...], name: str, dtype: Any) -> np.ndarray:
    value = check_array(value, dtype=dtype, ensure_2d=False, allow_nd=True)
    if value.shape != shape:
        raise ValueError(f"The parameter '{name}' should have the shape of {shape}, but got {value.shape}")
    return value


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


def shares(X: np.ndarray, weight: Any, k: int, how: str, random: Any) -> np.ndarray:
    """Return the share of each event in each component that a mixture starts with, `[N, K]`.

    Args:
        X: events `[N, D]`.
        weight: `[N]` or None, by which the shares are multiplied.
        k: number of components.
        how: "kmeans", "k-means++", "random" or "random_from_data".
        random: a `RandomState`.
    """
    n = len(X)
    if how == "random":
        share = random.uniform(size=(n, k)).astype(X.dtype)
        share /= share.sum(axis=1, keepdims=True)
    else:
        share = np.zeros((n, k), X.dtype)
        if how == "kmeans":
            label = KMeans(n_clusters=k, n_init=1, random_state=random).fit(X, sample_weight=weight).labels_
            share[np.arange(n), label] = 1
        elif how == "k-means++":
            _, index = kmeans_plusplus(X, k, sample_weight=weight, random_state=random)
            share[index, np.arange(k)] = 1
        else:
            odds = None if weight is None else np.asarray(weight, np.float64) / np.sum(weight, dtype=np.float64)
            share[random.choice(n, size=k, replace=False, p=odds), np.arange(k)] = 1
    return share if weight is None else share * weight[:, None]
