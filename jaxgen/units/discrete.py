"""Units of finitely many states: bits, spins and labels."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled_once
from jaxgen.core.pytree import model
from jaxgen.ops.stable import logsumexp, softmax
from jaxgen.units.base import refuse, softplus, table


@model
class Bernoulli:
    """Bits, 0 or 1: `t(u) = u`, `B(u) = -b u`, `A(f) = log(1 + exp(b + f))`.

    Args:
        bias: `[n]`, b.

    Example:
        >>> bits = Bernoulli.zeros(2)
        >>> bits.mean(jnp.zeros(2)).tolist(), bits.sample(jnp.array([0.2, 0.7]), jnp.zeros(2)).tolist()
        ([0.5, 0.5], [1.0, 0.0])
    """

    bias: jax.Array
    states: ClassVar[int | None] = 2
    kinds: ClassVar[str] = "biuf"

    @classmethod
    def zeros(cls, n, dtype=None) -> Bernoulli:
        """`n` fair bits."""
        return cls(jnp.zeros(n, dtype))

    @classmethod
    def init(cls, x, called="Bernoulli.init(x)") -> Bernoulli:
        """Biases at the logits of data `[N, n]`: `log((n_1 + 1/2) / (n_0 + 1/2))`, `n_s` the number of s in a column.

        Half a count on either side keeps a constant column finite.

        Source: Hinton (2012), A practical guide to training restricted Boltzmann machines, section 8.1.
        """
        x = table(x, called)
        cls.zeros(0).check(x, called)
        return cls(_logits(x))

    @property
    def sites(self) -> int:
        return self.bias.shape[-1]

    @property
    def size(self) -> int:
        return self.bias.shape[-1]

    def check(self, x, called) -> None:
        """Refuses all but zeros and ones."""
        refuse(
            x, lambda x: (x != 0) & (x != 1), called, "not bits", "zeros and ones",
            lambda x: f"np.asarray(x) > {(float(x.min()) + float(x.max())) / 2:g}, or another threshold",
        )  # fmt: skip

    def statistic(self, u):
        return u.astype(self.bias.dtype)

    def energy(self, u):
        return -jnp.sum(u.astype(self.bias.dtype) * self.bias, axis=-1)

    def log_partition(self, field):
        return softplus(self.bias + field)

    def mean(self, field):
        return jax.nn.sigmoid(self.bias + field)

    def sample(self, noise, field):
        return (noise < jax.nn.sigmoid(self.bias + field)).astype(self.bias.dtype)

    def to_values(self, mean):
        return mean

    def choice(self, index):
        """The values of states by number."""
        return index.astype(self.bias.dtype)

    def others(self, u):
        """Return the changes to other states: of t, `[..., n, states - 1, 1]`, and of B, `[..., n, states - 1]`."""
        change = (1 - 2 * u.astype(self.bias.dtype))[..., None]
        return change[..., None], -change * self.bias[..., None]


@model
class Spin:
    """Spins, -1 or +1: `t(u) = u`, `B(u) = -b u`, `A(f) = log(2 cosh(b + f))`.

    Args:
        bias: `[n]`, b.

    Example:
        >>> spins = Spin.zeros(2)
        >>> spins.mean(jnp.zeros(2)).tolist(), spins.sample(jnp.array([0.2, 0.7]), jnp.zeros(2)).tolist()
        ([0.0, 0.0], [1.0, -1.0])
    """

    bias: jax.Array
    states: ClassVar[int | None] = 2
    kinds: ClassVar[str] = "if"

    @classmethod
    def zeros(cls, n, dtype=None) -> Spin:
        """`n` fair spins."""
        return cls(jnp.zeros(n, dtype))

    @classmethod
    def init(cls, x, called="Spin.init(x)") -> Spin:
        """Biases at half the logits of data `[N, n]`, as those of `Bernoulli.init`."""
        x = table(x, called)
        cls.zeros(0).check(x, called)
        ones = jnp.sum(x > 0, axis=0).astype(x.dtype)
        return cls(0.5 * jnp.log((ones + 0.5) / (x.shape[0] - ones + 0.5)))

    @property
    def sites(self) -> int:
        return self.bias.shape[-1]

    @property
    def size(self) -> int:
        return self.bias.shape[-1]

    def check(self, x, called) -> None:
        """Refuses all but -1 and +1."""
        refuse(
            x, lambda x: (x != -1) & (x != 1), called, "not spins", "-1 and +1",
            lambda x: f"np.where(np.asarray(x) > {(float(x.min()) + float(x.max())) / 2:g}, 1, -1), for example",
        )  # fmt: skip

    def statistic(self, u):
        return u.astype(self.bias.dtype)

    def energy(self, u):
        return -jnp.sum(u.astype(self.bias.dtype) * self.bias, axis=-1)

    def log_partition(self, field):
        field = self.bias + field
        return softplus(2 * field) - field

    def mean(self, field):
        return jnp.tanh(self.bias + field)

    def sample(self, noise, field):
        return jnp.where(noise < jax.nn.sigmoid(2 * (self.bias + field)), 1, -1).astype(self.bias.dtype)

    def to_values(self, mean):
        return mean

    def choice(self, index):
        """The values of states by number."""
        return 2 * index.astype(self.bias.dtype) - 1

    def others(self, u):
        """Return the changes to other states: of t, `[..., n, states - 1, 1]`, and of B, `[..., n, states - 1]`."""
        change = (-2 * u.astype(self.bias.dtype))[..., None]
        return change[..., None], -change * self.bias[..., None]


@model
class Categorical:
    """Labels, 0 to C - 1: `t(u)` is the one-hot vector, `B(u) = -b_u`, `A(f) = logsumexp(b + f)`; also Potts spins.

    Values are whole numbers and no one-hot vectors, in any dtype that holds them: any row of them is an event, one
    number is one site of a mask, and a label stands beside other columns as it does in a table. A value that is no
    label has the statistic NaN.

    Args:
        bias: `[n, C]`, b. Weights have a row for each state, `n * C` of them, those of one site together.

    Example:
        >>> label = Categorical.zeros(1, 4)
        >>> label.statistic(jnp.array([2])).tolist(), label.sample(jnp.array([0.6]), jnp.zeros(4)).tolist()
        ([0.0, 0.0, 1.0, 0.0], [2.0])
    """

    bias: jax.Array
    kinds: ClassVar[str] = "iuf"

    @classmethod
    def zeros(cls, n, states, dtype=None) -> Categorical:
        """`n` labels, all `states` alike."""
        return cls(jnp.zeros((n, states), dtype))

    @classmethod
    def init(cls, x, states=None, called="Categorical.init(x)") -> Categorical:
        """Biases at the log frequencies of data `[N, n]`, `log((n_s + 1/2) / (N + C/2))`; C is the largest label plus 1
        where it is not given."""
        x = table(x, called)
        states = int(jnp.max(x)) + 1 if states is None else int(states)
        cls.zeros(0, states).check(x, called)
        counts = jnp.sum(x[..., None] == jnp.arange(states), axis=0).astype(x.dtype)
        return cls(jnp.log((counts + 0.5) / (x.shape[0] + 0.5 * states)))

    @property
    def states(self) -> int:  # type: ignore[override]
        return self.bias.shape[-1]

    @property
    def sites(self) -> int:
        return self.bias.shape[-2]

    @property
    def size(self) -> int:
        return self.bias.shape[-2] * self.bias.shape[-1]

    def check(self, x, called) -> None:
        """Refuses all but whole numbers from 0 to C - 1."""
        n = self.states
        refuse(
            x, lambda x: (x != x.astype(int)) | (x < 0) | (x >= n), called, "not labels",
            f"whole numbers from 0 to {n - 1}",
            lambda x: "np.unique(x, return_inverse=True)[1] numbers them from 0, if there are no more",
        )  # fmt: skip

    def _apart(self, a):
        return a.reshape((*a.shape[:-1], *self.bias.shape))

    def _together(self, a):
        return a.reshape((*a.shape[:-2], self.size))

    def statistic(self, u):
        hot = u[..., None] == jnp.arange(self.states)
        # labels out of range and NaN have no row of weights; without one they would pass as a site that is not there
        known = jnp.any(hot, axis=-1, keepdims=True)
        return self._together(jnp.where(known, hot, jnp.nan).astype(self.bias.dtype))

    def energy(self, u):
        return -jnp.sum(self._apart(self.statistic(u)) * self.bias, axis=(-2, -1))

    def log_partition(self, field):
        return logsumexp(self.bias + self._apart(field))

    def mean(self, field):
        return self._together(softmax(self.bias + self._apart(field)))

    def sample(self, noise, field):
        below = jnp.cumsum(softmax(self.bias + self._apart(field)), axis=-1)[..., :-1]
        return jnp.sum(noise[..., None] >= below, axis=-1).astype(self.bias.dtype)

    def to_values(self, mean):
        return mean

    def choice(self, index):
        """The values of states by number."""
        return index.astype(self.bias.dtype)

    def others(self, u):
        """For each unit's other states: change of t, `[..., n, states - 1, states]`, of B, `[..., n, states - 1]`.

        They are the states that follow its own, in turn.
        """
        now = self._apart(self.statistic(u))
        change = jnp.stack([jnp.roll(now, r, axis=-1) for r in range(1, self.states)], axis=-2) - now[..., None, :]
        return change, -jnp.sum(change * self.bias[..., None, :], axis=-1)


@compiled_once()
def _logits(x: jax.Array) -> jax.Array:
    """Logits of bits `[N, n]`, with half a count of each on either side."""
    ones = jnp.sum(x, axis=0)
    return jnp.log((ones + 0.5) / (x.shape[0] - ones + 0.5))
