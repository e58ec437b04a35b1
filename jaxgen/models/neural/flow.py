"""Normalizing flows: the density of a base density's samples after a bijection."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.bijections import Chain, Coupling, Permute, Scan, Standardize
from jaxgen.bijections.basics import (
    Transforming,
    Wrapping,
    as_floating,
    as_shape,
    example,
    is_periodic,
    shared_context,
)
from jaxgen.bijections.checks import log_det_error, outside, round_trip
from jaxgen.bijections.supports import Support, real, to_real, unseen_real
from jaxgen.core import algebra, latent
from jaxgen.core.compiled import compiled_once
from jaxgen.core.errors import FitError, JaxgenWarning, ModelError, ShapeError
from jaxgen.core.exchange import as_distribution
from jaxgen.core.inputs import as_array, floating
from jaxgen.core.methods import (
    check_key,
    context_shape,
    latent_shape,
    per_event,
    per_latent,
    per_level,
    per_sample,
    same_shape,
)
from jaxgen.core.protocols import Quantiled, has
from jaxgen.core.pytree import model, part
from jaxgen.core.scores import plus_minus
from jaxgen.core.value import ByValue
from jaxgen.ops.scaling import center_and_scale

#: what float32 may lose on the way there and back, in standard deviations, and of a log-determinant, in nats, before
#: `Flow.check` calls it a problem: a hundred times what layers lose at usual parameters
ROUND_TRIP, LOG_DET = 1e-3, 1e-2
#: shares of events or draws in the wrong places that are a problem, beyond what chance explains
MISPLACED = 0.05
#: share of the data outside of the splines' intervals that is a problem: there the flow is straight
OUTSIDE = 0.005


class FlowCheck(NamedTuple):
    """The report of `Flow.check`.

    Args:
        round_trip: largest error there and back, over data and own draws, in standard deviations of the data; on the
            side of the base in units of the base.
        log_det: largest error of a log-determinant against autodiff's Jacobian, nats, over a few events.
        stray: share of own draws that leave the range of the data in some coordinate; `2 D / (N + 1)` by chance.
        uncovered: share of the data that are less likely than the least likely of the own draws: tails or modes that
            the flow does not reach.
        outside: share of the data that some spline on their way meets outside of its interval.
        outside_mean: log-density of those, nats per event; NaN where there are none.
        mean: log-density of the data, nats per event.
        standard_error: of `mean`.
        bound: what `mean` cannot exceed, None where nobody said.
        problems: one line each; none is good.
    """

    round_trip: float
    log_det: float
    stray: float
    uncovered: float
    outside: float
    outside_mean: float
    mean: float
    standard_error: float
    bound: float | None
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        limit = "" if self.bound is None else f" (bound {self.bound:.4f})"
        rows = (
            ("round trip", f"{self.round_trip:.1e} standard deviations"),
            ("log-det", f"{self.log_det:.1e} nats from the Jacobian"),
            ("own draws", f"{self.stray:.1%} leave the range of the data"),
            ("data", f"{self.uncovered:.1%} less likely than all own draws"),
            ("splines", f"{self.outside:.2%} of the data outside of an interval" + (
                f", there {self.outside_mean:.4f} nats per event" if self.outside else "")),
            ("density", f"{plus_minus(self.mean, self.standard_error)} nats per event{limit}"),
            *(("problem", text) for text in self.problems),
        )
        return "\n".join(f"{name:<11}{text}" for name, text in rows)


@model
class Flow:
    """The density of a base density's samples after a bijection.

    `log p(x) = log p_base(z) + log |det dz/dx|`, `z = bijection^-1(x)`

    Args:
        base: any density, with or without parameters: a standard normal, a mixture, another flow. Its events have the
            shape of the bijection's `latent_shape`; a free length takes the bijection's.
        bijection: any bijection; its `event_shape` is the flow's. What takes a context, base or layers, takes the same
            one.

    Example:
        >>> import jaxgen as jg
        >>> from jaxgen.bijections import Affine
        >>> flow = Flow(jg.StandardNormal((2,)), Affine(jnp.array([1.0, 2.0]), jnp.zeros(2)))
        >>> round(float(flow.log_prob(jnp.array([1.0, 2.0]))), 4)
        -1.8379
        >>> flow.sample(jax.random.key(0), (5,)).shape
        (5, 2)
    """

    base: Any = part()
    bijection: Any = part()

    @classmethod
    def init(
        cls, key, x, base: Any, layer: Callable[[Any, Any], Any] = Coupling.init, *, layers: int = 8,
        support: Support = real,
    ) -> Flow:  # fmt: skip
        """Layers of one kind with permutations between them, then the units of the data, then their support.

        Couplings and autoregressive layers start as the identity, so that the flow starts as the base in the data's
        center and scale, see `Standardize`. Permutations come in pairs: one reverses the order, so that a pair of
        couplings moves every coordinate; the next is a random cycle, so that all sides mix.

        Args:
            key: typed key.
            x: events `[N, D]`, for the standardisation, the dtype, and layers that start from data. Or the shape
                `(D,)` of one, of a flow that no data are given to, as in variational inference: it starts as the base.
            base: density of events `[D]`, such as `StandardNormal((D,))`; of `[D - 1]` on the simplex.
            layer: `(key, x) -> bijection` of events `[D]`, where x are the standardised events: `Coupling.init`, or
                `functools.partial(Coupling.init, transform=SplineTransform())`.
            layers: L, the number of layers.
            support: what values x can take: `real`, `positive`, `simplex`, `circle` or `Interval(low, high)`, of
                `jaxgen.bijections`. The layers work on unbounded numbers, in units of their scale; the
                density is one of x, and zero outside of the support. On the circle the layers take angles as they are,
                from -pi to pi, and have a `CircularSplineTransform`; the base is a density of angles.

        Raises:
            ModelError: no layers, a base, a layer or a support of another event shape, or layers that do not close on
                the circle.
            ShapeError: events that are no vectors.
            DataError: data outside of the support or on its edge.

        Example:
            >>> import jaxgen as jg
            >>> x = jg.data.two_moons(jax.random.key(1), 100)
            >>> flow = Flow.init(jax.random.key(0), x, jg.StandardNormal((2,)), layers=2)
            >>> flow.log_prob(x).shape
            (100,)
            >>> Flow.init(jax.random.key(0), (3,), jg.StandardNormal((3,)), layers=2).event_shape
            (3,)
        """
        called = "Flow.init(key, x, base, layer)"
        alone = as_shape(x) is not None
        x = example(x) if alone else jnp.asarray(as_array(x, name="x"))
        if x.ndim != 2:
            raise ShapeError(
                "these layers take vectors", called=called, expected="x [N, D], or the shape (D,) of one",
                got=f"shape {list(x.shape)}",
                fix=f"({x.size},)" if alone else "np.reshape(x, (len(x), -1))",
            )  # fmt: skip
        x, bounds = unseen_real(support, x, called) if alone else to_real(support, x, called)
        size = x.shape[1]
        if layers < 1 or tuple(base.event_shape) != (size,):
            raise ModelError(
                "base and layers do not fit the data", called=called, expected=f"layers >= 1, events [{size}]",
                got=f"layers {layers}, a base of events {list(base.event_shape)}",
                fix=f"jaxgen.StandardNormal(({size},))",
            )  # fmt: skip
        periodic = is_periodic(support)
        stack, units = _stacked(key, x, ByValue(layer), layers, not (periodic or alone))
        if tuple(stack.event_shape) != (size,):
            raise ModelError(
                "the layer does not fit the data", called=called, expected=f"a bijection of events [{size}]",
                got=f"events {list(stack.event_shape)}", fix="a layer that reads its shape from the x it is given",
            )  # fmt: skip
        if periodic:
            _check_closed(stack.layers.layers[0], called)
        return cls(base, Chain(tuple(part for part in (stack, units, bounds) if part is not None)))

    @property
    def event_shape(self):
        if not same_shape(self.base.event_shape, latent_shape(self.bijection)):
            raise ModelError(
                "the base does not fit the bijection", called="Flow(base, bijection)",
                expected=f"a base of events {list(latent_shape(self.bijection))}",
                got=f"a {type(self.base).__name__} of events {list(self.base.event_shape)}",
                fix=f"jaxgen.StandardNormal({latent_shape(self.bijection)})",
            )  # fmt: skip
        return tuple(self.bijection.event_shape)

    @property
    def latent_shape(self):
        return latent_shape(self.bijection)

    @property
    def context_shape(self):
        return shared_context(self.base, self.bijection)

    def _for_base(self, context):
        return None if context_shape(self.base) is None else context

    def _length(self, length):
        """The length of a base of free length: the bijection's, or the one asked for where that is free too."""
        given = [n for n, free in zip(self.latent_shape, self.base.event_shape, strict=True) if free is None]
        return {"length": length if given[0] is None else given[0]} if given else {}

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        z, log_det = self.bijection.inverse_and_log_det(x, context)
        return self.base.log_prob(z, context=self._for_base(context)) + log_det

    @per_event
    def elbo(self, key, x, *, context=None) -> jax.Array:
        """A lower bound on `log p(x)`, of a base that has one: the base's and the log-determinant, nats."""
        z, log_det = self.bijection.inverse_and_log_det(x, context)
        return latent.bound(self.base, key, z, self._for_base(context)) + log_det

    @per_event
    def iwae(self, key, x, *, context=None, samples=50) -> jax.Array:
        """The logarithm of an unbiased estimate of p(x), of a base that has one, nats, `[*batch]`."""
        z, log_det = self.bijection.inverse_and_log_det(x, context)
        return latent.estimate(self.base, key, z, self._for_base(context), samples) + log_det

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate alone, `[*batch, 1] -> [*batch, 1]`, of events of one number."""
        self._check_one("Flow.cdf(x)")
        z, log_det = self.bijection.inverse_and_log_det(x, context)
        given, level = self._for_base(context), jnp.asarray(0.5, z.dtype)
        middle = self.base.quantile(level, context=given)
        share = self.base.cdf(z, context=given)
        share = jnp.where(self._rises(middle, context), share, 1 - share)
        # there is no way back from outside of the support
        above = x > self.bijection.forward_and_log_det(middle, context)[0]
        end = jnp.where(jnp.isnan(x), jnp.nan, above).astype(share.dtype)
        return jnp.where(log_det > -jnp.inf, share, end)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate alone, levels `[*batch] -> [*batch, 1]`, of events of one number."""
        self._check_one("Flow.quantile(level)")
        given = self._for_base(context)
        middle = self.base.quantile(jnp.full_like(level, 0.5), context=given)
        level = jnp.where(jnp.all(self._rises(middle, context)), level, 1 - level)
        return self.bijection.forward_and_log_det(self.base.quantile(level, context=given), context)[0]

    def _rises(self, z, context):
        """Return whether the bijection, monotone in one number, rises at z."""
        way = lambda z: self.bijection.forward_and_log_det(z, context)[0]  # noqa: E731
        return jax.jvp(way, (z,), (jnp.ones_like(z),))[1].reshape(self.event_shape) > 0

    def _check_one(self, called):
        algebra.needed(self.base, Quantiled, called)
        if self.event_shape not in ((), (1,)) or self.latent_shape != self.event_shape:
            raise ModelError(
                "the coordinates of a flow have no distribution function of their own", called=called,
                expected="events of one number, [1]", got=f"events {list(self.event_shape)}",
                fix="np.quantile(model.sample(key, (100_000,)), level, axis=0)",
            )  # fmt: skip

    @per_sample
    def sample(self, key, shape=(), *, context=None, length=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        z = self.base.sample(key, context=self._for_base(context), **self._length(length))
        return self.bijection.forward_and_log_det(as_floating(z, self), context)[0]

    @per_sample
    def sample_and_log_prob(self, key, shape=(), *, context=None, length=None) -> tuple[jax.Array, jax.Array]:
        """Draws `[*shape, *event]` and their log-density `[*shape]`, without a way back through the layers."""
        z, log_base = algebra.sample_and_log_prob(self.base, key, self._for_base(context), **self._length(length))
        x, log_det = self.bijection.forward_and_log_det(as_floating(z, self), context)
        # a base without arrays draws in JAX's default precision, whatever that of the layers is
        return x, (log_base - log_det).astype(log_det.dtype)

    @per_event
    def encode(self, x, *, context=None) -> jax.Array:
        """Events in the coordinates of the base, `z`, `[*batch, *event] -> [*batch, *latent]`."""
        return self.bijection.inverse_and_log_det(x, context)[0]

    @per_latent
    def decode(self, z, *, context=None) -> jax.Array:
        """From the coordinates of the base back to events, `[*batch, *latent] -> [*batch, *event]`."""
        return self.bijection.forward_and_log_det(z, context)[0]

    @per_event
    def inverse_and_log_det(self, x, *, context=None) -> tuple[jax.Array, jax.Array]:
        """Return `encode(x)` `[*batch, *latent]` and `log |det dz/dx|` `[*batch]`: all of `log_prob` but the base."""
        return self.bijection.inverse_and_log_det(x, context)

    @per_latent
    def forward_and_log_det(self, z, *, context=None) -> tuple[jax.Array, jax.Array]:
        """Return `decode(z)` `[*batch, *event]` and `log |det dx/dz|` `[*batch]`."""
        return self.bijection.forward_and_log_det(z, context)

    def distribution(self):
        """The distrax distribution."""
        return as_distribution(self)

    def check(self, key, x, *, context=None, bound: float | None = None, draws: int = 1000) -> FlowCheck:
        """Looks for what goes wrong with flows in silence, and warns of it.

        Args:
            key: typed key.
            x: events `[N, *event]`, those of the training or others like them.
            context: `[N, *context]` for a conditional flow; draws take the contexts of as many events.
            bound: what no density of such data can exceed in the mean, nats per event: minus the entropy of the source,
                or that of noise that was added.
            draws: how many of its own to draw.

        Returns:
            `FlowCheck`; `print` it. Problems are also a `JaxgenWarning`.

        Raises:
            DataError, ShapeError: data that do not fit the flow. FitError: fewer than 10 draws.

        Example:
            >>> import jaxgen as jg
            >>> from jaxgen.bijections import Affine
            >>> flow = Flow(jg.StandardNormal((2,)), Affine(jnp.zeros(2), jnp.zeros(2)))
            >>> x = flow.sample(jax.random.key(0), (500,))
            >>> flow.check(jax.random.key(1), x).ok
            True
        """
        found = _check(self, key, x, context, bound, draws)
        if found.problems:
            warnings.warn(f"Flow.check(key, x): {'; '.join(found.problems)}", JaxgenWarning, stacklevel=2)
        return found


def _check(flow, key, x, context, bound, draws) -> FlowCheck:
    check_key(key, "Flow.check(key, x)")
    if draws < 10:
        raise FitError("a check needs draws", called="Flow.check(key, x)", expected="draws of 10 or more", got=draws)
    x = floating(as_array(x, name="x"))
    log_prob = np.asarray(flow.log_prob(x, context=context), np.float64)
    if log_prob.ndim != 1:
        raise ShapeError(
            "data need one leading axis of events", called="Flow.check(key, x)", got=f"shape {list(x.shape)}",
            expected=f"[N, {', '.join(map(str, flow.event_shape))}]", fix="np.reshape(x, (-1, *flow.event_shape))",
        )  # fmt: skip
    n, rows = len(x), np.arange(draws) % len(x)
    contexts = context_shape(flow) is not None
    context = jnp.broadcast_to(jnp.asarray(context), (n, *flow.context_shape)) if contexts else None
    own = flow.sample(key, (draws,), context=context[rows] if contexts else None)
    own_log_prob = np.asarray(flow.log_prob(own, context=context[rows] if contexts else None), np.float64)

    few = min(n, draws)
    there, back = round_trip(
        flow.bijection, x[:few], flow.encode(own[:few], context=context[rows][:few] if contexts else None),
        context[:few] if contexts else None,
    )  # fmt: skip
    scale = np.asarray(center_and_scale(x.reshape(n, -1))[1])
    lost = float(max((there.reshape(few, -1) / scale).max(), back.max()))
    # the cost of a Jacobian grows with the square of the size
    seen = max(1, min(n, 32, 2**14 // scale.size))
    log_det = float(log_det_error(flow.bijection, x[:seen], context[:seen] if contexts else None).max())

    flat, drawn = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (x, own))
    stray = float(((drawn < flat.min(axis=0)) | (drawn > flat.max(axis=0))).any(axis=1).mean())
    uncovered = float((log_prob < own_log_prob.min()).mean())
    far = outside(flow.bijection, x, context)
    beyond, beyond_mean = float(far.mean()), float(log_prob[far].mean()) if far.any() else float("nan")
    mean, finite = float(log_prob.mean()), log_prob[np.isfinite(log_prob)]
    error = float(finite.std(ddof=1) / np.sqrt(finite.size)) if finite.size > 1 else float("nan")
    by_chance = min(1.0, 2 * flat.shape[1] / (n + 1))
    allowed = by_chance + 4 * np.sqrt(by_chance * (1 - by_chance) / draws) + MISPLACED
    broken = int((~np.isfinite(log_prob)).sum()), int((~np.isfinite(drawn).all(axis=1)).sum())
    problems = [
        text for wrong, text in (
            (broken[0], f"{broken[0]} of {n} events have no finite density"),
            (broken[1], f"{broken[1]} of {draws} own draws are not finite"),
            (not lost <= ROUND_TRIP, f"events come back changed by {lost:.1e} standard deviations: steep layers"),
            (not log_det <= LOG_DET, f"a log-determinant is off by {log_det:.1e} nats: densities are wrong by as much"),
            (stray > allowed, f"{stray:.1%} of own draws leave the range of the data, {by_chance:.1%} would by chance"),
            (uncovered > MISPLACED + 4 / draws, f"{uncovered:.1%} of the data are less likely than all own draws"),
            (beyond > OUTSIDE,
             f"{beyond:.1%} of the data lie outside of the splines' intervals, at {beyond_mean:.1f} nats per "
             "event: a larger bound"),
            (bound is not None and mean > bound + 3 * np.nan_to_num(error),
             f"the data's density, {mean:.4f}, exceeds the bound {bound}: learned by heart, or not a density"),
        ) if wrong
    ]  # fmt: skip
    return FlowCheck(lost, log_det, stray, uncovered, beyond, beyond_mean, mean, error, bound, tuple(problems))


def _orders(key, size, layers):
    """The permutations after each of L layers, `[L, D]`: reversals, and random cycles in between."""

    def cycle(key):
        # one cycle through all coordinates, so that none stays in its place; for D = 2 that is the reversal
        tour = jax.random.permutation(key, size)
        return jnp.zeros(size, tour.dtype).at[tour].set(jnp.roll(tour, 1))

    cycles = jax.vmap(cycle)(jax.random.split(key, layers))
    even = jnp.arange(layers)[:, None] % 2 == 0
    return jnp.where(even, jnp.arange(size)[::-1], cycles).astype(jnp.int32)


@compiled_once(static_argnames=("layer", "layers", "scaled"))
def _stacked(key, x, layer, layers, scaled):
    networks, orders = jax.random.split(key)
    units, z = Standardize.from_data(x) if scaled else None, floating(x)
    z = z if units is None else jax.vmap(units.inverse_and_log_det)(z)[0]
    keys, orders = jax.random.split(networks, layers), _orders(orders, x.shape[1], layers)
    return Scan(jax.vmap(lambda key, order: Chain((layer(key, z), Permute(order))))(keys, orders)), units


def _check_closed(layer, called) -> None:
    while has(layer, Wrapping):
        layer = layer.layer
    transform = layer.transform if has(layer, Transforming) else None
    if not (is_periodic(layer) or is_periodic(transform)):
        raise ModelError(
            "the layers do not close on the circle", called=called, expected="a transform that is periodic",
            got=f"{type(layer).__name__} with {transform}",
            fix="functools.partial(Coupling.init, transform=CircularSplineTransform())",
        )  # fmt: skip
