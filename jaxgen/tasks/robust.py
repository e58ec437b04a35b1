"""Training on contaminated data: any algorithm, shown at each step the events that the model finds likely alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import latent
from jaxgen.core.algorithms import Algorithm, Scheduled
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.value import algorithm
from jaxgen.fit.em import EM


@algorithm
class Trimmed:
    """An algorithm that leaves the least likely events out of each of its steps.

    `max_theta sum_{n in H} log p_theta(x_n)` over the model and the set H of a share `1 - left_out` of the events: the
    weight of the others is set to zero before the step, so that no event is left out for good. With `EM` no step lowers
    that sum (a concentration step, then a step of EM).

    Args:
        left_out: the share of events that no step sees, from 0 to below 1: at least that of the anomalies.
        algorithm: what makes the steps, of a model with a density: `EM()`, `Gradient()`.

    Metrics: those of the algorithm, over the events that were kept.

    Source: Neykov, Filzmoser, Dimova and Neytchev (2007), Robust fitting of mixtures using the trimmed likelihood
    estimator; Rousseeuw and Van Driessen (1999), A fast algorithm for the minimum covariance determinant estimator.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1.0, 1.0, 90), jnp.full(10, 50.0)])[:, None]
        >>> start = jg.Gaussian.init(jax.random.key(0), x)
        >>> fitted = jg.fit(jax.random.key(1), start, x, Trimmed(0.1), steps=20)
        >>> abs(float(start.mean[0])) > 4, abs(float(fitted.model.mean[0])) < 0.1
        (True, True)
    """

    left_out: float
    algorithm: Any = EM()

    @property
    def traits(self):
        """Those of the algorithm; a step needs events, not sums over chunks of them."""
        return dataclasses.replace(self.algorithm.traits, summed=False)

    def init(self, key: Any, model: Any) -> Any:
        """The algorithm's own state.

        Raises:
            FitError: no share, or a model without a density.
        """
        called = f"Trimmed({self.left_out!r}).init(key, {type(model).__name__})"
        if not (isinstance(self.left_out, (int, float)) and 0 <= self.left_out < 1):
            raise FitError("a share of the events is left out", called=called, expected="from 0 to below 1",
                           got=repr(self.left_out), fix="dataclasses.replace(algorithm, left_out=0.1)")  # fmt: skip
        if not latent.has_density(model):
            raise FitError("which events are unlikely is not known", called=called, expected="a model with log_prob",
                           got=type(model).__name__)  # fmt: skip
        if not isinstance(self.algorithm, Algorithm):
            raise FitError("an algorithm makes the steps", called=called, expected="such as jaxgen.EM()",
                           got=type(self.algorithm).__name__)  # fmt: skip
        return self.algorithm.init(key, model)

    def step(self, key: Any, state: Any, batch: Batch) -> tuple[Any, dict[str, jax.Array]]:
        """One step of the algorithm on the events that are likely by the model of before."""
        return self.algorithm.step(key, state, self._kept(state.model, batch))

    def evaluate(self, key: Any, model: Any, batch: Batch) -> jax.Array:
        """The algorithm's score of the events that are likely."""
        return self.algorithm.evaluate(key, model, self._kept(model, batch))

    def for_steps(self, steps: int) -> Any:
        """The same, of the algorithm for so many steps."""
        inner = self.algorithm
        return dataclasses.replace(self, algorithm=inner.for_steps(steps) if isinstance(inner, Scheduled) else inner)

    def _kept(self, model: Any, batch: Batch) -> Batch:
        log_prob = jax.lax.stop_gradient(model.log_prob(batch.x, context=batch.context))
        weight = jnp.ones(batch.events, log_prob.dtype) if batch.weight is None else batch.weight
        order = jnp.argsort(-log_prob, stable=True)
        # events of weight zero count for nothing: the share is one of the weight
        below = jnp.cumsum(weight[order]) <= (1 - self.left_out) * jnp.sum(weight) * (1 + 1e-6)
        below = below.at[jnp.argmax(weight[order] > 0)].set(True)  # the likeliest stays, whatever the share
        return batch._replace(weight=weight * jnp.zeros_like(weight).at[order].set(below))
