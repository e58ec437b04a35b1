"""Checks of what a model of networks is made of, and the reading of what its networks give."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.algebra import context_optional as may_lack
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.methods import context_shape, same_shape
from jaxgen.core.protocols import Completed, Density, has
from jaxgen.core.pytree import name_of
from jaxgen.ops import likelihoods


def latent_shape(prior: Any, called: str) -> tuple[int | None, ...]:
    """Return the event shape of a prior, or refuse one that is no density of something."""
    shape: Any = prior.event_shape if has(prior, Density) or has(prior, Completed) else None
    known = isinstance(shape, tuple) and all(n is None or (isinstance(n, int) and n > 0) for n in shape)
    if not known or not shape or None in shape[1:]:
        raise ModelError(
            "the prior is no density of latent vectors", called=called, got=f"{type(prior).__name__} with event_shape "
            f"{shape}", expected="log_prob, sample and an event_shape: (L,), (H, W, C), or (None, L) of sequences",
            fix="jaxgen.StandardNormal((20,))",
        )  # fmt: skip
    return shape


def check_context(
    prior: Any, context: tuple[int, ...] | None, optional: bool, steps: bool, called: str
) -> None:
    """Refuses a context that may be absent and cannot, one that the prior takes otherwise, or one of sequences."""
    if optional and (context is None or (context_shape(prior) is not None and not may_lack(prior))):
        raise ModelError(
            "a context cannot be absent here", called=f"{called[:-1]}, context_optional=True)",
            expected="a context_shape, and a prior that takes no context or whose context may be absent",
            got=f"context_shape {context}, {type(prior).__name__} with context_shape {context_shape(prior)}",
            fix="leave out context_optional, or give a context_shape and a prior without context",
        )  # fmt: skip
    if context_shape(prior) not in (None, context):
        raise ModelError(
            "the prior takes another context than the model", called=called,
            expected=f"context_shape {context}, or none",
            got=f"{type(prior).__name__} with context_shape {context_shape(prior)}",
            fix=f"context_shape = {context_shape(prior)}",
        )  # fmt: skip
    if steps and context is not None:
        raise ModelError(
            "the networks of a model of sequences take no context", called=called, expected="context_shape=None",
            got=f"context_shape {context}", fix="leave out context_shape, or join the context to the steps",
        )  # fmt: skip


def posterior_context(posterior: Any, latent: tuple[int | None, ...], called: str) -> tuple[int | None, ...]:
    """Return the shape of the context of a posterior, or refuse one that is none of such latent variables."""
    if posterior is None:
        return (2, *latent)
    shape: Any = tuple(posterior.event_shape) if has(posterior, Density) else None
    if shape is None or not same_shape(shape, latent) or context_shape(posterior) is None:
        given = None if shape is None else context_shape(posterior)
        raise ModelError(
            "that is no posterior of the prior's latent variables", called=called,
            expected=f"a density of events {latent} that takes a context",
            got=f"{type(posterior).__name__} with event_shape {shape} and context_shape {given}",
            fix=f"jaxgen.posteriors.ConditionalNormal({latent})",
        )  # fmt: skip
    return context_shape(posterior)  # type: ignore[return-value]


def check_network(name: str, net: Any, inputs: Any, shape: tuple[int | None, ...], called: str) -> None:
    """Refuses a network whose output for such inputs has not the shape, or at least the numbers, that are wanted."""
    full = tuple(len(inputs[0]) if n is None else n for n in shape)
    sizes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(net, *inputs))]
    if sum(map(math.prod, sizes)) != math.prod(full) or (None in shape and sizes != [full]):
        raise ShapeError(
            f"the {name}'s output does not fit", called=called, got=f"shapes {[list(s) for s in sizes]}",
            expected=f"{list(shape)}" + ("" if None in shape else f", {math.prod(full)} numbers"),
            fix=f"a network whose output has shape {shape}",
        )  # fmt: skip


def as_context(output: Any, shape: tuple[int | None, ...]) -> jax.Array:
    """A network's output, an array or a tuple of rows, in the shape of a posterior's context."""
    whole = output if isinstance(output, jax.Array) else jnp.stack(tuple(output))
    return whole if None in shape or whole.shape == shape else whole.reshape(shape)  # type: ignore[arg-type]


def as_outputs(output: Any, shape: tuple[int, ...]) -> Any:
    """Return a network's output as the parameters of a likelihood, `[P, *event]` or a tuple of P arrays."""
    if isinstance(output, jax.Array):
        return output if output.shape[1:] == shape else output.reshape((-1, *shape))
    return tuple(part.reshape(shape) for part in output)


def standardizes(likelihood: Any, event: tuple[int | None, ...], standardize: bool | None, called: str) -> bool:
    """Return whether data are put in units of their scale; refuse that where the likelihood has units of its own."""
    limits = likelihoods.support(likelihood, some_event(event))
    real = limits == likelihoods.REAL
    if standardize and limits is not None and not real:
        raise ModelError(
            "standardised data leave the support of the likelihood", called=f"{called[:-1]}, standardize=True)",
            expected="a likelihood on all real numbers", got=f"{name_of(likelihood)} on {limits}",
            fix="standardize=False",
        )  # fmt: skip
    return real if standardize is None else standardize


def some_event(event: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of an event of one step, where their number is free."""
    return tuple(1 if n is None else n for n in event)


def as_input(likelihood: Any, x: jax.Array, missing: bool) -> jax.Array:
    """Return an event as a network sees it, in units of the likelihood's range where that is finite.

    Levels of pixels from 0 to 255 are numbers from 0 to 1. What was not seen, NaN, is 0, as in Mattei and Frellsen
    (2019), MIWAE: deep generative modelling and imputation of incomplete data.
    """
    limits = likelihoods.support(likelihood, x.shape)
    if limits is not None and (limits.low, limits.high) != (0, 1) and math.isfinite(limits.high - limits.low):
        x = (x - limits.low) / (limits.high - limits.low)
    return jnp.where(jnp.isnan(x), 0, x) if missing else x


def arrangement(prior: Any, size: int, called: str) -> tuple[int, ...]:
    """Return the shape in which a prior takes so many latent numbers: its event's, a free length filled in.

    Raises:
        ModelError: no density of that many numbers.

    Example:
        >>> import jaxgen as jg
        >>> chain = jg.MarkovChain.from_values([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]])
        >>> arrangement(chain, 6, "demo"), arrangement(jg.StandardNormal((2, 3)), 6, "demo")
        ((6,), (2, 3))
    """
    shape: Any = tuple(prior.event_shape) if has(prior, Density) else ()
    known = math.prod(n for n in shape if n is not None)
    free = shape.count(None)
    if not shape or free > 1 or size % known or (free == 0 and known != size) or context_shape(prior) is not None:
        raise ModelError(
            "that is no density of the latent numbers", called=called, got=f"{type(prior).__name__} with event_shape "
            f"{shape or None}", expected=f"log_prob, sample without context, and an event_shape of {size} numbers",
            fix="a mixture or chain of as many, or leave the prior out",
        )  # fmt: skip
    return tuple(size // known if n is None else n for n in shape)
