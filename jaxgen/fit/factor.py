"""FactorVAE: a critic tells draws of the aggregate posterior from draws whose coordinates were shuffled."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.algorithms import Traits
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Inferring, has
from jaxgen.core.pytree import combine, float_type, is_model, partition
from jaxgen.core.value import algorithm
from jaxgen.fit.averages import Average
from jaxgen.fit.descent import Descent, Player, for_steps, resolved
from jaxgen.losses.bounds import at, check_weight, elbo
from jaxgen.nn.net import Net

#: steps of a fit, unless it is told
STEPS = 10_000


class FactorState(NamedTuple):
    """The state of `FactorVAE`: the model and the critic with their optimisers and averages, and the steps made."""

    player: Player
    critic: Player
    steps: jax.Array

    @property
    def model(self) -> Any:
        """The first average of the models where one is kept, else the last."""
        return self.player.model


def default_optimizer() -> Any:
    """Return Adam with step size 1e-3."""
    import optax

    return optax.adam(1e-3)


@algorithm
class FactorVAE:
    """Minus the ELBO, and the total correlation of the aggregate posterior by the ratio that a critic learned.

    The model minimises `-ELBO + gamma mean_n D(z_n)`, `z_n ~ q(z | x_n)`, where the critic's logit D tends to
    `log q(z) - sum_d log q(z_d)`: it tells such draws from the same with each coordinate shuffled over the batch, by
    `mean s(-D(z)) + mean s(D(shuffled z))`, `s(a) = log(1 + exp(a))`.

    Args:
        critic: latent to one number, a linen module or any model that is called as `critic(z)`, `[N, L] -> [N]` or
            `[N, 1]`.
        gamma: weight of the total correlation, a number or a function of the step.
        optimizer: any optax transformation; None is Adam(1e-3). Or a function of `steps`, as in `Gradient`.
        critic_optimizer: the same for the critic.
        average: an average of the model's iterates, as in `Gradient`; None keeps none.
        steps: how many `fit` makes at most unless it is told; None is 10,000.

    Metrics: `loss`, `elbo`, `distortion`, `rate`, `total_correlation` as the critic says, and `critic_loss`, which is
    2 log 2 where the critic is at a loss.

    Source: Kim and Mnih (2018), Disentangling by factorising.

    Example:
        >>> import jaxgen as jg
        >>> from jaxgen.nn.mlp import MLP
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 6))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> fitted = jg.fit(jax.random.key(2), vae, x, FactorVAE(MLP((16, 1))), steps=3)
        >>> sorted(fitted.history)
        ['critic_loss', 'distortion', 'elbo', 'loss', 'rate', 'total_correlation']
    """

    critic: Any
    gamma: Any = 6.0
    optimizer: Any = None
    critic_optimizer: Any = None
    average: Any = Average(0.999)
    steps: int | None = None

    @property
    def traits(self) -> Traits:
        """The facts about this algorithm that `fit` needs before the first step."""
        return Traits("loss", steps=STEPS if self.steps is None else self.steps)

    def for_steps(self, steps: int) -> FactorVAE:
        """Return the algorithm for that number of steps: with optimisers that were functions of it."""
        return for_steps(self, steps, "optimizer", "critic_optimizer")

    def _descents(self) -> tuple[Descent, Descent]:
        steps = STEPS if self.steps is None else self.steps
        given = (resolved(one, steps) for one in (self.optimizer, self.critic_optimizer))
        own, critic = (default_optimizer() if one is None else one for one in given)
        return Descent(own, self.average), Descent(critic)

    def init(self, key: Any, model: Any) -> FactorState:
        """Return the state before the first step, with a critic drawn from the key where that is a linen module.

        Raises:
            FitError: a model without the terms of its bound, or whose latent is no vector; a critic that does not give
                one number; a negative weight.
        """
        called = f"FactorVAE(critic).init(key, {type(model).__name__})"
        check_weight("FactorVAE", "gamma", self.gamma)
        shape = tuple(model.latent_shape) if has(model, Inferring) else ()
        if len(shape) != 1 or shape[0] is None:
            raise FitError(
                "the model has no latent vector", called=called, expected="a VAE whose prior has events [L]",
                got=f"{type(model).__name__} with latent_shape {shape}",
                fix="a model whose prior has vectors for its events",
            )  # fmt: skip
        dtype = float_type(partition(model)[0])
        critic = self.critic if is_model(self.critic) else Net.init(key, self.critic, jnp.zeros(shape, dtype))
        found = jax.eval_shape(critic, jax.ShapeDtypeStruct((2, *shape), dtype)).shape
        if found not in ((2,), (2, 1)):
            raise FitError(
                "the critic does not give one number a latent", called=called, expected="[N, L] -> [N] or [N, 1]",
                got=f"[2, {shape[0]}] -> {list(found)}", fix="jaxgen.nn.mlp.MLP((128, 1))",
            )  # fmt: skip
        own, other = self._descents()
        return FactorState(own.start(model, called), other.start(critic, called), jnp.zeros((), jnp.int32))

    def step(self, key: Any, state: FactorState, batch: Batch) -> tuple[FactorState, dict[str, jax.Array]]:
        """Return the state after one update of the model and one of the critic, and the metrics."""
        if batch.weight is not None:
            raise FitError(
                "weights would not be looked at", called="FactorVAE(critic).step(key, state, batch)", got="weights",
                expected="events without weights, whose coordinates are shuffled over the batch",
                fix="leave the weights out",
            )  # fmt: skip
        own, other = self._descents()
        bound_key, draw_key, shuffle_key = jax.random.split(key, 3)
        critic = state.critic.iterate
        trained, rest = partition(state.player.iterate)

        def loss(trained: Any) -> Any:
            model = combine(trained, rest)
            found = elbo()(bound_key, model, batch, state.steps)
            z = model.sample_posterior(draw_key, batch.x, context=batch.context)
            correlation = jnp.mean(critic(z).reshape(len(z)))
            value = found.value + at(self.gamma, state.steps) * correlation
            return value, (z, {"loss": value, "total_correlation": correlation, **found.metrics})

        gradient, (z, report) = jax.grad(loss, has_aux=True)(trained)
        columns = jax.vmap(jax.random.permutation, in_axes=(0, 1), out_axes=1)
        shuffled = columns(jax.random.split(shuffle_key, z.shape[1]), z)
        judged, fixed = partition(critic)

        def game(judged: Any) -> jax.Array:
            logits = [combine(judged, fixed)(a).reshape(len(z)) for a in (z, shuffled)]
            return jnp.mean(jax.nn.softplus(-logits[0])) + jnp.mean(jax.nn.softplus(logits[1]))

        lost, slope = jax.value_and_grad(game)(judged)
        player = own.descend(state.player, gradient, state.steps)
        after = FactorState(player, other.descend(state.critic, slope, state.steps), state.steps + 1)
        return after, report | {"critic_loss": lost}
