"""The page of protocols: what a model can be asked, required or optional. Those of algorithms are `core.algorithms`.

Structural: a class has a protocol by having its members. What every model has stands first; then each optional
capability with its equation, what holds without it (default), and the law that holds it (in `jaxgen.check`, which
prints what a model can do). Code asks `has(model, Prior)`, and never for a method by its name. Those of energies are
written in `core.energies`, and stand here with the others.

What a model is made of is declared by `part()` and `parts()`. A capability below is then of the model's own fields
alone: `core.latent` adds those of the parts.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax

from jaxgen.core.closed import (
    LabelProbabilities as LabelProbabilities,
    Marginal as Marginal,
    NormalMoments as NormalMoments,
    Ranged as Ranged,
    Strange as Strange,
)
from jaxgen.core.energies import (
    Annealed as Annealed,
    Energy as Energy,
    HiddenFields as HiddenFields,
    Key,
    Layered as Layered,
    PseudoLikelihood as PseudoLikelihood,
    Reversible as Reversible,
    Shape,
    Tractable as Tractable,
)
from jaxgen.core.inferences import (
    Centered as Centered,
    Completed as Completed,
    Divergent as Divergent,
    Enumerated as Enumerated,
    Factored as Factored,
    Guessing as Guessing,
    Inference as Inference,
    Inferring as Inferring,
    NormalDivergence as NormalDivergence,
    Quantizing as Quantizing,
    Reconstructing as Reconstructing,
)


class Kind(enum.StrEnum):
    """The meaning of a number that is called a likelihood. Numbers of different kinds are not compared.

    Example:
        >>> str(Kind.LOWER_BOUND)
        'lower bound'
    """

    EXACT = "exact"
    LOWER_BOUND = "lower bound"
    UPPER_BOUND = "upper bound"
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

    def sample(self, key: Key, shape: Any = (), *, context: Any = None) -> jax.Array:
        """Draws `[*shape, *event]`."""


@runtime_checkable
class Density(Implicit, Protocol):
    """Has an exact density: a mixture, a hidden Markov model, a flow."""

    def log_prob(self, x: Any, *, context: Any = None) -> jax.Array:
        """`log p(x)` in nats, `[*batch, *event] -> [*batch]`."""


@runtime_checkable
class Latent(Density, Protocol):
    """A density that EM applies to."""

    def e_step(self, x: Any, weight: Any = None) -> tuple[Any, jax.Array]:
        """Expected sufficient statistics, additive over events and linear in the weights, and `log_prob [N]`."""

    def m_step(self, statistics: Any) -> Any:
        """The model of the same type that maximises the expected weighted log-likelihood."""


@runtime_checkable
class Bound(Implicit, Protocol):
    """Has a lower bound on its log-likelihood: a variational autoencoder."""

    def elbo(self, key: Key, x: Any, *, context: Any = None) -> jax.Array:
        """An unbiased estimate of a lower bound on `log p(x)` in nats, `[*batch, *event] -> [*batch]`."""


# ---- optional capabilities of a model


def has(model: Any, capability: Any) -> bool:
    """Tell whether a model's class has all members of a protocol. No property is evaluated.

    Example:
        >>> import jaxgen as jg
        >>> has(jg.Poisson.from_values(1.0), Latent), has(jg.Poisson.from_values(1.0), Energy)
        (True, False)
    """
    return _has(type(model), capability)  # type: ignore[arg-type]


@functools.cache
def _has(cls: Any, capability: Any) -> bool:
    fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    return all(name in fields or hasattr(cls, name) for name in members(capability))


@functools.cache
def members(capability: type) -> frozenset[str]:
    """Return the names of a protocol's members, those of the protocols that it extends included."""
    bases = [base for base in capability.__mro__ if base not in (object, Protocol) and base.__module__ != "typing"]
    names = {name for base in bases for name in (*vars(base), *base.__dict__.get("__annotations__", {}))}
    return frozenset(name for name in names if not name.startswith("_"))


class Conditional(Protocol):
    """Takes a context with every event: `p(x | context)`. Default: no context. Law: events with their contexts are
    answered as one by one."""

    @property
    def context_shape(self) -> Shape | None:
        """Shape of one context, or None for none."""


class Unconditioned(Conditional, Protocol):
    """A context may be absent, None for all events or a row of NaN for one. Default: where all parts that take one say
    so (`core.algebra.context_optional`)."""

    context_optional: Any


class Mapped(Protocol):
    """Has a latent side of another shape than an event, what `decode` takes. Default: an event's shape."""

    @property
    def latent_shape(self) -> Shape: ...


@runtime_checkable
class Kinded(Protocol):
    """Says what its likelihood is, where that is not what the method's name promises.

    Default: exact with `log_prob`, a lower bound with `elbo`, unnormalised with `energy`; a density that is made of
    others is as good as the worst of them (`core.latent.likelihood_kind`).
    """

    @property
    def kind(self) -> Kind:
        """`Kind.ESTIMATE` of a log-density with a stochastic trace."""


@runtime_checkable
class Trained(Protocol):
    """Names its own loss, for `fit` and `Gradient`. Default: that of its kind, `-log_prob` or `-elbo`."""

    def loss(self, key: Key, x: Any, *, context: Any = None) -> jax.Array:
        """Return the loss of each event, `[*batch, *event] -> [*batch]`, nats where it is a likelihood or a bound."""


class Stepped(Protocol):
    """Names its own loss of a whole batch, for `fit` and `Gradient`: one that moves fields which do not train, such as
    a codebook, or that has metrics. Default: the loss of each event by itself, `Trained`."""

    def batch_loss(self, key: Key, x: Any, weight: Any, step: Any) -> tuple[jax.Array, dict[str, jax.Array], Any]:
        """Return the mean loss of events `[N, *event]` with weights `[N]` (None: ones), its metrics, and the model with
        moved fields, inside of a compiled function."""


class Weighted(Bound, Protocol):
    """Estimates its likelihood without bias: a bound that can be a part of a mixture or chain.

    `log (1 / S) sum_s p(x, z_s) / q(z_s | x)`, whose exponential has the mean p(x).

    Default: a bound cannot be a part. Law: the mean of its exponential is the likelihood where that is known.
    """

    def iwae(self, key: Key, x: Any, *, samples: int = 1, context: Any = None) -> jax.Array:
        """`[*batch, *event] -> [*batch]`, nats."""


class Paired(Density, Protocol):
    """Draws an event together with its log-density. Default: `sample`, then `log_prob`."""

    def sample_and_log_prob(self, key: Key, *, context: Any = None) -> tuple[jax.Array, jax.Array]: ...


class Checked(Protocol):
    """Refuses data outside its support, which their shape does not tell. Default: its parts of the same events do."""

    def check_data(self, x: Any) -> None:
        """Raises DataError."""


class Atomic(Density, Protocol):
    """Has events of its own that single numbers of a continuum have no probability of: a point mass. Default: none."""

    def atoms(self, x: Any) -> jax.Array:
        """True where what was seen of an event is such a point, `[*batch, *event] -> [*batch]`."""


class Missing(Protocol):
    """Says whether NaN is an entry that was not seen, and is summed out. Default: where all its parts say so. Law: an
    event whose entries are all missing has `log_prob` 0."""

    missing: Any


class Labelled(Protocol):
    """Knows labels of events, the latent class, -1 where not known: `label=` of `e_step`, `log_prob`. Default: none."""

    def check_label(self, label: Any) -> None:
        """Raises ModelError for labels of classes that are not there."""


class Clusterable(Protocol):
    """Turns events into vectors whose distances have no units, to cluster them. Default: the flat events."""

    def features(self, x: Any) -> jax.Array:
        """`[N, *event] -> [N, F]`."""


class Repairs(Protocol):
    """Repairs dead or singular parts in the M-step by its stated rule, and counts them. Default: `m_step`, and none.

    Law: `maximize(s)[0]` is `m_step(s)`. A part without mass is not the model's business: the container keeps it.
    """

    def maximize(self, statistics: Any) -> tuple[Any, jax.Array]: ...


class Prior(Protocol):
    """Has priors, which the M-step counts in: the log density of those of its own fields, nats up to a constant.

    Default: 0. Law: no EM step lowers log-likelihood plus `core.latent.log_prior`.
    """

    def log_prior(self) -> jax.Array: ...


class Counted(Protocol):
    """Knows how many of its own fields' numbers are free, for information criteria. Default: all that train."""

    @property
    def free_parameters(self) -> int: ...


class Valued(Protocol):
    """Can be made from plain values. Law: from those of the properties named as its arguments, it is the same model."""

    from_values: ClassVar[Callable[..., Any]]


class ParameterScales(Protocol):
    """Has parameters in units of its events, in whose scales a gradient steps. Default: 1. Law: a fit by gradients in
    other units is the same fit, transformed."""

    def parameter_scales(self) -> dict[str, jax.Array]:
        """By field, positive, broadcasting to it: `{"offset": a standard deviation}`. Of K models too."""


class Freezable(Protocol):
    """Has parameters whose maximum depends on another's: the statistics as an M-step sees them with some frozen.
    Default: the same statistics; the frozen numbers are put back after the M-step, which is the constrained maximum
    where parameters are found apart from each other. Law: no step with frozen parameters lowers the objective.
    """

    def freeze(self, statistics: Any, frozen: Any) -> Any:
        """`frozen` is a model of bools, one for each number of each leaf."""


class Recentred(Protocol):
    """Has statistics that refer to its own parameters (moments around the mean): those of `old` as this model's.
    Default: the same statistics. Law: `recentre(old, old.e_step(x)) = e_step(x)`."""

    def recentre(self, old: Any, statistics: Any) -> Any: ...


class Evidence(Protocol):
    """Has an E-step that bounds another number than `log_prob`: models with a posterior over their parameters.

    Default: `log_prob`. Law: it is what `e_step` returns beside the statistics.
    """

    def step_log_prob(self, x: Any) -> jax.Array:
        """`[N, *event] -> [N]`, nats."""


# ---- faster forms of K models with a leading axis, held to the default (a `vmap`) by a law


class ComponentScores(Protocol):
    """`log p_k(x_n)` of K models at once."""

    def log_prob_components(self, x: Any) -> jax.Array:
        """`[N, *event] -> [K, N]`."""


class ComponentEvidence(Protocol):
    """`step_log_prob` of K models at once."""

    def step_log_prob_components(self, x: Any) -> jax.Array:
        """`[N, *event] -> [K, N]`."""


class ComponentSteps(Protocol):
    """The E-step of K models at once."""

    def e_step_components(self, x: Any, weight: jax.Array) -> Any:
        """Weights `[K, N]`; statistics with a leading axis K."""


class ComponentRepairs(Protocol):
    """`maximize` of K models that share parameters, or whose parts have mass of their own."""

    def maximize_components(self, statistics: Any, mass: jax.Array | None) -> tuple[Any, jax.Array]: ...


class ComponentPrior(Protocol):
    """`log_prior` of K models, summed, where what they share counts once."""

    def log_prior_components(self) -> jax.Array: ...


class ComponentCount(Protocol):
    """`free_parameters` of K models, where what they share counts once."""

    @property
    def free_parameters_components(self) -> int: ...


class InColumns(Protocol):
    """Has log-densities that are linear in functions of the events, which are then made once for a whole fit.

    Default: none. Law: EM by columns is EM. See `core.fast`.
    """

    #: `x - center [M, *event] -> [F, M]`
    columns: ClassVar[Callable[..., jax.Array]]

    def ready(self, center: jax.Array, events: int) -> Any:
        """K models in a form for so many events whose columns are taken around `center`: a `ComponentScores` and
        `ComponentSteps` on `fast.Events`, with `coarse` (columns lose digits) and `finish(sums, precise)`, which gives
        the statistics of the models themselves."""


class Joining(Protocol):
    """Has an E-step that takes rows of several sequences, `sequences.Joined`, and is faster for it where it says so."""

    @property
    def joins(self) -> bool: ...


# ---- what only some families have

#: capabilities that core alone asks for: their methods work on statistics, on K models at once or on data as a fit sees
#: them, and stand in no tab completion of a model (`help` and `dir` of the class have them)
INTERNAL = (
    Checked, Labelled, Clusterable, Repairs, ParameterScales, Freezable, Recentred, Evidence, ComponentScores,
    ComponentEvidence, ComponentSteps, ComponentRepairs, ComponentPrior, ComponentCount, InColumns, Joining,
    Divergent, Factored, NormalDivergence, Inferring,
)  # fmt: skip


class Classifier(Protocol):
    """Says which of its classes an event is of."""

    def responsibilities(self, x: Any, *, context: Any = None) -> jax.Array:
        """`p(k | x)`, `[*batch, *event] -> [*batch, K]`."""


class Permutable(Protocol):
    """Has classes or states in an order that means nothing."""

    @property
    def classes(self) -> Any:
        """K models, one for each class or state."""

    def permute(self, order: Any) -> Any:
        """The same model in another order, `order[new] = old`."""


class Sequential(Density, Protocol):
    """A model of sequences with a hidden state at each step."""

    def smooth(self, x: Any, *, context: Any = None) -> jax.Array:
        """`p(z_t | x)`, `[*batch, T, K]`."""

    def viterbi(self, x: Any, *, best: int | None = None, context: Any = None) -> Any: ...

    def path_entropy(self, x: Any, *, context: Any = None) -> jax.Array:
        """`H(z | x)`, nats."""

    def filter(self, x: Any, *, context: Any = None) -> Any:
        """Has `log_evidence [*batch, T]`, `log p(x_t | x_<t)`, nats, 0 beyond the length."""


class Chain(Protocol):
    """The hidden states of a model of sequences: where they start and go. `HMM.chain` is any of these."""

    @property
    def states(self) -> int: ...

    def log_chain(self, context: Any) -> tuple[jax.Array, jax.Array]:
        """`log_initial [K]` and `log_transition`, as `ops.chains` takes them, nats."""

    def chain_statistics(self, first: Any, counts: Any, weight: Any, context: Any) -> Any:
        """Statistics of first states `[N, K]` and transition counts, weighted `[N]`."""

    def m_step(self, statistics: Any) -> Any: ...

    def sample_states(self, key: Key, length: int, context: Any) -> jax.Array:
        """`[length]` int32."""


class Located(Protocol):
    """Has a mean, `[*event]`."""

    mean: Any


class LocatedGiven(Conditional, Protocol):
    """Has a mean for each context, `E[x | u]`. Default: none."""

    def conditional_mean(self, context: Any) -> jax.Array:
        """`[*batch, *context] -> [*batch, *event]`."""


class Covaried(Located, Protocol):
    """Has a covariance of vectors, `[D, D]`."""

    covariance: Any


class Spread(Located, Protocol):
    """Has a variance of each coordinate, `[*event]`."""

    variance: Any


class Quantiled(Density, Protocol):
    """Has the distribution function of each coordinate by itself, whatever the others are (marginal), and its inverse.

    `cdf(x)_d = P(X_d <= x_d)` and `quantile(u)_d = inf {x: P(X_d <= x) >= u}`. Default: neither.
    Law: `cdf` never falls, is at least u at `quantile(u)` and at most u just below it, and so are shares of draws.
    """

    def cdf(self, x: Any, *, context: Any = None) -> jax.Array:
        """`[*batch, *event] -> [*batch, *event]`, probabilities; of NaN NaN."""

    def quantile(self, level: Any, *, context: Any = None) -> jax.Array:
        """Levels `[*batch]`, above 0 and below 1 `-> [*batch, *event]`, units of x."""


class Encoder(Protocol):
    """Maps events to latent vectors."""

    def encode(self, x: Any) -> jax.Array: ...


class Decoder(Protocol):
    """Maps latent vectors to the events that they stand for."""

    def decode(self, z: Any, *, context: Any = None) -> jax.Array:
        """`[*batch, *latent] -> [*batch, *event]`."""


class Completing(Protocol):
    """Fills in what was not seen of an event."""

    def complete(self, key: Key, x: Any) -> jax.Array: ...


class Scaled(Protocol):
    """Knows its events in units of their own scale: for critics and networks."""

    def standardize(self, x: Any) -> jax.Array: ...
