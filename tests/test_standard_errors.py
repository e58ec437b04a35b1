"""Standard errors against closed forms, finite differences of an independent likelihood, and a parametric bootstrap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg

RNG = np.random.default_rng(0)
POINTS = (RNG.normal(size=(200, 2)) * [1.0, 40.0] + [0.0, 300.0]).astype(np.float32)
LABELS = np.repeat([0, 1, 2], [20, 50, 130])


close = functools.partial(np.testing.assert_allclose, rtol=1e-9)  # float64, summed in another order


def test_gaussian(monkeypatch):
    model = jg.Gaussian.init(jax.random.key(0), POINTS)
    wanted = lambda m: {"mean": m.mean, "covariance": m.covariance}  # noqa: E731
    errors = jg.standard_errors(model, POINTS, wanted)
    cov = np.cov(POINTS.T.astype(np.float64), bias=True)
    # what float32 leaves of the maximum
    np.testing.assert_allclose(errors["mean"], np.sqrt(np.diag(cov) / 200), rtol=1e-5)
    variances = np.diag(cov)
    np.testing.assert_allclose(
        errors["covariance"], np.sqrt((np.outer(variances, variances) + cov**2) / 200), rtol=1e-4
    )
    # in chunks, of which the last overlaps the one before
    monkeypatch.setattr("jaxgen.metrics.errors.CHUNK_SCALARS", 150)
    chunked = jg.standard_errors(model, POINTS, wanted)
    jax.tree.map(close, chunked, errors)
    # a weight of 4 halves the error
    fourfold = jg.standard_errors(model, (POINTS, None, np.full(200, 4.0)), wanted)
    jax.tree.map(lambda a, b: close(2 * a, b), fourfold, errors)
    own = jg.standard_errors(model, POINTS)
    np.testing.assert_allclose(own.offset, errors["mean"], rtol=1e-9)
    # the triangle that the likelihood does not look at
    assert own.raw[0, 1] == np.inf
    assert np.isfinite(own.raw[np.tril_indices(2)]).all()


def test_probabilities():
    bits = np.repeat([[0, 1], [1, 1], [0, 0]], [3, 4, 5], axis=0)
    p = bits.mean(axis=0)
    found = jg.standard_errors(jg.Bernoulli.init(jax.random.key(0), bits), bits, lambda m: m.probs)
    np.testing.assert_allclose(found, np.sqrt(p * (1 - p) / 12), rtol=1e-5)
    p = np.bincount(LABELS, minlength=4) / 200
    model = jg.Categorical.init(jax.random.key(0), LABELS)
    np.testing.assert_allclose(
        jg.standard_errors(model, LABELS, lambda m: m.probs), np.sqrt(p[:3] * (1 - p[:3]) / 200), rtol=1e-5
    )
    # logits are those around their mean: the pseudo-inverse of the multinomial's information
    inverse = np.linalg.pinv(200 * (np.diag(p[:3]) - np.outer(p[:3], p[:3])))
    np.testing.assert_allclose(jg.standard_errors(model, LABELS).logits, np.sqrt(np.diag(inverse)), rtol=1e-5)
    # a label that was never seen, and one that cannot be
    never = jg.Categorical.init(jax.random.key(0), LABELS, size=4)
    hard = jg.Categorical.from_values(np.where(np.arange(4) < 3, p, 0))
    for rare in (never, hard):
        found = jg.standard_errors(rare, LABELS, lambda m: m.probs)
        np.testing.assert_allclose(found, np.sqrt(p * (1 - p) / 200), rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(jg.standard_errors(hard, LABELS).logits[:3], np.sqrt(np.diag(inverse)), rtol=1e-5)
    # with a prior the posterior's curvature: that of as many more events
    prior = jg.Categorical.init(jax.random.key(0), LABELS, prior=[11.0, 1.0, 1.0])
    q = (np.bincount(LABELS) + [10, 0, 0]) / 210
    found = jg.standard_errors(prior, LABELS, lambda m: m.probs)
    np.testing.assert_allclose(found, np.sqrt(q * (1 - q) / 210), rtol=1e-5)


LENGTHS, FITS = np.array([128, 90, 110], np.int32), 201


@functools.lru_cache(maxsize=1)
def fits():
    """A hidden Markov model of counts that starts in its first state, fitted to many draws of three sequences."""
    truth = jg.HMM.from_values([1.0, 0.0], [[0.9, 0.1], [0.2, 0.8]], jg.Poisson.from_values([2.0, 9.0]))
    x = truth.sample(jax.random.key(0), (FITS, 3), length=128)
    refit = lambda x: jg.scan_fit(jax.random.key(0), truth, jg.Sequences(x, LENGTHS), jg.EM(), steps=60).model  # noqa: E731
    models = jax.jit(jax.vmap(refit))(x)
    # errors differ with the estimates that they are of: one that is near the truth stands for all
    away = jnp.linalg.norm((jax.vmap(lambda m: m.transition)(models) - truth.transition).reshape(FITS, -1), axis=1)
    return np.asarray(x), models, int(jnp.argmin(away))


def chain():
    x, models, i = fits()
    return x[i], jg.Sequences(x[i], LENGTHS), jax.tree.map(lambda leaf: leaf[i], models)


def log_likelihood(theta, x):
    """The forward algorithm, in probabilities: `theta` is logits of the two moves and logarithms of the rates."""
    a, b = 1 / (1 + np.exp(-theta[:2]))
    move, rate = np.array([[1 - a, a], [b, 1 - b]]), np.exp(theta[2:])
    total = 0.0
    for row, length in zip(x, LENGTHS, strict=True):
        state = np.array([1.0, 0.0])
        # log x! is left out: a constant
        for t, x in enumerate(row[:length]):
            state = (state @ move if t else state) * np.exp(x * np.log(rate) - rate)
            total, state = total + np.log(state.sum()), state / state.sum()
    return total


def wanted(model):
    return model.transition, model.emissions.rate, model.initial


def test_hidden_markov_model_by_finite_differences():
    x, data, model = chain()
    move, rate = np.asarray(model.transition, np.float64), np.asarray(model.emissions.rate, np.float64)
    p = np.array([move[0, 1], move[1, 0]])
    theta, h = np.concatenate([np.log(p / (1 - p)), np.log(rate)]), 1e-3
    steps = h * np.eye(4)
    f = lambda shift: log_likelihood(theta + shift, x)  # noqa: E731
    hessian = np.array([[f(a + b) - f(a - b) - f(b - a) + f(-a - b) for a in steps] for b in steps]) / (4 * h * h)
    covariance = np.linalg.inv(-hessian)
    moves = p * (1 - p) * np.sqrt(np.diag(covariance)[:2])
    transition, rates, initial = jg.standard_errors(model, data, wanted)
    # central differences at h = 1e-3 are off by h^2 of the fourth derivative
    np.testing.assert_allclose(transition, [[moves[0]] * 2, [moves[1]] * 2], rtol=1e-4)
    np.testing.assert_allclose(rates, rate * np.sqrt(np.diag(covariance)[2:]), rtol=1e-4)
    np.testing.assert_array_equal(initial, [0, 0])


def test_hidden_markov_model_by_simulation():
    _, data, model = chain()
    draws = jax.vmap(wanted)(fits()[1])
    for drawn, error in zip(draws, jg.standard_errors(model, data, wanted), strict=True):
        # 200 fits know a deviation to 5 %, of which four are 20; 328 steps are not infinitely many
        np.testing.assert_allclose(np.asarray(drawn).std(axis=0), error, rtol=0.25, atol=1e-6)


def test_shared_covariance():
    # components so far apart that each event has its own: then all is closed
    x = np.concatenate([POINTS[:80] / [1, 40], POINTS[80:] / [1, 40] + 50]).astype(np.float32)
    start = jg.Mixture.init(jax.random.key(0), x, 2, functools.partial(jg.Gaussian.init, tied=True))
    model = jg.fit(jax.random.key(0), start, x, tolerance=1e-9).model
    errors = jg.standard_errors(model, x, lambda m: (m.weights, m.components.mean, m.components.covariance))
    order = np.argsort(model.components.mean[:, 0])
    residual = np.concatenate([x[:80] - x[:80].mean(0), x[80:] - x[80:].mean(0)]).astype(np.float64)
    cov = residual.T @ residual / 200
    variances = np.diag(cov)
    np.testing.assert_allclose(errors[0], np.sqrt(0.4 * 0.6 / 200), rtol=1e-4)
    np.testing.assert_allclose(errors[1][order], np.sqrt(variances / np.array([[80], [120]])), rtol=1e-4)
    shared = np.sqrt((np.outer(variances, variances) + cov**2) / 200)
    np.testing.assert_allclose(errors[2], [shared, shared], rtol=1e-4)


def test_components_that_fell_together_do_not_share():
    bits = np.repeat([[0], [1]], [30, 70], axis=0)
    with jax.enable_x64(True):  # at the maximum to the last digit: next to it there is a little curvature
        coins = jg.Mixture.from_components(jg.Bernoulli.from_values([[0.7], [0.7]]))
    # only the mean of the two is determined
    each, mean = jg.standard_errors(coins, bits, lambda m: (m.components.probs, m.weights @ m.components.probs))
    assert (each == np.inf).all()
    np.testing.assert_allclose(mean, [np.sqrt(0.21 / 100)], rtol=1e-5)


def test_refusals():
    key = jax.random.key(0)
    normal = lambda mean, scale=1.0: jg.DiagonalGaussian.from_values([mean], [scale])  # noqa: E731
    x = np.concatenate([RNG.normal(size=(50, 1)) - 4, RNG.normal(size=(50, 1)) + 4]).astype(np.float32)
    with pytest.raises(jg.FitError, match="standard errors away"):
        jg.standard_errors(normal(1.0, 4.0), x)
    # a saddle: two components in one place, between two clusters
    both = [normal(float(x.mean()), float(x.std()))] * 2
    with pytest.raises(jg.FitError, match="positive semidefinite"):
        jg.standard_errors(jg.Mixture.from_components(both), x)
    label = jg.Categorical.from_values([0.5, 0.5, 0.0])
    with pytest.raises(jg.FitError, match="not finite"):
        jg.standard_errors(label, np.array([0, 1, 2]))
    with pytest.raises(jg.ModelError, match="floating"):
        jg.standard_errors(jg.Categorical.from_values([0.5, 0.5]), np.array([0, 1]), lambda m: m.mode)
    with pytest.raises(jg.ModelError, match="finite derivatives"):
        jg.standard_errors(jg.Categorical.from_values([0.5, 0.5]), np.array([0, 1]), lambda m: m.logits / 0)
    with pytest.raises(jg.ModelError, match="exact likelihood"):
        jg.standard_errors(jg.RBM.init(key, np.zeros((4, 3), np.float32), 2), np.zeros((4, 3), np.float32))
    with pytest.raises(jg.ModelError, match="trains nothing"):
        jg.standard_errors(jg.StandardNormal((2,)), POINTS)
    with pytest.raises(jg.DataError, match="leading axis"):
        jg.standard_errors(chain()[2], jnp.zeros(5, jnp.int32))
