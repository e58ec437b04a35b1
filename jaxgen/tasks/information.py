"""Divergences between models, and what columns of one say of each other, with standard errors.

Of normal densities and of independent labels they are exact (`NormalMoments`, `LabelProbabilities`); of all other
densities they are means over draws. The entropy of one density is `jaxgen.entropy`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import latent
from jaxgen.core.errors import FitError, ModelError, ShapeError
from jaxgen.core.methods import check_key, is_count
from jaxgen.core.protocols import Kind, LabelProbabilities, NormalMoments, has
from jaxgen.core.scores import Score
from jaxgen.metrics.information import log_volume
from jaxgen.tasks.attribution import knows_marginals

#: draws at once
CHUNK = 4096


def kl(key: Any, p: Any, q: Any, *, samples: int = 10_000) -> Score:
    """Return the Kullback-Leibler divergence between any two densities.

    `KL(p || q) = E_p[log p(x) - log q(x)]`

    Args:
        key: typed key; not used where the divergence is closed.
        p: a density that can be sampled.
        q: a density of the same events; where it is 0 and p is not, the divergence is infinite.
        samples: draws of p, 2 or more.

    Returns:
        `Score`: nats, standard error and kind; exact between normal densities, and between independent labels.

    Raises:
        ModelError: models without an exact density. ShapeError: of different events.

    Example:
        >>> import jaxgen as jg
        >>> wide = jg.DiagonalGaussian.from_values(jnp.zeros(2), jnp.full(2, 2.0))
        >>> round(kl(jax.random.key(0), jg.StandardNormal((2,)), wide).mean, 4)  # log 4 + 1 / 4 - 1
        0.6363
    """
    called = "kl(key, p, q)"
    _check(key, samples, called, p, q)
    closed = _closed_kl(p, q)
    return _exact(closed) if closed is not None else _mean(_ratio(key, p, lambda x: p.log_prob(x) - q.log_prob(x),
                                                                  samples))  # fmt: skip


def jensen_shannon(key: Any, p: Any, q: Any, *, samples: int = 10_000) -> Score:
    """Return the Jensen-Shannon divergence between any two densities, from 0 to log 2.

    `JS(p, q) = (KL(p || m) + KL(q || m)) / 2`, `m = (p + q) / 2`

    Args, Returns, Raises: as of `kl`, with as many draws of each.

    Source: Lin (1991), Divergence measures based on the Shannon entropy.

    Example:
        >>> import jaxgen as jg
        >>> far = jg.DiagonalGaussian.from_values(jnp.full(2, 50.0), jnp.ones(2))
        >>> round(jensen_shannon(jax.random.key(0), jg.StandardNormal((2,)), far, samples=100).mean, 4)
        0.6931
    """
    called = "jensen_shannon(key, p, q)"
    _check(key, samples, called, p, q)

    def half(key: Any, one: Any, other: Any) -> np.ndarray:
        # log p - log m = log 2 - log(1 + q / p)
        return _ratio(key, one, lambda x: math.log(2) - jax.nn.softplus(other.log_prob(x) - one.log_prob(x)), samples)

    first, second = (_mean(half(k, *pair)) for k, pair in zip(jax.random.split(key), ((p, q), (q, p)), strict=True))
    error = math.hypot(first.standard_error, second.standard_error) / 2
    return Score((first.mean + second.mean) / 2, error, Kind.ESTIMATE, 2 * samples)


def shared_information(key: Any, model: Any, first: Sequence[int], second: Sequence[int] | None = None, *,
                       samples: int = 10_000) -> Score:  # fmt: skip
    """Return the mutual information of two blocks of a density's columns.

    `I(a; b) = E[log p(x_a, x_b) - log p(x_a) - log p(x_b)]`

    (`metrics.mutual_information` is that of two tables.)

    Args:
        key: typed key; not used where it is closed.
        model: a density of vectors that knows its marginals: Gaussians, independent columns, mixtures of them; or that
            takes entries that were not seen.
        first, second: different columns; None is all that are not in the first block.
        samples: draws, 2 or more.

    Returns:
        `Score`, as of `kl`; exact of normal densities.

    Raises:
        ModelError: a model that knows no marginals, or blocks that overlap.

    Example:
        >>> import jaxgen as jg
        >>> pair = jg.Gaussian.from_values(jnp.zeros(2), jnp.array([[1.0, 0.6], [0.6, 1.0]]))
        >>> round(shared_information(jax.random.key(0), pair, [0], [1]).mean, 4)  # -log(1 - .36) / 2
        0.2231
    """
    called = f"shared_information(key, {type(model).__name__}, first, second)"
    size = _columns(key, model, samples, called)
    first = _block(first, size, called)
    rest = [d for d in range(size) if d not in first]
    second = rest if second is None else _block(second, size, called)
    if set(first) & set(second) or not second:
        raise ModelError("two blocks share no column", called=called, expected="different columns in both",
                         got=f"{first} and {second}")  # fmt: skip
    return _dependence(key, model, [first, second], samples)


def multi_information(key: Any, model: Any, *, samples: int = 10_000) -> Score:
    """Return the total correlation of a density's columns: how far it is from independent ones.

    `E[log p(x) - sum_d log p(x_d)]`, which is 0 where the columns are independent.

    (`metrics.total_correlation` is that of a table, `losses.total_correlation` a loss.)

    Args, Returns, Raises: as of `shared_information`.

    Source: Watanabe (1960), Information theoretical analysis of multivariate correlation.

    Example:
        >>> import jaxgen as jg
        >>> pair = jg.Gaussian.from_values(jnp.zeros(2), jnp.array([[1.0, 0.6], [0.6, 1.0]]))
        >>> round(multi_information(jax.random.key(0), pair).mean, 4)
        0.2231
    """
    size = _columns(key, model, samples, f"multi_information(key, {type(model).__name__})")
    return _dependence(key, model, [[d] for d in range(size)], samples)


def _dependence(key: Any, model: Any, blocks: list[list[int]], samples: int) -> Score:
    """Return how much the blocks say of each other, together."""
    if has(model, NormalMoments):
        spread = model.normal_moments()[1]
        if spread.ndim == 1:
            return _exact(0.0)
        volume = lambda block: 0.5 * log_volume(spread[np.ix_(block, block)])  # noqa: E731
        return _exact(float(sum(map(volume, blocks)) - volume(sum(blocks, []))))
    if has(model, LabelProbabilities):
        return _exact(0.0)

    def number(x: jax.Array) -> jax.Array:
        return _marginal(model, sum(blocks, []), x) - sum(_marginal(model, block, x) for block in blocks)

    return _mean(_ratio(key, model, number, samples))


def _marginal(model: Any, block: list[int], x: jax.Array) -> jax.Array:
    """`log p(x_block)` of events `[N, D]`."""
    if len(block) == x.shape[1]:
        return model.log_prob(x)
    if latent.accepts_missing(model):
        kept = np.isin(np.arange(x.shape[1]), block)
        return model.log_prob(jnp.where(kept, x.astype(jnp.result_type(float)), jnp.nan))
    return model.marginal(tuple(block)).log_prob(x[:, np.asarray(block)])


def _closed_kl(p: Any, q: Any) -> float | None:
    """`KL(p || q)` where it is known, float64."""
    if has(p, NormalMoments) and has(q, NormalMoments):
        (m, s), (n, t) = p.normal_moments(), q.normal_moments()
        away, volumes = n - m, log_volume(t) - log_volume(s)
        if s.ndim == t.ndim == 1:
            return float(0.5 * (np.sum((s + away**2) / t - 1) + volumes))
        s, inverse = np.diag(s) if s.ndim == 1 else s, np.linalg.inv(np.diag(t) if t.ndim == 1 else t)
        return float(0.5 * (np.sum(inverse * s) + away @ inverse @ away - len(m) + volumes))
    if has(p, LabelProbabilities) and has(q, LabelProbabilities):
        a, b = (np.asarray(one.label_log_probs(), np.float64) for one in (p, q))
        if a.shape == b.shape:
            there = np.exp(a) > 0
            return float(np.sum(np.where(there, np.exp(a) * (np.where(there, a, 0) - np.where(there, b, 0)), 0)))
    return None


def _ratio(key: Any, model: Any, number: Callable[[jax.Array], jax.Array], samples: int) -> np.ndarray:
    """A number of each of so many draws, `[samples]` float64."""
    size = min(CHUNK, samples)
    chunks = range(-(-samples // size))
    values = [np.asarray(number(model.sample(jax.random.fold_in(key, i), (size,)))) for i in chunks]
    return np.concatenate(values).astype(np.float64)[:samples]


def _mean(values: np.ndarray) -> Score:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if np.isfinite(values).all() else math.nan
    return Score(float(np.mean(values)), error, Kind.ESTIMATE, len(values))


def _exact(value: float) -> Score:
    return Score(value, 0.0, Kind.EXACT, 0)


def _check(key: Any, samples: int, called: str, *models: Any) -> None:
    check_key(key, called)
    if not is_count(samples, 2):
        raise FitError("a mean and its error need draws", called=called, expected="samples >= 2", got=repr(samples))
    for model in models:
        if latent.likelihood_kind(model) is not Kind.EXACT or not latent.has_density(model):
            raise ModelError("information is that of densities", called=called, expected="models of an exact log_prob",
                             got=type(model).__name__)  # fmt: skip
    shapes = {tuple(model.event_shape) for model in models}
    if len(shapes) > 1:
        raise ShapeError("the models are of different events", called=called, expected="one event_shape",
                         got=" and ".join(sorted(map(str, shapes))))  # fmt: skip


def _columns(key: Any, model: Any, samples: int, called: str) -> int:
    """Return the number of columns of a density that can be asked about some of them."""
    _check(key, samples, called, model)
    shape = tuple(model.event_shape)
    if len(shape) != 1 or shape[0] is None:
        raise ModelError("columns are those of vectors", called=called, expected="events [D]", got=f"{shape}")
    if not (knows_marginals(model) or latent.accepts_missing(model) or has(model, NormalMoments)):
        raise ModelError(
            "the model does not know its marginals", called=called, got=type(model).__name__,
            expected="one with marginal(indices), or with missing=True", fix=latent.unseen(model),
        )  # fmt: skip
    return int(shape[0])


def _block(columns: Any, size: int, called: str) -> list[int]:
    block = [int(d) for d in np.asarray(columns, int).reshape(-1)]
    if not block or len(set(block)) < len(block) or not all(0 <= d < size for d in block):
        raise ModelError("these are no columns", called=called, expected=f"different numbers from 0 to {size - 1}",
                         got=repr(columns)[:80])  # fmt: skip
    return block
