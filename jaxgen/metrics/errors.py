"""Standard errors of maximum-likelihood estimates, from the curvature of the log-likelihood at its maximum."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import latent
from jaxgen.core.errors import DataError, FitError, ModelError
from jaxgen.core.inputs import Batch
from jaxgen.core.pytree import combine, partition
from jaxgen.core.value import ByValue
from jaxgen.metrics.events import events_of

#: scalars of data in a chunk, and of data times directions at once: what keeps memory small
CHUNK_SCALARS = 2**20
#: eigenvalues of the scaled information, as shares of the largest: up to FLAT they are zero, that far below zero is
#: more than rounding (of a float64 Hessian, 1e-12 or so)
FLAT = 1e-9
NEGATIVE = 1e-7
#: events that show whether parameters are shared
FEW = 64


def standard_errors(model: Any, data: Any, function: Callable[[Any], Any] | None = None) -> Any:
    """Standard errors of a fitted model's parameters, or of anything that is computed from them.

    `cov = I^+`, `I = -d^2 sum_n log p(x_n) / d theta^2` (the observed information), and of a function
    `cov(f) = J I^+ J^T`, `J = df / d theta` (the delta method)

    theta are all trained numbers but hard zeros (logits of -inf), which stay. Logits of probabilities, defined only up
    to a constant, are taken to sum to what they sum to: their errors are those of logits around their mean. Better ask
    for probabilities. The Hessian is computed in float64, by automatic differentiation, a few directions at a time.

    Args:
        model: a `Density` at its maximum of the likelihood of these data; with priors, of the posterior, whose
            curvature then takes the place of the likelihood's (Laplace's approximation).
        data: as of `score`; a weight of 2 is the event twice. Sequences are independent of each other.
        function: `model -> pytree` of floating arrays, differentiable, such as `lambda m: m.transition`; it gets the
            model in float64. None is the trained leaves themselves.

    Returns:
        the function's pytree with its standard errors, float64 numpy arrays. What the data do not determine (a
        parameter that the likelihood does not depend on, the mean of a component without mass) has an error of inf, or,
        since a float32 fit ends next to its maximum, one larger than the parameter could ever be.
        A probability that training drove to zero has an error of zero: at such an edge there is no normal
        approximation, and this is what it says there.

    Raises:
        FitError: the model is not at a maximum: the information has a negative eigenvalue beyond rounding, or the
            maximum is more than a standard error away.
        ModelError: no exact likelihood, or a function that gives no finite derivatives.
        DataError, ShapeError: data that do not fit the model.

    Source: Louis (1982), Finding the observed information matrix when using the EM algorithm; Lystig and Hughes (2002),
    Exact computation of the observed information matrix for hidden Markov models.

    Example:
        >>> import jaxgen as jg
        >>> coin = jg.Bernoulli.init(jax.random.key(0), jnp.array([0, 0, 0, 1]))
        >>> round(float(standard_errors(coin, jnp.array([0, 0, 0, 1]), lambda m: m.probs)), 4)  # sqrt(p (1 - p) / 4)
        0.2165
    """
    called = "standard_errors(model, data)"
    if not latent.has_density(model):
        raise ModelError(
            "standard errors need an exact likelihood", called=called, expected="a model with log_prob",
            got=type(model).__name__,
        )  # fmt: skip
    with jax.enable_x64(True):
        model, batch = _double(model), _double(_batch(model, data, called))
        flat = _Flat.of(model, called)
        value, slope, information = _information(flat, batch)
        if not (math.isfinite(value) and np.isfinite(slope).all() and np.isfinite(information).all()):
            raise FitError(
                "the log-likelihood is not finite, or its derivatives", called=called, got=f"log L = {value}",
                expected="data that the model finds possible", fix="model.log_prob(x) shows those that are not",
            )  # fmt: skip
        space = _invert(information, flat, batch)
        _check_maximum(space, slope, flat, called)
        return _of_function(function, space, flat, called)


class _Flat(NamedTuple):
    """A model, the numbers in it that are free, and where they are among all trained ones."""

    model: Any
    theta: jax.Array
    places: jax.Array
    names: list[str]
    shapes: list[tuple[int, ...]]

    @classmethod
    def of(cls, model: Any, called: str) -> _Flat:
        paths = jax.tree_util.tree_flatten_with_path(partition(model)[0])[0]
        if not paths:
            raise ModelError("the model trains nothing", called=called, expected="parameters", got=repr(model)[:200])
        values = np.concatenate([np.asarray(leaf).ravel() for _, leaf in paths])
        places = np.flatnonzero(np.isfinite(values))
        names = [jax.tree_util.keystr(path).lstrip(".") for path, _ in paths]
        return cls(model, jnp.asarray(values[places]), jnp.asarray(places), names, [leaf.shape for _, leaf in paths])

    def name(self, index: int) -> str:
        """The path of a free number."""
        place = int(self.places[index])
        for name, shape in zip(self.names, self.shapes, strict=True):
            if place < math.prod(shape):
                return f"{name}{[int(i) for i in np.unravel_index(place, shape)] if shape else ''}"
            place -= math.prod(shape)
        raise IndexError(index)

    def idle(self) -> tuple[np.ndarray, np.ndarray]:
        """Directions in which a likelihood may have nothing to say by its nature, two of `[P, *]`.

        Logits are defined up to a constant: along each axis of each leaf all numbers by one. Of parameters that
        components share only the mean counts: where all rows of a leaf are equal, one number against the first row's.
        """
        total, start = sum(map(math.prod, self.shapes)), 0
        shifts: list[np.ndarray] = []
        copies: list[np.ndarray] = []
        place = lambda up, down=(): np.isin(np.arange(total), up) - 1.0 * np.isin(np.arange(total), down)  # noqa: E731
        values = np.zeros(total)
        values[np.asarray(self.places)] = self.theta
        for shape in self.shapes:
            index = start + np.arange(math.prod(shape)).reshape(shape)
            for axis in range(len(shape)):
                lines = np.moveaxis(index, axis, -1).reshape(-1, shape[axis])
                shifts.extend(place(line) for line in lines if len(line) > 1)
            if shape and (values[index] == values[index[:1]]).all():
                copies.extend(place(i, j) for row in index[1:] for i, j in zip(row.flat, index[0].flat, strict=True))
            start += math.prod(shape)
        shift, copy = (np.reshape(c, (len(c), total))[:, np.asarray(self.places)].T for c in (shifts, copies))
        return shift, copy


def _rebuild(theta: jax.Array, model: Any, places: jax.Array) -> Any:
    trained, rest = partition(model)
    leaves, structure = jax.tree.flatten(trained)
    full = jnp.concatenate([leaf.ravel() for leaf in leaves]).at[places].set(theta)
    parts = jnp.split(full, np.cumsum([leaf.size for leaf in leaves])[:-1])
    new = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return combine(jax.tree.unflatten(structure, new), rest)


def _double(tree: Any) -> Any:
    wide = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.floating)  # noqa: E731
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) if wide(leaf) else jnp.asarray(leaf), tree)


def _batch(model: Any, data: Any, called: str) -> Batch:
    batch = events_of(model, data, called)
    if batch.label is not None:
        raise DataError("labels would not be looked at", called=called, expected="x, context, weight", got="a label")
    return batch if batch.weight is not None else batch._replace(weight=np.ones(batch.events))


def _information(flat: _Flat, batch: Batch) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-likelihood plus log prior, its gradient `[P]` and information `[P, P]`, a chunk of events at a time."""
    n, scalars = batch.events, max(1, math.prod(np.shape(batch.x)[1:]))
    chunks = -(-n // max(1, CHUNK_SCALARS // scalars))
    size = -(-n // chunks)
    width = max(1, min(len(flat.theta), CHUNK_SCALARS // (size * scalars)))
    value, slope, information = 0.0, np.zeros(len(flat.theta)), np.zeros((len(flat.theta),) * 2)
    for i in range(chunks):
        start = min(i * size, n - size)  # the last chunk is moved back: one program for all; twice it counts none
        part = jax.tree.map(lambda a, s=start: a[s : s + size], batch)
        part = part._replace(weight=jnp.where(jnp.arange(start, start + size) < i * size, 0, part.weight))
        none, first, second = _derivatives(flat.theta, flat.model, flat.places, part, float(i == 0), width)
        value, slope, information = value + float(none), slope + np.asarray(first), information - np.asarray(second)
    return value, slope, 0.5 * (information + information.T)


@functools.partial(jax.jit, static_argnames="width")
def _derivatives(theta, model, places, batch, prior, width):
    """Value, gradient and Hessian of a chunk's log-likelihood, and of so much of the log prior."""

    def total(theta):
        new = _rebuild(theta, model, places)
        log_prob, counts = new.log_prob(batch.x, context=batch.context), batch.weight > 0
        seen = jnp.sum(jnp.where(counts, batch.weight * jnp.where(counts, log_prob, 0), 0))
        return seen + prior * latent.log_prior(new)

    rows = jax.lax.map(lambda v: jax.jvp(jax.grad(total), (theta,), (v,))[1], jnp.eye(len(theta)), batch_size=width)
    return *jax.value_and_grad(total)(theta), rows


class _Space(NamedTuple):
    """The generalised inverse of an information matrix as a root, and the directions that it leaves out.

    Args:
        root: `[P, *]`, whose product with its transpose is a generalised inverse of the information. It is kept as a
            root since variances may differ by more than a float holds: of a probability that is nearly zero.
        flat: `[P, *]`, orthonormal directions that the data say nothing about, those of `idle` left out.
        idle: `[P, *]`, orthonormal directions in which logits, or copies of shared parameters, are not defined.
        values, vectors: of the scaled information.
    """

    root: np.ndarray
    flat: np.ndarray
    idle: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    def errors(self, slopes: np.ndarray) -> np.ndarray:
        """Standard errors of functions with derivatives `[*, P]`."""
        along = slopes @ self.idle  # logits around their mean
        changed = np.linalg.norm(along, axis=1) > 1e-9 * np.linalg.norm(slopes, axis=1)
        # only of those that need it: rounding errors would meet the largest variances
        slopes = np.where(changed[:, None], slopes - along @ self.idle.T, slopes)
        return np.linalg.norm(slopes @ self.root, axis=1)


def _invert(information: np.ndarray, flat: _Flat, batch: Batch) -> _Space:
    """The generalised inverse, in units of each parameter's own curvature: numbers of any size invert alike."""
    diagonal = np.diag(information)
    largest = max(float(diagonal.max()), np.finfo(float).tiny)
    own = (diagonal > 0) | (diagonal < -1e-10 * largest)
    scale = np.sqrt(np.where(own, np.abs(diagonal), largest))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    level = FLAT * max(values[-1], 1.0)
    idle = _idle(information, scale, own, flat, batch)
    rest = vectors[:, np.abs(values) <= level] / scale[:, None]
    rest = rest / np.maximum(np.linalg.norm(rest, axis=0), np.finfo(float).tiny)
    live = values > level
    root = vectors[:, live] / np.sqrt(values[live]) / scale[:, None]
    return _Space(root, _basis(rest - idle @ (idle.T @ rest)), idle, values, vectors)


def _idle(information: np.ndarray, scale: np.ndarray, own: np.ndarray, flat: _Flat, batch: Batch) -> np.ndarray:
    """Return the directions along which the likelihood is constant by its nature, orthonormal, `[P, *]`."""

    def still(columns: np.ndarray) -> np.ndarray:
        length = np.linalg.norm((scale * own)[:, None] * columns, axis=0)
        curved = np.linalg.norm(information @ columns / scale[:, None], axis=0)
        return columns[:, (curved <= NEGATIVE * length) & (length > 0)]

    shifts, copies = map(still, flat.idle())
    if copies.size:
        # components that fell together have no curvature either, but do not share: far away that is seen
        far = copies @ np.arange(1.0, copies.shape[1] + 1) * math.sqrt(float(jnp.sum(batch.weight))) / scale
        x, context = jax.tree.map(lambda a: a[:FEW], (batch.x, batch.context))
        here, there = (
            np.asarray(_rebuild(theta, flat.model, flat.places).log_prob(x, context=context))
            for theta in (flat.theta, flat.theta + far)
        )
        copies = copies if np.allclose(here, there, rtol=1e-9, atol=1e-9) else copies[:, :0]
    return _basis(np.concatenate([shifts, copies], axis=1))


def _basis(columns: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span these."""
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > 1e-6]


def _check_maximum(space: _Space, slope: np.ndarray, flat: _Flat, called: str) -> None:
    """Refuses a model whose curvature tells no errors."""
    message = "the model is not at a maximum of the likelihood"
    fix = "take the data of the fit, and fit with more steps and a smaller tolerance"
    if space.values[0] < -NEGATIVE * max(space.values[-1], 1.0):
        worst = flat.name(int(np.argmax(np.abs(space.vectors[:, 0]))))
        raise FitError(
            message, called=called, expected="information that is positive semidefinite", fix=fix,
            got=f"a negative eigenvalue, most of all of {worst}",
        )  # fmt: skip
    away = float(np.linalg.norm(slope @ space.root))
    if away > 1:
        raise FitError(
            message, called=called, expected="one within a standard error", fix=fix,
            got=f"one {away:.3g} standard errors away, by the likelihood's slope",
        )  # fmt: skip


def _of_function(function: Callable[[Any], Any] | None, space: _Space, flat: _Flat, called: str) -> Any:
    function = ByValue(_trained if function is None else function)
    shapes = jax.eval_shape(function, flat.model)
    leaves, structure = jax.tree.flatten(shapes)
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise ModelError(
            "the function gives no floating numbers", called=called, expected="a pytree of floating arrays",
            got=repr(shapes)[:200], fix="leave the function out, or return floats",
        )  # fmt: skip
    slopes = np.asarray(_slopes(flat.theta, flat.model, flat.places, function))
    if not np.isfinite(slopes).all():
        raise ModelError(
            "the function has no finite derivatives", called=called, expected="finite numbers",
            got=f"{int((~np.isfinite(slopes)).any(axis=1).sum())} of {len(slopes)} numbers without",
        )  # fmt: skip
    errors = space.errors(slopes)
    # what moves along a direction that the data do not see can be anything
    size = np.linalg.norm(slopes, axis=1)
    moves = np.linalg.norm(slopes @ space.flat, axis=1) > 1e-6 * size
    errors = np.where(moves & (size > 1e-12 * size.max()), np.inf, errors)
    parts = np.split(errors, np.cumsum([math.prod(leaf.shape) for leaf in leaves])[:-1])
    return jax.tree.unflatten(structure, [p.reshape(leaf.shape) for p, leaf in zip(parts, leaves, strict=True)])


def _trained(model: Any) -> Any:
    return partition(model)[0]


@functools.partial(jax.jit, static_argnames="function")
def _slopes(theta, model, places, function):
    """`d function / d theta`, `[*, P]`."""

    def numbers(theta):
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(function(_rebuild(theta, model, places)))])

    return jax.jacfwd(numbers)(theta)
