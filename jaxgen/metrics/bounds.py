"""Bounds of the likelihood of models with hidden variables, from below and, for data of their own, from above."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.annealing import ladder
from jaxgen.core.algebra import needed
from jaxgen.core.errors import DataError, FitError, JaxgenWarning
from jaxgen.core.inputs import as_array, widened
from jaxgen.core.methods import batch_axes, check_key, is_count, latent_shape
from jaxgen.core.protocols import Inferring, Kind
from jaxgen.core.pytree import registered
from jaxgen.core.scores import Score, as_measured
from jaxgen.metrics.events import events_of
from jaxgen.metrics.partition import ais, estimated, reverse_ais
from jaxgen.ops.bounds import CHUNK_DRAWS
from jaxgen.ops.samplers import HMC

#: chains of all events that are advanced together
CHUNK_CHAINS = 1024
#: the acceptance that step sizes are led to (Beskos et al. 2013, Optimal tuning of the hybrid Monte Carlo algorithm),
#: and how fast: by so much in the logarithm, for each missing share
GOAL, RATE = 0.65, 0.2
#: the first step, in standard deviations of the start
FIRST = 0.3
#: a mean acceptance below which chains have hardly moved
STUCK = 0.2


class Bounds(NamedTuple):
    """Bounds of the mean log-likelihood of the same events, each with its standard error over events.

    Args:
        elbo: the mean over draws of the posterior, a lower bound.
        iwae: the importance weighted bound of as many draws as `samples`.
        ais: by annealing from the posterior or the prior to `p(x, z)`, a lower bound; None without steps.
        reverse_ais: by annealing back from exact draws of `p(z | x)`, an upper bound; None where there were none.
        samples, chains, steps: how many of each; 0 steps is no annealing.
        iwae_ess: effective number of the draws, mean over events, of 1 to `samples`.
        ais_ess: the same of the chains; where it is 1 or 2 more steps make the bound tighter.
        acceptance: mean share of the chains' proposals that were accepted.
        space: what x was measured in, as told.

    `ais` is above the truth by chance at most: above it by log c with a probability of at most 1 / c for each event.
    """

    elbo: Score
    iwae: Score
    ais: Score | None
    reverse_ais: Score | None
    samples: int
    chains: int
    steps: int
    iwae_ess: float
    ais_ess: float
    acceptance: float
    space: str

    @property
    def gap(self) -> float:
        """The upper bound less the lower one from annealing, nats; NaN without either."""
        both = self.ais is not None and self.reverse_ais is not None
        return self.reverse_ais.mean - self.ais.mean if both else math.nan  # type: ignore[union-attr]

    def __str__(self) -> str:
        rows = [("ELBO", self.elbo, ""),
                (f"IWAE-{self.samples}", self.iwae, f", ESS {self.iwae_ess:.1f} of {self.samples}")]  # fmt: skip
        if self.ais is not None:
            chains = f", ESS {self.ais_ess:.1f} of {self.chains}, {self.acceptance:.0%} accepted"
            rows.append((f"AIS-{self.steps}", self.ais, chains))
        if self.reverse_ais is not None:
            rows.append(("reverse AIS", self.reverse_ais, f", gap {self.gap:.4f}"))
        lines = [f"{name:<12}{score._replace(space='')}{more}" for name, score, more in rows]
        return "\n".join([*lines, *([f"{'x':<12}{self.space}"] if self.space else [])])

    def __repr__(self) -> str:
        return str(self)


class Simulated(NamedTuple):
    """Events that a model drew, each with the hidden variables that it was drawn from.

    Args:
        x: `[N, *event]`.
        z: `[N, *latent]`, exact draws of `p(z | x)`, one for each event.
    """

    x: jax.Array
    z: jax.Array


def simulated(key: Any, model: Any, n: int, *, context: Any = None, length: int | None = None) -> Simulated:
    """Draws events with the hidden variables that made them: the data whose likelihood has an upper bound.

    Args:
        key: typed key.
        model: with hidden variables, such as a `VAE`.
        n: N, the number of events, 1 or more.
        context: `[N, *context]` of a conditional model.
        length: steps of one event, of a model of sequences.

    Raises:
        ModelError: a model without hidden variables. FitError: no events.

    Example:
        >>> import jaxgen as jg
        >>> vae = jg.VAE.init(jax.random.key(0), jnp.zeros((9, 4)), jg.StandardNormal((2,)), hidden=(8,))
        >>> drawn = simulated(jax.random.key(1), vae, 5)
        >>> drawn.x.shape, drawn.z.shape
        ((5, 4), (5, 2))
    """
    called = "metrics.simulated(key, model, n)"
    check_key(key, called)
    needed(model, Inferring, called)
    if not is_count(n, 1):
        raise FitError("there is nothing to draw", called=called, expected="n of 1 or more", got=str(n))
    return _simulated(key, widened(model), n, None if context is None else jnp.asarray(as_array(context)), length)


@functools.partial(jax.jit, static_argnames=("n", "length"))
def _simulated(key: Any, model: Any, n: int, context: Any, length: int | None) -> Simulated:
    draw = lambda key, context: model.sample_with_latent(key, context=context, length=length)  # noqa: E731
    z, x = jax.vmap(draw)(jax.random.split(key, n), context)
    return Simulated(x, z)


def bounds(
    key: Any, model: Any, data: Any, *, samples: int = 500, chains: int = 16, steps: int = 500, leapfrogs: int = 10,
    betas: Any = None, from_prior: bool = False, z: Any = None, space: str = "",
) -> Bounds:  # fmt: skip
    """Bounds of `mean_n log p(x_n)` of a model with hidden variables, each tighter than the one before.

    | | |
    |---|---|
    | ELBO | `E_q log p(x, z) - log q(z)` |
    | IWAE | `log 1/S sum_s p(x, z_s) / q(z_s)` |
    | AIS | `log 1/C sum_c w_c`, w the weight of a chain that is annealed from q to p: `f_b = q^(1-b) p(x, .)^b` |
    | reverse AIS | `-log 1/C sum_c 1 / w_c` of chains the other way, from an exact draw of `p(z | x)` |

    Chains are Hamiltonian Monte Carlo in z, in standard deviations of the start. Their step sizes, one for each density
    on the way and each event, are found in a run beforehand, of which the chains that are weighed know nothing: so the
    bounds stay bounds. Weights are unbiased, so that AIS is a lower bound in the mean, and reverse AIS an upper one.

    Args:
        key: typed key.
        model: with hidden variables of real numbers, such as a `VAE`.
        data: an array `[N, *event]`, or a tuple `(x, context)`, or a dict of them; or what `data.binarized` made.
        samples: S, draws of the posterior for each event.
        chains: C, for each event, 2 or more.
        steps: densities on the way from q to p; 0 leaves annealing out.
        leapfrogs: gradients in one step of a chain.
        betas: increasing `[steps + 1]` from 0 to 1 in place of even ones.
        from_prior: anneals from the prior in place of the posterior, for one that misses modes.
        z: `[N, *latent]`, an exact draw of `p(z | x)` for each event, as `simulated` draws it together with x; the
            upper bound needs it.
        space: in words what x is measured in, where the data do not say it: bounds of data in different spaces are not
            compared. It is printed.

    Returns:
        `Bounds`. Chains that hardly moved are also a `JaxgenWarning`.

    Raises:
        ModelError: a model without hidden variables. FitError: counts below the least, or betas that do not rise.
        DataError, ShapeError: data that do not fit the model.

    Source: Wu, Burda, Salakhutdinov and Grosse (2017), On the quantitative analysis of decoder-based generative models;
    Grosse, Ghahramani and Adams (2015), Sandwiching the marginal likelihood using bidirectional Monte Carlo; Burda,
    Grosse and Salakhutdinov (2016), Importance weighted autoencoders.

    Example:
        >>> import jaxgen as jg
        >>> vae = jg.VAE.init(jax.random.key(0), jnp.zeros((9, 4)), jg.StandardNormal((2,)), hidden=(8,))
        >>> drawn = simulated(jax.random.key(1), vae, 20)
        >>> found = bounds(jax.random.key(2), vae, drawn.x, z=drawn.z, samples=50, steps=20)
        >>> found.elbo.mean < found.iwae.mean < found.reverse_ais.mean, abs(found.gap) < 0.1
        (True, True)
    """
    called = f"metrics.bounds(key, {type(model).__name__}, data)"
    check_key(key, called)
    needed(model, Inferring, called)
    counts = ((samples, 1), (chains, 2), (steps, 0), (leapfrogs, 1))
    if not all(is_count(n, least) for n, least in counts):
        raise FitError(
            "bounds need draws and chains", called=called,
            expected="samples >= 1, chains >= 2, steps >= 0, leapfrogs >= 1",
            got=f"samples={samples}, chains={chains}, steps={steps}, leapfrogs={leapfrogs}",
        )  # fmt: skip
    model, (data, space) = widened(model), as_measured(data, space)
    batch = events_of(model, data, called)
    if z is not None:
        z = jnp.asarray(as_array(z, name="z", called=called))
        if batch_axes(z.shape, latent_shape(model), called, "z") != (batch.events,):
            raise DataError("one z for each event", called=called, expected=f"{batch.events} of them",
                            got=f"shape {list(z.shape)}")  # fmt: skip
    rungs = None if steps == 0 and betas is None else ladder(betas, steps, called)
    options = {"samples": samples, "chains": chains, "leapfrogs": leapfrogs, "from_prior": bool(from_prior)}
    x, context = (None if a is None else jnp.asarray(a) for a in (batch.x, batch.context))
    found = jax.tree.map(lambda a: np.asarray(a, np.float64), _bounds(key, model, x, context, z, rungs, **options))
    acceptance = math.nan if found.acceptance is None else float(found.acceptance.mean())
    if acceptance < STUCK:
        warnings.warn(
            f"{called}: chains hardly moved, {acceptance:.0%} of their steps were accepted: the bounds by annealing "
            "are no tighter than the draws they began with; more steps, or fewer leapfrogs",
            JaxgenWarning, stacklevel=2,
        )  # fmt: skip

    def score(values: Any, kind: Kind) -> Score | None:
        if values is None:
            return None
        n = len(values)
        error = float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        return Score(float(values.mean()), error, kind, n, space=space)

    return Bounds(
        score(found.elbo, Kind.LOWER_BOUND), score(found.iwae, Kind.LOWER_BOUND),  # type: ignore[arg-type]
        score(found.ais, Kind.LOWER_BOUND), score(found.reverse, Kind.UPPER_BOUND), samples, chains,
        0 if rungs is None else rungs.size - 1, float(found.iwae_ess.mean()),
        math.nan if found.ais_ess is None else float(found.ais_ess.mean()), acceptance, space,
    )  # fmt: skip


class _Numbers(NamedTuple):
    """The numbers that are found for each event."""

    elbo: Any
    iwae: Any
    iwae_ess: Any
    ais: Any = None
    ais_ess: Any = None
    acceptance: Any = None
    reverse: Any = None


@functools.partial(jax.jit, static_argnames=("samples", "chains", "leapfrogs", "from_prior"))
def _bounds(
    key: Any, model: Any, x: Any, context: Any, z: Any, betas: Any, samples: int, chains: int, leapfrogs: int,
    from_prior: bool,
) -> _Numbers:  # fmt: skip
    def one(row: Any) -> _Numbers:
        key, x, context, z = row
        draws, first, second, third = jax.random.split(key, 4)
        given = model.inference(x, context=context)
        elbo, iwae, ess = _by_draws(draws, given, samples)
        if betas is None:
            return _Numbers(elbo, iwae, ess)
        length = len(x) if None in model.event_shape else None
        start = _Start(model, context, length) if from_prior else None
        path, acceptance = _adapted(first, given, start, betas, chains, leapfrogs)
        forward = ais(second, path, chains=chains, betas=betas)
        found = _Numbers(elbo, iwae, ess, forward.log_z, forward.ess, acceptance)
        if z is None:
            return found
        exact = jnp.broadcast_to(z, (chains, *z.shape))
        return found._replace(reverse=reverse_ais(third, path, exact, betas=betas).log_z)

    together = max(1, CHUNK_CHAINS // chains)
    return jax.lax.map(one, (jax.random.split(key, len(x)), x, context, z), batch_size=min(together, len(x)))


def _by_draws(key: Any, given: Any, samples: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The two bounds from draws of the posterior, and the effective number of them."""

    def draw(key: Any) -> tuple[jax.Array, jax.Array]:
        z, log_q = given.propose(key)
        likelihood, divergence = given.log_likelihood(z), given.divergence()
        log_ratio = given.log_prior(z) - log_q
        return likelihood + log_ratio, likelihood + (log_ratio if divergence is None else -jnp.sum(divergence))

    keys = jax.random.split(key, samples)
    log_weights, terms = jax.lax.map(draw, keys, batch_size=min(samples, CHUNK_DRAWS))
    found = estimated(log_weights)
    return jnp.mean(terms), found.log_z, found.ess


@registered
@dataclasses.dataclass(frozen=True)
class _Rung:
    """The density `f_b(z) = q(z)^(1 - b) p(x, z)^b` of one event as an energy, and a chain on it."""

    given: Any
    beta: jax.Array
    size: jax.Array
    scale: jax.Array
    leapfrogs: int = dataclasses.field(metadata={"static": True})
    from_prior: bool = dataclasses.field(metadata={"static": True})

    def log_density(self, z: Any) -> jax.Array:
        prior, likelihood = self.given.log_prior(z), self.given.log_likelihood(z)
        start = prior if self.from_prior else self.given.log_posterior(z)
        return start + self.beta.astype(start.dtype) * (prior + likelihood - start)

    def energy(self, z: Any) -> jax.Array:
        return -jax.vmap(self.log_density)(z)

    def kernel(self, key: Any, z: Any) -> jax.Array:
        return self.moved(key, z)[0]

    def moved(self, key: Any, z: Any) -> tuple[jax.Array, jax.Array]:
        """One step of each chain, and its acceptance."""
        sampler = HMC(self.size, self.leapfrogs)  # type: ignore[arg-type]

        def move(key: Any, u: Any) -> tuple[jax.Array, jax.Array]:
            log_density = lambda u: self.log_density(self.scale * u)  # noqa: E731
            state, info = sampler.step(key, log_density, sampler.init(log_density, u))
            return state.x, info.acceptance

        u, acceptance = jax.vmap(move)(jax.random.split(key, len(z)), z / self.scale)
        return self.scale * u, acceptance


@registered
@dataclasses.dataclass(frozen=True)
class _Start:
    """The prior that one event's chains start from."""

    model: Any
    context: Any
    length: int | None = dataclasses.field(metadata={"static": True})

    def propose(self, key: Any) -> Any:
        return self.model.sample_with_latent(key, context=self.context, length=self.length)


@registered
@dataclasses.dataclass(frozen=True)
class _Path:
    """An `AnnealingPath` of one event from its posterior, or the prior, to `p(x, z)`, of which the integral is p(x)."""

    given: Any
    start: Any
    betas: jax.Array
    sizes: jax.Array
    scale: jax.Array
    leapfrogs: int = dataclasses.field(metadata={"static": True})

    def at(self, beta: Any) -> _Rung:
        size = jnp.interp(beta, self.betas, self.sizes)
        return _Rung(self.given, beta, size, self.scale, self.leapfrogs, self.start is not None)

    def sample(self, key: Any, shape: Any = ()) -> jax.Array:
        start = self.given if self.start is None else self.start
        z = jax.vmap(lambda key: start.propose(key)[0])(jax.random.split(key, math.prod(shape)))
        return z.reshape((*shape, *z.shape[1:]))

    def log_partition(self) -> jax.Array:
        return jnp.zeros((), self.scale.dtype)


def _adapted(
    key: Any, given: Any, start: Any, betas: Any, chains: int, leapfrogs: int
) -> tuple[_Path, jax.Array]:
    """The path with step sizes that a run along it found, and the acceptance of that run."""
    first, second, third = jax.random.split(key, 3)
    one = jnp.ones((), jnp.result_type(float))
    path = _Path(given, start, betas, jnp.ones_like(betas), one, leapfrogs)
    draws = path.sample(first, (2 * CHUNK_DRAWS,))
    spread = jnp.std(draws, axis=0)
    path = dataclasses.replace(path, scale=jnp.where(spread > 0, spread, 1))

    def step(carry: Any, inputs: Any) -> Any:
        z, log_size = carry
        t, beta = inputs
        rung = dataclasses.replace(path.at(beta), size=jnp.exp(log_size))
        z, acceptance = rung.moved(jax.random.fold_in(second, t), z)
        share = jnp.mean(acceptance)
        return (z, log_size + RATE * (share - GOAL)), (log_size, share)

    begin = path.sample(third, (chains,)), jnp.full((), math.log(FIRST), draws.dtype)
    _, (log_sizes, shares) = jax.lax.scan(step, begin, (jnp.arange(betas.size - 1), betas[1:]))
    sizes = jnp.exp(jnp.concatenate([log_sizes[:1], log_sizes]))
    return dataclasses.replace(path, sizes=sizes.astype(betas.dtype)), jnp.mean(shares)
