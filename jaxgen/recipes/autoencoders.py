"""Variational autoencoders, fitted by their bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxgen import losses
from jaxgen.core.inputs import as_array
from jaxgen.core.labels import checked_labels
from jaxgen.fit.gradient import Gradient
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.neural.ladder import Ladder
from jaxgen.models.neural.semi_supervised import SemiSupervised
from jaxgen.models.neural.vae import VAE
from jaxgen.ops import likelihoods
from jaxgen.recipes.optimizers import adam


def vae(
    key: Any, x: Any, latent: int = 20, *, prior: Any = None, hidden: tuple[int, ...] = (400,),
    likelihood: Callable[..., Any] = likelihoods.bernoulli,
    context_shape: tuple[int, ...] | None = None, step_size: float = 2e-3, steps: int | None = None,
) -> tuple[VAE, Gradient]:  # fmt: skip
    """A variational autoencoder of multilayer perceptrons, and Adam on its bound.

    Args:
        key: typed key.
        x: events `[N, *event]`.
        latent: L, the number of latent dimensions.
        prior: any density of vectors `[L]`; None is the standard normal.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
        likelihood: `likelihoods.bernoulli` for bits, `likelihoods.gaussian` for real numbers.
        context_shape: shape of one context for a conditional density; None for none.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        DataError: data outside the likelihood's support. ModelError: a prior that is no density of vectors.

    Source: Kingma and Welling (2014), Auto-encoding variational Bayes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model, algorithm = vae(jax.random.key(0), jnp.ones((10, 4, 4)), 2, hidden=(8,))
        >>> model.event_shape, model.latent_shape
        ((4, 4), (2,))
    """
    prior = StandardNormal((latent,)) if prior is None else prior
    model = VAE.init(key, as_array(x), prior, hidden=hidden, likelihood=likelihood, context_shape=context_shape)
    return model, Gradient(losses.negative_elbo, adam(step_size, clip=100.0), steps=steps)


def ladder_vae(
    key: Any, x: Any, sizes: tuple[int, ...] = (8, 16), *, features: int = 64, hidden: tuple[int, ...] = (400,),
    steps_down: tuple[int, ...] = (64,), likelihood: Callable[..., Any] = likelihoods.bernoulli,
    step_size: float = 2e-3, steps: int | None = None,
) -> tuple[VAE, Gradient]:  # fmt: skip
    """A hierarchical autoencoder: ladders of hidden variables as prior and posterior, and Adam on its bound.

    Args:
        key: typed key.
        x: events `[N, *event]`.
        sizes: numbers in each block of hidden variables, the top one first.
        features: of an event, that all blocks of the posterior see.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse, and sees all blocks.
        steps_down: widths of the networks from the blocks above to the next, of prior and posterior.
        likelihood: `likelihoods.bernoulli` for bits, `likelihoods.gaussian` for real numbers.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        DataError: data outside the likelihood's support. ModelError: no blocks, or one without numbers.

    Source: Sonderby, Raiko, Maaloe, Sonderby and Winther (2016), Ladder variational autoencoders.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model, algorithm = ladder_vae(jax.random.key(0), jnp.ones((10, 4, 4)), (1, 2), features=8, hidden=(8,))
        >>> model.event_shape, model.latent_shape
        ((4, 4), (3,))
    """
    first, second, third = jax.random.split(key, 3)
    prior = Ladder.init(first, sizes, hidden=steps_down)
    posterior = Ladder.init(second, sizes, context_shape=(features,), hidden=steps_down)
    model = VAE.init(third, as_array(x), prior, posterior=posterior, hidden=hidden, likelihood=likelihood)
    return model, Gradient(losses.negative_elbo, adam(step_size, clip=100.0), steps=steps)


def semi_supervised(
    key: Any, x: Any, label: Any, latent: int = 10, *, hidden: tuple[int, ...] = (200,), classes: int | None = None,
    likelihood: Callable[..., Any] = likelihoods.bernoulli, step_size: float = 3e-3, steps: int | None = None,
) -> tuple[SemiSupervised, Gradient]:  # fmt: skip
    """A variational autoencoder given the label, a classifier, and Adam on their bound: M2.

    `fit(key, model, {"x": x, "label": label}, algorithm)` takes events with and without labels. Of the means that a
    first autoencoder encodes, `x = first.encode(images)`, it is M1+M2; take those dimensions of it that vary
    (`metrics.latents` counts them): in units of their deviations the others are noise.

    Args:
        key: typed key.
        x: events `[N, *event]`.
        label: `[N]`, whole numbers from 0, -1 where not known.
        latent: L, the number of latent dimensions beside the label.
        hidden: widths of the classifier and of the encoder; the decoder has them in reverse.
        classes: their number; None is one more than the largest label.
        likelihood: as of `vae`.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    In the classifier's loss the events with a label have together as much say as all events have in the bound; the
    source has a tenth of that.

    Raises:
        DataError: data outside the likelihood's support, labels that are none, or no label at all.
        ModelError: fewer than two classes.

    Source: Kingma, Rezende, Mohamed and Welling (2014), Semi-supervised learning with deep generative models.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> label = jnp.array([0, 1, 2, -1, -1, -1])
        >>> model, algorithm = semi_supervised(jax.random.key(0), jnp.eye(6), label, 2, hidden=(8,))
        >>> model.classes, model.classify(jnp.eye(6)).shape
        (3, (6, 3))
    """
    x = as_array(x)
    called = "recipes.semi_supervised(key, x, label)"
    label = checked_labels(label, len(x), called, classes=classes, unknown=True, numbered=True)
    count = int(label.max()) + 1 if classes is None else classes
    first, second = jax.random.split(key)
    given = VAE.init(first, x, StandardNormal((latent,)), hidden=hidden, likelihood=likelihood, context_shape=(count,))
    model = SemiSupervised.init(second, x, given, hidden=hidden, alpha=len(x) / int((label >= 0).sum()))
    return model, Gradient(losses.own, adam(step_size, clip=100.0), steps=steps)
