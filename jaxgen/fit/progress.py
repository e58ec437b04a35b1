"""A bar on standard error while somebody watches."""

from __future__ import annotations

import sys
from typing import Any


class _NoBar:
    """Stands in for a progress bar where nobody watches."""

    disable = True

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: Any) -> None: ...

    def update(self, _: int) -> None: ...


def bar(total: int, progress: bool | None) -> Any:
    """A progress bar of so many steps; None shows it on a terminal only."""
    if not (sys.stderr.isatty() if progress is None else progress):
        return _NoBar()
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="step", leave=False, dynamic_ncols=True)
