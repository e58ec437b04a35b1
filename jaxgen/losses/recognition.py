"""The loss of codes that can be read off samples: the mutual-information term of an InfoGAN."""

from __future__ import annotations

from typing import Any

import jax

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Decoder, Factored, Inferring, has
from jaxgen.core.value import algorithm
from jaxgen.losses.base import weighted_mean


@algorithm
class Recognition:
    """Minus the mean log-density of codes given the events that they stand for; `recognition` makes it."""

    codes: int | None = None

    def __call__(self, key: Any, model: Any, batch: Batch, step: Any) -> jax.Array:
        """`-mean log q(z | decode(z))`, nats."""
        if not (has(model, Inferring) and has(model, Decoder)):
            raise FitError(
                "the model has no posterior to read codes off", called="losses.recognition()", got=repr(model)[:200],
                expected="a model with hidden variables, such as a VAE",
                fix="jaxgen.VAE.init(key, x, jaxgen.StandardNormal((2,)), likelihood=jaxgen.likelihoods.gaussian)",
            )  # fmt: skip
        axis = None if batch.context is None else 0
        draw = jax.vmap(lambda key, context: model.sample_with_latent(key, context=context)[0], in_axes=(0, axis))
        z = draw(jax.random.split(key, batch.events), batch.context)
        x = model.decode(z, context=batch.context)

        def score(z: Any, x: Any, context: Any) -> jax.Array:
            given = model.inference(x, context=context)
            if self.codes is None:
                return given.log_posterior(z)
            if not has(given.posterior, Factored):
                raise FitError(
                    "codes cannot be told from the other hidden variables", called=f"losses.recognition({self.codes})",
                    expected="a posterior with independent coordinates", got=type(given.posterior).__name__,
                    fix="jaxgen.losses.recognition(), of all of them",
                )  # fmt: skip
            return given.posterior.entries(z, given.parameters)[..., : self.codes].sum()

        scores = jax.vmap(score, in_axes=(0, 0, axis))(z, x, batch.context)
        return -weighted_mean(scores, None if batch.context is None else batch.weight)


def recognition(codes: int | None = None) -> Recognition:
    """The loss of codes that can be read off samples: `-E log q(z | x)`, z from the prior and x its mean event.

    Up to the prior's entropy it bounds the mutual information of codes and samples from below, which a generator
    descends besides its game: `Adversarial(critic, also=losses.recognition(2))` of a `VAE` is an InfoGAN, whose codes
    are the first coordinates of z and whose noise are the others. Alone it is the sleep phase of a wake-sleep
    algorithm, for decoder and encoder.

    Args:
        codes: how many of the first coordinates of z are codes; None for all.

    Source: Chen, Duan, Houthooft, Schulman, Sutskever and Abbeel (2016), InfoGAN: interpretable representation learning
    by information maximizing generative adversarial nets, equation 5; Hinton, Dayan, Frey and Neal (1995), The
    wake-sleep algorithm for unsupervised neural networks.

    Example:
        >>> import jaxgen as jg, jax.numpy as jnp
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((4,)), hidden=(16,))
        >>> recognition(2)(jax.random.key(2), vae, Batch(jnp.asarray(x)), 0).shape
        ()
    """
    if codes is not None and (isinstance(codes, bool) or not isinstance(codes, int) or codes < 1):
        raise FitError(
            "codes are counted", called="losses.recognition(codes)", expected="an int of 1 or more, or None",
            got=repr(codes),
        )  # fmt: skip
    return Recognition(codes)
