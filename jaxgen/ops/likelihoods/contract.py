"""The contract of a likelihood: what it takes from a network, which numbers it trains itself, where it is defined."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.inputs import concrete
from jaxgen.core.protocols import has
from jaxgen.core.pytree import name_of

#: largest |log scale| that a network can ask for: from 0.0025 to 400 units, so that no coordinate that repeats itself
#: can drive a density to infinity. Rybkin, Daniilidis and Levine (2021), Simple and effective VAE training with
#: calibrated decoders, soften the same limit of -6.
BOUND = 6.0


class Support(NamedTuple):
    """The values that a likelihood gives a density or a probability to.

    Args:
        low: the smallest.
        high: the largest.
        whole: whether only whole numbers count.
        inside: whether the ends themselves have no density, as of a Beta.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    inside: bool = False

    def __str__(self) -> str:
        kind = "whole numbers" if self.whole else "numbers"
        if (self.low, self.high) == (-math.inf, math.inf):
            return f"all {kind}"
        upper = "" if math.isinf(self.high) else f" to {self.high:g}"
        return f"{kind} from {self.low:g}{upper}{', the ends left out' if self.inside else ''}"


#: all real numbers
REAL = Support()


class Stacked(Protocol):
    """A likelihood that takes one array `[P, *event]`, and says how many parameters P it has.

    Default: P arrays of the event's shape, P read off the signature.
    """

    @property
    def parameters(self) -> int: ...


class Entrywise(Protocol):
    """A distribution whose entries are independent, and which says the log-probability of each."""

    def entries(self, x: Any) -> jax.Array:
        """`[*event] -> [*event]`, nats."""


class Supported(Protocol):
    """A distribution that says for which values it is defined: a `Support`, or a pair of the smallest and largest."""

    support: Any


def bounded(raw: jax.Array, bound: float = BOUND) -> jax.Array:
    """A network's free output as a log-scale within bounds: `bound tanh(raw / bound)`, the identity near zero.

    Example:
        >>> bounded(jnp.array([-1e9, 0.0, 1e9])).tolist()
        [-6.0, 0.0, 6.0]
    """
    return bound * jnp.tanh(raw / bound)


def parameter_count(likelihood: Callable[..., Any]) -> int:
    """Return the number of parameters of the event's shape that a likelihood takes.

    That is its attribute `parameters` where it has one, else the number of positional arguments of its signature.

    Raises:
        ModelError: not a callable with positional parameters.

    Example:
        >>> import jaxgen as jg
        >>> lik = jg.likelihoods
        >>> parameter_count(lik.bernoulli), parameter_count(lik.gaussian), parameter_count(lik.CategoricalLevels(256))
        (1, 2, 256)
    """
    if callable(likelihood) and has(likelihood, Stacked):
        return int(likelihood.parameters)  # type: ignore[attr-defined]
    called = f"likelihood={name_of(likelihood)!r:.60}"
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(p.kind in kinds and p.default is p.empty for p in _arguments(likelihood))
    if count == 0:
        raise ModelError(
            "that is no likelihood", called=called, expected="a function of arrays that returns a distribution",
            got=type(likelihood).__name__, fix="jaxgen.likelihoods.gaussian",
        )  # fmt: skip
    return count


def shared_names(likelihood: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the numbers that a likelihood shares between all entries of all events.

    They are its keyword-only arguments without a default, and the model trains each as a scalar of its own.

    Example:
        >>> import jaxgen as jg
        >>> shared_names(jg.likelihoods.gaussian_of_one_scale), shared_names(jg.likelihoods.gaussian)
        (('raw',), ())
    """
    return tuple(p.name for p in _arguments(likelihood) if p.kind is p.KEYWORD_ONLY and p.default is p.empty)


def _arguments(likelihood: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(likelihood).parameters.values()) if callable(likelihood) else []


def observe(likelihood: Callable[..., Any], outputs: Any, shared: Mapping[str, Any] | None = None) -> Any:
    """Return the distribution of one event, of a decoder's output for it.

    Args:
        likelihood: takes P arrays of the event's shape, or one `[P, *event]` where it has an attribute `parameters`.
        outputs: `[P, *event]`, or a tuple of P arrays `[*event]`.
        shared: a scalar for each of `shared_names(likelihood)`.

    Raises:
        ModelError: another number of outputs than P, or other shared numbers.

    Example:
        >>> import jaxgen as jg
        >>> round(float(observe(jg.likelihoods.gaussian, jnp.zeros((2, 3))).log_prob(jnp.zeros(3))), 4)
        -2.7568
    """
    shared = {} if shared is None else dict(shared)
    count, names = parameter_count(likelihood), shared_names(likelihood)
    if len(outputs) != count or set(shared) != set(names):
        raise ModelError(
            "the network's output does not fit the likelihood", called=f"{name_of(likelihood)}(...)",
            expected=f"{count} arrays of the event's shape, and the shared numbers {names}",
            got=f"{len(outputs)} arrays, and the shared numbers {tuple(shared)}",
            fix="a decoder with as many outputs for each entry as the likelihood has parameters",
        )  # fmt: skip
    if has(likelihood, Stacked):
        stacked = jnp.stack(outputs) if isinstance(outputs, (tuple, list)) else outputs
        return likelihood(stacked, **shared)
    return likelihood(*apart(outputs), **shared)


def apart(outputs: Any) -> tuple[jax.Array, ...]:
    """Return the arrays along the first axis of a network's output, each by itself.

    Example:
        >>> [part.tolist() for part in apart(jnp.array([[1.0, 2.0], [3.0, 4.0]]))]
        [[1.0, 2.0], [3.0, 4.0]]
    """
    parts = tuple(outputs)
    # jaxlib 0.12.0 on CPU reads the wrong slice where it fuses a reshape, slices and a sum over 6000 rows or more: the
    # bound was off by .7 nats, without a word. The barrier keeps the slices out of the sum.
    return jax.lax.optimization_barrier(parts) if len(parts) > 1 else parts


def seen_entries(distribution: Any, x: jax.Array) -> jax.Array:
    """Return the log-probability of each entry of one event by itself, nats, `[*event]`: 0 of one not seen (NaN).

    Of an entry that was not seen no derivative is NaN either.

    Raises:
        ModelError: a distribution that scores an event only as a whole.

    Example:
        >>> import jaxgen as jg
        >>> bits = jg.likelihoods.bernoulli(jnp.zeros(2))
        >>> [round(float(score), 4) for score in seen_entries(bits, jnp.array([1.0, jnp.nan]))]
        [-0.6931, 0.0]
    """
    seen = x == x
    limits = _support_of(distribution) or REAL
    ends = math.isfinite(limits.low), math.isfinite(limits.high)
    instead = 0.5 * (limits.low + limits.high) if all(ends) else limits.low if ends[0] else 0.0
    filled = jnp.where(seen, x, math.floor(instead) if limits.whole else instead)
    scores = distribution.entries(filled) if has(distribution, Entrywise) else distribution.log_prob(filled)
    if jnp.shape(scores) != jnp.shape(x):
        raise ModelError(
            "the entries of an event cannot be scored by themselves", called=f"{type(distribution).__name__}.log_prob",
            expected=f"a method entries(x), or log_prob(x) of the event's shape {list(jnp.shape(x))}",
            got=f"shape {list(jnp.shape(scores))}", fix="a likelihood without Independent around its distribution",
        )  # fmt: skip
    return jnp.where(seen, scores, 0)


def _support_of(distribution: Any) -> Support | None:
    found = distribution.support if has(distribution, Supported) else None
    return Support(*found) if isinstance(found, tuple) else None


def support(likelihood: Callable[..., Any], event_shape: tuple[int, ...]) -> Support | None:
    """Return the values that a likelihood is defined for; None where its distribution does not say.

    Example:
        >>> import jaxgen as jg
        >>> str(support(jg.likelihoods.bernoulli, (3,))), str(support(jg.likelihoods.poisson, (3,)))
        ('numbers from 0 to 1', 'whole numbers from 0')
    """
    found: list[Support | None] = []

    def look(outputs: Any, shared: Any) -> None:
        found.append(_support_of(observe(likelihood, outputs, shared)))

    example = jax.ShapeDtypeStruct((parameter_count(likelihood), *event_shape), jnp.float32)
    shared = dict.fromkeys(shared_names(likelihood), jax.ShapeDtypeStruct((), jnp.float32))
    jax.eval_shape(look, example, shared)
    return found[0]


def check_support(likelihood: Callable[..., Any], event_shape: tuple[int, ...], x: Any, called: str) -> None:
    """Refuse data outside of a likelihood's support, which it would score as if it knew them.

    NaN passes: an entry that was not seen. Inside of `jit`, where values cannot be seen, all pass.

    Args:
        likelihood: its distribution may have an attribute `support`.
        event_shape: shape of one event.
        x: data of any shape.
        called: what the user called, for the message.

    Raises:
        DataError: values outside, or values between whole numbers where only these count.

    Example:
        >>> import jaxgen as jg
        >>> check_support(jg.likelihoods.bernoulli, (2,), np.zeros((3, 2)), "f(x)")
        >>> check_support(jg.likelihoods.CategoricalLevels(256), (2,), np.full((3, 2), 0.5), "f(x)")
        Traceback (most recent call last):
        jaxgen.core.errors.DataError: the data lie outside the support of the likelihood
          called:   f(x)
          expected: whole numbers from 0 to 255, where CategoricalLevels(levels=256) is defined
          got:      6 of 6 outside, such as 0.5
          fix:      np.rint(np.multiply(x, 255))
    """
    limits = support(likelihood, event_shape)
    if limits is None or limits == REAL or not concrete(x):
        return
    host = np.asarray(x)  # numpy's comparisons of an array of jax are programs of jax
    # x * (1 / 255) ends at 1.0000001 in float32, where a density is as good as at 1
    slack = 1e-5 * (limits.high - limits.low) if not limits.whole and math.isfinite(limits.high - limits.low) else 0.0
    outside = (host < limits.low - slack) | (host > limits.high + slack)
    if limits.whole:
        outside |= host != np.floor(host)
    if limits.inside:
        outside |= (host <= limits.low) | (host >= limits.high)
    outside &= host == host
    if outside.any():
        raise DataError(
            "the data lie outside the support of the likelihood", called=called,
            expected=f"{limits}, where {name_of(likelihood)} is defined", fix=_fix(limits, host),
            got=f"{outside.sum()} of {outside.size} outside, such as {host[outside][0]}",
        )  # fmt: skip


def _fix(limits: Support, x: Any) -> str:
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    if limits.inside:
        return "move what is at an end inwards, by half of the smallest difference between values"
    if limits.whole and low >= limits.low:
        if high <= 1 and math.isfinite(limits.high):
            return f"np.rint(np.multiply(x, {limits.high:g}))"
        if high <= limits.high:
            return "np.rint(x)"
        return f"a likelihood of {math.floor(high) + 1} levels"
    if not limits.whole and low >= 0 and math.isfinite(limits.high):
        return f"np.divide(x, {high})"
    return "jaxgen.likelihoods.gaussian, which takes all numbers"
