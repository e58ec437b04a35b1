"""Events made ready for many E-steps: what K models compute of them again and again is computed once.

A leaf whose log-densities are linear in functions of the events (Gaussians: products and coordinates) says so,
`protocols.InColumns`. EM then works with a model in whose tree such leaves are replaced, wherever they stand under
`parts()`, by their form for `Events`. No container knows of it: it hands events on to its parts, or steps of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.algebra import component_log_prob, element
from jaxgen.core.protocols import InColumns, Missing, has
from jaxgen.core.pytree import float_type, is_model, parts_of, registered
from jaxgen.core.sequences import Joined, Sequences, padded


@registered
@dataclasses.dataclass(frozen=True)
class Events:
    """Events with functions of them in which log-densities are linear.

    Args:
        x: `[N, *event]`, or `Sequences`.
        columns: `[F, N]`, functions of the events, or of steps of events, `[F, N, T]`; None makes those of a chunk when
            it is its turn.
        center: the point that the columns are taken around, of the shape of what they are functions of.
        precise: bool, whether to work with residuals, since columns would lose digits; one answer for all models.
        make: `x - center [M, *center] -> columns [F, M]`, static.
    """

    x: Any
    columns: jax.Array | None
    center: jax.Array
    precise: jax.Array
    make: Callable[[jax.Array], jax.Array] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    def cut(self, rows: Callable[..., jax.Array]) -> Events:
        """Return the rows of a chunk, with their columns: `rows(array, axis)` cuts them out of an array."""
        x = jax.tree.map(lambda array: rows(array, 0), self.x)
        columns = make_columns(self.make, x, self.center) if self.columns is None else rows(self.columns, 1)
        return dataclasses.replace(self, x=x, columns=columns)

    def steps(self) -> Events:
        """Return steps of events as events, `[N, T, ...] -> [N T, ...]`; of `Sequences` all that are padded."""
        values = padded(self.x)
        columns = None if self.columns is None else self.columns.reshape((len(self.columns), -1))
        x = values.reshape((-1, *self.center.shape))
        return dataclasses.replace(self, x=x, columns=columns)

    def along(self, axis: Any, none: Any) -> Events:
        """In the place of each array `axis`, as the first or the second of two, where events run; else `none`."""
        columns = None if self.columns is None else axis(1)
        return dataclasses.replace(self, x=axis(0), columns=columns, center=none, precise=none)


def make_columns(make: Callable[[jax.Array], jax.Array], x: Any, center: jax.Array) -> jax.Array:
    """Columns `[F, *lead]` of events `[*lead, *center]`."""
    values = padded(x)
    lead = values.shape[: values.ndim - center.ndim]
    return make(values.reshape((-1, *center.shape)) - center).reshape((-1, *lead))


def plain(x: Any) -> Any:
    """Return events, or `Sequences`, without what was made ready."""
    return x.x if isinstance(x, Events) else x


def counted(x: Any) -> Any:
    """Return how many events there are in each row of x: one, but for sequences that were joined."""
    x = plain(x)
    return x.count if isinstance(x, Joined) else 1


def with_columns(components: Any, x: Any, limit: int) -> Events:
    """`Events` for K models in columns, around their mean, kept where they fit into `limit` bytes.

    Args:
        components: K models, whose events are those of x or steps of them.
        x: `[N, *event]` or `[N, T, *event]`, or `Sequences`.
        limit: bytes.
    """
    make, values = type(components).columns, padded(x)
    values = values.astype(jnp.result_type(values, float_type(components)))
    x = dataclasses.replace(x, x=values) if isinstance(x, Sequences) else values
    center = _center(x, len(element(components).event_shape))
    columns = jax.eval_shape(lambda x, center: make_columns(make, x, center), x, center)
    keep = columns.size * columns.dtype.itemsize <= limit
    return Events(x, make_columns(make, x, center) if keep else None, center, jnp.zeros((), bool), make)


def _center(x: Any, axes: int) -> jax.Array:
    """The mean of events of so many axes, of `Sequences` that of the steps that were seen."""
    values = padded(x)
    values = values.reshape((-1, *values.shape[values.ndim - axes :]))
    if not isinstance(x, Sequences):
        # around one of them: the mean of large numbers is only as exact as they are
        return values[0] + jnp.mean(values - values[0], axis=0)
    seen = x.valid.reshape(-1)
    first = values[jnp.argmax(seen)]
    away = jnp.where(seen.reshape((-1,) + (1,) * axes), values - first, 0)
    return first + jnp.sum(away, axis=0) / jnp.maximum(jnp.sum(seen), 1).astype(values.dtype)


def _path(model: Any) -> tuple[str, ...]:
    """The field names that lead from a model to K models in columns, where it has such; else empty."""
    for name, kind, value in parts_of(model):
        if kind == "parts":
            if has(value, InColumns) and not (has(value, Missing) and value.missing):
                return (name,)
            if below := _path(element(value)):
                return (name, *below)
    return ()


def _at(path: tuple[str, ...], change: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """A tree with another part at the end of a path: `change(part)`, or of several trees alike `change(*parts)`."""
    name, *rest = path
    inner = [getattr(one, name) for one in (tree, *others)]
    new = jax.vmap(lambda *values: _at(tuple(rest), change, *values))(*inner) if rest else change(*inner)
    changed = {name: new}
    return dataclasses.replace(tree, **changed) if is_model(tree) else tree._replace(**changed)


def prepare(model: Any, x: Any, limit: int = 0) -> Any:
    """Return events as the E-steps of a model like best to see them: `Events`, or x as it is.

    Args:
        model: a model, or one in the abstract: only its structure counts.
        x: `[N, *event]`.
        limit: bytes that may be spent on columns that are kept.
    """
    path = _path(model)
    if isinstance(x, Events) or not path:
        return x
    for name in path[:-1]:
        model = element(getattr(model, name))
    return with_columns(getattr(model, path[-1]), x, limit)


def ready(model: Any, x: Any) -> tuple[Any, Any]:
    """Return a model in the form that goes with prepared events, and the events, which now say whether columns do.

    Any other events, and their model, are returned as they are.
    """
    if not isinstance(x, Events):
        return model, x
    path, rows = _path(model), padded(x.x).size // max(1, x.center.size)
    form = _at(path, lambda leaf: leaf.ready(x.center, rows), model)
    coarse = functools.reduce(getattr, path, form).coarse
    return form, dataclasses.replace(x, precise=jnp.any(coarse))


def finish(model: Any, form: Any, statistics: Any, x: Any) -> Any:
    """Return the statistics of a model from those of its form, summed over all chunks of the events."""
    if not isinstance(x, Events):
        return statistics
    return _at(_path(model), lambda sums, leaf: leaf.finish(sums, x.precise), statistics, form)


#: events scored at once by `each_log_prob`: what K components make of them stays in a core's cache
BLOCK = 4096


def each_log_prob(components: Any, x: Any, context: Any = None, score: Any = None) -> Any:
    """`log p_k(x_n)` of K models on many events, events first, `[N, K]`: block by block, so that no block leaves the
    cache.

    Args:
        components: K models.
        x: `[N, *event]`, or `Events` where the components are ready for them.
        context: `[N, *context]` or None.
        score: `component_log_prob`, which is the default, or `component_step_log_prob`.
    """
    score, n = score or component_log_prob, x.shape[0]
    one = lambda events, given: score(components, events, given).T  # noqa: E731
    if n <= BLOCK:
        return one(x.cut(lambda array, _: array) if isinstance(x, Events) else x, context)
    size = next((size for size in range(BLOCK, BLOCK // 2, -1) if n % size == 0), BLOCK)
    starts = np.minimum(np.arange(0, n, size), n - size)  # the last block is moved back to end at n

    def block(start: Any) -> jax.Array:
        rows = lambda array, axis=0: jax.lax.dynamic_slice_in_dim(array, start, size, axis)  # noqa: E731
        return one(x.cut(rows) if isinstance(x, Events) else rows(x), None if context is None else rows(context))

    scored = jax.lax.map(block, jnp.asarray(starts))
    if n % size == 0:
        return scored.reshape((n, -1))
    rest = n - (len(starts) - 1) * size
    return jnp.concatenate([scored[:-1].reshape((n - rest, -1)), scored[-1, size - rest :]])
