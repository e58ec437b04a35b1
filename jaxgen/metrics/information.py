"""Criteria that weigh a fit against the number of its parameters, and the entropy of a density."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import latent
from jaxgen.core.errors import DataError, FitError, ModelError
from jaxgen.core.inputs import Batch
from jaxgen.core.methods import check_key
from jaxgen.core.protocols import Classifier, Kind, LabelProbabilities, NormalMoments, Sequential, has
from jaxgen.core.scores import Score
from jaxgen.core.sequences import Sequences
from jaxgen.metrics.events import events_of

#: events scored at once, and scalars of data at once: what keeps memory small
CHUNK_EVENTS = 2**14
CHUNK_SCALARS = 2**20
#: what models are compared by, and the sign of what is small for the best: 1 where lower is better, -1 where higher is
CRITERIA = {"bic": 1, "aic": 1, "icl": 1, "held_out": -1}


class Evidence(NamedTuple):
    """The quantities that information criteria are computed from.

    Args:
        log_likelihood: of all data, nats; weighted where there are weights.
        events: their number, or the sum of their weights; of events of free length, the number of steps seen.
        parameters: free parameters of the model.
        entropy: of the classification of all events, nats; None where nobody asked.
    """

    log_likelihood: float
    events: float
    parameters: int
    entropy: float | None = None

    @property
    def bic(self) -> float:
        return -2 * self.log_likelihood + self.parameters * math.log(self.events)

    @property
    def aic(self) -> float:
        return -2 * self.log_likelihood + 2 * self.parameters

    @property
    def icl(self) -> float:
        return math.nan if self.entropy is None else self.bic + 2 * self.entropy


def bic(model: Any, data: Any) -> float:
    """The Bayesian information criterion; lower is better, as in scikit-learn and statsmodels.

    `BIC = -2 log L + p log n`, minus twice an approximation of the log evidence

    Args:
        model: a `Density` at its maximum of the likelihood of these data; p is its `free_parameters`.
        data: an array `[N, *event]`, `Sequences`, a tuple `(x, context, weight)` or a dict of them. n is the sum of
            weights: a weight of 2 is the event twice. NaN is an entry that was not seen where the model has
            `missing=True`.

    Of events of a free length (a hidden Markov model's sequences) n is the number of time steps that were seen, not
    that of sequences: what is learnt of transitions and emissions grows with the steps, and one long sequence, n = 1,
    would cost its parameters nothing. Whoever wants another n takes `metrics.evidence(model, data)._replace(events=n)`.

    Returns:
        nats, twice over; the sum over events is made in float64.

    Raises:
        ModelError: a model without an exact likelihood. DataError, ShapeError: data that do not fit the model.

    Source: Schwarz (1978), Estimating the dimension of a model.

    Example:
        >>> x = jnp.array([[-1.0], [0.0], [1.0]])
        >>> import jaxgen as jg
        >>> round(bic(jg.Gaussian.init(jax.random.key(0), x), x), 2)
        9.49
    """
    return evidence(model, data, "bic(model, data)").bic


def aic(model: Any, data: Any) -> float:
    """Akaike's information criterion; lower is better.

    `AIC = -2 log L + 2 p`

    Args, Raises: as `bic`.

    Source: Akaike (1974), A new look at the statistical model identification.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.array([[-1.0], [0.0], [1.0]])
        >>> round(aic(jg.Gaussian.init(jax.random.key(0), x), x), 4)
        11.2972
    """
    return evidence(model, data, "aic(model, data)").aic


def icl(model: Any, data: Any) -> float:
    """The integrated completed likelihood; lower is better. It asks for components that lie apart.

    `ICL = BIC + 2 sum_n H(p(z | x_n))`, with the entropy of the responsibilities; of a hidden Markov model that of the
    posterior over paths. (mclust takes `-log max_k p(k | x_n)` in place of H, which is smaller.)

    Args:
        model: a `Density` that has `responsibilities` (a mixture) or `path_entropy` (a hidden Markov model).
        data: as of `bic`.

    Raises:
        ModelError: a model without an exact likelihood, or one that classifies nothing.
        DataError, ShapeError: data that do not fit the model.

    Source: Biernacki, Celeux and Govaert (2000), Assessing a mixture model for clustering with the integrated
    completed likelihood; Hernando, Crespi and Cybenko (2005), for the entropy of paths.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> mixture = jg.Mixture.init(jax.random.key(0), x, 2, jg.Gaussian.init)
        >>> 0 <= icl(mixture, x) - bic(mixture, x) < 1e-3  # nobody doubts which event is whose
        True
    """
    return evidence(model, data, "icl(model, data)", classify=True).icl


def evidence(
    model: Any, data: Any, called: str = "evidence(model, data)", *, classify: bool = False,
    parameters: int | None = None,
) -> Evidence:
    """Log-likelihood, number of events and of parameters: what `bic`, `aic` and `icl` are made of.

    Args:
        model, data: as of `bic`.
        called: what the user called, for errors.
        classify: the entropy of the classification too.
        parameters: p; None counts them.
    """
    if not latent.has_density(model):
        raise ModelError(
            "a criterion needs an exact likelihood", called=called, expected="a model with log_prob",
            got=type(model).__name__, fix="jaxgen.score(key, model, data) says what there is in its place",
        )  # fmt: skip
    unsure = posterior_entropy(model)
    if classify and unsure is None:
        raise ModelError(
            "the model classifies nothing", called=called, got=type(model).__name__, fix="jaxgen.bic(model, data)",
            expected="responsibilities, of a mixture, or path_entropy, of a hidden Markov model",
        )  # fmt: skip
    batch = events_of(model, data, called)
    if batch.label is not None:
        raise DataError("a criterion takes no labels", called=called, expected="x, context and weight", got="a label")
    weight = np.ones(batch.events) if batch.weight is None else np.asarray(batch.weight, np.float64)
    counts = weight > 0  # weight 0 silences even an impossible event

    def total(number: Callable[[Any, Any], Any]) -> float:
        return float(np.sum((weight * _per_event(number, batch))[counts]))

    log_likelihood = total(lambda x, context: model.log_prob(x, context=context))
    entropy = total(unsure) if classify and unsure is not None else None
    parameters = latent.free_parameters(model) if parameters is None else parameters
    return Evidence(log_likelihood, observations(model, batch), parameters, entropy)


def observations(model: Any, batch: Batch) -> float:
    """Return n of `bic`: the weighted number of events or, where these have a free length, of the steps seen."""
    free = [axis for axis, length in enumerate(model.event_shape, 1) if length is None]
    packed = isinstance(batch.x, Sequences)
    values = np.asarray(batch.x.x if packed else batch.x)
    seen = np.asarray(batch.x.valid) if packed else np.ones(values.shape[: 1 + len(free)], bool)
    if free and values.dtype.kind == "f":  # a step of which nothing was seen
        seen = seen & ~np.isnan(values).reshape((*seen.shape, -1)).all(axis=-1)
    sizes = seen.reshape(len(seen), -1).sum(axis=1)
    return float(np.sum(sizes if batch.weight is None else sizes * np.asarray(batch.weight, np.float64)))


def posterior_entropy(model: Any) -> Callable[[Any, Any], Any] | None:
    """`(x, context) -> [N]`, the entropy of what the model says of each event's latent classes; None where nothing."""
    if has(model, Sequential):
        return lambda x, context: model.path_entropy(x, context=context)
    if has(model, Classifier):
        return lambda x, context: _entropy(model.responsibilities(x, context=context))
    return None


@jax.jit
def _entropy(shares: jax.Array) -> jax.Array:
    return jnp.sum(jax.scipy.special.entr(shares), axis=-1)


def _per_event(number: Callable[[Any, Any], Any], batch: Batch) -> np.ndarray:
    """`number(x, context)` of every event, `[N]` float64, a chunk of equal size at a time."""
    n = batch.events
    scalars = max(1, math.prod(np.shape(batch.x)[1:]))
    chunks = -(-n // max(1, min(CHUNK_EVENTS, CHUNK_SCALARS // scalars)))
    size = -(-n // chunks)
    values = np.empty(n, np.float64)
    for i in range(chunks):
        start = min(i * size, n - size)  # the last chunk is moved back: one compiled program for all
        part = jax.tree.map(lambda a, s=start: jnp.asarray(a[s : s + size]), (batch.x, batch.context))
        values[start : start + size] = number(*part)
    return values


def entropy(
    key: Any, model: Any, *, samples: int = 10_000, context: Any = None, length: int | None = None
) -> Score:
    """The differential entropy of a density; of discrete events, their entropy.

    `H = -E[log p(x)]`, exact of normal densities and of independent labels, else the mean over draws `x ~ p`

    Args:
        key: typed key; not used where the entropy is closed.
        model: a `Density`.
        samples: draws, two or more; the standard error falls with their square root.
        context: one context, for a conditional density.
        length: of events that have a free one.

    Returns:
        `Score`: nats per event, its standard error, its kind, and the draws as `events`, 0 where it is exact.

    Raises:
        ModelError: a model without an exact likelihood. FitError: fewer than two samples.

    Example:
        >>> import jaxgen as jg
        >>> h = entropy(jax.random.key(0), jg.Exponential.from_values([2.0]))
        >>> abs(h.mean - 1 - math.log(2)) < 4 * h.standard_error, str(h.kind)
        (True, 'estimate')
    """
    called = f"entropy(key, {type(model).__name__})"
    check_key(key, called)
    if not latent.has_density(model):
        raise ModelError(
            "an entropy needs a density", called=called, expected="a model with log_prob and sample",
            got=type(model).__name__,
        )  # fmt: skip
    if isinstance(samples, bool) or not isinstance(samples, (int, np.integer)) or samples < 2:
        raise FitError(
            "a mean and its error need draws", called=called, expected="samples=2 or more", got=f"samples={samples!r}"
        )
    closed = _closed_entropy(model)
    if closed is not None:
        return Score(closed, 0.0, Kind.EXACT, 0)
    options = {k: v for k, v in {"context": context, "length": length}.items() if v is not None}
    scalars = math.prod(length or 1 if s is None else s for s in model.event_shape)
    chunks = -(-samples // max(1, min(CHUNK_EVENTS, CHUNK_SCALARS // max(1, scalars))))
    size = -(-samples // chunks)  # all chunks alike: one compiled program; the last draws may be too many
    values = np.concatenate([
        np.asarray(model.log_prob(model.sample(jax.random.fold_in(key, i), (size,), **options), context=context))
        for i in range(chunks)
    ]).astype(np.float64)[:samples]  # fmt: skip
    return Score(-float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(samples), Kind.ESTIMATE, samples)


def log_volume(spread: np.ndarray) -> float:
    """Return the log-determinant of a covariance `[D, D]`, or of a diagonal one `[D]`, float64."""
    return float(np.sum(np.log(spread)) if spread.ndim == 1 else np.linalg.slogdet(spread)[1])


def _closed_entropy(model: Any) -> float | None:
    """Return the entropy in nats where it is known, float64."""
    if has(model, NormalMoments):
        spread = model.normal_moments()[1]
        return float(0.5 * (len(spread) * (1 + math.log(2 * math.pi)) + log_volume(spread)))
    if has(model, LabelProbabilities):
        logs = np.asarray(model.label_log_probs(), np.float64)
        there = np.exp(logs) > 0
        return -float(np.sum(np.exp(logs) * np.where(there, logs, 0)))
    return None
