"""A restricted Boltzmann machine with the face and the algorithm of scikit-learn's."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state, gen_even_slices
from sklearn.utils.validation import check_is_fitted, validate_data

import jaxgen as jg
from jaxgen.sklearn.arrays import by_rows, precision_of
from jaxgen.sklearn.options import check_options, integer, real


class Machine(NamedTuple):
    """The numbers that a step moves: weights `[H, V]`, biases `[H]` and `[V]`, hidden bits of the chains `[B, H]`."""

    components: Any
    hidden: Any
    visible: Any
    chains: Any


class BernoulliRBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A machine of bits by persistent contrastive divergence, a drop-in for `sklearn.neural_network.BernoulliRBM`.

    Arguments, attributes and random numbers are scikit-learn's: the same `random_state` gives the same machine, up to
    rounding. An epoch is one program. The library's own `recipes.rbm` learns better machines.

    Args:
        n_components: number of hidden bits.
        learning_rate: the step size.
        batch_size: events per step, and number of chains.
        n_iter: epochs.
        verbose: whether each epoch prints its pseudo-likelihood.
        random_state: None, an int or a `RandomState`.

    Attributes:
        components_: weights, `[n_components, D]`.
        intercept_hidden_, intercept_visible_: biases.
        h_samples_: hidden bits of the chains, `[batch_size, n_components]`.
        n_features_in_, feature_names_in_: of the data.

    Example:
        >>> X = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
        >>> BernoulliRBM(n_components=2, random_state=0).fit(X).transform(X).shape
        (4, 2)
    """

    def __init__(
        self, n_components=256, *, learning_rate=0.1, batch_size=10, n_iter=10, verbose=0, random_state=None
    ):  # fmt: skip
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.verbose = verbose
        self.random_state = random_state

    def _checked(self, X: Any, **options: Any) -> np.ndarray:
        X = validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32), **options)
        return X if isinstance(X, np.ndarray) else X.toarray()

    def _check_options(self) -> None:
        check_options(self, {
            "n_components": integer(1), "learning_rate": real(0, above=True), "batch_size": integer(1),
            "n_iter": integer(0),
        })  # fmt: skip

    def _start(self, X: np.ndarray, random: Any) -> None:
        size = (int(self.n_components), X.shape[1])
        self.components_ = np.asarray(random.normal(0, 0.01, size), X.dtype)
        self.intercept_hidden_, self.intercept_visible_ = np.zeros(size[0], X.dtype), np.zeros(size[1], X.dtype)
        self.h_samples_ = np.zeros((int(self.batch_size), size[0]), X.dtype)

    def _epoch(self, X: np.ndarray, slices: list[slice], random: Any) -> None:
        """One pass over batches, whose sizes differ by one at most: shorter ones end with a row that counts not."""
        rows = max(one.stop - one.start for one in slices)
        batches = np.zeros((len(slices), rows, X.shape[1]), X.dtype)
        counts = np.zeros((len(slices), rows), X.dtype)
        chains, (hidden, visible) = len(self.h_samples_), self.components_.shape
        noise = [(random.uniform(size=(chains, visible)), random.uniform(size=(chains, hidden))) for _ in slices]
        for i, one in enumerate(slices):
            batches[i, : one.stop - one.start], counts[i, : one.stop - one.start] = X[one], 1
        of_visible, of_hidden = (np.asarray(part, X.dtype) for part in zip(*noise, strict=True))
        with precision_of(X.dtype):
            machine = Machine(self.components_, self.intercept_hidden_, self.intercept_visible_, self.h_samples_)
            rate = X.dtype.type(self.learning_rate)
            machine = _steps(machine, batches, counts, of_visible, of_hidden, rate)
            self.components_, self.intercept_hidden_, self.intercept_visible_, self.h_samples_ = map(np.array, machine)

    def fit(self, X, y=None) -> BernoulliRBM:
        """Fit by `n_iter` passes over the events.

        Args:
            X: `[N, D]`, numbers from 0 to 1; sparse ones too.
            y: not used.

        Raises:
            ValueError: data or arguments that are none.
        """
        self._check_options()
        X = self._checked(X)
        random = check_random_state(self.random_state)
        self._start(X, random)
        batches = -(-len(X) // int(self.batch_size))
        slices = list(gen_even_slices(batches * int(self.batch_size), batches, n_samples=len(X)))
        begun = time.time()
        for epoch in range(1, int(self.n_iter) + 1):
            self._epoch(X, slices, random)
            if self.verbose:
                score, now = self.score_samples(X).mean(), time.time()
                print(f"[{type(self).__name__}] Iteration {epoch}, pseudo-likelihood = {score:.2f}, "
                      f"time = {now - begun:.2f}s")  # fmt: skip
                begun = now
        return self

    def partial_fit(self, X, y=None) -> BernoulliRBM:
        """Make one step on the events, as one batch; the first call starts the machine."""
        first = "components_" not in vars(self)
        self._check_options()
        X = self._checked(X, reset=first)
        if "random_state_" not in vars(self):
            self.random_state_ = check_random_state(self.random_state)
        if first:
            self._start(X, self.random_state_)
        X = X.astype(self.components_.dtype, copy=False)
        self._epoch(X, [slice(0, len(X))], self.random_state_)
        return self

    def to_model(self) -> jg.RBM:
        """Return the machine as a model of this library."""
        check_is_fitted(self, "components_")
        with precision_of(self.components_.dtype):
            return jg.RBM.from_values(self.intercept_visible_, self.intercept_hidden_, self.components_.T)

    def _given(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "components_")
        return self._checked(X, reset=False).astype(self.components_.dtype, copy=False)

    def transform(self, X) -> np.ndarray:
        """Return the probabilities of the hidden bits, `p(h = 1 | v)`, `[N, n_components]`."""
        return by_rows(self.to_model().encode, self._given(X))

    def gibbs(self, v) -> np.ndarray:
        """Return the visible bits after one step of Gibbs sampling, bools `[N, D]`."""
        v, model = self._given(v), self.to_model()
        if "random_state_" not in vars(self):
            self.random_state_ = check_random_state(self.random_state)
        hidden = self.random_state_.uniform(size=(len(v), len(self.components_))) < by_rows(model.encode, v)
        visible = by_rows(model.decode, hidden.astype(v.dtype))
        return self.random_state_.uniform(size=v.shape) < visible

    def score_samples(self, X) -> np.ndarray:
        """Return the pseudo-likelihood of each event, `[N]`, nats, estimated by one of its bits, turned around.

        `D log sigmoid(F(v') - F(v))`: the one is drawn by `random_state`, as in scikit-learn.
        `to_model().pseudo_log_likelihood(X)` is exact.
        """
        v, model = self._given(X), self.to_model()
        turned, rows = v.copy(), np.arange(len(v))
        place = check_random_state(self.random_state).randint(0, v.shape[1], len(v))
        turned[rows, place] = 1 - v[rows, place]
        return -v.shape[1] * np.logaddexp(0, by_rows(model.energy, v) - by_rows(model.energy, turned))

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


@jax.jit
def _steps(machine: Machine, batches: Any, counts: Any, of_visible: Any, of_hidden: Any, rate: Any) -> Machine:
    """One step of stochastic maximum likelihood for each batch, with the noise that is given."""
    times = lambda a, b: jnp.matmul(a, b, precision="highest")  # noqa: E731

    def step(machine: Machine, given: Any) -> tuple[Machine, None]:
        batch, count, visible_noise, hidden_noise = given
        hidden_of = lambda v: jax.nn.sigmoid(times(v, machine.components.T) + machine.hidden)  # noqa: E731
        seen = hidden_of(batch) * count[:, None]
        dreamt = jax.nn.sigmoid(times(machine.chains, machine.components) + machine.visible)
        dreamt = (visible_noise < dreamt).astype(batch.dtype)
        behind = hidden_of(dreamt)
        by = rate / jnp.sum(count)
        return Machine(
            machine.components + by * (times(seen.T, batch) - times(behind.T, dreamt)),
            machine.hidden + by * (seen.sum(axis=0) - behind.sum(axis=0)),
            machine.visible + by * (batch.sum(axis=0) - dreamt.sum(axis=0)),
            jnp.where(hidden_noise < behind, 1, jnp.floor(behind)),
        ), None

    return jax.lax.scan(step, machine, (batches, counts, of_visible, of_hidden))[0]
