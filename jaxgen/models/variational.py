"""Variational Bayesian mixtures: EM on the posterior of a mixture's parameters, and the Gaussian part of it.

A model here is a posterior density q of parameters, with its prior in fixed fields. Its M-step is the conjugate update,
its E-step sees expected log-densities, and the sum of what the E-step returns and of `log_prior()`, which is
`-KL(q || p)`, bounds the log evidence from below: no step of `EM` decreases it. `log_prob` and `sample` are the
posterior predictive density, so such a model is a density like any other.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.door import per_batch, per_event, per_sample, weighted_events
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.gate import as_array, concrete, floating
from jaxgen.core.pytree import fixed, float_type, model
from jaxgen.core.value import ByValue
from jaxgen.ops import linalg, wishart
from jaxgen.ops.kmeans import kmeans
from jaxgen.ops.stable import logsumexp

HIGHEST = jax.lax.Precision.HIGHEST
#: ridge on the default scale of data in which a column is constant or follows from others, as a share of variances
RIDGE = 1e-6


class Moments(NamedTuple):
    """Weighted moments around the old posterior mean: total weight, first and second moment."""

    weight: jax.Array
    first: jax.Array
    second: jax.Array


def _product(a, b):
    return jnp.matmul(a, b, precision=HIGHEST)


def _diagonal(matrix):
    return jnp.diagonal(matrix, axis1=-2, axis2=-1)


def _triangle(lower, diagonal):
    """A lower triangular matrix from what is below the diagonal and what is on it."""
    return jnp.tril(lower, -1) + diagonal[..., None] * jnp.eye(lower.shape[-1], dtype=lower.dtype)


def _raw(whitener):
    return _triangle(whitener, jnp.log(_diagonal(whitener)))


def _spread(x, diagonal):
    """The sample covariance of centred data `[N, D]`, or its diagonal; made regular by a ridge only where it is not."""
    n, d = x.shape
    covariance = _product(x.T, x) / max(n - 1, 1)
    variance = _diagonal(covariance)
    eps = float(jnp.finfo(x.dtype).eps)
    typical = jnp.mean(variance)
    # a pivot that is all rounding is no variance
    ridge = max(RIDGE, 20 * d * eps) * jnp.where(variance > 0, variance, jnp.where(typical > 0, typical, 1))
    if diagonal:
        return jnp.where(variance > 0, variance, ridge)
    pivot = _diagonal(linalg.cholesky(covariance)) ** 2
    regular = jnp.all(pivot > 10 * d * eps * variance)
    return jnp.where(regular, covariance, covariance + jnp.diag(ridge))


@model
class NormalWishart:
    """A Gaussian whose mean and precision are not known: their normal-Wishart posterior.

    `q(mu, L) = N(mu | mean, (strength L)^-1) Wishart(L | S^-1, degrees)`

    The predictive density is a Student-t with `degrees - D + 1` degrees of freedom. One step of `EM` on data is the
    exact posterior, and its next `objective` their exact log evidence per event. With a diagonal scale S the posterior
    is the best of that form (scikit-learn's `diag`), and the objective a lower bound.

    Args:
        offset: `[D]`, the mean relative to `origin`.
        raw: `[D, D]`, the lower triangular `W` with `W^T W = E[L] = degrees S^-1` and the logarithm of its diagonal; or
            `[D]`, the logarithm of a diagonal one.
        log_strength: scalar, of the mean, in events.
        log_excess: scalar, `log(degrees - (D - 1))`.
        origin: `[D]`, a point amid the data: data far from zero lose no digits to float32.
        prior_offset: `[D]`, the prior mean relative to `origin`.
        prior_tril: the Cholesky factor of the prior's S, `[D, D]`, or `[D]`.
        prior_strength, prior_excess: scalars, as above.

    Fields named prior, and the origin, never train. The M-step repairs: a scale without a Cholesky factor keeps only
    its diagonal. No mass is no repair: the posterior is then the prior.

    Source: Bishop (2006), Pattern Recognition and Machine Learning, section 10.2.

    Example:
        >>> x = jnp.array([[0.0], [1.0], [2.0]])
        >>> posterior = NormalWishart.init(jax.random.key(0), x)
        >>> round(float(posterior.strength), 4), round(float(posterior.degrees), 4)
        (4.0, 4.0)
        >>> posterior.mean.tolist(), posterior.covariance.round(4).tolist()
        ([1.0], [[0.75]])
    """

    offset: jax.Array
    raw: jax.Array
    log_strength: jax.Array
    log_excess: jax.Array
    origin: jax.Array = fixed()
    prior_offset: jax.Array = fixed()
    prior_tril: jax.Array = fixed()
    prior_strength: jax.Array = fixed()
    prior_excess: jax.Array = fixed()

    @classmethod
    def init(cls, key, x, *, mean=None, strength=1.0, degrees=None, scale=None) -> NormalWishart:
        """The posterior of data `[N, D]` with a full scale; priors not given are those of scikit-learn.

        Args:
            key: not used.
            x: events `[N, D]`.
            mean: `[D]`, the prior mean; None is that of the data.
            strength: of the prior mean, in events.
            degrees: of freedom of the prior, above D - 1; None is D.
            scale: `[D, D]`, about `degrees` times the covariance that is expected of a component; None is the data's
                covariance.

        Raises:
            ModelError: values that make no prior. ShapeError: data that are not `[N, D]`.
        """
        return cls._init(x, mean, strength, degrees, scale, False)

    @classmethod
    def init_diagonal(cls, key, x, *, mean=None, strength=1.0, degrees=None, scale=None) -> NormalWishart:
        """As `init` with a diagonal scale, `[D]`; None is the data's variances."""
        return cls._init(x, mean, strength, degrees, scale, True)

    @classmethod
    def _init(cls, x, mean, strength, degrees, scale, diagonal):
        x = floating(x)
        if x.ndim != 2:
            raise ShapeError(
                "events of a Gaussian are vectors", called="NormalWishart.init(key, x)", expected="x [N, D]",
                got=f"shape {list(x.shape)}", fix="x.reshape((len(x), -1))",
            )  # fmt: skip
        origin = x[0] + jnp.mean(x - x[0], axis=0)
        given = None if scale is None else jnp.asarray(as_array(scale, name="scale"), x.dtype)
        if given is not None and given.ndim != (1 if diagonal else 2):
            raise ModelError(
                "the scale has another form than the posterior", called="NormalWishart.init(key, x, scale=...)",
                expected="[D]" if diagonal else "[D, D]", got=f"shape {list(given.shape)}",
                fix="init takes a matrix, init_diagonal a vector",
            )  # fmt: skip
        given = _spread(x - origin, diagonal) if given is None else given
        prior = cls.from_prior(origin if mean is None else mean, given, strength=strength, degrees=degrees)
        # moments around the data, wherever the prior has its mean
        start = dataclasses.replace(prior, origin=origin, prior_offset=prior.origin - origin)
        return start.m_step(start.e_step(x, jnp.ones(x.shape[0], x.dtype))[0])

    @classmethod
    def from_prior(cls, mean, scale, *, strength=1.0, degrees=None) -> NormalWishart:
        """A posterior that has seen nothing: the prior itself, as fields that train and as those that do not.

        Args:
            mean: `[*K, D]`.
            scale: S, `[*K, D, D]`, or `[*K, D]` for a diagonal one.
            strength: positive, `[*K]` or one number.
            degrees: above D - 1, `[*K]` or one number; None is D.

        Raises:
            ModelError: a scale that is not symmetric positive definite, numbers out of range, shapes that do not fit.

        Example:
            >>> NormalWishart.from_prior([0.0, 0.0], [2.0, 4.0], degrees=2.0).covariance.round(4).tolist()
            [1.0, 2.0]
        """
        called = "NormalWishart.from_prior(mean, scale, strength=..., degrees=...)"
        mean = floating(mean, name="mean")
        scale = jnp.asarray(as_array(scale, name="scale"), mean.dtype)
        d = mean.shape[-1] if mean.ndim else 0
        if not d or scale.shape not in (mean.shape, (*mean.shape, d)):
            raise ModelError(
                "the scale does not fit the mean", called=called, got=f"mean {list(mean.shape)}, {list(scale.shape)}",
                expected="mean [*K, D], scale [*K, D, D] or [*K, D]",
            )  # fmt: skip
        diagonal = scale.ndim == mean.ndim
        numbers = (strength, d if degrees is None else degrees)
        strength, degrees = (jnp.broadcast_to(jnp.asarray(v, mean.dtype), mean.shape[:-1]) for v in numbers)
        if concrete(strength, degrees) and not ((strength > 0).all() and (degrees > d - 1).all()):
            raise ModelError(
                "a prior out of range", called=called, expected=f"strength > 0, degrees > {d - 1} (D - 1)",
                got=f"strength {strength}, degrees {degrees}", fix=f"degrees={d}",
            )  # fmt: skip
        tril = jnp.sqrt(scale) if diagonal else linalg.cholesky(scale)
        even = diagonal or jnp.allclose(scale, jnp.swapaxes(scale, -1, -2), rtol=1e-4)
        # NaN where it is not positive definite
        positive = jnp.all(tril > 0) if diagonal else jnp.all(_diagonal(tril) > 0)
        if concrete(scale) and not (even and positive):
            raise ModelError(
                "the scale is not symmetric positive definite", called=called, fix="add a ridge: scale + 1e-6 * I",
                expected="a positive definite matrix, or positive numbers", got=f"{scale}"[:200],
            )  # fmt: skip
        root = jnp.sqrt(degrees)[..., None]
        raw = jnp.log(root / tril) if diagonal else _raw(root[..., None] * linalg.tril_inverse(tril))
        excess = degrees - (d - 1)
        zero = jnp.zeros_like(mean)
        return cls(zero, raw, jnp.log(strength), jnp.log(excess), mean, zero, tril, strength, excess)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.offset.shape

    @property
    def diagonal(self) -> bool:
        """True for a posterior whose scale is diagonal."""
        return len(self.raw.shape) == len(self.offset.shape)

    @property
    def free_parameters(self) -> int:
        """Of the Gaussian that the posterior is about: its mean and covariance."""
        d = self.offset.shape[-1]
        return 2 * d if self.diagonal else d + d * (d + 1) // 2

    @property
    def mean(self) -> jax.Array:
        """Posterior mean of the mean, `[*K, D]`, units of x."""
        return self.origin + self.offset

    @property
    def strength(self) -> jax.Array:
        """Events that the mean rests on, `[*K]`."""
        return jnp.exp(self.log_strength)

    @property
    def degrees(self) -> jax.Array:
        """Degrees of freedom, `[*K]`."""
        return jnp.exp(self.log_excess) + (self.offset.shape[-1] - 1)

    @property
    def whitener(self) -> jax.Array:
        """`W`, `[*K, D, D]` lower triangular with a positive diagonal, or `[*K, D]`; `W^T W` is the mean precision."""
        return jnp.exp(self.raw) if self.diagonal else _triangle(self.raw, jnp.exp(_diagonal(self.raw)))

    @property
    def scale_tril(self) -> jax.Array:
        """The inverse of `W`: the Cholesky factor of `covariance`, `[*K, D, D]`, or its root, `[*K, D]`."""
        return jnp.exp(-self.raw) if self.diagonal else linalg.tril_inverse(self.whitener)

    @property
    def covariance(self) -> jax.Array:
        """The inverse of the posterior mean precision, `[*K, D, D]`, or its diagonal, `[*K, D]`; units of x squared."""
        factor = self.scale_tril
        return factor**2 if self.diagonal else _product(factor, jnp.swapaxes(factor, -1, -2))

    @property
    def _log_det(self):
        """Of the whitener, `[*K]`."""
        return jnp.sum(self.raw if self.diagonal else _diagonal(self.raw), axis=-1)

    def _whiten(self, v):
        """`W v` of vectors `[*K, ..., D]`."""
        if not self.diagonal:
            return _product(v, jnp.swapaxes(self.whitener, -1, -2))
        batch = self.raw.ndim - 1
        return v * self.whitener.reshape((*self.raw.shape[:-1], *(1,) * (v.ndim - 1 - batch), self.raw.shape[-1]))

    def _residual(self, x):
        """`x - mean`: of one model and x `[..., D]`, or `[K, N, D]` of K models and x `[N, D]`."""
        batched = self.origin.ndim == 2
        origin, offset = (v[:, None] if batched else v for v in (self.origin, self.offset))
        return (x - origin) - offset

    def _distance(self, x):
        z = self._whiten(self._residual(x))
        return jnp.sum(z * z, axis=-1)

    def _predictive(self, distance):
        """Log density at squared distances `[*K, ...]`."""
        each = (self._log_det, self.strength, jnp.exp(self.log_excess))
        each = (v.reshape(v.shape + (1,) * (distance.ndim - v.ndim)) for v in each)
        return wishart.log_student(distance, *each, self.offset.shape[-1])

    def _expected(self, distance):
        each = (self._log_det, self.strength, self.degrees)
        each = (v.reshape(v.shape + (1,) * (distance.ndim - v.ndim)) for v in each)
        return wishart.expected_log_normal(distance, *each, self.offset.shape[-1])

    @per_event
    def log_prob(self, x):
        """The posterior predictive density: nats, `[*batch, D] -> [*batch]`."""
        return self._predictive(self._distance(x))

    @per_event
    def step_log_prob(self, x):
        """`E_q log N(x | mu, L^-1)`: nats, `[*batch, D] -> [*batch]`."""
        return self._expected(self._distance(x))

    @per_sample
    def sample(self, key):
        """Draws of the posterior predictive density, `[*shape, D]`."""
        first, second = jax.random.split(key)
        noise = jax.random.normal(first, self.offset.shape, self.offset.dtype)
        noise = self.scale_tril * noise if self.diagonal else _product(self.scale_tril, noise)
        excess = jnp.exp(self.log_excess)
        # log: a chi-square of few degrees of freedom can be smaller than the smallest number
        log_chi = math.log(2) + jax.random.loggamma(second, 0.5 * excess, dtype=self.offset.dtype)
        return self.mean + noise * jnp.exp(0.5 * (jnp.log(self.degrees * (1 + 1 / self.strength)) - log_chi))

    @weighted_events
    def e_step(self, x, weight):
        """`Moments` around the posterior mean, and `step_log_prob [N]`."""
        return self._moments(self._residual(x), weight), self.step_log_prob(x)

    def _moments(self, d, weight):
        second = _product(weight, d * d) if self.diagonal else _product((d * weight[:, None]).T, d)
        return Moments(jnp.sum(weight), _product(weight, d), second)

    def m_step(self, statistics) -> NormalWishart:
        """The posterior given the statistics: the prior, updated."""
        return self.maximize(statistics)[0]

    def maximize(self, statistics):
        """`m_step`, and 1 where it had to repair this posterior, else 0."""
        weight, first, second = statistics
        square = (lambda v: v * v) if self.diagonal else (lambda v: jnp.outer(v, v))
        strength, excess = self.prior_strength + weight, self.prior_excess + weight
        pull = self.prior_offset - self.offset
        shift = (self.prior_strength * pull + first) / strength
        prior = square(self.prior_tril) if self.diagonal else _product(self.prior_tril, self.prior_tril.T)
        degrees = excess + (len(shift) - 1)
        # in this order: the update itself, then its two small corrections
        covariance = (prior + (second + (self.prior_strength * square(pull) - strength * square(shift)))) / degrees
        if self.diagonal:
            regular = jnp.asarray(True)
            # the exact update is never below the prior
            raw = -0.5 * jnp.log(jnp.maximum(covariance, prior / degrees))
        else:
            whitener = linalg.inverse_cholesky(covariance)
            regular = jnp.isfinite(whitener).all()
            alone = jnp.maximum(_diagonal(covariance), _diagonal(prior) / degrees)
            raw = jnp.where(regular, _raw(whitener), jnp.diag(-0.5 * jnp.log(alone)))
        new = dataclasses.replace(
            self, offset=self.offset + shift, raw=raw, log_strength=jnp.log(strength), log_excess=jnp.log(excess)
        )
        return new, (~regular).astype(jnp.int32)

    def log_prior(self):
        """`-KL(q || prior)`, nats."""
        d = self.offset.shape[-1]
        pull = self._whiten(self.offset - self.prior_offset)
        tril = self.prior_tril
        spread = self.whitener * tril if self.diagonal else _product(self.whitener, tril)
        prior_log_det = -jnp.sum(jnp.log(tril if self.diagonal else _diagonal(tril)))
        return -wishart.kl_normal_wishart(
            jnp.sum(pull * pull), jnp.sum(spread * spread), self._log_det, prior_log_det, self.strength,
            self.prior_strength, self.degrees, self.prior_excess + (d - 1), d,
        )  # fmt: skip

    def hold(self, statistics, held):
        """A held mean does not move: the scale is then taken around it."""
        still = -self.prior_strength * (self.prior_offset - self.offset)
        return statistics._replace(first=jnp.where(held.offset, still, statistics.first))

    def rebase(self, old, statistics):
        """`Moments` around the mean of `old`, moved to the own mean."""
        weight, first, second = statistics
        move = (old.origin - self.origin) + (old.offset - self.offset)
        if self.diagonal:
            return Moments(weight, first + weight * move, second + move * (2 * first + weight * move))
        cross = jnp.outer(first + 0.5 * weight * move, move)
        return Moments(weight, first + weight * move, second + cross + cross.T)

    def log_prob_components(self, x):
        """`[K, N]`: residuals whitened by one batched matrix product."""
        return self._predictive(self._distance(x))

    def step_log_prob_components(self, x):
        """`step_log_prob` of K components, `[K, N]`."""
        return self._expected(self._distance(x))

    def e_step_components(self, x, weight):
        """`Moments` of K components, leading axis K, from weights `[K, N]`."""
        return jax.vmap(type(self)._moments)(self, self._residual(x), weight)

    def distribution(self):
        """The posterior predictive density as a distrax distribution."""
        return as_distribution(self)


class VariationalStatistics(NamedTuple):
    """Expected counts `[K]` and the components' statistics, leading axis K."""

    weight: jax.Array
    components: Any


@model
class VariationalMixture:
    """The variational posterior of a mixture: Beta sticks for the weights, conjugate posteriors for the components.

    `q(v, theta) = prod_k Beta(v_k | a_k, b_k) q(theta_k)`, with the weights `w_k = v_k prod_{j < k} (1 - v_j)`

    With K sticks this is a Dirichlet process, cut after K components. With K - 1, after which the last component takes
    what is left, and priors `a = c, b = (K - k) c`, it is exactly a Dirichlet density with all concentrations c. Both
    are updated by one rule. A component that the data do not need returns to its prior, and its weight to nearly zero.

    Args:
        log_sticks: `[K, 2]` or `[K - 1, 2]`, the logarithms of a and b.
        components: one model whose leaves carry a leading axis K: `NormalWishart`, or any other that has `e_step` and
            `m_step`. Of a maximum-likelihood one, such as `Gaussian`, the parameters are points, and only the weights
            have a posterior.
        prior_sticks: as `log_sticks`, a and b of the prior; never trained.

    `EM` fits it, and its `objective` is the evidence lower bound per event. `log_prob` and `sample` are the posterior
    predictive density: the components' own, mixed by the expected weights.

    Source: Bishop (2006), Pattern Recognition and Machine Learning, section 10.2; Blei and Jordan (2006), Variational
    inference for Dirichlet process mixtures; Connor and Mosimann (1969), for a Dirichlet density as Beta variables.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> start = jg.VariationalMixture.init(jax.random.key(0), x, 5)
        >>> fitted = jg.fit(jax.random.key(1), start, x, steps=100).model
        >>> int((fitted.weights > 0.05).sum())
        2
    """

    log_sticks: jax.Array
    components: Any
    prior_sticks: jax.Array = fixed()

    @classmethod
    def init(
        cls, key, x, k: int, leaf: Any = NormalWishart.init, *, concentration=None, stick_breaking: bool = True
    ) -> VariationalMixture:
        """A start from data: k-means splits the events, each component takes one cluster.

        Args:
            key: typed key.
            x: events `[N, *event]`.
            k: the most components that may be used, 1 to N.
            leaf: `(key, x) -> model`; its own options set the priors of the components, for example
                `functools.partial(NormalWishart.init, strength=0.1)`; for a diagonal scale
                `NormalWishart.init_diagonal`.
            concentration: of the prior of the weights, positive; small values want few components. None is 1 / k.
            stick_breaking: True for a Dirichlet process, False for a Dirichlet density.

        Raises:
            ModelError: k below 1 or above N, or a concentration that is not positive.
            DataError: data that are not data.
        """
        x = jnp.asarray(as_array(x))
        called = f"VariationalMixture.init(key, x, {k})"
        concentration = _concentration(concentration, k, called)
        if not 1 <= k <= len(x):
            raise ModelError(
                "the number of components does not fit the data", called=called,
                expected=f"1 to {len(x)}, the number of events", got=str(k),
            )  # fmt: skip
        start = _init(key, x, k, ByValue(leaf), concentration, stick_breaking)
        start.check_data(x)
        return start

    @classmethod
    def from_responsibilities(
        cls, key, x, responsibilities, leaf=NormalWishart.init, *, concentration=None, stick_breaking: bool = True
    ) -> VariationalMixture:
        """The posterior given data `[N, *event]` and how much of each event is each component's, `[N, K]`.

        Raises:
            ModelError: negative responsibilities, of another number of events, or a concentration out of range.
        """
        x, share = jnp.asarray(as_array(x)), floating(responsibilities, name="responsibilities")
        called = "VariationalMixture.from_responsibilities(key, x, responsibilities)"
        fits = share.ndim == 2 and share.shape[0] == x.shape[0] and share.shape[1] > 0
        if not fits or (concrete(share) and not (share >= 0).all()):
            raise ModelError(
                "responsibilities do not fit the data", called=called, expected=f"[{x.shape[0]}, K], not negative",
                got=f"shape {list(share.shape)}",
            )  # fmt: skip
        concentration = _concentration(concentration, share.shape[1], called)
        start = _from_responsibilities(key, x, share, ByValue(leaf), concentration, stick_breaking)
        start.check_data(x)
        return start

    @classmethod
    def from_components(cls, components, *, concentration=None, stick_breaking: bool = True) -> VariationalMixture:
        """From components, batched or a sequence, with the weights at their prior.

        Raises:
            ModelError: no components, or a concentration that is not positive.
        """
        called = "VariationalMixture.from_components(components)"
        if isinstance(components, (list, tuple)):
            if not components:
                raise ModelError("a mixture without components", called=called, expected="one or more", got="none")
            components = algebra.stack(components)
        concentration = _concentration(concentration, algebra.count(components), called)
        return _at_prior(components, concentration, stick_breaking)

    @property
    def event_shape(self):
        return algebra.element(self.components).event_shape

    @property
    def latent_parts(self):
        return (self.components,)

    @property
    def free_parameters(self) -> int:
        """Of the mixture that the posterior is about."""
        return algebra.count(self.components) - 1 + algebra.component_free_parameters(self.components)

    def check_data(self, x) -> None:
        """Refuses data outside the support of the components with a DataError."""
        algebra.check_data(algebra.element(self.components), x)

    def _break(self, log_v, log_rest):
        """`log w` of K components from the logarithms of the sticks and of what they leave."""
        missing = algebra.count(self.components) - log_v.shape[0]
        if missing:  # the last component takes what is left
            log_v = jnp.concatenate([log_v, jnp.zeros_like(log_v, shape=(1,))])
        before = jnp.cumsum(log_rest)[: len(log_v) - 1]
        return log_v + jnp.concatenate([jnp.zeros_like(log_v, shape=(1,)), before])

    @property
    def log_weights(self) -> jax.Array:
        """Logarithms of `weights`, `[K]`."""
        log_odds = self.log_sticks[:, 0] - self.log_sticks[:, 1]
        return jax.nn.log_softmax(self._break(jax.nn.log_sigmoid(log_odds), jax.nn.log_sigmoid(-log_odds)))

    @property
    def weights(self) -> jax.Array:
        """Posterior means of the weights, `[K]`; what the sticks leave over is shared out in proportion."""
        return jnp.exp(self.log_weights)

    @property
    def expected_log_weights(self) -> jax.Array:
        """`E_q log w`, `[K]`."""
        return self._break(*wishart.expected_log_stick(self.log_sticks[:, 0], self.log_sticks[:, 1]))

    @property
    def means(self) -> jax.Array:
        """Posterior means of the components' means, `[K, D]`."""
        return self.components.mean

    @property
    def covariances(self) -> jax.Array:
        """Inverses of the components' posterior mean precisions, `[K, D, D]`, or `[K, D]` for diagonal ones."""
        return self.components.covariance

    def _joint(self, x):
        """`E log w_k + E log p(x | k)`, `[K, N]`."""
        return self.expected_log_weights[:, None] + algebra.component_step_log_prob(self.components, x)

    @per_batch
    def log_prob(self, x, context):
        """The posterior predictive density: nats, `[*batch, *event] -> [*batch]`."""
        return logsumexp(self.log_weights[:, None] + algebra.component_log_prob(self.components, x), axis=0)

    @per_batch
    def step_log_prob(self, x, context):
        """An event's term of the lower bound, `log sum_k exp(E log w_k + E log p(x | k))`: nats, `[*batch]`."""
        return logsumexp(self._joint(x), axis=0)

    @per_batch
    def responsibilities(self, x, context):
        """`q(k | x)`, `[*batch, *event] -> [*batch, K]`."""
        return jax.nn.softmax(self._joint(x), axis=0).T

    @per_batch
    def predict(self, x, context):
        """The likeliest component, `[*batch, *event] -> [*batch]` int32."""
        return jnp.argmax(self._joint(x), axis=0).astype(jnp.int32)

    @per_sample
    def sample(self, key):
        """Draws of the posterior predictive density, `[*shape, *event]`."""
        which, within = jax.random.split(key)
        index = jax.random.categorical(which, self.log_weights)
        return algebra.sample_component(within, self.components, index)

    @weighted_events
    def e_step(self, x, weight):
        """`VariationalStatistics` and `step_log_prob [N]`."""
        joint = self._joint(x)
        log_norm = logsumexp(joint, axis=0)
        # an impossible event (-inf) belongs to no component
        share = jnp.exp(joint - jnp.where(jnp.isneginf(log_norm), 0, log_norm)) * weight
        statistics = algebra.component_e_step(self.components, x, share)
        return VariationalStatistics(jnp.sum(share, axis=1), statistics), log_norm

    def m_step(self, statistics) -> VariationalMixture:
        """The posterior given the statistics: the priors, updated."""
        return self.maximize(statistics)[0]

    def maximize(self, statistics):
        """`m_step`, and the number of components that had to be repaired."""
        count = statistics.weight
        later = jnp.concatenate([jnp.cumsum(count[::-1])[::-1][1:], jnp.zeros_like(count, shape=(1,))])
        sticks = self.prior_sticks + jnp.stack([count, later], axis=1)[: len(self.prior_sticks)]
        components, repaired = algebra.component_maximize(self.components, statistics.components)
        log_sticks = jnp.log(sticks).astype(self.log_sticks.dtype)
        return VariationalMixture(log_sticks, components, self.prior_sticks), repaired

    def log_prior(self):
        """`-KL(q || prior)`, nats: with the sum of `step_log_prob` over the data, the evidence lower bound."""
        a, b = jnp.exp(self.log_sticks[:, 0]), jnp.exp(self.log_sticks[:, 1])
        weights = jnp.sum(wishart.kl_beta(a, b, self.prior_sticks[:, 0], self.prior_sticks[:, 1]))
        return algebra.component_log_prior(self.components) - weights

    def hold(self, statistics, held):
        """The statistics as the components have to see them when parts of them are held."""
        components = algebra.component_hold(self.components, statistics.components, held.components)
        return VariationalStatistics(statistics.weight, components)

    def rebase(self, old, statistics):
        """Statistics that `old` made, as this model would write them."""
        components = algebra.component_rebase(self.components, old.components, statistics.components)
        return VariationalStatistics(statistics.weight, components)

    def distribution(self):
        """The posterior predictive density as a distrax distribution."""
        return as_distribution(self)


def _concentration(concentration, k, called):
    value = jnp.asarray(1 / max(k, 1) if concentration is None else as_array(concentration, name="concentration"))
    if value.ndim or (concrete(value) and not (value > 0 and jnp.isfinite(value))):
        raise ModelError(
            "the concentration of the weights is out of range", called=called, expected="one positive number",
            got=f"{concentration}", fix="concentration=1 / k",
        )  # fmt: skip
    return value


def _at_prior(components, concentration, stick_breaking):
    k, dtype = algebra.count(components), float_type(components)
    concentration = jnp.asarray(concentration, dtype)
    if stick_breaking:
        sticks = jnp.stack([jnp.ones(k, dtype), jnp.broadcast_to(concentration, (k,))], axis=1)
    else:
        ahead = jnp.arange(k - 1, 0, -1, dtype=dtype)
        sticks = concentration * jnp.stack([jnp.ones_like(ahead), ahead], axis=1)
    return VariationalMixture(jnp.log(sticks), components, sticks)


def _updated(template, x, share, concentration, stick_breaking):
    """The posterior of K components like `template` from responsibilities `[N, K]`."""
    components = algebra.repeat(template, share.shape[1])
    share = share.T.astype(float_type(components))
    statistics = VariationalStatistics(jnp.sum(share, axis=1), algebra.component_e_step(components, x, share))
    return _at_prior(components, concentration, stick_breaking).m_step(statistics)


@functools.partial(jax.jit, static_argnames=("leaf", "stick_breaking"))
def _from_responsibilities(key, x, share, leaf, concentration, stick_breaking):
    return _updated(leaf(key, x), x, share, concentration, stick_breaking)


@functools.partial(jax.jit, static_argnames=("k", "leaf", "stick_breaking"))
def _init(key, x, k, leaf, concentration, stick_breaking):
    cluster, whole = jax.random.split(key)
    template = leaf(whole, x)
    features = algebra.features(template, x)
    _, label = kmeans(cluster, features, k)
    share = jax.nn.one_hot(label, k, dtype=features.dtype)
    return _updated(template, x, share, concentration, stick_breaking)
