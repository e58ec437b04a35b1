"""Checks of a posterior: calibration over simulations, and the data that it predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, FitError
from jaxgen.core.methods import is_count, per_event
from jaxgen.core.pytree import fixed, model, part, static
from jaxgen.metrics.predictive import Coverage, Uniform, expected_coverage, sbc, tarp
from jaxgen.tasks.inference.posteriors import ChainPosterior, NeuralPosterior, check_draws
from jaxgen.tasks.inference.simulations import FEWEST, simulations_of


class Calibrated(NamedTuple):
    """Three looks at a posterior over fresh simulations.

    Args:
        ranks: of each parameter among draws (simulation-based calibration): uniform where the posterior is right.
        coverage: how many parameters lie in regions of highest density of each level.
        balls: the same of balls around random points (TARP), which also finds what is wrong with both alike.
        failed: simulations that were left out.
    """

    ranks: Uniform
    coverage: Coverage
    balls: Coverage
    failed: int

    def __str__(self) -> str:
        lost = f"\n{self.failed} simulations failed and were left out" if self.failed else ""
        rows = zip(self.coverage.levels, self.coverage.shares[:, 0], self.balls.shares[:, 0],
                   self.coverage.standard_errors, strict=True)  # fmt: skip
        lines = [f"{level:.0%}: {region:.3f} in regions of highest density, {ball:.3f} in balls, ± {error:.3f}"
                 for level, region, ball, error in rows]  # fmt: skip
        return "\n".join([f"ranks: {self.ranks}", *lines]) + lost

    def __repr__(self) -> str:
        return str(self)


@model
class _Drawn:
    """Draws that were made before, as a model whose context is an observation and its place."""

    draws: Any = fixed()
    prior: Any = part()
    model: Any = part()
    likelihood: Any = static()
    size: int = static()

    @property
    def event_shape(self):
        return self.draws.shape[-1:]

    @property
    def context_shape(self):
        return (self.size + 1,)

    def sample(self, key, shape=(), *, context=None):
        """The draws of the places `[N, L, P + 1]`, in their order."""
        return self.draws[context[:, 0, -1].astype(jnp.int32), : context.shape[1]]

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats; of chains up to a constant of the observation."""
        if self.likelihood is None:
            return self.model.log_prob(x, context=context[:-1])
        return self.prior.log_prob(x) + self.likelihood(self.model, x, context[:-1])


def calibrate(
    key: Any, posterior: NeuralPosterior | ChainPosterior, given: Any, *, simulations: int = 300, draws: int = 255,
    levels: Any = (0.5, 0.8, 0.9, 0.95),
) -> Calibrated:  # fmt: skip
    """Check a posterior on simulations that it was not learned from: ranks, expected coverage and TARP.

    All are averages over the prior: a posterior that passes is right on average, one that fails is wrong.

    Args:
        key: typed key.
        posterior: of `npe`, `nle` or `nre`, that serves every observation.
        given: a pair `(theta [N, D], x [N, P])` that it was not learned from, or the simulator.
        simulations: of a simulator.
        draws: of the posterior, for each simulation.
        levels: of coverage, above 0 and below 1.

    Raises:
        FitError: a posterior of rounds, which serves one observation; no draws. Else as `npe`, of the pairs.

    Source: Talts et al. (2018), Hermans et al. (2022) and Lemos et al. (2023), see `metrics.sbc`,
    `metrics.expected_coverage` and `metrics.tarp`.

    Example:
        >>> import jaxgen as jg
        >>> simulator = lambda key, theta: theta + 0.5 * jax.random.normal(key, theta.shape)
        >>> prior = jg.DiagonalGaussian.from_values([0.0], [1.0])
        >>> posterior = jg.tasks.npe(jax.random.key(0), prior, simulator, simulations=2000, steps=100)
        >>> found = calibrate(jax.random.key(1), posterior, simulator, simulations=200)
        >>> found.ranks.p_value > 0.01, found.coverage.error < 4
        (True, True)
    """
    called = "tasks.calibrate(key, posterior, given)"
    if posterior.observed is not None or not is_count(draws, 1):
        raise FitError(
            "calibration is over many observations", called=called, expected="a posterior without rounds, draws of 1 "
            "or more", got=f"{'one of rounds' if posterior.observed is not None else 'draws'}, draws={draws!r}",
        )  # fmt: skip
    simulate_key, draw_key, *keys = jax.random.split(key, 5)
    theta, x, failed = simulations_of(simulate_key, posterior.prior, given, simulations, called)
    # the same draws for all three looks
    likelihood = posterior.likelihood if isinstance(posterior, ChainPosterior) else None
    made = posterior.draws_of_each(draw_key, draws, x)
    asked = _Drawn(made, posterior.prior, posterior.model, likelihood, x.shape[1])
    data = theta, jnp.concatenate([x, jnp.arange(len(x), dtype=x.dtype)[:, None]], axis=1)
    return Calibrated(
        sbc(keys[0], asked, data, draws=draws),
        expected_coverage(keys[1], asked, data, draws=draws, levels=levels),
        tarp(keys[2], asked, data, draws=draws, levels=levels),
        failed,
    )


class Predictive(NamedTuple):
    """The simulations of a posterior's draws, beside the observation.

    Args:
        theta: `[N, D]`, draws of the posterior.
        x: `[N, P]`, simulated with them.
        observed: `[P]`.
        p_values: `[P]`, how often a simulation lies as far out as the observation, on its side, twice.
        failed: simulations that were not finite, which are left out.
    """

    theta: np.ndarray
    x: np.ndarray
    observed: np.ndarray
    p_values: np.ndarray
    failed: int

    @property
    def surprising(self) -> np.ndarray:
        """Columns in which the observation is far out: where 5 in 100 observations of the model would have any."""
        return np.flatnonzero(self.p_values < 0.05 / len(self.p_values))

    def __str__(self) -> str:
        where = f"columns {self.surprising.tolist()} of the observation are far out" if self.surprising.size else (
            "the observation is among them in every column")  # fmt: skip
        lost = f", {self.failed} failed" if self.failed else ""
        return f"{len(self.x)} simulations of the posterior{lost}: {where} (least p = {self.p_values.min():.3g})"

    def __repr__(self) -> str:
        return str(self)


def predictive(key: Any, posterior: Any, simulator: Any, x: Any, *, draws: int = 1000) -> Predictive:
    """Simulate with draws of a posterior, and see whether the observation is among what comes out.

    An observation that is far out was made by no parameters that the posterior knows: the simulator is wrong, or the
    posterior.

    Args:
        key: typed key.
        posterior: has `sample(key, n, x)`.
        simulator: `(key, theta [N, D]) -> x [N, P]`.
        x: the observation, `[P]`.
        draws: of the posterior, 20 or more.

    Raises:
        DataError: simulations that nearly all failed. FitError: too few draws.

    Source: Gelman, Meng and Stern (1996), Posterior predictive assessment of model fitness via realized discrepancies.

    Example:
        >>> import jaxgen as jg
        >>> simulator = lambda key, theta: theta + 0.5 * jax.random.normal(key, theta.shape)
        >>> prior = jg.DiagonalGaussian.from_values([0.0], [1.0])
        >>> posterior = jg.tasks.npe(jax.random.key(0), prior, simulator, simulations=2000, steps=100)
        >>> predictive(jax.random.key(1), posterior, simulator, jnp.array([1.0])).surprising.tolist()
        []
    """
    called = "tasks.predictive(key, posterior, simulator, x)"
    check_draws(key, draws)
    sample_key, simulate_key = jax.random.split(key)
    theta = posterior.sample(sample_key, draws, x)
    made = np.asarray(simulator(simulate_key, theta), np.float64)
    observed = np.asarray(x, np.float64)
    good = np.isfinite(made).all(axis=1)
    if good.sum() < FEWEST:
        raise DataError("too few simulations", called=called, expected=f"{FEWEST} or more without NaN",
                        got=f"{good.sum()} of {len(made)}")  # fmt: skip
    made = made[good]
    # the observation counts as one of them, and what is equal on both sides
    below, above = ((1 + side.sum(axis=0)) / (1 + len(made)) for side in (made <= observed, made >= observed))
    p_values = np.minimum(1, 2 * np.minimum(below, above))
    return Predictive(np.asarray(theta)[good], made, observed, p_values, int((~good).sum()))
