"""Scores: numbers of nats per event that say what kind of number they are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from jaxgen.core import markup
from jaxgen.core.protocols import Kind


def plus_minus(value: float, error: float) -> str:
    """A number with its standard error, where there is one.

    Example:
        >>> plus_minus(-2.5, 0.1), plus_minus(-2.5, float("nan"))
        ('-2.5000 ± 0.1000', '-2.5000')
    """
    return f"{value:.4f} ± {error:.4f}" if math.isfinite(error) else f"{value:.4f}"


class Measured(NamedTuple):
    """Data that say in words what they are measured in: numbers of data in different spaces are not compared.

    `data.binarized` and `data.dequantized` make some; `jaxgen.score` and `metrics.bounds` take them, and print it.

    Args:
        x: events `[N, *event]`.
        space: what was done to get them, and by which seed.
    """

    x: Any
    space: str


def as_measured(data: Any, space: str = "") -> tuple[Any, str]:
    """Return data and what they are measured in, as they say or as told."""
    return (data.x, space or data.space) if isinstance(data, Measured) else (data, space)


class Score(NamedTuple):
    """A mean over events that says what kind of number it is.

    Args:
        mean: nats per event.
        standard_error: of the mean, nats; over events. NaN where none is known: of one event, or of no finite mean.
        kind: what the number means.
        events: how many events.
        low, high: of an estimate that was bracketed, the bounds that it lies between, nats; None of all others.
        space: in words what the data are measured in, where they say so (`data.binarized`).

    Example:
        >>> print(Score(-84.5, 0.2, Kind.ESTIMATE, 100, -84.6, -84.4))
        -84.5000 ± 0.2000 in [-84.6000, -84.4000] nats per event (estimate, 100 events)
        >>> print(Score(-84.5, float("nan"), Kind.EXACT, 1))
        -84.5000 nats per event (exact, 1 event, no standard error)
    """

    mean: float
    standard_error: float
    kind: Kind
    events: int
    low: float | None = None
    high: float | None = None
    space: str = ""

    def __str__(self) -> str:
        within = "" if self.low is None else f" in [{self.low:.4f}, {self.high:.4f}]"
        about = f"{self.kind}, {self.events} event{'s' * (self.events != 1)}"
        about += "" if math.isfinite(self.standard_error) else ", no standard error"
        about += f", of {self.space}" if self.space else ""
        return f"{plus_minus(self.mean, self.standard_error)}{within} nats per event ({about})"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [("nats per event", plus_minus(self.mean, self.standard_error)), ("kind", self.kind),
                ("events", self.events)]  # fmt: skip
        within = [] if self.low is None else [("bounds", f"{self.low:.4f} to {self.high:.4f}")]
        space = [("space", self.space)] if self.space else []
        return markup.table([*rows, *within, *space], "Score")
