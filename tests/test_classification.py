"""Classes by densities, by propagation and by spreading, and decisions, against scikit-learn and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.metrics import log_loss

import jaxgen as jg
from jaxgen.tasks import (
    agreement,
    class_densities,
    decide,
    labeller,
    neighbour_accuracy,
    propagate,
    spread_labels,
    temperature,
)

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
LABEL = RANDOM.integers(0, 3, 150)
X = (RANDOM.normal(size=(150, 2)) + np.array([[0, 0], [3, 0], [0, 3]])[LABEL]).astype(np.float32)
FEW = np.where(np.arange(150) < 12, LABEL, -1)


def test_a_gaussian_for_each_class_is_quadratic_discriminant_analysis():
    found = class_densities(KEY, jg.Gaussian.init, X, LABEL)
    theirs = QuadraticDiscriminantAnalysis().fit(X, LABEL)
    # theirs divides by one event less: of 45 in a class covariances differ by a fiftieth
    np.testing.assert_allclose(found.model.responsibilities(X), theirs.predict_proba(X), atol=0.03)
    np.testing.assert_allclose(found.model.weights, np.bincount(LABEL) / 150, rtol=1e-5)
    for c in range(3):
        own = X[c == LABEL].astype(np.float64)
        part = jax.tree.map(lambda a, c=c: a[c], found.model.components)
        np.testing.assert_allclose(part.covariance, np.cov(own.T, bias=True), rtol=1e-4, atol=1e-5)
    priors = class_densities(KEY, jg.Gaussian.init, X, np.where(LABEL == 2, LABEL, FEW), priors=[0.2, 0.3, 0.5]).model
    np.testing.assert_allclose(priors.weights, [0.2, 0.3, 0.5], rtol=1e-6)


def test_weights_are_repetitions_and_each_class_may_have_its_own_start():
    weight = np.where(np.arange(150) < 100, 2.0, 0.0)
    start = lambda key, data: jg.Gaussian.init(key, data["x"])  # noqa: E731
    heavy = class_densities(KEY, start, {"x": X, "weight": weight}, LABEL).model
    np.testing.assert_allclose(heavy.log_prob(X), class_densities(KEY, jg.Gaussian.init, X[:100], LABEL[:100])
                               .model.log_prob(X), rtol=1e-4, atol=1e-4)  # fmt: skip
    two = functools.partial(jg.Mixture.init, k=2, leaf=jg.DiagonalGaussian.init)
    mixed = class_densities(KEY, [jg.Gaussian.init, jg.Gaussian.init, two], X, LABEL, steps=5)
    assert np.mean(mixed.model.predict(X) == LABEL) > 0.9 and len(mixed.fits) == 3


def test_classes_of_components_are_the_best_table():
    mixture = jg.fit(KEY, jg.Mixture.init(KEY, X, 5, jg.Gaussian.init), X, steps=20, progress=False).model
    found = propagate(mixture, X, FEW, strength=0.5)
    share, wanted = np.asarray(mixture.responsibilities(X[:12]), np.float64), np.eye(3)[LABEL[:12]]
    prior = wanted.mean(axis=0)

    def loss(logits):
        table = np.exp(logits.reshape(5, 3))
        table /= table.sum(axis=1, keepdims=True)
        return -np.sum(wanted * np.log(share @ table)) - 0.5 * np.sum(prior * np.log(table))

    theirs = minimize(loss, np.zeros(15), tol=1e-9)
    assert loss(np.log(np.asarray(found.table, np.float64)).ravel()) <= theirs.fun + 1e-4
    np.testing.assert_allclose(found.responsibilities(X), mixture.responsibilities(X) @ found.table, atol=1e-5)
    assert np.mean(found.predict(X) == LABEL) > 0.75  # of a third by chance, by twelve labels
    np.testing.assert_allclose(jg.tasks.features(found, X), found.responsibilities(X), atol=1e-6)
    four = propagate(mixture, X, FEW, classes=4)  # a class that no label names
    np.testing.assert_allclose(np.asarray(four.table)[:, 3], 0)


def test_labels_spread_to_the_solution_of_the_linear_system():
    n, k, reach = 150, 6, 0.9
    squares = ((X[:, None].astype(np.float64) - X[None]) ** 2).sum(-1)
    np.fill_diagonal(squares, np.inf)
    near = np.argsort(squares, axis=1)[:, :k]
    last = np.sqrt(np.sort(squares, axis=1)[:, k - 1])
    edges = np.zeros((n, n))
    for i in range(n):
        edges[i, near[i]] = np.exp(-squares[i, near[i]] / (last[i] * last[near[i]]))
    edges = edges + edges.T
    root = np.sqrt(edges.sum(axis=1))
    start = np.where(FEW[:, None] == np.arange(3), 1.0, 0.0)
    expected = np.linalg.solve(np.eye(n) - reach * edges / np.outer(root, root), start / start.sum(axis=0))
    expected /= expected.sum(axis=1, keepdims=True)
    found = spread_labels(X, FEW, neighbours=k, reach=reach)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # it ends when shares change by 1e-5
    assert np.mean(found.argmax(axis=1) == LABEL) > 0.85
    np.testing.assert_allclose(spread_labels(1e4 * X, FEW, neighbours=k, reach=reach), found, atol=2e-3)
    apart = spread_labels([[0.0], [0.0], [0.0], [9.0], [9.0], [9.0]], [1, -1, -1, -1, -1, -1], classes=2, neighbours=2)
    np.testing.assert_allclose(apart, [[0, 1]] * 3 + [[0.5, 0.5]] * 3)  # no label gets there


def test_the_temperature_is_the_best_one():
    logits = RANDOM.normal(size=(400, 3))
    sure = np.exp(3 * logits) / np.exp(3 * logits).sum(axis=1, keepdims=True)
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (true.cumsum(axis=1) < RANDOM.random((400, 1))).sum(axis=1)
    found = temperature(sure, label)
    assert 2.4 < found < 3.8  # 3 but for chance
    tried = [log_loss(label, jg.tasks.decisions.tempered(sure, t)) for t in (0.97 * found, found, 1.03 * found)]
    assert tried[1] < tried[0] and tried[1] < tried[2]
    steps = temperature(sure.reshape(200, 2, 3), np.where(np.arange(400) < 390, label, -1).reshape(200, 2))
    assert steps == pytest.approx(temperature(sure[:390], label[:390]))


def test_a_labeller_of_each_kind():
    mixture = class_densities(KEY, jg.Gaussian.init, X[:75], LABEL[:75]).model
    calibrated = labeller(mixture, X[75:], LABEL[75:], reject=0.8)
    raw = np.asarray(mixture.responsibilities(X), np.float64)
    logs = np.log(raw) / calibrated.temperature
    np.testing.assert_allclose(calibrated.probabilities(X), np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True),
                               rtol=1e-4, atol=1e-6)  # fmt: skip
    found = calibrated.predict(X)
    assert (found == -1).any() and np.mean(found[found >= 0] == LABEL[found >= 0]) > np.mean(raw.argmax(1) == LABEL)
    hmm = jg.HMM.init(KEY, X.reshape(3, 50, 2), 3, jg.Gaussian.init)
    assert labeller(hmm, X.reshape(3, 50, 2), LABEL.reshape(3, 50)).predict(X.reshape(3, 50, 2)).shape == (3, 50)
    both = jg.SemiSupervised.init(KEY, X, jg.VAE.init(KEY, X, jg.StandardNormal((2,)), hidden=(4,), context_shape=(3,),
                                                      likelihood=jg.likelihoods.gaussian), hidden=(4,))  # fmt: skip
    np.testing.assert_allclose(labeller(both).probabilities(X), both.classify(X), rtol=1e-4)
    np.testing.assert_allclose(
        labeller(lambda x: mixture.responsibilities(x)).probabilities(X), raw, rtol=1e-4, atol=1e-6
    )
    assert decide(raw, reject=1.0).max() <= 2


def test_bad_input():
    ask = functools.partial(class_densities, KEY, jg.Gaussian.init)
    with pytest.raises(jg.DataError, match="only one class"):
        ask(X, np.zeros(150))
    with pytest.raises(jg.DataError, match="no label is known"):
        ask(X, np.full(150, -1))
    with pytest.raises(jg.ShapeError, match="a label for each"):
        ask(X, LABEL[:-1])
    with pytest.raises(jg.DataError, match=r"(?s)class has no events.*\[1\]"):
        ask(X, np.where(LABEL == 1, 2, LABEL))
    with pytest.raises(jg.FitError, match="3 functions"):
        class_densities(KEY, [jg.Gaussian.init], X, LABEL)
    with pytest.raises(jg.ModelError, match="priors holds no probabilities"):
        ask(X, LABEL, priors=[0.5, 0.5, 0.5])
    with pytest.raises(jg.DataError, match="NaN"):
        ask(np.where(X[0, 0] == X, np.nan, X), LABEL)
    mixture = jg.Mixture.init(KEY, X, 2, jg.Gaussian.init)
    with pytest.raises(jg.ModelError, match="no components"):
        propagate(jg.Gaussian.init(KEY, X), X, FEW)
    with pytest.raises(jg.DataError, match="a class that is not there"):
        propagate(mixture, X, FEW, classes=2)
    with pytest.raises(jg.FitError, match="strength above 0"):
        propagate(mixture, X, FEW, strength=0)
    with pytest.raises(jg.ShapeError, match="event"):
        propagate(mixture, X[:, :1], FEW)
    with pytest.raises(jg.FitError, match="1 to 149"):
        spread_labels(X, FEW, neighbours=150)
    with pytest.raises(jg.FitError, match="reach above 0"):
        spread_labels(X, FEW, reach=1.0)
    with pytest.raises(jg.DataError, match="with a sum of 1"):
        temperature(X, FEW % 2)
    with pytest.raises(jg.ModelError, match="knows no classes"):
        labeller(jg.Gaussian.init(KEY, X))
    with pytest.raises(jg.DataError, match="together"):
        labeller(mixture, X)
    with pytest.raises(jg.FitError, match="0 to 1"):
        labeller(mixture, reject=2.0)
    assert jnp.all(labeller(mixture).predict(X) >= 0)


@pytest.mark.parametrize("call", [
    lambda label: spread_labels(X, label), lambda label: class_densities(KEY, jg.Gaussian.init, X, label),
    lambda label: propagate(jg.Mixture.from_components(jg.Gaussian.from_values(np.zeros((2, 2)), [np.eye(2)] * 2)), X,
                            label),
])  # fmt: skip
def test_codes_that_number_no_classes_are_refused_before_a_table_of_them_is_made(call):
    with pytest.raises(jg.DataError, match="no numbers of classes"):
        call(LABEL * 1_000_000)


def test_agreement_and_neighbours_take_any_codes():
    assert agreement(LABEL * 1_000_000_000, LABEL).accuracy == 1
    assert neighbour_accuracy(X, LABEL * 1_000_000_000, X, LABEL * 1_000_000_000) == 1


@pytest.mark.parametrize("probs", [[[-0.2, 1.2]], [[1.0, 1.0]]])
def test_a_decision_is_made_of_probabilities(probs):
    with pytest.raises(jg.DataError, match="no probabilities"):
        decide(probs)
