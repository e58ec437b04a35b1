"""Conjugate priors, as values that a model holds in a fixed field."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import concrete, floating
from jaxgen.core.pytree import model


def broadcast_prior(prior: Any, batch: tuple[int, ...]) -> Any:
    """Return a prior for each of a batch of models: its arrays with leading axes; None stays.

    Example:
        >>> prior = NormalInverseWishart.from_values([0.0], 1.0, [1.0], 2.0)
        >>> broadcast_prior(prior, (3,)).mean.shape, broadcast_prior(None, (3,))
        ((3, 1), None)
    """
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*batch, *leaf.shape)), prior)


@model
class NormalInverseWishart:
    """The prior of a Gaussian's mean and covariance.

    `cov ~ InverseWishart(scatter, df)`, `mean | cov ~ N(mean, cov / strength)`. It weighs like `strength` events
    at `mean` and like `df` events of that `scatter`; the posterior mode of a covariance is
    `(scatter + scatter of the data) / (N + df + D + 2)`.

    For a diagonal covariance each coordinate has such a prior of its own, with D = 1, and `scatter` is `[D]`.

    Args:
        mean: `[D]`, units of x.
        strength: kappa, scalar, positive.
        scatter: `[D, D]` or `[D]`, units of x squared.
        df: nu, scalar, above D - 1.

    Source: Fraley and Raftery (2007), Bayesian regularization for normal mixture estimation and model-based clustering,
    whose defaults `from_data` takes.

    Example:
        >>> prior = NormalInverseWishart.from_data(jnp.array([[0.0, 0.0], [2.0, 4.0]]), 2)
        >>> prior.mean.tolist(), prior.df.item()
        ([1.0, 2.0], 4.0)
    """

    mean: jax.Array
    strength: jax.Array
    scatter: jax.Array
    df: jax.Array

    @classmethod
    def from_values(cls, mean, strength, scatter, df) -> NormalInverseWishart:
        """From values, which are checked.

        Raises:
            ModelError: shapes that differ, too small a df, a strength or a scatter that is not positive.
        """
        mean, scatter = floating(mean, name="mean"), floating(scatter, name="scatter")
        strength, df = (jnp.asarray(v, mean.dtype) for v in (strength, df))
        d = mean.shape[-1]
        diagonal = scatter if scatter.ndim == 1 else jnp.diagonal(scatter)
        least = 0 if scatter.ndim == 1 else d - 1
        fits = mean.ndim == 1 and scatter.shape in ((d,), (d, d)) and strength.ndim == df.ndim == 0
        if not fits or (
            concrete(mean, strength, scatter, df)
            and not (strength > 0 and df > least and (diagonal > 0).all())
        ):
            raise ModelError(
                "that is no prior", called="NormalInverseWishart.from_values(mean, strength, scatter, df)",
                expected=f"mean [D], strength > 0, scatter [D, D] or [D] positive, df > {least}",
                got=f"mean {list(mean.shape)}, strength {strength}, scatter {list(scatter.shape)}, df {df}",
            )  # fmt: skip
        return cls(mean, strength, scatter, df)

    @classmethod
    def from_data(cls, x, k: int, *, strength: float = 0.01, diagonal: bool = False) -> NormalInverseWishart:
        """The weak prior of Fraley and Raftery (2007) for a mixture of K components.

        The mean of the data, a strength of 0.01, df D + 2 (3 for diagonal covariances), and as scatter the
        covariance of the data over `K^(2 / D)`.
        """
        x = floating(x)
        d = x.shape[-1]
        mean = x[0] + jnp.mean(x - x[0], axis=0)
        r = x - mean
        n = max(x.shape[0] - 1, 1)
        share = float(k) ** (-2 / d)
        squares = jnp.sum(r * r, axis=0) if diagonal else jnp.matmul(r.T, r, precision="highest")
        return cls.from_values(mean, strength, squares / n * share, 3.0 if diagonal else d + 2.0)
