"""The parts that all training by gradients shares: a model in training with its optimiser and its averages."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.frozen import frozen_leaves, keep_frozen
from jaxgen.core.latent import parameter_scales
from jaxgen.core.pytree import combine, partition, registered
from jaxgen.core.value import algorithm
from jaxgen.fit.averages import named


@runtime_checkable
class Transformation(Protocol):
    """An optax transformation of gradients."""

    @property
    def init(self) -> Any:
        """`params -> state`."""
        ...

    @property
    def update(self) -> Any:
        """`(gradient, state, params) -> (update, state)`."""
        ...


@registered
@dataclasses.dataclass(frozen=True)
class Player:
    """A model in training.

    Args:
        iterate: the model after the last update.
        moments: the optimiser's state.
        scales: of its trained leaves where they have units, at the start; None for those that have none. The optimiser
            sees all parameters in these, so that its steps mean the same whatever the data were measured in.
        kept: the trained leaves of the averages, in their order.
        names: of the averages.
    """

    iterate: Any
    moments: Any
    scales: tuple[Any, ...]
    kept: tuple[Any, ...] = ()
    names: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

    @property
    def model(self) -> Any:
        """The first average of the iterates where one is kept, else the iterate."""
        return combine(self.kept[0], partition(self.iterate)[1]) if self.kept else self.iterate

    def per_scale(self, gradient: Any) -> Any:
        """A gradient in the trained leaves as one in their multiples of the scales."""
        return _each(jnp.multiply, gradient, self.scales)

    @property
    def averages(self) -> dict[str, Any]:
        """All averages by name, as models."""
        rest = partition(self.iterate)[1]
        return {name: combine(one, rest) for name, one in zip(self.names, self.kept, strict=True)}


@algorithm
class Descent:
    """One player's descent along gradients: `theta' = theta + update(gradient)`, and each average follows.

    Parameters with units, such as means, are descended in multiples of their scale at the start.

    Args:
        optimizer: an optax transformation.
        average: None, a value such as `Average(0.999)`, or a dict of several by name, of which the first is the fitted
            model.
        frozen: what stays as it is, `{path: True}`, `{path: bools}` or paths.

    Example:
        >>> import optax
        >>> descent = Descent(optax.sgd(0.5))
        >>> player = descent.start({"a": jnp.ones(2)}, "demo")
        >>> descent.descend(player, {"a": jnp.ones(2)}, 0).model["a"].tolist()
        [0.5, 0.5]
    """

    optimizer: Any
    average: Any = None
    frozen: Any = None

    def start(self, model: Any, called: str) -> Player:
        """Return the player before the first step.

        Raises:
            FitError: the model has nothing to train, or the options are none. ModelError: nothing to freeze.
        """
        if isinstance(self.optimizer, type) or not isinstance(self.optimizer, Transformation):
            raise FitError(
                "that is no optimiser", called=called, got=repr(self.optimizer)[:80],
                expected="an optax transformation, or a function of the number of `steps` that returns one",
                fix="jaxgen.Gradient(jaxgen.losses.nll, optax.adam(1e-3))",
            )  # fmt: skip
        averages = named(self.average, called)
        trained, _ = partition(model)
        if not jax.tree.leaves(trained):
            raise FitError(
                "the model has nothing to train", called=called, got=repr(model)[:300],
                expected="floating-point fields that are not fixed()",
            )  # fmt: skip
        if self.frozen:
            frozen_leaves(model, self.frozen)
        scales = parameter_scales(model)
        moments = self.optimizer.init(_each(jnp.divide, trained, scales))
        return Player(model, moments, scales, (trained,) * len(averages), tuple(averages))

    def descend(self, player: Player, gradient: Any, step: Any, moved: Any = None) -> Player:
        """Return the player after one update.

        Args:
            player: before it.
            gradient: of the trained leaves.
            step: updates made before this one, int32.
            moved: the model with other fixed leaves, which are carried on; None leaves them. Its trained leaves are
                ignored.
        """
        trained, rest = partition(player.iterate)
        scaled = _each(jnp.divide, trained, player.scales)
        updates, moments = self.optimizer.update(player.per_scale(gradient), player.moments, scaled)
        updates = _each(jnp.multiply, updates, player.scales)
        if moved is not None:
            rest = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), partition(moved)[1], rest)
        new = combine(apply_updates(trained, updates), rest)
        if self.frozen:
            new = keep_frozen(new, player.iterate, frozen_leaves(player.iterate, self.frozen))
        after = partition(new)[0]
        values = named(self.average, "Descent.descend").values()
        kept = tuple(_closer(one, after, value.rate(step)) for value, one in zip(values, player.kept, strict=True))
        return Player(new, moments, player.scales, kept, player.names)


def resolved(optimizer: Any, steps: int) -> Any:
    """Return the optimiser for a number of steps; one that does not depend on it as it is.

    Args:
        optimizer: an optax transformation, or a function of `steps` that returns one.
        steps: how many are made at most.

    Example:
        >>> import optax
        >>> falling = lambda steps: optax.sgd(optax.linear_schedule(0.1, 0.0, steps))
        >>> isinstance(resolved(falling, 100), Transformation), resolved("anything else", 100)
        (True, 'anything else')
    """
    if isinstance(optimizer, Transformation) or not callable(optimizer) or isinstance(optimizer, type):
        return optimizer
    try:
        takes = "steps" in inspect.signature(optimizer).parameters
    except (TypeError, ValueError):
        takes = False
    # by keyword: `optax.adam` without its step size is a function of a number as well, and would take it for one
    return optimizer(steps=steps) if takes else optimizer


def for_steps(algorithm: Any, steps: int, *optimizers: str) -> Any:
    """Return an algorithm for a number of steps: its optimisers that were functions of it are resolved.

    It is the same value where none was and it names no number itself, so that its programs serve every number.
    """
    found = {name: resolved(getattr(algorithm, name), steps) for name in optimizers}
    if algorithm.steps is None and all(one is getattr(algorithm, name) for name, one in found.items()):
        return algorithm
    return dataclasses.replace(algorithm, **found, steps=None)


def apply_updates(trained: Any, updates: Any) -> Any:
    """Return parameters plus updates, in the parameters' dtype."""
    return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), trained, updates)


def global_norm(tree: Any) -> jax.Array:
    """Return the Euclidean norm of all leaves together.

    Example:
        >>> float(global_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
        5.0
    """
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def _each(function: Any, tree: Any, scales: Any) -> Any:
    """A tree with `function(leaf, its scale)` in place of each leaf that has one."""
    leaves, structure = jax.tree.flatten(tree)
    pairs = zip(leaves, scales, strict=True)
    return jax.tree.unflatten(structure, [leaf if scale is None else function(leaf, scale) for leaf, scale in pairs])


def _closer(average: Any, new: Any, rate: Any) -> Any:
    return jax.tree.map(lambda a, p: (a + rate * (p - a)).astype(a.dtype), average, new)
