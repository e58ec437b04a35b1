"""Markov random fields of pairs: Ising and Potts models on any graph, sampled one colour of sites after another."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.inputs import as_array, widened
from jaxgen.core.methods import per_batch, per_event, per_sample
from jaxgen.core.pytree import combine, fixed, float_type, model, partition
from jaxgen.ops import graphs
from jaxgen.ops.noise import uniform
from jaxgen.units.base import carried, is_discrete, joint_states, log_sum, neutral, parts
from jaxgen.units.bipartite import ENUMERABLE
from jaxgen.units.discrete import Categorical, Spin
from jaxgen.units.group import Group


@model
class RandomField:
    """Units on the sites of a graph, coupled along its edges.

    `p(x) = exp(-E(x)) / Z`, `E(x) = B(x) - sum_e J_e t(x_i) . t(x_j)` over the edges e from i to j, where the units'
    base energy B holds the fields and t is their statistic: of spins `E = -sum_i h_i s_i - sum_e J_e s_i s_j`, the
    Ising model; of labels `E = -sum_i h_i[x_i] - sum_e J_e [x_i = x_j]`, the Potts model. Positive couplings make
    neighbours alike.

    An `Energy`. Sites of one colour have no edges between them and are drawn at once; the graph is data, so that one
    program serves all graphs of as many sites, edges, colours and neighbours.

    Args:
        units: N sites of one kind, such as `units.Spin`.
        couplings: J, `[E]`.
        edges: `[E, 2]` sites.
        sites: `[C, M]`, those of each colour, see `ops.graphs.Neighbours`.
        others: `[C, M, D]`, their neighbours.
        incident: `[C, M, D]`, the edges to them.

    Source: Ising (1925), Beitrag zur Theorie des Ferromagnetismus; Potts (1952), Some generalized order-disorder
    transformations; Gonzalez, Low, Gretton and Guestrin (2011), Parallel Gibbs sampling: from colored fields to thin
    junction trees, for the colours.

    Example:
        >>> triangle = RandomField.ising([[0, 1], [1, 2], [0, 2]], -1.0, field=[0.2, 0.0, 0.0])
        >>> round(float(triangle.log_partition()), 6), round(float(triangle.marginals()[0]), 6)
        (2.817714, 0.197375)
    """

    units: Any
    couplings: jax.Array
    edges: jax.Array = fixed()
    sites: jax.Array = fixed()
    others: jax.Array = fixed()
    incident: jax.Array = fixed()

    @classmethod
    def from_edges(cls, units, edges, couplings) -> RandomField:
        """From units of one kind, edges `[E, 2]` and couplings `[E]` or one number.

        Raises:
            ModelError: units of several kinds, edges that lead nowhere or are there twice, other couplings than edges.
            ShapeError: edges that are no pairs.

        Example:
            >>> from jaxgen import units
            >>> RandomField.from_edges(units.Bernoulli.zeros(3), [[0, 1], [1, 2]], [1.0, -1.0]).event_shape
            (3,)
        """
        called = "RandomField.from_edges(units, edges, couplings)"
        if len(parts(units)) != 1 or isinstance(units, Group):
            raise ModelError(
                "the sites of a random field are units of one kind", called=called, got=type(units).__name__,
                expected="such as units.Spin.zeros(n)",
            )  # fmt: skip
        # on the host: the colours are found there
        edges = np.asarray(as_array(edges, name="edges", called=called)) if np.size(edges) else np.zeros((0, 2), int)
        table = graphs.neighbours(edges, units.sites)
        couplings = jnp.asarray(as_array(couplings, name="couplings", called=called))
        dtype = jnp.result_type(couplings, float_type(units))
        if couplings.shape not in ((), (len(edges),)):
            raise ModelError(
                "couplings do not fit the edges", called=called, expected=f"[{len(edges)}], or one number",
                got=f"shape {list(couplings.shape)}",
            )  # fmt: skip
        couplings = jnp.broadcast_to(couplings, (len(edges),)).astype(dtype)
        units = jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, units)
        return cls(units, couplings, jnp.asarray(edges, jnp.int32), *map(jnp.asarray, table))

    @classmethod
    def ising(cls, edges, couplings, field=0.0) -> RandomField:
        """Spins of -1 and +1, from edges `[E, 2]`, couplings `[E]` or one number, and fields `[N]` or one number.

        With one number as the field, N is the highest site of the edges and one more.

        Raises:
            ModelError, ShapeError: as `from_edges`.

        Example:
            >>> from jaxgen.ops.graphs import lattice
            >>> RandomField.ising(lattice((16, 16)), 0.44).event_shape
            (256,)
        """
        return cls.from_edges(Spin(_fields(edges, field, 0)), edges, couplings)

    @classmethod
    def potts(cls, edges, couplings, states, field=0.0) -> RandomField:
        """Labels from 0 to `states - 1`, from edges, couplings, and fields `[N, states]` or one number.

        Raises:
            ModelError, ShapeError: as `from_edges`, and fields of another number of states.

        Example:
            >>> round(float(RandomField.potts([[0, 1]], 1.0, 3).log_partition()), 4)  # log(6 + 3 e)
            2.6501
        """
        field = _fields(edges, field, 1)
        if field.shape[1:] not in ((1,), (states,)):
            raise ModelError(
                "fields do not fit the states", called="RandomField.potts(edges, couplings, states, field)",
                expected=f"[N, {states}], or one number", got=f"shape {list(field.shape)}",
            )  # fmt: skip
        return cls.from_edges(Categorical(jnp.broadcast_to(field, (len(field), states))), edges, couplings)

    @classmethod
    def from_matrix(cls, units, couplings) -> RandomField:
        """From a symmetric matrix of couplings `[N, N]`: edges where it is not zero.

        Raises:
            ModelError: a matrix that is not symmetric, or not zero on its diagonal. ShapeError: no such matrix.

        Example:
            >>> from jaxgen import units
            >>> RandomField.from_matrix(units.Spin.zeros(2), [[0.0, 2.0], [2.0, 0.0]]).couplings.tolist()
            [2.0]
        """
        called = "RandomField.from_matrix(units, couplings)"
        matrix = np.asarray(as_array(couplings, name="couplings", called=called))
        if matrix.shape != (units.sites, units.sites):
            raise ShapeError(
                "couplings are one number for each pair of sites", called=called,
                expected=f"[{units.sites}, {units.sites}]", got=f"shape {list(matrix.shape)}",
            )  # fmt: skip
        # what was computed in float32 is symmetric but for rounding
        uneven = np.abs(matrix - matrix.T).max(initial=0) > 1e-5 * np.abs(matrix).max(initial=0)
        if uneven or matrix.diagonal().any():
            raise ModelError(
                "couplings are not those of pairs", called=called, expected="a symmetric matrix, zero on the diagonal",
                got=f"differences up to {abs(matrix - matrix.T).max():g}, {abs(matrix.diagonal()).max():g} on it",
                fix="(np.add(couplings, np.transpose(couplings)) / 2) * (1 - np.eye(len(couplings)))",
            )  # fmt: skip
        edges = np.argwhere(np.triu(matrix) != 0)
        return cls.from_edges(units, edges, matrix[tuple(edges.T)])

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.units.sites,)

    def check_data(self, x) -> None:
        """Refuses data that are none of the units'.

        Raises:
            DataError: other values; the message says what to do with them.
        """
        self.units.check(as_array(x), "RandomField.check_data(x)")

    def _statistic(self, x):
        """`[N, S]` of one event, S numbers a site."""
        return self.units.statistic(x).reshape((self.units.sites, -1))

    @per_event
    def energy(self, x) -> jax.Array:
        """E, `-log p(x) - log Z` in nats, `[*batch, N] -> [*batch]`."""
        t = self._statistic(x)
        alike = jnp.sum(t[self.edges[:, 0]] * t[self.edges[:, 1]], axis=1)
        return self.units.energy(x) - jnp.sum(self.couplings * alike)

    def _weights(self):
        """The couplings to each neighbour, `[C, M, D]`; zero where there is none."""
        return jnp.append(self.couplings, jnp.zeros((), self.couplings.dtype))[self.incident]

    def _sweep(self, key, x, observed, reverse):
        """All colours once; chains are on the last axis, so that a neighbour is a row of them."""
        n = self.units.sites
        values = x.astype(self.couplings.dtype).T
        t = jnp.moveaxis(self.units.statistic(x).reshape((len(x), n, -1)), 0, -1)
        noise = uniform(key, (*self.sites.shape, len(x)), self.couplings.dtype)

        def colour(carry, block):
            (values, t), (sites, others, weights, noise) = carry, block
            field = _field(t, others, weights)
            here = jax.tree.map(lambda leaf: leaf[jnp.minimum(sites, n - 1)], self.units)
            new = jax.vmap(here.sample, (1, 1), 1)(noise, field.reshape((-1, field.shape[-1])))
            if observed is not None:
                kept = jnp.minimum(sites, n - 1)
                new = jnp.where(observed.T[kept], values[kept], new)
            seen = jax.vmap(here.statistic, 1, 1)(new).reshape(field.shape)
            # the places that fill up a colour are no sites: nothing is written there
            return (values.at[sites].set(new, mode="drop"), t.at[sites].set(seen, mode="drop")), None

        blocks = self.sites, self.others, self._weights(), noise
        (values, _), _ = jax.lax.scan(colour, (values, t), blocks, reverse=reverse)
        return carried(self.units, values.T, x.dtype)

    @per_batch
    def kernel(self, key, x, *, observed=None) -> jax.Array:
        """One sweep of Gibbs sampling, every site once, the colours in order, `[*batch, N] -> [*batch, N]`.

        Returns values in the dtype of `x` where that can hold them, so that sweeps can be scanned. Sites that are
        `observed` keep their value: the chain then tends to `p(rest | observed)`.

        Source: Geman & Geman (1984), Stochastic relaxation, Gibbs distributions, and the restoration of images.
        """
        return self._sweep(key, x, observed, False)

    @per_batch
    def reverse_kernel(self, key, x) -> jax.Array:
        """The sweep backwards in time, the colours in reverse, for `metrics.reverse_ais`."""
        return self._sweep(key, x, None, True)

    @per_event
    def pseudo_log_likelihood(self, x) -> jax.Array:
        """`sum_i log p(x_i | all others)` in nats, `[*batch, N] -> [*batch]`.

        It needs no partition function, and its maximum tends to the true parameters. It is not a bound.

        Source: Besag (1975), Statistical analysis of non-lattice data.
        """
        t = self._statistic(x)

        def colour(field, block):
            sites, others, weights = block
            return field.at[sites].set(_field(t[..., None], others, weights)[..., 0], mode="drop"), None

        field, _ = jax.lax.scan(colour, jnp.zeros_like(t), (self.sites, self.others, self._weights()))
        own = jnp.sum(t * field) - self.units.energy(x)
        return own - jnp.sum(self.units.log_partition(field.reshape(-1)))

    @per_sample
    def sample(self, key, shape=(), *, context=None, sweeps=1000) -> jax.Array:
        """Approximate draws `[*shape, N]`: one chain each, `sweeps` from sites without couplings.

        The chain tends to p, but says nothing of how near it came: below the temperature at which a lattice orders it
        stays on one side for longer than anyone has.
        """
        start, chain = jax.random.split(key)
        noise = jax.random.uniform(start, (self.units.sites,), self.couplings.dtype)
        x = self.units.sample(noise, jnp.zeros(self.units.size, noise.dtype))
        return jax.lax.fori_loop(0, sweeps, lambda t, x: self.kernel(jax.random.fold_in(chain, t), x), x)

    def log_partition(self) -> jax.Array:
        """`log Z` in nats, exact, over all joint states, in blocks of bounded memory, also when differentiated.

        Raises:
            ModelError: more than 2^22 states, as of 22 spins, or units of real numbers.
        """
        return _log_partition(self, jnp.zeros(self.units.size, self.couplings.dtype))

    def marginals(self) -> jax.Array:
        """The exact means of the statistics, `[N]` of spins, `[N * states]` of labels; raises as `log_partition`."""
        return jax.grad(_log_partition, 1)(self, jnp.zeros(self.units.size, self.couplings.dtype))

    def annealing_path(self) -> FieldPath:
        """The path from uncoupled sites without fields to this model, for `metrics.ais` and its kin."""
        none = jnp.zeros_like(self.couplings)
        return FieldPath(dataclasses.replace(self, units=neutral(self.units), couplings=none), self)


class FieldPath(NamedTuple):
    """The geometric path between two random fields on one graph, straight in their parameters.

    Args:
        base: the one at 0, of couplings zero.
        target: the one at 1.

    Example:
        >>> field = RandomField.ising([[0, 1]], 2.0)
        >>> field.annealing_path().at(0.5).couplings.tolist()
        [1.0]
    """

    base: RandomField
    target: RandomField

    def at(self, beta) -> RandomField:
        """The field at `beta` in [0, 1]; exactly the ends at the ends."""
        (low, _), (high, rest) = partition(self.base), partition(self.target)
        return combine(jax.tree.map(lambda a, b: ((1 - beta) * a + beta * b).astype(b.dtype), low, high), rest)

    def sample(self, key, shape=()) -> jax.Array:
        """Independent draws `[*shape, N]` from `at(0)`, exact."""
        units = self.base.units
        noise = jax.random.uniform(key, (*shape, units.sites), self.base.couplings.dtype)
        return units.sample(noise, jnp.zeros((*shape, units.size), noise.dtype))

    def log_partition(self) -> jax.Array:
        """`log Z` of `at(0)` in nats, exact."""
        units = self.base.units
        return jnp.sum(units.log_partition(jnp.zeros(units.size, self.base.couplings.dtype)))


def _field(t, others, weights):
    """`sum_d w_d t(x_d)` over neighbours, `[N, S, B], [M, D], [M, D] -> [M, S, B]`."""
    start = jnp.zeros((len(others), *t.shape[1:]), t.dtype)
    # neighbour by neighbour: all at once is an array of D times the size, which the cache does not hold
    return jax.lax.fori_loop(
        0, others.shape[1], lambda d, a: a + weights[:, d, None, None] * t[others[:, d]], start, unroll=4
    )


@jax.jit
def _log_partition(field_model, tilt):
    field_model, tilt = widened((field_model, tilt))
    units = field_model.units
    count = joint_states(units) if is_discrete(units) else None
    if count is None or count > ENUMERABLE:
        raise ModelError(
            "the sites have too many joint states to be enumerated", called="RandomField.log_partition()",
            expected=f"at most {ENUMERABLE} states, such as 22 spins",
            got="a continuum" if count is None else f"2^{np.log2(float(count)):.0f} states",
            fix="jaxgen.metrics.bracket(key, model), an estimate with a standard error",
        )  # fmt: skip
    return log_sum(
        units, lambda x: jnp.matmul(units.statistic(x), tilt, precision="highest") - field_model.energy(x)
    )


def _fields(edges, field, axes):
    """Fields of all sites: one number is that of every site that an edge leads to."""
    field = jnp.asarray(as_array(field, name="field", called="RandomField(edges, couplings, field)"))
    field = field if jnp.issubdtype(field.dtype, jnp.floating) else field.astype(jnp.result_type(float))
    return field if field.ndim else jnp.broadcast_to(field, (int(np.max(edges, initial=-1)) + 1,) + (1,) * axes)
