"""Scores of energy models for `ContrastiveDivergence(score=...)`: what a fit looks at while it goes on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Tractable, has
from jaxgen.core.value import algorithm
from jaxgen.losses import weighted_mean
from jaxgen.metrics.partition import ais


def exact(key: Any, model: Any, batch: Batch) -> jax.Array:
    """Mean log-likelihood of a model with a `log_partition()`, nats per event: `-mean E(x) - log Z`.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]] * 8)
        >>> start = jg.RBM.init(jax.random.key(0), x, 2, scale=0.1)
        >>> watched = jg.ContrastiveDivergence(score=exact)
        >>> fitted = jg.fit(jax.random.key(1), start, x, watched, steps=1000, validation=x, every=500)
        >>> fitted.history["validation_step"].tolist(), bool(fitted.history["validation"][-1] > -1.5)
        ([500, 1000], True)
    """
    if not has(model, Tractable):
        raise FitError(
            "the model has no exact partition function", called="monitors.exact", expected="log_partition()",
            got=type(model).__name__, fix="jaxgen.metrics.monitors.Annealed()",
        )  # fmt: skip
    return -weighted_mean(model.energy(batch.x), batch.weight) - model.log_partition()


@algorithm
class Annealed:
    """The same with log Z by annealed importance sampling: too high on average, the more so the fewer the steps.

    All validations share one key, so that their errors are alike and differences are smaller than they.

    Args:
        chains: of `metrics.ais`.
        steps: its temperatures.

    Example:
        >>> import jaxgen as jg
        >>> rbm = jg.RBM.from_values(jnp.zeros(3), jnp.zeros(2), jnp.ones((3, 2)))
        >>> batch = Batch(jnp.ones((1, 3)))
        >>> key = jax.random.key(0)
        >>> bool(abs(Annealed()(key, rbm, batch) - exact(key, rbm, batch)) < 0.1)
        True
    """

    chains: int = 100
    steps: int = 500

    def __call__(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        log_z = ais(key, model, chains=self.chains, steps=self.steps).log_z
        return -weighted_mean(model.energy(batch.x), batch.weight) - log_z


@algorithm
class Gap:
    """`mean E(reference) - mean E(x)`, nats: the difference of the mean log-likelihoods, in which log Z cancels.

    With a part of the training data as reference it falls below zero as the model learns them by heart.

    Args:
        reference: events `[M, *event]`.

    Source: Hinton (2012), A practical guide to training restricted Boltzmann machines, section 6.

    Example:
        >>> import jaxgen as jg
        >>> rbm = jg.RBM.from_values(jnp.array([2.0]), jnp.zeros(1), jnp.zeros((1, 1)))
        >>> float(Gap(jnp.ones((4, 1)))(jax.random.key(0), rbm, Batch(jnp.zeros((2, 1)))))
        -2.0
    """

    reference: Any

    def __call__(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        return jnp.mean(model.energy(jnp.asarray(self.reference))) - weighted_mean(model.energy(batch.x), batch.weight)
