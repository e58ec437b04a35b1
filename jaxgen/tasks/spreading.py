"""Labels that spread from the few events that have them to their neighbours, and on from there."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import FitError, ShapeError
from jaxgen.core.labels import checked_labels
from jaxgen.core.methods import is_count
from jaxgen.ops.distances import over_rows, squared_distances
from jaxgen.ops.scales import seen_numbers

#: the largest change of a share after which spreading ends, and its steps at most
CHANGE, STEPS = 1e-5, 2000


def spread_labels(
    z: Any, label: Any, *, classes: int | None = None, neighbours: int = 10, reach: float = 0.99
) -> np.ndarray:
    """Return class probabilities of all events, of which few have labels: close events have the same class.

    `F = (1 - reach) (1 - reach S)^-1 Y`, rows divided by their sums; S the graph of nearest neighbours with weights
    `exp(-|z_i - z_j|^2 / (s_i s_j))`, `s_i` the distance to the last of the neighbours, divided by the roots of both
    ends' sums. Classes are put on an equal footing: the columns of Y are over the number of labels in them.

    It speaks of these events alone (transductive). In features where distance means something, such as a model's
    latents, it follows the shape of the data.

    Args:
        z: `[N, F]`, such as `features(model, x)`.
        label: `[N]`, whole numbers from 0, -1 where not known.
        classes: their number C; None is one more than the largest label.
        neighbours: of each event, 1 to N - 1.
        reach: how far labels spread: the share that an event takes from its neighbours, above 0 and below 1.

    Returns:
        `[N, C]`; equal shares where no label gets to.

    Raises:
        ShapeError: no table, another number of labels. DataError: NaN, no label. FitError: options that are none.

    Source: Zhou, Bousquet, Lal, Weston and Schölkopf (2004), Learning with local and global consistency; Zelnik-Manor
    and Perona (2004), Self-tuning spectral clustering, for the scales.

    Example:
        >>> z = [[0.0], [0.1], [0.25], [5.0], [5.2], [5.3]]
        >>> spread_labels(z, [0, -1, -1, -1, -1, 1], neighbours=2).argmax(axis=1).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    called = "spread_labels(z, label)"
    z = jnp.asarray(seen_numbers(z, called, name="z"), jnp.result_type(float))
    if z.ndim != 2:
        raise ShapeError("features are rows of one length", called=called, expected="z [N, F]",
                         got=f"shape {list(z.shape)}", fix="z.reshape(len(z), -1)" if z.ndim > 2 else "")  # fmt: skip
    if not (is_count(neighbours, 1) and neighbours < len(z)):
        raise FitError("there are no such neighbours", called=called, expected=f"1 to {len(z) - 1}",
                       got=f"neighbours={neighbours!r}")  # fmt: skip
    if not 0 < reach < 1:
        raise FitError("no such share", called=called, expected="reach above 0 and below 1", got=f"reach={reach!r}")
    label = checked_labels(label, len(z), called, classes=classes, unknown=True, numbered=True)
    size = int(label.max()) + 1 if classes is None else classes
    start = np.zeros((len(z), size))
    start[label >= 0, label[label >= 0]] = 1
    start /= np.maximum(start.sum(axis=0), 1)
    found = np.asarray(_spread(*_graph(z, neighbours), jnp.asarray(start, z.dtype), reach), np.float64)
    total = found.sum(axis=1, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1), 1 / size)


@functools.partial(jax.jit, static_argnums=1)
def _graph(z: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k nearest others of each row and the weights of these edges, `[N, k]` both, over the roots of sums."""

    def one(rows: Any, index: Any) -> Any:
        squares = squared_distances(rows, z)
        away, near = jax.lax.top_k(-jnp.where(index[:, None] == jnp.arange(len(z)), jnp.inf, squares), k)
        return near, -away

    near, squares = over_rows(one, z, len(z))
    last = jnp.sqrt(squares[:, -1])
    scales = last[:, None] * last[near]
    # of events that lie in one place the distances are 0, and so may be their scales
    weight = jnp.where(squares > 0, jnp.exp(-squares / jnp.where(scales > 0, scales, 1)), 1)
    weight = jnp.where((squares > 0) & (scales == 0), 0, weight)
    total = jnp.sum(weight, axis=1).at[near].add(weight)  # of both directions of an edge
    root = jnp.sqrt(jnp.where(total > 0, total, 1))
    return near, weight / (root[:, None] * root[near])


@jax.jit
def _spread(near: Any, weight: Any, start: Any, reach: Any) -> jax.Array:
    def step(carry: Any) -> Any:
        share, count, _ = carry
        there = jnp.einsum("nk,nkc->nc", weight, share[near], precision="highest")
        back = jnp.zeros_like(share).at[near].add(weight[..., None] * share[:, None])
        new = reach * (there + back) + (1 - reach) * start
        return new, count + 1, jnp.max(jnp.abs(new - share)) / jnp.max(new)

    on = lambda carry: (carry[1] < STEPS) & (carry[2] > CHANGE)  # noqa: E731
    return jax.lax.while_loop(on, step, (start, 0, jnp.asarray(jnp.inf, start.dtype)))[0]
