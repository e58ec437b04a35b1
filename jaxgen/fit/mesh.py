"""The placement of the events and the models of a fit: on one device, or on those of a mesh."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch, concrete
from jaxgen.core.mesh import events_axis


@dataclass(frozen=True)
class Shards:
    """The placement of the arrays of a fit: on one device, or on those of a mesh.

    Args:
        mesh: whose axes XLA manages, or None for one device.
        told: the mesh that the program around works on, of `jax.set_mesh`, or None.
    """

    mesh: Mesh | None = None
    told: Mesh | None = None

    @property
    def count(self) -> int:
        """The number of devices that share the events."""
        return 1 if self.mesh is None else int(self.mesh.shape[events_axis(self.mesh)])

    def at_work(self) -> Any:
        """A context in which JAX works on the mesh."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def events(self, batch: Batch) -> Batch:
        """A batch, each device with its share of the events; what lies on several devices already is left there."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, batch)
        axis = PartitionSpec(events_axis(self.mesh))
        return jax.tree.map(lambda leaf: self._put(leaf, cut(leaf) or axis), batch)

    def in_pieces(self, batch: Batch) -> bool:
        """True if an array of the batch lies in pieces on several devices already."""
        return any(cut(leaf) is not None for leaf in jax.tree.leaves(batch))

    def everywhere(self, tree: Any, but_spread: bool = False) -> Any:
        """Arrays, a copy on each device; with `but_spread` those that lie on several already are left there."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        known = cut if but_spread else lambda leaf: None
        return jax.tree.map(lambda leaf: self._put(leaf, known(leaf) or PartitionSpec()), tree)

    def returned(self, tree: Any) -> Any:
        """Return a tree as the program around can use it: on its own mesh, else on one whose axes XLA manages.

        An array that knows the axes of a mesh asks every program that it meets to know them too.
        """
        if self.mesh is None or self.told is None or self.told.empty or self.told == self.mesh:
            return tree
        return jax.device_put(tree, NamedSharding(self.told, PartitionSpec()))

    def _put(self, leaf: Any, spec: PartitionSpec) -> jax.Array:
        assert self.mesh is not None
        return jax.device_put(leaf, NamedSharding(self.mesh, spec))


def cut(leaf: Any) -> PartitionSpec | None:
    """Return the partition of an array over several devices; None for one that is not partitioned."""
    sharding = leaf.sharding if isinstance(leaf, jax.Array) and concrete(leaf) else None
    pieces = isinstance(sharding, NamedSharding) and sharding.mesh.size > 1 and any(sharding.spec)
    return sharding.spec if pieces else None  # type: ignore[union-attr]


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
    if found is None and (told := _told()) is not None and not told.empty:
        found = told
    if found is None:
        leaves = [] if isinstance(data, Iterator) else jax.tree.leaves(data)
        spread_out = [leaf.sharding for leaf in leaves if cut(leaf) is not None]
        found = _with_events_first(spread_out[0]) if spread_out else None
    if found is None or found.size == 1:
        return Shards()
    automatic = Mesh(found.devices, found.axis_names, axis_types=(AxisType.Auto,) * len(found.axis_names))
    return Shards(automatic, _told())


def _told() -> Any:
    """The mesh that JAX is told to work on; None inside of a program, where there is no such question."""
    try:
        return jax.sharding.get_mesh()
    except ValueError:
        return None


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
