"""Sources of samples for contrastive divergence: the data of a batch, persistent chains, tempered chains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxgen.annealing import advanced, as_path, exchanged, ladder, moved, replicas
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import HiddenFields, has
from jaxgen.core.pytree import float_type
from jaxgen.core.value import algorithm

#: kernel steps that carry chains from zeros to their start
BURN_IN = 100
#: updates without a move after which chains count as stuck: by chance that happens to none that accept a twentieth
STILL = 100


@runtime_checkable
class Negative(Protocol):
    """A source of the model's samples; a frozen value, its chains a pytree in the state of the algorithm."""

    def init(self, key: Any, model: Any) -> Any:
        """The chains before the first step, None for a source that has none.

        Raises:
            FitError: the model or the options do not fit.
        """
        ...

    def draw(
        self, key: Any, model: Any, chains: Any, batch: Batch, share: jax.Array, step: Any
    ) -> tuple[jax.Array, jax.Array, Any, dict[str, jax.Array]]:
        """Samples `[S, *event]`, their shares `[S]` of sum one, the next chains, and scalar metrics.

        `share` is that of the batch's events, `step` the number of updates made.
        """
        ...


@runtime_checkable
class Reusing(Negative, Protocol):
    """A source whose next chains may be what the gradient computed at its samples."""

    @property
    def reuse(self) -> bool:
        """True where the next chains are the field of each sample that `model.energy_and_field` gave."""
        ...


@runtime_checkable
class AtEvents(Negative, Protocol):
    """A source whose sample n belongs to event n of the batch, so that it has that event's context."""

    @property
    def at_events(self) -> bool:
        """True where it is so."""
        ...


@algorithm
class FromData:
    """Chains that start anew at each event of the batch, and stay at its context where it has one: CD-k.

    Its gradient does not tend to the likelihood's: on data whose modes are far apart it can lower the likelihood for as
    long as it trains. Metric: `reconstruction_error`, the mean squared change of a coordinate in k steps.

    Args:
        k: kernel steps, 1 or more.

    Source: Hinton (2002), Training products of experts by minimizing contrastive divergence.

    Example:
        >>> FromData(k=10).k
        10
    """

    k: int = 1
    at_events: ClassVar[bool] = True

    def init(self, key: Any, model: Any) -> None:
        _at_least_one(self, k=self.k)

    def draw(self, key: Any, model: Any, chains: Any, batch: Batch, share: jax.Array, step: Any) -> Any:
        x = batch.x
        samples = advanced(key, model, x, self.k, batch.context)
        change = (samples.astype(share.dtype) - x.astype(share.dtype)).reshape((len(x), -1))
        # a reconstruction weighs as much as the event it started at
        return samples, share, None, {"reconstruction_error": jnp.dot(share, jnp.mean(change**2, axis=1))}


@algorithm
class Persistent:
    """Chains that go on from step to step: PCD-k.

    They follow the model, so that the gradient tends to that of the likelihood.

    Args:
        chains: how many, 1 or more. They start at zeros, carried by 100 kernel steps.
        k: kernel steps per update, 1 or more; more where chains mix slowly.
        reuse: start from what the gradient computed, which saves one of the six matrix products of PCD-1; k is then 1.
            A chain is the field that its sample made on the hidden units when the energy was differentiated, so these
            are drawn by the parameters of the update before, the visible ones by the present ones. That differs by as
            little as an update changes, and is what scikit-learn's `BernoulliRBM` does. For large machines, whose
            products are most of the work; the model has `energy_and_field` and `kernel_from`, as an `RBM` does.

    Source: Tieleman (2008), Training restricted Boltzmann machines using approximations to the likelihood gradient.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.array([[1, 1, 0, 0], [0, 0, 1, 1]] * 8)
        >>> start = jg.RBM.init(jax.random.key(0), x, 2, scale=0.1)
        >>> reused = jg.ContrastiveDivergence(negative=Persistent(50, reuse=True))
        >>> jg.fit(jax.random.key(1), start, x, reused, steps=10).state.chains.shape  # a field on 2 hidden units
        (50, 2)
    """

    chains: int = 100
    k: int = 1
    reuse: bool = False

    def init(self, key: Any, model: Any) -> jax.Array:
        _at_least_one(self, chains=self.chains, k=self.k)
        if self.reuse and (self.k != 1 or not has(model, HiddenFields)):
            raise FitError(
                "there is no field to reuse", called=repr(self), got=f"{type(model).__name__}, k={self.k}",
                expected="k of 1, and a model with energy_and_field(x) and kernel_from(key, field)",
                fix=f"jaxgen.ContrastiveDivergence(negative=jaxgen.Persistent({self.chains}, k={self.k}))",
            )  # fmt: skip
        samples = advanced(key, model, _zeros(model, (self.chains,)), BURN_IN)
        return model.energy_and_field(samples)[1] if self.reuse else samples

    def draw(self, key: Any, model: Any, chains: Any, batch: Batch, share: jax.Array, step: Any) -> Any:
        samples = model.kernel_from(key, chains) if self.reuse else advanced(key, model, chains, self.k)
        return samples, _even(samples, share.dtype), samples, {}


class Buffer(NamedTuple):
    """The chains of `Replay`: `x` `[size, *event]`, and for how many updates none has moved."""

    x: jax.Array
    still: jax.Array


@algorithm
class Replay:
    """A buffer of chains that are moved in turn, some of which start anew at the tractable end of the model's path.

    A buffer is larger than the samples of one update, so that chains are old and various although each update moves
    few; those that start anew keep looking for modes that the others have not found. Metrics: `renewed`, the share of
    the samples that did; `moved`, the share of chains that moved. It is NaN, which ends the fit, once none has for 100
    updates: chains that stand still are no samples, and against them the loss would fall without end.

    Args:
        chains: samples of an update, 1 or more.
        size: chains in the buffer, `chains` or more; every `size / chains` updates a chain has its turn.
        k: kernel steps per update, 1 or more.
        fresh: the probability with which a chain starts anew, from 0 to 1.

    Source: Du and Mordatch (2019), Implicit generation and modeling with energy-based models, section 3.2.

    Example:
        >>> import jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 500)
        >>> start = jg.EnergyModel.init(jax.random.key(0), x, jg.Gaussian.init(jax.random.key(0), x))
        >>> algorithm = jg.ContrastiveDivergence(negative=Replay(50, size=100))
        >>> jg.fit(jax.random.key(1), start, x, algorithm, steps=2, batch_size=50).state.chains.x.shape
        (100, 2)
    """

    chains: int = 100
    size: int = 1000
    k: int = 1
    fresh: float = 0.05

    def init(self, key: Any, model: Any) -> Buffer:
        _at_least_one(self, chains=self.chains, k=self.k, size=self.size)
        if self.size < self.chains or not 0 <= self.fresh <= 1:
            raise FitError(
                "a buffer holds the samples of an update, and a share of it is renewed", called=repr(self),
                expected="size of chains or more, fresh from 0 to 1", got=f"size={self.size}, fresh={self.fresh}",
            )  # fmt: skip
        return Buffer(as_path(model, repr(self)).sample(key, (self.size,)), jnp.zeros((), jnp.int32))

    def draw(self, key: Any, model: Any, chains: Any, batch: Batch, share: jax.Array, step: Any) -> Any:
        buffer, still = chains
        renewal, start, move = jax.random.split(key, 3)
        turn = (step * self.chains + jnp.arange(self.chains)) % self.size
        x = buffer[turn]
        anew = jax.random.bernoulli(renewal, self.fresh, (self.chains,))
        fresh = as_path(model, repr(self)).sample(start, (self.chains,)).astype(x.dtype)
        x = jnp.where(anew.reshape((-1,) + (1,) * (x.ndim - 1)), fresh, x)
        samples = advanced(move, model, x, self.k)
        moved = jnp.mean(jnp.any((samples != x).reshape((len(x), -1)), axis=1), dtype=share.dtype)
        still = jnp.where(moved > 0, 0, still + 1)
        report = {"renewed": jnp.mean(anew), "moved": jnp.where(still < STILL, moved, jnp.nan)}
        return samples, _even(samples, share.dtype), Buffer(buffer.at[turn].set(samples), still), report


@algorithm
class Tempered:
    """Persistent chains that exchange states with chains of flatter models along the model's `annealing_path()`.

    A chain that is caught in a mode travels to the flat end and comes back to another. The samples are those of the
    replica at 1. Metrics: `swap_acceptance`, the mean probability that neighbours exchange their states, and
    `swap_acceptance_min`, that of the worst pair: where it nears 0 the ladder has a gap, and needs more replicas.

    Args:
        chains: ladders, 1 or more; each is as many chains as it has replicas.
        replicas: places on the path, evenly spaced from 0 to 1, 2 or more.
        betas: a tuple from 0 to 1 in place of the even ones; `replicas` is then not used.
        path: a function `model -> AnnealingPath`, such as `lambda m: m.annealing_path(logits)` with the data's logits;
            None is the model's own `annealing_path()`.
        k: kernel steps, and as many rounds of exchange, per update.

    Source: Desjardins, Courville, Bengio, Vincent and Delalleau (2010), Parallel tempering for training of restricted
    Boltzmann machines; Cho, Raiko and Ilin (2010), Parallel tempering is efficient for learning restricted Boltzmann
    machines.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.array([[1, 1, 0, 0], [0, 0, 1, 1]] * 8)
        >>> start = jg.RBM.init(jax.random.key(0), x, 2, scale=0.1)
        >>> tempered = jg.ContrastiveDivergence(negative=Tempered(chains=20, replicas=5))
        >>> fitted = jg.fit(jax.random.key(1), start, x, tempered, steps=200)
        >>> bool(fitted.history["swap_acceptance_min"][-1] > 0.5)
        True
    """

    chains: int = 100
    replicas: int = 10
    betas: tuple[float, ...] | None = None
    path: Callable[[Any], Any] | None = None
    k: int = 1

    def _betas(self) -> jax.Array:
        return ladder(self.betas, self.replicas - 1, repr(self))

    def _replicas(self, model: Any) -> Any:
        return replicas(as_path(model if self.path is None else self.path(model), repr(self)), self._betas())

    def init(self, key: Any, model: Any) -> jax.Array:
        _at_least_one(self, chains=self.chains, k=self.k, replicas=self.replicas - 1)
        models = self._replicas(model)
        return moved(key, models, _zeros(model, (len(self._betas()), self.chains)), BURN_IN)

    def draw(self, key: Any, model: Any, chains: Any, batch: Batch, share: jax.Array, step: Any) -> Any:
        models = self._replicas(model)

        def round_of(x: jax.Array, t: Any) -> tuple[jax.Array, jax.Array]:
            first, second = jax.random.split(jax.random.fold_in(key, t))
            x, accepted, _ = exchanged(second, models, moved(first, models, x, 1), (step * self.k + t) % 2)
            return x, accepted

        chains, accepted = jax.lax.scan(round_of, chains, jnp.arange(self.k))
        accepted = jnp.mean(accepted, axis=0)
        metrics = {"swap_acceptance": jnp.mean(accepted), "swap_acceptance_min": jnp.min(accepted)}
        return chains[-1], _even(chains[-1], share.dtype), chains, metrics


def _even(samples: jax.Array, dtype: Any) -> jax.Array:
    return jnp.full(len(samples), 1 / len(samples), dtype)


def _zeros(model: Any, shape: tuple[int, ...]) -> jax.Array:
    if None in model.event_shape:
        raise FitError(
            "persistent chains need events of one shape", called=f"ContrastiveDivergence().init(key, {type(model)})",
            expected="an event_shape of ints", got=str(model.event_shape),
            fix="start the chains at the data, without chains of their own",
        )  # fmt: skip
    return jnp.zeros((*shape, *model.event_shape), float_type(model))


def _at_least_one(source: Any, **counts: Any) -> None:
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in counts.values()):
        raise FitError(
            "contrastive divergence needs kernel steps", called=repr(source), got=repr(source),
            expected="k of 1 or more; chains of 1 or more, or None to start at the data; replicas of 2 or more",
        )  # fmt: skip
