"""The watch over a Baum-Welch fit, which tells when it is over; with hmmlearn's attributes."""

from __future__ import annotations

import logging
import sys
from collections import deque

import numpy as np

LOG = logging.getLogger(__name__)


class ConvergenceMonitor:
    """Keeps the log-likelihoods of a fit; put one of your own, with another `converged`, in place of `monitor_`.

    Args:
        tol: the gain in log-likelihood, nats, below which a fit has converged.
        n_iter: steps after which it is over anyhow.
        verbose: whether each step is printed to the standard error.

    Attributes:
        history: log-likelihoods before each step, nats.
        iter: steps made.

    Example:
        >>> monitor = ConvergenceMonitor(0.1, 10, False)
        >>> for value in (-5.0, -4.0, -3.99):
        ...     monitor.report(value)
        >>> monitor.converged, monitor.iter
        (True, 3)
    """

    def __init__(self, tol: float, n_iter: int, verbose: bool) -> None:
        self.tol, self.n_iter, self.verbose = tol, n_iter, verbose
        self.history: deque[float] = deque()
        self.iter = 0

    def reset(self) -> None:
        """Forget the last fit."""
        self.iter = 0
        self.history.clear()

    def report(self, log_prob: float) -> None:
        """Take note of the log-likelihood before a step."""
        change = log_prob - self.history[-1] if self.history else np.nan
        if self.verbose:
            print(f"{self.iter + 1:>10d} {log_prob:>16.8f} {change:>+16.8f}", file=sys.stderr)
        if change < -(np.finfo(float).eps ** 0.5):
            LOG.warning("Model is not converging: %s is below %s, by %s.", log_prob, self.history[-1], -change)
        self.history.append(log_prob)
        self.iter += 1

    @property
    def converged(self) -> bool:
        """True after `n_iter` steps, or one that gained less than `tol`."""
        rose = len(self.history) < 2 or self.history[-1] - self.history[-2] >= self.tol
        return self.iter == self.n_iter or not rose
