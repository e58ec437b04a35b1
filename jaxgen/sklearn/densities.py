"""Densities as estimators: a normalizing flow."""

from __future__ import annotations

import jax
import numpy as np

import jaxgen as jg
from jaxgen.sklearn.arrays import checked_weight, key_of, precision_of
from jaxgen.sklearn.models import EncodingEstimator
from jaxgen.sklearn.options import check_options, integer, real, share, widths

#: events from which on a part of them is held out, to stop before the others are learned by heart
ENOUGH_TO_VALIDATE = 100


class FlowDensity(EncodingEstimator):
    """A normalizing flow of rational-quadratic splines: an exact density of any smooth shape.

    It scores as `sklearn.neighbors.KernelDensity` does: `score_samples` in nats, `score` their sum.

    Args:
        n_layers: number of autoregressive spline layers.
        hidden: widths of each layer's network.
        max_iter: steps of Adam at most.
        learning_rate: the first step size, which falls to the end.
        batch_size: events per step.
        validation_fraction: share of the events whose likelihood stops the fit where it falls, of 100 events and more;
            0 uses all to train.
        random_state: None, an int or a `RandomState`.

    Attributes:
        model_: a `jaxgen.Flow`.
        n_iter_: steps that were made.
        n_features_in_, feature_names_in_: of the data.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(50, 2))
        >>> flow = FlowDensity(n_layers=2, hidden=(8,), max_iter=20, random_state=0).fit(X)
        >>> flow.score_samples(X).shape, flow.sample(3).shape, flow.transform(X).shape
        ((50,), (3, 2), (50, 2))
    """

    def __init__(
        self, *, n_layers=5, hidden=(64, 64), max_iter=2000, learning_rate=4e-3, batch_size=256,
        validation_fraction=0.1, random_state=None,
    ):  # fmt: skip
        self.n_layers = n_layers
        self.hidden = hidden
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X, y=None, sample_weight=None) -> FlowDensity:
        """Fit by maximum likelihood.

        Args:
            X: `[N, D]`.
            y: not used.
            sample_weight: `[N]`, not negative; None is ones.

        Raises:
            ValueError: data, weights or arguments that are none.
        """
        check_options(self, {
            "n_layers": integer(1), "hidden": widths(), "max_iter": integer(1), "learning_rate": real(0, above=True),
            "batch_size": integer(1), "validation_fraction": share(),
        })  # fmt: skip
        X = self._training(X)
        weight = checked_weight(sample_weight, X)
        start, train, split = jax.random.split(key_of(self.random_state), 3)
        held = int(self.validation_fraction * len(X)) if len(X) >= ENOUGH_TO_VALIDATE else 0
        order = np.asarray(jax.random.permutation(split, len(X))) if held else np.arange(len(X))
        parts = [(X[rows], None, None if weight is None else weight[rows]) for rows in (order[held:], order[:held])]
        with precision_of(X.dtype):
            model, algorithm = jg.recipes.neural_spline_flow(
                start, parts[0][0], layers=self.n_layers, features=tuple(self.hidden), autoregressive=True,
                step_size=float(self.learning_rate),
            )  # fmt: skip
            fitted = jg.fit(
                train, model, parts[0], algorithm, steps=self.max_iter, progress=False,
                batch_size=min(self.batch_size, len(X) - held), validation=parts[1] if held else None,
            )  # fmt: skip
        self.model_, self.n_iter_ = fitted.model, fitted.steps
        return self
