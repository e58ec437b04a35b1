"""Seconds of a fit without those that went into compiling, whoever compiled and whenever."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

import jax


class _Compiled(threading.local):
    """The time that this thread has spent on tracing and compiling."""

    def __init__(self) -> None:
        self.settled = 0.0
        #: spans `(from, to)` that do not overlap; one that comes later may hold several of them
        self.spans: list[tuple[float, float]] = []

    def add(self, seconds: float) -> None:
        """A span of so many seconds ends now; the spans inside of it, of what was traced on its way, go into it."""
        end = time.perf_counter()
        begin = end - seconds
        while self.spans and self.spans[-1][1] > begin:
            begin = min(begin, self.spans.pop()[0])
        self.spans.append((begin, end))

    def settle(self) -> None:
        """Nothing is being compiled now: the spans are as long as they will be."""
        self.settled, self.spans = self.total(), []

    def total(self) -> float:
        return self.settled + sum(end - begin for begin, end in self.spans)


_COMPILED = _Compiled()


@functools.cache
def _listen() -> None:
    def heard(event: str, duration_secs: float, **_: Any) -> None:
        if "/compile/" in event:
            _COMPILED.add(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(heard)


class Clock:
    """Tells how long a fit has been at work, and how long JAX compiled meanwhile.

    Example:
        >>> clock = Clock()
        >>> clock.working <= clock.elapsed, clock.compiling
        (True, 0.0)
    """

    def __init__(self) -> None:
        _listen()
        _COMPILED.settle()
        self._begun, self._compiled = time.perf_counter(), _COMPILED.total()

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._begun

    @property
    def compiling(self) -> float:
        """Seconds of those in which this thread traced and compiled."""
        return _COMPILED.total() - self._compiled

    @property
    def working(self) -> float:
        """The rest of them."""
        return max(self.elapsed - self.compiling, 0.0)
