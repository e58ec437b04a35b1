"""Events shared between devices: each sums over its own, and what they sum is added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxgen.core import fast
from jaxgen.core.errors import FitError
from jaxgen.core.inputs import Batch

AXIS = "events"


def _check(devices: Any) -> None:
    """Refuses what are no devices to share events between."""
    fits = devices is None or (
        isinstance(devices, (tuple, list)) and devices and all(isinstance(one, jax.Device) for one in devices)
    )
    if not fits or (devices is not None and len(set(devices)) < len(devices)):
        raise FitError(
            "those are no devices to share events between", called=f"EM(devices={devices!r})"[:200],
            expected="different devices, or None", got=type(devices).__name__, fix="jaxgen.EM(devices=jax.devices())",
        )  # fmt: skip


def _mesh(devices: Any) -> Any:
    _check(devices)
    return jax.make_mesh((len(devices),), (AXIS,), devices=devices, axis_types=(AxisType.Auto,))


def divided(batch: Batch, devices: Any, dtype: Any) -> Batch:
    """The batch spread over devices, the same number of events on each: events of weight 0 fill up the last."""
    mesh = _mesh(devices)
    n, missing = batch.events, -batch.events % len(devices)
    weight = jnp.ones(n, dtype) if batch.weight is None else batch.weight
    filled = jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], missing, axis=0)]), batch)
    filled = filled._replace(weight=jnp.concatenate([weight, jnp.zeros(missing, weight.dtype)]))
    return jax.lax.with_sharding_constraint(filled, NamedSharding(mesh, PartitionSpec(AXIS)))


def on_each(sums: Callable[[Any, Batch], Any], devices: Any) -> Callable[[Any, Batch], Any]:
    """`sums(model, batch)` over the events of each device, added up; just `sums` without devices."""
    if devices is None:
        return sums

    def own(model: Any, batch: Batch) -> Any:
        return jax.lax.psum(sums(model, batch), AXIS)

    def call(model: Any, batch: Batch) -> Any:
        where = jax.tree.map(lambda _: PartitionSpec(AXIS), batch._replace(x=None))
        axis = (PartitionSpec(AXIS), PartitionSpec(None, AXIS)).__getitem__
        x = batch.x.along(axis, PartitionSpec()) if isinstance(batch.x, fast.Events) else axis(0)
        # replication is not checked: sums start from constants, which the check takes for those of all devices
        specs = (PartitionSpec(), where._replace(x=x))
        return jax.shard_map(own, mesh=_mesh(devices), in_specs=specs, out_specs=PartitionSpec(), check_vma=False)(
            model, batch
        )

    return call
