"""Deep energy models: a network tilts a density that is known."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array, floating
from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.protocols import Density, has
from jaxgen.core.pytree import fixed, model, static
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops.samplers import MALA, Sampler, Spread, rooted
from jaxgen.ops.scaling import mean_and_scale

#: small steps among large ones: with one size all chains stand still once training has made the energy steep
SAMPLER = Spread(MALA(0.2), 200.0)


@model
class EnergyModel:
    """A density known up to a constant: a network's energy beside that of a base density.

    `p(x) = p_0(x) exp(-tilt f(z)) / Z`, `E(x) = tilt f(z) - log p_0(x)`, `z = (x - center) / scale`

    The base makes Z finite wherever f is bounded below, is where chains start, and gives annealing an end whose Z is
    one. It trains too, if it has arrays that do.

    An `Energy`: trained by `ContrastiveDivergence`, with `fit.negative.Replay` where chains mix slowly, or by
    `Gradient(losses.denoising_score_matching(...))`, which needs no chains. Events are real numbers of any shape.

    Args:
        net: f, `[*batch, *event] -> [*batch, 1]`.
        base: p_0, a density of the same events.
        tilt: a scalar, 1; between 0 and 1 on the annealing path. Not trained.
        center: of the data, `[*event]` or a scalar. Not trained.
        scale: of the data: the network and the sampler see events in units of it. Not trained.
        sampler: what moves chains, a value such as `MALA(0.1)` of `samplers`, its steps in units of `scale`; static.
        moves: its steps in one step of `kernel`.

    Source: LeCun, Chopra, Hadsell, Ranzato and Huang (2006), A tutorial on energy-based learning; Xie, Lu, Zhu and Wu
    (2016), A theory of generative ConvNet, for the tilted reference.

    Example:
        >>> import jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> energies = EnergyModel.init(jax.random.key(0), x, jg.Gaussian.init(jax.random.key(0), x))
        >>> bool(jnp.allclose(-energies.energy(x), energies.base.log_prob(x)))  # a network that starts at zero
        True
    """

    net: Net
    base: Any
    tilt: jax.Array = fixed()
    center: jax.Array = fixed()
    scale: jax.Array = fixed()
    sampler: Sampler = static(default=SAMPLER)
    moves: int = static(default=1)

    @classmethod
    def init(
        cls, key, x, base: Any, *, network: Any = None, sampler: Sampler | None = None, moves: int = 10
    ) -> EnergyModel:
        """The base density: a network whose last layer starts at zero.

        Args:
            key: typed key.
            x: events `[N, *event]`, for their shape, dtype, center and scale.
            base: a density of such events: `Gaussian.init(key, x)` covers the data.
            network: a linen module `[*batch, *event] -> [*batch, 1]`; None is an MLP of two layers of 128.
            sampler: None is `Spread(MALA(0.2), 200.0)`.
            moves: steps of the sampler in one step of the kernel, 1 or more.

        Raises:
            ModelError: a base of other events, a network of another output, a sampler without steps.
        """
        x, called = floating(as_array(x, name="x")), "EnergyModel.init(key, x, base)"
        shape = tuple(map(int, x.shape[1:]))
        if tuple(base.event_shape) != shape or not has(base, Density):
            raise ModelError(
                "the base is no density of the events", called=called, expected=f"log_prob of events {list(shape)}",
                got=f"{type(base).__name__} of events {list(base.event_shape)}", fix="jaxgen.Gaussian.init(key, x)",
            )  # fmt: skip
        if network is None:
            network = MLP((128, 128, 1), jax.nn.silu, in_shape=shape, zero_last=True)
        net = Net.init(key, network, x[:1])
        out = jax.eval_shape(net, jax.ShapeDtypeStruct(shape, x.dtype)).shape
        if out not in ((), (1,)):
            raise ModelError(
                "an energy is one number", called=called, expected="a network with outputs [*batch, 1]",
                got=f"outputs {list(out)} for one event", fix=f"jaxgen.nn.mlp.MLP((128, 128, 1), in_shape={shape})",
            )  # fmt: skip
        sampler = SAMPLER if sampler is None else sampler
        if not _moves(sampler, x[0]) or isinstance(moves, bool) or not isinstance(moves, int) or moves < 1:
            raise ModelError(
                "chains need a sampler of exact gradients, and steps", called=called,
                expected="such as samplers.MALA(0.05), moves >= 1", got=f"{sampler!r}, moves={moves!r}",
            )  # fmt: skip
        return cls(net, base, jnp.ones((), x.dtype), *mean_and_scale(x), sampler, moves)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.base.event_shape)

    def _energy(self, x):
        # one number for each event: a product of tilt zero and an infinite energy would be NaN, and is not hidden
        z = (x - self.center) / self.scale
        return self.tilt * jnp.reshape(self.net(z), ()) - self.base.log_prob(x)

    @per_event
    def energy(self, x) -> jax.Array:
        """E, `-log p(x) - log Z` in nats, `[*batch, *event] -> [*batch]`."""
        return self._energy(x)

    @per_event
    def score(self, x) -> jax.Array:
        """`grad log p(x)`, `[*batch, *event] -> [*batch, *event]`, which needs no Z."""
        return -jax.grad(self._energy)(x)

    @per_event
    def kernel(self, key, x, *, observed=None) -> jax.Array:
        """`moves` steps of the sampler, `[*batch, *event] -> [*batch, *event]`.

        It leaves p in place if the sampler does, as `MALA` and `HMC` do; `ULA` leaves one near it. Coordinates that are
        `observed` stay. From where the energy or its slope is NaN there is no step: that is NaN.
        """
        log_density = lambda z: -self._energy(self.center + self.scale * z)  # noqa: E731

        def move(t, state):
            return self.sampler.step(jax.random.fold_in(key, t), log_density, state, observed)[0]

        z = (x - self.center) / self.scale
        end = jax.lax.fori_loop(0, self.moves, move, self.sampler.init(log_density, z))
        # what did not move is what it was, and not that there and back
        new = jnp.where(end.x == z, x, self.center + self.scale * end.x)
        # where energy or slope is NaN a chain stays for good, and looks like one at rest; outside of the support it may
        stuck = ~rooted(end, observed) & (end.log_density > -jnp.inf)
        return jnp.where(stuck | jnp.isnan(end.log_density), jnp.nan, new)

    @per_sample
    def sample(self, key, shape=(), *, context=None, sweeps=1000) -> jax.Array:
        """Approximate draws `[*shape, *event]`: one chain each, `sweeps` steps of the kernel from a draw of the base.

        The chain tends to p, but says nothing of how near it came: few of them pass from mode to mode.
        """
        start, chain = jax.random.split(key)
        x = self.base.sample(start).astype(self.tilt.dtype)
        return jax.lax.fori_loop(0, sweeps, lambda t, x: self.kernel(jax.random.fold_in(chain, t), x), x)

    def annealing_path(self) -> TiltedPath:
        """The path from the base to this model, for `metrics.ais` and its kin."""
        return TiltedPath(self)


def _moves(sampler: Any, x: Any) -> bool:
    """True if a sampler takes a log-density of events; samplers for minibatches take another kind."""

    def step(key, x):
        return sampler.step(key, jnp.sum, sampler.init(jnp.sum, x))

    try:
        jax.eval_shape(step, jax.random.key(0), x)
    except (AttributeError, TypeError):
        return False
    return True


class TiltedPath(NamedTuple):
    """The geometric path from the base of an energy model to the model: `E_beta = beta f - log p_0`.

    Args:
        target: the model at 1.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.zeros((5, 2))
        >>> path = EnergyModel.init(jax.random.key(0), x, jg.StandardNormal((2,))).annealing_path()
        >>> float(path.at(0.25).tilt), float(path.log_partition())
        (0.25, 0.0)
    """

    target: EnergyModel

    def at(self, beta) -> EnergyModel:
        """The model at `beta` in [0, 1]."""
        tilt = (jnp.asarray(beta) * self.target.tilt).astype(self.target.tilt.dtype)
        return dataclasses.replace(self.target, tilt=tilt)

    def sample(self, key, shape=()) -> jax.Array:
        """Independent draws `[*shape, *event]` from the base."""
        return self.target.base.sample(key, shape).astype(self.target.tilt.dtype)

    def log_partition(self) -> jax.Array:
        """That of the base: 0 nats."""
        return jnp.zeros((), self.target.tilt.dtype)
