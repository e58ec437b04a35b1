"""Densities over several blocks of columns of one table, each block of its own family."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra, expectations, latent
from jaxgen.core.cells import COUNT, FLAG, LABEL, NUMBER
from jaxgen.core.compiled import compiled, compiled_by_trace
from jaxgen.core.errors import DataError, JaxgenError, ModelError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.methods import context_shape, per_batch, per_event, per_level, per_sample, weighted_events
from jaxgen.core.protocols import Located, Marginal, Quantiled, Spread
from jaxgen.core.pytree import float_type, model, part, static
from jaxgen.core.sequences import opened
from jaxgen.core.tables import Schema
from jaxgen.models.densities.bernoulli import Bernoulli
from jaxgen.models.densities.categorical import Categorical
from jaxgen.models.densities.diagonal_gaussian import DiagonalGaussian
from jaxgen.models.densities.poisson import Poisson
from jaxgen.ops.coordinates import chosen_and_rest
from jaxgen.ops.scales import standardized

Columns = int | tuple[int, ...]
#: the leaf of the columns of one kind; that of labels is told their number
LEAVES: dict[str, Callable[..., Any]] = {
    NUMBER: DiagonalGaussian.init, COUNT: Poisson.init, FLAG: Bernoulli.init, LABEL: Categorical.init,
}


def _columns(given: Any, called: str, schema: Schema | None = None) -> Columns:
    """Columns as plain ints, whatever they were counted with, or named by: a name is a column of vectors of one."""
    names = (given,) if isinstance(given, str) else given
    if isinstance(names, (tuple, list)) and len(names) and all(isinstance(name, str) for name in names):
        if schema is not None:
            return tuple(schema.place(name, called) for name in names)
        raise ModelError(
            "names are no columns of an array", called=called, expected="a table, or ints", got=repr(given)[:80],
            fix="give it the frame, or a table that was made by jaxgen.data.Table.from_frame",
        )  # fmt: skip
    whole = (int, np.integer)
    if isinstance(given, whole) and not isinstance(given, bool):
        return int(given)
    if isinstance(given, (tuple, list, range, np.ndarray)) and len(given) and all(isinstance(c, whole) for c in given):
        return tuple(int(c) for c in given)
    raise ModelError(
        "those are no columns", called=called, expected="an int, or a sequence of ints", got=repr(given)[:80],
        fix="write an int, such as 0, or a tuple of ints, such as (0, 1)",
    )  # fmt: skip


def _chosen(schema: Schema, taken: list[int]) -> list[tuple[Columns, Any]]:
    """A leaf for every other column of a table; columns of one kind, and labels of one number, share theirs."""
    alike: dict[tuple[str, int], list[int]] = {}
    for i, column in enumerate(schema.columns):
        if i not in taken:
            alike.setdefault((column.kind, len(column.levels)), []).append(i)
    return [
        (tuple(places), functools.partial(LEAVES[kind], size=levels) if kind == LABEL else LEAVES[kind])
        for (kind, levels), places in alike.items()
    ]


def _without_gaps(leaf: Any) -> Any:
    """A leaf that takes missing entries, where it has that option."""
    return functools.partial(leaf, missing=True) if "missing" in inspect.signature(leaf).parameters else leaf


def _shown(columns: Columns, schema: Schema | None) -> str:
    """Columns as errors name them."""
    places = np.atleast_1d(columns).tolist()
    shown = [str(i) if schema is None else repr(schema.names[i]) for i in places]
    return f"column{'s' * (len(shown) > 1)} " + ", ".join(shown)


@contextlib.contextmanager
def _named(columns: Columns, schema: Schema | None) -> Iterator[None]:
    """Says in the errors of a block of which columns it speaks."""
    try:
        yield
    except JaxgenError as error:
        error.message += f", in {_shown(columns, schema)}"
        raise


def _pairs(blocks: Any, called: str, schema: Schema | None = None) -> list[tuple[Columns, Any]]:
    """`(columns, what)` of every block; each column of the table belongs to one."""
    pairs = list(blocks.items() if isinstance(blocks, Mapping) else blocks)
    pairs = [(_columns(columns, called, schema), part) for columns, part in pairs]
    if schema is not None:
        pairs += _chosen(schema, [c for columns, _ in pairs for c in np.atleast_1d(columns).tolist()])
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

        schema: of the table that it is a model of; None of one of an array. Frames are read by it, and `schema.frame`
            makes frames of draws.

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
    schema: Schema | None = static(default=None)

    @classmethod
    def init(cls, key, x, blocks=(), *, missing: bool | None = None) -> Product:
        """A start from a table `[N, D]`.

        Args:
            key: typed key, split among the blocks.
            x: the table: a frame, a `data.Table`, or an array; NaN where the blocks allow it.
            blocks: `{columns: leaf}`, or a list of `(columns, leaf)`; a leaf is `(key, x_block) -> model`, such as
                `Gaussian.init`, or `functools.partial(Categorical.init, size=3)` for labels. The columns of a frame or
                `Table` have names, such as `{"age": StudentT.init}`, and those that are not named get a leaf by their
                kind: `DiagonalGaussian` for numbers, `Poisson` for counts, `Bernoulli` for flags and
                `Categorical` for labels.
            missing: True makes all blocks take cells that were not seen, of leaves that have that option; None is True
                of a table that has such cells.

        As the leaf of a mixture: itself, or `functools.partial(Product.init, blocks=...)`.

        Raises:
            ModelError: columns that are in no block or in two, or a block of other events than its columns.
            DataError: a table of another width, or data that a block refuses.

        Example:
            >>> import jaxgen as jg
            >>> x = jnp.array([[0.5, 3.0], [1.5, 5.0], [1.0, 4.0]])
            >>> start = Product.init(jax.random.key(0), x, {0: jg.Poisson.init, (1,): jg.DiagonalGaussian.init})
            Traceback (most recent call last):
            jaxgen.core.errors.DataError: x has values outside the support, in column 0
              called:   Poisson.init(key, x)
              expected: whole numbers from 0
              got:      2 of 3 outside, such as 0.5
              fix:      a Gaussian or a Gamma, for numbers that are no counts
            >>> start = Product.init(jax.random.key(0), x, {(0,): jg.DiagonalGaussian.init, 1: jg.Poisson.init})
            >>> start.blocks[1].rate.tolist()
            4.0
            >>> table = jg.data.Table.from_frame({"height": [1.7, 1.6, None], "eyes": ["blue", "brown", "blue"]})
            >>> start = Product.init(jax.random.key(0), table)
            >>> [type(block).__name__ for block in start.blocks], [f"{p:.2f}" for p in start.blocks[1].probs[0]]
            (['DiagonalGaussian', 'Categorical'], ['0.67', '0.33'])
        """
        called = "Product.init(key, x, blocks)"
        x, schema = opened(x)
        if schema is None and not blocks:
            raise ModelError(
                "the columns of an array are of no kind", called=called, expected="a frame, a table, or blocks",
                got="an array without blocks", fix="a Gaussian for the leaf, where all columns are numbers",
            )  # fmt: skip
        names = () if schema is None else schema.names
        x = jnp.asarray(as_array(x, name="x", called=called, allow_nan=True, columns=names))
        pairs = _pairs(blocks, called, schema)
        if missing or (missing is None and schema is not None and schema.missing):
            pairs = [(columns, _without_gaps(leaf)) for columns, leaf in pairs]
        width = sum(np.size(columns) for columns, _ in pairs)
        if x.ndim != 2 or x.shape[1] != width:
            raise DataError(
                "the table does not fit the blocks", called=called, expected=f"x [N, {width}]",
                got=f"shape {list(x.shape)}",
            )  # fmt: skip
        keys = jax.random.split(key, len(pairs))
        models = []
        for k, (columns, leaf) in zip(keys, pairs, strict=True):
            with _named(columns, schema):
                models.append((columns, leaf(k, _take(x, columns))))
        made = cls.from_blocks(models, schema=schema)
        if concrete(x):
            made._check_missing(x)
        return made

    @classmethod
    def from_blocks(cls, blocks, *, schema: Schema | None = None) -> Product:
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
        return cls(tuple(part for _, part in pairs), tuple(columns for columns, _ in pairs), schema)

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

    @property
    def mean(self) -> jax.Array:
        """`E[x]`, `[D]`, of blocks that have a `mean`."""
        return self._columnwise(Located, "mean", lambda block: block.mean)

    @property
    def variance(self) -> jax.Array:
        """Variances of the columns, `[D]`, of blocks that have a `variance`."""
        return self._columnwise(Spread, "variance", lambda block: block.variance)

    @property
    def bounds(self) -> tuple[jax.Array, jax.Array]:
        """The ends of the columns, `[D]` both, infinite for those of blocks that name none."""
        low, high = (np.concatenate([np.ravel(end) for end in ends])
                     for ends in zip(*map(algebra.bounds, self.blocks), strict=True))  # fmt: skip
        order = np.argsort(np.concatenate([np.atleast_1d(columns) for columns in self.columns]))
        return jnp.asarray(low[order]), jnp.asarray(high[order])

    def _columnwise(self, capability, name, of):
        """Join the numbers that blocks know of their columns, `[D]`."""
        for block in self.blocks:
            algebra.needed(block, capability, f"Product.{name}")
        columns = np.concatenate([np.atleast_1d(columns) for columns in self.columns])
        pairs = zip(self.columns, map(of, self.blocks), strict=True)
        values = [value[..., None] if isinstance(own, int) else value for own, value in pairs]
        return jnp.concatenate(values, axis=-1)[..., np.argsort(columns)]

    def _parts(self, x):
        """Each block with its part of the events."""
        return [(block, _take(x, columns)) for block, columns in zip(self.blocks, self.columns, strict=True)]

    def _check_missing(self, x) -> None:
        for columns, (block, own) in zip(self.columns, self._parts(np.asarray(x, float)), strict=True):
            if np.isnan(own).any() and not latent.accepts_missing(block):
                raise DataError(
                    f"a block of {type(block).__name__} has missing entries, which it takes as no data, in "
                    f"{_shown(columns, self.schema)}",
                    called="Product", expected="numbers in all rows", got=f"{np.isnan(own).sum()} NaN",
                    fix="make it with the option missing, which all of its blocks need to have",
                )  # fmt: skip

    def check_data(self, x) -> None:
        """Refuses data outside the support of a block with a DataError."""
        names = () if self.schema is None else self.schema.names
        x = as_array(x, name="x", called="Product.check_data(x)", allow_nan=True, columns=names)
        if concrete(x):
            self._check_missing(x)
        for columns, (block, own) in zip(self.columns, self._parts(x), strict=True):
            with _named(columns, self.schema):
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

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate alone, `[*batch, D] -> [*batch, D]`, where blocks have one."""
        return self._by_columns(lambda block, part, given: block.cdf(part, context=given), x, context, "Product.cdf(x)")

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate alone, levels `[*batch] -> [*batch, D]`."""
        ask = lambda block, _, given: block.quantile(level, context=given)  # noqa: E731
        return self._by_columns(ask, jnp.zeros(self.event_shape, level.dtype), context, "Product.quantile(level)")

    def _by_columns(self, ask, x, context, called):
        """Return what the blocks answer about their columns, put together as an event."""
        out = jnp.zeros(self.event_shape, float_type(self))
        for columns, (block, own) in zip(self.columns, self._parts(x), strict=True):
            algebra.needed(block, Quantiled, called)
            out = out.at[np.asarray(columns)].set(ask(block, own, _given(block, context)).astype(out.dtype))
        return out

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, D]`, floats."""
        dtype, out = float_type(self), jnp.zeros(self.event_shape, float_type(self))
        keys = jax.random.split(key, len(self.blocks))
        for k, block, columns in zip(keys, self.blocks, self.columns, strict=True):
            given = {} if context_shape(block) is None else {"context": context}
            out = out.at[np.asarray(columns)].set(block.sample(k, **given).astype(dtype))
        return out

    @per_batch
    def impute(self, x) -> jax.Array:
        """Events with what is missing (NaN) at its mean, labels and bits at their likeliest, `[*batch, D]`.

        Raises:
            ModelError: a block without `impute`.
        """
        return self.completed(x, self.expected(x))

    def expected(self, x):
        """The blocks' expectations of what is missing of events `[N, D]`."""
        for block in self.blocks:
            algebra.needed(block, expectations.Imputing, "Product.impute(x)")
        return tuple(expectations.expected(block, own) for block, own in self._parts(x))

    def completed(self, x, expected):
        """Events with what is missing as was expected."""
        for columns, (block, own), known in zip(self.columns, self._parts(x), expected, strict=True):
            x = x.at[..., np.asarray(columns)].set(expectations.completed(block, own, known))
        return x

    @compiled_by_trace
    def marginal(self, indices) -> Product:
        """The density of some columns, those at `indices` (static), in their order."""
        called = "Product.marginal(indices)"
        chosen, _ = chosen_and_rest(indices, self.event_shape[0], called)
        return self._restricted(chosen, lambda block, own, left: block.marginal(left), called)

    @compiled_by_trace
    def condition(self, indices, values) -> Product:
        """The density of the other columns given those at `indices` (static), `values [len(indices)]`.

        Raises:
            ModelError: no column is left, or a block with columns of both has no conditionals.
        """
        called = "Product.condition(indices, values)"
        chosen, rest = chosen_and_rest(indices, self.event_shape[0], called)
        if not len(rest):
            raise ModelError("no column is left", called=called, expected=f"fewer than {len(chosen)} indices",
                             got=str(len(chosen)))  # fmt: skip
        place, values = {column: i for i, column in enumerate(chosen.tolist())}, jnp.asarray(values)

        def given(block, own, left):
            known = tuple(i for i in range(len(own)) if i not in left)
            return block.condition(known, values[np.array([place[own[i]] for i in known])])

        return self._restricted(rest, given, called)

    def _restricted(self, chosen, restrict, called):
        """The product of the columns `chosen`, of a block with others too as `restrict(block, its columns, left)`."""
        place, blocks, columns = {column: i for i, column in enumerate(chosen.tolist())}, [], []
        for block, whole in zip(self.blocks, self.columns, strict=True):
            own = np.atleast_1d(whole).tolist()
            left = tuple(i for i, column in enumerate(own) if column in place)
            if not left:
                continue
            if len(left) < len(own):
                algebra.needed(block, Marginal, called)
                block = restrict(block, own, left)
            new = tuple(place[own[i]] for i in left)
            blocks.append(block)
            columns.append(new[0] if isinstance(whole, int) else new)
        known = self.schema and Schema(tuple(self.schema.columns[i] for i in chosen), self.schema.missing)
        return Product(tuple(blocks), tuple(columns), known)

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
        made = Product(tuple(block for block, _ in steps), self.columns, self.schema)
        return made, sum(repaired for _, repaired in steps)

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
