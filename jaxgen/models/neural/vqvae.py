"""Autoencoders whose latent variables are codes: vectors of a codebook, each the nearest to what the encoder gives."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.compiled import compiled_once
from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import per_event, per_latent, per_sample
from jaxgen.core.pytree import fixed, float_type, model, part, static
from jaxgen.models.densities.categorical import Categorical
from jaxgen.nn import amortized
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops import codebooks, likelihoods
from jaxgen.ops.codebooks import Codebook
from jaxgen.ops.scaling import in_units, log_volume, mean_and_scale, standardize


@model
class VQVAE:
    """The autoencoder of quantised vectors: an event is a grid of codes, seen through a network and a likelihood.

    `p(x) = sum_c p(c) p(x | c) >= p(c(x)) p(x | c(x))`, `c(x)_i = argmin_k |e(x)_i - b_k|`

    A `Bound`: `elbo`, the logarithm of the right side, is one term of the sum that p(x) is, and so a lower bound
    without noise, for any prior p(c). It is all that there is to the ELBO here: the posterior is a point.

    Args:
        prior: any density of the codes as whole numbers, of the grid's shape or of as many codes in a row: `[h, w]`,
            `[h w]`, or `[None]` such as an HMM. The autoencoder trains without it, and it by itself afterwards, on
            codes: `fit_prior`.
        encoder: event to `[*grid, C]`.
        decoder: `[*grid, C]` to the parameters of the likelihood, `[P, *event]` or a tuple of P.
        likelihood: P arrays to a distribution of one event, as of a `VAE`.
        codebook: `[K, C]`, the vectors b; moved by averages, not by gradients.
        counts: `[K]`, average number of vectors in a batch that each stood for.
        event_shape: shape of one event.
        grid: shape of the codes of one event.
        scaling: center and scale of the data, as of a `VAE`.
        shared: numbers that the likelihood takes by keyword, a scalar each; None for none. They train.
        commitment: weight of the squared distance between what the encoder gives and its code, nats.
        decay: of the averages, in one batch.
        dead: a code whose average count falls below this share of an even one is revived: it becomes a vector that the
            encoder gave for an event of the batch, drawn at random, with the count of an even share. 0 revives none.

    Trained by its own loss, `-log p(x | c(x)) + commitment sum_i |e(x)_i - b_c(x)_i|^2`, whose gradient goes through
    the codes to the encoder as if they were not there. A step's metrics: `distortion`, `commitment` (the sum, without
    its weight), `perplexity` of the codes of the batch, and `revived`, how many were dead.

    Source: van den Oord, Vinyals and Kavukcuoglu (2017), Neural discrete representation learning.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> vq = VQVAE.init(jax.random.key(1), x, 8, grid=(3,), hidden=(16,))
        >>> vq.encode(x).shape, vq.reconstruct(x).shape, vq.elbo(jax.random.key(2), x).shape
        ((50, 3), (50, 6), (50,))
        >>> vq.sample(jax.random.key(3), (5,)).shape
        (5, 6)
    """

    prior: Any = part()
    encoder: Any
    decoder: Any
    likelihood: Callable[..., Any] = static()
    codebook: jax.Array = fixed()
    counts: jax.Array = fixed()
    event_shape: tuple[int, ...] = static()
    grid: tuple[int, ...] = static()
    scaling: Any = fixed(default=None)
    shared: Any = None
    commitment: float = static(default=0.25)
    decay: float = static(default=0.99)
    dead: float = static(default=0.01)

    @classmethod
    def init(
        cls, key, x, codes: int = 512, *, grid: tuple[int, ...] = (8,), features: int = 16,
        hidden: tuple[int, ...] = (400,), prior: Any = None, encoder: Any = None, decoder: Any = None,
        likelihood: Callable[..., Any] = likelihoods.bernoulli, activation: Callable[[Any], Any] = jax.nn.relu,
        standardize: bool | None = None, commitment: float = 0.25, decay: float = 0.99, dead: float = 0.01,
    ) -> VQVAE:  # fmt: skip
        """Multilayer perceptrons, or networks of your own, and a codebook of what the encoder gives at the start.

        Args:
            key: typed key.
            x: events `[N, *event]`, for the shape, the dtype, the scaling, the first codes, and a check.
            codes: K, two or more.
            grid: shape of the codes of one event, where the encoder is a perceptron.
            features: C, there.
            hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
            prior: as in the class; None is uniform over all codes.
            encoder: a network in place of the perceptron, whatever `Net.init` takes, event to `[*grid, C]`, such as
                `nn.ImageToGrid((28, 28), 16)`.
            decoder: the same, from `[*grid, C]`, such as `nn.GridToImage((1, 28, 28))`.
            likelihood: as in the class.
            activation: of the perceptrons.
            standardize: as in `VAE.init`.
            commitment: as in the class.
            decay: as in the class.
            dead: as in the class.

        Raises:
            DataError: data that are not data, or outside the likelihood's support.
            ModelError: fewer than two codes, a network whose output does not fit, a prior that is none of the codes.
        """
        x, called = jnp.asarray(as_array(x, name="x")), f"VQVAE.init(key, x, {codes})"
        if not (isinstance(codes, int) and codes >= 2 and 0 < decay < 1 and 0 <= dead < 1):
            raise ModelError(
                "a codebook needs codes, averages and a share", called=called,
                expected="codes >= 2, decay above 0 and below 1, dead from 0 and below 1",
                got=f"codes {codes}, decay {decay}, dead {dead}", fix="leave decay and dead out, and take 512 codes",
            )  # fmt: skip
        event = tuple(map(int, x.shape[1:]))
        likelihoods.check_support(likelihood, event, x, called)
        scaling = mean_and_scale(x) if amortized.standardizes(likelihood, event, standardize, called) else None
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        if encoder is None:
            encoder = MLP((*hidden, math.prod(grid) * features), activation, in_shape=event,
                          out_shape=(*grid, features))  # fmt: skip
        first, second, third, fourth = jax.random.split(key, 4)
        to_grid = Net.init(first, encoder, jnp.zeros(event, dtype))
        shape = jax.eval_shape(to_grid, jnp.zeros(event, dtype)).shape
        count = likelihoods.parameter_count(likelihood)
        if decoder is None:
            decoder = MLP((*hidden[::-1], count * math.prod(event)), activation, in_shape=shape,
                          out_shape=(count, *event))  # fmt: skip
        to_event = Net.init(second, decoder, jnp.zeros(shape, dtype))
        amortized.check_network("decoder", to_event, (jnp.zeros(shape, dtype),), (count, *event), called)
        cells = math.prod(shape[:-1])
        prior = Categorical(jnp.zeros((cells, codes), dtype)) if prior is None else prior
        amortized.arrangement(prior, cells, called)
        names = likelihoods.shared_names(likelihood)
        shared = {name: jnp.zeros((), dtype) for name in names} if names else None
        # as many events as are likely to have vectors for all codes
        some = jax.random.choice(third, len(x), (min(len(x), 4 * codes),), replace=False)
        book = _start(fourth, to_grid, x[some], scaling, likelihood, codes)
        return cls(prior, to_grid, to_event, likelihood, book.vectors, book.counts, event, shape[:-1], scaling, shared,
                   commitment, decay, dead)  # fmt: skip

    def check_data(self, x) -> None:
        """Refuses data outside the likelihood's support, which it would score as if it knew them.

        Raises:
            DataError: values outside; the message names the range.
        """
        likelihoods.check_support(self.likelihood, self.event_shape, as_array(x), "VQVAE.check_data(x)")

    @property
    def latent_shape(self):
        return self.grid

    def _vectors(self, x):
        """Return what the encoder gives for one event, `[*grid, C]`."""
        return _encoded(self.encoder, x, self.scaling, self.likelihood)

    def _codes(self, x):
        return codebooks.nearest(self._vectors(x), self.codebook)

    def _observe(self, vectors):
        """The distribution of an event, in units of the scaling, for vectors `[*grid, C]`."""
        outputs = amortized.as_outputs(self.decoder(vectors), self.event_shape)
        return likelihoods.observe(self.likelihood, outputs, self.shared)

    def _log_likelihood(self, x, vectors):
        """`log p(x | c)` of one event and the vectors of its codes."""
        x = x.astype(float_type(self.encoder))
        score = jnp.sum(self._observe(vectors).log_prob(standardize(x, self.scaling)))
        return score - log_volume(self.scaling, self.event_shape)

    def _at(self, codes):
        """Vectors of codes, `[*grid] -> [*grid, C]`; of what is no code NaN."""
        codes = codes.astype(jnp.int32)
        return jnp.where((codes >= 0)[..., None], self.codebook.at[codes].get(mode="fill", fill_value=jnp.nan), jnp.nan)

    @per_event
    def elbo(self, key, x, *, context=None) -> jax.Array:
        """`log p(c(x)) + log p(x | c(x))`, nats, `[*batch, *event] -> [*batch]`: without noise, whatever the key."""
        codes = self._codes(x)
        arranged = codes.reshape(amortized.arrangement(self.prior, codes.size, "VQVAE.elbo(key, x)"))
        return self._log_likelihood(x, self._at(codes)) + self.prior.log_prob(arranged)

    def batch_loss(self, key, x, weight, step):
        """The loss of a batch `[N, *event]`, its metrics, and the model with the codebook one batch later."""
        vectors = jax.vmap(self._vectors)(x)
        weight = jnp.ones(len(x), vectors.dtype) if weight is None else weight.astype(vectors.dtype)
        codes = codebooks.nearest(vectors, self.codebook)
        chosen = self._at(codes)
        # the value is that of the codes, the gradient that of the vectors
        through = vectors + jax.lax.stop_gradient(chosen - vectors)
        distortion = -_mean(jax.vmap(self._log_likelihood)(x, through), weight)
        away = jnp.sum((vectors - chosen) ** 2, axis=tuple(range(1, vectors.ndim)))
        commitment = _mean(away, weight)
        cells = math.prod(self.grid)
        moved = codebooks.move(
            key, Codebook(self.codebook, self.counts), vectors.reshape((-1, vectors.shape[-1])), codes.reshape(-1),
            jnp.repeat(weight, cells), decay=self.decay, dead=self.dead,
        )  # fmt: skip
        book = jax.lax.stop_gradient(moved.book)
        metrics = {
            "distortion": distortion, "commitment": commitment, "perplexity": codebooks.perplexity(moved.counts),
            "revived": moved.revived,
        }  # fmt: skip
        new = dataclasses.replace(self, codebook=book.vectors, counts=book.counts)
        return distortion + self.commitment * commitment, metrics, new

    @per_event
    def encode(self, x, *, context=None) -> jax.Array:
        """The codes of events, int32, `[*batch, *event] -> [*batch, *grid]`."""
        return self._codes(x)

    @per_event
    def quantize(self, x, *, context=None) -> jax.Array:
        """The vectors of the codes of events, `[*batch, *event] -> [*batch, *grid, C]`."""
        return self._at(self._codes(x))

    @per_latent
    def decode(self, z, *, context=None) -> jax.Array:
        """The mean event of each grid of codes, `[*batch, *grid] -> [*batch, *event]`; NaN of what is no code."""
        return in_units(self._observe(self._at(z)).mean(), self.scaling)

    @per_event
    def reconstruct(self, x, *, context=None) -> jax.Array:
        """The mean event of the codes of each event, `decode(encode(x))`, `[*batch, *event] -> [*batch, *event]`."""
        return in_units(self._observe(self._at(self._codes(x))).mean(), self.scaling)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`: codes from the prior, then x from the likelihood."""
        code_key, event_key = jax.random.split(key)
        arranged = amortized.arrangement(self.prior, math.prod(self.grid), "VQVAE.sample(key)")
        free = {"length": arranged[0]} if None in self.prior.event_shape else {}
        codes = self.prior.sample(code_key, **free).reshape(self.grid)
        return in_units(self._observe(self._at(codes)).sample(seed=event_key), self.scaling)


def _mean(values, weight):
    """The weighted mean, in which what has no weight does not count whatever it is."""
    return jnp.sum(jnp.where(weight > 0, weight * jnp.where(weight > 0, values, 0), 0)) / jnp.sum(weight)


def _encoded(encoder, x, scaling, likelihood):
    x = standardize(x.astype(float_type(encoder)), scaling)
    return encoder(amortized.as_input(likelihood, x, False))


@compiled_once(static_argnames=("likelihood", "codes"))
def _start(key, encoder, x, scaling, likelihood, codes):
    vectors = jax.vmap(lambda x: _encoded(encoder, x, scaling, likelihood))(x)
    return codebooks.start(key, vectors.reshape((-1, vectors.shape[-1])), codes)
