"""Guarantees for scores of any kind: conformal p-values and e-values, control of false discoveries, thresholds.

They ask one thing of the data: that normal events and those of the calibration come in no order that matters
(exchangeable), and that the score was not made from either. High scores are strange. All is counted on the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import beta

from jaxgen.core.errors import DataError, FitError, ShapeError
from jaxgen.core.inputs import as_array


def p_values(scores: Any, calibration: Any, *, weight: tuple[Any, Any] | None = None) -> np.ndarray:
    """Return split-conformal p-values: how rarely a normal event scores as high.

    `p = (1 + #{calibration >= s}) / (n + 1)`, and of weighted events `(v + sum_i w_i [c_i >= s]) / (v + sum_i w_i)`

    For a normal event `P(p <= a) <= a`, whatever the score is.

    Args:
        scores: `[M]`, of the events in question; high is strange.
        calibration: `[n]`, of normal events that neither the model nor the score has seen.
        weight: where normal events come from another distribution than the calibration, `(w [n], v [M])`: the ratio of
            the two densities at each event, up to one common factor.

    Returns:
        `[M]` float64, at least `1 / (n + 1)` without weights.

    Raises:
        DataError: numbers that are NaN or weights that are none. ShapeError: scores that are no vector.

    Source: Vovk, Gammerman and Shafer (2005), Algorithmic learning in a random world; Tibshirani, Barber, Candès and
    Ramdas (2019), Conformal prediction under covariate shift, for weights.

    Example:
        >>> p_values([5.0, 0.5], [1.0, 2.0, 3.0]).tolist()
        [0.25, 1.0]
    """
    called = "conformal.p_values(scores, calibration)"
    scores, calibration = _vector(scores, "scores", called), _vector(calibration, "calibration", called)
    if weight is None:
        return (1.0 + _at_least(scores, calibration)) / (len(calibration) + 1.0)
    given, own = (_weights(w, n, called) for w, n in zip(weight, (len(calibration), len(scores)), strict=True))
    order = np.argsort(calibration)
    mass = np.concatenate([np.cumsum(given[order][::-1])[::-1], [0.0]])  # of the i-th lowest and all above it
    return (own + mass[np.searchsorted(calibration[order], scores)]) / (own + mass[0])


def cross_p_values(scores: Sequence[Any], held_out: Sequence[Any]) -> np.ndarray:
    """Return cross-conformal p-values, from models that each left one fold of the normal events out.

    `p = (1 + sum_f #{i in fold f: c_fi >= s_f}) / (n + 1)`: every normal event calibrates. For a normal event
    `P(p <= a) <= 2 a` is proven (for folds that are large beside their number), and `a` is what is seen.

    Args:
        scores: F arrays `[M]`, of the events in question by each model.
        held_out: F arrays, scores of each fold by the model that did not see it.

    Source: Vovk (2015), Cross-conformal predictors; Vovk and Wang (2020), Combining p-values via averaging.

    Example:
        >>> cross_p_values([[5.0], [2.5]], [[1.0, 2.0], [3.0, 1.0]]).tolist()
        [0.4]
    """
    called = "conformal.cross_p_values(scores, held_out)"
    pairs = [(_vector(s, "scores", called), _vector(c, "held_out", called))
             for s, c in zip(scores, held_out, strict=True)]  # fmt: skip
    above = np.sum([_at_least(s, c) for s, c in pairs], axis=0)
    return (1.0 + above) / (1.0 + sum(len(c) for _, c in pairs))


def e_values(scores: Any, calibration: Any, level: float) -> np.ndarray:
    """Return conformal e-values: bets against each event being normal, which may be averaged over models and splits.

    `e = (n + 1) [s >= t] / (1 + #{calibration >= t})`, with the lowest t at which
    `(m / (n + 1)) (1 + #{calibration >= t}) <= level #{scores >= t}`

    Together normal events have a mean of at most one. On those of one model `e_benjamini_hochberg` rejects just what
    `benjamini_hochberg` rejects on its p-values; of several models their average is a set of e-values again.

    Args:
        scores, calibration: as of `p_values`.
        level: of false discoveries, at which the bets pay most.

    Source: Lee and Ren (2024), Boosting e-BH via conditional calibration; Bashari, Epstein, Romano and Sesia (2023),
    Derandomized novelty detection with FDR control via conformal e-values.

    Example:
        >>> e_values([5.0, 4.0, 0.5], [1.0, 2.0, 3.0], 0.5).tolist()
        [4.0, 4.0, 0.0]
    """
    called = "conformal.e_values(scores, calibration, level)"
    scores, calibration = _vector(scores, "scores", called), _vector(calibration, "calibration", called)
    check_level(level, called)
    found, n = np.unique(scores), len(calibration)  # rising: the first that does is the lowest
    above, taken = _at_least(found, calibration), len(scores) - np.searchsorted(np.sort(scores), found)
    fits = np.flatnonzero(len(scores) / (n + 1.0) * (1.0 + above) <= level * taken)
    if not len(fits):
        return np.zeros(len(scores))
    return np.where(scores >= found[fits[0]], (n + 1.0) / (1.0 + above[fits[0]]), 0.0)


def benjamini_hochberg(p: Any, level: float) -> np.ndarray:
    """Return the rejections of p-values that keep the expected share of false ones at most at `level`.

    The k smallest are rejected, for the largest k with `p_(k) <= level k / m`.

    Proven for independent p-values and for split-conformal ones, which share their calibration.

    Args:
        p: `[M]`.
        level: between 0 and 1.

    Returns:
        bools `[M]`.

    Source: Benjamini and Hochberg (1995); Bates, Candès, Lei, Romano and Sesia (2023), Testing for outliers with
    conformal p-values.

    Example:
        >>> benjamini_hochberg([0.01, 0.02, 0.03, 0.2, 0.5], 0.1).tolist()
        [True, True, True, False, False]
    """
    called = "conformal.benjamini_hochberg(p, level)"
    check_level(level, called)
    p = _vector(p, "p", called)
    steps = level * np.arange(1, len(p) + 1) / len(p)
    passed = np.flatnonzero(np.sort(p) <= steps * (1 + 1e-12))  # a p-value that is a step has its own rounding
    return p <= np.sort(p)[passed[-1]] if len(passed) else np.zeros(len(p), bool)


def e_benjamini_hochberg(e: Any, level: float) -> np.ndarray:
    """Return the rejections of e-values that keep the expected share of false ones at most at `level`.

    The k largest are rejected, for the largest k with `e_[k] >= m / (level k)`. Proven whatever their dependence.

    Args:
        e: `[M]`.
        level: between 0 and 1.

    Source: Wang and Ramdas (2022), False discovery rate control with e-values.

    Example:
        >>> e_benjamini_hochberg([40.0, 0.3, 20.0, 1.0], 0.1).tolist()
        [True, False, True, False]
    """
    called = "conformal.e_benjamini_hochberg(e, level)"
    check_level(level, called)
    e = _vector(e, "e", called)
    falling = np.sort(e)[::-1]
    passed = np.flatnonzero(falling * (1 + 1e-12) >= len(e) / (level * np.arange(1, len(e) + 1)))
    return e >= falling[passed[-1]] if len(passed) else np.zeros(len(e), bool)


def threshold(calibration: Any, rate: float, *, confidence: float | None = None) -> float:
    """Return the score above which a normal event lies with a probability of at most `rate`.

    It is the k-th lowest of the n calibration scores, `k = ceil((n + 1) (1 - rate))`: the guarantee is a mean over
    calibrations. With a confidence it holds for this calibration with that probability: the lowest k for which
    `P(Beta(n + 1 - k, k) <= rate) >= confidence`.

    Args:
        calibration: `[n]`, scores of normal events that the model has not seen.
        rate: of false alarms, between 0 and 1.
        confidence: between 0 and 1, or None.

    Raises:
        DataError: too few calibration scores for that rate; the error says how many it takes.

    Source: Vovk (2012), Conditional validity of inductive conformal predictors.

    Example:
        >>> threshold(range(99), 0.05)
        94.0
        >>> threshold(range(99), 0.05, confidence=0.95)
        97.0
    """
    called = f"conformal.threshold(calibration, {rate})"
    check_level(rate, called)
    sorted_scores = np.sort(_vector(calibration, "calibration", called))
    n = len(sorted_scores)
    if confidence is None:
        needed, k = calibration_needed(rate), math.ceil((n + 1) * (1 - rate) - 1e-9)
    else:
        check_level(confidence, called)
        needed = math.ceil(math.log1p(-confidence) / math.log1p(-rate))  # (1 - rate)^n <= 1 - confidence
        fits = beta.cdf(rate, n - np.arange(n), np.arange(1, n + 1)) >= confidence
        k = int(np.argmax(fits)) + 1 if fits.any() else n + 1
    if k > n:
        raise too_few(n, needed, f"a false-alarm rate of {rate}", called)
    return float(sorted_scores[k - 1])


def calibration_needed(level: float) -> int:
    """Return the smallest number of calibration scores whose p-values reach a level: `1 / (n + 1) <= level`.

    Example:
        >>> calibration_needed(0.05)
        19
    """
    check_level(level, "conformal.calibration_needed(level)")
    return math.ceil(1 / level - 1e-9) - 1


def too_few(n: int, needed: int, goal: str, called: str) -> DataError:
    """Return the error of a calibration that is too small."""
    return DataError(
        f"too few calibration events for {goal}", called=called, expected=f"at least {needed}", got=str(n),
        fix=f"keep {needed} normal events from the fit, or ask for less",
    )  # fmt: skip


def check_level(level: Any, called: str) -> None:
    """Refuse what is no level, rate or confidence."""
    if not (isinstance(level, (int, float, np.number)) and 0 < level < 1):
        raise FitError("a level is a probability", called=called, expected="between 0 and 1", got=repr(level))


def _at_least(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    return len(calibration) - np.searchsorted(np.sort(calibration), scores)


def _vector(values: Any, name: str, called: str) -> np.ndarray:
    """One score an event, float64: infinite ones are scores, NaN is none."""
    array = np.asarray(values if isinstance(values, (np.ndarray, list, tuple)) else np.asarray(values), np.float64)
    if array.ndim != 1 or not array.size:
        raise ShapeError(f"{name} is no vector", called=called, expected="[N], one number an event",
                         got=f"shape {list(array.shape)}")  # fmt: skip
    if np.isnan(array).any():
        raise DataError(
            "a score is NaN", called=called, expected=f"numbers in {name}", got=f"{np.isnan(array).sum()} NaN",
            fix="score events that the model knows: it has no density where one of its entries was not seen",
        )  # fmt: skip
    return array


def _weights(weight: Any, n: int, called: str) -> np.ndarray:
    array = np.asarray(as_array(weight, name="weight", called=called), np.float64)
    if array.shape != (n,):
        raise ShapeError("weights do not fit the scores", called=called, expected=f"[{n}]",
                         got=f"shape {list(array.shape)}")  # fmt: skip
    if (array < 0).any() or not array.any():
        raise DataError("weights are ratios of densities", called=called, expected="none below 0, and not all 0",
                        got=f"{(array < 0).sum()} below 0")  # fmt: skip
    return array
