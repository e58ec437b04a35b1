"""`scan_fit`: a fit as a pure function."""

from __future__ import annotations

import collections
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent, markup
from jaxgen.core.inputs import as_batch, concrete, widened
from jaxgen.fit.checks import (
    check_algorithm,
    check_batch_size,
    check_counts,
    check_label,
    for_steps,
    no_data,
    prepare,
)
from jaxgen.fit.em import EM
from jaxgen.fit.loop import Loop, Status, next_batch


class ScanFit(NamedTuple):
    """The result of `scan_fit`, a pytree.

    Args:
        model: the fitted model.
        state: the algorithm's last state.
        history: metrics, `[steps]` each; after an early end the last value repeats.
        status: a `Status`, int32: `Status(int(status)).message`.
        steps: steps made.
    """

    model: Any
    state: Any
    history: dict[str, jax.Array]
    status: jax.Array
    steps: jax.Array

    def __repr__(self) -> str:
        return f"ScanFit({self._line()}; {self.model!r})"

    def _repr_html_(self) -> str:
        return markup.table([("status", self._line()), ("model", markup.of(self.model))], "ScanFit")

    def _line(self) -> str:
        """Return how one fit ended, or how many of a batch of fits ended how, and the last metrics of all of them."""
        if not concrete(self):
            return "being traced"
        status, steps = np.asarray(self.status), np.asarray(self.steps)
        ends = collections.Counter(Status(int(one)).name for one in status.ravel())
        how = ", ".join(name if status.ndim == 0 else f"{count} {name}" for name, count in ends.items())
        after = "" if not steps.size else f" after {' to '.join(map(str, sorted({steps.min(), steps.max()})))} steps"
        last = {name: np.asarray(values)[..., -1] for name, values in self.history.items() if values.shape[-1:] > (0,)}
        return how + after + "".join(f", {name}={value.mean():.4f}" for name, value in last.items())


def scan_fit(
    key: Any,
    model: Any,
    data: Any,
    algorithm: Any = None,
    *,
    steps: int,
    batch_size: int | None = None,
    tolerance: float = 0.0,
) -> ScanFit:
    """Fits a model in one `lax.scan`: a pure function, to be jitted, vmapped over keys or models, or differentiated.

    Args:
        key: typed key.
        model: the start.
        data: an array `[N, *event]`, a tuple `(x, context, weight)` or a dict of them; None for a loss of no data.
        algorithm: for example `EM()`, which is the default.
        steps: how many steps, static.
        batch_size: events per step, in a new random order every epoch; None takes all.
        tolerance: the fit is over when the monitored metric changes by less, in nats per event.

    Returns:
        `ScanFit`. A step that is not finite ends the fit with `Status.NON_FINITE` and the last good model.

    Example:
        >>> import jaxgen as jg
        >>> x = jnp.concatenate([jnp.linspace(-1, 1, 50), jnp.linspace(9, 11, 50)])[:, None]
        >>> def restart(key):
        ...     start = jg.Mixture.init(key, x, 2, jg.Gaussian.init)
        ...     return jg.scan_fit(key, start, x, jg.EM(), steps=10)
        >>> jax.vmap(restart)(jax.random.split(jax.random.key(0), 3)).history["log_likelihood"].shape
        (3, 10)
    """
    check_counts("scan_fit(...)", {"steps": steps, "batch_size": batch_size})
    algorithm = EM() if algorithm is None else algorithm
    check_algorithm(algorithm, "scan_fit(key, model, data, algorithm)")
    algorithm = for_steps(algorithm, steps)
    data = no_data(algorithm, model, "scan_fit(key, model, None)") if data is None else data
    model = widened(model)
    batch = as_batch(data, called="scan_fit(key, model, data)", missing=latent.accepts_missing(model),
                     unseen=latent.unseen(model), schema=latent.schema(model),
                     absent=algebra.absent_axes(model))  # fmt: skip
    algebra.check_context(model, batch.context)
    batch = jax.tree.map(jnp.asarray, batch)
    check_batch_size(algorithm, batch_size, batch.events)
    check_label(algorithm, model, batch.label, "scan_fit(key, model, data)")
    batch = prepare(algorithm, model, batch, batch_size)

    loop = Loop(algorithm, None, key, tolerance)
    take = functools.partial(next_batch, key, data=batch, batch_size=batch_size)
    carry, history = loop.steps(loop.start(model, batch, batch_size), take, steps)
    status = jnp.where(carry.status == Status.RUNNING, Status.FINISHED, carry.status)
    return ScanFit(carry.state.model, carry.state, history, status, carry.step)
