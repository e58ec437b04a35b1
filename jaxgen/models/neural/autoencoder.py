"""Deterministic autoencoders with a density behind: a regularised map to vectors and back, and a model of these."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import per_event, per_latent, per_sample
from jaxgen.core.pytree import fixed, float_type, model, part, static
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.nn import amortized
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops import likelihoods
from jaxgen.ops.scaling import in_units, log_volume, mean_and_scale, standardize


@model
class RAE:
    """A regularised autoencoder: `x -> z = e(x) -> d(z)`, without noise, and a density of z fitted behind.

    An `Implicit`: `sample` decodes draws of the density. Nothing here is a likelihood of events.

    Args:
        prior: any density of vectors `[L]`. The autoencoder trains without it, and it by itself afterwards, on encoded
            events: `fit_prior`. A full Gaussian or a mixture of them is what the source takes.
        encoder: event to `[L]`.
        decoder: `[L]` to the parameters of the likelihood, `[P, *event]` or a tuple of P.
        likelihood: P arrays to a distribution of one event, as of a `VAE`: it scores a reconstruction, and its mean is
            the decoded event.
        event_shape: shape of one event.
        scaling: center and scale of the data, as of a `VAE`.
        shared: numbers that the likelihood takes by keyword, a scalar each; None for none. They train.
        code_penalty: weight of `|z|^2 / 2`, which keeps the vectors in a bounded region; nats.
        gradient_penalty: weight of the squared norm of the decoder's Jacobian, of the mean event in units of the
            scaling, which keeps near vectors at near events; estimated by one random direction of the event.
        weight_decay: weight of half the squared norm of the decoder's parameters, which does so too.

    Trained by its own loss, `-log p(x | e(x)) + code_penalty |z|^2 / 2 + gradient_penalty |d'(z)|^2 + weight_decay
    |theta|^2 / 2`.

    Source: Ghosh, Sajjadi, Vergari, Black and Schölkopf (2020), From variational to deterministic autoencoders.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.normal(jax.random.key(0), (50, 6))
        >>> rae = RAE.init(jax.random.key(1), x, 2, hidden=(16,), likelihood=jg.likelihoods.GaussianOfScale(0.3))
        >>> rae.encode(x).shape, rae.reconstruct(x).shape, rae.sample(jax.random.key(2), (5,)).shape
        ((50, 2), (50, 6), (5, 6))
    """

    prior: Any = part()
    encoder: Any
    decoder: Any
    likelihood: Callable[..., Any] = static()
    event_shape: tuple[int, ...] = static()
    scaling: Any = fixed(default=None)
    shared: Any = None
    code_penalty: float = static(default=0.01)
    gradient_penalty: float = static(default=0.01)
    weight_decay: float = static(default=0.0)

    @classmethod
    def init(
        cls, key, x, latent: int, *, hidden: tuple[int, ...] = (400, 400), prior: Any = None, encoder: Any = None,
        decoder: Any = None, likelihood: Callable[..., Any] = likelihoods.bernoulli,
        activation: Callable[[Any], Any] = jax.nn.relu, standardize: bool | None = None, code_penalty: float = 0.01,
        gradient_penalty: float = 0.01, weight_decay: float = 0.0,
    ) -> RAE:  # fmt: skip
        """Multilayer perceptrons, or networks of your own.

        Args:
            key: typed key.
            x: events `[N, *event]`, for the shape, the dtype, the scaling and a check.
            latent: L, one or more.
            hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
            prior: as in the class; None is a standard normal, until another is fitted.
            encoder: a network in place of the perceptron, whatever `Net.init` takes.
            decoder: the same.
            likelihood: as in the class.
            activation: of the perceptrons.
            standardize: as in `VAE.init`.
            code_penalty: as in the class.
            gradient_penalty: as in the class.
            weight_decay: as in the class.

        Raises:
            DataError: data that are not data, or outside the likelihood's support.
            ModelError: no latent number, negative weights, a network whose output does not fit, a prior of others.
        """
        x, called = jnp.asarray(as_array(x, name="x")), f"RAE.init(key, x, {latent})"
        weights = (code_penalty, gradient_penalty, weight_decay)
        if not (isinstance(latent, int) and latent >= 1 and all(0 <= w < math.inf for w in weights)):
            raise ModelError(
                "an autoencoder needs latent numbers, and penalties that are none or positive", called=called,
                expected="latent >= 1, weights from 0", got=f"latent {latent}, weights {weights}",
                fix="leave the weights out, and take 16 latent numbers",
            )  # fmt: skip
        event = tuple(map(int, x.shape[1:]))
        likelihoods.check_support(likelihood, event, x, called)
        scaling = mean_and_scale(x) if amortized.standardizes(likelihood, event, standardize, called) else None
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        count = likelihoods.parameter_count(likelihood)
        up, down = (event, (latent,)), ((latent,), (count, *event))
        if encoder is None:
            encoder = MLP((*hidden, latent), activation, in_shape=event)
        if decoder is None:
            decoder = MLP((*hidden[::-1], count * math.prod(event)), activation, out_shape=down[1])
        first, second = jax.random.split(key)
        to_code = Net.init(first, encoder, jnp.zeros(up[0], dtype))
        to_event = Net.init(second, decoder, jnp.zeros(down[0], dtype))
        amortized.check_network("encoder", to_code, (jnp.zeros(up[0], dtype),), up[1], called)
        amortized.check_network("decoder", to_event, (jnp.zeros(down[0], dtype),), down[1], called)
        prior = StandardNormal((latent,)) if prior is None else prior
        amortized.arrangement(prior, latent, called)
        names = likelihoods.shared_names(likelihood)
        shared = {name: jnp.zeros((), dtype) for name in names} if names else None
        return cls(prior, to_code, to_event, likelihood, event, scaling, shared, code_penalty, gradient_penalty,
                   weight_decay)  # fmt: skip

    def check_data(self, x) -> None:
        """Refuses data outside the likelihood's support, which it would score as if it knew them.

        Raises:
            DataError: values outside; the message names the range.
        """
        likelihoods.check_support(self.likelihood, self.event_shape, as_array(x), "RAE.check_data(x)")

    @property
    def latent_shape(self):
        return tuple(self.prior.event_shape)

    def _code(self, x):
        x = standardize(x.astype(float_type(self.encoder)), self.scaling)
        return jnp.ravel(self.encoder(amortized.as_input(self.likelihood, x, False)))

    def _observe(self, z):
        """The distribution of an event, in units of the scaling."""
        outputs = amortized.as_outputs(self.decoder(jnp.asarray(z, float_type(self.decoder))), self.event_shape)
        return likelihoods.observe(self.likelihood, outputs, self.shared)

    @per_event
    def loss(self, key, x, *, context=None) -> jax.Array:
        """The loss of each event, nats and penalties, `[*batch, *event] -> [*batch]`."""
        z = self._code(x)
        x = standardize(x.astype(z.dtype), self.scaling)
        loss = log_volume(self.scaling, self.event_shape) - jnp.sum(self._observe(z).log_prob(x))
        loss += 0.5 * self.code_penalty * jnp.sum(z * z)
        if self.gradient_penalty:
            # of a standard normal direction v the mean of |v d'|^2 is the squared norm of d' (Hutchinson 1990)
            mean, pull = jax.vjp(lambda z: self._observe(z).mean(), z)
            (slope,) = pull(jax.random.normal(key, mean.shape, mean.dtype))
            loss += self.gradient_penalty * jnp.sum(slope * slope)
        if self.weight_decay:
            loss += 0.5 * self.weight_decay * sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(self.decoder.params))
        return loss

    @per_event
    def encode(self, x, *, context=None) -> jax.Array:
        """The vector of each event, `[*batch, *event] -> [*batch, L]`."""
        return self._code(x)

    @per_latent
    def decode(self, z, *, context=None) -> jax.Array:
        """The event of each vector, `[*batch, L] -> [*batch, *event]`."""
        return in_units(self._observe(z).mean(), self.scaling)

    @per_event
    def reconstruct(self, x, *, context=None) -> jax.Array:
        """`decode(encode(x))`, `[*batch, *event] -> [*batch, *event]`."""
        return in_units(self._observe(self._code(x)).mean(), self.scaling)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Decoded draws of the density behind, `[*shape, *event]`."""
        return in_units(self._observe(self.prior.sample(key)).mean(), self.scaling)
