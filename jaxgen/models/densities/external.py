"""Any distrax distribution as a leaf of a mixture, trained by EM with steps of its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxgen.core.compiled import compiled
from jaxgen.core.errors import ModelError, ShapeError
from jaxgen.core.exchange import distrax
from jaxgen.core.inputs import floating
from jaxgen.core.methods import per_event, per_level, per_sample, weighted_events
from jaxgen.core.pytree import fixed, model, static
from jaxgen.ops.linalg import inverse_cholesky
from jaxgen.ops.roots import reach
from jaxgen.ops.stable import has_mass

HIGHEST = jax.lax.Precision.HIGHEST
#: how far along its plan an E-step tries: back (all of it undoes a first step), a little, all, beyond
LADDER = (-1.0, -0.25, 1 / 64, 1 / 16, 0.25, 0.5, 1.0, 2.0)
#: the model's own draws from which its Fisher information is taken: 10% of noise in it costs the rate 10%, not the end
DRAWS = 256
#: what that noise and parameters without influence need to be invertible, as a share of the diagonal
RIDGE = 1e-3
#: nats that an event loses where it becomes impossible: a finite number, so that sums stay finite
IMPOSSIBLE = 1e30


class LadderStatistics(NamedTuple):
    """Sums over events of weight w, for P parameters and J rungs.

    Args:
        weight: `sum w`.
        free: `sum w` for each parameter that may move, `[P]`; zero where it is frozen.
        score: gradient of `sum w log p` at the parameters, `[P]`.
        ahead: the same at the end of the plan, `[P]`.
        gains: what `sum w log p` gains on each rung, `[J]` nats.
    """

    weight: jax.Array
    free: jax.Array
    score: jax.Array
    ahead: jax.Array
    gains: jax.Array


@model
class DistraxLeaf:
    """A distrax distribution, built inside each call from parameters that train: a component of any kind.

    `log p(x) = make(params).log_prob(x)`

    Args:
        params: what `make` takes, floats, all trained and without constraints: `make` maps them to where they belong.
        plan: like `params`, where the next M-step means to go; never trained by a gradient. Zero: no plan yet.
        make: `params -> distribution`, a module-level function; to be loaded from a file it is registered with
            `jaxgen.core.files.loadable`.
        event_shape: the shape of one event; a distribution with a batch shape has independent coordinates.

    An arbitrary density has no finite sufficient statistics, so EM is a generalised one: an M-step does not reach the
    maximum, it improves. Each M-step ends with a plan, a damped step of Fisher scoring,
    `d = F^-1 g / (1 + |g|_F)`, `|g|_F^2 = g' F^-1 g`, with g the mean score of an event and F the Fisher information of
    the distribution, from draws of its own; a plan moves the density by less than half a nat of divergence. The next
    E-step evaluates the likelihood on eight rungs along the plan, on all events, and the M-step goes to the best of
    them or, if none gains, nowhere, and plans anew. So no M-step decreases the likelihood, but for the first of a leaf
    that has no plan: it takes the damped step as it is (clusters of a mixture have to part), and the second can take it
    back. A fit of one such leaf may stand still for one step; give it `tolerance=0.0` where that ends it too early.

    It costs some fifteen densities per event and step, and P^3 for P parameters: made for tens of them. A network of
    thousands wants `Gradient`. A leaf of no mass keeps its parameters and is counted as repaired.

    Source: Dempster, Laird and Rubin (1977), section 3 (generalised EM); Amari (1998), Natural gradient works
    efficiently in learning; Nesterov (2004), Introductory lectures on convex optimization, section 4.1.5 (the damping).

    Example:
        >>> from jaxgen.core.exchange import distrax
        >>> def laplace(params):
        ...     return distrax().Laplace(params["loc"], jnp.exp(params["log_scale"]))
        >>> leaf = DistraxLeaf.from_values({"loc": jnp.zeros(2), "log_scale": jnp.zeros(2)}, laplace, (2,))
        >>> round(float(leaf.log_prob(jnp.array([1.0, 0.0]))), 4)
        -2.3863
    """

    params: Any
    plan: Any = fixed()
    make: Callable[[Any], Any] = static()
    event_shape: tuple[int, ...] = static()

    @classmethod
    def init(cls, key, x, make, params, *, steps: int = 30) -> DistraxLeaf:
        """A start from data `[N, *event]`: `steps` M-steps from `params`.

        As the leaf of a mixture: `functools.partial(DistraxLeaf.init, make=make, params=params)`.

        Args:
            key: not used.
            x: events, of whatever kind the distribution is of.
            make: `params -> distribution`.
            params: where to start.
            steps: number of M-steps.
        """
        x = jnp.asarray(x)
        # in the precision of the data, which may not be that of the numbers a user wrote
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        params = jax.tree.map(lambda leaf: floating(leaf, name="params").astype(dtype), params)
        start = cls.from_values(params, make, x.shape[1:])
        weight = jnp.ones(x.shape[0], dtype)
        last = jax.lax.fori_loop(0, steps, lambda _, leaf: leaf.m_step(leaf.e_step(x, weight)[0]), start)
        return cls.from_values(last.params, make, x.shape[1:])

    @classmethod
    def from_values(cls, params, make, event_shape) -> DistraxLeaf:
        """From parameters (with leading axes: a batch of leaves), without a plan.

        Raises:
            ModelError: no parameters.
        """
        params = jax.tree.map(lambda leaf: floating(leaf, name="params"), params)
        if not jax.tree.leaves(params):
            raise ModelError(
                "there is nothing to train", called="DistraxLeaf.from_values(params, make, event_shape)",
                expected="params, a pytree of floats", got=repr(params)[:80],
            )  # fmt: skip
        return cls(params, jax.tree.map(jnp.zeros_like, params), make, tuple(event_shape))

    def _checked(self, params, method):
        distribution = self.make(params)
        shape = (*distribution.batch_shape, *distribution.event_shape)
        if shape != self.event_shape:
            raise ShapeError(
                "the distribution has other events than the leaf", called=f"DistraxLeaf.{method}",
                expected=f"batch and event shape {list(self.event_shape)} together", got=f"shape {list(shape)}",
                fix="params of the shape of one event",
            )  # fmt: skip
        return distribution

    def _log_prob(self, params, x):
        return jnp.sum(self._checked(params, "log_prob(x)").log_prob(x))

    @per_event
    def log_prob(self, x, *, context=None) -> jax.Array:
        """Nats, `[*batch, *event] -> [*batch]`."""
        return self._log_prob(self.params, x)

    def _numbers(self, called):
        """The distribution, refused where it has no distribution function of each coordinate."""
        distribution = self._checked(self.params, called)
        try:
            if distribution.event_shape == ():
                jax.eval_shape(lambda: distribution.cdf(jnp.zeros(self.event_shape)))
                return distribution
        except NotImplementedError:
            pass
        raise ModelError(
            "the distribution has no distribution function of its coordinates", called=f"DistraxLeaf.{called}",
            expected="a distribution of numbers with cdf", got=type(distribution).__name__,
            fix="np.quantile(model.sample(key, (100_000,)), level, axis=0)",
        )  # fmt: skip

    @per_event
    def cdf(self, x, *, context=None) -> jax.Array:
        """Return `P(X <= x)` of each coordinate by itself, `[*batch, *event]` both, of a distribution of numbers."""
        return self._numbers("cdf(x)").cdf(x)

    @per_level
    def quantile(self, level, *, context=None) -> jax.Array:
        """Return quantiles of each coordinate by itself, levels `[*batch] -> [*batch, *event]`."""
        distribution = self._numbers("quantile(level)")
        # one draw is about where the mass is, whatever the unit
        near = distribution.sample(seed=jax.random.key(0), sample_shape=(2,)).astype(level.dtype)
        return reach(distribution.cdf, jnp.broadcast_to(level, self.event_shape), near.min(axis=0), near.max(axis=0))

    @per_sample
    def sample(self, key, shape=(), *, context=None) -> jax.Array:
        """Draws `[*shape, *event]`."""
        return self._checked(self.params, "sample(key)").sample(seed=key)

    @weighted_events
    def e_step(self, x, weight=None):
        """`LadderStatistics` along the plan, and `log_prob [N]`."""
        start, back = ravel_pytree(self.params)
        plan = ravel_pytree(self.plan)[0]
        value = lambda at, x: self._log_prob(back(at), x)  # noqa: E731
        log_prob, score = jax.vmap(jax.value_and_grad(value), (None, 0))(start, x)
        ahead = jax.vmap(jax.grad(value), (None, 0))(start + plan, x)
        rungs = start + jnp.asarray(LADDER, start.dtype)[:, None] * plan
        gains = jax.vmap(jax.vmap(value, (None, 0)), (0, None))(rungs, x) - log_prob
        gains = jnp.where(jnp.isneginf(log_prob), 0, gains)  # an event that was impossible says nothing of a step
        gains = jnp.where(jnp.isfinite(gains), jnp.clip(gains, -IMPOSSIBLE, IMPOSSIBLE), -IMPOSSIBLE)
        total = lambda rows: jnp.tensordot(weight, jnp.where(jnp.isfinite(rows), rows, 0), 1, precision=HIGHEST)  # noqa: E731
        mass = jnp.sum(weight)
        statistics = LadderStatistics(
            mass, jnp.broadcast_to(mass, start.shape), total(score), total(ahead), total(gains.T)
        )
        return jax.tree.map(lambda leaf: leaf.astype(start.dtype), statistics), log_prob

    def m_step(self, statistics) -> DistraxLeaf:
        """To the best rung of the ladder, with a plan from there."""
        return self.maximize(statistics)[0]

    @compiled
    def maximize(self, statistics):
        """`m_step`, and 1 where there was no mass, or no number, to go by."""
        weight, free, score, ahead, gains = statistics
        alive = has_mass(weight)
        start, back = ravel_pytree(self.params)
        plan = ravel_pytree(self.plan)[0]
        best = jnp.argmax(gains)
        along = jnp.where(gains[best] > 0, jnp.asarray(LADDER, start.dtype)[best], 0)
        there = start + along * plan
        # the score on the rung, between those at both ends of the plan; a bad guess is found out on the next ladder
        mean = (score + along * (ahead - score)) / jnp.where(alive, weight, 1)
        step = self._fisher_step(back, there, jnp.where(free > 0, mean, 0), free > 0)
        # without a plan there was nothing to try out: the step itself is taken, and stays a plan that can be undone
        there = jnp.where(jnp.any(plan != 0), there, start + step)
        good = alive & jnp.isfinite(there).all() & jnp.isfinite(step).all()
        new = DistraxLeaf(
            back(jnp.where(good, there, start)), back(jnp.where(good, step, 0)), self.make, self.event_shape
        )
        return new, (~good).astype(jnp.int32)

    def _fisher_step(self, back, at, score, free):
        """`F^-1 g / (1 + |g|_F)` at parameters `[P]`, over those that are free."""
        # one set of random numbers for all steps: quadrature, not simulation
        keys = jax.random.split(jax.random.key(0), DRAWS)
        draws = jax.vmap(lambda key: self._checked(back(at), "maximize").sample(seed=key))(keys)
        scores = jax.vmap(jax.grad(lambda at, x: self._log_prob(back(at), x)), (None, 0))(at, draws)
        scores = jnp.where(jnp.isfinite(scores) & free, scores, 0)
        fisher = jnp.matmul(scores.T, scores, precision=HIGHEST) / DRAWS
        diagonal = jnp.diagonal(fisher)
        # each parameter in its own units; one without any influence has none
        ridge = jnp.where(free & has_mass(diagonal), RIDGE * diagonal, 1)
        whitener = inverse_cholesky(fisher + jnp.diag(ridge))
        white = jnp.matmul(whitener, score, precision=HIGHEST)
        # an event far out in a light tail has a score whose square overflows
        largest = jnp.maximum(jnp.max(jnp.abs(white)), 1)
        length = largest * jnp.sqrt(jnp.sum((white / largest) ** 2))
        return jnp.matmul(whitener.T, white / (1 + length), precision=HIGHEST)

    def freeze(self, statistics, frozen):
        """Statistics in which frozen parameters do not move; a plan that would have moved them was tried in vain."""
        kept = ravel_pytree(frozen.params)[0].astype(bool)
        spoilt = jnp.any(kept & (ravel_pytree(self.plan)[0] != 0))
        gains = jnp.where(spoilt, -IMPOSSIBLE, statistics.gains)
        return statistics._replace(free=jnp.where(kept, 0, statistics.free), gains=gains)

    def distribution(self):
        """The distrax distribution."""
        distribution = self._checked(self.params, "distribution()")
        inner = len(distribution.batch_shape)
        return distrax().Independent(distribution, inner) if inner else distribution
