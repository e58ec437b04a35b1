"""A variational autoencoder as a transformer: latent means, and events of them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin

import jaxgen as jg
from jaxgen.sklearn.arrays import by_rows, checked_weight, key_of, precision_of
from jaxgen.sklearn.models import EncodingEstimator
from jaxgen.sklearn.options import check_options, integer, one_of, real, widths

LIKELIHOODS: dict[str, Any] = {"gaussian": jg.likelihoods.gaussian, "bernoulli": jg.likelihoods.bernoulli}


class VAE(ClassNamePrefixFeaturesOutMixin, EncodingEstimator):
    """A variational autoencoder: a few numbers that say most of an event, and a density that is known by a bound.

    Args:
        n_components: number of latent dimensions.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
        likelihood: "gaussian" for numbers, "bernoulli" for numbers from 0 to 1.
        max_iter: steps of Adam.
        learning_rate: the first step size, which falls to the end.
        batch_size: events per step.
        n_draws: of the posterior, for the bound that `score_samples` returns.
        random_state: None, an int or a `RandomState`.

    Attributes:
        model_: a `jaxgen.VAE`.
        n_iter_: steps that were made.
        n_features_in_, feature_names_in_: of the data.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 4))
        >>> vae = VAE(2, hidden=(8,), max_iter=20, random_state=0).fit(X)
        >>> vae.transform(X).shape, vae.inverse_transform(vae.transform(X)).shape, vae.sample(3).shape
        ((50, 2), (50, 4), (3, 4))
        >>> list(vae.get_feature_names_out())
        ['vae0', 'vae1']
    """

    def __init__(
        self, n_components=2, *, hidden=(64, 64), likelihood="gaussian", max_iter=2000, learning_rate=2e-3,
        batch_size=128, n_draws=16, random_state=None,
    ):  # fmt: skip
        self.n_components = n_components
        self.hidden = hidden
        self.likelihood = likelihood
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_draws = n_draws
        self.random_state = random_state

    def fit(self, X, y=None, sample_weight=None) -> VAE:
        """Fit by the bound on the likelihood.

        Args:
            X: `[N, D]`.
            y: not used.
            sample_weight: `[N]`, not negative; None is ones.

        Raises:
            ValueError: data, weights or arguments that are none; numbers outside of [0, 1] for "bernoulli".
        """
        check_options(self, {
            "n_components": integer(1), "hidden": widths(), "likelihood": one_of(*LIKELIHOODS), "max_iter": integer(1),
            "learning_rate": real(0, above=True), "batch_size": integer(1), "n_draws": integer(1),
        })  # fmt: skip
        X = self._training(X)
        weight = checked_weight(sample_weight, X)
        start, train = jax.random.split(key_of(self.random_state))
        with precision_of(X.dtype):
            model, algorithm = jg.recipes.vae(
                start, X, int(self.n_components), hidden=tuple(self.hidden), likelihood=LIKELIHOODS[self.likelihood],
                step_size=float(self.learning_rate),
            )  # fmt: skip
            fitted = jg.fit(train, model, (X, None, weight), algorithm, steps=int(self.max_iter),
                            batch_size=min(int(self.batch_size), len(X)), progress=False)  # fmt: skip
        self.model_, self.n_iter_ = fitted.model, fitted.steps
        return self

    def score_samples(self, X) -> np.ndarray:
        """Return a lower bound of the log-likelihood of each event, `[N]`, nats: the ELBO, by the same draws always."""
        X = self._given(X)
        return by_rows(lambda X: _bound(self.model_, X, int(self.n_draws)), X)

    @property
    def _n_features_out(self) -> int:
        return int(self.model_.latent_shape[0])


@functools.partial(jax.jit, static_argnames="draws")
def _bound(model: Any, X: Any, draws: int) -> jax.Array:
    """The mean bound of each event over draws of the same noise: an event's is its own, whatever stands beside it."""
    one = lambda key: jax.vmap(lambda x: model.elbo(key, x))(X)  # noqa: E731
    return jnp.mean(jax.lax.map(one, jax.random.split(jax.random.key(0), draws)), axis=0)
