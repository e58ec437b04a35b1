"""Neural posterior, likelihood and ratio estimation: what parameters a simulator had, given what it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, FitError
from jaxgen.core.methods import is_count
from jaxgen.tasks.inference.conditional import halves, learned, train
from jaxgen.tasks.inference.posteriors import ChainPosterior, NeuralPosterior
from jaxgen.tasks.inference.ratios import Contrast, LikelihoodRatio
from jaxgen.tasks.inference.simulations import (
    Simulations,
    check_prior,
    constant_columns,
    ends,
    observation,
    simulated,
    simulations_of,
)

#: steps of a training
STEPS = 4000
#: the mass that a truncated prior may leave out, and how many draws of a posterior say where it ends
TRUNCATED, EDGE_DRAWS = 1e-3, 5000
#: prior draws that are looked at together, and how often, for those inside of the truncation
PROPOSED, TRIES = 20_000, 100


def npe(
    key: Any, prior: Any, given: Any, *, simulations: int = 10_000, rounds: int = 1, observed: Any = None,
    steps: int = STEPS, progress: bool | None = False,
) -> NeuralPosterior:  # fmt: skip
    """Learn a posterior from simulations: a flow of parameters whose context is what was simulated.

    The flow maximises `mean_n log q(theta_n | x_n)`, which is the posterior where it is exact, for all observations at
    once. It begins at the normal density of a linear regression; the parameters that did best on a tenth of the pairs,
    which training does not see, are kept. Parameters and data may be in any units: both are standardised by median and
    deciles, far values of data are bent, and the density is that of the given units. Where the prior has ends, as a
    `Uniform` or `Gamma` has, the flow ends in a layer that keeps it between them.

    With rounds, a fresh share of the simulations is made in each, with draws of the prior where the posterior of
    `observed` so far has its mass (truncated sequential NPE), which needs no correction. The result then serves that
    observation alone.

    Args:
        key: typed key.
        prior: a density of parameters `[D]`.
        given: a pair `(theta [N, D], x [N, P])`, theta drawn of the prior; or a simulator `(key, theta [N, D]) -> x [N,
            P]`. A row of x with an entry that is not finite failed: it is left out and counted, which makes the
            posterior that of simulations which do not fail.
        simulations: of a simulator, in all rounds together.
        rounds: 1 or more.
        observed: `[P]`, for rounds.
        steps: of each training, over which the step size falls.
        progress: a bar on standard error.

    Returns:
        `NeuralPosterior`: `sample(key, n, x)`, `log_prob(theta, x)`, `model`, `history`; it prints itself.

    Raises:
        ModelError: a prior that is no density of vectors. ShapeError, DataError: pairs that are none, parameters where
            the prior has no density, simulations that failed. FitError: rounds without a simulator.

    Source: Papamakarios and Murray (2016), Fast epsilon-free inference of simulation models with Bayesian conditional
    density estimation; Deistler, Goncalves and Macke (2022), Truncated proposals for scalable and hassle-free
    simulation-based inference, for rounds.

    Example:
        >>> import jaxgen as jg
        >>> simulator = lambda key, theta: theta + 0.5 * jax.random.normal(key, theta.shape)
        >>> prior = jg.DiagonalGaussian.from_values([0.0, 0.0], [1.0, 1.0])
        >>> posterior = npe(jax.random.key(0), prior, simulator, simulations=2000, steps=100)
        >>> theta = posterior.sample(jax.random.key(1), 2000, jnp.array([1.0, -1.0]))
        >>> theta.shape, bool(jnp.all(jnp.abs(theta.mean(0) - jnp.array([0.8, -0.8])) < 0.1))
        ((2000, 2), True)
    """
    called = "tasks.npe(key, prior, given)"

    def one(key: Any, data: Simulations) -> tuple[Any, Any]:
        return learned(key, data.theta, data.x, *ends(prior), steps=steps, progress=progress)

    return _in_rounds(key, prior, given, simulations, rounds, observed, called, one, NeuralPosterior, _truncated)


def nle(
    key: Any, prior: Any, given: Any, *, simulations: int = 10_000, rounds: int = 1, observed: Any = None,
    steps: int = STEPS, progress: bool | None = False,
) -> ChainPosterior:  # fmt: skip
    """Learn a likelihood from simulations: a flow of data whose context is the parameters. Chains draw the posterior.

    Better than `npe` where data are simpler given parameters than the other way round; a prior may be exchanged
    afterwards. With rounds, each simulates at draws of the posterior of `observed` so far, which needs no correction.

    Args:
        key, prior, given, simulations, rounds, observed, steps, progress: as of `npe`. Data need a density: no column
            of x may be constant.

    Returns:
        `ChainPosterior`: `sample(key, n, x)`, `chains(key, n, x)` with R-hat and effective sizes, and `log_prob(theta,
        x)`, up to a constant of x. It warns of chains that disagree.

    Raises:
        As `npe`; DataError also for a constant column.

    Source: Papamakarios, Sterratt and Murray (2019), Sequential neural likelihood.

    Example:
        >>> import jaxgen as jg
        >>> simulator = lambda key, theta: theta + 0.5 * jax.random.normal(key, theta.shape)
        >>> prior = jg.DiagonalGaussian.from_values([0.0], [1.0])
        >>> posterior = nle(jax.random.key(0), prior, simulator, simulations=1000, steps=100)
        >>> theta = posterior.sample(jax.random.key(1), 1000, jnp.array([1.0]))
        >>> theta.shape, bool(abs(theta.mean() - 0.8) < 0.1)
        ((1000, 1), True)
    """
    called = "tasks.nle(key, prior, given)"

    def one(key: Any, data: Simulations) -> tuple[Any, Any]:
        constant = constant_columns(data.x)
        if constant.size:
            raise DataError(
                "data that are always the same have no density", called=called, expected="columns of x that vary",
                got=f"columns {constant.tolist()} of {data.x.shape[1]} are constant",
                fix="leave them out, also of the observation; npe does not mind them",
            )  # fmt: skip
        free = np.full(data.x.shape[1], np.inf)
        return learned(key, data.x, data.theta, -free, free, steps=steps, progress=progress)

    return _in_rounds(
        key, prior, given, simulations, rounds, observed, called, one, ChainPosterior, _drawn, log_likelihood
    )


def nre(
    key: Any, prior: Any, given: Any, *, simulations: int = 10_000, rounds: int = 1, observed: Any = None,
    steps: int = STEPS, progress: bool | None = False,
) -> ChainPosterior:  # fmt: skip
    """Learn the ratio of likelihood and evidence: a critic that names the right parameters among nine others.

    It needs no density, of data least of all: those may be counts or labels as numbers. Chains draw the posterior.

    Args:
        key, prior, given, simulations, rounds, observed, steps, progress: as of `nle`.

    Returns:
        `ChainPosterior`, as `nle`.

    Raises:
        As `npe`.

    Source: Hermans, Begy and Louppe (2020), Likelihood-free MCMC with amortized approximate ratio estimators; Durkan,
    Murray and Papamakarios (2020), On contrastive learning for likelihood-free inference.

    Example:
        >>> import jaxgen as jg
        >>> simulator = lambda key, theta: theta + 0.5 * jax.random.normal(key, theta.shape)
        >>> prior = jg.DiagonalGaussian.from_values([0.0], [1.0])
        >>> posterior = nre(jax.random.key(0), prior, simulator, simulations=2000, steps=300)
        >>> theta = posterior.sample(jax.random.key(1), 1000, jnp.array([1.0]))
        >>> theta.shape, bool(abs(theta.mean() - 0.8) < 0.15)
        ((1000, 1), True)
    """

    def one(key: Any, data: Simulations) -> tuple[Any, Any]:
        split_key, fit_key = jax.random.split(key)
        start = LikelihoodRatio.starting(data.theta, data.x)
        held, seen = halves(split_key, len(data.x))
        pairs, other = ((data.theta[place], data.x[place]) for place in (seen, held))
        fitted = train(fit_key, start, pairs, other, Contrast(), steps, progress, 1)
        return fitted.model, fitted

    return _in_rounds(
        key, prior, given, simulations, rounds, observed, "tasks.nre(key, prior, given)", one, ChainPosterior, _drawn,
        log_ratio,
    )  # fmt: skip


def log_likelihood(model: Any, theta: Any, x: Any) -> jax.Array:
    """Return `log q(x | theta)` of one pair, nats."""
    return model.log_prob(x, context=theta)


def log_ratio(model: Any, theta: Any, x: Any) -> jax.Array:
    """Return the logarithm of the ratio of one pair, nats, up to a constant of x."""
    return model(theta, x)


def _in_rounds(
    key: Any, prior: Any, given: Any, count: int, rounds: int, observed: Any, called: str, one: Callable[..., Any],
    kind: Any, propose: Callable[..., Any], *likelihood: Any,
) -> Any:  # fmt: skip
    """Simulate and learn, in rounds: each but the first simulates where the posterior so far says."""
    check_prior(key, prior, called)
    if not is_count(rounds, 1) or (rounds > 1 and (not callable(given) or observed is None)):
        raise FitError(
            "rounds simulate for one observation", called=called.replace("given", "simulator, rounds=, observed="),
            expected="rounds of 1 or more; for more than one a simulator, and the observation",
            got=f"rounds={rounds!r}, {'a simulator' if callable(given) else 'pairs'}, observed={observed!r}"[:200],
        )  # fmt: skip
    seconds, found = 0.0, None
    data: Any = None
    for round_key in jax.random.split(key, rounds):
        simulate_key, propose_key, fit_key = jax.random.split(round_key, 3)
        each = count // rounds if callable(given) and is_count(count, rounds) else count
        if found is None:
            data = simulations_of(simulate_key, prior, given, each, called)
            if rounds > 1:
                observed = observation(observed, data.x.shape[1], called)
        else:
            theta = propose(propose_key, found, each, called)
            data = data.joined(simulated(simulate_key, prior, given, theta, called))
        model, fitted = one(fit_key, data)
        seconds += fitted.seconds + fitted.compile_seconds
        found = kind(prior, model, fitted, data, seconds, observed if rounds > 1 else None, *likelihood)
    return found


def _truncated(key: Any, found: NeuralPosterior, n: int, called: str) -> jax.Array:
    """Draws of the prior where the posterior has all but a thousandth of its mass."""
    edge_key, propose_key = jax.random.split(key)
    inside = found.log_prob(found.sample(edge_key, EDGE_DRAWS, found.observed), found.observed)
    edge = jnp.quantile(inside, TRUNCATED)
    kept: list[Any] = []
    for t in range(TRIES):
        theta = found.prior.sample(jax.random.fold_in(propose_key, t), (PROPOSED,))
        kept.append(theta[np.asarray(found.log_prob(theta, found.observed) > edge)])
        if sum(map(len, kept)) >= n:
            return jnp.concatenate(kept)[:n]
    raise FitError(
        "the posterior is too narrow for draws of the prior to fall in it", called=called,
        expected=f"{n} of {TRIES * PROPOSED} draws", got=f"{sum(map(len, kept))}",
        fix="rounds of nle, which draw of the posterior; else fewer rounds",
    )  # fmt: skip


def _drawn(key: Any, found: ChainPosterior, n: int, called: str) -> jax.Array:
    """Draws of the posterior."""
    return found.sample(key, n, found.observed)
