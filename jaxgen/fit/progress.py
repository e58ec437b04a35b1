"""A bar on standard error while somebody watches."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from typing import Any

from jaxgen.fit.loop import Status
from jaxgen.fit.watch import Progress, latest

#: before anything was measured there is no rate and no time that is left
BEGINNING = "{desc}{n_fmt}/{total_fmt}"


def watched(progress: bool | None) -> bool:
    """True if a progress bar is to be shown; None shows it where somebody watches: on a terminal and in a notebook.

    Not in the log of a continuous integration, which may pretend to be a terminal.
    """
    if progress is not None:
        return bool(progress)
    if os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


def make_bar(total: int, unit: str, **options: Any) -> Any:
    """A bar of tqdm: a widget where there are such, else text."""
    with warnings.catch_warnings():  # a notebook without widgets gets the bar of text, and needs no warning
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

        # a terminal that knows no size of its own, as of a container, has one all the same
        size = shutil.get_terminal_size()
        sized = {"dynamic_ncols": True} if _terminal_size() else {"ncols": size.columns, "nrows": size.lines}
        return tqdm(total=total, unit=unit, **sized, **options)


def _terminal_size() -> bool:
    """True unless standard error is a terminal of no columns or no rows."""
    try:
        return all(os.get_terminal_size(sys.stderr.fileno()))
    except (OSError, ValueError, AttributeError):  # no terminal, or not even a file
        return True


class Bar:
    """The bar of one fit: says that it compiles, then steps and metrics, and stays with the reason of the end.

    Args:
        steps: how many there will be at most.
        shown: False makes a bar of nothing.
    """

    def __init__(self, steps: int, shown: bool):
        self._steps, self._shown, self._bar = steps, shown, None

    def begin(self, step: int) -> None:
        """Before anything is compiled; so many steps are there of a fit that resumes."""
        if self._shown:
            self._bar = make_bar(self._steps, "step", initial=step, desc="compiling: ", bar_format=BEGINNING)

    def compiled(self) -> None:
        """Only steps count from now on, in the rate and in what is left."""
        if self._bar is not None:
            self._bar.unpause()
            self._bar.set_description("fitting", refresh=True)

    def __call__(self, progress: Progress[Any]) -> None:
        """Show how far it is."""
        if self._bar is None:
            return
        self._bar.bar_format = None
        metrics = progress.metrics
        shown = [f"{name} {latest(metrics[name]):.4f}" for name in (progress.monitor, "validation") if name in metrics]
        self._bar.set_postfix_str(", ".join(shown), refresh=False)
        self._bar.update(progress.step - self._bar.n)

    def close(self, status: Status) -> None:
        """The bar stays, with the reason why the fit ended."""
        if self._bar is not None:
            self._bar.set_description(status.name.lower().replace("_", " "), refresh=False)
            self._bar.refresh()
            self._bar.close()
