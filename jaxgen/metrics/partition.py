"""Partition functions of energy models by annealing, forward and backward, and the likelihoods they give."""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.annealing import as_path, ladder
from jaxgen.core.errors import FitError, JaxgenWarning, ModelError
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.methods import check_key
from jaxgen.core.protocols import Checked, Kind, Kinded, Reversible, Tractable, has
from jaxgen.core.scores import Score
from jaxgen.ops.stable import logsumexp, softmax


class PartitionEstimate(NamedTuple):
    """An estimated partition function; arrays only, so that `jax.vmap` over keys gives many.

    Args:
        log_z: nats. The estimate of Z is unbiased, hence that of log Z is low on average, and a log-likelihood that
            uses it is too high.
        standard_error: of `log_z`, nats, from the spread of the weights; it cannot know of a mode that no chain met.
        ess: effective sample size, `(sum w)^2 / sum w^2`, from 1 to the number of chains. Below a tenth of the chains
            neither number above deserves trust: take more temperatures.
        log_weights: log importance weights `[chains]`; `log_z` is the log of their mean.
    """

    log_z: jax.Array
    standard_error: jax.Array
    ess: jax.Array
    log_weights: jax.Array

    @property
    def kind(self) -> Kind:
        return Kind.ESTIMATE


class Bracketed(Protocol):
    """An estimate of log Z with the bounds that it lies between, nats."""

    low: Any
    high: Any


def ais(
    key: Any, path: Any, *, chains: int = 500, steps: int = 1000, betas: Any = None
) -> PartitionEstimate:
    """Annealed importance sampling of `log Z`.

    `Z / Z_0 = E[exp sum_t (E_{t-1}(x_{t-1}) - E_t(x_{t-1}))]`, where `x_0 ~ p_0` and `x_t` is one step of the kernel
    of `p_t` from `x_{t-1}`.

    Args:
        key: typed key.
        path: an `AnnealingPath`, or a model with an `annealing_path()`.
        chains: independent chains, all advanced together.
        steps: number of temperatures above 0, evenly spaced; cost is `chains * steps` kernel steps.
        betas: increasing `[steps + 1]` from 0 to 1 in place of the even ones; `steps` is then not used.

    Returns:
        `PartitionEstimate`.

    Raises:
        ModelError: the model has no annealing path.
        FitError: fewer than two chains or one step; betas that do not rise from 0 to 1.

    Source: Neal (2001), Annealed importance sampling; Salakhutdinov & Murray (2008) for Boltzmann machines.

    Example:
        >>> from jaxgen.models.energy.rbm import RBM
        >>> rbm = RBM.from_values(jnp.ones(4), jnp.zeros(3), jnp.full((4, 3), 0.5))
        >>> estimate = ais(jax.random.key(0), rbm, chains=200, steps=100)
        >>> bool(abs(estimate.log_z - rbm.log_partition()) < 0.1), str(estimate.kind)
        (True, 'estimate')
    """
    return _told(annealed(key, path, chains, steps, betas, 0.0, "ais(key, path)")[0], "ais(key, path)")


def smc(
    key: Any, path: Any, *, chains: int = 500, steps: int = 1000, betas: Any = None, resample: float = 0.5
) -> PartitionEstimate:
    """`log Z` by a sequential Monte Carlo sampler: `ais` whose chains are drawn anew where their weights part.

    Where the effective sample size falls below `resample * chains`, chains are drawn in proportion to their weights,
    which begin again at one: what is lost is not carried along. `Z` stays unbiased.

    Args:
        key: typed key.
        path: an `AnnealingPath`, or a model with an `annealing_path()`.
        chains: chains, all advanced together.
        steps: number of temperatures above 0, evenly spaced.
        betas: increasing `[steps + 1]` from 0 to 1 in place of the even ones.
        resample: share of the chains, from 0 (never, which is `ais`) to 1 (at every step).

    Returns:
        `PartitionEstimate`. The standard error knows which chains have one ancestor, and `ess` counts ancestors: where
        few are left neither deserves trust, and more chains help.

    Raises:
        ModelError: the model has no annealing path.
        FitError: fewer than two chains or one step; betas that do not rise from 0 to 1; a share outside [0, 1].

    Source: Del Moral, Doucet and Jasra (2006), Sequential Monte Carlo samplers; Lee and Whiteley (2018), Variance
    estimation in the particle filter, for the error from ancestors.

    Example:
        >>> from jaxgen.models.energy.rbm import RBM
        >>> rbm = RBM.from_values(jnp.ones(4), jnp.zeros(3), jnp.full((4, 3), 0.5))
        >>> estimate = smc(jax.random.key(0), rbm, chains=200, steps=30)
        >>> bool(abs(estimate.log_z - rbm.log_partition()) < 0.1)
        True
    """
    called = "smc(key, path)"
    if not 0 <= resample <= 1:
        raise FitError("resample is a share", called=called, expected="from 0 to 1", got=str(resample))
    return _told(annealed(key, path, chains, steps, betas, float(resample), called)[0], called)


def _told(found: PartitionEstimate, called: str) -> PartitionEstimate:
    """The same, with a warning where it is no number."""
    if concrete(found) and not np.isfinite(found.log_z):
        lost = int(np.sum(~np.isfinite(found.log_weights)))
        warnings.warn(
            f"{called}: log Z is {found.log_z}: of {lost} of {found.log_weights.size} chains the energy was not finite "
            "on the way", JaxgenWarning, stacklevel=3,
        )  # fmt: skip
    return found


def annealed(
    key: Any, path: Any, chains: int, steps: int, betas: Any, resample: float, called: str
) -> tuple[PartitionEstimate, jax.Array]:
    """Return the estimate of `ais` or `smc`, and the chains at the end of the path, to be weighed by `log_weights`."""
    check_key(key, called)
    path = as_path(path, called)
    if chains < 2 or steps < 1:
        raise FitError(
            "annealing needs chains and steps", called=called, expected="chains=2 or more, steps=1 or more",
            got=f"chains={chains}, steps={steps}", fix="jaxgen.metrics.ais(key, path, chains=500, steps=1000)",
        )  # fmt: skip
    return _annealed(key, path, ladder(betas, steps, called), chains, resample)


class _Chains(NamedTuple):
    x: jax.Array
    log_weight: jax.Array  # since they were drawn anew
    log_z: jax.Array  # what was taken out of the weights at each drawing
    ancestor: jax.Array
    drawings: jax.Array
    variance: jax.Array  # of the log of each mean that was taken out, summed


@functools.partial(jax.jit, static_argnames=("chains", "resample"))
def _annealed(
    key: Any, path: Any, betas: jax.Array, chains: int, resample: float
) -> tuple[PartitionEstimate, jax.Array]:
    start, anneal, draws = jax.random.split(key, 3)
    x = path.sample(start, (chains,))

    def draw_anew(key: Any, c: _Chains) -> _Chains:
        # multinomial: the variance from ancestors is that of independent draws
        chosen = jax.random.choice(key, chains, (chains,), p=softmax(c.log_weight))
        fresh = c.log_z + logsumexp(c.log_weight) - jnp.log(chains).astype(c.log_z.dtype)
        variance = c.variance + _relative_variance(c.log_weight)
        return _Chains(c.x[chosen], jnp.zeros_like(c.log_weight), fresh, c.ancestor[chosen], c.drawings + 1, variance)

    def step(c: _Chains, inputs: Any) -> tuple[_Chains, None]:
        t, before, beta = inputs
        model = path.at(beta)
        c = c._replace(log_weight=c.log_weight + path.at(before).energy(c.x) - model.energy(c.x))
        if resample > 0:
            few = 1 / jnp.sum(softmax(c.log_weight) ** 2) < resample * chains
            c = jax.lax.cond(few, draw_anew, lambda _, c: c, jax.random.fold_in(draws, t), c)
        return c._replace(x=model.kernel(jax.random.fold_in(anneal, t), c.x)), None

    energy = jax.eval_shape(lambda: path.at(betas[0]).energy(x))
    none, zero = jnp.zeros((), jnp.int32), jnp.zeros((), energy.dtype)
    begin = _Chains(x, jnp.zeros(energy.shape, energy.dtype), zero, jnp.arange(chains), none, zero)
    rungs = (jnp.arange(betas.size - 1), betas[:-1], betas[1:])
    end, _ = jax.lax.scan(step, begin, rungs)
    log_weights = end.log_weight + end.log_z + path.log_partition()
    found = estimated(log_weights)
    return (found if resample == 0 else _with_ancestors(found, end)), end.x


def reverse_ais(key: Any, path: Any, x: Any, *, steps: int = 1000, betas: Any = None) -> PartitionEstimate:
    """`log Z` by annealing from samples of the model to the tractable end: the companion of `ais` from above.

    `Z_0 / Z = E[exp -sum_t (E_{t-1}(x_{t-1}) - E_t(x_{t-1}))]`, where `x_T ~ p_T` and `x_{t-1}` is one step of the
    reversed kernel of `p_t` from `x_t`. `1 / Z` is unbiased, hence `log_z` is high on average, where that of `ais` is
    low.

    That holds for samples of the model itself. Data are such samples only as far as the model is right about them; long
    chains of the model's kernel started at data err less, and on the side that the data are on.

    Args:
        key: typed key.
        path: an `AnnealingPath`, or a model with an `annealing_path()`. For `bar` its kernels are reversible, as block
            Gibbs sampling of two sides is, or its models have a `reverse_kernel(key, x)`, which is then used here.
        x: events `[chains, *event]`, samples of `at(1)`, two or more.
        steps: number of temperatures, evenly spaced.
        betas: increasing `[steps + 1]` from 0 to 1 in place of the even ones; gone through backwards.

    Returns:
        `PartitionEstimate`, `log_weights` those of `ais` along the path in its forward direction: `log_z` is minus the
        log of the mean of `exp(-log_weights)`.

    Raises:
        ModelError: the model has no annealing path.
        FitError: fewer than two events or one step; betas that do not rise from 0 to 1.

    Source: Burda, Grosse and Salakhutdinov (2015), Accurate and conservative estimates of MRF log-likelihood using
    reverse annealing; Grosse, Ghahramani and Adams (2015), Sandwiching the marginal likelihood using bidirectional
    Monte Carlo.

    Example:
        >>> from jaxgen.models.energy.rbm import RBM
        >>> rbm = RBM.from_values(jnp.ones(4), jnp.zeros(3), jnp.full((4, 3), 0.5))
        >>> x = rbm.sample(jax.random.key(0), (200,), sweeps=30)
        >>> estimate = reverse_ais(jax.random.key(1), rbm, x, steps=100)
        >>> bool(abs(estimate.log_z - rbm.log_partition()) < 0.1)
        True
    """
    called = "reverse_ais(key, path, x)"
    check_key(key, called)
    path = as_path(path, called)
    x = jnp.asarray(as_array(x, name="x", called=called))
    rungs = ladder(betas, steps, called)
    if x.ndim < 1 or len(x) < 2:
        raise FitError(
            "reverse annealing needs samples of the model", called=called, expected="[chains, *event], 2 or more",
            got=f"shape {list(x.shape)}", fix="x = model.sample(key, (500,))",
        )  # fmt: skip
    return _told(_reversed(key, path, rungs, x), called)


@jax.jit
def _reversed(key: Any, path: Any, betas: jax.Array, x: jax.Array) -> PartitionEstimate:
    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        (x, log_weight), (t, before, beta) = carry, inputs
        model = path.at(beta)
        x = (model.reverse_kernel if has(model, Reversible) else model.kernel)(jax.random.fold_in(key, t), x)
        return (x, log_weight + path.at(before).energy(x) - model.energy(x)), None

    # in the dtype of the tractable end's samples: data may come as bools
    x = x.astype(jax.eval_shape(lambda: path.sample(key, ())).dtype)
    energy = jax.eval_shape(lambda: path.at(betas[0]).energy(x))
    rungs = (jnp.arange(betas.size - 1), betas[:-1], betas[1:])
    begin = (x, jnp.zeros(energy.shape, energy.dtype))
    (_, log_weights), _ = jax.lax.scan(step, begin, rungs, reverse=True)
    log_weights = log_weights + path.log_partition()
    found = estimated(-log_weights)
    return found._replace(log_z=-found.log_z, log_weights=log_weights)


def estimated(log_weights: jax.Array) -> PartitionEstimate:
    """The log of the mean of importance weights `[n]`, with what their spread says of its error."""
    n = jnp.asarray(log_weights.size, log_weights.dtype)
    log_z = logsumexp(log_weights) - jnp.log(n)
    # mean one; all weights zero are no estimate, and their error is NaN
    weight = jnp.exp(log_weights - log_z)
    # the delta method: the variance of log mean w is var(w) / (n mean(w)^2)
    error = jnp.std(weight, ddof=1) / jnp.sqrt(n)
    return PartitionEstimate(log_z, error, jnp.sum(weight) ** 2 / jnp.sum(weight**2), log_weights)


def _relative_variance(log_weights: jax.Array) -> jax.Array:
    """The estimated variance of the mean of weights `[n]` over its square."""
    return (jnp.sum(softmax(log_weights) ** 2) - 1 / log_weights.size) * (log_weights.size / (log_weights.size - 1))


def _with_ancestors(found: PartitionEstimate, chains: _Chains) -> PartitionEstimate:
    """The error and effective sample size of weights whose chains were drawn anew d times.

    `1 - (n / (n - 1))^(d + 1) (1 - sum_a W_a^2)`, W_a the share of the weight on chains of ancestor a, is an unbiased
    estimate of the relative variance of Z, and that of `estimated` for d = 0.
    """
    n = found.log_weights.size
    share = jnp.zeros_like(found.log_weights).at[chains.ancestor].add(softmax(found.log_weights))
    together = jnp.sum(share**2)
    variance = 1 - (n / (n - 1)) ** (chains.drawings + 1).astype(share.dtype) * (1 - together)
    # unbiased, so that it may be small or negative by chance: no less than if chains forgot their ancestors at once
    error = jnp.sqrt(jnp.maximum(variance, chains.variance + _relative_variance(chains.log_weight)))
    return found._replace(standard_error=error, ess=1 / together)


def log_likelihood(model: Any, x: Any, partition: Any = None) -> Score:
    """Mean log-likelihood of data under an energy model: `-mean E(x) - log Z`.

    Args:
        model: an `Energy`.
        x: events `[N, *event]`.
        partition: what `ais`, `smc` or `bracket` returned for this model; None takes the model's own exact
            `log_partition()`.

    Returns:
        `Score` of kind exact or estimate. With an estimate, its standard error is in the score's, added in squares;
        that of `ais` alone is too high on average, as `PartitionEstimate` explains. With a `bracket` the score has its
        own `low` and `high`: between which the mean over these events is, as far as log Z decides it.

    Raises:
        ModelError: no estimate is given and the model cannot compute log Z exactly.
        DataError: data that the model refuses.

    Example:
        >>> from jaxgen.models.energy.rbm import RBM
        >>> rbm = RBM.from_values(jnp.zeros(3), jnp.zeros(2), jnp.zeros((3, 2)))
        >>> print(log_likelihood(rbm, [[0, 1, 1], [1, 0, 0]]))
        -2.0794 ± 0.0000 nats per event (exact, 2 events)
    """
    called = f"log_likelihood({type(model).__name__}, x, partition)"
    if partition is None and not has(model, Tractable):
        raise ModelError(
            "the model has no exact partition function", called=called, expected="an estimate, or log_partition()",
            got="neither", fix="jaxgen.metrics.log_likelihood(model, x, jaxgen.metrics.bracket(key, model))",
        )  # fmt: skip
    if partition is not None and not has(partition, Kinded):
        raise ModelError(
            "the partition function does not say whether it is exact", called=called, got=type(partition).__name__,
            expected="what ais returned, or None for the exact one",
            fix="jaxgen.metrics.log_likelihood(model, x, jaxgen.metrics.ais(key, model))",
        )  # fmt: skip
    x = as_array(x)
    if has(model, Checked):
        model.check_data(x)
    # the sums are the host's, in float64: a mean of many float32 numbers of one sign loses digits
    log_p = -np.asarray(model.energy(x), np.float64).reshape(-1)
    log_z = model.log_partition() if partition is None else partition.log_z
    error = float(np.std(log_p, ddof=1) / np.sqrt(log_p.size)) if log_p.size > 1 else float("nan")
    if partition is not None:
        error = float(np.hypot(error, float(partition.standard_error)))
    kind = Kind.EXACT if partition is None else partition.kind
    mean = float(log_p.mean())
    # a high log Z is a low likelihood
    low = high = None
    if has(partition, Bracketed):
        low, high = (mean - float(end) for end in (partition.high, partition.low))
    return Score(mean - float(log_z), error, kind, log_p.size, low, high)


def energy_gap(model: Any, train: Any, held_out: Any) -> Score:
    """Return the generalisation gap of an energy model, `mean E(held out) - mean E(train)`, nats.

    The partition function cancels: it is the exact difference of the two mean log-likelihoods, and where it grows
    while training goes on the model learns its data by heart.

    Args:
        model: an `Energy`.
        train: events `[N, *event]`; as many as are held out are enough.
        held_out: events `[M, *event]`.

    Returns:
        `Score` of kind exact, over the M events held out; above zero is worse on these.

    Raises:
        DataError: data that the model refuses.

    Source: Hinton (2012), A practical guide to training restricted Boltzmann machines, section 6.

    Example:
        >>> from jaxgen.models.energy.rbm import RBM
        >>> rbm = RBM.from_values(jnp.array([2.0, -2.0]), jnp.zeros(1), jnp.zeros((2, 1)))
        >>> round(energy_gap(rbm, [[1, 0], [1, 0]], [[1, 0], [0, 1]]).mean, 4)
        2.0
    """
    energies = []
    for x in (train, held_out):
        x = as_array(x)
        if has(model, Checked):
            model.check_data(x)
        energies.append(np.asarray(model.energy(x), np.float64).reshape(-1))
    seen, other = energies
    error = float(np.sqrt(sum(np.var(e, ddof=1) / e.size if e.size > 1 else np.nan for e in energies)))
    return Score(float(other.mean() - seen.mean()), error, Kind.EXACT, other.size)
