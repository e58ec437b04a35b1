"""The two sides that a critic compares: data and samples, or what else a model makes of them.

A side is `(key, model, batch) -> Sides`: what the critic sees of data, and of the model. Values, and anyone can write
another.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxgen.core.algebra import context_optional
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.mesh import spread
from jaxgen.core.methods import context_shape
from jaxgen.core.protocols import Decoder, Implicit, Inferring, Scaled, has
from jaxgen.core.pytree import float_type, partition
from jaxgen.core.value import algorithm
from jaxgen.ops.entries import flagged


class Sides(NamedTuple):
    """The inputs of a critic on two sides.

    Args:
        real: a tuple of what is judged and maybe a context, `[N, ...]` each.
        fake: the same on the other side.
        real_weight: `[N]`, or None for equal ones.
        fake_weight: the same on the other side.
    """

    real: tuple[jax.Array, ...]
    fake: tuple[jax.Array, ...]
    real_weight: Any = None
    fake_weight: Any = None


@runtime_checkable
class Compared(Protocol):
    """A choice of what a critic compares, a frozen value that hashes by value."""

    #: True where the model stands on the side of the data too, whose outputs it then wants to be those of samples
    both: ClassVar[bool]

    def check(self, model: Any, called: str) -> None:
        """Refuse a model that has not the methods for it."""
        ...

    def __call__(self, key: Any, model: Any, batch: Batch) -> Sides:
        """Return what the critic sees, inside of a compiled function."""
        ...


@algorithm
class Samples:
    """Events against samples: the game of a generative adversarial network.

    A model with hidden variables shows the mean event of a draw of its prior, `decode(z)`, whatever its likelihood's
    noise: draws of bits have no gradient. Any other shows `sample`. Events are seen as `model.standardize(x)` where the
    model has that. With contexts each sample is drawn at that of an event of the batch; where they may be absent a
    critic sees zeros, and behind every context a number more, 1 where there was one and else 0.
    """

    both: ClassVar[bool] = False

    def check(self, model: Any, called: str) -> None:
        """Refuse what cannot be sampled.

        Raises:
            FitError: no generator, or one whose events have a free length.
        """
        if not has(model, Implicit) or None in model.event_shape:
            raise FitError(
                "the model is no generator", called=called, got=repr(model)[:300],
                expected="sample(key, shape) of events of one shape",
            )  # fmt: skip

    def __call__(self, key: Any, model: Any, batch: Batch) -> Sides:
        fake = spread(drawn(key, model, len(batch.x), batch.context)[1])
        beside = _beside(model, batch.context)
        real, fake = ((_seen(model, x, batch.context), *beside) for x in (batch.x, fake))
        # samples weigh the same, but at a context they weigh as much as the event that it came from
        return Sides(real, fake, batch.weight, None if batch.context is None else batch.weight)


@algorithm
class Latents:
    """Draws of the prior against draws of the posteriors of events: the game of an adversarial autoencoder.

    It takes the place of the rate in a bound: `Adversarial(critic, sides=Latents(), also=losses.elbo(beta=0.0))`.

    Source: Makhzani, Shlens, Jaitly, Goodfellow and Frey (2016), Adversarial autoencoders.
    """

    both: ClassVar[bool] = False

    def check(self, model: Any, called: str) -> None:
        """Refuse a model without a posterior. Raises FitError."""
        _check_inferring(model, called)

    def __call__(self, key: Any, model: Any, batch: Batch) -> Sides:
        prior_key, posterior_key = jax.random.split(key)
        # the prior stands for the data here, and does not come to meet the posteriors
        z = jax.lax.stop_gradient(drawn(prior_key, model, len(batch.x), batch.context)[0])
        inferred = model.sample_posterior(posterior_key, batch.x, context=batch.context)
        return Sides((z,), (inferred,), batch.weight, batch.weight)


@algorithm
class Pairs:
    """Events with draws of their posteriors against samples with the draws of the prior that they came from.

    The game of a bidirectional network, in which encoder and decoder become each other's inverse. The critic sees each
    pair as one vector `[event and latent]`. Events are shown by their means, as in `Samples`.

    Source: Donahue, Krähenbühl and Darrell (2017), Adversarial feature learning; Dumoulin et al. (2017), Adversarially
    learned inference.
    """

    both: ClassVar[bool] = True

    def check(self, model: Any, called: str) -> None:
        """Refuse a model without a posterior. Raises FitError."""
        _check_inferring(model, called)

    def __call__(self, key: Any, model: Any, batch: Batch) -> Sides:
        prior_key, posterior_key = jax.random.split(key)
        z, fake = drawn(prior_key, model, len(batch.x), batch.context)
        inferred = model.sample_posterior(posterior_key, batch.x, context=batch.context)
        real, fake = (
            jnp.concatenate([part.reshape((len(part), -1)) for part in (_seen(model, x, batch.context), z)], axis=1)
            for x, z in ((batch.x, inferred), (fake, z))
        )
        beside = _beside(model, batch.context)
        return Sides((real, *beside), (fake, *beside), batch.weight, batch.weight)


def drawn(key: Any, model: Any, n: int, context: Any) -> tuple[Any, jax.Array]:
    """Return n draws of the latent variables and the events that they stand for, `[n, *event]`, each at its context.

    Of a model with hidden variables the mean events; of any other its samples, and None for the latents.
    """
    if not (has(model, Inferring) and has(model, Decoder)):
        return None, model.sample(key, (n,), context=context)
    axis = None if context is None else 0
    draw = jax.vmap(lambda key, context: model.sample_with_latent(key, context=context)[0], in_axes=(0, axis))
    z = draw(jax.random.split(key, n), context)
    return z, model.decode(z, context=context)


def _seen(model: Any, x: Any, context: Any) -> jax.Array:
    """Events in the model's units and floating type."""
    given = {} if context is None or context_shape(model) is None else {"context": context}
    x = model.standardize(x, **given) if has(model, Scaled) else x
    return x.astype(float_type(partition(model)[0]))


def _beside(model: Any, context: Any) -> tuple[jax.Array, ...]:
    """Contexts as a critic sees them; none of a model without."""
    if context_shape(model) is None:
        return ()
    dtype = float_type(partition(model)[0])
    if context_optional(model):
        return (jax.vmap(flagged)(context).astype(dtype),)
    return (context.astype(dtype) if jnp.issubdtype(context.dtype, jnp.floating) else context,)


def _check_inferring(model: Any, called: str) -> None:
    if not (has(model, Inferring) and has(model, Decoder)) or None in model.event_shape:
        raise FitError(
            "the model has no posterior to compare", called=called, got=repr(model)[:300],
            expected="a model with hidden variables and events of one shape, such as a VAE",
            fix="sides = jaxgen.games.Samples()",
        )  # fmt: skip
