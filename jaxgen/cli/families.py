"""Families of models by name: how each is made of rows, and how it is chosen among several."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxgen import recipes
from jaxgen.core.cells import NUMBER
from jaxgen.core.sequences import Sequences
from jaxgen.core.tables import Table
from jaxgen.fit.em import EM
from jaxgen.models.chains.hmm import HMM
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.latent.mixture import Mixture
from jaxgen.models.latent.product import Product
from jaxgen.ops import likelihoods


class Family(NamedTuple):
    """A family of models.

    Args:
        what: it is, for help.
        make: `(key, x, k) -> (model, algorithm)`.
        counts: what k is the number of.
        default: of k.
        leaf: `x -> leaf` of families that BIC can choose among; None of others.
        init: `(key, x, k, leaf) -> model` for these, None of a mixture.
        mixed: it takes columns of labels.
    """

    what: str
    make: Callable[..., tuple[Any, Any]]
    counts: str
    default: int
    leaf: Callable[[Any], Any] | None = None
    init: Any = None
    mixed: bool = False


def _gaussian(x: Any) -> Any:
    # cells without a number, let in by --missing, are entries that were not seen
    return functools.partial(Gaussian.init, missing=bool(np.isnan(np.asarray(x)).any()))


def _emission(x: Any) -> Any:
    """Gaussians where all columns are numbers, else a density for each kind of column."""
    rows = x.x if isinstance(x, Sequences) else x
    mixed = isinstance(rows, Table) and any(column.kind != NUMBER for column in rows.schema.columns)
    return Product.init if mixed else _gaussian(rows)


def _vae(key: Any, x: Any, k: int) -> Any:
    # bits have a Bernoulli likelihood, all else a Gaussian one
    bits = bool(((x == 0) | (x == 1)).all())
    return recipes.vae(key, x, k, likelihood=likelihoods.bernoulli if bits else likelihoods.gaussian)


FAMILIES: dict[str, Family] = {
    "mixture": Family(
        "columns of any kinds", lambda key, x, k: (Mixture.init(key, x, k, Product.init), EM()), "components", 3,
        lambda x: Product.init, None, True,
    ),
    "gaussian-mixture": Family(
        "numbers that depend on each other", lambda key, x, k: recipes.gaussian_mixture(key, x, k, leaf=_gaussian(x)),
        "components", 3, _gaussian,
    ),
    "hmm": Family(
        "rows in the order of time", lambda key, x, k: recipes.hidden_markov(key, x, k, leaf=_emission(x)), "states", 3,
        _emission, HMM.init, True,
    ),
    "rbm": Family("bits", recipes.rbm, "hidden units", 16),
    "realnvp": Family("numbers", lambda key, x, k: recipes.realnvp(key, x, layers=k), "layers", 12),
    "vae": Family("numbers or bits, many columns", _vae, "latent dimensions", 8),
}  # fmt: skip
