"""Events on many devices: they lie along one axis of a mesh, models are on all of them, and XLA adds what is summed.

A mesh is the feed's business. Algorithms are written for one device; only what loops over chunks of events asks here to
be run by each device on its own events (`per_shard`), and what must stay with the events says so (`spread`). Both ask
for the mesh that JAX is told to work on, by `jax.set_mesh`, and do nothing where there is none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxgen.core import fast
from jaxgen.core.errors import FitError
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
    """What `beside` joined, the first of which had n events."""
    shards = _shards(n, len(both) - n)
    blocks = both.reshape((shards, -1, *both.shape[1:]))
    size = n // shards
    first, second = blocks[:, :size], blocks[:, size:]
    return first.reshape((-1, *both.shape[1:])), second.reshape((-1, *both.shape[1:]))


def _shards(*lengths: int) -> int:
    ambient = _ambient()
    size = 1 if ambient is None else ambient[0].shape[ambient[1]]
    return size if all(n % size == 0 for n in lengths) else 1


def per_shard(sums: Callable[[Any, Batch], Any]) -> Callable[[Any, Batch], Any]:
    """`sums(model, batch)`, which adds over events, made by each device over its own and added once.

    Events that cannot be shared evenly are filled up with events of weight 0.
    """

    def call(model: Any, batch: Batch) -> Any:
        ambient = _ambient()
        if ambient is None:
            return sums(model, batch)
        mesh, axis = ambient
        if not isinstance(batch.x, fast.Events):
            batch = filled(batch, mesh.shape[axis])
        specs = (PartitionSpec(), _specs(batch, axis))
        own = lambda model, batch: jax.lax.psum(sums(model, batch), axis)  # noqa: E731
        # replication is not checked: sums start from constants, which the check takes for those of all devices
        return jax.shard_map(own, in_specs=specs, out_specs=PartitionSpec(), axis_names={axis}, check_vma=False)(
            model, batch
        )

    return call


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


@dataclass(frozen=True)
class Shards:
    """Where a fit keeps what it works on.

    Args:
        mesh: whose axes XLA manages, or None for one device.
        given: the same mesh as it was given, which what `fit` returns lies on.
    """

    mesh: Mesh | None = None
    given: Mesh | None = None

    @property
    def count(self) -> int:
        """How many devices share the events."""
        return 1 if self.mesh is None else int(self.mesh.shape[events_axis(self.mesh)])

    def at_work(self) -> Any:
        """A context in which JAX works on the mesh."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def events(self, batch: Batch) -> Batch:
        """A batch, each device with its share of the events; what lies on several devices already is left there."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, batch)
        axis = PartitionSpec(events_axis(self.mesh))
        return jax.tree.map(lambda leaf: self._put(leaf, lies(leaf) or axis), batch)

    def everywhere(self, tree: Any, but_spread: bool = False) -> Any:
        """Arrays, a copy on each device; with `but_spread` those that lie on several already are left there."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        spec = (lambda leaf: lies(leaf) or PartitionSpec()) if but_spread else lambda leaf: PartitionSpec()
        return jax.tree.map(lambda leaf: self._put(leaf, spec(leaf)), tree)

    def returned(self, tree: Any) -> Any:
        """What a fit returns, on the mesh that it was given."""
        if self.mesh is None or self.given is None or self.given == self.mesh:
            return tree
        return jax.device_put(tree, NamedSharding(self.given, PartitionSpec()))

    def _put(self, leaf: Any, spec: PartitionSpec) -> jax.Array:
        assert self.mesh is not None
        return jax.device_put(leaf, NamedSharding(self.mesh, spec))


def lies(leaf: Any) -> PartitionSpec | None:
    """How an array is cut into pieces on several devices; None for one that is not."""
    sharding = leaf.sharding if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) else None
    cut = isinstance(sharding, NamedSharding) and sharding.mesh.size > 1 and any(sharding.spec)
    return sharding.spec if cut else None  # type: ignore[union-attr]


def shards_of(mesh: Any, data: Any) -> Shards:
    """The mesh of a fit: the one given, or the one that JAX is told to work on, or the one that the data lie on.

    Raises:
        FitError: no mesh.
    """
    if mesh is not None and not isinstance(mesh, Mesh):
        raise FitError(
            "that is no mesh of devices", called="fit(..., mesh=)", expected="a jax.sharding.Mesh, or None",
            got=repr(mesh)[:200], fix='jax.make_mesh((jax.device_count(),), ("data",))',
        )  # fmt: skip
    found = mesh
    if found is None and (told := jax.sharding.get_mesh()) and not told.empty:
        found = told
    if found is None:
        spread_out = [leaf for leaf in jax.tree.leaves(data) if lies(leaf) is not None]
        found = _with_events_first(spread_out[0].sharding) if spread_out else None
    if found is None or found.size == 1:
        return Shards()
    automatic = Mesh(found.devices, found.axis_names, axis_types=(AxisType.Auto,) * len(found.axis_names))
    return Shards(automatic, found)


def _with_events_first(sharding: NamedSharding) -> Mesh:
    """The mesh that an array lies on, its axes in the order in which that of the events is first."""
    mesh = sharding.mesh
    first = sharding.spec[0] if len(sharding.spec) else None
    name = first[0] if isinstance(first, tuple) else first
    if name is None or not isinstance(mesh, Mesh):
        return mesh  # type: ignore[return-value]
    order = sorted(range(len(mesh.axis_names)), key=lambda i: mesh.axis_names[i] != name)
    types = tuple(mesh.axis_types[i] for i in order)
    names = tuple(mesh.axis_names[i] for i in order)
    return Mesh(np.transpose(mesh.devices, order), names, axis_types=types)


def check_shares(n: int, shards: Shards, what: str, fix: str) -> None:
    """Refuses events that the devices cannot share evenly.

    Raises:
        FitError: a number that is no multiple of the devices'.
    """
    if n % shards.count:
        raise FitError(
            f"{what} cannot be shared evenly by {shards.count} devices", called="fit(..., mesh=)",
            expected=f"a multiple of {shards.count}", got=str(n), fix=fix,
        )  # fmt: skip
