"""Adversarial training: a generator against a critic that tells its samples from data."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxgen.core.algorithms import Traits
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch
from jaxgen.core.mesh import apart, beside, spread
from jaxgen.core.methods import context_shape
from jaxgen.core.protocols import Implicit, Scaled, has
from jaxgen.core.pytree import combine, float_type, is_model, partition
from jaxgen.core.value import algorithm
from jaxgen.fit.averages import Average
from jaxgen.fit.descent import Descent, Player, for_steps, resolved
from jaxgen.losses import weighted_mean
from jaxgen.nn.net import Net

#: steps of a game, unless it is told
STEPS = 10_000


class MovingCritic(Protocol):
    """A critic with fixed fields that follow its inputs or its weights, such as the vectors of a spectral norm."""

    def moved(self, *inputs: Any) -> Any:
        """Return the critic with other fixed fields; it is called as the critic is, on the data of a step."""
        ...


class Players(NamedTuple):
    """A pair of values, one for each of the two players: models, or gradients of their trained leaves."""

    generator: Any
    critic: Any


class AdversarialState(NamedTuple):
    """The state of `Adversarial`: both players with their optimisers and averages, and the number of steps made."""

    generator: Player
    critic: Player
    steps: jax.Array

    @property
    def model(self) -> Any:
        """The first average of the generators where one is kept, else the last."""
        return self.generator.model


def default_optimizer() -> Any:
    """Return Adam with step size 1e-3 and decay rates 0 and 0.99.

    Source: momentum hurts two players; 0 and 0.99 are those of Karras et al. (2018), Progressive growing of GANs.
    """
    import optax

    return optax.adam(1e-3, b1=0.0, b2=0.99)


@algorithm
class Adversarial:
    """The non-saturating logistic game with zero-centred gradient penalties.

    The critic D minimises `mean s(-D(x)) + mean s(D(x')) + (penalty / 2) (mean |grad D(x)|^2 + mean |grad D(x')|^2)`
    and the generator `mean s(-D(x'))`, with `s(a) = log(1 + exp(a))`, data x and samples x'. The penalty on the data is
    known as R1, that on the samples as R2; with them the game converges locally, which without them it does not. With
    contexts c the critic sees `D(x, c)`, and each sample is drawn at the context of an event of the batch.

    Args:
        critic: event to one number, a linen module or any model that is called as `critic(x)`, `[N, *event] -> [N]` or
            `[N, 1]`, and `critic(x, context)` where there are contexts. It sees `model.standardize(x)` where the model
            has that, so that the penalty does not depend on the units of the data. Its fixed fields stay, unless it is
            a `MovingCritic`.
        generator_optimizer: any optax transformation; None is Adam(1e-3) with decay rates 0 and 0.99. Or a function of
            `steps`, as in `Gradient`.
        critic_optimizer: the same for the critic.
        penalty: weight of R1, per squared unit; larger is smoother, safer and slower.
        fake_penalty: weight of R2; None is that of R1, 0 saves a third of the critic's work.
        critic_steps: updates of the critic for one of the generator, each with new samples, on the batch of the step.
        average: an average of the generator's iterates, which is then the fitted model, or a dict of several, as in
            `Gradient`; None keeps none.
        steps: how many `fit` makes at most unless it is told; None is 10,000.

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
    average: Any = Average(0.999)
    steps: int | None = None

    @property
    def traits(self) -> Traits:
        """The facts about this algorithm that `fit` needs before the first step."""
        return Traits("generator_loss", steps=STEPS if self.steps is None else self.steps)

    def for_steps(self, steps: int) -> Adversarial:
        """Return the algorithm for that number of steps: with optimisers that were functions of it."""
        return for_steps(self, steps, "generator_optimizer", "critic_optimizer")

    def _descents(self) -> tuple[Descent, Descent]:
        steps = STEPS if self.steps is None else self.steps
        given = (resolved(one, steps) for one in (self.generator_optimizer, self.critic_optimizer))
        of_generator, of_critic = (default_optimizer() if one is None else one for one in given)
        return Descent(of_generator, self.average), Descent(of_critic)

    def init(self, key: Any, model: Any) -> AdversarialState:
        """Return the state before the first step, with a critic drawn from the key where that is a linen module.

        Raises:
            FitError: a model that cannot be sampled or has a free length; a critic whose output is not one number an
                event; options out of range.
        """
        called = f"Adversarial(critic).init(key, {type(model).__name__})"
        self._check(model, called)
        of_generator, of_critic = self._descents()
        generator = of_generator.start(model, called)
        dtype = float_type(partition(model)[0])
        context = context_shape(model)
        one = [jnp.zeros(shape, dtype) for shape in (model.event_shape, context) if shape is not None]
        critic = self.critic if is_model(self.critic) else Net.init(key, self.critic, *one)
        _check_critic(critic, [jax.ShapeDtypeStruct((2, *a.shape), dtype) for a in one], called)
        return AdversarialState(generator, of_critic.start(critic, called), jnp.zeros((), jnp.int32))

    def _check(self, model: Any, called: str) -> None:
        if not isinstance(model, Implicit) or None in model.event_shape:
            raise FitError(
                "the model is no generator", called=called, got=repr(model)[:300],
                expected="sample(key, shape) of events of one shape",
            )  # fmt: skip
        weights = (self.penalty, 0.0 if self.fake_penalty is None else self.fake_penalty)
        if self.critic_steps < 1 or min(weights) < 0:
            raise FitError(
                "an option of the game is out of range", called="Adversarial(...)",
                expected="penalties of 0 or more, critic_steps of 1 or more",
                got=f"penalties {weights}, critic_steps {self.critic_steps}",
            )  # fmt: skip

    def step(self, key: Any, state: AdversarialState, batch: Batch) -> tuple[AdversarialState, dict[str, jax.Array]]:
        """Return the state after `critic_steps` updates of the critic and one of the generator, and the metrics."""
        of_generator, of_critic = self._descents()
        keys = jax.random.split(key, self.critic_steps + 1)
        generator = state.generator.iterate

        def improve(critic: Player, key: Any) -> Any:
            gradient, report = self._critic_field(key, Players(generator, critic.iterate), batch)
            moved = None
            if has(critic.iterate, MovingCritic):
                moved = critic.iterate.moved(*_seen(generator, batch.x, batch.context))
            return of_critic.descend(critic, gradient, state.steps, moved), report

        critic, reports = jax.lax.scan(improve, state.critic, keys[1:])
        gradient, loss = self._generator_field(keys[0], Players(generator, critic.iterate), batch)
        last = jax.tree.map(lambda report: report[-1], reports)
        new = AdversarialState(of_generator.descend(state.generator, gradient, state.steps), critic, state.steps + 1)
        return new, {"generator_loss": loss, **last}

    def field(self, key: Any, players: Players, batch: Batch) -> Players:
        """Return the vector field of the game: the gradient of each player's loss in its own trained leaves.

        A pure function of both players, where they are now: the eigenvalues of its Jacobian, which are `jvp`s of it,
        tell whether the game turns, converges or diverges.

        Args:
            key: typed key of the samples.
            players: two models.
            batch: events.

        Returns:
            Gradients, trees of the players with None in place of what does not train.

        Example:
            >>> import jaxgen as jg
            >>> from jaxgen.nn.mlp import MLP
            >>> x = jg.data.eight_gaussians(jax.random.key(0), 100)
            >>> start = jg.Generator.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
            >>> critic = jg.Net.init(jax.random.key(2), MLP((16, 1)), (2,))
            >>> field = Adversarial(MLP((16, 1))).field(jax.random.key(3), Players(start, critic), jg.Batch(x))
            >>> field.critic.params["Dense_0"]["bias"].shape
            (16,)
        """
        keys = jax.random.split(key, self.critic_steps + 1)
        gradient, _ = self._generator_field(keys[0], players, batch)
        return Players(gradient, self._critic_field(keys[1], players, batch)[0])

    def _generator_field(self, key: Any, players: Players, batch: Batch) -> tuple[Any, jax.Array]:
        trained, rest = partition(players.generator)

        def loss(trained: Any) -> jax.Array:
            fake = _samples(key, combine(trained, rest), batch)
            return weighted_mean(jax.nn.softplus(-_logits(players.critic, *fake)), _fake_weight(batch))

        value, gradient = jax.value_and_grad(loss)(trained)
        return gradient, value

    def _critic_field(self, key: Any, players: Players, batch: Batch) -> tuple[Any, dict[str, jax.Array]]:
        real = _seen(players.generator, batch.x, batch.context)
        fake = _samples(key, players.generator, batch)  # no stopped gradient: the field has derivatives in both
        fake_penalty = self.penalty if self.fake_penalty is None else self.fake_penalty
        trained, rest = partition(players.critic)
        weight, fake_weight = batch.weight, _fake_weight(batch)

        def loss(trained: Any) -> Any:
            judged = _judge(combine(trained, rest), real, fake, self.penalty, fake_penalty)
            (real_logit, real_steepness), (fake_logit, fake_steepness) = judged
            game = weighted_mean(jax.nn.softplus(-real_logit), weight)
            game += weighted_mean(jax.nn.softplus(fake_logit), fake_weight)
            steep = self.penalty * weighted_mean(real_steepness, weight)
            penalty = 0.5 * (steep + fake_penalty * weighted_mean(fake_steepness, fake_weight))
            report = {
                "critic_loss": game, "penalty": penalty, "fake_logit": weighted_mean(fake_logit, fake_weight),
                "real_logit": weighted_mean(real_logit, weight),
            }  # fmt: skip
            return game + penalty, report

        return jax.grad(loss, has_aux=True)(trained)


def steepness(critic: Any, x: jax.Array, *context: jax.Array, weight: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Return a critic's outputs and the squared norm of its gradient at each event, `[N]` both.

    `|grad_x D(x)|^2`; zeros, at no cost, where `weight` is 0.

    Example:
        >>> output, slope = steepness(lambda x: 3 * x[:, 0], jnp.ones((2, 5)))
        >>> output.tolist(), slope.tolist()
        ([3.0, 3.0], [9.0, 9.0])
    """
    if weight == 0:
        output = _logits(critic, x, *context)
        return output, jnp.zeros_like(output)
    # an output depends on its own event only, so one backward pass serves the whole batch
    output, pull = jax.vjp(lambda x: _logits(critic, x, *context), x)
    (gradient,) = pull(jnp.ones_like(output))
    return output, jnp.sum(jnp.square(gradient.reshape((len(x), -1))), axis=1)


def _judge(critic: Any, real: Any, fake: Any, real_weight: float, fake_weight: float) -> Any:
    """`steepness` of data and samples, each an event and maybe a context."""
    if real_weight == 0 or fake_weight == 0:
        return steepness(critic, *real, weight=real_weight), steepness(critic, *fake, weight=fake_weight)
    # together: half the program, and matrix products of twice the rows
    both = steepness(critic, *(beside(*pair) for pair in zip(real, fake, strict=True)))
    return tuple(zip(*(apart(values, len(real[0])) for values in both), strict=True))


def _logits(critic: Any, x: jax.Array, *context: jax.Array) -> jax.Array:
    return critic(x, *context).reshape(len(x))


def _samples(key: Any, generator: Any, batch: Batch) -> tuple[jax.Array, ...]:
    """As many samples as the batch has events, each at the context of one, as a critic sees them."""
    x = spread(generator.sample(key, (len(batch.x),), context=batch.context))
    return _seen(generator, x, batch.context)


def _fake_weight(batch: Batch) -> Any:
    """Samples weigh the same, but at a context they weigh as much as the event that it came from."""
    return None if batch.context is None else batch.weight


def _seen(generator: Any, x: Any, context: Any) -> tuple[jax.Array, ...]:
    """Return a critic's arguments: events in the model's units and floating type, and contexts where there are any."""
    dtype = float_type(partition(generator)[0])
    given = {} if context is None else {"context": context}
    x = (generator.standardize(x, **given) if has(generator, Scaled) else x).astype(dtype)
    if context is None:
        return (x,)
    return x, context.astype(dtype) if jnp.issubdtype(context.dtype, jnp.floating) else context


def _check_critic(critic: Any, inputs: list[Any], called: str) -> None:
    """Refuses a critic that cannot be called, or does not give one number an event."""
    arguments = "critic(x)" if len(inputs) == 1 else "critic(x, context)"
    try:
        made = jax.eval_shape(lambda critic, *inputs: critic(*inputs), critic, *inputs).shape
    except TypeError as error:
        raise FitError(
            f"the critic cannot be called as {arguments}", called=called, got=str(error)[:200],
            expected=f"a model or a linen module that takes {arguments}",
        ) from None  # fmt: skip
    if made not in ((2,), (2, 1)):
        shapes = ", ".join(str(list(one.shape)) for one in inputs)
        raise FitError(
            "the critic does not give one number an event", called=called, got=f"{shapes} -> {list(made)}",
            expected="[*batch, *event] -> [*batch] or [*batch, 1]",
            fix=f"jaxgen.nn.mlp.MLP((128, 1), in_shape={inputs[0].shape[1:]})",
        )  # fmt: skip
