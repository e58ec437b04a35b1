"""Likelihoods of pixels: whole numbers from 0 to n - 1, the levels.

Levels are numbers, as a file of an image has them, and are not scaled: 0 to 255 for 8 bits. Whoever has `x / 255`
multiplies and rounds, `np.rint(np.multiply(x, 255))`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxgen.core.exchange import distrax
from jaxgen.core.files import loadable
from jaxgen.ops.entries import clean, scored, whole
from jaxgen.ops.likelihoods.contract import Support, apart, bounded


@dataclasses.dataclass(frozen=True, eq=False)
class Levels:
    """Independent pixels of one event, each with a probability of every level.

    `log p(x) = sum_i l_i[x_i] - log sum_k exp(l_i[k])`

    Args:
        logits: `[n, *event]`, l.
    """

    logits: jax.Array

    @property
    def support(self):
        """Whole numbers from 0 to n - 1."""
        return Support(0.0, len(self.logits) - 1.0, whole=True)

    def log_prob(self, x):
        """Return the log-probability of an event, nats, a scalar."""
        return jnp.sum(self.entries(x))

    def entries(self, x):
        """Return the log-probability of each pixel by itself, nats, `[*event]`; -inf of what is no level."""
        # a comparison with all levels is one pass over the logits and fuses; a gather's derivative is a scatter
        chosen = _every(self.logits) == x
        value = jnp.sum(jnp.where(chosen, self.logits, 0), axis=0) - jax.nn.logsumexp(self.logits, axis=0)
        return scored(value, whole(x, len(self.logits)), x, False)

    def mean(self):
        """The expected level, `[*event]`."""
        return jnp.sum(_every(self.logits) * jax.nn.softmax(self.logits, axis=0), axis=0)

    def sample(self, *, seed):
        """Draws one event, `[*event]`, levels in the logits' dtype."""
        return jax.random.categorical(seed, self.logits, axis=0, mode="high").astype(self.logits.dtype)

    def distribution(self):
        """The distrax distribution."""
        logits = jnp.moveaxis(self.logits, 0, -1)
        return distrax().Independent(distrax().Categorical(logits=logits), logits.ndim - 1)


def _every(logits):
    """All levels, `[n, 1, ...]`."""
    return jnp.arange(len(logits), dtype=logits.dtype).reshape((-1, *[1] * (logits.ndim - 1)))


@dataclasses.dataclass(frozen=True, eq=False)
class Logistics:
    """Independent pixels of one event: a mixture of logistic densities on [-1, 1], rounded to the nearest of n levels.

    `p(x) = sum_k w_k (F((e_x - m_k) / s_k) - F((e_{x-1} - m_k) / s_k))`, F the sigmoid and e the edges in the middle
    between levels `2 x / (n - 1) - 1`; the lowest level has all mass below it, the highest all above.

    Args:
        location: `[K, *event]`, m, in units in which the levels go from -1 to 1.
        log_scale: `[K, *event]`, log s, in the same units.
        levels: n, two or more.
        logits: `[K, *event]` of the weights; None where K is one.

    The mass of a level is a product, `F(b) F(-a) (1 - exp(a - b))` for the scaled edges a and b, of which no factor
    cancels: it is exact in both tails, and its logarithm is finite for a finite distance. distrax has no such
    distribution.

    Source: Salimans, Karpathy, Chen and Kingma (2017), PixelCNN++, section 2.1.
    """

    location: jax.Array
    log_scale: jax.Array
    levels: int = 256
    logits: jax.Array | None = None

    @property
    def support(self):
        """Whole numbers from 0 to n - 1."""
        return Support(0.0, self.levels - 1.0, whole=True)

    def _log_weights(self):
        return 0.0 if self.logits is None else jax.nn.log_softmax(self.logits, axis=0)

    def log_prob(self, x):
        """Return the log-probability of an event, nats, a scalar."""
        return jnp.sum(self.entries(x))

    def entries(self, x):
        """Return the log-probability of each pixel by itself, nats, `[*event]`; -inf of what is no level."""
        level, inside = clean(x, lambda x: whole(x, self.levels), 0.0, self.location.dtype)
        top = self.levels - 1
        center = (2 * level - top) / top - self.location
        sharpness = jnp.exp(-self.log_scale)
        below = jax.nn.log_sigmoid((center + 1 / top) * sharpness)
        above = jax.nn.log_sigmoid((1 / top - center) * sharpness)
        width = jnp.log(-jnp.expm1(-2 / top * sharpness))
        value = jnp.where(level > 0, above, 0) + jnp.where(level < top, below, 0)
        value += jnp.where((level > 0) & (level < top), width, 0)
        return scored(jax.nn.logsumexp(value + self._log_weights(), axis=0), inside, x, False)

    def mean(self):
        """The expected level, `[*event]`: the sum over edges of the mass above."""
        top = self.levels - 1
        edges = (2 * jnp.arange(top, dtype=self.location.dtype) + 1 - top) / top
        edges = edges.reshape((-1, *[1] * self.location.ndim))
        above = jax.nn.sigmoid((self.location - edges) * jnp.exp(-self.log_scale))
        return jnp.sum(above * jnp.exp(self._log_weights()), axis=(0, 1))

    def sample(self, *, seed):
        """Draws one event, `[*event]`, levels in the locations' dtype."""
        first, second = jax.random.split(seed)
        event, dtype = self.location.shape[1:], self.location.dtype
        logits = jnp.zeros_like(self.location) if self.logits is None else self.logits
        which = jax.random.categorical(first, logits, axis=0, mode="high")[None]
        location, log_scale = (jnp.take_along_axis(a, which, axis=0)[0] for a in (self.location, self.log_scale))
        draw = location + jnp.exp(log_scale) * jax.random.logistic(second, event, dtype)
        top = self.levels - 1
        return jnp.clip(jnp.rint((draw + 1) * (0.5 * top)), 0, top)


@loadable
@dataclasses.dataclass(frozen=True)
class CategoricalLevels:
    """Pixels with a probability of every level from the network: nothing is said of which levels are neighbours.

    Args:
        levels: n; pixels are whole numbers from 0 to n - 1.

    Example:
        >>> round(float(CategoricalLevels(4)(jnp.zeros((4, 2))).log_prob(jnp.array([0.0, 3.0]))), 4)
        -2.7726
    """

    levels: int = 256

    @property
    def parameters(self) -> int:
        """n logits."""
        return self.levels

    def __call__(self, outputs: jax.Array) -> Levels:
        return Levels(outputs)


@loadable
@dataclasses.dataclass(frozen=True)
class LogisticLevels:
    """Pixels by a rounded logistic density with mean and scale from the network, `log s = 6 tanh(raw / 6)`.

    Args:
        levels: n; pixels are whole numbers from 0 to n - 1, which the mean and scale see from -1 to 1.

    Source: as `Logistics`.

    Example:
        >>> pixel = LogisticLevels(256)(jnp.zeros(1), jnp.full(1, -2.0)).log_prob(jnp.array([128.0]))
        >>> -4.4 < float(pixel) < -4.2
        True
    """

    levels: int = 256

    def __call__(self, mean: jax.Array, raw: jax.Array) -> Logistics:
        return Logistics(mean[None], bounded(raw)[None], self.levels)


@loadable
@dataclasses.dataclass(frozen=True)
class LogisticMixtureLevels:
    """Pixels by a rounded mixture of logistic densities with weights, means and scales from the network.

    Args:
        components: K.
        levels: n; pixels are whole numbers from 0 to n - 1.

    The network's output is `[3 K, *event]`: K logits, K means and K raw log-scales, each pixel its own.

    Source: as `Logistics`.

    Example:
        >>> mixture = LogisticMixtureLevels(5)
        >>> mixture.parameters, mixture(jnp.zeros((15, 2))).log_prob(jnp.array([0.0, 255.0])).shape
        (15, ())
    """

    components: int = 10
    levels: int = 256

    @property
    def parameters(self) -> int:
        """3 K."""
        return 3 * self.components

    def __call__(self, outputs: jax.Array) -> Logistics:
        logits, mean, raw = apart(outputs.reshape((3, self.components, *outputs.shape[1:])))
        return Logistics(mean, bounded(raw), self.levels, logits)
