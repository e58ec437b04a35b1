"""Graphs on the host: what a sampler wants to know of a graph before anything is compiled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import ModelError, ShapeError

__all__ = ["Neighbours", "colouring", "lattice", "neighbours"]


def lattice(shape: tuple[int, ...], *, periodic: bool = True) -> np.ndarray:
    """The edges between next neighbours of a rectangular lattice, `[E, 2]`; sites are numbered row by row.

    Args:
        shape: sites along each axis.
        periodic: whether the last site of an axis is next to the first, as on a ring; axes of two sites have one edge.

    Example:
        >>> lattice((2, 2)).tolist()
        [[0, 2], [1, 3], [0, 1], [2, 3]]
    """
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    pairs = []
    for axis, n in enumerate(shape):
        last = n if periodic and n > 2 else n - 1
        here = np.take(numbers, np.arange(last), axis)
        pairs.append(np.stack([here, np.take(numbers, (np.arange(last) + 1) % n, axis)], axis=-1).reshape(-1, 2))
    return np.concatenate(pairs).astype(np.int32) if pairs else np.zeros((0, 2), np.int32)


def colouring(edges: Any, n: int) -> np.ndarray:
    """A number for each of n sites that differs at the two ends of every edge.

    Greedy, sites of most neighbours first, each by the least used of the colours that are free to it: at most one
    colour more than the largest number of neighbours, and about as many sites of each.

    Args:
        edges: `[E, 2]`, from 0 to n - 1, no site with itself.
        n: number of sites.

    Returns:
        `[n]`, from 0.

    Source: Welsh and Powell (1967), An upper bound for the chromatic number of a graph and its application to
    timetabling problems.

    Example:
        >>> sorted(colouring([[0, 1], [1, 2], [0, 2]], 3).tolist())
        [0, 1, 2]
    """
    near: list[list[int]] = [[] for _ in range(n)]
    for i, j in np.asarray(edges).reshape(-1, 2).tolist():
        near[i].append(j)
        near[j].append(i)
    colour = np.full(n, -1)
    used: list[int] = []
    for site in sorted(range(n), key=lambda i: -len(near[i])):
        taken = {int(colour[j]) for j in near[site]}
        free = [(count, c) for c, count in enumerate(used) if c not in taken]
        if not free:
            free = [(0, len(used))]
            used.append(0)
        colour[site] = min(free)[1]
        used[colour[site]] += 1
    return colour


class Neighbours(NamedTuple):
    """Sites by colour, with their neighbours: C colours of at most M sites, each of at most D neighbours.

    Args:
        sites: `[C, M]`, filled up with the number of sites.
        others: `[C, M, D]`, the neighbours, filled up with zeros.
        edges: `[C, M, D]`, the edges to them, filled up with the number of edges.
    """

    sites: np.ndarray
    others: np.ndarray
    edges: np.ndarray


def neighbours(edges: Any, n: int) -> Neighbours:
    """The tables of a graph for sweeps that update all sites of one colour at once.

    Args:
        edges: `[E, 2]` whole numbers from 0 to n - 1; each pair of sites at most once, no site with itself.
        n: number of sites, 1 or more.

    Raises:
        ShapeError, ModelError: edges that are none of such a graph.

    Example:
        >>> neighbours([[0, 1], [1, 2]], 3).sites.tolist()  # a path of three: the middle, and both ends
        [[1, 3], [0, 2]]
    """
    edges, called = np.asarray(edges), "neighbours(edges, n)"
    edges = edges.reshape((-1, 2)) if edges.size == 0 else edges
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise ShapeError("edges are pairs of sites", called=called, expected="[E, 2]", got=f"shape {list(edges.shape)}")
    if n < 1 or (edges.size and (edges.dtype.kind not in "iu" or edges.min() < 0 or edges.max() >= n)):
        raise ModelError(
            "an edge leads to no site", called=called, expected=f"n >= 1, whole numbers from 0 to {n - 1}",
            got=f"{edges.dtype} from {edges.min()} to {edges.max()}" if edges.size else f"n = {n}",
        )  # fmt: skip
    low, high = np.sort(edges, axis=1).T
    pairs = low.astype(np.int64) * n + high
    if (low == high).any() or len(np.unique(pairs)) < len(pairs):
        raise ModelError(
            "an edge is there twice, or leads from a site to itself", called=called, expected="each pair once",
            got=f"{int((low == high).sum())} of a site with itself, {len(pairs) - len(np.unique(pairs))} repeated",
            fix="add up the couplings of repeated edges; those of a site with itself belong to its units",
        )  # fmt: skip
    colour = colouring(edges, n)
    # both directions of every edge, ordered by the site that they leave
    ends = np.concatenate([edges, edges[:, ::-1]]).reshape(-1, 2)
    number = np.tile(np.arange(len(edges)), 2)
    order = np.argsort(ends[:, 0], kind="stable")
    ends, number = ends[order], number[order]
    degree = np.bincount(ends[:, 0], minlength=n)
    place = np.arange(len(ends)) - np.repeat(np.cumsum(degree) - degree, degree)
    rows = [np.flatnonzero(colour == c) for c in range(colour.max() + 1)]
    sites = np.full((len(rows), max(map(len, rows))), n, np.int32)
    table = np.zeros((2, n, max(1, int(degree.max(initial=0)))), np.int32)
    table[1] = len(edges)
    table[0, ends[:, 0], place], table[1, ends[:, 0], place] = ends[:, 1], number
    blank = np.broadcast_to(np.array([0, len(edges)], np.int32)[:, None, None], (2, 1, table.shape[2]))
    table = np.concatenate([table, blank], axis=1)
    for c, row in enumerate(rows):
        sites[c, : len(row)] = row
    return Neighbours(sites, table[0][sites], table[1][sites])
