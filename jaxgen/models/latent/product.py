"""Densities over several blocks of columns of one table, each block of its own family."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, latent
from jaxgen.core.compiled import compiled
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.methods import context_shape, per_event, per_sample, weighted_events
from jaxgen.core.pytree import float_type, model, part, static
from jaxgen.ops.scales import standardized

Columns = int | tuple[int, ...]


def _columns(given: Any, called: str) -> Columns:
    """Columns as plain ints, whatever they were counted with."""
    whole = (int, np.integer)
    if isinstance(given, whole) and not isinstance(given, bool):
        return int(given)
    if isinstance(given, (tuple, list, range, np.ndarray)) and len(given) and all(isinstance(c, whole) for c in given):
        return tuple(int(c) for c in given)
    raise ModelError(
        "those are no columns", called=called, expected="an int, or a sequence of ints", got=repr(given)[:80],
        fix="write an int, such as 0, or a tuple of ints, such as (0, 1)",
    )  # fmt: skip


def _pairs(blocks: Any, called: str) -> list[tuple[Columns, Any]]:
    """`(columns, what)` of every block; each column of the table belongs to one."""
    pairs = list(blocks.items() if isinstance(blocks, Mapping) else blocks)
    pairs = [(_columns(columns, called), part) for columns, part in pairs]
    flat = [c for columns, _ in pairs for c in np.atleast_1d(columns).tolist()]
    if sorted(flat) != list(range(len(flat))) or not flat:
        raise ModelError(
            "the blocks do not divide the columns of a table among them", called=called,
            expected=f"each of 0 to {max(len(flat) - 1, 0)} in one block", got=f"columns {sorted(flat)}",
            fix="leave columns out of x, and count the rest from 0",
        )  # fmt: skip
    return pairs


def _take(x: Any, columns: Columns) -> Any:
    """A block's part of events `[..., D]`; a block of one bare column has scalar events."""
    return x[..., columns if isinstance(columns, int) else np.asarray(columns)]


def _given(block: Any, context: Any) -> Any:
    """The context, for a block that takes one."""
    return None if context_shape(block) is None else context


class ProductStatistics(NamedTuple):
    """The statistics of each block."""

    blocks: tuple[Any, ...]


@model
class Product:
    """Independent blocks of columns: labels here, counts there, measurements beside them. Mixtures of it make the
    blocks depend on each other, through the component that they share.

    `log p(x) = sum_b log p_b(x[columns_b])`

    Args:
        blocks: tuple of densities, of events `[len(columns)]`, or scalar events where the columns are a bare int.
        columns: for each block an int or a tuple of ints; each column of the table is in one block.

    Any density is a block, a flow too; EM trains those of which all blocks have an E-step. Draws and events are floats,
    also in columns of labels and counts. A context goes to the blocks that take one. NaN means not seen where all
    blocks allow it.

    Example:
        >>> import jaxgen as jg
        >>> table = Product.from_blocks([((0, 2), jg.DiagonalGaussian.from_values([0.0, 1.0], [1.0, 1.0])),
        ...                              (1, jg.Poisson.from_values(2.0))])
        >>> round(float(table.log_prob(jnp.array([0.0, 2.0, 1.0]))), 4)
        -3.1447
        >>> table.sample(jax.random.key(0), (5,)).shape
        (5, 3)
    """

    blocks: Any = part()
    columns: tuple[Columns, ...] = static()

    @classmethod
    def init(cls, key, x, blocks) -> Product:
        """A start from a table `[N, D]`.

        Args:
            key: typed key, split among the blocks.
            x: the table; NaN where the blocks allow it.
            blocks: `{columns: leaf}`, or a list of `(columns, leaf)`; a leaf is `(key, x_block) -> model`, such as
                `Gaussian.init`, or `functools.partial(Categorical.init, size=3)` for labels.

        As the leaf of a mixture: `functools.partial(Product.init, blocks=...)`.

        Raises:
            ModelError: columns that are in no block or in two, or a block of other events than its columns.
            DataError: a table of another width, or data that a block refuses.

        Example:
            >>> import jaxgen as jg
            >>> x = jnp.array([[0.5, 3.0], [1.5, 5.0], [1.0, 4.0]])
            >>> start = Product.init(jax.random.key(0), x, {0: jg.Poisson.init, (1,): jg.DiagonalGaussian.init})
            Traceback (most recent call last):
            jaxgen.core.errors.DataError: x has values outside the support
              called:   Poisson.init(key, x)
              expected: whole numbers from 0
              got:      2 of 3 outside, such as 0.5
              fix:      a Gaussian or a Gamma, for numbers that are no counts
            >>> start = Product.init(jax.random.key(0), x, {(0,): jg.DiagonalGaussian.init, 1: jg.Poisson.init})
            >>> start.blocks[1].rate.tolist()
            4.0
        """
        called = "Product.init(key, x, blocks)"
        x = jnp.asarray(as_array(x, name="x", called=called, allow_nan=True))
        pairs = _pairs(blocks, called)
        width = sum(np.size(columns) for columns, _ in pairs)
        if x.ndim != 2 or x.shape[1] != width:
            raise DataError(
                "the table does not fit the blocks", called=called, expected=f"x [N, {width}]",
                got=f"shape {list(x.shape)}",
            )  # fmt: skip
        keys = jax.random.split(key, len(pairs))
        models = [leaf(k, _take(x, columns)) for k, (columns, leaf) in zip(keys, pairs, strict=True)]
        made = cls.from_blocks([(columns, part) for (columns, _), part in zip(pairs, models, strict=True)])
        if concrete(x):
            made._check_missing(x)
        return made

    @classmethod
    def from_blocks(cls, blocks) -> Product:
        """From `[(columns, model), ...]` or `{columns: model}`. Several of one kind make a mixture:
        `Mixture.from_components([product, other])`.

        Raises:
            ModelError: columns that are in no block or in two, or a model of other events than its columns.
        """
        called = "Product.from_blocks(blocks)"
        pairs = _pairs(blocks, called)
        for columns, block in pairs:
            wanted: tuple[int, ...] = () if isinstance(columns, int) else (len(columns),)
            event = block.event_shape
            if event != wanted:
                raise ModelError(
                    f"a block's events are not its columns: {type(block).__name__}", called=called,
                    expected=f"events of shape {list(wanted)} for columns {columns}", got=f"shape {list(event)}",
                    fix="write a bare int for a column of scalar events, a tuple of ints for columns of vectors",
                )  # fmt: skip
        return cls(tuple(part for _, part in pairs), tuple(columns for columns, _ in pairs))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (sum(np.size(columns) for columns in self.columns),)

    @property
    def context_shape(self):
        shapes = {context_shape(block) for block in self.blocks} - {None}
        if len(shapes) > 1:
            raise ModelError(
                "the blocks take contexts of different shapes", called="Product.context_shape",
                expected="one context for all blocks that take one", got=str(sorted(map(str, shapes))),
            )  # fmt: skip
        return next(iter(shapes), None)

    def _parts(self, x):
        """Each block with its part of the events."""
        return [(block, _take(x, columns)) for block, columns in zip(self.blocks, self.columns, strict=True)]

    def _check_missing(self, x) -> None:
        for columns, (block, own) in zip(self.columns, self._parts(np.asarray(x, float)), strict=True):
            if np.isnan(own).any() and not latent.accepts_missing(block):
                raise DataError(
                    f"a block of {type(block).__name__} has missing entries, which it takes as no data",
                    called="Product", expected=f"numbers in columns {columns}", got=f"{np.isnan(own).sum()} NaN",
                    fix=f"make {type(block).__name__} take missing entries, if it has that option",
                )  # fmt: skip

    def check_data(self, x) -> None:
        """Refuses data outside the support of a block with a DataError."""
        x = as_array(x, name="x", called="Product.check_data(x)", allow_nan=True)
        if concrete(x):
            self._check_missing(x)
        for block, own in self._parts(x):
            latent.check_data(block, own)

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, D] -> [*batch]`."""
        return sum(block.log_prob(part, context=_given(block, context)) for block, part in self._parts(x))

    @per_event
    def elbo(self, key, x, *, context=None) -> jax.Array:
        """A lower bound on `log p(x)`, of blocks that have one: the sum of bounds and log-likelihoods, nats."""
        return self._sum_of(latent.bound, key, x, context)

    @per_event
    def iwae(self, key, x, *, context=None, samples=50) -> jax.Array:
        """The logarithm of an unbiased estimate of p(x), of blocks that have one, nats, `[*batch]`."""
        return self._sum_of(functools.partial(latent.estimate, samples=samples), key, x, context)

    def _sum_of(self, score, key, x, context):
        keys = jax.random.split(key, len(self.blocks))
        parts = zip(keys, self._parts(x), strict=True)
        return sum(score(block, k, part, _given(block, context)) for k, (block, part) in parts)

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, D]`, floats."""
        dtype, out = float_type(self), jnp.zeros(self.event_shape, float_type(self))
        keys = jax.random.split(key, len(self.blocks))
        for k, block, columns in zip(keys, self.blocks, self.columns, strict=True):
            given = {} if context_shape(block) is None else {"context": context}
            out = out.at[np.asarray(columns)].set(block.sample(k, **given).astype(dtype))
        return out

    @weighted_events
    def e_step(self, x, weight=None, *, context=None):
        """`ProductStatistics`, and `log_prob [N]`."""
        steps = []
        for block, own in self._parts(x):
            # not all e_steps have a context to name
            given = {} if _given(block, context) is None else {"context": context}
            steps.append(block.e_step(own, weight, **given))
        return ProductStatistics(tuple(part for part, _ in steps)), sum(log_prob for _, log_prob in steps)

    @compiled
    def step_log_prob(self, x):
        """Return what `e_step` does beside the statistics, `[N]`: `log_prob`, but for blocks that bound theirs."""
        return sum(algebra.step_log_prob(block, part) for block, part in self._parts(x))

    def m_step(self, statistics) -> Product:
        """Weighted maximum likelihood of each block."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and the number of blocks that had to be repaired."""
        return self._maximized([latent.maximize(*pair) for pair in zip(self.blocks, statistics.blocks, strict=True)])

    def _maximized(self, steps):
        return Product(tuple(block for block, _ in steps), self.columns), sum(repaired for _, repaired in steps)

    # Of K products at once: each block goes its own fast path

    def log_prob_components(self, x):
        """`[K, N]`, the sum over blocks."""
        return sum(algebra.component_log_prob(block, part) for block, part in self._parts(x))

    def step_log_prob_components(self, x):
        """`step_log_prob` of K products, `[K, N]`."""
        return sum(algebra.component_step_log_prob(block, part) for block, part in self._parts(x))

    def e_step_components(self, x, weight):
        """`ProductStatistics`, leading axis K, from weights `[K, N]`."""
        return ProductStatistics(tuple(algebra.component_e_step(block, part, weight) for block, part in self._parts(x)))

    @compiled
    def maximize_components(self, statistics, mass):
        """`maximize` of K products, block by block."""
        pairs = zip(self.blocks, statistics.blocks, strict=True)
        return self._maximized([latent.component_maximize(*pair, mass) for pair in pairs])

    def features(self, x):
        """The blocks' features for clustering, `[N, F]`, where each column of the table has the same say.

        Every feature is in units of its own scale (`ops.scales`), and a block has the weight of its number of columns:
        a label that is spread over ten indicators counts as much as one measurement. NaN stays NaN.
        """
        out = []
        for columns, (block, values) in zip(self.columns, self._parts(x), strict=True):
            own = algebra.features(block, values)
            out.append(standardized(own) * math.sqrt(np.size(columns) / own.shape[1]))
        return jnp.concatenate(out, axis=1)

    def distribution(self):
        """The distrax distribution."""
        return as_distribution(self)
