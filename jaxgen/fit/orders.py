"""Orders in which the two players of a game move: values, and anyone can write another.

An order is called `(key, turns, players, carried) -> (players, carried, report)` once a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from jaxgen.core.value import algorithm
from jaxgen.fit.descent import Player


class Players(NamedTuple):
    """A pair of values, one for each of the two players: models, gradients of their trained leaves, or `Player`s."""

    generator: Any
    critic: Any


class Turns(NamedTuple):
    """The moves of a game at one batch, from which an order makes a step.

    A way is a gradient and what comes with it; an order hands it on as it is.

    Args:
        generator: `(key, models, carried) -> (way, report)` at two models.
        critic: `(key, models, carried) -> (way, report, carried)`, and what the game carries on afterwards.
        descend_generator: `(player, way) -> player`.
        descend_critic: `(player, way) -> player`.
    """

    generator: Callable[..., Any]
    critic: Callable[..., Any]
    descend_generator: Callable[..., Player]
    descend_critic: Callable[..., Player]


@runtime_checkable
class Order(Protocol):
    """An order of moves, a frozen value that hashes by value."""

    def __call__(self, key: Any, turns: Turns, players: Players, carried: Any) -> tuple[Players, Any, dict[str, Any]]:
        """Return the players after one step, what the game carries on, and the metrics."""
        ...


@algorithm
class Alternating:
    """The critic moves some times, then the generator against the critic that came of it.

    Args:
        critic_steps: moves of the critic for one of the generator, each with new samples, on the batch of the step.

    Source: Goodfellow et al. (2014), Generative adversarial nets, algorithm 1.
    """

    critic_steps: int = 1

    def __call__(self, key: Any, turns: Turns, players: Players, carried: Any) -> tuple[Players, Any, dict[str, Any]]:
        keys = jax.random.split(key, self.critic_steps + 1)

        def improve(state: Any, key: Any) -> Any:
            critic, carried = state
            now = Players(players.generator.iterate, critic.iterate)
            way, report, carried = turns.critic(key, now, carried)
            return (turns.descend_critic(critic, way), carried), report

        (critic, carried), reports = jax.lax.scan(improve, (players.critic, carried), keys[1:])
        now = Players(players.generator.iterate, critic.iterate)
        way, report = turns.generator(keys[0], now, carried)
        last = jax.tree.map(lambda values: values[-1], reports)
        return Players(turns.descend_generator(players.generator, way), critic), carried, {**last, **report}


@algorithm
class Simultaneous:
    """Both players move at once, each against the other as it was.

    Source: Mescheder, Nowozin and Geiger (2017), The numerics of GANs, equation 3.
    """

    def __call__(self, key: Any, turns: Turns, players: Players, carried: Any) -> tuple[Players, Any, dict[str, Any]]:
        ways, after, report = _ways(key, turns, players, carried)
        return _moved(turns, players, ways), after, report


@algorithm
class Extragradient:
    """Both players move at once along the field that they would find after such a move.

    `w_1/2 = w - h F(w)`, `w' = w - h F(w_1/2)`. Both fields are of the same batch and noise, and an optimiser with
    moments sees both. Where the plain moves turn and leave, these come closer.

    Source: Korpelevich (1976), The extragradient method; Gidel, Berard, Vignoud, Vincent and Lacoste-Julien (2019), A
    variational inequality perspective on generative adversarial networks, algorithms 2 and 4.
    """

    def __call__(self, key: Any, turns: Turns, players: Players, carried: Any) -> tuple[Players, Any, dict[str, Any]]:
        ways, after, _ = _ways(key, turns, players, carried)
        ahead = _moved(turns, players, ways)
        # the same key: with other noise the second field would not be that of the game that the first one saw
        ways, after, report = _ways(key, turns, ahead, after)
        back = (dataclasses.replace(old, moments=new.moments) for old, new in zip(players, ahead, strict=True))
        return _moved(turns, Players(*back), ways), after, report


def _ways(key: Any, turns: Turns, players: Players, carried: Any) -> Any:
    """The ways of both players from where they are now."""
    keys, now = jax.random.split(key), Players(players.generator.iterate, players.critic.iterate)
    own, report = turns.generator(keys[0], now, carried)
    other, more, carried = turns.critic(keys[1], now, carried)
    return Players(own, other), carried, {**more, **report}


def _moved(turns: Turns, players: Players, ways: Players) -> Players:
    critic = turns.descend_critic(players.critic, ways.critic)
    return Players(turns.descend_generator(players.generator, ways.generator), critic)
