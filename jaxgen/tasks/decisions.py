"""Decisions from class probabilities: calibrated by a temperature, with those that are not sure left open."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from jaxgen.core.errors import DataError, FitError, ModelError, ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.core.labels import checked_labels
from jaxgen.core.protocols import Classifier, Guessing, Sequential, has
from jaxgen.tasks.representation import features

#: capabilities of models that know classes, by what `features` calls it
KNOWING = {"responsibilities": Classifier, "guesses": Guessing, "states": Sequential}
#: temperatures are sought from the inverse of this on
HOTTEST = 1e4


@dataclasses.dataclass(frozen=True)
class Labeller:
    """A model that decides on classes; `labeller` makes it.

    `p(c | x) ~ p_model(c | x)^(1 / temperature)`

    Args:
        model: or a function `x -> [N, C]`, its class probabilities.
        temperature: above 1 where the model is too sure of itself.
        reject: decisions of a smaller probability are left open; 0 leaves none.
    """

    model: Any
    temperature: float = 1.0
    reject: float = 0.0

    def probabilities(self, x: Any) -> np.ndarray:
        """Return the calibrated `p(c | x)`, `[N, C]` float64; of each step of a hidden Markov model `[N, T, C]`."""
        return tempered(_probabilities(self.model, x), self.temperature)

    def predict(self, x: Any) -> np.ndarray:
        """Return the likeliest class of each event, int32, and -1 where it is not sure enough."""
        return decide(self.probabilities(x), reject=self.reject)


def labeller(model: Any, x: Any = None, label: Any = None, *, reject: float = 0.0) -> Labeller:
    """Make a model decide on classes: its probabilities calibrated on labelled events, and the unsure left open.

    Args:
        model: a mixture (components are classes), what `class_densities` and `propagate` give, a `SemiSupervised`, a
            hidden Markov model (states are classes); or a function `x -> [N, C]` such as
            `lambda x: jnp.exp(machine.log_conditional(x))`.
        x, label: events that the fit has not seen, with labels `[N]`, -1 where not known; None leaves the
            probabilities as they are.
        reject: from 0 to 1, below which probability of the likeliest class no decision is made.

    Returns:
        `Labeller`.

    Raises:
        ModelError: a model that knows no classes. DataError: events without labels; FitError: no such probability.

    Source: Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks; Chow (1970), On optimum
    recognition error and reject tradeoff.

    Example:
        >>> import jax, jax.numpy as jnp, jaxgen as jg
        >>> two = jg.Mixture.from_components(jg.DiagonalGaussian.from_values([[0.0], [4.0]], [[1.0], [1.0]]))
        >>> labeller(two, reject=0.9).predict(jnp.array([[0.0], [2.1], [4.0]])).tolist()
        [0, -1, 1]
    """
    called = f"labeller({type(model).__name__}, x, label)"
    _check_reject(reject, called)
    if not (callable(model) or any(has(model, one) for one in KNOWING.values())):
        raise ModelError("the model knows no classes", called=called, got=type(model).__name__,
                         expected="responsibilities(x), classify(x) or smooth(x), or a function")  # fmt: skip
    if x is None and label is None:
        return Labeller(model, reject=reject)
    if x is None or label is None:
        raise DataError("events and labels calibrate together", called=called, expected="x and label, or neither",
                        got="x alone" if label is None else "label alone")  # fmt: skip
    return Labeller(model, temperature(_probabilities(model, x), label), reject)


def _probabilities(model: Any, x: Any) -> np.ndarray:
    for which, capability in KNOWING.items():
        if has(model, capability):
            return np.asarray(features(model, x, which=which), np.float64)
    return np.asarray(model(x), np.float64)


def _check_reject(reject: float, called: str) -> None:
    if not 0 <= reject <= 1:
        raise FitError("no such probability", called=called, expected="reject from 0 to 1", got=f"reject={reject!r}")


def _as_probs(probs: Any, called: str) -> np.ndarray:
    probs = np.asarray(as_array(probs, name="probs", called=called), np.float64)
    sums = probs.sum(axis=-1)
    if (probs < 0).any() or not np.allclose(sums, 1, atol=1e-3):
        raise DataError("these are no probabilities", called=called, expected="0 or more, with a sum of 1",
                        got=f"numbers from {probs.min():g}, sums from {sums.min():g} to {sums.max():g}")  # fmt: skip
    return probs


def tempered(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities to the power of an inverse temperature, over their sum.

    Example:
        >>> tempered(np.array([0.8, 0.2]), 2.0).round(3).tolist()
        [0.667, 0.333]
    """
    with np.errstate(divide="ignore"):
        logs = np.log(probs) / temperature
    best = logs.max(axis=-1, keepdims=True)
    shares = np.exp(logs - np.where(np.isfinite(best), best, 0))
    total = shares.sum(axis=-1, keepdims=True)
    return np.where(total > 0, shares / np.where(total > 0, total, 1), 1 / probs.shape[-1])


def temperature(probs: Any, label: Any) -> float:
    """Return the temperature at which class probabilities are best calibrated on labelled events.

    It minimises `-mean_n log p_T(c_n | x_n)`, `p_T(c | x) ~ p(c | x)^(1 / T)`: above 1 where they are too sure.

    Args:
        probs: `[*batch, C]`, of events that the fit has not seen.
        label: `[*batch]`, whole numbers from 0, -1 where not known.

    Raises:
        DataError: what are no probabilities, no labels, or a label of probability 0. ShapeError: other shapes.

    Example:
        >>> probs = np.array([[0.99, 0.01], [0.99, 0.01], [0.99, 0.01], [0.99, 0.01]])
        >>> round(temperature(probs, [0, 0, 0, 1]), 2)  # right three times of four
        4.18
    """
    # imported here: scipy's optimisers take a while, and nothing else needs them
    from scipy.optimize import minimize_scalar

    called = "temperature(probs, label)"
    probs = _as_probs(probs, called)
    if np.shape(label) != probs.shape[:-1]:
        raise ShapeError("there is a label for each event", called=called, expected=f"label {list(probs.shape[:-1])}",
                         got=f"shape {list(np.shape(label))}")  # fmt: skip
    probs = probs.reshape(-1, probs.shape[-1])
    label = checked_labels(np.ravel(np.asarray(label)), len(probs), called, classes=probs.shape[1], unknown=True)
    probs, label = probs[label >= 0], label[label >= 0]
    # what was rounded to zero is as unlikely as the smallest number there is
    logs = np.log(np.maximum(probs, np.finfo(np.float32).tiny))

    def loss(log_temperature: float) -> float:
        scaled = logs * math.exp(-log_temperature)
        best = scaled.max(axis=1)
        total = best + np.log(np.exp(scaled - best[:, None]).sum(axis=1))
        return float(np.mean(total - scaled[np.arange(len(label)), label]))

    limit = math.log(HOTTEST)
    return math.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6}).x)


def decide(probs: Any, *, reject: float = 0.0) -> np.ndarray:
    """Return the likeliest classes, int32 `[*batch]`, and -1 where their probability is below `reject`.

    Where an error costs 1 and an open decision d, it is best to reject below `1 - d`.

    Args:
        probs: `[*batch, C]`.
        reject: from 0 to 1.

    Raises:
        FitError: no such probability. DataError: rows that do not add up to 1.

    Source: Chow (1970), On optimum recognition error and reject tradeoff.

    Example:
        >>> decide([[0.9, 0.1], [0.5, 0.5]], reject=0.6).tolist()
        [0, -1]
    """
    called = "decide(probs)"
    _check_reject(reject, called)
    probs = _as_probs(probs, called)
    return np.where(probs.max(axis=-1) >= reject, probs.argmax(axis=-1), -1).astype(np.int32)
