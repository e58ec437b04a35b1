"""Two layers of units with edges between them only: what their units say of free energies, sweeps and states.

A machine gives its `Sides`; everything here follows from them, for every kind of unit and however the edges are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError
from jaxgen.ops.noise import uniform
from jaxgen.ops.stable import logsumexp, softmax
from jaxgen.units.base import (
    carried,
    is_discrete,
    joint_states,
    log_sum,
    open_interval,
    parts,
    softplus,
    state,
    state_blocks,
)

#: most joint states of a side that are still enumerated, those of 22 bits: seconds on one core
ENUMERABLE = 2**22
HIGHEST = jax.lax.Precision.HIGHEST


class Sides(NamedTuple):
    """A machine seen from one of its sides.

    `E(u, v) = B_near(u) + B_far(v) - to_far(t(u)) . (t(v) - far_center)`

    Args:
        near: the units of the side.
        far: those of the other one.
        to_far: the field that statistics `[..., near.size]` make on the other side, `[..., far.size]`.
        to_near: the same the other way.
        near_center: `[near.size]`, what is taken off the statistics of this side before weights see them.
        far_center: `[far.size]`.
    """

    near: Any
    far: Any
    to_far: Callable[[jax.Array], jax.Array]
    to_near: Callable[[jax.Array], jax.Array]
    near_center: jax.Array
    far_center: jax.Array

    def turned(self) -> Sides:
        """The same machine seen from the other side."""
        return Sides(self.far, self.near, self.to_near, self.to_far, self.far_center, self.near_center)

    @property
    def dtype(self) -> Any:
        return self.near_center.dtype


def free_energy(sides: Sides, u: jax.Array, field: Any = None) -> jax.Array:
    """`-log int exp(-E(u, v)) dv` in nats, `[..., near.sites] -> [...]`; `field` is what u makes, where it is known."""
    return _tilted(sides, u, None, 0, field)


def _tilted(sides: Sides, u: Any, near: Any, far: Any, field: Any = None) -> jax.Array:
    """The free energy with fields `near`, around the centre, and `far` added: its derivatives at zero are means."""
    statistic = sides.near.statistic(u)
    field = sides.to_far(statistic) if field is None else field
    own = sides.near.energy(u) + jnp.matmul(field, sides.far_center, precision=HIGHEST)
    if near is not None:
        own = own - jnp.matmul(statistic - sides.near_center, near, precision=HIGHEST)
    return own - jnp.sum(sides.far.log_partition(field + far), axis=-1)


def _pull(sides: Sides) -> jax.Array:
    """`-W far_center`, the field on this side where all statistics of the other one are zero."""
    return sides.to_near(jnp.zeros_like(sides.far_center))


def sweep(sides: Sides, key: Any, u: jax.Array, observed: Any = None) -> jax.Array:
    """Block Gibbs there and back, `[..., near.sites]`, from one array of random numbers; observed coordinates stay."""
    new = carried(sides.near, sweep_from(sides, key, sides.to_far(sides.near.statistic(u))), u.dtype)
    return new if observed is None else jnp.where(observed, u.astype(new.dtype), new)


def sweep_from(sides: Sides, key: Any, field: jax.Array) -> jax.Array:
    """The same from the field that the values made on the far side, `[..., far.size] -> [..., near.sites]`."""
    far = sides.far.sites
    noise = uniform(key, (*field.shape[:-1], far + sides.near.sites), sides.dtype)
    v = sides.far.sample(noise[..., :far], field)
    return sides.near.sample(noise[..., far:], sides.to_near(sides.far.statistic(v)))


def independent(sides: Sides, key: Any, shape: Any = ()) -> jax.Array:
    """Draws `[*shape, near.sites]` of this side's units under no field, where a chain starts."""
    noise = jax.random.uniform(key, (*shape, sides.near.sites), sides.dtype)
    return sides.near.sample(noise, jnp.zeros(sides.near.size, sides.dtype))


def enumerable(sides: Sides, called: str) -> Sides:
    """The machine from the side that has fewer states.

    Raises:
        ModelError: too many on either side.
    """
    counts = [joint_states(s.near) if is_discrete(s.near) else None for s in (sides, sides.turned())]
    few = [n for n in counts if n is not None and n <= ENUMERABLE]
    if not few:
        raise ModelError(
            "neither side can be enumerated", called=called,
            expected=f"a side with at most {ENUMERABLE} states, such as 22 bits",
            got=" and ".join("a continuum" if n is None else f"2^{np.log2(float(n)):.0f} states" for n in counts),
            fix="jaxgen.metrics.ais(key, model), an estimate with a standard error",
        )  # fmt: skip
    return sides if counts[0] == min(few) else sides.turned()


def _log_weight(sides: Sides, near: Any = None, far: Any = 0) -> Callable[[jax.Array], jax.Array]:
    """Minus the free energy, as a function of values of this side."""
    return lambda u: -_tilted(sides, u, near, far)


def log_partition(sides: Sides, near: Any = None, far: Any = 0) -> jax.Array:
    """`log Z` in nats over all states of this side, in blocks of bounded memory, also when differentiated."""
    return log_sum(sides.near, _log_weight(sides, near, far))


def means(sides: Sides) -> tuple[jax.Array, jax.Array]:
    """The exact means of the statistics of this side, which is enumerated, and of the other one."""
    zeros = (jnp.zeros_like(sides.near_center), jnp.zeros_like(sides.far_center))
    near, far = jax.grad(lambda fields: log_partition(sides, *fields))(zeros)
    return near + sides.near_center, far


def draw(sides: Sides, key: Any) -> tuple[jax.Array, jax.Array]:
    """One exact and independent pair of values of this side, which is enumerated, and of the other one."""
    log_weights, starts = state_blocks(sides.near, _log_weight(sides))
    # not a function of the key: one enumeration serves all draws that are mapped
    totals = jax.lax.map(lambda start: logsumexp(log_weights(start)), starts)
    noise = jax.random.uniform(key, (2 + sides.far.sites,), sides.dtype)
    block = _inverted(softmax(totals), noise[0])
    within = _inverted(softmax(log_weights(starts[block])), noise[1])
    u = state(sides.near, starts[block] + within.astype(jnp.uint32))
    return u, sides.far.sample(noise[2:], sides.to_far(sides.near.statistic(u)))


def _inverted(p: jax.Array, noise: jax.Array) -> jax.Array:
    """The number of the outcome that a uniform number stands for."""
    below = jnp.cumsum(p)
    return jnp.minimum(jnp.searchsorted(below, open_interval(noise) * below[-1], side="left"), len(p) - 1)


def _neighbours(sides: Sides, u: jax.Array, weights: jax.Array):
    """For each kind on this side: its first site, and `(site -> log p of other states less that of its own)` with
    what that takes, one row a site."""
    field = sides.to_far(sides.near.statistic(u))
    terms = sides.far.log_partition(field)

    def differences(one):
        change, cost, rows, pull = one
        moves = jnp.sum(change[:, :, None] * rows, axis=1)
        # a sum of small differences: the difference of the two sums would lose float32 digits
        gains = jnp.sum(sides.far.log_partition(field + moves) - terms, axis=-1)
        return gains + jnp.sum(change * pull, axis=-1) - cost

    site, row, pull = 0, 0, _pull(sides)
    for part in parts(sides.near):
        if part.states is None:
            raise ModelError(
                "conditionals of one coordinate are sums over its states", called="the pseudo-likelihood",
                expected="units of finitely many states on the visible side", got=type(part).__name__,
                fix="-model.energy(x) - model.log_partition(), where that can be enumerated",
            )  # fmt: skip
        change, cost = part.others(u[site : site + part.sites])
        here = slice(row, row + part.size)
        rows = weights[here].reshape((part.sites, -1, weights.shape[-1])), pull[here].reshape((part.sites, -1))
        yield site, differences, (change, cost, *rows)
        site, row = site + part.sites, row + part.size


def pseudo_log_likelihood(sides: Sides, u: jax.Array, weights: jax.Array) -> jax.Array:
    """`sum_i log p(u_i | all others)` of one event; `to_far` multiplies by `weights` `[near.size, far.size]`."""
    total = jnp.zeros((), sides.dtype)
    for _, differences, rows in _neighbours(sides, u, weights):
        # site after site, since [N, sites, far] numbers at once would be the largest array of a training run
        logits = jax.lax.map(differences, rows)
        total = total - jnp.sum(softplus(logsumexp(logits) if logits.shape[-1] > 1 else logits[..., 0]))
    return total


def log_conditional(sides: Sides, u: jax.Array, weights: jax.Array, site: int) -> jax.Array:
    """`log p(u_site = s | all others)` of one event for every state s, `[states]`; its own value is not looked at."""
    first = 0
    for part in parts(sides.near):
        if first <= site < first + part.sites and part.states is not None:
            u = u.at[site].set(part.choice(jnp.zeros((), u.dtype)).astype(u.dtype))
            break
        first += part.sites
    for at, differences, rows in _neighbours(sides, u, weights):
        if at == first:
            logits = differences(jax.tree.map(lambda a: a[site - first], rows))
            logits = jnp.concatenate([jnp.zeros_like(logits[:1]), logits])
            return logits - logsumexp(logits)
    raise AssertionError("a site of no part")


class MachinePath(NamedTuple):
    """A path between two machines, straight in their parameters.

    Where the energy is linear in the parameters it is the geometric one, `E_beta = (1 - beta) E_base + beta E_target`.

    Args:
        base: the machine at 0, of weights zero: its units are independent and its partition function is a product.
        target: the machine at 1.

    Example:
        >>> from jaxgen.models.energy.rbm import RBM
        >>> rbm = RBM.from_values(jnp.ones(3), jnp.ones(2), jnp.ones((3, 2)))
        >>> rbm.annealing_path().at(0.5).weights[0].tolist()
        [0.5, 0.5]
    """

    base: Any
    target: Any

    def at(self, beta) -> Any:
        """The machine at `beta` in [0, 1]; exactly the ends at the ends."""
        return jax.tree.map(lambda a, b: ((1 - beta) * a + beta * b).astype(b.dtype), self.base, self.target)

    def sample(self, key, shape=()) -> jax.Array:
        """Independent draws `[*shape, *event]` from `at(0)`, exact."""
        return independent(self.base.sides(), key, shape)

    def log_partition(self) -> jax.Array:
        """`log Z` of `at(0)` in nats, exact."""
        sides = self.base.sides()
        near, far = jnp.zeros_like(sides.near_center), jnp.zeros_like(sides.far_center)
        return jnp.sum(sides.near.log_partition(near)) + jnp.sum(sides.far.log_partition(far))
