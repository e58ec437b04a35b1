"""Events on many devices: they lie along one axis of a mesh, models are on all of them, and XLA adds what is summed.

Code is written for one device. Only what loops over chunks of events asks here to be run by each device on its own
events (`per_shard`), and what must stay with the events says so (`spread`, `beside`). All ask for the mesh that JAX is
told to work on, by `jax.set_mesh`, and do nothing where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from jaxgen.core import fast
from jaxgen.core.inputs import Batch

#: the axis that events lie along where a mesh has one of that name; else its first
DATA = "data"


def events_axis(mesh: Any) -> str:
    """The name of the axis of a mesh that events lie along.

    Example:
        >>> events_axis(jax.make_mesh((1, 1), ("model", "data"), axis_types=(AxisType.Auto,) * 2))
        'data'
    """
    return DATA if DATA in mesh.axis_names else mesh.axis_names[0]


def _ambient() -> tuple[Any, str] | None:
    """The mesh that what is being traced runs on, and its axis of events; None where there is nothing to share."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return None
    axis = events_axis(mesh)
    shared = mesh.shape[axis] > 1 and dict(zip(mesh.axis_names, mesh.axis_types, strict=True))[axis] == AxisType.Auto
    return (mesh, axis) if shared else None


def spread(tree: Any) -> Any:
    """Arrays with a leading axis of events, a share on each device; as they are where shares would not be equal."""
    ambient = _ambient()
    if ambient is None:
        return tree
    mesh, axis = ambient

    def shared(leaf: Any) -> Any:
        fits = jnp.ndim(leaf) and jnp.shape(leaf)[0] % mesh.shape[axis] == 0
        return jax.lax.with_sharding_constraint(leaf, PartitionSpec(axis)) if fits else leaf

    return jax.tree.map(shared, tree)


def together(tree: Any) -> Any:
    """Arrays that every device has a copy of."""
    if _ambient() is None:
        return tree
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, PartitionSpec()), tree)


def beside(first: Any, second: Any) -> Any:
    """Two arrays of events as one in which every device has its share of both: no event moves.

    Without a mesh, or where they cannot be shared evenly, one follows on the other. Whatever is computed event by event
    comes back by `apart`.

    Example:
        >>> both = beside(jnp.zeros(4), jnp.ones(2))
        >>> [part.shape for part in apart(both, 4)]
        [(4,), (2,)]
    """
    shards = _shards(len(first), len(second))
    parts = (spread(part).reshape((shards, -1, *part.shape[1:])) for part in (first, second))
    joined = jnp.concatenate([*parts], axis=1)
    return joined.reshape((-1, *joined.shape[2:]))


def apart(both: Any, n: int) -> tuple[Any, Any]:
    """Return the two arrays that `beside` joined, the first of which had n events."""
    shards = _shards(n, len(both) - n)
    blocks = both.reshape((shards, -1, *both.shape[1:]))
    size = n // shards
    first, second = blocks[:, :size], blocks[:, size:]
    return first.reshape((-1, *both.shape[1:])), second.reshape((-1, *both.shape[1:]))


def _shards(*lengths: int) -> int:
    ambient = _ambient()
    size = 1 if ambient is None else ambient[0].shape[ambient[1]]
    return size if all(n % size == 0 for n in lengths) else 1


def local_rows(tree: Any, rows: Any) -> Any:
    """Rows of arrays that every device has whole, each device those of its share: nothing is sent."""
    ambient = _ambient()
    take = lambda tree, rows: jax.tree.map(lambda a: jnp.asarray(a)[rows], tree)  # noqa: E731
    if ambient is None or len(rows) % ambient[0].shape[ambient[1]]:
        return take(tree, rows)
    lies = PartitionSpec(ambient[1])
    return jax.shard_map(take, in_specs=(PartitionSpec(), lies), out_specs=lies, axis_names={ambient[1]},
                         check_vma=False)(tree, rows)  # fmt: skip


def per_shard(sums: Callable[[Any, Batch], Any]) -> Callable[[Any, Batch], Any]:
    """`sums(model, batch)`, which adds over events that are `even`, made by each device over its own and added once."""

    def call(model: Any, batch: Batch) -> Any:
        ambient = _ambient()
        if ambient is None:
            return sums(model, batch)
        axis = ambient[1]
        own = lambda model, batch: _added(sums(model, batch), axis)  # noqa: E731
        # replication is not checked: sums start from constants, which the check takes for those of all devices
        return jax.shard_map(own, in_specs=(PartitionSpec(), _specs(batch, axis)), out_specs=PartitionSpec(),
                             axis_names={axis}, check_vma=False)(model, batch)  # fmt: skip

    return call


def _added(tree: Any, axis: str) -> Any:
    """A tree added over the devices, the leaves of one dtype at once: also what XLA sees to be constant."""
    leaves, structure = jax.tree.flatten(tree)
    total: list[Any] = list(leaves)
    for dtype in {leaf.dtype for leaf in leaves}:
        own = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
        flat = jax.lax.psum(jnp.concatenate([leaves[i].ravel() for i in own]), axis)
        ends = np.cumsum([leaves[i].size for i in own])
        for i, end in zip(own, ends, strict=True):
            total[i] = flat[end - leaves[i].size : end].reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, total)


def even(batch: Batch) -> Batch:
    """A batch that the devices can share evenly: events of weight 0 fill it up."""
    ambient = _ambient()
    return batch if ambient is None else filled(batch, ambient[0].shape[ambient[1]])


def along_events(batch: Batch) -> Batch:
    """A prepared batch whose arrays lie along the axis of events."""
    ambient = _ambient()
    return batch if ambient is None else jax.lax.with_sharding_constraint(batch, _specs(batch, ambient[1]))


def _specs(batch: Batch, axis: str) -> Any:
    ways = (PartitionSpec(axis), PartitionSpec(None, axis)).__getitem__
    where = jax.tree.map(lambda _: ways(0), batch._replace(x=None))
    prepared = isinstance(batch.x, fast.Events)
    x = batch.x.along(ways, PartitionSpec()) if prepared else jax.tree.map(lambda _: ways(0), batch.x)
    return where._replace(x=x)


def filled(batch: Batch, shards: int) -> Batch:
    """A batch whose events can be shared evenly: repeats of the last one, of weight 0, fill it up."""
    missing = -batch.events % shards
    if not missing:
        return batch
    weight = batch.weight
    if weight is None:
        weight = np.ones(batch.events, jnp.result_type(float))

    def more(array: Any, rest: Any = None) -> Any:
        own: Any = np if isinstance(array, np.ndarray) else jnp
        return own.concatenate([array, own.repeat(array[-1:], missing, axis=0) if rest is None else rest])

    full = jax.tree.map(more, batch._replace(weight=None))
    return full._replace(weight=more(weight, np.zeros(missing, weight.dtype)))
