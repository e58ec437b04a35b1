"""Restricted Boltzmann machines: two layers of units of any kind, and edges between them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.compiled import compiled_once
from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array, widened
from jaxgen.core.methods import per_batch, per_event, per_latent, per_sample
from jaxgen.core.protocols import has
from jaxgen.core.pytree import fixed, model
from jaxgen.units import bipartite
from jaxgen.units.base import Units, neutral, table
from jaxgen.units.bipartite import MachinePath, Sides
from jaxgen.units.discrete import Bernoulli, Categorical, Spin
from jaxgen.units.real import Rectified

HIGHEST = jax.lax.Precision.HIGHEST


class Marginals(NamedTuple):
    """Exact means of the two sides of a machine.

    Args:
        visible: `[V]`, in the units of the data; of labels the probabilities of their states.
        hidden: `[H]`, of the statistics, as `RBM.encode` gives them.
    """

    visible: jax.Array
    hidden: jax.Array


@model
class RBM:
    """The restricted Boltzmann machine: visible and hidden units, edges only between the two sides.

    `p(v, h) = exp(-E(v, h)) / Z` with `E(v, h) = B(v) + B(h) - (t(v) - m) W (t(h) - l)`, where the units' base energies
    B hold their biases and their statistics t are what weights see of them; of bits `B(v) = -b.v` and `t(v) = v`.
    Summed over the hidden units `p(v) = exp(-F(v)) / Z` with the free energy F, for bits on both sides and centres of
    zero `F(v) = -b.v - sum_j log(1 + exp(c_j + v W_j))`.

    An `Energy`: `energy` is F, and `Z` is known only where one side can be enumerated (`log_partition`) or estimated
    (`metrics.partition.ais`). Any kind of unit stands on either side. Where both sides are unbounded (Gaussian or
    rectified units) there is a density only while no singular value of the weights reaches 1.

    The centres m and l do not change what the machine can express, only the direction of its gradient, which is
    `<(t(v) - m) (t(h) - l)>_data - <(t(v) - m) (t(h) - l)>_model`: better conditioned where they are near the means.

    Args:
        visible: units of the visible side, such as `units.Bernoulli`, `units.Gaussian`, or a `units.Group`.
        hidden: units of the hidden side.
        weights: W, `[visible.size, hidden.size]`; labels have a row for each state.
        visible_center: m, `[visible.size]`, not trained.
        hidden_center: l, `[hidden.size]`, not trained.

    Source: Smolensky (1986), Information processing in dynamical systems; Hinton (2002), Training products of experts;
    Welling, Rosen-Zvi & Hinton (2004), Exponential family harmoniums, for the kinds of units; Montavon & Müller (2012),
    Deep Boltzmann machines and the centering trick.

    Example:
        >>> rbm = RBM.from_values(jnp.zeros(3), jnp.zeros(2), jnp.zeros((3, 2)))
        >>> round(float(rbm.energy(jnp.array([0, 1, 1])) / jnp.log(2.0)), 4)
        -2.0
        >>> round(float(rbm.log_partition() / jnp.log(2.0)), 4)
        5.0
    """

    visible: Any
    hidden: Any
    weights: jax.Array
    visible_center: jax.Array = fixed()
    hidden_center: jax.Array = fixed()

    @classmethod
    def init(cls, key, x, hidden, *, visible=Bernoulli.init, scale=0.01, centred=False) -> RBM:
        """Small random weights, hidden units without bias, and visible units that start at the data.

        Args:
            key: typed key.
            x: events `[N, V]`, for the default bits, of any dtype; a bool becomes a float.
            hidden: number of hidden bits, at least 1, or a layer such as `units.Spin.zeros(16)`.
            visible: start of the visible units, `x -> units`: `units.Gaussian.init` for real numbers,
                `units.group((1, units.Categorical.init), (64, units.Bernoulli.init))` for a label and 64 bits.
            scale: standard deviation of the weights.
            centred: puts the centres at the data's means and the hidden means of this start, not at zero.

        Raises:
            DataError: data that are none of the visible units', such as other than zeros and ones.
            ModelError: no hidden unit.
            ShapeError: data that are no table.

        Source: Hinton (2012), A practical guide to training restricted Boltzmann machines, section 8.

        Example:
            >>> rbm = RBM.init(jax.random.key(0), jnp.array([[0, 1], [1, 1], [0, 1]]), 4)
            >>> rbm.weights.shape, [round(float(b), 2) for b in rbm.visible_bias]
            ((2, 4), [-0.51, 1.95])
        """
        x, hidden = table(x, "RBM.init(key, x, hidden)"), _hidden_units(hidden)
        visible = visible(x)
        hidden = jax.tree.map(lambda a: a.astype(x.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, hidden)
        weights = _normal(key, scale, (visible.size, hidden.size), x.dtype)
        rbm = cls.from_units(visible, hidden, weights)
        if not centred:
            return rbm
        means = jnp.mean(visible.statistic(x), axis=0), hidden.mean(jnp.zeros(hidden.size, x.dtype))
        return dataclasses.replace(rbm, visible_center=means[0], hidden_center=means[1])

    @classmethod
    def from_units(cls, visible, hidden, weights, *, visible_center=None, hidden_center=None) -> RBM:
        """From two layers of units, weights `[visible.size, hidden.size]`, and centres, by default zero.

        Raises:
            ModelError: shapes that do not fit each other.

        Example:
            >>> from jaxgen import units
            >>> RBM.from_units(units.Gaussian.zeros(3), units.Spin.zeros(2), jnp.zeros((3, 2))).event_shape
            (3,)
        """
        weights = jnp.asarray(as_array(weights, name="weights"))
        called, wanted = "RBM.from_units(visible, hidden, weights)", (visible.size, hidden.size)
        if weights.shape != wanted:
            raise ModelError(
                "weights and units do not fit each other", called=called, expected=f"weights {list(wanted)}",
                got=f"shape {list(weights.shape)}",
                fix="np.transpose(weights)" if weights.T.shape == wanted else "",
            )  # fmt: skip
        centers = []
        for center, size in zip((visible_center, hidden_center), wanted, strict=True):
            center = np.zeros(size) if center is None else as_array(center, name="center")
            if np.shape(center) != (size,):
                raise ModelError(
                    "a centre does not fit its units", called=called, expected=f"[{size}]",
                    got=f"shape {list(np.shape(center))}",
                )  # fmt: skip
            centers.append(jnp.asarray(center).astype(weights.dtype))
        return cls(visible, hidden, weights, *centers)

    @classmethod
    def from_values(cls, visible_bias, hidden_bias, weights) -> RBM:
        """Bits on both sides, from biases `[V]` and `[H]` and weights `[V, H]`, brought to one floating dtype.

        Raises:
            ModelError: shapes that do not fit each other.
        """
        named = {"visible_bias": visible_bias, "hidden_bias": hidden_bias, "weights": weights}
        arrays = [jnp.asarray(as_array(value, name=name)) for name, value in named.items()]
        dtype = jnp.result_type(*arrays)
        dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
        b, c, w = (a.astype(dtype) for a in arrays)
        if b.ndim != 1 or c.ndim != 1 or w.shape != (*b.shape, *c.shape):
            raise ModelError(
                "weights and biases do not fit each other", expected="[V], [H] and [V, H]",
                called="RBM.from_values(visible_bias, hidden_bias, weights)",
                got=f"{list(b.shape)}, {list(c.shape)} and {list(w.shape)}",
                fix="np.transpose(weights)" if w.T.shape == (*b.shape, *c.shape) else "",
            )  # fmt: skip
        return cls(Bernoulli(b), Bernoulli(c), w, jnp.zeros_like(b), jnp.zeros_like(c))

    @property
    def visible_bias(self) -> jax.Array:
        """The biases of the visible units, where their kind has such."""
        return self.visible.bias

    @property
    def hidden_bias(self) -> jax.Array:
        """The biases of the hidden units, where their kind has such."""
        return self.hidden.bias

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.visible.sites,)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.hidden.size,)

    @property
    def transposed(self) -> RBM:
        """The same machine with its sides exchanged: its `energy` is the free energy of hidden values."""
        return RBM(self.hidden, self.visible, self.weights.mT, self.hidden_center, self.visible_center)

    def check_data(self, x) -> None:
        """Refuses data that are none of the visible units', which a machine would accept and model wrongly.

        Raises:
            DataError: other values; the message says what to do with them.
        """
        self.visible.check(as_array(x), "RBM.check_data(x)")

    def sides(self) -> Sides:
        """The machine from its visible side, for `units.bipartite`."""
        return Sides(
            self.visible, self.hidden, lambda t: jnp.matmul(t - self.visible_center, self.weights, precision=HIGHEST),
            lambda t: jnp.matmul(t - self.hidden_center, self.weights.T, precision=HIGHEST),
            self.visible_center, self.hidden_center,
        )  # fmt: skip

    @per_event
    def energy(self, x) -> jax.Array:
        """The free energy F: `-log p(x) - log Z` in nats, `[*batch, V] -> [*batch]`."""
        return bipartite.free_energy(self.sides(), x)

    @per_batch
    def kernel(self, key, x, *, observed=None) -> jax.Array:
        """One sweep of block Gibbs sampling, visible to hidden to visible, `[*batch, V] -> [*batch, V]`.

        `h ~ p(h | v)`, `v' ~ p(v' | h)`. Returns values in the dtype of `x` where that can hold them, so that sweeps
        can be scanned. Coordinates that are `observed` keep their value: the chain then tends to `p(rest | observed)`.

        Source: Geman & Geman (1984), Stochastic relaxation, Gibbs distributions, and the restoration of images.
        """
        return bipartite.sweep(self.sides(), key, x, observed)

    @per_batch
    def energy_and_field(self, x):
        """`energy`, and the field of x on the hidden units, `[*batch, V] -> [*batch], [*batch, hidden.size]`."""
        sides = self.sides()
        field = sides.to_far(self.visible.statistic(x))
        return bipartite.free_energy(sides, x, field), field

    def kernel_from(self, key, field):
        """`kernel` from the field that the last values made, `[N, hidden.size] -> [N, V]`: one matrix product less."""
        return bipartite.sweep_from(self.sides(), key, field)

    @per_event
    def encode(self, x) -> jax.Array:
        """The means of the hidden statistics given x, of bits `p(h_j = 1 | v)`, `[*batch, V] -> [*batch, H]`."""
        return self.hidden.mean(self.sides().to_far(self.visible.statistic(x)))

    @per_event
    def sample_hidden(self, key, x) -> jax.Array:
        """Hidden values, `h ~ p(h | v)`, `[*batch, V] -> [*batch, H]`."""
        noise = jax.random.uniform(key, (self.hidden.sites,), self.weights.dtype)
        return self.hidden.sample(noise, self.sides().to_far(self.visible.statistic(x)))

    @per_latent
    def decode(self, z) -> jax.Array:
        """The means of the visible values given hidden statistics, of bits `p(v_i = 1 | h)`, `[*batch, H] -> [*batch,
        V]`; hidden means in place of values give the mean field. Labels are probabilities of their states."""
        return self.visible.to_values(self.visible.mean(self.sides().to_near(z.astype(self.weights.dtype))))

    @per_event
    def pseudo_log_likelihood(self, x) -> jax.Array:
        """`sum_i log p(v_i | all others)` in nats, over every unit and not a random one, `[*batch, V] -> [*batch]`.

        It needs no partition function. It is not a bound on the log-likelihood, in either direction.

        Raises:
            ModelError: visible units of real numbers.

        Source: Besag (1975), Statistical analysis of non-lattice data.
        """
        return bipartite.pseudo_log_likelihood(self.sides(), x, self.weights)

    @per_event
    def log_conditional(self, x, *, site=0) -> jax.Array:
        """`log p(v_site = s | all other units)` for every state s, exact, `[*batch, V] -> [*batch, states]`.

        The value that x has there is not looked at. With a label as its first visible unit the machine is a classifier,
        and this its `log p(label | rest)`.

        Args:
            x: events; any state of the unit may stand at `site`.
            site: which visible unit, from 0.

        Raises:
            ModelError: no such unit, or visible units of real numbers.

        Source: Larochelle & Bengio (2008), Classification using discriminative restricted Boltzmann machines.

        Example:
            >>> from jaxgen import units
            >>> visible = units.Group.of(units.Categorical.zeros(1, 2), units.Bernoulli.zeros(1))
            >>> weights = jnp.array([[0.0], [2.0], [2.0]])  # one hidden bit, seen by label 1 and the pixel
            >>> rbm = RBM.from_units(visible, units.Bernoulli.zeros(1), weights)
            >>> [round(float(p), 2) for p in jnp.exp(rbm.log_conditional(jnp.array([0, 1])))]
            [0.13, 0.87]
        """
        if not 0 <= site < self.visible.sites:
            raise ModelError(
                "there is no such visible unit", called=f"RBM.log_conditional(x, site={site})",
                expected=f"0 to {self.visible.sites - 1}", got=str(site),
            )  # fmt: skip
        return bipartite.log_conditional(self.sides(), x, self.weights, site)

    @per_sample
    def sample(self, key, shape=(), *, context=None, sweeps=1000) -> jax.Array:
        """Approximate draws `[*shape, V]`: one chain each, `sweeps` of block Gibbs from independent visible units.

        The start is the visible units under no field, of bits `v_i ~ Bernoulli(sigmoid(b_i))`. The chain tends to p,
        but says nothing of how near it came: a machine with several deep modes needs more sweeps than anyone has.
        """
        start, chain = jax.random.split(key)
        v = bipartite.independent(self.sides(), start)
        # every key is folded out of one, so that no list of them is held
        return jax.lax.fori_loop(0, sweeps, lambda t, v: self.kernel(jax.random.fold_in(chain, t), v), v)

    @per_sample
    def sample_exact(self, key, shape=(), *, context=None) -> jax.Array:
        """Exact and independent draws `[*shape, V]`, by enumeration of the side that has fewer states.

        Raises:
            ModelError: as `log_partition`.
        """
        sides = self.sides()
        few = bipartite.enumerable(sides, "RBM.sample_exact(key)")
        near, far = bipartite.draw(few, key)
        return near if few.near is sides.near else far

    def log_partition(self) -> jax.Array:
        """`log Z` in nats, exact: all states of the side that has fewer are enumerated, in blocks of bounded memory.

        Differentiable, also in bounded memory: the gradient is the vector of exact expectations, for example of bits
        `jax.grad(RBM.log_partition)(rbm).visible_bias` is `E[v]`.

        Raises:
            ModelError: more than 2^22 states on either side, as of 22 bits; real numbers have no end of them.
        """
        return _log_partition(self)

    def marginals(self) -> Marginals:
        """The exact means of both sides, by enumeration.

        Raises:
            ModelError: as `log_partition`.

        Example:
            >>> rbm = RBM.from_values(jnp.zeros(2), jnp.zeros(1), jnp.zeros((2, 1)))
            >>> rbm.marginals().visible.tolist()
            [0.5, 0.5]
        """
        return _marginals(self)

    def annealing_path(self, base=None) -> MachinePath:
        """The path from independent visible units to this machine, for `metrics.partition.ais`.

        Args:
            base: the visible units at the start, of this machine's kind; of units with biases these are enough. None
                takes this machine's own. What the visible units start from in `init` is good for a trained machine.

        Raises:
            ModelError: a base of another shape.

        Source: Salakhutdinov & Murray (2008), On the quantitative analysis of deep belief networks, section 4.1.
        """
        weights = jnp.zeros_like(self.weights)
        # hidden units that start without bias: those that are all but off would hold back what their weights switch on
        start = dataclasses.replace(self, visible=self._base(base), hidden=neutral(self.hidden), weights=weights)
        return MachinePath(start, self)

    def _base(self, base):
        if base is None:
            return self.visible
        own = self.visible
        if not has(base, Units) and isinstance(own, (Bernoulli, Categorical, Spin, Rectified)):
            base = dataclasses.replace(own, bias=jnp.asarray(as_array(base, name="base")).astype(own.bias.dtype))
        mine, other = ((jax.tree.structure(u), [jnp.shape(a) for a in jax.tree.leaves(u)]) for u in (own, base))
        if mine != other:
            raise ModelError(
                "the base does not fit the machine", called="RBM.annealing_path(base)",
                expected=f"visible units such as {own}", got=repr(base)[:200],
            )  # fmt: skip
        return base

    def interpolate(self, beta, base=None) -> RBM:
        """The machine at `beta` of `annealing_path(base)`: independent visible units at 0, this machine at 1."""
        return self.annealing_path(base).at(beta)


@jax.jit
def _log_partition(rbm: RBM) -> jax.Array:
    return bipartite.log_partition(bipartite.enumerable(widened(rbm).sides(), "RBM.log_partition()"))


@jax.jit
def _marginals(rbm: RBM) -> Marginals:
    sides = widened(rbm).sides()
    few = bipartite.enumerable(sides, "RBM.marginals()")
    near, far = bipartite.means(few)
    visible, hidden = (near, far) if few.near is sides.near else (far, near)
    return Marginals(rbm.visible.to_values(visible), hidden)


@compiled_once(static_argnames=("shape", "dtype"))
def _normal(key: Any, scale: Any, shape: tuple[int, int], dtype: Any) -> jax.Array:
    return scale * jax.random.normal(key, shape, dtype)


def _hidden_units(hidden: Any) -> Any:
    """A layer as it is, a number as so many bits."""
    if has(hidden, Units):
        count = hidden.sites
    else:
        count = 0 if isinstance(hidden, bool) or not isinstance(hidden, (int, np.integer)) else int(hidden)
    if count < 1:
        raise ModelError(
            "a restricted Boltzmann machine needs hidden units", called="RBM.init(key, x, hidden)",
            expected="an int, 1 or more, or a layer of units", got=repr(hidden), fix="jaxgen.RBM.init(key, x, 16)",
        )  # fmt: skip
    return hidden if has(hidden, Units) else Bernoulli.zeros(count)
