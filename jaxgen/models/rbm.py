"""Restricted Boltzmann machines with Bernoulli units, and the path on which their partition function is estimated."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.door import per_event, per_latent, per_sample
from jaxgen.core.errors import DataError, ModelError, ShapeError
from jaxgen.core.gate import as_array, concrete
from jaxgen.core.pytree import model
from jaxgen.ops.stable import logsumexp

HIGHEST = jax.lax.Precision.HIGHEST
#: most units on the smaller side whose 2^n states are still enumerated: seconds on one core
ENUMERABLE = 22
#: states per block of the enumeration, as a power of two: a block stays in the cache
BLOCK_BITS = 10


@jax.custom_jvp
def _softplus(x):
    """`log(1 + exp(x))`: three times the speed of `jax.nn.softplus` on CPU, and here it is most of the work."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


# differentiated as what it is: the branches above have a wrong second derivative at 0, where every machine starts
_softplus.defjvp(lambda primals, tangents: (_softplus(*primals), jax.nn.sigmoid(*primals) * tangents[0]))


@model
class RBM:
    """The restricted Boltzmann machine: V visible and H hidden bits, edges only between the two sides.

    `p(v, h) = exp(-E(v, h)) / Z` with `E(v, h) = -b.v - c.h - v W h`; summed over the hidden bits,
    `p(v) = exp(-F(v)) / Z` with the free energy `F(v) = -b.v - sum_j log(1 + exp(c_j + v W_j))`.

    An `Energy`: `energy` is F, and `Z` is known only where the smaller side can be enumerated (`log_partition`) or
    estimated (`metrics.partition.ais`).

    Args:
        visible_bias: `[V]`, b.
        hidden_bias: `[H]`, c.
        weights: `[V, H]`, W.

    Source: Smolensky (1986), Information processing in dynamical systems; Hinton (2002), Training products of experts.

    Example:
        >>> rbm = RBM.from_parameters(jnp.zeros(3), jnp.zeros(2), jnp.zeros((3, 2)))
        >>> round(float(rbm.energy(jnp.array([0, 1, 1])) / jnp.log(2.0)), 4)
        -2.0
        >>> round(float(rbm.log_partition() / jnp.log(2.0)), 4)
        5.0
    """

    visible_bias: jax.Array
    hidden_bias: jax.Array
    weights: jax.Array

    @classmethod
    def init(cls, key, x, hidden, *, scale=0.01) -> RBM:
        """Small random weights, hidden biases of zero, and visible biases at the data's logits.

        `b_i = log((n_i + 1/2) / (N - n_i + 1/2))`, `n_i` the number of ones in column i: half a count on either side
        keeps a constant pixel finite.

        Args:
            key: typed key.
            x: bits `[N, V]`, of any dtype; a bool becomes a float.
            hidden: number of hidden units, at least 1.
            scale: standard deviation of the weights.

        Raises:
            DataError: data that are not zeros and ones.
            ModelError: fewer than one hidden unit.
            ShapeError: data that are no table.

        Source: Hinton (2012), A practical guide to training restricted Boltzmann machines, section 8.

        Example:
            >>> rbm = RBM.init(jax.random.key(0), jnp.array([[0, 1], [1, 1], [0, 1]]), 4)
            >>> rbm
            RBM(visible_bias=float32[2], hidden_bias=float32[4], weights=float32[2,4])
        """
        x, called = as_array(x), "RBM.init(key, x, hidden)"
        if isinstance(hidden, bool) or not isinstance(hidden, (int, np.integer)) or hidden < 1:
            raise ModelError(
                "a restricted Boltzmann machine needs hidden units", called=called, expected="an int, 1 or more",
                got=repr(hidden), fix="RBM.init(key, x, 16)",
            )  # fmt: skip
        if x.ndim != 2:
            raise ShapeError(
                "the data are no table of bits", called=called, expected="[N, V], one event a row",
                got=f"shape {list(x.shape)}", fix="x.reshape(len(x), -1)",
            )  # fmt: skip
        _refuse_other_than_bits(x, called)
        x = jnp.asarray(x)
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
        ones = jnp.sum(x, axis=0)
        weights = scale * jax.random.normal(key, (x.shape[1], int(hidden)), x.dtype)
        bias = jnp.log((ones + 0.5) / (x.shape[0] - ones + 0.5))
        return cls(bias, jnp.zeros(int(hidden), x.dtype), weights.astype(x.dtype))

    @classmethod
    def from_parameters(cls, visible_bias, hidden_bias, weights) -> RBM:
        """From biases `[V]` and `[H]` and weights `[V, H]`, brought to one floating dtype.

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
                called="RBM.from_parameters(visible_bias, hidden_bias, weights)",
                got=f"{list(b.shape)}, {list(c.shape)} and {list(w.shape)}",
                fix="weights.T, if the rows belong to the hidden units",
            )  # fmt: skip
        return cls(b, c, w)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.visible_bias.shape[-1:]

    def check_data(self, x) -> None:
        """Refuses data that are not zeros and ones, which an RBM would accept without a word and model wrongly.

        Raises:
            DataError: other values; the message says how to threshold them.
        """
        _refuse_other_than_bits(as_array(x), "RBM.check_data(x)")

    def _hidden_input(self, v):
        return self.hidden_bias + jnp.matmul(v.astype(self.weights.dtype), self.weights, precision=HIGHEST)

    def _visible_input(self, h):
        return self.visible_bias + jnp.matmul(h.astype(self.weights.dtype), self.weights.T, precision=HIGHEST)

    @per_event
    def energy(self, x):
        """The free energy F: `-log p(x) - log Z` in nats, `[*batch, V] -> [*batch]`."""
        field = jnp.sum(x.astype(self.visible_bias.dtype) * self.visible_bias)
        return -field - jnp.sum(_softplus(self._hidden_input(x)))

    @per_event
    def kernel(self, key, x):
        """One sweep of block Gibbs sampling, visible to hidden to visible, `[*batch, V] -> [*batch, V]`.

        `h ~ p(h | v)`, `v' ~ p(v' | h)`. Returns bits in the dtype of `x`, so that sweeps can be scanned.

        Source: Geman & Geman (1984), Stochastic relaxation, Gibbs distributions, and the restoration of images.
        """
        v, h = self.weights.shape
        noise = jax.random.uniform(key, (v + h,), self.weights.dtype)
        hidden = noise[:h] < jax.nn.sigmoid(self._hidden_input(x))
        return (noise[h:] < jax.nn.sigmoid(self._visible_input(hidden))).astype(x.dtype)

    @per_event
    def encode(self, x):
        """`p(h_j = 1 | v)`, `[*batch, V] -> [*batch, H]`."""
        return jax.nn.sigmoid(self._hidden_input(x))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.hidden_bias.shape

    @per_latent
    def decode(self, z):
        """`p(v_i = 1 | h)`, `[*batch, H] -> [*batch, V]`; hidden probabilities in place of bits give the mean field."""
        return jax.nn.sigmoid(self._visible_input(z))

    @per_event
    def pseudo_log_likelihood(self, x):
        """`sum_i log p(v_i | all other bits)` in nats, over every bit and not a random one, `[*batch, V] -> [*batch]`.

        It needs no partition function. It is not a bound on the log-likelihood, in either direction.

        Source: Besag (1975), Statistical analysis of non-lattice data.
        """
        flip = 1 - 2 * x.astype(self.weights.dtype)
        given = self._hidden_input(x)
        terms = _softplus(given)

        def bit(one):
            """`-log p(v_i | rest)`, from the energy of the neighbour that has bit i flipped: no further product."""
            sign, bias, row = one
            # a sum of small differences: the difference of the two sums would lose float32 digits
            return _softplus(sign * bias + jnp.sum(_softplus(given + sign * row) - terms))

        # bit after bit, since [N, V, H] numbers at once would be the largest array of a training run
        return -jnp.sum(jax.lax.map(bit, (flip, self.visible_bias, self.weights)))

    @per_sample
    def sample(self, key, *, sweeps=1000):
        """Approximate draws `[*shape, V]`: one chain each, `sweeps` of block Gibbs from independent visible bits.

        The start is `v_i ~ Bernoulli(sigmoid(b_i))`. The chain tends to p, but says nothing of how near it came: a
        machine with several deep modes needs more sweeps than anyone has.
        """
        start, chain = jax.random.split(key)
        v = jax.random.bernoulli(start, jax.nn.sigmoid(self.visible_bias)).astype(self.weights.dtype)
        # every key is folded out of one, so that no list of them is held
        return jax.lax.fori_loop(0, sweeps, lambda t, v: self.kernel(jax.random.fold_in(chain, t), v), v)

    def log_partition(self) -> jax.Array:
        """`log Z` in nats, exact: the 2^n states of the smaller side are enumerated, in blocks of bounded memory.

        Differentiable, also in bounded memory: the gradient is the vector of exact expectations, for example
        `jax.grad(RBM.log_partition)(rbm).visible_bias` is `E[v]`.

        Raises:
            ModelError: more than 22 units on the smaller side.
        """
        v, h = self.weights.shape
        if min(v, h) > ENUMERABLE:
            raise ModelError(
                "the smaller side has too many units to be enumerated", called="RBM.log_partition()",
                expected=f"at most {ENUMERABLE} visible or {ENUMERABLE} hidden units", got=f"{v} visible, {h} hidden",
                fix="annealed importance sampling: jaxgen.metrics.ais(key, rbm), an estimate with a standard error",
            )  # fmt: skip
        if v < h:
            return _log_partition(self.visible_bias, self.hidden_bias, self.weights)
        return _log_partition(self.hidden_bias, self.visible_bias, self.weights.T)

    def annealing_path(self, base=None) -> RBMPath:
        """The path from independent visible bits to this machine, for `metrics.partition.ais`.

        Args:
            base: visible biases `[V]` of the independent bits; None takes this machine's own. The data's logits (as
                `RBM.init` computes them) are a good base for a trained machine.

        Raises:
            ModelError: a base of another shape.

        Source: Salakhutdinov & Murray (2008), On the quantitative analysis of deep belief networks, section 4.1.
        """
        base = self.visible_bias if base is None else jnp.asarray(as_array(base, name="base"))
        if base.shape != self.visible_bias.shape:
            raise ModelError(
                "the base does not fit the machine", called="RBM.annealing_path(base)",
                expected=f"visible biases {list(self.visible_bias.shape)}", got=f"shape {list(base.shape)}",
            )  # fmt: skip
        bias = base.astype(self.visible_bias.dtype)
        return RBMPath(RBM(bias, jnp.zeros_like(self.hidden_bias), jnp.zeros_like(self.weights)), self)

    def interpolate(self, beta, base=None) -> RBM:
        """The machine at `beta` of `annealing_path(base)`: independent bits at 0, this machine at 1."""
        return self.annealing_path(base).at(beta)


class RBMPath(NamedTuple):
    """A geometric path between two machines: `E_beta(v, h) = (1 - beta) E_base(v, h) + beta E_target(v, h)`.

    The energy is linear in the parameters, so every point of the path is an RBM.

    Args:
        base: the machine at 0, of weights zero: its bits are independent and its partition function is a product.
        target: the machine at 1.

    Example:
        >>> rbm = RBM.from_parameters(jnp.ones(3), jnp.ones(2), jnp.ones((3, 2)))
        >>> rbm.annealing_path().at(0.5).weights[0].tolist()
        [0.5, 0.5]
    """

    base: RBM
    target: RBM

    def at(self, beta) -> RBM:
        """The machine at `beta` in [0, 1]; exactly the ends at the ends."""
        return jax.tree.map(lambda a, b: ((1 - beta) * a + beta * b).astype(b.dtype), self.base, self.target)

    def sample(self, key, shape=()) -> jax.Array:
        """Independent draws `[*shape, V]` from `at(0)`, exact."""
        p = jax.nn.sigmoid(self.base.visible_bias)
        return jax.random.bernoulli(key, p, (*shape, *p.shape)).astype(p.dtype)

    def log_partition(self) -> jax.Array:
        """`log Z` of `at(0)` in nats, exact."""
        return jnp.sum(_softplus(self.base.visible_bias)) + jnp.sum(_softplus(self.base.hidden_bias))


@jax.jit
def _log_partition(small, large, weights):
    """`logsumexp_s (small.s + sum_j softplus(large_j + s W_j))` over all n bits s; `[n]`, `[m]` and `[n, m]`."""
    n = small.shape[0]
    bits = min(n, BLOCK_BITS)

    # recomputed in the backward pass, so that a gradient over millions of states needs the memory of one block
    @jax.checkpoint
    def block(start):
        state = start + jnp.arange(2**bits, dtype=jnp.uint32)
        s = ((state[:, None] >> jnp.arange(n, dtype=jnp.uint32)) & 1).astype(small.dtype)
        inputs = large + jnp.matmul(s, weights, precision=HIGHEST)
        return logsumexp(jnp.matmul(s, small, precision=HIGHEST) + jnp.sum(_softplus(inputs), axis=-1))

    # one number per block and a second sum over them: a running sum over 2^22 terms would lose float32 digits
    return logsumexp(jax.lax.map(block, jnp.arange(2 ** (n - bits), dtype=jnp.uint32) << bits))


def _refuse_other_than_bits(x, called) -> None:
    """Values of a concrete array are checked; a traced one was data before and is trusted."""
    if not concrete(x):
        return
    host = np.asarray(x)
    other = (host != 0) & (host != 1)
    if other.any():
        where = tuple(int(i) for i in np.argwhere(other)[0])
        middle = (float(host.min()) + float(host.max())) / 2
        raise DataError(
            "the data are not bits", called=called, expected="zeros and ones",
            got=f"{int(other.sum())} of {host.size} other values, the first {host[where]} at index {where}",
            fix=f"x > {middle:g}, half of the range, or a threshold of your choice",
        )  # fmt: skip
