"""Classes from densities: one for each class, or many components to which a few labels give classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import DataError, FitError, ModelError
from jaxgen.core.inputs import as_batch, probabilities
from jaxgen.core.labels import checked_labels
from jaxgen.core.methods import check_key
from jaxgen.core.protocols import Classifier, has
from jaxgen.core.pytree import registered
from jaxgen.fit.driver import fit
from jaxgen.fit.fitted import Fitted
from jaxgen.metrics.events import by_chunks, events_of
from jaxgen.models.latent.mixture import Mixture

Start = Callable[[Any, Any], Any]
#: EM steps of the classes of components, whose likelihood has one maximum
STEPS = 200


class ClassDensities(NamedTuple):
    """The result of `class_densities`.

    Args:
        model: a `Mixture` of one density for each class, whose weights are the classes' probabilities:
            `model.responsibilities(x)` is `p(c | x)`, `model.predict(x)` the likeliest class, `model.log_prob(x)` is
            low of events that are like none of them.
        fits: of each class.
    """

    model: Mixture
    fits: list[Fitted]


def class_densities(
    key: Any, start: Start | Sequence[Start], x: Any, label: Any, *, priors: Any = None, steps: int | None = None,
    tolerance: float | None = None,
) -> ClassDensities:  # fmt: skip
    """Fit a density to the events of each class, for classification by Bayes' rule.

    `p(c | x) = p(c) p(x | c) / sum_b p(b) p(x | b)`

    Args:
        key: typed key.
        start: `(key, x) -> model`, or `-> (model, algorithm)` as recipes are, that makes a density from the events of a
            class; or one for each class. Where `x` is a dict it gets one, with weights, some of them 0.
        x: events `[N, *event]`, or `dict(x=x, weight=weight)`.
        label: `[N]`, whole numbers from 0 without gaps; events whose class is not known, -1, are left out: a `Mixture`
            fitted with `label=` learns from them too.
        priors: `[C]`, probabilities of the classes; None is their shares.
        steps, tolerance: of each fit, as in `fit`; None is its own.

    Returns:
        `ClassDensities`.

    Raises:
        DataError: one class, a class without events, NaN. ShapeError: another number of labels. ModelError: what is no
            density, priors that are none. FitError: another number of starts than of classes.

    Example:
        >>> import jaxgen as jg
        >>> x, label = jnp.array([[0.0], [0.2], [0.4], [5.0], [5.3], [5.1]]), [0, 0, 0, 1, 1, 1]
        >>> found = class_densities(jax.random.key(0), jg.Gaussian.init, x, label)
        >>> found.model.predict(jnp.array([[0.3], [4.8]])).tolist()
        [0, 1]
    """
    called = "class_densities(key, start, x, label)"
    check_key(key, called)
    batch = as_batch(x, name="x", called=called, missing=True)
    label = checked_labels(label, batch.events, called, least=2, unknown=True, numbered=True)
    given = batch.weight is not None
    weight = np.ones(batch.events) if batch.weight is None else np.asarray(batch.weight)
    mass = np.array([weight[label == c].sum() for c in range(label.max() + 1)])
    if not (mass > 0).all():
        raise DataError("a class has no events", called=called, expected=f"events of each class, 0 to {len(mass) - 1}",
                       got=f"none of {np.flatnonzero(mass <= 0).tolist()}",
                       fix="number the classes without gaps")  # fmt: skip
    starts = [start] * len(mass) if callable(start) else list(start)
    if len(starts) != len(mass):
        raise FitError("a start for each class", called=called, expected=f"{len(mass)} functions", got=str(len(starts)))
    weights = probabilities(mass / mass.sum() if priors is None else priors, name="priors", called=called,
                            shape=mass.shape)  # fmt: skip
    largest = max(int((label == c).sum()) for c in range(len(mass)))
    fits = [
        _of_class(jax.random.fold_in(key, c), starts[c], batch, np.flatnonzero(label == c), weight, given, largest,
                  steps, tolerance) for c in range(len(mass))
    ]  # fmt: skip
    return ClassDensities(Mixture.from_components([one.model for one in fits], weights), fits)


def _of_class(
    key: Any, start: Start, batch: Any, rows: np.ndarray, weight: np.ndarray, given: bool, size: int,
    steps: int | None, tolerance: float | None,
) -> Fitted:  # fmt: skip
    """The fit of one class, its events filled up to the number of the largest by some of weight 0: one program."""
    first, second = jax.random.split(key)
    filled = np.concatenate([rows, np.repeat(rows[:1], size - len(rows))])
    own = algebra.take(batch, filled)
    own = own._replace(weight=jnp.asarray(weight[filled] * (np.arange(size) < len(rows)), jnp.result_type(float)))
    seen = {k: v for k, v in own._asdict().items() if v is not None} if given else algebra.take(batch, rows).x
    made = start(first, seen)
    model, algorithm = made if isinstance(made, tuple) else (made, None)
    return fit(second, model, own, algorithm, steps=steps, tolerance=tolerance, progress=False)


@registered
@dataclasses.dataclass(frozen=True)
class Propagated:
    """A model whose components have classes, which `propagate` gives them.

    `p(c | x) = sum_k p(c | k) p(k | x)`

    Args:
        model: has `responsibilities`, `p(k | x)`.
        table: `p(c | k)`, `[K, C]`.
    """

    model: Any
    table: jax.Array

    @property
    def event_shape(self) -> tuple[int | None, ...]:
        """The model's."""
        return tuple(self.model.event_shape)

    def responsibilities(self, x: Any, *, context: Any = None) -> jax.Array:
        """Return `p(c | x)`, `[*batch, *event] -> [*batch, C]`."""
        return jnp.matmul(self.model.responsibilities(x, context=context), self.table, precision="highest")

    def predict(self, x: Any, *, context: Any = None) -> jax.Array:
        """Return the likeliest class, `[*batch, *event] -> [*batch]` int32."""
        return jnp.argmax(self.responsibilities(x, context=context), axis=-1).astype(jnp.int32)


def propagate(model: Any, x: Any, label: Any, *, classes: int | None = None, strength: float = 1.0) -> Propagated:
    """Give the components of a fitted model classes by a few labelled events.

    The model has learned of all events what belongs together; the labels only say what each component is called.
    The table `p(c | k)` maximises `sum_n log sum_k p(c_n | k) p(k | x_n) + strength sum_kc p(c) log p(c | k)`, by EM:
    a component that no labelled event is in has the shares of all labels, `p(c)`.

    Args:
        model: has `responsibilities`: a `Mixture`, also of more components than classes, or a `VariationalMixture`.
        x: events `[N, *event]`, or `dict(x=x, context=context)`.
        label: `[N]`, whole numbers from 0, -1 where not known.
        classes: their number C; None is one more than the largest label.
        strength: of the prior, in events for each component, above 0.

    Returns:
        `Propagated`.

    Raises:
        ModelError: a model without components. DataError: no label is known. ShapeError: another number of labels.
        FitError: a strength that is none.

    Source: Nigam, McCallum, Thrun and Mitchell (2000), Text classification from labeled and unlabeled documents,
    section 5.3, for many components of a class.

    Example:
        >>> import jaxgen as jg
        >>> x = jg.data.old_faithful().values
        >>> mixture = jg.fit(jax.random.key(0), jg.Mixture.init(jax.random.key(1), x, 4, jg.Gaussian.init), x).model
        >>> long = jnp.where(jnp.arange(len(x)) < 12, x[:, 0] > 3, -1)  # twelve are told
        >>> float(jnp.mean(propagate(mixture, x, long).predict(x) == (x[:, 0] > 3))) > 0.95
        True
    """
    called = f"propagate({type(model).__name__}, x, label)"
    if not has(model, Classifier):
        raise ModelError("the model has no components", called=called, expected="responsibilities(x)",
                         got=type(model).__name__, fix="a mixture of models of its kind")  # fmt: skip
    if not 0 < strength < np.inf:
        raise FitError("no such prior", called=called, expected="a strength above 0", got=f"strength={strength!r}")
    batch = events_of(model, x, called)
    label = checked_labels(label, batch.events, called, classes=classes, unknown=True, numbered=True)
    known = algebra.take(batch._replace(weight=None, label=None), np.flatnonzero(label >= 0))
    of_chunk = lambda key, x, context: model.responsibilities(x, context=context)  # noqa: E731
    share = by_chunks(of_chunk, jax.random.key(0), known)
    size = int(label.max()) + 1 if classes is None else classes
    wanted = np.eye(size)[label[label >= 0]]
    prior = wanted.mean(axis=0)
    table = np.broadcast_to(prior, (share.shape[1], size))
    for _ in range(STEPS):
        joint = share * (table @ wanted.T).T  # p(k, c_n | x_n)
        total = joint.sum(axis=1, keepdims=True)
        counts = (joint / np.where(total > 0, total, 1)).T @ wanted + strength * prior
        table = counts / counts.sum(axis=1, keepdims=True)
    return Propagated(model, jnp.asarray(table, jnp.result_type(float)))
