"""Markov chains on any log-density with a gradient: Langevin dynamics, adjusted or not, and Hamiltonian Monte Carlo.

A sampler is a small value with `init(log_density, x)` and `step(key, log_density, state, observed)`; `sample_chain`
runs it in one compiled loop. `log_density` is a function of one event, an array or any pytree of arrays, in nats, and
known up to a constant. What is sampled is `p(x)^(1 / T)`, up to its constant, for a temperature T.

The step size eta is that of `dx = grad log p(x) dt + sqrt(2 T) dW` in one step of Euler's method,
`x' = x + eta grad log p(x) + sqrt(2 eta T) xi`; where others write `x + (e / 2) grad log p + sqrt(e) xi`, e is 2 eta.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxgen.core.compiled import compiled_by_trace
from jaxgen.core.errors import DataError, FitError, JaxgenWarning, ShapeError
from jaxgen.core.files import loadable
from jaxgen.core.inputs import concrete, widened
from jaxgen.core.methods import check_key

__all__ = [
    "HMC", "MALA", "SGLD", "ULA", "ChainInfo", "ChainState", "Sampler", "Spread", "minibatch", "sample_chain",
]  # fmt: skip


class ChainState(NamedTuple):
    """Where a chain is.

    Args:
        x: the event.
        log_density: of x, nats; of SGLD the estimate of one minibatch.
        gradient: of the log-density at x, as one vector.
        steps: made so far.
    """

    x: Any
    log_density: jax.Array
    gradient: jax.Array
    steps: jax.Array


class ChainInfo(NamedTuple):
    """What happened in a step.

    Args:
        acceptance: the probability with which the proposal was accepted; 1 for samplers that accept all.
        accepted: whether it was.
        finite: False where the log-density of the proposal was NaN or plus infinity, or its gradient not finite; and
            where the chain itself has no finite log-density and gradient. An adjusted sampler stays where it is then;
            an unadjusted one goes there, and its x is NaN from then on.
    """

    acceptance: jax.Array
    accepted: jax.Array
    finite: jax.Array


class Sampler(Protocol):
    """A Markov kernel on log-densities."""

    def init(self, log_density: Callable[..., Any], x: Any) -> ChainState:
        """The state before the first step."""
        ...

    def step(
        self, key: Any, log_density: Callable[..., Any], state: ChainState, observed: Any = None
    ) -> tuple[ChainState, ChainInfo]:
        """One step; coordinates of x that are `observed`, bools like x, stay."""
        ...


@loadable
@dataclasses.dataclass(frozen=True)
class ULA:
    """The unadjusted Langevin algorithm: `x' = x + eta grad log p(x) + sqrt(2 eta T) xi`, every step accepted.

    Its stationary distribution is not p but near it for small steps: on N(0, s^2), with T = 1, it is normal of variance
    `s^2 / (1 - eta / (2 s^2))`. The chain runs away where eta exceeds twice the variance of the narrowest direction.

    Args:
        step_size: eta, positive.
        temperature: T, 0 or more; 0 is gradient ascent.

    Raises:
        FitError: options out of range.

    Source: Roberts and Tweedie (1996), Exponential convergence of Langevin distributions and their discrete
    approximations.

    Example:
        >>> draws, _ = sample_chain(jax.random.key(0), ULA(1.0), lambda x: -x**2 / 2, jnp.float32(0), draws=20_000)
        >>> abs(float(draws.var()) - 2) < 0.2  # and not 1
        True
    """

    step_size: float
    temperature: float = 1.0

    def __post_init__(self):
        _check_options(self)

    def init(self, log_density, x):
        """The state before the first step."""
        return _start(log_density, x)

    def step(self, key, log_density, state, observed=None):
        """One step."""
        x, rest = ravel_pytree(state.x)
        free = _free(observed)
        noise = free(jax.random.normal(key, x.shape, x.dtype))
        spread = jnp.sqrt(jnp.asarray(2 * self.step_size * self.temperature, x.dtype))
        new = x + self.step_size * free(state.gradient) + spread * noise
        value, gradient = _value_and_gradient(log_density, rest, new, free)
        return _unadjusted(state, rest(new), value, gradient)


@loadable
@dataclasses.dataclass(frozen=True)
class MALA:
    """The Metropolis-adjusted Langevin algorithm: the step of `ULA`, accepted so that p is exactly invariant.

    Accepted with probability `min(1, p(x') q(x | x') / (p(x) q(x' | x)))`, q the density of the step. On N(0, 1), at
    eta = 0.5, that is 0.9208 in the mean. Where about 0.57 are accepted the chain of a large problem moves fastest.

    Args:
        step_size: eta, positive.
        temperature: T, positive.

    Raises:
        FitError: options out of range.

    Source: Besag (1994), discussion of Grenander and Miller; Roberts and Rosenthal (1998), Optimal scaling of discrete
    approximations to Langevin diffusions.

    Example:
        >>> draws, info = sample_chain(jax.random.key(0), MALA(0.5), lambda x: -x**2 / 2, jnp.float32(0), draws=20_000)
        >>> abs(float(draws.var()) - 1) < 0.1, bool(info.finite.all())
        (True, True)
    """

    step_size: float
    temperature: float = 1.0

    def __post_init__(self):
        _check_options(self, adjusted=True)

    def init(self, log_density, x):
        """The state before the first step."""
        return _start(log_density, x)

    def step(self, key, log_density, state, observed=None):
        """One step."""
        eta, temperature = self.step_size, self.temperature
        first, second = jax.random.split(key)
        x, rest = ravel_pytree(state.x)
        free = _free(observed)
        spread = jnp.sqrt(jnp.asarray(2 * eta * temperature, x.dtype))
        noise, slope = free(jax.random.normal(first, x.shape, x.dtype)), free(state.gradient)
        state = state._replace(gradient=slope)
        new = x + eta * slope + spread * noise
        value, gradient = _value_and_gradient(log_density, rest, new, free)
        # the noise of the way back, without a difference of large numbers: (x - x' - eta g') / spread
        back = noise + eta * (slope + gradient) / spread
        log_ratio = (value - state.log_density) / temperature + 0.5 * (jnp.sum(noise**2) - jnp.sum(back**2))
        return _decided(second, state, rest, new, value, gradient, log_ratio)


@loadable
@dataclasses.dataclass(frozen=True)
class HMC:
    """Hamiltonian Monte Carlo: a fresh momentum, L leapfrog steps of size e, accepted so that p is exactly invariant.

    `r ~ N(0, I)`; L times `r += (e / 2) grad log p(x) / T`, `x += e r`, `r += (e / 2) grad log p(x) / T`; accepted with
    probability `min(1, exp(H(x, r) - H(x', r')))`, `H(x, r) = -log p(x) / T + r^2 / 2`. One leapfrog step is `MALA`
    with eta = e^2 / 2 at T = 1.

    Args:
        step_size: e, positive, in the units of x.
        leapfrogs: L, 1 or more, each one gradient; `e L` about a quarter of a period, on N(0, s^2) `s pi / 2`.
        temperature: T, positive.

    Raises:
        FitError: options out of range.

    Source: Duane, Kennedy, Pendleton and Roweth (1987), Hybrid Monte Carlo; Neal (2011), MCMC using Hamiltonian
    dynamics.

    Example:
        >>> chain = HMC(0.3, leapfrogs=5)
        >>> draws, info = sample_chain(jax.random.key(0), chain, lambda x: -x**2 / 2, jnp.float32(0), draws=5_000)
        >>> abs(float(draws.var()) - 1) < 0.1, float(info.acceptance.mean()) > 0.98
        (True, True)
    """

    step_size: float
    leapfrogs: int = 10
    temperature: float = 1.0

    def __post_init__(self):
        _check_options(self, adjusted=True)
        if isinstance(self.leapfrogs, bool) or not isinstance(self.leapfrogs, int) or self.leapfrogs < 1:
            raise FitError(
                "a trajectory needs leapfrog steps", called="HMC(step_size, leapfrogs)", got=repr(self.leapfrogs),
                expected="an int, 1 or more",
            )  # fmt: skip

    def init(self, log_density, x):
        """The state before the first step."""
        return _start(log_density, x)

    def step(self, key, log_density, state, observed=None):
        """One trajectory."""
        first, second = jax.random.split(key)
        x, rest = ravel_pytree(state.x)
        free, kick = _free(observed), 0.5 * self.step_size / self.temperature

        def leapfrog(_, place):
            x, r, gradient, _ = place
            r = r + kick * gradient
            x = x + self.step_size * r
            value, gradient = _value_and_gradient(log_density, rest, x, free)
            return x, r + kick * gradient, gradient, value

        r = free(jax.random.normal(first, x.shape, x.dtype))
        state = state._replace(gradient=free(state.gradient))
        start = x, r, state.gradient, state.log_density
        new, end, gradient, value = jax.lax.fori_loop(0, self.leapfrogs, leapfrog, start)
        log_ratio = (value - state.log_density) / self.temperature + 0.5 * (jnp.sum(r**2) - jnp.sum(end**2))
        return _decided(second, state, rest, new, value, gradient, log_ratio)


@loadable
@dataclasses.dataclass(frozen=True)
class Spread:
    """A sampler whose every step has a size of its own: between `step_size / ratio` and `step_size`, even in its log.

    For densities whose steepness nobody knows beforehand, as that of a network while it trains: where the large steps
    are refused the small ones still move, and a chain does not stand still. The size is drawn without a look at the
    chain, so that what the sampler leaves invariant stays so, and reversible steps stay reversible.

    Args:
        sampler: with a `step_size`, its largest.
        ratio: of the largest to the smallest, 1 or more.

    Raises:
        FitError: a sampler without step size, a ratio below 1.

    Source: Neal (2011), MCMC using Hamiltonian dynamics, section 3.2, for sizes drawn at random.

    Example:
        >>> steep, start = lambda x: -1000.0 * x**2, jnp.float32(0.1)
        >>> chain = lambda key, sampler: sample_chain(key, sampler, steep, start, draws=100)[1].acceptance.mean()
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> one, many = (jax.vmap(lambda key: chain(key, s))(keys).mean() for s in (MALA(1.0), Spread(MALA(1.0), 1e4)))
        >>> float(one), float(many) > 0.1
        (0.0, True)
    """

    sampler: Any
    ratio: float = 200.0

    def __post_init__(self):
        if not hasattr(self.sampler, "step_size") or not 1 <= self.ratio < float("inf"):
            raise FitError(
                "there are no step sizes to draw from", called="Spread(sampler, ratio)", got=repr(self),
                expected="a sampler with a step_size, a ratio of 1 or more",
                fix="jaxgen.samplers.Spread(jaxgen.samplers.MALA(0.2), 200.0)",
            )  # fmt: skip

    def init(self, log_density, x):
        """The state before the first step."""
        return self.sampler.init(log_density, x)

    def step(self, key, log_density, state, observed=None):
        """One step of one size."""
        first, second = jax.random.split(key)
        share = jax.random.uniform(first, (), state.log_density.dtype)
        size = self.sampler.step_size * jnp.exp(-share * float(np.log(self.ratio)))
        return dataclasses.replace(self.sampler, step_size=size).step(second, log_density, state, observed)


@loadable
@dataclasses.dataclass(frozen=True)
class SGLD:
    """Stochastic gradient Langevin dynamics: `ULA` with the gradient of a minibatch, steps of decreasing size.

    `x' = x + eta_t g + sqrt(2 eta_t T) xi`, g an unbiased estimate of the gradient, `eta_t = eta / (1 + t / delay)^a`.
    The log-density is a function of a key and an event, such as that of `minibatch`. With steps that decrease, a above
    0.5 and up to 1, its time averages tend to those of p; with steps of one size the noise of the minibatches adds to
    that of the dynamics.

    Args:
        step_size: eta, positive.
        decay: a, from 0 (none) to 1.
        delay: steps until the size has fallen to `2^-a`, positive.
        temperature: T, 0 or more; 0 is stochastic gradient ascent.

    Raises:
        FitError: options out of range.

    Source: Welling and Teh (2011), Bayesian learning via stochastic gradient Langevin dynamics.

    Example:
        >>> data = jnp.array([1.0, 2.0, 3.0, 2.0])
        >>> log_density = minibatch(lambda m: 0.0, lambda m, x: -((x - m) ** 2) / 2, data, 2)
        >>> draws, _ = sample_chain(jax.random.key(0), SGLD(0.01), log_density, jnp.float32(0), draws=20_000)
        >>> abs(float(draws.mean()) - 2) < 0.2  # the posterior is N(2, 1/4)
        True
    """

    step_size: float
    decay: float = 0.0
    delay: float = 1000.0
    temperature: float = 1.0

    def __post_init__(self):
        _check_options(self)
        if not 0 <= self.decay <= 1 or not self.delay > 0:
            raise FitError(
                "steps decrease by a power of time", called="SGLD(step_size, decay, delay)",
                expected="decay from 0 to 1, delay above 0", got=f"decay={self.decay}, delay={self.delay}",
            )  # fmt: skip

    def init(self, log_density, x):
        """The state before the first step; density and gradient are 0 until a step draws its minibatch."""
        flat, _ = ravel_pytree(x)
        return ChainState(x, jnp.zeros((), flat.dtype), jnp.zeros_like(flat), jnp.zeros((), jnp.int32))

    def step(self, key, log_density, state, observed=None):
        """One step."""
        first, second = jax.random.split(key)
        x, rest = ravel_pytree(state.x)
        free = _free(observed)
        value, gradient = _value_and_gradient(lambda x: log_density(first, x), rest, x, free)
        eta = self.step_size / (1 + state.steps.astype(x.dtype) / self.delay) ** self.decay
        noise = free(jax.random.normal(second, x.shape, x.dtype))
        new = x + eta * gradient + jnp.sqrt(2 * eta * self.temperature) * noise
        new = jnp.where(_sound(value, gradient), new, jnp.nan)
        return _unadjusted(state, rest(new), value, gradient)


def minibatch(
    log_prior: Callable[[Any], Any], log_likelihood: Callable[[Any, Any], Any], data: Any, size: int
) -> Callable[[Any, Any], jax.Array]:
    """An unbiased estimate of a log-posterior from some of the data: `log prior(x) + N / n sum_i log p(data_i | x)`.

    Args:
        log_prior: `x -> nats`.
        log_likelihood: `(x, datum) -> nats`, of one datum.
        data: `[N, ...]`, an array or a pytree of arrays.
        size: n, data in a minibatch, drawn with replacement, 1 or more.

    Returns:
        `(key, x) -> nats`, for `SGLD`.

    Raises:
        FitError: no data in a minibatch.

    Example:
        >>> estimate = minibatch(lambda m: 0.0, lambda m, x: -((x - m) ** 2), jnp.ones(8), 4)
        >>> float(estimate(jax.random.key(0), 0.0))  # all data are alike
        -8.0
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise FitError("a minibatch needs data", called="minibatch(..., size)", expected="1 or more", got=repr(size))
    count = len(jax.tree.leaves(data)[0])

    def estimate(key: Any, x: Any) -> jax.Array:
        index = jax.random.randint(key, (size,), 0, count)
        some = jax.tree.map(lambda a: jnp.asarray(a)[index], data)
        return log_prior(x) + count / size * jnp.sum(jax.vmap(lambda d: log_likelihood(x, d))(some))

    return estimate


def sample_chain(
    key: Any, sampler: Any, log_density: Callable[..., Any], x: Any, *, draws: int = 1000, burn_in: int = 0,
    thin: int = 1, observed: Any = None,
) -> tuple[Any, ChainInfo]:  # fmt: skip
    """A chain from x, in one compiled loop.

    For many chains map it: `jax.vmap(lambda k, x: sample_chain(k, sampler, log_density, x))(keys, starts)`. Outside
    of a `jax.jit` every call traces anew, and only the first one compiles.

    Args:
        key: typed key.
        sampler: `ULA`, `MALA`, `HMC`, `SGLD`, or any `Sampler`.
        log_density: of one event; a model's is `lambda x: -model.energy(x)` or `model.log_prob`.
        x: one event, an array of floats or a pytree of such.
        draws: how many to keep, 1 or more.
        burn_in: steps before the first.
        thin: steps for each draw, 1 or more.
        observed: bools like x, True where x is to stay: the chain is then one of `p(rest | observed)`.

    Returns:
        draws, with a leading axis; and `ChainInfo` of each, of the `thin` steps that led to it the mean acceptance,
        whether any was accepted, and whether all were finite.

    Raises:
        FitError: counts that are too small. DataError: a start that is not of floats, or where log-density or gradient
        is not finite. ShapeError: a log-density of more than one number, or a mask that does not fit.

    A chain that never moved, or was lost, is a `JaxgenWarning`; inside `jit` and `vmap` only `ChainInfo` says so.

    Example:
        >>> normal = lambda x: -jnp.sum(x**2) / 2
        >>> draws, info = sample_chain(jax.random.key(0), MALA(0.5), normal, jnp.zeros(3), draws=100, thin=2)
        >>> draws.shape, info.acceptance.shape
        ((100, 3), (100,))
    """
    called = "sample_chain(key, sampler, log_density, x)"
    check_key(key, called)
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in (draws, burn_in, thin))
    if not whole or min(draws, thin, burn_in + 1) < 1:
        raise FitError(
            "a chain needs steps", called=called, expected="ints: draws and thin of 1 or more, burn_in of 0 or more",
            got=f"draws={draws}, burn_in={burn_in}, thin={thin}",
        )  # fmt: skip
    x = widened(jax.tree.map(jnp.asarray, x))
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(x)):
        raise DataError(
            "a chain with gradients moves real numbers", called=called, expected="x of floats",
            got=", ".join(str(leaf.dtype) for leaf in jax.tree.leaves(x)), fix="x.astype(float)",
        )  # fmt: skip
    if observed is not None:
        shapes, masks = ([np.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (x, observed))
        if shapes != masks or any(jnp.result_type(leaf) != jnp.bool_ for leaf in jax.tree.leaves(observed)):
            raise ShapeError(
                "observed is no mask of the event", called=called, expected=f"bools of shapes {shapes}", got=str(masks)
            )
    state = sampler.init(log_density, x)
    state = state._replace(gradient=_free(observed)(state.gradient))
    if concrete(state) and not rooted(state):
        slope = int(jnp.sum(~jnp.isfinite(state.gradient)))
        raise DataError(
            "the chain starts where no chain can move", called=called,
            expected="a start x where log_density(x) and its gradient are finite",
            got=f"log_density(x) = {state.log_density}, {slope} of {state.gradient.size} slopes not finite",
        )  # fmt: skip
    x, info = _draws(key, sampler, log_density, state, observed, draws, burn_in, thin)
    if concrete(info):
        _tell(info, thin, called)
    return x, info


@compiled_by_trace
def _draws(
    key: Any, sampler: Any, log_density: Any, state: ChainState, observed: Any, draws: int, burn_in: int, thin: int
) -> tuple[Any, ChainInfo]:
    first, second = jax.random.split(key)

    def step(t: Any, carry: Any, key: Any) -> Any:
        return sampler.step(jax.random.fold_in(key, t), log_density, carry, observed)

    state = jax.lax.fori_loop(0, burn_in, lambda t, state: step(t, state, first)[0], state)

    def draw(state: ChainState, t: Any) -> tuple[ChainState, tuple[Any, ChainInfo]]:
        state, info = jax.lax.scan(lambda s, i: step(t * thin + i, s, second), state, jnp.arange(thin))
        info = ChainInfo(jnp.mean(info.acceptance), jnp.any(info.accepted), jnp.all(info.finite))
        return state, (state.x, info)

    return jax.lax.scan(draw, state, jnp.arange(draws))[1]


def _tell(info: ChainInfo, thin: int, called: str) -> None:
    """Warns of a chain whose draws are none."""
    accepted, finite = np.asarray(info.accepted), np.asarray(info.finite)
    if not accepted.any():
        why = "took too large steps, or met no finite density" if finite.any() else "met no finite density"
        text = f"the chain never moved: it {why}; none of {accepted.size * thin} proposals was accepted"
    elif accepted.all() and not finite[-1]:  # an unadjusted one never comes back
        text = f"the chain was lost: from draw {np.argmin(finite)} of {finite.size} on its density is not finite"
    else:
        return
    warnings.warn(f"{called}: {text}; try a smaller step_size", JaxgenWarning, stacklevel=3)


def _check_options(sampler: Any, adjusted: bool = False) -> None:
    """Refuses numbers out of range; traced ones are trusted."""
    step, heat = sampler.step_size, sampler.temperature
    if not (concrete(step) and concrete(heat)):
        return
    if not 0 < step < float("inf") or not 0 <= heat < float("inf") or (adjusted and heat == 0):
        raise FitError(
            "a step has a size, and a temperature", called=f"{type(sampler).__name__}(step_size={step}, "
            f"temperature={heat})", expected=f"step_size > 0, temperature {'> 0' if adjusted else '>= 0'}",
            got=f"{step}, {heat}",
        )  # fmt: skip


def _value_and_gradient(log_density: Callable[..., Any], rest: Callable[..., Any], x: jax.Array, free: Any) -> Any:
    def flat(x: jax.Array) -> jax.Array:
        value = jnp.asarray(log_density(rest(x)))
        if value.shape != ():
            raise ShapeError(
                "a log-density is one number for one event", called="log_density(x)", expected="a scalar",
                got=f"shape {list(value.shape)}", fix="map over chains by vmap, or sum over independent coordinates",
            )  # fmt: skip
        return value.astype(x.dtype)

    value, gradient = jax.value_and_grad(flat)(x)
    return value, free(gradient)


def rooted(state: ChainState, observed: Any = None) -> jax.Array:
    """True where a chain can move: log-density and gradient, but for that of observed coordinates, are finite."""
    return jnp.isfinite(state.log_density) & jnp.all(jnp.isfinite(_free(observed)(state.gradient)))


def _start(log_density: Callable[..., Any], x: Any) -> ChainState:
    flat, rest = ravel_pytree(x)
    value, gradient = _value_and_gradient(log_density, rest, flat, _free(None))
    return ChainState(x, value, gradient, jnp.zeros((), jnp.int32))


def _free(observed: Any) -> Callable[[jax.Array], jax.Array]:
    """A vector without what is of observed coordinates, which do not move: whatever it is there, even infinite."""
    if observed is None:
        return lambda vector: vector
    held = ravel_pytree(observed)[0].astype(bool)
    return lambda vector: jnp.where(held, 0, vector)


def _sound(value: jax.Array, gradient: jax.Array) -> jax.Array:
    return ~jnp.isnan(value) & (value < jnp.inf) & jnp.all(jnp.isfinite(gradient))


def _unadjusted(state: ChainState, x: Any, value: jax.Array, gradient: jax.Array) -> tuple[ChainState, ChainInfo]:
    """The next place, whatever it is; a chain that is where there is no density is lost, and shows it."""
    sound, one = _sound(value, gradient) & (value > -jnp.inf), jnp.ones((), gradient.dtype)
    next_state = ChainState(x, value, jnp.where(sound, gradient, jnp.nan), state.steps + 1)
    return next_state, ChainInfo(one, jnp.ones((), bool), sound)


def _decided(
    key: Any, state: ChainState, rest: Any, new: jax.Array, value: jax.Array, gradient: jax.Array, log_ratio: jax.Array
) -> tuple[ChainState, ChainInfo]:
    """The proposal or the place before. One without a finite density is not taken."""
    # outside of the support, log p = -inf, the gradient may be anything: that is no fault, and no move either
    sound = _sound(value, gradient) | (value == -jnp.inf)
    acceptance = jnp.where(sound & (value > -jnp.inf), jnp.exp(jnp.minimum(log_ratio, 0)), 0)
    acceptance = jnp.where(jnp.isnan(acceptance), 0, acceptance)
    # u from [0, 1): what is impossible is not accepted, what is certain is
    accepted = jax.random.uniform(key, (), acceptance.dtype) < acceptance
    moved = ChainState(rest(new), value, gradient, state.steps)
    kept = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), moved, state)
    return kept._replace(steps=state.steps + 1), ChainInfo(acceptance, accepted, sound & rooted(kept))
