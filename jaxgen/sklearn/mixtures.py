"""The parts that mixtures with the face of scikit-learn's share: starts, the best of several fits, answers."""

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
from jaxgen.sklearn import gaussians
from jaxgen.sklearn.arrays import by_rows, checked_weight, precision_of
from jaxgen.sklearn.options import check_options, integer, one_of, real

STARTS = ("kmeans", "k-means++", "random", "random_from_data")


class Run(NamedTuple):
    """The end of the ascent from one start: the model of this library, the bounds of the steps, and whether it rose."""

    model: Any
    bounds: list[float]
    converged: bool

    @property
    def bound(self) -> float:
        """The last bound, minus infinity where no step was made."""
        return self.bounds[-1] if self.bounds else -math.inf


class MixtureEstimator(DensityMixin, BaseEstimator):
    """The base of mixtures of Gaussians, which differ in what they start from, climb and keep.

    They have `_checked_start(X)`, what was given of a start or a prior; `_start(X, weight, given, random)`, a model to
    start from, and `_current()`, that of the last fit; `_algorithm()` and the metric that it climbs; `_keep(model)`,
    which sets the attributes; `_scoring`, a mixture that tells components apart, and what its log-likelihood lacks.
    """

    #: the metric of the algorithm that tells convergence
    _bound = "log_likelihood"
    lower_bound_: float
    _scoring: tuple[jg.Mixture, Any]

    def fit(self, X, y=None, sample_weight=None):
        """Fit from `n_init` starts, of which the one with the highest bound is kept.

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
        return by_rows(self._scoring[0].responsibilities, self._checked(X))

    def score_samples(self, X) -> np.ndarray:
        """Return the log-likelihood of each event, `[N]`, nats."""
        X, (mixture, lacking) = self._checked(X), self._scoring
        return by_rows(mixture.log_prob, X) + lacking

    def score(self, X, y=None) -> float:
        """Return the mean log-likelihood, nats per event."""
        return self.score_samples(X).mean()

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
        drawn = [
            random.multivariate_normal(mean, one, count) if one.ndim == 2
            else mean + random.standard_normal((count, d)) * np.sqrt(one)
            for mean, one, count in zip(self.means_, spread, counts, strict=True)
        ]  # fmt: skip
        return np.vstack(drawn), np.repeat(np.arange(k), counts)

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return X.astype(self.means_.dtype, copy=False)

    def _predict(self, X: np.ndarray) -> np.ndarray:
        return by_rows(self._scoring[0].predict, X).astype(np.int64)

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
        weight, given = checked_weight(sample_weight, X), self._checked_start(X)
        going_on = self.warm_start and "converged_" in vars(self)
        random = check_random_state(self.random_state)
        best: Run | None = None
        with precision_of(X.dtype):
            for number in range(1 if going_on else self.n_init):
                if self.verbose:
                    print(f"Initialization {number}")
                start = self._current() if going_on else self._start(X, weight, given, random)
                run = self._ascend(X, weight, start, self.lower_bound_ if going_on else -math.inf)
                best = run if best is None or run.bound > best.bound else best
            assert best is not None
            self._keep(best.model)
        if not best.converged and self.max_iter > 0:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, or increase "
                "max_iter, tol, or check for degenerate data.", ConvergenceWarning, stacklevel=3,
            )  # fmt: skip
        self.converged_, self.n_iter_ = best.converged, len(best.bounds)
        self.lower_bound_, self.lower_bounds_ = best.bound, best.bounds
        return X

    def _ascend(self, X: np.ndarray, weight: Any, start: Any, before: float) -> Run:
        """Climb from one start; `before` is the bound of the step before its first."""
        if self.max_iter == 0:
            return Run(start, [], False)
        begin = time.perf_counter()
        fitted = jg.fit(
            jax.random.key(0), start, X if weight is None else (X, None, weight), self._algorithm(),
            steps=self.max_iter, tolerance=float(self.tol), progress=False,
        )  # fmt: skip
        bounds = [float(one) for one in fitted.history[self._bound]]
        collapsed = self.reg_covar == 0 and (fitted.history["repaired"] > 0).any()
        if fitted.status == jg.Status.NON_FINITE or collapsed:
            raise ValueError(gaussians.SINGULAR)
        converged = fitted.status == jg.Status.CONVERGED or abs(bounds[0] - before) < self.tol
        if self.verbose:
            self._print(bounds, before, converged, time.perf_counter() - begin)
        return Run(fitted.model, bounds, bool(converged))

    def _print(self, bounds: list[float], before: float, converged: bool, seconds: float) -> None:
        changes = np.diff([before, *bounds])
        for step in range(self.verbose_interval, len(bounds) + 1, self.verbose_interval):
            print(f"  Iteration {step}" + (f"\t ll change {changes[step - 1]:.5f}" if self.verbose > 1 else ""))
        print(f"Initialization {'converged' if converged else 'did not converge'}." + (
            f"\t time lapse {seconds:.5f}s\t lower bound {bounds[-1]:.5f}." if self.verbose > 1 else ""
        ))  # fmt: skip


def shaped(value: Any, shape: tuple[int, ...], name: str, dtype: Any) -> np.ndarray:
    """Return an argument as an array of this shape.

    Raises:
        ValueError: another shape.
    """
    value = check_array(value, dtype=dtype, ensure_2d=False, allow_nd=True)
    if value.shape != shape:
        raise ValueError(f"The parameter '{name}' should have the shape of {shape}, but got {value.shape}")
    return value


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
