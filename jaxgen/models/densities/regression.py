"""Linear regression as a conditional density: mixtures of regressions, and hidden Markov models that regress."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.inputs import as_array, concrete, floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model
from jaxgen.core.sequences import Sequences
from jaxgen.ops import linalg, scales
from jaxgen.ops.gaussians import LOG_2PI, checked_whitener, floored_whitener, log_diagonal, matmul, whitener_scales
from jaxgen.ops.stable import has_mass

#: default floor of a variance, as a share of the squared scale of what is explained: a residual of less than a part in
#: 10^5 is rounding in float32
RELATIVE_FLOOR = 1e-10


class RegressionStatistics(NamedTuple):
    """Weighted sums around the prediction that the model made, of residuals `r` and inputs `v = [u - center, 1]`.

    Args:
        second: `sum w r r^T`, `[D, D]`.
        cross: `sum w r v^T`, `[D, P + 1]`.
        inputs: `sum w v v^T`, `[P + 1, P + 1]`; its last entry is the total weight.
    """

    second: jax.Array
    cross: jax.Array
    inputs: jax.Array


@model
class LinearRegression:
    """A Gaussian whose mean is a linear function of a context, with a full covariance.

    `x | u ~ N(B u + b, cov)`; `log p(x | u) = -|W (x - B u - b)|^2 / 2 + log det W - (D / 2) log 2 pi`, `W` lower
    triangular with `W cov W^T = I`.

    As components of a `Mixture` it is a mixture of regressions, as emissions of an `HMM` a switching regression; with
    `lagged` series an autoregressive hidden Markov model.

    Args:
        coefficients: `[D, P]`, B, units of x by units of u.
        offset: `[D]`, the prediction at `u = center`, relative to `origin`.
        raw: `[D, D]`, `W` below the diagonal and the logarithm of its diagonal on it; the rest is not used.
        origin: `[D]`, a point amid the x, and
        center: `[P]`, one amid the inputs: data far from zero lose no digits to float32. The M-step moves the center
            to the mean of the inputs that the density is responsible for; a gradient never trains either.
        floor: `[D]`, the smallest variances, units of x squared: `cov >= diag(floor)`; never trained.
        spread: `[P]`, scales of the inputs, in whose inverse a gradient moves coefficients; never trained, and of no
            use to EM.

    The M-step is weighted least squares, and the maximum of the likelihood under `cov >= diag(floor)`. It repairs: a
    component of no mass keeps its parameters; where the inputs do not vary (in some direction, to the precision of
    their sums: fewer events than inputs, collinear ones) the coefficients in that direction stay; eigenvalues of the
    covariance, in units in which the floor is one, below it are raised to it. Each of these counts as repaired.

    Source: Quandt and Ramsey (1978), Estimating mixtures of normal distributions and switching regressions;
    Hamilton (1990), Analysis of time series subject to changes in regime.

    Example:
        >>> line = LinearRegression.from_values([[2.0]], [1.0], [[0.25]])
        >>> line.conditional_mean(jnp.array([[0.0], [3.0]])).tolist()
        [[1.0], [7.0]]
        >>> round(float(line.log_prob(jnp.array([1.5]), context=jnp.array([0.0]))), 4)
        -0.7258
        >>> import jaxgen as jg
        >>> x = jg.lagged(jnp.sin(jnp.arange(20.0))[:, None], 2)
        >>> wave = LinearRegression.init(jax.random.key(0), *x)  # x_t = 2 cos(1) x_(t-1) - x_(t-2)
        >>> (1000 * wave.coefficients).round().tolist()
        [[1081.0, -1000.0]]
    """

    coefficients: jax.Array
    offset: jax.Array
    raw: jax.Array
    origin: jax.Array = fixed()
    center: jax.Array = fixed()
    floor: jax.Array = fixed(default=0.0)
    spread: jax.Array = fixed(default=1.0)

    @classmethod
    def init(cls, key, x, context=None, *, inputs=None, floor=None) -> LinearRegression:
        """The least-squares regression of x `[N, D]` on contexts `[N, P]`.

        Args:
            key: not used.
            x: what is to be explained.
            context: what explains it; None starts with coefficients of zero, for `inputs` (P) of them.
            floor: of the variances, one number or `[D]`; None is 1e-10 of the squared scale of each column of x
                (`ops.scales`): a regression may leave next to nothing.

        Raises:
            ShapeError: no tables, or of different lengths; neither contexts nor their number.
        """
        called = "LinearRegression.init(key, x, context)"
        x = floating(x, name="x")
        u = None if context is None else floating(context, name="context").astype(x.dtype)
        if x.ndim != 2 or (u is None and inputs is None) or (u is not None and u.shape != (len(x), u.shape[-1])):
            raise ShapeError(
                "a regression needs two tables", called=called, expected="x [N, D] and context [N, P], or inputs=P",
                got=f"x {list(x.shape)}, context {None if u is None else list(u.shape)}, inputs={inputs}",
                fix="np.asarray(context)[:, None] for one column",
            )  # fmt: skip
        origin, scale = scales.columns(x)
        floor = scales.variance_floor(scale, floor, RELATIVE_FLOOR)
        if u is None:
            center, spread = jnp.zeros(inputs, x.dtype), jnp.ones(inputs, x.dtype)
        else:
            center, spread = scales.columns(u)
        zero = jnp.zeros((x.shape[1], len(center)), x.dtype)
        start = cls(zero, jnp.zeros_like(origin), jnp.diag(-jnp.log(scale)), origin, center, floor, spread)
        u = jnp.broadcast_to(center, (len(x), len(center))) if u is None else u
        one = jnp.ones(len(x), x.dtype)
        for _ in range(2):  # the second round is around the first one's prediction, which rids it of its rounding
            start = start.maximize(start._sums(x, one, u))[0]
        return start

    @classmethod
    def from_values(
        cls, coefficients, intercept, covariance, *, center=None, floor=0.0, spread=1.0
    ) -> LinearRegression:
        """From coefficients `[*K, D, P]`, intercepts `[*K, D]` and covariances `[*K, D, D]`.

        Args:
            center: `[P]` or `[*K, P]`, a point amid the inputs if they are far from zero; `intercept` is still the
                prediction for inputs of zero.
            floor: of the variances, one number or `[D]`.
            spread: `[P]` or `[*K, P]` or one number, scales of the inputs, for steps of a gradient.

        Raises:
            ModelError: shapes that do not fit; a covariance that is not symmetric positive definite.
        """
        called = "LinearRegression.from_values(coefficients, intercept, covariance)"
        coefficients = floating(coefficients, name="coefficients")
        intercept = floating(intercept, name="intercept")
        covariance = floating(covariance, name="covariance")
        d = intercept.shape[-1:]
        fits = coefficients.shape[:-1] == intercept.shape and covariance.shape == (*intercept.shape, *d)
        if intercept.ndim < 1 or not fits:
            raise ModelError(
                "the parts do not fit each other", called=called,
                expected="coefficients [*K, D, P], intercept [*K, D], covariance [*K, D, D]",
                got=f"{list(coefficients.shape)}, {list(intercept.shape)}, {list(covariance.shape)}",
            )  # fmt: skip
        raw = checked_whitener(covariance, called)
        inputs = (*intercept.shape[:-1], coefficients.shape[-1])
        center = jnp.zeros(inputs) if center is None else floating(center, name="center")
        if center.shape not in (inputs, inputs[-1:]):
            raise ModelError("the center does not fit the inputs", called=called, expected=f"shape {list(inputs)}",
                             got=f"shape {list(center.shape)}")  # fmt: skip
        center = jnp.broadcast_to(center.astype(coefficients.dtype), inputs)
        floor = jnp.broadcast_to(jnp.asarray(floor, coefficients.dtype), intercept.shape)
        origin = intercept + _apply(coefficients, center)
        spread = jnp.broadcast_to(jnp.asarray(spread, coefficients.dtype), inputs)
        return cls(coefficients, jnp.zeros_like(origin), raw, origin, center, floor, spread)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.offset.shape

    @property
    def context_shape(self) -> tuple[int, ...]:
        return self.coefficients.shape[-1:]

    @property
    def free_parameters(self) -> int:
        """Coefficients, intercepts, and the covariance's upper triangle."""
        d, p = self.coefficients.shape[-2:]
        return d * (p + 1) + d * (d + 1) // 2

    @property
    def intercept(self) -> jax.Array:
        """b, the prediction for inputs of zero, `[*K, D]`, units of x."""
        return self.origin + self.offset - _apply(self.coefficients, self.center)

    @property
    def whitener(self) -> jax.Array:
        """`W`, `[*K, D, D]` lower triangular with a positive diagonal."""
        diagonal = jnp.exp(jnp.diagonal(self.raw, axis1=-2, axis2=-1))
        return jnp.tril(self.raw, -1) + diagonal[..., None] * jnp.eye(self.raw.shape[-1], dtype=self.raw.dtype)

    @property
    def covariance(self) -> jax.Array:
        """The covariance of x given u, `[*K, D, D]`, units of x squared."""
        factor = linalg.tril_inverse(self.whitener)
        return matmul(factor, jnp.swapaxes(factor, -1, -2))

    @property
    def _deviation(self):
        """Standard deviations of x given u, `[*K, D]`."""
        return jnp.linalg.norm(linalg.tril_inverse(self.whitener), axis=-1)

    def conditional_mean(self, context) -> jax.Array:
        """Return `E[x | u]`, `[*batch, P] -> [*batch, D]`, of one regression.

        Raises:
            ShapeError: contexts that do not end in P.
        """
        context = jnp.asarray(as_array(context, name="context", called="LinearRegression.conditional_mean(context)"))
        if context.shape[-1:] != self.context_shape:
            raise ShapeError(
                "these are no inputs of this regression", called="LinearRegression.conditional_mean(context)",
                expected=f"[*batch, {self.context_shape[0]}]", got=f"shape {list(context.shape)}",
            )  # fmt: skip
        return self.origin + (self.offset + matmul(context - self.center, self.coefficients.T))

    def _residual(self, x, context):
        # the data move to the origin first, where float32 is fine-grained
        return (x - self.origin) - (self.offset + matmul(context - self.center, self.coefficients.T))

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, D] -> [*batch]`."""
        z = matmul(self.whitener, self._residual(x, context))
        return -0.5 * (jnp.sum(z * z) + z.size * LOG_2PI) + jnp.trace(self.raw)

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, D] -> [*batch, D]`."""
        return ndtr(self._residual(x, context) / self._deviation)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, D]`."""
        return self.conditional_mean(context) + self._deviation * ndtri(level)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, D]`."""
        noise = jax.random.normal(key, self.offset.shape, self.offset.dtype)
        return self.conditional_mean(context) + matmul(linalg.tril_inverse(self.whitener), noise)

    @weighted_events
    def e_step(self, x, weight=None, *, context=None):
        """`RegressionStatistics` around the prediction, and `log_prob [N]`."""
        return self._sums(x, weight, context), self.log_prob(x, context=context)

    def _sums(self, x, weight, context):
        r = self._residual(x, context)
        u = jnp.broadcast_to(context - self.center, (len(r), self.coefficients.shape[-1]))
        v = jnp.concatenate([u, jnp.ones((len(u), 1), u.dtype)], axis=1)
        of_r, of_v = (r * weight[:, None]).T, (v * weight[:, None]).T
        return RegressionStatistics(matmul(of_r, r), matmul(of_r, v), matmul(of_v, v))

    def m_step(self, statistics) -> LinearRegression:
        """Weighted least squares, and the covariance of what is left, under `cov >= diag(floor)`."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where it had to repair this density, else 0."""
        second, cross, inputs = statistics
        total = inputs[-1, -1]
        alive = has_mass(total)
        weight = jnp.where(alive, total, 1)
        # around the means of residuals and inputs
        at, shift = inputs[:-1, -1] / weight, cross[:, -1] / weight
        slope = cross[:, :-1] - jnp.outer(shift, inputs[-1, :-1])
        solve, known = linalg.inverse_of_sums(inputs[:-1, :-1] - weight * jnp.outer(at, at), jnp.diagonal(inputs)[:-1])
        turn = matmul(slope, solve)
        fit = matmul(turn, slope.T)
        left = second - weight * jnp.outer(shift, shift) - fit
        whitener, singular = floored_whitener((0.5 * (left + left.T) / weight)[None], self.floor[None])
        moved = LinearRegression(
            self.coefficients + turn, self.offset + matmul(self.coefficients, at) + shift, log_diagonal(whitener[0]),
            self.origin, self.center + at, self.floor, self.spread,
        )  # fmt: skip
        new = jax.tree.map(lambda new, old: jnp.where(alive, new, old).astype(old.dtype), moved, self)
        return new, (~alive | ~known | singular[0]).astype(jnp.int32)

    def parameter_scales(self):
        """Scales of the coefficients, of the prediction and of W."""
        offset, raw = whitener_scales(self.whitener)
        return {"coefficients": offset[..., None] / self.spread[..., None, :], "offset": offset, "raw": raw}

    def freeze(self, statistics, frozen):
        """Statistics whose M-step finds the best free coefficients and offsets given those frozen, at this covariance.

        The center stays. With the covariance given, the likelihood is quadratic in both, and its maximum under frozen
        entries solves the rest of the equations; the covariance is then that around the result. Where nothing of the
        two is frozen, the statistics as they are.
        """
        second, cross, inputs = statistics
        kept = jnp.concatenate([frozen.coefficients, frozen.offset[:, None]], axis=1)
        precision = matmul(self.whitener.T, self.whitener)
        free = ~kept.reshape(-1)
        system = jnp.where(free[:, None] & free, jnp.kron(precision, inputs), 0)
        right = jnp.where(free, matmul(precision, cross).reshape(-1), 0)
        solve, _ = linalg.inverse_of_sums(system, jnp.diagonal(system))
        turn = jnp.where(free, matmul(solve, right), 0).reshape(kept.shape)
        left = second - matmul(turn, cross.T) - matmul(cross, turn.T) + matmul(turn, matmul(inputs, turn.T))
        apart = inputs.at[:-1, -1].set(0).at[-1, :-1].set(0)
        new = RegressionStatistics(left + matmul(turn, matmul(apart, turn.T)), matmul(turn, apart), apart)
        any_held = jnp.any(kept)
        return jax.tree.map(lambda new, old: jnp.where(any_held, new, old), new, statistics)

    def recentre(self, old, statistics):
        """Sums around the prediction of `old` as sums around this one's."""
        second, cross, inputs = statistics
        step = old.center - self.center
        shift = (old.origin - self.origin) + (old.offset - self.offset) - matmul(self.coefficients, step)
        turn = jnp.concatenate([old.coefficients - self.coefficients, shift[:, None]], axis=1)
        move = jnp.eye(len(step) + 1, dtype=inputs.dtype).at[:-1, -1].set(step)
        along = matmul(turn, inputs)
        crossed = matmul(turn, cross.T)
        return RegressionStatistics(
            second + crossed + crossed.T + matmul(along, turn.T), matmul(cross + along, move.T),
            matmul(move, matmul(inputs, move.T)),
        )  # fmt: skip


def _apply(coefficients, u):
    """`B u`, `[*K, D]`."""
    return matmul(coefficients, u[..., None])[..., 0]


def lagged(x, lags: int):
    """Series as what is seen and what came before it: the data of an autoregression.

    `x_t` with the context `[x_(t-1), ..., x_(t-lags)]`, for every t that has as many steps before it. The likelihood of
    a model on these data is conditional on the first `lags` steps.

    Args:
        x: series `[*batch, T, D]`, or `Sequences` of them, whose lengths shrink by `lags`; a step of which, or of whose
            past, something was not seen counts as not seen.
        lags: how many steps to look back, 1 to T - 1.

    Returns:
        x `[*batch, T - lags, D]` and the context `[*batch, T - lags, lags * D]`, the most recent step first.

    Raises:
        ShapeError: no series, or one that is too short.

    Example:
        >>> x, context = lagged(jnp.arange(5.0)[:, None], 2)
        >>> x.tolist(), context.tolist()
        ([[2.0], [3.0], [4.0]], [[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]])
        >>> import jaxgen as jg
        >>> x, past = lagged(jnp.sin(jnp.arange(60.0) ** 1.5).reshape(2, 30, 1), 2)
        >>> start = jg.HMM.init(jax.random.key(0), x, 2, jg.LinearRegression.init, context=past)
        >>> jg.fit(jax.random.key(1), start, (x, past), steps=3).model.emissions.coefficients.shape
        (2, 1, 2)
    """
    called = f"lagged(x, {lags})"
    packed = x.checked(name="x", called=called, allow_nan=False) if isinstance(x, Sequences) else None
    series = jnp.asarray(as_array(x, name="x", called=called) if packed is None else packed.x)
    shortest = series.shape[-2] if series.ndim > 1 else 0
    if packed is not None and concrete(packed.length):
        shortest = int(np.min(packed.length))
    if isinstance(lags, bool) or not isinstance(lags, (int, np.integer)) or not 1 <= lags < shortest:
        raise ShapeError(
            "these series do not reach back so far", called=called, got=f"shape {list(series.shape)}, lags={lags}",
            expected=f"x [*batch, T, D] and lags from 1 to {max(shortest - 1, 1)}, below the shortest length",
            fix="np.asarray(x)[..., None] for series of single numbers",
        )  # fmt: skip
    steps = series.shape[-2]
    past = jnp.concatenate([series[..., lags - i : steps - i, :] for i in range(1, lags + 1)], axis=-1)
    now = series[..., lags:, :]
    if packed is None:
        return now, past
    observed = packed.observed
    if observed is not None:
        seen = jnp.asarray(observed, bool)
        observed = jnp.stack([seen[..., lags - i : steps - i] for i in range(lags + 1)]).all(axis=0)
    return Sequences(now, jnp.asarray(packed.length) - lags, observed), past
