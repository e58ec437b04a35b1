"""Adversarial training: a generator against a critic that tells its samples from data."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.algebra import context_optional
from jaxgen.core.algorithms import Traits
from jaxgen.core.inputs import Batch
from jaxgen.core.methods import context_shape
from jaxgen.core.protocols import has
from jaxgen.core.pytree import combine, float_type, is_model, partition
from jaxgen.core.value import algorithm
from jaxgen.fit.augmentation import Adaptive
from jaxgen.fit.averages import Average
from jaxgen.fit.descent import Descent, Player, for_steps, global_norm, resolved
from jaxgen.fit.game_checks import check_critic, check_names, check_options, check_reach
from jaxgen.fit.orders import Alternating, Order, Players, Turns
from jaxgen.fit.sides import Compared, Samples, Sides
from jaxgen.losses.base import LossFunction, measured, weighted_mean
from jaxgen.losses.critics import R1, R2, Penalty, penalised
from jaxgen.losses.games import Game, NonSaturating, margins
from jaxgen.nn.net import Net

#: steps of a game, unless it is told
STEPS = 10_000
#: of samples to data: a ratio of standard deviations below which, at the end, a game has collapsed, and above which it
#: has diverged; and the size of a critic's outputs above which it has, where every probability is 0 or 1
COLLAPSED, ESCAPED, SATURATED = 0.1, 1e3, 1e4
#: last steps of a fit that a warning of collapse looks at
LAST = 100


class MovingCritic(Protocol):
    """A critic with fixed fields that follow its inputs or its weights, such as the vectors of a spectral norm."""

    def moved(self, *inputs: Any) -> Any:
        """Return the critic with other fixed fields; it is called as the critic is, on the data of a step."""
        ...


class Carried(NamedTuple):
    """The numbers that a game carries from one update of the critic to the next.

    Args:
        updates: of the critic so far, int32.
        memories: of the penalties, in their order.
        probability: of each change of an image, where that adapts; else 1.
    """

    updates: jax.Array
    memories: tuple[Any, ...]
    probability: jax.Array


class AdversarialState(NamedTuple):
    """The state of `Adversarial`: both players with their optimisers and averages, and the number of steps made."""

    generator: Player
    critic: Player
    carried: Carried
    steps: jax.Array

    @property
    def model(self) -> Any:
        """The first average of the generators where one is kept, else the last."""
        return self.generator.model

    @property
    def players(self) -> Players:
        """Both models as they are now."""
        return Players(self.generator.iterate, self.critic.iterate)


def default_optimizer() -> Any:
    """Return Adam with step size 1e-3 and decay rates 0 and 0.99.

    Source: momentum hurts two players; 0 and 0.99 are those of Karras et al. (2018), Progressive growing of GANs.
    """
    import optax

    return optax.adam(1e-3, b1=0.0, b2=0.99)


@algorithm
class Adversarial:
    """A game of a model, which draws samples, against a critic, which tells them from data.

    The critic D minimises `game.critic(D(x), D(x'))` plus the penalties, and the model `game.generator(D(x), D(x'))`,
    with data x and samples x'. By default that is the non-saturating logistic game with zero-centred gradient penalties
    on data and samples; with them the game converges locally, which without them it does not. With contexts c the
    critic sees `D(x, c)`, and each sample is drawn at the context of an event of the batch.

    Any model trains whose samples are differentiable in its parameters: a `Generator`, a flow, a `VAE` (by the mean
    events of draws of its prior).

    Args:
        critic: event to one number, a linen module or any model that is called as `critic(x)`, `[N, *event] -> [N]` or
            `[N, 1]`, and `critic(x, context)` where there are contexts. It sees `model.standardize(x)` where the model
            has that, so that a penalty does not depend on the units of the data. Its fixed fields stay, unless it is a
            `MovingCritic`, such as `nn.Spectral`.
        generator_optimizer: any optax transformation; None is Adam(1e-3) with decay rates 0 and 0.99. Or a function of
            `steps`, as in `Gradient`. Step sizes of the two may differ (two time scales), and
            `optax.optimistic_gradient_descent` is the optimistic gradient.
        critic_optimizer: the same for the critic.
        game: two losses, such as `games.Relativistic()`, or your own.
        penalties: such as `games.R1(1.0)`, added to the critic's loss.
        order: of moves, `Alternating(critic_steps)`, `Simultaneous()` or `Extragradient()` of `games`.
        augment: `(key, x) -> x`, changes of what the critic sees on both sides, such as `ops.augment.augmented`, or
            `games.Adaptive(...)`; None for none.
        sides: what the critic compares, of `games`: `Samples()`, `Latents()` (an adversarial autoencoder) or
            `Pairs()` (a bidirectional network).
        also: a loss `(key, model, batch, step)` that the model descends besides the game, such as `losses.elbo()`,
            which makes of a `VAE` the network of Larsen et al. (2016), with the error of pixels; None for none.
        also_weight: what that is multiplied with.
        average: an average of the generator's iterates, which is then the fitted model, or a dict of several, as in
            `Gradient`; None keeps none.
        steps: how many `fit` makes at most unless it is told; None is 10,000.

    Metrics: `generator_loss` and `critic_loss` of the game alone; `penalty`, the penalties' sum; `real_logit` and
    `fake_logit`, mean outputs of the critic; `critic_accuracy`, the share of data and samples taken for what they are
    (of pairs ranked right, in a game of differences), and `critic_confidence`, what a critic whose outputs are log-odds
    expects that to be: they agree where it is calibrated; `generator_gradient` and `critic_gradient`, norms; `spread`,
    the standard deviation of samples over that of data, far below 1 where samples collapse; with `Adaptive` its
    `augmentation` and `overfitting`; with `also` its metrics. None says how good the samples are: look at them, or
    compare statistics.

    A step after which samples or outputs of the critic have left all bounds ends the fit with `Status.DIVERGED`; a fit
    that ends with a spread below 0.1 warns.

    Source: Goodfellow et al. (2014), Generative adversarial nets, for the losses; Mescheder, Geiger and Nowozin (2018),
    Which training methods for GANs do actually converge?, equation 9 for R1 and R2; Roth et al. (2017) for both
    together, Huang et al. (2024), The GAN is dead; long live the GAN!, for what that is worth.

    Example:
        >>> import jaxgen as jg
        >>> from jaxgen.nn.mlp import MLP
        >>> x = jg.data.eight_gaussians(jax.random.key(0), 1000)
        >>> start = jg.Generator.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(16,))
        >>> game = Adversarial(MLP((16, 1)), game=jg.games.Relativistic())
        >>> fitted = jg.fit(jax.random.key(2), start, x, game, steps=10)
        >>> fitted.status.name, fitted.history["spread"].shape
        ('FINISHED', (10,))
    """

    critic: Any
    generator_optimizer: Any = None
    critic_optimizer: Any = None
    game: Game = NonSaturating()
    penalties: tuple[Penalty, ...] = (R1(1.0), R2(1.0))
    order: Order = Alternating()
    augment: Any = None
    sides: Compared = Samples()
    also: LossFunction | None = None
    also_weight: float = 1.0
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
            FitError: a model that cannot be sampled, has a free length, or whose samples have no gradient in anything
                that trains; a critic whose output is not one number an event; options that are none.
        """
        called = f"Adversarial(critic).init(key, {type(model).__name__})"
        check_options(self.game, self.penalties, self.order, self.augment, self.sides, self.also)
        self.sides.check(model, called)
        of_generator, of_critic = self._descents()
        generator = of_generator.start(model, called)
        inputs = self._inputs(model)
        check_reach(self.sides, model, self._example(model), called)
        zeros = [jnp.zeros(one.shape[1:], one.dtype) for one in inputs]
        critic = self.critic if is_model(self.critic) else Net.init(key, self.critic, *zeros)
        check_critic(critic, inputs, called)
        return AdversarialState(generator, of_critic.start(critic, called), self.start(), jnp.zeros((), jnp.int32))

    def start(self) -> Carried:
        """Return what the game carries before the first step."""
        adapts = isinstance(self.augment, Adaptive)
        memories = tuple(penalty.start() for penalty in self.penalties)
        return Carried(jnp.zeros((), jnp.int32), memories, jnp.float32(0.0 if adapts else 1.0))

    def _example(self, model: Any) -> Batch:
        """A batch of two events in the abstract."""
        dtype = float_type(partition(model)[0])
        shapes = [None if shape is None else (2, *shape) for shape in (model.event_shape, context_shape(model))]
        return Batch(*(None if shape is None else jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))

    def _inputs(self, model: Any) -> tuple[Any, ...]:
        """Return what a critic is called with, in the abstract, of two events."""
        return jax.eval_shape(self.sides, jax.random.key(0), model, self._example(model)).real

    def step(self, key: Any, state: AdversarialState, batch: Batch) -> tuple[AdversarialState, dict[str, jax.Array]]:
        """Return the state after the moves of one step, in their order, and the metrics."""
        of_generator, of_critic = self._descents()
        batch = told(state.generator.iterate, batch)

        def generator(key: Any, now: Players, carried: Carried) -> Any:
            gradient, report, moved = self._generator_field(key, now, batch, carried, state.steps)
            norm = global_norm(state.generator.per_scale(gradient))
            return (gradient, moved), {**report, "generator_gradient": norm}

        def critic(key: Any, now: Players, carried: Carried) -> Any:
            gradient, report, (moved, after) = self._critic_field(key, now, batch, carried)
            return (gradient, moved), {**report, "critic_gradient": global_norm(gradient)}, after

        turns = Turns(
            generator, critic,
            lambda player, way: of_generator.descend(player, way[0], state.steps, way[1]),
            lambda player, way: of_critic.descend(player, way[0], state.steps, way[1]),
        )  # fmt: skip
        players, carried, report = self.order(key, turns, Players(state.generator, state.critic), state.carried)
        return AdversarialState(*players, carried, state.steps + 1), report

    def field(self, key: Any, players: Players, batch: Batch, carried: Carried | None = None) -> Players:
        """Return the vector field of the game: the gradient of each player's loss in its own trained leaves.

        A pure function of both players, where they are now: the eigenvalues of its Jacobian, which are `jvp`s of it,
        tell whether the game turns, converges or diverges; `metrics.spectrum` has those of whole steps.

        Args:
            key: typed key of the samples.
            players: two models.
            batch: events.
            carried: of a state; None is that before the first step.

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
        keys, batch = jax.random.split(key), told(players.generator, batch)
        carried = self.start() if carried is None else carried
        own = self._generator_field(keys[0], players, batch, carried, jnp.zeros((), jnp.int32))[0]
        return Players(own, self._critic_field(keys[1], players, batch, carried)[0])

    def review(self, history: dict[str, np.ndarray]) -> str:
        """Return what went wrong in a fit, in words; empty where nothing did."""
        if history["diverged"][-1]:
            return "the game diverged: samples or outputs of the critic left all bounds; try larger penalties"
        spread = history["spread"][-LAST:].mean()
        if spread < COLLAPSED:
            return (
                f"the samples have collapsed: over the last steps their standard deviation was {spread:.2g} of the "
                "data's; try games.Relativistic(), other penalties, or smaller steps"
            )
        return ""

    def _generator_field(self, key: Any, players: Players, batch: Batch, carried: Carried, step: Any) -> Any:
        """The gradient of the generator's loss, metrics, and the model with other fixed fields or None."""
        side_key, change_key, also_key = jax.random.split(key, 3)
        trained, rest = partition(players.generator)

        def loss(trained: Any) -> Any:
            model = combine(trained, rest)
            sides = self._changed(change_key, self.sides(side_key, model, batch), carried)
            real, fake = (logits(players.critic, *inputs) for inputs in (sides.real, sides.fake))
            value = self.game.generator(real, fake, sides.real_weight, sides.fake_weight)
            if self.sides.both:  # its outputs on the side of the data are to be taken for those of samples
                value += self.game.generator(-fake, -real, sides.fake_weight, sides.real_weight)
            if self.also is None:
                return value, ({"generator_loss": value}, None)
            found = measured(self.also, also_key, model, batch, step)
            check_names(found.metrics)
            report = {**found.metrics, "generator_loss": value}
            return value + self.also_weight * found.value, (report, found.moved)

        gradient, (report, moved) = jax.grad(loss, has_aux=True)(trained)
        return gradient, report, moved

    def _critic_field(self, key: Any, players: Players, batch: Batch, carried: Carried) -> Any:
        """The gradient of the critic's loss, metrics, and the critic with other fixed fields and what is carried on."""
        side_key, change_key, penalty_key = jax.random.split(key, 3)
        # no stopped gradient: the field has derivatives in both
        shown = self.sides(side_key, players.generator, batch)
        sides = self._changed(change_key, shown, carried)
        trained, rest = partition(players.critic)
        weights = (sides.real_weight, sides.fake_weight)

        def loss(trained: Any) -> Any:
            critic = combine(trained, rest)
            judged, penalty, memories = penalised(
                penalty_key, lambda *inputs: logits(critic, *inputs), sides.real, sides.fake, self.penalties,
                carried.memories, carried.updates, *weights,
            )  # fmt: skip
            game = self.game.critic(judged.real_logit, judged.fake_logit, *weights)
            return game + penalty, (judged.real_logit, judged.fake_logit, game, penalty, memories)

        gradient, (real, fake, game, penalty, memories) = jax.grad(loss, has_aux=True)(trained)
        edges = margins(self.game, real, fake)
        over_both = lambda score: 0.5 * sum(  # noqa: E731
            weighted_mean(score(edge), weight) for edge, weight in zip(edges, weights, strict=True)
        )
        spread = relative_spread(shown)
        report = {
            "critic_loss": game, "penalty": penalty, "spread": spread,
            "real_logit": weighted_mean(real, weights[0]), "fake_logit": weighted_mean(fake, weights[1]),
            "critic_accuracy": over_both(lambda edge: 0.5 + 0.5 * jnp.sign(edge)),
            "critic_confidence": over_both(lambda edge: jax.nn.sigmoid(jnp.abs(edge))),
            "diverged": (spread > ESCAPED) | (over_both(jnp.abs) > SATURATED),
        }  # fmt: skip
        probability = carried.probability
        if isinstance(self.augment, Adaptive):
            overfitting = weighted_mean(jnp.sign(edges[0]), weights[0])
            report |= {"augmentation": probability, "overfitting": overfitting}
            probability = self.augment.adapted(probability, overfitting, len(real))
        moved = players.critic.moved(*sides.real) if has(players.critic, MovingCritic) else None
        return gradient, report, (moved, Carried(carried.updates + 1, memories, probability))

    def _changed(self, key: Any, sides: Sides, carried: Carried) -> Sides:
        """The sides after the changes of images."""
        if self.augment is None:
            return sides
        more = (carried.probability,) if isinstance(self.augment, Adaptive) else ()
        change = lambda key, inputs: (self.augment(key, inputs[0], *more), *inputs[1:])  # noqa: E731
        keys = jax.random.split(key)
        return sides._replace(real=change(keys[0], sides.real), fake=change(keys[1], sides.fake))


def told(model: Any, batch: Batch) -> Batch:
    """Return a batch with a row of NaN for each context, where all are absent."""
    if batch.context is not None or not context_optional(model):
        return batch
    shape = (batch.events, *context_shape(model))  # type: ignore[misc]
    return batch._replace(context=jnp.full(shape, jnp.nan, float_type(partition(model)[0])))


def logits(critic: Any, x: jax.Array, *context: jax.Array) -> jax.Array:
    """Return a critic's outputs, `[N]`."""
    return critic(x, *context).reshape(len(x))


def relative_spread(sides: Sides) -> jax.Array:
    """Return the standard deviation of samples, over all coordinates, as a multiple of that of data; 1 where these are
    all the same."""

    def scatter(x: jax.Array, weight: Any) -> jax.Array:
        # of pairs, whose differences need no mean: what devices share is added once
        pairs = len(x) // 2
        flat = x[: 2 * pairs].reshape((pairs, 2, -1))
        square = jnp.sum(jnp.square(flat[:, 0] - flat[:, 1]), axis=1)
        both = jnp.ones(pairs, x.dtype) if weight is None else jnp.prod(weight[: 2 * pairs].reshape((pairs, 2)), axis=1)
        total = jnp.sum(both)
        return jnp.sum(jnp.where(both > 0, both * square, 0)) / jnp.where(total > 0, total, 1)

    data, samples = scatter(sides.real[0], sides.real_weight), scatter(sides.fake[0], sides.fake_weight)
    varied = data > 0
    return jnp.where(varied, jnp.sqrt(samples / jnp.where(varied, data, 1)), 1)
