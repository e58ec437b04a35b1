"""Missing numbers filled in by what a mixture of Gaussians expects of them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin

import jaxgen as jg
from jaxgen.sklearn.arrays import by_rows, checked_weight, key_of, precision_of
from jaxgen.sklearn.models import ModelEstimator
from jaxgen.sklearn.options import check_options, integer, one_of, real

LEAVES: dict[str, Any] = {"full": jg.Gaussian.init, "diag": jg.DiagonalGaussian.init}


class Imputer(OneToOneFeatureMixin, TransformerMixin, ModelEstimator):
    """Missing entries, NaN, at their expectation given the others under a mixture of Gaussians, fitted by exact EM.

    Args:
        n_components: number of components.
        covariance_type: "full": entries follow from the others of their row; "diag": from its cluster alone.
        tol: EM ends when the mean log-likelihood of what was seen changes by less, nats per event.
        max_iter: EM steps at most.
        random_state: None, an int or a `RandomState`.

    Attributes:
        model_: a `jaxgen.Mixture`.
        n_iter_: steps that were made.
        n_features_in_, feature_names_in_: of the data.

    Example:
        >>> X = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.1], [3.0, 5.9], [4.0, np.nan]])
        >>> Imputer(random_state=0).fit_transform(X).round(0)[-1].tolist()
        [4.0, 8.0]
    """

    def __init__(self, n_components=1, *, covariance_type="full", tol=1e-4, max_iter=200, random_state=None):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X, y=None, sample_weight=None) -> Imputer:
        """Fit by EM on what was seen.

        Args:
            X: `[N, D]`, NaN where nothing was seen; every column was seen once at least.
            y: not used.
            sample_weight: `[N]`, not negative; None is ones.

        Raises:
            ValueError: data, weights or arguments that are none; a column that was never seen.
        """
        check_options(self, {
            "n_components": integer(1), "covariance_type": one_of(*LEAVES), "tol": real(0), "max_iter": integer(1),
        })  # fmt: skip
        X = self._training(X, ensure_all_finite="allow-nan")
        empty = np.flatnonzero(np.isnan(X).all(axis=0))
        if len(empty):
            raise ValueError(f"columns {empty.tolist()} were never seen: nothing can be said of them")
        if len(X) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, n_samples = {len(X)}"
            )
        weight = checked_weight(sample_weight, X)
        start, train = jax.random.split(key_of(self.random_state))
        leaf = functools.partial(LEAVES[self.covariance_type], missing=True)
        with precision_of(X.dtype):
            model = jg.Mixture.init(start, X, int(self.n_components), leaf, weight=weight)
            fitted = jg.fit(train, model, (X, None, weight), jg.EM(), steps=int(self.max_iter),
                            tolerance=float(self.tol), progress=False)  # fmt: skip
        self.model_, self.n_iter_ = fitted.model, fitted.steps
        return self

    def transform(self, X) -> np.ndarray:
        """Return the events with what is missing at its expectation, `[N, D]`."""
        X = self._given(X, ensure_all_finite="allow-nan")
        return by_rows(self.model_.impute, X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
