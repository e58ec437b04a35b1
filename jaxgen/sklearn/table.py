"""Tables made like a table, as an estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted, validate_data

import jaxgen as jg
from jaxgen.core.tables import Frame
from jaxgen.sklearn.arrays import by_rows, key_of, precision_of
from jaxgen.sklearn.models import ModelEstimator
from jaxgen.sklearn.options import check_options, integer, optional
from jaxgen.tasks.synthesis import COMPONENTS


class SyntheticTable(DensityMixin, ModelEstimator):
    """Rows like those of a table of mixed columns: `fit(X)` and `sample(n)`, frames in and frames out.

    Args:
        n_components: of the mixture of normal scores and labels; None chooses by rows that are held out.
        labels: names of columns to take as labels though they hold numbers, of arrays `"x0"`, `"x1"`, ...
        random_state: None, an int or a `RandomState`.

    Attributes:
        model_: a `jaxgen.tasks.Synthesizer`: its `draw` has draws given some columns, and conditions.
        n_features_in_, feature_names_in_: of the data.

    Example:
        >>> X = np.stack([np.arange(60) % 5, np.arange(60) % 3], axis=1)
        >>> made = SyntheticTable(n_components=2, random_state=0).fit(X).sample(20)
        >>> made.shape, set(made[:, 1]) <= {0.0, 1.0, 2.0}
        ((20, 2), True)
    """

    def __init__(self, n_components=None, *, labels=(), random_state=None):
        self.n_components = n_components
        self.labels = labels
        self.random_state = random_state

    def fit(self, X, y=None) -> SyntheticTable:
        """Fit to a table.

        Args:
            X: a frame, of columns of any kind, or numbers `[N, D]`; NaN where a cell was not seen.
            y: not used.

        Raises:
            ValueError: what is no table; a column without a value; arguments that are none.
        """
        check_options(self, {"n_components": optional(integer(1))})
        choice = COMPONENTS if self.n_components is None else (int(self.n_components),)
        columns = self._columns(X, True)
        self._dtype = np.dtype(np.float32)
        with precision_of(self._dtype):
            self.model_ = jg.tasks.synthesizer(
                key_of(self.random_state), columns, labels=tuple(self.labels), components=choice
            )
        return self

    def _columns(self, X: Any, reset: bool) -> Any:
        """The frame, or the columns of an array by name."""
        if isinstance(X, Frame):
            validate_data(self, X, skip_check_array=True, reset=reset)
            return X
        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_all_finite="allow-nan", reset=reset,
                          ensure_min_samples=2 if reset else 1)  # fmt: skip
        return {f"x{i}": column for i, column in enumerate(X.T)}

    def score_samples(self, X) -> np.ndarray:
        """Return the log-density of each row, `[N]`: of normal scores in the middle of their ranks, and of labels."""
        check_is_fitted(self, "model_")
        return by_rows(self.model_.log_prob, self.model_.events(self._columns(X, False)))

    def score(self, X, y=None) -> float:
        """Return the log-density of all rows, nats."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples=1, random_state=None) -> Any:
        """Draw rows: a frame where one was fitted, else an array `[n_samples, D]`."""
        check_is_fitted(self, "model_")
        key = key_of(self.random_state if random_state is None else random_state)
        with precision_of(self._dtype):
            made = self.model_.draw(key, int(n_samples)).frame
        return np.stack(list(made.values()), axis=1) if isinstance(made, dict) else made

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags
