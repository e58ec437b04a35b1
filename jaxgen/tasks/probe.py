"""A linear probe: multinomial logistic regression, to see how much features know of classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.core.errors import DataError, FitError, ShapeError
from jaxgen.core.inputs import as_array
from jaxgen.core.labels import checked_labels
from jaxgen.core.methods import check_key
from jaxgen.core.pytree import registered
from jaxgen.ops.scaling import units

#: ridges that are tried, of columns in units of their standard deviations
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
#: L-BFGS ends when no slope of the mean loss is above this, which is what float32 leaves of it, or after so many steps
SLOPE, STEPS = 1e-5, 500


class Held(NamedTuple):
    """The loss of held-out rows under one ridge, nats per row."""

    ridge: float
    loss: float


@registered
@dataclasses.dataclass(frozen=True)
class Probe:
    """A linear classifier of features, which `linear_probe` fits.

    `p(c | z) = softmax_c(W_c . (z - center) / scale + b_c)`

    Args:
        coefficients: `[F, C]`, W.
        intercept: `[C]`.
        center, scale: `[F]`, units of the features.
        classes: labels that were there, increasing, `[C]`.
        ridge: on the squares of W, of the mean loss.
        held: what other ridges did on held-out rows; empty where one was given.
    """

    coefficients: jax.Array
    intercept: jax.Array
    center: jax.Array
    scale: jax.Array
    classes: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    ridge: float = dataclasses.field(metadata={"static": True})
    held: tuple[Held, ...] = dataclasses.field(default=(), metadata={"static": True})

    def log_probs(self, z: Any) -> jax.Array:
        """Return `log p(c | z)`, `[N, F] -> [N, C]`.

        Raises:
            ShapeError: other features. DataError: NaN.
        """
        z = _rows(z, "Probe.log_probs(z)", len(self.center))
        return _log_probs(self.coefficients, self.intercept, (z - self.center) / self.scale)

    def predict(self, z: Any) -> np.ndarray:
        """Return the likeliest class of each row, `[N, F] -> [N]` int32."""
        return np.asarray(self.classes, np.int32)[np.asarray(jnp.argmax(self.log_probs(z), axis=1))]

    def accuracy(self, z: Any, label: Any) -> float:
        """Return the share of rows whose likeliest class is their label."""
        found = self.predict(z)
        return float(np.mean(found == checked_labels(label, len(found), "Probe.accuracy(z, label)")))


def linear_probe(
    key: Any, z: Any, label: Any, *, ridge: float | Sequence[float] = RIDGES, validation: Any = 0.2,
) -> Probe:  # fmt: skip
    """Fit a linear classifier of features, to see how much they know of the classes.

    It minimises `-mean_n log p(c_n | z_n) + ridge / 2 |W|^2` by L-BFGS, features in units of their standard deviations.
    Of several ridges the one is taken that has the least loss on held-out rows; the fit that is returned is of all
    rows, those included where they are a share.

    Args:
        key: typed key, of the rows that are held out.
        z: `[N, F]`, such as `features(model, x)`.
        label: `[N]`, whole numbers from 0.
        ridge: one number, or several to choose among.
        validation: the share of rows that are held out, or other rows, `(z, label)`.

    Returns:
        `Probe`.

    Raises:
        DataError: one class, NaN, no labels. ShapeError: no table, or another number of labels. FitError: ridges or
            shares that are none.

    Source: Alain and Bengio (2017), Understanding intermediate layers using linear classifier probes.

    Example:
        >>> import jaxgen as jg
        >>> x, label = jg.data.digits().images.reshape(-1, 64)[:300], jg.data.digits().labels[:300]
        >>> planes = jg.LowRankGaussian.init(jax.random.key(0), x, rank=8, floor=0.1)
        >>> probe = linear_probe(jax.random.key(1), jg.tasks.features(planes, x), label, ridge=1e-3)
        >>> probe.accuracy(jg.tasks.features(planes, x), label) > 0.9
        True
    """
    called = "linear_probe(key, z, label)"
    check_key(key, called)
    z = _rows(z, called)
    label = checked_labels(label, len(z), called, least=2)
    classes, index = np.unique(label, return_inverse=True)
    ridges = [float(r) for r in np.atleast_1d(np.asarray(ridge, float))]
    if not ridges or not all(0 <= r < np.inf for r in ridges):
        raise FitError("no such ridge", called=called, expected="numbers of 0 or more", got=f"ridge={ridge!r}")
    center, scale = units(z)
    rows, target = (z - center) / scale, jax.nn.one_hot(index, len(classes), dtype=z.dtype)
    held: list[Held] = []
    if len(ridges) > 1:
        weight, (others, wanted) = _held_out(key, (rows, target), validation, (center, scale), classes, called)
        start = None
        for one in sorted(ridges, reverse=True):  # each starts where the next larger ridge ended
            start = _fitted(rows, target, weight, one, start)
            held.append(Held(one, float(-jnp.mean(jnp.sum(wanted * _log_probs(*start, others), axis=1)))))
        best = min(held, key=lambda h: h.loss).ridge
    else:
        best = ridges[0]
    coefficients, intercept = _fitted(rows, target, jnp.ones(len(rows), z.dtype), best, None)
    return Probe(coefficients, intercept, center, scale, tuple(map(int, classes)), best, tuple(held))


def _rows(z: Any, called: str, columns: int | None = None) -> jax.Array:
    z = jnp.asarray(as_array(z, name="z", called=called))
    if z.ndim != 2 or columns not in (None, z.shape[1]):
        raise ShapeError("features are rows of one length", called=called, expected=f"z [N, {columns or 'F'}]",
                         got=f"shape {list(z.shape)}",
                         fix="z.reshape(len(z), -1)" if z.ndim > 2 and columns is None else "")  # fmt: skip
    return z if jnp.issubdtype(z.dtype, jnp.floating) else z.astype(jnp.result_type(float))


def _held_out(key: Any, own: Any, validation: Any, unit: Any, classes: Any, called: str) -> Any:
    """Weights of the rows that are fitted, and rows and targets that are held out."""
    rows, target = own
    if isinstance(validation, tuple):
        z = _rows(validation[0], called, rows.shape[1])
        label = checked_labels(validation[1], len(z), called)
        if strange := sorted(set(label.tolist()) - set(classes.tolist())):
            raise DataError("held-out rows have classes that the fit has not", called=called,
                            expected=f"labels among {classes.tolist()}", got=str(strange))  # fmt: skip
        wanted = jax.nn.one_hot(np.searchsorted(classes, label), len(classes), dtype=rows.dtype)
        return jnp.ones(len(rows), rows.dtype), ((z - unit[0]) / unit[1], wanted)
    count = round(validation * len(rows)) if isinstance(validation, float) else 0
    if not 0 < count < len(rows):
        raise FitError("no such rows to hold out", called=called, got=f"validation={validation!r} of {len(rows)} rows",
                       expected="a share between 0 and 1, or (z, label)")  # fmt: skip
    out = jax.random.permutation(key, len(rows))[:count]
    return jnp.ones(len(rows), rows.dtype).at[out].set(0), (rows[out], target[out])


@jax.jit
def _log_probs(coefficients: jax.Array, intercept: jax.Array, rows: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(jnp.matmul(rows, coefficients, precision="highest") + intercept)


def _fitted(rows: Any, target: Any, weight: Any, ridge: float, start: Any) -> tuple[jax.Array, jax.Array]:
    if start is None:
        size = target.shape[1]
        start = jnp.zeros((rows.shape[1], size), rows.dtype), jnp.zeros(size, rows.dtype)
    return _minimum(rows, target, weight / jnp.sum(weight), jnp.asarray(ridge, rows.dtype), start)


@jax.jit
def _minimum(rows: Any, target: Any, weight: Any, ridge: Any, start: Any) -> Any:
    """The minimum by L-BFGS, of weights that sum to one."""

    def loss(params: Any) -> jax.Array:
        nats = jnp.sum(target * _log_probs(*params, rows), axis=1)
        return -jnp.sum(weight * nats) + ridge / 2 * jnp.sum(params[0] ** 2)

    search = optax.lbfgs(memory_size=20, linesearch=optax.scale_by_backtracking_linesearch(20, store_grad=True))
    value_and_slope = optax.value_and_grad_from_state(loss)

    def go(carry: Any) -> Any:
        params, state, step, _ = carry
        value, slope = value_and_slope(params, state=state)
        moves, state = search.update(slope, state, params, value=value, grad=slope, value_fn=loss)
        return optax.apply_updates(params, moves), state, step + 1, _steepest(slope)

    on = lambda carry: (carry[2] < STEPS) & (carry[3] > SLOPE)  # noqa: E731
    return jax.lax.while_loop(on, go, (start, search.init(start), 0, jnp.asarray(jnp.inf, rows.dtype)))[0]


def _steepest(slope: Any) -> jax.Array:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(slope)]))
