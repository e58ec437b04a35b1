"""Checks that a game makes before its first step: of its options, its critic, and the way from model to samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters import partial_eval

from jaxgen.core.errors import FitError
from jaxgen.core.pytree import combine, partition
from jaxgen.fit.augmentation import Adaptive
from jaxgen.fit.orders import Alternating, Order
from jaxgen.fit.sides import Compared
from jaxgen.losses.base import check_loss
from jaxgen.losses.critics import R1, R2, Consistency, Interpolated, LeCam, Penalty
from jaxgen.losses.games import Game

#: metrics of every game
OWN = {
    "generator_loss", "critic_loss", "penalty", "real_logit", "fake_logit", "critic_accuracy", "critic_confidence",
    "generator_gradient", "critic_gradient", "spread", "diverged", "augmentation", "overfitting",
}  # fmt: skip


def check_options(game: Any, penalties: Any, order: Any, augment: Any, sides: Any, also: Any) -> None:
    """Refuse options of `Adversarial` that are none.

    Raises:
        FitError: which, and what is wanted.

    Example:
        >>> from jaxgen.fit.sides import Samples
        >>> from jaxgen.losses.games import Hinge
        >>> check_options(Hinge(), (R1(1.0),), Alternating(), None, Samples(), None)
    """
    for name, value, kind, fix in (
        ("game", game, Game, "game = jaxgen.losses.games.NonSaturating()"),
        ("order", order, Order, "order = jaxgen.fit.orders.Alternating()"),
        ("sides", sides, Compared, "sides = jaxgen.fit.sides.Samples()"),
    ):
        if isinstance(value, type) or not isinstance(value, kind):
            raise FitError(
                f"that is no {name} of a game", called=f"Adversarial(critic, {name}=...)", got=repr(value)[:80],
                expected=f"a value with the members of jaxgen.games.{kind.__name__}", fix=fix,
            )  # fmt: skip
    if isinstance(order, Alternating) and order.critic_steps < 1:
        raise FitError(
            "an order without moves of the critic", called="Alternating(critic_steps)", got=str(order.critic_steps),
            expected="critic_steps of 1 or more", fix="order = jaxgen.games.Alternating(1)",
        )  # fmt: skip
    if not isinstance(penalties, tuple):
        raise FitError(
            "penalties are a tuple of values", called="Adversarial(critic, penalties=...)", got=repr(penalties)[:80],
            expected="such as (R1(1.0), R2(1.0)) of jaxgen.games; () for none",
            fix="penalties = (jaxgen.games.R1(1.0), jaxgen.games.R2(1.0))",
        )  # fmt: skip
    for penalty in penalties:
        _check_penalty(penalty)
    if augment is not None and (isinstance(augment, type) or not callable(augment)):
        raise FitError(
            "that changes no images", called="Adversarial(critic, augment=...)", got=repr(augment)[:80],
            expected="a function (key, x) -> x, or Adaptive(...)", fix="augment = jaxgen.ops.augment.augmented",
        )  # fmt: skip
    if isinstance(augment, Adaptive) and not augment.pace > 0:
        raise FitError(
            "changes that adapt need a pace", called="Adversarial(critic, augment=Adaptive(...))",
            expected="pace above 0, of events", got=f"{augment.pace}",
        )  # fmt: skip
    if also is not None:
        check_loss(also, "Adversarial(critic, also=...)")


def check_names(metrics: dict[str, Any]) -> None:
    """Refuse metrics of a further loss that have names of the game's own."""
    if taken := metrics.keys() & OWN:
        raise FitError(
            "a metric of the loss has a name of the game's", called="Adversarial(critic, also=loss)",
            got=str(sorted(taken)), expected=f"other names than {sorted(OWN)}", fix="rename it",
        )  # fmt: skip


def _check_penalty(penalty: Any) -> None:
    known = isinstance(penalty, Penalty) and not isinstance(penalty, type)
    ours = isinstance(penalty, (R1, R2, Interpolated, LeCam, Consistency))
    remembers = not isinstance(penalty, LeCam) or 0 <= penalty.decay < 1
    if known and penalty.every >= 1 and (not ours or penalty.weight >= 0) and remembers:
        return
    raise FitError(
        "an option of the game is out of range" if known else "that is no penalty of a critic",
        called="Adversarial(critic, penalties=...)", got=repr(penalty)[:80],
        expected="penalties of jaxgen.games, weights of 0 or more, every of 1 or more, a decay from 0 to below 1",
        fix="penalties = (jaxgen.games.R1(1.0), jaxgen.games.R2(1.0))",
    )  # fmt: skip


def check_critic(critic: Any, inputs: tuple[Any, ...], called: str) -> None:
    """Refuse a critic that cannot be called on such inputs, or does not give one number an event."""
    arguments = "critic(x)" if len(inputs) == 1 else "critic(x, context)"
    try:
        made = jax.eval_shape(lambda critic, *inputs: critic(*inputs), critic, *inputs).shape
    except (TypeError, ValueError) as error:
        if isinstance(error, FitError):
            raise
        shapes = ", ".join(str(list(one.shape)) for one in inputs)
        raise FitError(
            f"the critic cannot be called as {arguments}", called=called, got=str(error)[:200],
            expected=f"a model or a linen module that takes {arguments} of shapes {shapes}",
        ) from None  # fmt: skip
    if made not in ((2,), (2, 1)):
        shapes = ", ".join(str(list(one.shape)) for one in inputs)
        raise FitError(
            "the critic does not give one number an event", called=called, got=f"{shapes} -> {list(made)}",
            expected="[*batch, *event] -> [*batch] or [*batch, 1]",
            fix=f"jaxgen.nn.mlp.MLP((128, 1), in_shape={inputs[0].shape[1:]})",
        )  # fmt: skip


def check_reach(sides: Callable[..., Any], model: Any, batch: Any, called: str) -> None:
    """Refuse a model of which nothing that trains is reached by a gradient from what the critic sees.

    Draws of bits, labels and counts have no gradient in their probabilities: a fit would go on, and nothing would move.

    Args:
        sides: `(key, model, batch) -> Sides`.
        model: to be trained.
        batch: of two events, in the abstract.
        called: what an error names.

    Raises:
        FitError: nothing is reached.
    """
    trained, rest = partition(model)

    def tangent(trained: Any, tangents: Any, batch: Any) -> Any:
        def shown(trained: Any) -> Any:
            found = sides(jax.random.key(0), combine(trained, rest), batch)
            return found.real, found.fake

        return jax.jvp(shown, (trained,), (tangents,))[1]

    count = len(jax.tree.leaves(trained))
    traced = jax.make_jaxpr(tangent)(trained, trained, batch).jaxpr
    # what tangents the outputs depend on, seen from the program alone: nothing is run
    used = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))[1]
    if not any(used[count : 2 * count]):
        raise FitError(
            "the samples have no gradient in anything that trains", called=called, got=repr(model)[:300],
            expected="samples that are differentiable in the model's parameters, as those of a network of noise are; "
            "draws of bits, labels, counts and hidden states are not",
            fix="a relaxed likelihood or emission, such as a Gaussian, or an algorithm for likelihoods",
        )  # fmt: skip
