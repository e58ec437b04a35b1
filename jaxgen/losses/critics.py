"""Penalties of critics: values that are added to the critic's loss in a game, and keep its slopes in bounds.

A penalty has an interval `every`: it is then computed in every so many updates of the critic only, times that number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxgen.core.mesh import apart, beside
from jaxgen.core.value import algorithm
from jaxgen.losses.base import weighted_mean

Inputs = tuple[jax.Array, ...]


class Judged(NamedTuple):
    """A batch as a critic judges it: what penalties are made of.

    Args:
        critic: `(x, *context) -> [N]`, differentiable.
        real: its inputs on data: events, and contexts where there are any.
        fake: its inputs on samples.
        real_logit: its outputs on data, `[N]`.
        fake_logit: its outputs on samples.
        real_slope: squared norm of its gradient in each event, `[N]`; zeros where no penalty asked for it.
        fake_slope: the same at samples.
        real_weight: `[N]`, or None for equal ones.
        fake_weight: the same of samples.
    """

    critic: Callable[..., jax.Array]
    real: Inputs
    fake: Inputs
    real_logit: jax.Array
    fake_logit: jax.Array
    real_slope: jax.Array
    fake_slope: jax.Array
    real_weight: Any = None
    fake_weight: Any = None


@runtime_checkable
class Penalty(Protocol):
    """A penalty of a critic, a frozen value that hashes by value."""

    #: which slopes it looks at, of "real" and "fake": those of all penalties are computed together
    slopes: ClassVar[tuple[str, ...]]

    @property
    def every(self) -> int:
        """Updates of the critic for one in which it is computed, with that many times its weight."""
        ...

    def start(self) -> Any:
        """Return what it remembers before the first step, a pytree of arrays; () for nothing."""
        ...

    def __call__(self, key: Any, judged: Judged, memory: Any) -> tuple[jax.Array, Any]:
        """Return the penalty, a scalar, and what it remembers afterwards."""
        ...


@algorithm
class R1:
    """The zero-centred gradient penalty on data, `(weight / 2) mean |grad D(x)|^2`.

    Args:
        weight: per squared unit of what the critic sees; larger is smoother, safer and slower.
        every: updates of the critic for one with the penalty.

    Source: Mescheder, Geiger and Nowozin (2018), Which training methods for GANs do actually converge?, equation 9.

    Example:
        >>> line = lambda x: x @ jnp.array([3.0, 4.0])
        >>> float(R1(1.0)(None, judge(line, (jnp.ones((2, 2)),), (jnp.ones((2, 2)),), ("real",)), ())[0])
        12.5
    """

    weight: float
    every: int = 1
    slopes: ClassVar[tuple[str, ...]] = ("real",)

    def start(self) -> Any:
        """Return nothing."""
        return ()

    def __call__(self, key: Any, judged: Judged, memory: Any) -> tuple[jax.Array, Any]:
        return 0.5 * self.weight * weighted_mean(judged.real_slope, judged.real_weight), memory


@algorithm
class R2:
    """The zero-centred gradient penalty on samples, `(weight / 2) mean |grad D(x')|^2`.

    Beside `R1` of the same interval it costs no more than twice the rows of one backward pass.

    Args:
        weight: as of `R1`.
        every: updates of the critic for one with the penalty.

    Source: Mescheder, Geiger and Nowozin (2018), equation 9; with R1, Roth, Lucchi, Nowozin and Hofmann (2017),
    Stabilizing training of generative adversarial networks through regularization.
    """

    weight: float
    every: int = 1
    slopes: ClassVar[tuple[str, ...]] = ("fake",)

    def start(self) -> Any:
        """Return nothing."""
        return ()

    def __call__(self, key: Any, judged: Judged, memory: Any) -> tuple[jax.Array, Any]:
        return 0.5 * self.weight * weighted_mean(judged.fake_slope, judged.fake_weight), memory


@algorithm
class Interpolated:
    """The penalty of WGAN-GP, `weight mean (|grad D(u x + (1 - u) x')| - target)^2`, u uniform for each pair.

    Args:
        weight: 10 is usual.
        target: the slope that is wanted: 1, the critic of a Wasserstein distance.
        every: updates of the critic for one with the penalty.

    Source: Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville (2017), Improved training of Wasserstein GANs,
    equation 3.

    Example:
        >>> line = lambda x: x @ jnp.array([3.0, 4.0])
        >>> seen = judge(line, (jnp.ones((2, 2)),), (jnp.ones((2, 2)),))
        >>> float(Interpolated(10.0)(jax.random.key(0), seen, ())[0])
        160.0
    """

    weight: float
    target: float = 1.0
    every: int = 1
    slopes: ClassVar[tuple[str, ...]] = ()

    def start(self) -> Any:
        """Return nothing."""
        return ()

    def __call__(self, key: Any, judged: Judged, memory: Any) -> tuple[jax.Array, Any]:
        real, fake = judged.real[0], judged.fake[0]
        share = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1), real.dtype)
        _, slope = steepness(judged.critic, share * real + (1 - share) * fake, *judged.real[1:])
        flat = slope == 0  # where a norm has no gradient
        norm = jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, slope)))
        return self.weight * weighted_mean((norm - self.target) ** 2, judged.real_weight), memory


@algorithm
class LeCam:
    """A pull of outputs towards the running means of those on the other side, for little data.

    `weight (mean (D(x) - a')^2 + mean (D(x') - a)^2)`, where a and a' are moving averages of the mean outputs on data
    and on samples.

    Args:
        weight: 1e-3 to 1 are usual.
        decay: of the averages, from 0 to 1, 1 excluded.
        every: updates of the critic for one with the penalty.

    Source: Tseng, Jiang, Liu, Yang and Yang (2021), Regularizing generative adversarial networks under limited data,
    equations 5 and 6.
    """

    weight: float
    decay: float = 0.99
    every: int = 1
    slopes: ClassVar[tuple[str, ...]] = ()

    def start(self) -> Any:
        """Return sums of outputs on data and samples, and of weights, all zero."""
        return (jnp.zeros(()),) * 3

    def __call__(self, key: Any, judged: Judged, memory: Any) -> tuple[jax.Array, Any]:
        ends = (judged.real_logit, judged.real_weight), (judged.fake_logit, judged.fake_weight)
        now = [jax.lax.stop_gradient(weighted_mean(*end)) for end in ends] + [1.0]
        memory = tuple(self.decay * old + (1 - self.decay) * new for old, new in zip(memory, now, strict=True))
        anchors = memory[1] / memory[2], memory[0] / memory[2]
        pulls = [weighted_mean((logit - to) ** 2, w) for (logit, w), to in zip(ends, anchors, strict=True)]
        return self.weight * (pulls[0] + pulls[1]), memory


@algorithm
class Consistency:
    """A penalty of outputs that change where events do not, `weight mean (D(x) - D(t(x)))^2`, of both sides.

    Args:
        weight: 10 is usual.
        change: `(key, x) -> x`, such as `ops.augment.translation` or a function of several.
        samples: whether samples count too.
        every: updates of the critic for one with the penalty.

    Source: Zhang, Zhang, Odena and Lee (2020), Consistency regularization for generative adversarial networks; Zhao,
    Singh, Lee, Zhang, Odena and Zhang (2021), Improved consistency regularization for GANs, on samples too.
    """

    weight: float
    change: Any
    samples: bool = True
    every: int = 1
    slopes: ClassVar[tuple[str, ...]] = ()

    def start(self) -> Any:
        """Return nothing."""
        return ()

    def __call__(self, key: Any, judged: Judged, memory: Any) -> tuple[jax.Array, Any]:
        ends = [(judged.real, judged.real_logit, judged.real_weight)]
        ends += [(judged.fake, judged.fake_logit, judged.fake_weight)] if self.samples else []
        total = jnp.zeros(())
        for (inputs, logit, weight), one in zip(ends, jax.random.split(key), strict=False):
            changed = judged.critic(self.change(one, inputs[0]), *inputs[1:])
            total += weighted_mean((logit - changed) ** 2, weight)
        return self.weight * total, memory


def steepness(critic: Any, x: jax.Array, *context: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a critic's outputs and the squared norm of its gradient at each event, `[N]` both: `|grad_x D(x)|^2`.

    Example:
        >>> output, slope = steepness(lambda x: 3 * x[:, 0], jnp.ones((2, 5)))
        >>> output.tolist(), slope.tolist()
        ([3.0, 3.0], [9.0, 9.0])
    """
    # an output depends on its own event only, so one backward pass serves the whole batch
    output, pull = jax.vjp(lambda x: critic(x, *context), x)
    (gradient,) = pull(jnp.ones_like(output))
    return output, jnp.sum(jnp.square(gradient.reshape((len(x), -1))), axis=1)


def judge(
    critic: Any, real: Inputs, fake: Inputs, slopes: Any = (), real_weight: Any = None, fake_weight: Any = None
) -> Judged:
    """Return a batch as a critic judges it.

    Args:
        critic: `(x, *context) -> [N]`.
        real: its inputs on data.
        fake: its inputs on samples.
        slopes: which are wanted, of "real" and "fake"; the others are zeros, at no cost.
        real_weight: `[N]` or None.
        fake_weight: `[N]` or None.

    Example:
        >>> judge(lambda x: 3 * x[:, 0], (jnp.ones((2, 1)),), (jnp.zeros((2, 1)),), ("fake",)).fake_slope.tolist()
        [9.0, 9.0]
    """
    if set(slopes) == {"real"}:
        fake_logit = critic(*fake)
        found: Any = (*steepness(critic, *real), fake_logit, jnp.zeros_like(fake_logit))
    elif set(slopes) == {"fake"}:
        real_logit = critic(*real)
        found = (real_logit, jnp.zeros_like(real_logit), *steepness(critic, *fake))
    else:
        # together: half the program, and matrix products of twice the rows
        both = [beside(*pair) for pair in zip(real, fake, strict=True)]
        logit, slope = steepness(critic, *both) if slopes else (critic(*both), None)
        ends = [apart(values, len(real[0])) for values in (logit, jnp.zeros_like(logit) if slope is None else slope)]
        found = (ends[0][0], ends[1][0], ends[0][1], ends[1][1])
    real_logit, real_slope, fake_logit, fake_slope = found
    return Judged(critic, real, fake, real_logit, fake_logit, real_slope, fake_slope, real_weight, fake_weight)


def penalised(
    key: Any, critic: Any, real: Inputs, fake: Inputs, penalties: tuple[Penalty, ...], memories: Any, step: Any,
    real_weight: Any = None, fake_weight: Any = None,
) -> tuple[Judged, jax.Array, Any]:  # fmt: skip
    """Return a batch as a critic judges it, the sum of the penalties, and what these remember.

    Slopes are computed once for all penalties of one interval.

    Args:
        key: typed key.
        critic: `(x, *context) -> [N]`.
        real: its inputs on data.
        fake: its inputs on samples.
        penalties: values.
        memories: of each, as `start()` or the last call gave it.
        step: updates of the critic before this one, int32.
        real_weight: `[N]` or None.
        fake_weight: `[N]` or None.
    """
    keys = jax.random.split(key, max(len(penalties), 1))
    after, dtype = list(memories), jnp.result_type(real[0])

    def look(members: list[int]) -> Judged:
        wanted = {end for i in members for end in penalties[i].slopes}
        return judge(critic, real, fake, wanted, real_weight, fake_weight)

    def added(judged: Judged, members: list[int]) -> tuple[jax.Array, Any]:
        found = [penalties[i](keys[i], judged, memories[i]) for i in members]
        total = sum((value for value, _ in found), jnp.zeros((), dtype))
        return total.astype(dtype), [memory for _, memory in found]

    def lazily(every: int, members: list[int]) -> tuple[jax.Array, Any]:
        def due() -> Any:
            value, memory = added(look(members), members)
            return every * value, memory

        def idle() -> Any:
            return jnp.zeros((), dtype), [memories[i] for i in members]

        return jax.lax.cond(step % every == 0, due, idle)

    groups: dict[int, list[int]] = {}
    for i, penalty in enumerate(penalties):
        groups.setdefault(penalty.every, []).append(i)
    first = groups.pop(1, [])
    judged = look(first)
    found = [(first, *added(judged, first)), *((members, *lazily(n, members)) for n, members in groups.items())]
    for members, _, memory in found:
        for i, one in zip(members, memory, strict=True):
            after[i] = one
    return judged, sum(value for _, value, _ in found), tuple(after)  # type: ignore[return-value]
