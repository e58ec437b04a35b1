"""The values that inference gives: a posterior that is learned itself, and one that chains draw from."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import FitError
from jaxgen.core.methods import check_key, is_count
from jaxgen.fit.fitted import Fitted
from jaxgen.tasks.inference.chains import Chains, many_draws, run_chains
from jaxgen.tasks.inference.simulations import Simulations, ends, observation


@dataclasses.dataclass(frozen=True, repr=False)
class Learned:
    """The parts that all posteriors of simulation-based inference have.

    Args:
        prior: the density of parameters `[D]`.
        model: what was learned.
        fitted: the fit that made it, with its loss history; of the last round.
        simulations: that it was learned from, of all rounds.
        seconds: spent in fits, compiling included.
        observed: the observation that rounds were made for, else None: then it serves every observation.
    """

    prior: Any
    model: Any
    fitted: Fitted[Any]
    simulations: Simulations
    seconds: float
    observed: Any = None

    @property
    def history(self) -> dict[str, np.ndarray]:
        """Losses of the last fits, `[members, ...]`: `loss` of each step, `validation` (higher is better) at
        `validation_step`."""
        return self.fitted.history

    @property
    def failed(self) -> int:
        """Simulations with entries that were not finite, which were left out."""
        return self.simulations.failed

    def _observation(self, x: Any, called: str) -> jax.Array:
        return observation(x, self.simulations.x.shape[1], called)

    def __str__(self) -> str:
        (n, size), columns, failed = self.simulations.theta.shape, self.simulations.x.shape[1], self.failed
        best = np.nanmax(self.history["validation"], axis=-1)
        where = "any observation" if self.observed is None else "the observation of its rounds"
        lost = f", {failed} failed ({failed / (n + failed):.1%}) and left out" if failed else ""
        return (
            f"{type(self).__name__} of {size} parameters given {columns} data, for {where}: {n} simulations{lost}; "
            f"held-out loss {-np.mean(best):.4f} nats after {self.fitted.steps} steps, {self.seconds:.0f} s"
        )

    def __repr__(self) -> str:
        return str(self)


@dataclasses.dataclass(frozen=True, repr=False)
class NeuralPosterior(Learned):
    """A posterior as a conditional density, `model`, whose context is an observation.

    Its mass is inside of the prior's support by construction: nothing leaks, draws and densities are its own.
    """

    def sample(self, key: Any, n: int, x: Any) -> jax.Array:
        """Draw n parameters given an observation `[P]`, `[n, D]`; of observations `[K, P]` `[K, n, D]`."""
        x = self._observation(x, "sample(key, n, x)")
        check_draws(key, n)
        given = jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], n, x.shape[-1]))
        return self.model.sample(key, given.shape[:-1], context=given)

    def draws_of_each(self, key: Any, n: int, x: Any) -> jax.Array:
        """Draw n parameters of each observation `[K, P]`, `[K, n, D]`, as `sample` does."""
        return self.sample(key, n, x)

    def log_prob(self, theta: Any, x: Any) -> jax.Array:
        """Return `log q(theta | x)`, nats, of parameters `[*batch, D]` given `[P]`, or one of each, `[*batch, P]`."""
        return self.model.log_prob(theta, context=self._observation(x, "log_prob(theta, x)"))


@dataclasses.dataclass(frozen=True, repr=False)
class ChainPosterior(Learned):
    """A posterior as prior times a likelihood, or a ratio, that was learned; Markov chains draw of it.

    Args:
        likelihood: `(model, theta [D], x [P]) -> nats`, up to a constant of theta.
    """

    likelihood: Any = None

    def sample(self, key: Any, n: int, x: Any) -> jax.Array:
        """Draw n parameters given an observation `[P]`, `[n, D]`, by `chains`, of which it warns where they are bad."""
        found = self.chains(key, n, x)
        # the last draws of all chains
        return jnp.asarray(np.swapaxes(found.draws, 0, 1).reshape(-1, found.draws.shape[-1])[-n:])

    def chains(self, key: Any, n: int, x: Any) -> Chains:
        """Return at least n draws given an observation `[P]`, with R-hat, effective size and acceptance.

        A hundred chains of Hamiltonian Monte Carlo, in the unbounded numbers of the prior's support, begin at draws of
        the prior that are weighted by the likelihood, so that separate modes have about their share from the start.
        """
        called = "chains(key, n, x)"
        x = self._observation(x, called)
        if x.ndim != 1:
            raise FitError("chains are of one observation", called=called, expected="x [P]",
                           got=f"shape {list(x.shape)}")  # fmt: skip
        check_draws(key, n)
        return run_chains(key, self.likelihood, self.model, self.prior, ends(self.prior), x, n, called)

    def draws_of_each(self, key: Any, n: int, x: Any) -> jax.Array:
        """Draw n parameters of each observation `[K, P]`, `[K, n, D]`, for calibration: nobody looks at the chains."""
        x = self._observation(x, "draws_of_each(key, n, x)")
        return many_draws(key, self.likelihood, self.model, self.prior, ends(self.prior), x, n)

    def log_prob(self, theta: Any, x: Any) -> jax.Array:
        """Return `log p(theta) + log p(x | theta)`, nats, up to a constant of x, of `[*batch, D]` given `[P]`."""
        theta, x = jnp.asarray(theta), self._observation(x, "log_prob(theta, x)")
        x = jnp.broadcast_to(x, (*theta.shape[:-1], x.shape[-1]))
        flat = jax.vmap(lambda one, given: self.likelihood(self.model, one, given))(
            theta.reshape(-1, theta.shape[-1]), x.reshape(-1, x.shape[-1])
        )
        return self.prior.log_prob(theta) + flat.reshape(theta.shape[:-1])


def check_draws(key: Any, n: Any) -> None:
    """Refuse a number of draws that is none."""
    check_key(key, "sample(key, n, x)")
    if not is_count(n, 1):
        raise FitError("there are no draws", called="sample(key, n, x)", expected="n of 1 or more", got=repr(n))
