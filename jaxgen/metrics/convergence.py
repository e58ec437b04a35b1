"""The numbers that tell whether Markov chains have forgotten where they began."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgen.core.errors import ShapeError


def r_hat(draws: Any) -> np.ndarray:
    """Return the split potential scale reduction of each coordinate: 1 where all chains have the same distribution.

    `sqrt(((n - 1) W / n + B / n) / W)`, with W the mean variance in halves of chains of n draws, and B / n the variance
    of their means

    Args:
        draws: `[C, N, D]`, of C chains, N of 4 or more.

    Returns:
        `[D]`; 1.01 is good, 1.1 is not. A coordinate that never moved has NaN.

    Raises:
        ShapeError: draws of other axes, or chains that are too short.

    Source: Gelman, Carlin, Stern, Dunson, Vehtari and Rubin (2013), Bayesian data analysis, section 11.4.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(4, 500, 1))
        >>> r_hat(draws).round(2).tolist(), r_hat(draws + np.arange(4)[:, None, None]).round(1).tolist()
        ([1.0], [1.6])
    """
    halves = _split(draws, "metrics.r_hat(draws)")
    within, total = _variances(halves)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(total / within)


def effective_size(draws: Any) -> np.ndarray:
    """Return how many independent draws the mean of each coordinate is worth.

    `C N / (1 + 2 sum_t rho_t)`, with correlations of all chains together, so that chains that disagree count for
    little, summed as long as pairs of neighbours are positive

    Args:
        draws: `[C, N, D]`, of C chains, N of 4 or more.

    Returns:
        `[D]`, at most C N; 0 for a coordinate that never moved.

    Raises:
        ShapeError: draws of other axes, or chains that are too short.

    Source: Gelman et al. (2013), Bayesian data analysis, section 11.5; Geyer (1992), Practical Markov chain
    Monte Carlo.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(8, 1000, 1))
        >>> walk = np.zeros_like(noise)
        >>> for t in range(1, 1000):
        ...     walk[:, t] = 0.5 * walk[:, t - 1] + noise[:, t]
        >>> bool(abs(effective_size(walk)[0] / (8000 / 3) - 1) < 0.15)  # (1 - .5) / (1 + .5) of the draws
        True
    """
    halves = _split(draws, "metrics.effective_size(draws)")
    chains, n, _ = halves.shape
    within, total = _variances(halves)
    centered = halves - halves.mean(axis=1, keepdims=True)
    sizes = []
    for d in range(halves.shape[2]):
        if not total[d] > 0:
            sizes.append(0.0)
            continue
        spectrum = np.abs(np.fft.rfft(centered[:, :, d], 2 * n, axis=1)) ** 2
        covariance = np.fft.irfft(spectrum, axis=1)[:, :n].mean(axis=0) / n
        # of variances with n - 1: the first is that of `within`
        rho = 1 - (within[d] - covariance * n / (n - 1)) / total[d]
        pairs = rho[: n - n % 2].reshape(-1, 2).sum(axis=1)
        end = int(np.argmax(pairs < 0)) if (pairs < 0).any() else len(pairs)
        sizes.append(chains * n / max(2 * pairs[:end].sum() - 1, 1))
    return np.asarray(sizes)


def _split(draws: Any, called: str) -> np.ndarray:
    """Both halves of each chain as chains of their own, `[2 C, N / 2, D]`."""
    draws = np.asarray(draws, np.float64)
    if draws.ndim != 3 or draws.shape[1] < 4 or not draws.size:
        raise ShapeError("those are no chains", called=called, expected="draws [C, N, D], N of 4 or more",
                         got=f"shape {list(draws.shape)}")  # fmt: skip
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _variances(halves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean variance inside of chains, and that of all together."""
    n = halves.shape[1]
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    return within, (n - 1) / n * within + halves.mean(axis=1).var(axis=0, ddof=1)
