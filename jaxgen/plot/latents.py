"""Pictures of latent variables: where events lie, and what a decoder makes of places and of ways between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from jaxgen.core.errors import DataError, ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.plot.pictures import images
from jaxgen.plot.style import DATA, INK, MARKERS, PALETTE, clean, component_colour, dot_size


def latent_map(z: Any, ax: Axes | None = None, *, label: Any = None) -> Axes:
    """Latent vectors in the plane, coloured by class; of more than two coordinates their first two principal ones.

    Args:
        z: `[N, L]`, such as `vae.encode(x)`; L of 2 or more.
        ax: where to draw; None takes the current axis.
        label: classes `[N]`, ints; -1 where not known, which is grey. None colours nothing.

    Raises:
        ShapeError: no vectors of two or more coordinates, or another number of labels.
    """
    z = np.asarray(as_array(z, name="z"), np.float64)
    if z.ndim != 2 or z.shape[1] < 2:
        raise ShapeError(
            "only latent vectors of two coordinates or more make a map", called="latent_map(z)", expected="[N, L]",
            got=f"shape {list(z.shape)}", fix="jaxgen.plot.histogram(None, z), of one coordinate",
        )  # fmt: skip
    named = z.shape[1] == 2
    if not named:
        centered = z - z.mean(axis=0)
        z = centered @ np.linalg.svd(centered, full_matrices=False)[2][:2].T
    label = np.full(len(z), -1) if label is None else np.asarray(as_array(label, name="label"))
    if label.shape != (len(z),):
        raise ShapeError(
            "there is a label for each latent vector", called="latent_map(z, label=...)", expected=f"[{len(z)}]",
            got=f"shape {list(label.shape)}",
        )  # fmt: skip
    ax = clean(ax)
    known = sorted({int(k) for k in label if k >= 0})
    for k in ([-1] if (label < 0).any() else []) + known:
        rows = z[label == k] if k >= 0 else z[label < 0]
        colour = DATA if k < 0 else component_colour(k)
        name = None if k < 0 else str(k)
        # ten classes are more than there are colours: those beyond have another mark
        marker = MARKERS[max(k, 0) // len(PALETTE) % len(MARKERS)]
        ax.scatter(
            rows[:, 0], rows[:, 1], s=dot_size(len(z)), color=colour, marker=marker, linewidths=0, label=name
        )  # fmt: skip
    if known:
        ax.legend(
            frameon=False, fontsize=9, markerscale=3, handletextpad=0.1, labelcolor=INK, loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
        )  # fmt: skip
    names = ("first latent", "second latent") if named else ("first principal latent", "second principal latent")
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    return ax


def traversals(
    model: Any, z: Any, ax: Axes | None = None, *, coordinates: Sequence[int] | None = None, reach: float = 2.5,
    steps: int = 9, context: Any = None,
) -> Axes:  # fmt: skip
    """Pictures along each coordinate of a latent vector, a row for each, the others held.

    Args:
        model: has `decode(z) -> [*batch, height, width]`.
        z: the vector to start from, `[L]`.
        ax: where to draw; None takes the current axis.
        coordinates: which ones; None takes all.
        reach: how far to either side of z, in units of the latent: standard deviations of a standard normal prior.
        steps: pictures in a row.
        context: `[*context]`, of a model that takes one.

    Raises:
        ShapeError: not one vector, or no pictures. DataError: coordinates that are not there, or fewer than 2 steps.
    """
    z = np.asarray(as_array(z, name="z"), np.float32)
    if z.ndim != 1:
        raise ShapeError("a traversal starts from one latent vector", called="traversals(model, z)", expected="[L]",
                         got=f"shape {list(z.shape)}", fix="z[0], the first of them")  # fmt: skip
    chosen = list(range(len(z))) if coordinates is None else [int(i) for i in coordinates]
    if not chosen or not all(0 <= i < len(z) for i in chosen) or steps < 2:
        raise DataError(
            "there is no such way through the latent", called="traversals(model, z, coordinates=..., steps=...)",
            expected=f"coordinates from 0 to {len(z) - 1}, steps of 2 or more", got=f"{chosen}, steps={steps}",
        )  # fmt: skip
    places = np.repeat(z[None, None], len(chosen), axis=0).repeat(steps, axis=1)
    for row, i in enumerate(chosen):
        places[row, :, i] += np.linspace(-reach, reach, steps, dtype=np.float32)
    return _decoded(model, places.reshape(-1, len(z)), ax, steps, context)


def interpolation(
    model: Any, a: Any, b: Any, ax: Axes | None = None, *, steps: int = 9, spherical: bool = False, context: Any = None
) -> Axes:
    """Pictures on the way from one latent vector to another, a row for each pair.

    Straight `(1 - t) a + t b`, or on a great circle `sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b`, w the angle
    between them, which keeps to where a normal of many coordinates has its mass.

    Args:
        model: has `decode(z) -> [*batch, height, width]`.
        a, b: `[L]` or `[N, L]`.
        ax: where to draw; None takes the current axis.
        steps: pictures in a row, both ends included.
        spherical: along the great circle.
        context: `[*context]`, of a model that takes one.

    Raises:
        ShapeError: vectors of different shapes. DataError: fewer than 2 steps.

    Source: White (2016), Sampling generative networks, for the great circle.
    """
    a, b = (np.atleast_2d(np.asarray(as_array(one, name="a"), np.float64)) for one in (a, b))
    if a.shape != b.shape or steps < 2:
        raise ShapeError(
            "the ends of a way are two latent vectors", called="interpolation(model, a, b)",
            expected="shapes [L] or [N, L], both the same, and steps of 2 or more",
            got=f"{list(a.shape)} and {list(b.shape)}, steps={steps}",
        )  # fmt: skip
    return _decoded(model, between(a, b, steps, spherical).reshape(-1, a.shape[1]), ax, steps, context)


def between(a: np.ndarray, b: np.ndarray, steps: int, spherical: bool) -> np.ndarray:
    """Return points on the ways between rows of a and b, `[N, L] -> [N, steps, L]`.

    Example:
        >>> between(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), 3, True).round(3).tolist()
        [[[1.0, 0.0], [0.707, 0.707], [0.0, 1.0]]]
    """
    t = np.linspace(0, 1, steps)[None, :, None]
    a, b = a[:, None], b[:, None]
    lengths = np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(b, axis=-1, keepdims=True)
    cosine = np.sum(a * b, axis=-1, keepdims=True) / np.maximum(lengths, np.finfo(float).tiny)
    angle = np.arccos(np.clip(cosine, -1, 1))
    # of vectors along one line there is no great circle, or no one
    bent = spherical & (np.sin(angle) > 1e-6)
    sine = np.where(bent, np.sin(angle), 1)
    first, second = np.sin((1 - t) * angle) / sine, np.sin(t * angle) / sine
    return np.where(bent, first * a + second * b, (1 - t) * a + t * b)


def reconstructions(
    model: Any, x: Any, ax: Axes | None = None, *, columns: int | None = None, context: Any = None
) -> Axes:
    """Pictures, and below each what is left of it after its latent: rows of events and of `model.reconstruct` in turn.

    Args:
        model: has `reconstruct(x)`, as a `VAE` has.
        x: `[N, height, width]`, with a last axis of 1 or 3 of colours.
        ax: where to draw; None takes the current axis.
        columns: pictures in a row; None takes 10.
        context: `[N, *context]`, of a model that takes one.

    Raises:
        ShapeError: not a batch of pictures.
    """
    given = {} if context is None else {"context": context}
    x = np.asarray(as_array(x, name="x"), np.float64)
    rebuilt = np.asarray(model.reconstruct(jnp.asarray(x, jnp.float32), **given), np.float64)
    columns = min(len(x), 10) if columns is None else columns
    full = len(x) // columns * columns
    shown = [np.concatenate([x[i : i + columns], rebuilt[i : i + columns]]) for i in range(0, max(full, 1), columns)]
    return images(np.concatenate(shown), ax, columns=columns)


def _decoded(model: Any, z: np.ndarray, ax: Axes | None, columns: int, context: Any) -> Axes:
    given = {} if context is None else {"context": context}
    return images(np.asarray(model.decode(jnp.asarray(z, jnp.float32), **given)), ax, columns=columns)
