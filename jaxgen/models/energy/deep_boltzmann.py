"""Deep Boltzmann machines: layers of units, with edges between neighbouring layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array, floating, widened
from jaxgen.core.methods import per_batch, per_event, per_sample
from jaxgen.core.protocols import has
from jaxgen.core.pytree import fixed, model, static
from jaxgen.units import bipartite
from jaxgen.units.base import Units, neutral, table
from jaxgen.units.bipartite import MachinePath, Sides
from jaxgen.units.discrete import Bernoulli
from jaxgen.units.group import Group

HIGHEST = jax.lax.Precision.HIGHEST
#: rounds of mean field; of bits, 25 are the custom
ROUNDS = 30
#: sweeps of clamped Gibbs sampling that fill the hidden layers of data in training
SWEEPS = 10


@model
class DeepBoltzmann:
    """Layers `u_0` (visible), `u_1`, ..., `u_L` of units of any kind, each with edges to the next.

    `E(u) = sum_l B_l(u_l) - sum_l (t(u_l) - m_l) W_l (t(u_l+1) - m_l+1)`

    Given the even layers the odd ones are independent, and the other way round: it is a restricted machine between the
    two. An event is the state of the even layers, `[u_0, u_2, ...]` side by side, of which `energy` is exact, with the
    odd layers summed out, and `kernel` one sweep of block Gibbs. Data give `u_0` only: `pad` makes events of them, in
    which NaN stands for what is not seen, and with `missing=True` training fills it, by clamped Gibbs sampling, anew in
    each step. Of data `log_bound` is the mean-field bound and `encode` gives features.

    Args:
        layers: `L + 1` layers of units.
        weights: L matrices `[layers[l].size, layers[l + 1].size]`.
        centers: `L + 1` arrays `[layers[l].size]`, not trained; near the means they let all layers learn together.
        missing: whether events may have NaN in training.

    Source: Salakhutdinov & Hinton (2009), Deep Boltzmann machines; Montavon & Müller (2012), Deep Boltzmann machines
    and the centering trick, for training without a start layer by layer.

    Example:
        >>> x = jnp.array([[0, 1, 1], [1, 0, 1]])
        >>> dbm = DeepBoltzmann.init(jax.random.key(0), x, (4, 2))
        >>> dbm.event_shape, dbm.pad(x)[0].tolist(), dbm.encode(dbm.pad(x)).shape
        ((5,), [0.0, 1.0, 1.0, nan, nan], (2, 6))
    """

    layers: tuple[Any, ...]
    weights: tuple[jax.Array, ...]
    centers: tuple[jax.Array, ...] = fixed()
    missing: bool = static(default=False)

    @classmethod
    def init(cls, key, x, hidden, *, visible=Bernoulli.init, scale=0.01, centred=True) -> DeepBoltzmann:
        """Small random weights, visible units that start at the data, centres at the means; ready for padded data.

        Args:
            key: typed key.
            x: data `[N, V]`.
            hidden: for each hidden layer a number of bits, or a layer of units; two or more layers.
            visible: start of the visible units, `x -> units`.
            scale: standard deviation of the weights.
            centred: False leaves the centres at zero.

        Raises:
            DataError, ShapeError: data that are none of the visible units'.
            ModelError: fewer than two hidden layers.
        """
        x = table(x, "DeepBoltzmann.init(key, x, hidden)")
        kinds = [h if has(h, Units) else Bernoulli.zeros(h, x.dtype) for h in hidden]
        layers = (visible(x), *kinds)
        keys = jax.random.split(key, max(len(layers) - 1, 1))
        weights = [scale * jax.random.normal(k, (a.size, b.size), x.dtype)
                   for k, a, b in zip(keys, layers[:-1], layers[1:], strict=False)]  # fmt: skip
        means = [jnp.mean(layers[0].statistic(x), axis=0)] + [u.mean(jnp.zeros(u.size, x.dtype)) for u in layers[1:]]
        return cls.from_layers(layers, weights, centers=means if centred else None, missing=True)

    @classmethod
    def from_layers(cls, layers, weights, *, centers=None, missing=False) -> DeepBoltzmann:
        """From layers of units, weights between neighbours, and centres, by default zero.

        Raises:
            ModelError: fewer than two hidden layers, or shapes that do not fit each other.
        """
        layers, called = tuple(layers), "DeepBoltzmann.from_layers(layers, weights)"
        weights = tuple(floating(w, name="weights") for w in weights)
        sizes = [u.size for u in layers]
        if len(layers) < 3:
            raise ModelError(
                "a deep machine has two hidden layers or more", called=called, expected="3 layers or more",
                got=f"{len(layers)} layers", fix="an RBM, for one hidden layer",
            )  # fmt: skip
        centers = [np.zeros(n) for n in sizes] if centers is None else list(centers)
        wanted = list(zip(sizes[:-1], sizes[1:], strict=True))
        if [w.shape for w in weights] != wanted or [np.shape(c) for c in centers] != [(n,) for n in sizes]:
            raise ModelError(
                "layers, weights and centres do not fit each other", called=called,
                expected=f"weights {[list(s) for s in wanted]}, centres of lengths {sizes}",
                got=f"weights {[list(w.shape) for w in weights]}, centres {[list(np.shape(c)) for c in centers]}",
            )  # fmt: skip
        return cls(layers, weights, tuple(jnp.asarray(c).astype(weights[0].dtype) for c in centers), missing)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (sum(u.sites for u in self.layers[::2]),)

    def pad(self, x) -> jax.Array:
        """Data `[*batch, V]` as events `[*batch, *event]`: NaN where hidden layers stand, and where data have holes."""
        x = jnp.asarray(as_array(x, name="x", called="DeepBoltzmann.pad(x)", allow_nan=True))
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
        hidden = self.event_shape[0] - self.layers[0].sites
        return jnp.concatenate([x, jnp.full((*x.shape[:-1], hidden), jnp.nan, x.dtype)], axis=-1)

    def check_data(self, x) -> None:
        """Refuses data that are none of the visible units'; NaN is judged by `missing`."""
        x = as_array(x, allow_nan=True)
        seen = x[..., : self.layers[0].sites]
        rows = ~np.isnan(np.asarray(seen, float)).any(axis=-1) if not isinstance(x, jax.core.Tracer) else slice(None)
        if np.size(seen[rows]):
            self.layers[0].check(seen[rows], "DeepBoltzmann.check_data(x)")

    def sides(self) -> Sides:
        """The restricted machine between even and odd layers, for `units.bipartite`."""
        even, odd = Group(self.layers[::2]), Group(self.layers[1::2])
        centers = tuple(jnp.concatenate(self.centers[parity::2]) for parity in (0, 1))

        def across(parity):
            """The field on the layers of the other parity."""
            sizes = np.cumsum([u.size for u in self.layers[parity::2]])[:-1]

            def field(t):
                parts = jnp.split(t - centers[parity], sizes, axis=-1)
                out = []
                for layer in range(1 - parity, len(self.layers), 2):
                    terms = []
                    if layer > 0:
                        below = parts[(layer - 1) // 2]
                        terms.append(jnp.matmul(below, self.weights[layer - 1], precision=HIGHEST))
                    if layer + 1 < len(self.layers):
                        above = parts[(layer + 1) // 2]
                        terms.append(jnp.matmul(above, self.weights[layer].T, precision=HIGHEST))
                    out.append(sum(terms[1:], terms[0]))
                return jnp.concatenate(out, axis=-1)

            return field

        return Sides(even, odd, across(0), across(1), *centers)

    @per_event
    def energy(self, x) -> jax.Array:
        """`-log p(x) - log Z` of the even layers, the odd ones summed out, nats, `[*batch, *event] -> [*batch]`."""
        return bipartite.free_energy(self.sides(), x)

    @per_batch
    def kernel(self, key, x, *, observed=None) -> jax.Array:
        """One sweep of block Gibbs, even layers to odd ones and back; coordinates that are `observed` stay."""
        return bipartite.sweep(self.sides(), key, x, observed)

    @per_batch
    def complete(self, key, x) -> jax.Array:
        """Events whose NaN are drawn given the rest, by clamped Gibbs sampling from units under no field."""
        sides, (start, chain) = self.sides(), jax.random.split(key)
        seen = ~jnp.isnan(x)
        x = jnp.where(seen, x, bipartite.independent(sides, start, x.shape[:-1]).astype(x.dtype))
        sweep = lambda t, x: bipartite.sweep(sides, jax.random.fold_in(chain, t), x, seen)  # noqa: E731
        return jax.lax.fori_loop(0, SWEEPS, sweep, x)

    def _mean_field(self, x):
        """The means of the even and odd statistics given the visible part of x, and the field of the former."""
        sides, visible = self.sides(), self.layers[0]
        first = visible.statistic(x[: visible.sites])

        def with_data(field):
            return jnp.concatenate([first, sides.near.mean(field)[visible.size :]])

        def step(_, field):
            return sides.to_near(sides.far.mean(sides.to_far(with_data(field))))

        field = jax.lax.fori_loop(0, ROUNDS, step, jnp.zeros_like(sides.near_center))
        even = with_data(field)
        return even, sides.far.mean(sides.to_far(even)), field

    @per_event
    def encode(self, x) -> jax.Array:
        """Mean-field features: the means of all hidden layers, bottom to top, given the visible part of x.

        `[*batch, *event] -> [*batch, sum_l layers[l].size]`
        """
        even, odd, _ = self._mean_field(x)
        parts = [jnp.split(m, np.cumsum([u.size for u in self.layers[p::2]])[:-1]) for p, m in ((0, even), (1, odd))]
        return jnp.concatenate([parts[layer % 2][layer // 2] for layer in range(1, len(self.layers))])

    @per_event
    def log_bound(self, x) -> jax.Array:
        """`E_q[-E] + H(q)`, at most `log p(u_0) + log Z`, by mean field over all hidden layers, nats.

        The hidden part of x is not looked at. `dbm.log_bound(dbm.pad(x)) - dbm.log_partition()` is a lower bound of the
        log-likelihood of data; with an estimate of log Z it is as good as that.

        Source: Salakhutdinov & Hinton (2009), Deep Boltzmann machines, equation 6.
        """
        even, _, field = self._mean_field(x)
        sides, visible = self.sides(), self.layers[0]
        to_odd = sides.to_far(even)
        own = jnp.sum(sides.near.log_partition(field)[visible.sites :])
        own = own - jnp.dot(field[visible.size :], even[visible.size :], precision=HIGHEST)
        odd = jnp.sum(sides.far.log_partition(to_odd)) - jnp.dot(to_odd, sides.far_center, precision=HIGHEST)
        return own + odd - visible.energy(x[: visible.sites])

    @per_sample
    def sample(self, key, shape=(), *, context=None, sweeps=1000) -> jax.Array:
        """Approximate draws `[*shape, *event]`: one chain each, `sweeps` of block Gibbs from independent units.

        The first `layers[0].sites` columns are the visible units.
        """
        start, chain = jax.random.split(key)
        x = bipartite.independent(self.sides(), start)
        return jax.lax.fori_loop(0, sweeps, lambda t, x: self.kernel(jax.random.fold_in(chain, t), x), x)

    def log_partition(self) -> jax.Array:
        """`log Z` in nats, exact, where the even or the odd layers have at most 2^22 joint states.

        Raises:
            ModelError: more than that on both sides.
        """
        return _log_partition(self)

    def annealing_path(self) -> MachinePath:
        """The path from independent units, hidden ones without bias, to this machine, for `metrics.partition.ais`."""
        layers = (self.layers[0], *(neutral(u) for u in self.layers[1:]))
        weights = tuple(jnp.zeros_like(w) for w in self.weights)
        return MachinePath(dataclasses.replace(self, layers=layers, weights=weights), self)


@jax.jit
def _log_partition(dbm: DeepBoltzmann) -> jax.Array:
    return bipartite.log_partition(bipartite.enumerable(widened(dbm).sides(), "DeepBoltzmann.log_partition()"))
