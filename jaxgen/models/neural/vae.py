"""Variational autoencoders: a density of latent vectors, seen through a network and a likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.algebra import context_optional as may_lack
from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import context_shape, per_event, per_latent, per_sample
from jaxgen.core.protocols import Density, NormalDivergence, has
from jaxgen.core.pytree import fixed, float_type, model, name_of, part, static
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops import likelihoods
from jaxgen.ops.bounds import importance_bound
from jaxgen.ops.entries import flagged
from jaxgen.ops.scaling import mean_and_scale


@model
class VAE:
    """The variational autoencoder: `p(x) = integral p(z) p(x | z) dz`, with an encoder `q(z | x)` to bound it.

    `log p(x) >= ELBO(x) = E_q [log p(x | z)] - KL(q(z | x) || p(z))`, `q(z | x) = N(mean(x), scale(x)^2)`

    A `Bound`: `elbo` and the tighter `iwae` are lower bounds of the log-likelihood, and noisy.

    Args:
        prior: any density of vectors `[L]`: a standard normal, a mixture, a flow; it trains with the rest. One with
            `kl_from_normal(mean, log_scale)` spares the noise of a drawn KL.
        encoder: event to mean and raw log-scale, `[2, L]` or a pair; the log-scale is `6 tanh(raw / 6)`, so that no
            posterior collapses to a point or overflows.
        decoder: `[L]` to the parameters of the likelihood, `[P, *event]` or a tuple of P.
        likelihood: P arrays to a distribution of one event, a module-level function: `likelihoods.bernoulli`,
            `likelihoods.gaussian`, or any function that returns a distrax distribution.
        event_shape: shape of one event.
        context_shape: shape of one context, None without. Networks then take a flat vector, input and context joined.
        scaling: center and scale of the data, never trained: `(x - center) / scale` is what networks and likelihood
            see, and the bound is that of x. None for data as they are.
        context_optional: whether a context may be absent (a row of NaN; None for all): the networks see zeros in its
            place, and behind every context a number more, 1 where there was one and else 0. A prior that takes the
            context has to allow it too.

    Source: Kingma and Welling (2014), Auto-encoding variational Bayes; Rezende, Mohamed and Wierstra (2014), Stochastic
    backpropagation and approximate inference in deep generative models.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> vae = VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> vae.elbo(jax.random.key(2), x).shape, vae.iwae(jax.random.key(2), x, samples=100).shape
        ((50,), (50,))
        >>> mean, scale = vae.encode(x)
        >>> mean.shape, vae.decode(mean).shape, vae.sample(jax.random.key(3), (5,)).shape
        ((50, 2), (50, 6), (5, 6))
    """

    prior: Any = part()
    encoder: Any
    decoder: Any
    likelihood: Callable[..., Any] = static()
    event_shape: tuple[int, ...] = static()
    context_shape: tuple[int, ...] | None = static(default=None)
    scaling: Any = fixed(default=None)
    context_optional: bool = static(default=False)

    @classmethod
    def init(
        cls, key, x, prior: Any, *, hidden: tuple[int, ...] = (400, 400),
        likelihood: Callable[..., Any] = likelihoods.bernoulli, activation: Callable[[Any], Any] = jax.nn.relu,
        context_shape: tuple[int, ...] | None = None, context_optional: bool = False, standardize: bool | None = None,
    ) -> VAE:  # fmt: skip
        """Multilayer perceptrons for events of the data's shape.

        Args:
            key: typed key.
            x: events `[N, *event]`, for the shape, the dtype, the scaling and a check against the likelihood.
            prior: density of vectors `[L]`, such as `StandardNormal((L,))`.
            hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
            likelihood: P arrays of the event's shape to a distribution; P is read off the function's signature.
            activation: of the networks, a module-level function.
            context_shape: shape of one context for a conditional density.
            context_optional: whether it may be absent, as in the class.
            standardize: whether `scaling` is the data's mean and standard deviation; None does so for a likelihood on
                all real numbers, such as the Gaussian.

        Raises:
            DataError: data that are not data, or outside the likelihood's support.
            ModelError: a prior that is no density of vectors, or a likelihood that is no function of arrays.
        """
        x, called = jnp.asarray(as_array(x, name="x")), "VAE.init(key, x, prior)"
        latent = _latent_size(prior, called)
        event = tuple(map(int, x.shape[1:]))
        context = None if context_shape is None else tuple(context_shape)
        _check_context(prior, context, context_optional, called)
        likelihoods.check_support(likelihood, event, x, called)
        scaling = mean_and_scale(x) if _standardizes(likelihood, event, standardize, called) else None
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        extra = 0 if context is None else math.prod(context) + context_optional
        seen = event if context is None else (math.prod(event) + extra,)
        count = likelihoods.parameter_count(likelihood)
        to_latent = MLP((*hidden, 2 * latent), activation, in_shape=seen, out_shape=(2, latent))
        to_event = MLP((*hidden[::-1], count * math.prod(event)), activation, out_shape=(count, *event))
        encoder_key, decoder_key = jax.random.split(key)
        encoder = Net.init(encoder_key, to_latent, jnp.zeros(seen, dtype))
        decoder = Net.init(decoder_key, to_event, jnp.zeros(latent + extra, dtype))
        return cls(prior, encoder, decoder, likelihood, event, context, scaling, context_optional)

    def check_data(self, x) -> None:
        """Refuses data outside the likelihood's support, which it would score as if it knew them.

        Raises:
            DataError: values outside; the message names the range.
        """
        likelihoods.check_support(self.likelihood, self.event_shape, as_array(x), "VAE.check_data(x)")

    def _posterior(self, x, context):
        """Mean and log-scale of `q(z | x)`, of one event."""
        x = x.astype(float_type(self.encoder))
        if self.scaling is not None:
            x = (x - self.scaling[0]) / self.scaling[1]
        mean, raw = likelihoods.apart(self.encoder(self._joined(x, context)))
        return mean, likelihoods.bounded(raw)

    def _observe(self, z, context):
        """The distribution of an event, in its units, for one z."""
        z = jnp.asarray(z, float_type(self.decoder))
        return likelihoods.observe(self.likelihood, self.decoder(self._joined(z, context)))

    def _log_likelihood(self, x, z, context):
        """`log p(x | z)`."""
        distribution = self._observe(z, context)
        if self.scaling is None:
            return jnp.sum(distribution.log_prob(x))
        center, scale = self.scaling
        log_volume = jnp.sum(jnp.broadcast_to(jnp.log(scale), self.event_shape))
        return jnp.sum(distribution.log_prob((x - center) / scale)) - log_volume

    def _in_units(self, x):
        return x if self.scaling is None else self.scaling[0] + self.scaling[1] * x

    def _joined(self, x, context):
        """The input of a network: x, and behind it the context where the model takes one."""
        if context is None:
            return x
        return jnp.concatenate([jnp.ravel(x), flagged(context) if self.context_optional else jnp.ravel(context)])

    def _prior_context(self, context):
        return None if context_shape(self.prior) is None else context

    @per_event
    def elbo(self, key, x, *, context=None) -> jax.Array:
        """An unbiased estimate of the bound from one draw, nats, `[*batch, *event] -> [*batch]`."""
        mean, log_scale = self._posterior(x, context)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        z = mean + jnp.exp(log_scale) * noise
        if has(self.prior, NormalDivergence):
            divergence = self.prior.kl_from_normal(mean, log_scale)
        else:
            log_prior = self.prior.log_prob(z, context=self._prior_context(context))
            divergence = _log_posterior(noise, log_scale) - log_prior
        return self._log_likelihood(x, z, context) - divergence

    @per_event
    def iwae(self, key, x, *, context=None, samples=50) -> jax.Array:
        """The importance weighted bound, nats, `[*batch, *event] -> [*batch]`: tighter with more `samples` (static).

        `log 1/S sum_s p(x, z_s) / q(z_s | x)`, `z_s ~ q(z | x)`; it tends to `log p(x)`. Draws are decoded in chunks:
        memory is that of 25 draws an event however many there are, except under a gradient.

        Source: Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, equation 8.
        """
        mean, log_scale = self._posterior(x, context)

        def log_weight(key):
            noise = jax.random.normal(key, mean.shape, mean.dtype)
            z = mean + jnp.exp(log_scale) * noise
            log_prior = self.prior.log_prob(z, context=self._prior_context(context))
            return self._log_likelihood(x, z, context) + log_prior - _log_posterior(noise, log_scale)

        return importance_bound(key, log_weight, samples, "VAE.iwae")

    @per_event
    def encode(self, x, *, context=None) -> tuple[jax.Array, jax.Array]:
        """Mean and scale of `q(z | x)`, `[*batch, *event] -> ([*batch, L], [*batch, L])`."""
        mean, log_scale = self._posterior(x, context)
        return mean, jnp.exp(log_scale)

    @property
    def latent_shape(self):
        return self.prior.event_shape

    @per_latent
    def decode(self, z, *, context=None) -> jax.Array:
        """The mean event of each latent vector, `[*batch, L] -> [*batch, *event]`."""
        return self._in_units(self._observe(z, context).mean())

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`: z from the prior, then x from the likelihood."""
        latent_key, event_key = jax.random.split(key)
        z = self.prior.sample(latent_key, context=self._prior_context(context))
        return self._in_units(self._observe(z, context).sample(seed=event_key))


def _log_posterior(noise, log_scale):
    """`log q(z | x)` at `z = mean + scale noise`."""
    return -0.5 * jnp.sum(noise * noise) - jnp.sum(log_scale) - 0.5 * noise.size * likelihoods.LOG_2PI


def _latent_size(prior: Any, called: str) -> int:
    shape: Any = prior.event_shape if has(prior, Density) else None
    vectors = isinstance(shape, tuple) and len(shape) == 1 and isinstance(shape[0], int)
    if not (vectors):
        raise ModelError(
            "the prior is no density of vectors", called=called, expected="log_prob, sample and event_shape (L,)",
            got=f"{type(prior).__name__} with event_shape {shape}", fix="jaxgen.StandardNormal((20,))",
        )  # fmt: skip
    return shape[0]


def _check_context(prior: Any, context: tuple[int, ...] | None, optional: bool, called: str) -> None:
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


def _standardizes(likelihood: Any, event: tuple[int, ...], standardize: bool | None, called: str) -> bool:
    limits = likelihoods.support(likelihood, event)
    real = limits == likelihoods.REAL
    if standardize and limits is not None and not real:
        raise ModelError(
            "standardised data leave the support of the likelihood", called=f"{called[:-1]}, standardize=True)",
            expected="a likelihood on all real numbers", got=f"{name_of(likelihood)} on {limits}",
            fix="standardize=False",
        )  # fmt: skip
    return real if standardize is None else standardize
