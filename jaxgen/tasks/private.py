"""EM that keeps its events private: noise on its statistics, whose scale an accountant finds for a promise.

The accountant is that of Gaussian differential privacy. A sum that one event changes by at most S, with normal noise of
standard deviation `S / mu`, is mu-GDP; the squares of mu add up over all looks at the data, whatever each takes from
those before; and mu-GDP is (epsilon, delta) for every pair on one curve, which is exactly that of the analytic Gaussian
mechanism.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import log_ndtr

from jaxgen.core import algebra
from jaxgen.core.errors import DataError, FitError, ModelError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import check_key, is_count
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.latent.mixture import Mixture, MixtureStatistics
from jaxgen.ops.gaussians import Moments, matmul

#: steps of EM: more of them are each noisier
STEPS = 24
#: share of the budget of the last step, whose noise stays in the result
LAST = 0.2
#: draws of a normal density that the start divides
DRAWS = 4096
#: the change of all sums by one event of norm 1, and what rounding may add to it
SENSITIVITY = 2 * (1 + 1e-5)
#: the smallest and largest mu that an epsilon is looked for in
MUS = (1e-6, 1e3)


def delta_of(epsilon: float, mu: float) -> float:
    """Return the least delta at which a mu-GDP mechanism is (epsilon, delta)-private.

    `delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)`

    Source: Balle and Wang (2018), Improving the Gaussian mechanism for differential privacy, theorem 8, with
    `mu = sensitivity / sigma`; Dong, Roth and Su (2022), Gaussian differential privacy, corollary 2.13.

    Example:
        >>> round(delta_of(1.0, 1.0), 4)
        0.1269
    """
    first, second = log_ndtr(mu / 2 - epsilon / mu), epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(-math.exp(first) * math.expm1(min(0.0, second - first)))


def mu_of(epsilon: float, delta: float) -> float:
    """Return the largest mu whose mechanisms are (epsilon, delta)-private, to twelve digits.

    Raises:
        ModelError: no such promise.

    Example:
        >>> mu = mu_of(1.0, 1e-5)
        >>> round(mu, 4), abs(delta_of(1.0, mu) - 1e-5) < 1e-14
        (0.2681, True)
    """
    if not (epsilon > 0 and 0 < delta < 1 and math.isfinite(epsilon)):
        raise ModelError("that is no promise of privacy", called="mu_of(epsilon, delta)", got=f"{epsilon}, {delta}",
                         expected="epsilon above 0, delta between 0 and 1")  # fmt: skip
    short = lambda log_mu: delta_of(epsilon, math.exp(log_mu)) - delta  # noqa: E731
    low, high = map(math.log, MUS)
    if not short(low) < 0 < short(high):
        raise ModelError("that promise is beyond what noise is calibrated for", called="mu_of(epsilon, delta)",
                         expected="a larger delta, or a smaller epsilon", got=f"{epsilon}, {delta}")  # fmt: skip
    # the noise has to be enough: the end of the bracket below the root
    return float(math.exp(brentq(short, low, high, xtol=1e-13)) * (1 - 1e-12))


def clipped_sums(model: Mixture, x: jax.Array, norm: float) -> jax.Array:
    """Return the sums of a step over events `[N, D]`, for each component a symmetric matrix, `[K, 1 + D, 1 + D]`.

    `sum_n r_nk v_nk v_nk^T` with `v = [1, u]` and `u = W_k (x - m_k) / norm`, shortened to a length of 1 where it is
    longer. The shares r of an event are 1 together and `|v|^2 <= 2`: one event more or less changes all sums together
    by at most 2, in the Euclidean norm of all their entries.

    Example:
        >>> one = Mixture.from_components(Gaussian.from_values([[0.0]], [[[1.0]]]))
        >>> clipped_sums(one, jnp.array([[2.0], [300.0]]), 4.0).tolist()
        [[[2.0, 1.5], [1.5, 1.25]]]
    """
    share, components = model.responsibilities(x), model.components

    def one(share: jax.Array, mean: jax.Array, whitener: jax.Array) -> jax.Array:
        u = matmul(x - mean, whitener.T) / norm
        u = u / jnp.maximum(1, jnp.linalg.norm(u, axis=1, keepdims=True))
        v = jnp.concatenate([jnp.ones((len(x), 1), x.dtype), u], axis=1)
        return matmul((v * share[:, None]).T, v)

    return jax.lax.map(lambda args: one(*args), (share.T, components.mean, components.whitener))


def symmetric_noise(key: jax.Array, like: jax.Array) -> jax.Array:
    """Return symmetric matrices `[K, E, E]` of normal noise, of deviation 1 in each direction of their Euclidean norm.

    Entries off the diagonal stand twice in that norm: their deviation is `1 / sqrt(2)`.

    Example:
        >>> noise = symmetric_noise(jax.random.key(0), jnp.zeros((10_000, 2, 2)))
        >>> [f"{one:.1f}" for one in noise.std(axis=0).ravel()]
        ['1.0', '0.7', '0.7', '1.0']
    """
    noise = jax.random.normal(key, like.shape, like.dtype)
    return (noise + jnp.swapaxes(noise, 1, 2)) / 2


def kept_variance(norm: float, d: int) -> float:
    """Return the share of the variance of a normal density of d columns that is left of events clipped to a norm.

    `E[min(|u|, norm)^2] / d`

    Example:
        >>> round(kept_variance(2.0, 1), 4), kept_variance(50.0, 3)
        (0.9205, 1.0)
    """
    beyond = stats.chi2.sf(norm**2, d)
    return float(stats.chi2.cdf(norm**2, d + 2) + norm**2 / d * beyond)


def _revived(key: jax.Array, model: Mixture, weight: jax.Array, least: float) -> Mixture:
    """The model with its lightest component, where it has too few rows, in the place of a half of its heaviest."""
    light, heavy, own = jnp.argmin(weight), jnp.argmax(weight), model.components
    to = jax.random.normal(key, own.offset.shape[-1:], own.offset.dtype)
    away = matmul(own.scale_tril[heavy], to / jnp.linalg.norm(to))
    mean = own.mean.at[light].set(own.mean[heavy] + away).at[heavy].add(-away)
    half = model.logits[heavy] - math.log(2)
    components = dataclasses.replace(own, offset=mean - own.origin, raw=own.raw.at[light].set(own.raw[heavy]))
    split = Mixture(model.logits.at[light].set(half).at[heavy].set(half), components)
    return jax.tree.map(lambda a, b: jnp.where(weight[light] < least, a, b), split, model)


@functools.partial(jax.jit, static_argnames=("steps",))
def _stepped(key: Any, model: Mixture, x: jax.Array, norm: float, kept: float, scale: float,
             steps: int) -> Mixture:  # fmt: skip
    """The model after so many steps of EM with noise on their sums: nothing else of the events comes out."""

    def step(carry: tuple[Mixture, jax.Array], key: Any) -> tuple[tuple[Mixture, jax.Array], None]:
        key, split = jax.random.split(key)
        model, weight = carry
        # where noise is as large as the variance, a component has lost its rows for good
        model = _revived(split, model, weight, scale * norm**2)
        sums = clipped_sums(model, x, norm)
        sums = sums + scale * symmetric_noise(key, sums)
        # from here on only what is private already is looked at; a component that has no rows left stays a small one
        weight, factor = jnp.maximum(sums[:, 0, 0], jnp.maximum(1.0, scale)), norm * model.components.scale_tril
        first = matmul(factor, sums[:, 1:, :1])[..., 0]
        second = matmul(matmul(factor, sums[:, 1:, 1:]), jnp.swapaxes(factor, 1, 2)) / kept
        return (model.m_step(MixtureStatistics(weight, Moments(weight, first, second))), weight), None

    whole = jnp.full(model.logits.shape, jnp.inf, x.dtype)
    return jax.lax.scan(step, (model, whole), jax.random.split(key, steps))[0][0]


class Private(NamedTuple):
    """The result of `private_mixture`, and its promise.

    Args:
        model: a `Mixture` of `Gaussian`s, in units of the data. All that is made of it keeps the promise.
        epsilon, delta: an event more or less changes the probability of any outcome by a factor of at most
            `exp(epsilon)`, but for a probability of delta.
        mu: the same in Gaussian differential privacy, of all steps together.
        steps: how many noisy sums were made of all events.
        noise: standard deviations of the noise of all but the last of them, and of the last, in events.
        norm: what events were clipped to, in standard deviations of their component.
    """

    model: Any
    epsilon: float
    delta: float
    mu: float
    steps: int
    noise: tuple[float, float]
    norm: float

    def __str__(self) -> str:
        return (
            f"({self.epsilon:g}, {self.delta:g})-differentially private, {self.mu:.4f}-GDP: {self.steps} sums, each "
            f"of which an event changes by 2 at most, with noise of {self.noise[0]:.1f}, the last {self.noise[1]:.1f} "
            f"events; events clipped to {self.norm:g} deviations"
        )

    def __repr__(self) -> str:
        return str(self)


def private_mixture(
    key: Any, x: Any, k: int, *, low: Any, high: Any, epsilon: float, delta: float, norm: float | None = None,
    steps: int = STEPS, least: float = 1e-4,
) -> Private:  # fmt: skip
    """Fit a mixture of Gaussians by EM that is (epsilon, delta)-differentially private.

    Numbers are clipped to the bounds that are given. In each step events are clipped to a norm in standard deviations
    of their component as it was before the step, and the sums get normal noise. The start is private, too: a noisy mean
    and covariance of all events, whose normal density the components divide among them. A component that is lost in
    noise takes a half of the heaviest one. The last step, whose noise is what stays in the result, gets a fifth of the
    budget (of mu squared), the others share the rest.

    What is promised: for two tables of which one has an event more, `P(result in A) <= e^epsilon P'(result in A) +
    delta`. It holds of noise that is real numbers; that floats are none is not counted. Bounds, k, norm and steps must
    not be chosen by looking at the data.

    Args:
        key: typed key, to be kept secret: who knows it can take the noise off.
        x: events `[N, D]`, private.
        k: number of components.
        low, high: bounds of the columns, `[D]` or one number, from what is known without the data.
        epsilon, delta: the promise.
        norm: what events are clipped to; None is `sqrt(D) + 1`. What clipping takes off the variance
            of a normal component is made up for.
        steps: of EM, the first of which is for the start: 3 or more.
        least: the smallest variance of a component, in units in which the bounds are -1 and 1.

    Raises:
        ModelError: no promise, bounds, norm, components or steps. DataError: data that are no numbers `[N, D]`.
        FitError: a fit that is not finite.

    Source: Dwork and Roth (2014), The algorithmic foundations of differential privacy; Park, Foulds, Chaudhuri and
    Welling (2017), DP-EM: differentially private expectation maximization, for noise on the sums; Balle and Wang
    (2018) and Dong, Roth and Su (2022) for the accountant.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = np.concatenate([rng.normal(20, 2, (4000, 1)), rng.normal(60, 3, (4000, 1))])
        >>> found = private_mixture(jax.random.key(0), x, 2, low=0, high=100, epsilon=1.0, delta=1e-5)
        >>> sorted(np.round(found.model.components.mean[:, 0]).tolist())
        [20.0, 60.0]
    """
    called = "private_mixture(key, x, k)"
    check_key(key, called)
    x = np.asarray(as_array(x, name="x", called=called), np.float64)
    if x.ndim != 2:
        raise DataError("a mixture needs a table", called=called, expected="x [N, D]", got=f"shape {list(x.shape)}")
    d = x.shape[1]
    low, high = np.asarray(low, float), np.asarray(high, float)
    if {low.shape, high.shape} - {(), (d,)}:
        raise ModelError("bounds are of the columns", called=called, expected=f"low and high: a number, or [{d}]",
                         got=f"shapes {list(low.shape)}, {list(high.shape)}")  # fmt: skip
    low, high = np.broadcast_to(low, (d,)), np.broadcast_to(high, (d,))
    norm = math.sqrt(d) + 1 if norm is None else float(norm)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all() and norm > 0):
        raise ModelError("those are no bounds", called=called, expected="low below high in each column, norm above 0",
                         got=f"low={low.tolist()}, high={high.tolist()}, norm={norm}")  # fmt: skip
    if not (is_count(k, 1) and is_count(steps, 3) and least > 0):
        raise ModelError("no such fit", called=called, expected="k from 1, steps from 3, least above 0",
                         got=f"k={k!r}, steps={steps!r}, least={least!r}")  # fmt: skip
    mu = mu_of(epsilon, delta)
    middle, half = (low + high) / 2, (high - low) / 2
    z = jnp.asarray(np.clip((x - middle) / half, -1, 1), jnp.result_type(float))
    shared, last = (SENSITIVITY * math.sqrt(n / share) / mu for n, share in ((steps - 1, 1 - LAST), (1, LAST)))
    begin, place, climb, end = jax.random.split(key, 4)
    box = Mixture.from_components(Gaussian.from_values(jnp.zeros((1, d)), jnp.eye(d)[None], floor=least))
    whole = algebra.take(_stepped(begin, box, z, math.sqrt(d), 1.0, shared, 1).components, 0)
    start = _start(place, whole, k, least)
    kept = kept_variance(norm, d)
    found = _stepped(end, _stepped(climb, start, z, norm, kept, shared, steps - 2), z, norm, kept, last, 1)
    components = found.components
    mean = np.asarray(components.mean, np.float64) * half + middle
    covariance = np.asarray(components.covariance, np.float64) * np.outer(half, half)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise FitError("the noise left no mixture", called=called, expected="finite parameters", got="NaN",
                       fix="fewer components, more events, or a larger epsilon")  # fmt: skip
    made = Mixture.from_components(Gaussian.from_values(mean, covariance), np.asarray(found.weights))
    return Private(made, float(epsilon), float(delta), mu, steps, (shared, last), norm)


def _start(key: Any, whole: Gaussian, k: int, floor: float) -> Mixture:
    """Components that divide the noisy normal density of all events among them: clusters of draws of it."""
    draw, cluster = jax.random.split(key)
    return Mixture.init(cluster, whole.sample(draw, (DRAWS,)), k, functools.partial(Gaussian.init, floor=floor))
