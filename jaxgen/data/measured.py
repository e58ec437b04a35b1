"""Data in another space than they came in, which say how: bits of grey levels, numbers of counts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import DataError
from jaxgen.core.inputs import as_array
from jaxgen.core.methods import is_count
from jaxgen.core.scores import Measured

#: how far beyond 1 a grey level may be: x * (1 / 255) ends at 1.0000001 in float32
SLACK = 1e-5


def binarized(seed: int, x: Any) -> Measured:
    """Draws bits that are one with the probabilities x: the same bits at every call with a seed.

    Args:
        seed: a whole number, 0 or more; it is in the words.
        x: probabilities, such as grey levels over the highest one.

    Returns:
        `Measured`: bits of the shape of x, float32, and words for `score` and `bounds` to print.

    Raises:
        DataError: a seed that is none, or numbers outside of [0, 1].

    Source: Salakhutdinov and Murray (2008), On the quantitative analysis of deep belief networks.

    Example:
        >>> bits = binarized(0, [[0.0, 1.0, 0.5]])
        >>> bits.x[0, :2].tolist(), bits.space
        ([0.0, 1.0], 'bits, Bernoulli(x) of seed 0')
    """
    called = "binarized(seed, x)"
    shares = _numbers(seed, x, called)
    if shares.min() < 0 or shares.max() > 1 + SLACK:
        raise DataError(
            "x are no probabilities", called=called, expected="numbers from 0 to 1",
            got=f"{shares.min()} to {shares.max()}", fix="x / np.max(x) of grey levels",
        )  # fmt: skip
    drawn = jax.random.bernoulli(jax.random.key(seed), jnp.asarray(shares, jnp.float32))
    return Measured(drawn.astype(jnp.float32), f"bits, Bernoulli(x) of seed {seed}")


def dequantized(seed: int, x: Any, *, levels: int = 256) -> Measured:
    """Adds uniform noise to whole numbers and scales them to [0, 1): `(x + u) / levels`, the same at every call.

    A mean log-density of these is at most `D log levels` nats above the mean log-probability of the whole numbers; see
    `Dequantized` for a model of the numbers themselves.

    Args:
        seed: a whole number, 0 or more; it is in the words.
        x: whole numbers from 0.
        levels: how many there are, 2 or more.

    Raises:
        DataError: a seed that is none, or numbers that are no levels.

    Source: Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, section 3.1.

    Example:
        >>> numbers = dequantized(3, [[0, 255]])
        >>> (numbers.x * 256).astype(int).tolist(), numbers.space
        ([[0, 255]], '(x + uniform) / 256 of seed 3')
    """
    called = f"dequantized(seed, x, levels={levels})"
    whole = _numbers(seed, x, called)
    if not is_count(levels, 2) or whole.min() < 0 or whole.max() > levels - 1 or (whole != np.floor(whole)).any():
        raise DataError(
            "x are no levels", called=called, expected=f"whole numbers from 0 to {levels - 1}",
            got=f"{whole.min()} to {whole.max()}", fix="np.round(x * 255) of grey levels from 0 to 1",
        )  # fmt: skip
    noise = jax.random.uniform(jax.random.key(seed), whole.shape)
    # in float32 255 + u may round to 256, which is outside
    moved = jnp.minimum((jnp.asarray(whole, jnp.float32) + noise) / levels, 1 - 2.0**-24)
    return Measured(moved, f"(x + uniform) / {levels} of seed {seed}")


def _numbers(seed: Any, x: Any, called: str) -> np.ndarray:
    if not is_count(seed):
        raise DataError("a seed is a whole number", called=called, expected="0, 1, 2, ...", got=repr(seed)[:60])
    return np.asarray(as_array(x, name="x", called=called))
