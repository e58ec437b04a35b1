"""Anomaly detection without anything to choose, as an outlier detector of scikit-learn."""

from __future__ import annotations

import numbers

import numpy as np
from sklearn.base import OutlierMixin

from jaxgen.sklearn.arrays import by_rows, key_of, precision_of
from jaxgen.sklearn.models import ModelEstimator
from jaxgen.sklearn.options import Rule, check_options, integer
from jaxgen.tasks.detection import detector


class AnomalyDetector(OutlierMixin, ModelEstimator):
    """Strange events by densities of two kinds in two views of the columns: `jaxgen.tasks.detector`.

    The threshold is a quantile of the scores of the events that were fitted, as in scikit-learn's detectors;
    `jaxgen.tasks.anomaly(key, estimator.to_model(), X, reference=held_out)` has one with a guaranteed rate of false
    alarms.

    Args:
        contamination: the share of the fitted events that are called outliers, above 0 and at most 0.5.
        max_rows: so many events at most are centers of kernels.
        random_state: None, an int or a `RandomState`.

    Attributes:
        offset_: the score at which `decision_function` is 0.
        model_: a `jaxgen.tasks.Detector`.
        n_features_in_, feature_names_in_: of the data.

    Example:
        >>> X = np.concatenate([np.random.default_rng(0).normal(size=(99, 2)), [[9.0, -9.0]]])
        >>> detector = AnomalyDetector(contamination=0.01, random_state=0).fit(X)
        >>> int(detector.predict(X)[-1]), int((detector.predict(X) == -1).sum())
        (-1, 1)
    """

    def __init__(self, *, contamination=0.1, max_rows=4096, random_state=None):
        self.contamination = contamination
        self.max_rows = max_rows
        self.random_state = random_state

    def fit(self, X, y=None) -> AnomalyDetector:
        """Fit densities of what is normal; a few anomalies among the events do little.

        Args:
            X: `[N, D]`.
            y: not used.

        Raises:
            ValueError: data or arguments that are none.
        """
        half = Rule(lambda value: isinstance(value, numbers.Real) and 0 < float(value) <= 0.5,
                    "a float in the range (0.0, 0.5]")  # fmt: skip
        check_options(self, {"contamination": half, "max_rows": integer(2)})
        X = self._training(X)
        with precision_of(X.dtype):
            self.model_ = detector(key_of(self.random_state), X, rows=int(self.max_rows))
        self.offset_ = float(np.percentile(self._scores(X), 100 * self.contamination))
        return self

    def _scores(self, X: np.ndarray) -> np.ndarray:
        return -by_rows(self.model_.strangeness, X).astype(np.float64)

    def score_samples(self, X) -> np.ndarray:
        """Return how normal events are, `[N]`: minus their strangeness, low for outliers."""
        return self._scores(self._given(X))

    def decision_function(self, X) -> np.ndarray:
        """Return the scores less the threshold, `[N]`: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X) -> np.ndarray:
        """Return -1 for outliers and 1 for others, `[N]` ints."""
        return np.where(self.decision_function(X) < 0, -1, 1)
