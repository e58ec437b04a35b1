"""Densities fitted behind an autoencoder, to what it encodes."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax
import numpy as np

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import as_array
from jaxgen.core.protocols import Encoder, has
from jaxgen.core.pytree import is_model, model_fields
from jaxgen.fit.driver import fit
from jaxgen.nn.amortized import arrangement

M = TypeVar("M")


def fit_prior(
    key: Any, model: M, x: Any, prior: Any, algorithm: Any = None, *, steps: int | None = None,
    batch_size: int | None = None, restarts: int | None = None, progress: bool = False,
) -> M:  # fmt: skip
    """Return an autoencoder with a prior fitted to what it encodes: the second stage of a `VQVAE` or a `RAE`.

    Args:
        key: typed key.
        model: has `encode` and a part `prior`.
        x: events `[N, *event]`.
        prior: the start: a model, or a function `(key, z [N, L]) -> model` of the encoded events, each in a row, such
            as `lambda key, z: Mixture.init(key, z, 10, Gaussian.init)`. Of L latent numbers in any event shape, a free
            length included: rows of a `VQVAE` are the codes line by line.
        algorithm: of `fit`; None is its default.
        steps: of `fit`.
        batch_size: of `fit`.
        restarts: of `fit`; the prior is then to be a function.
        progress: of `fit`.

    Raises:
        FitError: a model without `encode` or `prior`. ModelError: a prior that is no density of the latent numbers.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.normal(jax.random.key(0), (50, 3))
        >>> rae = jg.RAE.init(jax.random.key(1), x, 2, hidden=(8,), likelihood=jg.likelihoods.GaussianOfScale(0.5))
        >>> rae = fit_prior(jax.random.key(2), rae, x, jg.Gaussian.init)
        >>> bool(abs(rae.prior.mean - rae.encode(x).mean(axis=0)).max() < 1e-5)
        True
    """
    called = f"fit_prior(key, {type(model).__name__}, x, prior)"
    parts = {name for name, kind, _ in model_fields(model) if kind == "part"} if is_model(model) else set()
    if not ("prior" in parts and has(model, Encoder)):
        raise FitError(
            "the model has no prior to fit behind it", called=called, got=repr(model)[:200],
            expected="a method encode and a part named prior", fix="a RAE, VQVAE or VAE",
        )  # fmt: skip
    codes = model.encode(as_array(x))  # type: ignore[attr-defined]
    rows = codes.reshape((len(codes), -1))
    start = prior
    if not is_model(prior):
        start = lambda key: prior(key, rows)  # noqa: E731
        start = start if restarts else start(jax.random.fold_in(key, 1))
    example = jax.eval_shape(start, key) if restarts else start
    data = np.asarray(rows).reshape((len(rows), *arrangement(example, rows.shape[1], called)))
    fitted = fit(
        key, start, data, algorithm, steps=steps, batch_size=batch_size, restarts=restarts, progress=progress
    )  # fmt: skip
    return dataclasses.replace(model, prior=fitted.model)  # type: ignore[type-var]
