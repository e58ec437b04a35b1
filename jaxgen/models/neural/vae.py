"""Variational autoencoders: a density of latent variables, seen through a network and a likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import context_shape, per_event, per_latent, per_sample
from jaxgen.core.protocols import Centered, Completed, Divergent, Enumerated, has
from jaxgen.core.pytree import combine, fixed, float_type, model, part, partition, static
from jaxgen.models.densities.conditional_normal import ConditionalNormal
from jaxgen.nn import amortized
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.nn.steps import StepMLP
from jaxgen.ops import likelihoods
from jaxgen.ops.bounds import importance_bound
from jaxgen.ops.entries import flagged
from jaxgen.ops.scaling import in_units, log_volume, mean_and_scale, standardize


@model
class VAE:
    """The variational autoencoder: `p(x) = integral p(z) p(x | z) dz`, with an encoder `q(z | x)` to bound it.

    `log p(x) >= ELBO(x) = E_q [log p(x | z)] - KL(q(z | x) || p(z))`

    A `Bound`: `elbo` and the tighter `iwae` are lower bounds of the log-likelihood, and noisy.

    Args:
        prior: any density of latent variables, of any event shape: a standard normal, a mixture, a flow, of sequences
            `[None, L]` an HMM; it trains with the rest.
        encoder: event to the posterior's context, an array of its shape or a tuple of its rows.
        decoder: latent to the parameters of the likelihood, `[P, *event]` or a tuple of P.
        likelihood: P arrays to a distribution of one event, a module-level function: `likelihoods.bernoulli`,
            `likelihoods.gaussian`, or any function that returns a distrax distribution.
        event_shape: shape of one event; `[None, ...]` of sequences of any length.
        context_shape: shape of one context, None without. Networks then take a flat vector, input and context joined.
        scaling: center and scale of the data, never trained: `(x - center) / scale` is what networks and likelihood
            see, and the bound is that of x. None for data as they are.
        context_optional: whether a context may be absent (a row of NaN; None for all): the networks see zeros in its
            place, and behind every context a number more, 1 where there was one and else 0. A prior that takes the
            context has to allow it too.
        posterior: `q(z | c)`, any density of the prior's event shape that takes a context, whose draws can be
            differentiated: those of `jaxgen.posteriors`, or a conditional flow. None is `ConditionalNormal`, with
            context `[2, *latent]`: means and raw log-scales.
        shared: numbers that the likelihood takes by keyword, such as one scale for all pixels, a scalar each; None for
            none. They train.
        missing: whether NaN is an entry that was not seen: the encoder sees zero in its place, and the bound is that of
            what was seen.

    Source: Kingma and Welling (2014), Auto-encoding variational Bayes; Rezende, Mohamed and Wierstra (2014), Stochastic
    backpropagation and approximate inference in deep generative models.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> vae = VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> vae.elbo(jax.random.key(2), x).shape, vae.iwae(jax.random.key(2), x, samples=100).shape
        ((50,), (50,))
        >>> z = vae.encode(x)
        >>> z.shape, vae.decode(z).shape, vae.sample(jax.random.key(3), (5,)).shape
        ((50, 2), (50, 6), (5, 6))
    """

    prior: Any = part()
    encoder: Any
    decoder: Any
    likelihood: Callable[..., Any] = static()
    event_shape: tuple[int | None, ...] = static()
    context_shape: tuple[int, ...] | None = static(default=None)
    scaling: Any = fixed(default=None)
    context_optional: bool = static(default=False)
    posterior: Any = part(default=None)
    shared: Any = None
    missing: bool = static(default=False)

    @classmethod
    def init(
        cls, key, x, prior: Any, *, hidden: tuple[int, ...] = (400, 400), posterior: Any = None, encoder: Any = None,
        decoder: Any = None, likelihood: Callable[..., Any] = likelihoods.bernoulli,
        activation: Callable[[Any], Any] = jax.nn.relu, context_shape: tuple[int, ...] | None = None,
        context_optional: bool = False, standardize: bool | None = None, missing: bool = False,
    ) -> VAE:  # fmt: skip
        """Multilayer perceptrons for events of the data's shape, or networks of your own.

        Args:
            key: typed key.
            x: events `[N, *event]`, for the shape, the dtype, the scaling and a check against the likelihood.
            prior: density of latent variables, such as `StandardNormal((L,))`; of sequences `[None, L]`, an HMM for
                example, it makes a model of sequences: networks that see one step and its neighbours.
            hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
            posterior: as in the class.
            encoder: a network in place of the perceptron, whatever `Net.init` takes: event (and the context, flat, as
                a second input) to as many numbers as the posterior's context has.
            decoder: the same, latent to as many numbers as the likelihood has parameters.
            likelihood: P arrays of the event's shape to a distribution; P is read off the function's signature.
            activation: of the perceptrons, a module-level function.
            context_shape: shape of one context for a conditional density.
            context_optional: whether it may be absent, as in the class.
            missing: as in the class.
            standardize: whether `scaling` is the data's mean and standard deviation; None does so for a likelihood on
                all real numbers, such as the Gaussian.

        Raises:
            DataError: data that are not data, or outside the likelihood's support.
            ModelError: a prior that is no density, a posterior that is none of the same shape given a context, a
                network whose output does not fit, or a likelihood that is no function of arrays.
        """
        x, called = jnp.asarray(as_array(x, name="x", allow_nan=missing)), "VAE.init(key, x, prior)"
        latent = amortized.latent_shape(prior, called)
        event = (None, *x.shape[2:]) if None in latent else tuple(map(int, x.shape[1:]))
        context = None if context_shape is None else tuple(context_shape)
        amortized.check_context(prior, context, context_optional, None in latent, called)
        likelihoods.check_support(likelihood, amortized.some_event(event), x, called)
        given = amortized.posterior_context(posterior, latent, called)
        rows = x.reshape((-1, *x.shape[2:])) if None in latent else x
        scaling = mean_and_scale(rows) if amortized.standardizes(likelihood, event, standardize, called) else None
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        more = () if context is None else (jnp.zeros(math.prod(context) + context_optional, dtype),)
        observed = (likelihoods.parameter_count(likelihood), *event)
        sides: Any = ((encoder, hidden, event, given), (decoder, hidden[::-1], latent, observed))
        nets = [
            Net.init(key, own or _perceptron(widths, start, end, activation), _some(start, dtype), *more)
            for key, (own, widths, start, end) in zip(jax.random.split(key), sides, strict=True)
        ]
        for name, net, (_, _, start, end) in zip(("encoder", "decoder"), nets, sides, strict=True):
            amortized.check_network(name, net, (_some(start, dtype), *more), end, called)
        names = likelihoods.shared_names(likelihood)
        shared = {name: jnp.zeros((), dtype) for name in names} if names else None
        return cls(prior, nets[0], nets[1], likelihood, event, context, scaling, context_optional, posterior, shared,
                   missing)  # fmt: skip

    def check_data(self, x) -> None:
        """Refuses data outside the likelihood's support, which it would score as if it knew them.

        Raises:
            DataError: values outside; the message names the range.
        """
        event = amortized.some_event(self.event_shape)
        likelihoods.check_support(self.likelihood, event, as_array(x, allow_nan=self.missing), "VAE.check_data(x)")

    @property
    def latent_shape(self):
        return tuple(self.prior.event_shape)

    @property
    def _posterior(self):
        return ConditionalNormal(self.latent_shape) if self.posterior is None else self.posterior

    def inference(self, x, *, context=None) -> Given:
        """The terms of the bound, of one event, inside of a compiled function: what losses and bounds are made of."""
        return Given(self, self._density(context), self._posterior, x, context, self._infer(x, context))

    def sample_with_latent(self, key, *, context=None, length=None) -> tuple[Any, jax.Array]:
        """A draw of `p(z, x)`, of one event, inside of a compiled function: z is an exact draw of `p(z | x)`."""
        latent_key, event_key = jax.random.split(key)
        free = {} if length is None else {"length": length}
        z = self._density(context).sample(latent_key, context=self._prior_context(context), **free)
        return z, in_units(self._observe(z, context).sample(seed=event_key), self.scaling)

    def _density(self, context):
        """The prior, completed by the encoder where it needs that: without a context once for a whole batch."""
        if not has(self.prior, Completed):
            return self.prior
        return self.prior.given(lambda u: self._infer(u, context), self._posterior)

    def _infer(self, x, context):
        """The posterior's context, of one event."""
        x = standardize(x.astype(float_type(self.encoder)), self.scaling)
        x = amortized.as_input(self.likelihood, x, self.missing)
        return amortized.as_context(self.encoder(x, *self._beside(context)), self._posterior.context_shape)

    def _center(self, x, context, called):
        posterior = self._posterior
        algebra.needed(posterior, Centered, called)
        return posterior.center(self._infer(x, context))

    def _observe(self, z, context):
        """The distribution of an event, in units of the scaling, for one z."""
        z = jnp.asarray(z, float_type(self.decoder))
        event = tuple(len(z) if n is None else n for n in self.event_shape)
        outputs = amortized.as_outputs(self.decoder(z, *self._beside(context)), event)
        return likelihoods.observe(self.likelihood, outputs, self.shared)

    def _log_likelihood(self, x, z, context):
        """`log p(x | z)`."""
        distribution = self._observe(z, context)
        x = standardize(x, self.scaling)
        if not self.missing:
            return jnp.sum(distribution.log_prob(x)) - log_volume(self.scaling, x.shape)
        score = jnp.sum(likelihoods.seen_entries(distribution, x))
        return score - log_volume(self.scaling, x.shape, where=~jnp.isnan(x))

    def _beside(self, context):
        """Return what a network takes beside its input: the context, flat, where the model takes one."""
        if context is None:
            return ()
        return (flagged(context) if self.context_optional else jnp.ravel(context),)

    def _prior_context(self, context):
        return None if context_shape(self.prior) is None else context

    @per_event
    def elbo(self, key, x, *, context=None) -> jax.Array:
        """An unbiased estimate of the bound from one draw, nats, `[*batch, *event] -> [*batch]`.

        The divergence is exact where the posterior knows that from the prior: of a normal from a standard normal. Where
        the posterior has few outcomes the bound is the exact sum over them.
        """
        given = self.inference(x, context=context)
        divergence = given.divergence()

        def term(z, log_q):
            return given.log_likelihood(z) + (given.log_prior(z) - log_q if divergence is None else 0)

        bound = given.expect(key, term)
        return bound if divergence is None else bound - jnp.sum(divergence)

    @per_event
    def iwae(self, key, x, *, context=None, samples=50) -> jax.Array:
        """The importance weighted bound, nats, `[*batch, *event] -> [*batch]`: tighter with more `samples` (static).

        `log 1/S sum_s p(x, z_s) / q(z_s | x)`, `z_s ~ q(z | x)`; it tends to `log p(x)`. Draws are decoded in chunks:
        memory is that of 25 draws an event however many there are, except under a gradient.

        Source: Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, equation 8.
        """
        given = self.inference(x, context=context)

        def log_weight(key):
            z, log_q = given.propose(key)
            return given.log_likelihood(z) + given.log_prior(z) - log_q

        return importance_bound(key, log_weight, samples, "VAE.iwae")

    @per_event
    def infer(self, x, *, context=None) -> jax.Array:
        """The posterior's context for each event, `[*batch, *event] -> [*batch, *posterior.context_shape]`.

        Of the normal posterior it is `[2, *latent]`: means and raw log-scales.
        """
        return self._infer(x, context)

    @per_event
    def encode(self, x, *, context=None) -> jax.Array:
        """The center of `q(z | x)`, its mean where that is normal, `[*batch, *event] -> [*batch, *latent]`.

        Raises:
            ModelError: a posterior that has no center.
        """
        return self._center(x, context, "VAE.encode(x)")

    @per_event
    def sample_posterior(self, key, x, *, context=None) -> jax.Array:
        """A draw of `q(z | x)` for each event, `[*batch, *event] -> [*batch, *latent]`."""
        return self.inference(x, context=context).propose(key)[0]

    @per_latent
    def decode(self, z, *, context=None) -> jax.Array:
        """The mean event of each latent, `[*batch, *latent] -> [*batch, *event]`."""
        return in_units(self._observe(z, context).mean(), self.scaling)

    @per_event
    def reconstruct(self, x, *, context=None) -> jax.Array:
        """The mean event at the posterior's center, `decode(encode(x))`, `[*batch, *event] -> [*batch, *event]`."""
        return in_units(self._observe(self._center(x, context, "VAE.reconstruct(x)"), context).mean(), self.scaling)

    @per_event
    def impute(self, key, x, *, context=None, samples=50) -> jax.Array:
        """Events whose entries not seen are their means given those seen, `[*batch, *event] -> [*batch, *event]`.

        `sum_s w_s E[x | z_s] / sum_s w_s`, `w = p(x_seen, z) / q(z | x_seen)`, over `samples` draws (static); it tends
        to `E[x | x_seen]` with more of them. For a model with `missing=True`.

        Source: Mattei and Frellsen (2019), MIWAE: deep generative modelling and imputation of incomplete data.
        """
        z, weight = self._weighed(key, x, context, samples)
        means = jax.vmap(lambda z: in_units(self._observe(z, context).mean(), self.scaling))(z)
        return jnp.where(jnp.isnan(x), jnp.tensordot(weight, means, 1), x)

    @per_event
    def complete(self, key, x, *, context=None, samples=50) -> jax.Array:
        """Events whose entries not seen are drawn given those seen, `[*batch, *event] -> [*batch, *event]`.

        One of `samples` latents is drawn by its weight, then the entries by the likelihood: repeat an event for several
        independent draws, whose spread says how much is known. See `impute`.
        """
        draw_key, choice_key, event_key = jax.random.split(key, 3)
        z, weight = self._weighed(draw_key, x, context, samples)
        chosen = z[jax.random.choice(choice_key, len(weight), p=weight)]
        drawn = in_units(self._observe(chosen, context).sample(seed=event_key), self.scaling)
        return jnp.where(jnp.isnan(x), drawn, x)

    def _weighed(self, key, x, context, samples):
        """Draws of the posterior given what was seen `[S, *latent]`, and their weights, which sum to one."""
        if not self.missing or samples < 1:
            raise ModelError(
                "the model has no entries that were not seen", called="VAE.impute(key, x)",
                expected="missing=True, and samples of 1 or more", got=f"missing={self.missing}, samples={samples}",
                fix="dataclasses.replace(vae, missing=True)",
            )  # fmt: skip
        given = self.inference(x, context=context)
        z, log_q = jax.vmap(given.propose)(jax.random.split(key, samples))
        log_weight = jax.vmap(lambda z: given.log_likelihood(z) + given.log_prior(z))(z) - log_q
        return z, jax.nn.softmax(log_weight)

    @per_sample
    def sample(self, key, shape=(), *, context=None, length=None) -> jax.Array:
        """Draws `[*shape, *event]`: z from the prior, then x from the likelihood."""
        return self.sample_with_latent(key, context=context, length=length)[1]


def _perceptron(hidden, start, end, activation):
    """A perceptron from an event or a latent to an array of some shape; of sequences the same at each step."""
    if None in start:
        width = math.prod(n for n in end if n is not None)
        return StepMLP((*hidden, width), activation, outputs=end[0])
    return MLP((*hidden, math.prod(end)), activation, in_shape=start, out_shape=end)


def _some(shape, dtype):
    """Zeros of a shape, of two steps where their number is free."""
    return jnp.zeros([2 if n is None else n for n in shape], dtype)


class Given(NamedTuple):
    """The terms of the bound of one event: see `core.protocols.Inference`.

    Args:
        vae: the model.
        prior: its prior, a density.
        posterior: its posterior.
        x: the event.
        context: that of the event, None without.
        parameters: the posterior's context, what the encoder made of x.
        factor: of the gradient that goes through draws alone; None where gradients go all ways.
    """

    vae: VAE
    prior: Any
    posterior: Any
    x: Any
    context: Any
    parameters: Any
    factor: Any = None

    def propose(self, key):
        """A draw of `q(z | x)`, differentiable, and `log q(z | x)`, nats."""
        length = {"length": self.x.shape[0]} if None in self.posterior.event_shape else {}
        if self.factor is None:
            return algebra.sample_and_log_prob(self.posterior, key, self.parameters, **length)
        posterior, parameters = (_scaled(tree, self.factor) for tree in (self.posterior, self.parameters))
        z = algebra.sample_and_log_prob(posterior, key, parameters, **length)[0]
        return z, self.log_posterior(z)

    def expect(self, key, function, samples=1):
        """`E_q function(z, log q(z | x))`: the mean over draws, or the exact sum where the posterior is enumerated."""
        if has(self.posterior, Enumerated):
            z = self.posterior.outcomes().astype(self.parameters.dtype)
            log_q = jax.vmap(self.log_posterior)(z)
            mass = jnp.exp(log_q)
            # an outcome of no mass is nothing, whatever the function is there; a mass that is NaN stays NaN
            known = lambda a: jnp.where(jnp.expand_dims(mass, range(1, a.ndim)) == 0, 0, a)  # noqa: E731
            return jax.tree.map(lambda a: jnp.tensordot(mass, known(a), 1), jax.vmap(function)(z, log_q))
        if samples == 1:
            return function(*self.propose(key))
        draws = jax.vmap(lambda key: function(*self.propose(key)))(jax.random.split(key, samples))
        return jax.tree.map(lambda a: jnp.mean(a, axis=0), draws)

    def log_posterior(self, z):
        """`log q(z | x)`, nats."""
        if self.factor is None:
            return self.posterior.log_prob(z, context=self.parameters)
        return _scaled(self.posterior, 0.0).log_prob(z, context=_scaled(self.parameters, 0.0))

    def log_prior(self, z):
        """`log p(z)`, nats."""
        return self.prior.log_prob(z, context=self.vae._prior_context(self.context))

    def log_likelihood(self, z):
        """`log p(x | z)`, nats."""
        return self.vae._log_likelihood(self.x, z, self.context)

    def divergence(self):
        """`KL(q(z | x) || p(z))`, nats, by coordinate where it is a sum over them; None where it is not known."""
        known = has(self.posterior, Divergent) and self.posterior.has_divergence(self.prior)
        return self.posterior.divergence(self.prior, self.parameters) if known else None

    def at(self, parameters):
        """The same with another context of the posterior."""
        return self._replace(parameters=parameters)

    def held(self, factor):
        """The same with the posterior's density held, and `factor` times the gradient through its draws."""
        return self._replace(factor=factor)

    def fixed(self):
        """The same with `p(x, z)` held: gradients reach the posterior alone."""
        return self._replace(vae=_scaled(self.vae, 0.0), prior=_scaled(self.prior, 0.0))


def _scaled(tree, factor):
    """The same numbers, whose gradients are `factor` times as large."""
    trained, rest = partition(tree)
    stop = jax.lax.stop_gradient
    return combine(jax.tree.map(lambda a: stop(a) + stop(factor) * (a - stop(a)), trained), rest)
