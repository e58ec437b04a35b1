"""Partition functions of energy models by annealed importance sampling, and the likelihoods they give."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.door import check_key
from jaxgen.core.errors import FitError, ModelError
from jaxgen.core.gate import as_array
from jaxgen.core.protocols import Energy, Kind, Score
from jaxgen.ops.stable import logsumexp


class AnnealingPath(Protocol):
    """A path of energy models from a tractable one at 0 to the one of interest at 1; a pytree.

    A model that has an `annealing_path()` can be passed in place of one.
    """

    def at(self, beta: Any) -> Energy:
        """The model at `beta` in [0, 1]."""
        ...

    def sample(self, key: Any, shape: Any = ()) -> jax.Array:
        """Exact and independent draws from `at(0)`, `[*shape, *event]`."""
        ...

    def log_partition(self) -> jax.Array:
        """The exact log of the partition function of `at(0)`, nats."""
        ...


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
        >>> from jaxgen.models.rbm import RBM
        >>> rbm = RBM.from_parameters(jnp.ones(4), jnp.zeros(3), jnp.full((4, 3), 0.5))
        >>> estimate = ais(jax.random.key(0), rbm, chains=200, steps=100)
        >>> bool(abs(estimate.log_z - rbm.log_partition()) < 0.1), str(estimate.kind)
        (True, 'estimate')
    """
    called = "ais(key, path)"
    check_key(key, called)
    if not hasattr(path, "at"):
        if not hasattr(path, "annealing_path"):
            raise ModelError(
                "there is no path to anneal along", called=called, got=type(path).__name__,
                expected="an AnnealingPath (at, sample, log_partition), or a model with annealing_path()",
            )  # fmt: skip
        path = path.annealing_path()
    if chains < 2 or steps < 1:
        raise FitError(
            "annealing needs chains and steps", called=called, expected="chains=2 or more, steps=1 or more",
            got=f"chains={chains}, steps={steps}", fix="ais(key, path, chains=500, steps=1000)",
        )  # fmt: skip
    return _ais(key, path, _ladder(betas, steps), chains)


def _ladder(betas: Any, steps: int) -> jax.Array:
    if betas is None:
        return jnp.linspace(0.0, 1.0, steps + 1)
    betas = as_array(betas, name="betas")
    if not isinstance(betas, jax.core.Tracer):
        host = np.asarray(betas)
        if host.ndim != 1 or host.size < 2 or host[0] != 0 or host[-1] != 1 or (np.diff(host) <= 0).any():
            raise FitError(
                "betas are no ladder", called="ais(key, path, betas=betas)",
                expected="[steps + 1], increasing from exactly 0 to exactly 1",
                got=f"shape {list(host.shape)}, from {host.flat[0]:g} to {host.flat[-1]:g}",
                fix="jnp.linspace(0, 1, 1001), or leave it out",
            )  # fmt: skip
    return jnp.asarray(betas)


@functools.partial(jax.jit, static_argnames="chains")
def _ais(key: Any, path: Any, betas: jax.Array, chains: int) -> PartitionEstimate:
    start, anneal = jax.random.split(key)
    x = path.sample(start, (chains,))

    def step(carry: Any, inputs: Any) -> Any:
        (x, log_weight), (t, before, beta) = carry, inputs
        model = path.at(beta)
        log_weight = log_weight + path.at(before).energy(x) - model.energy(x)
        return (model.kernel(jax.random.fold_in(anneal, t), x), log_weight), None

    energy = jax.eval_shape(lambda: path.at(betas[0]).energy(x))
    ladder = (jnp.arange(betas.size - 1), betas[:-1], betas[1:])
    (_, log_weights), _ = jax.lax.scan(step, (x, jnp.zeros(energy.shape, energy.dtype)), ladder)
    return estimated(log_weights + path.log_partition())


def estimated(log_weights: jax.Array) -> PartitionEstimate:
    """The log of the mean of importance weights `[n]`, with what their spread says of its error."""
    n = jnp.asarray(log_weights.size, log_weights.dtype)
    log_z = logsumexp(log_weights) - jnp.log(n)
    # mean one; all weights zero are no estimate, and their error is NaN
    weight = jnp.exp(log_weights - log_z)
    # the delta method: the variance of log mean w is var(w) / (n mean(w)^2)
    error = jnp.std(weight, ddof=1) / jnp.sqrt(n)
    return PartitionEstimate(log_z, error, jnp.sum(weight) ** 2 / jnp.sum(weight**2), log_weights)


def log_likelihood(model: Any, x: Any, partition: PartitionEstimate | None = None) -> Score:
    """Mean log-likelihood of data under an energy model: `-mean E(x) - log Z`.

    Args:
        model: an `Energy`.
        x: events `[N, *event]`.
        partition: what `ais` returned for this model; None takes the model's own exact `log_partition()`.

    Returns:
        `Score` of kind exact or estimate. With an estimate, its standard error is in the score's, added in squares;
        the score is then too high on average, as `PartitionEstimate` explains.

    Raises:
        ModelError: no estimate is given and the model cannot compute log Z exactly.
        DataError: data that the model refuses.

    Example:
        >>> from jaxgen.models.rbm import RBM
        >>> rbm = RBM.from_parameters(jnp.zeros(3), jnp.zeros(2), jnp.zeros((3, 2)))
        >>> print(log_likelihood(rbm, [[0, 1, 1], [1, 0, 0]]))
        -2.0794 ± 0.0000 nats per event (exact, 2 events)
    """
    called = f"log_likelihood({type(model).__name__}, x, partition)"
    if partition is None and not hasattr(model, "log_partition"):
        raise ModelError(
            "the model has no exact partition function", called=called, expected="an estimate, or log_partition()",
            got="neither", fix="log_likelihood(model, x, ais(key, path))",
        )  # fmt: skip
    if partition is not None and not hasattr(partition, "kind"):
        raise ModelError(
            "the partition function does not say whether it is exact", called=called, got=type(partition).__name__,
            expected="what ais returned, or None for the exact one", fix="log_likelihood(model, x)",
        )  # fmt: skip
    x = as_array(x)
    if hasattr(model, "check_data"):
        model.check_data(x)
    # the sums are the host's, in float64: a mean of many float32 numbers of one sign loses digits
    log_p = -np.asarray(model.energy(x), np.float64).reshape(-1)
    log_z = model.log_partition() if partition is None else partition.log_z
    error = float(np.std(log_p, ddof=1) / np.sqrt(log_p.size)) if log_p.size > 1 else float("nan")
    if partition is not None:
        error = float(np.hypot(error, float(partition.standard_error)))
    kind = Kind.EXACT if partition is None else partition.kind
    return Score(float(log_p.mean() - float(log_z)), error, kind, log_p.size)
