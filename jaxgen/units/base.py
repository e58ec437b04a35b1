"""The protocol of a layer of units, and the small functions that its kinds share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.protocols import has
from jaxgen.core.pytree import combine, partition
from jaxgen.ops.stable import logsumexp

#: states per block of an enumeration: a block stays in the cache
BLOCK = 2**10


@runtime_checkable
class Units(Protocol):
    """A layer of independent units that others reach only through a linear input, the field.

    `p(u | field) = exp(field . t(u) - B(u) - A(field))`, with the statistic t, which is what weights see of the values,
    the base energy B, in which the layer's own parameters are, and the log-partition function A. Everything that a
    Boltzmann machine needs follows: the mean of t is the derivative of A, a free energy is B less the A of the units
    summed out, a Gibbs sweep is two calls of `sample`.

    A kind is an `@model` with these members; arrays have any leading axes.
    """

    #: states of a site; None for a continuum
    states: ClassVar[int | None]
    #: kinds of dtype that hold its values, as numpy names them: "b", "i", "u", "f"
    kinds: ClassVar[str]

    @property
    def sites(self) -> int:
        """Number of units, which is the length of their values."""
        ...

    @property
    def size(self) -> int:
        """Length of the statistic, which is the number of weights' rows."""
        ...

    def check(self, x: Any, called: str) -> None:
        """Refuses values `[*batch, sites]` that are none of these units'."""
        ...

    def statistic(self, u: jax.Array) -> jax.Array:
        """t: `[..., sites] -> [..., size]`."""
        ...

    def energy(self, u: jax.Array) -> jax.Array:
        """B, summed over the units, nats: `[..., sites] -> [...]`."""
        ...

    def log_partition(self, field: jax.Array) -> jax.Array:
        """A of each unit, nats: `[..., size] -> [..., sites]`."""
        ...

    def mean(self, field: jax.Array) -> jax.Array:
        """Return the mean of the statistic, the gradient of A: `[..., size] -> [..., size]`."""
        ...

    def sample(self, noise: jax.Array, field: jax.Array) -> jax.Array:
        """Values by inversion of one uniform number in [0, 1) each: `[..., sites]`, `[..., size] -> [..., sites]`."""
        ...

    def to_values(self, mean: jax.Array) -> jax.Array:
        """The mean of the values from the mean of the statistic; where values have none, as labels, the latter."""
        ...


class Grouped(Protocol):
    """Layers side by side, which are one layer. Default: a layer of one kind."""

    members: Any


@jax.custom_jvp
def softplus(x):
    """`log(1 + exp(x))`: three times the speed of `jax.nn.softplus` on CPU, and in a machine it is most of the work.

    Example:
        >>> round(float(softplus(jnp.float32(0.0))), 6)
        0.693147
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


# differentiated as what it is: the branches above have a wrong second derivative at 0, where every machine starts
softplus.defjvp(lambda primals, tangents: (softplus(*primals), jax.nn.sigmoid(*primals) * tangents[0]))


def is_discrete(units: Any) -> bool:
    """True if every unit of a layer has a finite number of states.

    Example:
        >>> from jaxgen.units import Bernoulli, Gaussian
        >>> is_discrete(Bernoulli.zeros(2)), is_discrete(Gaussian.zeros(2))
        (True, False)
    """
    return all(part.states is not None for part in parts(units))


def parts(units: Any) -> tuple[Any, ...]:
    """The layers of one kind that a layer is made of."""
    if not has(units, Grouped):
        return (units,)
    return tuple(part for member in units.members for part in parts(member))


def joint_states(units: Any) -> int:
    """The number of joint states of a discrete layer.

    Example:
        >>> from jaxgen.units import Bernoulli, Categorical, Group
        >>> joint_states(Group.of(Categorical.zeros(2, 3), Bernoulli.zeros(4)))
        144
    """
    count = 1
    for part in parts(units):
        count *= part.states**part.sites
    return count


def neutral(units: Any) -> Any:
    """The same layer without its biases: what it trains at zero.

    Example:
        >>> from jaxgen.units import Spin
        >>> neutral(Spin(jnp.ones(2))).bias.tolist()
        [0.0, 0.0]
    """
    trained, rest = partition(units)
    return combine(jax.tree.map(jnp.zeros_like, trained), rest)


def state(units: Any, index: jax.Array) -> jax.Array:
    """The values of the joint states of the numbers `index`, below `joint_states`: `[...] -> [..., sites]`.

    Example:
        >>> from jaxgen.units import Spin
        >>> state(Spin.zeros(2), jnp.arange(4)).tolist()
        [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]
    """
    values, index = [], index.astype(jnp.uint32)
    for part in parts(units):
        values.append(part.choice(_digits(index, part.states, part.sites)))
        index = index // np.uint32(part.states**part.sites) if len(parts(units)) > 1 else index
    return jnp.concatenate(values, axis=-1)


def _digits(index: jax.Array, base: int, n: int) -> jax.Array:
    """The lowest n digits of numbers, the first one first: `[...] -> [..., n]`."""
    bits, places = base.bit_length() - 1, np.arange(n, dtype=np.uint32)
    if base == 1 << bits:  # a division costs as much as all else in an enumeration of small machines
        return (index[..., None] >> (np.uint32(bits) * places)) & np.uint32(base - 1)
    return (index[..., None] // np.uint32(base) ** places) % np.uint32(base)


def state_blocks(
    units: Any, log_weight: Callable[[jax.Array], jax.Array]
) -> tuple[Callable[[Any], jax.Array], jax.Array]:
    """The joint states in blocks: a function of a block's first state to the log-weights of all in it, and these.

    Args:
        units: a discrete layer.
        log_weight: of values `[M, sites]`, `[M]` nats.
    """
    count = joint_states(units)
    size = min(count, BLOCK)

    def block(start: Any) -> jax.Array:
        index = start + jnp.arange(size, dtype=jnp.uint32)
        if count % size == 0:
            return log_weight(state(units, index))
        known = index < count
        return jnp.where(known, log_weight(state(units, jnp.where(known, index, 0))), -jnp.inf)

    return block, size * jnp.arange(-(-count // size), dtype=jnp.uint32)


def log_sum(units: Any, log_weight: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`log sum exp` over all joint states, in blocks of bounded memory, also when differentiated.

    Example:
        >>> from jaxgen.units import Spin
        >>> round(float(jnp.exp(log_sum(Spin.zeros(3), lambda u: jnp.zeros(len(u))))))
        8
    """
    block, starts = state_blocks(units, log_weight)
    # recomputed in the backward pass, so that a gradient over millions of states needs the memory of one block
    one = jax.checkpoint(lambda start: logsumexp(block(start)))
    # one number per block and a second sum over them: a running sum over 2^22 terms would lose float32 digits
    return logsumexp(jax.lax.map(one, starts))


def carried(units: Any, values: jax.Array, dtype: Any) -> jax.Array:
    """Values in the dtype of events where it can hold them, so that sweeps can be scanned."""
    holds = all(np.dtype(dtype).kind in part.kinds for part in parts(units))
    return values.astype(dtype) if holds else values


def open_interval(noise: jax.Array) -> jax.Array:
    """Uniform numbers on [0, 1) without the 0, so that every quantile is finite."""
    return jnp.maximum(noise, noise.dtype.type(0.25 * jnp.finfo(noise.dtype).eps))


def table(x: Any, called: str) -> jax.Array:
    """Events `[N, sites]` as a floating array."""
    x = jnp.asarray(as_array(x, name="x", called=called))
    if x.ndim != 2:
        raise ShapeError(
            "the data are no table", called=called, expected="[N, V], one event a row", got=f"shape {list(x.shape)}",
            fix="np.reshape(x, (len(x), -1))",
        )  # fmt: skip
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def refuse(
    x: Any, wrong: Callable[[np.ndarray], np.ndarray], called: str, what: str, expected: str,
    fix: Callable[[np.ndarray], str],
) -> None:  # fmt: skip
    """Values of a concrete array are checked; a traced one was data before and is trusted."""
    x = as_array(x, name="x", called=called)
    if not concrete(x):
        return
    host = np.asarray(x)
    other = wrong(host)
    if other.any():
        where = tuple(int(i) for i in np.argwhere(other)[0])
        raise DataError(
            f"the data are {what}", called=called, expected=expected, fix=fix(host),
            got=f"{int(other.sum())} of {host.size} other values, the first {host[where]} at index {where}",
        )  # fmt: skip
