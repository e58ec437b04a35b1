"""Finding strange events: any score of any model, with guarantees that hold whatever the model is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.core import algebra, markup
from jaxgen.core.errors import DataError, FitError
from jaxgen.core.inputs import as_batch
from jaxgen.core.methods import check_key, is_count
from jaxgen.tasks import conformal
from jaxgen.tasks.scores import Surprise

#: what is strange unless one is told
SURPRISE = Surprise()


class Anomalies(NamedTuple):
    """The result of `anomaly`: scores of events, and which of them are strange.

    Args:
        scores: `[M]`, high is strange; across folds their mean.
        p_values: `[M]`, conformal: how rarely a normal event scores as high.
        e_values: `[M]`, bets against each event being normal; None where normal events are weighted.
        rejected: bools `[M]`, the events that are called anomalies: at most `level` of them are false, in the mean.
        threshold: the score above which one normal event lies with a probability of at most `rate`; None across folds
            and with weights, where it is another for each event.
        level: of false discoveries.
        rate: of false alarms.
        calibration: the number of normal events that calibrate.
    """

    scores: np.ndarray
    p_values: np.ndarray
    e_values: np.ndarray | None
    rejected: np.ndarray
    threshold: float | None
    level: float
    rate: float
    calibration: int

    @property
    def needed(self) -> int:
        """The calibration events that it takes to find a single anomaly among so many events, `M / level - 1`."""
        return conformal.calibration_needed(self.level / len(self.scores))

    def _rows(self) -> list[tuple[str, str]]:
        found, m = int(self.rejected.sum()), len(self.scores)
        rows = [("anomalies", f"{found} of {m} events, at most {self.level:.0%} of them false in the mean"),
                ("calibration", f"{self.calibration} normal events")]  # fmt: skip
        if self.threshold is not None:
            rows.append(("alarm", f"above {self.threshold:.4f}, for at most {self.rate:.0%} of normal events"))
        if self.needed > self.calibration:
            rows.append(("note", f"to find one alone among {m} it takes {self.needed} normal events"))
        return rows

    def __str__(self) -> str:
        return "\n".join(f"{name:<12}{text}" for name, text in self._rows())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return markup.table(self._rows(), "Anomalies")


def anomaly(
    key: Any, model: Any, x: Any, *, reference: Any = None, score: Callable[[Any, Any, Any], Any] = SURPRISE,
    level: float = 0.1, rate: float | None = None, folds: int | None = None,
    weight: Callable[[Any], Any] | None = None, by_e_values: bool = False,
) -> Anomalies:  # fmt: skip
    """Score events against normal ones, and call those anomalies that so few normal ones can have done.

    The scores are those of any model; p-values compare them with scores of normal events that the model has not seen
    (split conformal), and Benjamini and Hochberg's procedure rejects as many as it may. With exchangeable normal events
    the expected share of normal ones among the rejected is at most `level`, however bad the model is: a bad one finds
    less.

    Args:
        key: typed key.
        model: any that the score takes. With `folds` a function `(key, x) -> model` that fits one: each fold is scored
            by a model of the others, so that all of the reference both trains and calibrates (cross-conformal).
        x: the events in question, `[M, *event]`, or with what comes with them, `dict(x=x, context=context)`.
        reference: normal events, `[n, *event]`. Without folds they must not have been in the fit.
        score: `(key, model, x) -> [N]`, high is strange: `Surprise`, `Typicality`, `LikelihoodRatio`,
            `Reconstruction`, `LatentDensity`, `LikelihoodRegret`, or your own.
        level: of false discoveries.
        rate: of false alarms, of the threshold; None is `level`.
        folds: 2 or more, or None.
        weight: `x -> [N]`, the density of normal events now over that of the reference, up to a factor, where they are
            shifted. The p-values are exact, their procedure holds for many events.
        by_e_values: reject by e-values. Of one model that is the same; across folds it is proven, where p-values are
            proven up to a factor of 2.

    Returns:
        `Anomalies`.

    Raises:
        DataError: no reference, too few events of it for the level (the error says how many it takes), NaN.
        ShapeError: events of other columns than the model's. ModelError: a model that the score cannot take.

    Source: Bates, Candès, Lei, Romano and Sesia (2023), Testing for outliers with conformal p-values.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxgen as jg
        >>> normal = jax.random.normal(jax.random.key(0), (300, 2))
        >>> x = jnp.concatenate([normal[200:205], jnp.full((5, 2), 4.0)])
        >>> model = jg.Gaussian.init(jax.random.key(1), normal[:100])
        >>> print(anomaly(jax.random.key(2), model, x, reference=normal[100:200]))
        anomalies   6 of 10 events, at most 10% of them false in the mean
        calibration 100 normal events
        alarm       above 4.1425, for at most 10% of normal events
    """
    called = f"anomaly(key, {type(model).__name__}, x, reference=reference)"
    check_key(key, called)
    rate = level if rate is None else rate
    for value in (level, rate):
        conformal.check_level(value, called)
    if reference is None:
        raise DataError("strange is what normal events are not", called=called, expected="normal events, reference=",
                        got="none", fix="keep a part of the normal events from the fit")  # fmt: skip
    if by_e_values and weight is not None:
        raise FitError("weighted events have no e-values here", called=called, expected="weight or by_e_values",
                       got="both", fix="leave by_e_values out")  # fmt: skip
    runs = _split(key, model, x, reference, score) if folds is None else _cross(
        key, model, x, reference, score, folds, called)  # fmt: skip
    scores, held_out = zip(*runs, strict=True)
    n = sum(map(len, held_out))
    needed = conformal.calibration_needed(min(level, rate))
    if n < needed:
        raise conformal.too_few(n, needed, f"a level of {min(level, rate):g}", called)
    if weight is not None:
        if folds is not None:
            raise FitError("weights and folds do not go together", called=called, expected="one of them", got="both",
                           fix="leave folds out, and keep a part of the normal events from the fit")  # fmt: skip
        p = conformal.p_values(scores[0], held_out[0], weight=(weight(reference), weight(x)))
        return Anomalies(scores[0], p, None, conformal.benjamini_hochberg(p, level), None, level, rate, n)
    p = conformal.cross_p_values(scores, held_out)
    e = np.mean([conformal.e_values(s, c, level) for s, c in runs], axis=0)
    rejected = conformal.e_benjamini_hochberg(e, level) if by_e_values else conformal.benjamini_hochberg(p, level)
    alarm = conformal.threshold(held_out[0], rate) if folds is None else None
    return Anomalies(np.mean(scores, axis=0), p, e, rejected, alarm, level, rate, n)


Run = tuple[np.ndarray, np.ndarray]


def _split(key: Any, model: Any, x: Any, reference: Any, score: Any) -> list[Run]:
    """Scores of the events and of the normal ones, by one model."""
    first, second = jax.random.split(key)
    return [(np.asarray(score(first, model, x), np.float64), np.asarray(score(second, model, reference), np.float64))]


def _cross(key: Any, fit: Any, x: Any, reference: Any, score: Any, folds: int, called: str) -> list[Run]:
    """Scores of the events and of the fold that was left out, by a model of each of the other folds."""
    if not callable(fit):
        raise FitError(
            "each fold needs a fit of its own", called=called, expected="a function (key, x) -> model",
            got=type(fit).__name__, fix="leave folds out, or write the fit as a function of key and events",
        )  # fmt: skip
    batch = as_batch(reference, name="reference", called=called)
    if not (is_count(folds, 2) and folds <= batch.events):
        raise FitError("these are no folds", called=called, expected=f"2 to {batch.events}", got=f"folds={folds!r}")
    order = np.asarray(jax.random.permutation(key, batch.events))
    runs = []
    for i, left_out in enumerate(np.array_split(order, folds)):
        fitted, scored = jax.random.split(jax.random.fold_in(key, i))
        rest = algebra.take(batch, np.setdiff1d(order, left_out))
        model = fit(fitted, rest.x if rest.context is None else rest)
        runs += _split(scored, model, x, algebra.take(batch, left_out), score)
    return runs
