"""Watchers, which look at a fit between its steps and may end it: the public names of `jaxgen.fit.watch`."""

from jaxgen.fit.watch import CSV, JSONL, Closing, Every, Progress, Samples, Scalars, Watcher

__all__ = ["CSV", "JSONL", "Closing", "Every", "Progress", "Samples", "Scalars", "Watcher"]


def __dir__() -> list[str]:
    return __all__
