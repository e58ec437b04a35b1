"""Partition functions from two sides: Bennett's ratio, replica exchange, and a bracket that the truth lies in."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.annealing import advanced, as_path, exchanged, ladder, moved, replicas
from jaxgen.core.errors import FitError, JaxgenWarning
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import check_key
from jaxgen.core.protocols import Kind
from jaxgen.core.scores import plus_minus
from jaxgen.metrics.partition import PartitionEstimate, annealed, reverse_ais
from jaxgen.ops.roots import bisect
from jaxgen.ops.stable import softmax

#: standard errors between an estimate and the end of its bracket: of a normal distribution, 1 in 740 lies beyond
ERRORS = 3.0
#: nats; a bracket wider than that is worth a warning
WIDE = 1.0


class Bridged(NamedTuple):
    """A partition function by Bennett's acceptance ratio; arrays only.

    Args:
        log_z: nats.
        standard_error: of `log_z`, nats.
        ess: how many independent draws of each side the overlap is worth, `1 / standard_error^2`, no more than there
            are; below 10 the two sides hardly met.
    """

    log_z: jax.Array
    standard_error: jax.Array
    ess: jax.Array

    @property
    def kind(self) -> Kind:
        return Kind.ESTIMATE


def acceptance_ratio(forward: jax.Array, reverse: jax.Array) -> jax.Array:
    """Bennett's acceptance ratio: `log(Z_1 / Z_0)` from the log weights of both directions.

    The root L of `sum_i s(f_i - L - m) = sum_j s(L - r_j + m)`, `s` the logistic function, `m = log(n / k)`: of all
    that the two sets of weights allow it has the least variance.

    Args:
        forward: `[n]`, f, with `E[exp f] = Z_1 / Z_0`.
        reverse: `[k]`, r, with `E[exp -r] = Z_0 / Z_1`.

    Returns:
        nats; NaN where a weight is.

    Source: Bennett (1976), Efficient estimation of free energy differences from Monte Carlo data; Shirts, Bair, Hooker
    and Pande (2003), Equilibrium free energies from nonequilibrium measurements using maximum-likelihood methods.

    Example:
        >>> half = jnp.array([0.4, 0.6])
        >>> round(float(acceptance_ratio(half, half)), 4)
        0.5
    """
    shift = jnp.log(forward.size / reverse.size).astype(forward.dtype)

    def difference(level: jax.Array) -> jax.Array:
        accepted = jnp.sum(jax.nn.sigmoid(forward - level - shift))
        return jnp.sum(jax.nn.sigmoid(level - reverse + shift)) - accepted

    ends = jnp.stack([jnp.mean(forward), jnp.mean(reverse)])
    return bisect(difference, jnp.zeros((), forward.dtype), guess=jnp.mean(ends), width=1 + jnp.ptp(ends))


def bar(forward: PartitionEstimate, reverse: PartitionEstimate) -> Bridged:
    """Bennett's acceptance ratio of `ais` and `reverse_ais` along one path: better than either.

    Args:
        forward: of `ais`; weights of `smc` that were drawn anew are not independent, which the error would not know.
        reverse: of `reverse_ais`, along the same path.

    Returns:
        `Bridged`, with the error `sum of (<s^2> / <s>^2 - 1) / n` over both directions, s the logistic terms.

    Source: as `acceptance_ratio`; equation 10 of Bennett (1976) for the error.

    Example:
        >>> from jaxgen.metrics.partition import ais
        >>> from jaxgen.models.energy.rbm import RBM
        >>> rbm = RBM.from_values(jnp.ones(4), jnp.zeros(3), jnp.full((4, 3), 0.5))
        >>> there = ais(jax.random.key(0), rbm, chains=200, steps=10)
        >>> back = reverse_ais(jax.random.key(1), rbm, rbm.sample(jax.random.key(2), (200,), sweeps=30), steps=10)
        >>> found = bar(there, back)
        >>> bool(abs(found.log_z - rbm.log_partition()) < 0.1), str(found.kind)
        (True, 'estimate')
    """
    f, r = forward.log_weights, reverse.log_weights
    log_z = acceptance_ratio(f, r)
    shift = jnp.log(f.size / r.size).astype(f.dtype)

    def spread(log_odds: jax.Array) -> jax.Array:
        # <s^2> / <s>^2 from logs: far from overlap every s underflows
        share = softmax(jax.nn.log_sigmoid(log_odds))
        return jnp.sum(share**2) - 1 / log_odds.size

    variance = spread(f - log_z - shift) + spread(log_z - r + shift)
    return Bridged(log_z, jnp.sqrt(variance), jnp.minimum(1 / variance, min(f.size, r.size)))


def replica_exchange(
    key: Any, path: Any, *, chains: int = 20, replicas: int = 20, betas: Any = None, sweeps: int = 1000,
    burn_in: int = 200,
) -> tuple[Bridged, jax.Array]:  # fmt: skip
    """`log Z` by parallel tempering: Bennett's ratio between neighbouring temperatures of chains in equilibrium.

    `log Z = log Z_0 + sum_i log(Z_{i+1} / Z_i)`. A sweep is one kernel step of every replica and one round of swaps.

    Args:
        key: typed key.
        path: an `AnnealingPath`, or a model with an `annealing_path()`.
        chains: independent ladders, 3 or more.
        replicas: places on the path, evenly spaced, 2 or more.
        betas: increasing `[replicas]` from 0 to 1 in place of the even ones.
        sweeps: that count.
        burn_in: sweeps before that, from draws of the tractable end.

    Returns:
        `Bridged`, the standard error by leaving out one ladder after the other, so that it knows of correlations in
        time and between neighbours; and the mean acceptance probability of swaps of each pair of neighbours,
        `[replicas - 1]`. Swaps at 0.2 or less at some place call for more replicas.

    Raises:
        ModelError: the model has no annealing path. FitError: counts that are too small; betas that are no ladder.

    Source: Hukushima and Nemoto (1996), Exchange Monte Carlo method; Bennett (1976); Efron and Stein (1981), The
    jackknife estimate of variance.

    Example:
        >>> from jaxgen.models.energy.rbm import RBM
        >>> rbm = RBM.from_values(jnp.ones(4), jnp.zeros(3), jnp.full((4, 3), 0.5))
        >>> found, swaps = replica_exchange(jax.random.key(0), rbm, chains=10, replicas=3, sweeps=50, burn_in=20)
        >>> bool(abs(found.log_z - rbm.log_partition()) < 0.2), swaps.shape
        (True, (2,))
    """
    called = "replica_exchange(key, path)"
    check_key(key, called)
    path = as_path(path, called)
    rungs = ladder(betas, max(replicas - 1, 1), called)
    if chains < 3 or replicas < 2 or sweeps < 1 or burn_in < 0:
        raise FitError(
            "replica exchange needs chains, replicas and sweeps", called=called,
            expected="chains=3 or more, replicas=2 or more, sweeps=1 or more, burn_in=0 or more",
            got=f"chains={chains}, replicas={replicas}, sweeps={sweeps}, burn_in={burn_in}",
        )  # fmt: skip
    return _replica_exchange(key, path, rungs, chains, sweeps, burn_in)


@functools.partial(jax.jit, static_argnames=("chains", "sweeps", "burn_in"))
def _replica_exchange(key: Any, path: Any, betas: jax.Array, chains: int, sweeps: int, burn_in: int) -> Any:
    start, run = jax.random.split(key)
    models = replicas(path, betas)

    def sweep(x: jax.Array, t: Any) -> Any:
        first, second = jax.random.split(jax.random.fold_in(run, t))
        x, accepted, differences = exchanged(second, models, moved(first, models, x, 1), t % 2)
        return x, (accepted, *differences)

    x = path.sample(start, (betas.size, chains))
    x = jax.lax.fori_loop(0, burn_in, lambda t, x: sweep(x, t)[0], x)
    _, (accepted, forward, reverse) = jax.lax.scan(sweep, x, burn_in + jnp.arange(sweeps))
    # [sweeps, R - 1, C] -> [C, R - 1, sweeps]
    forward, reverse = (jnp.moveaxis(a, (0, 1, 2), (2, 1, 0)) for a in (forward, reverse))

    def total(kept: jax.Array) -> jax.Array:
        pairs = (jnp.moveaxis(a[kept], 1, 0).reshape(betas.size - 1, -1) for a in (forward, reverse))
        return jnp.sum(jax.vmap(acceptance_ratio)(*pairs))

    log_z = total(jnp.arange(chains)) + path.log_partition()
    rest = (jnp.arange(chains - 1) + 1 + jnp.arange(chains)[:, None]) % chains
    without = jax.lax.map(total, rest)
    error = jnp.sqrt((chains - 1) * jnp.var(without))
    return Bridged(log_z, error, jnp.minimum(1 / error**2, chains * sweeps)), jnp.mean(accepted, axis=0)


class Bracket(NamedTuple):
    """A partition function from below and from above.

    Args:
        low, high: nats. `low` is the estimate of `ais` less 3 of its standard errors, `high` that of `reverse_ais` and
            3 of its own: with samples of the model the truth lies between, but for a chance below 1 in 300. Where the
            two have changed places, the outer ends of both.
        log_z: nats, by `bar` of both.
        standard_error: of `log_z`, nats.
        forward, reverse: the two `PartitionEstimate`s.
    """

    low: float
    high: float
    log_z: float
    standard_error: float
    forward: PartitionEstimate
    reverse: PartitionEstimate

    @property
    def kind(self) -> Kind:
        return Kind.ESTIMATE

    @property
    def width(self) -> float:
        """`high - low`, nats."""
        return self.high - self.low

    def __str__(self) -> str:
        return f"log Z {plus_minus(self.log_z, self.standard_error)} in [{self.low:.4f}, {self.high:.4f}] (estimate)"


def bracket(
    key: Any, path: Any, x: Any = None, *, chains: int = 500, steps: int = 1000, betas: Any = None, sweeps: int = 100
) -> Bracket:
    """`log Z` between annealing to the model and annealing away from it.

    Args:
        key: typed key.
        path: an `AnnealingPath`, or a model with an `annealing_path()`.
        x: events `[N, *event]` near the model: its own chains after training, or data that it was trained on; up to
            `chains` of them are used. None takes the ends of the forward chains, drawn by their weights: what those
            have not found the reverse ones do not know of either, so give `x` where there is one.
        chains: of either direction.
        steps: temperatures, evenly spaced.
        betas: increasing `[steps + 1]` from 0 to 1 in place of the even ones.
        sweeps: steps of the model's kernel from `x` before the reverse annealing begins.

    Returns:
        `Bracket`. A bracket of more than 1 nat, one whose estimates have changed places by more than 3 errors (`x` is
        not of the model, or is of a part of it), and one that is not finite are also a `JaxgenWarning`.

    Raises:
        ModelError: the model has no annealing path. FitError: counts or betas as in `ais`.

    Source: Grosse, Ghahramani and Adams (2015), Sandwiching the marginal likelihood using bidirectional Monte Carlo.

    Example:
        >>> from jaxgen.models.energy.rbm import RBM
        >>> rbm = RBM.from_values(jnp.ones(4), jnp.zeros(3), jnp.full((4, 3), 0.5))
        >>> found = bracket(jax.random.key(0), rbm, chains=200, steps=100)
        >>> bool(found.low < rbm.log_partition() < found.high), found.width < 0.1
        (True, True)
    """
    called = "bracket(key, path, x)"
    check_key(key, called)
    path = as_path(path, called)
    forward_key, move_key, reverse_key, draw_key = jax.random.split(key, 4)
    forward, ends = annealed(forward_key, path, chains, steps, betas, 0.0, called)
    if x is None:
        x = ends[jax.random.choice(draw_key, chains, (chains,), p=softmax(forward.log_weights))]
    else:
        x = jnp.asarray(as_array(x, name="x", called=called)).astype(ends.dtype)
        # without a choice of one's own: as they come, spread over all of them
        x = x[jnp.linspace(0, len(x) - 1, min(len(x), chains)).astype(jnp.int32)]
    x = _settled(move_key, path, x, sweeps)
    with warnings.catch_warnings():  # what is not finite is said once, below
        warnings.simplefilter("ignore", JaxgenWarning)
        reverse = reverse_ais(reverse_key, path, x, steps=steps, betas=betas)
    both = bar(forward, reverse)
    sides = [(float(e.log_z), ERRORS * float(e.standard_error)) for e in (forward, reverse)]
    # from below and from above; but where one of them is wrong nobody knows which, and neither is left out
    low, high = min(z - error for z, error in sides), max(z + error for z, error in sides)
    found = Bracket(low, high, float(both.log_z), float(both.standard_error), forward, reverse)
    crossed = sides[0][0] - sides[1][0] > math.hypot(sides[0][1], sides[1][1])
    if crossed or not found.width <= WIDE:
        why = (
            "is not finite" if not math.isfinite(found.width)
            else "has its ends the wrong way round: x is not of the model" if crossed else "is wider than a nat"
        )  # fmt: skip
        warnings.warn(
            f"{called}: [{low:.2f}, {high:.2f}] {why}; take more steps and chains, or samples nearer to the model",
            JaxgenWarning, stacklevel=2,
        )  # fmt: skip
    return found


@functools.partial(jax.jit, static_argnames="sweeps")
def _settled(key: Any, path: Any, x: jax.Array, sweeps: int) -> jax.Array:
    model = path.at(jnp.ones(()))
    return advanced(key, model, x, sweeps)
