"""Autoencoders in two stages: by their own loss, then a density of what they encode (`fit_prior`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxgen import losses
from jaxgen.core.inputs import as_array
from jaxgen.fit.gradient import Gradient
from jaxgen.models.neural.autoencoder import RAE
from jaxgen.models.neural.vqvae import VQVAE
from jaxgen.nn.conv import SMALLEST, halvings
from jaxgen.nn.resnet import GridToImage, ImageToGrid
from jaxgen.ops import likelihoods
from jaxgen.recipes.optimizers import adam


def vqvae(
    key: Any, x: Any, codes: int = 128, *, features: int = 16, hidden: tuple[int, ...] = (400,), grid: int = 16,
    width: int = 16, depth: int | None = None, likelihood: Callable[..., Any] = likelihoods.bernoulli,
    step_size: float = 2e-3, steps: int | None = None,
) -> tuple[VQVAE, Gradient]:  # fmt: skip
    """A vector-quantised autoencoder, and Adam on its loss: the first stage. The second is `fit_prior` on its codes.

    Images whose sides can be halved get residual convolutional networks and a grid of codes, other events perceptrons
    and a row of them.

    Args:
        key: typed key.
        x: events `[N, *event]`.
        codes: K, the size of the codebook.
        features: numbers of each of its vectors.
        hidden: widths of the perceptrons, where events are no images.
        grid: number of codes of an event, there.
        width: channels of the residual networks after the first halving.
        depth: their halvings; None is as many as leave 4 pixels: 28 by 28 pixels have 7 by 7 codes.
        likelihood: as of `vae`.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000.

    Raises:
        DataError: data outside the likelihood's support. ModelError: fewer than two codes.

    Source: van den Oord, Vinyals and Kavukcuoglu (2017), Neural discrete representation learning.

    Example:
        >>> import functools, jax, jax.numpy as jnp, jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (20, 6))
        >>> model, algorithm = vqvae(jax.random.key(0), x, 4, hidden=(8,), grid=3, steps=10)
        >>> model = jg.fit(jax.random.key(1), model, x, algorithm, progress=False).model
        >>> leaf = functools.partial(jg.Categorical.init, size=4)
        >>> model = jg.fit_prior(jax.random.key(2), model, x, lambda key, z: jg.Mixture.init(key, z, 2, leaf))
        >>> model.prior.event_shape, model.elbo(jax.random.key(3), x).shape
        ((3,), (20,))
    """
    x = as_array(x)
    event = tuple(map(int, x.shape[1:]))
    encoder = decoder = None
    if len(event) in (2, 3) and min(event[:2]) >= SMALLEST and halvings(event):
        encoder = ImageToGrid(event, features, width=width, depth=depth)
        decoder = GridToImage((likelihoods.parameter_count(likelihood), *event), width=width, depth=depth)
    model = VQVAE.init(
        key, x, codes, grid=(grid,), features=features, hidden=hidden, encoder=encoder, decoder=decoder,
        likelihood=likelihood,
    )  # fmt: skip
    return model, Gradient(losses.own, adam(step_size, clip=100.0), steps=steps)


def rae(
    key: Any, x: Any, latent: int = 16, *, hidden: tuple[int, ...] = (400, 400),
    likelihood: Callable[..., Any] = likelihoods.bernoulli, code_penalty: float = 0.01, gradient_penalty: float = 0.01,
    weight_decay: float = 0.0, step_size: float = 2e-3, steps: int | None = None,
) -> tuple[RAE, Gradient]:  # fmt: skip
    """A regularised autoencoder, and Adam on its loss: the first stage. The second is `fit_prior` on encoded events.

    Args:
        key: typed key.
        x: events `[N, *event]`.
        latent: L, the number of latent dimensions.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
        likelihood: as of `vae`.
        code_penalty: weight of `|z|^2 / 2`.
        gradient_penalty: weight of the squared norm of the decoder's Jacobian.
        weight_decay: weight of half the squared norm of the decoder's parameters.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000.

    Raises:
        DataError: data outside the likelihood's support. ModelError: no latent number.

    Source: Ghosh, Sajjadi, Vergari, Black and Schölkopf (2020), From variational to deterministic autoencoders.

    Example:
        >>> import jax, jax.numpy as jnp, jaxgen as jg
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (20, 6))
        >>> model, algorithm = rae(jax.random.key(0), x, 2, hidden=(8,), steps=10)
        >>> model = jg.fit(jax.random.key(1), model, x, algorithm, progress=False).model
        >>> mixture = lambda key, z: jg.Mixture.init(key, z, 2, jg.Gaussian.init)
        >>> model = jg.fit_prior(jax.random.key(2), model, x, mixture)
        >>> model.sample(jax.random.key(3), (5,)).shape
        (5, 6)
    """
    model = RAE.init(
        key, as_array(x), latent, hidden=hidden, likelihood=likelihood, code_penalty=code_penalty,
        gradient_penalty=gradient_penalty, weight_decay=weight_decay,
    )  # fmt: skip
    return model, Gradient(losses.own, adam(step_size, clip=100.0), steps=steps)
