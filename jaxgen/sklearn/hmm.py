"""Hidden Markov models with the face of hmmlearn's: `fit(X, lengths)`, its attributes, starts and priors."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array

import jaxgen as jg
from jaxgen.sklearn import gaussians
from jaxgen.sklearn.chains import LOG, ChainEstimator, check_probabilities, normalized
from jaxgen.sklearn.options import check_options, one_of, real

#: the smallest number that a covariance is divided by
SMALLEST_COUNT = 1e-5
#: the share of a variance that is added to it where a covariance has no inverse
RIDGE = 1e-7
SINGULAR = (
    "a covariance is not positive definite: take fewer states, another covariance_type, or a larger covars_prior or "
    "min_covar"
)


class GaussianHMM(ChainEstimator):
    """A hidden Markov model of Gaussians, a drop-in for `hmmlearn.hmm.GaussianHMM`.

    float64 in is float64 inside, float32 in float32. Parameters may be set by hand, as `model.means_ = ...`.

    Args:
        n_components: number of states.
        covariance_type: "spherical", "diag", "full" or "tied".
        min_covar: variance that is added to the covariances at the start, units of X squared.
        startprob_prior, transmat_prior: concentrations of Dirichlet priors; 1 is flat.
        means_prior, means_weight: of a normal prior of the means, and its strength in events.
        covars_prior, covars_weight: of inverse gamma or inverse Wishart priors of the covariances.
        algorithm: "viterbi" or "map", of `decode` and `predict`.
        random_state: None, an int or a `RandomState`.
        n_iter: steps at most.
        tol: the gain in log-likelihood of all data below which the fit is over, nats.
        verbose: print each step.
        params, init_params: letters of what is trained and started: s, t, m and c.
        implementation: "log" or "scaling"; one algorithm serves both.

    Attributes:
        startprob_, transmat_: `[K]` and `[K, K]`, probabilities.
        means_: `[K, D]`.
        covars_: `[K, D, D]`; it is set in the shape of its type: `[K]`, `[K, D]`, `[K, D, D]` or `[D, D]`.
        monitor_: a `ConvergenceMonitor`.
        n_features: D.

    Example:
        >>> X = np.concatenate([np.linspace(-1, 1, 50), np.linspace(9, 11, 50)])[:, None]
        >>> model = GaussianHMM(2, random_state=0).fit(X, lengths=[60, 40])
        >>> np.sort(model.means_.ravel()).round(2).tolist()
        [-0.0, 10.0]
        >>> model.predict(X).shape
        (100,)
    """

    means_: Any
    _rules = {"covariance_type": one_of(*gaussians.KINDS), "min_covar": real(0)}  # noqa: RUF012

    def __init__(
        self, n_components=1, covariance_type="diag", min_covar=1e-3, startprob_prior=1.0, transmat_prior=1.0,
        means_prior=0, means_weight=0, covars_prior=1e-2, covars_weight=1, algorithm="viterbi", random_state=None,
        n_iter=10, tol=1e-2, verbose=False, params="stmc", init_params="stmc", implementation="log",
    ):  # fmt: skip
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.min_covar = min_covar
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.means_prior = means_prior
        self.means_weight = means_weight
        self.covars_prior = covars_prior
        self.covars_weight = covars_weight
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation

    @property
    def covars_(self) -> np.ndarray:
        """The covariances, `[K, D, D]`, whatever their type."""
        k, d, eye = self.n_components, self.n_features, np.eye(self.n_features)
        own = self._covars_
        if self.covariance_type == "spherical":
            return own[:, None, None] * eye
        return own[:, None] * eye if self.covariance_type == "diag" else np.broadcast_to(own, (k, d, d)).copy()

    @covars_.setter
    def covars_(self, covars: Any) -> None:
        own, k, kind = np.array(covars, float), self.n_components, self.covariance_type
        if kind not in gaussians.KINDS:
            raise ValueError(f"covariance_type must be one of {gaussians.KINDS}, got {kind!r}")
        axes = {"spherical": 1, "diag": 2, "full": 3, "tied": 2}[kind]
        own = own.reshape(-1) if kind == "spherical" else own
        square = axes < 3 and kind != "tied" or own.shape[-1:] == own.shape[-2:-1]
        if own.ndim != axes or not square or (kind != "tied" and len(own) != k):
            shape = {"spherical": "(K,)", "diag": "(K, D)", "full": "(K, D, D)", "tied": "(D, D)"}[kind]
            raise ValueError(f"{kind!r} covars must have shape {shape} with K = {k}, got {np.shape(covars)}")
        gaussians.check_positive(own, kind, "covars")
        self._covars_ = own

    def _check_emissions(self) -> None:
        check_options(self, self._rules)
        self.means_ = np.asarray(self.means_, float)
        if self.means_.ndim != 2 or len(self.means_) != self.n_components:
            raise ValueError(f"means_ must have shape (n_components, n_features), got {self.means_.shape}")
        self.n_features = self.means_.shape[1]

    def _start_emissions(self, X: np.ndarray) -> None:
        k, d = self.n_components, X.shape[1]
        if self._needs("m", "means_"):
            clusters = KMeans(n_clusters=k, random_state=self.random_state, n_init=10).fit(X)
            self.means_ = clusters.cluster_centers_.astype(float)
        if self._needs("c", "_covars_"):
            all_data = np.cov(X.T).reshape(d, d) + self.min_covar * np.eye(d)
            self._covars_ = {
                "spherical": np.full(k, all_data.mean()), "diag": np.tile(np.diag(all_data), (k, 1)),
                "full": np.tile(all_data, (k, 1, 1)), "tied": all_data,
            }[self.covariance_type]  # fmt: skip

    def _emissions(self, dtype: Any) -> Any:
        kind = self.covariance_type
        cholesky = gaussians.cholesky_of(self._regular(), kind, SINGULAR).astype(dtype)
        parameters = gaussians.Parameters(np.ones(self.n_components, dtype), self.means_.astype(dtype), cholesky)
        return gaussians.mixture_of(parameters, kind).components

    def _regular(self) -> np.ndarray:
        """The covariances; where one has no inverse, which is said, its variances are raised by a little."""
        own = np.asarray(self._covars_, float)
        if self.covariance_type in ("spherical", "diag"):
            return own
        variances = np.diagonal(own, axis1=-2, axis2=-1)
        singular = np.linalg.eigvalsh(own)[..., :1] <= 0
        if singular.any():
            LOG.warning("%d of the covariances are singular: their variances are raised by a share of %g.",
                        int(singular.sum()), RIDGE)  # fmt: skip
        return own + (np.where(singular, RIDGE, 0) * variances)[..., None] * np.eye(own.shape[-1])

    def _update(self, moments: Any) -> None:
        mass = moments.weight.astype(float)[:, None]
        first, second = moments.first.astype(float), moments.second.astype(float)
        old = self.means_
        if "m" in self.params:
            weight = self.means_weight + mass
            prior = self.means_weight * (self.means_prior - old)
            self.means_ = old + np.divide(prior + first, weight, out=np.zeros_like(first), where=weight > 0)
        if "c" in self.params:
            self._covars_ = self._new_covariances(mass, first, second, self.means_ - old)

    def _new_covariances(self, mass: Any, first: Any, second: Any, shift: Any) -> np.ndarray:
        kind, away = self.covariance_type, self.means_ - self.means_prior
        if kind in ("spherical", "diag"):
            scatter = self.means_weight * away**2 + second - 2 * shift * first + shift**2 * mass
            count = max(self.covars_weight - 1, 0) + mass
            covariance = (self.covars_prior + scatter) / np.maximum(count, SMALLEST_COUNT)
            return covariance.mean(axis=1) if kind == "spherical" else covariance
        outer = lambda a, b: a[:, :, None] * b[:, None, :]  # noqa: E731
        scatter = self.means_weight * outer(away, away) + second - outer(first, shift) - outer(shift, first)
        scatter = scatter + outer(shift, shift) * mass[:, :, None]
        weight = max(self.covars_weight - self.n_features, 0)
        if kind == "tied":
            return (self.covars_prior + scatter.sum(axis=0)) / (weight + mass.sum())
        return (self.covars_prior + scatter) / np.maximum(weight + mass[:, :, None], SMALLEST_COUNT)

    def _scalars(self) -> dict[str, int]:
        k, d = self.n_components, self.n_features
        spread = {"spherical": k, "diag": k * d, "full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2}
        return {"s": k - 1, "t": k * (k - 1), "m": k * d, "c": spread[self.covariance_type]}

    def _draw(self, state: int, random: Any) -> np.ndarray:
        return random.multivariate_normal(self.means_[state], self.covars_[state])


class CategoricalHMM(ChainEstimator):
    """A hidden Markov model of symbols, a drop-in for `hmmlearn.hmm.CategoricalHMM`.

    Args:
        n_components: number of states.
        startprob_prior, transmat_prior, emissionprob_prior: concentrations of Dirichlet priors; 1 is flat.
        n_features: number of symbols; None counts them.
        algorithm, random_state, n_iter, tol, verbose, implementation: as in `GaussianHMM`.
        params, init_params: letters of what is trained and started: s, t and e.

    Attributes:
        startprob_, transmat_, emissionprob_: `[K]`, `[K, K]` and `[K, n_features]`, probabilities.
        monitor_: a `ConvergenceMonitor`.

    Example:
        >>> model = CategoricalHMM(2)
        >>> model.startprob_, model.transmat_ = [0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]]
        >>> model.emissionprob_ = [[0.1, 0.4, 0.5], [0.6, 0.3, 0.1]]
        >>> model.decode([[0], [1], [2]])[1].tolist()
        [1, 0, 0]
    """

    emissionprob_: Any

    def __init__(
        self, n_components=1, startprob_prior=1.0, transmat_prior=1.0, *, emissionprob_prior=1.0, n_features=None,
        algorithm="viterbi", random_state=None, n_iter=10, tol=1e-2, verbose=False, params="ste", init_params="ste",
        implementation="log",
    ):  # fmt: skip
        self.n_components = n_components
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.emissionprob_prior = emissionprob_prior
        self.n_features = n_features
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation

    def _data(self, X: Any) -> np.ndarray:
        X = check_array(X, dtype=None)
        if not np.issubdtype(X.dtype, np.integer):
            raise ValueError(f"Symbols should be integers, got {X.dtype}")
        if X.shape[1] != 1:
            raise ValueError(f"Symbols come in one column, [N, 1], got shape {X.shape}")
        if X.min() < 0:
            raise ValueError(f"Symbols should be nonnegative, got {X.min()}")
        return X

    def _scalar_events(self) -> bool:
        return True

    def _check_events(self, X: np.ndarray) -> None:
        if self.n_features is not None and X.max() >= self.n_features:
            raise ValueError(
                f"Largest symbol is {X.max()} but the model only emits symbols up to {self.n_features - 1}"
            )

    def _set_events(self, X: np.ndarray) -> None:
        self._check_events(X)
        self.n_features = int(X.max()) + 1 if self.n_features is None else self.n_features

    def _check_emissions(self) -> None:
        self.emissionprob_ = np.atleast_2d(np.asarray(self.emissionprob_, float))
        if self.n_features is None:
            self.n_features = self.emissionprob_.shape[1]
        if self.emissionprob_.shape != (self.n_components, self.n_features):
            raise ValueError(
                f"emissionprob_ must have shape ({self.n_components}, {self.n_features}), got "
                f"{self.emissionprob_.shape}"
            )
        check_probabilities("emissionprob_", self.emissionprob_)

    def _start_emissions(self, X: np.ndarray) -> None:
        if self._needs("e", "emissionprob_"):
            random = check_random_state(self.random_state)
            self.emissionprob_ = normalized(random.rand(self.n_components, self.n_features))

    def _emissions(self, dtype: Any) -> Any:
        with np.errstate(divide="ignore"):  # the logarithm of a symbol that cannot be
            logits: Any = np.log(self.emissionprob_.astype(dtype))
        return jg.Categorical(logits)

    def _update(self, statistics: Any) -> None:
        if "e" in self.params:
            counts = np.maximum(self.emissionprob_prior - 1 + statistics.astype(float), 0)
            self.emissionprob_ = normalized(counts)

    def _scalars(self) -> dict[str, int]:
        k = self.n_components
        return {"s": k - 1, "t": k * (k - 1), "e": k * (self.n_features - 1)}

    def _draw(self, state: int, random: Any) -> list[int]:
        return [(np.cumsum(self.emissionprob_[state]) > random.rand()).argmax()]


class PoissonHMM(ChainEstimator):
    """A hidden Markov model of counts, a drop-in for `hmmlearn.hmm.PoissonHMM`.

    Args:
        n_components: number of states.
        startprob_prior, transmat_prior: concentrations of Dirichlet priors; 1 is flat.
        lambdas_prior, lambdas_weight: shape and rate of a Gamma prior of the rates.
        algorithm, random_state, n_iter, tol, verbose, implementation: as in `GaussianHMM`.
        params, init_params: letters of what is trained and started: s, t and l.

    Attributes:
        startprob_, transmat_: `[K]` and `[K, K]`, probabilities.
        lambdas_: `[K, D]`, expected counts.
        monitor_: a `ConvergenceMonitor`.

    Example:
        >>> X = np.array([0, 1, 0, 9, 11, 10, 1, 0])[:, None]
        >>> np.sort(PoissonHMM(2, random_state=0, n_iter=50).fit(X).lambdas_.ravel()).round(1).tolist()
        [0.4, 10.0]
    """

    lambdas_: Any

    def __init__(
        self, n_components=1, startprob_prior=1.0, transmat_prior=1.0, lambdas_prior=0.0, lambdas_weight=0.0,
        algorithm="viterbi", random_state=None, n_iter=10, tol=1e-2, verbose=False, params="stl", init_params="stl",
        implementation="log",
    ):  # fmt: skip
        self.n_components = n_components
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.lambdas_prior = lambdas_prior
        self.lambdas_weight = lambdas_weight
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation

    def _data(self, X: Any) -> np.ndarray:
        X = check_array(X)
        if (X < 0).any() or not (np.floor(X) == X).all():
            raise ValueError(f"Counts are whole numbers from 0, got values from {X.min()} to {X.max()}")
        return X

    def _check_emissions(self) -> None:
        self.lambdas_ = np.atleast_2d(np.asarray(self.lambdas_, float))
        wanted = (self.n_components, vars(self).get("n_features", self.lambdas_.shape[1]))
        if self.lambdas_.shape != wanted or not self.lambdas_.size or (self.lambdas_ < 0).any():
            raise ValueError(f"lambdas_ must be positive, of shape {wanted}, got {self.lambdas_.shape}")
        self.n_features = self.lambdas_.shape[1]

    def _start_emissions(self, X: np.ndarray) -> None:
        if self._needs("l", "lambdas_"):
            mean, variance = X.mean(), max(X.var(), np.finfo(float).tiny)
            random = check_random_state(self.random_state)
            shape = (self.n_components, self.n_features)
            self.lambdas_ = random.gamma(mean**2 / variance, variance / mean, shape) if mean > 0 else np.zeros(shape)

    def _emissions(self, dtype: Any) -> Any:
        smallest = np.sqrt(np.finfo(dtype).tiny)
        rates: Any = np.log(np.maximum(self.lambdas_.astype(dtype), smallest))
        return jg.Poisson(rates)

    def _update(self, statistics: Any) -> None:
        if "l" in self.params:
            mass, total = statistics.weight.astype(float)[:, None], statistics.total.astype(float)
            n = mass.sum()
            mean = np.divide(total, mass, out=self.lambdas_.copy(), where=mass > 0)
            self.lambdas_ = (self.lambdas_prior + n * mean) / (self.lambdas_weight + n)

    def _scalars(self) -> dict[str, int]:
        k = self.n_components
        return {"s": k - 1, "t": k * (k - 1), "l": k * self.n_features}

    def _draw(self, state: int, random: Any) -> np.ndarray:
        return random.poisson(self.lambdas_[state])
