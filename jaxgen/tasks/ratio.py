"""The ratio of two densities, from draws of both: a critic learns to tell them apart."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError, FitError
from jaxgen.core.inputs import Batch, as_array
from jaxgen.core.methods import check_key, context_shape, is_count, per_batch
from jaxgen.core.protocols import Implicit, has
from jaxgen.core.pytree import dtype_of, fixed, is_model, model, static
from jaxgen.core.scores import plus_minus
from jaxgen.core.value import algorithm
from jaxgen.fit.averages import PowerAverage
from jaxgen.fit.driver import fit
from jaxgen.fit.game_checks import check_critic
from jaxgen.fit.gradient import Gradient
from jaxgen.losses.games import Minimax
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops.scaling import mean_and_scale, standardize

#: draws of each side in a step
BATCH = 512
#: the share of an array that estimates are made on, and that training does not see
HELD = 0.25


@model
class Ratio:
    """The ratio of two densities as a critic knows it, and the divergences that follow, with their standard errors.

    `log_ratio(x) = log p(x) - log q(x)`, up to what the critic did not learn. Estimates are means over draws that
    training has not seen, in nats. `jsd` is a lower bound in the mean; `kl` and `reverse_kl` are the plain means of
    `log_ratio`, and no bounds.

    Args:
        critic: event in units of the scaling to one number.
        scaling: center and scale of both sides together.
        event_shape: shape of one event.
        jsd: the Jensen-Shannon divergence, 0 to log 2, and its standard error.
        kl: `KL(p || q)`, and its standard error.
        reverse_kl: `KL(q || p)`, and its standard error.
        accuracy: the share of draws that are told rightly, and its standard error.
        sides: what it is trained on, while it is.
    """

    critic: Any
    scaling: Any = fixed()
    event_shape: tuple[int, ...] = static()
    jsd: Any = fixed(default=None)
    kl: Any = fixed(default=None)
    reverse_kl: Any = fixed(default=None)
    accuracy: Any = fixed(default=None)
    sides: Any = fixed(default=None)

    @per_batch
    def log_ratio(self, x) -> jax.Array:
        """`log p(x) - log q(x)`, nats, `[*batch, *event] -> [*batch]`."""
        return self(x)

    def __call__(self, x) -> jax.Array:
        """The same unchecked, as a network: of `ratio(key, q, p)` the one that tilts q to p in an `EnergyModel`."""
        x = standardize(jnp.asarray(x, dtype_of(self.scaling[0])), self.scaling)
        return self.critic(x).reshape(x.shape[: x.ndim - len(self.event_shape)])

    @property
    def value(self) -> tuple[jax.Array, jax.Array]:
        """The value of the game, `2 JSD - log 4`, and its standard error: -log 4 where the two are the same."""
        return 2 * self.jsd[0] - math.log(4), 2 * self.jsd[1]

    def __str__(self) -> str:
        divergences = (("JSD", self.jsd), ("KL(p || q)", self.kl), ("KL(q || p)", self.reverse_kl))
        rows = (*divergences, ("accuracy", self.accuracy))
        return "\n".join(f"{name:<12}{plus_minus(*map(float, value))}" for name, value in rows)


@algorithm
class _LogOdds:
    """Minus the log-likelihood of which side draws came from; the batch stands for nothing."""

    def __call__(self, key: Any, found: Ratio, batch: Batch, step: Any) -> jax.Array:
        keys = jax.random.split(key)
        return Minimax().critic(*(found(_draws(one, side, BATCH)) for one, side in zip(keys, found.sides, strict=True)))


def ratio(key: Any, p: Any, q: Any, *, critic: Any = None, steps: int = 2000, draws: int = 50_000) -> Ratio:
    """The ratio of two densities from draws of both, by a critic that learns to tell them apart, and their divergences.

    At its best the critic's output is `log p(x) - log q(x)`, and the value of the game `2 JSD(p, q) - log 4`. It serves
    any two models, with a likelihood or without, any two arrays, or one of each. A divergence is at least as large as
    it says, up to its error: where the two are hard to tell a critic that failed looks like one that found nothing.

    Args:
        key: typed key.
        p: a model that can be sampled, or an array `[N, *event]`, of which a quarter is held out for the estimates.
        q: the same.
        critic: a linen module or a model, `[N, *event] -> [N]` or `[N, 1]`; it sees events in units of both sides
            together. None is a perceptron of two hidden layers of 64.
        steps: of training, on 512 draws of each side.
        draws: of each model, for the estimates.

    Returns:
        `Ratio`.

    Raises:
        DataError: events of different shapes, too few of them, or sides that are neither. FitError: a critic of another
            shape, or fewer than 2 draws.

    Source: Goodfellow et al. (2014), Generative adversarial nets, theorem 1; Sugiyama, Suzuki and Kanamori (2012),
    Density ratio estimation in machine learning, section 4.

    Example:
        >>> import jaxgen as jg
        >>> p, q = (jg.DiagonalGaussian.from_values([mean], [1.0]) for mean in (0.0, 1.0))
        >>> found = ratio(jax.random.key(0), p, q, steps=300)
        >>> round(float(found.jsd[0]), 2), found.log_ratio(jnp.array([[1.5]])).round(1).tolist()
        (0.11, [-1.0])
    """
    called = "tasks.ratio(key, p, q)"
    check_key(key, called)
    if not is_count(draws, 2):
        raise FitError("a mean and its error need draws", called=called, expected="draws of 2 or more", got=repr(draws))
    split_key, net_key, fit_key, draw_key = jax.random.split(key, 4)
    sides, shapes = [], []
    for name, side, one in zip("pq", (p, q), jax.random.split(split_key), strict=True):
        sides.append(_halves(one, side, name, called))
        shapes.append(tuple(side.event_shape) if is_model(side) else sides[-1][0].shape[1:])
    if shapes[0] != shapes[1]:
        raise DataError(
            "the two sides have events of different shapes", called=called, got=f"{shapes[0]} and {shapes[1]}",
            expected="events of one shape",
        )  # fmt: skip
    keys, shape = jax.random.split(draw_key), shapes[0]
    held = [
        _draws(one, side[1], draws) if is_model(side[1]) else side[1] for one, side in zip(keys, sides, strict=True)
    ]
    scaling = mean_and_scale(jnp.concatenate([jnp.asarray(x, jnp.result_type(float)) for x in held]))
    example = jnp.zeros(shape, jnp.result_type(float))
    module = MLP((64, 64, 1), jax.nn.silu, in_shape=shape) if critic is None else critic
    critic = module if is_model(module) else Net.init(net_key, module, example)
    check_critic(critic, (jax.ShapeDtypeStruct((2, *shape), example.dtype),), called)
    start = Ratio(critic, scaling, shape, sides=(sides[0][0], sides[1][0]))
    algorithm = Gradient(_LogOdds(), _falling, average=PowerAverage(0.1))
    # a model that can be called looks to a type checker like a function that makes one
    trained: Any = fit(fit_key, start, example[None], algorithm, steps=steps, progress=False).model
    found: Ratio = dataclasses.replace(trained, sides=None)
    real, fake = (np.asarray(found.log_ratio(x), np.float64) for x in held)
    told = [np.sign(real) / 2 + 0.5, np.sign(-fake) / 2 + 0.5]
    half = math.log(2) / 2
    terms = {
        "jsd": ([half - np.logaddexp(0, -real) / 2, half - np.logaddexp(0, fake) / 2]),
        "kl": [real], "reverse_kl": [-fake], "accuracy": [one / 2 for one in told],
    }  # fmt: skip
    estimates: dict[str, Any] = {name: _estimate(values) for name, values in terms.items()}
    return dataclasses.replace(found, **estimates)


def _halves(key: Any, side: Any, name: str, called: str) -> tuple[Any, Any]:
    """Return what training draws from, and what estimates are made on."""
    if is_model(side):
        shape = side.event_shape if has(side, Implicit) and context_shape(side) is None else (None,)
        if None in shape:
            raise DataError(
                f"{name} draws no events of one shape", called=called, got=repr(side)[:200],
                expected="a model with sample, without a context or a free length, or an array",
            )  # fmt: skip
        return side, side
    x = jnp.asarray(as_array(side, name=name, called=called))
    held = int(HELD * len(x)) if x.ndim else 0
    if held < 2:
        raise DataError(
            f"{name} has too few events", called=called, got=f"shape {list(x.shape)}",
            expected=f"[N, *event] with N of {math.ceil(2 / HELD)} or more",
        )  # fmt: skip
    x = x[jax.random.permutation(key, len(x))]
    return x[held:], x[:held]


def _draws(key: Any, side: Any, n: int) -> jax.Array:
    """n draws of a model, or rows of an array, with replacement."""
    if is_model(side):
        return side.sample(key, (n,))
    return side[jax.random.randint(key, (n,), 0, len(side))]


def _estimate(values: list[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """The sum of means, and its standard error."""
    error = math.sqrt(sum(np.var(one, ddof=1) / len(one) for one in values))
    return jnp.asarray(sum(np.mean(one) for one in values)), jnp.asarray(error)


def _falling(steps: int) -> Any:
    import optax

    return optax.adam(optax.cosine_decay_schedule(3e-3, steps))
