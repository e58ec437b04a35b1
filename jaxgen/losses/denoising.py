"""Losses of noisy data: the score of a model points from them to the data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch, floating
from jaxgen.core.protocols import has
from jaxgen.core.value import algorithm
from jaxgen.losses.base import HasEnergy, HasLogProb, check_model, check_unlabelled, weighted_mean


@algorithm
class DenoisingScoreMatching:
    """The loss of denoising score matching; `denoising_score_matching` makes it."""

    noise: float

    def __call__(self, key: Any, model: Any, batch: Batch, step: Any = 0) -> jax.Array:
        """`mean_n |noise score(x_n + noise e_n) + e_n|^2 / 2`."""
        by_energy = has(model, HasEnergy)
        if not by_energy:
            check_model(
                "denoising_score_matching", model, HasLogProb, "log_prob", "a model with energy or log_prob"
            )
        check_unlabelled("denoising_score_matching", batch)
        x = floating(batch.x)
        e = jax.random.normal(key, x.shape, x.dtype)
        noisy = x + self.noise * e

        def log_density(x: jax.Array, context: Any) -> jax.Array:
            return -model.energy(x) if by_energy else model.log_prob(x, context=context)

        axes = (0, None if batch.context is None else 0)
        score = jax.vmap(jax.grad(log_density), axes)(noisy, batch.context)
        missed = (self.noise * score + e).reshape((len(e), -1))
        return weighted_mean(0.5 * jnp.sum(missed**2, axis=1), batch.weight)


def denoising_score_matching(noise: float) -> DenoisingScoreMatching:
    """The loss that needs neither a partition function nor chains: the model's score points from noisy data to data.

    `mean_n |noise grad log p(x_n + noise e_n) + e_n|^2 / 2`, `e ~ N(0, I)`. Its minimum is at the density of the noisy
    data, of which p is a model then: the noise is to be smaller than what matters. The loss is no likelihood, and it
    looks at neighbours only: how much mass parts of the data have that are far from each other it hardly knows.

    Args:
        noise: standard deviation, in the units of the data, positive.

    Raises:
        FitError: no noise.

    Source: Vincent (2011), A connection between score matching and denoising autoencoders, equation 11.

    Example:
        >>> import jaxgen as jg
        >>> loss, key = denoising_score_matching(0.5), jax.random.key(0)
        >>> x = jax.random.normal(key, (100_000, 1))
        >>> right, wrong = (jg.Gaussian.from_values([0.0], [[v]]) for v in (1.25, 0.5))  # noisy data: 1 + 0.5^2
        >>> bool(loss(jax.random.key(1), right, Batch(x)) < loss(jax.random.key(1), wrong, Batch(x)))
        True
    """
    if isinstance(noise, bool) or not 0 < noise < float("inf"):
        raise FitError(
            "denoising needs noise", called=f"losses.denoising_score_matching({noise!r})", expected="a number above 0",
            got=repr(noise),
        )  # fmt: skip
    return DenoisingScoreMatching(float(noise))
