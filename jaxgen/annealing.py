"""Paths of energy models from a tractable one to the one of interest, as values: what annealing and tempering share."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import FitError, ModelError
from jaxgen.core.inputs import as_array, widened
from jaxgen.core.protocols import Annealed, Energy, has


class AnnealingPath(Protocol):
    """A path of energy models from a tractable one at 0 to the one of interest at 1; a pytree.

    A model that has an `annealing_path()` can be passed in place of one.
    """

    def at(self, beta: Any) -> Energy:
        """The model at `beta` in [0, 1]."""
        ...

    def sample(self, key: Any, shape: Any = ()) -> jax.Array:
        """Exact and independent draws from `at(0)`, `[*shape, *event]`."""
        ...

    def log_partition(self) -> jax.Array:
        """The exact log of the partition function of `at(0)`, nats."""
        ...


class Trajectory(NamedTuple):
    """The path that training took: from a tractable model to the first checkpoint, and on from each to the next.

    Between two checkpoints the parameters are interpolated, which makes their energies a geometric path where they are
    linear in the parameters, as a Boltzmann machine's are. A machine that learned one mode after the other is reached
    without the sudden change that a ladder of temperatures meets where the modes part.

    A fit that resumes gives the checkpoints:
    `[fit(key, start, x, steps=n, checkpoint=folder).model for n in (100, 1000, 5000)]`.

    Args:
        start: the `AnnealingPath` to the first checkpoint.
        models: K checkpoints, oldest first: a model whose leaves carry a leading axis. The last is the one of interest.

    Source: Bereux, Decelle, Furtlehner, Rosset and Seoane (2025), Fast training and sampling of restricted Boltzmann
    machines, for trajectory annealed importance sampling.

    Example:
        >>> import jaxgen as jg
        >>> early, late = (jg.RBM.from_values(jnp.ones(3), jnp.zeros(2), jnp.full((3, 2), s)) for s in (0.1, 1.0))
        >>> path = Trajectory.from_models([early, late])
        >>> [round(float(path.at(beta).weights[0, 0]), 3) for beta in (0.0, 0.25, 0.5, 0.75, 1.0)]
        [0.0, 0.05, 0.1, 0.55, 1.0]
    """

    start: Any
    models: Any

    @classmethod
    def from_models(cls, models: Any, start: Any = None) -> Trajectory:
        """From checkpoints.

        Args:
            models: a sequence of models of one structure, or one model whose leaves carry a leading axis.
            start: the path to the first of them; None asks it for its `annealing_path()`.

        Raises:
            ModelError: no models, or a first one without a path.
        """
        listed = type(models) in (tuple, list) and models
        stacked = algebra.batch_of(models, "Trajectory.from_models(models)") if listed else models
        leaves = jax.tree.leaves(stacked)
        if not leaves or np.ndim(leaves[0]) == 0 or len({np.shape(leaf)[:1] for leaf in leaves}) != 1:
            raise ModelError(
                "there are no checkpoints", called="Trajectory.from_models(models)", got=repr(models)[:200],
                expected="models of one structure, or one model whose leaves carry a leading axis",
                fix="take a list of models",
            )  # fmt: skip
        first = algebra.take(stacked, 0)
        return cls(as_path(first if start is None else start, "Trajectory.from_models(models)"), stacked)

    def at(self, beta: Any) -> Any:
        """The model at `beta`: the k-th of K checkpoints at `k / K`, counted from 1."""
        count = algebra.count(self.models)
        place = jnp.asarray(beta) * count - 1
        index = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, max(count - 2, 0))
        share = jnp.clip(place - index, 0, 1)
        before, after = (algebra.take(self.models, i) for i in (index, jnp.minimum(index + 1, count - 1)))
        first = self.start.at(jnp.clip(place + 1, 0, 1))

        def between(first: Any, a: Any, b: Any) -> Any:
            if not jnp.issubdtype(a.dtype, jnp.floating):
                return a
            return jnp.where(place < 0, first, (1 - share) * a + share * b).astype(a.dtype)

        return jax.tree.map(between, first, before, after)

    def sample(self, key: Any, shape: Any = ()) -> jax.Array:
        """Exact and independent draws from `at(0)`, `[*shape, *event]`."""
        return self.start.sample(key, shape)

    def log_partition(self) -> jax.Array:
        """`log Z` of `at(0)`, nats, exact."""
        return self.start.log_partition()


def as_path(path: Any, called: str) -> Any:
    """An `AnnealingPath` as it is, or that of a model that has an `annealing_path()`; 16-bit numbers as float32.

    Raises:
        ModelError: neither.
    """
    path = widened(path)
    if has(path, AnnealingPath):
        return path
    if not has(path, Annealed):
        raise ModelError(
            "there is no path to anneal along", called=called, got=type(path).__name__,
            expected="an AnnealingPath (at, sample, log_partition), or a model with annealing_path()",
        )  # fmt: skip
    return path.annealing_path()


def ladder(betas: Any, steps: int, called: str) -> jax.Array:
    """Places on a path, `[steps + 1]` from 0 to 1: even ones where `betas` is None.

    Raises:
        FitError: fewer than one step; betas that do not rise from 0 to 1, but for rounding elsewhere.

    Example:
        >>> ladder(None, 4, "demo").tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if betas is None:
        if steps < 1:
            raise FitError("a ladder needs steps", called=called, expected="1 or more", got=str(steps))
        return jnp.linspace(0.0, 1.0, steps + 1)
    betas = as_array(betas, name="betas", called=called)
    if not isinstance(betas, jax.core.Tracer):
        host = np.asarray(betas)
        rises = host.ndim == 1 and host.size > 1 and (np.diff(host) > 0).all()
        if not rises or abs(host[0]) > 1e-5 or abs(host[-1] - 1) > 1e-5:
            raise FitError(
                "betas are no ladder", called=called, expected="[steps + 1], increasing from 0 to 1",
                got=f"shape {list(host.shape)}, from {host.flat[0]:g} to {host.flat[-1]:g}",
                fix="np.linspace(0, 1, 1001), for example",
            )  # fmt: skip
        return jnp.asarray(host).at[0].set(0).at[-1].set(1)
    return betas


def replicas(path: Any, betas: jax.Array) -> Any:
    """The models at R places of a path, as one batch of models."""
    return jax.vmap(path.at)(betas)


def advanced(key: Any, model: Any, x: jax.Array, steps: int, context: Any = None) -> jax.Array:
    """`steps` of the model's kernel from x, at the contexts of x where the model takes such."""
    given = {} if context is None else {"context": context}
    return jax.lax.fori_loop(0, steps, lambda t, x: model.kernel(jax.random.fold_in(key, t), x, **given), x)


def moved(key: Any, models: Any, x: jax.Array, sweeps: int) -> jax.Array:
    """`sweeps` steps of each replica's own kernel; `x` is `[R, C, *event]`, C chains of each."""
    one = jax.vmap(lambda key, model, x: model.kernel(key, x))

    def sweep(t: Any, x: jax.Array) -> jax.Array:
        return one(jax.random.split(jax.random.fold_in(key, t), len(x)), models, x)

    return jax.lax.fori_loop(0, sweeps, sweep, x)


def exchanged(key: Any, models: Any, x: jax.Array, odd: Any) -> tuple[jax.Array, jax.Array, tuple[Any, Any]]:
    """One round of swaps between neighbouring replicas, each chain by itself.

    A swap of i and j = i + 1 is accepted with probability `min(1, exp(E_i(x_i) + E_j(x_j) - E_i(x_j) - E_j(x_i)))`.
    Even rounds try the pairs (0, 1), (2, 3), ..., odd ones (1, 2), (3, 4), ...: taken in turns, a configuration travels
    along the ladder in a straight line as long as it is accepted.

    Args:
        key: typed key.
        models: R models.
        x: `[R, C, *event]`, R of 2 or more.
        odd: whether the round is an odd one.

    Returns:
        x after the round; the acceptance probability of each pair, tried or not, averaged over chains, `[R - 1]`; and
        what the swaps were judged by, `E_i(x) - E_j(x)` at the states of i and at those of j before the round,
        `[R - 1, C]` each.

    Source: Hukushima and Nemoto (1996), Exchange Monte Carlo method; Syed, Bouchard-Cote, Deligiannidis and Doucet
    (2022), Non-reversible parallel tempering, for the alternation.
    """
    count = len(x)
    energy = jax.vmap(lambda model, x: model.energy(x))
    own = energy(models, x)
    lower, upper = (jax.tree.map(lambda leaf, s=s: leaf[s], models) for s in (slice(None, -1), slice(1, None)))
    # E_i - E_j of the states of i, and of the states of j
    here, there = own[:-1] - energy(upper, x[:-1]), energy(lower, x[1:]) - own[1:]
    log_ratio = here - there
    pair = jnp.arange(count - 1)[:, None]
    # 1 - u is above 0: log u of an exact 0 would accept what is impossible
    draw = jnp.log1p(-jax.random.uniform(key, log_ratio.shape, log_ratio.dtype))
    swap = (pair % 2 == odd) & (draw < log_ratio)
    no = jnp.zeros_like(swap[:1])
    with_next, with_last = (jnp.concatenate(parts) for parts in ((swap, no), (no, swap)))

    def expand(mask: jax.Array) -> jax.Array:
        return mask.reshape(mask.shape + (1,) * (x.ndim - 2))

    new = jnp.where(expand(with_next), jnp.roll(x, -1, 0), jnp.where(expand(with_last), jnp.roll(x, 1, 0), x))
    return new, jnp.mean(jnp.exp(jnp.minimum(log_ratio, 0)), axis=1), (here, there)
