"""Variational Gaussian mixtures with the face of scikit-learn's: its priors, its parameters and its bound.

The covariances that it calls tied and spherical are not those of a conjugate posterior, so this is no
`VariationalMixture`: the E-step is that of a `Mixture` with expected log-densities, the update is written out.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, digamma, gammaln

import jaxgen as jg
from jaxgen.core.algorithms import Traits
from jaxgen.core.compiled import compiled_once
from jaxgen.core.pytree import fixed, model, part
from jaxgen.core.value import algorithm
from jaxgen.models.latent.mixture import MixtureStatistics
from jaxgen.ops import linalg
from jaxgen.ops.gaussians import LOG_2PI, Moments, log_diagonal
from jaxgen.sklearn import gaussians
from jaxgen.sklearn.arrays import precision_of
from jaxgen.sklearn.mixtures import MixtureEstimator, shaped, shares
from jaxgen.sklearn.options import check_options, one_of, optional, real

PROCESS, DISTRIBUTION = "dirichlet_process", "dirichlet_distribution"


class Prior(NamedTuple):
    """The prior: of the weights, the means and the covariances."""

    concentration: Any
    strength: Any
    mean: Any
    df: Any
    covariance: Any


@model
class Posterior:
    """The posterior of a mixture's parameters, as scikit-learn writes it.

    Args:
        mixture: its components have the posterior means and the inverses of the expected precisions, its logits are all
            else in `E log w_k + E log p(x | k)`, up to a constant.
        concentration: `[2, K]`, of Beta sticks, or twice that of a Dirichlet density.
        strength: `[K]`, of the means, in events.
        df: `[K]`, degrees of freedom.
        shift: the constant.
        prior: never trained.
    """

    mixture: Any = part()
    concentration: Any
    strength: Any
    df: Any
    shift: Any
    prior: Prior = fixed()

    @property
    def event_shape(self):
        return self.mixture.event_shape


class State(NamedTuple):
    """The state of `Variational`: the posterior."""

    model: Any


@algorithm
class Variational:
    """Coordinate ascent: responsibilities, then the posterior that they make.

    Metrics: `lower_bound`, nats, of all events, without its constants; `repaired`, covariances that are none.

    Args:
        kind: of the covariances.
        weights: of the prior of the weights, `dirichlet_process` or `dirichlet_distribution`.
        ridge: variance that is added to all.
    """

    kind: str
    weights: str
    ridge: float
    traits = Traits("lower_bound", full_batch=True, tolerance=1e-3)

    def init(self, key: Any, model: Any) -> State:
        """Return the state before the first step."""
        return State(model)

    def prepare(self, model: Any, batch: Any) -> Any:
        """Return the batch as the E-steps like best to see it."""
        return jg.EM().prepare(model.mixture, batch)

    def step(self, key: Any, state: State, batch: Any) -> tuple[State, dict[str, jax.Array]]:
        """Return the posterior after one step, and its bound."""
        old = state.model
        statistics, total, weight = jg.EM().expect(old.mixture, batch)
        new = self.update(old, statistics)
        # sum r log r, from the same moments as the update: the log-density of each event in its component, and all
        within = _expected_log_density(old.mixture.components, statistics.components)
        joint = jnp.sum(statistics.weight * old.mixture.log_weights + within)
        bound = total - joint + self.constants(new)
        broken = jnp.sum(~jnp.isfinite(jax.tree.leaves(new.mixture.components)[1]).reshape((len(within), -1)).all(1))
        return State(new), {"lower_bound": bound, "repaired": broken.astype(jnp.int32)}

    def update(self, old: Posterior, statistics: Any) -> Posterior:
        """Return the posterior, from the statistics of the mixture's components around their means."""
        prior, components = old.prior, old.mixture.components
        moments = gaussians.add_ridge(self.ridge, statistics.components)
        mass = statistics.weight + 10 * jnp.finfo(statistics.weight.dtype).eps
        k, d = moments.first.shape
        later = jnp.concatenate([jnp.cumsum(mass[::-1])[::-1][1:], jnp.zeros(1, mass.dtype)])
        alone = jnp.broadcast_to(prior.concentration + mass, (2, k))
        sticks = jnp.stack([1 + mass, prior.concentration + later])
        concentration = sticks if self.weights == PROCESS else alone
        strength = prior.strength + mass
        shift = moments.first / mass[:, None]
        at = components.origin + (components.offset + shift)
        away = at - prior.mean
        mean = at - (prior.strength / strength)[:, None] * away
        pull = prior.strength * mass / strength
        full = moments.second.ndim == 3
        outer = (lambda a, b: a[..., :, None] * b[..., None, :]) if full else jnp.multiply
        widen = (lambda a: a[:, None, None]) if full else (lambda a: a[:, None])
        scatter = moments.second - widen(mass) * outer(shift, shift) + widen(pull) * outer(away, away)
        df = prior.df + (jnp.broadcast_to(jnp.sum(mass) / k, (k,)) if self.kind == "tied" else mass)
        if self.kind == "tied":
            scatter = jnp.broadcast_to(jnp.mean(scatter, axis=0), scatter.shape)
        if self.kind == "spherical":
            scatter = jnp.broadcast_to(jnp.mean(scatter, axis=1, keepdims=True), scatter.shape)
        covariance = (prior.covariance + scatter) / widen(df)
        zero = jnp.zeros_like(mean)
        if full:
            raw = log_diagonal(linalg.inverse_cholesky(covariance))
            new: Any = jg.Gaussian(zero, raw, mean, zero, None, self.kind == "tied")
        else:
            new = jg.DiagonalGaussian(zero, 0.5 * jnp.log(covariance), mean, zero, None, self.kind == "spherical")
        return self.posterior(new, concentration, strength, df, prior)

    def posterior(self, components: Any, concentration: Any, strength: Any, df: Any, prior: Prior) -> Posterior:
        """Return the posterior with these parameters; the components have its means and expected precisions."""
        d = components.offset.shape[-1]
        expected = jnp.sum(digamma(0.5 * (df[:, None] - jnp.arange(d))), axis=1) + d * (jnp.log(2.0) - jnp.log(df))
        logits = self._log_weights(concentration) + 0.5 * (expected - d / strength)
        return Posterior(jg.Mixture(logits, components), concentration, strength, df, jax.nn.logsumexp(logits), prior)

    def _log_weights(self, concentration: Any) -> Any:
        a, b = concentration
        if self.weights == DISTRIBUTION:
            return digamma(a) - digamma(jnp.sum(a))
        both = digamma(a + b)
        rest = jnp.cumsum(digamma(b) - both)
        return digamma(a) - both + jnp.concatenate([jnp.zeros(1, a.dtype), rest[:-1]])

    def constants(self, new: Posterior) -> Any:
        """Return the part of the bound that is not about events."""
        d, df = new.event_shape[0], new.df
        log_det = _log_det(new.mixture.components) - 0.5 * d * jnp.log(df)
        wishart = -(df * log_det + df * d * 0.5 * jnp.log(2.0))
        wishart -= jnp.sum(gammaln(0.5 * (df[:, None] - jnp.arange(d))), axis=1)
        a, b = new.concentration
        weights = -jnp.sum(betaln(a, b)) if self.weights == PROCESS else gammaln(jnp.sum(a)) - jnp.sum(gammaln(a))
        return -jnp.sum(wishart) - weights - 0.5 * d * jnp.sum(jnp.log(new.strength))


def _log_det(components: Any) -> Any:
    if isinstance(components, jg.DiagonalGaussian):
        return -jnp.sum(components.log_scale, axis=-1)
    return jnp.trace(components.raw, axis1=-2, axis2=-1)


def _expected_log_density(components: Any, moments: Any) -> Any:
    """`sum_n r_nk log N(x_n | k)`, `[K]`, from moments around the means."""
    if isinstance(components, jg.DiagonalGaussian):
        quadratic = jnp.sum(moments.second * jnp.exp(-2 * components.log_scale), axis=-1)
    else:
        whitener = components.whitener
        quadratic = jnp.sum(jnp.matmul(whitener, moments.second, precision="highest") * whitener, axis=(-2, -1))
    d = moments.first.shape[-1]
    return moments.weight * (_log_det(components) - 0.5 * d * LOG_2PI) - 0.5 * quadratic


@compiled_once(static_argnames=("algorithm",))
def _updated(algorithm, components, statistics, prior):
    """A posterior from the statistics of components around their means."""
    none = jnp.ones(len(statistics.weight), statistics.weight.dtype)
    old = Posterior(jg.Mixture(none, components), jnp.stack([none, none]), none, none, none[0], prior)
    return algorithm.update(old, statistics)


@compiled_once(static_argnames=("algorithm",))
def _made(algorithm, components, concentration, strength, df, prior):
    return algorithm.posterior(components, concentration, strength, df, prior)


class BayesianGaussianMixture(MixtureEstimator):
    """A variational Gaussian mixture, a drop-in for `sklearn.mixture.BayesianGaussianMixture`.

    Arguments, attributes, starts, bound and errors are scikit-learn's; `jaxgen.VariationalMixture` is the model of this
    library for the same purpose. float32 in is float32 out. `fit` takes a `sample_weight` too.

    Args:
        n_components: the most components that may be used.
        covariance_type: "full", "tied", "diag" or "spherical".
        tol: the ascent ends when the bound of all events changes by less, nats.
        reg_covar: variance that is added to all of each component's, units of X squared.
        max_iter, n_init, init_params, random_state, warm_start, verbose, verbose_interval: as in `GaussianMixture`.
        weight_concentration_prior_type: "dirichlet_process" or "dirichlet_distribution".
        weight_concentration_prior: positive; small values want few components; None is `1 / n_components`.
        mean_precision_prior: of the mean, in events; None is 1.
        mean_prior: `[D]`; None is the data's mean.
        degrees_of_freedom_prior: above D - 1; None is D.
        covariance_prior: `[D, D]`, `[D, D]`, `[D]` or a number, by the covariance type; None is the data's.

    Attributes:
        weights_, means_, covariances_, precisions_, precisions_cholesky_: as in `GaussianMixture`, of expected
            precisions.
        weight_concentration_, mean_precision_, degrees_of_freedom_: of the posterior.
        weight_concentration_prior_, mean_precision_prior_, mean_prior_, degrees_of_freedom_prior_, covariance_prior_:
            the priors that were used.
        converged_, n_iter_, lower_bound_, lower_bounds_, n_features_in_, feature_names_in_: as in `GaussianMixture`.

    Example:
        >>> X = np.concatenate([np.linspace(-1, 1, 50), np.linspace(9, 11, 50)])[:, None]
        >>> mixture = BayesianGaussianMixture(n_components=5, max_iter=500, random_state=0).fit(X)
        >>> int((mixture.weights_ > 0.05).sum())
        2
    """

    _bound = "lower_bound"

    def __init__(
        self, *, n_components=1, covariance_type="full", tol=1e-3, reg_covar=1e-6, max_iter=100, n_init=1,
        init_params="kmeans", weight_concentration_prior_type=PROCESS, weight_concentration_prior=None,
        mean_precision_prior=None, mean_prior=None, degrees_of_freedom_prior=None, covariance_prior=None,
        random_state=None, warm_start=False, verbose=0, verbose_interval=10,
    ):  # fmt: skip
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def _checked_start(self, X: np.ndarray) -> Prior:
        check_options(self, {
            "weight_concentration_prior_type": one_of(PROCESS, DISTRIBUTION),
            "weight_concentration_prior": optional(real(0, above=True)),
            "mean_precision_prior": optional(real(0, above=True)),
            "degrees_of_freedom_prior": optional(real(0, above=True)),
        })  # fmt: skip
        d = X.shape[1]
        df = d if self.degrees_of_freedom_prior is None else self.degrees_of_freedom_prior
        if df <= d - 1:
            raise ValueError(
                f"The parameter 'degrees_of_freedom_prior' should be greater than {d - 1}, but got {df:.3f}."
            )
        share = self.weight_concentration_prior
        self.weight_concentration_prior_ = 1 / self.n_components if share is None else share
        self.mean_precision_prior_ = 1.0 if self.mean_precision_prior is None else self.mean_precision_prior
        self.degrees_of_freedom_prior_ = df
        self.mean_prior_ = X.mean(axis=0) if self.mean_prior is None else (
            shaped(self.mean_prior, (d,), "means", [np.float64, np.float32])
        )  # fmt: skip
        self.covariance_prior_, self._dtype = self._covariance_prior(X), X.dtype
        return self._prior

    def _covariance_prior(self, X: np.ndarray) -> Any:
        d, kind = X.shape[1], self.covariance_type
        if self.covariance_prior is None:
            if kind in ("full", "tied"):
                return np.atleast_2d(np.cov(X.T)).astype(X.dtype)
            variance = np.var(X, axis=0, ddof=1)
            return variance if kind == "diag" else variance.mean()
        if kind == "spherical":
            check_options(self, {"covariance_prior": real(0, above=True)})
            return self.covariance_prior
        shape = (d,) if kind == "diag" else (d, d)
        value = shaped(self.covariance_prior, shape, f"{kind} covariance_prior", [np.float64, np.float32])
        gaussians.check_positive(value, kind)
        return value

    def _algorithm(self) -> Variational:
        return Variational(self.covariance_type, self.weight_concentration_prior_type, float(self.reg_covar))

    def _start(self, X: np.ndarray, weight: Any, prior: Prior, random: Any) -> Posterior:
        share = shares(X, weight, self.n_components, self.init_params, random)
        mass, means = (cast(Any, one) for one in gaussians.moments(X, share))
        apart = {"tied": "full", "spherical": "diag"}.get(self.covariance_type, self.covariance_type)
        spread = gaussians.covariances_of(X, share, mass, means, 0.0, apart)
        second: Any = (spread.T * mass).T
        statistics = MixtureStatistics(mass, Moments(mass, np.zeros_like(means), second))
        components = gaussians.mixture_of(gaussians.Parameters(mass, means, np.ones_like(spread)), apart).components
        return _updated(self._algorithm(), components, statistics, prior)

    def _current(self) -> Posterior:
        k = len(self.means_)
        parameters = gaussians.Parameters(self.weights_, self.means_, self.precisions_cholesky_)
        components = gaussians.mixture_of(parameters, self.covariance_type).components
        concentration = np.stack(self.weight_concentration_) if self._algorithm().weights == PROCESS else (
            np.broadcast_to(self.weight_concentration_, (2, k))
        )  # fmt: skip
        df = np.broadcast_to(self.degrees_of_freedom_, (k,))
        with precision_of(self.means_.dtype):
            return _made(self._algorithm(), components, concentration, self.mean_precision_, df, self._prior)

    @property
    def _scoring(self) -> tuple[jg.Mixture, Any]:  # type: ignore[override]
        now = self._current()
        return now.mixture, np.asarray(now.shift)

    @property
    def _prior(self) -> Prior:
        covariance = self.covariance_prior_
        if self.covariance_type == "spherical":
            covariance = np.full(self.n_features_in_, covariance)
        given = (self.weight_concentration_prior_, self.mean_precision_prior_, self.mean_prior_,
                 self.degrees_of_freedom_prior_, covariance)  # fmt: skip
        return Prior(*(np.asarray(one, self._dtype) for one in given))

    def _keep(self, model: Posterior) -> None:
        kind = self.covariance_type
        _, self.means_, self.precisions_cholesky_ = gaussians.parameters_of(model.mixture, kind)
        self.precisions_ = gaussians.precisions(self.precisions_cholesky_, kind)
        self.covariances_ = gaussians.covariances(self.precisions_cholesky_, kind)
        a, b = np.asarray(model.concentration)
        self.mean_precision_ = np.asarray(model.strength)
        self.degrees_of_freedom_ = np.asarray(model.df)[0] if kind == "tied" else np.asarray(model.df)
        if self.weight_concentration_prior_type == PROCESS:
            self.weight_concentration_ = (a, b)
            left = np.concatenate([[1], np.cumprod((b / (a + b))[:-1])])
            weights = a / (a + b) * left
            self.weights_ = (weights / weights.sum()).astype(a.dtype)
        else:
            self.weight_concentration_ = a
            self.weights_ = a / a.sum()
