"""The loss of variational inference: draws of a model against a density known up to a constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxgen.core import algebra
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.pytree import combine, partition
from jaxgen.core.value import algorithm
from jaxgen.losses.base import HasLogProb, check_model, check_unlabelled, weighted_mean


@algorithm
class ReverseKL:
    """The reverse KL divergence as a loss, from the model's own draws alone; `reverse_kl` makes it."""

    log_density: Callable[..., Any]
    draws: int = 256
    path_gradient: bool = False
    #: `fit(key, model, None, Gradient(loss))` needs no data
    data: ClassVar[bool] = False

    def __call__(self, key: Any, model: Any, batch: Batch, step: Any = 0) -> jax.Array:
        """`mean_s (log q(x_s) - log p~(x_s))`, nats."""
        check_model(
            "reverse_kl", model, HasLogProb, "log_prob", "a Density with samples that can be differentiated: a flow"
        )
        check_unlabelled("reverse_kl", batch)
        trained, rest = partition(model)
        held = combine(jax.lax.stop_gradient(trained), rest)

        def term(key: Any, context: Any) -> jax.Array:
            x, log_q = algebra.sample_and_log_prob(model, key, context)
            if self.path_gradient:
                log_q = held.log_prob(x, context=context)
            target = self.log_density(x) if context is None else self.log_density(x, context)
            return log_q - target

        if batch.context is None:
            return jnp.mean(jax.vmap(lambda key: term(key, None))(jax.random.split(key, self.draws)))
        keys = jax.random.split(key, batch.events)
        return weighted_mean(jax.vmap(term)(keys, batch.context), batch.weight)


def reverse_kl(log_density: Callable[..., Any], *, draws: int = 256, path_gradient: bool = False) -> ReverseKL:
    """The loss of variational inference: a density q is fitted to one that is known up to a constant.

    `KL(q || p) - log Z = E_q [log q(x) - log p~(x)]`, whose negative is a lower bound of `log Z`

    Gradients pass through the draws, so q's must be differentiable: those of a flow on a Gaussian are. The reverse
    divergence seeks a mode and forgives missing others; `metrics.importance` says how good the fit is. The forward
    divergence, from data, is `nll`.

    Args:
        log_density: `x [*event] -> log p~(x)`, of one event, nats; with a conditional q `(x, context) -> ...`, and the
            contexts are the data: `fit(key, q, (x of any values, contexts), ...)`, one draw for each.
        draws: per step, without contexts.
        path_gradient: leaves out the part of the gradient that is zero in the mean. Its noise vanishes as q comes close
            to p; each draw costs a way back through the layers.

    Raises:
        FitError: no draws, or a density that is no function.

    Source: Rezende and Mohamed (2015), Variational inference with normalizing flows; Roeder, Wu and Duvenaud (2017),
    Sticking the landing, for the path gradient.

    Example:
        >>> import jaxgen as jg, optax
        >>> from jaxgen.bijections import Affine
        >>> q = jg.Flow(jg.StandardNormal((1,)), Affine(jnp.zeros(1), jnp.zeros(1)))
        >>> loss = reverse_kl(lambda x: -0.5 * jnp.sum((x - 3.0) ** 2), path_gradient=True)
        >>> fitted = jg.fit(jax.random.key(0), q, None, jg.Gradient(loss, optax.adam(0.1)), steps=200)
        >>> fitted.model.bijection.shift.round(1).tolist(), round(-float(fitted.history["loss"][-1]), 3)
        ([3.0], 0.919)
    """
    if not callable(log_density) or draws < 1:
        raise FitError(
            "the target is a function, and the loss needs draws", called="losses.reverse_kl(log_density, draws=...)",
            expected="x -> log density, draws of 1 or more", got=f"{str(log_density)[:60]}, draws={draws}",
        )  # fmt: skip
    return ReverseKL(log_density, draws, path_gradient)
