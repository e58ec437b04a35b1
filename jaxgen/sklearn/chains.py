"""The parts that hidden Markov models with the face of hmmlearn's share: starts, E-steps, answers by sequence."""

from __future__ import annotations

import logging
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted

import jaxgen as jg
from jaxgen.sklearn.arrays import precision_of
from jaxgen.sklearn.monitor import ConvergenceMonitor
from jaxgen.sklearn.options import check_options, integer, one_of, real

LOG = logging.getLogger(__name__)
DECODERS = ("viterbi", "map")


@jax.jit
def _expected(model: Any, batch: Any) -> Any:
    statistics, total, _ = jg.EM().expect(model, batch)
    return statistics, total


@jax.jit
def _log_prob(model: Any, x: Any) -> Any:
    return model.log_prob(x)


@jax.jit
def _scored(model: Any, x: Any) -> Any:
    return model.log_prob(x), model.smooth(x)


@jax.jit
def _decoded(model: Any, x: Any) -> Any:
    return model.viterbi(x)


class ChainEstimator(BaseEstimator):
    """The base of hidden Markov models, which differ in their emissions.

    They have the attributes of their emissions, and `_check_emissions()`, `_start_emissions(X)`, `_emissions(dtype)`, a
    batch of models of this library, `_update(statistics)` of those, `_scalars()`, the number of free parameters by
    letter, and `_draw(state, random)`.
    """

    n_components: int
    n_features: Any
    startprob_: Any
    monitor_: ConvergenceMonitor
    transmat_: Any
    #: further rules of the constructor's arguments
    _rules: dict[str, Any] = {}  # noqa: RUF012

    def fit(self, X, lengths=None):
        """Fit by Baum-Welch.

        Args:
            X: steps of all sequences, one after the other, `[N, D]`.
            lengths: of the sequences, which sum to N; None for one.

        Raises:
            ValueError: data, lengths or parameters that are none.
        """
        X = self._data(X)
        lengths = [len(X)] if lengths is None else lengths
        self._init(X, lengths)
        self._check()
        self.monitor_ = self.monitor_ if "monitor_" in vars(self) else self._monitor()
        self.monitor_.reset()
        dtype = self._dtype(X)
        with precision_of(dtype):
            batch = jg.EM().arrange(self._model(dtype), jg.Batch(self._packed(X, lengths, exact=True)))
            for _ in range(self.n_iter):
                statistics, total = _expected(self._model(dtype), batch)
                if not np.isfinite(total):
                    raise ValueError(f"the data have a log-likelihood of {float(total)} under the model")
                self._maximize(jax.tree.map(np.asarray, statistics))
                self.monitor_.report(float(total))
                if self.monitor_.converged:
                    break
                if (self.transmat_.sum(axis=1) == 0).any():
                    LOG.warning("Some rows of transmat_ have zero sum: no transition from that state was observed.")
        return self

    def score(self, X, lengths=None) -> float:
        """Return the log-likelihood of all sequences, nats."""
        X = self._given(X)
        with precision_of(self._dtype(X)):
            return _total(_log_prob(self._model(self._dtype(X)), self._packed(X, lengths)))

    def score_samples(self, X, lengths=None) -> tuple[float, np.ndarray]:
        """Return the log-likelihood of all sequences, nats, and the state probabilities of each step, `[N, K]`."""
        X = self._given(X)
        with precision_of(self._dtype(X)):
            log_prob, posterior = _scored(self._model(self._dtype(X)), self._packed(X, lengths))
        return _total(log_prob), _steps(posterior, X, lengths)

    def decode(self, X, lengths=None, algorithm=None) -> tuple[float, np.ndarray]:
        """Return the states of each step and their score.

        Args:
            X, lengths: as in `fit`.
            algorithm: "viterbi": the likeliest path, and `log p(path, X)`, nats; "map": the likeliest state of each
                step, and the sum of their probabilities; None is that of the constructor.
        """
        algorithm = algorithm or self.algorithm
        if algorithm not in DECODERS:
            raise ValueError(f"Unknown decoder {algorithm!r}: one of {DECODERS}")
        if algorithm == "map":
            _, posterior = self.score_samples(X, lengths)
            return float(posterior.max(axis=1).sum()), posterior.argmax(axis=1)
        X = self._given(X)
        with precision_of(self._dtype(X)):
            found = _decoded(self._model(self._dtype(X)), self._packed(X, lengths))
        return _total(found.log_prob), _steps(found.path, X, lengths)

    def predict(self, X, lengths=None) -> np.ndarray:
        """Return the states of each step, `[N]`, by the decoder of the constructor."""
        return self.decode(X, lengths)[1]

    def predict_proba(self, X, lengths=None) -> np.ndarray:
        """Return the probabilities of the states of each step, `[N, K]`."""
        return self.score_samples(X, lengths)[1]

    def sample(self, n_samples=1, random_state=None, currstate=None) -> tuple[np.ndarray, np.ndarray]:
        """Draw one sequence `[n_samples, D]` and its states `[n_samples]`, from `currstate` on where that is given."""
        check_is_fitted(self, "startprob_")
        self._check()
        random = check_random_state(self.random_state if random_state is None else random_state)
        moves = np.cumsum(self.transmat_, axis=1)
        if currstate is None:
            currstate = (np.cumsum(self.startprob_) > random.rand()).argmax()
        states, drawn = [currstate], [self._draw(currstate, random)]
        for _ in range(n_samples - 1):
            states.append((moves[states[-1]] > random.rand()).argmax())
            drawn.append(self._draw(states[-1], random))
        return np.atleast_2d(drawn), np.array(states, int)

    def aic(self, X, lengths=None) -> float:
        """Return Akaike's information criterion: lower is better."""
        return -2 * self.score(X, lengths) + 2 * sum(self._scalars().values())

    def bic(self, X, lengths=None) -> float:
        """Return the Bayesian information criterion: lower is better."""
        return -2 * self.score(X, lengths) + sum(self._scalars().values()) * np.log(len(X))

    def get_stationary_distribution(self) -> np.ndarray:
        """Return the distribution of states that the chain tends to, `[K]`."""
        check_is_fitted(self, "transmat_")
        values, vectors = np.linalg.eig(np.asarray(self.transmat_).T)
        vector = np.real_if_close(vectors[:, np.argmax(values.real)])
        return vector / vector.sum()

    def to_model(self) -> jg.HMM:
        """Return the model of this library with these parameters."""
        check_is_fitted(self, "startprob_")
        self._check()
        return self._model(np.float32)

    def _monitor(self) -> ConvergenceMonitor:
        return ConvergenceMonitor(self.tol, self.n_iter, self.verbose)

    def _data(self, X: Any) -> np.ndarray:
        return check_array(X, dtype=[np.float64, np.float32])

    def _dtype(self, X: np.ndarray) -> Any:
        return X.dtype if X.dtype == np.float32 else np.dtype(np.float64)

    def _given(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "startprob_")
        self._check()
        X = self._data(X)
        self._check_events(X)
        return X

    def _check_events(self, X: np.ndarray) -> None:
        if X.shape[1] != self.n_features:
            raise ValueError(f"Unexpected number of dimensions, got {X.shape[1]} but expected {self.n_features}")

    def _packed(self, X: np.ndarray, lengths: Any, exact: bool = False) -> Any:
        """Sequences as one array, padded where they have several lengths, or to few lengths for few programs."""
        rows = split(X, lengths)
        rows = [row[:, 0] for row in rows] if self._scalar_events() else rows
        return np.stack(rows) if exact and len({len(row) for row in rows}) == 1 else jg.Sequences.pack(rows)

    def _scalar_events(self) -> bool:
        return False

    def _model(self, dtype: Any) -> jg.HMM:
        with np.errstate(divide="ignore"):  # the logarithm of a move that cannot be
            start, move = (np.log(np.asarray(one, dtype)) for one in (self.startprob_, self.transmat_))
        return jg.HMM(jg.MarkovChain(start, move), self._emissions(dtype))

    def _needs(self, letter: str, name: str) -> bool:
        known = name in vars(self)
        if letter in self.init_params and known:
            LOG.warning(
                "Even though the %r attribute is set, it will be overwritten during initialization because "
                "'init_params' contains %r", name, letter,
            )  # fmt: skip
        return letter in self.init_params or not known

    def _init(self, X, lengths=None) -> None:
        """Start the parameters that `init_params` names, and those that are not there."""
        check_options(self, {
            "n_components": integer(1), "n_iter": integer(0), "tol": real(), "algorithm": one_of(*DECODERS),
            "implementation": one_of("log", "scaling"), **self._rules,
        })  # fmt: skip
        X = self._data(X)
        self._set_events(X)
        k, random = self.n_components, check_random_state(self.random_state)
        if self._needs("s", "startprob_"):
            self.startprob_ = random.dirichlet(np.full(k, 1 / k))
        if self._needs("t", "transmat_"):
            self.transmat_ = random.dirichlet(np.full(k, 1 / k), size=k)
        free = sum(count for letter, count in self._scalars().items() if letter in self.params)
        if X.size < free:
            LOG.warning(
                "Fitting a model with %d free scalar parameters with only %d data points will result in a degenerate "
                "solution.", free, X.size,
            )  # fmt: skip
        self._start_emissions(X)

    def _set_events(self, X: np.ndarray) -> None:
        if "n_features" in vars(self):
            self._check_events(X)
        else:
            self.n_features = X.shape[1]

    def _check(self) -> None:
        """Refuse parameters that are none with a ValueError."""
        k = self.n_components
        for name, shape in (("startprob_", (k,)), ("transmat_", (k, k))):
            value = np.asarray(vars(self)[name], float)
            if value.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {value.shape}")
            check_probabilities(name, value)
            setattr(self, name, value)
        self._check_emissions()

    def _maximize(self, statistics: Any) -> None:
        counts = statistics.chain
        if "s" in self.params:
            start = np.maximum(self.startprob_prior - 1 + counts.initial, 0)
            self.startprob_ = normalized(np.where(self.startprob_ == 0, 0, start))
        if "t" in self.params:
            move = np.maximum(self.transmat_prior - 1 + counts.transition, 0)
            self.transmat_ = normalized(np.where(self.transmat_ == 0, 0, move))
        self._update(statistics.emissions)


def split(X: np.ndarray, lengths: Any) -> list[np.ndarray]:
    """Return the sequences of these lengths.

    Raises:
        ValueError: lengths that do not add up.

    Example:
        >>> [len(one) for one in split(np.zeros((5, 2)), [2, 3])]
        [2, 3]
    """
    if lengths is None:
        return [X]
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 1).any() or lengths.sum() != len(X):
        raise ValueError(
            f"lengths must be positive ints that sum to the {len(X)} samples, got {lengths.tolist()!r:.80} "
            f"with a sum of {lengths.sum()}"
        )
    return np.split(X, np.cumsum(lengths)[:-1])


def _total(log_prob: Any) -> float:
    return float(np.sum(np.asarray(log_prob, np.float64)))


def _steps(padded: Any, X: np.ndarray, lengths: Any) -> np.ndarray:
    """The rows of padded sequences that are steps, one after the other."""
    return np.concatenate([one[: len(row)] for one, row in zip(np.asarray(padded), split(X, lengths), strict=True)])


def normalized(value: np.ndarray) -> np.ndarray:
    """Return rows that sum to one; rows of zeros as they are."""
    total = value.sum(axis=-1, keepdims=True)
    return value / np.where(total == 0, 1, total)


def check_probabilities(name: str, value: np.ndarray) -> None:
    """Refuse rows that do not sum to one with a ValueError."""
    sums = value.sum(axis=-1)
    if not np.allclose(sums, 1) or (value < 0).any():
        raise ValueError(f"{name} must be probabilities whose rows sum to 1, got sums of {sums}")
