"""Estimators around any model of this library: fitted ones hold it, and are pickled as plain arrays and JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from jaxgen.core.files import put_together, taken_apart
from jaxgen.sklearn.arrays import by_rows, key_of, precision_of

DTYPES = (np.float32, np.float64)


class ModelEstimator(BaseEstimator):
    """An estimator whose fit is a model of this library, `model_`, in the precision of the data."""

    model_: Any

    def to_model(self) -> Any:
        """Return the fitted model of this library."""
        check_is_fitted(self, "model_")
        return self.model_

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:
            state["model_"] = taken_apart(state["model_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "model_" in state:
            with precision_of(state["_dtype"]):
                state["model_"] = put_together(*state["model_"])
        super().__setstate__(state)

    def _training(self, X: Any, **options: Any) -> np.ndarray:
        X = validate_data(self, X, dtype=DTYPES, ensure_min_samples=2, **options)
        self._dtype = X.dtype
        return X

    def _given(self, X: Any, **options: Any) -> np.ndarray:
        check_is_fitted(self, "model_")
        return validate_data(self, X, dtype=DTYPES, reset=False, **options).astype(self._dtype, copy=False)


class EncodingEstimator(TransformerMixin, DensityMixin, ModelEstimator):
    """An estimator whose model takes events to latent numbers and back, draws events and scores them."""

    random_state: Any

    def transform(self, X) -> np.ndarray:
        """Return the latent numbers of events, `[N, D] -> [N, F]`: a flow's base, the posterior means of a VAE."""
        X = self._given(X)
        return by_rows(self.model_.encode, X)

    def inverse_transform(self, X) -> np.ndarray:
        """Return the events of latent numbers, `[N, F] -> [N, D]`: of a VAE their means."""
        check_is_fitted(self, "model_")
        X = check_array(X, dtype=self._dtype)
        if X.shape[1] != self._n_features_out:
            raise ValueError(f"X has {X.shape[1]} features, but {type(self).__name__} makes {self._n_features_out}")
        return by_rows(self.model_.decode, X)

    def score_samples(self, X) -> np.ndarray:
        """Return the log-likelihood of each event, or its bound, `[N]`, nats."""
        X = self._given(X)
        return by_rows(self.model_.log_prob, X)

    def score(self, X, y=None) -> float:
        """Return the sum of the scores of all events, nats."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples=1, random_state=None) -> np.ndarray:
        """Draw events, `[n_samples, D]`."""
        check_is_fitted(self, "model_")
        key = key_of(self.random_state if random_state is None else random_state)
        with precision_of(self._dtype):
            return np.asarray(self.model_.sample(key, (int(n_samples),)))

    @property
    def _n_features_out(self) -> int:
        """The number of latent numbers."""
        return self.n_features_in_
