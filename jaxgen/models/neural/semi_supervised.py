"""Semi-supervised models: a bound given a label, the label's prior, and a network that guesses labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import latent
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.inputs import as_array, concrete
from jaxgen.core.methods import context_shape, is_count, per_event, per_sample
from jaxgen.core.pytree import fixed, float_type, model, part, static
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops.scaling import mean_and_scale, standardize
from jaxgen.ops.stable import logsumexp


@model
class SemiSupervised:
    """A generative model of events and their labels, some of which are known: `p(x, y) = p(y) p(x | y)`.

    With a label: `log p(x, y) >= log p(y) + ELBO(x | y)`. Without one, exactly summed over classes:
    `log p(x) >= sum_y q(y | x) (log p(y) + ELBO(x | y) - log q(y | x))`

    A `Bound`. One fit takes events with and without labels: `fit(key, model, {"x": x, "label": y}, ...)`, -1 where the
    label is not known. Its own loss is minus the bound, and for labelled events `alpha` times the cross-entropy of the
    classifier, which the bound alone would not teach. With a VAE given the label it is the M2 of its source; any other
    conditional density or bound will do.

    Args:
        component: `p(x | y)`, a bound or density whose context is the label as K numbers, one 1 and the others 0.
        classifier: event to K logits of `q(y | x)`.
        logits: those of p(y), `[K]`, not trained.
        alpha: weight of the classifier's cross-entropy, of each labelled event.
        scaling: center and scale of the data, never trained, in which the classifier sees them; None for as they are.

    Source: Kingma, Rezende, Mohamed and Welling (2014), Semi-supervised learning with deep generative models.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.normal(jax.random.key(0), (60, 3))
        >>> vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(8,), context_shape=(4,),
        ...                   likelihood=jg.likelihoods.gaussian)
        >>> both = SemiSupervised.init(jax.random.key(2), x, vae, hidden=(8,))
        >>> label = jnp.where(jnp.arange(60) < 10, jnp.arange(60) % 4, -1)
        >>> data = {"x": x, "label": label}
        >>> fitted = jg.fit(jax.random.key(3), both, data, jg.Gradient(jg.losses.own), steps=3)
        >>> fitted.model.classify(x).shape, fitted.model.sample(jax.random.key(4), (5,), label=2).shape
        ((60, 4), (5, 3))
    """

    component: Any = part()
    classifier: Any
    logits: Any = fixed()
    alpha: float = static(default=1.0)
    scaling: Any = fixed(default=None)

    @classmethod
    def init(
        cls, key, x, component: Any, *, hidden: tuple[int, ...] = (400,), classifier: Any = None, probs: Any = None,
        alpha: float = 1.0, activation: Callable[[Any], Any] = jax.nn.relu,
    ) -> SemiSupervised:  # fmt: skip
        """A perceptron, or a network of your own, as the classifier.

        Args:
            key: typed key.
            x: events `[N, *event]`, for the shape and the dtype.
            component: as in the class; its `context_shape` `(K,)` says how many labels there are.
            hidden: widths of the classifier's hidden layers.
            classifier: a network in place of the perceptron, whatever `Net.init` takes, event to K numbers.
            probs: `p(y)`, `[K]`; None for equal ones.
            alpha: as in the class. With `N / (number of labelled events)` they have as much say together as all
                others; the source has a tenth of that.
            activation: of the perceptron, a module-level function.

        Raises:
            ModelError: a component that takes no context `(K,)`, K of 2 or more, or has no bound.
            DataError: probabilities that are none, or a negative alpha.
        """
        called = "SemiSupervised.init(key, x, component)"
        x = jnp.asarray(as_array(x, name="x"))
        shape = context_shape(component)
        bounded = latent.has_density(component) or latent.has_bound(component)
        if not bounded or shape is None or len(shape) != 1 or not is_count(shape[0], 2):
            raise ModelError(
                "the component is no bound or density given a label", called=called,
                expected="a model with context_shape (K,), K labels of 2 or more",
                got=f"{type(component).__name__} with context_shape {shape}",
                fix="jaxgen.VAE.init(key, x, jaxgen.StandardNormal((20,)), context_shape=(10,))",
            )  # fmt: skip
        if not alpha >= 0:
            raise DataError("a weight is below zero", called=called, expected="alpha of 0 or more", got=str(alpha))
        event, count = tuple(map(int, x.shape[1:])), shape[0]
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        module = classifier or MLP((*hidden, count), activation, in_shape=event, out_shape=(count,))
        net = Net.init(key, module, jnp.zeros(event, dtype))
        found = jax.eval_shape(net, jnp.zeros(event, dtype)).shape
        if found != (count,):
            raise ModelError(
                "the classifier's output does not fit the labels", called=called, expected=f"shape [{count}]",
                got=f"shape {list(found)}", fix=f"a network whose output has shape ({count},)",
            )  # fmt: skip
        return cls(component, net, _log_probs(probs, count, dtype, called), float(alpha), mean_and_scale(x))

    @property
    def event_shape(self):
        return tuple(self.component.event_shape)

    @property
    def classes(self) -> int:
        """The number of labels, K."""
        return self.logits.shape[-1]

    @property
    def probs(self):
        """`p(y)`, `[K]`."""
        return jax.nn.softmax(self.logits)

    def check_data(self, x) -> None:
        """Refuses what the component refuses.

        Raises:
            DataError: values outside of its support.
        """
        latent.check_data(self.component, x)

    def check_label(self, label) -> None:
        """Refuses labels of classes that are not there.

        Raises:
            ModelError: a label of K or more.
        """
        if concrete(label) and label.size and int(label.max()) >= self.classes:
            raise ModelError(
                "a label has no class", called="SemiSupervised(...)", expected=f"labels from 0 to {self.classes - 1}, "
                "-1 where not known", got=str(int(label.max())), fix="a component with a longer context",
            )  # fmt: skip

    def _log_guess(self, x):
        """`log q(y | x)`, `[K]`, of one event."""
        x = standardize(x.astype(float_type(self.classifier)), self.scaling)
        return jax.nn.log_softmax(self.classifier(x))

    def _given_each(self, key, x, number):
        """`log p(y)` plus a number of the component given each label, `[K]`."""
        labels = jnp.eye(self.classes, dtype=float_type(self.classifier))
        keys = jax.random.split(key, self.classes)
        return jax.nn.log_softmax(self.logits) + jax.vmap(lambda key, label: number(key, x, label))(keys, labels)

    def _terms(self, key, x, label):
        """The bound of an event and `log q(y | x)`."""
        bound = lambda key, x, context: latent.bound(self.component, key, x, context)  # noqa: E731
        given, log_q = self._given_each(key, x, bound), self._log_guess(x)
        free = jnp.sum(jnp.exp(log_q) * (given - log_q))
        return free if label is None else jnp.where(label >= 0, given[label], free), log_q

    @per_event
    def elbo(self, key, x, *, label=None, context=None) -> jax.Array:
        """The bound on `log p(x, y)` with a label and on `log p(x)` without, nats, `[*batch, *event] -> [*batch]`."""
        return self._terms(key, x, label)[0]

    @per_event
    def iwae(self, key, x, *, label=None, context=None, samples=50) -> jax.Array:
        """The logarithm of an unbiased estimate of p(x), or of p(x, y) with a label, nats, `[*batch]`.

        `log sum_y p(y) p^(x | y)`, with estimates of `samples` draws for each label; the classifier has no part in it.
        """
        joint = self._joint(key, x, samples)
        total = logsumexp(joint)
        return total if label is None else jnp.where(label >= 0, joint[label], total)

    def _joint(self, key, x, samples):
        return self._given_each(
            key, x, lambda key, x, label: latent.estimate(self.component, key, x, label, samples)
        )  # fmt: skip

    @per_event
    def loss(self, key, x, *, label=None, context=None) -> jax.Array:
        """Minus the bound, and `alpha` times `-log q(y | x)` where there is a label, nats, `[*batch]`."""
        bound, log_q = self._terms(key, x, label)
        return -bound if label is None else -bound - self.alpha * jnp.where(label >= 0, log_q[label], 0)

    @per_event
    def classify(self, x) -> jax.Array:
        """The classifier's guess `q(y | x)`, `[*batch, *event] -> [*batch, K]`."""
        return jnp.exp(self._log_guess(x))

    @per_event
    def label_probs(self, key, x, *, samples=50) -> jax.Array:
        """The model's own `p(y | x)`, estimated from `samples` draws for each label, `[*batch, *event] -> [*batch, K]`.

        `p(y) p(x | y) / sum_k p(k) p(x | k)`, by Bayes' rule: exact for a density, and without the classifier.
        """
        return jax.nn.softmax(self._joint(key, x, samples))

    @per_sample
    def sample(self, key, shape=(), *, label=None, context=None) -> jax.Array:
        """Draws `[*shape, *event]`, of the labels given or of any."""
        label_key, event_key = jax.random.split(key)
        drawn = jax.random.categorical(label_key, self.logits, mode="high")
        label = drawn if label is None else jnp.where(label >= 0, label, drawn)
        context = jax.nn.one_hot(label, self.classes, dtype=float_type(self.classifier))
        return self.component.sample(event_key, context=context)


def _log_probs(probs, count, dtype, called):
    """Logits of probabilities, or their refusal."""
    if probs is None:
        return jnp.zeros(count, dtype)
    probs = as_array(probs, name="probs", called=called)
    fits = not concrete(probs) or (probs.shape == (count,) and (probs > 0).all())
    if not fits or (concrete(probs) and not math.isclose(probs.sum(), 1, rel_tol=1e-5)):
        raise DataError(
            "those are no probabilities of the labels", called=called, expected=f"{count} numbers above 0 with sum 1",
            got=f"shape {list(probs.shape)}, sum {probs.sum():g}", fix="probs=None, for equal ones",
        )  # fmt: skip
    return jnp.log(jnp.asarray(probs, dtype))
