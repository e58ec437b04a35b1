"""What a model can be asked, and what an algorithm is. Structural: a class has a protocol by having its methods."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

Key = jax.Array
Shape = tuple[int | None, ...]


class Kind(enum.StrEnum):
    """What a number that is called a likelihood means. Numbers of different kinds are not compared.

    Example:
        >>> str(Kind.LOWER_BOUND)
        'lower bound'
    """

    EXACT = "exact"
    LOWER_BOUND = "lower bound"
    ESTIMATE = "estimate"
    UNNORMALISED = "unnormalised"
    NONE = "none"


@runtime_checkable
class Implicit(Protocol):
    """Can be sampled: a GAN's generator.

    `event_shape` is the shape of one event, with None for a free length (then `sample` needs `length=`).
    """

    @property
    def event_shape(self) -> Shape: ...

    def sample(self, key: Key, shape: Any = (), *, context: Any = None, length: int | None = None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        ...


@runtime_checkable
class Density(Implicit, Protocol):
    """Has an exact density: a mixture, a hidden Markov model, a flow."""

    def log_prob(self, x: Any, *, context: Any = None) -> jax.Array:
        """`log p(x)` in nats, `[*batch, *event] -> [*batch]`."""
        ...


@runtime_checkable
class Latent(Density, Protocol):
    """A density that EM applies to."""

    def e_step(self, x: Any, weight: Any = None) -> tuple[Any, jax.Array]:
        """Expected sufficient statistics, additive over events and linear in the weights, and `log_prob [N]`."""
        ...

    def m_step(self, statistics: Any) -> Any:
        """The model of the same type that maximises the expected weighted log-likelihood."""
        ...


@runtime_checkable
class Bound(Implicit, Protocol):
    """Has a lower bound on its log-likelihood: a variational autoencoder."""

    def elbo(self, key: Key, x: Any, *, context: Any = None) -> jax.Array:
        """An unbiased estimate of a lower bound on `log p(x)` in nats, `[*batch, *event] -> [*batch]`."""
        ...


@runtime_checkable
class Energy(Protocol):
    """Has an unnormalised density: a Boltzmann machine."""

    @property
    def event_shape(self) -> Shape: ...

    def energy(self, x: Any) -> jax.Array:
        """`-log p(x)` up to a constant of the model, in nats, `[*batch, *event] -> [*batch]`."""
        ...

    def kernel(self, key: Key, x: Any) -> jax.Array:
        """One Markov step, `[*batch, *event] -> [*batch, *event]`, that leaves `p` invariant."""
        ...


@runtime_checkable
class Trained(Protocol):
    """A model that names the loss it is trained with: a diffusion model, a flow matching model.

    `fit(key, model, data)` then descends the mean of `loss` over events, whatever else the model can do.
    """

    def loss(self, key: Key, x: Any, *, context: Any = None) -> jax.Array:
        """Return what each event costs, `[*batch, *event] -> [*batch]`, in nats where it is a likelihood or a bound."""
        ...


@runtime_checkable
class Kinded(Protocol):
    """A model that says what its `log_prob` or `elbo` is, where that is not what the method's name promises."""

    @property
    def kind(self) -> Kind:
        """The kind of the model's number: `Kind.ESTIMATE` of a log density with a stochastic trace."""
        ...


@dataclass(frozen=True)
class Traits:
    """What `fit` needs to know of an algorithm before the first step.

    Args:
        monitor: the metric whose change a tolerance looks at, and which the progress shows.
        full_batch: True where every step needs all events.
        labels: True where the algorithm looks at labels of events.
        data: False where it looks at no data, so that `fit(key, model, None, algorithm)` makes sense.
        steps: how many steps `fit` makes at most unless it is told; None where there is no good default.
        tolerance: the default change of the monitored metric, nats per event, that ends a fit on all events; None for
            no end before all steps are made.
        summed: True where a step is a function of sums over events, so that it can be made chunk by chunk: `Summed`.

    Example:
        >>> Traits(monitor="objective", full_batch=True).steps
        2000
    """

    monitor: str = "loss"
    full_batch: bool = False
    labels: bool = False
    data: bool = True
    steps: int | None = 2000
    tolerance: float | None = None
    summed: bool = False


@runtime_checkable
class Algorithm(Protocol):
    """A pair of pure functions, held in a frozen dataclass that hashes by value.

    A state has a field or property `model`. What else an algorithm can do it says by having the methods of `Evaluated`,
    `Prepared`, `Arranged` and `Summed`.
    """

    @property
    def traits(self) -> Traits:
        """What `fit` needs to know before the first step."""
        ...

    def init(self, key: Key, model: Any) -> Any:
        """The state before the first step."""
        ...

    def step(self, key: Key, state: Any, batch: Any) -> tuple[Any, dict[str, jax.Array]]:
        """One step on a `Batch`: the next state, and scalar metrics."""
        ...


@runtime_checkable
class Evaluated(Protocol):
    """An algorithm that can score a model on other data, which validation and restarts need."""

    def evaluate(self, key: Key, model: Any, batch: Any) -> jax.Array:
        """Return the score of the model on a `Batch`, a scalar mean over its events: higher is better."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """An algorithm that likes to see its data in another form, made once where a step sees all events."""

    def prepare(self, model: Any, batch: Any) -> Any:
        """Return the `Batch` in the form that the steps work on; inside a compiled program."""
        ...


@runtime_checkable
class Arranged(Protocol):
    """An algorithm that likes its events in another order or grouping, made once on the host."""

    def arrange(self, model: Any, batch: Any) -> Any:
        """Return the `Batch` of the same events, rearranged before anything is compiled."""
        ...


@runtime_checkable
class Summed(Protocol):
    """An algorithm whose step is a function of sums over events: `advance(state, *sum_n expect(model, batch_n))`."""

    def expect(self, model: Any, batch: Any) -> tuple[Any, jax.Array, jax.Array]:
        """Return statistics, their log-likelihood in nats and their weight, all three additive over events."""
        ...

    def advance(self, state: Any, statistics: Any, total: Any, weight: Any) -> tuple[Any, dict[str, jax.Array]]:
        """Return the state after one step from the sums over all events, and scalar metrics."""
        ...


def plus_minus(value: float, error: float) -> str:
    """A number with its standard error, where there is one.

    Example:
        >>> plus_minus(-2.5, 0.1), plus_minus(-2.5, float("nan"))
        ('-2.5000 ± 0.1000', '-2.5000')
    """
    return f"{value:.4f} ± {error:.4f}" if math.isfinite(error) else f"{value:.4f}"


class Score(NamedTuple):
    """A mean over events that says what kind of number it is.

    Args:
        mean: nats per event.
        standard_error: of the mean, nats; over events. NaN where none is known: of one event, or of no finite mean.
        kind: what the number means.
        events: how many events.
        low, high: of an estimate that was bracketed, the bounds that it lies between, nats; None of all others.

    Example:
        >>> print(Score(-84.5, 0.2, Kind.ESTIMATE, 100, -84.6, -84.4))
        -84.5000 ± 0.2000 in [-84.6000, -84.4000] nats per event (estimate, 100 events)
        >>> print(Score(-84.5, float("nan"), Kind.EXACT, 1))
        -84.5000 nats per event (exact, 1 event, no standard error)
    """

    mean: float
    standard_error: float
    kind: Kind
    events: int
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        within = "" if self.low is None else f" in [{self.low:.4f}, {self.high:.4f}]"
        about = f"{self.kind}, {self.events} event{'s' * (self.events != 1)}"
        about += "" if math.isfinite(self.standard_error) else ", no standard error"
        return f"{plus_minus(self.mean, self.standard_error)}{within} nats per event ({about})"
