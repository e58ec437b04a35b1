"""Diagnostics of hidden variables: how much they say of events, how many of them do, and whether the prior knows."""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.algebra import needed
from jaxgen.core.errors import DataError, FitError, JaxgenWarning
from jaxgen.core.inputs import as_array, widened
from jaxgen.core.methods import check_key, is_count
from jaxgen.core.protocols import Inferring
from jaxgen.core.scores import plus_minus
from jaxgen.metrics.events import events_of
from jaxgen.ops.stable import logsumexp

#: the share of the prior's variance that the posterior means of an active unit move by (Burda, Grosse and Salakhutdinov
#: 2016, section 5.2, whose prior has variance 1)
ACTIVE = 0.01
#: draws that are held against all events at once
TOGETHER = 256


class Latents(NamedTuple):
    """The report of `latents`, nats per event.

    Args:
        rate: `E KL(q(z | x) || p(z))`, what the posterior says beyond the prior, and its standard error.
        distortion: `-E_q log p(x | z)`, what is left to say, and its standard error; the ELBO is `-rate - distortion`.
        mismatch: `KL(q(z) || p(z))` of the aggregate posterior, the mean of q(z | x) over these events: what a better
            prior could save at most.
        mismatch_error: its standard error.
        information: `rate - mismatch`, the mutual information of z and which event it is, at most `log N`.
        activity: `[*latent]`, variance of the posterior mean over events, in units of the prior's variance.
        active: how many units have an activity above .01.
        events: N.

    Source: Hoffman and Johnson (2016), ELBO surgery; Alemi et al. (2018), Fixing a broken ELBO; Burda, Grosse and
    Salakhutdinov (2016), Importance weighted autoencoders, for active units.
    """

    rate: float
    rate_error: float
    distortion: float
    distortion_error: float
    mismatch: float
    mismatch_error: float
    information: float
    activity: np.ndarray
    active: int
    events: int

    def __str__(self) -> str:
        rows = [
            ("rate", f"{plus_minus(self.rate, self.rate_error)} nats per event, {self.events} events"),
            ("distortion", plus_minus(self.distortion, self.distortion_error)),
            ("mismatch", f"{plus_minus(self.mismatch, self.mismatch_error)} of the rate, by the aggregate posterior"),
            ("information", f"{self.information:.4f}, at most {np.log(self.events):.4f}"),
            ("active", f"{self.active} of {self.activity.size} units"),
        ]
        return "\n".join(f"{name:<12}{text}" for name, text in rows)

    def __repr__(self) -> str:
        return str(self)


def latents(key: Any, model: Any, data: Any, *, draws: int = 10) -> Latents:
    """Rate, distortion, mismatch of the aggregate posterior, and active units of a model with hidden variables.

    Args:
        key: typed key.
        model: with hidden variables, such as a `VAE`.
        data: an array `[N, *event]`, N of 2 or more, or a tuple `(x, context)`, or a dict of them. The mismatch holds a
            draw for each event against all of them: N of a few thousand is plenty.
        draws: of each posterior, 2 or more.

    Returns:
        `Latents`. A posterior of which no unit is active has collapsed to the prior, and is also a `JaxgenWarning`.

    Raises:
        ModelError: a model without hidden variables. FitError: fewer than 2 draws. DataError, ShapeError: data that do
            not fit the model, or one event.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> found = latents(jax.random.key(2), vae, x)
        >>> 0 < found.mismatch < found.rate, found.activity.shape
        (True, (2,))
    """
    called = f"metrics.latents(key, {type(model).__name__}, data)"
    check_key(key, called)
    needed(model, Inferring, called)
    if not is_count(draws, 2):
        raise FitError("means need draws", called=called, expected="draws of 2 or more", got=str(draws))
    model = widened(model)
    batch = events_of(model, data, called)
    if batch.events < 2:
        raise DataError("one event has no spread", called=called, expected="two events or more", got="one")
    x, context = (None if a is None else jnp.asarray(a) for a in (batch.x, batch.context))
    terms, halves, prior = jax.tree.map(lambda a: np.asarray(a, np.float64), _terms(key, model, x, context, draws))
    (rate, rate_error), (distortion, distortion_error), (gap, error) = map(_mean, terms)
    first, second = (half - half.mean(axis=0) for half in halves)
    spread = prior.var(axis=0)
    # two means of independent draws: their covariance is the variance of the mean without the noise of the draws
    activity = np.sum(first * second, axis=0) / (len(first) - 1) / np.where(spread > 0, spread, 1)
    active = int((activity > ACTIVE).sum())
    if active == 0:
        warnings.warn(
            f"{called}: the posterior has collapsed: of {activity.size} units none moves with the events, the rate is "
            f"{rate:.4f} nats; try a smaller weight of the rate at first, losses.elbo(beta=schedule), free_bits, or a "
            "weaker decoder", JaxgenWarning, stacklevel=2,
        )  # fmt: skip
    return Latents(rate, rate_error, distortion, distortion_error, gap, error, rate - gap, activity, active, len(first))


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


@functools.partial(jax.jit, static_argnames=("draws",))
def _terms(key: Any, model: Any, x: Any, context: Any, draws: int) -> Any:
    """Rate, distortion and log q(z) - log p(z) of each event; means of two halves of the draws; draws of the prior."""
    first, second = jax.random.split(key)

    def one(row: Any) -> Any:
        key, x, context = row
        given = model.inference(x, context=context)
        known = given.divergence()

        def draw(key: Any) -> Any:
            z, log_q = given.propose(key)
            log_prior = given.log_prior(z)
            rate = log_q - log_prior if known is None else jnp.sum(known)
            return z, rate, -given.log_likelihood(z), log_prior

        z, rate, distortion, log_prior = jax.lax.map(draw, jax.random.split(key, draws), batch_size=draws)
        half = draws // 2
        means = jnp.mean(z[:half], axis=0), jnp.mean(z[half:], axis=0)
        return jnp.mean(rate), jnp.mean(distortion), z[0], log_prior[0], means

    n = len(x)
    rows = jax.random.split(first, n), x, context
    rate, distortion, z, log_prior, halves = jax.lax.map(one, rows, batch_size=min(TOGETHER, n))

    def aggregate(z: Any) -> jax.Array:
        """`log 1/N sum_n q(z | x_n)`."""
        score = lambda x, context: model.inference(x, context=context).log_posterior(z)  # noqa: E731
        return logsumexp(jax.vmap(score)(x, context)) - jnp.log(n)

    log_q = jax.lax.map(aggregate, z, batch_size=min(TOGETHER, n))
    keys = jax.random.split(second, 1000)
    given = None if context is None else jnp.take(context, jnp.arange(1000) % n, axis=0)
    length = x.shape[1] if None in model.event_shape else None
    draw = lambda key, context: model.sample_with_latent(key, context=context, length=length)[0]  # noqa: E731
    prior = jax.vmap(draw)(keys, given)
    return (rate, distortion, log_q - log_prior), halves, prior


def total_correlation(z: Any) -> float:
    """Return the total correlation of vectors, as a Gaussian with their covariance has it, nats.

    `sum_d H(z_d) - H(z) = -log det C / 2`, C the correlation matrix; what all coordinates know of each other, 0 where
    they are uncorrelated

    Args:
        z: `[N, L]`, more events than coordinates, such as `model.encode(x)` or draws of the aggregate posterior.

    Raises:
        DataError: no table, too few events, or a coordinate that is the same for all.

    Source: Watanabe (1960), Information theoretical analysis of multivariate correlation.

    Example:
        >>> round(total_correlation([[1.0, 1.0], [-1.0, -1.0], [1.0, 0.0], [-1.0, 0.0]]), 6)  # -log(1 - 1/2) / 2
        0.346574
    """
    table = np.asarray(as_array(z, name="z", called="total_correlation(z)"), np.float64)
    fits = table.ndim == 2 and len(table) > table.shape[1]
    if not fits or (table.std(axis=0) == 0).any():
        raise DataError(
            "a correlation needs coordinates that move, and more events than those", called="total_correlation(z)",
            expected="[N, L], N > L, no constant column", got=f"shape {list(table.shape)}",
        )  # fmt: skip
    return float(-0.5 * np.linalg.slogdet(np.atleast_2d(np.corrcoef(table, rowvar=False)))[1])
