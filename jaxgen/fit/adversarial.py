"""Adversarial training: a generator against a critic that tells its samples from data."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.protocols import Implicit, Traits
from jaxgen.core.pytree import combine, partition
from jaxgen.core.value import algorithm
from jaxgen.fit.gradient import averaged, descend
from jaxgen.losses import weighted_mean
from jaxgen.nn.net import Net


class AdversarialState(NamedTuple):
    """The state of `Adversarial`: both players, their optimisers' states, the step count, the generator's average."""

    generator: Any
    critic: Net
    generator_moments: Any
    critic_moments: Any
    steps: jax.Array
    average: Any

    @property
    def model(self) -> Any:
        """The average of the generators where one is kept, else the last."""
        return averaged(self.generator, self.average)


def default_optimizer() -> Any:
    """Adam with step size 1e-3 and decay rates 0 and 0.99.

    Source: momentum hurts two players; 0 and 0.99 are those of Karras et al. (2018), Progressive growing of GANs.
    """
    import optax

    return optax.adam(1e-3, b1=0.0, b2=0.99)


@algorithm
class Adversarial:
    """The non-saturating logistic game with zero-centred gradient penalties.

    The critic D minimises `mean s(-D(x)) + mean s(D(x')) + (penalty / 2) (mean |grad D(x)|^2 + mean |grad D(x')|^2)`
    and the generator `mean s(-D(x'))`, with `s(a) = log(1 + exp(a))`, data x and samples x'. The penalty on the data is
    known as R1, that on the samples as R2; with them the game converges locally, which without them it does not.

    Args:
        critic: a linen module, event to one number; its parameters live in the state. It sees `model.standardize(x)`
            where the model has that, so that the penalty does not depend on the units of the data.
        generator_optimizer: any optax transformation; None is Adam(1e-3) with decay rates 0 and 0.99.
        critic_optimizer: the same for the critic.
        penalty: weight of R1, per squared unit; larger is smoother, safer and slower.
        fake_penalty: weight of R2; None is that of R1, 0 saves a third of the critic's work.
        critic_steps: updates of the critic for one of the generator, each with new samples, on the batch of the step.
        average: decay of an exponential moving average of the generator, which is then the fitted model; None keeps
            none.

    Metrics: `generator_loss`, `critic_loss` without the penalties, which is 2 log 2 where the critic is at a loss;
    `penalty`, the penalties' sum; `real_logit` and `fake_logit`, mean outputs of the critic. None says how good the
    samples are: look at them, or compare statistics.

    Source: Goodfellow et al. (2014), Generative adversarial nets, for the losses; Mescheder, Geiger and Nowozin (2018),
    Which training methods for GANs do actually converge?, equation 9 for R1 and R2; Roth et al. (2017) for both
    together, Huang et al. (2024), The GAN is dead; long live the GAN!, for what that is worth.

    Example:
        >>> import jaxgen as jg
        >>> from jaxgen.nn.mlp import MLP
        >>> x = jg.data.eight_gaussians(jax.random.key(0), 1000)
        >>> start = jg.Generator.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> fitted = jg.fit(jax.random.key(2), start, x, Adversarial(MLP((16, 1))), steps=10)
        >>> sorted(fitted.history)
        ['critic_loss', 'fake_logit', 'generator_loss', 'penalty', 'real_logit']
    """

    critic: Any
    generator_optimizer: Any = None
    critic_optimizer: Any = None
    penalty: float = 1.0
    fake_penalty: float | None = None
    critic_steps: int = 1
    average: float | None = 0.999
    traits: ClassVar[Traits] = Traits("generator_loss", steps=10_000)

    def _optimizers(self) -> tuple[Any, Any]:
        given = (self.generator_optimizer, self.critic_optimizer)
        return tuple(default_optimizer() if one is None else one for one in given)  # type: ignore[return-value]

    def init(self, key: Any, model: Any) -> AdversarialState:
        """The state before the first step, with a critic drawn from the key.

        Raises:
            FitError: a model that cannot be sampled, takes a context or has a free length; a critic whose output is not
                one number an event; options out of range.
        """
        self._check(model)
        trained, _ = partition(model)
        dtype = jnp.result_type(*jax.tree.leaves(trained))
        critic = Net.init(key, self.critic, jnp.zeros(model.event_shape, dtype))
        event = jax.ShapeDtypeStruct((2, *model.event_shape), dtype)
        made = jax.eval_shape(critic, event).shape
        if made not in ((2,), (2, 1)):
            raise FitError(
                "the critic does not give one number an event", called="Adversarial(critic).init(key, model)",
                expected="[*batch, *event] -> [*batch] or [*batch, 1]", got=f"{list(event.shape)} -> {list(made)}",
                fix=f"jaxgen.nn.mlp.MLP((128, 1), in_shape={model.event_shape})",
            )  # fmt: skip
        for_generator, for_critic = self._optimizers()
        average = None if self.average is None else trained
        moments = for_generator.init(trained), for_critic.init(critic.params)
        return AdversarialState(model, critic, *moments, jnp.zeros((), jnp.int32), average)

    def _check(self, model: Any) -> None:
        name = type(model).__name__
        called = f"Adversarial(critic).init(key, {name})"
        event_shape = getattr(model, "event_shape", (None,))
        if not isinstance(model, Implicit) or None in event_shape or getattr(model, "context_shape", None) is not None:
            raise FitError(
                "the model is no generator", called=called, got=repr(model)[:300],
                expected="sample(key, shape) of events of one shape, without context",
            )  # fmt: skip
        if not jax.tree.leaves(partition(model)[0]):
            raise FitError(
                "the model has nothing to train", called=called, got=repr(model)[:300],
                expected="floating-point fields that are not fixed()",
            )  # fmt: skip
        weights = (self.penalty, 0.0 if self.fake_penalty is None else self.fake_penalty)
        decay = 0.0 if self.average is None else self.average
        if self.critic_steps < 1 or min(weights) < 0 or not 0 <= decay < 1:
            raise FitError(
                "an option of the game is out of range", called="Adversarial(...)",
                expected="penalties of 0 or more, critic_steps of 1 or more, average from 0 to 1 or None",
                got=f"penalties {weights}, critic_steps {self.critic_steps}, average {self.average}",
            )  # fmt: skip

    def step(self, key: Any, state: AdversarialState, batch: Batch) -> tuple[AdversarialState, dict[str, jax.Array]]:
        """`critic_steps` updates of the critic, then one of the generator."""
        if batch.context is not None:
            raise FitError(
                "adversarial training takes no context", called="Adversarial(critic).step",
                expected="data without context", got="a context",
            )  # fmt: skip
        keys = jax.random.split(key, self.critic_steps + 1)

        def improve(players: Any, key: Any) -> Any:
            critic, moments = players
            return self._critic_step(key, state.generator, critic, moments, batch)

        (critic, critic_moments), reports = jax.lax.scan(improve, (state.critic, state.critic_moments), keys[1:])
        trained, rest = partition(state.generator)

        def loss(trained: Any) -> jax.Array:
            generator = combine(trained, rest)
            fake = generator.sample(keys[0], (len(batch.x),))
            return jnp.mean(jax.nn.softplus(-_logits(critic, _seen(generator, fake))))

        generator_loss, gradient = jax.value_and_grad(loss)(trained)
        trained, moments, average = descend(
            self._optimizers()[0], gradient, state.generator_moments, trained, state.average, self.average, state.steps
        )
        new = AdversarialState(combine(trained, rest), critic, moments, critic_moments, state.steps + 1, average)
        last = jax.tree.map(lambda report: report[-1], reports)
        return new, {"generator_loss": generator_loss, **last}

    def _critic_step(self, key: Any, generator: Any, critic: Net, moments: Any, batch: Batch) -> Any:
        real = _seen(generator, batch.x)
        fake = jax.lax.stop_gradient(_seen(generator, generator.sample(key, (len(batch.x),))))
        fake_weight = self.penalty if self.fake_penalty is None else self.fake_penalty

        def loss(params: Any) -> Any:
            net = Net(params, critic.module)
            judged = _judge(net, real, fake, self.penalty, fake_weight)
            (real_logit, real_steepness), (fake_logit, fake_steepness) = judged
            game = weighted_mean(jax.nn.softplus(-real_logit), batch.weight) + jnp.mean(jax.nn.softplus(fake_logit))
            penalty = 0.5 * (
                self.penalty * weighted_mean(real_steepness, batch.weight) + fake_weight * jnp.mean(fake_steepness)
            )
            report = {
                "critic_loss": game, "penalty": penalty, "fake_logit": jnp.mean(fake_logit),
                "real_logit": weighted_mean(real_logit, batch.weight),
            }  # fmt: skip
            return game + penalty, report

        gradient, report = jax.grad(loss, has_aux=True)(critic.params)
        params, moments, _ = descend(self._optimizers()[1], gradient, moments, critic.params)
        return (Net(params, critic.module), moments), report


def steepness(critic: Any, x: jax.Array, weight: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """A critic's outputs and the squared norm of its gradient at each event, `[N]` both.

    `|grad_x D(x)|^2`; zeros, at no cost, where `weight` is 0.

    Example:
        >>> output, slope = steepness(lambda x: 3 * x[:, 0], jnp.ones((2, 5)))
        >>> output.tolist(), slope.tolist()
        ([3.0, 3.0], [9.0, 9.0])
    """
    if weight == 0:
        output = _logits(critic, x)
        return output, jnp.zeros_like(output)
    # an output depends on its own event only, so one backward pass serves the whole batch
    output, pull = jax.vjp(lambda x: _logits(critic, x), x)
    (gradient,) = pull(jnp.ones_like(output))
    return output, jnp.sum(jnp.square(gradient.reshape((len(x), -1))), axis=1)


def _judge(critic: Any, real: jax.Array, fake: jax.Array, real_weight: float, fake_weight: float) -> Any:
    """`steepness` of data and samples."""
    if real_weight == 0 or fake_weight == 0:
        return steepness(critic, real, real_weight), steepness(critic, fake, fake_weight)
    # together: half the program, and matrix products of twice the rows
    both = steepness(critic, jnp.concatenate([real, fake]))
    return tuple(zip(*(jnp.split(values, [len(real)]) for values in both), strict=True))


def _logits(critic: Any, x: jax.Array) -> jax.Array:
    return critic(x).reshape(len(x))


def _seen(generator: Any, x: Any) -> jax.Array:
    """Events as a critic sees them: in the model's units where it has some, in the model's floating type."""
    standardize = getattr(generator, "standardize", None)
    dtype = jnp.result_type(*jax.tree.leaves(partition(generator)[0]))
    return (x if standardize is None else standardize(x)).astype(dtype)
