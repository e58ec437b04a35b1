"""Generative classifiers: a density of each class, and Bayes' rule."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

import jaxgen as jg
from jaxgen.sklearn.arrays import by_rows, checked_weight, key_of, precision_of
from jaxgen.sklearn.models import DTYPES, ModelEstimator
from jaxgen.sklearn.options import check_options, integer, one_of, optional, real
from jaxgen.tasks.classification import class_densities

#: the smallest variance of a component, as a share of its column's
FLOOR = 1e-6
LEAVES: dict[str, Any] = {"full": jg.Gaussian.init, "diag": jg.DiagonalGaussian.init}


class GenerativeClassifier(ClassifierMixin, ModelEstimator):
    """A mixture of Gaussians for each class: `p(y | x) ~ p(y) p(x | y)`.

    Unlike a discriminative classifier it has a density of the events, `score_samples`, which is low for those that are
    like none of the classes.

    Args:
        n_components: number of Gaussians in each class.
        covariance_type: "full" or "diag".
        priors: `[C]`, probabilities of the classes, in the order of `classes_`; None takes their shares.
        reject: events whose likeliest class has a smaller probability get the label `reject_label`; None rejects none.
        reject_label: of rejected events.
        tol: EM of each class ends when the mean log-likelihood changes by less, nats per event.
        max_iter: EM steps at most.
        random_state: None, an int or a `RandomState`.

    Attributes:
        classes_: the labels.
        n_iter_: steps of the class that took most.
        priors_: `[C]`.
        model_: a `jaxgen.Mixture` of one mixture for each class.
        n_features_in_, feature_names_in_: of the data.

    Example:
        >>> X = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]])
        >>> classifier = GenerativeClassifier(random_state=0).fit(X, ["a", "a", "a", "b", "b", "b"])
        >>> classifier.predict([[0.3], [4.8]]).tolist()
        ['a', 'b']
    """

    def __init__(
        self, n_components=1, *, covariance_type="full", priors=None, reject=None, reject_label=None, tol=1e-4,
        max_iter=200, random_state=None,
    ):  # fmt: skip
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.priors = priors
        self.reject = reject
        self.reject_label = reject_label
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None) -> GenerativeClassifier:
        """Fit the density of each class by EM.

        Args:
            X: `[N, D]`.
            y: `[N]` labels.
            sample_weight: `[N]`, not negative; None is ones.

        Raises:
            ValueError: data, labels, weights or arguments that are none; one class; priors of another number.
        """
        check_options(self, {
            "n_components": integer(1), "covariance_type": one_of(*LEAVES), "tol": real(0), "max_iter": integer(1),
            "reject": optional(real(0)),
        })  # fmt: skip
        X, y = validate_data(self, X, y, dtype=DTYPES, ensure_min_samples=2)
        check_classification_targets(y)
        self._dtype = X.dtype
        self.classes_, label = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier can't train when only one class is present: {self.classes_.tolist()}")
        weight = checked_weight(sample_weight, X)
        weight = np.ones(len(X), X.dtype) if weight is None else weight
        mass = np.array([weight[label == c].sum() for c in range(len(self.classes_))])
        if not (mass > 0).all():
            raise ValueError(f"classes without weight: {self.classes_[mass <= 0].tolist()}")
        self.priors_ = mass / mass.sum() if self.priors is None else self._checked_priors()
        floor = self._floor(X, weight)

        def start(key, data):
            """A mixture with the floor of all events, which one class alone would put lower."""
            model = jg.Mixture.init(key, data["x"], int(self.n_components), LEAVES[self.covariance_type],
                                    weight=data["weight"])  # fmt: skip
            floors = jnp.broadcast_to(floor, model.components.floor.shape)
            return dataclasses.replace(model, components=dataclasses.replace(model.components, floor=floors))

        with precision_of(X.dtype):
            self.model_, fits = class_densities(
                key_of(self.random_state), start, {"x": X, "weight": weight}, label,
                priors=jnp.asarray(self.priors_, X.dtype), steps=int(self.max_iter), tolerance=float(self.tol),
            )  # fmt: skip
        self.n_iter_ = max(1, *(one.steps for one in fits))
        return self

    def _floor(self, X: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The smallest variances: a share of each column's own, of weighted events as of repeated ones."""
        wide = X.astype(np.float64)
        mean = np.average(wide, axis=0, weights=weight)
        variance = np.average((wide - mean) ** 2, axis=0, weights=weight)
        seen = X[weight > 0]
        varies = seen.max(axis=0) > seen.min(axis=0)  # a mean's rounding gives a constant column a variance
        variance = np.where(varies, variance, np.where(mean == 0, 1, mean**2))
        return np.maximum(FLOOR * variance, np.finfo(X.dtype).tiny).astype(X.dtype)

    def _checked_priors(self) -> np.ndarray:
        priors = np.asarray(self.priors, float)
        proper = priors.shape == self.classes_.shape and (priors >= 0).all()
        if not proper or not math.isclose(priors.sum(), 1, rel_tol=1e-6):
            raise ValueError(
                f"priors must be {len(self.classes_)} probabilities that sum to 1, one for each of "
                f"{self.classes_.tolist()}, got {priors.tolist()}"
            )
        return priors

    def predict_proba(self, X) -> np.ndarray:
        """Return the probability of each class given the event, `[N, C]`."""
        X = self._given(X)
        return by_rows(self.model_.responsibilities, X)

    def predict(self, X) -> np.ndarray:
        """Return the likeliest class of each event, `[N]`, or `reject_label`."""
        share = self.predict_proba(X)
        found = self.classes_[share.argmax(axis=1)]
        if self.reject is None:
            return found
        sure = share.max(axis=1) >= self.reject
        return found if sure.all() else np.where(sure, found.astype(object), self.reject_label)

    def score_samples(self, X) -> np.ndarray:
        """Return the log-likelihood of each event whatever its class, `[N]`, nats."""
        X = self._given(X)
        return by_rows(self.model_.log_prob, X)
