"""Parameters of Gaussian mixtures as scikit-learn keeps them, and the models of this library that have them.

A component's precision is `P P^T`, P upper triangular: the transpose of a `Gaussian`'s whitener. P is `[K, D, D]` where
the covariances are full, `[D, D]` tied, `[K, D]` diagonal, `[K]` spherical. Starts are made in NumPy: a program that
runs once is not worth its compilation.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from scipy import linalg

import jaxgen as jg

KINDS = ("full", "tied", "diag", "spherical")
SINGULAR = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
    "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or scale "
    "the input data."
)


class Parameters(NamedTuple):
    """Weights `[K]`, means `[K, D]` and the Cholesky factors of the precisions."""

    weights: np.ndarray
    means: np.ndarray
    cholesky: np.ndarray


def moments(X: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return masses `[K]` and means `[K, D]` of data `[N, D]`, each event split by `share [N, K]`."""
    mass = share.sum(axis=0) + 10 * np.finfo(share.dtype).eps  # a component without events has a mean too
    return mass, share.T @ X / mass[:, None]


def covariances_of(
    X: np.ndarray, share: np.ndarray, mass: np.ndarray, means: np.ndarray, ridge: float, kind: str
) -> np.ndarray:
    """Return the covariances around these means, with `ridge` added to each variance."""
    d = X.shape[1]
    if kind in ("diag", "spherical"):
        squares = np.stack([one @ (X - mean) ** 2 for one, mean in zip(share.T, means, strict=True)])
        variances = squares / mass[:, None] + ridge
        return variances if kind == "diag" else variances.mean(axis=1)
    scatter = np.zeros((len(means), d, d), X.dtype)
    for k, mean in enumerate(means):
        centered = X - mean
        scatter[k] = (share[:, k, None] * centered).T @ centered
    if kind == "tied":
        return scatter.sum(axis=0) / mass.sum() + ridge * np.eye(d, dtype=X.dtype)
    return scatter / mass[:, None, None] + ridge * np.eye(d, dtype=X.dtype)


def cholesky_of(covariances: np.ndarray, kind: str, called: str = SINGULAR) -> np.ndarray:
    """Return the Cholesky factors of the precisions.

    Args:
        covariances: in the shape of their kind.
        kind: of the covariances.
        called: the error of a covariance that is not positive definite.

    Raises:
        ValueError: such a covariance.
    """
    if kind in ("diag", "spherical"):
        if not (covariances > 0).all():
            raise ValueError(called)
        return 1 / np.sqrt(covariances)
    try:
        lower = np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        raise ValueError(called) from None
    return np.swapaxes(_inverse(lower), -1, -2)


def check_positive(matrices: np.ndarray, kind: str, name: str = "precision") -> None:
    """Refuse precisions, or covariances, that are none.

    Raises:
        ValueError: not positive, or not symmetric and positive definite.
    """
    if kind in ("diag", "spherical"):
        if not (matrices > 0).all():
            raise ValueError(f"'{kind} {name}' should be positive")
    elif not np.allclose(matrices, np.swapaxes(matrices, -1, -2)) or not (np.linalg.eigvalsh(matrices) > 0).all():
        raise ValueError(f"'{kind} {name}' should be symmetric, positive-definite")


def precision_cholesky(precisions: np.ndarray, kind: str) -> np.ndarray:
    """Return the Cholesky factors of precisions, which are positive definite."""
    if kind in ("diag", "spherical"):
        return np.sqrt(precisions)
    # P P^T with P upper triangular: the lower factor of the matrix with its axes in the other order
    flipped = np.linalg.cholesky(np.flip(precisions, (-1, -2)))
    return np.ascontiguousarray(np.flip(flipped, (-1, -2)))


def _inverse(lower: np.ndarray) -> np.ndarray:
    """Return inverses of lower triangular matrices `[*K, D, D]`, whose diagonals are above zero."""
    # not by solving, for which BLAS wakes threads that wait, spinning, for those of XLA: milliseconds each
    trtri = linalg.get_lapack_funcs("trtri", (lower,))
    return np.stack([trtri(one, lower=1)[0] for one in lower.reshape((-1, *lower.shape[-2:]))]).reshape(lower.shape)


def precisions(cholesky: np.ndarray, kind: str) -> np.ndarray:
    """Return the precisions, in the shape of their factors."""
    return cholesky**2 if kind in ("diag", "spherical") else cholesky @ np.swapaxes(cholesky, -1, -2)


def covariances(cholesky: np.ndarray, kind: str) -> np.ndarray:
    """Return the covariances, in the shape of the factors of the precisions."""
    if kind in ("diag", "spherical"):
        return 1 / cholesky**2
    lower = _inverse(np.swapaxes(cholesky, -1, -2).astype(np.float64))
    return (lower @ np.swapaxes(lower, -1, -2)).astype(cholesky.dtype)


def mixture_of(parameters: Parameters, kind: str) -> jg.Mixture:
    """Return the mixture with these parameters."""
    weights, means, cholesky = (cast(Any, one) for one in parameters)
    zeros = np.zeros_like(means)
    if kind in ("diag", "spherical"):
        factors = np.broadcast_to(cholesky if kind == "diag" else cholesky[:, None], means.shape)
        components: Any = jg.DiagonalGaussian(zeros, -np.log(factors), means, zeros, None, kind == "spherical")
    else:
        whitener = np.swapaxes(cholesky, -1, -2)
        diagonal = np.diagonal(whitener, axis1=-2, axis2=-1)
        raw: Any = np.tril(whitener, -1) + np.log(diagonal)[..., None] * np.eye(means.shape[1], dtype=means.dtype)
        raw = np.broadcast_to(raw, (*means.shape, means.shape[1]))
        components = jg.Gaussian(zeros, raw, means, zeros, None, kind == "tied")
    with np.errstate(divide="ignore"):  # the logarithm of a weight of zero
        return jg.Mixture(np.log(weights), components)


def parameters_of(mixture: Any, kind: str) -> Parameters:
    """Return the parameters of a mixture that `mixture_of` or a fit of it made."""
    logits, one = np.asarray(mixture.logits), mixture.components
    weights = np.exp(logits - logits.max())
    means = np.asarray(one.origin) + np.asarray(one.offset)
    if kind in ("diag", "spherical"):
        cholesky = np.exp(-np.asarray(one.log_scale))
        cholesky = cholesky if kind == "diag" else np.ascontiguousarray(cholesky[:, 0])
    else:
        raw = np.asarray(one.raw)[0] if kind == "tied" else np.asarray(one.raw)
        diagonal = np.exp(np.diagonal(raw, axis1=-2, axis2=-1))
        whitener = np.tril(raw, -1) + diagonal[..., None] * np.eye(raw.shape[-1], dtype=raw.dtype)
        cholesky = np.ascontiguousarray(np.swapaxes(whitener, -1, -2))
    return Parameters(weights / weights.sum(), means, cholesky)


def add_ridge(variance: float, moments: Any) -> Any:
    """Return `Moments` of K Gaussians as if each event had this variance: `cov = S / n + variance I`.

    Example:
        >>> from jaxgen.ops.gaussians import Moments
        >>> add_ridge(0.5, Moments(jnp.full(1, 4.0), jnp.zeros((1, 2)), jnp.zeros((1, 2)))).second.tolist()
        [[2.0, 2.0]]
    """
    more = variance * moments.weight
    second = moments.second
    if second.ndim == 3:
        return moments._replace(second=second + more[:, None, None] * jnp.eye(second.shape[-1], dtype=second.dtype))
    return moments._replace(second=second + more[:, None])
