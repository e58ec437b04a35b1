"""Strange steps of sequences: the surprise of each step, and an alarm on a stream with a bound on its false alarms."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.core.errors import DataError, FitError, ModelError
from jaxgen.core.methods import check_key
from jaxgen.core.protocols import Sequential, has
from jaxgen.core.value import algorithm
from jaxgen.tasks.conformal import check_level


def step_surprise(model: Any, x: Any, *, context: Any = None) -> jax.Array:
    """Return the surprise of each step given those before, `-log p(x_t | x_1..t-1)`, nats.

    Args:
        model: of sequences with hidden states, such as an `HMM`.
        x: `[*batch, T, *event]` or `Sequences`.
        context: `[*batch, T, *context]` of a model that takes one.

    Returns:
        `[*batch, T]`; they sum to `-log p(x)`, and are 0 beyond a sequence's length.

    Raises:
        ModelError: a model without states.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxgen as jg
        >>> coin = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], jg.Bernoulli.from_values([0.1, 0.8]))
        >>> np.asarray(step_surprise(coin, jnp.array([0, 0, 1])), float).round(2).tolist()
        [0.6, 0.32, 1.57]
    """
    if not has(model, Sequential):
        raise ModelError(
            "the model has no steps", called=f"step_surprise({type(model).__name__}, x)", got=type(model).__name__,
            expected="a model with filter(x), such as jaxgen.HMM",
        )  # fmt: skip
    return -model.filter(x, context=context).log_evidence


class AlarmState(NamedTuple):
    """The state of an `Alarm` between two steps.

    Args:
        known: the scores seen so far, those of the calibration included, sorted.
        evidence: the bets' gain since the last alarm; 0 at the start.
    """

    known: np.ndarray
    evidence: float


class AlarmInfo(NamedTuple):
    """The answer of an `Alarm` to a step, or `[T]` answers to several.

    Args:
        p_value: uniform while nothing changes.
        evidence: against that nothing has changed; the alarm sounds at `1 / rate`.
        alarm: True where it sounds; the evidence then starts anew.
    """

    p_value: Any
    evidence: Any
    alarm: Any


@algorithm
class Alarm:
    """An alarm on a stream of scores, which sounds falsely once in `1 / rate` steps at most, in the mean.

    Each score is ranked among all before it; the p-value `p` is uniform, and independent of those before, as long as
    scores come in no order that matters. The evidence is the sum of bets that were started at each step,
    `R_t = (R_(t-1) + 1) b(p_t)`, `b(p) = mean_k k p^(k-1)`, whose mean grows by one a step: it reaches `1 / rate`
    after `1 / rate` steps or more in the mean.

    Args:
        rate: false alarms a step, between 0 and 1.
        bets: exponents k between 0 and 1: small ones win on rare great surprises, large ones on many small ones.

    Scores that keep away are learned in time as what is usual.

    Source: Vovk, Nouretdinov and Gammerman (2003), Testing exchangeability on-line; Shin, Ramdas and Rinaldo (2024),
    E-detectors, for the sum over starts.

    Example:
        >>> scores = np.random.default_rng(0).normal(size=300)
        >>> scores[250:] += 4
        >>> alarm = Alarm(0.001)
        >>> state, info = alarm.run(jax.random.key(0), alarm.init(scores[:100]), scores[100:])
        >>> 150 <= int(np.argmax(info.alarm)) <= 160
        True
    """

    rate: float
    bets: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)

    def init(self, calibration: Any) -> AlarmState:
        """Return the state before the first step.

        Args:
            calibration: `[n]`, scores of usual steps.

        Raises:
            FitError: a rate or bets that are none. DataError: no scores, or NaN.
        """
        called = f"Alarm({self.rate!r}).init(calibration)"
        check_level(self.rate, called)
        if not self.bets or not all(0 < k < 1 for k in self.bets):
            raise FitError("bets are exponents", called=called, expected="numbers between 0 and 1", got=repr(self.bets))
        known = np.sort(np.asarray(calibration, np.float64).reshape(-1))
        if not known.size or np.isnan(known).any():
            raise DataError("usual scores calibrate an alarm", called=called, expected="one or more numbers",
                            got=f"{known.size} of which {np.isnan(known).sum()} are NaN")  # fmt: skip
        return AlarmState(known, 0.0)

    def step(self, key: Any, state: AlarmState, score: Any) -> tuple[AlarmState, AlarmInfo]:
        """One more score: the state after it, and what there is to say.

        Args:
            key: typed key, for the order of equal scores.
            state: before.
            score: one number.
        """
        state, info = self.run(key, state, np.reshape(np.asarray(score, np.float64), (1,)))
        return state, AlarmInfo(*(value[0] for value in info))

    def run(self, key: Any, state: AlarmState, scores: Any) -> tuple[AlarmState, AlarmInfo]:
        """Some more scores `[T]`, as so many steps: the state after them, and what there is to say of each, `[T]`."""
        called = f"Alarm({self.rate!r}).run(key, state, scores)"
        check_key(key, called)
        scores = np.asarray(scores, np.float64)
        if scores.ndim != 1 or np.isnan(scores).any():
            raise DataError("scores are one number a step", called=called, expected="[T] without NaN",
                            got=f"shape {list(scores.shape)}, {np.isnan(scores).sum()} NaN")  # fmt: skip
        chance = np.asarray(jax.random.uniform(key, scores.shape), np.float64)
        known, evidence = state
        rows = []
        for score, u in zip(scores, chance, strict=True):
            low, high = np.searchsorted(known, score, "left"), np.searchsorted(known, score, "right")
            # among those equal to it, itself included, its place is drawn
            p = max((len(known) - high + u * (high - low + 1)) / (len(known) + 1), np.finfo(np.float64).tiny)
            evidence = (evidence + 1) * float(np.mean([k * p ** (k - 1) for k in self.bets]))
            rows.append((p, evidence, evidence >= 1 / self.rate))
            evidence = 0.0 if rows[-1][2] else evidence
            known = np.insert(known, low, score)
        p, evidences, alarms = (np.asarray(column) for column in zip(*rows, strict=True)) if rows else (scores,) * 3
        return AlarmState(known, evidence), AlarmInfo(p, evidences, alarms.astype(bool))
