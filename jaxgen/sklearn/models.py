"""Estimators around any model of this library: fitted ones hold it, and are pickled as plain arrays and JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxgen.core.files import put_together, taken_apart
from jaxgen.sklearn.arrays import precision_of

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
