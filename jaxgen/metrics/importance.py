"""Importance sampling from a fitted density: log Z with an interval, and whether it can be trusted."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.errors import DataError, FitError, JaxgenWarning, ModelError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import check_key, context_shape
from jaxgen.core.protocols import Kind
from jaxgen.core.scores import plus_minus
from jaxgen.core.value import ByValue
from jaxgen.metrics.partition import estimated

#: draws made at once
CHUNK = 4096
#: quantile of the normal distribution of a two-sided interval of 95 %
Z95 = 1.959964


class Importance(NamedTuple):
    """Estimates for an unnormalised density p~ from draws of q.

    Args:
        log_z: estimate of `log Z`, nats; that of Z is unbiased.
        standard_error: of `log_z`, nats, by the delta method; it means little where `pareto_k` is high.
        elbo: mean log-weight, a lower bound of `log Z`; what is between them is the divergence `KL(q || p)`.
        elbo_error: standard error of `elbo`, nats.
        ess: effective sample size of the weights, from 1 to the number of draws.
        pareto_k: shape of the upper tail of the weights: above 1/2 their variance is infinite, above 1 their mean.
        reliable: whether `pareto_k` is below what this number of draws can bear.
        log_weights: `log p~(x) - log q(x)` of each draw, `[n]`, numpy float64.
    """

    log_z: float
    standard_error: float
    elbo: float
    elbo_error: float
    ess: float
    pareto_k: float
    reliable: bool
    log_weights: np.ndarray

    @property
    def kind(self) -> Kind:
        return Kind.ESTIMATE

    @property
    def interval(self) -> tuple[float, float]:
        """A two-sided interval of 95 % for `log Z`, of many draws and light tails."""
        half = Z95 * self.standard_error
        return self.log_z - half, self.log_z + half

    def __str__(self) -> str:
        n = len(self.log_weights)
        trust = "" if self.reliable else ", not reliable"
        return (
            f"log Z {plus_minus(self.log_z, self.standard_error)} (estimate), ELBO "
            f"{plus_minus(self.elbo, self.elbo_error)}, ESS {self.ess:.0f} of {n}, Pareto k {self.pareto_k:.2f}{trust}"
        )


def importance(
    key: Any, q: Any, log_density: Callable[..., Any], n: int = 10_000, *, context: Any = None
) -> Importance:
    """Importance sampling of `log Z = log integral p~(x) dx` with a fitted q.

    `Z = E_q [p~(x) / q(x)]`

    Args:
        key: typed key.
        q: a density that can be sampled, such as a flow after `losses.reverse_kl`.
        log_density: `x [*event] -> log p~(x)` of one event, nats; -inf where it is zero.
        n: draws, 100 or more.
        context: of q, one for all draws; `log_density` then takes `(x, context)`.

    Returns:
        `Importance`. A tail of the weights that is too heavy for the number of draws is also a `JaxgenWarning`: above
        `min(1 - 1 / log10 n, 0.7)`.

    Raises:
        ModelError: q has no density. FitError: fewer than 100 draws. DataError: a log-density that is NaN or +inf.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, sections 2 and 3; Yao,
    Vehtari, Simpson and Gelman (2018), Yes, but did it work?, for variational inference.

    Example:
        >>> import jaxgen as jg
        >>> q = jg.DiagonalGaussian.from_values([0.0], [1.2])
        >>> found = importance(jax.random.key(0), q, lambda x: -0.5 * jnp.sum(x * x))
        >>> abs(found.log_z - 0.9189) < 0.02, found.reliable  # log sqrt(2 pi)
        (True, True)
    """
    called = f"importance(key, {type(q).__name__}, log_density, {n})"
    check_key(key, called)
    if not latent.has_density(q):
        raise ModelError(
            "q has no density", called=called, expected="sample and log_prob", got=type(q).__name__,
            fix="a flow, a Gaussian or a mixture of them",
        )  # fmt: skip
    if n < 100 or not callable(log_density):
        raise FitError(
            "importance sampling needs a target and draws", called=called, expected="a function, n of 100 or more",
            got=f"{str(log_density)[:60]}, n={n}",
        )  # fmt: skip
    if (context_shape(q) is None) != (context is None):
        raise ModelError("context does not fit q", called=called, expected=f"context_shape {context_shape(q)}",
                         got="none" if context is None else "a context")  # fmt: skip
    context = None if context is None else jnp.asarray(as_array(context, name="context"))
    size = min(n, CHUNK)
    target = ByValue(log_density)
    parts = [_weights(jax.random.fold_in(key, i), q, context, target, size) for i in range(-(-n // size))]
    log_weights = np.concatenate([np.asarray(part, np.float64) for part in parts])[:n]
    wrong = np.isnan(log_weights) | (log_weights == np.inf)
    if wrong.any() or not np.isfinite(log_weights).any():
        raise DataError(
            "the weights are no numbers" if wrong.any() else "all draws have density zero", called=called,
            expected="log p~(x) finite, or -inf where it is zero", got=f"{int(wrong.sum())} of {n} NaN or +inf",
            fix="a q of the same support, and a log_density of one event",
        )  # fmt: skip
    top = log_weights.max()  # taken out on the host: float32 keeps the digits of differences
    found = estimated(jnp.asarray(log_weights - top))
    k, bearable = pareto_k(log_weights), min(1 - 1 / math.log10(n), 0.7)
    if k > bearable:
        warnings.warn(
            f"{called}: Pareto k is {k:.2f}, above {bearable:.2f}: a few draws have most of the weight, and log Z and "
            "its interval cannot be trusted; fit q longer, or give it heavier tails",
            JaxgenWarning, stacklevel=2,
        )  # fmt: skip
    return Importance(
        float(found.log_z) + float(top), float(found.standard_error), float(log_weights.mean()),
        float(log_weights.std(ddof=1) / math.sqrt(n)), float(found.ess), k, k <= bearable, log_weights,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("log_density", "size"))
def _weights(key: Any, q: Any, context: Any, log_density: Any, size: int) -> jax.Array:
    def one(key: Any) -> jax.Array:
        x, log_q = algebra.sample_and_log_prob(q, key, context)
        return (log_density(x) if context is None else log_density(x, context)) - log_q

    return jax.vmap(one)(jax.random.split(key, size))


def pareto_k(log_weights: Any) -> float:
    """The shape of the generalised Pareto distribution of the largest importance weights.

    `p(w | w > u) ~ (1 + k (w - u) / sigma)^(-1/k - 1)` of the largest `min(n / 5, 3 sqrt n)` weights, k by the
    quasi-Bayesian estimate with its weak prior around 1/2.

    Args:
        log_weights: `[n]`, n of 25 or more, nats; a constant does not matter, -inf is a weight of zero.

    Returns:
        k: the mean of the weights exists below 1, their variance below 1/2; -inf where the largest are all equal.

    Raises:
        DataError: fewer than 25 weights, NaN or +inf.

    Source: Zhang and Stephens (2009), A new and efficient estimation method for the generalized Pareto distribution;
    Vehtari et al. (2024), Pareto smoothed importance sampling, appendix G, for the tail's length and the prior.

    Example:
        >>> u = np.random.default_rng(0).random(10_000)
        >>> round(pareto_k(-0.8 * np.log(u)), 1)  # weights u^-0.8
        0.8
    """
    log_weights = np.asarray(log_weights, np.float64)
    n = log_weights.size
    if log_weights.ndim != 1 or n < 25 or np.isnan(log_weights).any() or log_weights.max() == np.inf:
        raise DataError(
            "those are no importance weights", called="pareto_k(log_weights)", expected="[n], n of 25 or more, finite",
            got=f"shape {list(log_weights.shape)}",
        )  # fmt: skip
    weights = np.sort(np.exp(log_weights - log_weights.max()))
    length = math.ceil(min(n / 5, 3 * math.sqrt(n)))
    excess = weights[-length:] - weights[-length - 1]
    excess = excess[excess > 0]
    # draws that are all alike, as where q is p: what differs is rounding
    if excess.size < 5 or weights[-1] - weights[-length - 1] < 1e-6 * weights[-1]:
        return -math.inf
    return _generalised_pareto_shape(excess)


def _generalised_pareto_shape(x: np.ndarray) -> float:
    """`k` of exceedances in increasing order, at the mean of `theta = -k / sigma` under its profile likelihood."""
    n = x.size
    grid = np.arange(1, 30 + math.floor(math.sqrt(n)) + 1)
    quartile = x[max(math.floor(n / 4 + 0.5) - 1, 0)]
    theta = 1 / x[-1] + (1 - np.sqrt(grid.size / (grid - 0.5))) / (3 * quartile)
    k = np.log1p(-theta[:, None] * x).mean(axis=1)
    profile = n * (np.log(-theta / k) - k - 1)
    weight = np.exp(profile - profile.max())
    theta = np.sum(theta * weight) / weight.sum()
    k = np.log1p(-theta * x).mean()
    return float((n * k + 10 * 0.5) / (n + 10))
