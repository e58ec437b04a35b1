"""Draws of a posterior that is known up to a constant: many Hamiltonian chains, which begin at weighted prior draws."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.bijections import Bounded
from jaxgen.core.errors import JaxgenWarning
from jaxgen.metrics.convergence import effective_size, r_hat
from jaxgen.ops import linalg
from jaxgen.ops.samplers import HMC

#: chains, and prior draws that their starts are chosen from: of one observation, and of each of many
ONE, MANY = (100, 20_000), (16, 4000)
#: the least of draws of each chain, and prior draws that are scored at once
FEWEST, CHUNK = 10, 2000
#: steps of each of two warm-ups, leapfrogs of a step, and steps for a draw
WARM, LEAPFROGS, THIN = 30, 6, 2
#: the acceptance that step sizes are moved to
ACCEPTANCE = 0.8
#: what is warned of
WORST_R_HAT, LEAST_SIZE = 1.1, 100


class Chains(NamedTuple):
    """Draws of Markov chains, and whether to believe them.

    Args:
        draws: `[C, N, D]`, of C chains.
        r_hat: `[D]`, 1 where all chains have the same distribution.
        effective_size: `[D]`, independent draws that all are worth.
        acceptance: of proposals, the mean.
    """

    draws: np.ndarray
    r_hat: np.ndarray
    effective_size: np.ndarray
    acceptance: float

    @property
    def problems(self) -> tuple[str, ...]:
        """The reasons against the draws, a line each; none is good."""
        worst, least = float(np.max(self.r_hat)), float(np.min(self.effective_size))
        return tuple(
            text for wrong, text in (
                (not worst <= WORST_R_HAT, f"chains disagree, R-hat {worst:.2f}"),
                (not least >= LEAST_SIZE, f"draws are worth {least:.0f} independent ones"),
            ) if wrong
        )  # fmt: skip

    def __str__(self) -> str:
        c, n, _ = self.draws.shape
        return (
            f"{c} chains of {n} draws, acceptance {self.acceptance:.2f}, R-hat at most {np.max(self.r_hat):.3f}, "
            f"worth {np.min(self.effective_size):.0f} independent draws or more"
        )

    def __repr__(self) -> str:
        return str(self)


def run_chains(key: Any, likelihood: Any, model: Any, prior: Any, ends: Any, x: Any, draws: int, called: str) -> Chains:
    """Return draws of `p(theta) exp(likelihood(model, theta, x))`, in all at least so many; warns of bad ones.

    Args:
        key: typed key.
        likelihood: `(model, theta [D], x [P]) -> nats`, up to a constant of theta; a module-level function.
        model: a pytree.
        prior: a density of `[D]`. ends: of its support, `[D]` both, numpy.
        x: `[P]`.
        draws: 1 or more.
    """
    kept = max(FEWEST, math.ceil(draws / ONE[0]))
    theta, acceptance = _run(key, likelihood, model, prior, _real_to(ends), x, kept, *ONE)
    theta = np.asarray(theta)
    found = Chains(theta, r_hat(theta), effective_size(theta), float(acceptance))
    if found.problems:
        warnings.warn(f"{called}: {', '.join(found.problems)}", JaxgenWarning, stacklevel=3)
    return found


def many_draws(
    key: Any, likelihood: Any, model: Any, prior: Any, ends: Any, x: Any, draws: int, together: int = 8
) -> jax.Array:  # fmt: skip
    """Return draws `[N, L, D]` for each of many observations `[N, P]`, all in one program, without a look at each."""
    kept = max(FEWEST, math.ceil(draws / MANY[0]))
    one = lambda given: _run(given[0], likelihood, model, prior, _real_to(ends), given[1], kept, *MANY)[0]  # noqa: E731
    theta = jax.lax.map(one, (jax.random.split(key, len(x)), x), batch_size=min(together, len(x)))
    # the last draws of all chains, so that as few as there are come from as many chains
    return jnp.swapaxes(theta, 1, 2).reshape(len(x), -1, theta.shape[-1])[:, -draws:]


def _real_to(ends: Any) -> Bounded | None:
    low, high = ends
    return Bounded.from_values(low, high) if np.isfinite(low).any() or np.isfinite(high).any() else None


@functools.partial(jax.jit, static_argnames=("likelihood", "kept", "chains", "pool_size"))
def _run(
    key: Any, likelihood: Any, model: Any, prior: Any, bounds: Any, x: Any, kept: int, chains: int, pool_size: int
) -> Any:  # fmt: skip
    pool_key, pick, warm_key, chain_key = jax.random.split(key, 4)

    def to_real(theta: Any) -> Any:
        return theta if bounds is None else bounds.inverse_and_log_det(theta)[0]

    def from_real(z: Any) -> Any:
        return (z, 0.0) if bounds is None else bounds.forward_and_log_det(z)

    def target(z: Any) -> Any:
        theta, log_det = from_real(z)
        return prior.log_prob(theta) + likelihood(model, theta, x) + log_det

    pool = prior.sample(pool_key, (pool_size,))
    score = jax.lax.map(lambda theta: likelihood(model, theta, x), pool, batch_size=CHUNK)
    # one place in each of as many equal shares of the weight: systematic resampling
    place = (jnp.arange(chains) + jax.random.uniform(pick, (chains,))) / chains
    weights = jnp.cumsum(jax.nn.softmax(jnp.where(jnp.isnan(score), -jnp.inf, score)))
    index = jnp.minimum(jnp.searchsorted(weights / weights[-1], place), pool_size - 1)
    real = jax.vmap(to_real)(pool)
    z, wide = real[index], jnp.var(real, axis=0)

    def moved(key: Any, z: Any, root: Any, log_size: Any) -> Any:
        """All chains by one step, in coordinates of about unit scale: `z = root u`."""
        # sizes drawn at random, since a trajectory of one length may come back to where it began
        spread, steps = jax.random.split(key)
        size: Any = jnp.exp(log_size + jax.random.uniform(spread, (), z.dtype, -0.5, 0.25))
        sampler = HMC(size, LEAPFROGS)

        def one(key: Any, z: Any) -> Any:
            density = lambda u: target(z + root @ u)  # noqa: E731
            state, info = sampler.step(key, density, sampler.init(density, jnp.zeros_like(z)))
            return z + root @ state.x, info.acceptance

        z, acceptance = jax.vmap(one)(jax.random.split(steps, chains), z)
        return z, jnp.mean(acceptance)

    def warmed(carry: Any, key: Any) -> Any:
        z, log_size = carry
        # chains that all begin at few draws have a narrow spread: a share of the prior's keeps it from nothing
        centered = z - jnp.mean(z, axis=0)
        spread = jnp.matmul(centered.T, centered, precision=jax.lax.Precision.HIGHEST) / chains
        root = linalg.cholesky(spread + 1e-5 * jnp.diag(wide))

        def step(carry: Any, t: Any) -> Any:
            z, log_size = carry
            z, acceptance = moved(jax.random.fold_in(key, t), z, root, log_size)
            return (z, log_size + (acceptance - ACCEPTANCE) / jnp.sqrt(1 + t / 4)), None

        carry, _ = jax.lax.scan(step, (z, log_size), jnp.arange(WARM))
        return carry, root

    size = jnp.full((), math.log(0.3), z.dtype)
    (z, log_size), roots = jax.lax.scan(warmed, (z, size), jax.random.split(warm_key, 2))

    def draw(z: Any, key: Any) -> Any:
        def step(z: Any, key: Any) -> Any:
            return moved(key, z, roots[-1], log_size)

        z, acceptance = jax.lax.scan(step, z, jax.random.split(key, THIN))
        return z, (jax.vmap(lambda z: from_real(z)[0])(z), jnp.mean(acceptance))

    _, (theta, acceptance) = jax.lax.scan(draw, z, jax.random.split(chain_key, kept))
    return jnp.swapaxes(theta, 0, 1), jnp.mean(acceptance)
